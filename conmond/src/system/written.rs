//! A snapshot as the API answers it, piece by piece: an answer of a million pairs is larger than all that is held of them.

use std::ops::Range;
use std::sync::Arc;

use anyhow::Context as _;
use bytes::Bytes;
use futures_util::stream::{self, Stream, StreamExt as _};
use serde::Serialize;

use super::{Snapshot, matrix};

/// Rows in a piece. A row is of some 2 KB where everything is known of it.
const ROWS: usize = 64;

impl Snapshot {
    /// The pieces of the answer in JSON, [`conmon::api::MatrixAnswer`]. As many as there are processors are made at a time, and no more
    /// before the first of them is taken.
    pub fn written(self) -> impl Stream<Item = anyhow::Result<Bytes>> + Send + 'static {
        let snapshot = Arc::new(self);
        let (head, len) = (snapshot.head(), snapshot.matrix.len());
        let at_once = std::thread::available_parallelism().map_or(1, usize::from);
        let rows = stream::iter((0..len).step_by(ROWS)).map(move |from| {
            let snapshot = snapshot.clone();
            tokio::task::spawn_blocking(move || snapshot.rows(from..len.min(from + ROWS)))
        });
        let rows = rows.buffered(at_once).map(|piece| piece.context("rows were not written")?);
        let end = Ok(Bytes::from_static(b"]}\n"));
        stream::iter([head]).chain(rows).chain(stream::iter([end]))
    }

    fn head(&self) -> anyhow::Result<Bytes> {
        let mut piece = b"{\"generated_at\":".to_vec();
        write(&mut piece, &self.generated_at)?;
        piece.extend_from_slice(b",\"hosts\":");
        write(&mut piece, &self.hosts)?;
        piece.extend_from_slice(b",\"pairs\":[");
        Ok(piece.into())
    }

    fn rows(&self, places: Range<usize>) -> anyhow::Result<Bytes> {
        let (mut piece, mut row) = (Vec::with_capacity(ROWS << 11), matrix::empty());
        for place in places {
            if place > 0 {
                piece.push(b',');
            }
            self.matrix.read(place, &mut row);
            write(&mut piece, &row)?;
        }
        Ok(piece.into())
    }
}

fn write(piece: &mut Vec<u8>, what: &impl Serialize) -> serde_json::Result<()> {
    serde_json::to_writer(piece, what)
}
