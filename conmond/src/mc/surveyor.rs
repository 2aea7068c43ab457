//! The threads that ask the kernel about links what must not keep the controller waiting. Some questions wait for the kernel's lock for
//! network devices, which others hold for milliseconds while containers start and end: those have a thread of their own, so
//! that the others, of which names depend, need not wait with them.

use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;

use super::world::FarEnd;
use crate::switch::{HostAddress, LinkQuery, LinkStats, Namespaces, Peer, SwitchError};

/// Something to ask about a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Question {
    /// Its far end.
    FarEnd {
        /// The port.
        ifindex: u32,
        /// Our number for the far end's namespace; none for our own.
        netnsid: Option<i32>,
        /// The far end's ifindex there.
        peer: u32,
        /// Its Ethernet address, too, for which the lock is needed.
        whole: bool,
    },
    /// Its counters, which bound what passed before it was tapped.
    Stats {
        /// The port.
        ifindex: u32,
    },
    /// The host's own addresses: of no port.
    HostAddresses,
}

impl Question {
    /// Whether the kernel's lock for network devices is needed.
    fn is_slow(self) -> bool {
        match self {
            Self::FarEnd { whole, .. } => whole,
            Self::Stats { .. } | Self::HostAddresses => true,
        }
    }
}

/// What the kernel says.
#[derive(Debug)]
pub enum Found {
    /// Of the port with this ifindex: its far end; none if that is gone (again).
    FarEnd(u32, Result<Option<FarEnd>, SwitchError>),
    /// Of the port with this ifindex: its counters; none if it is gone.
    Stats(u32, Result<Option<LinkStats>, SwitchError>),
    /// The host's own addresses.
    HostAddresses(Result<Vec<HostAddress>, SwitchError>),
}

/// The running threads.
pub struct Surveyor {
    quick: Asked,
    slow: Asked,
}

impl Surveyor {
    /// Starts the threads, in the caller's network namespace, beside which these are watched; `tell` gets every answer.
    pub fn start(
        namespaces: &Namespaces,
        tell: impl Fn(Found) + Clone + Send + 'static,
    ) -> anyhow::Result<Self> {
        Ok(Self {
            quick: Asked::start("surveyor", namespaces, tell.clone())?,
            slow: Asked::start("surveyor-slow", namespaces, tell)?,
        })
    }

    /// Asks; it never waits.
    pub fn ask(&self, question: Question) {
        let asked = if question.is_slow() { &self.slow } else { &self.quick };
        if let Some(questions) = &asked.questions {
            // the thread ends only after this sender went
            let _ = questions.send(question);
        }
    }
}

/// One of the threads.
struct Asked {
    questions: Option<Sender<Question>>,
    thread: Option<JoinHandle<()>>,
}

impl Asked {
    fn start(
        name: &str,
        namespaces: &Namespaces,
        tell: impl Fn(Found) + Send + 'static,
    ) -> anyhow::Result<Self> {
        let (questions, inbox) = channel();
        let mut query = LinkQuery::open(namespaces.clone())?;
        let thread = std::thread::Builder::new().name(name.into()).spawn(move || {
            for question in inbox {
                tell(answer(question, &mut query));
            }
        })?;
        Ok(Self { questions: Some(questions), thread: Some(thread) })
    }
}

fn answer(question: Question, query: &mut LinkQuery) -> Found {
    match question {
        Question::FarEnd { ifindex, netnsid, peer, whole: false } => {
            let addresses = query.peer_addresses_of(ifindex, netnsid, peer);
            let far_end = |addresses| FarEnd { mac: None, addresses };
            Found::FarEnd(ifindex, addresses.map(|found| found.map(far_end)))
        }
        Question::FarEnd { ifindex, netnsid, peer, whole: true } => {
            let far_end = |peer: Peer| FarEnd { mac: peer.mac, addresses: peer.addresses };
            Found::FarEnd(ifindex, query.peer_of(ifindex, netnsid, peer).map(|found| found.map(far_end)))
        }
        Question::Stats { ifindex } => Found::Stats(ifindex, query.link_stats(ifindex)),
        Question::HostAddresses => Found::HostAddresses(query.host_addresses()),
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        self.questions = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
