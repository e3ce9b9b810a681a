//! The service with TLS and credentials, to measure what they cost: `--secured` beside a build
//! that `--before` names, which has none.
//!
//! The path of a secured endpoint is the directory with what its clients need.

use std::{fs, path::Path, process::Command, sync::Arc};

use rustls::{
    ClientConfig, RootCertStore,
    crypto::ring,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};
use tonic::{
    Request, Status,
    metadata::{Ascii, MetadataValue},
    service::Interceptor,
};

use crate::Result;

const NAME: &str = "calls.example";
const ISSUER: &str = "bench";
const PROTOCOL: &[u8] = b"h2";

/// What the service is secured with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Secured {
    /// TLS.
    Tls,
    /// A token of an identity provider.
    Jwt,
    /// A token of a policy file.
    Policy,
}

/// Makes certificates and tokens in `dir`; the environment variables of the service.
pub(crate) fn prepare(with: &[Secured], dir: &Path) -> Result<Vec<(&'static str, String)>> {
    let path = |name: &str| dir.join(name).display().to_string();
    let mut environment = Vec::new();
    if with.contains(&Secured::Tls) {
        let mut openssl = Command::new("openssl");
        openssl.args("req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes".split(' '));
        openssl.args([
            "-subj",
            "/CN=bench",
            "-keyout",
            &path("key"),
            "-out",
            &path("certificate"),
        ]);
        openssl.args(["-addext", &format!("subjectAltName=DNS:{NAME}")]);
        openssl.args(["-addext", "basicConstraints=critical,CA:FALSE"]);
        run(&mut openssl)?;
        environment.push(("VOICECALL_TLS_CERT", path("certificate")));
        environment.push(("VOICECALL_TLS_KEY", path("key")));
    }
    let scopes = [
        "--scope",
        "calls:read",
        "--scope",
        "calls:write",
        "--scope",
        "calls:purge",
    ];
    let auth = |arguments: &[&str]| {
        let mut auth = Command::new(env!("CARGO_BIN_EXE_voicecall"));
        auth.arg("auth").args(arguments).current_dir(dir);
        auth
    };
    if with.contains(&Secured::Policy) {
        let mut new_token = auth(&["new-token", "--name", "bench", "--token-file", "token"]);
        fs::write(path("policy"), run(new_token.args(scopes))?)?;
        environment.push(("VOICECALL_AUTH_POLICY", path("policy")));
    }
    if with.contains(&Secured::Jwt) {
        run(&mut auth(&[
            "new-key",
            "--key-file",
            "signer",
            "--jwks-file",
            "keys",
        ]))?;
        let mut issue = auth(&["issue", "--key-file", "signer", "--sub", "bench"]);
        issue.args(["--issuer", ISSUER, "--audience", ISSUER, "--expires", "1d"]);
        fs::write(path("token"), run(issue.args(scopes))?)?;
        environment.push(("VOICECALL_AUTH_JWKS", path("keys")));
        environment.push(("VOICECALL_AUTH_ISSUER", ISSUER.to_owned()));
        environment.push(("VOICECALL_AUTH_AUDIENCE", ISSUER.to_owned()));
    }
    Ok(environment)
}

fn run(command: &mut Command) -> Result<Vec<u8>> {
    let output = command.output()?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned().into());
    }
    Ok(output.stdout)
}

/// What a client of a secured service needs.
#[derive(Clone, Default)]
pub(crate) struct Credentials {
    tls: Option<TlsConnector>,
    authorization: Option<MetadataValue<Ascii>>,
}

impl Credentials {
    /// Those in the directory that the path of the URL names.
    pub(crate) fn of(endpoint: &http::Uri) -> Result<Self> {
        if endpoint.path().len() <= 1 {
            return Ok(Self::default());
        }
        let dir = Path::new(endpoint.path());
        let (certificate, token) = (dir.join("certificate"), dir.join("token"));
        let mut credentials = Self::default();
        if certificate.exists() {
            let mut roots = RootCertStore::empty();
            roots.add(CertificateDer::from_pem_file(certificate)?)?;
            let mut config =
                ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
                    .with_safe_default_protocol_versions()?
                    .with_root_certificates(roots)
                    .with_no_client_auth();
            config.alpn_protocols = vec![PROTOCOL.to_vec()];
            credentials.tls = Some(TlsConnector::from(Arc::new(config)));
        }
        if token.exists() {
            let header = format!("Bearer {}", fs::read_to_string(token)?.trim());
            let mut value = MetadataValue::try_from(header)?;
            value.set_sensitive(true);
            credentials.authorization = Some(value);
        }
        Ok(credentials)
    }

    /// The socket after its handshake, if there is TLS.
    pub(crate) async fn secure(
        &self,
        socket: TcpStream,
    ) -> std::io::Result<tokio_util::either::Either<TcpStream, TlsStream<TcpStream>>> {
        use tokio_util::either::Either;
        match &self.tls {
            None => Ok(Either::Left(socket)),
            Some(tls) => {
                let name = ServerName::try_from(NAME).map_err(std::io::Error::other)?;
                Ok(Either::Right(tls.connect(name, socket).await?))
            }
        }
    }
}

impl Interceptor for Credentials {
    fn call(&mut self, mut request: Request<()>) -> std::result::Result<Request<()>, Status> {
        if let Some(value) = &self.authorization {
            request
                .metadata_mut()
                .insert("authorization", value.clone());
        }
        Ok(request)
    }
}
