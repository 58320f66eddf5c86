//! The receiving side of chunks: asks ahead, reads into large buffers, and hands those to a thread that verifies and
//! writes.

mod landing;
mod plan;
#[cfg(test)]
mod tests;

use std::io;

use meshwork_protocol::{
    id::{ChunkId, ContentId, ObjectId},
    limits,
    wire::chunks::{ChunkAt, ChunkHeader, ChunkMessage},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite},
    time::timeout,
};

use self::{
    landing::{Batch, LandingThread, Part},
    plan::{Expected, Plan},
};
use super::frame::write_frame;

/// Requests under way at a time: one is answered while the other travels.
const REQUESTS_AHEAD: usize = 2;
/// Bytes of chunks that are verified and written at a time, unless a single chunk has more.
const BATCH: usize = 1 << 20;
/// Memory for buffers of one fetch, in bytes; two buffers for the largest chunks fit.
const BUFFERS: usize = 2 * (limits::CHUNK as usize + ChunkHeader::LEN);
/// More buffers than this only wait.
const BUFFERS_MAX: usize = 3;

/// What to fetch from one peer.
#[derive(Debug, Clone)]
pub struct FetchJob {
    /// The object that everything belongs to.
    pub object: ObjectId,
    /// Files, in the order in which they are to come.
    pub files: Vec<FetchFile>,
    /// Chunks that belong to no file; they come before the files.
    pub blobs: Vec<ChunkId>,
}

/// Chunks of one file.
#[derive(Debug, Clone)]
pub struct FetchFile {
    /// Its content.
    pub content: ContentId,
    /// The chunks wanted, each with its number in the file.
    pub chunks: Vec<(u32, ChunkAt)>,
}

/// Where what arrives goes. Called on one thread that may block.
pub trait Landing: Send + 'static {
    /// Verifies and keeps chunk `number` of the file that has place `file` in the job.
    fn chunk(&mut self, file: usize, number: u32, chunk: &ChunkAt, bytes: &[u8]) -> Landed;

    /// Verifies and keeps a chunk that belongs to no file.
    fn blob(&mut self, id: &ChunkId, bytes: &[u8]) -> Landed;

    /// All chunks wanted of a file have been kept; called once for each such file.
    fn complete(&mut self, file: usize) -> Landed;
}

/// What became of bytes that arrived.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Landed {
    /// Verified and written.
    Kept,
    /// Not the bytes of that chunk.
    Wrong,
    /// The disk refused, as it said.
    Failed(String),
}

/// What became of a file or blob.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Everything wanted is verified and written.
    Done,
    /// The peer does not have these chunks, or the stream ended before they came; the others are written.
    Gone {
        /// Numbers of the chunks.
        missing: Vec<u32>,
    },
    /// The peer sent something else.
    Bad {
        /// Number of the first such chunk; `None` when each chunk is right and the whole is not.
        number: Option<u32>,
    },
    /// The disk refused.
    Failed(String),
}

/// What a fetch came to.
pub struct Fetched<L> {
    /// The landing, back from its thread.
    pub landing: L,
    /// For every file of the job.
    pub files: Vec<Outcome>,
    /// For every blob of the job.
    pub blobs: Vec<Outcome>,
    /// Bytes of chunks verified and written.
    pub bytes: u64,
    /// How the stream ended; after an error it is not to be used again.
    pub end: Result<(), FetchError>,
}

/// Why a stream of chunks ended before everything was answered.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// The stream broke.
    #[error("the stream broke: {0}")]
    Stream(#[from] io::Error),
    /// The peer sends nothing any more.
    #[error("nothing came for {} s", limits::CHUNK_STALL.as_secs())]
    Stalled,
    /// The peer answered something that was not asked.
    #[error("the peer broke the protocol of chunks")]
    Protocol,
    /// The thread that writes has ended.
    #[error("the writing thread ended")]
    Writer,
}

/// Fetches everything in `job` over an open stream, which can be used again afterwards.
///
/// `progress` is told how many bytes more were verified and written. `None` means that the landing was lost with its
/// thread. Dropping the future ends the fetch; what was written stays.
pub async fn fetch<R, W, L>(
    reader: &mut R,
    writer: &mut W,
    job: FetchJob,
    landing: L,
    progress: impl FnMut(u64),
) -> Option<Fetched<L>>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
    L: Landing,
{
    let plan = Plan::new(&job);
    let buffers = (BUFFERS / plan.largest_batch().max(1)).clamp(2, BUFFERS_MAX);
    let landing = LandingThread::start(job, landing, buffers);
    let mut intake = Intake { reader, writer, plan, landing, progress, outstanding: 0, bytes: 0 };
    let mut end = intake.run().await;
    let (finished, bytes) = intake.landing.finish(&mut intake.progress).await;
    intake.bytes += bytes;
    if end.is_ok() {
        let received = ChunkMessage::Received { bytes: intake.bytes };
        end = write_frame(intake.writer, &received.encode()).await.map_err(FetchError::from);
    }
    let landing::Finished { landing, files, blobs } = finished?;
    Some(Fetched { landing, files, blobs, bytes: intake.bytes, end })
}

