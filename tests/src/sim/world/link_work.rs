//! Streams between devices.

use meshwork_protocol::{
    id::{DeviceId, OpId},
    key::Signed,
    wire::sync::Frame,
};
use meshwork_replica::{replica::Input, sync::serve::pack};

use super::{Event, MS, World};
use crate::sim::network::{Link, Outgoing, Side};

/// Frames of earlier streams kept for sending them again.
const KEPT: usize = 32;

impl World {
    pub(super) fn link(&mut self, one: usize, other: usize) -> &mut Link {
        self.links.entry((one.min(other), one.max(other))).or_default()
    }

    pub(super) fn side(&mut self, side: usize, peer: usize) -> &mut Side {
        &mut self.link(side, peer).sides[usize::from(side > peer)]
    }

    pub(super) fn forget_side(&mut self, side: usize, peer: usize) {
        let side = self.side(side, peer);
        side.open = None;
        side.outgoing.clear();
    }

    /// Opens a stream, if there is none and it can be.
    pub(super) fn connect(&mut self, one: usize, other: usize) {
        let up = |world: &World, device: usize| world.devices[device].replica.is_some();
        if one == other || !up(self, one) || !up(self, other) {
            return;
        }
        if !self.allows(one, other) || !self.allows(other, one) {
            return;
        }
        let link = self.link(one, other);
        if link.parted || link.alive {
            return;
        }
        link.generation += 1;
        link.alive = true;
        link.sides.iter_mut().for_each(|side| side.wire.clear());
        let generation = link.generation;
        for (side, peer) in [(one, other), (other, one)] {
            let delay = self.between(1, 40);
            self.at(delay, Event::Opened { side, peer, generation });
        }
    }

    fn allows(&self, device: usize, other: usize) -> bool {
        if self.is_malicious(device) {
            return true;
        }
        let peers = self.devices[device].replica.as_ref().map(|replica| replica.peers());
        peers.is_some_and(|peers| peers.contains(&self.devices[other].id))
    }

    /// Cuts the streams to those that are no peers any more, and seeks those that have become some.
    pub(super) fn meet(&mut self, device: usize) {
        for other in (0..self.devices.len()).filter(|other| *other != device) {
            if !self.allows(device, other) {
                self.cut(device, other);
            } else if (self.guest.is_some() || !self.authority.cuts.is_empty()) && !self.link(device, other).alive {
                let delay = self.between(20, 400);
                self.at(delay, Event::Connect(device, other));
            }
        }
    }

    pub(super) fn opened(&mut self, side: usize, peer: usize, generation: u64) {
        let link = self.link(side, peer);
        if link.generation != generation || !link.alive || self.devices[side].replica.is_none() {
            return;
        }
        let id = self.devices[peer].id;
        if self.side(side, peer).open.is_some() {
            self.forget_side(side, peer);
            self.drive(side, Input::PeerDown(id));
        }
        self.side(side, peer).open = Some(generation);
        self.counts.add("stream opened");
        self.drive(side, Input::PeerUp(id));
        self.schedule_delivery(peer, side);
    }

    /// Cuts the stream: what is on its way is lost; each side learns of it some time later.
    pub(super) fn cut(&mut self, one: usize, other: usize) {
        let link = self.link(one, other);
        if !link.alive {
            return;
        }
        link.alive = false;
        let generation = link.generation;
        let lost: usize = link.sides.iter_mut().map(|side| std::mem::take(&mut side.wire).len()).sum();
        (0..lost).for_each(|_| self.counts.add("fault: frame lost"));
        for (side, peer) in [(one, other), (other, one)] {
            let late = if self.fate.once_in(5) { 4_000 } else { 80 };
            let delay = self.between(1, late);
            self.at(delay, Event::Ended { side, peer, generation });
        }
    }

    pub(super) fn ended(&mut self, side: usize, peer: usize, generation: u64) {
        if self.side(side, peer).open == Some(generation) {
            self.forget_side(side, peer);
            let id = self.devices[peer].id;
            self.drive(side, Input::PeerDown(id));
        }
        let delay = self.between(20, 400);
        self.at(delay, Event::Connect(side, peer));
    }

    pub(super) fn queue_out(&mut self, device: usize, peer: DeviceId, outgoing: Outgoing) {
        let Some(peer) = self.index.get(&peer).copied() else {
            return;
        };
        let side = self.side(device, peer);
        if side.open.is_none() {
            return;
        }
        side.outgoing.push_back(outgoing);
        if !side.writing {
            side.writing = true;
            let delay = self.between(0, 4);
            self.at(delay, Event::Write { from: device, to: peer });
        }
    }

