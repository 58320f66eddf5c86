//! Both ends of a stream of chunks against each other, and against peers that lie, lack things, or stop.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use meshwork_protocol::{id::DeviceId, wire::chunks::FetchItem};
use proptest::prelude::*;
use tokio::io::{AsyncWriteExt, DuplexStream, duplex, split};

use super::*;
use crate::network::{
    frame::read_frame,
    serve::{ChunkSource, OpenContent, ServeError, ServeSlots, Served, serve},
};

const OBJECT: ObjectId = ObjectId([7; 32]);

fn name(bytes: &[u8]) -> ChunkId {
    ChunkId(*blake3::keyed_hash(&[9; 32], blake3::hash(bytes).as_bytes()).as_bytes())
}

fn pattern(seed: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    blake3::Hasher::new().update(&seed.to_be_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

/// Contents in memory, some of which the peer may have wrong.
#[derive(Default, Clone)]
struct Memory {
    contents: BTreeMap<ContentId, Vec<u8>>,
    blobs: BTreeMap<ChunkId, Vec<u8>>,
    lies: bool,
}

impl ChunkSource for Memory {
    fn open(&self, object: &ObjectId, content: &ContentId) -> Option<Box<dyn OpenContent>> {
        let bytes = self.contents.get(content).filter(|_| *object == OBJECT)?;
        Some(Box::new(Open(bytes.clone(), self.lies)))
    }

    fn blob(&self, _: &ObjectId, id: &ChunkId) -> Option<Vec<u8>> {
        self.blobs.get(id).cloned()
    }
}

struct Open(Vec<u8>, bool);

impl OpenContent for Open {
    fn read(&mut self, chunk: &ChunkAt, out: &mut [u8]) -> bool {
        let start = chunk.offset as usize;
        let Some(bytes) = self.0.get(start..start + out.len()) else {
            return false;
        };
        out.copy_from_slice(bytes);
        self.1 || name(out) == chunk.id
    }
}

/// Keeps everything in memory.
#[derive(Default)]
struct Shelf {
    files: BTreeMap<usize, BTreeMap<u64, Vec<u8>>>,
    blobs: Vec<Vec<u8>>,
    complete: Vec<usize>,
    refuse: Option<usize>,
}

impl Landing for Shelf {
    fn chunk(&mut self, file: usize, _: u32, chunk: &ChunkAt, bytes: &[u8]) -> Landed {
        if self.refuse == Some(file) {
            return Landed::Failed("the disk is full".to_owned());
        }
        if name(bytes) != chunk.id {
            return Landed::Wrong;
        }
        self.files.entry(file).or_default().insert(chunk.offset, bytes.to_vec());
        Landed::Kept
    }

    fn blob(&mut self, id: &ChunkId, bytes: &[u8]) -> Landed {
        if name(bytes) != *id {
            return Landed::Wrong;
        }
        self.blobs.push(bytes.to_vec());
        Landed::Kept
    }

    fn complete(&mut self, file: usize) -> Landed {
        self.complete.push(file);
        Landed::Kept
    }
}

fn content(number: usize) -> ContentId {
    let mut id = [0; 32];
    id[..8].copy_from_slice(&(number as u64).to_be_bytes());
    ContentId(id)
}

/// A source with a file for each list of chunk lengths, and the job that asks for all of them.
fn library(files: &[Vec<usize>], blobs: usize) -> (Memory, FetchJob) {
    let mut memory = Memory::default();
    let mut job = FetchJob { object: OBJECT, files: Vec::new(), blobs: Vec::new() };
    for (number, lengths) in files.iter().enumerate() {
        let bytes = pattern(number as u64, lengths.iter().sum());
        let mut offset = 0;
        let mut chunks = Vec::new();
        for (place, len) in (0..).zip(lengths) {
            let id = name(&bytes[offset..offset + len]);
            chunks.push((place, ChunkAt { offset: offset as u64, len: *len as u32, id }));
            offset += len;
        }
        memory.contents.insert(content(number), bytes);
        job.files.push(FetchFile { content: content(number), chunks });
    }
    for blob in 0..blobs {
        let bytes = pattern(1 << 32 | blob as u64, 10 + blob * 100);
        job.blobs.push(name(&bytes));
        memory.blobs.insert(name(&bytes), bytes);
    }
    (memory, job)
}

fn assert_same(memory: &Memory, fetched: &Fetched<Shelf>, file: usize) {
    let landed: Vec<u8> =
        fetched.landing.files.get(&file).into_iter().flat_map(|file| file.values()).flatten().copied().collect();
    assert!(landed == memory.contents[&content(file)], "file {file}");
}

async fn run(memory: Memory, job: FetchJob, shelf: Shelf) -> (Fetched<Shelf>, Result<Served, ServeError>, u64) {
    let (near, far) = duplex(64 << 10);
    let (reader, writer) = split(far);
    let server = tokio::spawn(serve(reader, writer, Arc::new(memory), &|_| Vec::new()));
    let (mut reader, mut writer) = split(near);
    let mut told = 0;
    let fetched = fetch(&mut reader, &mut writer, job, shelf, |bytes| told += bytes).await.unwrap();
    writer.shutdown().await.unwrap();
    drop((reader, writer));
    (fetched, server.await.unwrap(), told)
}

#[tokio::test]
async fn files_of_all_sizes_arrive() {
    let mut files = vec![vec![]; 3];
    files.extend((0..1500).map(|number| vec![1 + number * 7 % 900]));
    files.push(vec![65_536; 300]);
    files.push(vec![5 << 20, 3 << 20, 1]);
    files.push(vec![limits::CHUNK as usize, limits::CHUNK as usize]);
    let (memory, job) = library(&files, 150);
    let (fetched, served, told) = run(memory.clone(), job, Shelf::default()).await;
    fetched.end.as_ref().unwrap();
    assert!(fetched.files.iter().chain(&fetched.blobs).all(|outcome| *outcome == Outcome::Done));
    for file in 0..files.len() {
        assert_same(&memory, &fetched, file);
    }
    assert_eq!(fetched.landing.blobs.len(), 150);
    let mut complete = fetched.landing.complete.clone();
    complete.sort_unstable();
    assert_eq!(complete, (0..files.len()).collect::<Vec<_>>(), "each file completed once");
    let bytes: usize = memory.contents.values().chain(memory.blobs.values()).map(Vec::len).sum();
    assert_eq!((fetched.bytes, told), (bytes as u64, bytes as u64));
    assert_eq!(served.unwrap(), Served { bytes: bytes as u64, acknowledged: bytes as u64 });
}

#[tokio::test]
async fn a_stream_serves_one_job_after_another() {
    let (near, far) = duplex(4096);
    let (reader, writer) = split(far);
    let (memory, job) = library(&[vec![100, 200], vec![70_000]], 1);
    let server = tokio::spawn(serve(reader, writer, Arc::new(memory.clone()), &|_| Vec::new()));
    let (mut reader, mut writer) = split(near);
    for _ in 0..3 {
        let fetched = fetch(&mut reader, &mut writer, job.clone(), Shelf::default(), |_| ()).await.unwrap();
        fetched.end.as_ref().unwrap();
        assert_same(&memory, &fetched, 1);
    }
    drop((reader, writer));
    let served = server.await.unwrap().unwrap();
    assert_eq!((served.bytes, served.acknowledged), (3 * 70_310, 3 * 70_310));
}

#[tokio::test]
async fn foreign_objects_and_lost_contents_are_gone() {
    let (mut memory, job) = library(&[vec![10, 20], vec![30], vec![40]], 2);
    memory.contents.remove(&content(1));
    memory.blobs.remove(&job.blobs[0]);
    let (fetched, ..) = run(memory.clone(), job.clone(), Shelf::default()).await;
    fetched.end.unwrap();
    assert_eq!(fetched.files, [Outcome::Done, Outcome::Gone { missing: vec![0] }, Outcome::Done]);
    assert_eq!(fetched.blobs, [Outcome::Gone { missing: vec![0] }, Outcome::Done]);
    assert_eq!(fetched.landing.complete, [0, 2]);
    let (fetched, ..) = run(memory, FetchJob { object: ObjectId([8; 32]), ..job }, Shelf::default()).await;
    assert_eq!(fetched.files[0], Outcome::Gone { missing: vec![0, 1] });
}

#[tokio::test]
async fn a_changed_file_is_never_sent_as_the_old_one() {
    let (mut memory, job) = library(&[vec![100; 10], vec![50]], 0);
    memory.contents.get_mut(&content(0)).unwrap()[250] ^= 1;
    let (fetched, ..) = run(memory.clone(), job.clone(), Shelf::default()).await;
    assert_eq!(fetched.files, [Outcome::Gone { missing: vec![2] }, Outcome::Done]);
    // A peer that sends it all the same is found out.
    memory.lies = true;
    let (fetched, ..) = run(memory, job, Shelf::default()).await;
    assert_eq!(fetched.files, [Outcome::Bad { number: Some(2) }, Outcome::Done]);
    assert_eq!(fetched.landing.complete, [1]);
    assert_eq!(fetched.bytes, 950);
}

#[tokio::test]
async fn a_full_disk_is_told_apart() {
    let (memory, job) = library(&[vec![100], vec![50, 60]], 0);
    let (fetched, ..) = run(memory, job, Shelf { refuse: Some(1), ..Shelf::default() }).await;
    assert_eq!(fetched.files, [Outcome::Done, Outcome::Failed("the disk is full".to_owned())]);
}

/// What a server sends for `job`, and how many requests it gets.
async fn recorded(memory: Memory, job: &FetchJob) -> Vec<u8> {
    let mut plan = Plan::new(job);
    let (near, far) = duplex(64 << 10);
    let (reader, writer) = split(far);
    let server = tokio::spawn(serve(reader, writer, Arc::new(memory), &|_| Vec::new()));
    let (mut reader, mut writer) = split(near);
    let ask = tokio::spawn(async move {
        while let Some(request) = plan.next_request() {
            write_frame(&mut writer, &request.encode()).await.unwrap();
        }
        writer.shutdown().await.unwrap();
    });
    let mut answers = Vec::new();
    reader.read_to_end(&mut answers).await.unwrap();
    ask.await.unwrap();
    server.await.unwrap().unwrap();
    answers
}

/// A peer that sends `answers`, whatever it is asked, and then closes.
fn replay(answers: Vec<u8>) -> DuplexStream {
    let (near, far) = duplex(1 << 20);
    tokio::spawn(async move {
        let (mut reader, mut writer) = split(far);
        let ignore = tokio::spawn(async move { while let Ok(Some(_)) = read_frame(&mut reader, 1 << 20).await {} });
        let _ = writer.write_all(&answers).await;
        let _ = writer.shutdown().await;
        let _ = ignore.await;
    });
    near
}

#[tokio::test]
async fn a_stream_cut_at_any_byte_keeps_what_came() {
    let (memory, job) = library(&[vec![3, 4], vec![5], vec![6]], 1);
    let answers = recorded(memory, &job).await;
    for cut in 0..=answers.len() {
        let (mut reader, mut writer) = split(replay(answers[..cut].to_vec()));
        let fetched = fetch(&mut reader, &mut writer, job.clone(), Shelf::default(), |_| ()).await.unwrap();
        assert_eq!(fetched.end.is_ok(), cut == answers.len(), "cut at {cut}");
        let landed: usize = fetched.landing.files.values().flat_map(|file| file.values()).map(Vec::len).sum();
        let blobs: usize = fetched.landing.blobs.iter().map(Vec::len).sum();
        assert_eq!(fetched.bytes, (landed + blobs) as u64);
        let done = fetched.files.iter().filter(|outcome| **outcome == Outcome::Done).count();
        assert_eq!(done, fetched.landing.complete.len());
        assert!(fetched.files.iter().all(|outcome| matches!(outcome, Outcome::Done | Outcome::Gone { .. })));
    }
}

#[tokio::test]
async fn a_peer_that_breaks_the_protocol_is_left() {
    let (_, job) = library(&[vec![3, 4], vec![5]], 0);
    let here = |len: u32| ChunkHeader::Here(len).to_bytes().to_vec();
    let hostile = [
        here(2),
        here(u32::MAX),
        ChunkHeader::End.to_bytes().to_vec(),
        vec![9, 0, 0, 0, 0],
        [here(3), vec![0; 3], ChunkHeader::End.to_bytes().to_vec()].concat(),
        [1, 0, 0, 0, 0].repeat(4),
    ];
    for answers in hostile {
        let (mut reader, mut writer) = split(replay(answers.clone()));
        let fetched = fetch(&mut reader, &mut writer, job.clone(), Shelf::default(), |_| ()).await.unwrap();
        assert!(matches!(fetched.end, Err(FetchError::Protocol)), "{answers:?}: {:?}", fetched.end);
        assert!(fetched.landing.files.is_empty());
    }
    let (_, job) = library(&[], 1);
    let (mut reader, mut writer) = split(replay(here(limits::BLOB + 1)));
    let fetched = fetch(&mut reader, &mut writer, job, Shelf::default(), |_| ()).await.unwrap();
    assert!(matches!(fetched.end, Err(FetchError::Protocol)));
}

#[tokio::test]
async fn requests_beyond_the_limits_end_the_stream() {
    let (memory, _) = library(&[], 0);
    let large = ChunkAt { offset: 0, len: limits::CHUNK, id: ChunkId([0; 32]) };
    let items = vec![FetchItem::File { content: content(0), chunks: vec![large; 2] }];
    let too_much = ChunkMessage::Fetch { object: OBJECT, items }.encode();
    for (frame, expected) in
        [(too_much, "too much"), (b"\x00".to_vec(), "malformed"), (vec![0; limits::CHUNK_FRAME + 1], "above its limit")]
    {
        let (near, far) = duplex(1 << 20);
        let (reader, writer) = split(far);
        let server = tokio::spawn(serve(reader, writer, Arc::new(memory.clone()), &|_| Vec::new()));
        let (_reader, mut writer) = split(near);
        write_frame(&mut writer, &frame).await.unwrap();
        let error = server.await.unwrap().unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}

/// Nobody can claim to have received more than was sent.
#[tokio::test]
async fn acknowledgements_are_bounded() {
    let (near, far) = duplex(4096);
    let (reader, writer) = split(far);
    let server = tokio::spawn(serve(reader, writer, Arc::new(Memory::default()), &|_| Vec::new()));
    let (reader, mut writer) = split(near);
    write_frame(&mut writer, &ChunkMessage::Received { bytes: u64::MAX }.encode()).await.unwrap();
    drop((reader, writer));
    assert_eq!(server.await.unwrap().unwrap(), Served::default());
}

#[test]
fn slots_bound_the_streams_of_a_peer() {
    let slots = ServeSlots::default();
    let device = DeviceId([1; 32]);
    let mut held: Vec<_> = (0..limits::CHUNK_STREAMS_PER_PEER).map(|_| slots.enter(device).unwrap()).collect();
    assert!(slots.enter(device).is_none());
    assert!(slots.enter(DeviceId([2; 32])).is_some());
    held.pop();
    assert!(slots.enter(device).is_some());
}

#[test]
fn plans_stay_within_the_limits_of_requests() {
    let files: Vec<_> = (0..2000).map(|number| vec![4_096; number % 9]).chain([vec![1 << 20; 40]]).collect();
    let (_, job) = library(&files, 130);
    let mut plan = Plan::new(&job);
    let mut requests = 0;
    while let Some(request) = plan.next_request() {
        ChunkMessage::decode(&request.encode()).unwrap();
        requests += 1;
    }
    assert!((8..=20).contains(&requests), "{requests}");
    assert!(plan.largest_batch() <= BATCH + ChunkHeader::LEN);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]

    /// Whatever the peer lacks or has wrong, everything else arrives whole and nothing wrong is kept.
    #[test]
    fn any_mixture_arrives(
        files in prop::collection::vec(prop::collection::vec(1..300_000_usize, 0..6), 0..40),
        lost in prop::collection::vec(any::<prop::sample::Index>(), 0..5),
        wrong in prop::collection::vec(any::<prop::sample::Index>(), 0..5),
        lies in any::<bool>(),
    ) {
        let (mut memory, job) = library(&files, 3);
        let whole = memory.clone();
        memory.lies = lies;
        for number in lost.iter().filter(|_| !files.is_empty()).map(|index| index.index(files.len())) {
            memory.contents.remove(&content(number));
        }
        for number in wrong.iter().filter(|_| !files.is_empty()).map(|index| index.index(files.len())) {
            if let Some(byte) = memory.contents.get_mut(&content(number)).and_then(|bytes| bytes.last_mut()) {
                *byte ^= 1;
            }
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let (fetched, served, _) = runtime.block_on(run(memory.clone(), job, Shelf::default()));
        prop_assert!(fetched.end.is_ok());
        prop_assert_eq!(served.unwrap().acknowledged, fetched.bytes);
        for (number, lengths) in files.iter().enumerate() {
            let id = content(number);
            let same = memory.contents.get(&id) == whole.contents.get(&id);
            prop_assert_eq!(fetched.files[number] == Outcome::Done, same || lengths.is_empty());
            if same {
                assert_same(&whole, &fetched, number);
            }
        }
    }
}

/// Two jobs at a time on two streams of one peer; the shelves do not mix.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_are_independent() {
    let (memory, job) = library(&[vec![200_000; 20], vec![1000; 50]], 3);
    let seen = Arc::new(Mutex::new(0));
    let mut both = tokio::task::JoinSet::new();
    for _ in 0..2 {
        let (memory, job, seen) = (memory.clone(), job.clone(), seen.clone());
        both.spawn(async move {
            let (fetched, ..) = run(memory.clone(), job, Shelf::default()).await;
            assert_same(&memory, &fetched, 0);
            assert_same(&memory, &fetched, 1);
            *seen.lock().unwrap() += 1;
        });
    }
    both.join_all().await;
    assert_eq!(*seen.lock().unwrap(), 2);
}
