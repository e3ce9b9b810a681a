//! An issuer of tokens, and a service that accepts them.

use std::time::Duration;

use voicecall::auth::{
    Scope,
    jwt::issue::{Claims, SigningKey},
};

use super::{dir::Dir, postgres::Cluster, server::Process};

pub(crate) const ISSUER: &str = "https://login.example.com";
pub(crate) const AUDIENCE: &str = "voicecall";

/// A new key of the issuer's.
pub(crate) fn new_key() -> SigningKey {
    SigningKey::generate().expect("there are random numbers")
}

/// A token of this subject with all scopes.
pub(crate) fn token(key: &SigningKey, subject: &str, lifetime: Duration) -> String {
    let claims = Claims {
        subject: subject.to_owned(),
        issuer: ISSUER.to_owned(),
        audience: AUDIENCE.to_owned(),
        scopes: Scope::ALL.into_iter().collect(),
        lifetime,
        more: Vec::new(),
    };
    key.issue(&claims).expect("it signs")
}

/// Starts a service that accepts tokens signed with this key, and none a moment longer than it
/// is valid.
pub(crate) async fn serve_with_key(key: &SigningKey, dir: &Dir) -> Process {
    Process::start(&[
        ("DATABASE_URL", &Cluster::shared().await.database().await),
        (
            "VOICECALL_AUTH_JWKS",
            &dir.write("jwks.json", &key.key_set()),
        ),
        ("VOICECALL_AUTH_ISSUER", ISSUER),
        ("VOICECALL_AUTH_AUDIENCE", AUDIENCE),
        ("VOICECALL_AUTH_LEEWAY", "0"),
    ])
}
