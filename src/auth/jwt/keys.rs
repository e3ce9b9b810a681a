//! The public keys of an identity provider: a JSON Web Key Set (RFC 7517). Each key is pinned to
//! one algorithm here, by its type and curve: a token cannot choose another.

use data_encoding::{BASE64URL_NOPAD, HEXLOWER};
use jsonwebtoken::{Algorithm, DecodingKey};
use serde::Deserialize;
use serde_json::value::RawValue;
use tracing::warn;

/// The bits of an RSA key: smaller ones are not safe, and larger ones cost too much.
const RSA_BITS: std::ops::RangeInclusive<usize> = 2048..=8192;
/// The points of Ed25519 whose order divides 8, without their sign, and the other encodings of
/// two of them.
const SMALL_ORDER: [&str; 7] = [
    "0000000000000000000000000000000000000000000000000000000000000000",
    "0100000000000000000000000000000000000000000000000000000000000000",
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
    "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
];
/// More keys than any provider has.
const MAX_LEN: usize = 100;

/// The keys that tokens may be signed with.
#[derive(Debug, Default)]
pub struct KeySet(Vec<Key>);

/// A key, and the one algorithm that it is used with.
pub(super) struct Key {
    id: Option<String>,
    pub(super) algorithm: Algorithm,
    pub(super) public: DecodingKey,
}

impl std::fmt::Debug for Key {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "Key({:?}, {:?})", self.id, self.algorithm)
    }
}

/// Why a key set is refused, as a message for the operator.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidKeySet(String);

/// The members of a key that are of use (RFC 7517, 7518 and 8037).
#[derive(Deserialize)]
struct Jwk {
    kty: String,
    kid: Option<String>,
    alg: Option<String>,
    #[serde(rename = "use")]
    purpose: Option<String>,
    key_ops: Option<Vec<String>>,
    crv: Option<String>,
    n: Option<String>,
    e: Option<String>,
    x: Option<String>,
    y: Option<String>,
    /// The private part, which does not belong here.
    d: Option<serde::de::IgnoredAny>,
    p: Option<serde::de::IgnoredAny>,
    q: Option<serde::de::IgnoredAny>,
    k: Option<serde::de::IgnoredAny>,
}

#[derive(Deserialize)]
struct Jwks<'a> {
    #[serde(borrow)]
    keys: Vec<&'a RawValue>,
}

impl KeySet {
    /// Reads a key set. Keys for other uses, and of unsupported kinds, are left out.
    ///
    /// # Errors
    /// It is malformed, empty, or contains what it must not: secrets, private keys, or two keys
    /// with the same id.
    pub fn parse(bytes: &[u8]) -> Result<Self, InvalidKeySet> {
        let invalid = |reason: String| InvalidKeySet(format!("the key set {reason}"));
        let set: Jwks<'_> = serde_json::from_slice(bytes)
            .map_err(|_| invalid("is not a JSON object with an array \"keys\"".into()))?;
        if set.keys.len() > MAX_LEN {
            return Err(invalid(format!("has more than {MAX_LEN} keys")));
        }
        let mut keys: Vec<Key> = Vec::new();
        for (index, key) in set.keys.iter().enumerate() {
            let at = |reason: &str| invalid(format!("has a bad key at index {index}: {reason}"));
            let key: Jwk = serde_json::from_str(key.get())
                .map_err(|_| at("it is not a JSON Web Key, or a member is repeated"))?;
            match key.read().map_err(at)? {
                Some(key) => {
                    let is_same = |known: &Key| known.id.is_some() && known.id == key.id;
                    if keys.iter().any(is_same) {
                        return Err(at("another key has the same kid"));
                    }
                    keys.push(key);
                }
                None => warn!(
                    index,
                    "ignoring a key of the key set: other use, or unsupported algorithm"
                ),
            }
        }
        if keys.is_empty() {
            return Err(invalid(
                "has no key for a supported signature algorithm".into(),
            ));
        }
        Ok(Self(keys))
    }

