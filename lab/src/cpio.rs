//! Archives that a kernel unpacks into its first file system (cpio in its "newc" form; the kernel's
//! Documentation/driver-api/early-userspace/buffer-format.rst).

use std::io::{self, Write};

const FOLDER: u32 = 0o040_000;
const FILE: u32 = 0o100_000;
const SYMLINK: u32 = 0o120_000;

/// Writes one archive. [`Writer::finish`] ends it.
pub(crate) struct Writer<W> {
    to: W,
    inode: u32,
}

impl<W: Write> Writer<W> {
    pub fn new(to: W) -> Self {
        Self { to, inode: 0 }
    }

    /// A folder; the folders above it come first.
    pub fn folder(&mut self, path: &[u8], mode: u32, owner: u32) -> io::Result<()> {
        self.entry(path, FOLDER | mode, owner, &[])
    }

    /// A file.
    pub fn file(&mut self, path: &[u8], mode: u32, owner: u32, contents: &[u8]) -> io::Result<()> {
        self.entry(path, FILE | mode, owner, contents)
    }

    /// A symbolic link.
    pub fn symlink(&mut self, path: &[u8], owner: u32, target: &[u8]) -> io::Result<()> {
        self.entry(path, SYMLINK | 0o777, owner, target)
    }

    /// Writes what ends the archive, and gives back what was written to.
    pub fn finish(mut self) -> io::Result<W> {
        self.entry(b"TRAILER!!!", 0, 0, &[])?;
        self.to.flush()?;
        Ok(self.to)
    }

    fn entry(&mut self, path: &[u8], mode: u32, owner: u32, contents: &[u8]) -> io::Result<()> {
        let too_long = |_| io::Error::new(io::ErrorKind::InvalidInput, "larger than a cpio archive can hold");
        let size = u32::try_from(contents.len()).map_err(too_long)?;
        let name = u32::try_from(path.len() + 1).map_err(too_long)?;
        self.inode += 1;
        // inode, mode, user, group, links, time, size, the device's two numbers, its own two, length of the name, sum
        let fields = [self.inode, mode, owner, owner, 1, 0, size, 0, 0, 0, 0, name, 0];
        let mut head = String::from("070701");
        for field in fields {
            head.push_str(&format!("{field:08x}"));
        }
        self.to.write_all(head.as_bytes())?;
        self.to.write_all(path)?;
        self.to.write_all(&[0])?;
        self.pad(head.len() + path.len() + 1)?;
        self.to.write_all(contents)?;
        self.pad(contents.len())
    }

    /// Names and contents are filled up to four bytes.
    fn pad(&mut self, length: usize) -> io::Result<()> {
        self.to.write_all(&[0; 3][..length.next_multiple_of(4) - length])
    }
}
