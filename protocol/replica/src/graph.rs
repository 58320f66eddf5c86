//! The graph of an object: the small, slow, structured part of what is shared, held in an automerge document.
//!
//! Five flat maps of encoded values: devices, objects, mappings (which device holds which object), settings and contacts. A
//! change is what one device did at once; it travels as the body of a signed record and is judged here again, because a
//! valid signature says who wrote a change and not that it is harmless. What is refused depends only on the change and on
//! those it builds on, never on what else a replica holds, so that all replicas refuse the same.

mod change;
mod schema;
mod validate;

#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    num::NonZeroU64,
    panic::{AssertUnwindSafe, catch_unwind},
};

use automerge::{Automerge, Change, ChangeHash, ObjId, ReadDoc as _, ScalarValueRef, ValueRef, legacy};
use meshwork_protocol::{
    codec,
    id::{DeviceId, Incarnation, MeshId, ObjectId},
    limits,
};
use serde::{Serialize, de::DeserializeOwned};

pub use self::schema::{Contact, Device, Edit, GraphEvent, Mapping, Object};
use self::{
    change::{Head, Row},
    schema::Map,
};

/// The author of changes: one device, for one object, since its last restore.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct GraphActor(pub [u8; 32]);

impl GraphActor {
    /// The author that belongs to a chain of records.
    pub fn new(device: DeviceId, object: ObjectId, incarnation: Incarnation) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(b"mesh.v1.actor").update(&device.0).update(&object.0).update(&incarnation.0);
        Self(*hasher.finalize().as_bytes())
    }
}

