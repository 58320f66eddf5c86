//! Golden bytes of everything that is signed: what is on disks and on the wire must not change by accident.
//!
//! `tests/wire/vectors.json` is written by `MESHWORK_WRITE_VECTORS=1 cargo test -p meshwork-tests --test wire`, and checked
//! by another implementation, out of `docs/protocol.md` alone: `python3 tests/wire/verify.py`.

mod capabilities;

use std::{env, fs, path::PathBuf};

use meshwork_protocol::{
    control::{Act, Control, Keyring, Role, create_mesh},
    id::{Incarnation, MeshId, ObjectId, OpId, RecordId},
    key::{DeviceKey, RootKey, Signed},
    object::{Draft, Record, RecordKind},
    phrase::Phrase,
    seal::{SealKey, SeedRng},
};
use serde_json::{Value, json};

const PHRASE: &str = "abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon about";

/// A mesh with everything in its logs that can be there.
struct Story {
    rng: SeedRng,
    control: Control,
    statements: Vec<(String, Signed)>,
}

impl Story {
    fn say(&mut self, name: &str, signed: Signed) -> OpId {
        let _ = self.control.adopt(signed.clone()).expect("it follows from what was said before");
        self.statements.push((name.to_owned(), signed.clone()));
        OpId(signed.id())
    }

    fn act(&mut self, name: &str, device: &DeviceKey, log: ObjectId, act: Act) -> OpId {
        let signed = self.control.sign(device, log, act).expect("it is permitted");
        self.say(name, signed)
    }
}

fn device(number: u8) -> (DeviceKey, SealKey) {
    (DeviceKey::from_bytes(&[number; 32]), SealKey::from_bytes(&[number + 100; 32]))
}

fn vectors() -> Value {
    let seed = Phrase::parse(PHRASE).expect("a phrase").seed();
    let root = RootKey::from_seed(&seed, 0);
    let ((laptop, laptop_seal), (phone, phone_seal)) = (device(1), device(2));
    let mut rng = SeedRng::new([7; 32]);
    let (mesh, born) = create_mesh(&mut rng, &root, &laptop, &laptop_seal).expect("founded");
    let mut story = Story { rng, control: Control::new(), statements: Vec::new() };
    for (name, signed) in ["mesh genesis", "grant by the root", "keys", "epoch"].iter().zip(born) {
        story.say(name, signed);
    }
    let log = ObjectId::from(mesh);
    let (object, record) = written(&mut story, mesh, &laptop, (&phone, &phone_seal));
    let wrote = Record::decode(record.clone()).expect("it is a record").id();
    leave_and_remove(&mut story, mesh, &laptop, (&phone, object, wrote));
    let other = RootKey::from_seed(&seed, 1).public();
    let rotate = story.control.sign_root(&root, mesh, Act::Rotate { root: other }).expect("the root rotates");
    story.say("rotate", rotate);

    let mut keyring = Keyring::new();
    story.control.open_epochs(object, phone.device_id(), &phone_seal, &mut keyring);
    let epoch = Record::decode(record.clone()).expect("a record").header().epoch;
    let secret = keyring.key(object, epoch).expect("it was sealed to the phone").as_bytes();
    let convergence = keyring.convergence(object).expect("it was sealed with it").as_bytes();
    let statements = story.statements.iter();
    json!({
        "phrase": PHRASE,
        "mesh": mesh.to_string(),
        "log": log.to_string(),
        "object": object.to_string(),
        "convergence": hex(convergence),
        "statements": statements.map(|(name, it)| json!({ "name": name, "hex": hex(&it.to_bytes()) })).collect::<Vec<_>>(),
        "capabilities": capabilities::cases(&story.control, mesh, object),
        "record": { "hex": hex(&record), "epoch_secret": hex(secret), "text": "the text of a record" },
    })
}

/// The phone is let in, an object is made, the phone gets its keys and writes a record.
fn written(
    story: &mut Story,
    mesh: MeshId,
    laptop: &DeviceKey,
    (phone, phone_seal): (&DeviceKey, &SealKey),
) -> (ObjectId, Vec<u8>) {
    let log = ObjectId::from(mesh);
    let to = phone.device_id().into();
    story.act("grant by a device", laptop, log, Act::Grant { to, role: Role::Edit, seen: Vec::new() });
    story.act("keys of the phone", phone, log, Act::Keys { seal: phone_seal.public(), generation: 1 });
    story.act("away", laptop, log, Act::Away { device: phone.device_id() });
    let (object, born) = story.control.create_object(&mut story.rng, laptop, mesh, 1).expect("an object");
    for (name, signed) in ["object genesis", "epoch of the object"].iter().zip(born) {
        story.say(name, signed);
    }
    let mut keyring = Keyring::new();
    story.control.open_epochs(object, phone.device_id(), phone_seal, &mut keyring);
    let epoch = keyring.epochs(object).next().expect("the object's first epoch is sealed to the phone");
    let key = keyring.key(object, epoch).expect("held").clone();
    let (object_grant, device_grant) = story.control.grants(object, phone.device_id()).expect("it may write");
    let heads = story.control.log(object).expect("held").heads();
    let draft = Draft {
        object,
        kind: RecordKind::Feed,
        incarnation: Incarnation([9; 8]),
        seq: 1,
        prev: RecordId::NONE,
        control: heads,
        object_grant,
        device_grant,
        deps: Vec::new(),
        height: 1,
        more: false,
    };
    let record = Record::create(phone, draft, &key, b"the text of a record", &mut story.rng).expect("written");
    (object, record.bytes().to_vec())
}

/// A tablet comes and leaves; the phone is removed, and what it wrote stands.
fn leave_and_remove(
    story: &mut Story,
    mesh: MeshId,
    laptop: &DeviceKey,
    (phone, object, wrote): (&DeviceKey, ObjectId, RecordId),
) {
    let log = ObjectId::from(mesh);
    let (tablet, tablet_seal) = device(3);
    let to = tablet.device_id().into();
    story.act("grant to the tablet", laptop, log, Act::Grant { to, role: Role::Edit, seen: Vec::new() });
    story.act("keys of the tablet", &tablet, log, Act::Keys { seal: tablet_seal.public(), generation: 1 });
    let mut keyring = Keyring::new();
    story.control.open_epochs(log, laptop.device_id(), &device(1).1, &mut keyring);
    let seals = story.control.supplement(&mut story.rng, log, &keyring).expect("sealed");
    for act in seals {
        story.act("seal", laptop, log, act);
    }
    story.act("leave", &tablet, log, Act::Leave {});
    let kept = [(object, vec![wrote])].into();
    let act = story.control.revocation(&mut story.rng, phone.device_id(), &kept);
    story.act("revoke", laptop, log, act);
    assert_eq!(story.control.role(log, phone.device_id()), None);
    assert_eq!(story.control.role(log, laptop.device_id()), Some(Role::Own));
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn what_is_signed_has_not_changed() {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("wire/vectors.json");
    let now = serde_json::to_string_pretty(&vectors()).expect("JSON") + "\n";
    if env::var_os("MESHWORK_WRITE_VECTORS").is_some() {
        fs::write(&path, &now).expect("written");
    }
    let golden = fs::read_to_string(&path).expect("the vectors are in the repository");
    assert!(golden == now, "what is signed has other bytes than the vectors; old devices would refuse it");
}
