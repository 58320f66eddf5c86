//! Bytes of files: fetching what the replica wants from a peer, and serving what a peer asks for. The
//! bytes go between a stream and the disk; the loop sees only the beginning and the end.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use meshwork_host::swarm::{NetworkHandle, Stream};
use meshwork_protocol::{
    codec,
    id::{ChunkId, ContentId, DeviceId, ObjectId},
    seal::Convergence,
    wire::{self, chunks::ChunkAt},
};
use meshwork_replica::{
    feed::{ChunkRef, FileKind, FileValue, Manifest},
    folder::observed::Path,
    transfer::Outcome,
};
use tokio::{
    io::AsyncWriteExt,
    sync::{mpsc, oneshot},
};

use super::{
    Driver, Event,
    bulk::{Bulk, Duplex},
    folders::Shelf,
};
use crate::{
    disk::{
        blobs::BlobStore,
        chunk::{page_entries, root_entries},
        read::Source,
        root::FolderRoot,
        temp::{Incoming, IncomingError},
    },
    network::{
        fetch::{self, FetchFile, FetchJob, Landed, Landing, fetch},
        serve::{ChunkSource, Offering, OpenContent, serve},
    },
};

/// Where a content is that a device may have.
pub(crate) enum Located {
    /// At this path.
    At(Path),
    /// At none; it may be in history.
    NotCurrent,
}

impl Driver {
    /// Where in a folder on this disk a content is; nothing for a device with which the folder is not shared.
    pub(super) fn locate(&self, device: DeviceId, object: ObjectId, content: ContentId) -> Option<Located> {
        let replica = self.replica.as_ref().filter(|replica| replica.shares_with(object, device))?;
        let base = replica.folder(object)?.base()?;
        let current = || {
            let (dir, name) = base.locate(content)?;
            let view = base.map().view();
            let mut path = view.path_of(view.node_of(dir)?);
            path.push(name);
            Some(path)
        };
        Some(current().map_or(Located::NotCurrent, Located::At))
    }

    pub(super) fn serve_chunks(&mut self, device: DeviceId, stream: Stream) {
        let allowed = self.replica.as_ref().is_some_and(|replica| replica.peers().contains(&device));
        let Some(slot) = allowed.then(|| self.serve_slots.enter(device)).flatten() else {
            return;
        };
        let (events, blobs) = (self.events.clone(), self.blobs.clone());
        let mut shelves = self.folders.shelves();
        shelves.retain(|object, _| self.replica.as_ref().is_some_and(|replica| replica.shares_with(*object, device)));
        let library: Arc<dyn ChunkSource> = Arc::new(Library { device, events, blobs, shelves });
        let (bulk, listening, slot) = (self.bulk.clone(), self.listening.clone(), Arc::new(slot));
        let beside = library.clone();
        let offering = move |splice| {
            let Some((offer, connection)) = bulk.offer(device, &listening, splice) else { return Vec::new() };
            let (library, slot) = (beside.clone(), slot.clone());
            tokio::spawn(async move {
                // Whoever does not take the offer up goes on with the stream.
                if let Ok(channel) = connection.connected().await {
                    serve_one(device, channel, library, &|_| Vec::new()).await;
                }
                drop(slot);
            });
            codec::encode(&offer)
        };
        tokio::spawn(async move { serve_one(device, stream, library, &offering).await });
    }

    pub(super) fn fetch(&mut self, ticket: u64, peer: DeviceId, object: ObjectId, files: Vec<FileValue>) {
        let shelf = self.folders.shelf(object);
        let (network, events, blobs) = (self.network.clone(), self.events.clone(), self.blobs.clone());
        let bulk = self.bulk.clone();
        tokio::spawn(async move {
            let contents: Vec<ContentId> = files.iter().map(|file| file.content).collect();
            let outcomes = match shelf {
                Some(shelf) => Fetching::new((&network, &bulk), peer, object, &shelf, &blobs).run(files).await,
                None => contents.into_iter().map(|content| (content, Outcome::Local)).collect(),
            };
            // A loop that has ended needs no answer.
            let _ = events.send(Event::Fetched { ticket, outcomes }).await;
        });
    }
}

async fn serve_one(device: DeviceId, stream: impl Duplex, source: Arc<dyn ChunkSource>, offering: Offering<'_>) {
    let (reader, writer) = tokio::io::split(stream);
    match serve(reader, writer, source, offering).await {
        Ok(served) => tracing::debug!(peer = %device.short(), bytes = served.bytes, "served chunks"),
        Err(error) => tracing::debug!(peer = %device.short(), %error, "serving chunks ended"),
    }
}

