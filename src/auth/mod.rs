//! Who is calling: from credentials to a principal.
//!
//! - [`Authenticator`]: finds the principal of a request, by a bearer JWT, a bearer token of
//!   the policy file, or a client certificate, in this order
//! - [`principal`]: who that is, what it may do, and until when; [`limits`]: how much of it at once
//! - [`jwt`]: tokens of an identity provider, and the provider's keys
//! - [`policy`]: the file that names principals
//! - `certificate`: the names in a client certificate
//! - [`settings`]: what the operator has named, and the tasks that read it again when it changes
//! - `remembered`: principals that were found before
//!
//! It deliberately knows nothing of gRPC, and nothing of what an RPC does. Of the domain it knows
//! only how a caller is narrowed to some calls.

mod certificate;
pub mod jwt;
pub mod limits;
pub mod policy;
pub mod principal;
mod remembered;
pub mod settings;

pub use certificate::{Certificate, CertificateError};
pub use limits::{Limits, Rate};
pub use principal::{Principal, Scope, Scopes};
pub use settings::{JwtSettings, Settings, Sources};

use std::{sync::Arc, time::SystemTime};

use remembered::Remembered;

/// The longest token that is looked at, in bytes.
pub const MAX_TOKEN_BYTES: usize = 8 * 1024;

/// What a request shows of its caller.
#[derive(Debug, Clone, Copy)]
pub struct Credentials<'a> {
    /// The values of its `authorization` headers.
    pub authorization: [Option<&'a [u8]>; 2],
    /// The client certificate of its connection, signed by a trusted CA.
    pub certificate: Option<&'a Certificate>,
}

/// Why credentials are refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// No credentials were given.
    #[error("no credentials were given")]
    Missing,
    /// They were valid, and have expired.
    #[error("the credentials have expired")]
    Expired,
    /// They are not valid. The text is fixed and contains nothing of the credentials.
    #[error("{0}")]
    Invalid(&'static str),
    /// A token names a signing key that is not known yet.
    #[error("the token names an unknown signing key")]
    UnknownKey,
    /// The signing keys have not been fetched yet.
    #[error("the signing keys have not been fetched yet")]
    NoKeys,
}

/// Finds the principals of requests.
pub struct Authenticator {
    jwt: Option<jwt::Jwt>,
    policy: Option<policy::Current>,
    /// Whether each certificate signed by a trusted CA is a principal with all scopes.
    trusts_all_certificates: bool,
    remembered: Remembered,
}

impl Authenticator {
    /// An authenticator that accepts tokens and certificates for which there are rules. Without a
    /// policy, each client certificate that is accepted is a principal with all scopes.
    #[must_use]
    pub fn new(
        jwt: Option<jwt::Jwt>,
        policy: Option<policy::Current>,
        accepts_certificates: bool,
    ) -> Self {
        Self {
            trusts_all_certificates: accepts_certificates && policy.is_none(),
            jwt,
            policy,
            remembered: Remembered::default(),
        }
    }

    /// The principal that the credentials prove. A credential that is present but invalid is
    /// refused: no other one is tried.
    ///
    /// # Errors
    /// [`Refusal`].
    pub fn authenticate(&self, credentials: Credentials<'_>) -> Result<Arc<Principal>, Refusal> {
        match credentials.authorization {
            [Some(_), Some(_)] => Err(Refusal::Invalid("there are two authorization headers")),
            [Some(header), None] => self.bearer(bearer_token(header)?),
            [None, _] => match credentials.certificate {
                Some(certificate) => self.certificate(certificate),
                None => Err(Refusal::Missing),
            },
        }
    }

    /// Waits until credentials can be checked: until there are signing keys.
    pub async fn ready(&self) {
        if let Some(jwt) = &self.jwt {
            jwt.ready().await;
        }
    }

    /// Fetches the signing keys again, unless that was done in the last minute.
    pub async fn refresh_keys(&self) {
        if let Some(jwt) = &self.jwt {
            jwt.refresh_keys().await;
        }
    }

    fn bearer(&self, token: &[u8]) -> Result<Arc<Principal>, Refusal> {
        match &self.jwt {
            Some(jwt) if jwt::looks_like_one(token) => self.remembered.find_or(
                remembered::digest(token),
                jwt.version(),
                SystemTime::now(),
                |now| jwt.verify(token, now),
            ),
            None if self.policy.is_some() && jwt::looks_like_one(token) => Err(Refusal::Invalid(
                "the token is a JWT, and there is no key set to verify it with",
            )),
            _ => match self.policy.as_ref().and_then(policy::Current::get) {
                Some(policy) => policy.by_token(token, SystemTime::now()),
                None => Err(Refusal::Invalid("no setting accepts a token of this kind")),
            },
        }
    }

    fn certificate(&self, certificate: &Certificate) -> Result<Arc<Principal>, Refusal> {
        let now = SystemTime::now();
        let fingerprint = *certificate.fingerprint();
        // The version before the value, so that nothing is remembered under a later one.
        let version = self.policy.as_ref().map_or(0, policy::Current::version);
        match self.policy.as_ref().and_then(policy::Current::get) {
            Some(policy) => self.remembered.find_or(fingerprint, version, now, |now| {
                policy.by_certificate(certificate, now)
            }),
            None if self.trusts_all_certificates => {
                self.remembered
                    .find_or(fingerprint, 0, now, |now| certificate.principal(now))
            }
            None => Err(Refusal::Missing),
        }
    }
}

/// The token of an `authorization` header.
fn bearer_token(header: &[u8]) -> Result<&[u8], Refusal> {
    const SCHEME: &[u8] = b"bearer ";
    if header.len() > SCHEME.len() + MAX_TOKEN_BYTES {
        return Err(Refusal::Invalid("the token is longer than 8 KiB"));
    }
    let scheme = header.get(..SCHEME.len());
    if !scheme.is_some_and(|scheme| scheme.eq_ignore_ascii_case(SCHEME)) {
        return Err(Refusal::Invalid(
            "the scheme is not Bearer, or there is no token",
        ));
    }
    let token = header[SCHEME.len()..].trim_ascii();
    if token.is_empty() {
        return Err(Refusal::Invalid("the token is empty"));
    }
    Ok(token)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_bearer_tokens_of_some_length_are_looked_at() {
        for (header, token) in [
            ("Bearer abc", Some("abc")),
            ("bearer  abc ", Some("abc")),
            ("BEARER a.b.c", Some("a.b.c")),
            ("Bearer", None),
            ("Bearer ", None),
            ("Basic abc", None),
            ("", None),
            ("abc", None),
        ] {
            let found = bearer_token(header.as_bytes()).ok();
            assert_eq!(found, token.map(str::as_bytes), "{header:?}");
        }
        let long = format!("Bearer {}", "a".repeat(MAX_TOKEN_BYTES));
        assert!(bearer_token(long.as_bytes()).is_ok());
        let longer = format!("Bearer {}", "a".repeat(MAX_TOKEN_BYTES + 1));
        assert!(bearer_token(longer.as_bytes()).is_err());
    }
}
