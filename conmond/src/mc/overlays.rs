//! The thread that finds the network namespaces of overlay networks. Docker makes one on each host for each such network, when the first of
//! its containers is there, and removes it after the last; nobody tells of either. Its file lies beside those of containers, and bears the
//! beginning of the network's id.
//!
//! While there is no overlay network the thread sleeps. Else it looks at one folder every 25 ms: a container's process begins some
//! 300 ms after its port is there, and a namespace that is kept for long stands in its successor's way.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::controller::chain;
use crate::priority;
use crate::runtime::overlay_name;
use crate::switch::{LinkEvent, Looked, Namespaces};

const EVERY: Duration = Duration::from_millis(25);

/// Pause after a namespace could not be watched.
const AGAIN: Duration = Duration::from_secs(5);

/// Where Docker keeps the files, unless it was told to run elsewhere.
const USUAL: &str = "/run/docker/netns";

/// The name of a namespace's file: how often the network's was made on this host, a hyphen, and as much of the network's id as there is
/// room for.
const FILE_NAME: usize = 12;

/// The beginning of the network's id in the name of a namespace's file, if that may be an overlay network's.
fn id_in(file: &str) -> Option<&str> {
    let (times, id) = file.split_once('-')?;
    let counts = !times.is_empty() && times.bytes().all(|b| b.is_ascii_digit());
    (counts && file.len() == FILE_NAME).then_some(id)
}

/// What the thread is told.
enum Word {
    /// These are the overlay networks, by their ids.
    Networks(BTreeSet<String>),
    /// The engine keeps its namespaces here.
    Folder(PathBuf),
}

/// What the thread tells.
#[derive(Debug)]
pub enum News {
    /// A message about a link in one of the namespaces.
    Link(LinkEvent),
    /// There are others than before: links are to be listed anew.
    Changed,
    /// Networks whose namespace cannot be watched, and why; none from now on if it is empty.
    Failed(BTreeMap<String, String>),
}

/// The running thread.
pub struct Overlays {
    words: Option<Sender<Word>>,
    thread: Option<JoinHandle<()>>,
}

impl Overlays {
    /// Starts the thread, which opens and closes `namespaces`.
    pub fn start(
        namespaces: Namespaces,
        tell: impl Fn(News) + Clone + Send + 'static,
    ) -> std::io::Result<Self> {
        let (words, inbox) = channel();
        let search = Search {
            namespaces,
            tell,
            wanted: BTreeSet::new(),
            folders: vec![USUAL.into()],
            failed: BTreeMap::new(),
            again_at: BTreeMap::new(),
        };
        let thread = std::thread::Builder::new().name("overlays".into()).spawn(move || {
            priority::wait_turn();
            search.run(&inbox);
        })?;
        Ok(Self { words: Some(words), thread: Some(thread) })
    }

    /// These are the overlay networks, by their ids.
    pub fn want(&self, networks: BTreeSet<String>) {
        self.say(Word::Networks(networks));
    }

    /// The engine keeps its namespaces in this folder.
    pub fn look_in(&self, folder: PathBuf) {
        self.say(Word::Folder(folder));
    }

    fn say(&self, word: Word) {
        if let Some(words) = &self.words {
            // the thread ends only after this sender went
            let _ = words.send(word);
        }
    }
}

impl Drop for Overlays {
    fn drop(&mut self) {
        self.words = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

struct Search<T> {
    namespaces: Namespaces,
    tell: T,
    wanted: BTreeSet<String>,
    folders: Vec<PathBuf>,
    failed: BTreeMap<String, String>,
    /// Not before then is one of those tried again.
    again_at: BTreeMap<String, Instant>,
}

impl<T: Fn(News) + Clone + Send + 'static> Search<T> {
    fn run(mut self, inbox: &Receiver<Word>) {
        loop {
            let idle = self.wanted.is_empty() && self.namespaces.open().is_empty();
            let word = if idle {
                inbox.recv().map_err(|_| RecvTimeoutError::Disconnected)
            } else {
                inbox.recv_timeout(EVERY)
            };
            match word {
                Ok(Word::Networks(networks)) => self.wanted = networks,
                Ok(Word::Folder(folder)) if !self.folders.contains(&folder) => self.folders.push(folder),
                Ok(Word::Folder(_)) | Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            self.look();
        }
    }

    fn look(&mut self) {
        let mut changed = self.namespaces.close_over() == Looked::Changed;
        let (before, now) = (self.failed.clone(), Instant::now());
        let mut failed = BTreeMap::new();
        for folder in self.folders.clone() {
            for (begins, path) in files(&folder) {
                let Some(id) = self.wanted.iter().find(|id| id.starts_with(&begins)) else { continue };
                let name = overlay_name(id);
                if self.again_at.get(&name).is_some_and(|at| *at > now) {
                    failed.extend(self.failed.remove_entry(&name));
                    continue;
                }
                match open(&self.namespaces, &name, &path, self.tell.clone()) {
                    Ok(looked) => changed |= looked == Looked::Changed,
                    Err(why) => {
                        self.again_at.insert(name.clone(), now + AGAIN);
                        failed.insert(name, why);
                    }
                }
            }
        }
        if changed {
            (self.tell)(News::Changed);
        }
        self.again_at.retain(|_, at| *at > now);
        self.failed.clone_from(&failed);
        if failed != before {
            (self.tell)(News::Failed(failed));
        }
    }
}

/// Watches a namespace, if it is not watched yet.
pub fn open(
    namespaces: &Namespaces,
    name: &str,
    path: &Path,
    tell: impl Fn(News) + Send + 'static,
) -> Result<Looked, String> {
    namespaces.look(name, path, move |event| tell(News::Link(event))).map_err(|error| chain(&error))
}

/// Files that may be overlay networks' namespaces, each with the beginning of the id. A folder that is not there has none.
fn files(folder: &Path) -> impl Iterator<Item = (String, PathBuf)> {
    fs::read_dir(folder).into_iter().flatten().flatten().filter_map(|entry| {
        let file = entry.file_name();
        Some((id_in(file.to_str()?)?.to_owned(), entry.path()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_overlay_networks_are_told_by_their_names() {
        let id = "wzukz0k7vqrkmqyw9uuyuwcsd";
        assert_eq!(overlay_name(id), "ov-wzukz0k7vq");
        assert_eq!(id_in("1-wzukz0k7vq"), Some("wzukz0k7vq"));
        assert_eq!(id_in("12-wzukz0k7v"), Some("wzukz0k7v"), "made for the twelfth time");
        for other in
            ["8e5bc990c0a8", "default", "ingress_sbox", "lb_wzukz0k7v", "-wzukz0k7vqr", "1-wzukz0k7v", ""]
        {
            assert_eq!(id_in(other), None, "{other}");
        }
    }

    #[test]
    fn a_folder_that_is_not_there_has_no_files() {
        assert_eq!(files(Path::new("/nonexistent/netns")).count(), 0);
    }
}
