//! The tools for credentials: what `voicecall auth` makes, `voicecall auth check` and the service
//! accept, and what it says of it.

use std::{
    process::{Command, Output},
    time::Duration,
};

use serde_json::{Value, json};
use tonic::Code;
use voicecall::{
    auth::{
        Scope,
        jwt::issue::{Claims, SigningKey},
    },
    proto::ListVoiceCallsRequest,
};

use super::with_token;
use crate::support::{
    dir::Dir,
    facts,
    postgres::Cluster,
    server::Process,
    tokens::{AUDIENCE, ISSUER},
};

fn auth(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_voicecall"));
    command.arg("auth").args(arguments);
    command.output().expect("the program is built")
}

fn stdout(output: &Output) -> String {
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn stderr(output: &Output) -> String {
    assert!(!output.status.success());
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// What `check` says besides the name, the scopes and the expiry.
fn checked(arguments: &[&str]) -> (String, String) {
    let checked = stdout(&auth(&[&["check"][..], arguments].concat()));
    let line = |key: &str| {
        let line = checked.lines().find_map(|line| line.strip_prefix(key));
        line.unwrap_or_else(|| panic!("{checked}"))
            .trim()
            .to_owned()
    };
    (line("calls:"), line("limits:"))
}

#[test]
fn a_new_token_may_be_for_some_calls() {
    let dir = Dir::new("new-token");
    let file = |name: &str| dir.path(name);
    let mut policy = String::new();
    let all = "those of all principals";
    let cases: [(_, &[&str], _, _, _); 4] = [
        ("all", &[], "", "all", all),
        (
            "client",
            &["--client-uid", "c1"],
            "",
            "only those of client_uid c1",
            all,
        ),
        (
            "staff",
            &["--staff-uid", "s1"],
            "limits = { watches = 10 }\n",
            "only those that staff_uid s1 answered or handled",
            "10 watches; otherwise those of all principals",
        ),
        (
            "both",
            &["--staff-uid", "s1", "--unassigned", "--client-uid", "c1"],
            "limits = { rate = 5 }\n",
            "only those of client_uid c1 that staff_uid s1 answered or handled, or that nobody \
             has yet",
            "5 requests a second (5 at once after a pause); otherwise those of all principals",
        ),
    ];
    for (name, narrowing, lines, calls, limits) in cases {
        let token = file(name);
        let common = ["new-token", "--name", name, "--scope", "calls:read"];
        let arguments = [&common[..], &["--token-file", &token], narrowing].concat();
        policy += &stdout(&auth(&arguments));
        policy += lines;
        dir.write("policy.toml", &policy);
        let policy = file("policy.toml");
        let checked = checked(&["--token-file", &token, "--auth-policy", &policy]);
        assert_eq!((checked.0.as_str(), checked.1.as_str()), (calls, limits));
    }
}

#[test]
fn what_narrows_to_nothing_is_refused() {
    let common = ["new-token", "--name", "a", "--scope", "calls:read"];
    let cases: [(&[&str], _); 3] = [
        (&["--unassigned"], "--staff-uid"),
        (&["--staff-uid", ""], "must not be empty"),
        (&["--client-uid", "a\nb"], "control characters"),
    ];
    for (narrowing, what) in cases {
        let refused = stderr(&auth(&[&common[..], narrowing].concat()));
        assert!(refused.contains(what), "{refused}");
    }
}

#[test]
fn an_issued_token_may_be_for_some_calls() {
    let dir = Dir::new("issue");
    let (key, keys, token) = (dir.path("key"), dir.path("keys"), dir.path("token"));
    stdout(&auth(&[
        "new-key",
        "--key-file",
        &key,
        "--jwks-file",
        &keys,
    ]));
    let names = ["--issuer", ISSUER, "--audience", AUDIENCE];
    let common = ["issue", "--key-file", &key, "--sub", "amy"];
    let narrowing = ["--staff-uid", "s1", "--unassigned"];
    let issued = stdout(&auth(&[&common[..], &names, &narrowing].concat()));
    dir.write("token", &issued);
    let from = ["--auth-issuer", ISSUER, "--auth-audience", AUDIENCE];
    let service = [&["--token-file", &token, "--auth-jwks", &keys][..], &from].concat();
    let own = "only those that staff_uid s1 answered or handled, or that nobody has yet";
    assert_eq!(checked(&service).0, own);
    // The subject is a string, too.
    let other = [&service[..], &["--auth-staff-claim", "sub"]].concat();
    let own = own.replace("s1", "amy");
    assert_eq!(checked(&other).0, own);
    // The claim has another type than this one needs.
    let other = [&service[..], &["--auth-client-claim", "unassigned"]].concat();
    let refused = stderr(&auth(&[&["check"][..], &other].concat()));
    assert!(refused.contains("refused: a claim that says"), "{refused}");
}

#[tokio::test]
async fn a_claim_that_cannot_be_used_is_refused_by_the_service() {
    let dir = Dir::new("bad-claims");
    let key = SigningKey::generate().expect("there are random numbers");
    dir.write("jwks.json", &key.key_set());
    let url = Cluster::shared().await.database().await;
    let server = Process::start(&[
        ("DATABASE_URL", &url),
        ("VOICECALL_AUTH_JWKS", &dir.path("jwks.json")),
        ("VOICECALL_AUTH_ISSUER", ISSUER),
        ("VOICECALL_AUTH_AUDIENCE", AUDIENCE),
        ("VOICECALL_AUTH_STAFF_CLAIM", "https://example.com/staff"),
        ("VOICECALL_AUTH_CLIENT_CLAIM", "client"),
        ("VOICECALL_AUTH_UNASSIGNED_CLAIM", "queue"),
    ]);
    let mut client = server.client();
    let mut list = async |claims: &[(&str, Value)]| {
        let claims = claims.iter().map(|(name, value)| {
            let name = (*name).to_owned();
            (name, value.clone())
        });
        let token = key.issue(&Claims {
            subject: "amy".to_owned(),
            issuer: ISSUER.to_owned(),
            audience: AUDIENCE.to_owned(),
            scopes: Scope::ALL.into_iter().collect(),
            lifetime: Duration::from_secs(60),
            more: claims.collect(),
        });
        let request = ListVoiceCallsRequest::default();
        let request = with_token(request, &token.expect("it signs"));
        client.list_voice_calls(request).await.map(drop)
    };
    let staff = "https://example.com/staff";
    for good in [
        &[][..],
        &[("staff_uid", json!(1)), ("unassigned", json!("no"))],
        &[(staff, json!("s1")), ("queue", json!(true))],
        &[("client", json!("c1")), ("queue", json!(false))],
    ] {
        list(good)
            .await
            .unwrap_or_else(|status| panic!("{good:?}: {status}"));
    }
    for bad in [
        &[(staff, Value::Null)][..],
        &[(staff, json!(["s1"]))],
        &[(staff, json!(""))],
        &[("client", json!(7))],
        &[("queue", json!(true))],
        &[("client", json!("c1")), ("queue", json!(true))],
        &[(staff, json!("s1")), ("queue", json!("true"))],
    ] {
        let status = list(bad).await.expect_err("it is refused");
        assert_eq!(facts(&status).0, Code::Unauthenticated, "{bad:?}");
        assert_eq!(facts(&status).1, "CREDENTIALS_INVALID", "{bad:?}");
    }
}
