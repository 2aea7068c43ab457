//! Other network namespaces whose bridges are watched as our own are: an engine makes one for each overlay network, and the host-side
//! ends of its containers are ports of a bridge there.
//!
//! An interface's index and name say who it is within its own namespace only. What comes from here bears the numbers that
//! [`tap::Namespace`] makes of them, in links and messages alike, and names that say where: `veth0@ov-0123456789`; a bridge
//! has the name under which its namespace was opened. Whoever asks about such a number asks in its namespace.
//!
//! A socket keeps its namespace alive. The engine makes the next one for the same network with the same tunnel's number, which the kernel
//! gives once: so what is open here is to be closed as soon as the engine has let go of it ([`Namespaces::look`]).

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use nix::sched::{CloneFlags, setns};
use nix::sys::statfs::{FsType, fstatfs};

use super::{Link, LinkEvent, LinkListener, LinkQuery, SwitchError};

/// `NSFS_MAGIC` of linux/magic.h: what a namespace's file is of.
const NSFS: FsType = FsType(0x6e73_6673);

/// Why a network namespace is not watched.
#[derive(Debug, thiserror::Error)]
pub enum NamespaceError {
    /// Its file cannot be read.
    #[error("cannot open the network namespace {path}")]
    Open {
        /// The file.
        path: String,
        /// The kernel's reason.
        #[source]
        source: io::Error,
    },
    /// The kernel does not let us in.
    #[error("cannot enter the network namespace {path}; conmond needs CAP_SYS_ADMIN for that")]
    Enter {
        /// The file.
        path: String,
        /// The kernel's reason.
        #[source]
        source: io::Error,
    },
    /// It cannot be listened to or asked.
    #[error(transparent)]
    Switch(#[from] SwitchError),
}

/// All that are open, and the numbers of what is in them. Clones are of the same.
#[derive(Clone, Debug, Default)]
pub struct Namespaces(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    /// By name.
    open: BTreeMap<String, Watched>,
    /// What has been seen there, by its number: the namespace's name and the index.
    numbers: HashMap<u32, (String, u32)>,
}

#[derive(Debug)]
struct Watched {
    there: Arc<There>,
    _listener: LinkListener,
}

/// One namespace.
#[derive(Debug)]
struct There {
    name: String,
    path: PathBuf,
    file: File,
    inode: u64,
    namespace: tap::Namespace,
    query: Mutex<LinkQuery>,
}

impl There {
    /// Runs something there, on a thread that ends with it: a thread's namespace is its own.
    fn enter<T: Send>(&self, f: impl FnOnce() -> T + Send) -> Result<T, NamespaceError> {
        inside(&self.file, f)
            .map_err(|source| NamespaceError::Enter { path: self.path.display().to_string(), source })
    }

    /// The file in its place is that of another namespace, or of none.
    fn is_over(&self) -> bool {
        std::fs::metadata(&self.path).map_or(true, |m| m.ino() != self.inode)
    }
}

fn inside<T: Send>(file: &File, f: impl FnOnce() -> T + Send) -> io::Result<T> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("namespace".into()).spawn_scoped(scope, || {
            setns(file, CloneFlags::CLONE_NEWNET)?;
            Ok(f())
        })?;
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// What was found at a namespace's place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Looked {
    /// It is as it was.
    Same,
    /// It is watched from now on, or not any more: links are to be listed anew.
    Changed,
}

impl Namespaces {
    /// Watches the namespace whose file is `path`, under a name of ours for it; none that has this name already and is still there.
    /// `sink` gets all messages about its links; it is as a listener's.
    pub fn look(
        &self,
        name: &str,
        path: &Path,
        sink: impl FnMut(LinkEvent) + Send + 'static,
    ) -> Result<Looked, NamespaceError> {
        if self.lock().open.get(name).is_some_and(|w| !w.there.is_over()) {
            return Ok(Looked::Same);
        }
        let closed = self.close(name);
        let failed = |source| NamespaceError::Open { path: path.display().to_string(), source };
        let file = match File::open(path) {
            // the engine is at making it, or at removing it
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(closed),
            other => other.map_err(failed)?,
        };
        if fstatfs(&file).map_err(|e| failed(e.into()))?.filesystem_type() != NSFS {
            return Ok(closed);
        }
        let inode = file.metadata().map_err(failed)?.ino();
        let namespace = tap::Namespace::named(name);
        let listen = self.listen(name, namespace, sink);
        let path = path.to_owned();
        let enter = |source| NamespaceError::Enter { path: path.display().to_string(), source };
        // the listener first: what happens after the list that follows is told
        let (query, listener) = inside(&file, || {
            let listener = LinkListener::start(listen)?;
            Ok::<_, SwitchError>((LinkQuery::open(Namespaces::default())?, listener))
        })
        .map_err(enter)??;
        let there = There { name: name.to_owned(), path, file, inode, namespace, query: Mutex::new(query) };
        let watched = Watched { there: Arc::new(there), _listener: listener };
        let before = self.lock().open.insert(name.to_owned(), watched);
        drop(before);
        Ok(Looked::Changed)
    }

