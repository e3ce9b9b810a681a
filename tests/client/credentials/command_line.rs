//! How the program reaches a service: tokens from files and commands, profiles, and the scheme of
//! the endpoint.

use super::tokens;
use crate::{
    gate::Gate,
    program::{run, run_with},
    support::{
        Server,
        dir::Dir,
        postgres::Cluster,
        secured::make_certificates,
        server::{Process, Restartable},
    },
};

const TOKEN: &str = "a-token-of-at-least-32-characters";

/// A policy with one principal, whose token this is.
fn policy(dir: &Dir, expires_at: &str) -> String {
    let digest = "cefafa934415eba525901792f8e51b571f420ed976eaa80f89858266b193bb38";
    dir.write(
        "policy",
        &format!(
            "[[principal]]\nname = \"test\"\nscopes = [\"calls:read\"]\n\
             token_sha256 = \"{digest}\"\nexpires_at = {expires_at}\n"
        ),
    )
}

async fn with_policy(dir: &Dir, expires_at: &str) -> Process {
    Process::start(&[
        ("DATABASE_URL", &Cluster::shared().await.database().await),
        ("VOICECALL_AUTH_POLICY", &policy(dir, expires_at)),
    ])
}

#[tokio::test]
async fn the_command_line_reads_tokens_from_files_and_commands() {
    let dir = Dir::new("credentials");
    let service = with_policy(&dir, "2100-01-01T00:00:00Z").await;
    let token = dir.write("token", &format!("{TOKEN}\n"));
    let command = format!("cat '{token}'");
    let vars = [
        [("VOICECALL_TOKEN_FILE", token.as_str())],
        [("VOICECALL_TOKEN_COMMAND", command.as_str())],
        [("VOICECALL_TOKEN", TOKEN)],
    ];
    for vars in &vars {
        run_with(&service.endpoint, &["list"], vars).await.ok();
    }
    for args in [
        ["list", "--token-file", &token],
        ["list", "--token-command", &command],
    ] {
        run(&service.endpoint, &args).await.ok();
    }
    for (args, code, line) in [
        (&["list"][..], 4, "the request has no credentials"),
        (
            &["list", "--token-command", "false"],
            1,
            "from the command false: it ended with",
        ),
        (
            &["list", "--token-command", "cat '"],
            2,
            "the closing ' is missing",
        ),
        (
            &["list", "--token-command", "a", "--token-file", "b"],
            2,
            "cannot be used with",
        ),
    ] {
        let ran = run(&service.endpoint, args).await;
        assert_eq!(ran.code, Some(code), "{ran:?}");
        assert!(ran.stderr.contains(line), "{ran:?}");
    }

    let service = with_policy(&dir, "2020-01-01T00:00:00Z").await;
    let ran = run(&service.endpoint, &["list", "--token-file", &token]).await;
    let line = format!(
        "voicecall: the credentials have expired; get new ones, then retry or resume; the file \
         {token} still has the same token (TOKEN_EXPIRED)\n"
    );
    assert_eq!((ran.code, ran.stderr), (Some(4), line));
}

#[tokio::test]
async fn a_profile_says_how_to_reach_a_service() {
    let server = Server::start().await;
    let gate = Gate::start(&server.endpoint, []).await;
    let dir = Dir::new("credentials");
    dir.write("token", "from-file");
    std::fs::create_dir(dir.path("voicecall")).expect("it is new");
    let config = dir.write(
        "voicecall/config.toml",
        &format!(
            "[profile.here]\nendpoint = \"{}\"\ntoken_file = \"../token\"\n\
             [profile.there]\nendpoint = \"http://127.0.0.1:1\"\ntoken_command = \"echo there\"\n",
            gate.endpoint
        ),
    );
    let program = |args: &[&str], vars: &[(&str, &str)]| {
        let mut command = crate::program::command("", args);
        command.env_remove("VOICECALL_ENDPOINT");
        command.envs(vars.iter().copied());
        async move { crate::program::Ran::new(command.output().await.expect("it is built")) }
    };
    let home = dir.path("");
    let here = [("XDG_CONFIG_HOME", home.as_str())];
    let endpoint = [here[0], ("VOICECALL_ENDPOINT", gate.endpoint.as_str())];
    let all = [
        here[0],
        ("VOICECALL_PROFILE", "here"),
        ("VOICECALL_TOKEN", "from-variable"),
    ];
    program(&["--profile", "here", "list"], &here).await.ok();
    program(&["list", "--profile=here", "--config", &config], &[])
        .await
        .ok();
    program(&["--config", &config, "--profile=here", "list"], &[])
        .await
        .ok();
    program(&["list"], &all).await.ok();
    program(&["list", "--token-command=echo flag"], &all)
        .await
        .ok();
    program(&["list", "--profile=there"], &endpoint).await.ok();
    assert_eq!(
        tokens(&gate),
        [
            "from-file",
            "from-file",
            "from-file",
            "from-variable",
            "flag",
            "there"
        ]
    );

    let bad = dir.write("bad.toml", "[profile.a]\ntoken = \"hunter2\"\n");
    for (args, code, line) in [
        (
            &["list", "--profile", "elsewhere", "--config", &config][..],
            2,
            format!("there is no profile \"elsewhere\": {config} has here, there"),
        ),
        (
            &["list", "--profile=a", "--config", &bad],
            2,
            format!(
                "{bad} has an error at line 2, column 1: this file must not contain secrets: use \
                 token_file or token_command instead"
            ),
        ),
        (
            &["list", "--profile=a", "--config=/nonexistent"],
            1,
            "cannot read /nonexistent: No such file or directory (os error 2)".into(),
        ),
        (
            &["list", "--profile=a"],
            2,
            "no configuration file: neither --config nor HOME is set".into(),
        ),
    ] {
        let ran = program(args, &[]).await;
        assert_eq!(
            (ran.code, ran.stderr),
            (Some(code), format!("voicecall: {line}\n"))
        );
    }
    let ran = program(&["--profile=here", "serve"], &here).await;
    assert_eq!(ran.code, Some(2), "{ran:?}");
    assert!(
        ran.stderr
            .contains("for commands that use a running service"),
        "{ran:?}"
    );
}

#[tokio::test]
async fn an_endpoint_with_the_wrong_scheme_is_said_in_one_line() {
    let dir = Dir::new("credentials");
    make_certificates(dir.as_ref());
    let secured = Process::start(&[
        ("DATABASE_URL", &Cluster::shared().await.database().await),
        ("VOICECALL_TLS_CERT", &dir.path("server.pem")),
        ("VOICECALL_TLS_KEY", &dir.path("server.key")),
    ]);
    let plain = Restartable::start().await;
    let secured = secured.endpoint.replace("http:", "https:");
    let trusting = format!("--ca-cert={}", dir.path("ca.pem"));
    run(&secured, &["list", &trusting, "--server-name=db.example"])
        .await
        .ok();
    run(&plain.endpoint(), &["list"]).await.ok();
    let misdirected = [
        (
            secured.replace("https:", "http:"),
            format!("speaks TLS: use {secured}"),
        ),
        (
            plain.endpoint().replace("http:", "https:"),
            format!("does not speak TLS: use {}", plain.endpoint()),
        ),
    ];
    for (endpoint, line) in &misdirected {
        for command in ["list", "watch"] {
            let ran = run(endpoint, &[command]).await;
            let line = format!("voicecall: the service {line} (FAILED_PRECONDITION)\n");
            assert_eq!((ran.code, ran.stderr), (Some(2), line), "{endpoint}");
        }
    }
}
