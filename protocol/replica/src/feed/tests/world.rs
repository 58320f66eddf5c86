//! Some replicas, the records they wrote, and the judges that look at every step.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use meshwork_protocol::id::{ChainId, ContentId, DeviceId, DirId, Incarnation, ObjectId, RecordKey};

use super::tree::{Flat, Shows, Tree, flat};
use crate::feed::{
    At, Dot, Edits, Feed, FeedMap, Key, Killed, NewOperation, Operation, Part, Value, View, decode, diff,
    diff::diff_unsettled, encode,
};

/// A rule that is broken on purpose, to see that the judges notice.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Plant {
    None,
    /// Operations replace what the replica holds rather than what the disk showed.
    ReplicaAsBase,
    /// What depends on a touched name is left to jump.
    Unsettled,
    /// Checkpoints do not tell what of others is dead.
    Unkilled,
}

#[derive(Clone)]
pub struct Record {
    pub author: usize,
    /// How many checkpoints its author had made.
    generation: usize,
    pub seq: u64,
    height: u64,
    context: u128,
    operations: Vec<Arc<Operation>>,
    checkpoint: Option<Part>,
}

#[derive(Clone, Default)]
pub struct Replica {
    pub held: u128,
    pub feed: Feed,
    pub disk: FeedMap,
}

pub struct World {
    pub records: Vec<Record>,
    pub replicas: Vec<Replica>,
    pub plant: Plant,
    pub operations: usize,
    pub checkpoints: usize,
    pub log: Vec<String>,
    /// Contents of which a user removed or replaced a copy that was shown to him.
    given_up: BTreeSet<ContentId>,
}

pub type Judged<T = ()> = Result<T, String>;

fn bits(set: u128) -> impl DoubleEndedIterator<Item = usize> {
    (0..128).filter(move |bit| set >> bit & 1 == 1)
}

/// Names that come in the order of the authors, then of the places in their chains.
fn record_key(author: usize, generation: usize, seq: u64) -> RecordKey {
    let mut key = [u8::try_from(author).unwrap() + 1; 16];
    key[7] = u8::try_from(generation).unwrap();
    key[8..].copy_from_slice(&seq.to_be_bytes());
    RecordKey(key)
}

impl World {
    pub fn new(replicas: usize, plant: Plant) -> World {
        let replicas = vec![Replica::default(); replicas];
        World {
            records: Vec::new(),
            replicas,
            plant,
            operations: 0,
            checkpoints: 0,
            log: Vec::new(),
            given_up: BTreeSet::new(),
        }
    }

    fn record_of(&self, dot: &Dot) -> Option<usize> {
        self.record_at(&dot.record)
    }

    /// A user edits the tree on the disk of a replica. False when nothing came of it.
    pub fn user(&mut self, author: usize, change: impl FnOnce(&mut Tree)) -> Judged<bool> {
        let replica = &self.replicas[author];
        let view = replica.disk.view();
        let (before, viewed) = (flat(&view), Tree::of(&view));
        let mut tree = viewed.clone();
        change(&mut tree);
        let want = tree.flat();
        let edits = tree.edits(&viewed);
        let mut operations = self.diff(author, &edits)?;
        if operations.is_empty() {
            return if want == before { Ok(false) } else { Err("I5: no operation for a change".into()) };
        }
        for dot in operations.iter().flat_map(|operation| &operation.base) {
            self.judge_replaced(&before, dot)?;
        }
        let (had, has) = (copies(&before), copies(&want));
        self.given_up.extend(had.iter().filter(|(content, count)| has.get(content) < Some(count)).map(|(it, _)| it));
        self.log.push(format!(
            "{author}: {} -> {}",
            describe(&edits),
            operations.iter().map(brief).collect::<String>()
        ));
        operations.sort_by_key(|operation| std::cmp::Reverse(operation.key.clone()));
        let record = self.write(author, &operations)?;
        let operations = &self.records[record].operations;
        self.replicas[author].disk.apply(operations);
        let got = flat(&self.replicas[author].disk.view());
        if got != want {
            return Err(format!("I5: the disk of {author}\n before {before:?}\n wants {want:?}\n gets {got:?}"));
        }
        self.receive(author, record)?;
        Ok(true)
    }

