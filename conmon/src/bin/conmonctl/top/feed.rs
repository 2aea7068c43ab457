//! Asks the daemon, each second and when the user wants something else, on a thread with a runtime of its own. A screen
//! that is slow to draw loses answers, never time: the next one says it all.

use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use anyhow::Context as _;
use conmon::api::{FlowsAnswer, FlowsQuery, Level, PairsAnswer, PairsQuery, Status};
use conmon::client::Client;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval};

/// How often pairs are asked for.
const PERIOD: Duration = Duration::from_secs(1);
/// A request that takes longer counts as unanswered.
const TIMEOUT: Duration = Duration::from_secs(5);
/// How long the screen's loop may take to end after a signal.
const GRACE: Duration = Duration::from_secs(2);
/// Answers that may wait to be drawn.
const WAITING: usize = 8;

/// What the user looks at.
#[derive(Debug, Clone, PartialEq)]
pub struct Request {
    /// The level of the pairs.
    pub level: Level,
    /// The flows of the pair that is looked at closely.
    pub flows: Option<FlowsQuery>,
}

/// What has come.
#[derive(Debug)]
pub enum Update {
    /// Pairs at a level.
    Pairs(Level, PairsAnswer),
    /// The daemon's own state and cost.
    Status(Box<Status>),
    /// The flows that were asked for.
    Flows(FlowsQuery, FlowsAnswer),
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
        let (request, requests) = watch::channel(Request { level, flows: None });
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
    pub fn next(&self) -> Option<Update> {
        self.updates.try_recv().ok()
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
    let mut ticks = interval(PERIOD);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // The first answer is there; the first tick only brings the status.
    let mut status_due = Instant::now();
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            changed = requests.changed() => if changed.is_err() { return },
        }
        let request = requests.borrow_and_update().clone();
        let update = match client.pairs(&pairs_query(request.level)).await {
            Ok(answer) => Update::Pairs(request.level, answer),
            Err(error) => Update::Failed(error.to_string()),
        };
        let answered = matches!(update, Update::Pairs(..));
        if !offer(&updates, update) {
            return;
        }
        if !answered {
            continue;
        }
        if let Some(query) = request.flows {
            // A flow table that does not come leaves the older one standing; the pairs tell of trouble.
            if let Ok(answer) = client.flows(&query).await
                && !offer(&updates, Update::Flows(query, answer))
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
}

/// False when nobody listens any more. An answer for which there is no room is dropped.
fn offer(updates: &mpsc::SyncSender<Update>, update: Update) -> bool {
    !matches!(updates.try_send(update), Err(mpsc::TrySendError::Disconnected(_)))
}

fn pairs_query(level: Level) -> PairsQuery {
    PairsQuery { level: Some(level).filter(|level| *level != Level::default()), ..PairsQuery::default() }
}
