//! Splits input into records: JSON Lines, objects that span several lines, or one JSON array.
//! The input is never held in memory as a whole.

use std::io::{self, BufRead, Read};

/// No call is longer in bytes, even if its summary is all escapes.
const MAX_RECORD: usize = 1024 * 1024;

/// Splits input into its records, looking only for where each begins and ends.
pub(super) struct Records<R> {
    input: R,
    form: Form,
    /// The number of the current line, from 1.
    line: u64,
}

/// The layout of the input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    /// Nothing has been read.
    Unknown,
    /// One record on each line.
    Lines,
    /// Objects that may span several lines: the first line of the input is a lone brace.
    Objects,
    /// Within an array that is not closed yet.
    Array,
    /// After the end of the array, where nothing may follow.
    Closed,
    /// At the end, or after an error: nothing more is read.
    End,
}

/// The next piece of the input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Piece {
    /// A record.
    Record,
    /// Data that is too long to be a record.
    TooLong,
    /// Malformed data; nothing after it can be read.
    Malformed(&'static str),
    /// The end of the input.
    End,
}

impl<R: BufRead> Records<R> {
    pub(super) fn new(input: R) -> Self {
        Self {
            input,
            form: Form::Unknown,
            line: 1,
        }
    }

    /// Reads the next record, and returns the line on which it begins.
    ///
    /// # Errors
    /// The input cannot be read.
    pub(super) fn next(&mut self, record: &mut Vec<u8>) -> io::Result<(u64, Piece)> {
        record.clear();
        let first = self.skip_space()?;
        let line = self.line;
        if self.form == Form::Unknown {
            self.form = match first {
                None => Form::End,
                Some(b'[') => return self.open_array(record),
                Some(_) => return Ok((line, self.first_line(record)?)),
            };
        }
        let piece = match (self.form, first) {
            (Form::Lines, Some(_)) => self.rest_of_line(record)?,
            (Form::Objects, Some(b'{')) => self.object(record)?,
            (Form::Objects, Some(_)) => self.rest_of_line(record)?,
            (Form::Array, Some(_)) => self.element(record)?,
            (Form::Array, None) => self.malformed("the array is not closed"),
            (Form::Closed, Some(_)) => self.malformed("unexpected data after the array"),
            (Form::Lines | Form::Objects | Form::Closed, None) | (Form::Unknown | Form::End, _) => {
                Piece::End
            }
        };
        Ok((line, piece))
    }

    fn malformed(&mut self, what: &'static str) -> Piece {
        self.form = Form::End;
        Piece::Malformed(what)
    }

    fn open_array(&mut self, record: &mut Vec<u8>) -> io::Result<(u64, Piece)> {
        self.input.consume(1);
        self.form = Form::Array;
        if self.skip_space()? == Some(b']') {
            self.input.consume(1);
            self.form = Form::Closed;
        }
        self.next(record)
    }

    /// The next byte that is not white space; it stays unread.
    fn skip_space(&mut self) -> io::Result<Option<u8>> {
        loop {
            let buffer = self.input.fill_buf()?;
            let space = |byte: &&u8| byte.is_ascii_whitespace();
            let len = buffer.iter().take_while(space).count();
            self.line += newlines(&buffer[..len]);
            let next = buffer.get(len).copied();
            let is_end = buffer.is_empty();
            self.input.consume(len);
            if next.is_some() || is_end {
                return Ok(next);
            }
        }
    }

    fn rest_of_line(&mut self, record: &mut Vec<u8>) -> io::Result<Piece> {
        let limit = MAX_RECORD as u64 + 1;
        (&mut self.input).take(limit).read_until(b'\n', record)?;
        if record.last() == Some(&b'\n') {
            self.line += 1;
        } else if record.len() > MAX_RECORD {
            self.input.skip_until(b'\n')?;
            self.line += 1;
            return Ok(Piece::TooLong);
        }
        Ok(Piece::Record)
    }

    /// Reads the first line, which determines the layout: a lone brace is no record, so objects
    /// span several lines.
    fn first_line(&mut self, record: &mut Vec<u8>) -> io::Result<Piece> {
        self.form = Form::Lines;
        let piece = self.rest_of_line(record)?;
        if record.trim_ascii_end() != b"{" {
            return Ok(piece);
        }
        self.form = Form::Objects;
        self.rest_of_object(
            record,
            Scan {
                depth: 1,
                ..Scan::default()
            },
        )
    }

    fn object(&mut self, record: &mut Vec<u8>) -> io::Result<Piece> {
        self.rest_of_object(record, Scan::default())
    }

    fn rest_of_object(&mut self, record: &mut Vec<u8>, mut scan: Scan) -> io::Result<Piece> {
        match self.read_until(record, |byte| scan.closes(byte))? {
            None => Ok(self.malformed("the object is not closed")),
            Some((end, piece)) => {
                record.push(end);
                Ok(piece)
            }
        }
    }

    /// Reads an element of the array, and the comma or bracket after it.
    fn element(&mut self, record: &mut Vec<u8>) -> io::Result<Piece> {
        let mut scan = Scan::default();
        match self.read_until(record, |byte| scan.is_end(byte))? {
            None => Ok(self.malformed("the array is not closed")),
            Some((end, piece)) => {
                if end == b']' {
                    self.form = Form::Closed;
                }
                Ok(piece)
            }
        }
    }