    fn diff(&self, author: usize, edits: &Edits) -> Judged<Vec<NewOperation>> {
        let Replica { feed, disk, .. } = &self.replicas[author];
        let map = feed.map();
        let operations =
            if self.plant == Plant::Unsettled { diff_unsettled(disk, edits) } else { diff(disk, map, edits) };
        let mut operations = operations.map_err(|error| format!("edits refused: {error}"))?;
        if self.plant == Plant::ReplicaAsBase {
            for operation in &mut operations {
                let held: BTreeSet<Dot> = map.at(&operation.key).iter().map(|live| live.dot).collect();
                operation.base =
                    held.into_iter().chain(operation.base.drain(..)).collect::<BTreeSet<_>>().into_iter().collect();
            }
        }
        Ok(operations)
    }

    fn judge_replaced(&self, before: &Flat, dot: &Dot) -> Judged {
        let record = self.record_of(dot).ok_or("a base names an unknown record")?;
        let replaced = &self.records[record].operations[usize::from(dot.index)];
        match &replaced.value {
            Value::File(file) if !before.values().any(|shown| is_content(shown, file.content)) => {
                Err(format!("I6: replaces {:?}, which its author never saw", replaced.key))
            }
            _ => Ok(()),
        }
    }

    /// Writes one record through the form it has on the wire.
    fn write(&mut self, author: usize, operations: &[NewOperation]) -> Judged<usize> {
        let mut record = self.next(author);
        let bytes = encode(operations).map_err(|error| format!("not written: {error}"))?;
        let operations = decode(&bytes, record.key(), record.height).map_err(|error| format!("void: {error}"))?;
        self.operations += operations.len();
        record.operations = operations.into_iter().map(Arc::new).collect();
        self.records.push(record);
        Ok(self.records.len() - 1)
    }

    /// The next record of an author, empty.
    fn next(&self, author: usize) -> Record {
        let context = self.replicas[author].held;
        let own = || self.records.iter().filter(|record| record.author == author);
        let generation = own().map(|record| record.generation).max().unwrap_or(0);
        let seq = 1 + own().filter(|record| record.generation == generation).count() as u64;
        let height = 1 + bits(context).map(|record| self.records[record].height).max().unwrap_or(0);
        Record { author, generation, seq, height, context, operations: Vec::new(), checkpoint: None }
    }

    /// A replica lists what of its operations lives. With `all`, tombstones that nothing needs are listed too.
    pub fn checkpoint(&mut self, author: usize, all: bool) -> Judged {
        let mut record = self.next(author);
        let old = (0..=record.generation).map(|it| (chain_id(author, it), incarnation(it))).collect();
        (record.generation, record.seq) = (record.generation + 1, 1);
        let of_author = |dot: &Dot| self.record_of(dot).is_some_and(|record| self.records[record].author == author);
        let is_listed =
            |op: &&Arc<Operation>| of_author(&op.dot) && (all || !op.value.is_tombstone() || !op.former.is_empty());
        let listed: Vec<_> = self.replicas[author].feed.map().iter().flatten().filter(is_listed).cloned().collect();
        let place = |record: &RecordKey| {
            let record = &self.records[self.record_at(record)?];
            Some((chain_id(record.author, record.generation), record.seq))
        };
        let killed = if self.plant == Plant::Unkilled { Killed::new() } else { self.killed(author, record.context) };
        let mut parts = Part::split(old, listed, killed, place);
        let part = parts.pop().filter(|_| parts.is_empty()).ok_or("more than one part")?;
        let read = part
            .encode()
            .and_then(|bytes| Part::decode(&bytes, &device(author), &OBJECT))
            .map_err(|error| format!("void: {error}"))?;
        if read != part {
            return Err("a checkpoint does not read as it was written".into());
        }
        record.checkpoint = Some(read);
        self.records.push(record);
        self.checkpoints += 1;
        self.log.push(format!("{author}: checkpoint {part:?}"));
        self.receive(author, self.records.len() - 1)
    }

