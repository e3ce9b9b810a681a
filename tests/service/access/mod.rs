//! Who may connect and call: addresses, the end of credentials, rotation under load, the limits of
//! a principal, and the tools for credentials. The credentials themselves are in `interop`, by the
//! official Python client.

mod addresses;
mod ends;
mod limits;
mod rotation;
mod tools;

use std::process::Command;

use crate::support::{server::Process, with_token};

/// Has the server look at its files now.
fn hang_up(server: &Process) {
    let pid = server.child.id().to_string();
    let sent = Command::new("kill").args(["-HUP", &pid]).status();
    assert!(sent.expect("there is a kill").success());
}
