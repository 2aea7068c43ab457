//! The MC's side of one PM container: its socket, who may connect, the hand-over of descriptors, batches coming back.
//!
//! One task per slot. It holds at most one good connection and one that is being looked at; a newcomer that shows
//! the right process and version replaces the one before. Nothing waits for the container: what goes to it is the
//! newest set, never a queue; what comes from it is bounded in length, in rate and in decoded size, and when the
//! container is too fast the MC reads slower. Dropping [`Served`] ends the task, closes the connection and
//! removes the socket.

use std::future::Future;
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use tap::{Descriptors, SetSpec};
use tokio::io::Interest;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::{sleep, timeout};

use super::protocol::{
    self, FrameError, Frames, FromMonitor, MAX_FROM_MONITOR, MAX_TO_MONITOR, MONITOR_UID, MfSettings, SOCKET,
    ToMonitor, VERSION,
};
use super::{Report, Sink, What};

/// How long a newcomer may take to say who it is.
const HANDSHAKE: Duration = Duration::from_secs(5);
/// How long a monitor may take to accept a message, all of which fit into a socket's buffer.
const SEND: Duration = Duration::from_secs(5);
/// Pause after a newcomer that was refused.
const PENALTY: Duration = Duration::from_millis(100);
/// What one read takes at most.
const CHUNK: usize = 64 << 10;

/// Whether the process with this id and user may be this slot's monitor.
pub type Check = Arc<dyn Fn(i32, u32) -> bool + Send + Sync>;

