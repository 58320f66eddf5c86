//! A member that has all keys and keeps no rule: what it says reaches the rules behind the signature.

use std::collections::BTreeMap;

use meshwork_protocol::{
    codec,
    control::{ControlOp, Keyring, NO_OP},
    id::{ChainId, Incarnation, ObjectId, OpId, RecordId},
    key::{DeviceKey, Kind},
    object::{Dep, Draft, Range, Record, RecordKind, Verified},
    seal::{SealKey, SeedRng},
    wire::sync::{Frame, ObjectState, VectorEntry},
};
use meshwork_replica::{
    feed::{Dot, Key, encode},
    graph::{Device, Edit, GraphActor},
    replica::Stored,
};
use serde_bytes::{ByteArray, ByteBuf};

use super::mesh::Mesh;
use crate::fuzz::{
    control::{Pool, act},
    feed, graph,
    program::Program,
};

pub(super) struct Hostile {
    key: DeviceKey,
    keyring: Keyring,
    incarnation: Incarnation,
    rng: SeedRng,
    /// The newest of its own chains: place, record, height.
    own: BTreeMap<ObjectId, (u64, RecordId, u64)>,
    records: Vec<RecordId>,
    statements: Vec<OpId>,
}

impl Hostile {
    /// With the keys that are sealed to it.
    pub fn new(mesh: &Mesh, key: DeviceKey, seal: &SealKey, incarnation: Incarnation) -> Self {
        let mut keyring = Keyring::new();
        let control = mesh.sides[0].replica.control();
        for log in [mesh.mesh.into(), mesh.folder] {
            let _ = control.open_epochs(log, key.device_id(), seal, &mut keyring);
            assert!(control.write_epoch(log, &keyring).is_some(), "the third is a member");
        }
        let rng = SeedRng::new([6; 32]);
        Hostile { key, keyring, incarnation, rng, own: BTreeMap::new(), records: Vec::new(), statements: Vec::new() }
    }

    /// Says something to the first device.
    pub fn speak(&mut self, program: &mut Program<'_>, mesh: &mut Mesh) {
        if !mesh.third_up {
            mesh.third(true);
        }
        let bytes = self.frame(program, mesh);
        mesh.frame(0, 0, bytes);
        if program.once_in(10) {
            mesh.third(false);
        }
    }

    fn frame(&mut self, program: &mut Program<'_>, mesh: &Mesh) -> Vec<u8> {
        let object = match program.below(8) {
            0..=3 => mesh.folder,
            4..=6 => mesh.mesh.into(),
            _ => ObjectId([program.byte(); 32]),
        };
        let frame = match program.below(14) {
            0..=4 => {
                let made = (0..=program.below(3)).filter_map(|_| self.record(program, mesh, object));
                let mut records: Vec<ByteBuf> = made.map(ByteBuf::from).collect();
                if program.once_in(3) {
                    records.reverse();
                }
                Frame::Records { object, records }
            }
            5..=7 => {
                let items = (0..=program.below(3)).map(|_| ByteBuf::from(self.statement(program, mesh, object)));
                Frame::ControlItems { object, items: items.collect(), done: program.once_in(2) }
            }
            8 => Frame::Vector { object, entries: self.entries(program, mesh) },
            9 => Frame::Announce { object, entries: self.entries(program, mesh) },
            10 => {
                let (first, last) = (program.number(), program.number());
                let after = ByteArray::new([program.byte(); 8]);
                let entries = self.entries(program, mesh);
                let ranges = entries.iter().map(|entry| Range { chain: entry.chain, first, last, after }).collect();
                Frame::Want { object, ranges }
            }
            11 => {
                let heads =
                    (0..program.below(4)).map(|_| OpId([program.byte(); 32])).chain(self.statements.last().copied());
                Frame::ControlHave { object, heads: heads.collect() }
            }
            12 => {
                let (control, vector) = (ByteArray::new([program.byte(); 8]), ByteArray::new([program.byte(); 8]));
                let objects = vec![ObjectState { object, control, vector }; program.below(3)];
                if program.once_in(2) { Frame::Offer { objects } } else { Frame::Hello { version: 1, objects } }
            }
            _ if program.once_in(2) => Frame::Served { object },
            _ => return program.part().to_vec(),
        };
        frame.encode()
    }

