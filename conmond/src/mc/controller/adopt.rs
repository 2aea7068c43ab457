//! The beginning: what an earlier daemon left in the kernel and on disk is taken over, the rest is made.

use super::*;
use crate::store::Journal;

impl Work {
    pub(super) fn new(
        settings: Settings,
        shared: Arc<Shared>,
        tokio: tokio::runtime::Handle,
        engine: Engine,
        events: Sender<Event>,
    ) -> anyhow::Result<Self> {
        let saved = Saved::load(&settings.run_dir.join(STATE)).unwrap_or_default();
        let engine_address = engine.runtime.address();
        let (asks, inbox) = tokio::sync::mpsc::unbounded_channel();
        let started = monotonic();
        let namespaces = shared.namespaces().clone();
        let overlays = overlays::start(&namespaces, &saved.overlays, &events)?;
        let tapper = {
            let events = events.clone();
            Tapper::start(&namespaces, move |done| {
                let _ = events.send(Event::Tapped(Box::new(done)));
            })
            .context("cannot start the threads that tap")?
        };
        let rigger = {
            let events = events.clone();
            Rigger::start(move |done| {
                let _ = events.send(Event::Rigged(Box::new(done)));
            })
            .context("cannot start the rigger's thread")?
        };
        let surveyor = {
            let events = events.clone();
            Surveyor::start(&namespaces, move |found| {
                let _ = events.send(Event::Found(found));
            })
            .context("cannot start the surveyor's thread")?
        };
        let saver = {
            let events = events.clone();
            Saver::start(settings.run_dir.join(STATE), shared.store_handle(), move |roles| {
                let _ = events.send(Event::Saved(roles));
            })
            .context("cannot start the saver's thread")?
        };
        let translations = shared.store().translations();
        let mut query = LinkQuery::open(namespaces.clone())?;
        let mut work = Self {
            world: World::new(settings.wishes.clone()),
            settings,
            shared,
            tokio,
            engine: None,
            events: events.clone(),
            asks,
            engine_address,
            engine_version: None,
            engine_error: None,
            sent: query.sent()?,
            tidy_at: Some(started),
            query,
            namespaces,
            overlays,
            overlays_failed: BTreeMap::new(),
            dispatcher: None,
            shares: false,
            sandboxes: Sandboxes::Unknown,
            look_again_at: None,
            janitor: None,
            hands: BTreeMap::new(),
            ports: BTreeMap::new(),
            gone: BTreeMap::new(),
            next_set: 1,
            alive: HashMap::new(),
            gone_cpu: Duration::ZERO,
            restarts: BTreeMap::new(),
            callers: Callers::default(),
            snapshot: None,
            snapshot_again: false,
            snapshot_retry_at: None,
            snapshots: 0,
            monitors_listed: false,
            monitor_error: None,
            load_error: None,
            closing: Vec::new(),
            attachment: "",
            tapper,
            hierarchy: crate::runtime::cgroup::hierarchy(),
            rigger,
            surveyor,
            saver,
            growing: BTreeMap::new(),
            grow_error: None,
            translations,
            nat: None,
            nat_error: None,
            started,
            known_until: saved.at,
            dirty: true,
            unsaved: true,
            names_changes: 0,
            looked_at: Timestamp::ZERO,
            saved_at: started,
            swept_at: started,
            published_at: Timestamp::ZERO,
            publish_at: Timestamp::ZERO,
            no_baseline: Default::default(),
        };
        // before any measurement comes, so that each flow's far end is known
        work.watch_nat();
        work.start_dispatcher();
        let sets = work.adopt_sets()?;
        fault::point("adopt.sets");
        work.open_journal(&sets)?;
        work.take_over(sets, saved)?;
        fault::point("adopt.done");
        if work.world.set_with(&SetRole::Nursery).is_none() {
            let id = SetId(work.next_set);
            work.next_set += 1;
            let set = Set::create(work.settings.set).context("cannot load the tap's programs")?;
            set.pin(&work.set_dir(id))?;
            fault::point("nursery.pinned");
            work.own_set(id, set, SetRole::Nursery, MonitorSeen::Inline)?;
        }
        // roles are on disk before the first port is tapped
        work.save();
        let programs = work.hands.values().next().map(|h| h.set.clone());
        work.world.wishes.fasten =
            work.settings.attach == Attach::Quick && programs.is_some_and(|set| tap::has_tcx(set.programs()));
        let sink = Arc::new(move |answer| {
            let _ = events.send(Event::Engine(answer));
        });
        work.engine = Some(super::super::engine::start(engine, inbox, sink)?);
        Ok(work)
    }

