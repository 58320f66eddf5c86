//! Whom to ask for what.

use std::collections::BTreeSet;

use meshwork_protocol::{
    id::{ChainId, DeviceId, ObjectId, RecordId},
    limits,
    object::{Prefix, Range},
    time::Timestamp,
    wire::sync::Frame,
};

use super::{
    Sync,
    local::{Fetch, Local},
    peer::{Pause, Probe, View, want_pause},
};

impl Sync {
    /// Asks the peer that has most of what is lacking of an object, unless one is being asked already.
    /// One peer at a time, for all chains together: so records come in an order in which they can be
    /// admitted, and only once.
    pub(super) fn plan(&mut self, now: Timestamp, object: ObjectId) {
        let Some(local) = self.objects.get_mut(&object).filter(|local| local.fetch.is_none()) else {
            return;
        };
        (local.retry, local.hungry) = (None, false);
        let mut best: Option<(u64, DeviceId, Vec<Range>)> = None;
        for (device, peer) in &self.peers {
            let Some(view) = peer.views.get(&object).filter(|view| view.control_asked.is_none()) else {
                continue;
            };
            let (ranges, retry) = lacking(local, view, now);
            local.retry = local.retry.into_iter().chain(retry).min();
            if ranges.is_empty() {
                continue;
            }
            if peer.wants >= limits::WANTS_PER_PEER {
                local.hungry = true;
                continue;
            }
            let count = |range: &Range| range.last.saturating_sub(range.first).saturating_add(1);
            let count = ranges.iter().map(count).fold(0, u64::saturating_add);
            if best.as_ref().is_none_or(|(most, ..)| *most < count) {
                best = Some((count, *device, ranges));
            }
        }
        if local.retry.is_some() || best.is_some() {
            self.active.insert(object);
        } else {
            self.active.remove(&object);
        }
        if let Some((_, peer, ranges)) = best {
            self.want(now, peer, object, ranges);
        }
    }

    fn want(&mut self, now: Timestamp, peer: DeviceId, object: ObjectId, ranges: Vec<Range>) {
        let Some((local, view)) = self.pair(&peer, &object) else {
            return;
        };
        for range in &ranges {
            if let Some(probe) = view.probes.get_mut(&range.chain) {
                probe.asked |= probe.range() == Some((range.first, range.last));
            }
        }
        let from = ranges.iter().map(|range| (range.chain, local.taken.seq(&range.chain))).collect();
        local.fetch = Some(Fetch { peer, from, delivered: BTreeSet::new(), progress: now });
        local.hungry = false;
        if let Some(peer) = self.peers.get_mut(&peer) {
            peer.wants += 1;
        }
        self.send(peer, Frame::Want { object, ranges });
    }

    /// A peer answered.
    pub(super) fn served(&mut self, now: Timestamp, peer: DeviceId, object: ObjectId) {
        let fetch = self.objects.get(&object).and_then(|local| local.fetch.as_ref());
        if fetch.is_some_and(|fetch| fetch.peer == peer) {
            self.finish(now, object);
        }
    }

    /// Ends a question, answered or not: a chain that got nowhere is left alone for a while.
    fn finish(&mut self, now: Timestamp, object: ObjectId) {
        let Some(fetch) = self.objects.get_mut(&object).and_then(|local| local.fetch.take()) else {
            return;
        };
        if let Some(peer) = self.peers.get_mut(&fetch.peer) {
            peer.wants = peer.wants.saturating_sub(1);
        }
        if let Some((local, view)) = self.pair(&fetch.peer, &object) {
            let nothing = fetch.delivered.is_empty();
            // What comes under another name than it was asked for is of a chain that has forked here.
            let stuck = nothing || !fetch.from.iter().any(|(chain, from)| local.taken.seq(chain) > *from);
            for (chain, from) in &fetch.from {
                let at = local.taken.seq(chain);
                if at > *from {
                    view.pauses.remove(chain);
                } else if (stuck || fetch.delivered.contains(chain)) && view.claim(chain) > at {
                    view.pause(*chain, now, at);
                }
            }
            let asked = |(chain, probe): &(&ChainId, &mut Probe)| probe.asked && fetch.from.contains_key(*chain);
            for (_, probe) in view.probes.iter_mut().filter(asked) {
                if nothing { probe.pause(now) } else { probe.found() }
            }
            self.counters.fruitless += u64::from(nothing);
        }
        self.plan(now, object);
        self.plan_hungry(now, &object);
    }

    /// Asks for objects that had to wait, those behind `after` first.
    pub(super) fn plan_hungry(&mut self, now: Timestamp, after: &ObjectId) {
        let hungry = self.objects.iter().filter(|(_, local)| local.hungry && local.fetch.is_none());
        let hungry: Vec<ObjectId> = hungry.map(|(object, _)| *object).collect();
        let (first, later): (Vec<ObjectId>, Vec<ObjectId>) = hungry.into_iter().partition(|object| object > after);
        for object in first.into_iter().chain(later) {
            self.plan(now, object);
        }
    }

