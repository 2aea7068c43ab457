//! The way to the terminal: what is drawn goes out in one piece, and in colours that every terminal has.
//!
//! The library below asks for its named colours in the extended form (`38;5;6`), which terminals of sixteen colours
//! misread; the plain form (`36`) says the same and is read by all.

use std::io::{self, Write};

/// Gathers a frame and writes it when it is flushed.
pub struct Output<W: Write> {
    inner: W,
    frame: Vec<u8>,
}

impl<W: Write> Output<W> {
    /// Over a terminal.
    pub fn new(inner: W) -> Self {
        Self { inner, frame: Vec::new() }
    }
}

impl<W: Write> Write for Output<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.frame.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        let frame = plain_colours(&self.frame);
        self.frame.clear();
        self.inner.write_all(&frame)?;
        self.inner.flush()
    }
}

/// The same with every `CSI … m` in the plain form.
fn plain_colours(frame: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(frame.len());
    let mut rest = frame;
    while let Some(at) = rest.windows(2).position(|pair| pair == b"\x1b[") {
        let (before, sequence) = rest.split_at(at + 2);
        plain.extend_from_slice(before);
        let length = sequence.iter().take_while(|byte| byte.is_ascii_digit() || **byte == b';').count();
        let (parameters, after) = sequence.split_at(length);
        match after.first() {
            Some(b'm') => plain.extend_from_slice(&plain_parameters(parameters)),
            _ => plain.extend_from_slice(parameters),
        }
        rest = after;
    }
    plain.extend_from_slice(rest);
    plain
}

fn plain_parameters(parameters: &[u8]) -> Vec<u8> {
    let text = String::from_utf8_lossy(parameters);
    let mut plain: Vec<String> = Vec::new();
    let mut numbers = text.split(';').peekable();
    while let Some(number) = numbers.next() {
        let base = match number {
            "38" => 30,
            "48" => 40,
            _ => {
                plain.push(number.to_owned());
                continue;
            }
        };
        let mut extended = numbers.clone();
        let index = (extended.next() == Some("5")).then(|| extended.next()?.parse::<u32>().ok()).flatten();
        match index {
            Some(index @ 0..8) => plain.push((base + index).to_string()),
            Some(index @ 8..16) => plain.push((base + 52 + index).to_string()),
            // Not one of the sixteen: as it was asked for.
            _ => {
                plain.push(number.to_owned());
                continue;
            }
        }
        numbers = extended;
    }
    plain.join(";").into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(pieces: &[&str]) -> String {
        let mut out = Vec::new();
        let mut output = Output::new(&mut out);
        for piece in pieces {
            output.write_all(piece.as_bytes()).expect("room");
        }
        output.flush().expect("room");
        String::from_utf8(out).expect("UTF-8")
    }

    #[test]
    fn named_colours_are_asked_for_in_the_plain_form() {
        for (asked, plain) in [
            ("\x1b[38;5;6;49mx", "\x1b[36;49mx"),
            ("\x1b[1;38;5;3m", "\x1b[1;33m"),
            ("\x1b[39;48;5;15m", "\x1b[39;107m"),
            ("\x1b[38;5;9m", "\x1b[91m"),
            ("\x1b[38;5;16m", "\x1b[38;5;16m"),
            ("\x1b[38;2;1;2;3m", "\x1b[38;2;1;2;3m"),
            ("\x1b[38m\x1b[38;5m\x1b[m", "\x1b[38m\x1b[38;5m\x1b[m"),
            ("\x1b[38;5H µs \x1b[?25l\x1b[", "\x1b[38;5H µs \x1b[?25l\x1b["),
        ] {
            assert_eq!(written(&[asked]), plain);
        }
        assert_eq!(written(&["\x1b[3", "8;5", ";1m"]), "\x1b[31m", "in however many pieces");
    }

    #[test]
    fn nothing_goes_out_before_the_frame_is_whole() {
        let mut out = Vec::new();
        let mut output = Output::new(&mut out);
        output.write_all(b"half").expect("room");
        assert!(output.inner.is_empty());
        output.flush().and_then(|()| output.flush()).expect("room");
        assert_eq!(out, b"half", "and once");
    }
}
