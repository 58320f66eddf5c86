//! How a program begins: a mesh of three devices, a folder with some files, and two of them connected.

use std::{collections::BTreeMap, sync::OnceLock};

use meshwork_protocol::{
    control::create_mesh,
    id::{Incarnation, MeshId, ObjectId},
    key::{DeviceKey, RootKey, Signed},
    seal::SealKey,
    time::Timestamp,
    wire::sync::Frame,
};
use meshwork_replica::replica::{Output, Replica, Stored};
use rand_chacha::ChaCha8Rng;
use rand_core::SeedableRng as _;

use super::{
    hostile::Hostile,
    mesh::Mesh,
    side::{Kept, Side},
};
use crate::{
    fuzz::program::Program,
    sim::{
        device::{Rows, Secrets},
        disk::Disk,
    },
};

const START: Timestamp = Timestamp(1_700_000_000_000_000);

struct Scene {
    now: Timestamp,
    mesh: MeshId,
    folder: ObjectId,
    kept: [Kept; 2],
    sent: Vec<Vec<u8>>,
}

fn secrets(number: u8) -> Secrets {
    Secrets { device: [number; 32], seal: [number + 100; 32], incarnation: Incarnation([number; 8]) }
}

fn kept(number: u8) -> Kept {
    let secrets = secrets(number);
    Kept {
        id: DeviceKey::from_bytes(&secrets.device).device_id(),
        secrets,
        rng: ChaCha8Rng::from_seed([number; 32]),
        log: Vec::new(),
        records: BTreeMap::new(),
        rows: Rows::default(),
        disk: Disk::default(),
        mapped: true,
    }
}

/// The devices before anything is exchanged, and what they ask for.
fn founded() -> (Mesh, [Vec<Output>; 2], Vec<Signed>) {
    let [mut one, other, third] = [1, 2, 3].map(kept);
    let (key, seal) = (DeviceKey::from_bytes(&one.secrets.device), SealKey::from_bytes(&one.secrets.seal));
    let (mesh, items) = create_mesh(&mut one.rng, &RootKey::from_seed(&[1; 64], 0), &key, &seal).expect("a mesh");
    let mut first = Replica::new(one.secrets.identity(mesh));
    let mut asks = first.found(items).expect("founded");
    for (device, name) in [(other.id, "other"), (third.id, "third")] {
        asks.extend(first.admit(&mut one.rng, device, name).expect("let in"));
    }
    let (folder, more) = first.create_folder(&mut one.rng, "files").expect("a folder");
    asks.extend(more);
    asks.extend(first.map_folder(&mut one.rng, folder).expect("a place"));
    let welcome = first.control().log(mesh.into()).expect("the mesh has a log").missing(&[]);
    let mut second = Replica::new(other.secrets.identity(mesh));
    let mut answers = second.found(welcome.clone()).expect("welcome");
    answers.extend(second.publish_keys().expect("keys"));
    let sides = [Side::new(one, first), Side::new(other, second)];
    (Mesh::new(START, mesh, folder, sides, third.id), [asks, answers], welcome)
}

/// What the third device says once: its seal key.
fn keys_of_third(mesh: MeshId, welcome: Vec<Signed>) -> Vec<u8> {
    let mut third = Replica::new(secrets(3).identity(mesh));
    let _ = third.found(welcome).expect("welcome");
    let outputs = third.publish_keys().expect("keys");
    let entries = outputs.into_iter().find_map(|output| match output {
        Output::Persist { entries, .. } => Some(entries),
        _ => None,
    });
    let items = entries.into_iter().flatten().flat_map(|entry| match entry {
        Stored::Control { items, .. } => items,
        Stored::Record { .. } | Stored::Retired { .. } => Vec::new(),
    });
    Frame::ControlItems { object: mesh.into(), items: items.collect(), done: false }.encode()
}

fn made() -> Scene {
    let (mut mesh, [asks, answers], welcome) = founded();
    mesh.carry_out(0, asks);
    mesh.carry_out(1, answers);
    // What is not stored yet nobody can be told anything about.
    mesh.heal();
    mesh.third(true);
    mesh.frame(0, 0, keys_of_third(mesh.mesh, welcome));
    mesh.heal();
    let at = &mut mesh.sides[1];
    let outputs = at.replica.map_folder(&mut at.kept.rng, mesh.folder).expect("a place");
    mesh.carry_out(1, outputs);
    for side in 0..2 {
        // A file each, of the same name.
        mesh.sides[side].user(&mut Program::new(&[0, 0, 0, side as u8, 9]));
        mesh.sides[side].user(&mut Program::new(&[0, 1 + side as u8, 0, 7 + side as u8, 9]));
    }
    mesh.heal();
    let Mesh { now, mesh: id, folder, sides, sent, .. } = mesh;
    let [one, other] = sides;
    assert!(one.kept.disk.tree().len() >= 3, "files have come over");
    Scene { now, mesh: id, folder, kept: [one.kept, other.kept], sent }
}

/// The mesh with two devices connected, and the third as it misbehaves.
pub(super) fn scene() -> (Mesh, Hostile) {
    static SCENE: OnceLock<Scene> = OnceLock::new();
    let scene = SCENE.get_or_init(made);
    let sides = scene.kept.clone().map(|kept| Side::restored(kept, scene.mesh, scene.folder));
    let third = DeviceKey::from_bytes(&secrets(3).device);
    let mut mesh = Mesh::new(scene.now, scene.mesh, scene.folder, sides, third.device_id());
    mesh.sent = scene.sent.clone();
    for side in 0..2 {
        let at = &mut mesh.sides[side];
        let outputs = at.replica.resume(scene.now, &mut at.kept.rng);
        mesh.carry_out(side, outputs);
    }
    mesh.connect(true);
    let hostile = Hostile::new(&mesh, third, &SealKey::from_bytes(&secrets(3).seal), secrets(3).incarnation);
    (mesh, hostile)
}
