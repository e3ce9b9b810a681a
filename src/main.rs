//! The `voicecall` program.

use std::process::ExitCode;

fn main() -> ExitCode {
    voicecall::run()
}

/// Requests allocate many small objects on one thread and free them on another, which is
/// slow with the system's allocator.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;
