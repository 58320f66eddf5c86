//! What the rows of `docs/threat-model.md` about records, statements and frames promise: each sends real frames
//! through [`Replica::handle`] and looks at the error, the counter and the state.

mod checkpoints;
mod devices;
mod forks;
mod frames;
mod graphs;
mod missing;
mod persons;
mod records;
mod statements;

use std::collections::VecDeque;

use meshwork_protocol::{
    codec,
    control::{Act, ControlOp, NO_OP, Role, create_mesh},
    id::{FileId, RecordId},
    key::{Kind, RootKey, Signed},
    limits,
    object::{Header, Record, RecordKind},
    seal::SeedRng,
    wire::sync::{self as sync_frames, Frame},
};
use serde_bytes::{ByteArray, ByteBuf};

use super::*;
use crate::{
    feed::{Key, Name, NewOperation, Value, encode, symlink_content},
    folder::observed::{Expect, Seen, Step, Stepped},
    sync::{receive::ReceiveCounters, serve::pack},
    transfer::Outcome,
};

/// A replica with its store.
struct Node {
    replica: Replica,
    records: BTreeMap<(ChainId, u64), Vec<u8>>,
    log: Vec<Stored>,
}

impl Node {
    fn forget(&mut self, chain: ChainId) {
        self.records.retain(|(of, _), _| *of != chain);
        self.log.retain(|entry| !matches!(entry, Stored::Record { chain: of, .. } if *of == chain));
    }
}

/// An admin, a device that is about to do wrong, and a third one; all hold the same.
struct Scene {
    rng: SeedRng,
    now: Timestamp,
    mesh: ObjectId,
    folder: ObjectId,
    nodes: [Node; 3],
    /// Frames on their way, with who sent them and to whom.
    wire: VecDeque<(DeviceId, DeviceId, Frame)>,
}

const VICTIM: usize = 0;
const ATTACKER: usize = 1;
const OTHER: usize = 2;

fn identity(number: u8, mesh: MeshId) -> Identity {
    Identity {
        device: DeviceKey::from_bytes(&[number; 32]),
        seal: SealKey::from_bytes(&[number + 100; 32]),
        incarnation: Incarnation([number; 8]),
        mesh,
    }
}

impl Scene {
    fn new() -> Self {
        let mut rng = SeedRng::new([1; 32]);
        let root = RootKey::from_seed(&[7; 64], 0);
        let admin = identity(1, MeshId([0; 32]));
        let (mesh, welcome) = create_mesh(&mut rng, &root, &admin.device, &admin.seal).unwrap();
        let node =
            |number| Node { replica: Replica::new(identity(number, mesh)), records: BTreeMap::new(), log: Vec::new() };
        let mut scene = Scene {
            rng,
            now: Timestamp(1_700_000_000_000_000),
            mesh: mesh.into(),
            folder: mesh.into(),
            nodes: [node(1), node(2), node(3)],
            wire: VecDeque::new(),
        };
        let Scene { rng, nodes: [admin, others @ ..], .. } = &mut scene;
        let mut out = admin.replica.found(welcome).unwrap();
        for other in others.iter() {
            out.extend(admin.replica.admit(rng, other.replica.device(), "device").unwrap());
        }
        let (folder, more) = admin.replica.create_folder(rng, "files").unwrap();
        out.extend(more);
        let welcome = admin.replica.control.log(mesh.into()).unwrap().missing(&[]);
        let mut outputs = vec![(VICTIM, out)];
        for (number, other) in others.iter_mut().enumerate() {
            let mut out = other.replica.found(welcome.clone()).unwrap();
            out.extend(other.replica.publish_keys().unwrap());
            outputs.push((number + 1, out));
        }
        scene.folder = folder;
        for (node, out) in outputs {
            scene.carry_out(node, out);
        }
        for (one, other) in [(0, 1), (1, 0), (0, 2), (2, 0), (1, 2), (2, 1)] {
            let peer = scene.device(other);
            scene.input(one, Input::PeerUp(peer));
        }
        scene.settle();
        assert!(scene.nodes.iter().all(|node| node.replica.digest() == scene.nodes[0].replica.digest()));
        assert!(scene.nodes.iter().all(|node| node.replica.convergence(folder).is_some()));
        scene
    }

    fn device(&self, node: usize) -> DeviceId {
        self.nodes[node].replica.device()
    }

    fn victim(&self) -> &Replica {
        &self.nodes[VICTIM].replica
    }

    fn input(&mut self, node: usize, input: Input) -> Vec<Event> {
        let out = self.nodes[node].replica.handle(self.now, &mut self.rng, input);
        self.carry_out(node, out)
    }

    /// Delivers all frames, and lets all pauses end.
    fn settle(&mut self) {
        for _ in 0..4 {
            while let Some((peer, to, frame)) = self.wire.pop_front() {
                if let Some(to) = self.nodes.iter().position(|node| node.replica.device() == to) {
                    self.input(to, Input::Frame { peer, bytes: frame.encode() });
                }
            }
            self.now = Timestamp(self.now.0 + 2_000_000);
            for node in 0..self.nodes.len() {
                self.input(node, Input::Tick);
            }
        }
    }

