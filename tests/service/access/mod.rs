//! Who may connect and call: addresses, the end of credentials, and rotation under load. The
//! credentials themselves are in `interop`, by the official Python client.

mod addresses;
mod ends;
mod rotation;

use std::process::Command;

use tonic::{Request, metadata::MetadataValue};

use crate::support::server::Process;

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
