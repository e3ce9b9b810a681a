//! The output of calls: JSON Lines, tables and views for a terminal, or plain fields for a
//! pipe.

use std::io::{self, BufWriter, IsTerminal, StdoutLock, Write};

use anstream::{AutoStream, ColorChoice};

use super::{failure::Failure, json, screen::Screen, table::Table, view};
use crate::proto::VoiceCall;

/// The width of a terminal that does not report its own.
const DEFAULT_WIDTH: usize = 80;

/// Standard output, and the format of calls on it.
pub(super) struct Output {
    out: BufWriter<StdoutLock<'static>>,
    form: Form,
    /// Whether a call has been shown.
    has_shown: bool,
}

enum Form {
    /// On each line a call in the JSON format of the voice call object.
    Json,
    /// Fields separated by tabs.
    Plain,
    /// For people; the parts of a list continue the table of the first part.
    Terminal(Screen, Option<Table>),
}

/// The terminal that standard output is, if it is one.
pub(super) fn screen() -> Option<Screen> {
    let stdout = io::stdout();
    let size = terminal_size::terminal_size_of(&stdout);
    stdout.is_terminal().then(|| Screen {
        width: size.map_or(DEFAULT_WIDTH, |(width, _)| usize::from(width.0).max(1)),
        colours: AutoStream::choice(&stdout) != ColorChoice::Never,
    })
}

impl Output {
    pub(super) fn new(json: bool) -> Self {
        let stdout = io::stdout();
        let form = match screen() {
            _ if json => Form::Json,
            Some(screen) => Form::Terminal(screen, None),
            None => Form::Plain,
        };
        Self {
            out: BufWriter::new(stdout.lock()),
            form,
            has_shown: false,
        }
    }

    /// Shows the one call that is the result of a command.
    pub(super) fn show(call: &VoiceCall, json: bool) -> Result<(), Failure> {
        let mut output = Self::new(json);
        output.call(call)?;
        output.finish()
    }

    /// Shows one call with all its fields.
    pub(super) fn call(&mut self, call: &VoiceCall) -> Result<(), Failure> {
        let text = match &self.form {
            Form::Json => return self.json(call),
            Form::Plain => view::plain_fields(call),
            Form::Terminal(screen, _) => view::fields(call, *screen),
        };
        if self.has_shown {
            self.out.write_all(b"\n")?;
        }
        self.has_shown = true;
        self.bytes(text.as_bytes())
    }

    /// Shows a part of a list, which the next part continues.
    pub(super) fn calls(&mut self, calls: &[VoiceCall]) -> Result<(), Failure> {
        match &mut self.form {
            Form::Json => {
                for call in calls {
                    self.json(call)?;
                }
            }
            Form::Plain => {
                for call in calls {
                    self.out.write_all(view::plain_line(call).as_bytes())?;
                }
            }
            Form::Terminal(..) if calls.is_empty() => {}
            Form::Terminal(screen, table) => {
                let rows = view::rows(calls, *screen);
                let table =
                    table.get_or_insert_with(|| Table::new(view::columns(*screen), *screen));
                let text = table.part(&rows);
                self.out.write_all(text.as_bytes())?;
            }
        }
        // A reader sees each part at once.
        Ok(self.out.flush()?)
    }

    /// Whether the output is a terminal that has been shown nothing.
    pub(super) fn is_empty_screen(&self) -> bool {
        matches!(self.form, Form::Terminal(_, None)) && !self.has_shown
    }

    /// Writes bytes as they are.
    pub(super) fn bytes(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        Ok(self.out.write_all(bytes)?)
    }

    /// Flushes the output.
    pub(super) fn finish(&mut self) -> Result<(), Failure> {
        Ok(self.out.flush()?)
    }

    fn json(&mut self, call: &VoiceCall) -> Result<(), Failure> {
        let mut line = Vec::new();
        json::write(call, &mut line).map_err(io::Error::from)?;
        line.push(b'\n');
        self.bytes(&line)
    }
}
