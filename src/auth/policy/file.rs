//! What a policy file looks like: TOML, one table for each principal.
//!
//! ```toml
//! [[principal]]
//! name = "billing"
//! scopes = ["calls:read", "calls:write"]
//! token_sha256 = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
//! expires_at = 2027-03-01T00:00:00Z
//!
//! [[principal]]
//! name = "telephony"
//! scopes = ["calls:write"]
//! certificate_uri = "spiffe://prod.example.com/ns/telephony/sa/*"
//!
//! [[principal]]
//! name = "dashboard-of-amy"
//! scopes = ["calls:read"]
//! staff_uid = "5ya4gbwm2c3qic8"
//! unassigned = true
//! client_uid = "kk3vmw0b1d"
//! limits = { requests = 64, watches = 10, transfers = 2, rate = 100, burst = 200 }
//! token_sha256 = "b5bb9d8014a0f9b1d61e21e796d78dccdf1352f23cd32812f4850b878ae4944c"
//! expires_at = 2027-03-01T00:00:00Z
//! ```
//!
//! Errors name the line and the column, and repeat nothing of the file but names: a token may
//! stand in it by mistake.

use std::{
    collections::HashSet,
    ops::Range,
    time::{Duration, SystemTime},
};

use data_encoding::HEXLOWER_PERMISSIVE;
use serde::Deserialize;
use toml::{Spanned, value::Datetime};

use super::{
    Credential, TOKEN_PREFIX, Written,
    pattern::{Kind, Pattern},
    rights,
};
use crate::auth::principal::{Rights, is_name};

const MAX_NAME_BYTES: usize = 128;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    principal: Vec<Spanned<Table>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    name: Spanned<String>,
    scopes: Vec<Spanned<String>>,
    staff_uid: Option<Spanned<String>>,
    unassigned: Option<Spanned<bool>>,
    client_uid: Option<Spanned<String>>,
    limits: Option<rights::LimitsTable>,
    token_sha256: Option<Spanned<String>>,
    expires_at: Option<Spanned<Datetime>>,
    certificate_uri: Option<Spanned<String>>,
    certificate_dns_name: Option<Spanned<String>>,
    certificate_common_name: Option<Spanned<String>>,
}

/// What is wrong, and where.
pub(super) struct Mistake(Range<usize>, String);

pub(super) fn mistake<T>(at: Range<usize>, what: impl Into<String>) -> Result<T, Mistake> {
    Err(Mistake(at, what.into()))
}

/// The principals of a policy file.
pub(super) fn parse(bytes: &[u8]) -> Result<Vec<Written>, String> {
    let text = std::str::from_utf8(bytes).map_err(|_| "the policy file is not UTF-8".to_owned())?;
    read(text).map_err(|Mistake(at, what)| {
        let (line, column) = position(text, at.start);
        format!("the policy file has an error at line {line}, column {column}: {what}")
    })
}

fn read(text: &str) -> Result<Vec<Written>, Mistake> {
    let file: File = toml::from_str(text).map_err(|error| {
        // The first line says what is wrong; those that follow would show the file.
        let message = error.message().lines().next().unwrap_or_default();
        let message = match message.contains(TOKEN_PREFIX) {
            true => "a token does not belong here, only its SHA-256",
            false => message,
        };
        Mistake(error.span().unwrap_or_default(), message.to_owned())
    })?;
    let mut names = HashSet::new();
    let mut digests = HashSet::new();
    let mut principals = Vec::new();
    for table in file.principal {
        let at = table.span();
        let table = table.into_inner();
        let name_at = table.name.span();
        let written = table.read(at)?;
        if !names.insert(written.name.clone()) {
            return mistake(name_at, "another principal has the same name");
        }
        if let Credential::Token { sha256, .. } = &written.credential
            && !digests.insert(*sha256)
        {
            return mistake(name_at, "another principal has the same token");
        }
        principals.push(written);
    }
    Ok(principals)
}

