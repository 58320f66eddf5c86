//! Key epochs in the life of a mesh.

use super::*;
use crate::{
    control::epoch::Minting,
    id::EpochId,
    seal::{Convergence, EpochKey, SealKey},
};

/// A device with all it keeps.
struct Node {
    key: DeviceKey,
    seal: SealKey,
    keyring: Keyring,
}

impl Node {
    fn new(number: u8) -> Self {
        Self { key: device(number), seal: SealKey::from_bytes(&[number; 32]), keyring: Keyring::new() }
    }

    fn id(&self) -> DeviceId {
        self.key.device_id()
    }

    fn open(&mut self, control: &Control, object: ObjectId) -> Vec<EpochId> {
        control.open_epochs(object, self.id(), &self.seal, &mut self.keyring)
    }

    fn publish(&self, control: &mut Control, mesh: ObjectId, generation: u32) {
        act(control, &self.key, mesh, Act::Keys { seal: self.seal.public(), generation });
    }

    fn mint(&self, control: &mut Control, object: ObjectId) {
        let epoch = control.mint_epoch(&mut rng(77), object, &self.keyring).unwrap();
        act(control, &self.key, object, epoch);
    }

    fn supplement(&self, control: &mut Control, object: ObjectId) -> usize {
        let acts = control.supplement(&mut rng(78), object, &self.keyring).unwrap();
        let seals = acts.iter().map(|act| if let Act::Seal { seals, .. } = act { seals.len() } else { 0 }).sum();
        for seal in acts {
            act(control, &self.key, object, seal);
        }
        seals
    }
}

fn act(control: &mut Control, key: &DeviceKey, log: ObjectId, act: Act) -> OpId {
    let signed = control.sign(key, log, act).unwrap();
    let id = OpId(signed.id());
    assert!(matches!(control.insert(signed), Ok(Inserted::Added(_))));
    id
}

fn founded() -> (Control, ObjectId, ObjectId, Node) {
    let mut first = Node::new(1);
    let mut control = Control::new();
    let (mesh, statements) = create_mesh(&mut rng(1), &root(100), &first.key, &first.seal).unwrap();
    for signed in statements {
        assert!(matches!(control.adopt(signed), Ok(Inserted::Added(_))));
    }
    let (object, statements) = control.create_object(&mut rng(2), &first.key, mesh, 1).unwrap();
    for signed in statements {
        assert!(matches!(control.insert(signed), Ok(Inserted::Added(_))));
    }
    assert_eq!(first.open(&control, mesh.into()).len(), 1);
    assert_eq!(first.open(&control, object).len(), 1);
    (control, mesh.into(), object, first)
}

fn enrol(control: &mut Control, mesh: ObjectId, admin: &Node, number: u8) -> Node {
    let newcomer = Node::new(number);
    let seen = control.revocations(mesh, newcomer.id().into());
    act(control, &admin.key, mesh, grant(newcomer.id().into(), Role::Edit, &seen));
    newcomer.publish(control, mesh, 1);
    newcomer
}

#[test]
fn a_founder_can_write_at_once() {
    let (control, mesh, object, first) = founded();
    for log in [mesh, object] {
        let epoch = control.write_epoch(log, &first.keyring).unwrap();
        assert!(first.keyring.key(log, epoch).is_some());
        assert!(first.keyring.convergence(log).is_some());
    }
    assert_eq!(control.grants(object, first.id()).unwrap().0, OpId(object.0));
    assert_eq!(control.grants(mesh, first.id()).unwrap().0, OpId(mesh.0));
    assert!(first.keyring.convergence(mesh) != first.keyring.convergence(object));
}

#[test]
fn a_newcomer_gets_the_keys_and_reads_history() {
    let (mut control, mesh, object, mut first) = founded();
    let old = control.write_epoch(object, &first.keyring).unwrap();
    first.mint(&mut control, object);
    first.open(&control, object);
    let mut second = enrol(&mut control, mesh, &first, 2);
    assert_eq!(second.open(&control, object), []);
    assert_eq!(control.write_epoch(object, &second.keyring), None);
    assert_eq!(control.mint_epoch(&mut rng(3), object, &second.keyring), Err(EpochError::NoSecrets));
    assert_eq!(first.supplement(&mut control, object), 1, "the newest brings the older one along");
    assert_eq!(first.supplement(&mut control, object), 0);
    assert_eq!(second.open(&control, object).len(), 2);
    assert!(second.keyring.key(object, old).is_some());
    assert!(second.keyring.convergence(object) == first.keyring.convergence(object));
    let (one, two) = (control.write_epoch(object, &first.keyring), control.write_epoch(object, &second.keyring));
    assert_eq!(one, two);
    assert_ne!(one, Some(old));
}

