//! Opening a capture by name: a file or the standard input, decompressed if it is compressed.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

const GZIP: [u8; 2] = [0x1f, 0x8b];
const ZSTD: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

/// How far a file has been read.
#[derive(Debug, Clone, Default)]
pub struct Progress {
    read: Arc<AtomicU64>,
    size: Option<u64>,
}

impl Progress {
    /// The share of the file that has been read; `None` for what has no size.
    pub fn ratio(&self) -> Option<f64> {
        let size = self.size.filter(|size| *size > 0)?;
        Some((self.read.load(Ordering::Relaxed) as f64 / size as f64).min(1.0))
    }
}

struct Counted<R> {
    from: R,
    read: Arc<AtomicU64>,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.from.read(buffer)?;
        self.read.fetch_add(count as u64, Ordering::Relaxed);
        Ok(count)
    }
}

/// Opens a file, or the standard input for `-`. Compression is told by the first octets, not by the name.
pub fn open(path: &Path) -> io::Result<(Box<dyn Read>, Progress)> {
    if path.as_os_str() == "-" {
        let progress = Progress::default();
        let from = Counted { from: io::stdin().lock(), read: Arc::clone(&progress.read) };
        return Ok((decompress(from)?, progress));
    }
    let file = File::open(path)?;
    let metadata = file.metadata()?;
    if metadata.is_dir() {
        return Err(io::Error::from(io::ErrorKind::IsADirectory));
    }
    let progress = Progress { size: metadata.is_file().then_some(metadata.len()), ..Progress::default() };
    let from = Counted { from: file, read: Arc::clone(&progress.read) };
    Ok((decompress(from)?, progress))
}

/// What a stream holds, decompressed if its first octets say that it is compressed.
pub fn decompress<R: Read + 'static>(from: R) -> io::Result<Box<dyn Read>> {
    let mut from = BufReader::with_capacity(256 << 10, from);
    let head = from.fill_buf()?;
    if head.starts_with(&GZIP) {
        return Ok(Box::new(Decoded {
            from: flate2::bufread::MultiGzDecoder::new(Sips(from)),
            format: "gzip",
        }));
    }
    if head.starts_with(&ZSTD) {
        return Ok(Box::new(Decoded { from: Zstd { state: Some(State::Between(from)) }, format: "zstd" }));
    }
    // What was looked at, then the stream itself: its reader asks for as much at once as the buffer held.
    let head = io::Cursor::new(head.to_vec());
    Ok(Box::new(head.chain(from.into_inner())))
}

/// At most so much is asked of a decoder at once: what it had decoded when it met damage is lost with it.
const DECODED_AT_ONCE: usize = 4 << 10;
/// And at most so much is given to the decoder of gzip, which decodes ahead all that it is given.
const GIVEN_AT_ONCE: usize = 64;

/// Gives little at a time.
struct Sips<R>(R);

impl<R: io::BufRead> Read for Sips<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }
}

impl<R: io::BufRead> io::BufRead for Sips<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        let all = self.0.fill_buf()?;
        Ok(&all[..all.len().min(GIVEN_AT_ONCE)])
    }

    fn consume(&mut self, amount: usize) {
        self.0.consume(amount);
    }
}

/// A decoder whose errors say whose they are, in one line.
struct Decoded<R> {
    from: R,
    format: &'static str,
}

impl<R: Read> Read for Decoded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = buffer.len().min(DECODED_AT_ONCE);
        self.from.read(&mut buffer[..most]).map_err(|error| {
            if error.kind() == io::ErrorKind::Interrupted {
                return error;
            }
            let what = error.to_string().replace(['\n', '\r'], " ");
            io::Error::new(
                error.kind(),
                format!("its {} data end early or are damaged ({what})", self.format),
            )
        })
    }
}

/// All frames of a zstd stream, one after another, as the command line tools write and read them.
struct Zstd<R: Read> {
    state: Option<State<R>>,
}

enum State<R: Read> {
    Between(R),
    Frame(Box<ruzstd::decoding::StreamingDecoder<R, ruzstd::decoding::FrameDecoder>>),
}

impl<R: io::BufRead> Read for Zstd<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.state.take() {
                None => return Ok(0),
                Some(State::Between(mut from)) => {
                    if from.fill_buf()?.is_empty() {
                        return Ok(0);
                    }
                    let decoder = ruzstd::decoding::StreamingDecoder::new(from).map_err(io::Error::other)?;
                    self.state = Some(State::Frame(Box::new(decoder)));
                }
                Some(State::Frame(mut decoder)) => match decoder.read(buffer)? {
                    0 => self.state = Some(State::Between(decoder.into_inner())),
                    count => {
                        self.state = Some(State::Frame(decoder));
                        return Ok(count);
                    }
                },
            }
        }
    }
}
