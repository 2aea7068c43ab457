//! What is done to ports: tapped, moved, fastened, named, forgotten.

use super::*;
use crate::discovery::step;
use crate::mc::reconcile::is_calm;
use crate::mc::rigger::{Done, What as Rigged, detach};
use crate::mc::surveyor::{Found, Question};
use crate::mc::tapper::{self, Made, Order, Refusal};
use crate::mc::world::{FarEnd, Tapping};
use crate::switch::SwitchError;
use tap::Tidied;

/// A link that was made so long ago has its first moments behind it: whoever is to talk by it may do so at any time.
const STARTS: Duration = Duration::from_secs(2);
/// Pause after no port was quiet.
const TIDY_AGAIN: Duration = Duration::from_millis(250);

fn saved_stats(s: LinkStats) -> SavedStats {
    SavedStats { rx: (s.rx_packets, s.rx_bytes), tx: (s.tx_packets, s.tx_bytes) }
}

fn link_stats(s: SavedStats) -> LinkStats {
    LinkStats {
        rx_packets: s.rx.0,
        rx_bytes: s.rx.1,
        tx_packets: s.tx.0,
        tx_bytes: s.tx.1,
        ..LinkStats::default()
    }
}

impl Work {
    /// Has a port tapped; it comes back.
    pub(super) fn tap(&mut self, ifindex: u32, to: SetId) {
        let Some(set) = self.hands.get(&to).map(|h| h.set.clone()) else { return };
        let Some(seen) = self.world.links.get(&ifindex) else { return };
        // nothing passes a link that is down: its counters need not be read first, and can be read later
        let is_new = seen.made_at.or(seen.joined_at).is_some() && !seen.link.up;
        let joined = seen.link.master.is_some();
        let starts = seen.made_at.is_some_and(|made| monotonic() - made < STARTS);
        let sent = (seen.link.up && !starts).then(|| self.sent.get(&ifindex).copied().unwrap_or_default());
        // what is counted from the tap's first moment on has a name
        let owner = self.world.owners.get(&ifindex).map(|o| o.container.as_str());
        self.shared.names_mut().set_port(ifindex, &seen.link.name, owner);
        let tapping = Tapping { set: to, programs: self.programs_of(to), since: monotonic() };
        self.world.tapping.insert(ifindex, tapping);
        let (dir, attach) = (self.set_dir(to), self.settings.attach);
        let dispatcher = self.dispatcher.clone().filter(|_| self.shares);
        self.tapper.tap(Order { ifindex, set, dir, attach, dispatcher, sent, is_new, joined });
    }

    pub(super) fn take_tapped(&mut self, done: tapper::Done) {
        let tapper::Done { ifindex, is_new, result } = done;
        let Some(tapping) = self.world.tapping.remove(&ifindex) else { return };
        self.dirty = true;
        match result {
            Ok(made) => self.was_tapped(ifindex, tapping, made, is_new),
            Err(refusal) => self.was_refused(ifindex, &refusal),
        }
    }

    fn was_tapped(&mut self, ifindex: u32, tapping: Tapping, made: Made, is_new: bool) {
        let Made { port, at, before, after } = made;
        self.unsaved = true;
        if self.world.links.contains_key(&ifindex) && self.gone.remove(&ifindex).is_some() {
            // it went meanwhile, and another has its number, or itself has come back: which of them has the tap is not known
            detach(port);
            self.send(Job::Port(ifindex, None));
            return;
        }
        if !tap::is_elsewhere(ifindex) {
            self.attachment = port.how();
        }
        let seen = self.world.links.get(&ifindex);
        let joined = seen.filter(|seen| self.world.watched_bridge(&seen.link).is_some());
        // nothing, if it was there before the port joined
        let took = joined.and_then(|seen| seen.joined_at).map(|joined| at - joined);
        let early = joined.is_none();
        if let Some(took) = took {
            self.shared.note_delay(|d| &mut d.tap, took);
        }
        if let (Some(before), Some(after), "clsact") = (before, after, port.how()) {
            self.note_drops(ifindex, after.tx_dropped.saturating_sub(before.tx_dropped));
        }
        let before = before.filter(|_| !self.no_baseline.contains(&ifindex)).map(saved_stats);
        let baseline = before.zip(after.map(saved_stats));
        let (hold, how) = (self.hold_of(&port), port.how());
        self.ports.insert(ifindex, Tapped { port: Some(port), how, before, baseline });
        let Tapping { set, programs, .. } = tapping;
        let tap = TapSeen { set, tapped_at: at, adopted: false, early, hold, programs, heading: None };
        self.world.taps.insert(ifindex, tap);
        self.world.refused.remove(&ifindex);
        if is_new {
            self.surveyor.ask(Question::Stats { ifindex });
        }
        let interface = self.interface(ifindex);
        self.shared.tell(EventKind::PortTapped, format!("{interface} is tapped"), |e| {
            e.interface = Some(interface.clone());
            e.after_seconds = took.map(|t| t.as_secs_f64());
        });
    }

