//! Who is calling, what they may do, and for how long.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, SystemTime},
};

use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::{Limits, Refusal};
use crate::domain::Narrowing;

/// The longest wait for an expiry before the clock is read again, which may have been set
/// meanwhile.
const MAX_WAIT: Duration = Duration::from_secs(30);

/// One thing that a caller may be allowed to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scope {
    /// Look up, list, count, export and watch calls.
    Read,
    /// Create, change, delete and import calls.
    Write,
    /// Purge calls.
    Purge,
}

impl Scope {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Read, Self::Write, Self::Purge];

    /// The name in tokens and policy files.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Read => "calls:read",
            Self::Write => "calls:write",
            Self::Purge => "calls:purge",
        }
    }

    /// The scope of this name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|scope| scope.name() == name)
    }

    fn bit(self) -> u8 {
        match self {
            Self::Read => 1,
            Self::Write => 2,
            Self::Purge => 4,
        }
    }
}

/// A set of scopes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Scopes(u8);

impl Scopes {
    /// Whether the scope is among them.
    #[must_use]
    pub fn has(self, scope: Scope) -> bool {
        self.0 & scope.bit() != 0
    }
}

impl FromIterator<Scope> for Scopes {
    fn from_iter<I: IntoIterator<Item = Scope>>(scopes: I) -> Self {
        Self(scopes.into_iter().fold(0, |bits, scope| bits | scope.bit()))
    }
}

impl fmt::Display for Scopes {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = Scope::ALL.into_iter().filter(|scope| self.has(*scope));
        let names: Vec<_> = names.map(Scope::name).collect();
        formatter.write_str(if names.is_empty() { "none" } else { "" })?;
        formatter.write_str(&names.join(" "))
    }
}

/// Whether a principal may have this name: the history keeps it, and people read it. So it has
/// no control characters, none that change the direction of text, and no spaces around it.
pub(super) fn is_name(name: &str, max_bytes: usize) -> bool {
    let is_hidden = |c: char| {
        c.is_control()
            || matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    !name.is_empty() && name.len() <= max_bytes && name.trim() == name && !name.contains(is_hidden)
}

/// What a principal may do, with which calls, and how much at once.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Rights {
    pub(super) scopes: Scopes,
    pub(super) narrowing: Option<Arc<Narrowing>>,
    /// Exceptions to the limits that all principals have.
    pub(super) limits: Limits,
}

/// A caller whose credentials are good.
#[derive(Debug)]
pub struct Principal {
    name: Arc<str>,
    rights: Rights,
    expires_at: Option<SystemTime>,
    /// Cancelled when the policy file no longer names it as it was.
    revoked: CancellationToken,
}

impl Principal {
    pub(super) fn new(
        name: String,
        rights: Rights,
        expires_at: Option<SystemTime>,
        revoked: CancellationToken,
    ) -> Self {
        Self {
            name: name.into(),
            rights,
            expires_at,
            revoked,
        }
    }

    /// The name, which begins with the kind of credentials: `jwt:`, `policy:` or `cert:`. So
    /// two kinds of principals never have the same name.
    #[must_use]
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// What it may do.
    #[must_use]
    pub fn scopes(&self) -> Scopes {
        self.rights.scopes
    }

    /// Whose calls it may see and change; `None`: all.
    #[must_use]
    pub fn narrowing(&self) -> Option<&Arc<Narrowing>> {
        self.rights.narrowing.as_ref()
    }

    /// How much it may have at once, where that is not what every principal may.
    #[must_use]
    pub fn limits(&self) -> Limits {
        self.rights.limits
    }

    /// When its credentials expire, leeway included.
    #[must_use]
    pub fn expires_at(&self) -> Option<SystemTime> {
        self.expires_at
    }

    /// Whether its credentials are still valid.
    ///
    /// # Errors
    /// They have expired, or were revoked.
    pub fn check(&self, now: SystemTime) -> Result<(), Refusal> {
        if self.revoked.is_cancelled() {
            return Err(Refusal::Invalid("the policy file no longer contains them"));
        }
        match self.expires_at {
            Some(at) if at <= now => Err(Refusal::Expired),
            _ => Ok(()),
        }
    }

    /// Waits until its credentials are no longer valid, and returns why.
    pub async fn ended(&self) -> Refusal {
        loop {
            if let Err(refusal) = self.check(SystemTime::now()) {
                return refusal;
            }
            let expiry = async {
                match self.expires_at {
                    Some(at) => {
                        let left = at.duration_since(SystemTime::now()).unwrap_or_default();
                        sleep(left.min(MAX_WAIT)).await;
                    }
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = self.revoked.cancelled() => {}
                () = expiry => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_what_people_can_read() {
        for (name, is_good) in [
            ("amy", true),
            ("spiffe://a/b c", true),
            ("", false),
            ("a\0b", false),
            ("a\nb", false),
            ("a\u{85}b", false),
            ("a\u{202e}b", false),
            (" a", false),
            ("a\u{a0}", false),
            ("12345678901", false),
        ] {
            let max_bytes = if name.starts_with('1') { 10 } else { 100 };
            assert_eq!(is_name(name, max_bytes), is_good, "{name:?}");
        }
    }

    #[test]
    fn scopes_hold_what_they_were_made_of() {
        for scope in Scope::ALL {
            assert_eq!(Scope::parse(scope.name()), Some(scope));
            let scopes: Scopes = [scope].into_iter().collect();
            for other in Scope::ALL {
                assert_eq!(scopes.has(other), other == scope);
            }
        }
        assert_eq!(Scope::parse("calls:all"), None);
        let scopes: Scopes = Scope::ALL.into_iter().collect();
        assert_eq!(scopes.to_string(), "calls:read calls:write calls:purge");
        assert_eq!(Scopes::default().to_string(), "none");
    }
}
