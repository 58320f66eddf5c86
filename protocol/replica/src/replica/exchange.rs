//! What a replica is told and what it asks for: the whole vocabulary between it and the node.

use meshwork_protocol::{
    codec,
    contact::CardDevice,
    id::{ChainId, ContentId, DeviceId, DirId, Incarnation, ObjectId, RecordId},
    limits,
    wire::sync::{Frame, Reason},
};
use serde_bytes::ByteBuf;

use crate::{
    feed::{Dot, FileValue, Key},
    folder::{
        self, BaseChange, ToHash,
        observed::{Batch, DirIdentity, Fingerprint, Path},
    },
    transfer,
};

/// What a replica is told.
#[derive(Debug)]
pub enum Input {
    /// A device of the mesh is connected.
    PeerUp(DeviceId),
    /// It is gone.
    PeerDown(DeviceId),
    /// It sent a frame.
    Frame {
        /// Who.
        peer: DeviceId,
        /// Its bytes, without the length before it.
        bytes: Vec<u8>,
    },
    /// The answer to [`Output::Persist`].
    Persisted {
        /// Which.
        ticket: u64,
        /// Whether it is durable.
        durable: bool,
    },
    /// The answer to [`Output::Serve`].
    Sent {
        /// To whom.
        peer: DeviceId,
        /// Which object.
        object: ObjectId,
        /// Whether the peer had asked.
        answer: bool,
        /// Newest place sent of each chain.
        through: Vec<(ChainId, u64)>,
    },
    /// Something for a folder on this device.
    Folder {
        /// Which.
        object: ObjectId,
        /// What.
        input: folder::Input,
    },
    /// The end of a fetch.
    Fetched {
        /// Which.
        ticket: u64,
        /// How each content ended.
        outcomes: Vec<(ContentId, transfer::Outcome)>,
    },
    /// Part of the answer to [`Output::Reread`].
    Reread {
        /// Which object.
        object: ObjectId,
        /// Records in the order asked for; those that are not stored yet are left out.
        records: Vec<Vec<u8>>,
        /// Whether these are the last.
        done: bool,
    },
    /// A deadline has passed.
    Tick,
}

/// What a replica asks for.
#[derive(Debug)]
pub enum Output {
    /// Make these durable, in this order, then answer with [`Input::Persisted`].
    Persist {
        /// Names the answer.
        ticket: u64,
        /// What.
        entries: Vec<Stored>,
    },
    /// Send a frame.
    Send {
        /// To whom.
        peer: DeviceId,
        /// What.
        frame: Frame,
    },
    /// Send the records at these places out of the store, packed by [`crate::sync::serve::pack`], after
    /// all frames asked for before; answer with [`Input::Sent`].
    Serve {
        /// To whom.
        peer: DeviceId,
        /// Which object.
        object: ObjectId,
        /// Which records.
        places: Vec<(ChainId, u64)>,
        /// Whether the peer asked.
        answer: bool,
    },
    /// The store needs what it holds of a chain no more.
    Forget {
        /// Which object.
        object: ObjectId,
        /// Which chain.
        chain: ChainId,
    },
    /// Read these records again, in this order; answer with [`Input::Reread`].
    Reread {
        /// Which object.
        object: ObjectId,
        /// Which records.
        places: Vec<(ChainId, u64)>,
    },
    /// Close the stream to a peer after what was sent before.
    Disconnect {
        /// Whom.
        peer: DeviceId,
        /// Why.
        reason: Reason,
    },
    /// List directories of a folder; answer with [`folder::Input::Listed`].
    List(ObjectId, Vec<Path>),
    /// Read files of a folder; answer with [`folder::Input::Hashed`].
    Hash(ObjectId, Vec<ToHash>),
    /// Change a folder on disk; answer with [`folder::Input::Placed`]. All that was to be stored by now, records and
    /// disk base, must be durable before: else the node could not tell its own work from the user's after a crash.
    Place(ObjectId, Batch),
    /// Store changes of a folder's disk base, with the place in the own chain that they include.
    Base {
        /// Which folder.
        object: ObjectId,
        /// The own chain, and its newest place that the base includes.
        own: (ChainId, u64),
        /// What changed.
        changes: Vec<BaseChange>,
    },
    /// Fetch contents; answer with [`Input::Fetched`].
    Fetch {
        /// Names the answer.
        ticket: u64,
        /// Whom to ask.
        peer: DeviceId,
        /// For which object.
        object: ObjectId,
        /// What.
        files: Vec<FileValue>,
    },
    /// A peer told where devices may be reached that may connect here.
    Addresses(Vec<CardDevice>),
    /// The device writes in new chains from now on: keep this before anything that is asked for later.
    Incarnation(Incarnation),
    /// The devices that may connect have changed: ask [`super::Replica::peers`].
    PeersChanged,
    /// Tell the user.
    Event(Event),
}

