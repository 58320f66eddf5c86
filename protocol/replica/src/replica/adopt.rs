//! Taking over what is in quarantine: its contents are put into the folder on this device and written anew, as its own
//! work. What is in quarantine stays there, and nothing that a device removed is removed again.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use meshwork_protocol::{
    id::{ContentId, DeviceId, ObjectId},
    time::Timestamp,
};
use rand_core::CryptoRng;

use super::{Output, Replica};
use crate::{
    feed::{Dot, FeedMap, FileValue, Name, Operation},
    folder::{
        self, Putting, State, Verdict,
        observed::{Batch, Path},
    },
};

/// Why nothing could be taken over. Nothing has changed then.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AdoptError {
    /// This device may not write there.
    #[error("this device has no right to write there")]
    NotMember,
    /// What is put has to be seen on a disk first.
    #[error("the folder has no place on this device")]
    NotHere,
    /// What stands is being worked out, or the folder's directory is not there.
    #[error("the folder is at work, or stopped")]
    Busy,
}

/// Which of what is in quarantine is meant.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Choice {
    /// What this device wrote, else what any did.
    pub device: Option<DeviceId>,
    /// What is at or below these paths; all where there is none.
    pub paths: Vec<Path>,
}

/// What taking over comes to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Adoption {
    /// What is put: its path in quarantine, and where it is put.
    pub put: Vec<(Path, Path)>,
    /// Operations of which the disk shows already what they would.
    pub here: BTreeSet<Dot>,
    /// Files of which the bytes are not on this device.
    pub missing: Vec<(Path, FileValue)>,
    batch: Batch,
}

impl Adoption {
    /// Whether nothing of what was meant is in quarantine, as far as that can be taken over.
    pub fn is_empty(&self) -> bool {
        self.put.is_empty() && self.here.is_empty() && self.missing.is_empty()
    }

    fn note(&mut self, dot: Dot, path: Path, verdict: Verdict, value: Option<&FileValue>) {
        match (verdict, value) {
            (Verdict::Put(to), _) => self.put.push((path, to)),
            (Verdict::Here, _) => drop(self.here.insert(dot)),
            (Verdict::Missing, Some(file)) => self.missing.push((path, file.clone())),
            (Verdict::Missing | Verdict::Nothing, _) => {}
        }
    }
}

impl Replica {
    /// The live operations of a folder if all that is in quarantine stood: their tree tells what its paths are.
    pub fn with_quarantine(&self, object: ObjectId) -> FeedMap {
        let tail = self.tail(object, None);
        self.with_tail(object, &tail)
    }

    /// What taking over would come to when all bytes of the contents in `have` are on this device.
    pub fn adoption(
        &self,
        object: ObjectId,
        choice: &Choice,
        have: &BTreeSet<ContentId>,
    ) -> Result<Adoption, AdoptError> {
        if !self.may_write(object) {
            return Err(AdoptError::NotMember);
        }
        let folder = self.folder(object).ok_or(AdoptError::NotHere)?;
        let base = folder.base().ok_or(AdoptError::NotHere)?;
        if self.is_judging(object) || matches!(folder.state(), State::Stopped { .. }) {
            return Err(AdoptError::Busy);
        }
        let tail = self.tail(object, choice.device);
        let meant = self.with_tail(object, &tail);
        let view = meant.view();
        let seen = Self::seen_by(&tail);
        let replaced: BTreeSet<Dot> = seen.values().flatten().copied().collect();
        let mut putting = Putting::new(base, &meant, have);
        let mut adoption = Adoption::default();
        for operation in tail.iter().filter(|operation| !replaced.contains(&operation.dot)) {
            let above = view.node_of(operation.key.dir).map(|node| view.path_of(node)).unwrap_or_default();
            let path: Path = above.into_iter().chain([operation.key.name.clone()]).collect();
            if choice.paths.is_empty() || choice.paths.iter().any(|chosen| path.starts_with(chosen)) {
                let none = BTreeSet::new();
                let verdict = putting.operation(operation, seen.get(&operation.dot).unwrap_or(&none));
                adoption.note(operation.dot, path, verdict, operation.value.file());
            }
        }
        adoption.batch = putting.finish();
        Ok(adoption)
    }

    /// Takes over; the folder tells with [`folder::Event::Put`] how that ended. What is missing is left out.
    pub fn adopt(
        &mut self,
        now: Timestamp,
        rng: &mut impl CryptoRng,
        object: ObjectId,
        choice: &Choice,
        have: &BTreeSet<ContentId>,
    ) -> Result<(Adoption, Vec<Output>), AdoptError> {
        let mut adoption = self.adoption(object, choice, have)?;
        let mut out = Vec::new();
        let batch = std::mem::take(&mut adoption.batch);
        if !batch.steps.is_empty() {
            self.drive_folder(now, rng, object, folder::Input::Put(batch), &mut out);
        }
        Ok((adoption, out))
    }

    /// Whether a content is being fetched for something that stands.
    pub fn is_on_its_way(&self, object: ObjectId, content: ContentId) -> bool {
        self.transfer.is_wanted(object, content)
    }

    /// What is in quarantine, in the order of its operations.
    fn tail(&self, object: ObjectId, device: Option<DeviceId>) -> Vec<Arc<Operation>> {
        let held = self.quarantined(object).filter(|record| device.is_none_or(|device| record.device == device));
        let mut tail: Vec<Arc<Operation>> = held.flat_map(|record| record.operations.iter().cloned()).collect();
        tail.sort_unstable_by_key(|operation| operation.order());
        tail
    }

    fn with_tail(&self, object: ObjectId, tail: &[Arc<Operation>]) -> FeedMap {
        let mut map = self.folder(object).map(|folder| folder.feed().clone()).unwrap_or_default();
        for operation in tail {
            map.apply(std::slice::from_ref(operation));
        }
        map
    }

    /// For each operation of the tail the operations at its key that its author replaced, whether he did so with this
    /// one or with another of the tail before it.
    fn seen_by(tail: &[Arc<Operation>]) -> BTreeMap<Dot, BTreeSet<Dot>> {
        let mut seen: BTreeMap<Dot, BTreeSet<Dot>> = BTreeMap::new();
        let of_tail: BTreeMap<Dot, &Arc<Operation>> = tail.iter().map(|operation| (operation.dot, operation)).collect();
        for operation in tail {
            let mut before = BTreeSet::new();
            for dot in &operation.base {
                match of_tail.get(dot) {
                    Some(other) if other.key != operation.key => continue,
                    Some(_) => before.extend(seen.get(dot).into_iter().flatten().copied()),
                    None => {}
                }
                before.insert(*dot);
            }
            seen.insert(operation.dot, before);
        }
        seen
    }
}

/// A path out of its names with `/` between them.
pub fn path_of(text: &str) -> Option<Path> {
    text.split('/').filter(|name| !name.is_empty()).map(|name| Name::new(name.as_bytes()).ok()).collect()
}
