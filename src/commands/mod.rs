//! What the operator's commands do: `serve` and `migrate` put the parts together, run them, and
//! shut them down in order; `auth` has the tools for credentials. The commands of a client are in
//! `cli`.

mod auth;
mod security;

use std::{
    error::Error,
    io::{self, IsTerminal},
    net::SocketAddr,
    process::ExitCode,
};

use clap::CommandFactory;
use tokio::{
    net::TcpListener,
    runtime::{Builder, Runtime},
    signal::unix::{SignalKind, signal},
};
use tokio_util::sync::CancellationToken;
use tracing::info;
use tracing_subscriber::EnvFilter;

use crate::{
    cli,
    config::{Cli, Command, LogFormat, Migrate, Serve},
    postgres::{self, Postgres},
    server,
    store::{self, Connector},
};

/// Threads for what would hold up the first one, such as reading files.
const MAX_BLOCKING_THREADS: usize = 16;

/// The `voicecall` program: does what the arguments of this process say.
#[must_use]
pub fn run() -> ExitCode {
    let result = match Cli::of_program().command {
        Command::Client(command) => return cli::run(&command, &mut Cli::command()),
        Command::Serve(settings) => serve(&settings),
        Command::Migrate(settings) => migrate(&settings),
        Command::Auth(command) => auth::auth(&command),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("voicecall: {error}");
            ExitCode::FAILURE
        }
    }
}

/// `voicecall serve`. An error is a message for the operator.
fn serve(settings: &Serve) -> Result<(), Box<dyn Error>> {
    start_log(settings.log_format, &settings.log)?;
    runtime()?.block_on(serve_until_signal(settings))
}

/// The runtime of this thread; the workers that serve connections have their own.
fn runtime() -> io::Result<Runtime> {
    Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(MAX_BLOCKING_THREADS)
        .build()
}

async fn serve_until_signal(settings: &Serve) -> Result<(), Box<dyn Error>> {
    let shutdown = cancel_on_signal()?;
    let security = security::load(&settings.security, settings.listen)?;
    let listener = TcpListener::bind(settings.listen)
        .await
        .map_err(|error| format!("cannot listen on {}: {error}", settings.listen))?;
    match settings.database.url()? {
        Some(url) => {
            let connector = Connector::new(&url)?;
            let data = connector.describe();
            serve_on(listener, connector, settings, security, shutdown, data).await?;
        }
        None => {
            let postgres = match Postgres::start(settings.database.embedded(), &shutdown).await {
                Err(postgres::Error::Cancelled) => return Ok(()),
                started => started?,
            };
            let connector = Connector::new(postgres.database_url())?;
            let data = postgres.data_dir().display().to_string();
            let ended = serve_on(listener, connector, settings, security, shutdown, data).await;
            postgres.stop().await;
            ended?;
        }
    }
    info!("stopped");
    Ok(())
}

async fn serve_on(
    listener: TcpListener,
    connector: Connector,
    settings: &Serve,
    security: server::Security,
    shutdown: CancellationToken,
    data: String,
) -> Result<(), server::Error> {
    let ready = |address: SocketAddr| info!("listening on {address}, data in {data}");
    let settings = settings.server();
    server::run(listener, connector, settings, security, shutdown, ready).await
}

/// `voicecall migrate`. An error is a message for the operator.
fn migrate(settings: &Migrate) -> Result<(), Box<dyn Error>> {
    start_log(LogFormat::Human, "info")?;
    let connector = Connector::new(&settings.url()?)?;
    let migrated = runtime()?.block_on(store::migrate(&connector))?;
    if migrated == 0 {
        info!("the database schema is up to date");
    }
    Ok(())
}

/// A token that the first SIGTERM or SIGINT cancels.
fn cancel_on_signal() -> io::Result<CancellationToken> {
    let shutdown = CancellationToken::new();
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let token = shutdown.clone();
    // The task lives as long as the process, whose signals it handles.
    #[expect(clippy::disallowed_methods, reason = "owned by the process itself")]
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        token.cancel();
    });
    Ok(shutdown)
}

/// Modules of the database driver that log the values of statements: numbers, summaries, URLs.
const LOGS_VALUES: [&str; 4] = [
    "tokio_postgres",
    "tokio_postgres::query",
    "tokio_postgres::copy_in",
    "tokio_postgres::copy_out",
];

fn start_log(format: LogFormat, filter: &str) -> Result<(), Box<dyn Error>> {
    let mut filter = EnvFilter::try_new(filter).map_err(|error| format!("--log: {error}"))?;
    for module in LOGS_VALUES {
        filter = filter.add_directive(format!("{module}=info").parse()?);
    }
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal())
        .with_target(false);
    match format {
        LogFormat::Human => log.init(),
        LogFormat::Json => log.json().init(),
    }
    Ok(())
}

#[cfg(test)]
mod tests;
