//! The journal: ended pairs, one JSON object a line, so that totals outlive the daemon.
//!
//! A record is appended before the kernel frees its slot. If the daemon dies in between, the record is found both in the
//! kernel and here; the kernel's is the one that counts, so the reader leaves out records whose slot is still
//! alive. Bounded by rewriting without what the store forgot.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Write};
use std::path::{Path, PathBuf};

use super::{PairLife, RetiredPair};

/// The journal cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("cannot {what} {}: totals of ended pairs will not outlive the daemon; check space and permissions", path.display())]
pub struct JournalError {
    /// What was tried.
    pub what: &'static str,
    /// The file.
    pub path: PathBuf,
    /// Why not.
    #[source]
    pub source: io::Error,
}

/// The open journal.
pub struct Journal {
    path: PathBuf,
    file: File,
}

impl Journal {
    /// Reads what is there and opens the file for more. Lines that cannot be read (the last one, cut by a crash) are
    /// counted.
    pub fn open(
        path: &Path,
        is_alive: impl Fn(&PairLife) -> bool,
    ) -> Result<(Self, Vec<RetiredPair>, usize), JournalError> {
        let failed = |what| move |source| JournalError { what, path: path.to_owned(), source };
        let (mut records, mut damaged, mut skipped) = (Vec::new(), 0, 0);
        match File::open(path) {
            Ok(file) => {
                for line in BufReader::new(file).split(b'\n') {
                    let line = line.map_err(failed("read"))?;
                    match serde_json::from_slice::<RetiredPair>(&line) {
                        Ok(record) if is_alive(&record.life) => skipped += 1,
                        Ok(record) => records.push(record),
                        Err(_) if line.is_empty() => {}
                        Err(_) => damaged += 1,
                    }
                }
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(failed("read")(e)),
        }
        let file = OpenOptions::new().create(true).append(true).open(path).map_err(failed("open"))?;
        let mut journal = Self { path: path.to_owned(), file };
        if damaged > 0 || skipped > 0 {
            journal.rewrite(&records)?;
        }
        Ok((journal, records, damaged))
    }

    /// Appends records; they are in the kernel's hands, safe from the daemon's death, on return.
    pub fn append(&mut self, records: &[RetiredPair]) -> Result<(), JournalError> {
        let mut text = Vec::new();
        for record in records {
            // a measurement serialises: it holds numbers and names only
            if serde_json::to_writer(&mut text, record).is_ok() {
                text.push(b'\n');
            }
        }
        self.file.write_all(&text).map_err(|source| JournalError {
            what: "append to",
            path: self.path.clone(),
            source,
        })
    }

    /// Writes the file anew with these records only.
    pub fn rewrite(&mut self, records: &[RetiredPair]) -> Result<(), JournalError> {
        let next = self.path.with_extension("next");
        let failed = |what, path: &Path| {
            let path = path.to_owned();
            move |source| JournalError { what, path, source }
        };
        self.file = OpenOptions::new()
            .create(true)
            .write(true)
            .truncate(true)
            .open(&next)
            .map_err(failed("write", &next))?;
        self.append(records)?;
        tap::fault::point("journal.written");
        fs::rename(&next, &self.path).map_err(failed("replace", &self.path))
    }
}
