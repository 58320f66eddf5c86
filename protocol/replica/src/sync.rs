//! Brings replicas together: decides what to tell and what to ask each connected peer.
//!
//! The machine holds no record and reads no log: it knows how much of each chain is persisted here and
//! what each peer says it holds. Whoever lacks something asks one peer at a time for it, so that nothing
//! travels twice; a record written here is sent at once to every peer that holds all before it, and
//! other records are announced. Any holder serves any chain. Only what [`Input::Appended`] reported as
//! persisted is ever told to a peer.

mod fetch;
mod frames;
mod local;
mod peer;
mod push;
pub mod receive;
pub mod serve;

use std::collections::{BTreeMap, BTreeSet};

use meshwork_protocol::{
    contact::CardDevice,
    id::{ChainId, DeviceId, ObjectId, OpId, RecordId},
    limits,
    object::{Range, Vector},
    time::Timestamp,
    wire::sync::{Frame, Reason, Retirement},
};
use serde_bytes::ByteBuf;

use local::Local;
use peer::{Peer, View};

/// How much of an object a peer may know of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// Its control log: what both need to judge each other by.
    Control,
    /// Its records, too.
    Whole,
}

/// The objects that a peer may know of.
pub type Audience = BTreeMap<ObjectId, Scope>;

/// Something that happened.
#[derive(Debug, Clone)]
pub enum Input {
    /// An object is held here, or what is held of it was read anew.
    ObjectAdded {
        /// The object.
        object: ObjectId,
        /// How much of its chains is persisted.
        vector: Vector,
        /// Chains that were let go of: nobody is asked for them.
        retired: BTreeSet<ChainId>,
        /// Tips of its persisted control log.
        control: Vec<OpId>,
    },
    /// Chains of an object were let go of here.
    Retired {
        /// The object.
        object: ObjectId,
        /// Which.
        chains: BTreeSet<ChainId>,
    },
    /// An object is no longer held here.
    ObjectRemoved {
        /// The object.
        object: ObjectId,
    },
    /// The control stream to a peer is open. A second one replaces the first.
    PeerUp {
        /// The peer.
        peer: DeviceId,
        /// Objects that the peer may know of.
        objects: Audience,
    },
    /// The objects that a connected peer may know of changed.
    Allowed {
        /// The peer.
        peer: DeviceId,
        /// Objects that the peer may know of.
        objects: Audience,
    },
    /// The control stream to a peer ended.
    PeerDown {
        /// The peer.
        peer: DeviceId,
    },
    /// A frame came, without the length before it.
    Frame {
        /// The peer.
        peer: DeviceId,
        /// The frame.
        bytes: Vec<u8>,
    },
    /// A peer turned out to hold a record: it sent it, though it may have to wait, or be refused, here.
    /// Where it was admitted, this follows [`Input::Taken`].
    Seen {
        /// The peer.
        peer: DeviceId,
        /// The object.
        object: ObjectId,
        /// The chain.
        chain: ChainId,
        /// Place of the record.
        seq: u64,
    },
    /// A record was admitted to its chain; it is not persisted yet, but need not be asked for again.
    Taken {
        /// The object.
        object: ObjectId,
        /// The chain.
        chain: ChainId,
        /// Place of the record.
        seq: u64,
        /// The record.
        id: RecordId,
    },
    /// Records were persisted.
    Appended {
        /// The object.
        object: ObjectId,
        /// The records, those of one chain in order.
        records: Vec<Landed>,
    },
    /// The control log of an object changed and that is persisted.
    ControlChanged {
        /// The object.
        object: ObjectId,
        /// Tips of the log now.
        heads: Vec<OpId>,
        /// What is new: canonical bytes of each statement, in order. Empty: peers are told to ask.
        news: Vec<Vec<u8>>,
        /// The peer that it came from, if it did.
        from: Option<DeviceId>,
    },
    /// A record from this peer names control operations that are not held.
    NeedControl {
        /// The peer.
        peer: DeviceId,
        /// The object whose log is asked for.
        object: ObjectId,
    },
    /// A record of this peer at this place goes on from another one than is held: somewhere below the chain has two
    /// records for one place.
    Sidestep {
        /// The peer.
        peer: DeviceId,
        /// The object.
        object: ObjectId,
        /// The chain.
        chain: ChainId,
        /// The place.
        seq: u64,
    },
    /// The peer sent what no honest one sends, such as a record that is malformed.
    Strike {
        /// The peer.
        peer: DeviceId,
    },
    /// An [`Output::Serve`] is written out.
    Sent {
        /// The peer.
        peer: DeviceId,
        /// The object.
        object: ObjectId,
        /// [`Output::Serve::answer`].
        answer: bool,
        /// Newest place sent of each chain.
        through: Vec<(ChainId, u64)>,
    },
    /// An [`Output::SendControl`] is written out.
    ControlSent {
        /// The peer.
        peer: DeviceId,
        /// The object.
        object: ObjectId,
    },
    /// Time went on.
    Tick,
}

