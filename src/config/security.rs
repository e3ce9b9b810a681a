//! Who may connect and call.

use std::{net::IpAddr, path::PathBuf, time::Duration};

use clap::{Args, ValueEnum};

use crate::{auth, server};

/// TLS and credentials.
#[derive(Debug, Args)]
#[command(next_help_heading = "Security")]
pub(crate) struct Security {
    /// Certificate of the server, in PEM, followed by any intermediate certificates. With it,
    /// clients must speak TLS 1.2 or 1.3. Files are reloaded within two seconds of a change to
    /// their content, and on SIGHUP; open connections stay.
    #[arg(
        long,
        env = "VOICECALL_TLS_CERT",
        value_name = "FILE",
        requires = "tls_key"
    )]
    pub tls_cert: Option<PathBuf>,

    /// Private key of the certificate, in PEM.
    #[arg(
        long,
        env = "VOICECALL_TLS_KEY",
        value_name = "FILE",
        requires = "tls_cert"
    )]
    pub tls_key: Option<PathBuf>,

    /// CAs that sign client certificates, in PEM. A certificate authenticates its client: with
    /// --auth-policy if an entry matches it, otherwise with all scopes.
    #[arg(
        long,
        env = "VOICECALL_TLS_CLIENT_CA",
        value_name = "FILE",
        requires = "tls_cert"
    )]
    pub tls_client_ca: Option<PathBuf>,

    /// Whether clients without a certificate are refused at the handshake.
    #[arg(
        long,
        env = "VOICECALL_TLS_CLIENT_AUTH",
        value_name = "WHETHER",
        default_value = "required",
        requires = "tls_client_ca"
    )]
    pub tls_client_auth: ClientAuth,

    /// How callers prove who they are.
    #[command(flatten)]
    pub credentials: Credentials,

    /// Allow reflection without credentials.
    #[arg(long, env = "VOICECALL_OPEN_REFLECTION")]
    pub open_reflection: bool,

    /// Allow plaintext on an address that other machines can reach: anyone on the network path can
    /// read calls and tokens.
    #[arg(long, env = "VOICECALL_INSECURE_PLAINTEXT")]
    pub insecure_plaintext: bool,

    /// Allow requests without credentials on an address that other machines can reach: anyone who
    /// reaches it can read and purge every call.
    #[arg(long, env = "VOICECALL_INSECURE_UNAUTHENTICATED")]
    pub insecure_unauthenticated: bool,
}

/// How callers prove who they are, besides client certificates.
#[derive(Debug, Args)]
pub(crate) struct Credentials {
    /// Public keys of an identity provider (a JSON Web Key Set), as a file or a URL that begins
    /// with https://. Bearer tokens that it has signed authenticate callers. A URL is fetched every
    /// 5 minutes, and when a token names an unknown key.
    #[arg(
        long,
        env = "VOICECALL_AUTH_JWKS",
        value_name = "FILE or URL",
        requires_all = ["auth_issuer", "auth_audience"]
    )]
    pub auth_jwks: Option<String>,

    /// The issuer that tokens must name (iss).
    #[arg(
        long,
        env = "VOICECALL_AUTH_ISSUER",
        value_name = "ISSUER",
        requires = "auth_jwks",
        value_parser = clap::builder::NonEmptyStringValueParser::new()
    )]
    pub auth_issuer: Option<String>,

    /// The audience that tokens must name (aud).
    #[arg(
        long,
        env = "VOICECALL_AUTH_AUDIENCE",
        value_name = "AUDIENCE",
        requires = "auth_jwks",
        value_parser = clap::builder::NonEmptyStringValueParser::new()
    )]
    pub auth_audience: Option<String>,

    /// How far the clocks of the identity provider and of this machine may differ, in seconds.
    #[arg(
        long,
        env = "VOICECALL_AUTH_LEEWAY",
        value_name = "SECONDS",
        default_value_t = 30,
        value_parser = clap::value_parser!(u64).range(..=600)
    )]
    pub auth_leeway: u64,

    /// Claim of a token that narrows it to the calls of one member of staff: those that this
    /// staff_uid answered or handled. A token without it and without the claim of a client is for
    /// all calls. A claim with an invalid value makes the token invalid.
    #[arg(
        long,
        env = "VOICECALL_AUTH_STAFF_CLAIM",
        value_name = "NAME",
        default_value = "staff_uid",
        value_parser = clap::builder::NonEmptyStringValueParser::new()
    )]
    pub auth_staff_claim: String,

    /// Claim of a token that narrows it to the calls of one client_uid. With both claims it is for
    /// the calls that are of both.
    #[arg(
        long,
        env = "VOICECALL_AUTH_CLIENT_CLAIM",
        value_name = "NAME",
        default_value = "client_uid",
        value_parser = clap::builder::NonEmptyStringValueParser::new()
    )]
    pub auth_client_claim: String,

    /// Claim of a token that is narrowed to a member of staff which, if true, adds the calls that
    /// nobody has answered or handled yet.
    #[arg(
        long,
        env = "VOICECALL_AUTH_UNASSIGNED_CLAIM",
        value_name = "NAME",
        default_value = "unassigned",
        value_parser = clap::builder::NonEmptyStringValueParser::new()
    )]
    pub auth_unassigned_claim: String,

    /// TOML file that names principals, each with its scopes and with a bearer token or a pattern
    /// for client certificates. See docs/security.md.
    #[arg(long, env = "VOICECALL_AUTH_POLICY", value_name = "FILE")]
    pub auth_policy: Option<PathBuf>,
}

