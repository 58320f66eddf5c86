//! Links between devices: streams that deliver in order until they are cut.

use std::collections::VecDeque;

use meshwork_protocol::id::{ChainId, ObjectId};

/// What waits to be written to a stream.
pub enum Outgoing {
    /// A frame.
    Frame(Vec<u8>),
    /// Records out of the store.
    Serve {
        /// Of which object.
        object: ObjectId,
        /// Which.
        places: Vec<(ChainId, u64)>,
        /// Whether the peer asked.
        answer: bool,
    },
}

/// One side of a link.
#[derive(Default)]
pub struct Side {
    /// The stream that this side believes in.
    pub open: Option<u64>,
    /// What waits to be written here.
    pub outgoing: VecDeque<Outgoing>,
    /// Whether the writer is scheduled.
    pub writing: bool,
    /// What is on its way from here.
    pub wire: VecDeque<Vec<u8>>,
    /// Whether a delivery from here is scheduled.
    pub delivering: bool,
    /// Frames of earlier streams that may be sent again.
    pub sent: VecDeque<Vec<u8>>,
}

/// A link between two devices.
#[derive(Default)]
pub struct Link {
    /// Nothing can pass.
    pub parted: bool,
    /// The present stream; 0 before the first.
    pub generation: u64,
    /// Whether the present stream still carries anything.
    pub alive: bool,
    /// Whether a new stream is scheduled.
    pub opening: bool,
    /// The sides, of the device with the smaller number first.
    pub sides: [Side; 2],
}