    /// Lets go of those whose files are not there any more, or are others' by now.
    pub fn close_over(&self) -> Looked {
        let over: Vec<String> = {
            let state = self.lock();
            state.open.iter().filter(|(_, w)| w.there.is_over()).map(|(name, _)| name.clone()).collect()
        };
        let changed = over.iter().filter(|name| self.close(name) == Looked::Changed).count();
        if changed > 0 { Looked::Changed } else { Looked::Same }
    }

    fn close(&self, name: &str) -> Looked {
        let closed = {
            let mut state = self.lock();
            state.numbers.retain(|_, (of, _)| of != name);
            state.open.remove(name)
        };
        // without the lock: the listener ends with its last message, which asks for it
        if closed.is_some() { Looked::Changed } else { Looked::Same }
    }

    /// Names and files of those that are open.
    pub fn open(&self) -> BTreeMap<String, PathBuf> {
        self.lock().open.iter().map(|(name, w)| (name.clone(), w.there.path.clone())).collect()
    }

    /// All links in all of them; and the names of those that could not be asked, which is not to say that nothing is there.
    pub fn links(&self) -> (Vec<Link>, Vec<String>) {
        let all: Vec<Arc<There>> = self.lock().open.values().map(|w| w.there.clone()).collect();
        let (mut links, mut silent) = (Vec::new(), Vec::new());
        for there in all {
            let found = there.query.lock().unwrap_or_else(PoisonError::into_inner).links();
            match found {
                Ok(found) => {
                    let mut state = self.lock();
                    links.extend(found.into_iter().map(|l| state.take(&there.name, there.namespace, l)));
                }
                Err(error) => {
                    let error = &error as &dyn std::error::Error;
                    tracing::warn!(
                        namespace = there.name,
                        error,
                        "links of an overlay network cannot be listed"
                    );
                    silent.push(there.name.clone());
                }
            }
        }
        (links, silent)
    }

    /// Whether a link's name is that of one in this namespace.
    pub fn is_in(link: &str, namespace: &str) -> bool {
        link == namespace || link.strip_suffix(namespace).is_some_and(|rest| rest.ends_with('@'))
    }

    /// Runs something in the namespace of a link that was seen there, on a thread of its own, with what its number is made of.
    /// None if no such link is known.
    pub fn enter<T: Send>(
        &self,
        number: u32,
        f: impl FnOnce(tap::Namespace, u32) -> T + Send,
    ) -> Result<Option<T>, NamespaceError> {
        let Some((there, ifindex)) = self.find(number) else { return Ok(None) };
        there.enter(|| f(there.namespace, ifindex)).map(Some)
    }

    /// Asks about a link that was seen in one of them; none if no such link is known.
    pub(super) fn ask<T>(
        &self,
        number: u32,
        f: impl FnOnce(&mut LinkQuery, u32) -> Result<Option<T>, SwitchError>,
    ) -> Result<Option<T>, SwitchError> {
        let Some((there, ifindex)) = self.find(number) else { return Ok(None) };
        let mut query = there.query.lock().unwrap_or_else(PoisonError::into_inner);
        f(&mut query, ifindex)
    }

    /// A link as it is told of elsewhere.
    pub(super) fn named(&self, number: u32, link: Link) -> Link {
        match self.find(number) {
            Some((there, _)) => self.lock().take(&there.name, there.namespace, link),
            None => link,
        }
    }

