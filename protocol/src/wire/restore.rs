//! `/meshwork/restore/1`: a blank device that connects as the root of a mesh, and a device of that mesh.
//!
//! Blank device first: `Hello`, then `Part`s of a [`Welcome`](super::pair::Welcome), `Admit`, `Done`. `Refused` ends it
//! at any point.

use serde_bytes::ByteBuf;

use crate::{id::DeviceId, wire_enum};

/// What travels on the stream, which is itself encrypted, and authenticated between root and device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RestoreMessage {
    /// The root speaks, at a device that has nothing yet.
    Hello {
        /// The newest version of this protocol that the blank device knows.
        version: u16,
    },
    /// The end.
    Refused {
        /// 1: another root is in its place; 2: the mesh is frozen; 3: the version is too old; others: it failed.
        reason: u8,
    },
    /// A part of the encoded welcome, in order; all but the last are [`crate::limits::PAIR_PART`] bytes.
    Part {
        /// Bytes of the whole.
        total: u32,
        /// The next of them.
        bytes: ByteBuf,
    },
    /// The root lets the blank device in.
    Admit {
        /// The key that the device keeps.
        device: DeviceId,
        /// Its name, at most [`crate::limits::NAME`] bytes.
        name: String,
        /// Signed statements: the root's grant and the device's seal key, as far as the log lacks them.
        statements: Vec<ByteBuf>,
    },
    /// The statements are durable.
    Done {},
}
wire_enum!(RestoreMessage {
    0 => Hello { version },
    1 => Refused { reason },
    2 => Part { total, bytes },
    3 => Admit { device, name, statements },
    4 => Done {},
});
