//! Which certificates an entry matches, by one of their names.

use super::Certificate;

/// A pattern for a name. `*` stands for any characters up to the next separator: `/` in a
/// URI, `.` in the other names.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Pattern {
    kind: Kind,
    text: String,
}

/// Which of a certificate's names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Uri,
    DnsName,
    CommonName,
}

impl Pattern {
    pub(super) fn new(kind: Kind, text: &str) -> Self {
        let text = match kind {
            Kind::DnsName => text.to_ascii_lowercase(),
            Kind::Uri | Kind::CommonName => text.to_owned(),
        };
        Self { kind, text }
    }

    /// The first name of the certificate that the pattern matches.
    pub(super) fn name_in<'a>(&self, certificate: &'a Certificate) -> Option<&'a str> {
        let fits = |name: &&str| self.fits(name);
        match self.kind {
            Kind::Uri => certificate.uris().iter().map(String::as_str).find(fits),
            Kind::DnsName => certificate
                .dns_names()
                .iter()
                .map(String::as_str)
                .find(fits),
            Kind::CommonName => certificate.common_name().filter(fits),
        }
    }

    fn fits(&self, name: &str) -> bool {
        let separator = match self.kind {
            Kind::Uri => '/',
            Kind::DnsName | Kind::CommonName => '.',
        };
        let (mut patterns, mut parts) = (self.text.split(separator), name.split(separator));
        loop {
            match (patterns.next(), parts.next()) {
                (Some(pattern), Some(part)) if part_fits(pattern, part) => {}
                (None, None) => return true,
                _ => return false,
            }
        }
    }
}

/// Whether a pattern matches a part of a name, without separators.
fn part_fits(pattern: &str, part: &str) -> bool {
    let Some((first, rest)) = pattern.split_once('*') else {
        return pattern == part;
    };
    let Some(part) = part.strip_prefix(first) else {
        return false;
    };
    let mut left = part;
    let mut pieces = rest.split('*').peekable();
    while let Some(piece) = pieces.next() {
        if pieces.peek().is_none() {
            return left.ends_with(piece);
        }
        match left.find(piece) {
            Some(at) => left = &left[at + piece.len()..],
            None => return false,
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_ends_at_a_separator() {
        for (kind, pattern, name, fits) in [
            (
                Kind::Uri,
                "spiffe://prod/billing",
                "spiffe://prod/billing",
                true,
            ),
            (
                Kind::Uri,
                "spiffe://prod/billing",
                "spiffe://prod/Billing",
                false,
            ),
            (
                Kind::Uri,
                "spiffe://prod/ns/*/sa/*",
                "spiffe://prod/ns/a/sa/b",
                true,
            ),
            (
                Kind::Uri,
                "spiffe://prod/ns/*/sa/*",
                "spiffe://prod/ns/a/b/sa/c",
                false,
            ),
            (Kind::Uri, "spiffe://prod/*", "spiffe://prod/a/b", false),
            (Kind::Uri, "spiffe://*/a", "spiffe://prod/a", true),
            (
                Kind::Uri,
                "spiffe://prod/a*b*c",
                "spiffe://prod/axbybc",
                true,
            ),
            (
                Kind::Uri,
                "spiffe://prod/a*b*c",
                "spiffe://prod/axbyb",
                false,
            ),
            (Kind::Uri, "spiffe://prod/a*a", "spiffe://prod/a", false),
            (Kind::Uri, "*", "", true),
            (Kind::DnsName, "*.example.com", "a.example.com", true),
            (Kind::DnsName, "*.Example.com", "a.example.com", true),
            (Kind::DnsName, "*.example.com", "a.b.example.com", false),
            (Kind::DnsName, "*.example.com", "example.com", false),
            (Kind::CommonName, "billing-*", "billing-7", true),
            (Kind::CommonName, "billing-*", "accounts", false),
        ] {
            assert_eq!(
                Pattern::new(kind, pattern).fits(name),
                fits,
                "{pattern} {name}"
            );
        }
    }
}
