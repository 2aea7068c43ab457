//! What the controller's thread is told, in the order in which it takes it: link messages and taps first, since a port must be tapped
//! before its container's process runs, whatever else there is to do; then what names a port or tells of a stop.

use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use super::Event;
use crate::mc::tapper;

pub(super) struct Inbox {
    events: Receiver<Event>,
    /// Links and taps; the engine's word and the surveyor's; all others.
    queues: [VecDeque<Event>; 3],
}

impl Inbox {
    pub(super) fn new(events: Receiver<Event>) -> Self {
        Self { events, queues: Default::default() }
    }

    /// Waits for something, but not longer than this. It is over when somebody said so, or nobody is left who could tell.
    pub(super) fn next(&mut self, patience: Duration) -> ControlFlow<(), Option<Event>> {
        if self.is_empty() {
            match self.events.recv_timeout(patience) {
                Ok(event) => self.sort(event),
                Err(RecvTimeoutError::Timeout) => return ControlFlow::Continue(None),
                Err(RecvTimeoutError::Disconnected) => return ControlFlow::Break(()),
            }
        }
        match self.queues.iter_mut().find_map(VecDeque::pop_front) {
            Some(Event::Stop) | None => ControlFlow::Break(()),
            event => ControlFlow::Continue(event),
        }
    }

    /// What the engine has told, if it is that that is next.
    pub(super) fn next_word(&mut self) -> Option<Event> {
        self.look();
        let [first, second, _] = &mut self.queues;
        first.is_empty().then(|| second.pop_front_if(|event| event.is_word()))?
    }

    /// Whether nothing waits.
    pub(super) fn is_empty(&mut self) -> bool {
        self.look();
        self.queues.iter().all(VecDeque::is_empty)
    }

    /// Taps that wait; all else is dropped.
    pub(super) fn tapped(&mut self) -> Vec<tapper::Done> {
        self.look();
        let all = self.queues.iter_mut().flat_map(std::mem::take);
        let tapped = |event| match event {
            Event::Tapped(done) => Some(*done),
            _ => None,
        };
        all.filter_map(tapped).collect()
    }

    fn look(&mut self) {
        while let Ok(event) = self.events.try_recv() {
            self.sort(event);
        }
    }

    fn sort(&mut self, event: Event) {
        let class = match event {
            Event::Link(_) | Event::Tapped(_) => 0,
            Event::Engine(_) | Event::Found(_) => 1,
            _ => 2,
        };
        self.queues[class].push_back(event);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use ippm::time::Timestamp;

    use super::*;
    use crate::mc::engine::Answer;
    use crate::mc::surveyor::Found;
    use crate::mc::world::SetId;
    use crate::runtime::{EngineEvent, EventTime};
    use crate::switch::LinkEvent;

    #[test]
    fn link_messages_come_first_and_each_kind_in_its_order() {
        let (sender, receiver) = channel();
        let mut inbox = Inbox::new(receiver);
        let link =
            |ifindex| Event::Link(LinkEvent::Del { ifindex, name: String::new(), at: Timestamp::ZERO });
        let found = |ifindex| Event::Found(Found::Stats(ifindex, Ok(None)));
        let (one, two) = (Event::Settled(SetId(1)), Event::Settled(SetId(2)));
        for event in [one, found(7), link(7), two, link(8), found(8), Event::Stop] {
            assert!(sender.send(event).is_ok());
        }
        assert!(!inbox.is_empty());
        let mut seen = Vec::new();
        loop {
            match inbox.next(Duration::ZERO) {
                ControlFlow::Continue(Some(Event::Link(LinkEvent::Del { ifindex, .. }))) => {
                    seen.push(format!("link {ifindex}"))
                }
                ControlFlow::Continue(Some(Event::Found(Found::Stats(ifindex, _)))) => {
                    seen.push(format!("found {ifindex}"))
                }
                ControlFlow::Continue(Some(Event::Settled(set))) => seen.push(set.to_string()),
                ControlFlow::Break(()) => break,
                _ => seen.push("something else".to_owned()),
            }
        }
        assert_eq!(seen, ["link 7", "link 8", "found 7", "found 8", "s1", "s2"]);
        assert!(matches!(inbox.next(Duration::from_millis(1)), ControlFlow::Continue(None)));
        drop(sender);
        assert!(matches!(inbox.next(Duration::from_secs(9)), ControlFlow::Break(())));
    }

    #[test]
    fn words_of_the_engine_are_taken_together_but_not_before_a_link_or_over_another_answer() {
        let (sender, receiver) = channel();
        let mut inbox = Inbox::new(receiver);
        let at = EventTime {
            engine: jiff::Timestamp::UNIX_EPOCH,
            received: Timestamp::ZERO,
            told: Timestamp::ZERO,
        };
        let word = |name: &str| {
            Event::Engine(Answer::Event(EngineEvent::NetworkRemoved {
                network_id: name.to_owned(),
                network_name: name.to_owned(),
                at,
            }))
        };
        let link = Event::Link(LinkEvent::Del { ifindex: 7, name: String::new(), at: Timestamp::ZERO });
        let id = |event: Option<Event>| match event {
            Some(Event::Engine(Answer::Event(EngineEvent::NetworkRemoved { network_id, .. }))) => network_id,
            None => "nothing".to_owned(),
            Some(_) => "something else".to_owned(),
        };
        for event in [word("a"), word("b"), Event::Found(Found::Stats(7, Ok(None))), word("c")] {
            assert!(sender.send(event).is_ok());
        }
        assert_eq!(
            [id(inbox.next_word()), id(inbox.next_word()), id(inbox.next_word())],
            ["a", "b", "nothing"]
        );
        assert!(inbox.next(Duration::ZERO).is_continue(), "the answer between them");
        assert!(sender.send(link).is_ok());
        assert_eq!(id(inbox.next_word()), "nothing", "a port must not wait");
        assert!(inbox.next(Duration::ZERO).is_continue());
        assert_eq!(id(inbox.next_word()), "c");
    }
}
