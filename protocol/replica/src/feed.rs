//! Feeds: a causal map from (directory, name) to what is there, and the tree that it shows.
//!
//! An author writes, for each name he changed, one [`Operation`] that names the operations it replaces:
//! exactly those that his disk showed. What no one replaced is live. The same set of records gives the
//! same live operations everywhere, whatever the order they came in ([`FeedMap`]), and the same tree
//! ([`View`]): more than one content under a name is a conflict, of which each has its own name; a
//! directory that was moved twice is in one place; a deleted directory in which somebody else made
//! something is back. No clock takes part.
//!
//! [`diff`] turns what a user did to the tree into operations, [`split`] and [`encode`] into the bodies
//! of records.

mod batch;
mod checkpoint;
mod conflict_name;
mod diff;
mod map;
mod merge;
mod operation;
mod page;
mod skeleton;
#[cfg(test)]
mod tests;
mod view;

pub(crate) use self::conflict_name::ConflictNames;
pub use self::{
    batch::{BatchError, decode, encode, split},
    checkpoint::{Killed, Part},
    diff::{Edit, EditError, Edits, NodeRef, Now, diff, replacement},
    map::FeedMap,
    merge::{At, Feed, Listed},
    operation::{
        ChunkRef, Dot, FileKind, FileValue, Former, Key, Manifest, Name, NameError, NewOperation, Operation, Order,
        Unknown, Value, symlink_content,
    },
    page::Entry,
    skeleton::NodeId,
    view::View,
};
