//! Starts everything that is measured, and measures one figure at a time.

use std::{collections::BTreeMap, fs, path::Path, process::Command};

use crate::{
    Result, baseline, bulk,
    companion::Companion,
    driving,
    etcd::{self, Etcd},
    load::{Load, Target, channel},
    memory,
    messages::Protocol,
    options::Options,
    pages, pgbench,
    plan::{Build, Measure, Row, Server},
    postgres::{Postgres, run},
    sample::{Metric, Sample},
    secured, seed,
    service::Service,
    startup, warm,
};

/// Seeded calls in etcd, and in the nearly empty database.
const FEW: u64 = 10_000;
/// The watchers while ages are measured.
const AGE_WATCHERS: usize = 100;
/// Writes per second beside a watcher that does not read, and the number of watchers that do.
const STALLED_RATE: u32 = 2_000;
const STALLED_BESIDE: usize = 10;
/// The load of an overload, as a multiple of the capacity.
const OVERLOAD: f64 = 3.0;
/// How long calls are created to warm a database.
const WARM_SECONDS: f64 = 10.0;

/// Everything that is measured. Fields are dropped in order, so services end before what they
/// depend on.
pub(crate) struct Bench {
    options: Options,
    services: BTreeMap<Server, Service>,
    etcd: Option<Etcd>,
    postgres: Postgres,
    /// The build of the service that is measured.
    build: Build,
    /// What was measured together with another figure: the capacity before an overload, the
    /// first page in turn with the last.
    along: Sample,
}

impl Bench {
    /// Starts PostgreSQL and the servers in these rows.
    pub(crate) fn set_up(options: &Options, rows: &[Row]) -> Result<Self> {
        let measures = || rows.iter().flat_map(|row| &row.entries).map(|e| e.measure);
        let needs = |server| measures().any(|measure| measure.servers().contains(&server));
        let pgbench = measures().any(|measure| matches!(measure, Measure::Pgbench(_)));
        let mut bench = Self {
            options: options.clone(),
            services: BTreeMap::new(),
            etcd: None,
            postgres: Postgres::start(options.rows)?,
            build: Build::Present,
            along: Sample::default(),
        };
        let postgres = &bench.postgres;
        if needs(Server::Ours) || needs(Server::Baseline) || pgbench {
            eprintln!("seeding {} calls", options.rows);
            make_database(postgres, "ours", options.rows)?;
        }
        if pgbench {
            postgres.sql("postgres", "CREATE DATABASE pgbench TEMPLATE ours")?;
            pgbench::prepare(postgres, "pgbench", options.rows)?;
        }
        if needs(Server::Baseline) {
            postgres.sql("postgres", "CREATE DATABASE baseline TEMPLATE ours")?;
            postgres.sql("baseline", baseline::INDEXES)?;
        }
        if measures().any(|measure| measure == Measure::Import) {
            make_database(postgres, bulk::empty(), 0)?;
        }
        if needs(Server::Small) {
            make_database(postgres, "small", FEW)?;
        }
        bench.start_services(needs)?;
        if options.warm {
            bench.warm()?;
        }
        if needs(Server::Etcd) {
            let etcd = Etcd::start()?;
            driving(async {
                let channel = channel(&etcd.endpoint).await?;
                Ok(etcd::seed(channel, FEW).await?)
            })?;
            bench.etcd = Some(etcd);
        }
        Ok(bench)
    }

    /// Starts the servers that are needed, and the build to compare with.
    fn start_services(&mut self, needs: impl Fn(Server) -> bool) -> Result<()> {
        let postgres = &self.postgres;
        if let Some(program) = &self.options.before {
            // With the schema that it knows.
            make_database_with(program, postgres, "before", self.options.rows)?;
            let before = Service::of(program, &postgres.url("before"))?;
            self.services.insert(Server::Before, before);
        }
        let secrets = postgres.dir().join("secrets");
        fs::create_dir_all(&secrets)?;
        let secured = secured::prepare(&self.options.secured, &secrets)?;
        for server in [
            Server::Ours,
            Server::Replica,
            Server::Small,
            Server::Floor,
            Server::Baseline,
        ] {
            if !needs(server) {
                continue;
            }
            let service = match server {
                Server::Floor => Service::ourselves(&["floor"]),
                Server::Baseline => Service::ourselves(&["baseline", &postgres.url("baseline")]),
                Server::Small => Service::on(&postgres.url("small")),
                _ => Service::secured(&postgres.url("ours"), &secured, &secrets),
            };
            self.services.insert(server, service?);
        }
        Ok(())
    }