#[test]
fn nobody_writes_under_an_epoch_sealed_to_a_removed_device() {
    let (mut control, mesh, object, mut first) = founded();
    let mut second = enrol(&mut control, mesh, &first, 2);
    first.supplement(&mut control, object);
    second.open(&control, object);
    let before = control.write_epoch(object, &second.keyring);
    assert_eq!(before, control.write_epoch(object, &first.keyring));
    let removal = control.revocation(&mut rng(4), second.id(), &BTreeMap::new());
    act(&mut control, &first.key, mesh, removal);
    assert_eq!(control.write_epoch(object, &first.keyring), None);
    assert!(control.write_epoch(mesh, &first.keyring).is_some(), "the second never had the mesh's keys");
    first.mint(&mut control, object);
    first.open(&control, object);
    let after = control.write_epoch(object, &first.keyring).unwrap();
    assert_ne!(Some(after), before);
    assert_eq!(second.open(&control, object), []);
    assert!(second.keyring.key(object, after).is_none());
}

#[test]
fn a_seal_that_does_not_open_is_mended_by_the_next_generation() {
    let (mut control, mesh, object, first) = founded();
    let mut second = enrol(&mut control, mesh, &first, 2);
    first.supplement(&mut control, object);
    second.seal = SealKey::from_bytes(&[99; 32]);
    assert_eq!(second.open(&control, object), [], "sealed to another key");
    second.publish(&mut control, mesh, 2);
    assert_eq!(first.supplement(&mut control, object), 1);
    assert_eq!(second.open(&control, object).len(), 1);
}

#[test]
fn seals_open_for_their_device_object_and_epoch_only() {
    let (mut control, mesh, object, first) = founded();
    let mut other = Node::new(2);
    assert_eq!(other.open(&control, object), []);
    let mut impostor = Node { key: device(1), seal: SealKey::from_bytes(&[3; 32]), keyring: Keyring::new() };
    assert_eq!(impostor.open(&control, object), []);

    let Act::Epoch { id, seals, .. } = control.log(object).unwrap().entries()[0].op().act.clone() else {
        panic!("the first operation of an object is its epoch")
    };
    let (foreign, statements) = control.create_object(&mut rng(9), &first.key, MeshId(mesh.0), 1).unwrap();
    assert!(control.insert(statements[0].clone()).is_ok());
    act(&mut control, &first.key, foreign, Act::Epoch { id, n: 1, parents: vec![], seals });
    let mut thief = Node::new(1);
    assert_eq!(thief.open(&control, foreign), [], "a seal of another object");
}

#[test]
fn concurrent_epochs_meet_again() {
    let (mut control, mesh, object, mut first) = founded();
    let mut second = enrol(&mut control, mesh, &first, 2);
    first.supplement(&mut control, object);
    second.open(&control, object);
    let minted = [&first, &second].map(|node| {
        let epoch = control.mint_epoch(&mut rng(node.key.to_bytes()[0]), object, &node.keyring).unwrap();
        control.sign(&node.key, object, epoch).unwrap()
    });
    for signed in minted {
        assert!(control.insert(signed).is_ok());
    }
    for node in [&mut first, &mut second] {
        assert_eq!(node.open(&control, object).len(), 2);
    }
    let chosen = control.write_epoch(object, &first.keyring);
    assert_eq!(chosen, control.write_epoch(object, &second.keyring));
    first.mint(&mut control, object);
    let Act::Epoch { n, parents, .. } = &control.log(object).unwrap().entries().last().unwrap().op().act else {
        panic!("an epoch was minted")
    };
    assert_eq!((*n, parents.len()), (3, 2));
}

