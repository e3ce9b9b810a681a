//! What is read from a token's claims besides what the library checks.
//!
//! A claim that narrows its bearer to some calls never widens: one that is there and cannot be
//! used makes the token invalid.

use std::{fmt, sync::Arc};

use serde::{
    Deserialize, Deserializer,
    de::{Error, MapAccess, Visitor},
};
use serde_json::{Map, Value};

use crate::{
    auth::{Refusal, Scope, Scopes},
    domain::{Identifier, Narrowing, StaffNarrowing},
};

/// The names of the claims that narrow a token to some calls.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NarrowingClaims {
    /// The member of staff whose calls they are.
    pub staff_uid: String,
    /// The client whose calls they are.
    pub client_uid: String,
    /// Whether calls that nobody has answered or handled yet are among them.
    pub unassigned: String,
}

impl Default for NarrowingClaims {
    fn default() -> Self {
        Self {
            staff_uid: "staff_uid".to_owned(),
            client_uid: "client_uid".to_owned(),
            unassigned: "unassigned".to_owned(),
        }
    }
}

impl NarrowingClaims {
    /// The claims that say this.
    #[must_use]
    pub fn of(&self, narrowing: &Narrowing) -> Vec<(String, Value)> {
        let mut claims = Vec::new();
        let mut add = |name: &String, value: Value| claims.push((name.clone(), value));
        if let Some(staff) = narrowing.staff() {
            add(&self.staff_uid, staff.staff_uid.as_str().into());
            if staff.unassigned {
                add(&self.unassigned, true.into());
            }
        }
        if let Some(client_uid) = narrowing.client_uid() {
            add(&self.client_uid, client_uid.as_str().into());
        }
        claims
    }

    /// Whose calls these claims name; `None`: all calls.
    pub(super) fn read(&self, all: &AllClaims) -> Result<Option<Arc<Narrowing>>, Refusal> {
        let staff_uid = identifier(all.get(&self.staff_uid))?;
        let client_uid = identifier(all.get(&self.client_uid))?;
        let unassigned = match all.get(&self.unassigned) {
            None => false,
            Some(Value::Bool(unassigned)) => *unassigned,
            Some(_) => return Err(UNUSABLE),
        };
        if unassigned && staff_uid.is_none() {
            return Err(UNUSABLE);
        }
        let staff = staff_uid.map(|staff_uid| StaffNarrowing {
            staff_uid,
            unassigned,
        });
        Ok(Narrowing::new(staff, client_uid).map(Arc::new))
    }
}

const UNUSABLE: Refusal =
    Refusal::Invalid("a claim that says whose calls they are has an invalid value");

fn identifier(claim: Option<&Value>) -> Result<Option<Identifier>, Refusal> {
    match claim {
        None => Ok(None),
        Some(Value::String(uid)) => match Identifier::new(uid.clone()) {
            Ok(uid) => Ok(Some(uid)),
            Err(_) => Err(UNUSABLE),
        },
        Some(_) => Err(UNUSABLE),
    }
}

/// All claims of a token by name. A name that occurs twice is refused: which of its values counts
/// would be a matter of chance.
#[derive(Debug)]
pub(super) struct AllClaims(Value);

impl AllClaims {
    /// The claims whose names are given.
    pub(super) fn known(&self) -> Result<Claims, Refusal> {
        let claims = Claims::deserialize(&self.0);
        claims.map_err(|_| Refusal::Invalid("a claim is missing or has the wrong type"))
    }

    fn get(&self, name: &str) -> Option<&Value> {
        self.0.get(name)
    }
}

impl<'de> Deserialize<'de> for AllClaims {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Claim;

        impl<'de> Visitor<'de> for Claim {
            type Value = Map<String, Value>;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("claims")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut claims: A) -> Result<Self::Value, A::Error> {
                let mut all = Map::new();
                while let Some((name, value)) = claims.next_entry()? {
                    if all.insert(name, value).is_some() {
                        return Err(A::Error::custom("a claim is repeated"));
                    }
                }
                Ok(all)
            }
        }

        let all = deserializer.deserialize_map(Claim)?;
        Ok(Self(Value::Object(all)))
    }
}

