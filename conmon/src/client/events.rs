//! Reading the live stream: one JSON object a line, each line bounded.

use bytes::{Buf, BytesMut};
use http_body_util::BodyExt;
use hyper::body::Incoming;

use super::ClientError;
use super::place::Connection;
use crate::api::{Event, path};

/// The longest line that is read. An event is a few hundred bytes.
const LINE_LIMIT_BYTES: usize = 1 << 20;

/// The live stream of events. Dropping it ends the connection.
#[derive(Debug)]
pub struct EventStream {
    place: String,
    body: Incoming,
    buffer: BytesMut,
    _connection: Connection,
}

impl EventStream {
    pub(super) fn new(place: String, body: Incoming, connection: Connection) -> Self {
        Self { place, body, buffer: BytesMut::new(), _connection: connection }
    }

    /// The next event; `None` when the daemon has ended the stream. Safe to cancel: nothing that was read is lost.
    pub async fn next(&mut self) -> Result<Option<Event>, ClientError> {
        loop {
            while let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                let line = self.buffer.split_to(end);
                self.buffer.advance(1);
                // Empty lines keep an idle connection alive.
                if !line.trim_ascii().is_empty() {
                    return decode(&line).map(Some);
                }
            }
            if self.buffer.len() > LINE_LIMIT_BYTES {
                let target = path::EVENTS.to_owned();
                return Err(ClientError::TooLarge { target, limit_bytes: LINE_LIMIT_BYTES });
            }
            match self.body.frame().await {
                Some(Ok(frame)) => {
                    if let Some(data) = frame.data_ref() {
                        self.buffer.extend_from_slice(data);
                    }
                }
                Some(Err(source)) => {
                    let (place, target) = (self.place.clone(), path::EVENTS.to_owned());
                    return Err(ClientError::Broken { place, target, source: source.into() });
                }
                None if self.buffer.trim_ascii().is_empty() => return Ok(None),
                None => return decode(&std::mem::take(&mut self.buffer)).map(Some),
            }
        }
    }
}

fn decode(line: &[u8]) -> Result<Event, ClientError> {
    serde_json::from_slice(line)
        .map_err(|source| ClientError::Decode { target: path::EVENTS.to_owned(), source })
}