/// Why a slot cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The directory.
    #[error("cannot make the directory {}: {source}", path.display())]
    Directory {
        /// Which.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The socket.
    #[error("cannot {what} the socket {}: {source}", path.display())]
    Socket {
        /// replace, bind, protect, give away, put in place
        what: &'static str,
        /// Which.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

/// Why a connection ended, or never became one.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Fault {
    /// The monitor closed it, or died.
    #[error("the monitor closed the connection")]
    Closed,
    /// It said nothing for longer than [`MfSettings::silence`].
    #[error("the monitor said nothing for {} s", .0.as_secs())]
    Silent(Duration),
    /// It does not read what it is sent.
    #[error("the monitor does not take what it is sent")]
    Stuck,
    /// A better one came.
    #[error("another monitor took its place")]
    Replaced,
    /// Reading or writing failed.
    #[error("the connection failed: {0}")]
    Io(Arc<io::Error>),
    /// A process that is not this slot's monitor.
    #[error("process {pid} of user {uid} is not this slot's monitor")]
    Stranger {
        /// Its process id.
        pid: i32,
        /// Its user.
        uid: u32,
    },
    /// It speaks another version.
    #[error("the monitor speaks version {found:#x}, this build {ours:#x}: replace its container", ours = VERSION)]
    Version {
        /// What it speaks.
        found: u32,
    },
    /// A message that is none, or breaks a limit.
    #[error(transparent)]
    Message(#[from] FrameError),
    /// A batch of a set that it was not handed, or of slots that the set does not have.
    #[error("a batch does not fit the set: {0}")]
    Misfit(&'static str),
    /// A message at the wrong time.
    #[error("{0} was not expected now")]
    Unexpected(&'static str),
}

impl Fault {
    /// Whether a sound monitor could not have caused it.
    pub fn is_misbehaviour(&self) -> bool {
        match self {
            Self::Closed | Self::Silent(_) | Self::Stuck | Self::Replaced | Self::Io(_) => false,
            Self::Stranger { .. }
            | Self::Version { .. }
            | Self::Message(_)
            | Self::Misfit(_)
            | Self::Unexpected(_) => true,
        }
    }
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset | io::ErrorKind::UnexpectedEof => {
                Self::Closed
            }
            _ => Self::Io(Arc::new(error)),
        }
    }
}

/// What happened at a slot since it was served.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Connections that were handed the set.
    pub connected: u64,
    /// Newcomers that were turned away.
    pub refused: u64,
    /// Connections closed because the monitor broke the protocol.
    pub misbehaved: u64,
    /// Connections closed because the monitor said nothing.
    pub silent: u64,
    /// Batches taken.
    pub batches: u64,
    /// Octets of messages taken.
    pub bytes: u64,
    /// Times that the MC paused because a monitor sent too fast.
    pub throttled: u64,
}

#[derive(Default)]
struct Counted {
    connected: AtomicU64,
    refused: AtomicU64,
    misbehaved: AtomicU64,
    silent: AtomicU64,
    batches: AtomicU64,
    bytes: AtomicU64,
    throttled: AtomicU64,
}

fn add(counter: &AtomicU64, n: u64) {
    counter.fetch_add(n, Ordering::Relaxed);
}

/// What a monitor is to have now.
#[derive(Clone)]
struct Offer {
    generation: u64,
    descriptors: Arc<Descriptors>,
    bye: bool,
}

struct Slot {
    name: Arc<str>,
    settings: MfSettings,
    check: Check,
    sink: Sink,
    counted: Arc<Counted>,
}

impl Slot {
    fn tell(&self, what: What) {
        (self.sink)(Report { slot: self.name.clone(), what });
    }
}

/// One slot's socket and task, while this lives.
pub struct Served {
    path: PathBuf,
    offer: watch::Sender<Offer>,
    counted: Arc<Counted>,
    task: AbortHandle,
}

impl Served {
    /// Makes `dir/mc.sock` and serves the slot's monitor from now on. `dir` is made if need be. `check` is asked about
    /// each newcomer. Call it within a tokio runtime's context, whose worker threads then serve.
    pub fn start(
        slot: &str,
        dir: &Path,
        descriptors: Descriptors,
        settings: MfSettings,
        check: Check,
        sink: Sink,
    ) -> Result<Self, ServeError> {
        let path = dir.join(SOCKET);
        let listener = listen(dir, &path)?;
        let (offer, offered) =
            watch::channel(Offer { generation: 1, descriptors: Arc::new(descriptors), bye: false });
        let counted = Arc::new(Counted::default());
        let slot = Arc::new(Slot { name: slot.into(), settings, check, sink, counted: counted.clone() });
        let task = tokio::spawn(serve(slot, listener, offered)).abort_handle();
        Ok(Self { path, offer, counted, task })
    }

    /// The set was resized: hands the monitor these from now on, and returns their generation. A monitor sums a pair
    /// over the flow table it maps, so call this when the old table's flows have been folded into their
    /// pairs: sums then never go back. `descriptors` must be of the same tenant.
    pub fn replace(&self, descriptors: Descriptors) -> u64 {
        let mut generation = 0;
        self.offer.send_modify(|offer| {
            offer.generation += 1;
            offer.descriptors = Arc::new(descriptors);
            generation = offer.generation;
        });
        generation
    }

    /// Tells the monitor, and any that comes later, to exit.
    pub fn dismiss(&self) {
        self.offer.send_modify(|offer| offer.bye = true);
    }

    /// Generation of the set offered now.
    pub fn generation(&self) -> u64 {
        self.offer.borrow().generation
    }

    /// What happened so far.
    pub fn counts(&self) -> Counts {
        let of = |c: &AtomicU64| c.load(Ordering::Relaxed);
        let c = &*self.counted;
        Counts {
            connected: of(&c.connected),
            refused: of(&c.refused),
            misbehaved: of(&c.misbehaved),
            silent: of(&c.silent),
            batches: of(&c.batches),
            bytes: of(&c.bytes),
            throttled: of(&c.throttled),
        }
    }

    /// The socket.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Has another user of the host be the one who may call.
    pub fn give_to(&self, uid: u32) -> Result<(), ServeError> {
        let failed = |source| ServeError::Socket { what: "give away", path: self.path.clone(), source };
        let owner = std::fs::symlink_metadata(&self.path).map_err(failed)?.uid();
        if owner != uid { chown(&self.path, Some(uid), Some(uid)).map_err(failed) } else { Ok(()) }
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.task.abort();
        if let Err(error) = std::fs::remove_file(&self.path)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(%error, path = %self.path.display(), "cannot remove a monitor's socket");
        }
    }
}