    /// What of others the operations of an author replaced, but for what its own author has withdrawn.
    fn killed(&self, author: usize, held: u128) -> Killed {
        let mut killed = Killed::new();
        let withdrawn = self.withdrawn(held);
        for record in bits(held).map(|record| &self.records[record]).filter(|record| record.author == author) {
            let of_others = |dot: &&Dot| self.record_of(dot).is_some_and(|by| self.records[by].author != author);
            let bases = record.operations.iter().map(|op| (&op.key, op.base.iter().collect::<Vec<_>>()));
            let earlier = record.checkpoint.iter().flat_map(|part| &part.killed);
            for (key, dots) in bases.chain(earlier.map(|(key, dots)| (key, dots.iter().collect()))) {
                let dots = dots.into_iter().filter(of_others).filter(|dot| !withdrawn.contains(dot));
                killed.entry(key.clone()).or_default().extend(dots.copied());
            }
        }
        killed.retain(|_, dots| !dots.is_empty());
        killed
    }

    /// The operations that checkpoints among these records do not list.
    fn withdrawn(&self, held: u128) -> BTreeSet<Dot> {
        let mut withdrawn = BTreeSet::new();
        for record in bits(held).map(|record| &self.records[record]) {
            let Some(part) = &record.checkpoint else { continue };
            let listed: BTreeSet<Dot> = part.listed.iter().map(|operation| operation.dot).collect();
            let is_before = |other: &&Record| other.author == record.author && other.generation < record.generation;
            let before = self.records.iter().filter(is_before).flat_map(|other| &other.operations);
            withdrawn.extend(before.map(|operation| operation.dot).filter(|dot| !listed.contains(dot)));
        }
        withdrawn
    }

    fn record_at(&self, key: &RecordKey) -> Option<usize> {
        self.records.iter().position(|record| record.key() == *key)
    }

    fn chain_of(&self, key: &RecordKey) -> Option<ChainId> {
        let record = &self.records[self.record_at(key)?];
        Some(chain_id(record.author, record.generation))
    }

    /// What a newcomer makes of the records that a replica holds when the chains of some authors begin at a checkpoint: for
    /// each author one of those that `choose` is offered.
    pub fn judge_newcomer(&self, at: usize, mut choose: impl FnMut(usize) -> usize) -> Judged {
        let held = self.replicas[at].held;
        let mut floors = vec![0; self.replicas.len()];
        for (author, floor) in floors.iter_mut().enumerate() {
            let own = bits(held).map(|record| &self.records[record]).filter(|record| record.author == author);
            let newest = own.filter(|record| record.checkpoint.is_some()).map(|record| record.generation).max();
            *floor = choose(newest.unwrap_or(0) + 1);
        }
        let is_taken = |record: &Record| record.generation >= floors[record.author];
        let mut taken: Vec<usize> = bits(held).filter(|record| is_taken(&self.records[*record])).collect();
        taken.sort_by_key(|record| (self.records[*record].height, *record));
        let mut feed = Feed::default();
        let mut merged: BTreeSet<RecordKey> = BTreeSet::new();
        for record in taken.into_iter().map(|record| &self.records[record]) {
            let in_context = |key: &RecordKey| {
                self.record_at(key).is_some_and(|it| is_taken(&self.records[it]) && record.context >> it & 1 == 1)
            };
            match &record.checkpoint {
                Some(part) => {
                    drop(feed.list(record.at(), part, |key| merged.contains(key), |key| self.chain_of(key)));
                    merged.extend(part.places.keys());
                }
                None => drop(feed.apply(&record.operations, in_context)),
            }
            merged.insert(record.key());
        }
        if feed.map() != self.replicas[at].feed.map() {
            return Err(format!("I2: a newcomer with the floors {floors:?} differs from {at}"));
        }
        Ok(())
    }

    fn receive(&mut self, to: usize, record: usize) -> Judged {
        let mut feed = std::mem::take(&mut self.replicas[to].feed);
        let Record { context, operations, checkpoint, .. } = &self.records[record];
        let in_context = |key: &RecordKey| self.record_at(key).is_some_and(|record| context >> record & 1 == 1);
        match checkpoint {
            Some(part) => drop(feed.list(self.records[record].at(), part, |_| true, |key| self.chain_of(key))),
            None => drop(feed.apply(operations, in_context)),
        }
        self.replicas[to].feed = feed;
        self.replicas[to].held |= 1 << record;
        self.judge(to)
    }

