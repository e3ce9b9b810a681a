//! JSON Web Tokens of an identity provider (RFC 7519).
//!
//! - [`Jwt`]: verifies tokens
//! - [`keys`]: the provider's public keys, each pinned to one algorithm
//! - [`source`]: where they come from, and when they are read again
//! - `fetch`: https; `provider`: the cryptography of tokens

mod fetch;
pub mod keys;
mod provider;
pub mod source;

pub use fetch::InvalidUrl;
pub use keys::{InvalidKeySet, KeySet};

use std::time::{Duration, SystemTime};

use jsonwebtoken::{Algorithm, Header, Validation, decode, decode_header, errors::ErrorKind};
use serde::Deserialize;
use tokio_util::sync::CancellationToken;

use self::source::Keys;
use super::{Principal, Refusal, Scope, Scopes};

/// Expiries beyond this are no times: the year 9999 ends before it.
const MAX_TIME: f64 = 253_402_300_800.0;
/// The longest subject: it is the actor of changes, and kept with them.
const MAX_SUBJECT_BYTES: usize = 256;

/// What tokens must say.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The issuer, `iss`.
    pub issuer: String,
    /// The audience, one of those in `aud`.
    pub audience: String,
    /// How far the clocks of the issuer and of this machine may differ.
    pub leeway: Duration,
}

/// Verifies tokens.
#[derive(Debug)]
pub struct Jwt {
    settings: Settings,
    validation: Validation,
    keys: Keys,
}

/// The claims that are of use; those that are checked by the library have their JSON types
/// here, because it lets other types pass.
#[derive(Deserialize)]
struct Claims {
    sub: String,
    exp: f64,
    #[serde(rename = "iss")]
    _issuer: String,
    #[serde(rename = "aud")]
    _audience: Words,
    #[serde(rename = "nbf")]
    _not_before: Option<f64>,
    scope: Option<Words>,
    scp: Option<Words>,
    permissions: Option<Words>,
}

/// Words in one string or in an array.
#[derive(Deserialize)]
#[serde(untagged)]
enum Words {
    One(String),
    Many(Vec<String>),
}

impl Words {
    fn iter(&self) -> impl Iterator<Item = &str> {
        let words = match self {
            Self::One(words) => std::slice::from_ref(words),
            Self::Many(words) => words,
        };
        words
            .iter()
            .flat_map(|words| words.split_ascii_whitespace())
    }
}

impl Jwt {
    /// Accepts tokens that say what the settings want, and are signed with one of the keys.
    #[must_use]
    pub fn new(settings: Settings, keys: Keys) -> Self {
        provider::install();
        let mut validation = Validation::new(Algorithm::ES256);
        validation.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
        validation.set_issuer(&[&settings.issuer]);
        validation.set_audience(&[&settings.audience]);
        validation.leeway = settings.leeway.as_secs();
        validation.validate_nbf = true;
        Self {
            settings,
            validation,
            keys,
        }
    }

    /// The version of the keys.
    pub(super) fn version(&self) -> u64 {
        self.keys.version()
    }

    pub(super) async fn refresh_keys(&self) {
        self.keys.refresh().await;
    }

    /// The principal that the token names.
    pub(super) fn verify(&self, token: &[u8], now: SystemTime) -> Result<Principal, Refusal> {
        let header = decode_header(token).map_err(|_| Refusal::Invalid("it is malformed"))?;
        check_header(&header)?;
        let keys = self.keys.current().ok_or(Refusal::NoKeys)?;
        let key = keys.find(header.kid.as_deref(), header.alg);
        let key = key.ok_or(Refusal::UnknownKey)?;
        if header.alg != key.algorithm {
            return Err(Refusal::Invalid("its algorithm is not that of its key"));
        }
        let mut validation = self.validation.clone();
        validation.algorithms = vec![key.algorithm];
        let claims = decode::<Claims>(token, &key.public, &validation);
        let claims = claims.map_err(|error| refusal(error.kind()))?.claims;
        if claims.sub.is_empty() || claims.sub.len() > MAX_SUBJECT_BYTES {
            return Err(Refusal::Invalid(
                "its subject is empty or longer than 256 bytes",
            ));
        }
        if claims.sub.chars().any(char::is_control) {
            return Err(Refusal::Invalid("its subject has control characters"));
        }
        if !(0.0..MAX_TIME).contains(&claims.exp) {
            return Err(Refusal::Invalid("its expiry is no time"));
        }
        let expires_at = SystemTime::UNIX_EPOCH + Duration::from_secs_f64(claims.exp);
        let expires_at = expires_at + self.settings.leeway;
        let principal = Principal::new(
            format!("jwt:{}", claims.sub),
            claims.scopes(),
            Some(expires_at),
            CancellationToken::new(),
        );
        principal.check(now)?;
        Ok(principal)
    }
}

impl Claims {
    fn scopes(&self) -> Scopes {
        let claims = [&self.scope, &self.scp, &self.permissions];
        let words = claims.into_iter().flatten().flat_map(Words::iter);
        words.filter_map(Scope::parse).collect()
    }
}

/// Whether a token may be a JWT: three parts. A token of the policy file has no dot.
pub(super) fn looks_like_one(token: &[u8]) -> bool {
    token.iter().filter(|byte| **byte == b'.').count() == 2
}

fn check_header(header: &Header) -> Result<(), Refusal> {
    // None of the extensions that a token may insist on is known here (RFC 7515, 4.1.11).
    if header.crit.is_some() {
        return Err(Refusal::Invalid("it insists on an extension"));
    }
    Ok(())
}

fn refusal(error: &ErrorKind) -> Refusal {
    Refusal::Invalid(match error {
        ErrorKind::ExpiredSignature => return Refusal::Expired,
        ErrorKind::ImmatureSignature => "it is not valid yet",
        ErrorKind::InvalidIssuer => "its issuer is another one",
        ErrorKind::InvalidAudience => "its audience is another one",
        ErrorKind::InvalidSignature => "its signature is not valid",
        ErrorKind::MissingRequiredClaim(_) => "exp, iss, aud or sub is missing or of another type",
        ErrorKind::Json(_) | ErrorKind::InvalidClaimFormat(_) => {
            "one of its claims is missing or of another type"
        }
        _ => "it is malformed",
    })
}
