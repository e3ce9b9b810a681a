//! `domain <- store <- feed <- api <- server <- the program`: no file names a
//! layer above its own, and each outside world has one home.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// From the bottom up. What is neither in one of these directories nor beside or
/// outside is the program, which may name everything.
const LAYERS: [&str; 5] = ["domain", "store", "feed", "api", "server"];

/// Beside the layers: knows none of them.
const BESIDE: &str = "postgres";

/// The wire contract: knows none of the layers; the API and the clients know it, and the
/// server its name.
const CONTRACT: &str = "proto";

/// Outside the layers: who is calling, and the library and the command line by which others
/// reach the service. What each of them names; of the API its messages alone, and of the layers the
/// domain.
const OUTSIDE: [(&str, &[&str]); 4] = [
    ("reload", &["reload"]),
    ("auth", &["auth", "domain", "reload"]),
    ("client", &["client", CONTRACT]),
    ("cli", &["cli", "client", CONTRACT, "domain"]),
];

/// What layers name of what is outside.
const INSIDE: [(&str, &[&str]); 2] = [("api", &["auth"]), ("server", &["auth", "reload"])];

/// Crates that only some layers name, each beginning with this word.
const HOMES: [(&str, &[&str]); 9] = [
    ("diesel", &["store"]),
    ("tokio_postgres", &["store"]),
    ("prost", &[CONTRACT, "api", "client"]),
    ("tonic", &[CONTRACT, "api", "client"]),
    ("hyper", &["server", "auth"]),
    ("jsonwebtoken", &["auth"]),
    ("x509_cert", &["auth"]),
    ("clap", &["cli"]),
    ("nix", &[BESIDE]),
];

/// What layers name of a crate whose home is elsewhere: the server serves the
/// API's bodies and tells its health, and the command line reads times.
const EXCEPTIONS: [(&str, &str); 3] = [
    ("cli", "prost_types"),
    ("server", "tonic::body::Body"),
    ("server", "tonic_health"),
];

/// Where statements are run, and where the driver's own migrations are.
const SESSION: &str = "store/database/session.rs";
const MIGRATIONS: &str = "store/database/migrations.rs";

/// All that the domain names besides the standard library.
const DOMAIN_NAMES: [&str; 2] = ["thiserror", "uuid"];

/// A source file: the layer it is in, and its code.
struct Source {
    path: PathBuf,
    layer: String,
    code: String,
}

/// Every file of `src`.
fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut dirs = vec![root.clone()];
    let mut sources = Vec::new();
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(dir).expect("it can be read") {
            let path = entry.expect("it can be read").path();
            if path.is_dir() {
                dirs.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let inner = path.strip_prefix(&root).expect("it is in there");
                let first = inner.iter().next().and_then(|name| name.to_str());
                let layer = first.unwrap_or_default().trim_end_matches(".rs").to_owned();
                let text = fs::read_to_string(&path).expect("it is text");
                sources.push(Source {
                    layer,
                    code: code_of(&text),
                    path,
                });
            }
        }
    }
    sources
}

