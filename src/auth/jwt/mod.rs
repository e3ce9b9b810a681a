//! JSON Web Tokens of an identity provider (RFC 7519).
//!
//! - [`Jwt`]: what a token must contain, and the check that it does: its claims, its times, and the
//!   algorithm of its key
//! - `claims`: who they name, what its bearer may do, and with which calls
//! - [`keys`]: the provider's public keys, each pinned to one algorithm
//! - [`source`]: where they come from, and when they are read again
//! - [`issue`]: tokens of our own, for trying
//! - `fetch`: https; `crypto`: the cryptography of tokens

mod claims;
mod crypto;
mod fetch;
pub mod issue;
pub mod keys;
pub mod source;

pub use claims::NarrowingClaims;
pub use fetch::InvalidUrl;
pub use keys::{InvalidKeySet, KeySet};

use std::time::{Duration, SystemTime};

use jsonwebtoken::{Algorithm, Header, Validation, decode, decode_header, errors::ErrorKind};
use tokio_util::sync::CancellationToken;

use self::{claims::AllClaims, source::Keys};
use super::{
    Principal, Refusal,
    principal::{Rights, is_name},
};

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
    /// The claims that narrow a token to some calls.
    pub narrowing: NarrowingClaims,
}

/// Verifies tokens.
#[derive(Debug)]
pub struct Jwt {
    settings: Settings,
    validation: Validation,
    keys: Keys,
}

impl Jwt {
    /// Accepts tokens that match the settings and are signed with one of the keys.
    #[must_use]
    pub fn new(settings: Settings, keys: Keys) -> Self {
        crypto::install();
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

    /// Waits until there are keys.
    pub(super) async fn ready(&self) {
        self.keys.follow().available().await;
    }

    pub(super) async fn refresh_keys(&self) {
        self.keys.refresh().await;
    }

    /// The principal that the token names.
    pub(super) fn verify(&self, token: &[u8], now: SystemTime) -> Result<Principal, Refusal> {
        let header =
            decode_header(token).map_err(|_| Refusal::Invalid("the token is malformed"))?;
        check_header(&header)?;
        let keys = self.keys.current().ok_or(Refusal::NoKeys)?;
        let key = keys.find(header.kid.as_deref(), header.alg);
        let key = key.ok_or(Refusal::UnknownKey)?;
        if header.alg != key.algorithm {
            return Err(Refusal::Invalid(
                "the token's algorithm is not that of its key",
            ));
        }
        let mut validation = self.validation.clone();
        validation.algorithms = vec![key.algorithm];
        let all = decode::<AllClaims>(token, &key.public, &validation);
        let all = all.map_err(|error| refusal(error.kind()))?.claims;
        let claims = all.known()?;
        if !is_name(&claims.sub, MAX_SUBJECT_BYTES) {
            return Err(Refusal::Invalid(
                "the subject is empty, longer than 256 bytes, or has control characters",
            ));
        }
        if !(0.0..MAX_TIME).contains(&claims.exp) {
            return Err(Refusal::Invalid("the expiry is not a valid time"));
        }
        let expires_at = SystemTime::UNIX_EPOCH + Duration::from_secs_f64(claims.exp);
        let expires_at = expires_at + self.settings.leeway;
        let principal = Principal::new(
            format!("jwt:{}", claims.sub),
            Rights {
                scopes: claims.scopes(),
                narrowing: self.settings.narrowing.read(&all)?,
                ..Rights::default()
            },
            Some(expires_at),
            CancellationToken::new(),
        );
        principal.check(now)?;
        Ok(principal)
    }
}

/// Whether a token may be a JWT: three parts. A token of the policy file has no dot.
pub(super) fn looks_like_one(token: &[u8]) -> bool {
    token.iter().filter(|byte| **byte == b'.').count() == 2
}

fn check_header(header: &Header) -> Result<(), Refusal> {
    // No extension that a token may require is supported here (RFC 7515, 4.1.11).
    if header.crit.is_some() {
        return Err(Refusal::Invalid("the token requires an extension (crit)"));
    }
    Ok(())
}

fn refusal(error: &ErrorKind) -> Refusal {
    Refusal::Invalid(match error {
        ErrorKind::ExpiredSignature => return Refusal::Expired,
        ErrorKind::ImmatureSignature => "the token is not valid yet",
        ErrorKind::InvalidIssuer => "the issuer does not match",
        ErrorKind::InvalidAudience => "the audience does not match",
        ErrorKind::InvalidSignature => "the signature is not valid",
        ErrorKind::MissingRequiredClaim(_) => {
            "exp, iss, aud or sub is missing or has the wrong type"
        }
        ErrorKind::Json(_) | ErrorKind::InvalidClaimFormat(_) => {
            "a claim is missing or has the wrong type"
        }
        _ => "the token is malformed",
    })
}

#[cfg(test)]
mod tests {
    use data_encoding::BASE64URL_NOPAD;
    use serde_json::{Value, json};

