//! What an author writes: the difference between the tree that his disk showed and the tree it shows
//! now, and everything derived that the difference would otherwise let jump.

mod overlay;
mod settle;

use std::collections::BTreeMap;

use meshwork_protocol::{id::DirId, limits};

use self::{
    overlay::{Overlay, Shown, Slot, Spot},
    settle::Touched,
};
use super::{
    map::FeedMap,
    operation::{Dot, FileValue, Former, Key, Name, NewOperation, Operation, Order, Value},
    view::View,
};

/// A directory in the edited tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum NodeRef {
    /// One that the view shows, by any of its ids.
    Known(DirId),
    /// One that is new, by its position in [`Edits::new_dirs`].
    New(usize),
}

/// What a name shows after an edit.
#[derive(Debug, Clone, PartialEq)]
pub enum Now {
    /// Nothing.
    Absent,
    /// A file.
    File(FileValue),
    /// A directory.
    Dir(NodeRef),
}

/// One name that shows something else than the view says.
#[derive(Debug, Clone, PartialEq)]
pub struct Edit {
    /// The directory.
    pub at: NodeRef,
    /// The name in it.
    pub name: Name,
    /// What it shows now.
    pub now: Now,
}

/// A tree, as differences from the view of the disk base.
///
/// Names that are not mentioned are as viewed. A directory that is moved is absent at its old name and
/// a [`Now::Dir`] at the new one; one that is absent and placed nowhere else is deleted with all that
/// the view shows in it, except what is placed elsewhere. Of two edits of one name the last counts.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Edits {
    /// The names that differ.
    pub edits: Vec<Edit>,
    /// Ids for the new directories: random, never used before.
    pub new_dirs: Vec<DirId>,
}

/// Why edits do not make a tree.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EditError {
    /// The view shows no such directory.
    #[error("{0:?} is not a directory of the folder")]
    UnknownDirectory(DirId),
    /// No id was given for a new directory.
    #[error("new directory {0} has no id")]
    NoSuchNewDirectory(usize),
    /// An id for a new directory is in use.
    #[error("{0:?} is not a new id")]
    NotNew(DirId),
    /// A directory is in two places.
    #[error("{0:?} is in two places")]
    PlacedTwice(DirId),
    /// A directory is inside itself.
    #[error("{0:?} is inside itself")]
    Cycle(DirId),
}

/// The operations that make the view of `base` show the edited tree, and leave everything else where it
/// is, whatever was hidden behind what the user touched. At most one for a key, rising by key.
///
/// `base` is what the disk showed, never what the replica holds: what the author did not see he cannot
/// replace. `held` is what the replica holds: what others have replaced already is not brought back only
/// because its name has to be settled.
pub fn diff(base: &FeedMap, held: &FeedMap, edits: &Edits) -> Result<Vec<NewOperation>, EditError> {
    let view = View::new(base);
    let overlay = Overlay::new(&view, edits)?;
    let mut touched = Touched::new(&overlay);
    touched.touch_edited();
    touched.touch_moved();
    touched.settle();
    Ok(write(&overlay, held, &touched))
}

/// The difference without what settles its side effects: to show that judges notice.
#[cfg(test)]
pub(super) fn diff_unsettled(base: &FeedMap, edits: &Edits) -> Result<Vec<NewOperation>, EditError> {
    let view = View::new(base);
    let overlay = Overlay::new(&view, edits)?;
    let mut touched = Touched::new(&overlay);
    touched.touch_edited();
    touched.touch_moved();
    Ok(write(&overlay, base, &touched))
}

fn write(overlay: &Overlay<'_>, held: &FeedMap, touched: &Touched<'_>) -> Vec<NewOperation> {
    let mut operations = Vec::new();
    for (spot, name) in touched.iter() {
        write_name(overlay, held, *spot, name, &mut operations);
    }
    operations.sort_unstable_by(|left, right| left.key.cmp(&right.key));
    operations
}

