//! Certificate, authorities, policy and keys change under load, and no client notices.

use std::{
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{sync::RwLock, task::JoinSet, time::timeout};
use tokio_util::sync::CancellationToken;
use tonic::{
    Status,
    transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity},
};
use voicecall::{
    auth::jwt::issue::SigningKey,
    proto::{
        CreateVoiceCallRequest, GetVoiceCallRequest,
        voice_call_service_client::VoiceCallServiceClient, watch_voice_calls_response::Message,
    },
};

use super::{hang_up, with_token};
use crate::support::{
    Client,
    dir::Dir,
    eventually, inbound,
    postgres::Cluster,
    server::Process,
    tokens::{AUDIENCE, ISSUER, new_key, token},
    watcher::{from, live},
};

const ROTATIONS: usize = 10;
const CLIENTS: usize = 64;
const WATCHERS: usize = 8;
const NAME: &str = "calls.example";
const PATIENCE: Duration = Duration::from_secs(30);

/// Makes a certificate `name`, signed by `issuer`, or by itself as an authority.
fn certificate(dir: &Dir, name: &str, issuer: Option<&str>, extension: &str) {
    let mut command = Command::new("openssl");
    command.args("req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes".split(' '));
    command.args(["-subj", &format!("/CN={name}"), "-addext", extension]);
    command.args([
        "-keyout",
        &format!("{name}.key"),
        "-out",
        &format!("{name}.pem"),
    ]);
    if let Some(issuer) = issuer {
        command.args(["-CA", &format!("{issuer}.pem")]);
        command.args(["-CAkey", &format!("{issuer}.key")]);
        command.args(["-addext", "basicConstraints=critical,CA:FALSE"]);
    }
    command.current_dir(dir).stderr(Stdio::null());
    assert!(command.status().expect("openssl is installed").success());
}

/// The key as a member of a key set.
fn public_key(signer: &SigningKey) -> serde_json::Value {
    let mut set: serde_json::Value = serde_json::from_str(&signer.key_set()).expect("JSON");
    set["keys"][0].take()
}

/// What a client that connects now uses.
#[derive(Clone)]
struct Current {
    endpoint: String,
    authority: String,
    certificate: String,
    key: String,
    token: String,
}

impl Current {
    async fn connect(&self) -> Client {
        let tls = ClientTlsConfig::new()
            .ca_certificate(Certificate::from_pem(&self.authority))
            .identity(Identity::from_pem(&self.certificate, &self.key))
            .domain_name(NAME);
        let endpoint = Endpoint::from_shared(self.endpoint.replace("http:", "https:"));
        let endpoint = endpoint
            .expect("a URL")
            .tls_config(tls)
            .expect("good files");
        let channel: Channel = endpoint.connect().await.expect("it connects");
        VoiceCallServiceClient::new(channel)
    }
}

/// Creates and looks up calls until it is stopped: without retries, each on a connection that is
/// new now and then.
async fn work(
    current: Arc<RwLock<Current>>,
    requests: Arc<AtomicU64>,
    stop: CancellationToken,
) -> Result<(), Status> {
    while !stop.is_cancelled() {
        let used = current.read().await.clone();
        let mut client = used.connect().await;
        for number in 0..20 {
            let request = CreateVoiceCallRequest {
                voice_call: Some(inbound()),
                ..Default::default()
            };
            // Half of them by the certificate of the connection, half by a token.
            let request = match number % 2 {
                0 => tonic::Request::new(request),
                _ => with_token(request, &used.token),
            };
            let created = client.create_voice_call(request).await?.into_inner();
            let uid = created.voice_call.expect("always set").uid;
            let request = GetVoiceCallRequest {
                uid,
                ..Default::default()
            };
            client.get_voice_call(request).await?;
            requests.fetch_add(2, Ordering::Relaxed);
        }
    }
    Ok(())
}

/// Watches on one connection until it is stopped; every revision comes once, in order.
async fn watch(used: Current, stop: CancellationToken) -> Result<u64, Status> {
    let mut client = used.connect().await;
    let stream = client.watch_voice_calls(from(live())).await;
    let mut stream = stream?.into_inner();
    let (mut last, mut seen) = (None, 0);
    while !stop.is_cancelled() {
        let next = timeout(PATIENCE, stream.message()).await;
        let next = next.expect("checkpoints come")?.expect("it goes on");
        let Some(Message::EventBatch(batch)) = next.message else {
            continue;
        };
        for event in batch.events {
            let revision = event.change.expect("always set").revision;
            assert!(
                last.is_none_or(|last| revision == last + 1),
                "{last:?} {revision}"
            );
            last = Some(revision);
            seen += 1;
        }
    }
    Ok(seen)
}