struct Intake<'a, R, W, L, P> {
    reader: &'a mut R,
    writer: &'a mut W,
    plan: Plan,
    landing: LandingThread<L>,
    progress: P,
    outstanding: usize,
    bytes: u64,
}

impl<R, W, L, P> Intake<'_, R, W, L, P>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
    L: Landing,
    P: FnMut(u64),
{
    async fn run(&mut self) -> Result<(), FetchError> {
        self.ask().await?;
        let mut carried: Vec<u8> = Vec::new();
        while let Some(wanted) = self.plan.next_batch(BATCH) {
            let (buffer, kept) = self.landing.buffer().await.ok_or(FetchError::Writer)?;
            self.count(kept);
            let mut batch = Batch { buffer, parts: Vec::with_capacity(wanted.len()) };
            let read = self.read_batch(&mut batch, &mut carried, wanted).await;
            // What came before an error is written too.
            self.landing.land(batch).await.map_err(|()| FetchError::Writer)?;
            read?;
        }
        if carried.is_empty() { Ok(()) } else { Err(FetchError::Protocol) }
    }

    fn count(&mut self, kept: u64) {
        if kept > 0 {
            self.bytes += kept;
            (self.progress)(kept);
        }
    }

    /// Sends requests until as many are under way as may be.
    async fn ask(&mut self) -> Result<(), FetchError> {
        while self.outstanding < REQUESTS_AHEAD
            && let Some(request) = self.plan.next_request()
        {
            let sent = timeout(limits::CHUNK_STALL, write_frame(self.writer, &request.encode())).await;
            sent.map_err(|_| FetchError::Stalled)??;
            self.outstanding += 1;
        }
        Ok(())
    }

    /// Reads the answers to `wanted` into one buffer. It never reads beyond them, unless some are gone: what was then
    /// read too much is `carried` to the next buffer.
    async fn read_batch(
        &mut self,
        batch: &mut Batch,
        carried: &mut Vec<u8>,
        wanted: std::ops::Range<usize>,
    ) -> Result<(), FetchError> {
        let Batch { buffer, parts } = batch;
        let (mut filled, mut parsed) = (carried.len(), 0);
        if buffer.len() < filled {
            buffer.resize(filled, 0);
        }
        buffer[..filled].copy_from_slice(carried);
        carried.clear();
        let mut next = wanted.start;
        let mut to_come = self.plan.bytes(wanted.clone());
        while next < wanted.end {
            let expected = self.plan.expected(next).ok_or(FetchError::Protocol)?;
            match take(&buffer[parsed..filled], expected)? {
                Taken::Chunk(len) => {
                    let start = parsed + ChunkHeader::LEN;
                    parts.push(Part { expected, range: Some(start..start + len) });
                    parsed = start + len;
                }
                Taken::Gone => {
                    parts.push(Part { expected, range: None });
                    parsed += ChunkHeader::LEN;
                }
                Taken::End => {
                    parsed += ChunkHeader::LEN;
                    self.outstanding -= 1;
                    self.ask().await?;
                }
                Taken::NotYet(needed) => {
                    let limit = parsed + to_come.max(needed);
                    if buffer.len() < limit {
                        buffer.resize(limit, 0);
                    }
                    filled += self.read_some(&mut buffer[filled..limit]).await?;
                    continue;
                }
            }
            to_come -= expected.bytes();
            next += 1;
        }
        carried.extend_from_slice(&buffer[parsed..filled]);
        Ok(())
    }

    async fn read_some(&mut self, into: &mut [u8]) -> Result<usize, FetchError> {
        let read = timeout(limits::CHUNK_STALL, self.reader.read(into)).await;
        match read.map_err(|_| FetchError::Stalled)?? {
            0 => Err(FetchError::Stream(io::ErrorKind::UnexpectedEof.into())),
            read => Ok(read),
        }
    }
}

/// What stands at the beginning of bytes that have arrived.
enum Taken {
    /// A header and a whole chunk of this length.
    Chunk(usize),
    Gone,
    End,
    /// A part of something that takes this many bytes, as far as is known.
    NotYet(usize),
}

fn take(bytes: &[u8], expected: Expected) -> Result<Taken, FetchError> {
    let Some(header) = bytes.first_chunk() else {
        return Ok(Taken::NotYet(ChunkHeader::LEN));
    };
    let header = ChunkHeader::parse(*header).ok_or(FetchError::Protocol)?;
    match (header, expected) {
        (ChunkHeader::End, Expected::End) => Ok(Taken::End),
        (ChunkHeader::Gone, Expected::Chunk { .. } | Expected::Blob { .. }) => Ok(Taken::Gone),
        (ChunkHeader::Here(len), Expected::Chunk { len: asked, .. }) if len != asked => Err(FetchError::Protocol),
        (ChunkHeader::Here(len), Expected::Blob { .. }) if len > limits::BLOB => Err(FetchError::Protocol),
        (ChunkHeader::Here(len), Expected::Chunk { .. } | Expected::Blob { .. }) => {
            let whole = ChunkHeader::LEN + len as usize;
            Ok(if bytes.len() >= whole { Taken::Chunk(len as usize) } else { Taken::NotYet(whole) })
        }
        _ => Err(FetchError::Protocol),
    }
}
