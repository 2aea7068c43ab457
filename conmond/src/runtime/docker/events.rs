//! The stream of events, kept up over lost connections.
//!
//! The engine keeps its last 256 events. On each connection we ask for those from a little before the last one we
//! saw, because they may be out of order by as much, and pass over what we have had. More than 256 may be lost while
//! we are away; the snapshot that follows [`EngineEvent::Connected`] makes up for them.

use std::collections::{HashSet, VecDeque};
use std::time::Duration;

use bollard::models::EventMessage;
use ippm::time::Timestamp;

use super::{ACT, Docker, answer, convert, filters, transport};
use crate::clock::{self, Wall};
use crate::runtime::{EngineEvent, RuntimeError};

/// How far before the last event the next connection begins.
const OVERLAP_NS: i64 = 2_000_000_000;
/// More than the engine keeps, so that it can repeat none that we have forgotten.
const REMEMBERED: usize = 1024;
/// So many lines one after the other that are no messages are no engine's.
const NONSENSE: usize = 100;
const WHAT: &str = "tell events";
/// Between attempts: doubled up to the second each time, the first again after a connection that brought an event.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(3));

impl Docker {
    /// Hands everything that happens to `sink`, for ever. See [`crate::runtime::Runtime::watch`].
    pub async fn watch(&self, mut sink: impl FnMut(EngineEvent) + Send) {
        let mut seen = Seen::default();
        // Where the first connection begins: now, by the engine's clock, which is this host's.
        let mut since = wall_ns();
        let mut backoff = BACKOFF.0;
        let mut told = None;
        loop {
            let error = match self.connect().await {
                Ok(version) => {
                    told = None;
                    sink(EngineEvent::Connected { version, at: clock::monotonic() });
                    let before = seen.count;
                    let error = self.read(since, &mut seen, &mut sink).await;
                    if seen.count > before {
                        backoff = BACKOFF.0;
                    }
                    error
                }
                Err(error) => error,
            };
            // Never back, even when the clock is set back: what is asked for twice is passed over.
            since = since.max(seen.latest_ns.saturating_sub(OVERLAP_NS));
            let text = sentence(&error);
            if told.as_ref() != Some(&text) {
                sink(EngineEvent::Disconnected { error: text.clone(), at: clock::monotonic() });
                told = Some(text);
            }
            tokio::time::sleep(backoff).await;
            backoff = (backoff * 2).min(BACKOFF.1);
        }
    }

    /// Reads one connection until it ends and tells why it did.
    async fn read(
        &self,
        since: i64,
        seen: &mut Seen,
        sink: &mut (impl FnMut(EngineEvent) + Send),
    ) -> RuntimeError {
        // A time to come, which a broken clock may have told, would hide what was told since.
        let since = since.min(wall_ns());
        let since = format!("{}.{:09}", since.div_euclid(1_000_000_000), since.rem_euclid(1_000_000_000));
        let kinds = filters("type", vec!["container".to_owned(), "network".to_owned()]);
        let (socket, path) = (self.socket(), format!("/events?since={since}&{kinds}"));
        let mut lines = match self.within(WHAT, ACT, transport::stream(&socket, &path)).await {
            Ok(lines) => lines,
            Err(error) => return error,
        };
        let mut nonsense: Option<(usize, String)> = None;
        loop {
            let line = match lines.next().await {
                Ok(Some(line)) => line,
                Ok(None) => break,
                Err(error) => return self.explain(WHAT, error),
            };
            match read(&line) {
                Ok(Some(message)) => {
                    nonsense = None;
                    let received = clock::monotonic();
                    if seen.is_new(&message) {
                        let told = seen.told(time_ns(&message), received, Wall::now());
                        if let Some(event) = convert::event(message, told, received) {
                            sink(event);
                        }
                    }
                }
                Ok(None) => {}
                // One such line is passed over: asked again, the engine would tell it again, and nothing behind it.
                Err(why) => {
                    tracing::warn!(why, "a line of the engine's events is no message");
                    let count = nonsense.take().map_or(0, |(count, _)| count) + 1;
                    nonsense = Some((count, why));
                    if count == NONSENSE {
                        break;
                    }
                }
            }
        }
        match nonsense {
            Some((_, why)) => RuntimeError::Nonsense { what: WHAT, why },
            None => RuntimeError::EventsEnded,
        }
    }
}

/// A message, none of a kind that we do not follow.
fn read(line: &[u8]) -> Result<Option<EventMessage>, String> {
    if line.trim_ascii().is_empty() {
        return Ok(None);
    }
    match serde_json::from_slice(line) {
        Ok(message) => Ok(Some(message)),
        Err(_) if answer::is_thing(line) => Ok(None),
        Err(error) => Err(answer::words(&error.to_string())),
    }
}