/// A record that was persisted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Landed {
    /// The chain.
    pub chain: ChainId,
    /// Place in the chain.
    pub seq: u64,
    /// The record.
    pub id: RecordId,
    /// Whether it was written here; then nobody else has it yet.
    pub own: bool,
}

/// Something to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// Send a frame. A peer whose frames pile up is to be disconnected by the driver.
    Send {
        /// The peer.
        peer: DeviceId,
        /// The frame.
        frame: Frame,
    },
    /// Send records: [`serve::serve`] makes the frames. Ends with [`Input::Sent`].
    Serve {
        /// The peer.
        peer: DeviceId,
        /// The object.
        object: ObjectId,
        /// What to send, as far as it is held.
        ranges: Vec<Range>,
        /// Whether the peer asked, so that [`Frame::Served`] follows the records.
        answer: bool,
        /// Whether the peer asked and still has chains that were let go of here: what it asks for may build on more of
        /// them than it can get.
        behind: bool,
    },
    /// Send what a peer lacks of a control log as [`Frame::ControlItems`], the last frame with `done`, be
    /// it empty. Ends with [`Input::ControlSent`].
    SendControl {
        /// The peer.
        peer: DeviceId,
        /// The object.
        object: ObjectId,
        /// The tips that the peer holds; some may be unknown here.
        have: Vec<OpId>,
    },
    /// A record came; it is small enough, nothing else was checked. For [`receive::Intake::receive`].
    Received {
        /// The peer.
        peer: DeviceId,
        /// The object that it is sent for.
        object: ObjectId,
        /// The record.
        record: Vec<u8>,
    },
    /// Statements of a control log came; nothing was checked but their size.
    ReceivedControl {
        /// The peer.
        peer: DeviceId,
        /// The object that they are sent for.
        object: ObjectId,
        /// The statements.
        items: Vec<ByteBuf>,
    },
    /// A peer has let go of chains of an object.
    Retired {
        /// The object.
        object: ObjectId,
        /// Which.
        chains: Vec<Retirement>,
    },
    /// A peer told where devices may be reached.
    Addresses {
        /// The devices; nothing about them is certain.
        devices: Vec<CardDevice>,
    },
    /// Close the stream to a peer after what was sent before; [`Input::PeerDown`] need not follow.
    Close {
        /// The peer.
        peer: DeviceId,
        /// Why.
        reason: Reason,
    },
}

/// What peers did that they should not have, since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Frames that do not decode or break a limit.
    pub malformed: u64,
    /// Frames before the first, or a second first one.
    pub out_of_order: u64,
    /// Frames about objects that the peer may not know of, or that are not held.
    pub not_allowed: u64,
    /// Questions beyond the number that a peer may have open.
    pub over_credit: u64,
    /// Claims beyond the number of chains that a peer may claim.
    pub over_claimed: u64,
    /// Answers that brought nothing of what the peer claims to hold.
    pub fruitless: u64,
    /// Peers closed for repeated faults.
    pub closed: u64,
}

/// The synchronisation of all objects with all connected peers.
#[derive(Debug, Default)]
pub struct Sync {
    objects: BTreeMap<ObjectId, Local>,
    peers: BTreeMap<DeviceId, Peer>,
    /// Objects that are asked for, or will be at some time.
    active: BTreeSet<ObjectId>,
    counters: Counters,
    outputs: Vec<Output>,
}