    /// Warms the databases that differ in size.
    fn warm(&self) -> Result<()> {
        for (server, calls) in [(Server::Ours, self.options.rows), (Server::Small, FEW)] {
            if let Some(service) = self.services.get(&server) {
                driving(warm::look_up(&service.endpoint, calls))?;
            }
        }
        // The small one would no longer be small.
        if self.services.contains_key(&Server::Ours) {
            self.drive_for(WARM_SECONDS, Server::Ours, Load::Create, 256, &[])?;
        }
        Ok(())
    }

    /// The contenders and their versions.
    pub(crate) fn versions(&self) -> Result<String> {
        let mut versions = format!("PostgreSQL {}", self.postgres.version()?);
        if self.etcd.is_some() {
            versions.push_str(&format!(", etcd {}", etcd::version()?));
        }
        Ok(versions)
    }

    /// Measures one figure of this build.
    pub(crate) fn measure(&mut self, measure: Measure, build: Build) -> Result<Sample> {
        self.build = build;
        let seconds = self.options.seconds;
        match measure {
            Measure::Drive(server, load, concurrency) => self.drive(server, load, concurrency, &[]),
            Measure::LastPage(load) => self.last_page(load),
            Measure::Pgbench(script) => {
                self.postgres.checkpoint()?;
                let calls = self.options.rows;
                pgbench::best(&self.postgres, "pgbench", script, calls, seconds)
            }
            Measure::Watch(protocol, watchers, batch) => {
                self.watch(protocol, watchers, &["--batch", &batch.to_string()])
            }
            Measure::Age(protocol, rate) => {
                self.watch(protocol, AGE_WATCHERS, &["--rate", &rate.to_string()])
            }
            Measure::ReplicaAge => {
                let watched = self.endpoint(Server::Replica)?;
                let options = ["--rate", "200", "--watched", watched];
                self.watch(Protocol::Voicecall, AGE_WATCHERS, &options)
            }
            Measure::WatcherMemory => memory::of_watchers(&self.postgres.url("ours")),
            Measure::Start(start) => startup::start(start, &self.postgres.url("ours")),
            Measure::Memory => memory::idle(&self.postgres.url("ours")),
            Measure::Overload => self.overload(),
            Measure::Capacity | Measure::FirstPage => Ok(std::mem::take(&mut self.along)),
            Measure::Beside(companion) => self.beside(companion),
            Measure::StalledAge(stalled) => {
                let rate = STALLED_RATE.to_string();
                let mut options = vec!["--rate", rate.as_str()];
                options.extend(stalled.then_some("--stalled"));
                self.watch(Protocol::Voicecall, STALLED_BESIDE, &options)
            }
            Measure::Import => bulk::import(&self.postgres, self.options.rows),
            Measure::CopyIn => bulk::copy_in(&self.postgres),
            Measure::Export => bulk::export(&self.postgres, "ours"),
            Measure::CopyOut => bulk::copy_out(&self.postgres, "ours"),
            Measure::Count => bulk::count(&self.postgres, "ours"),
        }
    }

    /// Creates beside a companion.
    fn beside(&self, companion: Companion) -> Result<Sample> {
        let running = companion.start(self.endpoint(Server::Ours)?, &self.postgres, "ours")?;
        let sample = self.drive(Server::Ours, Load::Create, 256, &[]);
        if let Some(running) = running {
            running.finish()?;
        }
        sample
    }

    /// The last page of a list, and the first in turn with it.
    fn last_page(&mut self, load: Load) -> Result<Sample> {
        let options = [
            ("--endpoint", self.endpoint(Server::Ours)?.to_owned()),
            ("--load", word(load)?),
            ("--calls", self.options.rows.to_string()),
            ("--seconds", self.options.seconds.to_string()),
        ];
        let seen = pages::Seen::from_json(&drive_with("pages", options, &[])?)?;
        self.along = seen.first;
        Ok(seen.last)
    }

    fn overload(&mut self) -> Result<Sample> {
        self.along = self.drive(Server::Ours, Load::Mixed, 64, &[])?;
        let capacity = self.along.get(Metric::Rate).ok_or("no rate")?;
        let rate = (capacity * OVERLOAD).to_string();
        self.drive(Server::Ours, Load::Mixed, 64, &["--rate", &rate])
    }

    fn endpoint(&self, server: Server) -> Result<&str> {
        let server = match (server, self.build) {
            (Server::Ours, Build::Before) => Server::Before,
            _ => server,
        };
        match server {
            Server::Etcd => self.etcd.as_ref().map(|etcd| etcd.endpoint.as_str()),
            _ => self.services.get(&server).map(|s| s.endpoint.as_str()),
        }
        .ok_or_else(|| "not started".into())
    }

    fn drive(
        &self,
        server: Server,
        load: Load,
        concurrency: usize,
        more: &[&str],
    ) -> Result<Sample> {
        // After a checkpoint each page is logged whole when it is next written to,
        // which warming has done once for all.
        if !matches!(server, Server::Etcd | Server::Floor) && !self.options.warm {
            self.postgres.checkpoint()?;
        }
        self.drive_for(self.options.seconds, server, load, concurrency, more)
    }

