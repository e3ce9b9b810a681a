//! Strings with rules. Each type holds only what its rule allows, so nothing
//! behind the API needs to check again.
//!
//! The empty string is no value of any of them: where a field may be absent,
//! empty means absent, and the caller makes it so before it gets here.

use std::fmt;

/// The most characters an [`Identifier`] or a [`PhoneNumber`] has.
pub const MAX_NAME_CHARS: usize = 64;
/// The most bytes a [`Url`] has.
pub const MAX_URL_BYTES: usize = 2048;
/// The most bytes a [`Summary`] has.
pub const MAX_SUMMARY_BYTES: usize = 64 * 1024;

/// Why a string is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TextError {
    /// The string is empty.
    #[error("must not be empty")]
    Empty,
    /// More characters than the rule allows.
    #[error("must be at most {0} characters")]
    TooManyChars(usize),
    /// More bytes than the rule allows.
    #[error("must be at most {0} bytes of UTF-8")]
    TooManyBytes(usize),
    /// A control character stands where none is allowed.
    #[error("must not contain control characters")]
    ControlCharacter,
    /// Not an absolute http or https URL.
    #[error("must be an absolute http or https URL")]
    NotAnHttpUrl,
}

macro_rules! text {
    ($(#[$doc:meta])* $name:ident, $rule:path) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(String);

        impl $name {
            /// The string's value under the rule.
            ///
            /// # Errors
            /// [`TextError`] says which part of the rule is broken.
            pub fn new(text: String) -> Result<Self, TextError> {
                $rule(&text)?;
                Ok(Self(text))
            }

            /// A string that was checked on its way into the store.
            pub(crate) fn assume_valid(text: String) -> Self {
                Self(text)
            }

            /// The string, taken out.
            #[must_use]
            pub fn into_string(self) -> String {
                self.0
            }

            /// The string.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $name {
            type Error = TextError;

            fn try_from(text: String) -> Result<Self, TextError> {
                Self::new(text)
            }
        }

        impl fmt::Debug for $name {
            /// Lengths only: a call's texts are personal data, and debug output
            /// ends in logs.
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({} bytes)"), self.0.len())
            }
        }
    };
}

text! {
    /// An opaque identifier of a member of staff or a client: 1 to 64
    /// characters, none of them a control character.
    Identifier, name_rule
}
text! {
    /// A phone number as the provider reports it, which may be a SIP address or
    /// the word for a withheld number: 1 to 64 characters, none of them a
    /// control character.
    PhoneNumber, name_rule
}
text! {
    /// An absolute http or https URL of at most 2048 bytes.
    Url, url_rule
}
text! {
    /// A text of at most 64 KiB; newline and tab are its only control
    /// characters.
    Summary, summary_rule
}

fn name_rule(text: &str) -> Result<(), TextError> {
    if text.is_empty() {
        return Err(TextError::Empty);
    }
    // Bytes first: counting the characters of a long string is not free.
    if text.len() > MAX_NAME_CHARS * 4 || text.chars().count() > MAX_NAME_CHARS {
        return Err(TextError::TooManyChars(MAX_NAME_CHARS));
    }
    no_control(text, |_| false)
}

fn summary_rule(text: &str) -> Result<(), TextError> {
    if text.is_empty() {
        return Err(TextError::Empty);
    }
    if text.len() > MAX_SUMMARY_BYTES {
        return Err(TextError::TooManyBytes(MAX_SUMMARY_BYTES));
    }
    no_control(text, |c| c == '\n' || c == '\t')
}

/// Enough of RFC 3986 to keep out what no browser would open: the scheme, a
/// host, a port if there is a colon, and no white space. The rest of a URL is
/// its server's business.
fn url_rule(text: &str) -> Result<(), TextError> {
    if text.is_empty() {
        return Err(TextError::Empty);
    }
    if text.len() > MAX_URL_BYTES {
        return Err(TextError::TooManyBytes(MAX_URL_BYTES));
    }
    no_control(text, |_| false)?;
    let scheme_len = text.find("://").ok_or(TextError::NotAnHttpUrl)?;
    let (scheme, rest) = (&text[..scheme_len], &text[scheme_len + 3..]);
    let known = scheme.eq_ignore_ascii_case("http") || scheme.eq_ignore_ascii_case("https");
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let host_and_port = authority.rsplit('@').next().unwrap_or_default();
    if known && host_rule(host_and_port) && !text.contains(char::is_whitespace) {
        Ok(())
    } else {
        Err(TextError::NotAnHttpUrl)
    }
}