#[test]
fn nobody_writes_under_an_epoch_that_a_newer_one_has_opened_to_a_removed_device() {
    let (mut control, mesh, object, mut first) = founded();
    let remove = |control: &mut Control, first: &Node, node: &Node| {
        let removal = control.revocation(&mut rng(4), node.id(), &BTreeMap::new());
        act(control, &first.key, mesh, removal);
    };
    let second = enrol(&mut control, mesh, &first, 2);
    first.supplement(&mut control, object);
    let older = control.write_epoch(object, &first.keyring).unwrap();
    remove(&mut control, &first, &second);
    first.mint(&mut control, object);
    first.open(&control, object);
    enrol(&mut control, mesh, &first, 2);
    let mut third = enrol(&mut control, mesh, &first, 3);
    first.supplement(&mut control, object);
    third.open(&control, object);
    assert!(third.keyring.key(object, older).is_some(), "the newer epoch brings the older one along");
    remove(&mut control, &first, &third);
    assert_eq!(control.write_epoch(object, &first.keyring), None);
    let minted = control.mint_epoch(&mut rng(79), object, &first.keyring).unwrap();
    act(&mut control, &first.key, object, minted);
    first.open(&control, object);
    let epoch = control.write_epoch(object, &first.keyring).unwrap();
    third.open(&control, object);
    assert!(third.keyring.key(object, epoch).is_none());
}

/// The epoch that an operation of this id mints, by its id.
fn minting_of(control: &Control, object: ObjectId, epoch: EpochId) -> OpId {
    let mints = |entry: &&Entry| matches!(entry.op.act, Act::Epoch { id, .. } if id == epoch);
    control.log(object).unwrap().entries().iter().find(mints).unwrap().id
}

/// Case: a member hands a key to a removed device by an epoch of its own that does not stand.
#[test]
fn what_a_void_epoch_hands_on_is_known_to_be_out() {
    let (mut control, mesh, object, mut first) = founded();
    let (second, third) = (enrol(&mut control, mesh, &first, 2), enrol(&mut control, mesh, &first, 3));
    let old_grant = control.grants(object, second.id()).unwrap().1;
    let outsider = *control.readers(mesh).iter().find(|reader| reader.device == third.id()).unwrap();
    for node in [&second, &third] {
        let removal = control.revocation(&mut rng(4), node.id(), &BTreeMap::new());
        act(&mut control, &first.key, mesh, removal);
    }
    first.mint(&mut control, object);
    first.open(&control, object);
    let mut second = enrol(&mut control, mesh, &first, 2);
    first.supplement(&mut control, object);
    second.open(&control, object);
    let clean = control.write_epoch(object, &first.keyring).unwrap();

    let (key, held) = (EpochKey::from_bytes(&[9; 32]), second.keyring.key(object, clean).unwrap());
    let convergence = second.keyring.convergence(object).unwrap();
    let parent = (minting_of(&control, object, clean), clean, held);
    let minting = Minting { object, n: 3, key: &key, convergence };
    let epoch = minting.act(&mut rng(80), &[outsider], &[parent]).unwrap();
    let signed = control.write(Signer::Device(2), object, None, OpId(object.0), old_grant, epoch);
    let id = OpId(signed.id());
    assert_eq!(control.insert(signed), Ok(Inserted::Added(vec![id])));
    assert_eq!(control.write_epoch(object, &first.keyring), None);
}

/// Case: a member seals the true key with a false secret for chunk ids to a newcomer, before anybody else does.
#[test]
fn the_secret_behind_chunk_ids_is_the_one_of_the_birth() {
    let (mut control, mesh, object, first) = founded();
    let mut third = enrol(&mut control, mesh, &first, 3);
    let newcomer = *control.readers(mesh).iter().find(|reader| reader.device == third.id()).unwrap();
    let epoch = control.write_epoch(object, &first.keyring).unwrap();
    let key = first.keyring.key(object, epoch).unwrap();
    let of_birth = first.keyring.convergence(object).unwrap();
    for (convergence, opens) in [(&Convergence::from_bytes(&[1; 32]), false), (of_birth, true)] {
        let minting = Minting { object, n: 1, key, convergence };
        let Act::Epoch { seals, .. } = minting.act(&mut rng(81), &[newcomer], &[]).unwrap() else { panic!("an epoch") };
        let epoch = minting_of(&control, object, epoch);
        act(&mut control, &first.key, object, Act::Seal { epoch, seals });
        assert_eq!(third.open(&control, object).len(), usize::from(opens));
        assert_eq!(third.keyring.convergence(object).is_some(), opens);
        assert_eq!(control.is_shut_out(object, third.id(), &third.keyring), !opens);
    }
    assert!(third.keyring.convergence(object) == Some(of_birth));
}