/// The certificate that the server shows now.
async fn shown(address: &str, current: &Current, dir: &Dir) -> String {
    dir.write("now.pem", &current.certificate);
    dir.write("now.key", &current.key);
    let output = tokio::process::Command::new("openssl")
        .args(["s_client", "-connect", address, "-alpn", "h2", "-showcerts"])
        .args(["-cert", &dir.path("now.pem"), "-key", &dir.path("now.key")])
        .stdin(Stdio::null())
        .output()
        .await
        .expect("openssl is installed");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_rotations_under_load_break_no_request_and_no_stream() {
    let dir = Dir::new("rotation");
    let names = format!("subjectAltName=DNS:{NAME}");
    certificate(&dir, "server-ca", None, "keyUsage=keyCertSign");
    certificate(&dir, "authority-0", None, "keyUsage=keyCertSign");
    certificate(&dir, "server-0", Some("server-ca"), &names);
    certificate(
        &dir,
        "client-0",
        Some("authority-0"),
        "subjectAltName=URI:spiffe://a/client",
    );
    let read = |name: &str| std::fs::read_to_string(dir.path(name)).expect("it is there");
    let entry = "[[principal]]\nname = \"clients\"\ncertificate_uri = \"spiffe://a/*\"\n\
        scopes = [\"calls:read\", \"calls:write\"]\n";
    dir.write("cert.pem", &read("server-0.pem"));
    dir.write("key.pem", &read("server-0.key"));
    dir.write("clients.pem", &read("authority-0.pem"));
    dir.write("policy.toml", entry);
    let mut signer = new_key();
    dir.write("jwks.json", &signer.key_set());
    let mut keys = vec![public_key(&signer)];
    let url = Cluster::shared().await.database().await;
    let server = Process::start(&[
        ("DATABASE_URL", &url),
        ("VOICECALL_TLS_CERT", &dir.path("cert.pem")),
        ("VOICECALL_TLS_KEY", &dir.path("key.pem")),
        ("VOICECALL_TLS_CLIENT_CA", &dir.path("clients.pem")),
        ("VOICECALL_AUTH_POLICY", &dir.path("policy.toml")),
        ("VOICECALL_AUTH_JWKS", &dir.path("jwks.json")),
        ("VOICECALL_AUTH_ISSUER", ISSUER),
        ("VOICECALL_AUTH_AUDIENCE", AUDIENCE),
    ]);
    let address = server.endpoint.replace("http://", "");
    let life = Duration::from_secs(600);
    let mut used = Current {
        endpoint: server.endpoint.clone(),
        authority: read("server-ca.pem"),
        certificate: read("client-0.pem"),
        key: read("client-0.key"),
        token: token(&signer, "amy", life),
    };
    let current = Arc::new(RwLock::new(used.clone()));
    let (requests, stop) = (Arc::new(AtomicU64::new(0)), CancellationToken::new());
    let (mut workers, mut watchers) = (JoinSet::new(), JoinSet::new());
    for _ in 0..CLIENTS {
        workers.spawn(work(
            Arc::clone(&current),
            Arc::clone(&requests),
            stop.clone(),
        ));
    }
    for _ in 0..WATCHERS {
        watchers.spawn(watch(used.clone(), stop.clone()));
    }
    for number in 1..=ROTATIONS {
        let made = requests.load(Ordering::Relaxed);
        let [authority, client, host] =
            ["authority", "client", "server"].map(|name| format!("{name}-{number}"));
        certificate(&dir, &authority, None, "keyUsage=keyCertSign");
        let uri = format!("subjectAltName=URI:spiffe://a/client-{number}");
        certificate(&dir, &client, Some(&authority), &uri);
        certificate(&dir, &host, Some("server-ca"), &names);
        // The old ones stay beside the new ones for as long as clients use them.
        let authorities: Vec<_> = (0..=number)
            .map(|number| read(&format!("authority-{number}.pem")))
            .collect();
        signer = new_key();
        keys.push(public_key(&signer));
        let certificate_pem = read(&format!("{host}.pem"));
        dir.write("clients.pem", &authorities.concat());
        dir.write("cert.pem", &certificate_pem);
        dir.write("key.pem", &read(&format!("{host}.key")));
        dir.write(
            "jwks.json",
            &serde_json::json!({ "keys": keys }).to_string(),
        );
        dir.write("policy.toml", &format!("# {number}\n{entry}"));
        hang_up(&server);
        used.certificate = read(&format!("{client}.pem"));
        used.key = read(&format!("{client}.key"));
        let body = certificate_pem.lines().nth(2).expect("a line of base64");
        eventually("the new certificate is shown", async || {
            shown(&address, &used, &dir).await.contains(body)
        })
        .await;
        used.token = token(&signer, "amy", life);
        eventually("the new key is known", async || {
            let mut client = used.connect().await;
            let request = with_token(GetVoiceCallRequest::default(), &used.token);
            let status = client.get_voice_call(request).await.expect_err("no uid");
            status.code() == tonic::Code::InvalidArgument
        })
        .await;
        *current.write().await = used.clone();
        eventually("work goes on", async || {
            let ended = workers
                .try_join_next()
                .map(|ended| ended.expect("no panic"));
            assert!(ended.is_none(), "{ended:?}");
            requests.load(Ordering::Relaxed) > made + 4 * CLIENTS as u64
        })
        .await;
    }
    stop.cancel();
    while let Some(ended) = workers.join_next().await {
        ended.expect("no panic").expect("no request fails");
    }
    while let Some(ended) = watchers.join_next().await {
        let seen = ended.expect("no panic").expect("no stream breaks");
        assert!(seen > 0);
    }
    println!("{} requests", requests.load(Ordering::Relaxed));
}
