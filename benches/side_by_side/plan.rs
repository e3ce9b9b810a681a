//! What is measured: the rows of the table, the peers in each, and the goals.

use crate::{
    companion::Companion, load::Load, messages::Protocol, options::Options, pgbench::Script,
    sample::Metric, startup::Start,
};

/// A row of the table. The first entry is the service.
pub(crate) struct Row {
    pub(crate) name: String,
    pub(crate) entries: Vec<Entry>,
}

/// One measurement in a row.
pub(crate) struct Entry {
    pub(crate) name: &'static str,
    pub(crate) measure: Measure,
    /// The build of the service that is measured.
    pub(crate) build: Build,
    /// The goal of the service: relative to this entry, or (in the first entry) absolute.
    pub(crate) goals: Vec<Goal>,
}

/// A bound for the service: a minimum for rates, a maximum for everything else.
#[derive(Clone, Copy)]
pub(crate) struct Goal {
    pub(crate) metric: Metric,
    pub(crate) bound: f64,
}

/// A build of the service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Build {
    /// The current one.
    Present,
    /// The one that `--before` names.
    Before,
}

/// The server that is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Server {
    /// voicecall on the seeded database.
    Ours,
    /// Another build of it, on a copy of the database.
    Before,
    /// Another voicecall on the same database.
    Replica,
    /// voicecall on a nearly empty database of its own.
    Small,
    Floor,
    Baseline,
    Etcd,
}

/// How a figure is measured.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Measure {
    Drive(Server, Load, usize),
    /// The last page of a list.
    LastPage(Load),
    /// The first page of the list whose last was measured before, in turn with it.
    FirstPage,
    Pgbench(Script),
    /// Watchers, and calls in each write.
    Watch(Protocol, usize, usize),
    /// Writes a second.
    Age(Protocol, u32),
    /// The same, 200 a second, with writes on another replica.
    ReplicaAge,
    Start(Start),
    Memory,
    /// The memory of each of 10,000 watchers.
    WatcherMemory,
    /// The mixed load, at three times the capacity.
    Overload,
    /// The mixed load, at capacity; measured before the overload.
    Capacity,
    /// Creates beside a companion.
    Beside(Companion),
    /// Ages of events at ten watchers, possibly beside one that does not read.
    StalledAge(bool),
    Import,
    CopyIn,
    Export,
    CopyOut,
    /// By status and day, in psql.
    Count,
}

fn row(name: impl Into<String>, entries: Vec<Entry>) -> Row {
    Row {
        name: name.into(),
        entries,
    }
}

fn entry(name: &'static str, measure: Measure, goals: &[(Metric, f64)]) -> Entry {
    let goals = goals.iter().map(|&(metric, bound)| Goal { metric, bound });
    Entry {
        name,
        measure,
        build: Build::Present,
        goals: goals.collect(),
    }
}

fn ours(load: Load, concurrency: usize) -> Entry {
    entry(
        "voicecall",
        Measure::Drive(Server::Ours, load, concurrency),
        &[],
    )
}

fn beside(
    name: &'static str,
    server: Server,
    load: Load,
    concurrency: usize,
    goals: &[(Metric, f64)],
) -> Entry {
    entry(name, Measure::Drive(server, load, concurrency), goals)
}

/// All rows whose name contains one of the words in `only`.
pub(crate) fn plan(options: &Options) -> Vec<Row> {
    let mut rows = requests();
    rows.extend(lists());
    rows.extend(streams());
    rows.extend(bulk());
    rows.extend(beside_others());
    rows.extend(rest(options.rows));
    rows.retain(|row| {
        let wanted = |word: &String| row.name.to_lowercase().contains(&word.to_lowercase());
        options.only.is_empty() || options.only.iter().any(wanted)
    });
    if options.before.is_some() {
        rows = rows.into_iter().filter_map(with_before).collect();
    }
    rows
}