    /// Records that `from` could hand to `to` now.
    pub fn ready(&self, from: usize, to: usize) -> Vec<usize> {
        let (held, missing) = (self.replicas[to].held, self.replicas[from].held & !self.replicas[to].held);
        bits(missing).filter(|record| self.records[*record].context & !held == 0).collect()
    }

    pub fn deliver(&mut self, to: usize, record: usize) -> Judged {
        let Record { author, generation, seq, .. } = self.records[record];
        self.log.push(format!("{to} gets {author}.{generation}.{seq}"));
        self.receive(to, record)
    }

    pub fn sync(&mut self, from: usize, to: usize) -> Judged {
        while let Some(record) = self.ready(from, to).first() {
            self.deliver(to, *record)?;
        }
        Ok(())
    }

    /// Puts what the replica holds under the chosen keys on its disk.
    pub fn place(&mut self, at: usize, mut chosen: impl FnMut(&Key) -> bool) {
        let Replica { feed, disk, .. } = &mut self.replicas[at];
        let map = feed.map();
        let keys: BTreeSet<Key> = map.keys().chain(disk.keys()).cloned().collect();
        for key in keys {
            if disk.at(&key) != map.at(&key) && chosen(&key) {
                let live = map.at(&key).to_vec();
                disk.set_key(key.clone(), live);
                self.log.push(format!("{at} places {:?}", key));
            }
        }
    }

    fn judge(&self, at: usize) -> Judged {
        let Replica { held, feed, disk } = &self.replicas[at];
        let map = feed.map();
        let fresh = self.by_definition(*held);
        if fresh != *map {
            return Err(format!("I1: the map of {at} is not the function of its records"));
        }
        if *fresh.skeleton() != *map.skeleton() {
            return Err(format!("I1: the directories of {at} were not computed again"));
        }
        judge_view(&map.view())?;
        judge_view(&disk.view())
    }

    /// The live operations of a set of records by the definition.
    fn by_definition(&self, held: u128) -> FeedMap {
        let mut replaced: BTreeSet<(Dot, &Key)> = BTreeSet::new();
        for record in bits(held).map(|record| &self.records[record]) {
            for operation in &record.operations {
                let known = |dot: &&Dot| self.record_of(dot).is_some_and(|base| record.context >> base & 1 == 1);
                replaced.extend(operation.base.iter().filter(known).map(|dot| (*dot, &operation.key)));
            }
        }
        for part in bits(held).filter_map(|record| self.records[record].checkpoint.as_ref()) {
            replaced.extend(part.killed.iter().flat_map(|(key, dots)| dots.iter().map(move |dot| (*dot, key))));
        }
        let withdrawn = self.withdrawn(held);
        let mut live: BTreeMap<Key, Vec<Arc<Operation>>> = BTreeMap::new();
        for operation in bits(held).rev().flat_map(|record| &self.records[record].operations) {
            if !replaced.contains(&(operation.dot, &operation.key)) && !withdrawn.contains(&operation.dot) {
                live.entry(operation.key.clone()).or_default().push(operation.clone());
            }
        }
        let mut map = FeedMap::default();
        live.into_iter().for_each(|(key, live)| map.set_key(key, live));
        map
    }

    /// Everybody gets everything: all trees are equal, and nothing is gone without a successor.
    pub fn finish(&mut self) -> Judged {
        let replicas = self.replicas.len();
        for (from, to) in (0..2 * replicas).flat_map(|from| (0..replicas).map(move |to| (from % replicas, to))) {
            if from != to {
                self.sync(from, to)?;
            }
        }
        let trees: Vec<Flat> = self.replicas.iter().map(|replica| flat(&replica.feed.map().view())).collect();
        if trees.windows(2).any(|pair| pair[0] != pair[1]) {
            return Err("I8: the trees differ".into());
        }
        for (at, tree) in trees.iter().enumerate() {
            self.place(at, |_| true);
            if self.replicas[at].disk != *self.replicas[at].feed.map() || flat(&self.replicas[at].disk.view()) != *tree
            {
                return Err(format!("I8: the disk of {at} differs from its map when all is placed"));
            }
        }
        self.judge_ledger(&trees[0])
    }