    use super::{
        issue::{Claims as Issued, SigningKey},
        *,
    };
    use crate::{auth::Scope, domain::Identifier, reload::Replace};

    const LEEWAY: Duration = Duration::from_secs(30);

    struct Provider {
        key: SigningKey,
        jwt: Jwt,
    }

    impl Provider {
        fn new() -> Self {
            let key = SigningKey::generate().expect("there are random numbers");
            let (replace, current) = Replace::new();
            replace.set(KeySet::parse(key.key_set().as_bytes()).expect("it is good"));
            let settings = Settings {
                issuer: "https://login".into(),
                audience: "voicecall".into(),
                leeway: LEEWAY,
                narrowing: NarrowingClaims::default(),
            };
            let jwt = Jwt::new(settings, Keys::of_file(current));
            Self { key, jwt }
        }

        fn token(&self) -> String {
            let claims = Issued {
                subject: "amy".into(),
                issuer: "https://login".into(),
                audience: "voicecall".into(),
                scopes: [Scope::Read].into_iter().collect(),
                lifetime: Duration::from_secs(60),
                more: Vec::new(),
            };
            self.key.issue(&claims).expect("it signs")
        }

        /// A token whose header and claims are changed, and signed.
        fn changed(&self, change: impl FnOnce(&mut Value, &mut Value)) -> String {
            let token = self.token();
            let mut parts = token.split('.').map(|part| {
                let bytes = BASE64URL_NOPAD.decode(part.as_bytes()).expect("base64url");
                serde_json::from_slice::<Value>(&bytes)
            });
            let mut part = || parts.next().expect("it is there").expect("it is JSON");
            let (mut header, mut claims) = (part(), part());
            change(&mut header, &mut claims);
            let encode = |value: &Value| BASE64URL_NOPAD.encode(value.to_string().as_bytes());
            let message = format!("{}.{}", encode(&header), encode(&claims));
            let key = jsonwebtoken::EncodingKey::from_ec_der(self.key.pkcs8());
            let signature = jsonwebtoken::crypto::sign(message.as_bytes(), &key, Algorithm::ES256);
            format!("{message}.{}", signature.expect("it signs"))
        }

        fn verify(&self, token: &str) -> Result<Principal, Refusal> {
            self.jwt.verify(token.as_bytes(), SystemTime::now())
        }
    }

    #[test]
    fn a_good_token_proves_who_is_calling() {
        let provider = Provider::new();
        let principal = provider.verify(&provider.token()).expect("it is good");
        assert_eq!(&**principal.name(), "jwt:amy");
        assert!(principal.scopes().has(Scope::Read) && !principal.scopes().has(Scope::Write));
        assert_eq!(principal.narrowing(), None);
        for change in [
            |claims: &mut Value| claims["aud"] = json!(["other", "voicecall"]),
            |claims: &mut Value| claims["nbf"] = json!(1),
            |claims: &mut Value| claims["scope"] = json!("calls:read other"),
            |claims: &mut Value| {
                claims["scp"] = json!(["calls:read"]);
                claims["scope"] = Value::Null;
            },
            |claims: &mut Value| {
                claims["permissions"] = json!(["calls:read"]);
                claims["scope"] = json!("");
            },
            |claims: &mut Value| {
                let exp = claims["exp"].as_f64().expect("a number");
                claims["exp"] = json!(exp + 0.5);
            },
        ] {
            let token = provider.changed(|_, claims| change(claims));
            let principal = provider.verify(&token).expect("it is good");
            assert!(principal.scopes().has(Scope::Read));
        }
    }

    #[test]
    fn a_token_may_be_for_some_calls() {
        let provider = Provider::new();
        let token = provider.changed(|_, claims| claims["client_uid"] = json!("c"));
        let principal = provider.verify(&token).expect("it is good");
        let narrowing = principal.narrowing().expect("it is narrowed");
        let client_uid = narrowing.client_uid().map(Identifier::as_str);
        assert_eq!(client_uid, Some("c"));
        assert_eq!(narrowing.staff(), None);
    }

