//! Tokens that change and end: where the client reads them, when it reads them again, and what
//! goes on meanwhile.

use std::{
    collections::{HashMap, HashSet},
    fs,
    path::{Path, PathBuf},
    pin::pin,
    sync::atomic::{AtomicUsize, Ordering},
};

use futures_util::{StreamExt, TryStreamExt, future::join_all, stream};
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};
use voicecall::{
    auth::jwt::issue::SigningKey,
    client::{Client, Settings, TokenSource, Watched},
    proto::{
        CreateVoiceCallRequest, ErrorReason, ExportVoiceCallsRequest, ImportRecord, ImportSettings,
        ListVoiceCallsRequest, Live, WatchVoiceCallsRequest,
        import_voice_calls_response::Result as Answer, watch_voice_calls_request::Start,
    },
};

use crate::{
    gate::{Act, Gate},
    program::{run, run_with},
    support::{
        Server, eventually, inbound,
        postgres::Cluster,
        secured::make_certificates,
        server::{Process, Restartable},
    },
    transfers::call,
};

/// How many tokens a stream has to outlive, and how long each of them lives: as many as there
/// are in an hour of two seconds each, where VOICECALL_TEST_LONG is set.
fn tokens_to_outlive() -> (usize, &'static str) {
    match std::env::var_os("VOICECALL_TEST_LONG") {
        Some(_) => (1800, "500ms"),
        None => (6, "2s"),
    }
}

/// A directory of this test's own, removed at the end.
struct Dir(PathBuf);

impl Dir {
    fn new() -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("voicecall-credentials-{}-{count}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::create_dir(&path).expect("it is new");
        Self(path)
    }

    fn path(&self, name: &str) -> String {
        self.0.join(name).display().to_string()
    }

    fn write(&self, name: &str, content: &str) -> String {
        fs::write(self.0.join(name), content).expect("it can be written");
        self.path(name)
    }

    /// How many lines a file has; none if it is not there.
    fn lines(&self, name: &str) -> usize {
        let text = fs::read_to_string(self.0.join(name)).unwrap_or_default();
        text.lines().count()
    }

    fn file(&self, name: &str) -> TokenSource {
        TokenSource::File(self.0.join(name))
    }

    /// A command that prints 1, then 2, and so on.
    fn counting(&self) -> TokenSource {
        let count = self.path("count");
        shell(&format!("echo x >>{count} && wc -l <{count}"))
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        // Left for the system to clear, if it cannot be removed.
        let _ = fs::remove_dir_all(&self.0);
    }
}

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

/// Refuses a token like the service.
fn refusal(reason: &str) -> Act {
    let mut details = ErrorDetails::new();
    details.set_error_info(reason, "voicecall.v1", HashMap::new());
    let status = Status::with_error_details(Code::Unauthenticated, "not with this", details);
    Act::Refuse(status)
}

fn tokens(gate: &Gate) -> Vec<String> {
    let seen = gate.seen();
    let tokens = seen.iter().filter_map(|one| one.header("authorization"));
    tokens
        .map(|token| token.trim_start_matches("Bearer ").to_owned())
        .collect()
}

/// A service whose tokens live for two seconds, and not a moment longer.
struct ShortLived {
    dir: Dir,
    service: Process,
}

impl ShortLived {
    async fn start() -> Self {
        let dir = Dir::new();
        let key = SigningKey::generate().expect("there are random numbers");
        dir.write("key", &key.to_pem());
        let keys = dir.write("keys", &key.key_set());
        let service = Process::start(&[
            ("DATABASE_URL", &Cluster::shared().await.database().await),
            ("VOICECALL_AUTH_JWKS", &keys),
            ("VOICECALL_AUTH_ISSUER", "tests"),
            ("VOICECALL_AUTH_AUDIENCE", "voicecall"),
            ("VOICECALL_AUTH_LEEWAY", "0"),
        ]);
        Self { dir, service }
    }

    /// A client whose tokens are counted, a line for each, in this file.
    fn client(&self, count: &str) -> Client {
        let program = env!("CARGO_BIN_EXE_voicecall");
        let (count, key) = (self.dir.path(count), self.dir.path("key"));
        let (_, lifetime) = tokens_to_outlive();
        let script = format!(
            "echo x >>{count}; exec {program} auth issue --key-file {key} --sub test \
             --issuer tests --audience voicecall --scope calls:read --scope calls:write \
             --expires {lifetime}"
        );
        client(&self.service.endpoint, shell(&script))
    }
}

async fn create(client: &Client) -> i64 {
    let request = CreateVoiceCallRequest {
        voice_call: Some(inbound()),
        ..Default::default()
    };
    client
        .create(request)
        .await
        .expect("it is created")
        .revision
}

