//! What peers are told and sent unasked.

use std::collections::BTreeMap;

use meshwork_protocol::{
    id::{ChainId, DeviceId, ObjectId, OpId},
    limits,
    object::{Prefix, Range},
    time::Timestamp,
    wire::sync::{self, Frame, ObjectState, VectorEntry},
};

use super::{Landed, Output, Sync};

impl Sync {
    pub(super) fn hello(&mut self, peer: DeviceId, states: &[ObjectState]) {
        let (first, rest) = states.split_at(states.len().min(limits::SYNC_OBJECTS));
        self.send(peer, Frame::Hello { version: sync::VERSION, objects: first.to_vec() });
        for objects in rest.chunks(limits::SYNC_OBJECTS) {
            self.send(peer, Frame::Offer { objects: objects.to_vec() });
        }
    }

    /// Tells a peer the states of objects; it answers if they differ from its own.
    pub(super) fn offer(&mut self, peer: DeviceId, objects: &[ObjectId]) {
        let mut states = Vec::new();
        for object in objects {
            if let Some((local, view)) = self.pair(&peer, object) {
                view.stated = false;
                view.questioned = false;
                view.said = Some(local.vector_digest());
                states.push(local.state(view.scope));
            }
        }
        for objects in states.chunks(limits::SYNC_OBJECTS) {
            self.send(peer, Frame::Offer { objects: objects.to_vec() });
        }
    }

    pub(super) fn appended(&mut self, now: Timestamp, object: ObjectId, records: &[Landed]) {
        let Some(local) = self.objects.get_mut(&object) else {
            return;
        };
        let mut own: BTreeMap<ChainId, (u64, u64)> = BTreeMap::new();
        for record in records.iter().filter(|record| !local.retired.contains(&record.chain)) {
            local.held.raise(record.chain, record.seq, record.id);
            local.taken.raise(record.chain, record.seq, record.id);
            if record.own {
                let (first, last) = own.entry(record.chain).or_insert((record.seq, record.seq));
                (*first, *last) = (record.seq.min(*first), record.seq.max(*last));
            }
        }
        local.held_changed();
        let peers: Vec<DeviceId> = self.peers().collect();
        for peer in peers {
            self.push(peer, object, &own);
            self.note_news(&peer, object, records);
        }
        if self.objects.get(&object).is_some_and(|local| local.fetch.is_none() && local.retry.is_some()) {
            self.plan(now, object);
        }
    }

    /// Sends new records of this replica to a peer that holds all before them, as long as it keeps up.
    fn push(&mut self, peer: DeviceId, object: ObjectId, own: &BTreeMap<ChainId, (u64, u64)>) {
        let Some(entry) = self.peers.get_mut(&peer) else { return };
        let Some(view) = entry.views.get_mut(&object) else {
            return;
        };
        if !view.known || !view.introduced || entry.pushes >= limits::PUSHES_PER_PEER {
            return;
        }
        let mut ranges = Vec::new();
        for (chain, (first, last)) in own {
            let follows = view.pushed.get(chain).copied().unwrap_or(0).max(view.claim(chain));
            if follows.saturating_add(1) >= *first {
                view.pushed.insert(*chain, *last);
                view.tell(*chain, *last);
                ranges.push(Range { chain: *chain, first: *first, last: *last, after: Prefix::default() });
            }
        }
        if !ranges.is_empty() {
            entry.pushes += 1;
            self.outputs.push(Output::Serve { peer, object, ranges, answer: false, behind: false });
        }
    }

    fn note_news(&mut self, peer: &DeviceId, object: ObjectId, records: &[Landed]) {
        let Some(entry) = self.peers.get_mut(peer) else { return };
        let Some(view) = entry.views.get_mut(&object).filter(|view| view.introduced) else {
            return;
        };
        let news = records.iter().filter(|record| !view.was_told(&record.chain, record.seq)).map(|record| record.chain);
        let news: Vec<ChainId> = news.collect();
        if !news.is_empty() {
            view.news.extend(news);
            entry.news.insert(object);
        }
    }

    /// Tells each peer of what is held here that it has not heard of, be it only to confirm what it sent:
    /// at once, or with what was gathered since it was told last.
    pub(super) fn flush_announcements(&mut self, now: Timestamp) {
        for (peer, entry) in self.peers.iter_mut().filter(|(_, peer)| !peer.news.is_empty() && now >= peer.announce) {
            let mut said = false;
            for object in std::mem::take(&mut entry.news) {
                let (Some(local), Some(view)) = (self.objects.get(&object), entry.views.get_mut(&object)) else {
                    continue;
                };
                let mut entries = Vec::new();
                for chain in std::mem::take(&mut view.news) {
                    let Some((seq, id)) = local.held.0.get(&chain) else {
                        continue;
                    };
                    if !view.was_told(&chain, *seq) {
                        view.tell(chain, *seq);
                        entries.push(VectorEntry { chain, seq: *seq, prefix: id.prefix() });
                    }
                }
                for entries in entries.chunks(limits::SYNC_CHAINS) {
                    said = true;
                    let frame = Frame::Announce { object, entries: entries.to_vec() };
                    self.outputs.push(Output::Send { peer: *peer, frame });
                }
            }
            if said {
                entry.announce = now + limits::ANNOUNCE_PAUSE;
            }
        }
    }

    pub(super) fn sent(&mut self, peer: DeviceId, object: ObjectId, answer: bool, through: &[(ChainId, u64)]) {
        let Some(entry) = self.peers.get_mut(&peer) else { return };
        if !answer {
            entry.pushes = entry.pushes.saturating_sub(1);
        }
        let Some(view) = entry.views.get_mut(&object) else {
            return;
        };
        if answer {
            view.serving = view.serving.saturating_sub(1);
        }
        for (chain, seq) in through {
            view.tell(*chain, *seq);
        }
    }

    pub(super) fn control_changed(
        &mut self,
        now: Timestamp,
        object: ObjectId,
        heads: Vec<OpId>,
        news: Vec<Vec<u8>>,
        from: Option<DeviceId>,
    ) {
        let Some(local) = self.objects.get_mut(&object) else {
            return;
        };
        local.set_heads(heads);
        let mut told = Vec::new();
        for (peer, entry) in &mut self.peers {
            let Some(view) = entry.views.get_mut(&object) else {
                continue;
            };
            // What was refused for want of a right may be admitted now.
            view.pauses.clear();
            if from != Some(*peer) {
                told.push(*peer);
            }
        }
        let parts = sync::parts(news);
        for peer in told {
            if parts.is_empty() {
                self.offer(peer, &[object]);
            }
            for items in &parts {
                self.send(peer, Frame::ControlItems { object, items: items.clone(), done: false });
            }
        }
        self.plan(now, object);
    }
}
