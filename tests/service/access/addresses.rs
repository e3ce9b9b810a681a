//! Any address but a loopback one needs TLS and credentials, or to be told that it does without.

use std::process::Command;

use voicecall::proto::VoiceCall;

use crate::support::{
    create,
    dir::Dir,
    inbound,
    postgres::{Cluster, Durability},
    secured::make_certificates,
    server::Process,
};

/// What the program says when it is to serve on an address that others can reach.
fn refusal(environment: &[(&str, &str)]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_voicecall"))
        .arg("serve")
        .env("VOICECALL_LISTEN", "0.0.0.0:0")
        .env("DATABASE_URL", "postgres://nobody@/nothing")
        .envs(environment.iter().copied())
        .output()
        .expect("the program is built");
    assert!(!output.status.success());
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn an_address_that_others_reach_needs_tls_and_credentials() {
    let dir = Dir::new("addresses");
    make_certificates(dir.as_ref());
    let (certificate, key) = (dir.path("server.pem"), dir.path("server.key"));
    let tls = [
        ("VOICECALL_TLS_CERT", certificate.as_str()),
        ("VOICECALL_TLS_KEY", key.as_str()),
    ];
    let policy = dir.write("policy.toml", "");
    let policy = ("VOICECALL_AUTH_POLICY", policy.as_str());
    assert!(refusal(&[]).contains("there is no TLS"));
    assert!(refusal(&[policy]).contains("there is no TLS"));
    assert!(refusal(&tls).contains("clients are not authenticated"));
    let plaintext = ("VOICECALL_INSECURE_PLAINTEXT", "true");
    assert!(refusal(&[plaintext]).contains("clients are not authenticated"));
    let other = dir.path("client.key");
    let mismatched = [tls[0], ("VOICECALL_TLS_KEY", &other), policy];
    assert!(refusal(&mismatched).contains("the certificate and the key cannot be used"));
    let missing = dir.path("missing.pem");
    let missing = [("VOICECALL_TLS_CERT", missing.as_str()), tls[1], policy];
    assert!(refusal(&missing).contains("cannot read"));
}

/// The driver of the database would log the values of each statement.
#[tokio::test]
async fn no_level_of_the_log_has_the_content_of_calls() {
    let cluster = Cluster::start(Durability::Fast);
    let server = Process::start(&[
        ("DATABASE_URL", &cluster.url("postgres")),
        ("VOICECALL_LOG", "trace"),
    ]);
    let secrets = [
        "+4915199887766",
        "asked for a refund",
        "https://example.com/secret.mp3",
    ];
    let call = VoiceCall {
        from_number: Some(secrets[0].to_owned()),
        call_summary: Some(secrets[1].to_owned()),
        recording_url: Some(secrets[2].to_owned()),
        ..inbound()
    };
    create(&mut server.client(), call).await;
    assert!(server.log.has(&["TRACE"]));
    for secret in secrets {
        assert!(!server.log.has(&[secret]), "{secret}");
        let bytes = format!("{:?}", secret.as_bytes());
        assert!(!server.log.has(&[&bytes]), "{secret}");
    }
}

#[tokio::test]
async fn doing_without_is_said_in_the_log_at_each_start() {
    let url = Cluster::shared().await.database().await;
    let server = Process::start(&[
        ("DATABASE_URL", &url),
        ("VOICECALL_LISTEN", "0.0.0.0:0"),
        ("VOICECALL_INSECURE_PLAINTEXT", "true"),
        ("VOICECALL_INSECURE_UNAUTHENTICATED", "true"),
    ]);
    assert!(server.log.has(&["WARN", "plaintext"]));
    assert!(server.log.has(&["WARN", "unauthenticated"]));
}

#[tokio::test]
async fn the_url_of_the_database_may_stand_in_a_file() {
    let dir = Dir::new("url");
    let url = Cluster::shared().await.database().await;
    let file = dir.write("url", &format!("{url}\n"));
    let server = Process::start(&[("DATABASE_URL_FILE", &file)]);
    assert!(!server.endpoint.is_empty());
}