#[tokio::test]
async fn a_watch_and_writes_go_on_through_many_tokens() {
    let service = ShortLived::start().await;
    let (watcher, writer) = (
        service.client("watch-tokens"),
        service.client("write-tokens"),
    );
    let last = AtomicUsize::new(usize::MAX);
    let watching = async {
        let mut watch = pin!(watcher.watch(WatchVoiceCallsRequest {
            start: Some(Start::AfterRevision(0)),
            ..Default::default()
        }));
        let mut seen = 0;
        while seen < last.load(Ordering::Relaxed) {
            let watched = watch.try_next().await.expect("it goes on");
            if let Watched::Event(event) = watched.expect("it goes on") {
                seen += 1;
                let revision = event.change.expect("it has one").revision;
                assert_eq!(usize::try_from(revision), Ok(seen));
            }
        }
    };
    let writing = async {
        while service.dir.lines("watch-tokens") < tokens_to_outlive().0 {
            create(&writer).await;
        }
        let revision = usize::try_from(create(&writer).await).expect("small");
        last.store(revision, Ordering::Relaxed);
        // The watcher may have seen it before it knew that it is the last.
        create(&writer).await;
    };
    tokio::join!(watching, writing);
    // The two do not read theirs at the same moments.
    assert!(service.dir.lines("write-tokens") >= tokens_to_outlive().0 * 4 / 5);
}

#[tokio::test]
async fn an_import_goes_on_through_many_tokens() {
    let service = ShortLived::start().await;
    let importer = service.client("tokens");
    let mut sent = 0;
    let records = stream::poll_fn(|_| {
        let more = service.dir.lines("tokens") < tokens_to_outlive().0;
        std::task::Poll::Ready(more.then(|| {
            sent += 1;
            ImportRecord {
                sequence: sent,
                voice_call: Some(call(u128::try_from(sent).expect("positive"))),
            }
        }))
    });
    let mut answered = HashSet::new();
    {
        let mut answers = pin!(importer.import(ImportSettings::default(), records));
        while let Some(answer) = answers.try_next().await.expect("it goes on") {
            assert!(
                matches!(answer.result, Some(Answer::Success(_))),
                "{answer:?}"
            );
            assert!(
                answered.insert(answer.sequence),
                "{} twice",
                answer.sequence
            );
        }
    }
    assert_eq!(answered, (1..=sent).collect());
}

#[tokio::test]
async fn a_refused_token_is_read_again_and_another_one_is_tried_once() {
    for reason in ["TOKEN_EXPIRED", "CREDENTIALS_INVALID"] {
        let dir = Dir::new();
        let gate = Gate::alone([refusal(reason), refusal(reason)]).await;
        let client = client(&gate.endpoint, dir.counting());
        let page = client.list_page(ListVoiceCallsRequest::default()).await;
        let error = page.expect_err("refused");
        assert_eq!(error.details.reason.as_deref(), Some(reason));
        assert_eq!(
            (tokens(&gate), dir.lines("count")),
            (vec!["1".into(), "2".into()], 2)
        );
    }
    // An export is started again before its first page.
    let server = Server::start().await;
    let dir = Dir::new();
    let gate = Gate::start(&server.endpoint, [refusal("TOKEN_EXPIRED")]).await;
    let client = client(&gate.endpoint, dir.counting());
    let chunks = client.export_chunks(ExportVoiceCallsRequest::default());
    chunks
        .try_collect::<Vec<_>>()
        .await
        .expect("it is started again");
    assert_eq!(tokens(&gate), ["1", "2"]);
}

#[tokio::test]
async fn the_same_token_is_not_sent_again_and_the_error_says_where_it_is() {
    let dir = Dir::new();
    let path = dir.write("token", "hunter2");
    for (source, note) in [
        (
            dir.file("token"),
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
    let dir = Dir::new();
    let refusals = (0..2 * REQUESTS).map(|_| refusal("TOKEN_EXPIRED"));
    let gate = Gate::alone(refusals).await;
    let client = client(&gate.endpoint, dir.counting());
    let requests = (0..REQUESTS).map(|_| client.list_page(ListVoiceCallsRequest::default()));
    let pages = join_all(requests).await;
    assert!(pages.iter().all(Result::is_err));
    assert_eq!((tokens(&gate).len(), dir.lines("count")), (2 * REQUESTS, 2));
}

#[tokio::test]
async fn a_watch_without_another_token_ends_after_a_few_tries() {
    let dir = Dir::new();
    let path = dir.write("token", "one");
    for (reason, source, times, note) in [
        (
            "TOKEN_EXPIRED",
            dir.file("token"),
            5,
            format!("{path} still has the same token"),
        ),
        ("TOKEN_EXPIRED", dir.counting(), 5, String::new()),
        (
            "CREDENTIALS_INVALID",
            dir.file("token"),
            1,
            "still has the same token".into(),
        ),
        (
            "CREDENTIALS_INVALID",
            Dir::new().counting(),
            2,
            String::new(),
        ),
        ("CREDENTIALS_MISSING", dir.counting(), 1, String::new()),
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

#[tokio::test]
async fn a_file_is_looked_at_again_and_keeps_its_token_while_it_is_unreadable() {
    let server = Server::start().await;
    let gate = Gate::start(&server.endpoint, []).await;
    let dir = Dir::new();
    dir.write("token", "one\n");
    let client = client(&gate.endpoint, dir.file("token"));
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
    let dir = Dir::new();
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
    let dir = Dir::new();
    dir.write("token", "from-file");
    fs::create_dir(dir.0.join("voicecall")).expect("it is new");
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
    let dir = Dir::new();
    make_certificates(Path::new(&dir.0));
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