/// The row with another build of the service as the only peer, if it is about requests or
/// watchers: the goal of the current one is at least 0.95 of it.
fn with_before(row: Row) -> Option<Row> {
    use Metric::{P50, Rate};
    let ours = row.entries.into_iter().next()?;
    let goal = match ours.measure {
        Measure::Drive(Server::Ours, ..) | Measure::Watch(Protocol::Voicecall, ..) => (Rate, 0.95),
        Measure::Age(Protocol::Voicecall, _) => (P50, 1.0 / 0.95),
        _ => return None,
    };
    let before = Entry {
        build: Build::Before,
        ..entry("before", ours.measure, &[goal])
    };
    let ours = Entry {
        goals: Vec::new(),
        ..ours
    };
    Some(Row {
        name: row.name,
        entries: vec![ours, before],
    })
}

fn requests() -> Vec<Row> {
    use Metric::{P50, Rate};
    let create = |concurrency| ours(Load::Create, concurrency);
    let put = |concurrency, goals: &[_]| {
        beside("etcd put", Server::Etcd, Load::Create, concurrency, goals)
    };
    let plain = |load, concurrency, goals: &[_]| {
        beside("baseline", Server::Baseline, load, concurrency, goals)
    };
    let pgbench = |name, script, goals: &[_]| entry(name, Measure::Pgbench(script), goals);
    vec![
        row(
            "CreateVoiceCall (256)",
            vec![
                create(256),
                put(256, &[(Rate, 1.5)]),
                pgbench("pgbench insert, no log", Script::Insert, &[(Rate, 1.0)]),
                plain(Load::Create, 256, &[(Rate, 5.0)]),
            ],
        ),
        row("CreateVoiceCall (64)", vec![create(64), put(64, &[])]),
        row(
            "CreateVoiceCall (1)",
            vec![create(1), put(1, &[(P50, 1.3)])],
        ),
        row(
            "UpdateVoiceCall of status (256)",
            vec![
                ours(Load::Update, 256),
                pgbench(
                    "pgbench update + change row",
                    Script::Update,
                    &[(Rate, 1.3)],
                ),
            ],
        ),
        row(
            "GetVoiceCall (64)",
            vec![
                ours(Load::Get, 64),
                beside("bare tonic", Server::Floor, Load::Get, 64, &[(Rate, 0.85)]),
                beside(
                    "etcd get, linearizable",
                    Server::Etcd,
                    Load::Get,
                    64,
                    &[(Rate, 5.0)],
                ),
                plain(Load::Get, 64, &[(Rate, 3.0)]),
                pgbench("pgbench select", Script::Select, &[]),
            ],
        ),
        row(
            "mixed: 70 % get, 15 % list of 50, 15 % writes (64)",
            vec![
                ours(Load::Mixed, 64),
                plain(Load::Mixed, 64, &[(Rate, 2.0)]),
            ],
        ),
    ]
}

fn lists() -> Vec<Row> {
    let page = |name: &str, load| {
        let last = entry("last page", Measure::LastPage(load), &[(Metric::P50, 3.0)]);
        let first = entry("first page", Measure::FirstPage, &[(Metric::P50, 1.2)]);
        row(format!("ListVoiceCalls, 100 {name} (1)"), vec![last, first])
    };
    vec![
        page("by time", Load::ListByTime),
        page("of one staff", Load::ListByStaff),
        page("of one client", Load::ListByClient),
        page("of one number, either side", Load::ListByNumber),
        page("missed and not handled", Load::ListToHandle),
        page("recently updated", Load::ListByUpdate),
    ]
}

fn streams() -> Vec<Row> {
    use Metric::{P50, P99, Rate};
    let fan_out = |name, watchers, batch, floor, etcd| {
        let measure = |protocol| Measure::Watch(protocol, watchers, batch);
        let goal = |bound: Option<f64>| bound.map(|bound| (Rate, bound));
        row(
            name,
            vec![
                entry("voicecall", measure(Protocol::Voicecall), &[]),
                entry(
                    "bare tonic, one event a message",
                    measure(Protocol::Floor),
                    goal(floor).as_slice(),
                ),
                entry("etcd watch", measure(Protocol::Etcd), goal(etcd).as_slice()),
            ],
        )
    };
    let (one, many) = ("fan-out to 100 watchers", "fan-out to 1,000 watchers");
    vec![
        fan_out(one, 100, 1, Some(1.2), Some(2.5)),
        fan_out(many, 1000, 1, Some(1.2), Some(1.5)),
        fan_out("fan-out to 100, written 50 at once", 100, 50, None, None),
        row(
            "write-to-watch age, 200 writes/s, 100 watchers",
            vec![
                entry("voicecall", Measure::Age(Protocol::Voicecall, 200), &[]),
                entry(
                    "etcd watch",
                    Measure::Age(Protocol::Etcd, 200),
                    &[(P50, 1.0), (P99, 1.0)],
                ),
            ],
        ),
        row(
            "the same age when another replica writes",
            vec![entry("voicecall", Measure::ReplicaAge, &[(P99, 20.0)])],
        ),
    ]
}

