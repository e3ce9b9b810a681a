//! TLS to the database: what `sslmode` and its companions mean, and the
//! verification that they ask for.
//!
//! The meanings are libpq's, but stricter: no default files in a home directory are
//! used, a file that is named must exist, and an `sslrootcert` that would verify
//! nothing is refused. The files are read once, at startup.
//!
//! It does not know hosts, sockets or sessions: `connector` does.

use std::{error::Error as _, fmt, io, path::Path, sync::Arc};

use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error as TlsError, RootCertStore,
    SignatureScheme,
    client::{
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        verify_server_cert_signed_by_trust_anchor, verify_server_name,
    },
    crypto::{WebPkiSupportedAlgorithms, ring, verify_tls12_signature, verify_tls13_signature},
    pki_types::{
        CertificateDer, PrivateKeyDer, ServerName, UnixTime,
        pem::{self, PemObject},
    },
    server::ParsedCertificate,
};
use tokio_postgres::{config::SslMode, error::SqlState};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::url::Parameters;
use crate::store::error::OpenError;

/// The protocol's name, without which PostgreSQL 17 refuses a direct handshake.
const PROTOCOL: &[u8] = b"postgresql";

/// How connections to one database are secured.
#[derive(Clone)]
pub(super) struct Tls {
    mode: Mode,
    connector: MakeRustlsConnect,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Disable,
    Prefer,
    Require,
    VerifyCa,
    VerifyFull,
}

impl Tls {
    /// Reads the files that the parameters name.
    pub(super) fn new(parameters: &Parameters) -> Result<Self, OpenError> {
        let roots = parameters.root_certificate.as_deref();
        let mode = match parameters.mode.as_deref() {
            Some(word) => Mode::parse(word)?,
            None if roots == Some("system") => Mode::VerifyFull,
            None => Mode::Prefer,
        };
        let provider = Arc::new(ring::default_provider());
        let verifier = Verifier {
            trust: Trust::new(mode, roots)?,
            algorithms: provider.signature_verification_algorithms,
        };
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("ring has the cipher suites of TLS 1.2 and 1.3")
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier));
        let mut config = match (&parameters.certificate, &parameters.key) {
            _ if mode == Mode::Disable => builder.with_no_client_auth(),
            (None, None) => builder.with_no_client_auth(),
            (Some(certificate), Some(key)) => builder
                .with_client_auth_cert(certificates("sslcert", certificate)?, private_key(key)?)
                .map_err(|error| bad(format!("sslcert and sslkey cannot be used: {error}")))?,
            (Some(_), None) => return Err(bad("sslcert needs sslkey")),
            (None, Some(_)) => return Err(bad("sslkey needs sslcert")),
        };
        config.alpn_protocols = vec![PROTOCOL.to_vec()];
        Ok(Self {
            mode,
            connector: MakeRustlsConnect::new(config),
        })
    }

    /// The mode for tokio-postgres, which decides only whether to use TLS.
    pub(super) fn ssl_mode(&self) -> SslMode {
        match self.mode {
            Mode::Disable => SslMode::Disable,
            Mode::Prefer => SslMode::Prefer,
            Mode::Require | Mode::VerifyCa | Mode::VerifyFull => SslMode::Require,
        }
    }

    /// What does the handshakes.
    pub(super) fn connector(&self) -> MakeRustlsConnect {
        self.connector.clone()
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Tls({:?})", self.mode)
    }
}

impl Mode {
    fn parse(word: &str) -> Result<Self, OpenError> {
        match word {
            "disable" => Ok(Self::Disable),
            // `allow` would encrypt only if plaintext is refused; nothing is lost by
            // encrypting wherever the server offers it.
            "allow" | "prefer" => Ok(Self::Prefer),
            "require" => Ok(Self::Require),
            "verify-ca" => Ok(Self::VerifyCa),
            "verify-full" => Ok(Self::VerifyFull),
            _ => Err(bad(
                "sslmode must be disable, allow, prefer, require, verify-ca or verify-full",
            )),
        }
    }
}

/// The error of the TLS handshake, if that is why the connection failed.
pub(super) fn handshake_error(error: &tokio_postgres::Error) -> Option<&TlsError> {
    let error = error.source()?.downcast_ref::<io::Error>()?;
    error.get_ref()?.downcast_ref()
}

/// Whether the connection may succeed without TLS: the handshake failed, or the
/// server's pg_hba.conf does not admit us over TLS.
pub(super) fn is_refused(error: &tokio_postgres::Error) -> bool {
    handshake_error(error).is_some()
        || error.code() == Some(&SqlState::INVALID_AUTHORIZATION_SPECIFICATION)
}