/// Brings the keys of one name in line with what the edited tree shows there: keeps the operations that
/// already say so, unless something came to the name, else writes one at the smallest id's key, and
/// deletes all else.
fn write_name(overlay: &Overlay<'_>, held: &FeedMap, spot: Spot, name: &Name, operations: &mut Vec<NewOperation>) {
    let map = overlay.view().map();
    let ids = overlay.ids_of(spot);
    let slot = (spot, name.clone());
    let mut want =
        if overlay.is_reached(spot) { value_of(overlay, overlay.shown(spot, name)) } else { Value::Tombstone };
    let kept = if comes_here(overlay, held, &slot) { Value::Tombstone } else { want.clone() };
    let says_so = |operation: &Operation| !kept.is_tombstone() && operation.value.same_as(&kept);
    if ids.iter().any(|dir| map.lookup(*dir, name.as_bytes()).iter().any(|operation| says_so(operation))) {
        want = Value::Tombstone;
    }
    for dir in ids {
        // Ids rise, so the first one takes the value and the others get tombstones.
        let value = std::mem::replace(&mut want, Value::Tombstone);
        replace(map, *dir, name, value, says_so, operations);
    }
}

/// Whether the author gives a name what it shows: by his edit, or because it was shown there on behalf of
/// an operation at another name, which this diff replaces.
///
/// Then it has to be put even where an operation already says the same. Somebody else may be replacing
/// that one, as a twin of the one that goes: the content would be gone though both of them meant it to
/// stay.
fn comes_here(overlay: &Overlay<'_>, held: &FeedMap, slot: &Slot) -> bool {
    let is_held = |operation: &Operation| held.at(&operation.key).iter().any(|other| other.dot == operation.dot);
    let comes = |operation: &Operation| operation.key.name != slot.1 && is_held(operation);
    overlay.is_changed(slot)
        || overlay.entry(slot).is_some_and(|entry| entry.sources().iter().any(|operation| comes(operation)))
}

/// Writes `value` at one key over everything there that is not kept.
fn replace(
    map: &FeedMap,
    dir: DirId,
    name: &Name,
    value: Value,
    keep: impl Fn(&Operation) -> bool,
    operations: &mut Vec<NewOperation>,
) {
    let live = map.lookup(dir, name.as_bytes());
    let replaced: Vec<&Operation> = live.iter().map(AsRef::as_ref).filter(|operation| !keep(operation)).collect();
    if value.is_tombstone() && replaced.iter().all(|operation| operation.value.is_tombstone()) {
        return;
    }
    operations.push(replacement(Key { dir, name: name.clone() }, value, &replaced));
}

/// The operation that puts `value` at a key over others there, given in rising order.
pub fn replacement(key: Key, value: Value, replaced: &[&Operation]) -> NewOperation {
    // What is over the limit stays as it is; the newest are replaced.
    let beyond = replaced.len().saturating_sub(limits::BASE_DOTS);
    let replaced = replaced.get(beyond..).unwrap_or_default();
    let mut base: Vec<Dot> = replaced.iter().map(|operation| operation.dot).collect();
    base.sort_unstable();
    let former = former_of(replaced, &value);
    NewOperation { key, value, base, former }
}

/// The directories that the replaced operations placed or remembered, the newest places first when
/// there are too many.
fn former_of(replaced: &[&Operation], value: &Value) -> Vec<Former> {
    let mut newest: BTreeMap<DirId, Order> = BTreeMap::new();
    let mut remember = |dir: DirId, order: Order| {
        let known = newest.entry(dir).or_insert(order);
        *known = order.max(*known);
    };
    for operation in replaced {
        operation.former.iter().for_each(|former| remember(former.dir, former.order));
        operation.value.dirs().iter().for_each(|dir| remember(*dir, operation.order()));
    }
    newest.retain(|dir, _| !value.dirs().contains(dir));
    let mut former: Vec<Former> = newest.into_iter().map(|(dir, order)| Former { dir, order }).collect();
    former.sort_unstable_by(|left, right| right.order.cmp(&left.order).then(left.dir.cmp(&right.dir)));
    former.truncate(limits::FORMER_DIRECTORIES);
    former.sort_unstable();
    former
}

fn value_of(overlay: &Overlay<'_>, shown: Option<Shown>) -> Value {
    match shown {
        None => Value::Tombstone,
        Some(Shown::File(file)) => Value::File(file),
        Some(Shown::Dir(spot)) => {
            let ids = overlay.ids_of(spot);
            Value::Dir(ids.iter().take(limits::DIRECTORY_IDS).copied().collect())
        }
    }
}
