//! The settings of `voicecall auth`: tools for credentials, which need no service.

use std::{path::PathBuf, time::Duration};

use clap::{Args, Subcommand};

use super::security::Credentials;
use crate::{
    auth::Scope,
    domain::{Identifier, Narrowing, StaffNarrowing, text::TextError},
};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// Tools for credentials.
#[derive(Debug, Subcommand)]
pub(crate) enum Auth {
    /// Make a bearer token, and its entry for the policy file.
    NewToken(NewToken),
    /// Show the principal and the scopes of a token or certificate, or why it is refused.
    Check(Check),
    /// Make a key pair, to issue tokens without an identity provider.
    NewKey(NewKey),
    /// Issue a token (a JWT), signed with a key from new-key.
    Issue(Issue),
}

/// Settings of `voicecall auth new-token`.
#[derive(Debug, Args)]
pub(crate) struct NewToken {
    /// Name of the principal.
    #[arg(long, value_name = "NAME")]
    pub name: String,

    /// What the principal may do: calls:read, calls:write or calls:purge; may be repeated.
    #[arg(long = "scope", value_name = "SCOPE", required = true, value_parser = scope)]
    pub scopes: Vec<Scope>,

    /// Whose calls they are.
    #[command(flatten)]
    pub narrowing: NarrowTo,

    /// How long the token is valid, such as 12h or 90d.
    #[arg(long, value_name = "DURATION", default_value = "90d", value_parser = duration)]
    pub expires: Duration,

    /// File to write the token to, which must not exist yet; only its owner may read it. By
    /// default the token is printed.
    #[arg(long, value_name = "FILE")]
    pub token_file: Option<PathBuf>,
}

/// Settings of `voicecall auth check`.
#[derive(Debug, Args)]
pub(crate) struct Check {
    /// File that holds a bearer token; - for standard input.
    #[arg(long, value_name = "FILE", required_unless_present = "certificate")]
    pub token_file: Option<PathBuf>,

    /// A client certificate, in PEM, with any intermediate certificates.
    #[arg(
        long,
        value_name = "FILE",
        conflicts_with = "token_file",
        requires = "tls_client_ca"
    )]
    pub certificate: Option<PathBuf>,

    /// CA certificates that client certificates are verified with, in PEM.
    #[arg(long, env = "VOICECALL_TLS_CLIENT_CA", value_name = "FILE")]
    pub tls_client_ca: Option<PathBuf>,

    /// How the service would check it.
    #[command(flatten)]
    pub credentials: Credentials,
}

/// Settings of `voicecall auth new-key`.
#[derive(Debug, Args)]
pub(crate) struct NewKey {
    /// File to write the private key to, which must not exist yet; only its owner may read it.
    #[arg(long, value_name = "FILE")]
    pub key_file: PathBuf,

    /// File to write the key set with the public key to, for --auth-jwks. By default it is
    /// printed.
    #[arg(long, value_name = "FILE")]
    pub jwks_file: Option<PathBuf>,
}

/// Settings of `voicecall auth issue`.
#[derive(Debug, Args)]
pub(crate) struct Issue {
    /// The private key, from `voicecall auth new-key`.
    #[arg(long, value_name = "FILE")]
    pub key_file: PathBuf,

    /// The subject of the token (sub).
    #[arg(long, value_name = "SUBJECT")]
    pub sub: String,

    /// The issuer, as in the service's --auth-issuer.
    #[arg(long, value_name = "ISSUER")]
    pub issuer: String,

    /// The audience, as in the service's --auth-audience.
    #[arg(long, value_name = "AUDIENCE")]
    pub audience: String,

    /// What its bearer may do: calls:read, calls:write or calls:purge; may be repeated.
    #[arg(long = "scope", value_name = "SCOPE", value_parser = scope)]
    pub scopes: Vec<Scope>,

    /// Whose calls they are.
    #[command(flatten)]
    pub narrowing: NarrowTo,

    /// How long the token is valid, such as 30m or 1h.
    #[arg(long, value_name = "DURATION", default_value = "1h", value_parser = duration)]
    pub expires: Duration,
}

/// Whose calls a token is for. By default it is for all.
#[derive(Debug, Args)]
pub(crate) struct NarrowTo {
    /// Only calls that this member of staff answered or handled (staff_uid).
    #[arg(long, value_name = "UID", value_parser = identifier)]
    pub staff_uid: Option<Identifier>,

    /// With --staff-uid: also calls that nobody has answered or handled yet (unassigned).
    #[arg(long, requires = "staff_uid")]
    pub unassigned: bool,

    /// Only calls of this client (client_uid).
    #[arg(long, value_name = "UID", value_parser = identifier)]
    pub client_uid: Option<Identifier>,
}

impl NarrowTo {
    /// The narrowing; `None` to all calls.
    #[must_use]
    pub(crate) fn narrowing(&self) -> Option<Narrowing> {
        let staff = self.staff_uid.clone().map(|staff_uid| StaffNarrowing {
            staff_uid,
            unassigned: self.unassigned,
        });
        Narrowing::new(staff, self.client_uid.clone())
    }
}

fn identifier(text: &str) -> Result<Identifier, TextError> {
    Identifier::new(text.to_owned())
}

fn scope(name: &str) -> Result<Scope, String> {
    Scope::parse(name).ok_or_else(|| "the scopes are calls:read, calls:write, calls:purge".into())
}

/// A number with ms, s, m, h or d.
fn duration(text: &str) -> Result<Duration, String> {
    let second = Duration::from_secs(1);
    let units = [
        ("ms", Duration::from_millis(1)),
        ("s", second),
        ("m", 60 * second),
        ("h", 3600 * second),
        ("d", DAY),
    ];
    let parsed = units.into_iter().find_map(|(unit, length)| {
        let count: u32 = text.strip_suffix(unit)?.parse().ok()?;
        length.checked_mul(count)
    });
    match parsed {
        Some(duration) if !duration.is_zero() && duration <= 3650 * DAY => Ok(duration),
        _ => Err("must be a number with ms, s, m, h or d, from 1ms to 3650d".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_a_unit() {
        for (text, millis) in [
            ("250ms", Some(250)),
            ("1s", Some(1_000)),
            ("30m", Some(1_800_000)),
            ("1h", Some(3_600_000)),
            ("90d", Some(7_776_000_000)),
            ("0s", None),
            ("3651d", None),
            ("1", None),
            ("h", None),
            ("-1h", None),
            ("99999999999999999999d", None),
        ] {
            let parsed = duration(text).ok().map(|duration| duration.as_millis());
            assert_eq!(parsed, millis, "{text}");
        }
    }
}