    /// The key of this id. Without an id, the only one for the algorithm.
    pub(super) fn find(&self, id: Option<&str>, algorithm: Algorithm) -> Option<&Key> {
        match id {
            Some(_) => self.0.iter().find(|key| key.id.as_deref() == id),
            None => {
                let mut fitting = self.0.iter().filter(|key| key.algorithm == algorithm);
                fitting.next().filter(|_| fitting.next().is_none())
            }
        }
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}

impl Jwk {
    /// The key; `None` if it is for something else.
    fn read(self) -> Result<Option<Key>, &'static str> {
        if self.kty == "oct" {
            return Err("it is a shared secret; only public keys are accepted");
        }
        let secrets = [&self.d, &self.p, &self.q, &self.k];
        if secrets.into_iter().any(Option::is_some) {
            return Err("it is a private key; publish only the public part");
        }
        let is_for_signatures = self
            .purpose
            .as_deref()
            .is_none_or(|purpose| purpose == "sig");
        let verifies = |operations: &Vec<String>| operations.iter().any(|it| it == "verify");
        if !is_for_signatures || !self.key_ops.as_ref().is_none_or(verifies) {
            return Ok(None);
        }
        let (algorithm, public) = match (self.kty.as_str(), self.crv.as_deref()) {
            ("RSA", None) => {
                // Providers that name no algorithm use this one.
                let name = self.alg.as_deref().unwrap_or("RS256");
                let Some(algorithm) = rsa_algorithm(name) else {
                    return Ok(None);
                };
                (algorithm, self.rsa()?)
            }
            ("EC", Some("P-256")) => (Algorithm::ES256, self.ec(32)?),
            ("EC", Some("P-384")) => (Algorithm::ES384, self.ec(48)?),
            ("OKP", Some("Ed25519")) => (Algorithm::EdDSA, self.ed25519()?),
            _ => return Ok(None),
        };
        // RFC 9864 has a second name for the one.
        let is_said = |name: &str| {
            name == format!("{algorithm:?}") || (algorithm == Algorithm::EdDSA && name == "Ed25519")
        };
        if !self.alg.as_deref().is_none_or(is_said) {
            return Err("its algorithm does not match its type or curve");
        }
        Ok(Some(Key {
            id: self.kid,
            algorithm,
            public,
        }))
    }

    fn rsa(&self) -> Result<DecodingKey, &'static str> {
        let (modulus, exponent) = (bytes(self.n.as_deref())?, bytes(self.e.as_deref())?);
        let zeros = modulus.iter().take_while(|byte| **byte == 0).count();
        let first = modulus.get(zeros).copied().unwrap_or_default();
        let unused = usize::try_from(first.leading_zeros()).unwrap_or_default();
        let bits = (8 * (modulus.len() - zeros)).saturating_sub(unused);
        if !RSA_BITS.contains(&bits) {
            return Err("an RSA key must have 2048 to 8192 bits");
        }
        let is_odd = |number: &[u8]| number.last().is_some_and(|byte| byte % 2 == 1);
        let exponent_zeros = exponent.iter().take_while(|byte| **byte == 0).count();
        let exponent = &exponent[exponent_zeros..];
        if !is_odd(&modulus) || !is_odd(exponent) || exponent == [1] || exponent.len() > 4 {
            return Err("its modulus or its exponent is not that of an RSA key");
        }
        Ok(DecodingKey::from_rsa_raw_components(
            &modulus[zeros..],
            exponent,
        ))
    }

    fn ec(&self, len: usize) -> Result<DecodingKey, &'static str> {
        let (x, y) = (bytes(self.x.as_deref())?, bytes(self.y.as_deref())?);
        if x.len() != len || y.len() != len {
            return Err("its coordinates do not have the length of its curve");
        }
        Ok(DecodingKey::from_ec_der(&[&[4], &x[..], &y[..]].concat()))
    }

    fn ed25519(&self) -> Result<DecodingKey, &'static str> {
        let x = bytes(self.x.as_deref())?;
        if x.len() != 32 {
            return Err("an Ed25519 key must have 32 bytes");
        }
        let mut y = x.clone();
        // The sign of the other coordinate.
        if let Some(last) = y.last_mut() {
            *last &= 0x7f;
        }
        if SMALL_ORDER
            .iter()
            .any(|point| HEXLOWER.encode(&y) == *point)
        {
            return Err("it is a point of small order, for which anybody can sign");
        }
        Ok(DecodingKey::from_ed_der(&x))
    }
}

fn rsa_algorithm(name: &str) -> Option<Algorithm> {
    Some(match name {
        "RS256" => Algorithm::RS256,
        "RS384" => Algorithm::RS384,
        "RS512" => Algorithm::RS512,
        "PS256" => Algorithm::PS256,
        "PS384" => Algorithm::PS384,
        "PS512" => Algorithm::PS512,
        _ => return None,
    })
}

