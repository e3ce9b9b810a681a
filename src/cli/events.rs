//! The output of events: a line for each, or JSON Lines.

use std::io::{self, BufWriter, IsTerminal, StdoutLock, Write};

use anstream::{AutoStream, ColorChoice};
use anstyle::{AnsiColor, Style};
use serde::Serialize;
use serde_json::value::RawValue;

use super::{
    failure::Failure,
    json,
    screen::Screen,
    time::{self, Rfc3339},
    view,
};
use crate::proto::{
    VoiceCall, VoiceCallChange, VoiceCallChangeKind, VoiceCallEvent, VoiceCallEventType,
};

/// Standard output for events; every line is flushed at once.
pub(super) struct EventOutput {
    out: BufWriter<StdoutLock<'static>>,
    json: bool,
    screen: Screen,
}

/// One line of JSON. Fields that do not apply are omitted.
#[derive(Debug, Default, Serialize)]
struct Line<'a> {
    r#type: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    revision: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    uid: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    changed_at: Option<Rfc3339>,
    #[serde(skip_serializing_if = "Option::is_none")]
    kind: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    voice_call: Option<Box<RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    changed_fields: Option<&'a [String]>,
    #[serde(skip_serializing_if = "str::is_empty")]
    actor: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    request_id: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    resume_token: &'a str,
}

impl EventOutput {
    pub(super) fn new(json: bool) -> Self {
        let stdout = io::stdout();
        let colours = stdout.is_terminal() && AutoStream::choice(&stdout) != ColorChoice::Never;
        Self {
            out: BufWriter::new(stdout.lock()),
            json,
            screen: Screen { width: 0, colours },
        }
    }

    /// Writes an event.
    pub(super) fn event(&mut self, event: &VoiceCallEvent) -> Result<(), Failure> {
        let Some(change) = &event.change else {
            return Ok(());
        };
        if self.json {
            let fields = change.changed_fields.as_ref();
            return self.json(&Line {
                r#type: type_name(event.r#type()),
                revision: Some(change.revision),
                uid: Some(&change.uid),
                changed_at: change.changed_at.map(Rfc3339),
                kind: Some(kind_name(change.kind())),
                voice_call: change.voice_call.as_ref().map(raw).transpose()?,
                changed_fields: fields.map(|mask| mask.paths.as_slice()),
                actor: &change.actor,
                request_id: &change.request_id,
                resume_token: "",
            });
        }
        let line = self.line(event.r#type(), change);
        writeln!(self.out, "{line}")?;
        Ok(self.out.flush()?)
    }

    /// Writes a call of a snapshot.
    pub(super) fn call(&mut self, call: &VoiceCall) -> Result<(), Failure> {
        if self.json {
            return self.json(&Line {
                r#type: "SNAPSHOT",
                revision: Some(call.revision),
                uid: Some(&call.uid),
                voice_call: Some(raw(call)?),
                ..Line::default()
            });
        }
        let time = call.updated_at.map(time::to_the_second).unwrap_or_default();
        let what = view::summary(call);
        writeln!(
            self.out,
            "{time}  {:<8}  {}  {:>8}  {what}",
            "SNAPSHOT", call.uid, call.revision
        )?;
        Ok(())
    }

    /// Writes a resume token, in JSON only.
    pub(super) fn position(&mut self, resume_token: &str) -> Result<(), Failure> {
        if self.json {
            self.json(&Line {
                r#type: "POSITION",
                resume_token,
                ..Line::default()
            })?;
        }
        Ok(self.out.flush()?)
    }

    /// Writes a line that is neither a call nor an event: its type in JSON, otherwise the text.
    pub(super) fn note(&mut self, line_type: &str, text: &str) -> Result<(), Failure> {
        if self.json {
            return self.json(&Line {
                r#type: line_type,
                ..Line::default()
            });
        }
        writeln!(self.out, "{text}")?;
        Ok(self.out.flush()?)
    }

    fn line(&self, event: VoiceCallEventType, change: &VoiceCallChange) -> String {
        let time = change
            .changed_at
            .map(time::to_the_second)
            .unwrap_or_default();
        let name = format!("{:<8}", type_name(event));
        let name = self.screen.paint(&name, style(event));
        let what = change.voice_call.as_ref().map(view::summary);
        let fields = change.changed_fields.as_ref().map(|mask| &mask.paths);
        let fields = match fields {
            Some(fields) if !fields.is_empty() => format!("  [{}]", fields.join(", ")),
            _ => String::new(),
        };
        let what = what.unwrap_or_default();
        format!(
            "{time}  {name}  {}  {:>8}  {what}{fields}",
            change.uid, change.revision
        )
        .trim_end()
        .to_owned()
    }

    fn json(&mut self, line: &Line<'_>) -> Result<(), Failure> {
        serde_json::to_writer(&mut self.out, line).map_err(io::Error::from)?;
        self.out.write_all(b"\n")?;
        Ok(self.out.flush()?)
    }
}

fn raw(call: &VoiceCall) -> Result<Box<RawValue>, Failure> {
    let mut line = Vec::new();
    json::write(call, &mut line).map_err(io::Error::from)?;
    let line = String::from_utf8_lossy(&line).into_owned();
    Ok(RawValue::from_string(line).map_err(io::Error::from)?)
}

fn type_name(event: VoiceCallEventType) -> &'static str {
    let name = event.as_str_name();
    name.strip_prefix("VOICE_CALL_EVENT_TYPE_").unwrap_or(name)
}

fn kind_name(kind: VoiceCallChangeKind) -> &'static str {
    let name = kind.as_str_name();
    name.strip_prefix("VOICE_CALL_CHANGE_KIND_").unwrap_or(name)
}

fn style(event: VoiceCallEventType) -> Style {
    let colour = match event {
        VoiceCallEventType::Entered => AnsiColor::Green,
        VoiceCallEventType::Updated => AnsiColor::Cyan,
        VoiceCallEventType::Exited => AnsiColor::Yellow,
        VoiceCallEventType::Deleted | VoiceCallEventType::Purged => AnsiColor::Red,
        VoiceCallEventType::Unspecified => return Style::new(),
    };
    colour.on_default()
}