/// The text without comments.
fn code_of(text: &str) -> String {
    let lines = text.lines().map(|line| {
        let comment = line.find("//").filter(|at| !line[..*at].ends_with(':'));
        &line[..comment.unwrap_or(line.len())]
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// The names that follow directly on `prefix` in a path or in the braces of a
/// `use`.
fn names_after<'a>(code: &'a str, prefix: &str) -> Vec<&'a str> {
    let mut names = Vec::new();
    for (at, _) in code.match_indices(prefix) {
        let rest = &code[at + prefix.len()..];
        let Some(group) = rest.strip_prefix('{') else {
            names.push(first_name(rest));
            continue;
        };
        let mut depth = 1;
        let mut item_begins = true;
        for (place, c) in group.char_indices() {
            match c {
                '{' => depth += 1,
                '}' => depth -= 1,
                ',' if depth == 1 => item_begins = true,
                _ if c.is_whitespace() => {}
                _ if item_begins => {
                    names.push(first_name(&group[place..]));
                    item_begins = false;
                }
                _ => {}
            }
            if depth == 0 {
                break;
            }
        }
    }
    names
}

fn first_name(code: &str) -> &str {
    let end = code.find(|c: char| !c.is_alphanumeric() && c != '_');
    &code[..end.unwrap_or(code.len())]
}

/// The crates (and modules in scope) that begin a path in this code, with the
/// path itself.
fn roots(code: &str) -> Vec<(&str, &str)> {
    let mut roots = Vec::new();
    for (at, _) in code.match_indices("::") {
        let before = &code[..at];
        let start = before
            .rfind(|c: char| !c.is_alphanumeric() && c != '_')
            .map_or(0, |place| place + 1);
        let follows_a_path = before[..start].ends_with("::");
        if start < at && !follows_a_path {
            let path_end = code[start..]
                .find(|c: char| !c.is_alphanumeric() && c != '_' && c != ':')
                .map_or(code.len(), |len| start + len);
            roots.push((&code[start..at], &code[start..path_end]));
        }
    }
    roots
}

#[test]
fn no_layer_names_a_higher_one() {
    let mut wrong = Vec::new();
    for source in sources() {
        let rank = LAYERS.iter().position(|layer| *layer == source.layer);
        let above_contract = LAYERS.iter().position(|layer| *layer == "api");
        let layers: Vec<&str>;
        let allowed: &[&str] = match rank {
            Some(rank) if rank >= above_contract.unwrap_or_default() => {
                let inside = INSIDE.iter().find(|(layer, _)| *layer == source.layer);
                let inside = inside.map_or(&[][..], |(_, allowed)| *allowed);
                layers = [&LAYERS[..=rank], &[CONTRACT], inside].concat();
                &layers
            }
            Some(rank) => &LAYERS[..=rank],
            None if source.layer == CONTRACT => &[CONTRACT],
            None if source.layer == BESIDE => &[BESIDE],
            None => match outside(&source) {
                Some(allowed) => allowed,
                None => continue,
            },
        };
        let prefixes = ["crate::", "voicecall::"];
        for name in prefixes
            .iter()
            .flat_map(|prefix| names_after(&source.code, prefix))
        {
            if !allowed.contains(&name) {
                wrong.push(format!("{} names crate::{name}", source.path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// What a file outside the layers may name.
fn outside(source: &Source) -> Option<&'static [&'static str]> {
    let found = OUTSIDE.iter().find(|(name, _)| *name == source.layer);
    found.map(|(_, allowed)| *allowed)
}

#[test]
fn every_outside_world_has_one_home() {
    let mut wrong = Vec::new();
    for source in sources() {
        for (root, path) in roots(&source.code) {
            for (word, homes) in HOMES {
                let is_meant = root
                    .strip_prefix(word)
                    .is_some_and(|rest| rest.is_empty() || rest.starts_with('_'));
                let is_layer = LAYERS.contains(&source.layer.as_str())
                    || source.layer == BESIDE
                    || outside(&source).is_some();
                let is_exception = EXCEPTIONS
                    .iter()
                    .any(|(layer, allowed)| source.layer == *layer && path.starts_with(allowed));
                if is_meant && is_layer && !homes.contains(&source.layer.as_str()) && !is_exception
                {
                    wrong.push(format!("{} names {path}", source.path.display()));
                }
            }
        }
    }
    wrong.sort();
    wrong.dedup();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// Statements are read to their end by one module, so that an error at the commit is seen.
#[test]
fn the_driver_has_one_home() {
    let mut wrong = Vec::new();
    for source in sources() {
        let is_home = source.path.ends_with(SESSION) || source.path.ends_with(MIGRATIONS);
        for (root, path) in roots(&source.code) {
            let is_meant = root == "diesel_async" || path.contains("RunQueryDsl");
            if is_meant && !is_home {
                wrong.push(format!("{} names {path}", source.path.display()));
            }
        }
        for shortcut in [".get_result(", ".first(", ".load_stream("] {
            if source.path.ends_with(SESSION) && source.code.contains(shortcut) {
                wrong.push(format!("{} calls {shortcut}", source.path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn the_domain_is_pure() {
    let mut wrong = Vec::new();
    for source in sources()
        .into_iter()
        .filter(|source| source.layer == "domain")
    {
        for line in source.code.lines() {
            let Some(path) = line
                .trim_start()
                .trim_start_matches("pub ")
                .strip_prefix("use ")
            else {
                continue;
            };
            let name = first_name(path);
            let is_ours = ["super", "self", "crate", "std"].contains(&name) || {
                // A module of the domain, re-exported.
                source.path.ends_with("domain/mod.rs")
                    && source.code.contains(&format!("mod {name};"))
            };
            if !is_ours && !DOMAIN_NAMES.contains(&name) {
                wrong.push(format!("{} uses {name}", source.path.display()));
            }
        }
        for world in [
            "tokio",
            "std::fs",
            "std::io",
            "std::process",
            "std::env",
            "SystemTime",
            "Instant",
            "thread",
        ] {
            if source.code.contains(&format!("{world}::"))
                || source.code.contains(&format!("use {world}"))
            {
                wrong.push(format!("{} names {world}", source.path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn what_is_not_a_layer_is_known() {
    let program = ["main", "lib", "commands", "config"];
    for source in sources() {
        let layer = source.layer.as_str();
        let known = LAYERS.contains(&layer)
            || layer == BESIDE
            || layer == CONTRACT
            || outside(&source).is_some()
            || program.contains(&layer);
        assert!(known, "{} is in no layer", source.path.display());
    }
}

/// A Rust service that wants the client alone compiles nothing of the server.
#[test]
fn the_client_compiles_neither_server_nor_database_nor_command_line() {
    let tree = Command::new(env!("CARGO"))
        .args([
            "tree",
            "--locked",
            "--offline",
            "--edges",
            "normal",
            "--prefix",
            "none",
        ])
        .args(["--manifest-path", "examples/rust/Cargo.toml"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo runs");
    let tree = String::from_utf8_lossy(&tree.stdout);
    assert!(tree.contains("voicecall v"), "{tree}");
    for heavy in [
        "diesel",
        "tokio-postgres",
        "clap",
        "tonic-reflection",
        "tracing-subscriber",
    ] {
        let found = tree.lines().find(|line| line.starts_with(heavy));
        assert_eq!(found, None, "the client brings {heavy}");
    }
}
