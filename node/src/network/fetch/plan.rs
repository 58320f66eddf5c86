//! What is asked in which request, and what the answers will look like.

use std::{collections::VecDeque, ops::Range};

use meshwork_protocol::{
    id::ObjectId,
    limits,
    wire::chunks::{ChunkHeader, ChunkMessage, FetchItem},
};

use super::FetchJob;

/// Bytes asked for at a time: half of what one request may ask, so that two under way hold 16 MiB.
const REQUEST_BYTES: u64 = limits::FETCH_BYTES / 2;

/// The next thing in an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expected {
    /// A chunk of a file of the job.
    Chunk {
        /// Place of the file in the job.
        file: u32,
        /// Place of the chunk in the file's list.
        chunk: u32,
        /// Its length in bytes.
        len: u32,
    },
    /// A blob of the job, by its place.
    Blob {
        /// Its place.
        blob: u32,
    },
    /// The end of the answer to one request.
    End,
}

impl Expected {
    /// Bytes of it in the answer, as far as that is known before.
    pub fn bytes(self) -> usize {
        ChunkHeader::LEN + if let Expected::Chunk { len, .. } = self { len as usize } else { 0 }
    }
}

/// The requests of a job, and everything that its answers consist of.
pub struct Plan {
    requests: VecDeque<ChunkMessage>,
    expected: Vec<Expected>,
    next: usize,
}

impl Plan {
    pub fn new(job: &FetchJob) -> Plan {
        let mut draft = Draft { object: job.object, plan: Plan::empty(), items: Vec::new(), chunks: 0, bytes: 0 };
        for (blob, id) in (0..).zip(&job.blobs) {
            if draft.items.len() >= limits::FETCH_BLOBS {
                draft.close();
            }
            draft.items.push(FetchItem::Blob { id: *id });
            draft.plan.expected.push(Expected::Blob { blob });
        }
        draft.close();
        for (number, file) in (0..).zip(&job.files) {
            let mut fresh = true;
            for (chunk, (_, at)) in (0..).zip(&file.chunks) {
                if draft.is_full(u64::from(at.len), fresh) {
                    draft.close();
                    fresh = true;
                }
                if fresh {
                    draft.items.push(FetchItem::File { content: file.content, chunks: Vec::new() });
                    fresh = false;
                }
                if let Some(FetchItem::File { chunks, .. }) = draft.items.last_mut() {
                    chunks.push(*at);
                }
                draft.chunks += 1;
                draft.bytes += u64::from(at.len);
                draft.plan.expected.push(Expected::Chunk { file: number, chunk, len: at.len });
            }
        }
        draft.close();
        draft.plan
    }

    fn empty() -> Plan {
        Plan { requests: VecDeque::new(), expected: Vec::new(), next: 0 }
    }

    /// The next request to be sent.
    pub fn next_request(&mut self) -> Option<ChunkMessage> {
        self.requests.pop_front()
    }

    /// The next run of answers of about `size` bytes; never empty.
    pub fn next_batch(&mut self, size: usize) -> Option<Range<usize>> {
        let start = self.next;
        let mut bytes = self.expected.get(start)?.bytes();
        self.next += 1;
        while let Some(next) = self.expected.get(self.next).filter(|next| bytes + next.bytes() <= size) {
            bytes += next.bytes();
            self.next += 1;
        }
        Some(start..self.next)
    }

    /// Bytes of a run of answers, as far as they are known.
    pub fn bytes(&self, range: Range<usize>) -> usize {
        self.expected.get(range).unwrap_or_default().iter().map(|expected| expected.bytes()).sum()
    }

    pub fn expected(&self, place: usize) -> Option<Expected> {
        self.expected.get(place).copied()
    }

    /// Bytes of the largest run that can be needed.
    pub fn largest_batch(&self) -> usize {
        self.expected.iter().map(|expected| expected.bytes()).max().unwrap_or(0).max(super::BATCH)
    }
}

/// A plan whose last request is still being filled.
struct Draft {
    object: ObjectId,
    plan: Plan,
    items: Vec<FetchItem>,
    chunks: usize,
    bytes: u64,
}

impl Draft {
    fn is_full(&self, len: u64, fresh: bool) -> bool {
        let has = !self.items.is_empty();
        has && (self.bytes + len > REQUEST_BYTES
            || self.chunks >= limits::FETCH_CHUNKS
            || (fresh && self.items.len() >= limits::FETCH_ITEMS))
    }

    fn close(&mut self) {
        let items = std::mem::take(&mut self.items);
        if !items.is_empty() {
            self.plan.requests.push_back(ChunkMessage::Fetch { object: self.object, items });
            self.plan.expected.push(Expected::End);
        }
        (self.chunks, self.bytes) = (0, 0);
    }
}