/// What a peer may read: contents of folders on this device, and pages of their manifests.
struct Library {
    device: DeviceId,
    events: mpsc::Sender<Event>,
    blobs: Arc<BlobStore>,
    shelves: BTreeMap<ObjectId, Shelf>,
}

impl Library {
    fn locate(&self, object: ObjectId, content: ContentId) -> Option<Located> {
        let (reply, answer) = oneshot::channel();
        self.events.blocking_send(Event::Locate { device: self.device, object, content, reply }).ok()?;
        answer.blocking_recv().ok()?
    }
}

impl ChunkSource for Library {
    fn open(&self, object: &ObjectId, content: &ContentId) -> Option<Box<dyn OpenContent>> {
        let shelf = self.shelves.get(object)?;
        let current = match self.locate(*object, *content)? {
            Located::At(path) => Source::open(&shelf.root, &path).ok(),
            Located::NotCurrent => None,
        };
        // A version that is current for somebody may be history here already.
        let source = current.or_else(|| shelf.history.find(*content).map(Source::of))?;
        Some(Box::new(OpenFile { source, convergence: shelf.convergence.clone() }))
    }

    fn blob(&self, object: &ObjectId, id: &ChunkId) -> Option<Vec<u8>> {
        let convergence = &self.shelves.get(object)?.convergence;
        self.blobs.get(*id, &|hash| convergence.chunk_id(hash)).ok().flatten()
    }
}

struct OpenFile {
    source: Source,
    convergence: Convergence,
}

impl OpenContent for OpenFile {
    fn read(&mut self, chunk: &ChunkAt, out: &mut [u8]) -> bool {
        let wanted = ChunkRef { id: chunk.id, len: chunk.len };
        let convergence = |hash: &[u8; 32]| self.convergence.chunk_id(hash);
        let bytes = self.source.chunk(chunk.offset, &wanted, &convergence);
        bytes.is_ok_and(|bytes| {
            let fits = bytes.len() == out.len();
            if fits {
                out.copy_from_slice(&bytes);
            }
            fits
        })
    }
}

/// One fetch: the peer's stream and where what comes is put.
pub(super) struct Fetching {
    network: NetworkHandle,
    bulk: Bulk,
    peer: DeviceId,
    object: ObjectId,
    shelf: Shelf,
    blobs: Arc<BlobStore>,
}

impl Fetching {
    pub(super) fn new(
        (network, bulk): (&NetworkHandle, &Bulk),
        peer: DeviceId,
        object: ObjectId,
        shelf: &Shelf,
        blobs: &Arc<BlobStore>,
    ) -> Self {
        let (network, bulk, shelf, blobs) = (network.clone(), bulk.clone(), shelf.clone(), blobs.clone());
        Fetching { network, bulk, peer, object, shelf, blobs }
    }

    /// The contents that are here whole after the fetch.
    pub(super) async fn gain(self, files: Vec<FileValue>) -> BTreeSet<ContentId> {
        let outcomes = self.run(files).await.into_iter();
        outcomes.filter(|(_, outcome)| *outcome == Outcome::Done).map(|(content, _)| content).collect()
    }

    async fn run(self, files: Vec<FileValue>) -> Vec<(ContentId, Outcome)> {
        let bytes = files.iter().map(|file| file.size).fold(0, u64::saturating_add);
        let mut stream = match self.network.open_stream(self.peer, wire::CHUNKS).await {
            Ok(stream) => self.bulk.improve(stream, self.peer, bytes).await,
            Err(error) => {
                tracing::debug!(peer = %self.peer.short(), %error, "no stream for chunks");
                return files.iter().map(|file| (file.content, Outcome::Gone)).collect();
            }
        };
        let mut outcomes = Vec::new();
        let mut wanted = Vec::new();
        for file in files {
            match self.chunks_of(&mut stream, &file).await {
                Some(chunks) => wanted.push((file.content, chunks)),
                None => outcomes.push((file.content, Outcome::Gone)),
            }
        }
        outcomes.extend(self.fetch_files(&mut stream, wanted).await);
        // All that was asked for has been answered: nothing is lost with an end that does not arrive.
        let _ = stream.shutdown().await;
        outcomes
    }