/// A listening socket that only the monitors' user may connect to, put in place with one rename.
fn listen(dir: &Path, path: &Path) -> Result<UnixListener, ServeError> {
    let failed = |source| ServeError::Directory { path: dir.to_owned(), source };
    // others may pass through to a name they know, no more
    std::fs::DirBuilder::new().recursive(true).mode(0o711).create(dir).map_err(failed)?;
    std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o711)).map_err(failed)?;
    let next = dir.join("mc.sock-next");
    let failed = |what, path: &Path| {
        let path = path.to_owned();
        move |source| ServeError::Socket { what, path, source }
    };
    match std::fs::remove_file(&next) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            return Err(failed("replace", &next)(source));
        }
        _ => {}
    }
    let listener = UnixListener::bind(&next).map_err(failed("bind", &next))?;
    std::fs::set_permissions(&next, std::fs::Permissions::from_mode(0o600))
        .map_err(failed("protect", &next))?;
    if nix::unistd::geteuid().is_root() {
        chown(&next, Some(MONITOR_UID), Some(MONITOR_UID)).map_err(failed("give away", &next))?;
    }
    std::fs::rename(&next, path).map_err(failed("put in place", path))?;
    Ok(listener)
}

type Pending<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// Resolves when the future inside does; never while there is none.
async fn outcome<T>(slot: &mut Option<Pending<T>>) -> T {
    match slot {
        Some(pending) => {
            let outcome = pending.as_mut().await;
            *slot = None;
            outcome
        }
        None => std::future::pending().await,
    }
}

async fn serve(slot: Arc<Slot>, listener: UnixListener, offered: watch::Receiver<Offer>) {
    // `None` is what the pause after one that was turned away comes to
    let mut newcomer: Option<Pending<Option<Result<Connection, Fault>>>> = None;
    let mut connected: Option<Pending<Fault>> = None;
    let pause = || {
        Box::pin(async {
            sleep(PENALTY).await;
            None
        })
    };
    loop {
        tokio::select! {
            accepted = listener.accept(), if newcomer.is_none() => match accepted {
                Ok((stream, _)) => {
                    let greeting = greet(slot.clone(), stream);
                    newcomer = Some(Box::pin(async { Some(greeting.await) }));
                }
                Err(error) => {
                    tracing::warn!(slot = %slot.name, %error, "cannot accept a monitor's connection");
                    newcomer = Some(pause());
                }
            },
            greeted = outcome(&mut newcomer) => match greeted {
                Some(Ok(connection)) => {
                    if connected.take().is_some() {
                        slot.tell(What::Disconnected { error: Fault::Replaced });
                    }
                    add(&slot.counted.connected, 1);
                    slot.tell(What::Connected { pid: connection.pid });
                    connected = Some(Box::pin(connection.run(slot.clone(), offered.clone())));
                }
                Some(Err(error)) => {
                    add(&slot.counted.refused, 1);
                    if error.is_misbehaviour() {
                        slot.tell(What::Misbehaved { error });
                    }
                    newcomer = Some(pause());
                }
                None => {}
            },
            error = outcome(&mut connected) => {
                if error.is_misbehaviour() {
                    add(&slot.counted.misbehaved, 1);
                    slot.tell(What::Misbehaved { error: error.clone() });
                }
                if matches!(error, Fault::Silent(_)) {
                    add(&slot.counted.silent, 1);
                }
                slot.tell(What::Disconnected { error });
            }
        }
    }
}

/// A monitor that showed who it is.
struct Connection {
    stream: UnixStream,
    incoming: Incoming,
    pid: i32,
}

