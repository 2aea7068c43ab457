//! What is done to ports: tapped, moved, fastened, named, forgotten.

use super::*;
use crate::mc::rigger::{Done, What as Rigged};
use crate::mc::surveyor::{Found, Question};
use crate::mc::world::FarEnd;
use crate::switch::SwitchError;

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
    fn stats(&mut self, ifindex: u32) -> Option<SavedStats> {
        self.query.link_stats(ifindex).ok().flatten().map(saved_stats)
    }

    pub(super) fn tap(&mut self, ifindex: u32, set: SetId) {
        let Some(programs) = self.hands.get(&set).map(|h| h.set.clone()) else { return };
        let interface = self.interface(ifindex);
        let (is_new, joined_at, early) = self.world.links.get(&ifindex).map_or((false, None, false), |l| {
            // nothing passes a link that is down: its counters need not be read first, and can be read later
            let is_new = l.made_at.or(l.joined_at).is_some() && !l.link.up;
            (is_new, l.joined_at, l.link.master.is_none())
        });
        let before = if is_new { Some(SavedStats::default()) } else { self.stats(ifindex) };
        match Port::attach(ifindex, programs.programs(), self.settings.attach, Some(&self.set_dir(set))) {
            Ok(port) => {
                let tapped_at = monotonic();
                fault::point("tap.attached");
                let after = if is_new { None } else { self.stats(ifindex) };
                self.attachment = port.how();
                let took = joined_at.map(|joined| tapped_at - joined);
                if let Some(took) = took {
                    self.shared.note_delay(|d| &mut d.tap, took);
                }
                let before = before.filter(|_| !self.no_baseline.contains(&ifindex));
                let hold = self.hold_of(&port);
                let (how, baseline) = (port.how(), before.zip(after));
                self.ports.insert(ifindex, Tapped { port: Some(port), how, before, baseline });
                if is_new {
                    self.surveyor.ask(Question::Stats { ifindex });
                }
                self.world.refused.remove(&ifindex);
                let programs = self.programs_of(set);
                let tap = TapSeen { set, tapped_at, adopted: false, early, hold, programs, heading: None };
                self.world.taps.insert(ifindex, tap);
                self.shared.names_mut().set_port(ifindex, &interface, None);
                self.unsaved = true;
                self.shared.tell(EventKind::PortTapped, format!("{interface} is tapped"), |e| {
                    e.interface = Some(interface.clone());
                    e.after_seconds = took.map(|t| t.as_secs_f64());
                });
            }
            Err(error) => {
                let gone = self.query.link(ifindex).is_ok_and(|l| l.is_none());
                if gone {
                    self.world.links.remove(&ifindex);
                    return;
                }
                let text = chain(&error);
                tracing::warn!(interface, error = text, "a port is not tapped");
                self.shared.tell(EventKind::PortRefused, format!("{interface} is not tapped: {text}"), |e| {
                    e.interface = Some(interface.clone());
                });
                self.world.refused.insert(ifindex, (text, monotonic() + Duration::from_secs(2)));
            }
        }
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

    pub(super) fn take_rigged(&mut self, done: Done) {
        let Done { port, what, result } = done;
        let ifindex = port.ifindex();
        self.dirty = true;
        let hold = self.hold_of(&port);
        let heading = match (self.world.taps.get_mut(&ifindex), self.ports.get_mut(&ifindex)) {
            (Some(tap), Some(tapped)) if tapped.port.is_none() => {
                tapped.how = port.how();
                if !tap::is_group(ifindex) {
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
            if let Err(error) = port.detach() {
                tracing::warn!(ifindex, error = &error as &dyn std::error::Error, "a tap is not removed");
            }
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
        let tapped_at = self.world.taps.get(&ifindex).map(|t| t.tapped_at);
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