    /// Reads up to and including the byte that ends a record, and returns that byte; `None` if
    /// the input ends before.
    fn read_until(
        &mut self,
        record: &mut Vec<u8>,
        mut is_end: impl FnMut(u8) -> bool,
    ) -> io::Result<Option<(u8, Piece)>> {
        let mut piece = Piece::Record;
        loop {
            let buffer = self.input.fill_buf()?;
            if buffer.is_empty() {
                return Ok(None);
            }
            let len = buffer.iter().position(|byte| is_end(*byte));
            let part = &buffer[..len.unwrap_or(buffer.len())];
            self.line += newlines(part);
            if record.len() + part.len() > MAX_RECORD {
                piece = Piece::TooLong;
            }
            if piece == Piece::Record {
                record.extend_from_slice(part);
            }
            let end = len.map(|len| buffer[len]);
            let len = part.len() + usize::from(end.is_some());
            self.input.consume(len);
            if let Some(end) = end {
                return Ok(Some((end, piece)));
            }
        }
    }
}

fn newlines(bytes: &[u8]) -> u64 {
    bytes.iter().filter(|byte| **byte == b'\n').count() as u64
}

/// The position within an element.
#[derive(Default)]
struct Scan {
    depth: usize,
    in_string: bool,
    is_escaped: bool,
}

impl Scan {
    /// Whether this byte, the next one, is the brace that closes the object.
    fn closes(&mut self, byte: u8) -> bool {
        let is_inside = self.depth > 0;
        self.is_end(byte);
        is_inside && self.depth == 0
    }

    /// Whether this byte, the next one, is the comma or bracket after the element.
    fn is_end(&mut self, byte: u8) -> bool {
        if self.in_string {
            match byte {
                _ if self.is_escaped => self.is_escaped = false,
                b'\\' => self.is_escaped = true,
                b'"' => self.in_string = false,
                _ => {}
            }
            return false;
        }
        match byte {
            b'"' => self.in_string = true,
            b'{' | b'[' => self.depth += 1,
            b',' | b']' if self.depth == 0 => return true,
            b'}' | b']' => self.depth = self.depth.saturating_sub(1),
            _ => {}
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use std::io::BufReader;

    use super::*;

    fn split(text: &str) -> Vec<(u64, Piece, String)> {
        let mut whole = None;
        // The records are the same, however the input is split into reads.
        for capacity in [1, 3, 64] {
            let mut records = Records::new(BufReader::with_capacity(capacity, text.as_bytes()));
            let mut record = Vec::new();
            let mut found = Vec::new();
            loop {
                let (line, piece) = records.next(&mut record).expect("it can be read");
                if piece == Piece::End {
                    break;
                }
                let text = String::from_utf8(record.clone()).expect("text");
                found.push((line, piece, text.trim().to_owned()));
            }
            assert!(whole.is_none() || whole.as_ref() == Some(&found), "{text}");
            whole = Some(found);
        }
        whole.expect("three runs")
    }

    fn record(line: u64, text: &str) -> (u64, Piece, String) {
        (line, Piece::Record, text.to_owned())
    }

    #[test]
    fn lines_are_records_and_empty_ones_are_not() {
        assert_eq!(
            split("\n{\"a\":1}\n\n  \r\n[1]\n{\"b\"\n"),
            [
                record(2, "{\"a\":1}"),
                record(5, "[1]"),
                record(6, "{\"b\"")
            ]
        );
        assert_eq!(split("{}"), [record(1, "{}")]);
        assert_eq!(split(" \n"), []);
    }

    #[test]
    fn elements_of_an_array_are_records_however_they_are_laid_out() {
        assert_eq!(split("[]"), []);
        assert_eq!(split("\n[\n ] \n"), []);
        assert_eq!(
            split("[{\"a\":\"],\\\"}\"},\n\n{\n\"b\":[1,\n2]}\n, x\n]\n"),
            [
                record(1, "{\"a\":\"],\\\"}\"}"),
                record(3, "{\n\"b\":[1,\n2]}"),
                record(6, "x")
            ]
        );
    }

    #[test]
    fn objects_span_many_lines_if_the_first_does() {
        assert_eq!(
            split("\n{ \n\"a\": \"}\"\n}\n{\"b\": {}}{\n}\noops\n{\n}"),
            [
                record(2, "{ \n\"a\": \"}\"\n}"),
                record(5, "{\"b\": {}}"),
                record(5, "{\n}"),
                record(7, "oops"),
                record(8, "{\n}"),
            ]
        );
        let truncated = split("{\n}\n{\n\"a\": 1\n");
        assert!(
            matches!(truncated[1], (3, Piece::Malformed(_), _)),
            "{truncated:?}"
        );
    }

    #[test]
    fn a_malformed_array_is_reported_and_ends_the_input() {
        let not_closed = |line| {
            (
                line,
                Piece::Malformed("the array is not closed"),
                String::new(),
            )
        };
        for (text, line) in [("[", 1), ("[\n{},\n", 3)] {
            assert_eq!(split(text).last(), Some(&not_closed(line)), "{text}");
        }
        let truncated = split("[{},\n{\"a\":");
        assert!(
            matches!(truncated[1], (2, Piece::Malformed(_), _)),
            "{truncated:?}"
        );
        let follows = split("[{}]\n{}");
        assert_eq!(follows[0], record(1, "{}"));
        assert!(matches!(follows[1], (2, Piece::Malformed(_), _)));
    }
}