fn host_rule(host_and_port: &str) -> bool {
    let (host, port) = match host_and_port.strip_prefix('[') {
        Some(v6) => match v6.split_once(']') {
            Some((host, port)) if host.parse::<std::net::Ipv6Addr>().is_ok() => (host, port),
            _ => return false,
        },
        None => host_and_port.split_at(host_and_port.find(':').unwrap_or(host_and_port.len())),
    };
    let port_is_fine = match port.strip_prefix(':') {
        Some(digits) => digits.is_empty() || digits.parse::<u16>().is_ok(),
        None => port.is_empty(),
    };
    !host.is_empty()
        && port_is_fine
        && !host.contains(['\\', '<', '>', '"', '^', '`', '{', '|', '}'])
}

fn no_control(text: &str, allowed: impl Fn(char) -> bool) -> Result<(), TextError> {
    if text.chars().any(|c| c.is_control() && !allowed(c)) {
        Err(TextError::ControlCharacter)
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_1_to_64_characters_and_no_control_characters() {
        for good in [
            "a",
            "5ya4gbwm2c3qic8",
            "+14155550148",
            "sip:bob@example.com",
            &"ü".repeat(64),
        ] {
            assert!(Identifier::new(good.into()).is_ok(), "{good}");
        }
        for (bad, error) in [
            ("", TextError::Empty),
            (&"ü".repeat(65) as &str, TextError::TooManyChars(64)),
            (&"a".repeat(300), TextError::TooManyChars(64)),
            ("a\0", TextError::ControlCharacter),
            ("a\nb", TextError::ControlCharacter),
            ("a\u{85}b", TextError::ControlCharacter),
        ] {
            assert_eq!(PhoneNumber::new(bad.into()), Err(error), "{bad:?}");
        }
    }

    #[test]
    fn summaries_keep_newlines_and_tabs_and_end_at_64_kib() {
        assert!(Summary::new("a\n\tb".into()).is_ok());
        assert_eq!(
            Summary::new("a\rb".into()),
            Err(TextError::ControlCharacter)
        );
        assert_eq!(Summary::new("a\0".into()), Err(TextError::ControlCharacter));
        assert!(Summary::new("a".repeat(65_536)).is_ok());
        assert_eq!(
            Summary::new("a".repeat(65_537)),
            Err(TextError::TooManyBytes(65_536))
        );
    }

    #[test]
    fn urls_are_absolute_http_or_https() {
        for good in [
            "https://example.com",
            "HTTP://example.com:8080/a?b#c",
            "https://user:secret@example.com/x",
            "https://[::1]:443/x",
            "http://bücher.example/ü",
        ] {
            assert!(Url::new(good.into()).is_ok(), "{good}");
        }
        for bad in [
            "example.com",
            "/recording.mp3",
            "//example.com/x",
            "ftp://example.com/x",
            "javascript:alert(1)",
            "https://",
            "https:///x",
            "https://:80/x",
            "https://example.com:port/",
            "https://example.com:99999/",
            "https://[::g]/",
            "https://exa mple.com/",
            "https://example.com/a b",
        ] {
            assert_eq!(Url::new(bad.into()), Err(TextError::NotAnHttpUrl), "{bad}");
        }
        let long = format!("https://example.com/{}", "a".repeat(2028));
        assert!(Url::new(long.clone()).is_ok());
        assert_eq!(Url::new(long + "a"), Err(TextError::TooManyBytes(2048)));
    }

    #[test]
    fn debug_output_shows_no_content() {
        let number = PhoneNumber::new("+14155550148".into()).expect("valid");
        assert_eq!(format!("{number:?}"), "PhoneNumber(12 bytes)");
    }
}