    fn entries(&self, program: &mut Program<'_>, mesh: &Mesh) -> Vec<VectorEntry> {
        let chains: Vec<ChainId> = mesh.sides[0].kept.records.keys().map(|(chain, _)| *chain).collect();
        let entry = |program: &mut Program<'_>| {
            let chain = program.pick(&chains).copied().filter(|_| !program.once_in(4));
            let seq = program.number();
            VectorEntry {
                chain: chain.unwrap_or(ChainId([program.byte(); 16])),
                seq,
                prefix: ByteArray::new([program.byte(); 8]),
            }
        };
        (0..program.below(5)).map(|_| entry(program)).collect()
    }

    fn statement(&mut self, program: &mut Program<'_>, mesh: &Mesh, object: ObjectId) -> Vec<u8> {
        let control = mesh.sides[0].replica.control();
        let held = control.logs().flat_map(|log| log.entries().iter().map(|entry| entry.id()));
        let ids = mesh.sides.each_ref().map(|side| side.kept.id.into());
        let pool = Pool {
            holders: ids.into_iter().chain([self.key.device_id().into(), mesh.mesh.into()]).collect(),
            operations: held.chain(self.statements.iter().copied()).chain([NO_OP]).collect(),
            records: self.records.clone(),
            objects: vec![mesh.mesh.into(), mesh.folder],
        };
        let act = act(program, &pool);
        let signed = match control.sign(&self.key, object, act.clone()) {
            Ok(signed) if !program.once_in(3) => signed,
            _ => {
                let any = |program: &mut Program<'_>| program.pick(&pool.operations).copied().unwrap_or(NO_OP);
                let (prev, via, dev) = (any(program), any(program), any(program));
                let op = ControlOp { log: object, seq: program.number(), prev, via, dev, act };
                self.key.sign(Kind::ControlOp, codec::encode(&op))
            }
        };
        self.statements.push(OpId(signed.id()));
        signed.to_bytes()
    }

    fn text(&mut self, program: &mut Program<'_>, mesh: &Mesh, object: ObjectId, kind: RecordKind) -> Vec<u8> {
        let replica = &mesh.sides[0].replica;
        match kind {
            RecordKind::Feed if !program.once_in(4) => {
                let feed = replica.folder(mesh.folder).map(|folder| folder.feed());
                let live = feed.into_iter().flat_map(|feed| feed.iter().flatten());
                let seen: Vec<(Key, Dot)> = live.map(|operation| (operation.key.clone(), operation.dot)).collect();
                encode(&feed::operations(program, &seen)).unwrap_or_default()
            }
            RecordKind::Graph if !program.once_in(6) => {
                let actor = GraphActor::new(self.key.device_id(), object, self.incarnation);
                let name = String::from_utf8_lossy(program.take(3)).into_owned();
                let edit = Edit::new().put_device(self.key.device_id(), &Device { name, kind: program.byte() });
                let edit = if program.once_in(2) { edit.remove_object(mesh.folder) } else { edit };
                let mut change = replica.graph().clone().edit(actor, edit).ok().flatten().unwrap_or_default();
                for _ in 0..program.below(3) {
                    let (at, mask) = (program.number() as usize, program.byte());
                    super::flip(&mut change, at, mask);
                    graph::mend(&mut change);
                }
                change
            }
            _ => program.part().to_vec(),
        }
    }

    fn record(&mut self, program: &mut Program<'_>, mesh: &Mesh, object: ObjectId) -> Option<Vec<u8>> {
        let control = mesh.sides[0].replica.control();
        let kinds =
            [RecordKind::Feed, RecordKind::Graph, RecordKind::Join, RecordKind::Checkpoint, RecordKind::Listing];
        let proper = if object == mesh.folder { RecordKind::Feed } else { RecordKind::Graph };
        let kind = if program.once_in(8) { kinds[program.below(5)] } else { proper };
        let text = self.text(program, mesh, object, kind);
        let (seq, prev, below) = self.own.get(&object).copied().unwrap_or((0, RecordId::NONE, 0));
        let (deps, height) = dependencies(program, mesh, object, below);
        let (object_grant, device_grant) = control.grants(object, self.key.device_id()).unwrap_or((NO_OP, NO_OP));
        let heads = control.log(object).map(|log| log.heads()).unwrap_or_default();
        let mut heads: Vec<OpId> = heads.into_iter().take(8).collect();
        if program.once_in(12) || heads.is_empty() {
            heads = vec![OpId([program.byte(); 32])];
        }
        let draft = Draft {
            object,
            kind,
            incarnation: self.incarnation,
            seq: seq + 1,
            prev,
            control: heads,
            object_grant: if program.once_in(12) { OpId([program.byte(); 32]) } else { object_grant },
            device_grant,
            deps,
            height: if program.once_in(12) { program.number() } else { height },
            more: program.once_in(4),
        };
        let epoch = control.write_epoch(object, &self.keyring)?;
        let record = Record::create(&self.key, draft, self.keyring.key(object, epoch)?, &text, &mut self.rng).ok()?;
        self.records.push(record.id());
        if !program.once_in(8) {
            self.own.insert(object, (seq + 1, record.id(), height));
        }
        let mut bytes = record.into_bytes();
        if program.once_in(10) {
            super::flip(&mut bytes, program.number() as usize, program.byte());
        }
        Some(bytes)
    }
}

/// Records that the first device holds, and the height above them.
fn dependencies(program: &mut Program<'_>, mesh: &Mesh, object: ObjectId, below: u64) -> (Vec<Dep>, u64) {
    let stored = mesh.sides[0].kept.log.iter().filter_map(|stored| match stored {
        Stored::Record { object: of, bytes, .. } if *of == object => Some(bytes.clone()),
        _ => None,
    });
    let held: Vec<Vec<u8>> = stored.collect();
    let (mut deps, mut largest) = (Vec::new(), below);
    for _ in 0..program.below(3) {
        let named = program.pick(&held).and_then(|bytes| Verified::trusted(bytes.clone()).ok());
        if let Some(record) = named {
            largest = largest.max(record.header().height);
            deps.push(Dep { chain: record.chain(), seq: record.header().seq, id: record.id() });
        }
    }
    (deps, largest + 1)
}
