//! `voicecall import`.

use std::{
    io::{self, Write},
    path::PathBuf,
    pin::pin,
    sync::Arc,
    thread,
};

use clap::{Args, ValueEnum};
use futures_util::{TryStreamExt, stream};
use serde::Serialize;
use tokio::sync::mpsc;

use super::{
    EXIT_CODES,
    failure::Failure,
    progress::Progress,
    service::Service,
    source::{Source, State, cannot_read},
};
use crate::proto::{
    ImportConflictPolicy, ImportError, ImportOutcome, ImportRecord, ImportSettings,
    ImportVoiceCallsResponse, import_voice_calls_response::Result as RecordResult,
};

/// The most records that are read ahead.
const READ_AHEAD: usize = 512;

/// Import calls as they are, including their times.
#[derive(Debug, Args)]
#[command(after_help = EXIT_CODES)]
pub(crate) struct Import {
    /// The file to import. Default, and for "-": standard input.
    #[arg(value_name = "FILE", default_value = "-", hide_default_value = true)]
    file: PathBuf,

    /// What to do with a call that exists and differs from the record.
    #[arg(long, value_name = "POLICY", default_value = "replace-if-newer")]
    conflict: Conflict,

    #[command(flatten)]
    service: Service,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Conflict {
    /// Replace it if its `updated_at` is older than the record's.
    ReplaceIfNewer,
    /// Replace it.
    Replace,
    /// Keep it.
    Skip,
}

impl Conflict {
    const fn policy(self) -> ImportConflictPolicy {
        match self {
            Self::ReplaceIfNewer => ImportConflictPolicy::ReplaceIfNewer,
            Self::Replace => ImportConflictPolicy::Replace,
            Self::Skip => ImportConflictPolicy::Skip,
        }
    }
}

/// How many records had which result.
#[derive(Debug, Default, Serialize)]
struct Summary {
    created: u64,
    replaced: u64,
    unchanged: u64,
    skipped: u64,
    refused: u64,
}

impl Import {
    pub(super) async fn run(&self) -> Result<(), Failure> {
        let client = self.service.client().await?;
        let source = Source::open(&self.file)?;
        let state = Arc::clone(&source.state);
        let size = source.size;
        let (send, queue) = mpsc::channel(READ_AHEAD);
        let reading = thread::spawn(move || source.read(&send));
        let records = stream::unfold(queue, async |mut queue: mpsc::Receiver<ImportRecord>| {
            Some((queue.recv().await?, queue))
        });
        let settings = ImportSettings {
            conflict_policy: self.conflict.policy().into(),
        };
        let mut progress = Progress::new(true);
        let mut summary = Summary::default();
        let mut responses = pin!(client.import(settings, records));
        let result = loop {
            match responses.try_next().await {
                Ok(Some(response)) => summary.count(response, &state),
                Ok(None) => break Ok(()),
                Err(error) => break Err(Failure::from(error)),
            }
            if let Some(total) = size.and_then(|size| state.estimate(size)) {
                progress.set_total(total);
            }
            progress.set(summary.done());
        };
        drop(progress);
        // After an error the thread is not joined: it may wait for input that never comes.
        let read = match &result {
            Ok(()) => reading.join().unwrap_or(Ok(())),
            Err(_) => Ok(()),
        };
        summary.refused = state.report();
        summary.show(self.service.json)?;
        result?;
        read.map_err(|error| cannot_read(&self.file, &error))?;
        match summary.refused {
            0 => Ok(()),
            refused => Err(Failure::Refused(refused)),
        }
    }
}

impl Summary {
    fn count(&mut self, response: ImportVoiceCallsResponse, state: &State) {
        match response.result {
            Some(RecordResult::Success(success)) => match success.outcome() {
                ImportOutcome::Created => self.created += 1,
                ImportOutcome::Replaced => self.replaced += 1,
                ImportOutcome::Unchanged | ImportOutcome::Unspecified => self.unchanged += 1,
                ImportOutcome::Skipped => self.skipped += 1,
            },
            Some(RecordResult::Error(error)) => {
                self.refused += 1;
                let line = u64::try_from(response.sequence).unwrap_or_default();
                state.refuse(line, &describe(&error));
            }
            None => {}
        }
    }

    const fn done(&self) -> u64 {
        self.created + self.replaced + self.unchanged + self.skipped + self.refused
    }

    fn show(&self, json: bool) -> Result<(), Failure> {
        let mut out = io::stdout().lock();
        if json {
            serde_json::to_writer(&mut out, self).map_err(io::Error::from)?;
            return Ok(writeln!(out)?);
        }
        Ok(writeln!(
            out,
            "{} created, {} replaced, {} unchanged, {} skipped, {} refused",
            self.created, self.replaced, self.unchanged, self.skipped, self.refused
        )?)
    }
}

/// What is wrong with a record, as one line.
fn describe(error: &ImportError) -> String {
    if error.field_violations.is_empty() {
        return error.message.clone();
    }
    let violations = error.field_violations.iter().map(|violation| {
        let field = violation.field.strip_prefix("voice_call.");
        let field = field.unwrap_or(&violation.field);
        format!("{field} {}", violation.description)
    });
    violations.collect::<Vec<_>>().join("; ")
}
