//! Listens to link messages on a thread of its own.

use std::io;

use ippm::time::Timestamp;
use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{Socket, SocketAddr};

use super::wire::{self, RTM_DELLINK, RTM_NEWLINK};
use super::{LinkEvent, SwitchError};
use crate::netlink::{Listener, Message, Told, When};

/// Room for the kernel's queue: about 4000 link messages, which 200 containers starting at once do not fill.
const RECEIVE_BUFFER_BYTES: usize = 8 << 20;

/// A running listener. Dropping it ends its thread.
#[derive(Debug)]
pub struct LinkListener {
    _listener: Listener,
}

impl LinkListener {
    /// Starts to listen in the calling thread's network namespace. Everything that happens after this returns is
    /// reported, so ask [`super::LinkQuery::links`] for what is there *after* it.
    ///
    /// `sink` runs on the listener's thread and must be quick: while it runs, the kernel queues, and at last drops.
    pub fn start(mut sink: impl FnMut(LinkEvent) + Send + 'static) -> Result<LinkListener, SwitchError> {
        let step = |step| move |source: io::Error| SwitchError::Open { step, source };
        let mut socket = Socket::new(NETLINK_ROUTE).map_err(step("socket"))?;
        socket.bind(&SocketAddr::new(0, wire::GROUP_LINK)).map_err(step("joining the link group"))?;
        let sink = move |told: Told<'_>, When { read: at, .. }| match told {
            Told::Message(message) => {
                if let Some(event) = event(&message, at) {
                    sink(event);
                }
            }
            Told::Overrun => sink(LinkEvent::Overrun { at }),
        };
        // this thread comes as early as the one that starts it
        let listener = Listener::start("link-listener", || {}, socket, RECEIVE_BUFFER_BYTES, sink)
            .map_err(step("listening"))?;
        Ok(LinkListener { _listener: listener })
    }
}

fn event(message: &Message<'_>, at: Timestamp) -> Option<LinkEvent> {
    match message.kind {
        RTM_NEWLINK => Some(LinkEvent::New { link: wire::link(message.body)?, at }),
        RTM_DELLINK => {
            let link = wire::link(message.body)?;
            Some(LinkEvent::Del { ifindex: link.ifindex, name: link.name, at })
        }
        _ => None,
    }
}