    #[test]
    #[expect(
        clippy::too_many_lines,
        reason = "a table of cases is as long as it has cases"
    )]
    fn bad_tokens_are_refused() {
        type Change = fn(&mut Value, &mut Value);
        let provider = Provider::new();
        let now = || {
            let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
            now.expect("it is later").as_secs()
        };
        let invalid: [(&str, Change); 29] = [
            ("alg none", |header, _| header["alg"] = json!("none")),
            ("alg HS256", |header, _| header["alg"] = json!("HS256")),
            ("alg ES384", |header, _| header["alg"] = json!("ES384")),
            ("alg RS256", |header, _| header["alg"] = json!("RS256")),
            ("crit", |header, _| header["crit"] = json!(["exp"])),
            ("empty crit", |header, _| header["crit"] = json!([])),
            ("no iss", |_, claims| claims["iss"] = Value::Null),
            ("another iss", |_, claims| {
                claims["iss"] = json!("https://other")
            }),
            ("iss in an array", |_, claims| {
                claims["iss"] = json!(["https://login"])
            }),
            ("no aud", |_, claims| claims["aud"] = Value::Null),
            ("another aud", |_, claims| claims["aud"] = json!("other")),
            ("empty aud", |_, claims| claims["aud"] = json!([])),
            ("aud is a number", |_, claims| claims["aud"] = json!(1)),
            ("no sub", |_, claims| claims["sub"] = Value::Null),
            ("empty sub", |_, claims| claims["sub"] = json!("")),
            ("sub is a number", |_, claims| claims["sub"] = json!(1)),
            ("long sub", |_, claims| {
                claims["sub"] = json!("a".repeat(257))
            }),
            ("sub of two lines", |_, claims| {
                claims["sub"] = json!("a\nb")
            }),
            ("no exp", |_, claims| claims["exp"] = Value::Null),
            ("exp is a string", |_, claims| {
                claims["exp"] = json!("9999999999")
            }),
            ("exp is an array", |_, claims| {
                claims["exp"] = json!([9_999_999_999_u64])
            }),
            ("exp is no time", |_, claims| claims["exp"] = json!(1e18)),
            ("nbf is a string", |_, claims| claims["nbf"] = json!("1")),
            ("nbf is later", |_, claims| {
                claims["nbf"] = json!(9_999_999_999_u64)
            }),
            ("scope is a number", |_, claims| claims["scope"] = json!(1)),
            ("scp of numbers", |_, claims| claims["scp"] = json!([1])),
            ("staff_uid is null", |_, claims| {
                claims["staff_uid"] = Value::Null
            }),
            ("empty client_uid", |_, claims| {
                claims["client_uid"] = json!("")
            }),
            ("unassigned of nobody", |_, claims| {
                claims["unassigned"] = json!(true)
            }),
        ];
        for (case, change) in invalid {
            let refusal = provider.verify(&provider.changed(change)).err();
            assert!(
                matches!(refusal, Some(Refusal::Invalid(_) | Refusal::UnknownKey)),
                "{case}: {refusal:?}"
            );
        }
        let unknown = provider.changed(|header, _| header["kid"] = json!("other"));
        assert_eq!(provider.verify(&unknown).err(), Some(Refusal::UnknownKey));
        let expired = provider.changed(|_, claims| claims["exp"] = json!(now() - 31));
        assert_eq!(provider.verify(&expired).err(), Some(Refusal::Expired));
        let within = provider.changed(|_, claims| claims["exp"] = json!(now() - 28));
        assert!(provider.verify(&within).is_ok());
        let other = Provider::new();
        let id = |header: &mut Value| header["kid"] = Value::Null;
        let forged = other.changed(|header, _| id(header));
        assert!(matches!(provider.verify(&forged), Err(Refusal::Invalid(_))));
        for token in ["a.b.c", "..", "", "a", &provider.token()[1..]] {
            let refusal = provider.verify(token).err();
            assert!(
                matches!(refusal, Some(Refusal::Invalid(_))),
                "{token}: {refusal:?}"
            );
        }
    }

    #[test]
    fn without_keys_nothing_is_known() {
        let provider = Provider::new();
        let (_replace, current) = Replace::new();
        let settings = provider.jwt.settings.clone();
        let jwt = Jwt::new(settings, Keys::of_file(current));
        let verified = jwt.verify(provider.token().as_bytes(), SystemTime::now());
        assert_eq!(verified.err(), Some(Refusal::NoKeys));
    }
}
