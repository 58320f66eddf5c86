//! Nodes with volatile and stored state, joined by streams that can end at any point.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::Duration,
};

use meshwork_protocol::{
    id::{ChainId, DeviceId, EpochId, Incarnation, ObjectId, OpId, RecordId},
    key::DeviceKey,
    limits,
    object::{Draft, Fit, Header, Range, Record, RecordKind, Verified},
    seal::{EpochKey, SeedRng},
    time::Timestamp,
    wire::sync::Frame,
};
use serde_bytes::ByteBuf;

use super::super::{
    Audience, Input, Landed, Output, Scope, Sync,
    receive::{Arrival, Intake, Judge, NotAuthorised, ReceiveError, Standing},
    serve::serve,
};

pub const OBJECT: ObjectId = ObjectId([1; 32]);

/// Random numbers of a test case: xorshift.
pub struct Dice(pub u64);

impl Dice {
    pub fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as usize % bound.max(1)
    }
}

/// Work of the driver that takes time.
pub enum Job {
    Serve { peer: DeviceId, ranges: Vec<Range>, answer: bool },
    Control { peer: DeviceId, have: Vec<OpId> },
}

impl Job {
    fn peer(&self) -> DeviceId {
        match self {
            Job::Serve { peer, .. } | Job::Control { peer, .. } => *peer,
        }
    }
}

/// A control log without rules: a set, each operation its own tip.
pub struct AnyControl {
    pub ops: BTreeSet<OpId>,
    epoch: EpochKey,
}

impl Judge for AnyControl {
    fn may_send(&self, _: &DeviceId, _: &ObjectId) -> bool {
        true
    }
    fn missing_control(&self, header: &Header) -> Vec<OpId> {
        header.control.iter().filter(|op| !self.ops.contains(op)).copied().collect()
    }
    fn regresses(&self, _: &ObjectId, _: &[OpId], _: &[OpId]) -> bool {
        false
    }
    fn judge(&self, _: &Verified, _: &dyn Fn(RecordId) -> bool) -> Result<Standing, NotAuthorised> {
        Ok(Standing::Stands)
    }
    fn epoch_key(&self, _: &ObjectId, _: &EpochId) -> Option<&EpochKey> {
        Some(&self.epoch)
    }

    fn replaced(&self, _: &Verified) -> Option<BTreeSet<ChainId>> {
        None
    }
}

pub struct Node {
    pub key: DeviceKey,
    pub incarnation: Incarnation,
    pub sync: Sync,
    pub intake: Intake,
    pub control: AnyControl,
    /// Stored records, in the order in which they were admitted.
    pub log: Vec<Verified>,
    /// Admitted and not stored yet, with whether they were written here.
    pub unstored: VecDeque<(Verified, bool)>,
    pub jobs: Vec<Job>,
    pub links: BTreeSet<DeviceId>,
    /// Some records are in other chains since what is stored was told.
    pub forked: bool,
}

impl Node {
    pub fn id(&self) -> DeviceId {
        self.key.device_id()
    }

    pub fn chain(&self) -> ChainId {
        ChainId::of(&self.id(), &OBJECT, &self.incarnation)
    }
}

pub struct World {
    pub now: Timestamp,
    pub nodes: BTreeMap<DeviceId, Node>,
    /// Frames on their way, by (from, to).
    pub streams: BTreeMap<(DeviceId, DeviceId), VecDeque<Frame>>,
    pub frames_sent: usize,
    pub bytes_sent: usize,
    pub records_sent: usize,
    rng: SeedRng,
}

impl World {
    pub fn new(nodes: u8) -> Self {
        let keys = (1..=nodes).map(|n| (DeviceKey::from_bytes(&[n; 32]), Incarnation([n; 8])));
        Self::of(keys.collect())
    }

    pub fn of(keys: Vec<(DeviceKey, Incarnation)>) -> Self {
        let mut world = World {
            now: Timestamp(1_000_000),
            nodes: BTreeMap::new(),
            streams: BTreeMap::new(),
            frames_sent: 0,
            bytes_sent: 0,
            records_sent: 0,
            rng: SeedRng::new([5; 32]),
        };
        for (key, incarnation) in keys {
            let node = Node {
                incarnation,
                sync: Sync::new(),
                intake: Intake::new(OBJECT),
                control: AnyControl { ops: BTreeSet::from([OpId([1; 32])]), epoch: EpochKey::from_bytes(&[3; 32]) },
                log: Vec::new(),
                unstored: VecDeque::new(),
                jobs: Vec::new(),
                links: BTreeSet::new(),
                forked: false,
                key,
            };
            let id = node.id();
            world.nodes.insert(id, node);
            world.add_object(id);
        }
        world
    }

    pub fn ids(&self) -> Vec<DeviceId> {
        self.nodes.keys().copied().collect()
    }

    pub fn node(&mut self, id: &DeviceId) -> &mut Node {
        self.nodes.get_mut(id).expect("a node of this world")
    }

