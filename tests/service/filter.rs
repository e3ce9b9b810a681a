//! A view, which is a filter and the narrowing of a caller, is compiled twice, to SQL and to a
//! predicate in Rust: both select the same calls, for views and calls at random.

use std::{cell::Cell, sync::Arc};

use proptest::{
    option::weighted,
    prelude::*,
    sample::{select, subsequence},
    strategy::ValueTree,
    test_runner::{Config, TestRunner},
};
use prost_types::Timestamp as ProtoTime;
use tokio::{runtime::Runtime, time::Instant};
use uuid::Uuid;
use voicecall::{
    domain::{
        Call, Direction, Filter, Identifier, Narrowing, PhoneNumber, Revision, Seconds,
        StaffNarrowing, Status, Timestamp, View,
        filter::TimeRange,
        list::{Order, OrderField},
    },
    proto::{
        BatchCreateVoiceCallsRequest, ListVoiceCallsRequest, VoiceCall, VoiceCallDirection,
        VoiceCallFilter, VoiceCallStatus,
    },
    server::Settings,
    store::{Connector, PageQuery, Store, StoreTasks, Supervisor},
};

use crate::support::{Client, Server, delete, server::settings};

const CALLS: usize = 200;
const NAMES: [&str; 5] = ["a", "A", "ü", "a b", "%_\\'"];
const FIRST_SECOND: i64 = 1_700_000_000;

/// A call at random, of few values, so that filters hit.
fn any_call() -> impl Strategy<Value = VoiceCall> {
    let name = || weighted(0.7, select(&NAMES[..]).prop_map(str::to_owned));
    let time = || {
        (0..20_i64, 0..2).prop_map(|(seconds, nanos)| ProtoTime {
            seconds: FIRST_SECOND + seconds,
            nanos: nanos * 1000,
        })
    };
    let url = weighted(0.5, Just("https://example.com".to_owned()));
    let names = [name(), name(), name(), name(), name()];
    (
        names,
        1..=4,
        1..=2,
        weighted(0.7, 0..5),
        time(),
        weighted(0.5, time()),
        url,
    )
        .prop_map(
            |(names, status, direction, duration, created_at, handled_at, recording_url)| {
                let [
                    staff_uid,
                    client_uid,
                    handled_by_staff_uid,
                    from_number,
                    to_number,
                ] = names;
                VoiceCall {
                    status,
                    direction,
                    duration,
                    staff_uid,
                    client_uid,
                    handled_by_staff_uid,
                    from_number,
                    to_number,
                    created_at: Some(created_at),
                    handled_at,
                    recording_url,
                    ..VoiceCall::default()
                }
            },
        )
}

fn any_names() -> impl Strategy<Value = Vec<String>> {
    let lists = subsequence(&NAMES[..], 1..=4);
    let lists = lists.prop_map(|names| names.into_iter().map(str::to_owned).collect());
    weighted(0.15, lists).prop_map(Option::unwrap_or_default)
}

fn any_range(times: Vec<Timestamp>) -> impl Strategy<Value = TimeRange> {
    let bound = || weighted(0.2, select(times.clone()));
    (bound(), bound()).prop_map(|(after, before)| TimeRange { after, before })
}

/// A filter at random. Most of its fields are unset, or nothing would match.
fn any_filter(calls: &[Call]) -> impl Strategy<Value = Filter> + use<> {
    let known: Vec<Uuid> = calls.iter().map(|call| call.uid).collect();
    let uids = subsequence(known, 1..100).prop_map(|mut uids| {
        uids.push(Uuid::max());
        uids
    });
    let updated: Vec<Timestamp> = calls.iter().map(|call| call.updated_at).collect();
    let created: Vec<Timestamp> = calls.iter().map(|call| call.created_at).collect();
    let seconds = || {
        weighted(
            0.15,
            (0..6).prop_map(|n| Seconds::new(n).expect("not negative")),
        )
    };
    let names = [(); 6].map(|()| any_names());
    let enums = (
        weighted(0.2, subsequence(&Status::ALL[..], 1..=4)),
        weighted(0.2, subsequence(&Direction::ALL[..], 1..=2)),
    );
    let flags = (
        weighted(0.2, any::<bool>()),
        weighted(0.2, any::<bool>()),
        any::<bool>(),
    );
    (
        weighted(0.15, uids),
        names,
        enums,
        any_range(created),
        any_range(updated),
        (seconds(), seconds()),
        flags,
    )
        .prop_map(
            |(uids, names, (statuses, directions), created, updated, durations, flags)| {
                let [staff, client, handled_by, either, from, to] = names;
                Filter {
                    uids: uids.unwrap_or_default(),
                    staff_uids: identifiers(staff),
                    client_uids: identifiers(client),
                    handled_by_staff_uids: identifiers(handled_by),
                    statuses: statuses.unwrap_or_default(),
                    directions: directions.unwrap_or_default(),
                    numbers: numbers(either),
                    from_numbers: numbers(from),
                    to_numbers: numbers(to),
                    created,
                    updated,
                    min_duration: durations.0,
                    max_duration: durations.1,
                    handled: flags.0,
                    has_recording: flags.1,
                    show_deleted: flags.2,
                }
            },
        )
}

