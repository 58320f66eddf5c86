//! Which content from whom: the machine decides, the node moves the bytes.
//!
//! Small files travel many to a job; a large one has a job to itself. A peer that lacks a content is
//! asked again only after a pause, because it may still be receiving it.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use meshwork_protocol::{
    id::{ContentId, DeviceId, ObjectId},
    limits,
    time::Timestamp,
};

use crate::feed::FileValue;

/// What is told to the machine.
#[derive(Debug)]
pub enum Input {
    /// These contents are needed.
    Want {
        /// For which object.
        object: ObjectId,
        /// The files that have them.
        files: Vec<FileValue>,
    },
    /// Nothing is needed of an object any more.
    Forget(ObjectId),
    /// These contents are no longer needed.
    Unwant {
        /// For which object.
        object: ObjectId,
        /// Which.
        contents: Vec<ContentId>,
    },
    /// A peer can be asked for contents of these objects, and no others.
    PeerUp(DeviceId, BTreeSet<ObjectId>),
    /// A peer is gone.
    PeerDown(DeviceId),
    /// A peer may have more than before.
    PeerNews(DeviceId),
    /// The end of a job.
    Fetched {
        /// The job.
        ticket: u64,
        /// For each content of the job how it ended; a content left out is tried again.
        outcomes: Vec<(ContentId, Outcome)>,
    },
    /// A deadline has passed.
    Tick,
}

/// How the fetch of one content ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Whole and verified, in the folder's temporary files.
    Done,
    /// The peer does not have it (any more, or yet).
    Gone,
    /// The peer sent something else.
    Bad,
    /// It could not be written here.
    Local,
}

/// What the machine asks for.
#[derive(Debug)]
pub enum Output {
    /// Fetch these files from a peer.
    Fetch {
        /// Names the job.
        ticket: u64,
        /// Whom to ask.
        peer: DeviceId,
        /// For which object.
        object: ObjectId,
        /// What to fetch.
        files: Vec<FileValue>,
    },
    /// A content is here whole.
    Arrived {
        /// For which object.
        object: ObjectId,
        /// Which.
        content: ContentId,
    },
}

struct Want {
    file: FileValue,
    job: Option<u64>,
    tries: u32,
    /// Peers not to be asked before a time.
    rests: BTreeMap<DeviceId, Timestamp>,
}

struct Job {
    peer: DeviceId,
    object: ObjectId,
    contents: Vec<ContentId>,
}

/// The transfers of one node.
#[derive(Default)]
pub struct Transfer {
    wants: BTreeMap<(ObjectId, ContentId), Want>,
    /// Wants without a job, to be looked at when a peer is free.
    idle: BTreeSet<(ObjectId, ContentId)>,
    peers: BTreeMap<DeviceId, BTreeSet<ObjectId>>,
    jobs: BTreeMap<u64, Job>,
    last_ticket: u64,
}

impl Transfer {
    /// Takes an input in and says what is to be done.
    #[must_use]
    pub fn handle(&mut self, now: Timestamp, input: Input) -> Vec<Output> {
        let mut out = Vec::new();
        match input {
            Input::Want { object, files } => self.want(object, files),
            Input::Unwant { object, contents } => {
                for content in contents {
                    self.wants.remove(&(object, content));
                    self.idle.remove(&(object, content));
                }
            }
            Input::Forget(object) => {
                self.wants.retain(|(of, _), _| *of != object);
                self.idle.retain(|(of, _)| *of != object);
            }
            Input::PeerUp(peer, objects) => {
                self.peers.insert(peer, objects);
            }
            Input::PeerDown(peer) => {
                self.peers.remove(&peer);
            }
            Input::PeerNews(peer) => {
                for want in self.wants.values_mut() {
                    want.rests.remove(&peer);
                }
            }
            Input::Fetched { ticket, outcomes } => self.fetched(now, ticket, outcomes, &mut out),
            Input::Tick => {}
        }
        self.assign(now, &mut out);
        out
    }

    /// When [`Input::Tick`] is next due.
    pub fn next_deadline(&self) -> Option<Timestamp> {
        // A peer that is busy is thought of again when its job ends.
        let free: Vec<(&DeviceId, &BTreeSet<ObjectId>)> =
            self.peers.iter().filter(|(peer, _)| self.is_free(peer)).collect();
        let dues =
            self.idle.iter().filter_map(|name| Some((name.0, self.wants.get(name)?))).flat_map(|(object, want)| {
                let may_ask = free.iter().filter(move |(_, objects)| objects.contains(&object));
                may_ask.filter_map(|(peer, _)| want.rests.get(peer).copied())
            });
        dues.min()
    }

    fn is_free(&self, peer: &DeviceId) -> bool {
        self.jobs.values().filter(|job| job.peer == *peer).count() < limits::FETCH_JOBS_PER_PEER
    }

    /// Contents still to come for an object, and their bytes.
    pub fn left(&self, object: ObjectId) -> (usize, u64) {
        let wants = self.wants.range((object, ContentId([0; 32]))..=(object, ContentId([255; 32])));
        wants.fold((0, 0), |(files, bytes), (_, want)| (files + 1, bytes.saturating_add(want.file.size)))
    }

