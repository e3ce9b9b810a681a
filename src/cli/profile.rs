//! Profiles: how to reach several services, by name, in a TOML file.
//!
//! ```toml
//! [profile.prod]
//! endpoint = "https://calls.example.com"
//! ca_cert = "ca.pem"
//! token_command = "vault read -field=token calls/token"
//! ```
//!
//! It contains no secrets, so that it can be shared. Paths are relative to its directory.

use std::{
    collections::BTreeMap,
    env, fs,
    ops::Range,
    path::{Path, PathBuf},
};

use serde::Deserialize;
use toml::{Spanned, Value};

use super::{
    command_line::{self, CommandLine},
    failure::Failure,
};

const KEYS: &str = "endpoint, ca_cert, client_cert, client_key, server_name, token_file and \
                    token_command";

/// How to reach a service.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Profile {
    pub(super) endpoint: Option<String>,
    pub(super) ca_cert: Option<PathBuf>,
    /// The client certificate and its key.
    pub(super) identity: Option<(PathBuf, PathBuf)>,
    pub(super) server_name: Option<String>,
    pub(super) token: Option<Token>,
}

/// Where the token is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Token {
    File(PathBuf),
    Command(CommandLine),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    profile: BTreeMap<String, Spanned<Table>>,
}

type Table = BTreeMap<Spanned<String>, Spanned<Value>>;

/// What is wrong, and where.
struct Mistake(Range<usize>, String);

/// Reads a profile from this file, or from where it is by default.
pub(super) fn load(name: &str, path: Option<&Path>) -> Result<Profile, Failure> {
    let path = match path {
        Some(path) => path.to_owned(),
        None => default_path().ok_or_else(|| {
            Failure::Usage("no configuration file: neither --config nor HOME is set".to_owned())
        })?,
    };
    let text = fs::read_to_string(&path)
        .map_err(|error| Failure::File(format!("cannot read {}: {error}", path.display())))?;
    let dir = path.parent().unwrap_or(Path::new(""));
    let mut profiles = parse(&text, dir).map_err(|Mistake(at, what)| {
        let (line, column) = position(&text, at.start);
        let path = path.display();
        Failure::Usage(format!(
            "{path} has an error at line {line}, column {column}: {what}"
        ))
    })?;
    profiles.remove(name).ok_or_else(|| {
        let names: Vec<_> = profiles.into_keys().collect();
        let known = match names.is_empty() {
            true => "no profiles".to_owned(),
            false => names.join(", "),
        };
        let path = path.display();
        Failure::Usage(format!("there is no profile {name:?}: {path} has {known}"))
    })
}

/// `$XDG_CONFIG_HOME/voicecall/config.toml`, or `~/.config/voicecall/config.toml`.
fn default_path() -> Option<PathBuf> {
    let directory = |name| env::var_os(name).map(PathBuf::from);
    // Relative paths are to be ignored, says the specification.
    let config = directory("XDG_CONFIG_HOME").filter(|path| path.is_absolute());
    let home = || directory("HOME").filter(|path| path.is_absolute());
    let config = config.or_else(|| Some(home()?.join(".config")))?;
    Some(config.join("voicecall/config.toml"))
}

fn parse(text: &str, dir: &Path) -> Result<BTreeMap<String, Profile>, Mistake> {
    let file: File = toml::from_str(text).map_err(|error| {
        // The rest would repeat what stands there, which may be a secret.
        let what = error.message().lines().next().unwrap_or_default();
        let what = match what.split_once(':') {
            Some(("invalid type", _)) => "[profile.NAME] must be a table of keys",
            _ => what,
        };
        Mistake(error.span().unwrap_or_default(), what.to_owned())
    })?;
    let profiles = file.profile.into_iter();
    profiles
        .map(|(name, table)| Ok((name, profile(table, dir)?)))
        .collect()
}

