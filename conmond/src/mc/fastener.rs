//! The thread that fastens taps: the kernel takes tens of milliseconds over each, which the controller must not wait for.
//!
//! It owns the port that it works on and hands it back. When it is dropped it ends what it is at, so that no port is
//! left between two kinds of tap.

use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;

use tap::{Port, Set};

type Job = (Port, Arc<Set>);

/// A port, and whether it could be fastened.
pub type Fastened = (Port, Result<(), tap::Error>);

/// The running thread.
pub struct Fastener {
    jobs: Option<Sender<Job>>,
    thread: Option<JoinHandle<()>>,
}

impl Fastener {
    /// Starts the thread, in the caller's network namespace; `done` gets every port back.
    pub fn start(done: impl Fn(Fastened) + Send + 'static) -> std::io::Result<Self> {
        let (jobs, inbox) = channel::<Job>();
        let thread = std::thread::Builder::new().name("fastener".into()).spawn(move || {
            for (mut port, set) in inbox {
                let result = port.fasten(&set);
                done((port, result));
            }
        })?;
        Ok(Self { jobs: Some(jobs), thread: Some(thread) })
    }

    /// Has a port fastened to its set's programs.
    pub fn fasten(&self, port: Port, set: Arc<Set>) -> Result<(), Port> {
        let Some(jobs) = &self.jobs else { return Err(port) };
        jobs.send((port, set)).map_err(|refused| refused.0.0)
    }
}

impl Drop for Fastener {
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