    fn drive_for(
        &self,
        seconds: f64,
        server: Server,
        load: Load,
        concurrency: usize,
        more: &[&str],
    ) -> Result<Sample> {
        let calls = match server {
            Server::Etcd | Server::Small => FEW,
            _ => self.options.rows,
        };
        let target = match server {
            Server::Etcd => Target::Etcd,
            _ => Target::Voicecall,
        };
        let options = [
            ("--target", word(target)?),
            ("--endpoint", self.endpoint(server)?.to_owned()),
            ("--load", word(load)?),
            ("--calls", calls.to_string()),
            ("--concurrency", concurrency.to_string()),
            ("--seconds", seconds.to_string()),
        ];
        driver("drive", options, more)
    }

    /// Loads, one request at a time, on a database of another size.
    pub(crate) fn on_size(&self, calls: u64, loads: &[Load]) -> Result<Vec<Sample>> {
        let name = format!("size_{calls}");
        make_database(&self.postgres, &name, calls)?;
        let service = Service::on(&self.postgres.url(&name))?;
        let samples = loads.iter().map(|load| {
            let options = [
                ("--target", word(Target::Voicecall)?),
                ("--endpoint", service.endpoint.clone()),
                ("--load", word(*load)?),
                ("--calls", calls.to_string()),
                ("--concurrency", "1".to_owned()),
                ("--seconds", self.options.seconds.to_string()),
            ];
            driver("drive", options, &[])
        });
        let samples = samples.collect::<Result<_>>()?;
        drop(service);
        self.postgres
            .sql("postgres", &format!("DROP DATABASE {name}"))?;
        Ok(samples)
    }

    fn watch(&self, protocol: Protocol, watchers: usize, more: &[&str]) -> Result<Sample> {
        let server = protocol.server();
        if server == Server::Ours {
            self.postgres.checkpoint()?;
        }
        let options = [
            ("--protocol", word(protocol)?),
            ("--endpoint", self.endpoint(server)?.to_owned()),
            ("--watchers", watchers.to_string()),
            ("--seconds", self.options.seconds.to_string()),
        ];
        driver("watch", options, more)
    }
}

impl Measure {
    /// The servers that it needs.
    fn servers(self) -> Vec<Server> {
        match self {
            Self::Drive(server, ..) => vec![server],
            Self::Watch(protocol, ..) | Self::Age(protocol, _) => vec![protocol.server()],
            Self::LastPage(_)
            | Self::FirstPage
            | Self::Overload
            | Self::Capacity
            | Self::Memory
            | Self::WatcherMemory
            | Self::Beside(_)
            | Self::StalledAge(_)
            | Self::Export
            | Self::CopyOut
            | Self::Count
            | Self::Start(_) => vec![Server::Ours],
            Self::ReplicaAge => vec![Server::Ours, Server::Replica],
            Self::Pgbench(_) | Self::Import | Self::CopyIn => Vec::new(),
        }
    }
}

/// The name of an option's value.
fn word(value: impl clap::ValueEnum) -> Result<String> {
    let value = value.to_possible_value().ok_or("no such word")?;
    Ok(value.get_name().to_owned())
}

/// A database with the current schema and this many calls.
fn make_database(postgres: &Postgres, name: &str, calls: u64) -> Result<()> {
    let program = Path::new(env!("CARGO_BIN_EXE_voicecall"));
    make_database_with(program, postgres, name, calls)
}

/// The same with the schema of another build.
fn make_database_with(program: &Path, postgres: &Postgres, name: &str, calls: u64) -> Result<()> {
    postgres.sql("postgres", &format!("CREATE DATABASE {name}"))?;
    let mut migrate = Command::new(program);
    migrate
        .arg("migrate")
        .env("DATABASE_URL", postgres.url(name));
    run(&mut migrate)?;
    if calls == 0 {
        return Ok(());
    }
    seed::seed(postgres, name, calls)
}

/// Runs this program as a driver, and parses its sample.
pub(crate) fn driver<const N: usize>(
    role: &str,
    options: [(&str, String); N],
    more: &[&str],
) -> Result<Sample> {
    Sample::from_json(&drive_with(role, options, more)?)
}

/// The same, and returns its lines as they are.
fn drive_with<const N: usize>(
    role: &str,
    options: [(&str, String); N],
    more: &[&str],
) -> Result<String> {
    let mut driver = Command::new(std::env::current_exe()?);
    driver.arg(role);
    for (flag, value) in options {
        driver.args([flag, &value]);
    }
    driver.args(more);
    run(&mut driver)
}
