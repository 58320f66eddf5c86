//! The two devices and what is between them.

use std::collections::BTreeSet;

use meshwork_protocol::{
    id::{DeviceId, MeshId, ObjectId},
    limits,
    time::Timestamp,
    wire::sync::{Frame, VERSION},
};
use meshwork_replica::{
    folder::Input as FolderInput,
    replica::{Event, Input, Output},
    sync::serve::pack,
    transfer::Outcome,
};

use super::side::{Job, Side, Waiting};
use crate::fuzz::program::Program;

/// Frames kept for sending them again.
const SENT: usize = 256;
/// Bytes that a replica may ask to be sent because of one input: two full answers of records and as much again.
const ANSWER: usize = 4 * limits::SERVE_BYTES;
/// Things that happen until both are equal again.
const HEALING: usize = 20_000;
/// Deadlines that pass meanwhile.
const DEADLINES: usize = 2_000;

pub(super) struct Mesh {
    pub now: Timestamp,
    pub mesh: MeshId,
    pub folder: ObjectId,
    pub sides: [Side; 2],
    /// The member that misbehaves; the first side knows it as a peer.
    pub third: DeviceId,
    pub third_up: bool,
    pub up: bool,
    cut: bool,
    pub sent: Vec<Vec<u8>>,
    /// Inputs by which a digest changed.
    pub grew: usize,
}

impl Mesh {
    pub fn new(now: Timestamp, mesh: MeshId, folder: ObjectId, sides: [Side; 2], third: DeviceId) -> Self {
        let sent = Vec::new();
        Mesh { now, mesh, folder, sides, third, third_up: false, up: false, cut: false, sent, grew: 0 }
    }

    /// Gives a replica an input, asserts what holds for every one, and takes note of what it asks for.
    pub fn handle(&mut self, side: usize, input: Input) {
        let at = &mut self.sides[side];
        let before = at.replica.digest();
        let nonsense = matches!(&input, Input::Frame { bytes, .. } if Frame::decode(bytes).is_err());
        let outputs = at.replica.handle(self.now, &mut at.kept.rng, input);
        let changed = at.replica.digest() != before;
        let stores = outputs.iter().any(|output| matches!(output, Output::Persist { .. }));
        assert!(!(changed && nonsense), "what is no frame has changed the state");
        assert!(stores || !changed, "the state has changed and nothing is stored");
        let logs = at.replica.control().logs().count();
        assert!(at.replica.control().waiting() <= limits::PENDING_PER_LOG * logs, "too many statements wait");
        self.grew += usize::from(changed);
        self.carry_out(side, outputs);
    }

    pub fn carry_out(&mut self, side: usize, outputs: Vec<Output>) {
        let mut bytes = 0;
        for output in outputs {
            bytes += self.carry_one(side, output);
        }
        assert!(bytes <= ANSWER, "{bytes} bytes because of one input");
    }

    fn carry_one(&mut self, side: usize, output: Output) -> usize {
        let (up, other) = (self.up, self.sides[1 - side].kept.id);
        let at = &mut self.sides[side];
        match output {
            Output::Persist { ticket, entries } => at.waiting.push_back(Waiting::Entries(ticket, entries)),
            Output::Base { own, changes, .. } => at.waiting.push_back(Waiting::Base(own, changes)),
            Output::Send { peer, frame } => {
                let bytes = frame.encode();
                assert!(Frame::decode(&bytes).is_ok(), "a frame that nobody takes: {}", frame.name());
                let len = bytes.len();
                if peer == other && up {
                    at.wire.push_back(bytes);
                }
                return len;
            }
            Output::Serve { peer, object, places, answer } => {
                let records = &at.kept.records;
                let packed = pack(object, &places, answer, |chain, seq| records.get(&(chain, seq)).cloned());
                if peer == other && up {
                    at.wire.extend(packed.frames.iter().map(Frame::encode));
                }
                at.written.push_back((peer, object, answer, packed.through));
            }
            Output::Reread { object, places } => at.rereads.push_back((object, places)),
            Output::Forget { chain, .. } => at.kept.forget(chain),
            Output::Disconnect { peer, .. } if peer == other => self.cut = true,
            Output::Disconnect { .. } => self.third_up = false,
            Output::List(_, paths) => at.begin(Job::List(paths)),
            Output::Hash(_, files) => at.begin(Job::Hash(files)),
            Output::Place(_, batch) => at.begin(Job::Place(batch)),
            Output::Fetch { ticket, files, .. } => drop(at.fetches.insert(ticket, files)),
            Output::Incarnation(incarnation) => at.kept.secrets.incarnation = incarnation,
            Output::Addresses(_) | Output::PeersChanged => self.cut |= up && !at.replica.peers().contains(&other),
            Output::Event(Event::StoreFailed) => at.failed = true,
            Output::Event(_) => {}
        }
        0
    }