fn profile(table: Spanned<Table>, dir: &Path) -> Result<Profile, Mistake> {
    let table_at = table.span();
    let mut profile = Profile::default();
    let (mut certificate, mut key) = (None, None);
    for (name, value) in table.into_inner() {
        let name_at = name.span();
        let mistake = |what: String| Err(Mistake(name_at.clone(), what));
        let name = name.into_inner();
        if name == "token" {
            return mistake(
                "this file must not contain secrets: use token_file or token_command instead"
                    .to_owned(),
            );
        }
        let value_at = value.span();
        let Value::String(text) = value.into_inner() else {
            return match is_key(&name) {
                true => Err(Mistake(value_at, format!("{name} must be a string"))),
                false => mistake(unknown(&name)),
            };
        };
        match name.as_str() {
            "endpoint" => profile.endpoint = Some(text),
            "ca_cert" => profile.ca_cert = Some(dir.join(text)),
            "client_cert" => certificate = Some(dir.join(text)),
            "client_key" => key = Some(dir.join(text)),
            "server_name" => profile.server_name = Some(text),
            "token_file" | "token_command" if profile.token.is_some() => {
                return mistake(
                    "a profile may have only one of token_file and token_command".to_owned(),
                );
            }
            "token_file" => profile.token = Some(Token::File(dir.join(text))),
            "token_command" => match command_line::parse(&text) {
                Ok(line) => profile.token = Some(Token::Command(line)),
                Err(what) => return Err(Mistake(value_at, format!("token_command: {what}"))),
            },
            _ => return mistake(unknown(&name)),
        }
    }
    if certificate.is_some() != key.is_some() {
        let what = "client_cert and client_key belong together";
        return Err(Mistake(table_at, what.to_owned()));
    }
    profile.identity = certificate.zip(key);
    Ok(profile)
}

fn is_key(name: &str) -> bool {
    KEYS.split([',', ' '])
        .any(|key| key == name && key != "and")
}

fn unknown(name: &str) -> String {
    format!("there is no key {name}: the keys are {KEYS}")
}

/// Line and column, both from 1.
fn position(text: &str, at: usize) -> (usize, usize) {
    let before = text.get(..at).unwrap_or(text);
    let line = before.rsplit('\n').next().unwrap_or_default();
    (before.matches('\n').count() + 1, line.chars().count() + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_relative_to_the_directory_of_the_profiles() {
        let text = "[profile.a]\nendpoint = \"https://a\"\nca_cert = \"ca.pem\"\n\
                    client_cert = \"/etc/a.pem\"\nclient_key = \"a.key\"\nserver_name = \"b\"\n\
                    token_file = \"../token\"\n[profile.b]\ntoken_command = \"sh -c 'echo a'\"\n";
        let mut profiles = parse(text, Path::new("/c/d")).ok().expect("it is good");
        let command = command_line::parse("sh -c 'echo a'").expect("it is good");
        assert_eq!(
            profiles.remove("b"),
            Some(Profile {
                token: Some(Token::Command(command)),
                ..Profile::default()
            })
        );
        assert_eq!(
            profiles.remove("a"),
            Some(Profile {
                endpoint: Some("https://a".into()),
                ca_cert: Some("/c/d/ca.pem".into()),
                identity: Some(("/etc/a.pem".into(), "/c/d/a.key".into())),
                server_name: Some("b".into()),
                token: Some(Token::File("/c/d/../token".into())),
            })
        );
    }

    #[test]
    fn what_is_wrong_is_named_with_its_place() {
        for (text, place, what) in [
            ("a = 1", (1, 1), "unknown field"),
            ("[profile.a]\ncolour = 1", (2, 1), "no key colour"),
            ("[profile.a]\n\n  colour = \"a\"", (3, 3), "no key colour"),
            (
                "[profile.a]\ntoken = \"hunter2\"",
                (2, 1),
                "must not contain secrets",
            ),
            (
                "[profile.a]\nendpoint = 1",
                (2, 12),
                "endpoint must be a string",
            ),
            ("[profile.a]\nclient_key = \"a\"", (1, 1), "belong together"),
            (
                "[profile.a]\ntoken_file = \"a\"\ntoken_command = \"b\"",
                (2, 1),
                "only one of",
            ),
            (
                "[profile.a]\ntoken_command = \"a 'b\"",
                (2, 17),
                "closing ' is missing",
            ),
            ("[profile.a]\nendpoint = ", (2, 12), ""),
            ("profile = 1", (1, 11), "must be a table"),
            ("[profile]\ntoken = \"hunter2\"", (2, 9), "must be a table"),
        ] {
            let Err(Mistake(at, found)) = parse(text, Path::new("")) else {
                panic!("{text} is accepted");
            };
            assert_eq!(position(text, at.start), place, "{text}: {found}");
            assert!(found.contains(what), "{text}: {found}");
            assert!(!found.contains("hunter2"), "{found}");
        }
    }
}