    fn was_refused(&mut self, ifindex: u32, refusal: &Refusal) {
        let went = self.gone.remove(&ifindex).is_some();
        if went && self.world.links.contains_key(&ifindex) {
            // it has come back, or another has its number: it is tapped anew
            return;
        }
        if went || !refusal.is_there {
            self.world.links.remove(&ifindex);
            self.world.owners.remove(&ifindex);
            self.world.refused.remove(&ifindex);
            self.no_baseline.remove(&ifindex);
            self.shared.names_mut().drop_port(ifindex);
            return;
        }
        let (interface, text) = (self.interface(ifindex), chain(&refusal.error));
        tracing::warn!(interface, error = text, "a port is not tapped");
        self.shared.tell(EventKind::PortRefused, format!("{interface} is not tapped: {text}"), |e| {
            e.interface = Some(interface.clone());
        });
        self.world.refused.insert(ifindex, (text, monotonic() + Duration::from_secs(2)));
    }

    /// Gives a port to the rigger, which gives it back.
    fn hand_over(&mut self, ifindex: u32, job: impl FnOnce(Port) -> RiggerJob) {
        let Some(tap) = self.world.taps.get_mut(&ifindex) else { return };
        let Some(port) = self.ports.get_mut(&ifindex).and_then(|t| t.port.take()) else { return };
        tap.hold = TapHold::Busy;
        self.rigger.send(job(port));
    }

    pub(super) fn move_port(&mut self, ifindex: u32, to: SetId) {
        let Some(set) = self.hands.get(&to).map(|h| h.set.clone()) else { return };
        let (dir, heading) = (self.set_dir(to), (to, self.programs_of(to)));
        if let Some(tap) = self.world.taps.get_mut(&ifindex) {
            tap.heading = Some(heading);
        }
        self.hand_over(ifindex, |port| RiggerJob::Move(port, to, set, dir));
    }

    pub(super) fn fasten(&mut self, ifindex: u32) {
        self.world.fasten_at = monotonic() + FASTEN_EVERY;
        let Some(set) = self.world.taps.get(&ifindex).and_then(|tap| self.hands.get(&tap.set)) else {
            return;
        };
        let set = set.set.clone();
        self.hand_over(ifindex, |port| RiggerJob::Fasten(port, set));
    }

    /// Has a port taken off the filters that it shared, if one is waiting for that, and nobody else for the lock that it takes.
    pub(super) fn tidy(&mut self, now: Timestamp) {
        let Some(dispatcher) = self.dispatcher.clone().filter(|dispatcher| dispatcher.has_leftovers()) else {
            return;
        };
        if self.tidy_at.is_some_and(|at| at <= now) && is_calm(&self.world, now) {
            self.tidy_at = None;
            self.rigger.send(RiggerJob::Tidy(dispatcher));
        }
    }

    /// A qdisc was put on a port, or taken off it.
    fn note_drops(&self, ifindex: u32, dropped: u64) {
        if dropped > 0 {
            self.shared.note_tap_drops(dropped);
            let interface = self.interface(ifindex);
            tracing::warn!(
                interface,
                dropped,
                "a port dropped packets to its container while its tap was put on or taken off"
            );
        }
    }

    pub(super) fn take_tidied(&mut self, result: Result<Option<Tidied>, tap::Error>) {
        // there may be many more, or none that is quiet
        let pause = if matches!(result, Ok(Some(_))) { FASTEN_EVERY } else { TIDY_AGAIN };
        self.tidy_at = Some(monotonic() + pause);
        match result {
            Ok(Some(Tidied { ifindex, dropped })) => self.note_drops(ifindex, dropped),
            Ok(None) => {}
            Err(error) => {
                let error = &error as &dyn std::error::Error;
                tracing::warn!(error, "ports stay bound to filters that they do not need any more");
            }
        }
    }

