//! A real failover: a standby that lacks the last commits is promoted, and goes
//! its own way.

use tonic::Code;
use voicecall::proto::watch_voice_calls_request::Start;

use crate::support::{
    Server, assert_refused, create, eventually, get, inbound,
    postgres::{Cluster, Durability, connect},
    server::settings,
    watcher::{Watcher, from, live, snapshot},
};

#[tokio::test]
async fn a_standby_promoted_without_the_last_commits_resets_streams_and_tokens() {
    let primary = Cluster::start(Durability::Durable);
    let database_url = primary.database().await;
    let standby = primary.standby();
    let database = database_url.rsplit_once("dbname=").expect("it is named").1;
    let both = format!(
        "host={},{} port=5432 user=voicecall dbname={database} target_session_attrs=read-write",
        primary.dir().display(),
        standby.dir().display(),
    );
    let server = Server::start_on(&both, settings()).await;
    let mut client = server.client();
    let mut request = from(live());
    // Three of these are longer than the failover, which must not end the stream
    // before its head is found to be lost.
    request.checkpoint_interval = Some(prost_types::Duration {
        seconds: 2,
        nanos: 0,
    });
    let mut watcher = Watcher::start(&mut client, request)
        .await
        .expect("it starts");
    let kept = create(&mut client, inbound()).await;
    watcher.until(1).await;
    let good_token = watcher.token.clone();

    let follower = connect(&standby.url(database)).await;
    let has_first = async || {
        let sql = "SELECT count(*) FROM voice_calls";
        let count: i64 = follower.query_one(sql, &[]).await.expect("readable").get(0);
        count == 1
    };
    eventually("the standby has the first call", has_first).await;
    let cut = "ALTER SYSTEM SET primary_conninfo = ''";
    follower.batch_execute(cut).await.expect("it is cut off");
    follower
        .batch_execute("SELECT pg_reload_conf()")
        .await
        .expect("it is cut off");
    let is_cut = async || {
        let sql = "SELECT count(*) FROM pg_stat_wal_receiver";
        let count: i64 = follower.query_one(sql, &[]).await.expect("readable").get(0);
        count == 0
    };
    eventually("the standby receives no more", is_cut).await;

    let lost = create(&mut client, inbound()).await;
    create(&mut client, inbound()).await;
    watcher.until(3).await;
    let lost_token = watcher.token.clone();
    primary.kill();
    follower
        .batch_execute("SELECT pg_promote()")
        .await
        .expect("it is promoted");

    // The server finds the new primary by itself, and writes overtake the old head.
    let mut revision = 0;
    while revision < 5 {
        let request = voicecall::proto::CreateVoiceCallRequest {
            voice_call: Some(inbound()),
            ..Default::default()
        };
        if let Ok(created) = client.create_voice_call(request).await {
            revision = created.into_inner().voice_call.expect("answered").revision;
        }
    }
    let status = watcher.end().await;
    assert_refused(
        Err::<(), _>(status),
        Code::FailedPrecondition,
        "FEED_RESET",
        &[],
    );
    let resumed = Watcher::start(&mut client, from(Start::ResumeToken(lost_token))).await;
    assert_refused(
        resumed.map(|_| ()),
        Code::FailedPrecondition,
        "FEED_RESET",
        &[],
    );
    let start = Start::ResumeToken(good_token);
    let mut resumed = Watcher::start(&mut client, from(start))
        .await
        .expect("it is still true");
    assert_eq!(resumed.until(5).await.len(), 4);
    let mut anew = Watcher::start(&mut client, from(snapshot()))
        .await
        .expect("it starts");
    let (calls, _) = anew.snapshot().await;
    assert!(calls.contains(&kept));
    let gone = get(&mut client, &lost.uid).await;
    assert_refused(gone, Code::NotFound, "CALL_NOT_FOUND", &[]);
}
