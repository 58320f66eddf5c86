//! The sending side of chunks: answers requests from files, reading ahead while bytes go out.

use std::{
    collections::BTreeMap,
    io,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use meshwork_protocol::{
    id::{ChunkId, ContentId, DeviceId, ObjectId},
    limits,
    wire::chunks::{ChunkAt, ChunkHeader, ChunkMessage, ChunkMessageError, FetchItem, Splice},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt},
    sync::mpsc,
    time::timeout,
};

use super::frame::{read_frame, write_frame};

/// Bytes that are written to the stream at a time.
const BATCH: usize = 1 << 20;
/// Buffers of a stream: one goes out while the other is filled.
const BUFFERS: usize = 2;
/// Requests read ahead of the one that is answered.
const REQUESTS_AHEAD: usize = 1;

/// Where chunks come from, as far as one peer may have them. Called on threads that may block.
pub trait ChunkSource: Send + Sync {
    /// Opens a content for reading; `None` when it is not here or not for this peer.
    fn open(&self, object: &ObjectId, content: &ContentId) -> Option<Box<dyn OpenContent>>;

    /// The verified bytes of a chunk that belongs to no file.
    fn blob(&self, object: &ObjectId, id: &ChunkId) -> Option<Vec<u8>>;
}

/// Makes an offer of a bulk connection, which may be taken up at a relay, too: the bytes to answer with, none where
/// there can be no connection.
pub type Offering<'a> = &'a (dyn Fn(Option<Splice>) -> Vec<u8> + Send + Sync);

/// A content that is open for reading.
pub trait OpenContent {
    /// Fills `out`, whose length is that of the chunk, and answers whether it holds exactly that chunk now.
    fn read(&mut self, chunk: &ChunkAt, out: &mut [u8]) -> bool;
}

/// Why a stream of requests was ended.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The stream broke.
    #[error("the stream broke: {0}")]
    Stream(#[from] io::Error),
    /// The peer sent something that is no request.
    #[error(transparent)]
    Message(#[from] ChunkMessageError),
    /// The peer takes nothing any more, or asks for nothing.
    #[error("nothing moved on the stream for {} s", .0.as_secs())]
    Stalled(Duration),
    /// The node is shutting down.
    #[error("the work was cancelled")]
    Cancelled,
}

/// What a stream carried until the peer closed it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Served {
    /// Bytes of chunks that were sent.
    pub bytes: u64,
    /// Bytes of them that the peer said it has.
    pub acknowledged: u64,
}

/// Answers the requests of one peer on one stream until the peer closes it.
pub async fn serve<R, W>(
    mut reader: R,
    mut writer: W,
    source: Arc<dyn ChunkSource>,
    offering: Offering<'_>,
) -> Result<Served, ServeError>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let (requests, mut queue) = mpsc::channel(REQUESTS_AHEAD);
    let read = async move {
        while let Some(message) = next_message(&mut reader).await? {
            if requests.send(message).await.is_err() {
                break;
            }
        }
        Ok(())
    };
    let answer = async {
        let mut served = Served::default();
        let mut buffers = vec![vec![0; BATCH]; BUFFERS];
        loop {
            let next = timeout(limits::CHUNK_IDLE, queue.recv()).await;
            let Some(message) = next.map_err(|_| ServeError::Stalled(limits::CHUNK_IDLE))? else {
                break;
            };
            match message {
                ChunkMessage::Fetch { object, items } => {
                    served.bytes += answer(&mut writer, &source, object, items, &mut buffers).await?;
                }
                ChunkMessage::Bulk { splice } => write_frame(&mut writer, &offering(splice)).await?,
                ChunkMessage::Received { bytes } => {
                    served.acknowledged = served.acknowledged.saturating_add(bytes).min(served.bytes);
                }
            }
        }
        Ok(served)
    };
    tokio::try_join!(read, answer).map(|((), served)| served)
}

async fn next_message<R: AsyncRead + Unpin>(reader: &mut R) -> Result<Option<ChunkMessage>, ServeError> {
    let frame = read_frame(reader, limits::CHUNK_FRAME).await?;
    Ok(frame.map(|body| ChunkMessage::decode(&body)).transpose()?)
}

/// Sends the answer to one request; gives the number of bytes of chunks in it.
async fn answer<W: AsyncWrite + Unpin>(
    writer: &mut W,
    source: &Arc<dyn ChunkSource>,
    object: ObjectId,
    items: Vec<FetchItem>,
    buffers: &mut Vec<Vec<u8>>,
) -> Result<u64, ServeError> {
    let (filled, mut ready) = mpsc::channel(BUFFERS);
    let (spent, free) = mpsc::channel(BUFFERS);
    for buffer in buffers.drain(..) {
        spent.try_send(buffer).map_err(|_| ServeError::Cancelled)?;
    }
    let source = source.clone();
    let reading = tokio::task::spawn_blocking(move || {
        let mut answer = Answer { filled, free, current: None, chunk_bytes: 0 };
        // An error here means that the stream is gone, which its writer reports.
        let _ = answer.produce(&*source, &object, &items);
        (answer.chunk_bytes, answer.free)
    });
    while let Some(Batch { buffer, used }) = ready.recv().await {
        send_all(writer, buffer.get(..used).unwrap_or(&buffer)).await?;
        // Without its receiver, which comes back below, the thread has died.
        spent.try_send(buffer).map_err(|_| ServeError::Cancelled)?;
    }
    moving(writer.flush()).await?;
    let (sent, mut free) = reading.await.map_err(|_| ServeError::Cancelled)?;
    while let Ok(buffer) = free.try_recv() {
        buffers.push(buffer);
    }
    Ok(sent)
}