/// What came and is not a whole message yet.
struct Incoming {
    frames: Frames,
    chunk: Vec<u8>,
}

impl Incoming {
    async fn next(&mut self, stream: &UnixStream) -> Result<(FromMonitor, usize), Fault> {
        loop {
            if let Some(message) = self.frames.pop()? {
                return Ok(message);
            }
            stream.readable().await?;
            match stream.try_read(&mut self.chunk) {
                Ok(0) => return Err(Fault::Closed),
                Ok(n) => self.frames.push(&self.chunk[..n]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// Looks at a newcomer: the right process, the right version.
async fn greet(slot: Arc<Slot>, stream: UnixStream) -> Result<Connection, Fault> {
    let peer = stream.peer_cred()?;
    let (pid, uid) = (peer.pid().unwrap_or(0), peer.uid());
    if !(slot.check)(pid, uid) {
        return Err(Fault::Stranger { pid, uid });
    }
    let hello = ToMonitor::Hello { version: VERSION, settings: slot.settings.clone() };
    send(&stream, &protocol::encode(&hello, MAX_TO_MONITOR)?, &[]).await?;
    let mut incoming = Incoming { frames: Frames::new(MAX_FROM_MONITOR), chunk: vec![0; CHUNK] };
    match timeout(HANDSHAKE, incoming.next(&stream)).await {
        Err(_) => Err(Fault::Silent(HANDSHAKE)),
        Ok(Err(fault)) => Err(fault),
        Ok(Ok((FromMonitor::Hello { version: VERSION, .. }, _))) => Ok(Connection { stream, incoming, pid }),
        Ok(Ok((FromMonitor::Hello { version: found, .. }, _))) => Err(Fault::Version { found }),
        Ok(Ok(_)) => Err(Fault::Unexpected("a message before Hello")),
    }
}

/// Sizes of the sets that a connection was handed, newest last. Batches of one before may still be under way.
type Handed = Mutex<Vec<(u64, SetSpec)>>;
const REMEMBERED: usize = 32;

impl Connection {
    async fn run(self, slot: Arc<Slot>, offered: watch::Receiver<Offer>) -> Fault {
        let Self { stream, incoming, .. } = self;
        let handed = Handed::default();
        tokio::select! {
            fault = hand_over(&stream, &handed, offered) => fault,
            fault = listen_to(&stream, incoming, &handed, &slot) => fault,
        }
    }
}

/// Keeps the monitor supplied with the newest set.
async fn hand_over(stream: &UnixStream, handed: &Handed, mut offered: watch::Receiver<Offer>) -> Fault {
    let mut newest = 0;
    loop {
        let offer = offered.borrow_and_update().clone();
        let (message, fds) = if offer.bye {
            (ToMonitor::Bye, Vec::new())
        } else {
            let spec = offer.descriptors.spec;
            (
                ToMonitor::Set { spec: spec.into(), generation: offer.generation },
                offer.descriptors.fds.iter().collect(),
            )
        };
        if offer.bye || offer.generation != newest {
            newest = offer.generation;
            if !offer.bye {
                let mut handed = handed.lock().unwrap_or_else(PoisonError::into_inner);
                if handed.len() == REMEMBERED {
                    handed.remove(0);
                }
                handed.push((newest, offer.descriptors.spec));
            }
            let bytes = match protocol::encode(&message, MAX_TO_MONITOR) {
                Ok(bytes) => bytes,
                Err(error) => return error.into(),
            };
            let fds: Vec<BorrowedFd<'_>> = fds.into_iter().map(AsFd::as_fd).collect();
            if let Err(fault) = send(stream, &bytes, &fds).await {
                return fault;
            }
        }
        if offered.changed().await.is_err() {
            // nobody will offer anything more
            std::future::pending::<()>().await;
        }
    }
}

/// Sends a message, the descriptors with its first octet.
async fn send(stream: &UnixStream, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> Result<(), Fault> {
    let all = async {
        let (mut rest, mut fds) = (bytes, fds);
        while !rest.is_empty() {
            let sent = stream
                .async_io(Interest::WRITABLE, || {
                    let mut space =
                        [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(Descriptors::MOST))];
                    let mut control = SendAncillaryBuffer::new(&mut space);
                    if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
                        return Err(io::Error::other("more descriptors than a set has"));
                    }
                    let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
                    Ok(sendmsg(stream, &[IoSlice::new(rest)], &mut control, flags)?)
                })
                .await?;
            (rest, fds) = (&rest[sent..], &[]);
        }
        Ok::<(), io::Error>(())
    };
    match timeout(SEND, all).await {
        Err(_) => Err(Fault::Stuck),
        Ok(done) => Ok(done?),
    }
}

/// Takes what the monitor sends, as fast as it may send.
async fn listen_to(stream: &UnixStream, mut incoming: Incoming, handed: &Handed, slot: &Slot) -> Fault {
    let silence = slot.settings.silence();
    let mut pace = Pace::new(Instant::now());
    loop {
        let (message, len) = match timeout(silence, incoming.next(stream)).await {
            Err(_) => return Fault::Silent(silence),
            Ok(Err(fault)) => return fault,
            Ok(Ok(message)) => message,
        };
        add(&slot.counted.bytes, len as u64);
        match message {
            FromMonitor::Hello { .. } => return Fault::Unexpected("a second Hello"),
            FromMonitor::Alive(alive) => slot.tell(What::Alive(alive)),
            FromMonitor::Batch { generation, batch } => {
                if let Err(error) = batch.check() {
                    return Fault::Message(error.into());
                }
                let spec = {
                    let handed = handed.lock().unwrap_or_else(PoisonError::into_inner);
                    handed.iter().find(|(g, _)| *g == generation).map(|(_, spec)| *spec)
                };
                match spec {
                    None => return Fault::Misfit("it is of a set that was not handed out"),
                    Some(spec) if !protocol::fits(&batch, &spec) => {
                        return Fault::Misfit("it names slots that the set does not have");
                    }
                    Some(_) => {}
                }
                add(&slot.counted.batches, 1);
                slot.tell(What::Batch { generation, batch: Box::new(batch) });
            }
        }
        if let Some(pause) = pace.pause(Instant::now(), len) {
            add(&slot.counted.throttled, 1);
            sleep(pause).await;
        }
    }
}

/// How fast a monitor may send: a token bucket (RFC 2697's, without colours) over octets, where a message costs
/// something however short it is.
struct Pace {
    tokens: u64,
    at: Instant,
}

impl Pace {
    /// Octets a second: a set of 128 Ki flows that all count packets sends 15 MB at each scan.
    const RATE: u64 = 32 << 20;
    /// Octets at once.
    const BURST: u64 = 64 << 20;
    /// What the shortest message costs: 512 messages a second, ten times what a sound monitor sends.
    const LEAST: u64 = 64 << 10;

    fn new(now: Instant) -> Self {
        Self { tokens: Self::BURST, at: now }
    }

    /// After a message of `len` octets: how long to wait before the next is read.
    fn pause(&mut self, now: Instant, len: usize) -> Option<Duration> {
        let gained =
            now.saturating_duration_since(self.at).as_micros().saturating_mul(u128::from(Self::RATE))
                / 1_000_000;
        self.tokens = self.tokens.saturating_add(u64::try_from(gained).unwrap_or(u64::MAX)).min(Self::BURST);
        self.at = now;
        let cost = Self::LEAST.max(len as u64);
        if let Some(left) = self.tokens.checked_sub(cost) {
            self.tokens = left;
            return None;
        }
        let pause = Duration::from_micros((cost - self.tokens) * 1_000_000 / Self::RATE);
        // the wait pays for what is missing
        self.tokens = 0;
        self.at = now + pause;
        Some(pause)
    }
}

#[cfg(test)]
mod tests;
