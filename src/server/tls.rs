//! TLS for clients: the certificate, its key, and the authority of client certificates, which
//! change together when their files change.
//!
//! A change makes a new configuration: connections that are open stay as they are, and
//! sessions from before are not resumed, because their tickets were made with other keys.

use std::{
    path::PathBuf,
    sync::Arc,
    time::{Duration, SystemTime},
};

use rustls::{
    RootCertStore, ServerConfig,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, UnixTime, pem::PemObject},
    server::{WebPkiClientVerifier, danger::ClientCertVerifier},
};
use tokio::time::sleep;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::{
    auth::Certificate,
    reload::{Current, Files},
};

const PROTOCOL: &[u8] = b"h2";
const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// A certificate that expires sooner is warned of, once a day.
const WARN_DAYS: u64 = 14;

/// Where the certificate and the key are, in PEM, and which clients have to show one.
#[derive(Debug, Clone)]
pub struct TlsPaths {
    /// The server's certificate, followed by those of the authorities between.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
    /// The authorities of client certificates; `None`: no client is asked for one.
    pub client_ca: Option<PathBuf>,
    /// Whether clients without a certificate are refused.
    pub requires_certificate: bool,
}

/// The TLS of the server, as it is now.
pub struct Tls {
    acceptor: TlsAcceptor,
    expires_at: SystemTime,
}

impl Tls {
    /// Reads the files for the first time.
    ///
    /// # Errors
    /// They cannot be used; a message for the operator.
    pub fn load(paths: &TlsPaths) -> Result<(Files<Self>, Current<Self>), String> {
        let requires_certificate = paths.requires_certificate;
        let files = [&paths.certificate, &paths.key]
            .into_iter()
            .chain(&paths.client_ca);
        let files = files.cloned().collect();
        Files::load(
            "the TLS certificate",
            files,
            move |contents, before: Option<&Self>| {
                let tls = Self::parse(contents, requires_certificate)?;
                let now = SystemTime::now();
                let was_valid = before.is_some_and(|before| before.expires_at > now);
                if was_valid && tls.expires_at <= now {
                    return Err("the certificate has expired".to_owned());
                }
                Ok(tls)
            },
        )
    }

    fn parse(contents: &[Vec<u8>], requires_certificate: bool) -> Result<Self, String> {
        let [certificate, key, rest @ ..] = contents else {
            return Err("there is no certificate and key".to_owned());
        };
        let chain = certificates(certificate, "the certificate file")?;
        let key = PrivateKeyDer::from_pem_slice(key)
            .map_err(|_| "the key file contains no unencrypted key in PEM format")?;
        let expires_at = chain.first().map(|first| Certificate::parse(first));
        let expires_at = expires_at.and_then(Result::ok).map(|it| it.expires_at());
        let expires_at = expires_at.ok_or("the certificate file cannot be parsed")?;
        let provider = Arc::new(ring::default_provider());
        let verifier = match rest {
            [authorities, ..] => Some(client_verifier(authorities, requires_certificate)?),
            [] => None,
        };
        let builder = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?;
        let builder = match verifier {
            Some(verifier) => builder.with_client_cert_verifier(verifier),
            None => builder.with_no_client_auth(),
        };
        let mut config = builder
            .with_single_cert(chain, key)
            .map_err(|error| format!("the certificate and the key cannot be used: {error}"))?;
        config.alpn_protocols = vec![PROTOCOL.to_vec()];
        config.ticketer = ring::Ticketer::new().map_err(|error| error.to_string())?;
        Ok(Self {
            acceptor: TlsAcceptor::from(Arc::new(config)),
            expires_at,
        })
    }

    pub(super) fn acceptor(&self) -> &TlsAcceptor {
        &self.acceptor
    }

    /// The days until the certificate expires; 0 when it has.
    fn days_left(&self, now: SystemTime) -> u64 {
        let left = self.expires_at.duration_since(now).unwrap_or_default();
        left.as_secs() / DAY.as_secs()
    }
}

/// Says in the log how long the certificate is valid: at the start, when it has changed, and
/// once a day when it expires soon.
pub(super) async fn report_expiry(mut tls: Current<Tls>, stop: CancellationToken) {
    loop {
        if let Some(tls) = tls.get() {
            let days = tls.days_left(SystemTime::now());
            if tls.expires_at <= SystemTime::now() {
                warn!("the TLS certificate has expired");
            } else if days < WARN_DAYS {
                warn!(days_left = days, "the TLS certificate expires soon");
            } else {
                info!(days_left = days, "the TLS certificate is valid");
            }
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tls.changed() => {}
            () = sleep(DAY) => {}
        }
    }
}

/// Verifies a client's certificate, in PEM and followed by any intermediate ones, as the
/// handshake does.
///
/// # Errors
/// Why the handshake would refuse it; a message for the operator.
pub fn verify_client_certificate(authorities: &[u8], certificate: &[u8]) -> Result<(), String> {
    let verifier = client_verifier(authorities, true)?;
    let chain = certificates(certificate, "the certificate file")?;
    let (first, rest) = chain.split_first().ok_or("there is no certificate")?;
    verifier
        .verify_client_cert(first, rest, UnixTime::now())
        .map_err(|error| format!("refused at the handshake: {error}"))?;
    Ok(())
}

fn client_verifier(
    authorities: &[u8],
    is_required: bool,
) -> Result<Arc<dyn ClientCertVerifier>, String> {
    let mut roots = RootCertStore::empty();
    for authority in certificates(authorities, "the client CA file")? {
        roots
            .add(authority)
            .map_err(|_| "the client CA file contains a certificate that cannot be parsed")?;
    }
    let provider = Arc::new(ring::default_provider());
    let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
    let builder = match is_required {
        true => builder,
        false => builder.allow_unauthenticated(),
    };
    builder
        .build()
        .map_err(|error| format!("the client CA file cannot be used: {error}"))
}

fn certificates(pem: &[u8], file: &str) -> Result<Vec<CertificateDer<'static>>, String> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match found {
        Ok(found) if !found.is_empty() => Ok(found),
        Ok(_) => Err(format!("{file} contains no certificate in PEM format")),
        Err(_) => Err(format!("{file} is not valid PEM")),
    }
}