    /// What follows by itself: a stream that one side closes ends for both, and a failed store is a new process.
    pub fn follow(&mut self) {
        if std::mem::take(&mut self.cut) {
            self.connect(false);
        }
        for side in 0..2 {
            if self.sides[side].failed {
                self.restart(side);
            }
        }
    }

    /// Opens the stream between the two, or ends it.
    pub fn connect(&mut self, up: bool) {
        let ids = [0, 1].map(|side: usize| self.sides[side].kept.id);
        let known = (0..2).all(|side| self.sides[side].replica.peers().contains(&ids[1 - side]));
        for side in 0..2 {
            self.sides[side].wire.clear();
        }
        let was = std::mem::replace(&mut self.up, up && known);
        for side in 0..2 {
            let peer = ids[1 - side];
            if self.up {
                self.handle(side, Input::PeerUp(peer));
            } else if was {
                self.handle(side, Input::PeerDown(peer));
            }
        }
    }

    /// The third device opens its stream to the first, as everybody does, or ends it.
    pub fn third(&mut self, up: bool) {
        let was = std::mem::replace(&mut self.third_up, up);
        if up {
            self.handle(0, Input::PeerUp(self.third));
            self.frame(0, 0, Frame::Hello { version: VERSION, objects: Vec::new() }.encode());
        } else if was {
            self.handle(0, Input::PeerDown(self.third));
        }
    }

    /// A process dies and starts again.
    pub fn restart(&mut self, side: usize) {
        self.connect(false);
        let kept = self.sides[side].kept.clone();
        self.sides[side] = Side::restored(kept, self.mesh, self.folder);
        let at = &mut self.sides[side];
        let outputs = at.replica.resume(self.now, &mut at.kept.rng);
        self.carry_out(side, outputs);
        if side == 0 && self.third_up {
            self.third(true);
        }
    }

    /// A frame comes to `side` from the other, or, where both are the same, from the third.
    pub fn frame(&mut self, side: usize, from: usize, bytes: Vec<u8>) {
        let peer = if side == from { self.third } else { self.sides[from].kept.id };
        self.handle(side, Input::Frame { peer, bytes });
    }

    /// Delivers the next frame to `side`, as `alter` makes of it.
    pub fn deliver(&mut self, side: usize, alter: impl FnOnce(&mut Vec<u8>)) {
        let Some(mut bytes) = self.sides[1 - side].wire.pop_front() else { return };
        if self.sent.len() < SENT {
            self.sent.push(bytes.clone());
        }
        alter(&mut bytes);
        self.frame(side, 1 - side, bytes);
    }

    /// The next frame to `side` does not arrive.
    pub fn lose(&mut self, side: usize) {
        self.sides[1 - side].wire.pop_front();
    }

    /// A frame that was delivered once comes again, to whomever, as `alter` makes of it.
    pub fn replay(&mut self, side: usize, sent: usize, alter: impl FnOnce(&mut Vec<u8>)) {
        let Some(at) = sent.checked_rem(self.sent.len()) else { return };
        let mut bytes = self.sent[at].clone();
        alter(&mut bytes);
        self.frame(side, 1 - side, bytes);
    }

    pub fn tick(&mut self) {
        for side in 0..2 {
            self.handle(side, Input::Tick);
        }
    }

    /// The store answers.
    pub fn stored(&mut self, side: usize, fails: bool) {
        if let (Some(Waiting::Entries(ticket, _)), true) = (self.sides[side].waiting.front(), fails) {
            let ticket = *ticket;
            return self.handle(side, Input::Persisted { ticket, durable: false });
        }
        if let Some(ticket) = self.sides[side].store() {
            self.handle(side, Input::Persisted { ticket, durable: true });
        }
        if let Some((peer, object, answer, through)) = self.sides[side].written.pop_front() {
            self.handle(side, Input::Sent { peer, object, answer, through });
        }
        if let Some((object, places)) = self.sides[side].rereads.pop_front() {
            let stored = &self.sides[side].kept.records;
            let records = places.iter().filter_map(|place| stored.get(place).cloned()).collect();
            self.handle(side, Input::Reread { object, records, done: true });
        }
    }