/// The claims that are of use; those that are checked by the library have their JSON types
/// here, because it lets other types pass.
#[derive(Deserialize)]
pub(super) struct Claims {
    pub(super) sub: String,
    pub(super) exp: f64,
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

impl Claims {
    pub(super) fn scopes(&self) -> Scopes {
        let claims = [&self.scope, &self.scp, &self.permissions];
        let words = claims.into_iter().flatten().flat_map(Words::iter);
        words.filter_map(Scope::parse).collect()
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    fn read(claims: &str) -> Result<Option<Arc<Narrowing>>, Refusal> {
        let all = serde_json::from_str(claims).expect("it is JSON");
        NarrowingClaims::default().read(&all)
    }

    fn uid(uid: &str) -> Identifier {
        Identifier::new(uid.to_owned()).expect("it is good")
    }

    fn staff(unassigned: bool) -> StaffNarrowing {
        StaffNarrowing {
            staff_uid: uid("s"),
            unassigned,
        }
    }

    #[test]
    fn claims_say_whose_calls_they_are() {
        for (claims, narrowing) in [
            ("{}", None),
            (r#"{"unassigned": false}"#, None),
            (r#"{"user": {"staff_uid": "s"}}"#, None),
            (r#"{"Staff_uid": "s"}"#, None),
            (
                r#"{"staff_uid": "s"}"#,
                Some(Narrowing::Staff(staff(false))),
            ),
            (
                r#"{"staff_uid": "s", "unassigned": true}"#,
                Some(Narrowing::Staff(staff(true))),
            ),
            (r#"{"client_uid": "c"}"#, Some(Narrowing::Client(uid("c")))),
            (
                r#"{"client_uid": "c", "unassigned": false}"#,
                Some(Narrowing::Client(uid("c"))),
            ),
            (
                r#"{"staff_uid": "s", "client_uid": "c"}"#,
                Some(Narrowing::Both(staff(false), uid("c"))),
            ),
        ] {
            let read = read(claims).expect("they are good");
            assert_eq!(read.as_deref(), narrowing.as_ref(), "{claims}");
        }
    }

    #[test]
    fn a_claim_that_cannot_be_used_never_widens() {
        let long = "x".repeat(65);
        let mut all = vec![
            r#"{"unassigned": true}"#.to_owned(),
            r#"{"client_uid": "c", "unassigned": true}"#.to_owned(),
        ];
        for value in [
            "null",
            "1",
            "true",
            "[]",
            r#"["s"]"#,
            "{}",
            r#""""#,
            r#""a\nb""#,
        ] {
            all.push(format!(r#"{{"staff_uid": {value}}}"#));
            all.push(format!(r#"{{"client_uid": {value}}}"#));
            all.push(format!(r#"{{"staff_uid": "s", "client_uid": {value}}}"#));
        }
        all.push(format!(r#"{{"staff_uid": "{long}"}}"#));
        for value in ["null", "1", r#""true""#, "[true]", "{}"] {
            all.push(format!(r#"{{"staff_uid": "s", "unassigned": {value}}}"#));
            all.push(format!(r#"{{"unassigned": {value}}}"#));
        }
        for claims in all {
            assert_eq!(read(&claims), Err(UNUSABLE), "{claims}");
        }
    }

    #[test]
    fn a_claim_occurs_once() {
        for repeated in [
            r#"{"staff_uid": "s", "staff_uid": "t"}"#,
            r#"{"sub": "a", "sub": "b"}"#,
        ] {
            assert!(serde_json::from_str::<AllClaims>(repeated).is_err());
        }
        assert!(serde_json::from_str::<AllClaims>(r#"{"a": {"b": 1}, "b": 1}"#).is_ok());
    }

    #[test]
    fn claims_are_read_as_they_were_written() {
        let names = NarrowingClaims::default();
        for narrowing in [
            Narrowing::Staff(staff(false)),
            Narrowing::Staff(staff(true)),
            Narrowing::Client(uid("c")),
            Narrowing::Both(staff(true), uid("c")),
        ] {
            let all = AllClaims(Value::Object(names.of(&narrowing).into_iter().collect()));
            let read = names.read(&all).expect("they are good");
            assert_eq!(read.as_deref(), Some(&narrowing));
        }
    }

    #[test]
    fn the_names_can_be_chosen() {
        let names = NarrowingClaims {
            staff_uid: "sub".to_owned(),
            client_uid: "https://example.com/client".to_owned(),
            unassigned: "queue".to_owned(),
        };
        let claims = r#"{"sub": "s", "https://example.com/client": "c", "queue": true,
            "staff_uid": 1}"#;
        let all = serde_json::from_str(claims).expect("it is JSON");
        let read = names.read(&all).expect("they are good");
        assert_eq!(
            read.as_deref(),
            Some(&Narrowing::Both(staff(true), uid("c")))
        );
    }
}