/// Whether clients need a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ClientAuth {
    /// Every client must present one.
    Required,
    /// Clients may use tokens instead.
    Optional,
}

impl Security {
    /// Where the files of TLS are.
    #[must_use]
    pub(crate) fn tls(&self) -> Option<server::TlsPaths> {
        Some(server::TlsPaths {
            certificate: self.tls_cert.clone()?,
            key: self.tls_key.clone()?,
            client_ca: self.tls_client_ca.clone(),
            requires_certificate: self.tls_client_auth == ClientAuth::Required,
        })
    }

    /// How callers prove who they are.
    #[must_use]
    pub(crate) fn credentials(&self) -> auth::Settings {
        auth::Settings {
            accepts_certificates: self.tls_client_ca.is_some(),
            ..self.credentials.settings()
        }
    }

    /// What the operator must know, or must allow, before the service listens on this address.
    ///
    /// # Errors
    /// Other machines can reach it, and TLS or authentication is neither configured nor waived.
    pub(crate) fn warnings(&self, address: IpAddr) -> Result<Vec<&'static str>, String> {
        let (has_tls, has_credentials) = (self.tls().is_some(), !self.credentials().is_empty());
        let mut warnings = Vec::new();
        if address.is_loopback() {
            return Ok(warnings);
        }
        if !has_tls {
            if !self.insecure_plaintext {
                return Err(format!(
                    "{address} is reachable from other machines, but there is no TLS: pass \
                     --tls-cert and --tls-key, or --insecure-plaintext"
                ));
            }
            warnings.push("plaintext: anyone on the network path can read calls and tokens");
        }
        if !has_credentials {
            if !self.insecure_unauthenticated {
                return Err(format!(
                    "{address} is reachable from other machines, but clients are not \
                     authenticated: pass --auth-policy, --auth-jwks or --tls-client-ca, or \
                     --insecure-unauthenticated"
                ));
            }
            warnings.push("unauthenticated: anyone who reaches it can read and purge every call");
        }
        Ok(warnings)
    }
}

impl Credentials {
    /// How callers prove who they are.
    #[must_use]
    pub(crate) fn settings(&self) -> auth::Settings {
        let named = (&self.auth_jwks, &self.auth_issuer, &self.auth_audience);
        let jwt = match named {
            (Some(keys), Some(issuer), Some(audience)) => Some(auth::JwtSettings {
                keys: keys.clone(),
                claims: auth::jwt::Settings {
                    issuer: issuer.clone(),
                    audience: audience.clone(),
                    leeway: Duration::from_secs(self.auth_leeway),
                    narrowing: auth::jwt::NarrowingClaims {
                        staff_uid: self.auth_staff_claim.clone(),
                        client_uid: self.auth_client_claim.clone(),
                        unassigned: self.auth_unassigned_claim.clone(),
                    },
                },
            }),
            _ => None,
        };
        auth::Settings {
            jwt,
            policy: self.auth_policy.clone(),
            accepts_certificates: false,
        }
    }
}
