//! TLS to the service, behind an end of TLS that the tests hold.

use std::{
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use rustls::{
    RootCertStore, ServerConfig,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::WebPkiClientVerifier,
};
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
};
use tokio_rustls::TlsAcceptor;

use crate::{
    program::{Ran, run, run_with},
    support::{Server, secured::make_certificates},
};

const NAME: &str = "--server-name=db.example";

/// A service that is reached by TLS, and the certificates.
struct Secured {
    endpoint: String,
    dir: PathBuf,
    _server: Server,
}

impl Secured {
    /// `name` is for the directory; with `mutual`, clients need a certificate.
    async fn start(name: &str, mutual: bool) -> Self {
        let dir = std::env::temp_dir().join(format!("voicecall-tls-{name}-{}", std::process::id()));
        std::fs::create_dir(&dir).expect("the directory is new");
        std::fs::set_permissions(&dir, PermissionsExt::from_mode(0o700)).expect("it is ours");
        make_certificates(&dir);
        let server = Server::start().await;
        let acceptor = acceptor(&dir, mutual);
        let listener = TcpListener::bind("127.0.0.1:0")
            .await
            .expect("a port is free");
        let endpoint = format!("https://{}", listener.local_addr().expect("bound"));
        let service = server.endpoint.trim_start_matches("http://").to_owned();
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.expect("it listens");
                let (acceptor, service) = (acceptor.clone(), service.clone());
                tokio::spawn(async move {
                    // A client that does not trust us ends here.
                    let Ok(mut outside) = acceptor.accept(stream).await else {
                        return;
                    };
                    let mut inside = TcpStream::connect(service).await.expect("it listens");
                    // However either side ends it.
                    let _ = copy_bidirectional(&mut outside, &mut inside).await;
                });
            }
        });
        Self {
            endpoint,
            dir,
            _server: server,
        }
    }

    fn file(&self, flag: &str, name: &str) -> String {
        format!("{flag}={}", self.dir.join(name).display())
    }
}

impl Drop for Secured {
    fn drop(&mut self) {
        // Left for the system to clear, if it cannot be removed.
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

fn acceptor(dir: &Path, mutual: bool) -> TlsAcceptor {
    let certificate = |name| CertificateDer::from_pem_file(dir.join(name)).expect("PEM");
    let provider = Arc::new(ring::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .expect("ring has them");
    let builder = if mutual {
        let mut roots = RootCertStore::empty();
        roots.add(certificate("ca.pem")).expect("a certificate");
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
        builder.with_client_cert_verifier(verifier.build().expect("roots"))
    } else {
        builder.with_no_client_auth()
    };
    let key = PrivateKeyDer::from_pem_file(dir.join("server.key")).expect("PEM");
    let mut config = builder
        .with_single_cert(vec![certificate("server.pem")], key)
        .expect("they belong together");
    config.alpn_protocols = vec![b"h2".to_vec()];
    TlsAcceptor::from(Arc::new(config))
}

#[track_caller]
fn assert_distrusted(ran: &Ran) {
    assert_eq!((ran.code, ran.stdout.as_str()), (Some(5), ""), "{ran:?}");
    assert!(ran.stderr.contains("certificate"), "{}", ran.stderr);
}

#[tokio::test]
async fn a_server_is_trusted_by_its_authority_and_its_name() {
    let secured = Secured::start("trust", false).await;
    let authority = secured.file("--ca-cert", "ca.pem");
    let endpoint = &secured.endpoint;
    run(endpoint, &["list", NAME, &authority]).await.ok();
    assert_distrusted(&run(endpoint, &["list", &authority]).await);
    let strange = secured.file("--ca-cert", "strange.pem");
    assert_distrusted(&run(endpoint, &["list", NAME, &strange]).await);
}

#[tokio::test]
async fn without_a_file_the_authorities_of_the_system_are_trusted() {
    let secured = Secured::start("system", false).await;
    let path = secured.dir.join("ca.pem").display().to_string();
    let trusting = [("SSL_CERT_FILE", path.as_str())];
    run_with(&secured.endpoint, &["list", NAME], &trusting)
        .await
        .ok();
    let path = secured.dir.join("strange.pem").display().to_string();
    let wary = [("SSL_CERT_FILE", path.as_str())];
    assert_distrusted(&run_with(&secured.endpoint, &["list", NAME], &wary).await);
}

#[tokio::test]
async fn a_server_may_ask_for_a_certificate() {
    let secured = Secured::start("mutual", true).await;
    let authority = secured.file("--ca-cert", "ca.pem");
    let with = async |name: &str| {
        let certificate = secured.file("--client-cert", &format!("{name}.pem"));
        let key = secured.file("--client-key", &format!("{name}.key"));
        let args = ["list", NAME, &authority, &certificate, &key];
        run(&secured.endpoint, &args).await
    };
    with("client").await.ok();
    assert_eq!(with("impostor").await.code, Some(5));
    let nobody = run(&secured.endpoint, &["list", NAME, &authority]).await;
    assert_eq!(nobody.code, Some(5));
}

#[tokio::test]
async fn a_file_that_is_no_certificate_is_reported_at_once() {
    let secured = Secured::start("files", false).await;
    let none = run(&secured.endpoint, &["list", "--ca-cert=/nonexistent.pem"]).await;
    assert_eq!(none.code, Some(1));
    assert!(
        none.stderr
            .starts_with("voicecall: cannot read /nonexistent.pem: "),
        "{none:?}"
    );
    let key = secured.file("--client-key", "client.key");
    let mixed = secured.file("--client-cert", "server.pem");
    let authority = secured.file("--ca-cert", "ca.pem");
    let ran = run(&secured.endpoint, &["list", &authority, &mixed, &key]).await;
    assert_eq!(ran.code, Some(1));
    assert!(
        ran.stderr.starts_with("voicecall: TLS cannot be set up: "),
        "{ran:?}"
    );
}
