//! Keys and tokens of our own, for trying without an identity provider.

use std::time::{Duration, SystemTime};

use data_encoding::{BASE64, BASE64URL_NOPAD, HEXLOWER};
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use ring::{
    digest,
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair},
};
use rustls::pki_types::{PrivatePkcs8KeyDer, pem::PemObject};
use serde_json::{Map, Value, json};

use super::{MAX_SUBJECT_BYTES, crypto};
use crate::auth::{Scopes, principal::is_name};

const PEM_LINE_LEN: usize = 64;
const KEY_ID_BYTES: usize = 8;
const COORDINATE_BYTES: usize = 32;

/// A private key for ES256.
pub struct SigningKey {
    pkcs8: Vec<u8>,
    /// The public point, x before y.
    point: Vec<u8>,
}

/// What a token is to say.
#[derive(Debug, Clone)]
pub struct Claims {
    /// The subject of the token.
    pub subject: String,
    /// The issuer.
    pub issuer: String,
    /// The audience.
    pub audience: String,
    /// What its bearer may do.
    pub scopes: Scopes,
    /// How long it is valid.
    pub lifetime: Duration,
    /// Further claims.
    pub more: Vec<(String, Value)>,
}

/// The key cannot be made or read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SigningKeyError {
    /// The operating system returned no random numbers.
    #[error("cannot generate a key")]
    Generate,
    /// The text contains no such key.
    #[error("the file contains no P-256 key in PEM format (PKCS #8)")]
    Read,
    /// No service would accept it.
    #[error("a subject has 1 to 256 bytes, no control characters, and no spaces around it")]
    Subject,
    /// It cannot sign.
    #[error("cannot sign with the key")]
    Sign,
}

impl SigningKey {
    /// A new key.
    ///
    /// # Errors
    /// The operating system returned no random numbers.
    pub fn generate() -> Result<Self, SigningKeyError> {
        let curve = &ECDSA_P256_SHA256_FIXED_SIGNING;
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(curve, &SystemRandom::new());
        let pkcs8 = pkcs8.map_err(|_| SigningKeyError::Generate)?;
        Self::of_pkcs8(pkcs8.as_ref())
    }

    /// Reads a key that [`Self::to_pem`] has written.
    ///
    /// # Errors
    /// The text holds none.
    pub fn from_pem(pem: &[u8]) -> Result<Self, SigningKeyError> {
        let key = PrivatePkcs8KeyDer::from_pem_slice(pem).map_err(|_| SigningKeyError::Read)?;
        Self::of_pkcs8(key.secret_pkcs8_der())
    }

    fn of_pkcs8(pkcs8: &[u8]) -> Result<Self, SigningKeyError> {
        let curve = &ECDSA_P256_SHA256_FIXED_SIGNING;
        let pair = EcdsaKeyPair::from_pkcs8(curve, pkcs8, &SystemRandom::new());
        let pair = pair.map_err(|_| SigningKeyError::Read)?;
        // After a byte that says that the point is not compressed.
        let point = pair.public_key().as_ref().get(1..).unwrap_or_default();
        Ok(Self {
            pkcs8: pkcs8.to_vec(),
            point: point.to_vec(),
        })
    }

    #[cfg(test)]
    pub(super) fn pkcs8(&self) -> &[u8] {
        &self.pkcs8
    }

    /// The key in PEM.
    #[must_use]
    pub fn to_pem(&self) -> String {
        let base64 = BASE64.encode(&self.pkcs8);
        let lines: Vec<_> = base64
            .as_bytes()
            .chunks(PEM_LINE_LEN)
            .map(String::from_utf8_lossy)
            .collect();
        let lines = lines.join("\n");
        format!("-----BEGIN PRIVATE KEY-----\n{lines}\n-----END PRIVATE KEY-----\n")
    }

    /// The set of its public key alone.
    #[must_use]
    pub fn key_set(&self) -> String {
        let (x, y) = self.point.split_at(COORDINATE_BYTES.min(self.point.len()));
        let key = json!({
            "kty": "EC",
            "crv": "P-256",
            "alg": "ES256",
            "use": "sig",
            "kid": self.id(),
            "x": BASE64URL_NOPAD.encode(x),
            "y": BASE64URL_NOPAD.encode(y),
        });
        format!("{:#}\n", json!({ "keys": [key] }))
    }

    fn id(&self) -> String {
        let digest = digest::digest(&digest::SHA256, &self.point);
        HEXLOWER.encode(&digest.as_ref()[..KEY_ID_BYTES])
    }

    /// A token, signed.
    ///
    /// # Errors
    /// The key cannot sign, or no service would accept the token.
    pub fn issue(&self, claims: &Claims) -> Result<String, SigningKeyError> {
        if !is_name(&claims.subject, MAX_SUBJECT_BYTES) {
            return Err(SigningKeyError::Subject);
        }
        crypto::install();
        let seconds = |time: SystemTime| {
            let since = time.duration_since(SystemTime::UNIX_EPOCH);
            since.unwrap_or_default().as_secs()
        };
        let now = SystemTime::now();
        let mut body = Map::new();
        let mut add = |name: &str, value: Value| body.insert(name.to_owned(), value);
        add("iss", claims.issuer.clone().into());
        add("sub", claims.subject.clone().into());
        add("aud", claims.audience.clone().into());
        add("iat", seconds(now).into());
        let expiry = now + claims.lifetime;
        let since = expiry.duration_since(SystemTime::UNIX_EPOCH);
        // Lifetimes of whole seconds are written as most providers write them.
        let exp: Value = match claims.lifetime.subsec_nanos() {
            0 => seconds(expiry).into(),
            _ => since.unwrap_or_default().as_secs_f64().into(),
        };
        add("exp", exp);
        if claims.scopes != Scopes::default() {
            add("scope", claims.scopes.to_string().into());
        }
        for (name, value) in &claims.more {
            add(name, value.clone());
        }
        let mut header = Header::new(Algorithm::ES256);
        header.kid = Some(self.id());
        let key = EncodingKey::from_ec_der(&self.pkcs8);
        encode(&header, &body, &key).map_err(|_| SigningKeyError::Sign)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_read_as_it_was_written() {
        let key = SigningKey::generate().expect("there are random numbers");
        let read = SigningKey::from_pem(key.to_pem().as_bytes()).expect("it is good");
        assert_eq!(read.key_set(), key.key_set());
        assert!(SigningKey::from_pem(b"-----BEGIN PRIVATE KEY-----").is_err());
    }
}