/// Writes all bytes as long as some of them move.
async fn send_all<W: AsyncWrite + Unpin>(writer: &mut W, mut bytes: &[u8]) -> Result<(), ServeError> {
    while !bytes.is_empty() {
        match moving(writer.write(bytes)).await? {
            0 => return Err(ServeError::Stream(io::ErrorKind::WriteZero.into())),
            written => bytes = bytes.get(written..).unwrap_or_default(),
        }
    }
    Ok(())
}

async fn moving<T>(work: impl Future<Output = io::Result<T>>) -> Result<T, ServeError> {
    Ok(timeout(limits::CHUNK_STALL, work).await.map_err(|_| ServeError::Stalled(limits::CHUNK_STALL))??)
}

/// A buffer whose first `used` bytes are to be sent.
struct Batch {
    buffer: Vec<u8>,
    used: usize,
}

/// Nobody waits for the answer any more.
struct Abandoned;

/// Fills buffers with an answer, on a thread that may block.
struct Answer {
    filled: mpsc::Sender<Batch>,
    free: mpsc::Receiver<Vec<u8>>,
    current: Option<Batch>,
    chunk_bytes: u64,
}

impl Answer {
    fn produce(&mut self, source: &dyn ChunkSource, object: &ObjectId, items: &[FetchItem]) -> Result<(), Abandoned> {
        for item in items {
            match item {
                FetchItem::File { content, chunks } => {
                    let mut open = source.open(object, content);
                    for chunk in chunks {
                        self.chunk(open.as_deref_mut(), chunk)?;
                    }
                }
                FetchItem::Blob { id } => {
                    let blob = source.blob(object, id).filter(|bytes| bytes.len() <= limits::BLOB as usize);
                    match blob {
                        Some(bytes) => {
                            self.room(bytes.len())?.copy_from_slice(&bytes);
                            self.took(bytes.len());
                        }
                        None => self.mark(ChunkHeader::Gone)?,
                    }
                }
            }
        }
        self.mark(ChunkHeader::End)?;
        self.send()
    }

    fn chunk(&mut self, open: Option<&mut (dyn OpenContent + 'static)>, chunk: &ChunkAt) -> Result<(), Abandoned> {
        let len = chunk.len as usize;
        let here = match open {
            Some(open) => open.read(chunk, self.room(len)?),
            None => false,
        };
        if here {
            self.took(len);
            return Ok(());
        }
        self.mark(ChunkHeader::Gone)
    }

    /// Space for a chunk of `len` bytes in a buffer, behind room for its header.
    fn room(&mut self, len: usize) -> Result<&mut [u8], Abandoned> {
        let needed = ChunkHeader::LEN + len;
        if self.current.as_ref().is_some_and(|batch| batch.used > 0 && batch.used + needed > BATCH) {
            self.send()?;
        }
        if self.current.is_none() {
            let buffer = self.free.blocking_recv().ok_or(Abandoned)?;
            self.current = Some(Batch { buffer, used: 0 });
        }
        let batch = self.current.as_mut().ok_or(Abandoned)?;
        if batch.buffer.len() < batch.used + needed {
            batch.buffer.resize(batch.used + needed, 0);
        }
        let start = batch.used + ChunkHeader::LEN;
        batch.buffer.get_mut(start..start + len).ok_or(Abandoned)
    }

    /// Keeps the chunk of `len` bytes that was put where [`Answer::room`] said.
    fn took(&mut self, len: usize) {
        if let Some(batch) = &mut self.current {
            let header = ChunkHeader::Here(len as u32).to_bytes();
            if let Some(place) = batch.buffer.get_mut(batch.used..batch.used + ChunkHeader::LEN) {
                place.copy_from_slice(&header);
            }
            batch.used += ChunkHeader::LEN + len;
            self.chunk_bytes += len as u64;
        }
    }

    /// Puts a header that nothing follows.
    fn mark(&mut self, header: ChunkHeader) -> Result<(), Abandoned> {
        self.room(0)?;
        self.took(0);
        if let Some(batch) = &mut self.current
            && let Some(place) = batch.buffer.get_mut(batch.used - ChunkHeader::LEN..batch.used)
        {
            place.copy_from_slice(&header.to_bytes());
        }
        Ok(())
    }

    fn send(&mut self) -> Result<(), Abandoned> {
        match self.current.take() {
            Some(batch) => self.filled.blocking_send(batch).map_err(|_| Abandoned),
            None => Ok(()),
        }
    }
}

/// Counts the streams on which each peer is served, and refuses those above the limit.
#[derive(Clone, Default)]
pub struct ServeSlots(Arc<Mutex<BTreeMap<DeviceId, usize>>>);

impl ServeSlots {
    /// A place for one more stream of `device`, given back when it is dropped; `None` when it has as many as it may.
    pub fn enter(&self, device: DeviceId) -> Option<ServeSlot> {
        let mut taken = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = taken.entry(device).or_default();
        if *count >= limits::CHUNK_STREAMS_PER_PEER {
            return None;
        }
        *count += 1;
        Some(ServeSlot { slots: self.clone(), device })
    }
}

/// The right to one stream.
pub struct ServeSlot {
    slots: ServeSlots,
    device: DeviceId,
}

impl Drop for ServeSlot {
    fn drop(&mut self) {
        let mut taken = self.slots.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = taken.get_mut(&self.device) {
            *count -= 1;
            if *count == 0 {
                taken.remove(&self.device);
            }
        }
    }
}
