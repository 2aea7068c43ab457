//! What a PM container does (`conmond monitor`): connect to the MC, map the set it hands over, send what changed.
//!
//! One thread and one `poll`. Without privilege: it needs its socket, and of the kernel nothing but `mmap` of
//! descriptors it was given. It never waits for the MC with anything but `poll`: as long as a message is under
//! way no other is made, so a slow or frozen MC costs no memory. While the MC is away it goes on reading the ring, as
//! far as one batch has room; the tables count in the kernel. A new connection brings the set anew, and with it
//! everything is reported again. What is lost with a connection is at most the flow events of the batch under way;
//! counts are cumulative and lose nothing.

use std::collections::VecDeque;
use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context;
use caps::CapSet;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::unistd::{Gid, Uid, geteuid, setgroups, setresgid, setresuid};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendFlags,
    SocketAddrUnix, SocketFlags, SocketType,
};
use tap::{Descriptors, SetSpec};

use super::observe::{self, Observer, Schedule};
use super::protocol::{
    self, FrameError, Frames, FromMonitor, MAX_FROM_MONITOR, MAX_TO_MONITOR, MONITOR_UID, MfSettings, SOCKET,
    ToMonitor, VERSION,
};
use crate::mf::Collected;

/// Pause before the second attempt to connect; doubles with each further one.
const FIRST_RETRY: Duration = Duration::from_millis(50);
/// The longest pause between attempts.
const LAST_RETRY: Duration = Duration::from_secs(1);

/// Monitors until the MC says goodbye or a signal asks to end. `dir` holds the MC's socket.
pub fn run(dir: &Path) -> anyhow::Result<()> {
    drop_privileges()?;
    // the first process of a container is not ended by a signal it does not ask for: ask
    let mut ends = SigSet::empty();
    ends.add(Signal::SIGTERM);
    ends.add(Signal::SIGINT);
    ends.thread_block().context("cannot block signals")?;
    let flags = SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC;
    let signals = SignalFd::with_flags(&ends, flags).context("cannot receive signals")?;
    Monitor::new(dir.join(SOCKET)).run(&signals)
}

/// Gives up what a container started with less care may have left to us.
fn drop_privileges() -> anyhow::Result<()> {
    nix::sys::prctl::set_no_new_privs().context("cannot give up gaining privileges")?;
    // works only with a capability that we should not have
    let _ = caps::clear(None, CapSet::Bounding);
    if geteuid().is_root() {
        let (uid, gid) = (Uid::from_raw(MONITOR_UID), Gid::from_raw(MONITOR_UID));
        // A root without capabilities may not change its user; then it has lost what makes root dangerous.
        let changed =
            setgroups(&[]).and_then(|()| setresgid(gid, gid, gid)).and_then(|()| setresuid(uid, uid, uid));
        if let Err(error) = changed {
            tracing::warn!(%error, "runs as root and cannot change that");
        }
    }
    for set in [CapSet::Ambient, CapSet::Effective, CapSet::Permitted, CapSet::Inheritable] {
        caps::clear(None, set).with_context(|| format!("cannot clear the {set:?} capabilities"))?;
    }
    // who runs as the same user in the container has no business in this process: not to trace it, nor to reach into its memory
    nix::sys::prctl::set_dumpable(false).context("cannot close itself to other processes of its user")?;
    Ok(())
}

