//! The flags that every command to a service has.

use std::{env, fs, path::PathBuf, time::Duration};

use clap::Args;

use super::failure::Failure;
use crate::client::{Client, Settings, Tls};

const TOKEN: &str = "VOICECALL_TOKEN";

/// Where the service is, and what answers look like.
#[derive(Debug, Args)]
pub(super) struct Service {
    /// The service: http://HOST:PORT, or https://HOST:PORT for TLS.
    #[arg(
        long,
        env = "VOICECALL_ENDPOINT",
        default_value = "http://127.0.0.1:50051",
        value_name = "URL",
        help_heading = "Service"
    )]
    endpoint: String,

    /// Who vouches for the server, in PEM. Default: whom the system trusts.
    #[arg(
        long,
        env = "VOICECALL_CA_CERT",
        value_name = "FILE",
        help_heading = "Service"
    )]
    ca_cert: Option<PathBuf>,

    /// Certificate to show the server, in PEM.
    #[arg(
        long,
        env = "VOICECALL_CLIENT_CERT",
        value_name = "FILE",
        requires = "client_key",
        help_heading = "Service"
    )]
    client_cert: Option<PathBuf>,

    /// Its key, in PEM.
    #[arg(
        long,
        env = "VOICECALL_CLIENT_KEY",
        value_name = "FILE",
        requires = "client_cert",
        help_heading = "Service"
    )]
    client_key: Option<PathBuf>,

    /// Name in the server's certificate, if it is not the endpoint's.
    #[arg(
        long,
        env = "VOICECALL_TLS_SERVER_NAME",
        value_name = "NAME",
        help_heading = "Service"
    )]
    tls_server_name: Option<String>,

    /// File with the bearer token. Or the token itself in the variable VOICECALL_TOKEN.
    #[arg(
        long,
        env = "VOICECALL_TOKEN_FILE",
        value_name = "FILE",
        help_heading = "Service"
    )]
    token_file: Option<PathBuf>,

    /// How long each request may take, in seconds, retries included.
    #[arg(
        long,
        env = "VOICECALL_TIMEOUT",
        default_value = "10",
        value_parser = seconds,
        value_name = "SECONDS",
        help_heading = "Service"
    )]
    timeout: Duration,

    /// Write JSON Lines: each call in the reference's own shape, on a line of its own.
    #[arg(long, help_heading = None::<&str>)]
    pub(super) json: bool,
}

impl Service {
    /// A client by these flags.
    pub(super) fn client(&self) -> Result<Client, Failure> {
        let settings = Settings {
            tls: Tls {
                ca_certificate: self.ca_cert.clone(),
                identity: self.client_cert.clone().zip(self.client_key.clone()),
                server_name: self.tls_server_name.clone(),
            },
            token: self.token()?,
            deadline: self.timeout,
            ..Settings::new(&self.endpoint)
        };
        Ok(Client::new(&settings)?)
    }

    fn token(&self) -> Result<Option<String>, Failure> {
        let token = match &self.token_file {
            Some(path) => fs::read_to_string(path).map_err(|error| {
                Failure::File(format!("cannot read {}: {error}", path.display()))
            })?,
            // No flag of its own: others can see a command's flags.
            None => env::var(TOKEN).unwrap_or_default(),
        };
        let token = token.trim();
        Ok((!token.is_empty()).then(|| token.to_owned()))
    }
}

/// A length of time in seconds, with or without a fraction.
fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "must be a number of seconds")?;
    let duration = Duration::try_from_secs_f64(seconds).ok();
    let duration = duration.filter(|duration| !duration.is_zero() && seconds < 86_400.0);
    duration.ok_or_else(|| "must be more than 0 seconds and less than a day".to_owned())
}
