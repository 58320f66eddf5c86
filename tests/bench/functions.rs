//! Functions that decide how a large mesh feels: who may do what, and taking in what others wrote.
//!
//! `tests/run bench` runs them first; criterion prints its statistics, and one run of each is printed as a figure.

use std::{
    collections::BTreeMap,
    hint::black_box,
    time::{Duration, Instant},
};

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use meshwork_protocol::{
    codec,
    control::{Act, Claim, Control, ControlOp, NO_OP, Role, create_mesh},
    id::{ChunkId, ContentId, DeviceId, Incarnation, MeshId, ObjectId, OpId},
    key::{DeviceKey, Kind, RootKey, Signed},
    limits,
    seal::SealKey,
    time::Timestamp,
    wire::sync::{self, Frame},
};
use meshwork_replica::{
    feed::{ChunkRef, Manifest, Name},
    folder::{
        self,
        observed::{DirIdentity, Fingerprint, Hashed, Listing, Path, Seen},
    },
    replica::{Identity, Input, Output, Replica, Stored},
};
use rand_chacha::ChaCha8Rng;
use rand_core::SeedableRng;

const NOW: Timestamp = Timestamp(1_700_000_000_000_000);
/// Statements of the largest log that the documents speak of.
const STATEMENTS: usize = 4_096;
/// Admins that share them, for a chain has at most 512.
const ADMINS: usize = 9;
const CHECKS: u32 = 100_000;
const DIRECTORIES: usize = 100;
const FILES_EACH: usize = 1_000;

fn device(number: u32) -> DeviceKey {
    DeviceKey::from_bytes(blake3::hash(&number.to_be_bytes()).as_bytes())
}

/// A mesh whose admins grant, and now and then remove, devices: all of its statements in order.
fn large_log() -> (MeshId, Vec<Signed>) {
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let (root, first) = (RootKey::from_seed(&[1; 64], 0), device(0));
    let seal = SealKey::from_bytes(&[2; 32]);
    let (mesh, mut items) = create_mesh(&mut rng, &root, &first, &seal).expect("a mesh");
    let log = ObjectId::from(mesh);
    let genesis_grant = items.get(1).map(Signed::id).expect("the first grant");
    let operation = |key: &DeviceKey, seq, prev, via, act| {
        key.sign(Kind::ControlOp, codec::encode(&ControlOp { log, seq, prev, via, dev: NO_OP, act }))
    };
    let grant = |number: u32, role| Act::Grant { to: device(number).device_id().into(), role, seen: Vec::new() };
    let (mut seq, mut prev) = (3, OpId(items.last().map(Signed::id).expect("the first epoch")));
    let mut admins = Vec::new();
    for number in 1..=ADMINS as u32 {
        let signed = operation(&first, seq, prev, OpId(genesis_grant), grant(number, Role::Own));
        (seq, prev) = (seq + 1, OpId(signed.id()));
        admins.push((device(number), OpId(signed.id()), 0_u64, NO_OP));
        items.push(signed);
    }
    for number in 0.. {
        if items.len() > STATEMENTS {
            break;
        }
        let (key, via, seq, prev) = &mut admins[number % ADMINS];
        let other = u32::try_from(1_000 + number).expect("few");
        let act = if number % 50 < 49 {
            grant(other, Role::Edit)
        } else {
            let nonce = serde_bytes::ByteArray::new([7; 32]);
            Act::Revoke { to: device(other - 9).device_id().into(), nonce, cuts: Vec::new() }
        };
        *seq += 1;
        let signed = operation(key, *seq, *prev, *via, act);
        *prev = OpId(signed.id());
        items.push(signed);
    }
    (mesh, items)
}

fn control(items: &[Signed]) -> Control {
    let mut control = Control::new();
    for signed in items {
        let _ = control.adopt(signed.clone()).expect("each follows from those before");
    }
    control
}