fn identifiers(names: Vec<String>) -> Vec<Identifier> {
    let names = names.into_iter().map(Identifier::new);
    names.collect::<Result<_, _>>().expect("valid")
}

fn numbers(names: Vec<String>) -> Vec<PhoneNumber> {
    let names = names.into_iter().map(PhoneNumber::new);
    names.collect::<Result<_, _>>().expect("valid")
}

/// The filter as clients write it.
fn to_proto(filter: &Filter) -> VoiceCallFilter {
    let names = |names: &[Identifier]| names.iter().map(|one| one.as_str().to_owned()).collect();
    let numbers = |all: &[PhoneNumber]| all.iter().map(|one| one.as_str().to_owned()).collect();
    let time = |time: Timestamp| {
        let (seconds, nanos) = time.parts();
        ProtoTime { seconds, nanos }
    };
    let status = |status: &Status| match status {
        Status::IncomingCall => VoiceCallStatus::IncomingCall.into(),
        Status::AnsweredByStaff => VoiceCallStatus::AnsweredByStaff.into(),
        Status::Missed => VoiceCallStatus::Missed.into(),
        Status::AnsweredByVonage => VoiceCallStatus::AnsweredByVonage.into(),
        Status::Unrecognized(_) => 0,
    };
    let direction = |direction: &Direction| match direction {
        Direction::Inbound => VoiceCallDirection::Inbound.into(),
        Direction::Outbound => VoiceCallDirection::Outbound.into(),
        Direction::Unrecognized(_) => 0,
    };
    VoiceCallFilter {
        uids: filter
            .uids
            .iter()
            .map(|uid| uid.to_string().to_uppercase())
            .collect(),
        staff_uids: names(&filter.staff_uids),
        client_uids: names(&filter.client_uids),
        handled_by_staff_uids: names(&filter.handled_by_staff_uids),
        statuses: filter.statuses.iter().map(status).collect(),
        directions: filter.directions.iter().map(direction).collect(),
        numbers: numbers(&filter.numbers),
        from_numbers: numbers(&filter.from_numbers),
        to_numbers: numbers(&filter.to_numbers),
        created_after: filter.created.after.map(time),
        created_before: filter.created.before.map(time),
        updated_after: filter.updated.after.map(time),
        updated_before: filter.updated.before.map(time),
        min_duration: filter.min_duration.map(Seconds::get),
        max_duration: filter.max_duration.map(Seconds::get),
        handled: filter.handled,
        has_recording: filter.has_recording,
        show_deleted: filter.show_deleted,
    }
}

/// When the database plans a list whose plan does not depend on the values.
enum Plans {
    Once,
    EachTime,
}

fn planned(plans: Plans) -> Settings {
    let mut settings = settings();
    settings.store.reads.planned_once_from = match plans {
        Plans::Once => 0,
        Plans::EachTime => Revision::MAX,
    };
    settings
}

/// Calls in a database, by every way to look at them.
/// The narrowing of half of the callers.
fn any_narrowing() -> impl Strategy<Value = Option<Arc<Narrowing>>> {
    let name =
        || select(&NAMES[..]).prop_map(|name| Identifier::new(name.to_owned()).expect("it is one"));
    let staff = (name(), any::<bool>()).prop_map(|(staff_uid, unassigned)| StaffNarrowing {
        staff_uid,
        unassigned,
    });
    let narrowing = (weighted(0.6, staff), weighted(0.3, name()))
        .prop_map(|(staff, client_uid)| Narrowing::new(staff, client_uid).map(Arc::new));
    weighted(0.5, narrowing).prop_map(Option::flatten)
}

struct World {
    _server: Server,
    client: Client,
    store: Store,
    _tasks: StoreTasks,
    calls: Vec<Call>,
}

