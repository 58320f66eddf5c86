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
    id::{ChainId, ChunkId, ContentId, DeviceId, Incarnation, MeshId, ObjectId, OpId, RecordId},
    key::{DeviceKey, Kind, RootKey, Signed},
    limits,
    object::{Draft, Record, RecordKind},
    seal::{EpochKey, SealKey},
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
use rand_core::{Rng, SeedableRng};

const NOW: Timestamp = Timestamp(1_700_000_000_000_000);
/// Statements of the largest log that the documents speak of.
const STATEMENTS: usize = 4_096;
/// Admins that share them, for a chain has at most 512.
const ADMINS: usize = 9;
const CHECKS: u32 = 100_000;
const DIRECTORIES: usize = 100;
const FILES_EACH: usize = 1_000;
const FLOOD_FRAMES: usize = 40_000;
/// Bytes of text of a record in a flood.
const FLOOD_TEXT: usize = 12_000;

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

/// A mesh with a folder of some directories of 1,000 files, and what another device of it is sent of that.
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

fn listing(path: &Path, directories: usize) -> Listing {
    let file =
        |number: usize| Fingerprint { inode: number as u64, size: 1, modified_ns: 1, changed_ns: 1, executable: false };
    let name = |text: String| Name::new(text.as_bytes()).expect("a name");
    let entries = match path.as_slice() {
        [] => (0..directories)
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
    let told = entries.flatten().flat_map(|entry| match entry {
        Stored::Control { items, .. } => items.clone(),
        Stored::Record { .. } | Stored::Retired { .. } => Vec::new(),
    });
    let told = told.collect();
    outputs.extend(more);
    (replica, told, outputs)
}

/// What store and disk answer; records are kept.
fn answer(output: Output, records: &mut BTreeMap<(ObjectId, u64), Vec<u8>>, directories: usize) -> Option<Input> {
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
            let results = paths.into_iter().map(|path| (path.clone(), Ok(listing(&path, directories)))).collect();
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

/// Store and disk answer until nothing more is asked.
fn settle(
    replica: &mut Replica,
    rng: &mut ChaCha8Rng,
    todo: &mut Vec<Output>,
    records: &mut BTreeMap<(ObjectId, u64), Vec<u8>>,
    directories: usize,
) {
    while let Some(output) = todo.pop() {
        if let Some(input) = answer(output, records, directories) {
            todo.extend(replica.handle(NOW, rng, input));
        }
    }
}

fn source(directories: usize) -> Source {
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
    settle(&mut replica, &mut rng, &mut todo, &mut records, directories);
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
    settle(&mut replica, &mut rng, &mut todo, &mut records, directories);
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
    let source = source(DIRECTORIES);
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

/// Bytes of memory that this process has in use.
fn resident() -> i64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("on Linux");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("the line");
    line.trim().trim_end_matches(" kB").trim().parse::<i64>().expect("a number") * 1_024
}

/// What a member of the mesh sends to fill the memory of another: all of it rightly signed.
struct Flood {
    rng: ChaCha8Rng,
    folder: ObjectId,
    control: Vec<OpId>,
    grants: (OpId, OpId),
    epoch: EpochKey,
}

impl Flood {
    fn new(source: &Source, replica: &Replica) -> Self {
        let control = replica.control().log(source.folder).expect("its log").heads();
        let grants = replica.control().grants(source.folder, device(0).device_id()).expect("a member");
        let mut rng = ChaCha8Rng::seed_from_u64(4);
        let epoch = EpochKey::generate(&mut rng);
        Flood { rng, folder: source.folder, control, grants, epoch }
    }

    fn bytes<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        self.rng.fill_bytes(&mut bytes);
        bytes
    }

    /// A record of another chain each time, or one more at the same place.
    fn record(&mut self, seq: u64, prev: RecordId, incarnation: Incarnation) -> Vec<u8> {
        let draft = Draft {
            object: self.folder,
            kind: RecordKind::Feed,
            incarnation,
            seq,
            prev,
            control: self.control.clone(),
            object_grant: self.grants.0,
            device_grant: self.grants.1,
            deps: Vec::new(),
            height: seq,
            more: false,
        };
        let text = vec![0; FLOOD_TEXT];
        Record::create(&device(0), draft, &self.epoch, &text, &mut self.rng).expect("a record").into_bytes()
    }

    /// A statement that waits for one that there is not.
    fn statement(&mut self) -> Vec<u8> {
        let act = Act::Grant { to: DeviceId(self.bytes()).into(), role: Role::Read, seen: Vec::new() };
        let (prev, via, dev) = (OpId(self.bytes()), self.grants.0, self.grants.1);
        let operation = ControlOp { log: self.folder, seq: 7, prev, via, dev, act };
        device(0).sign(Kind::ControlOp, codec::encode(&operation)).to_bytes()
    }

    fn frame(&mut self, number: usize) -> Frame {
        let (object, one) = (self.folder, |bytes| vec![serde_bytes::ByteBuf::from(bytes)]);
        match number % 4 {
            0 => {
                let (prev, incarnation) = (RecordId(self.bytes()), Incarnation(self.bytes()));
                Frame::Records { object, records: one(self.record(2, prev, incarnation)) }
            }
            1 => Frame::Records { object, records: one(self.record(1, RecordId::NONE, Incarnation([9; 8]))) },
            2 => Frame::ControlItems { object, items: one(self.statement()), done: false },
            _ => {
                let entry = |flood: &mut Self| {
                    let prefix = serde_bytes::ByteArray::new(flood.bytes());
                    sync::VectorEntry { chain: ChainId(flood.bytes()), seq: u64::MAX, prefix }
                };
                Frame::Announce { object, entries: (0..256).map(|_| entry(self)).collect() }
            }
        }
    }
}

/// Run before the others, which leave much memory to be used again. How much a replica grows while a member floods it with what has to wait, with twins and with claims.
fn hostile_growth(_: &mut Criterion) {
    let source = source(1);
    let peer: DeviceId = device(0).device_id();
    let mut rng = ChaCha8Rng::seed_from_u64(5);
    let (mut replica, _, mut todo) = joined(source.mesh, source.welcome.clone());
    todo.extend(replica.resume(NOW, &mut rng));
    todo.extend(replica.handle(NOW, &mut rng, Input::PeerUp(peer)));
    let mut take = |replica: &mut Replica, frame: &Frame| {
        let mut todo = replica.handle(NOW, &mut rng, Input::Frame { peer, bytes: frame.encode() });
        while let Some(output) = todo.pop() {
            if let Output::Persist { ticket, .. } = output {
                todo.extend(replica.handle(NOW, &mut rng, Input::Persisted { ticket, durable: true }));
            }
        }
    };
    source.frames.iter().for_each(|frame| take(&mut replica, frame));
    let mut flood = Flood::new(&source, &replica);
    let (before, mut sent, mut most) = (resident(), 0, 0);
    for number in 0..FLOOD_FRAMES {
        let frame = flood.frame(number);
        sent += frame.encode().len();
        take(&mut replica, &frame);
        most = resident().max(most);
    }
    let waiting = replica.intake(source.folder).map_or(0, |intake| intake.pending().len());
    let branches = replica.intake(source.folder).map_or(0, |intake| intake.chains().branches().count());
    assert!(waiting > 0 && waiting <= limits::PENDING_RECORDS && branches == limits::BRANCHES);
    println!("FIGURE hostile_sent {} MiB", sent >> 20);
    println!("FIGURE hostile_growth {:.1} MiB", (most - before) as f64 / f64::from(1 << 20));
}

criterion_group!(functions, hostile_growth, authority, cold_apply);
criterion_main!(functions);