impl Table {
    fn read(self, at: Range<usize>) -> Result<Written, Mistake> {
        let name_at = self.name.span();
        let name = self.name.into_inner();
        if !is_name(&name, MAX_NAME_BYTES) {
            return mistake(
                name_at,
                "a name must have 1 to 128 bytes and no control characters",
            );
        }
        let rights = Rights {
            scopes: rights::scopes(&self.scopes)?,
            narrowing: rights::narrowing(self.staff_uid, self.unassigned, self.client_uid)?,
            limits: rights::limits(self.limits)?,
        };
        let certificates = [
            (Kind::Uri, self.certificate_uri),
            (Kind::DnsName, self.certificate_dns_name),
            (Kind::CommonName, self.certificate_common_name),
        ];
        let mut patterns = certificates
            .into_iter()
            .filter_map(|(kind, text)| Some((kind, text?)));
        let credential = match (self.token_sha256, patterns.next(), patterns.next()) {
            (Some(digest), None, None) => token(&digest, self.expires_at, at)?,
            (None, Some((kind, text)), None) => {
                if let Some(expires_at) = self.expires_at {
                    return mistake(expires_at.span(), "certificates have their own expiry");
                }
                if text.get_ref().is_empty() {
                    return mistake(text.span(), "an empty pattern matches nothing");
                }
                Credential::Certificate(Pattern::new(kind, text.get_ref()))
            }
            _ => {
                return mistake(
                    at,
                    "a principal has one of token_sha256, certificate_uri, certificate_dns_name \
                     and certificate_common_name",
                );
            }
        };
        Ok(Written {
            name,
            rights,
            credential,
        })
    }
}

fn token(
    digest: &Spanned<String>,
    expires_at: Option<Spanned<Datetime>>,
    at: Range<usize>,
) -> Result<Credential, Mistake> {
    let decoded = HEXLOWER_PERMISSIVE.decode(digest.get_ref().as_bytes());
    let sha256 = decoded.ok().and_then(|bytes| bytes.try_into().ok());
    let Some(sha256) = sha256 else {
        return mistake(
            digest.span(),
            "token_sha256 must be the SHA-256 of a token in 64 hexadecimal digits",
        );
    };
    let Some(expires_at) = expires_at else {
        return mistake(at, "a token needs expires_at");
    };
    let time: Option<jiff::Timestamp> = expires_at.get_ref().to_string().parse().ok();
    match time.and_then(|time| u64::try_from(time.as_second()).ok()) {
        Some(seconds) => Ok(Credential::Token {
            sha256,
            expires_at: SystemTime::UNIX_EPOCH + Duration::from_secs(seconds),
        }),
        None => mistake(
            expires_at.span(),
            "expires_at must be a date and a time with an offset, such as 2027-03-01T00:00:00Z",
        ),
    }
}

