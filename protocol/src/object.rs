//! The content of an object: signed, hash-chained records, one chain per (device, object, incarnation).
//!
//! A record's header is plaintext and its body ciphertext, so that a carrier without any key can judge
//! signature, chain and rights. [`Chains`] is what one replica knows of the chains of one object: it
//! admits records in causal order only, and answers who has seen what.

pub mod chains;
pub mod header;
pub mod pending;
pub mod record;
pub mod vector;

pub use chains::{ChainError, Chains, Context, Fit, NextDeps, Range, Right};
pub use header::{Dep, Header, HeaderError, RecordKind};
pub use pending::{Need, Pending};
pub use record::{Decoded, Draft, OpenError, Record, RecordError, Verified};
pub use vector::{Prefix, Vector};
