//! The simulated system: hosts, the store, what lies between them, containers that come and go; all of it in virtual time and from one seed.

use std::collections::{BTreeMap, HashSet};

use conmond::registry::Now;
use conmond::registry::reader;

use crate::cast::{Cast, host_name, peers};
use crate::events::{Event, Queue};
use crate::host::{Call, Far, Got, Host, Out};
use crate::plan::{EPOCH_NS, MS, Plan, Rng, S};
use crate::service::{Job, Service};
use crate::store::{Notice, Store, TTL_NS};

/// The controller looks for changes of its names so often.
const LOOK_NS: u64 = 50 * MS;
/// The etcd backend's bound on a call's time.
pub const CALL_TIMEOUT_NS: u64 = 2 * S;
/// All writers have begun by then, and readers begin.
const READERS_NS: u64 = 5 * S;

/// The system.
pub struct World {
    /// What is simulated.
    pub plan: Plan,
    /// Since the beginning, ns.
    pub now_ns: u64,
    /// The store.
    pub store: Store,
    /// How fast it answers.
    pub service: Service,
    /// All hosts.
    pub hosts: Vec<Host>,
    /// The truth.
    pub cast: Cast,
    rng: Rng,
    events: Queue,
    down: bool,
    /// Containers are replaced.
    pub churning: bool,
    /// Only those that simulated readers talk to: the same for the readers, and little work for the writers.
    pub only_talked_to: bool,
    /// Containers talk on.
    pub talking: bool,
    /// Readers that talk to a place.
    talkers: BTreeMap<(u32, u32), Vec<u32>>,
    /// Calls that their hosts may give up before they are answered.
    doubtful: BTreeMap<u64, Job>,
    calls: u64,
}

impl World {
    /// A system in which all containers run, and nobody has said anything yet.
    pub fn new(plan: Plan) -> Self {
        let mut rng = Rng::new(plan.seed);
        let cast = Cast::new(plan, &mut rng);
        let readers: Vec<u32> = (0..plan.readers).map(|reader| plan.reader_host(reader)).collect();
        let mut talkers: BTreeMap<(u32, u32), Vec<u32>> = BTreeMap::new();
        let mut hosts = Vec::new();
        for host in 0..plan.hosts {
            let talks = readers.contains(&host).then(|| peers(&plan, host, &mut rng));
            for place in talks.iter().flatten() {
                talkers.entry(*place).or_default().push(host);
            }
            hosts.push(Host::new(talks, plan.seed + u64::from(host)));
        }
        let mut world = Self {
            plan,
            now_ns: 0,
            store: Store::default(),
            service: Service::default(),
            hosts,
            cast,
            rng,
            events: Queue::default(),
            down: false,
            churning: true,
            only_talked_to: false,
            talking: true,
            talkers,
            doubtful: BTreeMap::new(),
            calls: 0,
        };
        for host in 0..plan.hosts {
            let start = world.rng.below(READERS_NS / 2);
            world.after(start, Event::Look(host));
        }
        for host in readers {
            for place in
                world.hosts[host as usize].far.as_ref().map(|far| far.peers.clone()).unwrap_or_default()
            {
                world.after(READERS_NS, Event::Talks(host, place));
            }
            let first = READERS_NS + S + world.rng.below(S);
            world.after(first, Event::GoesOn(host));
        }
        world.after(S, Event::Tick);
        world.after(READERS_NS, Event::Ends);
        world
    }

    /// This moment.
    pub const fn now(&self) -> Now {
        Now { steady_ns: self.now_ns, wall_ns: EPOCH_NS + self.now_ns }
    }

    /// Hosts whose readers are simulated.
    pub fn readers(&self) -> impl Iterator<Item = u32> + use<> {
        let plan = self.plan;
        (0..plan.readers).map(move |reader| plan.reader_host(reader))
    }

    fn after(&mut self, wait_ns: u64, event: Event) {
        self.events.push(self.now_ns + wait_ns, event);
    }

    /// Lets everything happen up to a moment.
    pub fn run_until(&mut self, end_ns: u64) {
        while let Some((at_ns, event)) = self.events.pop(end_ns) {
            self.now_ns = at_ns;
            self.happen(event);
        }
        self.now_ns = end_ns;
    }

