//! `voicecall export`.

use std::{
    ffi::OsString,
    fs::{self, File},
    io::{self, IsTerminal, Write},
    path::{Path, PathBuf},
    pin::pin,
};

use clap::Args;
use futures_util::TryStreamExt;

use super::{
    EXIT_CODES, failure::Failure, filter::Filter, json, progress::Progress, service::Service,
};
use crate::{
    client::Client,
    proto::{ExportVoiceCallsRequest, GetVoiceCallStatsRequest, VoiceCall},
};

/// Export calls, oldest first.
#[derive(Debug, Args)]
#[command(after_help = EXIT_CODES)]
pub(crate) struct Export {
    /// The file to write. Default: standard output.
    #[arg(long, short, value_name = "FILE", help_heading = None::<&str>)]
    output: Option<PathBuf>,

    /// Write one JSON array instead of JSON Lines.
    #[arg(long, help_heading = None::<&str>)]
    array: bool,

    /// Wait until the service has reached this revision.
    #[arg(
        long,
        default_value_t = 0,
        hide_default_value = true,
        value_name = "REVISION", help_heading = None::<&str>)]
    min_revision: i64,

    #[command(flatten)]
    filter: Filter,

    #[command(flatten)]
    service: Service,
}

impl Export {
    pub(super) async fn run(&self) -> Result<(), Failure> {
        let client = self.service.client().await?;
        let Some(path) = &self.output else {
            let is_shown = !io::stdout().is_terminal();
            return self
                .write(&client, &mut io::stdout().lock(), is_shown)
                .await;
        };
        let target = Target::create(path).map_err(|error| cannot_write(path, &error))?;
        let written = self.write(&client, &mut &target.file, true).await;
        let written = written.and_then(|()| Ok(target.keep(path)?));
        written.map_err(|failure| {
            target.discard();
            match failure {
                Failure::Output(error) => cannot_write(path, &error),
                other => other,
            }
        })
    }

    async fn write(
        &self,
        client: &Client,
        out: &mut dyn Write,
        is_shown: bool,
    ) -> Result<(), Failure> {
        let mut progress = Progress::new(is_shown);
        let request = ExportVoiceCallsRequest {
            filter: Some(self.filter.message()),
            min_revision: self.min_revision,
        };
        let mut chunks = pin!(client.export_chunks(request));
        let mut counting = pin!(self.count(client));
        let mut is_counted = !progress.is_shown();
        let mut text = Text::new(self.array);
        let mut done = 0;
        loop {
            let chunk = tokio::select! {
                biased;
                chunk = chunks.try_next() => chunk?,
                total = &mut counting, if !is_counted => {
                    is_counted = true;
                    if let Some(total) = total {
                        progress.set_total(total);
                    }
                    continue;
                }
            };
            let Some(chunk) = chunk else {
                break;
            };
            for call in &chunk.voice_calls {
                text.push(call)?;
            }
            out.write_all(&text.bytes)?;
            text.bytes.clear();
            done += chunk.voice_calls.len() as u64;
            progress.set(done);
        }
        text.end();
        out.write_all(&text.bytes)?;
        out.flush()?;
        Ok(())
    }

    /// The number of calls, for the progress bar; `None` if it cannot be found out.
    async fn count(&self, client: &Client) -> Option<u64> {
        let request = GetVoiceCallStatsRequest {
            filter: Some(self.filter.message()),
            ..GetVoiceCallStatsRequest::default()
        };
        let counted = client.stats_page(request).await.ok()?;
        u64::try_from(counted.total_count).ok()
    }
}

/// A buffer of calls as JSON.
struct Text {
    bytes: Vec<u8>,
    array: bool,
    is_empty: bool,
}

impl Text {
    fn new(array: bool) -> Self {
        Self {
            bytes: if array { b"[".to_vec() } else { Vec::new() },
            array,
            is_empty: true,
        }
    }

    fn push(&mut self, call: &VoiceCall) -> Result<(), Failure> {
        if self.array {
            let before: &[u8] = if self.is_empty { b"\n" } else { b",\n" };
            self.bytes.extend(before);
        }
        self.is_empty = false;
        json::write(call, &mut self.bytes).map_err(io::Error::from)?;
        if !self.array {
            self.bytes.push(b'\n');
        }
        Ok(())
    }

    fn end(&mut self) {
        if self.array {
            self.bytes.extend(b"\n]\n");
        }
    }
}

/// An output file. It gets its name only when it is complete.
struct Target {
    file: File,
    /// The name until then; `None` for a special file such as a pipe, which is written
    /// directly.
    part: Option<PathBuf>,
}

impl Target {
    fn create(path: &Path) -> io::Result<Self> {
        let is_special = fs::metadata(path).is_ok_and(|metadata| !metadata.is_file());
        if is_special {
            let file = File::options().write(true).open(path)?;
            return Ok(Self { file, part: None });
        }
        let mut name = path
            .file_name()
            .map(OsString::from)
            .ok_or(io::ErrorKind::InvalidFilename)?;
        name.push(format!(".{}.part", std::process::id()));
        let part = path.with_file_name(name);
        let file = File::create(&part)?;
        Ok(Self {
            file,
            part: Some(part),
        })
    }

    fn keep(&self, path: &Path) -> io::Result<()> {
        let Some(part) = &self.part else {
            return Ok(());
        };
        self.file.sync_all()?;
        fs::rename(part, path)
    }

    fn discard(&self) {
        if let Some(part) = &self.part {
            // The error that led here is the one to report.
            let _ = fs::remove_file(part);
        }
    }
}

fn cannot_write(path: &Path, error: &io::Error) -> Failure {
    Failure::File(format!("cannot write {}: {error}", path.display()))
}
