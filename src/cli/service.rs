//! The flags of every command that is a client of a service.

use std::{env, path::PathBuf, time::Duration};

use clap::Args;

use super::{
    command_line::{self, CommandLine},
    failure::Failure,
    profile::{self, Profile, Token},
};
use crate::client::{Client, Settings, Tls, TokenSource};

const TOKEN: &str = "VOICECALL_TOKEN";
const DEFAULT_ENDPOINT: &str = "http://127.0.0.1:50051";

/// How to reach the service, and the format of the output.
#[derive(Debug, Args)]
pub(super) struct Service {
    /// Profile of the configuration file, with the settings of a service: a table [profile.NAME]
    /// with the keys endpoint, ca_cert, client_cert, client_key, server_name, token_file and
    /// token_command. Flags and environment variables take precedence.
    #[arg(
        long,
        env = "VOICECALL_PROFILE",
        value_name = "NAME",
        help_heading = "Service"
    )]
    profile: Option<String>,

    /// The configuration file. Default: $XDG_CONFIG_HOME/voicecall/config.toml or
    /// ~/.config/voicecall/config.toml.
    #[arg(
        long,
        env = "VOICECALL_CONFIG",
        value_name = "FILE",
        help_heading = "Service"
    )]
    config: Option<PathBuf>,

    /// URL of the service: http://HOST:PORT, or https://HOST:PORT for TLS. Default:
    /// http://127.0.0.1:50051.
    #[arg(
        long,
        env = "VOICECALL_ENDPOINT",
        value_name = "URL",
        help_heading = "Service"
    )]
    endpoint: Option<String>,

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
        env = "VOICECALL_SERVER_NAME",
        value_name = "NAME",
        help_heading = "Service"
    )]
    server_name: Option<String>,

    /// File with the bearer token, which is read again when it changes. The variable
    /// VOICECALL_TOKEN can hold the token itself.
    #[arg(
        long,
        env = "VOICECALL_TOKEN_FILE",
        value_name = "FILE",
        conflicts_with = "token_command",
        help_heading = "Service"
    )]
    token_file: Option<PathBuf>,

    /// Command that prints the bearer token, such as "vault read -field=token calls/token". It is
    /// run again when the token has expired. It runs without a shell, for at most 10 seconds: words
    /// are split as in a shell, with quotes and backslashes, and anything else needs "sh -c '…'".
    #[arg(
        long,
        env = "VOICECALL_TOKEN_COMMAND",
        value_name = "COMMAND",
        value_parser = command_line::parse,
        help_heading = "Service"
    )]
    token_command: Option<CommandLine>,

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
    /// A client with these settings, and with a token if they have one.
    pub(super) async fn client(&self) -> Result<Client, Failure> {
        let client = Client::new(&self.settings()?)?;
        let loaded = client.load_token().await;
        loaded.map_err(|error| Failure::File(error.to_string()))?;
        Ok(client)
    }

    /// Flags and variables, then the profile, then the defaults.
    fn settings(&self) -> Result<Settings, Failure> {
        let profile = match &self.profile {
            Some(name) => profile::load(name, self.config.as_deref())?,
            None => Profile::default(),
        };
        let identity = self.client_cert.clone().zip(self.client_key.clone());
        let endpoint = self.endpoint.clone().or(profile.endpoint);
        Ok(Settings {
            tls: Tls {
                ca_certificate: self.ca_cert.clone().or(profile.ca_cert),
                identity: identity.or(profile.identity),
                server_name: self.server_name.clone().or(profile.server_name),
            },
            token: self.token().or(profile.token.map(source)),
            deadline: self.timeout,
            ..Settings::new(endpoint.unwrap_or_else(|| DEFAULT_ENDPOINT.to_owned()))
        })
    }

    fn token(&self) -> Option<TokenSource> {
        let named = match (&self.token_file, &self.token_command) {
            (Some(path), _) => Some(Token::File(path.clone())),
            (None, Some(line)) => Some(Token::Command(line.clone())),
            (None, None) => None,
        };
        // There is no flag for the token: other users can see a command's flags.
        let is_set = || !env::var(TOKEN).unwrap_or_default().trim().is_empty();
        let variable = || is_set().then(|| TokenSource::Variable(TOKEN.to_owned()));
        named.map(source).or_else(variable)
    }
}

fn source(token: Token) -> TokenSource {
    match token {
        Token::File(path) => TokenSource::File(path),
        Token::Command(CommandLine { program, arguments }) => {
            TokenSource::Command { program, arguments }
        }
    }
}

/// Parses a duration in seconds, with or without a fraction.
fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "must be a number of seconds")?;
    let duration = Duration::try_from_secs_f64(seconds).ok();
    let duration = duration.filter(|duration| !duration.is_zero() && seconds < 86_400.0);
    duration.ok_or_else(|| "must be more than 0 seconds and less than a day".to_owned())
}