fn authority(criterion: &mut Criterion) {
    let (mesh, items) = large_log();
    let fresh = control(&items);
    let begin = Instant::now();
    black_box(fresh.devices(mesh));
    println!("FIGURE authority_4096_statements {:.2} ms", begin.elapsed().as_secs_f64() * 1e3);
    let mut group = criterion.benchmark_group("authority");
    group.sample_size(10).warm_up_time(Duration::from_millis(1));
    group.bench_function("evaluation of 4,096 statements", |bencher| {
        bencher.iter_batched(
            || control(&items),
            |control| {
                assert!(control.devices(mesh).len() > 3_000);
                control
            },
            BatchSize::PerIteration,
        );
    });
    group.finish();
    let held = control(&items);
    let (first, log) = (device(0).device_id(), ObjectId::from(mesh));
    let (object_grant, device_grant) = held.grants(log, first).expect("an admin");
    let heads = held.log(log).expect("the log").heads();
    let heads: Vec<OpId> = heads.into_iter().take(limits::RECORD_CONTROL_HEADS).collect();
    let claim = Claim { object: log, device: first, object_grant, device_grant, control: &heads };
    let begin = Instant::now();
    for _ in 0..CHECKS {
        black_box(held.judge(black_box(&claim)).expect("a right").admits(|_| false));
    }
    println!("FIGURE steady_check {:.3} us", begin.elapsed().as_secs_f64() * 1e6 / f64::from(CHECKS));
    criterion.bench_function("steady check of a known chain of grants", |bencher| {
        bencher.iter(|| held.judge(black_box(&claim)).expect("a right").admits(|_| false));
    });
}

fn identity(number: u32, mesh: MeshId) -> Identity {
    let seal = SealKey::from_bytes(blake3::hash(&[number as u8]).as_bytes());
    Identity { device: device(number), seal, incarnation: Incarnation([number as u8; 8]), mesh }
}

/// A replica with a folder of 100,000 files, and what another device of the mesh is sent of it.
struct Source {
    mesh: MeshId,
    welcome: Vec<Signed>,
    folder: ObjectId,
    frames: Vec<Frame>,
}

fn directory(path: &Path) -> DirIdentity {
    let inode = path.first().map_or(1, |name| {
        u64::from_be_bytes(*blake3::hash(name.as_bytes()).as_bytes().first_chunk().expect("32 bytes"))
    });
    DirIdentity { device: 1, inode, born_ns: 0 }
}

fn listing(path: &Path) -> Listing {
    let file =
        |number: usize| Fingerprint { inode: number as u64, size: 1, modified_ns: 1, changed_ns: 1, executable: false };
    let name = |text: String| Name::new(text.as_bytes()).expect("a name");
    let entries = match path.as_slice() {
        [] => (0..DIRECTORIES)
            .map(|n| name(format!("directory {n}")))
            .map(|n| (n.clone(), Seen::Dir(directory(&vec![n]))))
            .collect(),
        _ => (0..FILES_EACH).map(|n| (name(format!("a file with number {n}.txt")), Seen::File(file(n)))).collect(),
    };
    Listing { identity: directory(path), entries }
}

fn hello() -> Frame {
    Frame::Hello { version: sync::VERSION, objects: Vec::new() }
}

/// The reader, right after it was let in, and the statements by which it tells its keys.
fn joined(mesh: MeshId, welcome: Vec<Signed>) -> (Replica, Vec<serde_bytes::ByteBuf>, Vec<Output>) {
    let mut replica = Replica::new(identity(1, mesh));
    let mut outputs = replica.found(welcome).expect("joined");
    let more = replica.publish_keys().expect("its keys");
    let entries = more.iter().filter_map(|output| match output {
        Output::Persist { entries, .. } => Some(entries),
        _ => None,
    });
    let told = entries.flatten().filter_map(|entry| match entry {
        Stored::Control { bytes, .. } => Some(serde_bytes::ByteBuf::from(bytes.clone())),
        Stored::Record { .. } => None,
    });
    let told = told.collect();
    outputs.extend(more);
    (replica, told, outputs)
}

/// What store and disk answer; records are kept.
fn answer(output: Output, records: &mut BTreeMap<(ObjectId, u64), Vec<u8>>) -> Option<Input> {
    match output {
        Output::Persist { ticket, entries } => {
            for entry in entries {
                if let Stored::Record { object, seq, bytes, .. } = entry {
                    records.insert((object, seq), bytes);
                }
            }
            Some(Input::Persisted { ticket, durable: true })
        }
        Output::List(object, paths) => {
            let results = paths.into_iter().map(|path| (path.clone(), Ok(listing(&path)))).collect();
            Some(Input::Folder { object, input: folder::Input::Listed(results) })
        }
        Output::Hash(object, files) => {
            let chunks = vec![ChunkRef { id: ChunkId([1; 32]), len: 1 }];
            let manifest = Manifest::Inline { average_log2: 16, chunks };
            let read = |file: folder::ToHash| {
                let fingerprint = file.fingerprint;
                let content = ContentId(*blake3::hash(format!("{:?}", file.path).as_bytes()).as_bytes());
                (file, Hashed::Content { fingerprint, content, manifest: manifest.clone() })
            };
            Some(Input::Folder { object, input: folder::Input::Hashed(files.into_iter().map(read).collect()) })
        }
        _ => None,
    }
}