    /// The chunks of a file; the pages of its manifest are fetched where they are not here.
    async fn chunks_of(&self, stream: &mut Box<dyn Duplex>, file: &FileValue) -> Option<Vec<ChunkRef>> {
        let FileKind::Regular { manifest } = &file.kind else {
            return None;
        };
        match manifest {
            Manifest::Inline { chunks, .. } => Some(chunks.clone()),
            Manifest::Paged { root, chunks: count, .. } => {
                let root = self.page(stream, &[*root]).await?.pop()?;
                let pages = root_entries(&root).ok()?;
                let mut chunks = Vec::new();
                for page in self.page(stream, &pages).await? {
                    chunks.extend(page_entries(&page).ok()?);
                }
                (chunks.len() == usize::try_from(*count).ok()?).then_some(chunks)
            }
        }
    }

    /// Pages by id, from the store of this node or else from the peer.
    async fn page(&self, stream: &mut Box<dyn Duplex>, ids: &[ChunkId]) -> Option<Vec<Vec<u8>>> {
        let missing: Vec<ChunkId> = ids.iter().filter(|id| !self.blobs.has(**id)).copied().collect();
        if !missing.is_empty() {
            let job = FetchJob { object: self.object, files: Vec::new(), blobs: missing };
            let landing = self.landing(Vec::new());
            let (mut reader, mut writer) = tokio::io::split(stream);
            let fetched = fetch(&mut reader, &mut writer, job, landing, |_| {}).await?;
            if fetched.blobs.iter().any(|outcome| *outcome != fetch::Outcome::Done) {
                return None;
            }
        }
        ids.iter().map(|id| self.blobs.get(*id, &|hash| self.shelf.convergence.chunk_id(hash)).ok().flatten()).collect()
    }

    fn landing(&self, files: Vec<Expected>) -> FileLanding {
        let Shelf { root, convergence, .. } = self.shelf.clone();
        FileLanding { root, convergence, blobs: self.blobs.clone(), files }
    }

    async fn fetch_files(
        &self,
        stream: &mut Box<dyn Duplex>,
        wanted: Vec<(ContentId, Vec<ChunkRef>)>,
    ) -> Vec<(ContentId, Outcome)> {
        let contents: Vec<ContentId> = wanted.iter().map(|(content, _)| *content).collect();
        let shelf = self.shelf.clone();
        let prepared = tokio::task::spawn_blocking(move || {
            wanted.into_iter().map(|(content, chunks)| prepare(&shelf, content, chunks)).unzip()
        });
        let Ok((files, expected)): Result<(Vec<FetchFile>, Vec<Expected>), _> = prepared.await else {
            return contents.into_iter().map(|content| (content, Outcome::Local)).collect();
        };
        let job = FetchJob { object: self.object, files, blobs: Vec::new() };
        let landing = self.landing(expected);
        let (mut reader, mut writer) = tokio::io::split(stream);
        let Some(fetched) = fetch(&mut reader, &mut writer, job, landing, |_| {}).await else {
            return contents.into_iter().map(|content| (content, Outcome::Local)).collect();
        };
        if let Err(error) = &fetched.end {
            tracing::debug!(peer = %self.peer.short(), %error, "a fetch broke off");
        }
        contents.into_iter().zip(fetched.files).map(|(content, outcome)| (content, outcome_of(outcome))).collect()
    }
}

fn outcome_of(outcome: fetch::Outcome) -> Outcome {
    match outcome {
        fetch::Outcome::Done => Outcome::Done,
        fetch::Outcome::Gone { .. } => Outcome::Gone,
        fetch::Outcome::Bad { .. } => Outcome::Bad,
        fetch::Outcome::Failed(reason) => {
            tracing::warn!(reason, "a received file could not be written");
            Outcome::Local
        }
    }
}

/// A file of a fetch: what an earlier run left of it is open, else it is opened when its first chunk comes.
struct Expected {
    content: ContentId,
    chunks: Vec<ChunkRef>,
    open: Option<Incoming>,
}

