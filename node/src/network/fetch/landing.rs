//! The thread that verifies and writes what arrives.

use std::ops::Range;

use tokio::{sync::mpsc, task::JoinHandle};

use super::{FetchJob, Landed, Landing, Outcome, plan::Expected};

/// A buffer full of answers.
pub struct Batch {
    pub buffer: Vec<u8>,
    pub parts: Vec<Part>,
}

/// One answer.
pub struct Part {
    pub expected: Expected,
    /// Where its bytes are in the buffer; `None` when the peer does not have it.
    pub range: Option<Range<usize>>,
}

/// What the thread gives back.
pub struct Finished<L> {
    pub landing: L,
    pub files: Vec<Outcome>,
    pub blobs: Vec<Outcome>,
}

/// The asynchronous side of the thread.
pub struct LandingThread<L> {
    batches: Option<mpsc::Sender<Batch>>,
    /// Buffers that are free again, each with the bytes that were kept from it.
    spent: mpsc::Receiver<(Vec<u8>, u64)>,
    thread: Option<JoinHandle<Finished<L>>>,
}

impl<L: Landing> LandingThread<L> {
    /// Starts a thread that owns `buffers` buffers.
    pub fn start(job: FetchJob, landing: L, buffers: usize) -> Self {
        let (batches, mut queue) = mpsc::channel::<Batch>(buffers);
        let (free, spent) = mpsc::channel(buffers);
        for _ in 0..buffers {
            // The channel has room for all of them.
            let _ = free.try_send((Vec::new(), 0));
        }
        let thread = tokio::task::spawn_blocking(move || {
            let mut tally = Tally::new(job, landing);
            while let Some(batch) = queue.blocking_recv() {
                let kept = tally.land(&batch);
                // Nobody waits for buffers after the last batch.
                let _ = free.blocking_send((batch.buffer, kept));
            }
            tally.finish()
        });
        LandingThread { batches: Some(batches), spent, thread: Some(thread) }
    }

    /// A free buffer, and the bytes that were kept from it.
    pub async fn buffer(&mut self) -> Option<(Vec<u8>, u64)> {
        self.spent.recv().await
    }

    pub async fn land(&mut self, batch: Batch) -> Result<(), ()> {
        self.batches.as_ref().ok_or(())?.send(batch).await.map_err(|_| ())
    }

    /// Waits until everything is written; answers how many bytes were kept that `buffer` had not told.
    pub async fn finish(&mut self, progress: &mut impl FnMut(u64)) -> (Option<Finished<L>>, u64) {
        self.batches = None;
        let mut bytes = 0;
        while let Some((_, kept)) = self.spent.recv().await {
            bytes += kept;
            if kept > 0 {
                progress(kept);
            }
        }
        let finished = match self.thread.take() {
            Some(thread) => thread.await.ok(),
            None => None,
        };
        (finished, bytes)
    }
}

/// What has become of every file so far.
struct Tally<L> {
    job: FetchJob,
    landing: L,
    files: Vec<FileTally>,
    blobs: Vec<Option<Outcome>>,
}

#[derive(Clone, Default)]
struct FileTally {
    kept: Vec<bool>,
    left: usize,
    fault: Option<Outcome>,
    complete: bool,
}

impl<L: Landing> Tally<L> {
    fn new(job: FetchJob, landing: L) -> Self {
        let files = job.files.iter().map(|file| FileTally {
            kept: vec![false; file.chunks.len()],
            left: file.chunks.len(),
            ..FileTally::default()
        });
        let files = files.collect();
        let blobs = vec![None; job.blobs.len()];
        Tally { job, landing, files, blobs }
    }

    /// Verifies and writes a batch; answers the bytes that were kept.
    fn land(&mut self, batch: &Batch) -> u64 {
        let mut kept = 0;
        for part in &batch.parts {
            let bytes = part.range.clone().and_then(|range| batch.buffer.get(range));
            let landed = match part.expected {
                Expected::Chunk { file, chunk, .. } => self.chunk(file as usize, chunk as usize, bytes),
                Expected::Blob { blob } => self.blob(blob as usize, bytes),
                Expected::End => None,
            };
            kept += landed.map_or(0, |()| bytes.map_or(0, <[u8]>::len) as u64);
        }
        kept
    }

    fn chunk(&mut self, file: usize, place: usize, bytes: Option<&[u8]>) -> Option<()> {
        let (number, chunk) = self.job.files.get(file)?.chunks.get(place)?;
        let tally = self.files.get_mut(file)?;
        match self.landing.chunk(file, *number, chunk, bytes?) {
            Landed::Kept => {}
            Landed::Wrong => {
                tally.fault.get_or_insert(Outcome::Bad { number: Some(*number) });
                return None;
            }
            Landed::Failed(error) => {
                tally.fault = Some(Outcome::Failed(error));
                return None;
            }
        }
        *tally.kept.get_mut(place)? = true;
        tally.left -= 1;
        if tally.left == 0 {
            self.complete(file);
        }
        Some(())
    }

    fn complete(&mut self, file: usize) {
        let Some(tally) = self.files.get_mut(file) else { return };
        tally.complete = true;
        match self.landing.complete(file) {
            Landed::Kept => {}
            Landed::Wrong => tally.fault = Some(Outcome::Bad { number: None }),
            Landed::Failed(error) => tally.fault = Some(Outcome::Failed(error)),
        }
    }

    fn blob(&mut self, place: usize, bytes: Option<&[u8]>) -> Option<()> {
        let id = self.job.blobs.get(place)?;
        let outcome = match self.landing.blob(id, bytes?) {
            Landed::Kept => Outcome::Done,
            Landed::Wrong => Outcome::Bad { number: None },
            Landed::Failed(error) => Outcome::Failed(error),
        };
        let kept = outcome == Outcome::Done;
        *self.blobs.get_mut(place)? = Some(outcome);
        kept.then_some(())
    }

    fn finish(mut self) -> Finished<L> {
        for file in 0..self.files.len() {
            // A file of which nothing was wanted is complete as it is.
            if self.files.get(file).is_some_and(|tally| tally.left == 0 && !tally.complete) {
                self.complete(file);
            }
        }
        let files = self.files.iter().zip(&self.job.files).map(|(tally, file)| {
            let gone = file.chunks.iter().zip(&tally.kept).filter(|(_, kept)| !**kept);
            let missing: Vec<u32> = gone.map(|((number, _), _)| *number).collect();
            let short = (!missing.is_empty()).then_some(Outcome::Gone { missing });
            tally.fault.clone().or(short).unwrap_or(Outcome::Done)
        });
        let blobs = self.blobs.iter().map(|blob| blob.clone().unwrap_or(Outcome::Gone { missing: vec![0] }));
        Finished { files: files.collect(), blobs: blobs.collect(), landing: self.landing }
    }
}
