//! Control logs: signed statements of any content, by any key of a mesh, in any order.

use std::sync::OnceLock;

use meshwork_protocol::{
    codec,
    control::{
        Act, Control, ControlError, ControlOp, Cut, Holder, Inserted, Keyring, NO_OP, Parent, Role, SealedKey,
        create_mesh,
    },
    id::{DeviceId, EpochId, MeshId, ObjectId, OpId, RecordId},
    key::{DeviceKey, Kind, RootKey, Signed},
    limits,
    seal::{SealKey, SealPublic, SeedRng},
};
use serde_bytes::ByteArray;

use super::program::Program;

const DEVICES: usize = 4;
const STATEMENTS: usize = 32;

fn device(number: usize) -> DeviceKey {
    DeviceKey::from_bytes(&[number as u8 + 1; 32])
}

fn root(number: usize) -> RootKey {
    RootKey::from_seed(&[9; 64], number as u32)
}

/// A mesh of four devices and a folder of it.
struct Scene {
    mesh: MeshId,
    folder: ObjectId,
    items: Vec<Signed>,
}

fn scene() -> &'static Scene {
    static SCENE: OnceLock<Scene> = OnceLock::new();
    SCENE.get_or_init(|| {
        let mut rng = SeedRng::new([1; 32]);
        let (first, seal) = (device(0), SealKey::from_bytes(&[8; 32]));
        let (mesh, mut items) = create_mesh(&mut rng, &root(0), &first, &seal).expect("a mesh");
        let mut control = held(&items);
        for number in 1..DEVICES {
            let (to, role) = (device(number).device_id().into(), [Role::Own, Role::Own, Role::Edit][number - 1]);
            let grant = control.sign(&first, mesh.into(), Act::Grant { to, role, seen: Vec::new() }).expect("a grant");
            let _ = control.adopt(grant.clone()).expect("held");
            items.push(grant);
        }
        let (folder, born) = control.create_object(&mut rng, &first, mesh, 1).expect("a folder");
        items.extend(born);
        Scene { mesh, folder, items }
    })
}

fn held(items: &[Signed]) -> Control {
    let mut control = Control::new();
    for signed in items {
        let _ = control.adopt(signed.clone()).expect("an honest statement");
    }
    control
}

/// What an act may speak of.
pub(super) struct Pool {
    /// Devices and persons.
    pub holders: Vec<Holder>,
    /// Operations of all logs, held or not.
    pub operations: Vec<OpId>,
    /// Records.
    pub records: Vec<RecordId>,
    /// Objects, the mesh among them.
    pub objects: Vec<ObjectId>,
}

impl Pool {
    fn operation(&self, program: &mut Program<'_>) -> OpId {
        self.operations.get(program.below(self.operations.len())).copied().unwrap_or(NO_OP)
    }

    fn holder(&self, program: &mut Program<'_>) -> Holder {
        self.holders.get(program.below(self.holders.len())).copied().unwrap_or(Holder([1; 32]))
    }
}

fn rising<T: Ord>(mut items: Vec<T>, program: &mut Program<'_>) -> Vec<T> {
    if !program.once_in(16) {
        items.sort_unstable();
        items.dedup();
    }
    items
}

fn seals(program: &mut Program<'_>, pool: &Pool) -> Vec<SealedKey> {
    let mut seals: Vec<SealedKey> = (0..program.below(4))
        .map(|_| SealedKey {
            device: pool.holder(program).into(),
            generation: program.below(3) as u32,
            sealed: ByteArray::new([program.byte(); 112]),
        })
        .collect();
    if !program.once_in(8) {
        seals.sort_unstable_by_key(|seal| seal.device);
        seals.dedup_by_key(|seal| seal.device);
    }
    seals
}

fn cuts(program: &mut Program<'_>, pool: &Pool, nonce: &[u8; 32]) -> Vec<Cut> {
    let cut = |program: &mut Program<'_>| {
        let object = program.pick(&pool.objects).copied().unwrap_or(ObjectId([1; 32]));
        let operations = (0..program.below(4)).map(|_| pool.operation(program)).collect();
        let records = (0..program.below(3)).filter_map(|_| program.pick(&pool.records).copied()).collect();
        let (operations, records) = (rising(operations, program), rising(records, program));
        Cut { row: ByteArray::new(Cut::row(nonce, object)), operations, records }
    };
    let mut cuts: Vec<Cut> = (0..program.below(4)).map(|_| cut(program)).collect();
    cuts.sort_unstable_by_key(|cut| *cut.row);
    cuts.dedup_by_key(|cut| *cut.row);
    cuts
}