/// Which chunks of a file are still to come, when those of an earlier run and of history are there.
fn prepare(shelf: &Shelf, content: ContentId, chunks: Vec<ChunkRef>) -> (FetchFile, Expected) {
    let Shelf { root, history, convergence } = shelf;
    let mut offset = 0;
    let at: Vec<(u32, ChunkAt)> = chunks
        .iter()
        .zip(0..)
        .map(|(chunk, number)| {
            let at = ChunkAt { offset, len: chunk.len, id: chunk.id };
            offset += u64::from(chunk.len);
            (number, at)
        })
        .collect();
    let chunk_id = |hash: &[u8; 32]| convergence.chunk_id(hash);
    let kept = history.find(content).map(Source::of);
    // A file of no chunks is whole at once, and nothing will open it later.
    let resumes = chunks.is_empty() || root.path().join(format!(".meshwork/temp/{content}.part")).exists();
    let opens = resumes || kept.is_some();
    let mut open = opens.then(|| Incoming::open(root, content, chunks.clone(), &chunk_id).ok()).flatten();
    if let (Some(incoming), Some(kept)) = (&mut open, kept) {
        for number in incoming.missing().collect::<Vec<_>>() {
            let chunk = chunks.get(number).zip(at.get(number));
            let bytes = chunk.and_then(|(chunk, (_, at))| kept.chunk(at.offset, chunk, &chunk_id).ok());
            // What history cannot give is asked for.
            if let Some(bytes) = bytes {
                let _ = incoming.write(number, &bytes, &chunk_id);
            }
        }
    }
    let wanted = match &open {
        Some(incoming) => {
            let missing: BTreeSet<usize> = incoming.missing().collect();
            at.into_iter().filter(|(number, _)| missing.contains(&(*number as usize))).collect()
        }
        None => at,
    };
    (FetchFile { content, chunks: wanted }, Expected { content, chunks, open })
}

/// Brings contents back that the own history has whole; gives those.
pub(super) fn recall(shelf: &Shelf, blobs: &BlobStore, files: &[FileValue]) -> BTreeSet<ContentId> {
    let is_back = |file: &&FileValue| {
        let Some(chunks) = own_chunks(shelf, blobs, file).filter(|_| shelf.history.find(file.content).is_some()) else {
            return false;
        };
        let (wanted, expected) = prepare(shelf, file.content, chunks);
        wanted.chunks.is_empty() && expected.open.is_some_and(|incoming| incoming.finish().is_ok())
    };
    files.iter().filter(is_back).map(|file| file.content).collect()
}

/// The chunks of a file, if the pages of its manifest are here.
fn own_chunks(shelf: &Shelf, blobs: &BlobStore, file: &FileValue) -> Option<Vec<ChunkRef>> {
    let page = |id: ChunkId| blobs.get(id, &|hash| shelf.convergence.chunk_id(hash)).ok().flatten();
    match &file.kind {
        FileKind::Symlink { .. } => None,
        FileKind::Regular { manifest: Manifest::Inline { chunks, .. } } => Some(chunks.clone()),
        FileKind::Regular { manifest: Manifest::Paged { root, chunks: count, .. } } => {
            let mut chunks = Vec::new();
            for id in root_entries(&page(*root)?).ok()? {
                chunks.extend(page_entries(&page(id)?).ok()?);
            }
            (chunks.len() == usize::try_from(*count).ok()?).then_some(chunks)
        }
    }
}

/// Writes what arrives into the folder's incoming files and the blob store.
struct FileLanding {
    root: Arc<FolderRoot>,
    convergence: Convergence,
    blobs: Arc<BlobStore>,
    files: Vec<Expected>,
}

impl Landing for FileLanding {
    fn chunk(&mut self, file: usize, number: u32, _chunk: &ChunkAt, bytes: &[u8]) -> Landed {
        let convergence = |hash: &[u8; 32]| self.convergence.chunk_id(hash);
        let Some(expected) = self.files.get_mut(file) else {
            return Landed::Wrong;
        };
        if expected.open.is_none() {
            match Incoming::open(&self.root, expected.content, expected.chunks.clone(), &convergence) {
                Ok(incoming) => expected.open = Some(incoming),
                Err(error) => return Landed::Failed(error.to_string()),
            }
        }
        let Some(incoming) = &mut expected.open else {
            return Landed::Wrong;
        };
        landed(incoming.write(number as usize, bytes, &convergence))
    }

    fn blob(&mut self, id: &ChunkId, bytes: &[u8]) -> Landed {
        if self.convergence.chunk_id(blake3::hash(bytes).as_bytes()) != *id {
            return Landed::Wrong;
        }
        match self.blobs.put(*id, bytes) {
            Ok(()) => Landed::Kept,
            Err(error) => Landed::Failed(error.to_string()),
        }
    }

    fn complete(&mut self, file: usize) -> Landed {
        match self.files.get_mut(file).and_then(|expected| expected.open.take()) {
            Some(incoming) => landed(incoming.finish()),
            None => Landed::Wrong,
        }
    }
}

fn landed(result: Result<(), IncomingError>) -> Landed {
    match result {
        Ok(()) => Landed::Kept,
        Err(IncomingError::Disk(error)) => Landed::Failed(error.to_string()),
        Err(_) => Landed::Wrong,
    }
}