/// Line and column, both from 1.
fn position(text: &str, at: usize) -> (usize, usize) {
    let before = text.get(..at).unwrap_or(text);
    let line = before.matches('\n').count() + 1;
    let column = before
        .rsplit('\n')
        .next()
        .unwrap_or_default()
        .chars()
        .count()
        + 1;
    (line, column)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::Scope;

    const DIGEST: &str = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";

    fn table(lines: &str) -> String {
        format!("[[principal]]\nname = \"a\"\nscopes = [\"calls:read\"]\n{lines}")
    }

    #[test]
    fn a_principal_has_a_token_or_a_certificate() {
        let text = format!(
            "{}\n{}",
            table(&format!(
                "token_sha256 = \"{DIGEST}\"\nexpires_at = 2027-03-01T00:00:00Z"
            )),
            table("certificate_uri = \"spiffe://a/*\"").replace("\"a\"", "\"b\""),
        );
        let written = parse(text.as_bytes()).expect("it is good");
        assert_eq!(written.len(), 2);
        assert_eq!(written[1].name, "b");
        let scopes = written[0].rights.scopes;
        assert!(scopes.has(Scope::Read) && !scopes.has(Scope::Write));
        assert!(parse(b"").expect("it is good").is_empty());
    }

    #[test]
    fn an_entry_may_have_limits_of_its_own() {
        let limits = |lines: &str| {
            let text = table(&format!("{lines}\ncertificate_uri = \"spiffe://a\"\n"));
            parse(text.as_bytes()).expect("it is good")[0].rights.limits
        };
        assert!(limits("").is_empty());
        assert!(limits("limits = {}").is_empty());
        let all = "requests = 64, watches = 10, transfers = 2, rate = 100, burst = 200";
        assert_eq!(
            limits(&format!("limits = {{ {all} }}")).to_string(),
            "64 requests in progress, 10 watches, 2 transfers, 100 requests a second (200 at once \
             after a pause)"
        );
        let rate = limits("limits = { rate = 100 }");
        assert_eq!(
            rate.to_string(),
            "100 requests a second (100 at once after a pause)"
        );
    }

    #[test]
    #[expect(
        clippy::too_many_lines,
        reason = "a table of cases is as long as it has cases"
    )]
    fn what_is_wrong_is_named_with_its_place() {
        let token = format!("token_sha256 = \"{DIGEST}\"\n");
        let expiry = "expires_at = 2027-03-01T00:00:00Z\n";
        for (text, place, what) in [
            (
                "principals = 1".to_owned(),
                "line 1, column 1",
                "unknown field",
            ),
            (table("colour = 1"), "line 4, column 1", "unknown field"),
            (table(""), "line 1, column 1", "one of token_sha256"),
            (table(&token), "line 1, column 1", "needs expires_at"),
            (
                table("token_sha256 = \"abc\"\n"),
                "line 4, column 16",
                "64 hexadecimal",
            ),
            (
                table(&format!("{token}expires_at = 2027-03-01\n")),
                "line 5, column 14",
                "offset",
            ),
            (
                table(&format!("{token}{expiry}certificate_uri = \"a\"\n")),
                "line 1, column 1",
                "one of",
            ),
            (
                table("certificate_uri = \"\"\n"),
                "line 4, column 19",
                "empty",
            ),
            (
                table(&format!("certificate_uri = \"a\"\n{expiry}")),
                "line 5, column 14",
                "own expiry",
            ),
            (
                "[[principal]]\nname = 1".to_owned(),
                "line 2, column 8",
                "expected a string",
            ),
            (
                "[[principal]]\nname = \"\"\nscopes = []\n".to_owned(),
                "line 2, column 8",
                "1 to 128",
            ),
            (
                "[[principal]]\nname = \"a\"\nscopes = [\"x\"]\n".to_owned(),
                "line 3, column 11",
                "calls:read",
            ),
            (
                format!("{0}{0}", table(&format!("{token}{expiry}"))),
                "line 7, column 8",
                "same name",
            ),
            (
                table("staff_uid = \"\"\ncertificate_uri = \"a\"\n"),
                "line 4, column 13",
                "staff_uid must not be empty",
            ),
            (
                table("client_uid = \"a\\nb\"\ncertificate_uri = \"a\"\n"),
                "line 4, column 14",
                "client_uid must not contain control",
            ),
            (
                table("client_uid = 7\n"),
                "line 4, column 14",
                "expected a string",
            ),
            (
                table("staff_uid = \"a\"\nunassigned = \"yes\"\n"),
                "line 5, column 14",
                "expected a boolean",
            ),
            (
                table("client_uid = \"a\"\nunassigned = false\n"),
                "line 5, column 14",
                "needs staff_uid",
            ),
            (
                table("limits = { watches = 0 }\n"),
                "line 4, column 22",
                "watches must be from 1 to 4294967295",
            ),
            (
                table("limits = { rate = -1 }\n"),
                "line 4, column 19",
                "rate must be from 1",
            ),
            (
                table("limits = { requests = 4294967296 }\n"),
                "line 4, column 23",
                "requests must be from 1",
            ),
            (
                table("limits = { transfers = 1.5 }\n"),
                "line 4, column 24",
                "expected i64",
            ),
            (
                table("limits = { watches = 1, burst = 10 }\n"),
                "line 4, column 33",
                "burst needs rate",
            ),
            (
                table("limits = { connections = 1 }\n"),
                "line 4, column 12",
                "unknown field",
            ),
            (
                table("limits = 1\n"),
                "line 4, column 10",
                "expected a table of limits",
            ),
            ("= 1".to_owned(), "line 1, column 1", ""),
        ] {
            let error = parse(text.as_bytes()).expect_err("it is wrong");
            assert!(
                error.contains(place) && error.contains(what),
                "{text}\n{error}"
            );
        }
    }

    #[test]
    fn nothing_of_the_file_is_repeated() {
        for text in [
            "[[principal]]\nname = \"a\"\ntoken_sha256 = vct_secret",
            "[[principal]]\nvct_secret = \"a\"",
        ] {
            let error = parse(text.as_bytes()).expect_err("it is wrong");
            assert!(!error.contains("secret"), "{error}");
        }
    }
}
