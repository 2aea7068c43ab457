//! The tasks that talk to the container engine, on a thread of their own. The controller sends [`Ask`]s and gets [`Answer`]s
//! through its own channel; it never waits for the engine.

use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::{Mutex, Semaphore, mpsc};

use super::world::SetId;
use crate::priority;
use crate::runtime::{
    EngineEvent, Monitor, MonitorImage, MonitorLimits, MonitorSpec, NetworkMembers, NetworkMode, Runtime,
    RuntimeError, Snapshot,
};

/// Something asked of the engine.
#[derive(Clone, Debug)]
pub enum Ask {
    /// All containers and networks.
    Snapshot,
    /// Who is on a network.
    Members(String),
    /// Whose network a container uses.
    Mode(String),
    /// Where the engine keeps the network namespace of a container.
    Sandbox(String),
    /// Have a monitoring container made and started for a set, in place of one there may be.
    StartMonitor {
        /// The set.
        set: SetId,
        /// The folder that it sees.
        dir: PathBuf,
    },
    /// Remove a set's monitoring container.
    RemoveMonitor {
        /// The engine's id for it, or its name.
        id: String,
    },
    /// All monitoring containers of this instance.
    Monitors,
}

/// What the engine said.
pub enum Answer {
    /// It tells by itself.
    Event(EngineEvent),
    /// To [`Ask::Snapshot`].
    Snapshot(Result<Snapshot, RuntimeError>),
    /// To [`Ask::Members`].
    Members(String, Result<Option<NetworkMembers>, RuntimeError>),
    /// To [`Ask::Mode`].
    Mode(String, Result<Option<NetworkMode>, RuntimeError>),
    /// To [`Ask::Sandbox`].
    Sandbox(Result<Option<PathBuf>, RuntimeError>),
    /// To [`Ask::StartMonitor`]: the container's id and its process.
    Started(SetId, Result<(String, Option<u32>), RuntimeError>),
    /// To [`Ask::Monitors`], with each running one's process and whether it is made of this build.
    Monitors(Result<Vec<(Monitor, Option<u32>, bool)>, RuntimeError>),
}

/// How many monitoring containers the engine makes at once: application containers come first.
const AT_ONCE: usize = 2;

/// What the tasks need.
pub struct Engine {
    /// The engine.
    pub runtime: Runtime,
    /// The executable that the monitoring image is made of.
    pub executable: PathBuf,
    /// What a monitoring container may use.
    pub limits: MonitorLimits,
}

/// Starts the thread, which runs until the asks end. `sink` gets every answer; it must be quick.
///
/// The engine's word must not wait behind what the daemon's other tasks do, who serve readers and monitors.
pub fn start(
    engine: Engine,
    asks: mpsc::UnboundedReceiver<Ask>,
    sink: Arc<dyn Fn(Answer) + Send + Sync>,
) -> std::io::Result<JoinHandle<()>> {
    let tokio = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .thread_name("engine-blocking")
        .on_thread_start(priority::wait_turn)
        .build()?;
    std::thread::Builder::new().name("engine".into()).spawn(move || {
        priority::be_brief();
        tokio.block_on(run(engine, asks, sink));
        // what the engine has not answered by now is asked anew by the next start
        tokio.shutdown_timeout(Duration::from_secs(1));
    })
}