fn bytes(member: Option<&str>) -> Result<Vec<u8>, &'static str> {
    let text = member.ok_or("a member of its public key is missing")?;
    let bytes = BASE64URL_NOPAD.decode(text.as_bytes());
    bytes.map_err(|_| "a member of its public key is not base64url without padding")
}

#[cfg(test)]
mod tests {
    use super::*;

    const X: &str = "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU";
    const Y: &str = "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0";

    fn ec(more: &str) -> String {
        format!(r#"{{"kty":"EC","crv":"P-256","x":"{X}","y":"{Y}"{more}}}"#)
    }

    fn parse(keys: &[String]) -> Result<KeySet, String> {
        let set = format!(r#"{{"keys":[{}]}}"#, keys.join(","));
        KeySet::parse(set.as_bytes()).map_err(|error| error.to_string())
    }

    #[test]
    fn the_algorithm_of_a_key_is_pinned() {
        let keys = parse(&[ec(r#","kid":"a""#)]).expect("it is good");
        let found = keys.find(Some("a"), Algorithm::ES384).expect("it is there");
        assert_eq!(found.algorithm, Algorithm::ES256);
        assert!(keys.find(Some("b"), Algorithm::ES256).is_none());
        assert!(keys.find(None, Algorithm::ES256).is_some());
        assert!(keys.find(None, Algorithm::ES384).is_none());
        let two = parse(&[ec(r#","kid":"a""#), ec(r#","kid":"b""#)]).expect("they are good");
        assert!(two.find(None, Algorithm::ES256).is_none());
    }

    #[test]
    fn weak_keys_are_refused() {
        let modulus = format!("{}8", "_".repeat(341));
        let rsa = |e: &str| format!(r#"{{"kty":"RSA","n":"{modulus}","e":"{e}"}}"#);
        let one = "AQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
        let private = ec(r#","p":"AAAA""#);
        for key in [
            rsa("AQ"),
            rsa("Ag"),
            rsa("AA"),
            format!(r#"{{"kty":"OKP","crv":"Ed25519","x":"{one}"}}"#),
            private,
        ] {
            assert!(parse(std::slice::from_ref(&key)).is_err(), "{key}");
        }
    }

    #[test]
    fn what_must_not_be_in_a_key_set_is_refused() {
        let short = "A".repeat(170);
        for (keys, reason) in [
            (vec![], "no key"),
            (
                vec![r#"{"kty":"oct","k":"c2VjcmV0"}"#.to_owned()],
                "shared secret",
            ),
            (vec![ec(r#","d":"AAAA""#)], "private key"),
            (vec![ec(r#","alg":"ES384""#)], "does not match"),
            (vec![ec(r#","alg":"none""#)], "does not match"),
            (vec![ec(r#","alg":"HS256""#)], "does not match"),
            (vec![ec(r#","x":"AAAA""#)], "repeated"),
            (vec![ec(r#","use":"enc""#)], "no key"),
            (vec![ec(r#","key_ops":["sign"]"#)], "no key"),
            (vec![ec(r#","kid":"a""#), ec(r#","kid":"a""#)], "same kid"),
            (
                vec![r#"{"kty":"EC","crv":"P-521","x":"AA","y":"AA"}"#.into()],
                "no key",
            ),
            (
                vec![r#"{"kty":"EC","crv":"P-256","x":"AA","y":"AA"}"#.into()],
                "length",
            ),
            (
                vec![r#"{"kty":"EC","crv":"P-256","x":"A!","y":"AA"}"#.into()],
                "base64url",
            ),
            (
                vec![r#"{"kty":"OKP","crv":"Ed25519","x":"AAAA"}"#.into()],
                "32 bytes",
            ),
            (vec![r#"{"kty":"RSA","e":"AQAB"}"#.into()], "missing"),
            (
                vec![format!(r#"{{"kty":"RSA","n":"{short}AA","e":"AQAB"}}"#)],
                "2048",
            ),
            (vec![r#""a""#.into()], "JSON Web Key"),
        ] {
            let error = parse(&keys).expect_err("it is bad");
            assert!(error.contains(reason), "{keys:?}: {error}");
        }
        for text in ["", "{", "[]", r#"{"keys":{}}"#, "null"] {
            let error = KeySet::parse(text.as_bytes()).expect_err("it is bad");
            assert!(error.to_string().contains("JSON object"), "{text}");
        }
    }
}
