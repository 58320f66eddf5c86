//! Measurements, to be run by hand on a quiet machine:
//! `cargo test --release -p meshwork --lib network::measure -- --ignored --nocapture --test-threads 1`.

use std::{
    fs::File,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Instant,
};

use meshwork_protocol::{
    id::{ChunkId, ContentId, DeviceId, ObjectId},
    wire::chunks::ChunkAt,
};
use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, split},
    net::{TcpListener, TcpStream},
};

use super::{
    bulk::{BulkChannel, BulkListener, connect, take_up},
    fetch::{FetchFile, FetchJob, Landed, Landing, Outcome, fetch},
    serve::{ChunkSource, OpenContent, serve},
};

const GIB: usize = 1 << 30;
const LOCALHOST: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// Seconds of processor time of this process so far.
fn cpu() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<f64> = stat.rsplit(')').next().unwrap().split(' ').filter_map(|field| field.parse().ok()).collect();
    (fields[10] + fields[11]) / 100.0
}

/// Resident memory in KiB, now and at its highest.
fn memory() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = |name| status.lines().find(|line| line.starts_with(name)).unwrap_or_default().to_owned();
    format!("{} {}", line("VmHWM"), line("VmRSS"))
}

async fn measured<T>(name: &str, bytes: usize, work: impl Future<Output = T>) -> T {
    let (start, before) = (Instant::now(), cpu());
    let result = work.await;
    let (gib, seconds) = (bytes as f64 / GIB as f64, start.elapsed().as_secs_f64());
    let cost = (cpu() - before) / gib;
    println!("{name}: {cost:.2} CPU s/GiB both ends, {:.0} MiB/s, {}", gib * 1024.0 / seconds, memory());
    result
}

async fn tcp_pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind(SocketAddr::new(LOCALHOST, 0)).await.unwrap();
    let (near, far) = tokio::join!(TcpStream::connect(listener.local_addr().unwrap()), listener.accept());
    (near.unwrap(), far.unwrap().0)
}

async fn pump<S>(name: &str, near: S, far: S)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let total = 2 * GIB;
    measured(name, total, async {
        let send = tokio::spawn(async move {
            let mut near = near;
            let block = vec![0x5a; 1 << 20];
            for _ in 0..total / block.len() {
                near.write_all(&block).await.unwrap();
            }
            near.shutdown().await.unwrap();
            near
        });
        let receive = tokio::spawn(async move {
            let mut far = far;
            let (mut block, mut received) = (vec![0; 1 << 20], 0);
            loop {
                match far.read(&mut block).await.unwrap() {
                    0 => return received,
                    len => received += len,
                }
            }
        });
        assert_eq!(receive.await.unwrap(), total);
        send.await.unwrap();
    })
    .await;
}