/// Why a change was not applied. The graph is as it was.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChangeError {
    /// Not the bytes of a change, or not the one encoding of it.
    #[error("malformed change: {0}")]
    Malformed(&'static str),
    /// Something that automerge knows and a graph does not.
    #[error("not allowed in a graph: {0}")]
    Forbidden(&'static str),
    /// More than a change may have.
    #[error("too many or too large: {0}")]
    Bound(&'static str),
    /// Written by another author than the one that signed it.
    #[error("the author of the change is not its signer")]
    Author,
    /// Not the next change of its author.
    #[error("change {found} of this author where {expected} is due")]
    Sequence {
        /// The number that is due.
        expected: u64,
        /// The number that came.
        found: u64,
    },
    /// Changes that must be applied first.
    #[error("{} changes are missing", .0.len())]
    Missing(Vec<[u8; 32]>),
    /// It does not build on its author's last change.
    #[error("the change does not build on its author's last one")]
    Detached,
    /// Its operations are not numbered after those it builds on.
    #[error("operations start at {found} where {expected} is due")]
    Counter {
        /// The number that is due.
        expected: u64,
        /// The number that came.
        found: u64,
    },
    /// It replaces other values than those its author can have seen.
    #[error("the change does not replace what its author saw")]
    Replaced,
    /// The graph would have more entries than it may.
    #[error("the graph is full")]
    Full,
    /// Automerge refused it, panicked, or could not load what it had saved.
    #[error("the document does not stand this change")]
    Poison,
}

/// A change together with who signed it and the number that is due from him.
#[derive(Debug, Clone, Copy)]
pub struct Signed<'b> {
    /// The author whose signature was verified.
    pub actor: GraphActor,
    /// Which of his graph changes this is, from 1.
    pub seq: u64,
    /// The change.
    pub bytes: &'b [u8],
}

#[derive(Debug, Clone)]
struct Applied {
    deps: Vec<[u8; 32]>,
    max: u64,
}

#[derive(Debug, Clone, Copy)]
struct Tip {
    seq: u64,
    hash: [u8; 32],
}

/// A graph.
#[derive(Clone)]
pub struct Graph {
    document: Automerge,
    applied: BTreeMap<[u8; 32], Applied>,
    tips: BTreeMap<[u8; 32], Tip>,
    /// Operations of all changes, an upper bound of the entries.
    operations: usize,
}

impl Default for Graph {
    fn default() -> Self {
        Self::new()
    }
}

impl Graph {
    /// An empty graph: the fixed first change and nothing else.
    pub fn new() -> Self {
        let first = schema::first_change();
        let mut document = Automerge::new();
        document.apply_changes([first.clone()]).expect("the first change is a constant of the format");
        let applied = Applied { deps: Vec::new(), max: first.max_op() };
        Self { document, applied: BTreeMap::from([(first.hash().0, applied)]), tips: BTreeMap::new(), operations: 0 }
    }

    /// Applies an own edit and returns the change to sign and publish; `None` when it changes nothing.
    ///
    /// # Errors
    /// When a name or value is too long or the graph is full.
    pub fn edit(&mut self, actor: GraphActor, edit: Edit) -> Result<Option<Vec<u8>>, ChangeError> {
        edit.check()?;
        let deps = self.deps_for(&actor);
        let seq = self.tips.get(&actor.0).map_or(1, |tip| tip.seq.saturating_add(1));
        let mut rows = Vec::new();
        for ((map, key), value) in edit.0 {
            let seen = self.seen(map, &key, &deps)?;
            let same = match (&seen.values[..], &value) {
                ([], None) => true,
                ([now], Some(value)) => now == value,
                _ => false,
            };
            if !same {
                rows.push(Row { map, key, value, replaced: seen.operations });
            }
        }
        if rows.is_empty() {
            return Ok(None);
        }
        let start = NonZeroU64::new(self.next_counter(&deps)).ok_or(ChangeError::Bound("counter"))?;
        let change = change::write(Head { actor: actor.0, seq, start, deps }, rows);
        let bytes = change.raw_bytes().to_vec();
        self.apply(Signed { actor, seq, bytes: &bytes })?;
        Ok(Some(bytes))
    }

    /// Judges and applies one change. The events are sorted and name each entry once.
    ///
    /// # Errors
    /// [`ChangeError::Missing`] may pass when other changes come; all else is final.
    pub fn apply(&mut self, signed: Signed<'_>) -> Result<Vec<GraphEvent>, ChangeError> {
        let judged = self.judge(signed)?;
        self.document = trial(&self.document, &judged.change)?;
        Ok(self.adopt(judged))
    }

    /// Applies many changes, each the next of its author, as if one by one, but checks once for all of them that the
    /// document can be loaded again. For reading a log.
    pub fn apply_all(&mut self, changes: &[(GraphActor, Vec<u8>)]) -> Vec<Result<Vec<GraphEvent>, ChangeError>> {
        let mut next = self.clone();
        let results: Vec<_> =
            changes.iter().map(|(actor, bytes)| next.apply_unchecked(next.due(*actor, bytes))).collect();
        let sound = !results.contains(&Err(ChangeError::Poison)) && reloads(&next.document);
        if sound {
            *self = next;
            return results;
        }
        changes.iter().map(|(actor, bytes)| self.apply(self.due(*actor, bytes))).collect()
    }

    /// A change as the next of its author.
    pub fn due<'b>(&self, actor: GraphActor, bytes: &'b [u8]) -> Signed<'b> {
        Signed { actor, seq: self.seq(actor).saturating_add(1), bytes }
    }

    /// Of no use any more after [`ChangeError::Poison`].
    fn apply_unchecked(&mut self, signed: Signed<'_>) -> Result<Vec<GraphEvent>, ChangeError> {
        let judged = self.judge(signed)?;
        let stands = guarded(|| enter(&mut self.document, &judged.change))?;
        if stands { Ok(self.adopt(judged)) } else { Err(ChangeError::Poison) }
    }

    /// Notes a change that is in the document.
    fn adopt(&mut self, judged: Judged) -> Vec<GraphEvent> {
        let hash = judged.change.hash().0;
        self.operations = self.operations.saturating_add(judged.rows.len());
        self.tips.insert(judged.actor, Tip { seq: judged.change.seq(), hash });
        self.applied.insert(hash, Applied { deps: judged.deps, max: judged.change.max_op() });
        let events: BTreeSet<_> = judged.rows.iter().filter_map(|row| GraphEvent::of(row.map, &row.key)).collect();
        events.into_iter().collect()
    }

    /// Everything that can be known of a change without applying it.
    fn judge(&self, signed: Signed<'_>) -> Result<Judged, ChangeError> {
        let outline = validate::outline(signed.bytes)?;
        if outline.actor != signed.actor.0 {
            return Err(ChangeError::Author);
        }
        let tip = self.tips.get(&outline.actor);
        let due = tip.map_or(1, |tip| tip.seq.saturating_add(1));
        if outline.seq != due || signed.seq != due {
            let found = if signed.seq == due { outline.seq } else { signed.seq };
            return Err(ChangeError::Sequence { expected: due, found });
        }
        let missing: Vec<_> = outline.deps.iter().filter(|dep| !self.applied.contains_key(*dep)).copied().collect();
        if !missing.is_empty() {
            return Err(ChangeError::Missing(missing));
        }
        if outline.deps.is_empty() || tip.is_some_and(|tip| !self.reaches(&outline.deps, &tip.hash)) {
            return Err(ChangeError::Detached);
        }
        let expected = self.next_counter(&outline.deps);
        if outline.start != expected {
            return Err(ChangeError::Counter { expected, found: outline.start });
        }
        if expected > limits::GRAPH_COUNTER {
            return Err(ChangeError::Bound("counter"));
        }
        let (change, rows) = guarded(|| change::read(signed.bytes))??;
        if rows.len() != outline.operations {
            return Err(ChangeError::Malformed("number of operations"));
        }
        for row in &rows {
            if self.seen(row.map, &row.key, &outline.deps)?.operations != row.replaced {
                return Err(ChangeError::Replaced);
            }
        }
        self.check_room(&outline.deps, &rows)?;
        Ok(Judged { change, rows, actor: outline.actor, deps: outline.deps })
    }

    /// Counts the entries that the author saw, once there have been enough operations for it to matter.
    fn check_room(&self, deps: &[[u8; 32]], rows: &[Row]) -> Result<(), ChangeError> {
        if self.operations.saturating_add(rows.len()) <= limits::GRAPH_ENTRIES {
            return Ok(());
        }
        let heads = hashes(deps);
        let seen: usize = guarded(|| Map::ALL.iter().map(|map| self.document.length_at(map.id(), &heads)).sum())?;
        let new = rows.iter().filter(|row| row.value.is_some() && row.replaced.is_empty()).count();
        if new > 0 && seen.saturating_add(new) > limits::GRAPH_ENTRIES {
            return Err(ChangeError::Full);
        }
        Ok(())
    }

    /// What stood at a key for someone who knew exactly `deps` and what they build on.
    fn seen(&self, map: Map, key: &str, deps: &[[u8; 32]]) -> Result<Seen, ChangeError> {
        let heads = hashes(deps);
        let all = guarded(|| self.document.get_all_at(map.id(), key, &heads))?.map_err(|_| ChangeError::Poison)?;
        let mut values = Vec::new();
        let mut operations = Vec::with_capacity(all.len());
        for (value, id) in all {
            if let ObjId::Id(counter, actor, _) = id {
                operations.push(legacy::OpId::new(counter, &actor));
            }
            values.extend(value.as_bytes().map(<[u8]>::to_vec));
        }
        Ok(Seen { operations: operations.into(), values })
    }

    /// Whether `target` is among `from` or what they build on.
    fn reaches(&self, from: &[[u8; 32]], target: &[u8; 32]) -> bool {
        // Counters grow along every edge, so that nothing at or below the target's leads to it.
        let floor = self.applied.get(target).map_or(u64::MAX, |applied| applied.max);
        let mut open = from.to_vec();
        let mut known: BTreeSet<[u8; 32]> = from.iter().copied().collect();
        while let Some(hash) = open.pop() {
            if hash == *target {
                return true;
            }
            let Some(applied) = self.applied.get(&hash).filter(|applied| applied.max > floor) else {
                continue;
            };
            open.extend(applied.deps.iter().filter(|dep| known.insert(**dep)));
        }
        false
    }

    fn next_counter(&self, deps: &[[u8; 32]]) -> u64 {
        let newest = deps.iter().filter_map(|dep| self.applied.get(dep)).map(|applied| applied.max).max();
        newest.unwrap_or(0).saturating_add(1)
    }

    /// What an own change builds on: all heads, or as many as are allowed, the own last change among them.
    fn deps_for(&self, actor: &GraphActor) -> Vec<[u8; 32]> {
        let mut deps = self.heads();
        if deps.len() > limits::GRAPH_DEPS {
            let own = self.tips.get(&actor.0).map(|tip| tip.hash);
            deps.retain(|head| Some(*head) != own);
            deps.truncate(limits::GRAPH_DEPS - usize::from(own.is_some()));
            deps.extend(own);
            deps.sort_unstable();
        }
        deps
    }

    /// The hashes of the changes on which no other builds, sorted.
    pub fn heads(&self) -> Vec<[u8; 32]> {
        sorted_heads(&self.document)
    }

    /// Equal exactly when two graphs have applied the same changes.
    pub fn hash(&self) -> [u8; 32] {
        *blake3::hash(&self.heads().concat()).as_bytes()
    }

    /// How many changes of an author are applied.
    pub fn seq(&self, actor: GraphActor) -> u64 {
        self.tips.get(&actor.0).map_or(0, |tip| tip.seq)
    }

    /// The devices. Of several values written at once the same one is shown everywhere; entries that do not decode are
    /// not shown.
    pub fn devices(&self) -> BTreeMap<DeviceId, Device> {
        self.rows::<Device>(Map::Devices, String::new()..)
            .filter_map(|(key, row)| Some((DeviceId(schema::parse_id(&key)?), row)))
            .collect()
    }

    /// The entry of one device.
    pub fn device(&self, device: DeviceId) -> Option<Device> {
        self.row(Map::Devices, &device.to_string())
    }

    /// The entry of one object.
    pub fn object(&self, object: ObjectId) -> Option<Object> {
        self.row(Map::Objects, &object.to_string())
    }

    /// The entry of one person.
    pub fn contact(&self, person: MeshId) -> Option<Contact> {
        self.row(Map::Contacts, &person.to_string())
    }

    /// The objects.
    pub fn objects(&self) -> BTreeMap<ObjectId, Object> {
        self.rows::<Object>(Map::Objects, String::new()..)
            .filter_map(|(key, row)| Some((ObjectId(schema::parse_id(&key)?), row)))
            .collect()
    }

    /// Other persons.
    pub fn contacts(&self) -> BTreeMap<MeshId, Contact> {
        self.rows::<Contact>(Map::Contacts, String::new()..)
            .filter_map(|(key, row)| Some((MeshId(schema::parse_id(&key)?), row)))
            .collect()
    }

    /// The devices that hold an object.
    pub fn mappings(&self, object: ObjectId) -> BTreeMap<DeviceId, Mapping> {
        let rows = self.rows::<Mapping>(Map::Mappings, schema::mapping_range(object));
        rows.filter_map(|(key, row)| Some((schema::parse_mapping_key(&key)?.1, row))).collect()
    }

    /// The value of a setting.
    pub fn setting(&self, name: &str) -> Option<Vec<u8>> {
        let (value, _) = self.document.get(Map::Settings.id(), name).ok()??;
        value.as_bytes().map(<[u8]>::to_vec)
    }

    /// The settings whose names begin with `prefix`.
    pub fn settings(&self, prefix: &str) -> BTreeMap<String, Vec<u8>> {
        let rows = self.document.map_range(Map::Settings.id(), prefix.to_owned()..);
        let rows = rows.take_while(|item| item.key.starts_with(prefix));
        rows.filter_map(|item| match item.value {
            ValueRef::Scalar(ScalarValueRef::Bytes(bytes)) => Some((item.key.into_owned(), bytes.to_vec())),
            _ => None,
        })
        .collect()
    }

    fn row<T: Serialize + DeserializeOwned>(&self, map: Map, key: &str) -> Option<T> {
        let (value, _) = self.document.get(map.id(), key).ok()??;
        codec::decode(value.as_bytes()?, limits::GRAPH_VALUE).ok()
    }

    fn rows<T: Serialize + DeserializeOwned>(
        &self,
        map: Map,
        range: impl std::ops::RangeBounds<String> + 'static,
    ) -> impl Iterator<Item = (String, T)> {
        self.document.map_range(map.id(), range).filter_map(|item| match item.value {
            ValueRef::Scalar(ScalarValueRef::Bytes(bytes)) => {
                Some((item.key.into_owned(), codec::decode(&bytes, limits::GRAPH_VALUE).ok()?))
            }
            _ => None,
        })
    }
}

