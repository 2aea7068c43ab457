//! The live stream. A reader that cannot keep up loses events and is told how many; nothing waits for it, and no more
//! is held for it than one chunk: what it has not read stays in the channel that all readers share.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use conmon::api::{Event, EventKind, EventsQuery};
use futures_util::stream;
use jiff::Timestamp;
use tokio::sync::broadcast::error::{RecvError, TryRecvError};
use tokio::sync::{OwnedSemaphorePermit, broadcast, watch};

use super::server::finished;
use super::source::Seen;
use crate::scope::Scope;

/// An idle stream gets an empty line this often, so that both sides notice when the other is gone.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// Events are sent together up to about this many bytes.
const CHUNK_BYTES: usize = 16 << 10;

struct EventBody {
    scope: Scope,
    query: EventsQuery,
    recent: VecDeque<Arc<Event>>,
    live: Option<broadcast::Receiver<Arc<Event>>>,
    /// Sequence number of the newest event that was sent, passed over or reported missing.
    seen: u64,
    shutdown: watch::Receiver<bool>,
    /// The reader's place among the streams, free again when the stream is dropped.
    _place: OwnedSemaphorePermit,
}

/// The body of an answer to `query`: lines of JSON until there is nothing more, or the daemon ends.
pub(super) fn body(
    seen: Seen,
    query: EventsQuery,
    shutdown: watch::Receiver<bool>,
    place: OwnedSemaphorePermit,
) -> Body {
    let follow = query.follow.unwrap_or(false);
    let state = EventBody {
        scope: seen.scope,
        query,
        recent: seen.all.recent.into(),
        live: follow.then_some(seen.all.live),
        seen: 0,
        shutdown,
        _place: place,
    };
    Body::from_stream(stream::unfold(state, async |mut state| {
        let chunk = state.next_chunk().await?;
        Some((Ok::<_, Infallible>(chunk), state))
    }))
}

impl EventBody {
    async fn next_chunk(&mut self) -> Option<Bytes> {
        let mut chunk = Vec::new();
        while chunk.len() < CHUNK_BYTES {
            let Some(event) = self.recent.pop_front() else { break };
            self.add(&event, &mut chunk);
        }
        while chunk.is_empty() {
            let live = self.live.as_mut()?;
            let received = tokio::select! {
                () = finished(&mut self.shutdown) => return None,
                received = tokio::time::timeout(KEEP_ALIVE, live.recv()) => received,
            };
            match received {
                Err(_) => chunk.push(b'\n'),
                Ok(Ok(event)) => self.add(&event, &mut chunk),
                Ok(Err(RecvError::Lagged(missed))) => self.tell_missed(missed, &mut chunk),
                Ok(Err(RecvError::Closed)) => return None,
            }
        }
        // What is there already goes along.
        while self.recent.is_empty() && chunk.len() < CHUNK_BYTES {
            let Some(live) = self.live.as_mut() else { break };
            match live.try_recv() {
                Ok(event) => self.add(&event, &mut chunk),
                Err(TryRecvError::Lagged(missed)) => self.tell_missed(missed, &mut chunk),
                Err(TryRecvError::Empty | TryRecvError::Closed) => break,
            }
        }
        Some(chunk.into())
    }

    fn add(&mut self, event: &Event, chunk: &mut Vec<u8>) {
        // One that was both among the recent and the live ones.
        if event.sequence <= self.seen && self.seen > 0 {
            return;
        }
        self.seen = event.sequence;
        if self.scope.admits_event(event) && self.query.admits(event) {
            write_line(event, chunk);
        }
    }

    fn tell_missed(&mut self, missed: u64, chunk: &mut Vec<u8>) {
        self.seen = self.seen.saturating_add(missed);
        let event = Event {
            sequence: self.seen,
            time: Timestamp::now(),
            kind: EventKind::Dropped,
            // they are counted before anybody looks whose they are
            text: match self.scope.tenant() {
                None => format!("{missed} events are missing here: this reader was too slow"),
                Some(_) => format!(
                    "of {missed} events on this host that are missing here some may have been yours: this reader was too slow"
                ),
            },
            container: None,
            tenant: None,
            network: None,
            interface: None,
            monitor: None,
            after_seconds: None,
            dropped: Some(missed),
        };
        write_line(&event, chunk);
    }
}

fn write_line(event: &Event, chunk: &mut Vec<u8>) {
    // Into memory, plain data with text keys: neither can fail. Half a line is not sent in any case.
    let begin = chunk.len();
    match serde_json::to_writer(&mut *chunk, event) {
        Ok(()) => chunk.push(b'\n'),
        Err(_) => chunk.truncate(begin),
    }
}