    pub(super) fn write(&mut self, from: usize, to: usize) {
        self.side(from, to).writing = false;
        let Some(generation) = self.side(from, to).open else {
            return;
        };
        let Some(outgoing) = self.side(from, to).outgoing.pop_front() else {
            return;
        };
        let frames = match outgoing {
            Outgoing::Frame(bytes) => vec![bytes],
            Outgoing::Serve { object, places, answer } => {
                let records = &self.devices[from].records;
                let packed = pack(object, &places, answer, |chain, seq| records.get(&(chain, seq)).cloned());
                let delay = self.between(0, 10);
                let through = packed.through;
                self.at(delay, Event::Sent { side: from, peer: to, generation, object, answer, through });
                let withheld = self.withholds(from);
                let frames = packed.frames.iter();
                frames.filter(|frame| !withheld || !matches!(frame, Frame::Records { .. })).map(Frame::encode).collect()
            }
        };
        let link = self.link(from, to);
        if link.alive && link.generation == generation {
            self.side(from, to).wire.extend(frames);
            self.schedule_delivery(from, to);
        }
        let side = self.side(from, to);
        if !side.outgoing.is_empty() {
            side.writing = true;
            let delay = self.between(0, 4);
            self.at(delay, Event::Write { from, to });
        }
    }

    fn schedule_delivery(&mut self, from: usize, to: usize) {
        let side = self.side(from, to);
        if side.delivering || side.wire.is_empty() {
            return;
        }
        side.delivering = true;
        let slow = self.fate.once_in(12);
        if slow {
            self.counts.add("fault: frame delayed");
        }
        let delay = if slow { self.between(100, 1_500) } else { self.between(0, 20) };
        self.at(delay, Event::Deliver { from, to });
    }

    pub(super) fn deliver(&mut self, from: usize, to: usize) {
        self.side(from, to).delivering = false;
        let link = self.link(from, to);
        let (alive, generation) = (link.alive, link.generation);
        if !alive || self.side(to, from).open != Some(generation) {
            return;
        }
        let Some(bytes) = self.side(from, to).wire.pop_front() else {
            return;
        };
        let peer = self.devices[from].id;
        let again = matches!(Frame::decode(&bytes), Ok(Frame::Records { .. } | Frame::ControlItems { .. }));
        if again {
            let sent = &mut self.side(from, to).sent;
            sent.push_back(bytes.clone());
            if sent.len() > KEPT {
                sent.pop_front();
            }
        }
        self.trace.line(|| format!("              device {to} gets {}", short(&bytes)));
        self.drive(to, Input::Frame { peer, bytes });
        if again && !self.calm && self.fate.once_in(4) {
            self.replay(from, to);
        }
        self.schedule_delivery(from, to);
    }

    /// Sends again, out of order, what was sent before, perhaps in an earlier stream.
    fn replay(&mut self, from: usize, to: usize) {
        let generation = self.link(from, to).generation;
        if !self.link(from, to).alive || self.side(to, from).open != Some(generation) {
            return;
        }
        let kept = self.side(from, to).sent.len();
        let chosen = self.fate.index(kept);
        let Some(bytes) = self.side(from, to).sent.get(chosen).cloned() else {
            return;
        };
        self.counts.add("fault: frame repeated out of order");
        let peer = self.devices[from].id;
        self.drive(to, Input::Frame { peer, bytes });
    }

    /// The watch tells of changes some time later.
    pub(super) fn report(&mut self, device: usize, slow: u64) {
        let entry = &mut self.devices[device];
        if entry.reporting || entry.replica.is_none() {
            return;
        }
        entry.reporting = true;
        let life = entry.life;
        let delay = self.between(1, 15 + slow);
        self.at(delay + MS, Event::Watch(device, life));
    }
}

/// What a frame says, in few words.
fn short(bytes: &[u8]) -> String {
    match Frame::decode(bytes) {
        Ok(Frame::ControlItems { object, items, done }) => {
            let ids = items.iter().filter_map(|item| Signed::parse(item).ok()).map(|signed| OpId(signed.id()));
            format!("statements of {}, done {done}: {:?}", object.short(), ids.collect::<Vec<_>>())
        }
        Ok(Frame::Records { object, records }) => format!("{} records of {}", records.len(), object.short()),
        Ok(Frame::Want { object, ranges }) => {
            let ranges: Vec<_> =
                ranges.iter().map(|it| format!("{} {}..{}", it.chain.short(), it.first, it.last)).collect();
            format!("Want of {}: {}", object.short(), ranges.join(", "))
        }
        Ok(frame) => frame.name().to_owned(),
        Err(error) => error.to_string(),
    }
}
