//! What peers say.

use meshwork_protocol::{
    id::{DeviceId, ObjectId, OpId},
    limits,
    object::Range,
    time::Timestamp,
    wire::sync::{self, Frame, ObjectState, Reason, Retirement, VectorEntry},
};
use serde_bytes::ByteBuf;

use super::{Output, Sync, peer::Probe};

impl Sync {
    pub(super) fn frame(&mut self, now: Timestamp, peer: DeviceId, bytes: &[u8]) {
        let Some(entry) = self.peers.get_mut(&peer) else { return };
        entry.heard = now;
        let Ok(frame) = Frame::decode(bytes) else {
            self.counters.malformed += 1;
            return self.strike(now, peer);
        };
        if matches!(frame, Frame::Hello { .. }) == entry.greeted {
            self.counters.out_of_order += 1;
            return self.strike(now, peer);
        }
        entry.greeted = true;
        match frame {
            Frame::Hello { version, .. } if version != sync::VERSION => self.close(now, peer, Reason::Version),
            Frame::Hello { objects, .. } => self.states(now, peer, &objects),
            Frame::Offer { objects } => {
                for state in &objects {
                    self.offered_anew(peer, state.object);
                }
                self.states(now, peer, &objects);
            }
            Frame::ControlHave { object, heads } => self.control_wanted(now, peer, object, heads),
            Frame::ControlItems { object, items, done } => self.control_items(now, peer, object, items, done),
            Frame::Vector { object, entries } => self.vector(now, peer, object, &entries),
            Frame::Announce { object, entries } => self.announced(now, peer, object, &entries),
            Frame::Want { object, ranges } => self.wanted(peer, object, ranges),
            Frame::Records { object, records } => self.records(peer, object, records),
            Frame::Retired { object, chains } => self.retired(peer, object, chains),
            Frame::Served { object } => self.served(now, peer, object),
            Frame::Addresses { devices } => self.outputs.push(Output::Addresses { devices }),
            Frame::KeepAlive {} | Frame::Bye { .. } => {}
        }
    }

    /// A peer that speaks of an object for the first time, and not in its hello, may not have held it when it was
    /// told of it: what was said then does not count.
    fn offered_anew(&mut self, peer: DeviceId, object: ObjectId) {
        if let Some((_, view)) = self.pair(&peer, &object).filter(|(_, view)| !view.known) {
            view.said = None;
        }
    }

    /// States of objects that are not held here, or that the peer may not know of, say nothing: once they
    /// are, this side offers its own.
    fn states(&mut self, now: Timestamp, peer: DeviceId, states: &[ObjectState]) {
        for state in states {
            let Some((local, view)) = self.pair(&peer, &state.object) else {
                continue;
            };
            view.digest = Some(state.vector);
            if state.vector == local.vector_digest() {
                // What it claimed before may have been about chains that have forked since.
                view.claims.clear();
            }
            view.stated = false;
            view.questioned = false;
            if state.control != local.control {
                self.ask_control(now, peer, state.object);
            } else if view.control_asked.is_none() {
                self.settle(now, peer, state.object);
            }
        }
    }

    /// The control logs are as equal as they will be: compares the chains.
    fn settle(&mut self, now: Timestamp, peer: DeviceId, object: ObjectId) {
        let Some((local, view)) = self.whole(&peer, &object) else {
            return;
        };
        if view.digest == Some(local.vector_digest()) {
            view.known = true;
            for (chain, (seq, _)) in &local.held.0 {
                view.raise(*chain, *seq);
            }
            view.introduce(&local.held);
            if view.said != Some(local.vector_digest()) {
                // The peer knows of an older state only, and does not see yet that nothing differs.
                self.offer(peer, &[object]);
            }
        } else if !view.stated {
            // A peer whose state came before the object was known here is asked for it by telling ours.
            self.state(now, peer, object);
        }
        self.plan(now, object);
    }