/// Any act on what the pool has.
pub(super) fn act(program: &mut Program<'_>, pool: &Pool) -> Act {
    match program.below(11) {
        0..=2 => {
            let role = [Role::Read, Role::Edit, Role::Invite, Role::Own][program.below(4)];
            let seen = (0..program.below(3)).map(|_| pool.operation(program)).collect();
            Act::Grant { to: pool.holder(program), role, seen: rising(seen, program) }
        }
        3..=5 => {
            let (to, nonce) = (pool.holder(program), [program.byte(); 32]);
            Act::Revoke { to, nonce: ByteArray::new(nonce), cuts: cuts(program, pool, &nonce) }
        }
        6 => Act::Leave {},
        7 => Act::Rotate { root: root(program.below(3)).public() },
        8 => {
            let parent = |program: &mut Program<'_>| Parent {
                epoch: pool.operation(program),
                wrapped: ByteArray::new([program.byte(); 72]),
            };
            let mut parents: Vec<Parent> = (0..program.below(3)).map(|_| parent(program)).collect();
            parents.sort_unstable_by_key(|parent| parent.epoch);
            let (id, n) = (EpochId([program.byte(); 16]), program.number() as u32);
            Act::Epoch { id, n, parents, seals: seals(program, pool) }
        }
        9 => Act::Seal { epoch: pool.operation(program), seals: seals(program, pool) },
        _ if program.once_in(2) => Act::Away { device: pool.holder(program).into() },
        _ => Act::Keys { seal: SealPublic([program.byte(); 32]), generation: program.number() as u32 },
    }
}

/// A statement by one of the keys, mostly one that follows its author's last and relies on a grant of his.
fn statement(program: &mut Program<'_>, control: &Control, pool: &Pool) -> Signed {
    let scene = scene();
    let log = if program.once_in(3) { scene.folder } else { scene.mesh.into() };
    let author = program.below(DEVICES + 2);
    let (key, apex) = (device(author), root(author.saturating_sub(DEVICES)));
    let act = act(program, pool);
    let proper = match author < DEVICES {
        true => control.sign(&key, log, act.clone()),
        false => control.sign_root(&apex, scene.mesh, act.clone()),
    };
    if let (Ok(signed), false) = (proper, program.once_in(4)) {
        return signed;
    }
    let prev = if program.once_in(3) { NO_OP } else { pool.operation(program) };
    let seq = if prev == NO_OP { 1 } else { program.number() };
    let dev = if log == scene.folder { pool.operation(program) } else { NO_OP };
    let via = if program.once_in(4) { OpId(log.0) } else { pool.operation(program) };
    let body = codec::encode(&ControlOp { log, seq, prev, via, dev, act });
    if author < DEVICES { key.sign(Kind::ControlOp, body) } else { apex.sign(Kind::ControlOp, body) }
}

/// What replicas must agree on of one log: heads, members, and which statements stand.
type Verdict = (ObjectId, Vec<OpId>, Vec<(DeviceId, Role)>, Vec<(OpId, bool)>);

fn verdict(control: &Control) -> Vec<Verdict> {
    let of = |log: ObjectId| {
        let mut heads = control.log(log).map(|log| log.heads()).unwrap_or_default();
        heads.sort_unstable();
        let members = control.members(log).map(|(device, member)| (device, member.role)).collect();
        let mut standing: Vec<(OpId, bool)> = control.history(log).iter().map(|it| (it.id, it.stands)).collect();
        standing.sort_unstable();
        (log, heads, members, standing)
    };
    control.logs().map(|log| of(log.id())).collect()
}

/// Statements in the order of their making and in reverse: both hold the same in the end.
pub(super) fn run(bytes: &[u8]) -> bool {
    let (mut program, scene) = (Program::new(bytes), scene());
    let mut control = held(&scene.items);
    let mut pool = Pool {
        holders: (0..DEVICES + 1).map(|number| device(number).device_id().into()).chain([scene.mesh.into()]).collect(),
        operations: scene.items.iter().map(|signed| OpId(signed.id())).chain([NO_OP, OpId([3; 32])]).collect(),
        records: vec![RecordId([1; 32]), RecordId([2; 32])],
        objects: vec![scene.mesh.into(), scene.folder],
    };
    let (mut all, mut added) = (Vec::new(), 0);
    while !program.is_over() && all.len() < STATEMENTS {
        let signed = statement(&mut program, &control, &pool);
        pool.operations.push(OpId(signed.id()));
        let before = control.logs().map(|log| log.len()).sum::<usize>();
        let result = control.insert(signed.clone());
        let after = control.logs().map(|log| log.len()).sum::<usize>();
        match result {
            Ok(Inserted::Added(ids)) => {
                assert_eq!(after, before + ids.len(), "as many as it says");
                added += ids.len();
            }
            Ok(Inserted::Duplicate | Inserted::Waiting(_)) | Err(_) => assert_eq!(after, before, "nothing came of it"),
        }
        all.push(signed);
    }
    assert!(control.waiting() <= limits::PENDING_PER_LOG * control.logs().count(), "too many wait");
    let mut other = held(&scene.items);
    for signed in all.iter().rev() {
        assert!(!matches!(other.insert(signed.clone()), Err(ControlError::UnknownLog(_))), "both logs are here");
    }
    assert_eq!(verdict(&control), verdict(&other), "the order decides");
    let mut keyring = Keyring::new();
    for log in [scene.mesh.into(), scene.folder] {
        let _ = control.open_epochs(log, device(0).device_id(), &SealKey::from_bytes(&[8; 32]), &mut keyring);
        assert!(keyring.convergence(log).is_some(), "what was sealed opens");
    }
    added > 0
}

pub(super) fn seeds() -> Vec<Vec<u8>> {
    (0..16).map(|seed: u8| super::mutate::bytes(seed, 60 + usize::from(seed) * 20)).collect()
}
