//! Tokens of the service, told by the command that asks nobody.

use serde_json::{Value, json};
use voicecall::{
    client::{Client, Settings},
    proto::{
        GetVoiceCallStatsRequest, ListVoiceCallChangesRequest, ListVoiceCallsRequest, VoiceCall,
        VoiceCallStatsGroup,
    },
};

use crate::{
    program::run,
    support::{Server, create, inbound, reference},
};

async fn decoded(token: &str) -> Value {
    let mut lines = run("http://nowhere", &["token", "--json", token])
        .await
        .json();
    assert_eq!(lines.len(), 1);
    lines.remove(0)
}

/// A token of each kind, after a page with one call.
async fn tokens(server: &Server) -> [String; 3] {
    let client = Client::new(&Settings::new(&server.endpoint)).expect("good settings");
    let changes = client.changes(ListVoiceCallChangesRequest::default()).await;
    let list = ListVoiceCallsRequest {
        order_by: "created_at".into(),
        page_size: 1,
        ..Default::default()
    };
    let groups = [
        VoiceCallStatsGroup::Day,
        VoiceCallStatsGroup::Status,
        VoiceCallStatsGroup::Staff,
    ];
    let stats = GetVoiceCallStatsRequest {
        group_by: groups.map(i32::from).to_vec(),
        page_size: 1,
        ..Default::default()
    };
    [
        changes.expect("changes").resume_token,
        client
            .list_page(list)
            .await
            .expect("a page")
            .next_page_token,
        client
            .stats_page(stats)
            .await
            .expect("a page")
            .next_page_token,
    ]
}

async fn filled() -> Server {
    let server = Server::start().await;
    create(&mut server.client(), reference()).await;
    create(&mut server.client(), inbound()).await;
    server
}

#[tokio::test]
async fn every_kind_of_token_is_decoded() {
    let server = filled().await;
    let [resume, list, stats] = tokens(&server).await;
    let mut resume = decoded(&resume).await;
    assert_eq!(resume["kind"], "resume token");
    assert_eq!(
        (&resume["version"], &resume["revision"]),
        (&json!(1), &json!(2))
    );
    let feed_id = resume["feed_id"].take();
    uuid::Uuid::parse_str(feed_id.as_str().expect("text")).expect("a UUID");
    assert!(resume["stamp"].is_i64());

    let mut list = decoded(&list).await;
    assert_eq!(list["query"].take().as_str().map(str::len), Some(16));
    assert_eq!(
        list,
        json!({
            "kind": "page token of a list", "version": 1, "query": null,
            "time": "2021-07-20T14:00:00.000Z", "uid": reference().uid,
        })
    );
    let mut stats = decoded(&stats).await;
    stats["query"].take();
    assert_eq!(
        stats,
        json!({
            "kind": "page token of statistics", "version": 2, "query": null,
            "bucket_start": "2021-07-20T00:00:00.000Z", "status": "answered by staff",
            "direction": null, "staff_uid": reference().uid,
        })
    );
}

/// Both have the same version and length. No list reaches so far that its time
/// looks like an id.
#[tokio::test]
async fn tokens_of_lists_are_not_mistaken_for_resume_tokens() {
    let server = Server::start().await;
    for seconds in [-62_135_596_800, -1, 0, 1_600_000_000] {
        let call = VoiceCall {
            created_at: Some(prost_types::Timestamp { seconds, nanos: 0 }),
            ..inbound()
        };
        create(&mut server.client(), call).await;
    }
    create(&mut server.client(), inbound()).await;
    let client = Client::new(&Settings::new(&server.endpoint)).expect("good settings");
    let mut request = ListVoiceCallsRequest {
        order_by: "created_at".into(),
        page_size: 1,
        ..Default::default()
    };
    for time in [
        "0001-01-01T00:00:00",
        "1969-12-31T23:59:59",
        "1970-01-01T00:00:00",
    ] {
        let page = client.list_page(request.clone()).await.expect("a page");
        request.page_token = page.next_page_token;
        let told = decoded(&request.page_token).await;
        assert_eq!(told["time"], format!("{time}.000Z"));
        assert_eq!(told["uid"], page.voice_calls[0].uid);
    }
}

#[tokio::test]
async fn people_read_names_and_values() {
    let server = filled().await;
    let [_, list, _] = tokens(&server).await;
    let text = run("http://nowhere", &["token", &list]).await.ok();
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines[0], "kind     page token of a list");
    assert_eq!(lines[4], format!("uid      {}", reference().uid));
}

#[tokio::test]
async fn a_truncated_or_corrupt_token_is_refused() {
    let server = filled().await;
    let mut bad: Vec<String> = ["", "-", "AA", "no token", "ünd"]
        .map(str::to_owned)
        .to_vec();
    for token in tokens(&server).await {
        let flip = if token.as_bytes()[5] == b'A' {
            "B"
        } else {
            "A"
        };
        bad.push([&token[..5], flip, &token[6..]].concat());
        bad.push(token[..token.len() - 4].to_owned());
    }
    for token in bad {
        let ran = run("http://nowhere", &["token", "--", &token]).await;
        assert_eq!((ran.stdout.as_str(), ran.code), ("", Some(4)), "{token}");
        assert!(ran.stderr.contains("not a valid token"), "{ran:?}");
    }
}