/// What is to be stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stored {
    /// Signed statements of one control log. Those made at one time are one entry, which a crash leaves whole or not
    /// at all: half of a demotion would be a removal.
    Control {
        /// Which log.
        object: ObjectId,
        /// Their bytes, in their order.
        items: Vec<ByteBuf>,
    },
    /// A signed record.
    Record {
        /// Which object.
        object: ObjectId,
        /// Its chain.
        chain: ChainId,
        /// Its place in the chain.
        seq: u64,
        /// Its id.
        id: RecordId,
        /// Whether this device wrote it: then it is the newest of its chain.
        own: bool,
        /// Its bytes.
        bytes: Vec<u8>,
    },
    /// A chain was let go of.
    Retired {
        /// Which object.
        object: ObjectId,
        /// Which chain.
        chain: ChainId,
        /// Whose it was.
        device: DeviceId,
        /// The chain that begins with the checkpoint that has taken its place.
        by: ChainId,
    },
}

impl Stored {
    /// Statements as one entry of a log.
    pub fn pack(items: &[ByteBuf]) -> Vec<u8> {
        codec::encode(&items)
    }

    /// The statements of an entry made by [`Stored::pack`].
    pub fn unpack(entry: &[u8]) -> Result<Vec<ByteBuf>, codec::DecodeError> {
        codec::decode(entry, limits::STATEMENTS_STORED)
    }
}

/// What happened, for people and programs that watch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// Something in a folder.
    Folder(ObjectId, folder::Event),
    /// A device joined the mesh.
    DeviceAdded(DeviceId),
    /// The root let a device into the mesh that was not in it.
    DeviceRestored(DeviceId),
    /// A device was removed from the mesh.
    DeviceRemoved(DeviceId),
    /// What stands of an object has changed, and all of it was merged anew.
    JudgedAgain {
        /// Which object.
        object: ObjectId,
        /// Records that are held and do not stand.
        quarantined: usize,
    },
    /// A device signed two records, or statements, for one place of its chain: there are two copies of it, or it does
    /// not keep to the rules.
    ChainForked {
        /// Of which object.
        object: ObjectId,
        /// Which device.
        device: DeviceId,
    },
    /// Another copy of this device has written in its name in an object, or this one was restored from a backup.
    CopyNoticed(ObjectId),
    /// A folder is known that was not.
    FolderKnown(ObjectId),
    /// A folder that another person shared is none of this mesh's any more. What is on disk stays there.
    FolderForgotten(ObjectId),
    /// A peer sent something that is not as it must be.
    Refused {
        /// Who.
        peer: DeviceId,
        /// What was wrong.
        error: String,
    },
    /// What was to be stored could not be: nothing is signed any more until the node starts again.
    StoreFailed,
}

/// A folder's disk base as it was stored.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StoredBase {
    /// The own chain, and its newest place that it includes.
    pub own: Option<(ChainId, u64)>,
    /// For each key the operations that the disk shows.
    pub keys: Vec<(Key, Vec<Dot>)>,
    /// The directories by id.
    pub dirs: Vec<(DirId, DirIdentity)>,
    /// The files' fingerprints.
    pub files: Vec<(DirIdentity, crate::feed::Name, Fingerprint)>,
    /// For each key of a plan of which it is not known what came of it the operations that it was to show.
    pub intents: Vec<(Key, Vec<Dot>)>,
}
