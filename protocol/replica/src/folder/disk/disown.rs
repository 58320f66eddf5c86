//! What the disk shows and does not count any more, though nobody has removed it.

use std::collections::BTreeSet;

use super::Disk;
use crate::feed::{FeedMap, Key, Operation};

impl Disk {
    /// What is shown under these keys, as far as the replica knows nothing of it any more, is to be met as something new.
    pub fn disown(&mut self, keys: &BTreeSet<Key>) {
        self.disowned.extend(keys.iter().cloned());
    }

    /// Forgets what is disowned. Nothing may be under way at the disk, for that was planned with the base as it is.
    pub(super) fn forget_disowned(&mut self, feed: &FeedMap) {
        let keys = std::mem::take(&mut self.disowned);
        let is_live = |operation: &Operation| feed.at(&operation.key).iter().any(|live| live.dot == operation.dot);
        for key in &keys {
            let shown = self.base.map().at(key);
            if shown.iter().any(|operation| operation.value.file().is_some() && !is_live(operation)) {
                self.base.forget_intents([key]);
                self.base.set_key(key.clone(), Vec::new());
                // Else it would be taken for what is shown by its name now.
                self.base.forget_files(key.dir);
                self.look_everywhere();
            }
        }
        self.compare(feed, keys);
    }
}
