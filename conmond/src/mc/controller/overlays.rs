//! Overlay networks: their bridges lie in network namespaces of their own, which are found by their files and watched as our own is.

use super::*;
use crate::mc::overlays;
use crate::runtime::{OVERLAY, RuntimeError, overlay_name};

/// Where the engine keeps its network namespaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sandboxes {
    /// Nobody asked.
    Unknown,
    /// It was asked, and has not answered yet.
    Asked,
    /// The thread that looks for them knows.
    Known,
}

/// Opens what an earlier daemon had open, so that its ports are there before anybody asks for them, and starts to look for others.
pub(super) fn start(
    namespaces: &Namespaces,
    saved: &BTreeMap<String, PathBuf>,
    events: &Sender<Event>,
) -> anyhow::Result<Overlays> {
    let events = events.clone();
    let tell = move |news| {
        let _ = events.send(Event::Overlays(news));
    };
    let overlays = Overlays::start(namespaces.clone(), tell.clone())
        .context("cannot start the thread that looks for overlay networks")?;
    for (name, path) in saved {
        if let Err(error) = overlays::open(namespaces, name, path, tell.clone()) {
            tracing::warn!(network = name, error, "an overlay network is not watched any more");
        }
        if let Some(folder) = path.parent() {
            overlays.look_in(folder.to_owned());
        }
    }
    // from now on their ports are known by their numbers
    namespaces.links();
    Ok(overlays)
}

impl Work {
    pub(super) fn take_overlays(&mut self, news: News) {
        match news {
            News::Link(event) => self.take_link(event),
            News::Changed => {
                self.unsaved = true;
                self.look_at_all_links();
            }
            News::Failed(failed) => {
                for (network, why) in &failed {
                    tracing::warn!(network, why, "an overlay network is not watched");
                }
                (self.overlays_failed, self.dirty) = (failed, true);
            }
        }
    }

    /// Networks have come or gone.
    pub(super) fn tell_overlays(&mut self) {
        let overlays = self.world.networks.iter().filter(|(_, n)| n.network.driver == OVERLAY);
        let overlays: std::collections::BTreeSet<String> = overlays.map(|(id, _)| id.clone()).collect();
        let cannot = match self.settings.attach {
            _ if overlays.is_empty() => None,
            Attach::Clsact => Some("its ports can be tapped by TCX only, and `tap` is `clsact`"),
            _ if !tap::kernel_has_tcx() => {
                Some("its ports can be tapped by TCX only, which Linux 6.6 brought")
            }
            _ => None,
        };
        if let Some(why) = cannot {
            self.overlays_failed = overlays.iter().map(|id| (overlay_name(id), why.to_owned())).collect();
            return;
        }
        self.overlays.want(overlays);
        let runs = self.world.containers.iter().find(|(_, c)| c.container.state.is_alive());
        if let Some((id, _)) = runs {
            self.ask_sandbox(&id.clone());
        }
    }

    /// Finds out from a container where the engine keeps network namespaces, if that matters and is not known.
    pub(super) fn ask_sandbox(&mut self, container: &str) {
        let any = self.world.networks.values().any(|n| n.network.driver == OVERLAY);
        if any && self.sandboxes == Sandboxes::Unknown {
            self.sandboxes = Sandboxes::Asked;
            self.ask(Ask::Sandbox(container.to_owned()));
        }
    }

    pub(super) fn take_sandbox(&mut self, result: Result<Option<PathBuf>, RuntimeError>) {
        self.sandboxes = match result.as_ref().map(|path| path.as_deref().and_then(std::path::Path::parent)) {
            Ok(Some(folder)) => {
                self.overlays.look_in(folder.to_owned());
                Sandboxes::Known
            }
            // it ended meanwhile, or the engine did not answer: the next container is asked about
            Ok(None) | Err(_) => Sandboxes::Unknown,
        };
    }
}