    /// Links that look like ports are tapped as soon as they are there, if their filters can be shared.
    pub(super) fn start_reflex(&mut self) {
        let Some(dispatcher) = self.dispatcher.clone().filter(|dispatcher| dispatcher.serves()) else {
            return;
        };
        if let Err(error) = self.tapper.start_reflex(dispatcher) {
            let error = &error as &dyn std::error::Error;
            tracing::warn!(error, "new ports are tapped when the controller comes to them");
        }
        self.tell_reflex();
    }

    /// The nursery's programs, or others of it, are there.
    pub(super) fn tell_reflex(&self) {
        if let Some(id) = self.world.set_with(&SetRole::Nursery)
            && let Some(hand) = self.hands.get(&id)
        {
            self.tapper.tap_first_for(hand.set.clone(), self.set_dir(id));
        }
    }

    /// Without a dispatcher each port has filters of its own: that works as well, and takes longer when many start at once.
    fn start_dispatcher(&mut self) {
        let pins = &self.settings.pins;
        // where ports cannot be fastened, nobody else could put filters of his own on them for as long as they are there
        self.shares = self.settings.attach == Attach::Quick && tap::kernel_has_tcx();
        let started = if self.shares { Dispatcher::start(pins).map(Some) } else { Dispatcher::adopt(pins) };
        match started {
            Ok(dispatcher) => self.dispatcher = dispatcher,
            Err(error) => {
                let error = &error as &dyn std::error::Error;
                tracing::warn!(error, "ports cannot share their filters; each gets its own");
                self.shares = false;
                self.dispatcher = Dispatcher::adopt(pins).unwrap_or_default();
            }
        }
        if let Some(dispatcher) = self.dispatcher.clone() {
            self.shared.set_dispatcher(dispatcher);
        }
    }

    /// Opens every pinned set. One of another layout cannot be gone on with: its pins are removed, its counts end here.
    fn adopt_sets(&mut self) -> anyhow::Result<BTreeMap<SetId, Set>> {
        std::fs::create_dir_all(&self.settings.pins).with_context(|| {
            format!("cannot make {}: is the BPF file system mounted?", self.settings.pins.display())
        })?;
        let mut sets = BTreeMap::new();
        for entry in std::fs::read_dir(&self.settings.pins)?.flatten() {
            let Some(id) = entry.file_name().to_str().and_then(SetId::parse) else { continue };
            self.next_set = self.next_set.max(id.0 + 1);
            match Set::adopt(&entry.path()) {
                Ok(set) => {
                    sets.insert(id, set);
                }
                Err(error) => {
                    tracing::warn!(set = %id, error = &error as &dyn std::error::Error, "a pinned set cannot be adopted; counting begins anew for its ports");
                    for port in Port::adopt(&entry.path(), self.dispatcher.as_ref()).unwrap_or_default() {
                        port.detach()?;
                    }
                    Set::unpin(&entry.path())?;
                }
            }
        }
        Ok(sets)
    }

    /// Ended pairs of before, but for those that the kernel still has, because it did not come to free them.
    fn open_journal(&mut self, sets: &BTreeMap<SetId, Set>) -> anyhow::Result<()> {
        let is_alive = |life: &crate::store::PairLife| {
            sets.get(&SetId(life.set))
                .and_then(|set| set.pair_now(life.id.slot).ok().flatten())
                .is_some_and(|(p, _)| p.id == life.id && p.first_seen == life.first_seen)
        };
        let path = self.settings.run_dir.join(JOURNAL);
        let (journal, retired, damaged) = Journal::open(&path, is_alive)?;
        if damaged > 0 {
            tracing::warn!(damaged, path = %path.display(), "lines of the journal cannot be read: totals of some ended pairs are lost");
        }
        for record in retired {
            self.shared.store().restore(record);
        }
        let (store, names) = (self.shared.store_handle(), self.shared.names_handle());
        let janitor = Janitor::start(store, names, self.shared.delays_handle(), journal)?;
        self.shared.set_jobs(Some(janitor.jobs()));
        self.janitor = Some(janitor);
        Ok(())
    }

