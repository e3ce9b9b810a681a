//! The principals that a file names, for installations without an identity provider.
//!
//! - [`Policy`]: finds the principal of a token or of a certificate
//! - `file`: what the file looks like, and what is wrong with it; `rights`: the part of an entry
//!   that says what its principal may do
//! - `entry`: writes one
//! - `pattern`: which certificates an entry means
//!
//! `auth/settings` loads it, and has the task that reads it again when the file has changed
//! (`reload`).

mod entry;
mod file;
mod pattern;
mod rights;

use std::{sync::Arc, time::SystemTime};

use data_encoding::BASE64URL_NOPAD;
use ring::rand::{SecureRandom, SystemRandom};
use subtle::ConstantTimeEq;
use tokio_util::sync::CancellationToken;

use self::pattern::Pattern;
use super::{Certificate, Principal, Refusal, Scopes, certificate, principal::Rights, remembered};
use crate::{domain::Narrowing, reload};

/// A new token begins with this, so that a search for leaked secrets finds it.
const TOKEN_PREFIX: &str = "vct_";
const RANDOM_BYTES: usize = 32;

/// The least length of a token: 32 random bytes are longer, in hexadecimal and in base64.
const MIN_TOKEN_BYTES: usize = 32;

/// The policy as it is now.
pub type Current = reload::Current<Policy>;

/// What a policy file says.
#[derive(Debug)]
pub struct Policy(Vec<Arc<Entry>>);

/// A principal of the file.
#[derive(Debug)]
struct Entry {
    /// The values that were written, to see whether they have changed.
    written: Written,
    /// The principal of its token.
    by_token: Option<Arc<Principal>>,
    /// Cancelled when the file no longer has the entry, or has it with other values.
    revoked: CancellationToken,
}

/// A principal as it is written.
#[derive(Debug, PartialEq, Eq)]
struct Written {
    name: String,
    rights: Rights,
    credential: Credential,
}

/// How a principal proves who it is.
#[derive(Debug, PartialEq, Eq)]
enum Credential {
    Token {
        sha256: remembered::Digest,
        expires_at: SystemTime,
    },
    Certificate(Pattern),
}

/// A new token, and its entry for a policy file; with a narrowing, for some calls only.
///
/// # Errors
/// The name is not one that a principal may have, or the machine has no random numbers.
pub fn new_token(
    name: &str,
    scopes: Scopes,
    narrowing: Option<&Narrowing>,
    expires_at: SystemTime,
) -> Result<(String, String), String> {
    let mut random = [0; RANDOM_BYTES];
    let filled = SystemRandom::new().fill(&mut random);
    filled.map_err(|_| "the operating system returned no random numbers")?;
    let token = format!("{TOKEN_PREFIX}{}", BASE64URL_NOPAD.encode(&random));
    let digest = remembered::digest(token.as_bytes());
    let entry = entry::of_token(name, scopes, narrowing, &digest, expires_at);
    file::parse(entry.as_bytes())?;
    Ok((token, entry))
}

impl Policy {
    /// Reads a policy file. Entries that are as they were `before` stay as they are; the
    /// principals of all others are revoked.
    ///
    /// # Errors
    /// What is wrong with the file, with line and column; a message for the operator.
    pub fn parse(text: &[u8], before: Option<&Self>) -> Result<Self, String> {
        let written = file::parse(text)?;
        let had_some = before.is_some_and(|before| !before.0.is_empty());
        if had_some && written.is_empty() {
            return Err("the policy file names no principal, which would revoke all".to_owned());
        }
        let known = |written: &Written| {
            let mut entries = before.into_iter().flat_map(|before| &before.0);
            entries.find(|entry| entry.written == *written).cloned()
        };
        let entries = written.into_iter().map(|written| match known(&written) {
            Some(entry) => entry,
            None => Arc::new(Entry::new(written)),
        });
        let policy = Self(entries.collect());
        for entry in before.into_iter().flat_map(|before| &before.0) {
            if !policy.0.iter().any(|kept| Arc::ptr_eq(kept, entry)) {
                entry.revoked.cancel();
            }
        }
        Ok(policy)
    }

    /// The principal whose token this is. All entries are compared, each in constant time.
    pub(super) fn by_token(
        &self,
        token: &[u8],
        now: SystemTime,
    ) -> Result<Arc<Principal>, Refusal> {
        if token.len() < MIN_TOKEN_BYTES {
            return Err(Refusal::Invalid("the token is too short"));
        }
        let digest = remembered::digest(token);
        let mut found = None;
        for entry in &self.0 {
            let Credential::Token { sha256, .. } = &entry.written.credential else {
                continue;
            };
            if bool::from(sha256[..].ct_eq(&digest[..])) {
                found = entry.by_token.as_ref();
            }
        }
        let principal = found.ok_or(Refusal::Invalid("no principal has this token"))?;
        principal.check(now)?;
        Ok(Arc::clone(principal))
    }

    /// The principal of the certificate, by the first entry that matches it.
    pub(super) fn by_certificate(
        &self,
        certificate: &Certificate,
        now: SystemTime,
    ) -> Result<Principal, Refusal> {
        let found = self.0.iter().find_map(|entry| {
            let Credential::Certificate(pattern) = &entry.written.credential else {
                return None;
            };
            Some((entry, pattern.name_in(certificate)?))
        });
        let (entry, name) = found.ok_or(Refusal::Invalid("no principal has this certificate"))?;
        let principal = Principal::new(
            certificate::principal_name(name)?,
            entry.written.rights.clone(),
            Some(certificate.expires_at()),
            entry.revoked.clone(),
        );
        principal.check(now)?;
        Ok(principal)
    }
}

impl Entry {
    fn new(written: Written) -> Self {
        let revoked = CancellationToken::new();
        let by_token = match written.credential {
            Credential::Token { expires_at, .. } => Some(Arc::new(Principal::new(
                format!("policy:{}", written.name),
                written.rights.clone(),
                Some(expires_at),
                revoked.clone(),
            ))),
            Credential::Certificate(_) => None,
        };
        Self {
            written,
            by_token,
            revoked,
        }
    }
}