    fn judge_ledger(&self, tree: &Flat) -> Judged {
        let all = || self.records.iter().flat_map(|record| &record.operations);
        let replaced: BTreeSet<Dot> = all().flat_map(|operation| operation.base.iter().copied()).collect();
        for operation in all() {
            let Value::File(file) = &operation.value else { continue };
            if !replaced.contains(&operation.dot) && !tree.values().any(|shown| is_content(shown, file.content)) {
                return Err(format!("I9: {:?} is gone without a successor", operation.key));
            }
            if !self.given_up.contains(&file.content) && !tree.values().any(|shown| is_content(shown, file.content)) {
                return Err(format!("I10: {:?} is gone and no user gave it up", operation.key));
            }
        }
        Ok(())
    }
}

impl Record {
    fn key(&self) -> RecordKey {
        record_key(self.author, self.generation, self.seq)
    }

    fn at(&self) -> At {
        At { chain: chain_id(self.author, self.generation), seq: self.seq, begins: true, ends: true }
    }
}

const OBJECT: ObjectId = ObjectId([1; 32]);

fn device(author: usize) -> DeviceId {
    DeviceId([author as u8; 32])
}

fn incarnation(generation: usize) -> Incarnation {
    Incarnation([generation as u8; 8])
}

fn chain_id(author: usize, generation: usize) -> ChainId {
    ChainId::of(&device(author), &OBJECT, &incarnation(generation))
}

fn copies(tree: &Flat) -> BTreeMap<ContentId, usize> {
    let mut copies = BTreeMap::new();
    for shown in tree.values() {
        if let Shows::File { content, .. } = shown {
            *copies.entry(*content).or_default() += 1;
        }
    }
    copies
}

fn is_content(shown: &Shows, is: ContentId) -> bool {
    matches!(shown, Shows::File { content, .. } if *content == is)
}

fn judge_view(view: &View<'_>) -> Judged {
    let tree = view.flatten();
    let live = || view.map().iter().flatten();
    let shown: BTreeSet<Dot> = tree.values().flat_map(|entry| entry.sources()).map(|source| source.dot).collect();
    for operation in live() {
        let is_file = operation.value.file().is_some();
        if is_file && !shown.contains(&operation.dot) {
            return Err(format!("I3: live {:?} is not shown", operation.key));
        }
    }
    let dots: BTreeSet<Dot> = live().map(|operation| operation.dot).collect();
    for (path, entry) in &tree {
        if !entry.sources().iter().all(|source| dots.contains(&source.dot))
            || entry.file().is_some_and(|_| entry.sources().is_empty())
        {
            return Err(format!("I4: {path:?} is shown and not live"));
        }
    }
    judge_lookups(view)
}

/// Whatever way a page or a directory is looked up, it is the same.
fn judge_lookups(view: &View<'_>) -> Judged {
    for node in view.nodes() {
        for (name, entry) in view.page(node) {
            if view.entry_in(node, &name).as_ref() != Some(&entry) {
                return Err(format!("page and entry differ at {name:?}"));
            }
            if let Some(child) = entry.node()
                && view.slot_of(child) != Some((node, name))
            {
                return Err(format!("slot of {child:?} is {:?}", view.slot_of(child)));
            }
        }
        let ids: &[DirId] = view.ids_of(node);
        if view.node_at(&view.path_of(node)) != Some(node) || ids.iter().any(|dir| view.node_of(*dir) != Some(node)) {
            return Err(format!("path of {node:?} leads elsewhere"));
        }
    }
    Ok(())
}

fn describe(edits: &Edits) -> String {
    edits
        .edits
        .iter()
        .map(|edit| format!("[{:?} {:?} = {:.40}]", edit.at, edit.name, format!("{:?}", edit.now)))
        .collect()
}

fn brief(operation: &NewOperation) -> String {
    let value = match &operation.value {
        Value::Tombstone => "gone".into(),
        Value::File(file) => format!("{:?}", file.content),
        Value::Dir(ids) => format!("{ids:?}"),
    };
    let base: Vec<_> = operation.base.iter().map(|dot| (dot.record.short(), dot.index)).collect();
    format!(" {:?}/{:?}={value} base {base:?} former {:?};", operation.key.dir, operation.key.name, operation.former)
}
