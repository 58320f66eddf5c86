//! The store for asynchronous callers: a thread of its own behind a bounded channel.

use std::{io, thread::JoinHandle, time::Duration};

use meshwork_protocol::id::{ChainId, RecordId};
use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, timeout_at},
};

use super::{Entry, NewEntry, Position, Reader, Reclaimed, Store, StoreError};

/// Requests that wait before callers must.
const QUEUE: usize = 256;
/// Payload bytes at which a group is written though more appends wait.
const GROUP_BYTES: usize = 8 << 20;
/// How long changes of the index may stay in memory; only a crash loses them, and the log has what matters of them.
const INDEX_FLUSH: Duration = Duration::from_secs(5);

/// Asks the thread that owns the store; cheap to clone. The thread ends when the last one is dropped.
#[derive(Clone)]
pub struct StoreHandle {
    requests: mpsc::Sender<Request>,
    reader: Reader,
}

enum Request {
    Append { entries: Vec<NewEntry>, reply: oneshot::Sender<Result<Vec<Position>, StoreError>> },
    Run(Box<dyn FnOnce(&mut Store) + Send>),
}

impl StoreHandle {
    /// Starts the store's thread; must be called inside a tokio runtime, whose timer it uses.
    ///
    /// Join the thread after dropping all handles, to know that everything is written.
    pub fn spawn(store: Store) -> io::Result<(StoreHandle, JoinHandle<()>)> {
        let (requests, queue) = mpsc::channel(QUEUE);
        let reader = store.reader();
        let runtime = tokio::runtime::Handle::current();
        let serve = move || serve(store, queue, &runtime);
        let thread = std::thread::Builder::new().name("store".to_owned()).spawn(serve)?;
        Ok((StoreHandle { requests, reader }, thread))
    }

    /// Appends entries and answers when they are durable; whatever waits at the same time shares one flush.
    pub async fn append(&self, entries: Vec<NewEntry>) -> Result<Vec<Position>, StoreError> {
        let too_large = entries.iter().map(|entry| entry.payload.len()).find(|len| *len > super::MAX_PAYLOAD);
        if let Some(len) = too_large {
            return Err(StoreError::TooLarge { len });
        }
        let (reply, answer) = oneshot::channel();
        self.requests.send(Request::Append { entries, reply }).await.map_err(|_| StoreError::Closed)?;
        answer.await.map_err(|_| StoreError::Closed)?
    }

    /// Runs `work` on the store's thread, after all appends that wait.
    pub async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Store) -> T + Send + 'static,
    ) -> Result<T, StoreError> {
        let (reply, answer) = oneshot::channel();
        let run = Request::Run(Box::new(move |store| {
            // Whoever asked may have gone; the work was still done.
            let _ = reply.send(work(store));
        }));
        self.requests.send(run).await.map_err(|_| StoreError::Closed)?;
        answer.await.map_err(|_| StoreError::Closed)
    }

    /// A record by its place in its chain.
    pub async fn record(&self, chain: ChainId, seq: u64) -> Result<Option<Entry>, StoreError> {
        self.run(move |store| store.record(chain, seq)).await?
    }

    /// Lets go of the records of a chain before a place; see [`Store::forget`].
    pub async fn forget(&self, chain: ChainId, below: u64) -> Result<(), StoreError> {
        self.run(move |store| store.forget(chain, below)).await?
    }

    /// Rewrites one segment, if there is one that is worth it; see [`Store::reclaim`].
    ///
    /// Appends wait while that goes on: whoever is told that there is more asks again, and lets them in between.
    pub async fn reclaim(&self) -> Result<Reclaimed, StoreError> {
        self.run(Store::reclaim).await?
    }

    /// Puts items into a tree of the index (values below 4 KiB).
    pub async fn put_many(&self, tree: &'static str, items: Vec<(Vec<u8>, Vec<u8>)>) -> Result<(), StoreError> {
        Ok(self.run(move |store| store.index.put_many(tree, items)).await??)
    }

    /// The value of a key in a tree of the index.
    pub async fn get(&self, tree: &'static str, key: Vec<u8>) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.run(move |store| store.index.get(tree, &key)).await??)
    }

    #[cfg(test)]
    pub(super) fn waiting(&self) -> usize {
        self.requests.max_capacity() - self.requests.capacity()
    }

    /// Reads entries from any thread, without waiting for writes.
    pub fn reader(&self) -> &Reader {
        &self.reader
    }
}

impl NewEntry {
    /// Marks a record as the newest of this node's own for its object.
    #[must_use]
    pub fn own(mut self, id: RecordId) -> Self {
        self.head = Some(id);
        self
    }
}

fn serve(mut store: Store, mut queue: mpsc::Receiver<Request>, runtime: &tokio::runtime::Handle) {
    let mut flush_at: Option<Instant> = None;
    loop {
        let next = match flush_at {
            Some(deadline) => runtime.block_on(async { timeout_at(deadline, queue.recv()).await }),
            None => Ok(queue.blocking_recv()),
        };
        match next {
            Ok(Some(first)) => {
                serve_group(&mut store, first, &mut queue);
                flush_at = flush_at.or_else(|| Some(Instant::now() + INDEX_FLUSH));
            }
            Ok(None) => break,
            Err(_) => {}
        }
        if flush_at.is_some_and(|deadline| deadline <= Instant::now()) {
            flush(&store);
            flush_at = None;
        }
    }
    flush(&store);
}

fn flush(store: &Store) {
    if let Err(error) = store.index.flush() {
        tracing::warn!(%error, "the index could not be flushed");
    }
}

/// Takes what waits: all its appends become one group, the rest runs after it.
fn serve_group(store: &mut Store, first: Request, queue: &mut mpsc::Receiver<Request>) {
    let (mut group, mut replies, mut work) = (Vec::new(), Vec::new(), Vec::new());
    let mut bytes = 0;
    let mut next = Some(first);
    while let Some(request) = next {
        match request {
            Request::Append { entries, reply } => {
                bytes += entries.iter().map(|entry| entry.payload.len()).sum::<usize>();
                replies.push((entries.len(), reply));
                group.extend(entries);
            }
            Request::Run(run) => work.push(run),
        }
        next = if bytes < GROUP_BYTES { queue.try_recv().ok() } else { None };
    }
    if !replies.is_empty() {
        let mut result = store.append(&group);
        for (count, reply) in replies {
            let part = match &mut result {
                Ok(positions) => Ok(positions.drain(..count).collect()),
                Err(error) => Err(error.clone()),
            };
            // Whoever asked may have gone; the entries are written all the same.
            let _ = reply.send(part);
        }
    }
    work.into_iter().for_each(|run| run(store));
}
