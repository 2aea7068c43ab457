//! The steps by which far ends are found and lost, for whoever asks to see them: `CONMON_LOG_FILTER=info,discovery=trace` logs each as
//! it happens, with its time on the clock that never steps, which conmonds of one machine share. Without the filter a step costs a comparison.
//!
//! The names of steps and fields are relied on: docs/hosts.md shows a run that the lab has drawn from them.

use std::net::{IpAddr, SocketAddr};

use conmon::api::Conversation;
use ippm::flow::FlowKey;
use ippm::measurement::{FlowEvent, FlowEventKind};
use ippm::time::Timestamp;

use crate::clock::monotonic;
use crate::nat::{RemoteEnd, Seen};
use crate::registry::{Answer, EndpointRow, keys};

/// Logs a step, and when it happened in nanoseconds.
macro_rules! step {
    ($step:literal, $at_ns:expr $(, $($field:tt)+)?) => {
        tracing::trace!(target: "discovery", step = $step, at_ns = $at_ns $(, $($field)+)?)
    };
}
pub(crate) use step;

/// What a monitor told of a flow's beginning or end, which it had read from the kernel at `read_at`.
pub(crate) fn flow(event: &FlowEvent, read_at: Timestamp) {
    let near = |key: &FlowKey| SocketAddr::new(key.local, key.local_port);
    let far = |key: &FlowKey| SocketAddr::new(key.remote, key.remote_port);
    match event.kind {
        FlowEventKind::New => step!(
            "flow_begun",
            monotonic().as_nanos(),
            near = %near(&event.key),
            far = %far(&event.key),
            first_packet_ns = event.first_seen.as_nanos(),
            read_ns = read_at.as_nanos(),
        ),
        FlowEventKind::End(reason) => step!(
            "flow_ended",
            monotonic().as_nanos(),
            near = %near(&event.key),
            far = %far(&event.key),
            %reason,
            last_packet_ns = event.last_seen.as_nanos(),
            ended_ns = event.time.as_nanos(),
            read_ns = read_at.as_nanos(),
        ),
    }
}

/// Another host is asked for its end of a conversation, and told of this host's.
pub(crate) fn ends_asked(host: &str, of: &Conversation) {
    step!(
        "ends_asked",
        monotonic().as_nanos(),
        host,
        near = %of.asker.name,
        opener = %SocketAddr::new(of.opener.address, of.opener.port),
        called = %SocketAddr::new(of.called.address, of.called.port),
    );
}

/// The far end of a conversation as it is seen here is known.
pub(crate) fn named(seen: &Seen, end: &RemoteEnd) {
    step!(
        "far_end_named",
        monotonic().as_nanos(),
        near = %SocketAddr::from(seen.near),
        far = %SocketAddr::from(seen.far),
        end = %end_at(end),
    );
}

/// An address's owner is known; who asks is shown the name from this turn's end on, some microseconds later.
pub(crate) fn address_named(address: IpAddr, end: &RemoteEnd) {
    step!("far_end_named", monotonic().as_nanos(), %address, end = %end_at(end));
}

/// The registry has answered.
pub(crate) fn registry_answered(address: IpAddr, answer: Option<&Answer>) {
    let candidates = || answer.into_iter().flat_map(|answer| &answer.candidates);
    let who = || candidates().map(|c| of_row(&c.row)).collect::<Vec<_>>().join(", ");
    step!("registry_answered", monotonic().as_nanos(), %address, who = who());
}

fn end_at(end: &RemoteEnd) -> String {
    format!("{} of {}", end.name, end.host)
}

fn of_row(row: &EndpointRow) -> String {
    format!("{} of {}", row.container, row.host)
}

/// What a change of a registry's key says of an address; none of any other key.
pub(crate) fn row(key: &str, value: Option<&[u8]>) -> Option<String> {
    let id = keys::parse_endpoint(key)?;
    let Some(value) = value else {
        return Some(format!("{} tells of {} no more", id.host, id.address));
    };
    let row = keys::endpoint_row(key, value).ok()?;
    let has = if row.until_ns.is_some() { "had" } else { "has" };
    Some(format!("{} {has} {}", of_row(&row), row.address))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::rows::tests::endpoint;

    #[test]
    fn a_row_is_said_in_words() {
        let says = |until| {
            let row = endpoint("west", "web", "10.0.0.1", 5, until);
            super::row(&keys::endpoint(&row.id()), Some(&row.encode()))
        };
        assert_eq!(says(None).as_deref(), Some("web of west has 10.0.0.1"));
        assert_eq!(says(Some(9)).as_deref(), Some("web of west had 10.0.0.1"));
        let key = keys::endpoint(&endpoint("west", "web", "10.0.0.1", 5, None).id());
        assert_eq!(super::row(&key, None).as_deref(), Some("west tells of 10.0.0.1 no more"));
        assert_eq!(super::row(&keys::host("west"), Some(b"{}")), None);
        assert_eq!(super::row(&key, Some(b"nonsense")), None);
    }
}
