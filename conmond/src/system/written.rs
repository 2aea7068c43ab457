//! A snapshot as the API answers it, piece by piece: an answer of a million pairs is larger than all that is held of them.

use bytes::Bytes;
use serde::Serialize;

use super::Snapshot;

/// Pieces are of so many octets, and one row more.
const PIECE: usize = 64 << 10;

impl Snapshot {
    /// The pieces of the answer in JSON, [`conmon::api::MatrixAnswer`].
    pub fn written(self) -> Written {
        Written { snapshot: self, at: At::Head }
    }
}

/// The pieces.
#[derive(Debug)]
pub struct Written {
    snapshot: Snapshot,
    at: At,
}

#[derive(Clone, Copy, Debug)]
enum At {
    Head,
    Row(usize),
    End,
}

impl Written {
    fn head(&self) -> serde_json::Result<Vec<u8>> {
        let mut piece = b"{\"generated_at\":".to_vec();
        write(&mut piece, &self.snapshot.generated_at)?;
        piece.extend_from_slice(b",\"hosts\":");
        write(&mut piece, &self.snapshot.hosts)?;
        piece.extend_from_slice(b",\"pairs\":[");
        Ok(piece)
    }

    /// Rows from a place on, and the place behind them.
    fn rows(&self, from: usize) -> serde_json::Result<(Vec<u8>, usize)> {
        let (mut piece, mut at) = (Vec::with_capacity(PIECE + 4096), from);
        for row in self.snapshot.matrix.pairs(from) {
            if at > 0 {
                piece.push(b',');
            }
            write(&mut piece, &row)?;
            at += 1;
            if piece.len() >= PIECE {
                break;
            }
        }
        Ok((piece, at))
    }
}

fn write(piece: &mut Vec<u8>, what: &impl Serialize) -> serde_json::Result<()> {
    serde_json::to_writer(piece, what)
}

impl Iterator for Written {
    type Item = serde_json::Result<Bytes>;

    fn next(&mut self) -> Option<Self::Item> {
        let piece = match self.at {
            At::Head => {
                self.at = At::Row(0);
                self.head()
            }
            At::Row(from) if from < self.snapshot.matrix.len() => self.rows(from).map(|(piece, next)| {
                self.at = At::Row(next);
                piece
            }),
            At::Row(_) => {
                self.at = At::End;
                Ok(b"]}\n".to_vec())
            }
            At::End => return None,
        };
        if piece.is_err() {
            self.at = At::End;
        }
        Some(piece.map(Bytes::from))
    }
}