    fn add_object(&mut self, id: DeviceId) {
        let node = self.node(&id);
        let (vector, control) = (node.intake.chains().vector(), node.control.ops.iter().copied().collect());
        self.input(id, Input::ObjectAdded { object: OBJECT, vector, retired: BTreeSet::new(), control });
    }

    /// Gives an input to a node and carries out what follows from it at once.
    pub fn input(&mut self, id: DeviceId, input: Input) {
        let now = self.now;
        let outputs = self.node(&id).sync.handle(now, input);
        for output in outputs {
            self.output(id, output);
        }
    }

    fn output(&mut self, id: DeviceId, output: Output) {
        match output {
            Output::Send { peer, frame } => self.send(id, peer, frame),
            Output::Serve { peer, ranges, answer, .. } => {
                self.node(&id).jobs.push(Job::Serve { peer, ranges, answer });
            }
            Output::SendControl { peer, have, .. } => self.node(&id).jobs.push(Job::Control { peer, have }),
            Output::Received { peer, record, .. } => self.received(id, peer, record),
            Output::ReceivedControl { peer, items, .. } => {
                let ops = items.iter().map(|item| OpId(item.as_slice().try_into().expect("an operation")));
                self.add_control(id, ops.collect(), Some(peer));
            }
            Output::Addresses { .. } | Output::Retired { .. } => {}
            Output::Close { peer, .. } => self.cut(id, peer),
        }
    }

    pub fn send(&mut self, from: DeviceId, to: DeviceId, frame: Frame) {
        if let Some(stream) = self.streams.get_mut(&(from, to)) {
            self.frames_sent += 1;
            self.bytes_sent += frame.encode().len();
            if let Frame::Records { records, .. } = &frame {
                self.records_sent += records.len();
            }
            stream.push_back(frame);
        }
    }

    fn received(&mut self, id: DeviceId, peer: DeviceId, bytes: Vec<u8>) {
        let Node { intake, control, .. } = self.node(&id);
        let receipt = intake.receive(control, &peer, bytes);
        self.admitted(id, receipt.arrivals);
        if let Some((chain, seq)) = receipt.place {
            self.input(id, Input::Seen { peer, object: OBJECT, chain, seq });
        }
        match receipt.refusal {
            Some(ReceiveError::NeedControl(_)) => {
                self.input(id, Input::NeedControl { peer, object: OBJECT });
            }
            Some(ReceiveError::Sidestep { chain, seq }) => {
                self.input(id, Input::Sidestep { peer, object: OBJECT, chain, seq });
            }
            Some(error) if error.is_fault() => self.input(id, Input::Strike { peer }),
            _ => {}
        }
    }

    fn admitted(&mut self, id: DeviceId, arrivals: Vec<Arrival>) {
        for Arrival { record, fit, .. } in arrivals {
            let node = self.node(&id);
            node.forked |= fit == Fit::Branch;
            let (chain, seq) = node.intake.chains().place(&record.id()).expect("admitted");
            let taken = Input::Taken { object: OBJECT, chain, seq, id: record.id() };
            node.unstored.push_back((record, false));
            self.input(id, taken);
        }
    }

    /// Control operations come to be known at a node.
    pub fn add_control(&mut self, id: DeviceId, ops: Vec<OpId>, from: Option<DeviceId>) {
        let node = self.node(&id);
        let new: Vec<OpId> = ops.into_iter().filter(|op| node.control.ops.insert(*op)).collect();
        if new.is_empty() {
            return;
        }
        let Node { intake, control, .. } = node;
        let arrivals = intake.control_arrived(control, &new);
        let heads = control.ops.iter().copied().collect();
        // Sometimes the news themselves are told, sometimes only that there are some.
        let news =
            if new[0].0[1].is_multiple_of(2) { new.iter().map(|op| op.0.to_vec()).collect() } else { Vec::new() };
        self.input(id, Input::ControlChanged { object: OBJECT, heads, news, from });
        self.admitted(id, arrivals);
    }

    /// A node writes a record.
    pub fn write(&mut self, id: DeviceId) {
        let World { nodes, rng, .. } = self;
        let node = nodes.get_mut(&id).expect("a node of this world");
        let chain = node.chain();
        let chains = node.intake.chains();
        let (have, prev) = chains.head(&chain);
        let deps = chains.deps_for_next(&chain, |_| u64::MAX).deps;
        let draft = Draft {
            object: OBJECT,
            kind: RecordKind::Feed,
            incarnation: node.incarnation,
            seq: have + 1,
            prev,
            control: node.control.ops.iter().rev().take(limits::RECORD_CONTROL_HEADS).copied().collect(),
            object_grant: OpId([1; 32]),
            device_grant: OpId([1; 32]),
            height: chains.next_height(&prev, &deps),
            deps,
            more: false,
        };
        let record = Record::create(&node.key, draft, &node.control.epoch, b"text", rng).expect("a good draft");
        node.intake.restore(&record).expect("fits its own chain");
        node.unstored.push_back((record, true));
    }