    /// Tells a peer all that is held of the chains of an object.
    fn state(&mut self, now: Timestamp, peer: DeviceId, object: ObjectId) {
        let Some((local, view)) = self.whole(&peer, &object) else {
            return;
        };
        if now < view.quiet {
            view.statement_due = true;
            return self.set_timer(&peer, object);
        }
        view.statement_due = false;
        view.stated = true;
        view.quiet = now + limits::STATE_PAUSE;
        view.introduce(&local.held);
        let mut entries: Vec<VectorEntry> = sync::entries(&local.held).collect();
        let mut rest = entries.split_off(entries.len().min(limits::SYNC_CHAINS));
        self.send(peer, Frame::Vector { object, entries });
        while !rest.is_empty() {
            let more = rest.split_off(rest.len().min(limits::SYNC_CHAINS));
            self.send(peer, Frame::Announce { object, entries: std::mem::replace(&mut rest, more) });
        }
    }

    fn vector(&mut self, now: Timestamp, peer: DeviceId, object: ObjectId, entries: &[VectorEntry]) {
        let Some((_, view)) = self.whole(&peer, &object) else {
            return self.counters.not_allowed += 1;
        };
        view.claims.clear();
        view.known = true;
        if !view.stated {
            self.state(now, peer, object);
        }
        self.claimed(peer, object, entries);
        self.plan(now, object);
    }

    fn announced(&mut self, now: Timestamp, peer: DeviceId, object: ObjectId, entries: &[VectorEntry]) {
        if self.whole(&peer, &object).is_none() {
            self.counters.not_allowed += 1;
            return;
        }
        self.claimed(peer, object, entries);
        self.plan(now, object);
    }

    fn claimed(&mut self, peer: DeviceId, object: ObjectId, entries: &[VectorEntry]) {
        let Some((local, view)) = self.pair(&peer, &object) else {
            return;
        };
        let mut refused = 0;
        for entry in entries {
            if !view.raise(entry.chain, entry.seq) {
                refused += 1;
                continue;
            }
            let held = local.held.0.get(&entry.chain);
            if held.is_some_and(|(seq, id)| *seq == entry.seq && id.prefix() != entry.prefix) {
                view.probes.entry(entry.chain).or_insert(Probe::below(entry.seq, 0));
            }
        }
        self.counters.over_claimed += refused;
    }

    fn wanted(&mut self, peer: DeviceId, object: ObjectId, mut ranges: Vec<Range>) {
        let Some((local, view)) = self.whole(&peer, &object) else {
            self.counters.not_allowed += 1;
            return self.send(peer, Frame::Served { object });
        };
        let over_credit = view.serving >= limits::SERVING_PER_OBJECT;
        ranges.retain_mut(|range| {
            let held = local.held.seq(&range.chain);
            range.last = range.last.min(held);
            // A range on another branch may begin just past the newest record: then that one is the proof.
            range.first <= held.saturating_add(1) && (range.first <= range.last || range.first > 1 && held > 0)
        });
        // One range a chain: more would multiply what one question costs.
        ranges.sort_by_key(|range| range.chain);
        ranges.dedup_by_key(|range| range.chain);
        if over_credit || ranges.is_empty() {
            self.counters.over_credit += u64::from(over_credit);
            return self.send(peer, Frame::Served { object });
        }
        view.serving += 1;
        let behind = local.retired.iter().any(|chain| view.claims.contains_key(chain));
        self.outputs.push(Output::Serve { peer, object, ranges, answer: true, behind });
    }

    fn records(&mut self, peer: DeviceId, object: ObjectId, records: Vec<ByteBuf>) {
        if self.whole(&peer, &object).is_none() {
            self.counters.not_allowed += 1;
            return;
        }
        let received = records.into_iter().map(|record| Output::Received { peer, object, record: record.into_vec() });
        self.outputs.extend(received);
    }

    fn retired(&mut self, peer: DeviceId, object: ObjectId, chains: Vec<Retirement>) {
        if self.whole(&peer, &object).is_none() {
            self.counters.not_allowed += 1;
            return;
        }
        self.outputs.push(Output::Retired { object, chains });
    }