    /// The way to the store, or from it.
    const fn way_ns(&self) -> u64 {
        self.plan.answer_ns / 2
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Wake(host) => {
                if self.hosts[host as usize].wake_ns == self.now_ns {
                    self.hosts[host as usize].wake_ns = u64::MAX;
                    self.work(host);
                }
            }
            Event::Arrives(job) => self.arrives(job),
            Event::Served => self.served(),
            Event::Answered(job, got) => {
                self.doubtful.remove(&job.id);
                if job.sent_ns + CALL_TIMEOUT_NS > self.now_ns {
                    self.answered(job, got);
                }
            }
            Event::GivenUp(id) => {
                if let Some(job) = self.doubtful.remove(&id) {
                    self.answered(job, None);
                }
            }
            Event::Stream(host, number, ask) => self.stream(host, number, ask),
            Event::Heard(number, notice) => self.heard(number, &notice),
            Event::Alive(host, number, revision) => {
                let now = self.now();
                if let Some(far) = self.hears(host, number) {
                    far.reader.progress(revision, now);
                }
                self.work(host);
            }
            Event::Broken(host) => {
                let now = self.now();
                self.hosts[host as usize].lose(now);
                self.work(host);
            }
            Event::Ends => self.ends(),
            Event::Begins(host, place) => self.begins(host, place),
            Event::Look(host) => {
                let (now, own) = (self.now(), self.cast.own(host, EPOCH_NS + self.now_ns));
                self.hosts[host as usize].publish(own, now);
                self.work(host);
            }
            Event::Talks(host, place) => {
                self.talks(host, place, false);
                self.work(host);
            }
            Event::GoesOn(host) => self.goes_on(host),
            Event::Tick => {
                if !self.down {
                    self.store.tick(self.now_ns);
                    self.tell();
                }
                self.after(S, Event::Tick);
            }
            Event::Up => {
                self.down = false;
                self.store.restarted(TTL_NS, self.now_ns);
            }
        }
    }

    fn work(&mut self, host: u32) {
        let now = self.now();
        for out in self.hosts[host as usize].work(now) {
            let number = self.hosts[host as usize].number;
            match out {
                Out::Call(call) => {
                    self.calls += 1;
                    let job = Job { id: self.calls, host, number, sent_ns: self.now_ns, call };
                    self.after(self.way_ns(), Event::Arrives(job));
                }
                Out::Stream(ask) => self.after(self.way_ns(), Event::Stream(host, number, ask)),
                Out::Lost => self.store.end_stream(host),
            }
        }
        let deadline = self.hosts[host as usize].deadline(now);
        let one = &mut self.hosts[host as usize];
        // Nobody wakes twice in a moment.
        let at = deadline.max(now.steady_ns + MS / 20);
        if deadline != u64::MAX && at < one.wake_ns {
            one.wake_ns = at;
            self.after(at - now.steady_ns, Event::Wake(host));
        }
    }

    fn arrives(&mut self, job: Job) {
        if self.down {
            // Refused at once: nobody listens.
            return self.after(self.way_ns(), Event::Answered(job, None));
        }
        let weight = if matches!(job.call, Call::Read(..)) { self.plan.weight() } else { 1.0 };
        match self.service.takes(weight) {
            None => self.serve(job),
            Some(cost_ns) => {
                let wait_ns = self.service.backlog_ns() + cost_ns;
                let sent_ns = job.sent_ns;
                if self.now_ns + wait_ns + self.way_ns() >= sent_ns + CALL_TIMEOUT_NS {
                    self.doubtful.insert(job.id, job.clone());
                    self.after(
                        (sent_ns + CALL_TIMEOUT_NS).saturating_sub(self.now_ns),
                        Event::GivenUp(job.id),
                    );
                }
                if self.service.queue(job, cost_ns) {
                    self.after(cost_ns, Event::Served);
                }
            }
        }
    }

    fn served(&mut self) {
        let Some(job) = self.service.done() else { return };
        self.serve(job);
        // A call that its host gave up costs nothing any more.
        while self.service.first().is_some_and(|job| job.sent_ns + CALL_TIMEOUT_NS <= self.now_ns) {
            self.service.done();
        }
        if let Some(cost_ns) = self.service.first_cost_ns() {
            self.after(cost_ns, Event::Served);
        }
    }

    fn serve(&mut self, job: Job) {
        let got = match &job.call {
            Call::Probe => Got::Probed,
            Call::Write(ask) => {
                let told = self.store.write(&host_name(job.host), ask, TTL_NS, self.now_ns);
                self.tell();
                Got::Told(told)
            }
            Call::Read(target, _) => Got::Read(self.store.read(*target)),
        };
        self.after(self.way_ns(), Event::Answered(job, Some(got)));
    }

    fn answered(&mut self, job: Job, got: Option<Got>) {
        let now = self.now();
        if self.hosts[job.host as usize].answered(job.number, &job.call, got, now) {
            self.store.end_stream(job.host);
        }
        self.work(job.host);
    }

    /// Tells watchers what happened.
    fn tell(&mut self) {
        for notice in self.store.notices() {
            let number = self.hosts[notice.host as usize].number;
            self.after(self.way_ns(), Event::Heard(number, notice));
        }
    }

    fn stream(&mut self, host: u32, number: u64, ask: reader::Ask) {
        if self.hears(host, number).is_none() || self.down {
            return;
        }
        match ask {
            reader::Ask::Watch { target, ticket, from } => {
                if let Some(notice) = self.store.watch(host, target, ticket, from) {
                    self.after(self.way_ns(), Event::Heard(number, notice));
                }
            }
            reader::Ask::Unwatch { ticket } => self.store.unwatch(host, ticket),
            reader::Ask::Progress => {
                self.store.counts.progress += 1;
                self.after(self.way_ns(), Event::Alive(host, number, self.store.revision()));
            }
            reader::Ask::Read { .. } | reader::Ask::Reconnect => {}
        }
    }

    fn hears(&mut self, host: u32, number: u64) -> Option<&mut Far> {
        let one = &mut self.hosts[host as usize];
        (one.connected && one.number == number).then_some(one.far.as_deref_mut()).flatten()
    }

    fn heard(&mut self, number: u64, notice: &Notice) {
        let now = self.now();
        if let Some(far) = self.hears(notice.host, number) {
            far.reader.events(notice.ticket, &notice.events, now);
        }
        self.work(notice.host);
    }

    fn ends(&mut self) {
        let plan = self.plan;
        let all = f64::from(plan.hosts) * f64::from(plan.containers);
        let mean_ns = 60.0 * S as f64 / (all * plan.churn_percent / 100.0);
        let wait = self.rng.exponential(mean_ns);
        self.after(wait, Event::Ends);
        if !self.churning {
            return;
        }
        let host = self.rng.below(u64::from(plan.hosts)) as u32;
        let place = self.rng.below(u64::from(plan.containers)) as u32;
        if self.only_talked_to && !self.talkers.contains_key(&(host, place)) {
            return;
        }
        if self.cast.end(host, place, EPOCH_NS + self.now_ns) {
            self.look(host);
            // Who takes its part needs a while to start.
            let gap = S / 2 + self.rng.below(2 * S);
            self.after(gap, Event::Begins(host, place));
        }
    }

    fn begins(&mut self, host: u32, place: u32) {
        self.cast.begin(host, place, EPOCH_NS + self.now_ns);
        self.look(host);
        for talker in self.talkers.get(&(host, place)).cloned().unwrap_or_default() {
            let wait = self.rng.below(S);
            self.after(wait, Event::Talks(talker, (host, place)));
        }
    }

    fn look(&mut self, host: u32) {
        if !std::mem::replace(&mut self.hosts[host as usize].unpublished, true) {
            self.after(LOOK_NS - self.now_ns % LOOK_NS, Event::Look(host));
        }
    }

    fn talks(&mut self, host: u32, place: (u32, u32), again: bool) {
        let now = self.now();
        let Some(address) = self.cast.running(place) else { return };
        if let Some(far) = &mut self.hosts[host as usize].far {
            far.talks_to(address, again, now);
        }
    }

    /// A second's part of the host's peers is asked for again.
    fn goes_on(&mut self, host: u32) {
        let Some(every_ns) = self.plan.asked_every_ns else { return };
        if !self.talking {
            return;
        }
        let Some(far) = &mut self.hosts[host as usize].far else { return };
        let count = (far.peers.len() as u64 * S).div_ceil(every_ns) as usize;
        let places: Vec<_> = (0..count).map(|i| far.peers[(far.turn + i) % far.peers.len()]).collect();
        far.turn = (far.turn + count) % far.peers.len();
        places.into_iter().for_each(|place| self.talks(host, place, true));
        self.work(host);
        self.after(S, Event::GoesOn(host));
    }

    /// The store goes away for a while. All its connections end, its keys stay.
    pub fn restart_store(&mut self, for_ns: u64) {
        self.down = true;
        assert!(self.service.first().is_none(), "the store restarts when it has nothing to do");
        for host in 0..self.plan.hosts {
            self.store.end_stream(host);
            self.after(self.way_ns(), Event::Broken(host));
        }
        self.after(for_ns, Event::Up);
    }

    /// Whether a reader is connected and follows 98 of 100 of those it talks to: some of the others are being replaced.
    pub fn is_in_step(&self, host: u32) -> bool {
        let one = &self.hosts[host as usize];
        let follows = |far: &Far| far.reader.watching() * 100 >= far.peers.len() * 98;
        one.connected && one.far.as_deref().is_some_and(follows)
    }

    /// Addresses a reader's host talks to now.
    pub fn in_use(&self, host: u32) -> HashSet<std::net::IpAddr> {
        let far = self.hosts[host as usize].far.as_deref();
        far.into_iter().flat_map(|far| &far.peers).filter_map(|place| self.cast.running(*place)).collect()
    }
}