/// Why a connection was given up.
#[derive(Debug, thiserror::Error)]
enum LinkError {
    #[error("the controller closed the connection")]
    Closed,
    #[error("the connection failed: {0}")]
    Io(#[from] io::Error),
    #[error("the controller sent nonsense: {0}")]
    Message(#[from] FrameError),
    #[error("the controller speaks version {found:#x}, this build {VERSION:#x}")]
    Version { found: u32 },
    #[error("the controller sent {0} out of turn")]
    OutOfTurn(&'static str),
    #[error("{found} descriptors came with a set, and it says that it has others")]
    Descriptors { found: usize },
    #[error("cannot map the set: {0}")]
    Set(#[from] tap::Error),
}

impl From<Errno> for LinkError {
    fn from(error: Errno) -> Self {
        Self::Io(error.into())
    }
}

/// A connection to the MC.
struct Link {
    stream: OwnedFd,
    frames: Frames,
    /// Descriptors that came and no message has claimed yet.
    fds: VecDeque<OwnedFd>,
    out: Vec<u8>,
    sent: usize,
    settings: Option<MfSettings>,
    /// The set came; before that there is nothing to tell about.
    ready: bool,
}

impl Link {
    fn connect(socket: &Path) -> Result<Self, LinkError> {
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let stream = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)
            .map_err(io::Error::from)?;
        let address = SocketAddrUnix::new(socket).map_err(io::Error::from)?;
        rustix::net::connect(&stream, &address).map_err(io::Error::from)?;
        let hello = FromMonitor::Hello { version: VERSION, pid: std::process::id() };
        Ok(Self {
            stream,
            frames: Frames::new(MAX_TO_MONITOR),
            fds: VecDeque::new(),
            out: protocol::encode(&hello, MAX_FROM_MONITOR)?,
            sent: 0,
            settings: None,
            ready: false,
        })
    }

    fn idle(&self) -> bool {
        self.out.is_empty()
    }

    fn put(&mut self, message: &FromMonitor) -> Result<(), LinkError> {
        let bytes = protocol::encode(message, MAX_FROM_MONITOR)?;
        if self.out.is_empty() {
            self.out = bytes;
        } else {
            self.out.extend_from_slice(&bytes);
        }
        Ok(())
    }

    /// Sends as much as the socket takes.
    fn write(&mut self) -> Result<(), LinkError> {
        while self.sent < self.out.len() {
            match rustix::net::send(&self.stream, &self.out[self.sent..], SendFlags::NOSIGNAL) {
                Ok(n) => self.sent += n,
                Err(rustix::io::Errno::AGAIN) => return Ok(()),
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(io::Error::from(error).into()),
            }
        }
        // not clear(): one long message must not hold its room for ever
        (self.out, self.sent) = (Vec::new(), 0);
        Ok(())
    }

    /// Takes what the socket holds, descriptors included.
    fn read(&mut self) -> Result<(), LinkError> {
        let mut chunk = [0u8; 4096];
        loop {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(Descriptors::MOST))];
            let mut control = RecvAncillaryBuffer::new(&mut space);
            let mut iov = [IoSliceMut::new(&mut chunk)];
            let received =
                match rustix::net::recvmsg(&self.stream, &mut iov, &mut control, RecvFlags::CMSG_CLOEXEC) {
                    Ok(received) => received,
                    Err(rustix::io::Errno::AGAIN) => return Ok(()),
                    Err(rustix::io::Errno::INTR) => continue,
                    Err(error) => return Err(io::Error::from(error).into()),
                };
            for message in control.drain() {
                if let RecvAncillaryMessage::ScmRights(fds) = message {
                    self.fds.extend(fds);
                }
            }
            if received.flags.contains(ReturnFlags::CTRUNC) || self.fds.len() > 2 * Descriptors::MOST {
                return Err(LinkError::Descriptors { found: self.fds.len() + 1 });
            }
            if received.bytes == 0 {
                return Err(LinkError::Closed);
            }
            self.frames.push(&chunk[..received.bytes]);
            if received.bytes < chunk.len() {
                return Ok(());
            }
        }
    }

    /// The descriptors of the message just read.
    fn claim(&mut self, spec: &SetSpec) -> Result<Vec<OwnedFd>, LinkError> {
        // those of a further message may have come, too
        match Descriptors::count(spec).filter(|wanted| *wanted <= self.fds.len()) {
            Some(wanted) => Ok(self.fds.drain(..wanted).collect()),
            None => Err(LinkError::Descriptors { found: self.fds.len() }),
        }
    }
}

/// What poll found.
#[derive(Clone, Copy, Debug, Default)]
struct Ready {
    end: bool,
    link: bool,
    ring: bool,
}

struct Monitor {
    socket: PathBuf,
    link: Option<Link>,
    retry_at: Instant,
    retry: Duration,
    complained: bool,
    observer: Option<Observer>,
    generation: u64,
    schedule: Schedule,
    collected: Collected,
    /// Batches are being cut from `collected`; it takes nothing more until the last one.
    cutting: bool,
    sequence: u64,
}

impl Monitor {
    fn new(socket: PathBuf) -> Self {
        let now = Instant::now();
        Self {
            socket,
            link: None,
            retry_at: now,
            retry: FIRST_RETRY,
            complained: false,
            observer: None,
            generation: 0,
            schedule: Schedule::new(now, MfSettings::default().scan_interval()),
            collected: Collected::default(),
            cutting: false,
            sequence: 0,
        }
    }

    fn run(mut self, signals: &SignalFd) -> anyhow::Result<()> {
        loop {
            let now = Instant::now();
            if self.link.is_none() && now >= self.retry_at {
                match Link::connect(&self.socket) {
                    Ok(link) => self.link = Some(link),
                    Err(error) => self.lost(now, &error),
                }
            }
            let ready = self.wait(signals)?;
            if ready.end {
                tracing::info!("asked to end");
                return Ok(());
            }
            let now = Instant::now();
            if ready.ring {
                self.schedule.ring_read(now);
            }
            match self.step(now, ready) {
                Ok(false) => {}
                Ok(true) => {
                    tracing::info!("the controller says goodbye");
                    return Ok(());
                }
                Err(error) => {
                    self.link = None;
                    self.lost(now, &error);
                }
            }
        }
    }

    /// No connection: the next attempt is due later.
    fn lost(&mut self, now: Instant, error: &LinkError) {
        if !std::mem::replace(&mut self.complained, true) {
            tracing::info!(error = %error, "no connection to the controller, trying again");
        }
        (self.retry_at, self.retry) = (now + self.retry, (self.retry * 2).min(LAST_RETRY));
        self.keep_events();
    }

