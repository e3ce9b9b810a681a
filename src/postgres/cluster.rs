//! The database cluster: whether there is one, and creating it. A cluster is created under a
//! temporary name, made durable, and then renamed: an interrupted start leaves nothing that a
//! later one could mistake for a cluster. `launch` has its settings, the store its tables.

use std::{
    fs, io,
    path::{Path, PathBuf},
    process::{self, Stdio},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use nix::{
    sys::signal::{Signal, killpg},
    unistd::Pid,
};
use tokio::{io::AsyncWriteExt, process::Command};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{
    Binaries, Error, USER_AND_DATABASE,
    account::Account,
    data_dir::{CLUSTER, DataDir, sync_dir},
};

/// How many characters of a failed program's output go into the error.
const OUTPUT_CHARS: usize = 2000;

/// How often to try to remove a directory that is still being written to.
const REMOVE_ATTEMPTS: u32 = 10;
const REMOVE_RETRY_DELAY: Duration = Duration::from_millis(100);

/// How long killed programs may take to end: one may be waiting for its disk.
const KILLED_TIMEOUT: Duration = Duration::from_secs(5);

/// The major version of PostgreSQL that wrote the cluster; `None` if there is no cluster.
pub(super) fn major(cluster: &Path) -> Result<Option<u32>, Error> {
    let path = cluster.join("PG_VERSION");
    let not_a_cluster = || Error::NotACluster {
        path: cluster.to_owned(),
    };
    match fs::read_to_string(&path) {
        Ok(version) => version
            .trim()
            .parse()
            .map(Some)
            .map_err(|_| not_a_cluster()),
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(Error::io("read", &path)(error))
        }
        Err(_) if is_empty_or_absent(cluster)? => Ok(None),
        Err(_) => Err(not_a_cluster()),
    }
}

fn is_empty_or_absent(dir: &Path) -> Result<bool, Error> {
    match fs::read_dir(dir) {
        Ok(mut entries) => Ok(entries.next().is_none()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
        Err(error) => Err(Error::io("list", dir)(error)),
    }
}

/// Creates the cluster, with the service's database in it.
pub(super) async fn create(
    data_dir: &DataDir,
    binaries: &Binaries,
    account: &Account,
    cancel: &CancellationToken,
) -> Result<(), Error> {
    info!(data_dir = %data_dir.path().display(), "creating a new database cluster");
    let new = data_dir.path().join(unfinished_name());
    account.private_dir(&new)?;

    run(initdb(binaries, account, &new), "", cancel).await?;
    let statement = format!("CREATE DATABASE {USER_AND_DATABASE};\n");
    run(single_user(binaries, account, &new), &statement, cancel).await?;
    run(sync(binaries, account, &new), "", cancel).await?;

    let cluster = data_dir.cluster();
    fs::rename(&new, &cluster).map_err(Error::io("move the new cluster to", &cluster))?;
    sync_dir(data_dir.path()).map_err(Error::io("make durable", data_dir.path()))
}

/// A name that no earlier start has used: a killed start may have left programs behind that
/// are still writing, and they must not write into the new cluster.
fn unfinished_name() -> String {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    format!(
        "{}{}-{}",
        unfinished_prefix(),
        process::id(),
        now.as_nanos()
    )
}

fn unfinished_prefix() -> String {
    format!("{CLUSTER}.new-")
}

/// Removes what interrupted starts left behind. A program that outlived its start may still be
/// writing there, but soon fails because files are missing. What cannot be removed only takes
/// up space, and the next start tries again.
pub(super) async fn remove_unfinished(data_dir: &Path) {
    let prefix = unfinished_prefix();
    let left: Vec<PathBuf> = fs::read_dir(data_dir)
        .into_iter()
        .flatten()
        .flatten()
        .filter(|entry| entry.file_name().to_string_lossy().starts_with(&prefix))
        .map(|entry| entry.path())
        .collect();
    for path in left {
        warn!(path = %path.display(), "removing what an interrupted first start left behind");
        if let Err(error) = remove_while_written(&path).await {
            warn!(path = %path.display(), %error, "cannot remove it; it only takes up space");
        }
    }
}

async fn remove_while_written(dir: &Path) -> io::Result<()> {
    for _ in 1..REMOVE_ATTEMPTS {
        match tokio::fs::remove_dir_all(dir).await {
            Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => {
                tokio::time::sleep(REMOVE_RETRY_DELAY).await;
            }
            outcome => return outcome,
        }
    }
    tokio::fs::remove_dir_all(dir).await
}

/// `trust` is safe, because only the account and root can enter the socket's directory.
fn initdb(binaries: &Binaries, account: &Account, cluster: &Path) -> Command {
    let mut command = account.command(&binaries.initdb());
    command.arg("-D").arg(cluster);
    command.arg(format!("--username={USER_AND_DATABASE}"));
    command.args([
        "--encoding=UTF8",
        "--locale=C",
        "--data-checksums",
        "--auth-local=trust",
        "--auth-host=reject",
        "--no-instructions",
        // Nothing has to be durable before the rename; `sync` does it once, at the end.
        "--no-sync",
    ]);
    command
}

fn single_user(binaries: &Binaries, account: &Account, cluster: &Path) -> Command {
    let mut command = account.command(&binaries.postgres());
    command.arg("--single").arg("-D").arg(cluster);
    // Without exit_on_error a failed statement would count as a success.
    command.args(["-c", "exit_on_error=on", "-c", "fsync=off", "postgres"]);
    command
}

fn sync(binaries: &Binaries, account: &Account, cluster: &Path) -> Command {
    let mut command = account.command(&binaries.initdb());
    command.arg("--sync-only").arg("-D").arg(cluster);
    command
}

/// Runs a program to its end. If `cancel` is cancelled first, kills it and everything that it
/// has started.
async fn run(mut command: Command, input: &str, cancel: &CancellationToken) -> Result<(), Error> {
    let program = PathBuf::from(command.as_std().get_program());
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(Error::io("run", &program))?;
    // The program leads a process group of its own, see `Account::command`.
    let group = child.id().and_then(|id| i32::try_from(id).ok());
    let ended = async {
        if let Some(mut stdin) = child.stdin.take() {
            // If the program has ended early, its output says why.
            let _ = stdin.write_all(input.as_bytes()).await;
        }
        child.wait_with_output().await
    };
    tokio::pin!(ended);
    let output = tokio::select! {
        () = cancel.cancelled() => {
            if let Some(group) = group {
                // Fails if the program has ended meanwhile.
                let _ = killpg(Pid::from_raw(group), Signal::SIGKILL);
            }
            // The output ends when the last process of the group has ended.
            let _ = tokio::time::timeout(KILLED_TIMEOUT, ended).await;
            return Err(Error::Cancelled);
        }
        output = &mut ended => output.map_err(Error::io("wait for", &program))?,
    };
    if output.status.success() {
        return Ok(());
    }
    Err(Error::Create {
        program: program.display().to_string(),
        status: output.status.to_string(),
        output: end_of(&output.stdout, &output.stderr),
    })
}

fn end_of(stdout: &[u8], stderr: &[u8]) -> String {
    let output = [stdout, b" ".as_slice(), stderr].concat();
    let output = String::from_utf8_lossy(&output);
    let words: Vec<&str> = output.split_whitespace().collect();
    let output = words.join(" ");
    let skip = output.chars().count().saturating_sub(OUTPUT_CHARS);
    output.chars().skip(skip).collect()
}