fn source() -> Source {
    let mut rng = ChaCha8Rng::seed_from_u64(2);
    let seal = SealKey::from_bytes(blake3::hash(&[0]).as_bytes());
    let (mesh, items) = create_mesh(&mut rng, &RootKey::from_seed(&[3; 64], 0), &device(0), &seal).expect("a mesh");
    let mut replica = Replica::new(identity(0, mesh));
    let mut outputs = replica.found(items).expect("founded");
    outputs.extend(replica.admit(&mut rng, device(1).device_id(), "reader").expect("let in"));
    let (folder, more) = replica.create_folder(&mut rng, "files").expect("a folder");
    outputs.extend(more);
    outputs.extend(replica.map_folder(&mut rng, folder).expect("a place"));
    let welcome = replica.control().log(mesh.into()).expect("the log").missing(&[]);
    let (mut records, mut todo) = (BTreeMap::new(), outputs);
    todo.extend(replica.resume(NOW, &mut rng));
    // The reader tells its seal key, so that it is sealed to.
    let (reader, mesh_log) = (device(1).device_id(), ObjectId::from(mesh));
    let keys = joined(mesh, welcome.clone()).1;
    for frame in [hello(), Frame::ControlItems { object: mesh_log, items: keys, done: false }] {
        if matches!(frame, Frame::Hello { .. }) {
            todo.extend(replica.handle(NOW, &mut rng, Input::PeerUp(reader)));
        }
        todo.extend(replica.handle(NOW, &mut rng, Input::Frame { peer: reader, bytes: frame.encode() }));
    }
    todo.extend(replica.handle(NOW, &mut rng, Input::Folder { object: folder, input: folder::Input::DirtyEverywhere }));
    while let Some(output) = todo.pop() {
        if let Some(input) = answer(output, &mut records) {
            todo.extend(replica.handle(NOW, &mut rng, input));
        }
    }
    let object_log = replica.control().log(folder).expect("its log").missing(&[]);
    let log = |object, items: &[Signed]| Frame::ControlItems {
        object,
        items: items.iter().map(|signed| serde_bytes::ByteBuf::from(signed.to_bytes())).collect(),
        done: true,
    };
    let of =
        |object: ObjectId| records.iter().filter(move |((of, _), _)| *of == object).map(|(_, bytes)| bytes.clone());
    let mut frames = vec![hello()];
    let all = replica.control().log(mesh.into()).expect("the log").missing(&[]);
    frames.push(log(ObjectId::from(mesh), &all));
    let packed = |object, frames: &mut Vec<Frame>| {
        frames.extend(sync::parts(of(object)).into_iter().map(|records| Frame::Records { object, records }));
    };
    packed(mesh.into(), &mut frames);
    frames.push(log(folder, &object_log));
    packed(folder, &mut frames);
    Source { mesh, welcome, folder, frames }
}

/// A cold replica takes in 100,000 entries of a feed: signatures, rights, decryption, the feed itself.
fn cold_apply(criterion: &mut Criterion) {
    let source = source();
    let peer: DeviceId = device(0).device_id();
    let apply = || {
        let mut rng = ChaCha8Rng::seed_from_u64(3);
        let (mut replica, _, mut todo) = joined(source.mesh, source.welcome.clone());
        todo.extend(replica.resume(NOW, &mut rng));
        todo.extend(replica.handle(NOW, &mut rng, Input::PeerUp(peer)));
        for frame in &source.frames {
            let bytes = frame.encode();
            todo.extend(replica.handle(NOW, &mut rng, Input::Frame { peer, bytes }));
            while let Some(output) = todo.pop() {
                if let Output::Persist { ticket, .. } = output {
                    todo.extend(replica.handle(NOW, &mut rng, Input::Persisted { ticket, durable: true }));
                }
            }
        }
        let files = replica.folder(source.folder).map_or(0, |folder| folder.totals().0);
        assert_eq!(files, (DIRECTORIES * FILES_EACH) as u64, "all of it is here");
        replica
    };
    let begin = Instant::now();
    drop(black_box(apply()));
    println!("FIGURE cold_apply_100000_entries {:.2} s", begin.elapsed().as_secs_f64());
    let mut group = criterion.benchmark_group("feed");
    group.sample_size(10).warm_up_time(Duration::from_millis(1)).measurement_time(Duration::from_secs(10));
    group.bench_function("100,000 entries on a cold replica", |bencher| bencher.iter(apply));
    group.finish();
}

criterion_group!(functions, authority, cold_apply);
criterion_main!(functions);