    /// Carries out what a replica asks for, until nobody asks for anything more; gives what it tells itself.
    fn carry_out(&mut self, node: usize, outputs: Vec<Output>) -> Vec<Event> {
        let mut events = Vec::new();
        for output in outputs {
            match output {
                Output::Persist { ticket, entries } => {
                    for entry in entries {
                        if let Stored::Record { chain, seq, bytes, .. } = &entry {
                            self.nodes[node].records.insert((*chain, *seq), bytes.clone());
                        }
                        self.nodes[node].log.push(entry);
                    }
                    events.extend(self.input(node, Input::Persisted { ticket, durable: true }));
                }
                Output::Send { peer, frame } => self.wire.push_back((self.device(node), peer, frame)),
                Output::Serve { peer, object, places, answer } => {
                    let records = &self.nodes[node].records;
                    let packed = pack(object, &places, answer, |chain, seq| records.get(&(chain, seq)).cloned());
                    let from = self.device(node);
                    self.wire.extend(packed.frames.into_iter().map(|frame| (from, peer, frame)));
                    events.extend(self.input(node, Input::Sent { peer, object, answer, through: packed.through }));
                }
                Output::Reread { object, places } => {
                    let records = &self.nodes[node].records;
                    let records = places.iter().filter_map(|place| records.get(place).cloned()).collect();
                    events.extend(self.input(node, Input::Reread { object, records, done: true }));
                }
                Output::Fetch { ticket, files, .. } => {
                    // Nobody has any bytes here.
                    let outcomes = files.iter().map(|file| (file.content, Outcome::Gone)).collect();
                    events.extend(self.input(node, Input::Fetched { ticket, outcomes }));
                }
                Output::Forget { chain, .. } => self.nodes[node].forget(chain),
                Output::Place(object, batch) if batch.steps.iter().all(Step::is_check) => {
                    let input = folder::Input::Placed(Ok(batch.steps.iter().map(as_expected).collect()));
                    events.extend(self.input(node, Input::Folder { object, input }));
                }
                Output::Event(event) => events.push(event),
                _ => {}
            }
        }
        events
    }

    /// What the victim says to a frame of a peer.
    fn say(&mut self, from: usize, frame: &Frame) -> Vec<String> {
        self.say_bytes(from, frame.encode())
    }

    fn say_bytes(&mut self, from: usize, bytes: Vec<u8>) -> Vec<String> {
        let peer = self.device(from);
        let events = self.input(VICTIM, Input::Frame { peer, bytes });
        let refused = events.into_iter().filter_map(|event| match event {
            Event::Refused { error, .. } => Some(error),
            _ => None,
        });
        refused.collect()
    }

    fn send_record(&mut self, object: ObjectId, record: Vec<u8>) -> Vec<String> {
        self.say(ATTACKER, &Frame::Records { object, records: vec![ByteBuf::from(record)] })
    }

    /// A record of the attacker, rightly signed, that it has not sent yet.
    fn write(&mut self, object: ObjectId, kind: RecordKind, text: &[u8]) -> Vec<u8> {
        let attacker = &mut self.nodes[ATTACKER].replica;
        attacker.author_record(&mut self.rng, object, kind, text, false).unwrap();
        match attacker.signed.pop() {
            Some(Stored::Record { bytes, .. }) => bytes,
            _ => panic!("no record was signed"),
        }
    }

    fn write_link(&mut self, target: &str) -> Vec<u8> {
        let text = link(target);
        self.write(self.folder, RecordKind::Feed, &text)
    }

    /// What must not change by what is refused.
    fn state(&self) -> (Shown, [u8; 32]) {
        (self.shown(), self.victim().digest())
    }

    /// What must not change by what is held and void.
    fn shown(&self) -> Shown {
        let feed = self.victim().folder(self.folder).unwrap().feed();
        let live = feed.iter().flatten().map(|operation| format!("{operation:?}")).collect();
        Shown { live, graph: self.victim().graph.hash(), peers: self.victim().peers() }
    }

    fn counters(&self, object: ObjectId) -> ReceiveCounters {
        self.victim().intake(object).unwrap().counters()
    }
}

/// What a step that only looks finds where all is as it expects.
fn as_expected(step: &Step) -> Stepped {
    match step {
        Step::Check { expect: Expect::Symlink { target }, .. } => {
            Stepped::Done(Some(Seen::Symlink { target: target.clone() }))
        }
        _ => Stepped::Done(None),
    }
}

/// What a replica shows.
#[derive(Debug, PartialEq)]
struct Shown {
    live: Vec<String>,
    graph: [u8; 32],
    peers: BTreeSet<DeviceId>,
}

/// The text of a batch that puts a link.
fn link(target: &str) -> Vec<u8> {
    let target = target.as_bytes();
    let value = crate::feed::FileValue {
        file: FileId([0; 16]),
        kind: crate::feed::FileKind::Symlink { target: ByteBuf::from(target) },
        content: symlink_content(target),
        size: target.len() as u64,
        modified_ns: 0,
        executable: false,
        unknown: Default::default(),
    };
    let key = Key { dir: meshwork_protocol::id::DirId::ROOT, name: Name::try_from("link").unwrap() };
    encode(&[NewOperation { key, value: Value::File(value), base: Vec::new(), former: Vec::new() }]).unwrap()
}

/// A record with another header, signed by this key.
fn resigned(key: &DeviceKey, record: &[u8], change: impl FnOnce(&mut Header)) -> Vec<u8> {
    let mut record: Record = codec::decode(record, limits::RECORD).unwrap();
    let mut header: Header = record.signed.open(Kind::RecordHeader).unwrap();
    change(&mut header);
    record.signed = key.sign(Kind::RecordHeader, codec::encode(&header));
    codec::encode(&record)
}