async fn bulk_pair(aes: bool) -> (BulkChannel<TcpStream>, BulkChannel<TcpStream>) {
    let listener = BulkListener::bind(SocketAddr::new(LOCALHOST, 0)).await.unwrap();
    let (offerer, dialler) = (DeviceId([1; 32]), DeviceId([2; 32]));
    let mut rng = ChaCha20Rng::seed_from_u64(1);
    let (mut offer, pending) = listener.offer(offerer, dialler, &[LOCALHOST], &mut rng).unwrap();
    offer.aes &= aes;
    let stream = connect(&offer).await.unwrap();
    let (near, far) = tokio::join!(take_up(stream, &offer, offerer, dialler), pending.connected());
    (near.unwrap(), far.unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn channels() {
    for _ in 0..2 {
        let (near, far) = tcp_pair().await;
        pump("raw TCP", near, far).await;
        let (near, far) = bulk_pair(true).await;
        pump("bulk, AES-GCM", near, far).await;
        let (near, far) = bulk_pair(false).await;
        pump("bulk, ChaCha20-Poly1305", near, far).await;
    }
}

struct Files(PathBuf);

impl ChunkSource for Files {
    fn open(&self, _: &ObjectId, content: &ContentId) -> Option<Box<dyn OpenContent>> {
        Some(Box::new(Open(File::open(self.0.join(content.to_string())).ok()?)))
    }

    fn blob(&self, _: &ObjectId, _: &ChunkId) -> Option<Vec<u8>> {
        None
    }
}

struct Open(File);

impl OpenContent for Open {
    fn read(&mut self, chunk: &ChunkAt, out: &mut [u8]) -> bool {
        self.0.read_exact_at(out, chunk.offset).is_ok() && name(out) == chunk.id
    }
}

struct Target {
    dir: PathBuf,
    job: FetchJob,
    open: Option<(usize, File)>,
}

impl Landing for Target {
    fn chunk(&mut self, file: usize, _: u32, chunk: &ChunkAt, bytes: &[u8]) -> Landed {
        if name(bytes) != chunk.id {
            return Landed::Wrong;
        }
        if self.open.as_ref().is_none_or(|(open, _)| *open != file) {
            let path = self.dir.join(self.job.files[file].content.to_string());
            self.open = Some((file, File::create(path).unwrap()));
        }
        let (_, target) = self.open.as_ref().unwrap();
        target.write_all_at(bytes, chunk.offset).unwrap();
        Landed::Kept
    }

    fn blob(&mut self, _: &ChunkId, _: &[u8]) -> Landed {
        Landed::Wrong
    }

    fn complete(&mut self, _: usize) -> Landed {
        Landed::Kept
    }
}

fn name(bytes: &[u8]) -> ChunkId {
    ChunkId(*blake3::keyed_hash(&[9; 32], blake3::hash(bytes).as_bytes()).as_bytes())
}

/// Writes files of `size` bytes each, cut into chunks of `chunk` bytes, and gives the job that asks for them.
fn library(dir: &Path, files: usize, size: usize, chunk: usize) -> FetchJob {
    let mut job = FetchJob { object: ObjectId([0; 32]), files: Vec::new(), blobs: Vec::new() };
    for number in 0..files {
        let content = ContentId(*blake3::hash(&number.to_be_bytes()).as_bytes());
        let mut random = blake3::Hasher::new().update(&content.0).finalize_xof();
        let file = File::create(dir.join(content.to_string())).unwrap();
        let mut chunks = Vec::new();
        for offset in (0..size).step_by(chunk) {
            let mut bytes = vec![0; chunk.min(size - offset)];
            random.fill(&mut bytes);
            file.write_all_at(&bytes, offset as u64).unwrap();
            let at = ChunkAt { offset: offset as u64, len: bytes.len() as u32, id: name(&bytes) };
            chunks.push(((offset / chunk) as u32, at));
        }
        job.files.push(FetchFile { content, chunks });
    }
    job
}

async fn transfer<S>(title: &str, near: S, far: S, (from, to): (&Path, &Path), job: FetchJob)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let bytes = job.files.iter().flat_map(|file| &file.chunks).map(|(_, chunk)| chunk.len as usize).sum();
    let source = Arc::new(Files(from.to_owned()));
    measured(title, bytes, async {
        let (reader, writer) = split(far);
        let server = tokio::spawn(serve(reader, writer, source, &|_| Vec::new()));
        let target = Target { dir: to.to_owned(), job: job.clone(), open: None };
        let (mut reader, mut writer) = split(near);
        let fetched = tokio::spawn(async move {
            let fetched = fetch(&mut reader, &mut writer, job, target, |_| ()).await.unwrap();
            drop((reader, writer));
            fetched
        });
        let fetched = fetched.await.unwrap();
        fetched.end.unwrap();
        assert!(fetched.files.iter().all(|outcome| *outcome == Outcome::Done));
        assert_eq!(fetched.bytes, bytes as u64);
        let _ = server.await.unwrap();
    })
    .await;
}

/// What hashing and the file system cost by themselves, to be taken off the figures of `transfers`.
#[tokio::test]
#[ignore = "a measurement"]
async fn parts() {
    let here = tempfile::tempdir_in(std::env::current_dir().unwrap()).unwrap();
    let mut block = vec![0x5a; 128 << 10];
    let file = File::options().read(true).write(true).create(true).truncate(true).open(here.path().join("f")).unwrap();
    let offsets = || (0..GIB as u64).step_by(128 << 10);
    measured("hashing", GIB, async { offsets().for_each(|_| _ = std::hint::black_box(name(&block))) }).await;
    measured("writing", GIB, async { offsets().for_each(|at| file.write_all_at(&block, at).unwrap()) }).await;
    measured("reading", GIB, async { offsets().for_each(|at| file.read_exact_at(&mut block, at).unwrap()) }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn transfers() {
    let here = tempfile::tempdir_in(std::env::current_dir().unwrap()).unwrap();
    for (files, size, chunk) in [(1, GIB, 128 << 10), (1, GIB, 4 << 20), (20_000, 4 << 10, 64 << 10)] {
        let from = here.path().join("from");
        std::fs::create_dir(&from).unwrap();
        let job = library(&from, files, size, chunk);
        let title = format!("{files} files of {} KiB in chunks of {} KiB", size >> 10, chunk >> 10);
        // One target for all runs, written over: the first run also pays for new files and fresh memory.
        let to = here.path().join("to");
        std::fs::create_dir(&to).unwrap();
        for _ in 0..3 {
            let (near, far) = tcp_pair().await;
            transfer(&format!("{title}, raw TCP"), near, far, (&from, &to), job.clone()).await;
            let (near, far) = bulk_pair(true).await;
            transfer(&format!("{title}, bulk"), near, far, (&from, &to), job.clone()).await;
        }
        std::fs::remove_dir_all(&to).unwrap();
        std::fs::remove_dir_all(&from).unwrap();
    }
}