    fn control_wanted(&mut self, now: Timestamp, peer: DeviceId, object: ObjectId, have: Vec<OpId>) {
        let Some((local, view)) = self.pair(&peer, &object) else {
            self.counters.not_allowed += 1;
            return self.send(peer, Frame::ControlItems { object, items: Vec::new(), done: true });
        };
        let differs = sync::short(sync::control_digest(&object, &have)) != local.control;
        let ask = differs && !view.questioned;
        if view.control_sending {
            view.control_next = Some(have);
        } else {
            view.control_sending = true;
            self.outputs.push(Output::SendControl { peer, object, have });
        }
        if ask {
            self.ask_control(now, peer, object);
        }
    }

    pub(super) fn control_sent(&mut self, peer: DeviceId, object: ObjectId) {
        let Some((_, view)) = self.pair(&peer, &object) else {
            return;
        };
        match view.control_next.take() {
            Some(have) => self.outputs.push(Output::SendControl { peer, object, have }),
            None => view.control_sending = false,
        }
    }

    fn control_items(&mut self, now: Timestamp, peer: DeviceId, object: ObjectId, items: Vec<ByteBuf>, done: bool) {
        let Some((_, view)) = self.pair(&peer, &object) else {
            return self.counters.not_allowed += 1;
        };
        let answered = done && view.control_asked.take().is_some();
        if !items.is_empty() {
            self.outputs.push(Output::ReceivedControl { peer, object, items });
        }
        if answered {
            self.settle(now, peer, object);
        }
    }

    /// Asks a peer for what is lacking of a control log.
    pub(super) fn ask_control(&mut self, now: Timestamp, peer: DeviceId, object: ObjectId) {
        let Some((local, view)) = self.pair(&peer, &object) else {
            return;
        };
        view.questioned = true;
        if view.control_asked.is_some() || now < view.quiet_control {
            view.question_due = true;
            return self.set_timer(&peer, object);
        }
        view.question_due = false;
        view.control_asked = Some(now);
        view.quiet_control = now + limits::STATE_PAUSE;
        let heads = local.heads.iter().take(limits::SYNC_CONTROL_HEADS).copied().collect();
        self.set_timer(&peer, object);
        self.send(peer, Frame::ControlHave { object, heads });
    }

    fn set_timer(&mut self, peer: &DeviceId, object: ObjectId) {
        if let Some(peer) = self.peers.get_mut(peer) {
            peer.timers.insert(object);
        }
    }

    /// Does what is due for each peer.
    pub(super) fn tick_peers(&mut self, now: Timestamp) {
        let peers: Vec<DeviceId> = self.peers().collect();
        for peer in peers {
            let Some(entry) = self.peers.get_mut(&peer) else {
                continue;
            };
            let timers = std::mem::take(&mut entry.timers);
            let compare = now >= entry.compare;
            if compare {
                entry.compare = now + limits::COMPARE_PAUSE;
            }
            let idle = now >= entry.sent + limits::KEEP_ALIVE;
            let all: Vec<ObjectId> = if compare { entry.views.keys().copied().collect() } else { Vec::new() };
            for object in timers {
                self.tick_view(now, peer, object);
            }
            self.offer(peer, &all);
            if idle {
                self.send(peer, Frame::KeepAlive {});
            }
        }
    }

    fn tick_view(&mut self, now: Timestamp, peer: DeviceId, object: ObjectId) {
        let Some((_, view)) = self.pair(&peer, &object) else {
            return;
        };
        let overdue = view.control_asked.is_some_and(|since| now >= since + limits::CONTROL_TIMEOUT);
        let statement = view.statement_due && now >= view.quiet;
        if overdue {
            view.control_asked = None;
            view.question_due = false;
        }
        let question = view.question_due && view.control_asked.is_none() && now >= view.quiet_control;
        if overdue {
            self.settle(now, peer, object);
        }
        if statement {
            self.state(now, peer, object);
        }
        if question {
            self.ask_control(now, peer, object);
        }
        if self.pair(&peer, &object).is_some_and(|(_, view)| view.due().is_some()) {
            self.set_timer(&peer, object);
        }
    }
}
