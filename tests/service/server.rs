//! The process: health, reflection, the database's comings and goings, deadlines,
//! migrations, and an end in order.

use std::{process::Command, time::Duration};

use tonic::Code;
use voicecall::proto::ListVoiceCallsRequest;

use crate::support::{
    Server, assert_refused, create, eventually, get, inbound,
    postgres::{Cluster, Durability, connect, running},
    raw::Raw,
    reference, retry_after,
    server::{NOT_SERVING, Process, SERVING, health, settings},
};

const LOCK: &str = "BEGIN; LOCK TABLE voice_calls IN ACCESS EXCLUSIVE MODE";
async fn assert_health(server: &Server, status: i32) {
    for service in ["", "voicecall.v1.VoiceCallService"] {
        assert_eq!(
            health(server.channel(), service).await,
            status,
            "{service:?}"
        );
    }
}

#[tokio::test]
async fn health_is_reported_for_the_server_and_the_service() {
    let server = Server::start().await;
    eventually("it serves", async || {
        health(server.channel(), "").await == SERVING
    })
    .await;
    assert_health(&server, SERVING).await;
}

macro_rules! reflection_test {
    ($name:ident, $version:ident) => {
        #[tokio::test]
        async fn $name() {
            use tonic_reflection::pb::$version::{
                ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
                server_reflection_request::MessageRequest as Ask,
                server_reflection_response::MessageResponse as Told,
            };
            let server = Server::start().await;
            let mut client = ServerReflectionClient::new(server.channel());
            let ask = |ask| ServerReflectionRequest {
                host: String::new(),
                message_request: Some(ask),
            };
            let symbols = [
                "voicecall.v1.VoiceCallService",
                "voicecall.v1.VoiceCall",
                "voicecall.v1.ErrorReason",
                "google.rpc.ErrorInfo",
                "google.rpc.BadRequest",
                "google.rpc.RetryInfo",
                "google.protobuf.Timestamp",
                "grpc.health.v1.Health",
            ];
            // What is not known is answered with an error, and the stream lives on.
            let unknown = [
                Ask::FileContainingSymbol("voicecall.v1.Nothing".into()),
                Ask::FileByFilename("nothing.proto".into()),
            ];
            let mut asks = vec![ask(Ask::ListServices(String::new()))];
            asks.extend(unknown.map(ask));
            asks.extend(symbols.map(|symbol| ask(Ask::FileContainingSymbol(symbol.into()))));
            let answers = client
                .server_reflection_info(futures_util::stream::iter(asks))
                .await;
            let mut answers = answers.expect("it answers").into_inner();
            let first = answers
                .message()
                .await
                .expect("in order")
                .expect("an answer");
            let Some(Told::ListServicesResponse(list)) = first.message_response else {
                panic!("{first:?}");
            };
            let names: Vec<_> = list.service.iter().map(|one| one.name.as_str()).collect();
            for name in ["voicecall.v1.VoiceCallService", "grpc.health.v1.Health"] {
                assert!(names.contains(&name), "{names:?}");
            }
            for _ in 0..2 {
                let answer = answers
                    .message()
                    .await
                    .expect("in order")
                    .expect("an answer");
                let Some(Told::ErrorResponse(error)) = answer.message_response else {
                    panic!("{answer:?}");
                };
                assert_eq!(error.error_code, i32::from(Code::NotFound));
            }
            for symbol in symbols {
                let answer = answers
                    .message()
                    .await
                    .expect("in order")
                    .expect("an answer");
                let told = answer.message_response;
                assert!(
                    matches!(told, Some(Told::FileDescriptorResponse(_))),
                    "{symbol}: {told:?}"
                );
            }
        }
    };
}
reflection_test!(reflection_v1_knows_the_service_and_all_it_speaks_of, v1);
reflection_test!(
    reflection_v1alpha_knows_the_service_and_all_it_speaks_of,
    v1alpha
);

#[tokio::test]
async fn sigterm_lets_a_request_under_way_end_and_exits_with_0() {
    let url = Cluster::shared().await.database().await;
    let mut process = Process::start(&[("DATABASE_URL", &url)]);
    let mut client = process.client();
    create(&mut client, reference()).await;
    let (blocker, looker) = (connect(&url).await, connect(&url).await);
    blocker.batch_execute(LOCK).await.expect("it is locked");
    let reading = tokio::spawn({
        let mut client = client.clone();
        async move { get(&mut client, &reference().uid).await }
    });
    eventually("the read waits", async || {
        running(&looker, "voicecall reader", true).await == 1
    })
    .await;
    let pid = process.child.id().to_string();
    let signalled = Command::new("kill").args(["-TERM", &pid]).status();
    assert!(signalled.expect("kill runs").success());
    // New connections are refused; the request in progress is still waiting.
    eventually("it drains", async || {
        tokio::net::TcpStream::connect(process.endpoint.trim_start_matches("http://"))
            .await
            .is_err()
    })
    .await;
    assert!(process.child.try_wait().expect("ours").is_none());
    assert!(!reading.is_finished());
    blocker.batch_execute("COMMIT").await.expect("it is free");
    let read = reading.await.expect("no panic").expect("it is answered");
    assert_eq!(read.uid, reference().uid);
    let mut status = None;
    eventually("the process ends", async || {
        status = process.child.try_wait().expect("ours");
        status.is_some()
    })
    .await;
    assert_eq!(status.and_then(|status| status.code()), Some(0));
    eventually("its connections are closed", async || {
        let sql = "SELECT count(*) FROM pg_stat_activity \
            WHERE datname = current_database() AND application_name LIKE 'voicecall%'";
        let row = looker.query_one(sql, &[]).await.expect("it answers");
        row.get::<_, i64>(0) == 0
    })
    .await;
}

