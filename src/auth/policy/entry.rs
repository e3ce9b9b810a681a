//! Writes an entry of the policy file.

use std::{
    fmt::{Display, Write},
    time::SystemTime,
};

use data_encoding::HEXLOWER;

use crate::{
    auth::{Scope, Scopes},
    domain::Narrowing,
};

/// The entry of a principal with a token.
pub(super) fn of_token(
    name: &str,
    scopes: Scopes,
    narrowing: Option<&Narrowing>,
    sha256: &[u8],
    expires_at: SystemTime,
) -> String {
    let scopes = Scope::ALL.into_iter().filter(|scope| scopes.has(*scope));
    let scopes: Vec<_> = scopes
        .map(|scope| format!("\"{}\"", scope.name()))
        .collect();
    let expires_at = jiff::Timestamp::try_from(expires_at).unwrap_or(jiff::Timestamp::MAX);
    format!(
        "[[principal]]\nname = {}\nscopes = [{}]\n{}token_sha256 = \"{}\"\nexpires_at = {expires_at:.0}\n",
        text(name),
        scopes.join(", "),
        narrowing.map(lines).unwrap_or_default(),
        HEXLOWER.encode(sha256),
    )
}

/// The lines of an entry that narrow it.
fn lines(narrowing: &Narrowing) -> String {
    let mut lines = String::new();
    let mut add = |key: &str, value: &dyn Display| {
        // A String takes everything.
        let _ = writeln!(lines, "{key} = {value}");
    };
    if let Some(staff) = narrowing.staff() {
        add("staff_uid", &text(staff.staff_uid.as_str()));
        if staff.unassigned {
            add("unassigned", &true);
        }
    }
    if let Some(client_uid) = narrowing.client_uid() {
        add("client_uid", &text(client_uid.as_str()));
    }
    lines
}

/// A string of JSON is one of TOML.
fn text(value: &str) -> serde_json::Value {
    serde_json::Value::from(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        auth::policy::file,
        domain::{Identifier, StaffNarrowing},
    };

    #[test]
    fn an_entry_is_read_as_it_was_written() {
        let uid = |uid: &str| Identifier::new(uid.into()).expect("it is good");
        for (staff_uid, unassigned, client_uid) in [
            (None, false, None),
            (Some("s"), false, None),
            (Some("s"), true, None),
            (None, false, Some("\"c\"")),
            (Some("s"), true, Some("c")),
        ] {
            let staff = staff_uid.map(|staff_uid| StaffNarrowing {
                staff_uid: uid(staff_uid),
                unassigned,
            });
            let narrowing = Narrowing::new(staff, client_uid.map(uid));
            let scopes = [Scope::Read].into_iter().collect();
            let entry = of_token(
                "a \"b\"",
                scopes,
                narrowing.as_ref(),
                &[7; 32],
                SystemTime::UNIX_EPOCH,
            );
            let written = file::parse(entry.as_bytes()).expect("it is good");
            assert_eq!(written[0].name, "a \"b\"");
            assert_eq!(written[0].rights.scopes, scopes);
            assert_eq!(written[0].rights.narrowing.as_deref(), narrowing.as_ref());
        }
    }
}
