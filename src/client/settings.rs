//! How to reach the service.

use std::{fmt, fs, io, path::PathBuf, time::Duration};

use tonic::transport::{self, Certificate, Channel, ClientTlsConfig, Endpoint, Identity};

use super::{TokenSource, token::Tokens, token_source::bearer};

const USER_AGENT: &str = concat!("voicecall/", env!("CARGO_PKG_VERSION"));

/// How to reach a service.
#[derive(Clone)]
pub struct Settings {
    /// `http://host:port`, or `https://host:port` for TLS.
    pub endpoint: String,
    /// TLS settings, for `https` only.
    pub tls: Tls,
    /// Where to read the bearer token that is sent with every request. Over `http` others can read
    /// it.
    pub token: Option<TokenSource>,
    /// How long each request may take, including retries.
    pub deadline: Duration,
    /// How long connecting may take.
    pub connect_timeout: Duration,
    /// How often to ping the server while requests are in progress.
    pub keepalive_interval: Duration,
    /// How long the server may take to respond to a ping before the connection is closed.
    pub keepalive_timeout: Duration,
}

/// TLS settings.
#[derive(Debug, Clone, Default)]
pub struct Tls {
    /// The certificate authorities to trust, in PEM; `None` for those of the system.
    pub ca_certificate: Option<PathBuf>,
    /// The client certificate and its key, in PEM.
    pub identity: Option<(PathBuf, PathBuf)>,
    /// The name in the server's certificate, if it is not the host of the endpoint.
    pub server_name: Option<String>,
}

/// Why settings are invalid.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// The endpoint is not the URL of a service.
    #[error(
        "the endpoint {0:?} must be a URL such as http://localhost:50051 or \
         https://calls.example.com"
    )]
    Endpoint(String),
    /// There are TLS settings, but the endpoint has no TLS.
    #[error("certificates can only be used with an https:// endpoint")]
    TlsUnused,
    /// A file cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The certificates or the key cannot be used.
    #[error("TLS cannot be set up: {0}")]
    Tls(String),
    /// A header cannot hold the token.
    #[error("the token is empty, or contains characters that are not allowed in a token")]
    Token,
}

impl Settings {
    /// The defaults: 10 seconds for each request, 5 seconds for connecting, the system's
    /// certificate authorities, no token.
    #[must_use]
    pub fn new(endpoint: impl Into<String>) -> Self {
        Self {
            endpoint: endpoint.into(),
            tls: Tls::default(),
            token: None,
            deadline: Duration::from_secs(10),
            connect_timeout: Duration::from_secs(5),
            keepalive_interval: Duration::from_secs(30),
            keepalive_timeout: Duration::from_secs(10),
        }
    }

    pub(super) fn channel(&self) -> Result<Channel, SettingsError> {
        let bad_endpoint = || SettingsError::Endpoint(self.endpoint.clone());
        let endpoint = Endpoint::from_shared(self.endpoint.clone()).map_err(|_| bad_endpoint())?;
        let is_tls = match endpoint.uri().scheme_str() {
            Some("http") => false,
            Some("https") => true,
            _ => return Err(bad_endpoint()),
        };
        let mut endpoint = endpoint
            .user_agent(USER_AGENT)
            .map_err(|_| bad_endpoint())?
            .connect_timeout(self.connect_timeout)
            .http2_keep_alive_interval(self.keepalive_interval)
            .keep_alive_timeout(self.keepalive_timeout)
            .http2_adaptive_window(true);
        if is_tls {
            endpoint = endpoint.tls_config(self.tls.config()?).map_err(tls_error)?;
        } else if self.tls.is_set() {
            return Err(SettingsError::TlsUnused);
        }
        Ok(endpoint.connect_lazy())
    }

    pub(super) fn tokens(&self) -> Result<Option<Tokens>, SettingsError> {
        if let Some(TokenSource::Text(token)) = &self.token {
            bearer(token).map_err(|_| SettingsError::Token)?;
        }
        Ok(self.token.clone().map(Tokens::new))
    }
}

impl fmt::Debug for Settings {
    /// Says where the token is, and nothing of the token.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Settings")
            .field("endpoint", &self.endpoint)
            .field("tls", &self.tls)
            .field("token", &self.token)
            .field("deadline", &self.deadline)
            .finish_non_exhaustive()
    }
}

impl Tls {
    fn is_set(&self) -> bool {
        self.ca_certificate.is_some() || self.identity.is_some() || self.server_name.is_some()
    }

    fn config(&self) -> Result<ClientTlsConfig, SettingsError> {
        let mut config = match &self.ca_certificate {
            Some(path) => ClientTlsConfig::new().ca_certificate(Certificate::from_pem(read(path)?)),
            None => ClientTlsConfig::new().with_native_roots(),
        };
        if let Some((certificate, key)) = &self.identity {
            config = config.identity(Identity::from_pem(read(certificate)?, read(key)?));
        }
        if let Some(name) = &self.server_name {
            config = config.domain_name(name);
        }
        Ok(config)
    }
}

fn read(path: &PathBuf) -> Result<Vec<u8>, SettingsError> {
    fs::read(path).map_err(|source| SettingsError::File {
        path: path.clone(),
        source,
    })
}

/// The framework's error with its causes, because only they say what is wrong.
fn tls_error(error: transport::Error) -> SettingsError {
    let mut text = error.to_string();
    let mut next = std::error::Error::source(&error);
    while let Some(cause) = next {
        text = format!("{text}: {cause}");
        next = cause.source();
    }
    SettingsError::Tls(text)
}
