//! What the controller's thread is told, in the order in which it takes it: link messages first, since a port must be tapped
//! before its container's process runs, whatever else there is to do.

use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use super::Event;
use crate::switch::LinkEvent;

pub(super) struct Inbox {
    events: Receiver<Event>,
    links: VecDeque<LinkEvent>,
    others: VecDeque<Event>,
}

impl Inbox {
    pub(super) fn new(events: Receiver<Event>) -> Self {
        Self { events, links: VecDeque::new(), others: VecDeque::new() }
    }

    /// Waits for something, but not longer than this. It is over when somebody said so, or nobody is left who could tell.
    pub(super) fn next(&mut self, patience: Duration) -> ControlFlow<(), Option<Event>> {
        self.look();
        if self.links.is_empty() && self.others.is_empty() {
            match self.events.recv_timeout(patience) {
                Ok(event) => self.sort(event),
                Err(RecvTimeoutError::Timeout) => return ControlFlow::Continue(None),
                Err(RecvTimeoutError::Disconnected) => return ControlFlow::Break(()),
            }
        }
        if let Some(link) = self.links.pop_front() {
            return ControlFlow::Continue(Some(Event::Link(link)));
        }
        match self.others.pop_front() {
            Some(Event::Stop) | None => ControlFlow::Break(()),
            Some(event) => ControlFlow::Continue(Some(event)),
        }
    }

    /// Whether nothing waits.
    pub(super) fn is_empty(&mut self) -> bool {
        self.look();
        self.links.is_empty() && self.others.is_empty()
    }

    fn look(&mut self) {
        while let Ok(event) = self.events.try_recv() {
            self.sort(event);
        }
    }

    fn sort(&mut self, event: Event) {
        match event {
            Event::Link(link) => self.links.push_back(link),
            other => self.others.push_back(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use ippm::time::Timestamp;

    use super::*;
    use crate::mc::world::SetId;

    #[test]
    fn link_messages_come_first_and_each_kind_in_its_order() {
        let (sender, receiver) = channel();
        let mut inbox = Inbox::new(receiver);
        let link =
            |ifindex| Event::Link(LinkEvent::Del { ifindex, name: String::new(), at: Timestamp::ZERO });
        for event in [Event::Settled(SetId(1)), link(7), Event::Settled(SetId(2)), link(8), Event::Stop] {
            assert!(sender.send(event).is_ok());
        }
        assert!(!inbox.is_empty());
        let mut seen = Vec::new();
        loop {
            match inbox.next(Duration::ZERO) {
                ControlFlow::Continue(Some(Event::Link(LinkEvent::Del { ifindex, .. }))) => {
                    seen.push(format!("link {ifindex}"))
                }
                ControlFlow::Continue(Some(Event::Settled(set))) => seen.push(set.to_string()),
                ControlFlow::Break(()) => break,
                _ => seen.push("something else".to_owned()),
            }
        }
        assert_eq!(seen, ["link 7", "link 8", "s1", "s2"]);
        assert!(matches!(inbox.next(Duration::from_millis(1)), ControlFlow::Continue(None)));
        drop(sender);
        assert!(matches!(inbox.next(Duration::from_secs(9)), ControlFlow::Break(())));
    }
}