impl World {
    async fn new(runner: &mut TestRunner) -> Self {
        let server = Server::start_with(planned(Plans::Once)).await;
        let mut client = server.client();
        let mut uids = Vec::new();
        let calls = proptest::collection::vec(any_call(), CALLS);
        let mut calls = calls.new_tree(runner).expect("it generates").current();
        // In parts, so that they are updated at different times.
        while !calls.is_empty() {
            let request = BatchCreateVoiceCallsRequest {
                voice_calls: calls.split_off(calls.len().saturating_sub(20)),
                ..Default::default()
            };
            let created = client.batch_create_voice_calls(request).await;
            let created = created.expect("they are good").into_inner().voice_calls;
            uids.extend(created.into_iter().map(|call| call.uid));
        }
        for uid in uids.iter().step_by(5) {
            delete(&mut client, uid).await.expect("it is there");
        }
        let connector = Connector::new(&server.database_url).expect("valid");
        let (store, _following, tasks) = Store::new(
            connector,
            planned(Plans::EachTime).store,
            &[tokio::runtime::Handle::current()],
            &Supervisor::default(),
        );
        tasks.open(false).await.expect("it is there");
        let everything = Filter {
            show_deleted: true,
            ..Filter::default()
        };
        let everything = View {
            filter: everything,
            narrowing: None,
        };
        let calls = page(&store, everything, Order::DEFAULT).await;
        assert_eq!(calls.len(), CALLS);
        Self {
            _server: server,
            client,
            store,
            _tasks: tasks,
            calls,
        }
    }
}

async fn page(store: &Store, view: View, order: Order) -> Vec<Call> {
    let query = PageQuery {
        view,
        order,
        after: None,
        limit: 1000,
    };
    let deadline = Instant::now() + std::time::Duration::from_secs(30);
    store
        .page(&query, 0, deadline)
        .await
        .expect("it is read")
        .calls
}

/// The uids that the API lists.
async fn list(mut client: Client, filter: &Filter, order: Order) -> Vec<String> {
    let field = match order.field {
        OrderField::CreatedAt => "created_at",
        OrderField::UpdatedAt => "updated_at",
    };
    let direction = if order.descending { "desc" } else { "" };
    let request = ListVoiceCallsRequest {
        filter: Some(to_proto(filter)),
        order_by: format!("{field} {direction}"),
        page_size: 1000,
        ..Default::default()
    };
    let page = client.list_voice_calls(request).await.expect("a page");
    let calls = page.into_inner().voice_calls;
    calls.into_iter().map(|call| call.uid).collect()
}

#[test]
fn a_view_in_sql_and_a_view_in_rust_select_the_same_calls() {
    let mut runner = TestRunner::new(Config {
        cases: 500,
        failure_persistence: None,
        ..Config::default()
    });
    let runtime = Runtime::new().expect("it starts");
    let world = runtime.block_on(World::new(&mut runner));
    let (some, none, all) = (Cell::new(0), Cell::new(0), Cell::new(0));
    let orders = (any::<bool>(), any::<bool>()).prop_map(|(by_update, descending)| Order {
        field: if by_update {
            OrderField::UpdatedAt
        } else {
            OrderField::CreatedAt
        },
        descending,
    });
    let views = (any_filter(&world.calls), any_narrowing())
        .prop_map(|(filter, narrowing)| View { filter, narrowing });
    let result = runner.run(&(views, orders), |(view, order)| {
        let mut expected: Vec<&Call> = world
            .calls
            .iter()
            .filter(|call| view.matches(call))
            .collect();
        expected.sort_by_key(|call| order.key(call));
        if order.descending {
            expected.reverse();
        }
        let seen = match expected.len() {
            0 => &none,
            CALLS => &all,
            _ => &some,
        };
        seen.set(seen.get() + 1);
        let selected = runtime.block_on(page(&world.store, view.clone(), order));
        prop_assert_eq!(selected.iter().collect::<Vec<_>>(), expected.clone());

        if view.narrowing.is_some() {
            // The clients of this server are not.
            return Ok(());
        }
        let listed = runtime.block_on(list(world.client.clone(), &view.filter, order));
        let expected: Vec<_> = expected.iter().map(|call| call.uid.to_string()).collect();
        prop_assert_eq!(listed, expected);
        Ok(())
    });
    result.expect("both agree");
    // A test of filters that select nothing would test nothing.
    assert!(
        some.get() > 100,
        "{} of 500 select some, {} none",
        some.get(),
        none.get()
    );
}