    /// Nobody waits for what was collected any more. Events are told once and wait on; the next scan reports all
    /// the rest anew.
    fn keep_events(&mut self) {
        self.collected.keep_events();
        self.cutting = false;
    }

    /// Waits for the next thing to do.
    fn wait(&self, signals: &SignalFd) -> anyhow::Result<Ready> {
        let now = Instant::now();
        let mut fds = vec![PollFd::new(signals.as_fd(), PollFlags::POLLIN)];
        if let Some(link) = &self.link {
            let out = if link.idle() { PollFlags::empty() } else { PollFlags::POLLOUT };
            fds.push(PollFd::new(link.stream.as_fd(), PollFlags::POLLIN | out));
        }
        let ring = self.observer.as_ref().filter(|_| !self.cutting && observe::room(&self.collected) > 0);
        if let Some(observer) = ring
            && self.schedule.ring_due(now)
        {
            fds.push(PollFd::new(observer.ring_fd(), PollFlags::POLLIN));
        }
        let look_at_ring = ring.and(self.schedule.ring_pause(now));
        let connect = self.link.is_none().then_some(self.retry_at);
        let scan = self.link.as_ref().is_some_and(|l| l.ready && l.idle()).then(|| self.schedule.scan_at());
        let next = [look_at_ring, connect, scan].into_iter().flatten().min();
        match poll(&mut fds, next.map_or(PollTimeout::NONE, |then| observe::until(now, then))) {
            Ok(_) => {}
            Err(Errno::EINTR) => return Ok(Ready::default()),
            Err(error) => return Err(error).context("cannot wait for anything"),
        }
        let mut found = fds.iter().map(|fd| fd.any() == Some(true));
        Ok(Ready {
            end: found.next() == Some(true),
            link: self.link.is_some() && found.next() == Some(true),
            ring: found.next() == Some(true),
        })
    }

    /// Does what is due. True when the MC said goodbye.
    fn step(&mut self, now: Instant, ready: Ready) -> Result<bool, LinkError> {
        if ready.link && self.receive(now)? {
            return Ok(true);
        }
        let scan = self.schedule.scan_due(now) && self.link.as_ref().is_some_and(|l| l.ready && l.idle());
        if let Some(observer) = &mut self.observer
            && !self.cutting
        {
            if ready.ring || scan {
                observer.drain(&mut self.collected);
            }
            if scan {
                let done = observer.scan(&mut self.collected);
                self.schedule.scanned(now, done);
                if let Some(link) = &mut self.link
                    && done
                {
                    link.put(&FromMonitor::Alive(observer.alive()))?;
                }
            }
            let listened_to = self.link.as_ref().is_some_and(|link| link.ready);
            self.cutting = (ready.ring || scan) && listened_to && observer.is_news(&self.collected);
        }
        self.send()?;
        Ok(false)
    }

    /// Sends what is under way, then batch after batch as long as the socket takes them whole.
    fn send(&mut self) -> Result<(), LinkError> {
        let Some(link) = &mut self.link else { return Ok(()) };
        link.write()?;
        while link.ready && self.cutting && link.idle() {
            self.sequence += 1;
            let batch = self.collected.take_batch(self.sequence);
            self.cutting = batch.more;
            link.put(&FromMonitor::Batch { generation: self.generation, batch })?;
            link.write()?;
        }
        Ok(())
    }

    /// Reads and obeys the MC. True when it said goodbye.
    fn receive(&mut self, now: Instant) -> Result<bool, LinkError> {
        let Some(link) = &mut self.link else { return Ok(false) };
        // a last word may lie before the end of the stream
        let closed = link.read();
        while let Some((message, _)) = link.frames.pop::<ToMonitor>()? {
            match message {
                ToMonitor::Hello { version, .. } if version != VERSION => {
                    return Err(LinkError::Version { found: version });
                }
                ToMonitor::Hello { settings, .. } => link.settings = Some(settings),
                ToMonitor::Bye => return Ok(true),
                ToMonitor::Set { spec, generation } => {
                    let spec = SetSpec::from(spec);
                    let fds = link.claim(&spec)?;
                    let settings =
                        link.settings.as_ref().ok_or(LinkError::OutOfTurn("a set before Hello"))?;
                    // the old mapping goes first: there is not memory for two
                    self.observer = None;
                    self.observer = Some(Observer::new(Descriptors { fds, spec }, settings)?);
                    self.generation = generation;
                    self.schedule = Schedule::new(now, settings.scan_interval());
                    link.ready = true;
                    (self.retry, self.complained) = (FIRST_RETRY, false);
                    // what was read from the set before is not of this generation
                    self.collected.keep_events();
                    self.cutting = false;
                    tracing::info!(generation, flows = spec.flows, pairs = spec.pair_slots(), "observing");
                }
            }
        }
        closed?;
        Ok(false)
    }
}
