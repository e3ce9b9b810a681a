//! The records of an import: where they are read from, and which of them are refused. They are
//! read and parsed on a thread of their own.

use std::{
    fs::File,
    io::{self, BufReader, Read},
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

use tokio::sync::mpsc;

use super::{
    failure::{Failure, note, one_line},
    json,
    records::{Piece, Records},
};
use crate::proto::ImportRecord;

/// The most refused records that are reported one by one.
const MAX_REPORTED: usize = 1000;

const READ_BUFFER: usize = 256 * 1024;

/// The input of an import.
pub(super) struct Source {
    input: Box<dyn Read + Send>,
    /// The size in bytes, if it is known in advance.
    pub(super) size: Option<u64>,
    pub(super) state: Arc<State>,
}

/// What is known about the records while they are read.
#[derive(Default)]
pub(super) struct State {
    bytes: AtomicU64,
    records: AtomicU64,
    refused: Mutex<Refused>,
}

#[derive(Default)]
struct Refused {
    count: u64,
    /// The first of them: line and message.
    reported: Vec<(u64, String)>,
}

impl Source {
    pub(super) fn open(path: &Path) -> Result<Self, Failure> {
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

    /// Reads all records, until the receiver is dropped.
    pub(super) fn read(self, out: &mpsc::Sender<ImportRecord>) -> io::Result<()> {
        let state = self.state;
        let counted = Counted(self.input, Arc::clone(&state));
        let mut records = Records::new(BufReader::with_capacity(READ_BUFFER, counted));
        let mut record = Vec::new();
        loop {
            let (line, piece) = records.next(&mut record)?;
            let call = match piece {
                Piece::End => return Ok(()),
                Piece::Malformed(what) => Err(what.to_owned()),
                Piece::TooLong => Err("longer than any valid record".to_owned()),
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
    /// The estimated number of records, from the size of those so far.
    pub(super) fn estimate(&self, size: u64) -> Option<u64> {
        let bytes = self.bytes.load(Ordering::Relaxed);
        let records = u128::from(self.records.load(Ordering::Relaxed));
        u64::try_from((records * u128::from(size)).checked_div(u128::from(bytes))?).ok()
    }

    pub(super) fn refuse(&self, line: u64, what: &str) {
        // A panic leaves the state consistent.
        let mut refused = self.refused.lock().unwrap_or_else(|held| held.into_inner());
        refused.count += 1;
        if refused.reported.len() < MAX_REPORTED {
            refused.reported.push((line, one_line(what)));
        }
    }

    /// Reports the refused records on standard error, and returns how many there are.
    pub(super) fn report(&self) -> u64 {
        let mut refused = self.refused.lock().unwrap_or_else(|held| held.into_inner());
        refused.reported.sort();
        for (line, what) in &refused.reported {
            note(&format!("line {line}: {what}"));
        }
        let more = refused.count.saturating_sub(refused.reported.len() as u64);
        if more > 0 {
            note(&format!("and {more} more"));
        }
        refused.count
    }
}

pub(super) fn cannot_read(path: &Path, error: &io::Error) -> Failure {
    Failure::File(format!("cannot read {}: {error}", path.display()))
}

/// Counts the bytes that are read.
struct Counted(Box<dyn Read + Send>, Arc<State>);

impl Read for Counted {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let len = self.0.read(buffer)?;
        self.1.bytes.fetch_add(len as u64, Ordering::Relaxed);
        Ok(len)
    }
}