    fn find(&self, number: u32) -> Option<(Arc<There>, u32)> {
        let state = self.lock();
        let (name, ifindex) = state.numbers.get(&number)?;
        Some((state.open.get(name)?.there.clone(), *ifindex))
    }

    fn listen(
        &self,
        name: &str,
        namespace: tap::Namespace,
        mut sink: impl FnMut(LinkEvent) + Send + 'static,
    ) -> impl FnMut(LinkEvent) + Send + 'static {
        // not ours to keep: what is listened for owns the listener
        let state: Weak<Mutex<State>> = Arc::downgrade(&self.0);
        let name = name.to_owned();
        move |event| {
            let Some(state) = state.upgrade() else { return };
            let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
            let event = match event {
                LinkEvent::New { link, at } => {
                    LinkEvent::New { link: state.take(&name, namespace, link), at }
                }
                LinkEvent::Del { ifindex, name: link, at } => {
                    let number = namespace.number(ifindex);
                    state.numbers.remove(&number);
                    LinkEvent::Del { ifindex: number, name: format!("{link}@{name}"), at }
                }
                overrun @ LinkEvent::Overrun { .. } => overrun,
            };
            drop(state);
            sink(event);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// A link of a namespace's own words in ours; its number is known from now on, for as long as the namespace is open.
    fn take(&mut self, name: &str, namespace: tap::Namespace, link: Link) -> Link {
        let number = namespace.number(link.ifindex);
        if self.open.contains_key(name) {
            self.numbers.insert(number, (name.to_owned(), link.ifindex));
        }
        let named = if link.is_bridge() { name.to_owned() } else { format!("{}@{name}", link.name) };
        Link {
            ifindex: number,
            name: named,
            master: link.master.map(|master| namespace.number(master)),
            ..link
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(ifindex: u32, kind: &str, name: &str, master: Option<u32>) -> Link {
        Link {
            ifindex,
            name: name.into(),
            master,
            link_netnsid: Some(1),
            peer_ifindex: Some(77),
            up: true,
            kind: Some(kind.into()),
            mac: None,
            mtu: 1450,
        }
    }

    #[test]
    fn links_there_have_numbers_and_names_of_ours() {
        let mut state = State::default();
        let names = ["ov-0123456789", "ov-abcdef0123"];
        let [one, other] = names.map(tap::Namespace::named);
        let bridge = state.take(names[0], one, link(2, "bridge", "br0", None));
        let port = state.take(names[0], one, link(7, "veth", "veth1", Some(2)));
        assert_eq!((bridge.name.as_str(), port.name.as_str()), ("ov-0123456789", "veth1@ov-0123456789"));
        assert_eq!(port.master, Some(bridge.ifindex));
        assert!(tap::is_elsewhere(port.ifindex) && tap::is_elsewhere(bridge.ifindex));
        assert_eq!((port.link_netnsid, port.peer_ifindex), (Some(1), Some(77)), "as they are there");
        let same = state.take(names[1], other, link(7, "veth", "veth1", Some(2)));
        assert_ne!((same.ifindex, same.master), (port.ifindex, port.master));
        assert!(state.numbers.is_empty(), "of what is not open nothing is kept");
        assert!([&bridge, &port].iter().all(|l| Namespaces::is_in(&l.name, names[0])));
        assert!(!Namespaces::is_in(&port.name, names[1]) && !Namespaces::is_in("veth1", names[0]));
    }

    #[test]
    fn what_is_no_namespace_is_passed_over() {
        let namespaces = Namespaces::default();
        let look = |path: &Path| namespaces.look("ov-0123456789", path, |_| {});
        let missing = std::env::temp_dir().join("conmon-no-such-namespace");
        assert_eq!(look(&missing).unwrap(), Looked::Same);
        // an empty file: it is not mounted yet, or not any more
        let file = std::env::temp_dir().join(format!("conmon-namespace-{}", std::process::id()));
        std::fs::write(&file, "").unwrap();
        assert_eq!(look(&file).unwrap(), Looked::Same);
        std::fs::remove_file(&file).unwrap();
        assert!(namespaces.open().is_empty());
        assert_eq!(namespaces.enter(tap::Namespace::named("x").number(3), |_, _| ()).unwrap(), None);
    }
}
