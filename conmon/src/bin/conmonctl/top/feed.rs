//! Asks the daemon, each second and when the user wants something else, on a thread with a runtime of its own. A screen
//! that is slow to draw loses answers, never time: the next one says it all. A daemon that goes away is asked again
//! until it is back.

use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::mpsc::TryRecvError;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use anyhow::Context as _;
use conmon::api::{
    Container, ContainersQuery, FlowsAnswer, FlowsQuery, Level, PairsAnswer, PairsQuery, Status,
};
use conmon::client::{Client, ClientError};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use super::close::CloseAnswer;
use super::rows::{RowKey, is_part};
use crate::legs::observed;

/// How often pairs are asked for.
const PERIOD: Duration = Duration::from_secs(1);
/// Answering may take this share of the time at most: a host with ten thousand pairs is asked less often.
const SHARE: u32 = 5;
/// A request that takes longer counts as unanswered.
const TIMEOUT: Duration = Duration::from_secs(5);
/// How long the screen's loop may take to end after a signal.
const GRACE: Duration = Duration::from_secs(2);
/// Answers that may wait to be drawn.
const WAITING: usize = 8;
/// How many flows come with a close look, those with most bytes.
const FLOWS: u32 = 200;

/// What the user looks at.
#[derive(Debug, Clone, PartialEq)]
pub struct Request {
    /// The level of the pairs.
    pub level: Level,
    /// The pair that is looked at closely.
    pub close: Option<RowKey>,
}

/// What has come.
#[derive(Debug)]
pub enum Update {
    /// Pairs at a level.
    Pairs(Level, PairsAnswer),
    /// The daemon's own state and cost.
    Status(Box<Status>),
    /// What was asked for a close look at a pair.
    Close(RowKey, Box<CloseAnswer>),
    /// No answer, and why.
    Failed(String),
}

/// The running feed. It ends with its owner.
pub struct Feed {
    updates: mpsc::Receiver<Update>,
    request: watch::Sender<Request>,
    signal: Arc<AtomicI32>,
}

impl Feed {
    /// Starts asking, and returns with the first answer.
    pub fn start(client: Client, level: Level) -> anyhow::Result<(Self, Update)> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("cannot start the asynchronous runtime")?;
        let client = client.with_timeout(TIMEOUT);
        let first = runtime.block_on(client.pairs(&pairs_query(level)))?;
        let signals = {
            let _guard = runtime.enter();
            [SignalKind::terminate(), SignalKind::hangup(), SignalKind::interrupt(), SignalKind::quit()]
                .map(|kind| signal(kind).map(|signal| (kind, signal)))
        };
        let (sender, updates) = mpsc::sync_channel(WAITING);
        let (request, requests) = watch::channel(Request { level, close: None });
        let caught = Arc::new(AtomicI32::new(0));
        for signal in signals {
            let (kind, signal) = signal.context("cannot listen to signals")?;
            runtime.spawn(note(kind, signal, Arc::clone(&caught)));
        }
        std::thread::Builder::new()
            .name("feed".to_owned())
            .spawn(move || runtime.block_on(ask(client, requests, sender)))
            .context("cannot start a thread")?;
        Ok((Self { updates, request, signal: caught }, Update::Pairs(level, first)))
    }

    /// Asks for something else from now on.
    pub fn ask(&self, request: Request) {
        self.request.send_replace(request);
    }

    /// The next answer, if one has come.
    ///
    /// # Errors
    /// When the asking thread has ended.
    pub fn next(&self) -> anyhow::Result<Option<Update>> {
        match self.updates.try_recv() {
            Ok(update) => Ok(Some(update)),
            Err(TryRecvError::Empty) => Ok(None),
            Err(TryRecvError::Disconnected) => anyhow::bail!("nobody asks conmond any more"),
        }
    }

    /// The signal that came, if one has.
    pub fn signal(&self) -> Option<i32> {
        Some(self.signal.load(Ordering::Relaxed)).filter(|signal| *signal != 0)
    }
}

async fn note(kind: SignalKind, mut signal: Signal, caught: Arc<AtomicI32>) {
    if signal.recv().await.is_some() {
        let number = kind.as_raw_value();
        caught.store(number, Ordering::Relaxed);
        // Drawing may be stuck on a terminal that takes nothing any more; then there is nothing to give back either.
        tokio::time::sleep(GRACE).await;
        std::process::exit(128 + number);
    }
}