    /// Contents still to come for an object of which none of the peers that may be asked has anything to give.
    pub fn missing(&self, object: ObjectId) -> impl Iterator<Item = ContentId> {
        let asked: Vec<&DeviceId> =
            self.peers.iter().filter(|(_, objects)| objects.contains(&object)).map(|(peer, _)| peer).collect();
        let idle = self.idle.range((object, ContentId([0; 32]))..=(object, ContentId([255; 32])));
        let in_vain = move |want: &Want| asked.iter().all(|peer| want.rests.contains_key(*peer));
        idle.filter(move |name| self.wants.get(name).is_some_and(&in_vain)).map(|(_, content)| *content)
    }

    /// Whether a content is still to come for an object.
    pub fn is_wanted(&self, object: ObjectId, content: ContentId) -> bool {
        self.wants.contains_key(&(object, content))
    }

    fn want(&mut self, object: ObjectId, files: Vec<FileValue>) {
        for file in files {
            let name = (object, file.content);
            if let std::collections::btree_map::Entry::Vacant(entry) = self.wants.entry(name) {
                entry.insert(Want { file, job: None, tries: 0, rests: BTreeMap::new() });
                self.idle.insert(name);
            }
        }
    }

    fn fetched(&mut self, now: Timestamp, ticket: u64, outcomes: Vec<(ContentId, Outcome)>, out: &mut Vec<Output>) {
        let Some(job) = self.jobs.remove(&ticket) else { return };
        for (content, outcome) in outcomes {
            let name = (job.object, content);
            if outcome == Outcome::Done {
                if job.contents.contains(&content) && self.wants.remove(&name).is_some() {
                    out.push(Output::Arrived { object: job.object, content });
                }
            } else if let Some(want) = self.wants.get_mut(&name) {
                want.tries += 1;
                want.rests.insert(job.peer, now + rest(want.tries));
            }
        }
        for content in job.contents {
            let name = (job.object, content);
            if let Some(want) = self.wants.get_mut(&name)
                && want.job == Some(ticket)
            {
                want.job = None;
                self.idle.insert(name);
            }
        }
    }

    fn assign(&mut self, now: Timestamp, out: &mut Vec<Output>) {
        if self.idle.is_empty() {
            return;
        }
        for peer in self.peers.keys().copied().collect::<Vec<_>>() {
            while self.is_free(&peer) {
                let Some((object, files)) = self.next_batch(now, peer) else {
                    break;
                };
                self.last_ticket += 1;
                let ticket = self.last_ticket;
                let contents: Vec<ContentId> = files.iter().map(|file| file.content).collect();
                for content in &contents {
                    self.idle.remove(&(object, *content));
                    if let Some(want) = self.wants.get_mut(&(object, *content)) {
                        want.job = Some(ticket);
                    }
                }
                self.jobs.insert(ticket, Job { peer, object, contents });
                out.push(Output::Fetch { ticket, peer, object, files });
            }
        }
    }

    /// What to ask `peer` for next: files of one object up to the size of a job, or one larger file.
    fn next_batch(&self, now: Timestamp, peer: DeviceId) -> Option<(ObjectId, Vec<FileValue>)> {
        let (mut object, mut files, mut bytes) = (None, Vec::new(), 0u64);
        let may_ask = self.peers.get(&peer)?;
        for name in self.idle.iter().filter(|name| may_ask.contains(&name.0)) {
            let Some(want) = self.wants.get(name) else { continue };
            if want.rests.get(&peer).is_some_and(|due| *due > now) || object.is_some_and(|object| object != name.0) {
                continue;
            }
            if !files.is_empty() && bytes.saturating_add(want.file.size) > limits::FETCH_JOB_BYTES {
                continue;
            }
            object = Some(name.0);
            bytes = bytes.saturating_add(want.file.size);
            files.push(want.file.clone());
            if files.len() >= limits::FETCH_JOB_FILES || bytes >= limits::FETCH_JOB_BYTES {
                break;
            }
        }
        object.map(|object| (object, files))
    }
}

fn rest(tries: u32) -> Duration {
    (limits::FETCH_PAUSE * 2u32.saturating_pow(tries.saturating_sub(1).min(10))).min(limits::FETCH_PAUSE_MAX)
}

#[cfg(test)]
mod tests {
    use meshwork_protocol::id::{ChunkId, FileId};

    use super::*;
    use crate::feed::{FileKind, Manifest, Unknown};

    fn file(content: u8, size: u64) -> FileValue {
        let manifest = Manifest::Paged { average_log2: 22, root: ChunkId([content; 32]), chunks: 1 };
        FileValue {
            file: FileId([content; 16]),
            kind: FileKind::Regular { manifest },
            content: ContentId([content; 32]),
            size,
            modified_ns: 0,
            executable: false,
            unknown: Unknown::default(),
        }
    }

    /// A member may claim any size: sums stay at the largest number, and such a file is fetched alone.
    #[test]
    fn claimed_sizes_do_not_overflow() {
        let (mut transfer, object, peer) = (Transfer::default(), ObjectId([1; 32]), DeviceId([2; 32]));
        let files = vec![file(1, 5), file(2, u64::MAX), file(3, u64::MAX - 2)];
        let _ = transfer.handle(Timestamp(0), Input::Want { object, files });
        assert_eq!(transfer.left(object), (3, u64::MAX));
        let asked = transfer.handle(Timestamp(0), Input::PeerUp(peer, BTreeSet::from([object])));
        let counts = asked.iter().map(|output| match output {
            Output::Fetch { files, .. } => files.len(),
            Output::Arrived { .. } => 0,
        });
        assert_eq!(counts.collect::<Vec<_>>(), [1, 1]);
    }
}
