//! Tokens that change and end: where the client reads them, when it reads them again, and what
//! goes on meanwhile.
//!
//! - `many_tokens`: streams that outlive their tokens
//! - `refusals`: tokens that the service refuses
//! - `command_line`: where the program finds its tokens and the service

mod command_line;
mod many_tokens;
mod refusals;

use voicecall::{
    client::{Client, Settings, TokenSource},
    proto::ListVoiceCallsRequest,
};

use crate::{
    gate::Gate,
    support::{Server, dir::Dir, eventually},
};

fn shell(script: &str) -> TokenSource {
    TokenSource::Command {
        program: "sh".to_owned(),
        arguments: vec!["-c".to_owned(), script.to_owned()],
    }
}

fn client(endpoint: &str, token: TokenSource) -> Client {
    let settings = Settings {
        token: Some(token),
        ..Settings::new(endpoint)
    };
    Client::new(&settings).expect("good settings")
}

fn file(dir: &Dir) -> TokenSource {
    TokenSource::File(dir.path("token").into())
}

/// How many lines a file has; none if it is not there.
fn lines(path: &str) -> usize {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.lines().count()
}

/// The tokens of the requests that came to the gate.
fn tokens(gate: &Gate) -> Vec<String> {
    let seen = gate.seen();
    let tokens = seen.iter().filter_map(|one| one.header("authorization"));
    tokens
        .map(|token| token.trim_start_matches("Bearer ").to_owned())
        .collect()
}

#[tokio::test]
async fn a_file_is_looked_at_again_and_keeps_its_token_while_it_is_unreadable() {
    let server = Server::start().await;
    let gate = Gate::start(&server.endpoint, []).await;
    let dir = Dir::new("credentials");
    dir.write("token", "one\n");
    let client = client(&gate.endpoint, file(&dir));
    let last = async || {
        let page = client.list_page(ListVoiceCallsRequest::default()).await;
        page.expect("a page");
        tokens(&gate).pop().expect("it has one")
    };
    assert_eq!(last().await, "one");
    // As a writer that does not rename leaves it for a moment.
    dir.write("token", "");
    let begun = tokio::time::Instant::now();
    eventually("two looks", async || {
        assert_eq!(last().await, "one");
        begun.elapsed().as_millis() > 2100
    })
    .await;
    dir.write("token", "two\n");
    eventually("the new token", async || last().await == "two").await;
}
