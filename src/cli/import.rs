//! `voicecall import`.

use std::{
    fs::File,
    io::{self, BufReader, Read, Write},
    path::{Path, PathBuf},
    pin::pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    thread,
};

use clap::{Args, ValueEnum};
use futures_util::{TryStreamExt, stream};
use serde::Serialize;
use tokio::sync::mpsc;

use super::{
    EXIT_CODES,
    failure::{Failure, note, one_line},
    json,
    progress::Progress,
    records::{Piece, Records},
    service::Service,
};
use crate::api::proto::{
    ImportConflictPolicy, ImportError, ImportOutcome, ImportRecord, ImportSettings,
    ImportVoiceCallsResponse, import_voice_calls_response::Result as Answer,
};

/// So many refused records are told of one by one.
const MAX_TOLD: usize = 1000;

/// Records that are read ahead.
const READ_AHEAD: usize = 512;
const READ_BUFFER: usize = 256 * 1024;

/// Take in calls as they are, with their times: JSON Lines or a JSON array, each
/// call in the reference's own shape.
///
/// Refused records are named with their lines and stop no other. An import that
/// broke off, or was stopped, is started again from the beginning: what is in
/// already changes nothing.
#[derive(Debug, Args)]
#[command(after_help = EXIT_CODES)]
pub struct Import {
    /// Where the calls are; `-`: standard input.
    #[arg(value_name = "FILE", default_value = "-", hide_default_value = true)]
    file: PathBuf,

    /// What to do with a call that exists and is not the same.
    #[arg(long, value_name = "WHAT", default_value = "replace-if-newer")]
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

/// What became of the records.
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
        let client = self.service.client()?;
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
        let mut answers = pin!(client.import(settings, records));
        let result = loop {
            match answers.try_next().await {
                Ok(Some(answer)) => summary.count(answer, &state),
                Ok(None) => break Ok(()),
                Err(error) => break Err(Failure::from(error)),
            }
            if let Some(total) = size.and_then(|size| state.estimate(size)) {
                progress.set_total(total);
            }
            progress.set(summary.done());
        };
        progress.finish();
        // After an error it may be waiting for input that never comes.
        let read = match &result {
            Ok(()) => reading.join().unwrap_or(Ok(())),
            Err(_) => Ok(()),
        };
        summary.refused = state.tell();
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
    fn count(&mut self, answer: ImportVoiceCallsResponse, state: &State) {
        match answer.result {
            Some(Answer::Success(success)) => match success.outcome() {
                ImportOutcome::Created => self.created += 1,
                ImportOutcome::Replaced => self.replaced += 1,
                ImportOutcome::Unchanged | ImportOutcome::Unspecified => self.unchanged += 1,
                ImportOutcome::Skipped => self.skipped += 1,
            },
            Some(Answer::Error(error)) => {
                self.refused += 1;
                let line = u64::try_from(answer.sequence).unwrap_or_default();
                state.refuse(line, &words(&error));
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

/// What is wrong with a record.
fn words(error: &ImportError) -> String {
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

/// Where records come from.
struct Source {
    input: Box<dyn Read + Send>,
    /// In bytes, if it is known beforehand.
    size: Option<u64>,
    state: Arc<State>,
}

/// What is known of the records while they are read.
#[derive(Default)]
struct State {
    bytes: AtomicU64,
    records: AtomicU64,
    refused: Mutex<Refused>,
}

#[derive(Default)]
struct Refused {
    count: u64,
    /// The first ones, by line.
    told: Vec<(u64, String)>,
}

impl Source {
    fn open(path: &Path) -> Result<Self, Failure> {
        let state = Arc::default();
        if path == Path::new("-") {
            return Ok(Self {
                input: Box::new(io::stdin()),
                size: None,
                state,
            });
        }
        let opened = File::open(path).and_then(|file| {
            let metadata = file.metadata()?;
            Ok((file, metadata.is_file().then_some(metadata.len())))
        });
        let (file, size) = opened.map_err(|error| cannot_read(path, &error))?;
        Ok(Self {
            input: Box::new(file),
            size,
            state,
        })
    }

    /// Reads all records, for as long as somebody takes them.
    fn read(self, out: &mpsc::Sender<ImportRecord>) -> io::Result<()> {
        let state = self.state;
        let counted = Counted(self.input, Arc::clone(&state));
        let mut records = Records::new(BufReader::with_capacity(READ_BUFFER, counted));
        let mut record = Vec::new();
        loop {
            let (line, piece) = records.next(&mut record)?;
            let call = match piece {
                Piece::End => return Ok(()),
                Piece::Broken(what) => Err(what.to_owned()),
                Piece::TooLong => Err("longer than any call".to_owned()),
                Piece::Record => match std::str::from_utf8(record.trim_ascii_end()) {
                    Ok(text) => json::parse(text).map_err(|error| error.to_string()),
                    Err(_) => Err("not UTF-8".to_owned()),
                },
            };
            state.records.fetch_add(1, Ordering::Relaxed);
            match call {
                Err(what) => state.refuse(line, &what),
                Ok(call) => {
                    let record = ImportRecord {
                        sequence: i64::try_from(line).unwrap_or(i64::MAX),
                        voice_call: Some(call),
                    };
                    if out.blocking_send(record).is_err() {
                        return Ok(());
                    }
                }
            }
        }
    }
}

impl State {
    /// How many records there are, judging by those so far.
    fn estimate(&self, size: u64) -> Option<u64> {
        let bytes = self.bytes.load(Ordering::Relaxed);
        let records = u128::from(self.records.load(Ordering::Relaxed));
        u64::try_from((records * u128::from(size)).checked_div(u128::from(bytes))?).ok()
    }

    fn refuse(&self, line: u64, what: &str) {
        // A thread that panicked left nothing half done here.
        let mut refused = self.refused.lock().unwrap_or_else(|held| held.into_inner());
        refused.count += 1;
        if refused.told.len() < MAX_TOLD {
            refused.told.push((line, one_line(what)));
        }
    }

    /// Names what is refused, and answers how many.
    fn tell(&self) -> u64 {
        let mut refused = self.refused.lock().unwrap_or_else(|held| held.into_inner());
        refused.told.sort();
        for (line, what) in &refused.told {
            note(&format!("line {line}: {what}"));
        }
        let more = refused.count.saturating_sub(refused.told.len() as u64);
        if more > 0 {
            note(&format!("{more} more"));
        }
        refused.count
    }
}

fn cannot_read(path: &Path, error: &io::Error) -> Failure {
    Failure::File(format!("cannot read {}: {error}", path.display()))
}

/// Counts what is read.
struct Counted(Box<dyn Read + Send>, Arc<State>);

impl Read for Counted {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let len = self.0.read(buffer)?;
        self.1.bytes.fetch_add(len as u64, Ordering::Relaxed);
        Ok(len)
    }
}