    fn take_over(&mut self, sets: BTreeMap<SetId, Set>, saved: Saved) -> anyhow::Result<()> {
        self.shared.names_mut().restore(saved.names);
        self.shared.store().restore_shares(saved.shares);
        let now = monotonic();
        let dirs: Vec<PathBuf> = sets.keys().map(|id| self.set_dir(*id)).collect();
        Port::mend(&dirs)?;
        let mut counted = std::collections::BTreeSet::new();
        for (id, set) in sets {
            let counted_here = set.counted_ports()?;
            let role = saved.sets.get(&id.0).cloned();
            let adopted = Port::adopt(&self.set_dir(id), self.dispatcher.as_ref())?;
            let role = role.unwrap_or_else(|| {
                // its role was not saved in time
                if adopted.is_empty() && counted_here.is_empty() {
                    SetRole::Pool
                } else {
                    // its ports move on by themselves, then it retires
                    SetRole::Tenant(format!("unknown-{id}"))
                }
            });
            counted.extend(counted_here);
            let duplicate = self.world.set_with(&role).is_some();
            let role = if duplicate && role == SetRole::Nursery {
                SetRole::Tenant(format!("unknown-{id}"))
            } else {
                role
            };
            let monitor = if role == SetRole::Nursery {
                MonitorSeen::Inline
            } else {
                // an earlier daemon's, if it is there at all: this one has not asked for it, so that the list of
                // monitors may find it dead, gone, or of another build
                MonitorSeen::Starting { since: self.started }
            };
            let dir = self.set_dir(id);
            for mut port in adopted {
                // one that was being fastened when the daemon died is settled first; then this build's programs go over the
                // same maps: not a packet is missed
                let taken = port.settle(&set).and_then(|()| port.move_to_set(&set, Some(&dir)));
                if taken.is_ok() && port.is_shared() && self.settings.attach == Attach::Tcx {
                    // by nothing else than this from now on; where it cannot be, it is counted as it was
                    if let Err(error) = port.fasten(&set) {
                        let (ifindex, error) = (port.ifindex(), &error as &dyn std::error::Error);
                        tracing::warn!(ifindex, error, "a tap is not fastened; it goes on counting as it is");
                    }
                }
                if let Err(error) = taken {
                    let ifindex = port.ifindex();
                    if port.is_alive() {
                        let error = &error as &dyn std::error::Error;
                        tracing::warn!(ifindex, error, "a port cannot be taken over; it is tapped anew");
                        self.no_baseline.insert(ifindex);
                    }
                    port.detach()?;
                    continue;
                }
                fault::point("adopt.port");
                let ifindex = port.ifindex();
                let known = saved.ports.get(&ifindex);
                let owner = known.and_then(|k| k.owner.clone());
                let (how, is_group) = (port.how(), tap::is_group(ifindex));
                if is_group {
                    let Some(owner) = &owner else {
                        // nobody knows whose it is: it is looked for anew, and goes on where it was
                        port.detach()?;
                        continue;
                    };
                    self.take_over_group(ifindex, owner);
                } else if !tap::is_elsewhere(ifindex) {
                    self.attachment = how;
                }
                // it was made, and tapped, and did not come to join a bridge before the daemon died
                let has_no_bridge = |link: &crate::switch::Link| link.is_veth() && link.master.is_none();
                let early = !is_group
                    && self.query.link(ifindex).is_ok_and(|l| l.as_ref().is_some_and(has_no_bridge));
                let tapped_at = known.map_or(now, |k| k.tapped_at);
                let hold = if port.is_fast() { TapHold::Fast } else { TapHold::Quick };
                let tap =
                    TapSeen { set: id, tapped_at, adopted: true, early, hold, programs: 0, heading: None };
                self.world.taps.insert(ifindex, tap);
                if let Some(owner) = owner {
                    self.world.owners.insert(ifindex, owner);
                }
                let baseline = known.and_then(|k| k.baseline);
                self.ports.insert(ifindex, Tapped { port: Some(port), how, before: None, baseline });
            }
            set.janitor().run(&[tap::Command::Overlap(false)])?;
            let growing = set.older_flows().is_some();
            if growing {
                // every port has programs over the larger table now; nobody else ends anything yet
                let drained = set.drain()?;
                fault::point("adopt.drained");
                Set::unpin_older(&dir)?;
                tracing::info!(set = %id, ?drained, "a flow table that was being exchanged is exchanged");
            }
            self.own_set(id, set, role, monitor)?;
            if growing {
                self.settle_growth(id);
            }
        }
        if let Some(dispatcher) = self.dispatcher.as_ref().filter(|_| !self.shares) {
            // a port that a crash left without a mark is counted in another way from now on
            dispatcher.sweep();
        }
        self.shared.store().keep_ports(|ifindex| self.world.taps.contains_key(&ifindex));
        counted.extend(saved.ports.keys());
        for ifindex in counted.into_iter().filter(|i| !self.world.taps.contains_key(i)) {
            // A tap that a crash left half done counted something already, and its interface's counters of then are not known;
            // other ports went while nobody looked.
            match self.query.link(ifindex) {
                _ if tap::is_group(ifindex) => self.send(Job::Port(ifindex, None)),
                Ok(None) => self.send(Job::Port(ifindex, None)),
                _ => drop(self.no_baseline.insert(ifindex)),
            }
        }
        Ok(())
    }
}