/// Which events we have had.
#[derive(Debug, Default)]
struct Seen {
    order: VecDeque<Identity>,
    all: HashSet<Identity>,
    /// The engine's latest time so far, in nanoseconds since 1970.
    latest_ns: i64,
    /// The same by our clock.
    latest: Timestamp,
    /// New ones so far.
    count: u64,
}

/// When, what, whose, and with whom. The engine never says the same twice in a nanosecond.
type Identity = (i64, String, String, String);

impl Seen {
    fn is_new(&mut self, message: &EventMessage) -> bool {
        let time = time_ns(message);
        let actor = message.actor.as_ref();
        let partner = actor.and_then(|a| a.attributes.as_ref()?.get("container").cloned());
        let identity = (
            time,
            message.action.clone().unwrap_or_default(),
            actor.and_then(|a| a.id.clone()).unwrap_or_default(),
            partner.unwrap_or_default(),
        );
        if !self.all.insert(identity.clone()) {
            return false;
        }
        self.order.push_back(identity);
        if self.order.len() > REMEMBERED
            && let Some(oldest) = self.order.pop_front()
        {
            self.all.remove(&oldest);
        }
        self.latest_ns = self.latest_ns.max(time.min(wall_ns()));
        self.count += 1;
        true
    }

    /// When a new event was told, by our clock. It was before we read it, and the engine tells in order, but for a little: if the
    /// host's clock was set while the event was on its way, its time means nothing, and these bounds do.
    fn told(&mut self, time_ns: i64, received: Timestamp, wall: Wall) -> Timestamp {
        let engine = jiff::Timestamp::from_nanosecond(time_ns.into()).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
        let not_before = self.latest.before(Duration::from_nanos(OVERLAP_NS.unsigned_abs()));
        let told = wall.monotonic(engine).max(not_before).min(received);
        self.latest = self.latest.max(told);
        told
    }
}

/// When the engine says it was, in nanoseconds since 1970.
fn time_ns(message: &EventMessage) -> i64 {
    message.time_nano.unwrap_or_else(|| message.time.unwrap_or(0).saturating_mul(1_000_000_000))
}

fn wall_ns() -> i64 {
    i64::try_from(jiff::Timestamp::now().as_nanosecond()).unwrap_or(i64::MAX)
}

/// An error with its reasons, as one line.
fn sentence(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(reason) = next {
        text = format!("{text}: {reason}");
        next = reason.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn message(ns: i64, action: &str, id: &str) -> EventMessage {
        serde_json::from_value(json!({"Action": action, "Actor": {"ID": id}, "timeNano": ns}))
            .expect("an event")
    }

    #[test]
    fn repeated_events_are_passed_over() {
        let mut seen = Seen::default();
        assert!(seen.is_new(&message(5, "start", "a")));
        assert!(seen.is_new(&message(5, "start", "b")));
        assert!(seen.is_new(&message(5, "die", "a")));
        assert!(seen.is_new(&message(4, "start", "a")), "late, not repeated");
        assert!(!seen.is_new(&message(5, "start", "a")));
        assert_eq!((seen.latest_ns, seen.count), (5, 4));
    }

    #[test]
    fn a_step_of_the_clock_moves_no_event_far() {
        const HOUR: u64 = 3_600_000_000_000;
        // Our clock began at 1,000 h after 1970.
        let wall = |step: i128| Wall::by_offset_ns(i128::from(1_000 * HOUR) + step);
        let utc = |at: u64| i64::try_from(1_000 * HOUR + at).unwrap();
        let step = i128::from(HOUR);
        let mut seen = Seen::default();
        let at = 10 * HOUR;
        assert_eq!(seen.told(utc(at), Timestamp(at + 5), wall(0)), Timestamp(at));
        // Set forward while it was on its way: it seems an hour old, and is not before the one before it.
        let told = seen.told(utc(at + 100), Timestamp(at + 105), wall(step));
        assert_eq!(told, Timestamp(at - OVERLAP_NS.unsigned_abs()));
        // Set back: it seems to come from the future, and was told before it was read.
        assert_eq!(seen.told(utc(at + 200), Timestamp(at + 205), wall(-step)), Timestamp(at + 205));
        // By the new time all is as before.
        let later = at + 300;
        let utc_later = utc(later) - i64::try_from(HOUR).unwrap();
        assert_eq!(seen.told(utc_later, Timestamp(later + 5), wall(-step)), Timestamp(later));
    }

    #[test]
    fn memory_is_bounded() {
        let mut seen = Seen::default();
        for ns in 0..5000 {
            assert!(seen.is_new(&message(ns, "start", "a")));
        }
        assert_eq!((seen.order.len(), seen.all.len()), (REMEMBERED, REMEMBERED));
        assert!(!seen.is_new(&message(4999, "start", "a")));
    }
}