    pub(super) fn take_rigged(&mut self, done: Done) {
        let Done { port, what, result } = done;
        let ifindex = port.ifindex();
        self.dirty = true;
        let hold = self.hold_of(&port);
        let heading = match (self.world.taps.get_mut(&ifindex), self.ports.get_mut(&ifindex)) {
            (Some(tap), Some(tapped)) if tapped.port.is_none() => {
                tapped.how = port.how();
                if !tap::is_group(ifindex) && !tap::is_elsewhere(ifindex) {
                    self.attachment = tapped.how;
                }
                tap.hold = hold;
                tapped.port = Some(port);
                tap.heading.take()
            }
            // it went meanwhile
            _ => return self.rigger.send(RiggerJob::Detach(port)),
        };
        match (what, result) {
            (Rigged::Fastened, Ok(())) => {}
            (Rigged::Fastened, Err(error)) => self.was_not_fastened(ifindex, &error),
            (Rigged::Moved(set), Ok(())) => {
                if let Some(tap) = self.world.taps.get_mut(&ifindex) {
                    tap.set = set;
                    tap.programs = heading.map_or(tap.programs, |(_, programs)| programs);
                }
                self.unsaved = true;
            }
            (Rigged::Moved(_), Err(error)) => self.was_not_moved(ifindex, &error),
        }
    }

    fn was_not_fastened(&mut self, ifindex: u32, error: &tap::Error) {
        if self.query.link(ifindex).is_ok_and(|l| l.is_some()) {
            let (interface, error) = (self.interface(ifindex), error as &dyn std::error::Error);
            tracing::warn!(interface, error, "a tap is not fastened; it goes on counting as it is");
            self.world.fasten_at = monotonic() + FASTEN_AGAIN;
        }
    }

    fn was_not_moved(&mut self, ifindex: u32, error: &tap::Error) {
        let port = self.ports.get(&ifindex).and_then(|t| t.port.as_ref());
        if port.is_some_and(Port::is_alive) {
            let error = error as &dyn std::error::Error;
            tracing::error!(ifindex, error, "a port cannot be moved to other programs; it is tapped anew");
            self.world.refused.insert(ifindex, (chain(error), monotonic() + Duration::from_secs(2)));
        }
        // the link is going or the tap was taken off by somebody: begin anew
        self.no_baseline.insert(ifindex);
        self.drop_tap(ifindex);
    }

    /// The tap is no more; whether the port is, others say.
    pub(super) fn drop_tap(&mut self, ifindex: u32) {
        self.world.taps.remove(&ifindex);
        if let Some(port) = self.ports.remove(&ifindex).and_then(|t| t.port) {
            // here and now: the port may be tapped anew in the next moment
            detach(port);
        }
        self.unsaved = true;
    }

    pub(super) fn hold_of(&self, port: &Port) -> TapHold {
        if port.is_fast() || !self.world.wishes.fasten { TapHold::Fast } else { TapHold::Quick }
    }

    pub(super) fn untap(&mut self, ifindex: u32) {
        self.drop_tap(ifindex);
        self.send(Job::Port(ifindex, None));
    }

    pub(super) fn forget_port(&mut self, ifindex: u32) {
        let interface = self
            .shared
            .names()
            .port(ifindex)
            .map_or_else(|| format!("port {ifindex}"), |p| p.interface.clone());
        self.world.taps.remove(&ifindex);
        // one that the rigger has is removed when it comes back
        if let Some(port) = self.ports.remove(&ifindex).and_then(|t| t.port) {
            self.rigger.send(RiggerJob::Detach(port));
        }
        self.unsaved = true;
        self.world.refused.remove(&ifindex);
        self.no_baseline.remove(&ifindex);
        self.world.groups.remove(&ifindex);
        let owner = self.world.owners.remove(&ifindex);
        // records of a port that has gone are settled with its name, which stays until then
        let gone_at = self.gone.remove(&ifindex);
        step!("port_gone", monotonic().as_nanos(), interface);
        self.send(Job::Port(ifindex, gone_at));
        self.shared.tell(EventKind::PortGone, format!("{interface} is gone"), |e| {
            e.interface = Some(interface.clone());
            e.container =
                owner.and_then(|o| self.shared.names().container(&o.container).map(|c| c.name.clone()));
        });
    }