    /// The oldest `count` records not stored yet are stored.
    pub fn store(&mut self, id: DeviceId, count: usize) {
        let node = self.node(&id);
        let mut records = Vec::new();
        for (record, own) in node.unstored.drain(..count.min(node.unstored.len())).collect::<Vec<_>>() {
            let (chain, seq) = node.intake.chains().place(&record.id()).expect("admitted");
            records.push(Landed { chain, seq, id: record.id(), own });
            node.log.push(record);
        }
        if !records.is_empty() {
            self.input(id, Input::Appended { object: OBJECT, records });
        }
        let node = self.node(&id);
        if node.unstored.is_empty() && std::mem::take(&mut node.forked) {
            self.add_object(id);
        }
    }

    /// The driver of a node does one piece of work.
    pub fn work(&mut self, id: DeviceId, which: usize) {
        let node = self.node(&id);
        if node.jobs.is_empty() {
            return;
        }
        match node.jobs.remove(which % node.jobs.len()) {
            Job::Serve { peer, ranges, answer } => {
                let log = &node.log;
                let read = |id: &RecordId| log.iter().find(|r| r.id() == *id).map(|r| r.bytes().to_vec());
                let serving = serve(node.intake.chains(), &ranges, answer, read);
                for frame in serving.frames {
                    self.send(id, peer, frame);
                }
                self.input(id, Input::Sent { peer, object: OBJECT, answer, through: serving.through });
            }
            Job::Control { peer, have } => {
                let lacking = node.control.ops.iter().filter(|op| !have.contains(op));
                let items = lacking.map(|op| ByteBuf::from(op.0.to_vec())).collect();
                self.send(id, peer, Frame::ControlItems { object: OBJECT, items, done: true });
                self.input(id, Input::ControlSent { peer, object: OBJECT });
            }
        }
    }

    pub fn connect(&mut self, a: DeviceId, b: DeviceId) {
        self.cut(a, b);
        for (from, to) in [(a, b), (b, a)] {
            self.streams.insert((from, to), VecDeque::new());
            self.node(&from).links.insert(to);
        }
        for (from, to) in [(a, b), (b, a)] {
            self.input(from, Input::PeerUp { peer: to, objects: Audience::from([(OBJECT, Scope::Whole)]) });
        }
    }

    pub fn cut(&mut self, a: DeviceId, b: DeviceId) {
        for (from, to) in [(a, b), (b, a)] {
            self.streams.remove(&(from, to));
            let node = self.node(&from);
            node.jobs.retain(|job| job.peer() != to);
            if node.links.remove(&to) {
                self.input(from, Input::PeerDown { peer: to });
            }
        }
    }

    /// A node loses all that is not stored.
    pub fn restart(&mut self, id: DeviceId) {
        for other in self.ids() {
            self.cut(id, other);
        }
        let node = self.node(&id);
        node.unstored.clear();
        node.jobs.clear();
        node.sync = Sync::new();
        node.intake = Intake::new(OBJECT);
        for record in &node.log {
            let record = Verified::trusted(record.bytes().to_vec()).expect("stored records are sound");
            node.intake.restore(&record).expect("the log is in causal order");
        }
        self.add_object(id);
    }

    /// Delivers the next frame of a stream.
    pub fn deliver(&mut self, from: DeviceId, to: DeviceId) -> bool {
        let Some(frame) = self.streams.get_mut(&(from, to)).and_then(VecDeque::pop_front) else {
            return false;
        };
        self.input(to, Input::Frame { peer: from, bytes: frame.encode() });
        true
    }

    pub fn advance(&mut self, time: Duration) {
        self.now = self.now + time;
        let now = self.now;
        for id in self.ids() {
            let mut ticks = 0;
            while self.node(&id).sync.next_deadline().is_some_and(|due| due <= now) {
                self.input(id, Input::Tick);
                ticks += 1;
                assert!(ticks < 100, "a deadline that never passes");
            }
        }
    }

    /// Everything happens until nothing more does; returns the number of frames delivered.
    pub fn settle(&mut self) -> usize {
        let mut delivered = 0;
        loop {
            let mut busy = false;
            for id in self.ids() {
                self.store(id, usize::MAX);
                while !self.node(&id).jobs.is_empty() {
                    self.work(id, 0);
                    busy = true;
                }
            }
            for (from, to) in self.streams.keys().copied().collect::<Vec<_>>() {
                while self.deliver(from, to) {
                    busy = true;
                    delivered += 1;
                    assert!(delivered < 100_000, "frames without end");
                }
            }
            if !busy && self.nodes.values().all(|node| node.unstored.is_empty()) {
                return delivered;
            }
        }
    }

    pub fn digests(&self) -> BTreeSet<[u8; 32]> {
        self.nodes.values().map(|node| node.intake.chains().digest()).collect()
    }

    pub fn is_level(&self) -> bool {
        let control: BTreeSet<&BTreeSet<OpId>> = self.nodes.values().map(|node| &node.control.ops).collect();
        self.digests().len() == 1 && control.len() == 1
    }
}