/// Runs until the other side has gone.
async fn ask(client: Client, mut requests: watch::Receiver<Request>, updates: mpsc::SyncSender<Update>) {
    // The first answer is there: what is missing is the status.
    let mut status_due = Instant::now();
    let mut containers = Containers::default();
    loop {
        let begin = Instant::now();
        let request = requests.borrow_and_update().clone();
        let update = match client.pairs(&pairs_query(request.level)).await {
            Ok(answer) => Update::Pairs(request.level, answer),
            Err(error) => Update::Failed(error.to_string()),
        };
        let answered = matches!(update, Update::Pairs(..));
        if !offer(&updates, update) {
            return;
        }
        if answered {
            if let Some(key) = request.close {
                // A close look that does not come leaves the older one standing; the pairs tell of trouble.
                if let Ok(answer) = close(&client, request.level, &key, &mut containers).await
                    && !offer(&updates, Update::Close(key, Box::new(answer)))
                {
                    return;
                }
            }
            if Instant::now() >= status_due {
                status_due = Instant::now() + 2 * PERIOD;
                if let Ok(status) = client.status().await
                    && !offer(&updates, Update::Status(Box::new(status)))
                {
                    return;
                }
            }
        }
        let due = begin + PERIOD.max(begin.elapsed() * SHARE);
        tokio::select! {
            () = sleep_until(due) => {}
            changed = requests.changed() => if changed.is_err() { return },
        }
    }
}

/// Containers change seldom, and a host may have many: they are asked for again when a pair's is not known, and now and
/// then.
#[derive(Default)]
struct Containers {
    known: Vec<Container>,
    until: Option<Instant>,
}

impl Containers {
    const PERIOD: Duration = Duration::from_secs(10);

    async fn find(&mut self, client: &Client, id: &str) -> Option<Container> {
        let find = |known: &[Container]| known.iter().find(|container| container.id == id).cloned();
        let fresh = self.until.is_some_and(|until| Instant::now() < until);
        match find(&self.known).filter(|_| fresh) {
            Some(container) => Some(container),
            None => {
                let answer = client.containers(&ContainersQuery::default()).await.ok()?;
                *self = Self { known: answer.containers, until: Some(Instant::now() + Self::PERIOD) };
                find(&self.known)
            }
        }
    }
}

async fn close(
    client: &Client,
    level: Level,
    key: &RowKey,
    containers: &mut Containers,
) -> Result<CloseAnswer, ClientError> {
    let (src, dst) = key.handles();
    let (src, dst) = (Some(src), Some(dst));
    let query =
        PairsQuery { src: src.clone(), dst: dst.clone(), histograms: Some(true), ..pairs_query(level) };
    let answer = client.pairs(&query).await?;
    let pair = answer.pairs.into_iter().find(|pair| key.is(pair));
    let (mut flows, mut parts, mut container) = (None, None, None);
    if let Some(pair) = &pair {
        if level == Level::Container {
            let query = FlowsQuery { src, dst, observed_at: Some(pair.observed_at), ..FlowsQuery::default() };
            flows = Some(of_the_pair(client, key, query).await?);
            if let Some(id) = &observed(pair).id {
                container = containers.find(client, id).await;
            }
        } else {
            let mut all = client.pairs(&PairsQuery::default()).await?.pairs;
            all.retain(|part| is_part(part, pair));
            parts = Some(all);
        }
    }
    Ok(CloseAnswer { generated_at: answer.generated_at, pair, flows, parts, container })
}

async fn of_the_pair(client: &Client, key: &RowKey, query: FlowsQuery) -> Result<FlowsAnswer, ClientError> {
    let mut answer = client.flows(&FlowsQuery { limit: Some(FLOWS), ..query }).await?;
    // A name may be another's too, one that is no container's.
    answer.flows.retain(|flow| key.has(&flow.src, &flow.dst));
    Ok(answer)
}

/// False when nobody listens any more. An answer for which there is no room is dropped.
fn offer(updates: &mpsc::SyncSender<Update>, update: Update) -> bool {
    !matches!(updates.try_send(update), Err(mpsc::TrySendError::Disconnected(_)))
}

fn pairs_query(level: Level) -> PairsQuery {
    PairsQuery { level: Some(level).filter(|level| *level != Level::default()), ..PairsQuery::default() }
}