struct Seen {
    operations: legacy::SortedVec<legacy::OpId>,
    values: Vec<Vec<u8>>,
}

struct Judged {
    change: Change,
    rows: Vec<Row>,
    actor: [u8; 32],
    deps: Vec<[u8; 32]>,
}

fn hashes(deps: &[[u8; 32]]) -> Vec<ChangeHash> {
    deps.iter().map(|dep| ChangeHash(*dep)).collect()
}

fn sorted_heads(document: &Automerge) -> Vec<[u8; 32]> {
    let mut heads: Vec<[u8; 32]> = document.get_heads().into_iter().map(|head| head.0).collect();
    heads.sort_unstable();
    heads
}

/// Runs what calls into automerge; a panic there is an answer.
fn guarded<T>(work: impl FnOnce() -> T) -> Result<T, ChangeError> {
    catch_unwind(AssertUnwindSafe(work)).map_err(|_| ChangeError::Poison)
}

/// Applies a change to a document, and says whether it has become a head of it.
fn enter(document: &mut Automerge, change: &Change) -> bool {
    document.apply_changes([change.clone()]).is_ok() && document.get_heads().contains(&change.hash())
}

/// Applies a change to a copy of the document, which is returned when what it saves can be loaded.
fn trial(document: &Automerge, change: &Change) -> Result<Automerge, ChangeError> {
    let next = guarded(|| {
        let mut next = document.clone();
        enter(&mut next, change).then_some(next)
    })?;
    next.filter(reloads).ok_or(ChangeError::Poison)
}

fn reloads(document: &Automerge) -> bool {
    let same = || {
        let again = Automerge::load(&document.save_nocompress()).ok()?;
        (sorted_heads(&again) == sorted_heads(document)).then_some(())
    };
    matches!(guarded(same), Ok(Some(())))
}
