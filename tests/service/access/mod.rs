//! Who may connect and call: addresses, the end of credentials, and rotation under load. The
//! credentials themselves are in `interop`, by the official Python client.

mod addresses;
mod ends;
mod rotation;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use tonic::{Request, metadata::MetadataValue};
use voicecall::auth::{
    Scope,
    jwt::issue::{Claims, SigningKey},
};

use crate::support::server::Process;

const ISSUER: &str = "https://login.example.com";
const AUDIENCE: &str = "voicecall";

/// A directory of the test's own, removed at its end.
struct Dir(PathBuf);

impl Dir {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("voicecall-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).expect("it can be made");
        Self(path)
    }

    fn path(&self, name: &str) -> String {
        self.0.join(name).display().to_string()
    }

    fn write(&self, name: &str, text: &str) {
        // As editors and Kubernetes do: never half a file.
        let new = self.0.join(format!("{name}.new"));
        fs::write(&new, text).expect("it can be written");
        fs::rename(new, self.0.join(name)).expect("it can be renamed");
    }
}

impl AsRef<Path> for Dir {
    fn as_ref(&self) -> &Path {
        &self.0
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A token of this subject with all scopes.
fn token(key: &SigningKey, subject: &str, lifetime: Duration) -> String {
    let claims = Claims {
        subject: subject.to_owned(),
        issuer: ISSUER.to_owned(),
        audience: AUDIENCE.to_owned(),
        scopes: Scope::ALL.into_iter().collect(),
        lifetime,
        more: Vec::new(),
    };
    key.issue(&claims).expect("it signs")
}

fn with_token<T>(message: T, token: &str) -> Request<T> {
    let mut request = Request::new(message);
    let value = MetadataValue::try_from(format!("Bearer {token}"));
    let value = value.expect("a token is text");
    request.metadata_mut().insert("authorization", value);
    request
}

/// Has the server look at its files now.
fn hang_up(server: &Process) {
    let pid = server.child.id().to_string();
    let sent = Command::new("kill").args(["-HUP", &pid]).status();
    assert!(sent.expect("there is a kill").success());
}
