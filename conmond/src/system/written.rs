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

/// So many octets and one row are the most in a piece.
const PIECE: usize = 1 << 20;

impl Snapshot {
    /// The pieces of the answer in JSON, [`conmon::api::MatrixAnswer`]. As many as there are processors are made at a time, and no more
    /// before the first of them is taken.
    pub fn written(self) -> impl Stream<Item = anyhow::Result<Bytes>> + Send + 'static {
        let snapshot = Arc::new(self);
        let (head, len) = (snapshot.head(), snapshot.matrix.len());
        let at_once = std::thread::available_parallelism().map_or(1, usize::from);
        let make = move |places: Range<usize>| {
            let snapshot = snapshot.clone();
            tokio::task::spawn_blocking(move || snapshot.rows(places))
        };
        let ranges = stream::iter((0..len).step_by(ROWS)).map(move |from| from..len.min(from + ROWS));
        let rows = ranges.map(make.clone()).buffered(at_once).flat_map(move |made| {
            // of rows that are very long the rest is made when it is asked for
            let make = make.clone();
            stream::unfold(Some(made), move |made| {
                let make = make.clone();
                async move {
                    let (piece, rest) = match made?.context("rows were not written").flatten() {
                        Ok((piece, rest)) => (Ok(piece), rest),
                        Err(error) => (Err(error), 0..0),
                    };
                    let more = if rest.is_empty() { None } else { Some(make(rest).await) };
                    Some((piece, more))
                }
            })
        });
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

    /// A piece of rows, and which of them are left.
    fn rows(&self, mut places: Range<usize>) -> anyhow::Result<(Bytes, Range<usize>)> {
        let (mut piece, mut row) = (Vec::with_capacity(ROWS << 11), matrix::empty());
        while piece.len() < PIECE
            && let Some(place) = places.next()
        {
            if place > 0 {
                piece.push(b',');
            }
            self.matrix.read(place, &mut row);
            write(&mut piece, &row)?;
        }
        Ok((piece.into(), places))
    }
}

fn write(piece: &mut Vec<u8>, what: &impl Serialize) -> serde_json::Result<()> {
    serde_json::to_writer(piece, what)
}

#[cfg(test)]
mod tests {
    use conmon::api::{MatrixAnswer, MatrixQuery};

    use super::*;
    use crate::system::sheet::tests::{answer, one_pair};
    use crate::system::{Matrix, Sheet};

    /// So many rows, whose src has so many addresses: what is written of them, read again, and in how many pieces it came.
    async fn written(rows: usize, addresses: u32) -> (MatrixAnswer, usize) {
        let told = (0..rows).map(|i| {
            let mut pair = one_pair();
            pair.src.name = format!("web-{i}");
            pair.src.addresses = (0..addresses).map(|i| std::net::Ipv4Addr::from(i).into()).collect();
            pair
        });
        let mut matrix = Matrix::default();
        matrix.add("h", Sheet::of(&answer(told.collect())).unwrap());
        let matrix = matrix.select(&MatrixQuery::default());
        let snapshot = Snapshot { generated_at: jiff::Timestamp::UNIX_EPOCH, hosts: Vec::new(), matrix };
        let pieces: Vec<Bytes> = snapshot.written().map(Result::unwrap).collect().await;
        (serde_json::from_slice(&pieces.concat()).unwrap(), pieces.len())
    }

    #[tokio::test]
    async fn any_number_of_rows_is_one_answer() {
        for rows in [0, 1, ROWS - 1, ROWS, ROWS + 1, 3 * ROWS + 7] {
            let (answer, pieces) = written(rows, 1).await;
            let mut names: Vec<String> = answer.pairs.into_iter().map(|row| row.pair.src.name).collect();
            names.sort_by_key(|name| name[4..].parse::<usize>().unwrap());
            assert!((0..rows).map(|i| format!("web-{i}")).eq(names), "{rows}");
            assert_eq!(pieces, 2 + rows.div_ceil(ROWS));
        }
    }

    #[tokio::test]
    async fn a_piece_of_long_rows_is_not_much_longer_than_others() {
        let (answer, pieces) = written(70, 10_000).await;
        assert!(
            answer.pairs.len() == 70 && answer.pairs.iter().all(|row| row.pair.src.addresses.len() == 10_000)
        );
        // some 100 KB a row
        assert!(pieces > 7, "{pieces}");
    }
}