#[tokio::test]
async fn a_request_that_does_not_end_is_given_up_at_the_end_of_the_drain_timeout() {
    let mut impatient = settings();
    impatient.drain_timeout = Duration::from_millis(200);
    let server = Server::start_with(impatient).await;
    create(&mut server.client(), reference()).await;
    let (blocker, looker) = (
        connect(&server.database_url).await,
        connect(&server.database_url).await,
    );
    blocker.batch_execute(LOCK).await.expect("it is locked");
    let mut client = server.client();
    let reading = tokio::spawn(async move { get(&mut client, &reference().uid).await });
    eventually("the read waits", async || {
        running(&looker, "voicecall reader", true).await == 1
    })
    .await;
    server.stop().await;
    blocker.batch_execute("COMMIT").await.expect("it is free");
    drop(reading);
}

#[tokio::test]
async fn a_database_that_is_away_at_the_start_is_waited_for_and_one_that_goes_later_comes_back() {
    let cluster = Cluster::start(Durability::Durable);
    let url = cluster.database().await;
    cluster.kill();
    let (server, ready) = Server::launch(&url, settings()).await;
    assert_away(&server).await;
    cluster.restart();
    ready.await.expect("it starts");
    let mut client = server.client();
    create(&mut client, reference()).await;
    eventually("it serves", async || {
        health(server.channel(), "").await == SERVING
    })
    .await;
    assert_health(&server, SERVING).await;

    // Reads, writes and lists each have connections by now, which break.
    list(&server).await.expect("a page");
    cluster.kill();
    // A read that was lost says so before the ping does.
    eventually("the loss is noticed", async || {
        let channel = server.channel();
        health(channel.clone(), "").await == NOT_SERVING
            && health(channel, "voicecall.v1.VoiceCallService").await == NOT_SERVING
    })
    .await;
    assert_away(&server).await;
    cluster.restart();
    eventually("it is back", async || {
        health(server.channel(), "").await == SERVING
            && get(&mut server.client(), &reference().uid).await.is_ok()
    })
    .await;
    assert_eq!(create(&mut client, inbound()).await.revision, 2);
    eventually("lists are back", async || list(&server).await.is_ok()).await;
}

async fn list(server: &Server) -> Result<(), tonic::Status> {
    let request = ListVoiceCallsRequest::default();
    server.client().list_voice_calls(request).await.map(drop)
}

/// Every kind of request says that the database is unavailable, and when to retry.
async fn assert_away(server: &Server) {
    let mut client = server.client();
    let write = voicecall::proto::CreateVoiceCallRequest {
        voice_call: Some(inbound()),
        ..Default::default()
    };
    let results = [
        get(&mut client, &reference().uid).await.map(drop),
        list(server).await,
        client.create_voice_call(write).await.map(drop),
    ];
    for result in results {
        let status = result.as_ref().expect_err("the database is unavailable");
        assert!(retry_after(status).is_some());
        assert_refused(result, Code::Unavailable, "DATABASE_UNAVAILABLE", &[]);
    }
    assert_health(server, NOT_SERVING).await;
    // A probe that restarts processes has no reason to.
    assert_eq!(health(server.channel(), "liveness").await, SERVING);
}

#[tokio::test]
async fn a_deadline_reaches_the_sql_of_a_list() {
    let server = Server::start().await;
    create(&mut server.client(), reference()).await;
    let (blocker, looker) = (
        connect(&server.database_url).await,
        connect(&server.database_url).await,
    );
    blocker.batch_execute(LOCK).await.expect("it is locked");
    let mut raw = Raw::connect(&server.endpoint).await;
    let deadline = [("grpc-timeout", "300m")];
    let request = ListVoiceCallsRequest::default();
    let answer = raw.call("ListVoiceCalls", &deadline, &request).await;
    let result: Result<(), _> = Err(answer.status);
    assert_refused(result, Code::DeadlineExceeded, "DEADLINE_EXCEEDED", &[]);
    let none_runs = async || running(&looker, "voicecall lists", false).await == 0;
    eventually(
        "the statement ends though the table is still locked",
        none_runs,
    )
    .await;
    blocker.batch_execute("COMMIT").await.expect("it is free");
    list(&server).await.expect("the connection is of use");
    assert_health(&server, SERVING).await;
}

#[tokio::test]
async fn a_get_and_a_queued_list_end_at_their_deadline() {
    let mut narrow = settings();
    narrow.store.reads.list_connections = 1;
    let server = Server::start_with(narrow).await;
    let blocker = connect(&server.database_url).await;
    blocker.batch_execute(LOCK).await.expect("it is locked");
    let deadline = [("grpc-timeout", "300m")];
    let mut first = Raw::connect(&server.endpoint).await;
    let mut second = Raw::connect(&server.endpoint).await;
    let mut third = Raw::connect(&server.endpoint).await;
    let request = ListVoiceCallsRequest::default();
    let read = voicecall::proto::GetVoiceCallRequest {
        uid: reference().uid,
        ..Default::default()
    };
    let (one, two, three) = tokio::join!(
        first.call("ListVoiceCalls", &deadline, &request),
        second.call("ListVoiceCalls", &deadline, &request),
        third.call("GetVoiceCall", &deadline, &read),
    );
    for answer in [one, two, three] {
        let result: Result<(), _> = Err(answer.status);
        assert_refused(result, Code::DeadlineExceeded, "DEADLINE_EXCEEDED", &[]);
    }
    blocker.batch_execute("COMMIT").await.expect("it is free");
    list(&server).await.expect("the connection is of use");
}
