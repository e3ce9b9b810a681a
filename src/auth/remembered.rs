//! A cache of principals, so that each credential is verified only once.

use std::{
    collections::HashMap,
    sync::{Arc, PoisonError, RwLock},
    time::SystemTime,
};

use ring::digest;

use super::{Principal, Refusal};

/// The most credentials that are remembered: a few megabytes. Beyond that all are forgotten, and
/// verified again when they are used.
const MAX_LEN: usize = 16 * 1024;

/// What names a credential: never the credential itself.
pub(super) type Digest = [u8; digest::SHA256_OUTPUT_LEN];

pub(super) fn digest(credential: &[u8]) -> Digest {
    let found = digest::digest(&digest::SHA256, credential);
    let mut digest = Digest::default();
    digest.copy_from_slice(found.as_ref());
    digest
}

/// See the module.
#[derive(Default)]
pub(super) struct Remembered(RwLock<HashMap<Digest, (u64, Arc<Principal>)>>);

impl Remembered {
    /// The principal of the credential with this digest: the remembered one, if it was found by the
    /// same version of the rules, otherwise the one that `find` returns.
    pub(super) fn find_or(
        &self,
        digest: Digest,
        version: u64,
        now: SystemTime,
        find: impl FnOnce(SystemTime) -> Result<Principal, Refusal>,
    ) -> Result<Arc<Principal>, Refusal> {
        if let Some((of, principal)) = self.get(&digest)
            && of == version
        {
            principal.check(now)?;
            return Ok(principal);
        }
        let principal = Arc::new(find(now)?);
        principal.check(now)?;
        let mut remembered = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if remembered.len() >= MAX_LEN {
            remembered.clear();
        }
        remembered.insert(digest, (version, Arc::clone(&principal)));
        Ok(principal)
    }

    fn get(&self, digest: &Digest) -> Option<(u64, Arc<Principal>)> {
        let remembered = self.0.read().unwrap_or_else(PoisonError::into_inner);
        remembered.get(digest).cloned()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::auth::principal::Rights;

    fn principal(expires_at: SystemTime) -> Principal {
        let revoked = CancellationToken::new();
        Principal::new("jwt:a".into(), Rights::default(), Some(expires_at), revoked)
    }

    #[test]
    fn a_credential_is_looked_at_once_until_it_expires_or_the_rules_change() {
        let remembered = Remembered::default();
        let now = SystemTime::now();
        let later = now + Duration::from_secs(10);
        let found = |version, now| {
            let mut looked = false;
            let result = remembered.find_or(digest(b"a"), version, now, |_| {
                looked = true;
                Ok(principal(later))
            });
            (looked, result.err())
        };
        assert_eq!(found(1, now), (true, None));
        assert_eq!(found(1, now), (false, None));
        assert_eq!(found(2, now), (true, None));
        assert_eq!(found(2, later), (false, Some(Refusal::Expired)));
    }

    #[test]
    fn what_is_remembered_is_bounded_and_refusals_are_not_remembered() {
        let remembered = Remembered::default();
        let now = SystemTime::now();
        for number in 0..=MAX_LEN {
            let digest = digest(&number.to_le_bytes());
            let later = now + Duration::from_secs(10);
            let found = remembered.find_or(digest, 1, now, |_| Ok(principal(later)));
            found.expect("it is good");
            let refused = remembered.find_or(super::digest(b"bad"), 1, now, |_| {
                Err(Refusal::Invalid("it is bad"))
            });
            assert!(refused.is_err());
            assert!(remembered.0.read().expect("not poisoned").len() <= MAX_LEN);
        }
    }
}
