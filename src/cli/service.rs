//! The flags of every command that is a client of a service.

use std::{env, fs, path::PathBuf, time::Duration};

use clap::Args;

use super::failure::Failure;
use crate::client::{Client, Settings, Tls};

const TOKEN: &str = "VOICECALL_TOKEN";

/// How to reach the service, and the format of the output.
#[derive(Debug, Args)]
pub(super) struct Service {
    /// URL of the service: http://HOST:PORT, or https://HOST:PORT for TLS.
    #[arg(
        long,
        env = "VOICECALL_ENDPOINT",
        default_value = "http://127.0.0.1:50051",
        value_name = "URL",
        help_heading = "Service"
    )]
    endpoint: String,

    /// Certificate authorities to trust, in PEM. Default: those of the system.
    #[arg(
        long,
        env = "VOICECALL_CA_CERT",
        value_name = "FILE",
        help_heading = "Service"
    )]
    ca_cert: Option<PathBuf>,

    /// Client certificate, in PEM.
    #[arg(
        long,
        env = "VOICECALL_CLIENT_CERT",
        value_name = "FILE",
        requires = "client_key",
        help_heading = "Service"
    )]
    client_cert: Option<PathBuf>,

    /// Key of the client certificate, in PEM.
    #[arg(
        long,
        env = "VOICECALL_CLIENT_KEY",
        value_name = "FILE",
        requires = "client_cert",
        help_heading = "Service"
    )]
    client_key: Option<PathBuf>,

    /// Name in the server's certificate, if it is not the host of the endpoint.
    #[arg(
        long,
        env = "VOICECALL_TLS_SERVER_NAME",
        value_name = "NAME",
        help_heading = "Service"
    )]
    tls_server_name: Option<String>,

    /// File with the bearer token. The variable VOICECALL_TOKEN can hold the token itself.
    #[arg(
        long,
        env = "VOICECALL_TOKEN_FILE",
        value_name = "FILE",
        help_heading = "Service"
    )]
    token_file: Option<PathBuf>,

    /// How long each request may take, including retries, in seconds.
    #[arg(
        long,
        env = "VOICECALL_TIMEOUT",
        default_value = "10",
        value_parser = seconds,
        value_name = "SECONDS",
        help_heading = "Service"
    )]
    timeout: Duration,

    /// Write JSON Lines. Calls have the keys of the voice call object.
    #[arg(long, help_heading = None::<&str>)]
    pub(super) json: bool,
}

impl Service {
    /// A client with these settings.
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
            // There is no flag for the token: other users can see a command's flags.
            None => env::var(TOKEN).unwrap_or_default(),
        };
        let token = token.trim();
        Ok((!token.is_empty()).then(|| token.to_owned()))
    }
}

/// Parses a duration in seconds, with or without a fraction.
fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "must be a number of seconds")?;
    let duration = Duration::try_from_secs_f64(seconds).ok();
    let duration = duration.filter(|duration| !duration.is_zero() && seconds < 86_400.0);
    duration.ok_or_else(|| "must be more than 0 seconds and less than a day".to_owned())
}
