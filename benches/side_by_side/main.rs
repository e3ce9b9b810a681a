//! voicecall side by side with floors and peers, on one machine in one run, as
//! ratios. `cargo bench --bench side_by_side -- --help` has the options, and
//! `docs/performance.md` what the figures mean.

mod bare;
mod baseline;
mod baseline_rows;
mod bench;
mod bulk;
mod calls;
mod companion;
mod driver;
mod etcd;
mod floor;
mod guardian;
mod lists;
mod load;
mod memory;
mod messages;
mod open_loop;
mod options;
mod pages;
mod pgbench;
mod plan;
mod plot;
mod postgres;
mod report;
mod sample;
mod secured;
mod seed;
mod service;
mod startup;
mod sweep;
mod transfer;
mod warm;
mod watch;

use std::{error::Error, process::ExitCode};

use clap::{Parser, Subcommand};

/// Every error ends the benchmark, with its text.
pub(crate) type Result<T, E = Box<dyn Error + Send + Sync>> = std::result::Result<T, E>;

#[derive(Parser)]
struct Cli {
    #[command(subcommand)]
    role: Option<Role>,
    #[command(flatten)]
    options: options::Options,
    /// Passed by Cargo.
    #[arg(long, hide = true)]
    bench: bool,
}

/// The processes that this program can be, besides the one that starts them.
#[derive(Subcommand)]
enum Role {
    /// Drive requests.
    Drive(driver::Drive),
    /// Drive the first and the last page of a list.
    Pages(pages::Pages),
    /// Drive watchers.
    Watch(watch::Watch),
    /// Drive an import or an export.
    Transfer(transfer::Transfer),
    /// Serve as the floor.
    Floor,
    /// Serve as the baseline.
    Baseline {
        /// The URL of the database.
        database_url: String,
    },
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
        Some(Role::Pages(options)) => driving(async move {
            println!("{}", pages::pages(&options).await?.to_json());
            Ok(())
        }),
        Some(Role::Watch(options)) => driving(async move {
            println!("{}", watch::watch(&options).await?.to_json());
            Ok(())
        }),
        Some(Role::Transfer(options)) => driving(async move {
            println!("{}", transfer::transfer(&options).await?.to_json());
            Ok(())
        }),
        Some(Role::Floor) => serving(floor::serve()),
        Some(Role::Baseline { database_url }) => serving(baseline::serve(&database_url)),
        None => side_by_side(&cli.options),
    }
}

/// Measures everything, and prints the table.
fn side_by_side(options: &options::Options) -> Result<()> {
    guardian::set_root(options.dir.clone());
    let rows = plan::plan(options);
    let mut needed = plan::plan(options);
    if options.docs.is_some() {
        needed.extend(sweep::rows());
    }
    let mut bench = bench::Bench::set_up(options, &needed)?;
    let seen = rounds(options.rounds, &rows, &mut bench);
    let table = format!(
        "{}, {} calls, medians of {} rounds of {} s (least..greatest):\n\n{}",
        bench.versions()?,
        options.rows,
        options.rounds,
        options.seconds,
        report::table(&rows, &seen)
    );
    println!("{table}");
    if let Some(docs) = &options.docs {
        report::put_into(&docs.join("performance.md"), &table)?;
        sweep::draw(&mut bench, options.rows, &docs.join("performance"))?;
    }
    if report::complete(&seen) {
        Ok(())
    } else {
        Err("not everything could be measured".into())
    }
}

/// Measures all figures in turn, several times.
fn rounds(count: usize, rows: &[plan::Row], bench: &mut bench::Bench) -> Vec<Vec<report::Seen>> {
    let nothing = |row: &plan::Row| row.entries.iter().map(|_| Vec::new()).collect();
    let mut seen: Vec<Vec<report::Seen>> = rows.iter().map(nothing).collect();
    for round in 1..=count {
        for (row, seen) in rows.iter().zip(&mut seen) {
            for (entry, seen) in row.entries.iter().zip(seen) {
                eprintln!("round {round}: {}, {}", row.name, entry.name);
                let sample = bench.measure(entry.measure, entry.build);
                if let Err(error) = &sample {
                    eprintln!("failed: {error}");
                }
                seen.push(sample.ok());
            }
        }
    }
    seen
}

/// Runs a driver: on one thread.
fn driving(work: impl Future<Output = Result<()>>) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(work)
}

/// Runs a server, on as many threads as the service has.
fn serving(work: impl Future<Output = Result<()>>) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    runtime.block_on(work)
}