    /// The watch tells, or the disk answers.
    pub fn work(&mut self, side: usize, program: &mut Program<'_>) {
        self.watch(side);
        let input = self.sides[side].job(Some(program));
        self.folder(side, input);
    }

    fn watch(&mut self, side: usize) -> bool {
        let changed = std::mem::take(&mut self.sides[side].changed);
        let news = !changed.is_empty();
        self.folder(side, news.then_some(FolderInput::Dirty(changed)));
        news
    }

    fn folder(&mut self, side: usize, input: Option<FolderInput>) -> bool {
        let object = self.folder;
        let Some(input) = input else { return false };
        self.handle(side, Input::Folder { object, input });
        true
    }

    /// A fetch ends.
    pub fn fetched(&mut self, side: usize, program: &mut Program<'_>) {
        let how = program.below(6);
        self.fetch(side, how);
    }

    fn fetch(&mut self, side: usize, how: usize) -> bool {
        let Some((ticket, files)) = self.sides[side].fetches.pop_first() else { return false };
        let mut outcomes = Vec::new();
        for file in files {
            let bytes = self.sides[1 - side].content(file.content);
            let outcome = match (how, bytes) {
                (3, _) => Outcome::Bad,
                (4, _) => Outcome::Local,
                (5, _) => break,
                (_, None) => Outcome::Gone,
                (_, Some(bytes)) => {
                    self.sides[side].kept.disk.temps.insert(file.content, bytes);
                    Outcome::Done
                }
            };
            outcomes.push((file.content, outcome));
        }
        self.handle(side, Input::Fetched { ticket, outcomes });
        true
    }

    /// Answers that nobody asked for.
    pub fn stray(&mut self, side: usize, program: &mut Program<'_>) {
        let (ticket, peer) = (u64::MAX - program.number() % 4, self.sides[1 - side].kept.id);
        let object = if program.once_in(2) { self.folder } else { ObjectId([program.byte(); 32]) };
        let input = match program.below(8) {
            0 => Input::Persisted { ticket, durable: true },
            1 => Input::Fetched { ticket, outcomes: Vec::new() },
            2 => Input::Sent { peer, object, answer: program.once_in(2), through: Vec::new() },
            3 => Input::PeerUp(peer),
            4 => Input::PeerDown(DeviceId([program.byte(); 32])),
            5 => Input::Folder { object, input: FolderInput::Dirty(BTreeSet::new()) },
            6 => Input::Folder { object, input: FolderInput::DirtyEverywhere },
            _ => Input::Tick,
        };
        self.handle(side, input);
    }

    /// Does one thing that is due now; false when nothing is.
    fn proceed(&mut self) -> bool {
        let mut busy = false;
        for side in 0..2 {
            busy |= !self.sides[1 - side].wire.is_empty();
            self.deliver(side, |_| {});
            let at = &self.sides[side];
            busy |= !at.waiting.is_empty() || !at.written.is_empty() || !at.rereads.is_empty();
            self.stored(side, false);
            busy |= self.watch(side);
            let input = self.sides[side].job(None);
            busy |= self.folder(side, input);
            busy |= self.fetch(side, 0);
        }
        self.follow();
        busy
    }

    fn is_level(&self) -> bool {
        let [one, other] = self.sides.each_ref().map(|side| &side.replica);
        let judging = |object| one.is_judging(object) || other.is_judging(object);
        one.digest() == other.digest() && !judging(self.folder) && !judging(self.mesh.into())
    }

    /// Everything works again: both come to hold the same.
    pub fn heal(&mut self) {
        self.third(false);
        self.connect(false);
        let mut deadlines = 0;
        for _ in 0..HEALING {
            if !self.up {
                self.connect(true);
            }
            if self.proceed() {
                continue;
            }
            if self.is_level() {
                return;
            }
            deadlines += 1;
            assert!(deadlines < DEADLINES, "still not equal after {deadlines} deadlines");
            let due = self.sides.iter().filter_map(|side| side.replica.next_deadline()).min();
            self.now = self.now.max(due.expect("not equal, and nothing is due"));
            self.tick();
        }
        panic!("busy without end");
    }
}

impl Side {
    fn begin(&mut self, job: Job) {
        assert!(self.job.is_none(), "two jobs at the disk at a time");
        self.job = Some(job);
    }
}