async fn run(
    engine: Engine,
    mut asks: mpsc::UnboundedReceiver<Ask>,
    sink: Arc<dyn Fn(Answer) + Send + Sync>,
) {
    let engine = Arc::new(engine);
    let image = Image::default();
    let making = Arc::new(Semaphore::new(AT_ONCE));
    let watcher = {
        let (engine, sink) = (engine.clone(), sink.clone());
        tokio::spawn(async move { engine.runtime.watch(|event| sink(Answer::Event(event))).await })
    };
    while let Some(ask) = asks.recv().await {
        let (engine, sink, image, making) = (engine.clone(), sink.clone(), image.clone(), making.clone());
        tokio::spawn(async move {
            match ask {
                Ask::Snapshot => sink(Answer::Snapshot(engine.runtime.snapshot().await)),
                Ask::Members(id) => {
                    let members = engine.runtime.network_endpoints(&id).await;
                    sink(Answer::Members(id, members));
                }
                Ask::Mode(id) => {
                    let mode = engine.runtime.network_mode(&id).await;
                    sink(Answer::Mode(id, mode));
                }
                Ask::Sandbox(id) => sink(Answer::Sandbox(engine.runtime.sandbox(&id).await)),
                Ask::StartMonitor { set, dir } => {
                    let _one = making.acquire().await;
                    let started = start_monitor(&engine, &image, set, dir).await;
                    if started.is_err() {
                        // the image may have been removed behind our back: make sure of it next time
                        *image.lock().await = None;
                    }
                    sink(Answer::Started(set, started));
                    remove_other_images(&engine, &image).await;
                }
                Ask::RemoveMonitor { id } => {
                    for _ in 0..3 {
                        match engine.runtime.remove_monitor(&id).await {
                            Ok(()) => break,
                            Err(error) => {
                                tracing::warn!(
                                    id,
                                    error = &error as &dyn std::error::Error,
                                    "a monitoring container is not removed yet"
                                );
                                tokio::time::sleep(Duration::from_secs(1)).await;
                            }
                        }
                    }
                    remove_other_images(&engine, &image).await;
                }
                Ask::Monitors => sink(Answer::Monitors(monitors(&engine, &image).await)),
            }
        });
    }
    watcher.abort();
}

/// The monitoring image of this build, once it is made.
type Image = Arc<Mutex<Option<MonitorImage>>>;

async fn image_id(engine: &Engine, image: &Image) -> Result<String, RuntimeError> {
    let mut known = image.lock().await;
    if let Some(made) = known.as_ref() {
        return Ok(made.id.clone());
    }
    let made = engine.runtime.ensure_image(&engine.executable).await?;
    let id = made.id.clone();
    *known = Some(made);
    Ok(id)
}

/// Images of the build before this one can go only when its last monitoring container has: so it is tried again
/// whenever one was replaced or removed.
async fn remove_other_images(engine: &Engine, image: &Image) {
    let mut known = image.lock().await;
    let Some(made) = known.as_mut().filter(|made| made.others > 0) else { return };
    match engine.runtime.remove_other_images(&made.tag).await {
        Ok(left) => made.others = left,
        Err(error) => tracing::warn!(
            error = &error as &dyn std::error::Error,
            "the monitoring image of an earlier build is not removed yet"
        ),
    }
}

async fn start_monitor(
    engine: &Engine,
    image: &Image,
    set: SetId,
    dir: PathBuf,
) -> Result<(String, Option<u32>), RuntimeError> {
    let spec = MonitorSpec {
        slot: set.to_string(),
        image: image_id(engine, image).await?,
        host_dir: dir,
        limits: engine.limits,
        env: Vec::new(),
    };
    tap::fault::point("monitor.image");
    let id = engine.runtime.create_monitor(&spec).await?;
    tap::fault::point("monitor.created");
    engine.runtime.start_monitor(&id).await?;
    tap::fault::point("monitor.started");
    let pid = engine.runtime.monitor_status(&id).await?.and_then(|s| s.pid);
    Ok((id, pid))
}

async fn monitors(engine: &Engine, image: &Image) -> Result<Vec<(Monitor, Option<u32>, bool)>, RuntimeError> {
    let ours = image_id(engine, image).await?;
    let mut all = Vec::new();
    for monitor in engine.runtime.list_monitors().await? {
        let pid = engine.runtime.monitor_status(&monitor.id).await?.and_then(|s| s.pid);
        let same = monitor.image_id == ours;
        all.push((monitor, pid, same));
    }
    Ok(all)
}
