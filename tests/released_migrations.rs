//! Migrations are never edited after the first tag that contains them, and later ones run
//! after all of those. While nothing is tagged there is nothing to compare.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// What git prints, or `None` if it refuses.
fn git(repository: &Path, arguments: &[&str]) -> Option<String> {
    let run = Command::new("git")
        .arg("-C")
        .arg(repository)
        .args(arguments)
        .output()
        .expect("git is installed");
    let printed = || String::from_utf8(run.stdout).expect("UTF-8");
    run.status.success().then(printed)
}

/// What is wrong with the migrations, compared with those of the newest tag that the present
/// commit descends from.
fn violations(repository: &Path) -> Vec<String> {
    let Some(tag) = git(repository, &["describe", "--tags", "--abbrev=0"]) else {
        return Vec::new();
    };
    let tag = tag.trim();
    let tree = ["ls-tree", "-r", "--name-only", tag, "--", "migrations"];
    let released = git(repository, &tree).expect("the tag has a tree");
    let mut violations = Vec::new();
    for file in released.lines() {
        let then = git(repository, &["show", &format!("{tag}:{file}")]);
        if fs::read_to_string(repository.join(file)).ok() != then {
            violations.push(format!("{file} is not as it was released in {tag}"));
        }
    }
    let directory = |file: &str| file.split('/').nth(1).unwrap_or_default().to_owned();
    let released: Vec<String> = released.lines().map(directory).collect();
    for entry in fs::read_dir(repository.join("migrations")).expect("it is there") {
        let name = entry.expect("it can be read").file_name();
        let name = name.into_string().expect("UTF-8");
        if !released.contains(&name) && released.iter().any(|earlier| *earlier > name) {
            violations.push(format!(
                "{name} is new, and does not run after those of {tag}"
            ));
        }
    }
    violations.sort();
    violations
}

#[test]
fn released_migrations_are_as_they_were_released() {
    let violations = violations(Path::new(env!("CARGO_MANIFEST_DIR")));
    assert!(violations.is_empty(), "{violations:#?}");
}

/// The same in a repository that is made for it, because ours may have no tag yet.
#[test]
fn what_is_done_to_a_released_migration_is_noticed() {
    let repository = Repository::new();
    repository.write("2030-01-01-000001_one", "CREATE TABLE one ()");
    repository.write("2030-01-01-000002_two", "CREATE TABLE two ()");
    repository.commit();
    repository.write("2030-01-01-000001_one", "CREATE TABLE uno ()");
    assert_eq!(violations(&repository.0), Vec::<String>::new(), "no tag");
    repository.commit();
    git(&repository.0, &["tag", "v1.0.0"]).expect("the name is new");
    repository.write("2030-01-02-000001_three", "CREATE TABLE three ()");
    assert_eq!(violations(&repository.0), Vec::<String>::new(), "one more");

    repository.write("2030-01-01-000001_one", "CREATE TABLE eins ()");
    fs::remove_dir_all(repository.0.join("migrations/2030-01-01-000002_two")).expect("it is there");
    repository.write("2029-12-31-000001_zero", "CREATE TABLE zero ()");
    // Also when it is committed.
    repository.commit();
    let expected = [
        "2029-12-31-000001_zero is new, and does not run after those of v1.0.0",
        "migrations/2030-01-01-000001_one/up.sql is not as it was released in v1.0.0",
        "migrations/2030-01-01-000002_two/up.sql is not as it was released in v1.0.0",
    ];
    assert_eq!(violations(&repository.0), expected);
}

/// A git repository that goes when it is dropped.
struct Repository(PathBuf);

impl Repository {
    fn new() -> Self {
        let name = format!("voicecall-migrations-{}", std::process::id());
        let this = Self(std::env::temp_dir().join(name));
        fs::create_dir(&this.0).expect("the name is new");
        git(&this.0, &["init", "--quiet"]).expect("it is made");
        this
    }

    fn write(&self, migration: &str, sql: &str) {
        let directory = self.0.join("migrations").join(migration);
        fs::create_dir_all(&directory).expect("there is room");
        fs::write(directory.join("up.sql"), sql).expect("there is room");
    }

    fn commit(&self) {
        git(&self.0, &["add", "--all"]).expect("it is added");
        let author = ["-c", "user.name=Test", "-c", "user.email=test@example.com"];
        let commit = ["commit", "--quiet", "--message", "Migrations"];
        git(&self.0, &[&author[..], &commit[..]].concat()).expect("it is committed");
    }
}

impl Drop for Repository {
    fn drop(&mut self) {
        // What is left in the temporary directory harms nothing.
        let _ = fs::remove_dir_all(&self.0);
    }
}
