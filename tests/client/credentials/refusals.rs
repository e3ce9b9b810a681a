//! Tokens that the service refuses: what is read again, what is sent again, and what the error
//! says.

use std::{collections::HashMap, pin::pin};

use futures_util::{StreamExt, TryStreamExt, future::join_all};
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};
use voicecall::{
    client::TokenSource,
    proto::{
        ErrorReason, ExportVoiceCallsRequest, ListVoiceCallsRequest, Live, WatchVoiceCallsRequest,
        watch_voice_calls_request::Start,
    },
};

use super::{client, file, lines, shell, tokens};
use crate::{
    gate::{Act, Gate},
    support::{Server, dir::Dir},
};

/// Refuses a token like the service.
fn refusal(reason: &str) -> Act {
    let mut details = ErrorDetails::new();
    details.set_error_info(reason, "voicecall.v1", HashMap::new());
    let status = Status::with_error_details(Code::Unauthenticated, "not with this", details);
    Act::Refuse(status)
}

/// A command that prints 1, then 2, and so on.
fn counting(dir: &Dir) -> TokenSource {
    let count = dir.path("count");
    shell(&format!("echo x >>{count} && wc -l <{count}"))
}

#[tokio::test]
async fn a_refused_token_is_read_again_and_another_one_is_tried_once() {
    for reason in ["TOKEN_EXPIRED", "CREDENTIALS_INVALID"] {
        let dir = Dir::new("credentials");
        let gate = Gate::alone([refusal(reason), refusal(reason)]).await;
        let client = client(&gate.endpoint, counting(&dir));
        let page = client.list_page(ListVoiceCallsRequest::default()).await;
        let error = page.expect_err("refused");
        assert_eq!(error.details.reason.as_deref(), Some(reason));
        assert_eq!(
            (tokens(&gate), lines(&dir.path("count"))),
            (vec!["1".into(), "2".into()], 2)
        );
    }
    // An export is started again before its first page.
    let server = Server::start().await;
    let dir = Dir::new("credentials");
    let gate = Gate::start(&server.endpoint, [refusal("TOKEN_EXPIRED")]).await;
    let client = client(&gate.endpoint, counting(&dir));
    let chunks = client.export_chunks(ExportVoiceCallsRequest::default());
    chunks
        .try_collect::<Vec<_>>()
        .await
        .expect("it is started again");
    assert_eq!(tokens(&gate), ["1", "2"]);
}

#[tokio::test]
async fn the_same_token_is_not_sent_again_and_the_error_says_where_it_is() {
    let dir = Dir::new("credentials");
    let path = dir.write("token", "hunter2");
    for (source, note) in [
        (
            file(&dir),
            format!("; the file {path} still has the same token"),
        ),
        (
            shell("test ! -e $0 && echo hunter2 && touch $0").with_argument(&dir.path("ran")),
            "; cannot read the token from the command sh: it ended with exit status: 1".into(),
        ),
        (TokenSource::from("hunter2"), String::new()),
    ] {
        let gate = Gate::alone([refusal("TOKEN_EXPIRED")]).await;
        let client = client(&gate.endpoint, source);
        let page = client.list_page(ListVoiceCallsRequest::default()).await;
        let error = page.expect_err("refused");
        assert_eq!(error.reason(), Some(ErrorReason::TokenExpired));
        assert_eq!(error.message, format!("not with this{note}"));
        assert_eq!(tokens(&gate).len(), 1);
        assert!(
            !format!("{error:?}{client:?}").contains("hunter2"),
            "{client:?}"
        );
    }
}

trait WithArgument {
    fn with_argument(self, argument: &str) -> Self;
}

impl WithArgument for TokenSource {
    fn with_argument(mut self, argument: &str) -> Self {
        if let Self::Command { arguments, .. } = &mut self {
            arguments.push(argument.to_owned());
        }
        self
    }
}

#[tokio::test]
async fn requests_that_are_refused_together_share_one_reading() {
    const REQUESTS: usize = 50;
    let dir = Dir::new("credentials");
    let refusals = (0..2 * REQUESTS).map(|_| refusal("TOKEN_EXPIRED"));
    let gate = Gate::alone(refusals).await;
    let client = client(&gate.endpoint, counting(&dir));
    let requests = (0..REQUESTS).map(|_| client.list_page(ListVoiceCallsRequest::default()));
    let pages = join_all(requests).await;
    assert!(pages.iter().all(Result::is_err));
    assert_eq!(
        (tokens(&gate).len(), lines(&dir.path("count"))),
        (2 * REQUESTS, 2)
    );
}

#[tokio::test]
async fn a_watch_without_another_token_ends_after_a_few_tries() {
    let dir = Dir::new("credentials");
    let path = dir.write("token", "one");
    for (reason, source, times, note) in [
        (
            "TOKEN_EXPIRED",
            file(&dir),
            5,
            format!("{path} still has the same token"),
        ),
        ("TOKEN_EXPIRED", counting(&dir), 5, String::new()),
        (
            "CREDENTIALS_INVALID",
            file(&dir),
            1,
            "still has the same token".into(),
        ),
        (
            "CREDENTIALS_INVALID",
            counting(&Dir::new("credentials")),
            2,
            String::new(),
        ),
        ("CREDENTIALS_MISSING", counting(&dir), 1, String::new()),
        ("TOKEN_EXPIRED", TokenSource::from("one"), 1, String::new()),
    ] {
        let gate = Gate::alone((0..9).map(|_| refusal(reason))).await;
        let client = client(&gate.endpoint, source);
        let mut watch = pin!(client.watch(WatchVoiceCallsRequest {
            start: Some(Start::Live(Live {})),
            ..Default::default()
        }));
        let error = watch.next().await.expect("an item").expect_err("it ends");
        assert_eq!(error.details.reason.as_deref(), Some(reason));
        assert!(error.message.ends_with(&note), "{error}");
        assert_eq!(tokens(&gate).len(), times, "{reason} {client:?}");
    }
}
