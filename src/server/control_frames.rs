//! How many frames a client sends that ask for work and carry nothing: cancelled requests, pings,
//! settings and priorities (RFC 9113, section 10.5). Each is cheap to send; handled as fast as they
//! come, they would take the thread from all others on it. So a connection is read no faster than
//! it may send them.
//!
//! The rate is far above that of a client that means well: one that cancels a fan-out of a hundred
//! requests may do so twenty times a second.

use std::time::Duration;

use tokio::time::Instant;

/// Frames that may come at once, after a silence of a second.
const BURST: u32 = 2000;
const PER_SECOND: u32 = 2000;

/// The client connection preface, which comes before the first frame.
const PREFACE_BYTES: usize = 24;
const HEADER_BYTES: usize = 9;

const PRIORITY: u8 = 2;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;

/// Counts them in what a connection reads.
#[derive(Debug)]
pub(super) struct ControlFrames {
    /// Bytes to pass over until the next frame begins.
    skip: usize,
    /// What has arrived of the header of a frame.
    header: [u8; HEADER_BYTES],
    header_len: usize,
    /// By when those that have come would have come at the rate.
    due: Instant,
}

impl ControlFrames {
    pub(super) fn new() -> Self {
        Self {
            skip: PREFACE_BYTES,
            header: [0; HEADER_BYTES],
            header_len: 0,
            due: Instant::now(),
        }
    }

    /// Counts those in the bytes that came next. Returns when the next bytes may be read; `None`:
    /// at once.
    pub(super) fn count(&mut self, bytes: &[u8], now: Instant) -> Option<Instant> {
        let count = self.scan(bytes);
        if count == 0 {
            return None;
        }
        self.due = self.due.max(now) + count * Duration::from_secs(1) / PER_SECOND;
        let ahead = BURST * Duration::from_secs(1) / PER_SECOND;
        let until = self.due.checked_sub(ahead)?;
        (until > now).then_some(until)
    }

    fn scan(&mut self, mut bytes: &[u8]) -> u32 {
        let mut count = 0;
        while !bytes.is_empty() {
            let skipped = self.skip.min(bytes.len());
            self.skip -= skipped;
            bytes = &bytes[skipped..];
            let taken = (HEADER_BYTES - self.header_len).min(bytes.len());
            let (header, rest) = bytes.split_at(taken);
            self.header[self.header_len..self.header_len + taken].copy_from_slice(header);
            self.header_len += taken;
            bytes = rest;
            if self.header_len == HEADER_BYTES {
                let [a, b, c, kind, ..] = self.header;
                self.skip = u32::from_be_bytes([0, a, b, c]) as usize;
                self.header_len = 0;
                count += u32::from(matches!(kind, PRIORITY | RST_STREAM | SETTINGS | PING));
            }
        }
        count
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
        let len = u32::try_from(payload.len())
            .expect("it is short")
            .to_be_bytes();
        let header = [len[1], len[2], len[3], kind, 0, 0, 0, 0, 1];
        [&header, payload].concat()
    }

    #[test]
    fn frames_are_counted_however_they_are_cut() {
        let data = [RST_STREAM; 100];
        let mut sent = vec![0; PREFACE_BYTES];
        for (kind, payload) in [
            (SETTINGS, &data[..0]),
            (1, &data[..33]),
            (RST_STREAM, &data[..4]),
            (0, &data[..100]),
            (PING, &data[..8]),
            (PRIORITY, &data[..5]),
            (8, &data[..4]),
        ] {
            sent.extend(frame(kind, payload));
        }
        for len in 1..sent.len() {
            let mut frames = ControlFrames::new();
            let counts = sent.chunks(len).map(|bytes| frames.scan(bytes));
            assert_eq!(counts.sum::<u32>(), 4, "in parts of {len}");
        }
    }

    #[test]
    fn a_flood_is_read_at_the_rate_and_anything_else_at_once() {
        let mut frames = ControlFrames::new();
        let began = Instant::now();
        frames.scan(&[0; PREFACE_BYTES]);
        let request = frame(1, &[0; 50]);
        let cancelled = [request.clone(), frame(RST_STREAM, &[0; 4])].concat();
        for _ in 0..10 * BURST {
            assert_eq!(frames.count(&request, began), None);
        }
        for _ in 0..BURST {
            assert_eq!(frames.count(&cancelled, began), None);
        }
        let mut now = began;
        for _ in 0..10 * PER_SECOND {
            now = frames.count(&cancelled, now).unwrap_or(now);
        }
        let took = now - began;
        assert!(took > Duration::from_millis(9_900) && took < Duration::from_millis(10_100));
        // After a silence there is a whole burst again, and not more.
        now += Duration::from_secs(60);
        for _ in 0..BURST {
            assert_eq!(frames.count(&cancelled, now), None);
        }
        assert!(frames.count(&cancelled, now).is_some());
    }
}
