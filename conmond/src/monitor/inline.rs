//! The monitoring functions on a thread of the MC: for the nursery, whose ports' tenant is not known yet.
//!
//! One thread, named after the slot. It ends when [`Inline`] is dropped, within one reading of the tables.

use std::io::{self, Read};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Instant;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, poll};
use tap::Descriptors;

use super::observe::{self, Observer, RING_PAUSE, Schedule};
use super::protocol::MfSettings;
use super::{Report, Sink, What};
use crate::mf::Collected;

/// Why there is no thread.
#[derive(Debug, thiserror::Error)]
pub enum InlineError {
    /// The set cannot be mapped.
    #[error("cannot observe the set: {0}")]
    Set(#[from] tap::Error),
    /// The system has no thread or socket to give.
    #[error("cannot start a thread to observe the set: {0}")]
    Thread(#[from] io::Error),
}

/// The thread, while this lives.
pub struct Inline {
    /// What wakes the thread; its closing ends it.
    wake: Option<UnixStream>,
    next: Arc<Next>,
    settings: MfSettings,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Next {
    generation: AtomicU64,
    observer: Mutex<Option<Observer>>,
}

impl Inline {
    /// Maps the set and starts to observe it. Reports are batches and `Alive`, whose memory and CPU time are the
    /// whole process's.
    pub fn start(
        slot: &str,
        descriptors: Descriptors,
        settings: MfSettings,
        sink: Sink,
    ) -> Result<Self, InlineError> {
        let observer = Observer::new(descriptors, &settings)?;
        let (wake, woken) = UnixStream::pair()?;
        woken.set_nonblocking(true)?;
        let next = Arc::new(Next { generation: AtomicU64::new(1), observer: Mutex::default() });
        let worker = Worker {
            slot: slot.into(),
            woken,
            next: next.clone(),
            observer,
            generation: 1,
            settings: settings.clone(),
            sink,
            sequence: 0,
        };
        let thread = std::thread::Builder::new().name(format!("mf-{slot}")).spawn(move || {
            crate::priority::wait_turn();
            worker.run();
        })?;
        Ok(Self { wake: Some(wake), next, settings, thread: Some(thread) })
    }

    /// The set was resized, see [`super::Served::replace`]. Returns the new generation.
    pub fn replace(&self, descriptors: Descriptors) -> Result<u64, InlineError> {
        let observer = Observer::new(descriptors, &self.settings)?;
        let mut next = self.next.observer.lock().unwrap_or_else(PoisonError::into_inner);
        let generation = self.next.generation.fetch_add(1, Ordering::Relaxed) + 1;
        *next = Some(observer);
        drop(next);
        if let Some(wake) = &self.wake {
            io::Write::write_all(&mut &*wake, &[0])?;
        }
        Ok(generation)
    }
}

impl Drop for Inline {
    fn drop(&mut self) {
        drop(self.wake.take());
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("a thread that observed a set panicked");
        }
    }
}

struct Worker {
    slot: Arc<str>,
    woken: UnixStream,
    next: Arc<Next>,
    observer: Observer,
    generation: u64,
    settings: MfSettings,
    sink: Sink,
    sequence: u64,
}

impl Worker {
    fn run(mut self) {
        let mut schedule = Schedule::new(Instant::now(), self.settings.scan_interval());
        while let Some(readable) = self.wait(&schedule) {
            let mut collected = Collected::default();
            let now = Instant::now();
            let scan_due = schedule.scan_due(now);
            if readable || scan_due {
                self.observer.drain(&mut collected);
            }
            if readable {
                schedule.ring_read(now);
            }
            if scan_due {
                let done = self.observer.scan(&mut collected);
                schedule.scanned(now, done);
                if done {
                    self.tell(What::Alive(self.observer.alive()));
                }
            }
            if self.observer.is_news(&collected) {
                self.send(collected);
            }
        }
    }

    /// Waits for the next thing to do, and tells whether the ring is readable. `None` when the thread is to end.
    fn wait(&mut self, schedule: &Schedule) -> Option<bool> {
        let now = Instant::now();
        let mut fds = vec![PollFd::new(self.woken.as_fd(), PollFlags::POLLIN)];
        if schedule.ring_due(now) {
            fds.push(PollFd::new(self.observer.ring_fd(), PollFlags::POLLIN));
        }
        let next = schedule.ring_pause(now).map_or(schedule.scan_at(), |at| at.min(schedule.scan_at()));
        if let Err(error) = poll(&mut fds, observe::until(now, next))
            && error != Errno::EINTR
        {
            // none of ours can cause it; whatever did must not make this thread spin
            tracing::error!(%error, "cannot wait for a set's ring");
            std::thread::sleep(RING_PAUSE);
        }
        let readable = fds.get(1).is_some_and(|fd| fd.any() == Some(true));
        let mut wakes = [0u8; 64];
        match self.woken.read(&mut wakes) {
            Ok(0) => return None,
            Ok(_) => {
                let mut next = self.next.observer.lock().unwrap_or_else(PoisonError::into_inner);
                if let Some(observer) = next.take() {
                    self.observer = observer;
                    self.generation = self.next.generation.load(Ordering::Relaxed);
                }
            }
            // nothing there
            Err(_) => {}
        }
        Some(readable)
    }

    fn send(&mut self, mut collected: Collected) {
        let mut more = true;
        while more {
            self.sequence += 1;
            let batch = Box::new(collected.take_batch(self.sequence));
            more = batch.more;
            self.tell(What::Batch { generation: self.generation, batch });
        }
    }

    fn tell(&self, what: What) {
        (self.sink)(Report { slot: self.slot.clone(), what });
    }
}