    /// A peer is gone, or may not know of an object any more.
    pub(super) fn abandon(&mut self, now: Timestamp, object: &ObjectId, peer: &DeviceId) {
        let Some(local) = self.objects.get_mut(object) else {
            return;
        };
        if local.fetch.as_ref().is_some_and(|fetch| fetch.peer == *peer) {
            local.fetch = None;
            if let Some(peer) = self.peers.get_mut(peer) {
                peer.wants = peer.wants.saturating_sub(1);
            }
            self.plan(now, *object);
        }
    }

    pub(super) fn taken(&mut self, now: Timestamp, object: ObjectId, chain: ChainId, seq: u64, id: RecordId) {
        let Some(local) = self.objects.get_mut(&object) else {
            return;
        };
        if !local.retired.contains(&chain) {
            local.taken.raise(chain, seq, id);
        }
        match &mut local.fetch {
            Some(fetch) if fetch.from.contains_key(&chain) => fetch.progress = now,
            None if local.retry.is_some() => self.plan(now, object),
            _ => {}
        }
    }

    pub(super) fn seen(&mut self, now: Timestamp, peer: DeviceId, object: ObjectId, chain: ChainId, seq: u64) {
        let Some((local, view)) = self.pair(&peer, &object) else {
            return;
        };
        let room = view.raise(chain, seq);
        let lacks = local.taken.seq(&chain) < seq;
        match &mut local.fetch {
            Some(fetch) if fetch.peer == peer => {
                fetch.delivered.insert(chain);
                fetch.progress = now;
            }
            None if lacks => self.plan(now, object),
            _ => {}
        }
        self.counters.over_claimed += u64::from(!room);
    }

    /// A peer's record goes on from another one than is held: looks for the first of its branch further down.
    pub(super) fn sidestep(&mut self, now: Timestamp, peer: DeviceId, object: ObjectId, chain: ChainId, seq: u64) {
        let Some((_, view)) = self.whole(&peer, &object) else {
            return;
        };
        let step = match view.probes.get(&chain) {
            Some(probe) if seq > probe.at => return,
            Some(probe) => probe.beyond.saturating_sub(probe.at).max(1).saturating_mul(2),
            None => 1,
        };
        if view.probes.contains_key(&chain) || view.probes.len() < limits::SYNC_RANGES {
            view.probes.insert(chain, Probe::below(seq, step));
        }
        self.plan(now, object);
    }

    /// Gives up on peers that do not answer, and asks again where a pause is over.
    pub(super) fn tick_fetches(&mut self, now: Timestamp) {
        for object in self.active.clone() {
            let Some(local) = self.objects.get(&object) else {
                continue;
            };
            match &local.fetch {
                Some(fetch) if now >= fetch.progress + limits::WANT_TIMEOUT => self.finish(now, object),
                None if local.retry.is_some_and(|retry| now >= retry) => self.plan(now, object),
                _ => {}
            }
        }
    }
}

/// What a peer claims that is lacking here and may be asked for now, and when more may be.
fn lacking(local: &Local, view: &View, now: Timestamp) -> (Vec<Range>, Option<Timestamp>) {
    let mut ranges = Vec::new();
    let mut retry: Option<Timestamp> = None;
    for (chain, seq) in &view.claims {
        let (mine, id) = local.taken.0.get(chain).copied().unwrap_or((0, RecordId::NONE));
        if *seq <= mine || local.retired.contains(chain) {
            continue;
        }
        if let Some(pause) = view.pauses.get(chain).filter(|pause| pause.at == mine && now < pause.until) {
            retry = retry.into_iter().chain([pause.until]).min();
        } else if ranges.len() < limits::SYNC_RANGES {
            ranges.push(Range { chain: *chain, first: mine + 1, last: *seq, after: id.prefix() });
        }
    }
    let open = view.probes.iter().filter(|(chain, probe)| !probe.asked && !local.retired.contains(*chain));
    for (chain, probe) in open {
        let Some((first, last)) = probe.range() else { continue };
        ranges.retain(|range| range.chain != *chain);
        if now < probe.until {
            retry = retry.into_iter().chain([probe.until]).min();
        } else if ranges.len() < limits::SYNC_RANGES {
            ranges.push(Range { chain: *chain, first, last, after: Prefix::default() });
        }
    }
    (ranges, retry)
}

impl View {
    fn pause(&mut self, chain: ChainId, now: Timestamp, at: u64) {
        let tries = self.pauses.get(&chain).filter(|pause| pause.at == at).map_or(0, |pause| pause.tries);
        self.pauses.insert(chain, Pause { until: now + want_pause(tries), tries: tries + 1, at });
    }
}
