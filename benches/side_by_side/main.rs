//! voicecall side by side with floors and peers, on one machine in one run, as
//! ratios. `cargo bench --bench side_by_side -- --help` has the options, and
//! `docs/performance.md` what the figures mean.

mod bare;
mod calls;
mod driver;
mod etcd;
mod floor;
mod guardian;
mod lists;
mod load;
mod messages;
mod postgres;
mod sample;
mod service;
mod watch;

use std::{error::Error, process::ExitCode};

use clap::{Parser, Subcommand};

/// Every error ends the benchmark, with its text.
pub(crate) type Result<T, E = Box<dyn Error + Send + Sync>> = std::result::Result<T, E>;

#[derive(Parser)]
struct Cli {
    #[command(subcommand)]
    role: Option<Role>,
    /// Cargo says so.
    #[arg(long, hide = true)]
    bench: bool,
}

/// The processes that this program is, besides the one that starts them.
#[derive(Subcommand)]
enum Role {
    /// Drive requests.
    Drive(driver::Drive),
    /// Drive watchers.
    Watch(watch::Watch),
    /// Serve as the floor.
    Floor,
}

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    match run(Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: Cli) -> Result<()> {
    match cli.role {
        Some(Role::Drive(options)) => driving(async move {
            println!("{}", driver::drive(&options).await?.to_json());
            Ok(())
        }),
        Some(Role::Watch(options)) => driving(async move {
            println!("{}", watch::watch(&options).await?.to_json());
            Ok(())
        }),
        Some(Role::Floor) => serving(floor::serve()),
        None => Ok(()),
    }
}

/// Runs a driver: on one thread.
fn driving(work: impl Future<Output = Result<()>>) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(work)
}

/// Runs a server: on as many threads as ours has.
fn serving(work: impl Future<Output = Result<()>>) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    runtime.block_on(work)
}