impl Sync {
    /// No objects, no peers.
    pub fn new() -> Self {
        Self::default()
    }

    /// What peers did that they should not have.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// Connected peers.
    pub fn peers(&self) -> impl Iterator<Item = DeviceId> + '_ {
        self.peers.keys().copied()
    }

    /// Whether a connected peer is known to hold all that is persisted here of an object, and this replica
    /// all that the peer says it holds.
    pub fn is_level(&self, peer: &DeviceId, object: &ObjectId) -> bool {
        let view = self.peers.get(peer).and_then(|peer| peer.views.get(object));
        let (Some(view), Some(local)) = (view, self.objects.get(object)) else {
            return false;
        };
        let ahead = local.held.0.iter().any(|(chain, (seq, _))| view.claim(chain) < *seq);
        let behind =
            view.claims.iter().any(|(chain, seq)| local.held.seq(chain) < *seq && !local.retired.contains(chain));
        view.known && view.control_asked.is_none() && !ahead && !behind
    }

    /// Takes note of what happened and says what to do about it.
    #[must_use]
    pub fn handle(&mut self, now: Timestamp, input: Input) -> Vec<Output> {
        match input {
            Input::ObjectAdded { object, vector, retired, control } => {
                self.add_object(now, object, Local::new(object, vector, retired, control));
            }
            Input::Retired { object, chains } => self.retire(object, &chains),
            Input::ObjectRemoved { object } => self.remove_object(now, &object),
            Input::PeerUp { peer, objects } => self.peer_up(now, peer, objects),
            Input::Allowed { peer, objects } => self.allow(now, peer, objects),
            Input::PeerDown { peer } => self.peer_down(now, &peer),
            Input::Frame { peer, bytes } => self.frame(now, peer, &bytes),
            Input::Seen { peer, object, chain, seq } => self.seen(now, peer, object, chain, seq),
            Input::Taken { object, chain, seq, id } => self.taken(now, object, chain, seq, id),
            Input::Appended { object, records } => self.appended(now, object, &records),
            Input::ControlChanged { object, heads, news, from } => {
                self.control_changed(now, object, heads, news, from);
            }
            Input::NeedControl { peer, object } => self.ask_control(now, peer, object),
            Input::Sidestep { peer, object, chain, seq } => self.sidestep(now, peer, object, chain, seq),
            Input::Strike { peer } => self.strike(now, peer),
            Input::Sent { peer, object, answer, through } => self.sent(peer, object, answer, &through),
            Input::ControlSent { peer, object } => self.control_sent(peer, object),
            Input::Tick => self.tick(now),
        }
        self.flush_announcements(now);
        self.note_sends(now);
        std::mem::take(&mut self.outputs)
    }

    /// When [`Input::Tick`] is due next.
    pub fn next_deadline(&self) -> Option<Timestamp> {
        let peers = self.peers.values().filter_map(Peer::next_deadline);
        let active = self.active.iter().filter_map(|object| self.objects.get(object));
        let objects = active.filter_map(Local::next_deadline);
        peers.chain(objects).min()
    }

    fn add_object(&mut self, now: Timestamp, object: ObjectId, local: Local) {
        self.remove_object(now, &object);
        self.objects.insert(object, local);
        let mut viewers = Vec::new();
        for (device, peer) in &mut self.peers {
            let Some(scope) = peer.allowed.get(&object) else { continue };
            peer.views.insert(object, View::new(now, *scope));
            viewers.push(*device);
        }
        for peer in viewers {
            self.offer(peer, &[object]);
        }
    }

    fn retire(&mut self, object: ObjectId, chains: &BTreeSet<ChainId>) {
        let Some(local) = self.objects.get_mut(&object) else { return };
        local.retire(chains);
        for view in self.peers.values_mut().filter_map(|peer| peer.views.get_mut(&object)) {
            view.forget(chains);
        }
    }

    fn remove_object(&mut self, now: Timestamp, object: &ObjectId) {
        let Some(local) = self.objects.remove(object) else {
            return;
        };
        self.active.remove(object);
        for peer in self.peers.values_mut() {
            peer.forget(object);
        }
        if let Some(peer) = local.fetch.and_then(|fetch| self.peers.get_mut(&fetch.peer)) {
            peer.wants = peer.wants.saturating_sub(1);
        }
        self.plan_hungry(now, object);
    }

    fn peer_up(&mut self, now: Timestamp, peer: DeviceId, objects: Audience) {
        self.peer_down(now, &peer);
        let (mut views, mut states) = (BTreeMap::new(), Vec::new());
        for (object, scope) in &objects {
            let Some(local) = self.objects.get(object) else { continue };
            views.insert(*object, View { said: Some(local.vector_digest()), ..View::new(now, *scope) });
            states.push(local.state(*scope));
        }
        self.peers.insert(peer, Peer::new(now, objects, views));
        self.hello(peer, &states);
    }

    fn allow(&mut self, now: Timestamp, peer: DeviceId, objects: Audience) {
        let Some(entry) = self.peers.get_mut(&peer) else { return };
        let changed = |(object, scope): &(&ObjectId, &Scope), other: &Audience| other.get(object) != Some(scope);
        let lost: Vec<ObjectId> =
            entry.allowed.iter().filter(|was| changed(was, &objects)).map(|(object, _)| *object).collect();
        let new: Vec<(ObjectId, Scope)> = objects
            .iter()
            .filter(|is| changed(is, &entry.allowed) && self.objects.contains_key(is.0))
            .map(|(object, scope)| (*object, *scope))
            .collect();
        for object in &lost {
            entry.forget(object);
        }
        entry.views.extend(new.iter().map(|(object, scope)| (*object, View::new(now, *scope))));
        let new: Vec<ObjectId> = new.into_iter().map(|(object, _)| object).collect();
        entry.allowed = objects;
        for object in lost {
            self.abandon(now, &object, &peer);
        }
        self.offer(peer, &new);
    }

    fn peer_down(&mut self, now: Timestamp, peer: &DeviceId) {
        let Some(gone) = self.peers.remove(peer) else { return };
        for object in gone.views.keys() {
            self.abandon(now, object, peer);
        }
    }

    fn tick(&mut self, now: Timestamp) {
        let silent: Vec<DeviceId> =
            self.peers.iter().filter(|(_, peer)| now >= peer.heard + limits::SILENCE).map(|(d, _)| *d).collect();
        for peer in silent {
            self.close(now, peer, Reason::Silent);
        }
        self.tick_peers(now);
        self.tick_fetches(now);
    }

    fn strike(&mut self, now: Timestamp, peer: DeviceId) {
        let Some(entry) = self.peers.get_mut(&peer) else { return };
        entry.strikes += 1;
        if entry.strikes >= limits::STRIKES {
            self.counters.closed += 1;
            self.close(now, peer, Reason::Misbehaved);
        }
    }

    fn close(&mut self, now: Timestamp, peer: DeviceId, reason: Reason) {
        self.send(peer, Frame::Bye { reason: reason as u8 });
        self.outputs.push(Output::Close { peer, reason });
        self.peer_down(now, &peer);
    }

    fn send(&mut self, peer: DeviceId, frame: Frame) {
        self.outputs.push(Output::Send { peer, frame });
    }

    /// Like [`Sync::pair`], where the peer may know of the object's records.
    fn whole(&mut self, peer: &DeviceId, object: &ObjectId) -> Option<(&mut Local, &mut View)> {
        self.pair(peer, object).filter(|(_, view)| view.scope == Scope::Whole)
    }

    /// What this replica holds of an object and what it knows of a peer's holdings, if both are there.
    fn pair(&mut self, peer: &DeviceId, object: &ObjectId) -> Option<(&mut Local, &mut View)> {
        Some((self.objects.get_mut(object)?, self.peers.get_mut(peer)?.views.get_mut(object)?))
    }

    fn note_sends(&mut self, now: Timestamp) {
        for output in &self.outputs {
            if let Output::Send { peer, .. } | Output::Serve { peer, .. } | Output::SendControl { peer, .. } = output
                && let Some(peer) = self.peers.get_mut(peer)
            {
                peer.sent = now;
            }
        }
    }
}

#[cfg(test)]
mod tests;