fn bulk() -> Vec<Row> {
    use Metric::{Mib, P50, Rate};
    vec![
        row(
            "ImportVoiceCalls of as many, at a client that decodes",
            vec![
                entry("voicecall", Measure::Import, &[(Mib, 64.0)]),
                entry("psql COPY in, no log", Measure::CopyIn, &[(Rate, 0.35)]),
            ],
        ),
        row(
            "ExportVoiceCalls of all, at a client that decodes",
            vec![
                entry("voicecall", Measure::Export, &[(Mib, 64.0)]),
                entry("psql COPY out", Measure::CopyOut, &[(Rate, 0.25)]),
            ],
        ),
        row(
            "GetVoiceCallStats of all, by status and day (1)",
            vec![
                ours(Load::Stats, 1),
                entry("the same SQL in psql", Measure::Count, &[(P50, 2.0)]),
            ],
        ),
    ]
}

fn beside_others() -> Vec<Row> {
    use Metric::{P99, Rate};
    let beside = |name, companion, other, other_name, bound| {
        row(
            format!("CreateVoiceCall (256) beside {name}"),
            vec![
                entry("voicecall", Measure::Beside(companion), &[]),
                entry(other_name, Measure::Beside(other), &[(Rate, bound)]),
            ],
        )
    };
    let alone = |name, companion, bound| beside(name, companion, Companion::Nobody, "alone", bound);
    vec![
        alone("a watcher of everything", Companion::Watcher, 0.95),
        beside(
            "10,000 watchers of one staff each",
            Companion::StaffWatchers,
            Companion::Watcher,
            "beside one watcher",
            0.8,
        ),
        alone("a slow snapshot", Companion::SlowSnapshot, 0.9),
        alone("a slow export", Companion::SlowExport, 0.9),
        alone("a transaction left open", Companion::OpenTransaction, 0.9),
        row(
            "age for 10 watchers, 2,000 writes/s, beside one that does not read",
            vec![
                entry("voicecall", Measure::StalledAge(true), &[]),
                entry("without it", Measure::StalledAge(false), &[(P99, 1.5)]),
            ],
        ),
    ]
}

fn rest(rows: u64) -> Vec<Row> {
    use Metric::{KibEach, Mib, P50, Rate, RefusedP99};
    let start = |name, start, bound| {
        let ours = entry("voicecall", Measure::Start(start), &[(P50, bound)]);
        row(name, vec![ours])
    };
    let size = |name: &str, load, concurrency| {
        let small = beside(
            "on a small one",
            Server::Small,
            load,
            concurrency,
            &[(Rate, 0.8)],
        );
        let name = format!("{name} on a database of {rows} calls ({concurrency})");
        row(name, vec![ours(load, concurrency), small])
    };
    vec![
        size("CreateVoiceCall", Load::Create, 256),
        size("GetVoiceCall", Load::Get, 64),
        row(
            "memory, idle",
            vec![entry("voicecall", Measure::Memory, &[(Mib, 40.0)])],
        ),
        row(
            "memory of an idle watcher, of 10,000",
            vec![entry(
                "voicecall",
                Measure::WatcherMemory,
                &[(KibEach, 10.0)],
            )],
        ),
        start("start, external database", Start::External, 150.0),
        start("start, embedded, stopped cleanly", Start::Embedded, 600.0),
        start("start, embedded, the first", Start::EmbeddedFirst, 3000.0),
        row(
            "overload: mixed, open loop at 3 x the capacity",
            vec![
                entry("goodput", Measure::Overload, &[(RefusedP99, 50.0)]),
                entry("capacity (64)", Measure::Capacity, &[(Rate, 0.9)]),
            ],
        ),
    ]
}
