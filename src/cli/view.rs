//! Calls as text: one call with all its fields, or the rows of a list.

use anstyle::{AnsiColor, Style};
use unicode_width::UnicodeWidthStr;

use super::{
    names,
    screen::Screen,
    table::{Cell, Column, ESSENTIAL},
    time::{self, Rfc3339},
};
use crate::proto::{VoiceCall, VoiceCallDirection, VoiceCallStatus};

const DIM: Style = Style::new().dimmed();
const PLAIN: Style = Style::new();

/// The fields of the call in the order of the voice call object, and its revision; `None` for
/// absent ones.
fn values(call: &VoiceCall) -> [(&'static str, Option<String>); 17] {
    let time = |time: Option<_>| time.map(|time| Rfc3339(time).to_string());
    [
        ("uid", Some(call.uid.clone()).filter(|uid| !uid.is_empty())),
        ("created_at", time(call.created_at)),
        ("updated_at", time(call.updated_at)),
        ("duration", call.duration.map(|seconds| seconds.to_string())),
        ("status", status(call.status)),
        ("direction", direction(call.direction)),
        ("staff_uid", call.staff_uid.clone()),
        ("client_uid", call.client_uid.clone()),
        ("from_number", call.from_number.clone()),
        ("to_number", call.to_number.clone()),
        ("recording_url", call.recording_url.clone()),
        ("call_summary", call.call_summary.clone()),
        ("external_app_url", call.external_app_url.clone()),
        ("handled_by_staff_uid", call.handled_by_staff_uid.clone()),
        ("handled_at", time(call.handled_at)),
        ("deleted_at", time(call.deleted_at)),
        (
            "revision",
            Some(call.revision)
                .filter(|revision| *revision > 0)
                .map(|revision| revision.to_string()),
        ),
    ]
}

/// The name of a status, or the number of one that this release does not know.
pub(super) fn status(number: i32) -> Option<String> {
    match VoiceCallStatus::try_from(number) {
        Ok(known) => names::status(known).map(str::to_owned),
        Err(_) => Some(number.to_string()),
    }
}

pub(super) fn direction(number: i32) -> Option<String> {
    match VoiceCallDirection::try_from(number) {
        Ok(known) => names::direction(known).map(str::to_owned),
        Err(_) => Some(number.to_string()),
    }
}

fn status_style(number: i32) -> Style {
    let colour = match VoiceCallStatus::try_from(number) {
        Ok(VoiceCallStatus::IncomingCall) => AnsiColor::Yellow,
        Ok(VoiceCallStatus::AnsweredByStaff) => AnsiColor::Green,
        Ok(VoiceCallStatus::Missed) => AnsiColor::Red,
        Ok(VoiceCallStatus::AnsweredByVonage) => AnsiColor::Cyan,
        _ => return PLAIN,
    };
    colour.on_default()
}

/// The text without control characters, which could break the line or control the terminal.
pub(super) fn one_line(text: &str) -> String {
    text.replace(char::is_control, " ")
}

/// A summary of the call, for a line about it.
pub(super) fn summary(call: &VoiceCall) -> String {
    let mut parts: Vec<String> = Vec::new();
    parts.extend(direction(call.direction));
    parts.extend(status(call.status));
    parts.extend(
        call.staff_uid
            .as_ref()
            .map(|staff| format!("staff {staff}")),
    );
    parts.extend(call.from_number.as_ref().map(|from| format!("from {from}")));
    parts.extend(call.to_number.as_ref().map(|to| format!("to {to}")));
    one_line(&parts.join(", "))
}

/// The sixteen fields of the call on one line, separated by tabs.
pub(super) fn plain_line(call: &VoiceCall) -> String {
    let values = values(call);
    let fields = values.iter().filter(|(name, _)| *name != "revision");
    let fields: Vec<_> = fields
        .map(|(_, value)| one_line(value.as_deref().unwrap_or_default()))
        .collect();
    format!("{}\n", fields.join("\t"))
}

/// Each field of the call on a line of its own: name, tab, value.
pub(super) fn plain_fields(call: &VoiceCall) -> String {
    let lines = values(call).map(|(name, value)| {
        format!(
            "{name}\t{}\n",
            one_line(value.as_deref().unwrap_or_default())
        )
    });
    lines.concat()
}

/// All fields of the call in two columns, with long texts wrapped.
pub(super) fn fields(call: &VoiceCall, screen: Screen) -> String {
    const NAMES: usize = "handled_by_staff_uid".len();
    let mut text = String::new();
    for (name, value) in values(call) {
        let style = match (name, &value) {
            (_, None) => DIM,
            ("status", _) => status_style(call.status),
            ("deleted_at", _) => AnsiColor::Red.on_default(),
            _ => PLAIN,
        };
        let value = value.unwrap_or_else(|| "-".to_owned());
        let lines = wrapped(&value, screen.width.saturating_sub(NAMES + 2));
        for (at, line) in lines.iter().enumerate() {
            let name = if at == 0 { name } else { "" };
            let name = screen.paint(&format!("{name:NAMES$}"), Style::new().bold());
            let line = format!("{name}  {}", screen.paint(line, style));
            text.push_str(line.trim_end());
            text.push('\n');
        }
    }
    text
}

/// The text in lines of at most `width` columns. Longer words are not split, so that a URL can
/// still be copied.
fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines = Vec::new();
    for paragraph in text.split('\n') {
        let mut line = String::new();
        for word in one_line(paragraph).split(' ') {
            if !line.is_empty() && line.width() + 1 + word.width() > width {
                lines.push(std::mem::take(&mut line));
            }
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
        lines.push(line);
    }
    lines
}

/// The columns of a list.
pub(super) fn columns(screen: Screen) -> Vec<Column> {
    let column = |title, cell, min, weight| Column {
        title,
        min,
        weight,
        cell,
        is_number: title == "SECONDS",
    };
    if screen.is_wide() {
        vec![
            column("UID", 0, 36, 255),
            column("CREATED (UTC)", 1, 19, 100),
            column("DELETED (UTC)", 10, 19, 85),
            column("DIRECTION", 2, 9, 65),
            column("STATUS", 3, 18, 90),
            column("FROM", 4, 16, ESSENTIAL),
            column("TO", 5, 16, ESSENTIAL),
            column("SECONDS", 6, 7, 40),
            column("STAFF", 7, 15, 30),
            column("CLIENT", 8, 8, 20),
            column("HANDLED BY", 9, 15, 60),
            column("SUMMARY", 11, 20, 10),
        ]
    } else {
        vec![
            column("UID", 0, 36, 255),
            column("CREATED (UTC)", 1, 16, 100),
            column("STATUS", 3, 9, 90),
            column("NUMBER", 4, 18, ESSENTIAL),
            column("SECONDS", 6, 7, 20),
            column("STAFF", 7, 8, 30),
            column("HANDLED BY", 9, 10, 40),
        ]
    }
}

/// The calls as rows with a cell for each possible column.
pub(super) fn rows(calls: &[VoiceCall], screen: Screen) -> Vec<Vec<Cell>> {
    let row = if screen.is_wide() {
        wide_row
    } else {
        narrow_row
    };
    calls.iter().map(row).collect()
}

fn wide_row(call: &VoiceCall) -> Vec<Cell> {
    let second = |time: Option<_>| time.map(time::to_the_second).unwrap_or_default();
    let handled_by = match (&call.handled_by_staff_uid, call.handled_at) {
        (Some(staff), _) => staff,
        (None, Some(_)) => "yes",
        (None, None) => "",
    };
    vec![
        cell(&call.uid, PLAIN),
        cell(&second(call.created_at), DIM),
        cell(&direction(call.direction).unwrap_or_default(), PLAIN),
        cell(
            &status(call.status).unwrap_or_default(),
            status_style(call.status),
        ),
        optional(call.from_number.as_deref()),
        optional(call.to_number.as_deref()),
        cell(
            &call
                .duration
                .map(|seconds| seconds.to_string())
                .unwrap_or_default(),
            PLAIN,
        ),
        optional(call.staff_uid.as_deref()),
        optional(call.client_uid.as_deref()),
        cell(handled_by, PLAIN),
        cell(&second(call.deleted_at), AnsiColor::Red.on_default()),
        optional(call.call_summary.as_deref()),
    ]
}

/// The row of a narrow table: short names of statuses, and only the number at the other end.
fn narrow_row(call: &VoiceCall) -> Vec<Cell> {
    let minute = call.created_at.map(time::to_the_minute).unwrap_or_default();
    let short = match VoiceCallStatus::try_from(call.status) {
        _ if call.deleted_at.is_some() => "deleted".to_owned(),
        Ok(VoiceCallStatus::IncomingCall) => "incoming".to_owned(),
        Ok(VoiceCallStatus::AnsweredByStaff) => "by staff".to_owned(),
        Ok(VoiceCallStatus::AnsweredByVonage) => "by vonage".to_owned(),
        _ => status(call.status).unwrap_or_default(),
    };
    let style = match call.deleted_at {
        Some(_) => DIM,
        None => status_style(call.status),
    };
    let (arrow, number) = match VoiceCallDirection::try_from(call.direction) {
        Ok(VoiceCallDirection::Outbound) => ("→", &call.to_number),
        _ => ("←", &call.from_number),
    };
    let number = format!("{arrow} {}", number.as_deref().unwrap_or_default());
    let mut row = wide_row(call);
    row[1] = cell(&minute, DIM);
    row[3] = cell(&short, style);
    row[4] = cell(number.trim_end(), PLAIN);
    row
}

fn optional(text: Option<&str>) -> Cell {
    cell(text.unwrap_or_default(), PLAIN)
}

fn cell(text: &str, style: Style) -> Cell {
    Cell {
        text: one_line(text),
        style,
    }
}
