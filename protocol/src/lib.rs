//! What Meshwork devices say to each other and how they judge it.
//!
//! This crate is pure: no sockets, no files, no clock and no random source of its own. Time and
//! randomness are arguments, so that every rule here runs the same in a node, in a test and in a
//! seeded simulation.

pub mod admission;
pub mod capability;
pub mod codec;
pub mod contact;
pub mod control;
pub mod id;
pub mod key;
pub mod limits;
pub mod link;
pub mod object;
pub mod pairing;
pub mod phrase;
pub mod rendezvous;
pub mod resource;
pub mod restore;
pub mod seal;
pub mod splice;
pub mod time;
pub mod wire;
