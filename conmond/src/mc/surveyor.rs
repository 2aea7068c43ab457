//! The thread that asks the kernel about links what must not keep the controller waiting: each such question waits for the
//! kernel's lock for network devices, which others hold for milliseconds while containers start and end.

use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;

use crate::switch::{LinkQuery, LinkStats, Peer, SwitchError};

/// Something to ask about a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Question {
    /// Its far end: by our number for its namespace, none for our own, and its ifindex there.
    Peer {
        /// The port.
        ifindex: u32,
        /// Our number for the namespace.
        netnsid: Option<i32>,
        /// The far end's ifindex.
        peer: u32,
    },
    /// Its counters, which bound what passed before it was tapped.
    Stats {
        /// The port.
        ifindex: u32,
    },
}

/// What the kernel says.
#[derive(Debug)]
pub enum Found {
    /// Of the port with this ifindex: its far end; none if that is gone (again).
    Peer(u32, Result<Option<Peer>, SwitchError>),
    /// Of the port with this ifindex: its counters; none if it is gone.
    Stats(u32, Result<Option<LinkStats>, SwitchError>),
}

/// The running thread.
pub struct Surveyor {
    questions: Option<Sender<Question>>,
    thread: Option<JoinHandle<()>>,
}

impl Surveyor {
    /// Starts the thread, in the caller's network namespace; `tell` gets every answer.
    pub fn start(tell: impl Fn(Found) + Send + 'static) -> anyhow::Result<Self> {
        let (questions, inbox) = channel();
        let mut query = LinkQuery::open()?;
        let thread = std::thread::Builder::new().name("surveyor".into()).spawn(move || {
            for question in inbox {
                tell(match question {
                    Question::Peer { ifindex, netnsid, peer } => {
                        Found::Peer(ifindex, query.peer(netnsid, peer))
                    }
                    Question::Stats { ifindex } => Found::Stats(ifindex, query.link_stats(ifindex)),
                });
            }
        })?;
        Ok(Self { questions: Some(questions), thread: Some(thread) })
    }

    /// Asks; it never waits.
    pub fn ask(&self, question: Question) {
        if let Some(questions) = &self.questions {
            // the thread ends only after this sender went
            let _ = questions.send(question);
        }
    }
}

impl Drop for Surveyor {
    fn drop(&mut self) {
        self.questions = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