/// Whose certificates are accepted.
#[derive(Debug)]
enum Trust {
    Anyone,
    Authorities {
        roots: RootCertStore,
        /// The certificates in `sslrootcert`. A server's self-signed certificate may be
        /// among them, as its own CA.
        named: Vec<CertificateDer<'static>>,
        checks_name: bool,
    },
}

impl Trust {
    fn new(mode: Mode, roots: Option<&str>) -> Result<Self, OpenError> {
        let checks_name = mode == Mode::VerifyFull;
        match (mode, roots) {
            (Mode::Disable, _) | (Mode::Prefer | Mode::Require, None) => Ok(Self::Anyone),
            (Mode::Prefer, Some(_)) => Err(bad(
                "sslrootcert needs sslmode=require, verify-ca or verify-full: other modes verify \
                 nothing",
            )),
            (Mode::VerifyCa, None) => Err(bad("sslmode=verify-ca needs sslrootcert")),
            (Mode::Require | Mode::VerifyCa, Some("system")) => {
                Err(bad("sslrootcert=system needs sslmode=verify-full: \
                 anyone can get a certificate from a public CA"))
            }
            (Mode::VerifyFull, None | Some("system")) => Ok(Self::Authorities {
                roots: system_roots()?,
                named: Vec::new(),
                checks_name,
            }),
            (Mode::Require | Mode::VerifyCa | Mode::VerifyFull, Some(file)) => {
                let named = certificates("sslrootcert", file)?;
                let mut roots = RootCertStore::empty();
                for certificate in &named {
                    roots.add(certificate.clone()).map_err(|_| {
                        bad("the sslrootcert file contains a certificate that cannot be parsed")
                    })?;
                }
                Ok(Self::Authorities {
                    roots,
                    named,
                    checks_name,
                })
            }
        }
    }
}

/// The operating system's CA certificates: they include those that the operator has added,
/// and are kept current without us.
fn system_roots() -> Result<RootCertStore, OpenError> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() {
        return Err(bad(
            "sslmode=verify-full finds no CA certificates on this machine: \
             install ca-certificates, or name a file with sslrootcert",
        ));
    }
    Ok(roots)
}

/// The certificates of a PEM file, at least one.
fn certificates(
    parameter: &str,
    file: impl AsRef<Path>,
) -> Result<Vec<CertificateDer<'static>>, OpenError> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_file_iter(file).and_then(Iterator::collect);
    found
        .and_then(|found| match found.is_empty() {
            true => Err(pem::Error::NoItemsFound),
            false => Ok(found),
        })
        .map_err(|error| unusable(parameter, "certificate", &error))
}

fn private_key(file: impl AsRef<Path>) -> Result<PrivateKeyDer<'static>, OpenError> {
    PrivateKeyDer::from_pem_file(file)
        .map_err(|error| unusable("sslkey", "unencrypted key", &error))
}

fn unusable(parameter: &str, wanted: &str, error: &pem::Error) -> OpenError {
    match error {
        pem::Error::Io(error) => bad(format!("the {parameter} file cannot be read: {error}")),
        pem::Error::NoItemsFound => bad(format!(
            "the {parameter} file contains no {wanted} in PEM format"
        )),
        // The error may quote the file, which may hold a key.
        _ => bad(format!("the {parameter} file is not valid PEM")),
    }
}

fn bad(reason: impl Into<String>) -> OpenError {
    OpenError::BadUrl(reason.into())
}

/// Verifies as much as the mode asks for. The signature of the handshake is always verified,
/// even if any certificate is accepted: it proves that the server has the certificate's key,
/// and SCRAM's channel binding relies on that.
#[derive(Debug)]
struct Verifier {
    trust: Trust,
    algorithms: WebPkiSupportedAlgorithms,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, TlsError> {
        let Trust::Authorities {
            roots,
            named,
            checks_name,
        } = &self.trust
        else {
            return Ok(ServerCertVerified::assertion());
        };
        let certificate = ParsedCertificate::try_from(end_entity)?;
        let (algorithms, chain) = (self.algorithms.all, intermediates);
        match verify_server_cert_signed_by_trust_anchor(&certificate, roots, chain, now, algorithms)
        {
            // The certificate is marked as a CA's. Its dates are valid: they are checked first.
            Err(TlsError::InvalidCertificate(CertificateError::Other(_)))
                if named.contains(end_entity) => {}
            result => result?,
        }
        if *checks_name {
            verify_server_name(&certificate, server_name)?;
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        verify_tls12_signature(message, certificate, signature, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