    pub(super) fn ask_peer(&mut self, ifindex: u32, whole: bool) {
        let Some(seen) = self.world.links.get_mut(&ifindex) else { return };
        let Some(peer) = seen.link.peer_ifindex else { return };
        seen.asking = true;
        let netnsid = seen.link.link_netnsid;
        self.surveyor.ask(Question::FarEnd { ifindex, netnsid, peer, whole });
    }

    pub(super) fn take_found(&mut self, found: Found) {
        match found {
            Found::FarEnd(ifindex, answer) => self.take_far_end(ifindex, answer),
            Found::Stats(ifindex, Ok(Some(after))) => {
                if let Some(tapped) = self.ports.get_mut(&ifindex)
                    && tapped.baseline.is_none()
                {
                    tapped.baseline = tapped.before.zip(Some(saved_stats(after)));
                    (self.unsaved, self.dirty) = (true, true);
                }
            }
            // gone, or not told: the port has no baseline
            Found::Stats(..) => {}
            Found::HostAddresses(Ok(all)) => self.set_host_addresses(all),
            Found::HostAddresses(Err(error)) => host_addresses_unknown(&error),
        }
    }

    fn take_far_end(&mut self, ifindex: u32, answer: Result<Option<FarEnd>, SwitchError>) {
        let Some(seen) = self.world.links.get_mut(&ifindex) else { return };
        if !std::mem::take(&mut seen.asking) {
            // the link changed since: it is asked for anew
            return;
        }
        match answer {
            Ok(Some(far_end)) if far_end != FarEnd::default() => {
                seen.peer = Some(far_end);
                return;
            }
            Ok(_) => {}
            Err(error) => {
                let error = &error as &dyn std::error::Error;
                tracing::debug!(ifindex, error, "a port's far end is not known");
            }
        }
        seen.looked += 1;
        seen.look_at = monotonic() + Duration::from_millis(5 << seen.looked.min(8));
    }

    pub(super) fn container_name(&self, id: &str) -> Option<ContainerName> {
        let c = &self.world.containers.get(id)?.container;
        Some(ContainerName {
            id: c.id.clone(),
            name: c.name.clone(),
            tenant: c.policy.tenant.clone(),
            service: c.policy.service.clone(),
        })
    }

    pub(super) fn name(&mut self, ifindex: u32, container: String, network: String) {
        let Some(name) = self.container_name(&container) else { return };
        let Some(seen) = self.world.links.get(&ifindex) else { return };
        let told = self.world.networks.get(&network).and_then(|n| n.connects.get(&container).copied());
        let mut addresses = seen.peer.as_ref().map(|p| p.addresses.clone()).unwrap_or_default();
        if let Some((_, endpoint)) = self.world.endpoint_of(seen) {
            addresses.extend(&endpoint.addresses);
        }
        let taps = self.world.taps.get(&ifindex).map(|t| t.tapped_at);
        let tapped_at = taps.or_else(|| self.world.tapping.get(&ifindex).map(|t| t.since));
        let since = seen.joined_at.or(tapped_at).unwrap_or(self.started);
        let up_at = seen.up_at;
        let interface = seen.link.name.clone();
        {
            let mut names = self.shared.names_mut();
            names.set_container(name.clone());
            names.set_port(ifindex, &interface, Some(&container));
            for address in addresses {
                names.set_address(address, &container, since);
            }
        }
        // from now on whoever asks is told the name
        let named_at = monotonic();
        // before the link is up there is nothing to ask the kernel, and nothing passes
        let after = match (told, up_at) {
            (Some(told), Some(up)) => Some(named_at - told.max(up)),
            _ => None,
        };
        if let Some(after) = after {
            self.shared.note_delay(|d| &mut d.naming, after);
        }
        self.world.owners.insert(ifindex, PortOwner { container, network, named_at, after });
        self.unsaved = true;
        self.shared.tell(EventKind::PortNamed, format!("{interface} is {}'s", name.name), |e| {
            e.interface = Some(interface.clone());
            e.container = Some(name.name.clone());
            e.tenant = Some(name.tenant.clone());
            e.after_seconds = after.map(|a| a.as_secs_f64());
        });
    }

    pub(super) fn baseline(&self, ifindex: u32) -> Option<(LinkStats, LinkStats)> {
        let (before, after) = self.ports.get(&ifindex)?.baseline?;
        Some((link_stats(before), link_stats(after)))
    }
}
