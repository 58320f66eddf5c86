//! What is signed in a control log: births of meshes and objects, and operations.

use std::collections::BTreeSet;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use serde_bytes::{ByteArray, ByteBuf};

use crate::{
    id::{DeviceId, EpochId, MeshId, ObjectId, OpId, RecordId},
    key::{PublicKey, fixed_bytes},
    limits,
    seal::SealPublic,
    wire_enum, wire_struct,
};

/// The birth of a mesh, signed by its root. The mesh is named by the id of the signed statement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Genesis {
    /// The first root.
    pub root: PublicKey,
    /// [`crate::seal::Convergence::commitment`] of the mesh; being random it lets one recovery phrase found several.
    pub convergence: ByteArray<32>,
    /// Reserved for a recovery rule; empty in this version.
    pub recovery: Vec<ByteBuf>,
}
wire_struct!(Genesis { root, convergence, recovery });

/// The birth of an object, signed by the device that creates it. The object is named by the id of the signed
/// statement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectGenesis {
    /// The mesh whose devices stand at the apex of the object.
    pub owner: MeshId,
    /// What the object is; 1 is a folder.
    pub kind: u8,
    /// [`crate::seal::Convergence::commitment`] of the object; being random it makes every object unique.
    pub convergence: ByteArray<32>,
}
wire_struct!(ObjectGenesis { owner, kind, convergence });

/// What a holder may do, least first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Role {
    /// Reads an object. In a mesh: a storage helper, which carries ciphertext only.
    Read = 1,
    /// Writes. In a mesh: a device.
    Edit = 2,
    /// Writes, and grants up to `Edit`.
    Invite = 3,
    /// Grants any role and revokes. In a mesh: an admin.
    Own = 4,
}

impl Role {
    const ALL: [Self; 4] = [Self::Read, Self::Edit, Self::Invite, Self::Own];

    /// Whether a holder of this role may grant `role`.
    pub fn may_grant(self, role: Self) -> bool {
        match self {
            Self::Own => true,
            Self::Invite => role <= Self::Edit,
            Self::Edit | Self::Read => false,
        }
    }
}

impl Serialize for Role {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u8(*self as u8)
    }
}

impl<'de> Deserialize<'de> for Role {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let number = u8::deserialize(deserializer)?;
        Self::ALL.into_iter().find(|role| *role as u8 == number).ok_or_else(|| de::Error::custom("no such role"))
    }
}

fixed_bytes!(
    /// To whom a grant is given: in the log of a mesh a device, in the log of an object a person, that is a mesh.
    Holder, 32
);

impl From<DeviceId> for Holder {
    fn from(device: DeviceId) -> Self {
        Holder(device.0)
    }
}

impl From<MeshId> for Holder {
    fn from(mesh: MeshId) -> Self {
        Holder(mesh.0)
    }
}

impl From<Holder> for MeshId {
    fn from(holder: Holder) -> Self {
        MeshId(holder.0)
    }
}

impl From<Holder> for DeviceId {
    fn from(holder: Holder) -> Self {
        DeviceId(holder.0)
    }
}

/// One object's share of a revocation: the newest statements of the target there that are to stand. What stands is
/// these and their ancestors by `prev`, nothing else; in an object without a row, nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cut {
    /// [`Cut::row`] of the object: whoever does not know the object does not learn of it.
    pub row: ByteArray<32>,
    /// Newest operations in the object's control log. Sorted.
    pub operations: Vec<OpId>,
    /// Newest records in the object's chains. Sorted.
    pub records: Vec<RecordId>,
}
wire_struct!(Cut { row, operations, records });

impl Cut {
    /// The name of `object` in a revocation with this nonce.
    pub fn row(nonce: &[u8; 32], object: ObjectId) -> [u8; 32] {
        *blake3::keyed_hash(nonce, &object.0).as_bytes()
    }
}

/// An epoch that another one supersedes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parent {
    /// The operation that minted it.
    pub epoch: OpId,
    /// Its secret, encrypted under the new one: newcomers read history.
    pub wrapped: ByteArray<72>,
}
wire_struct!(Parent { epoch, wrapped });

/// Epoch secret (32 bytes) and convergence secret (32 bytes), sealed to one device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SealedKey {
    /// Who opens it.
    pub device: DeviceId,
    /// Which of the device's seal keys opens it.
    pub generation: u32,
    /// The sealed box.
    pub sealed: ByteArray<112>,
}
wire_struct!(SealedKey { device, generation, sealed });

/// What an operation does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Act {
    /// Gives a role.
    Grant {
        /// Who gets it.
        to: Holder,
        /// What he gets.
        role: Role,
        /// Revocations of the same holder that this grant heals. Sorted.
        seen: Vec<OpId>,
    },
    /// Takes back every junior grant of a holder.
    Revoke {
        /// From whom.
        to: Holder,
        /// Key of the row names.
        nonce: ByteArray<32>,
        /// What is to stand, by object. Sorted by row, each row once.
        cuts: Vec<Cut>,
    },
    /// Gives up the grant under which it is signed.
    Leave {},
    /// Hands the apex of a mesh to a new root.
    Rotate {
        /// The next root.
        root: PublicKey,
    },
    /// Mints a key epoch.
    Epoch {
        /// Commits to the secret.
        id: EpochId,
        /// One more than the largest of the parents.
        n: u32,
        /// Superseded epochs. Sorted by operation.
        parents: Vec<Parent>,
        /// The key for each reader. Sorted by device.
        seals: Vec<SealedKey>,
    },
    /// Seals a key epoch to further readers.
    Seal {
        /// The operation that minted the epoch.
        epoch: OpId,
        /// The key for each of them. Sorted by device.
        seals: Vec<SealedKey>,
    },
    /// A device of a mesh tells its seal key. The highest generation counts; a device that cannot open what was
    /// sealed to it publishes the next generation and is sealed to again.
    Keys {
        /// The public key.
        seal: SealPublic,
        /// Rises with every change.
        generation: u32,
    },
    /// A device will be away for long; the others need not wait for it when they drop what is superseded.
    Away {
        /// Which one.
        device: DeviceId,
    },
}
wire_enum!(Act {
    0 => Grant { to, role, seen },
    1 => Revoke { to, nonce, cuts },
    2 => Leave {},
    3 => Rotate { root },
    4 => Epoch { id, n, parents, seals },
    5 => Seal { epoch, seals },
    6 => Keys { seal, generation },
    7 => Away { device },
});

/// No operation: the `prev` of the first one of a chain, the `dev` in the log of a mesh.
pub const NO_OP: OpId = OpId([0; 32]);

/// A statement in the control log of a mesh or an object, signed by a device or a root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ControlOp {
    /// The mesh or object.
    pub log: ObjectId,
    /// Position in the author's chain in this log, from 1.
    pub seq: u64,
    /// The author's operation before this one, or [`NO_OP`].
    pub prev: OpId,
    /// The grant relied on; the genesis (or the rotation) where the author stands at the apex.
    pub via: OpId,
    /// In the log of an object: the grant of the author's device in the log of his mesh. Else [`NO_OP`].
    pub dev: OpId,
    /// What it does.
    pub act: Act,
}
wire_struct!(ControlOp { log, seq, prev, via, dev, act });

impl ControlOp {
    /// Whether the lists are sorted, without duplicates and within their limits.
    pub(super) fn is_well_formed(&self) -> bool {
        match &self.act {
            Act::Grant { seen, .. } => ascending(seen, limits::SEEN),
            Act::Revoke { cuts, .. } => {
                ascending_by(cuts, limits::CUT_ROWS, |cut| *cut.row)
                    && cuts.iter().all(|cut| {
                        ascending(&cut.operations, limits::CUT_HEADS) && ascending(&cut.records, limits::CUT_HEADS)
                    })
            }
            Act::Epoch { parents, seals, .. } => {
                ascending_by(parents, limits::EPOCH_PARENTS, |parent| parent.epoch)
                    && ascending_by(seals, limits::SEALS_PER_OPERATION, |seal| seal.device)
            }
            Act::Seal { seals, .. } => ascending_by(seals, limits::SEALS_PER_OPERATION, |seal| seal.device),
            Act::Leave {} | Act::Rotate { .. } | Act::Keys { .. } | Act::Away { .. } => true,
        }
    }

    /// The operations that a revocation lets stand in `object`; empty for every other act.
    pub(super) fn cut_operations(&self, object: ObjectId) -> &[OpId] {
        self.cut(object).map_or(&[], |cut| &cut.operations)
    }

    /// The records that a revocation lets stand in `object`; empty for every other act.
    pub(super) fn cut_records(&self, object: ObjectId) -> &[RecordId] {
        self.cut(object).map_or(&[], |cut| &cut.records)
    }

    fn cut(&self, object: ObjectId) -> Option<&Cut> {
        let Act::Revoke { nonce, cuts, .. } = &self.act else {
            return None;
        };
        let row = Cut::row(nonce, object);
        cuts.iter().find(|cut| *cut.row == row)
    }

    /// The operations of its own log that must be held before this one counts, its device grant aside.
    pub(super) fn names(&self) -> BTreeSet<OpId> {
        let mut names: BTreeSet<OpId> = [self.prev, self.via].into();
        match &self.act {
            Act::Grant { seen, .. } => names.extend(seen),
            Act::Revoke { .. } => names.extend(self.cut_operations(self.log)),
            Act::Epoch { parents, .. } => names.extend(parents.iter().map(|parent| parent.epoch)),
            Act::Seal { epoch, .. } => names.extend([*epoch]),
            Act::Leave {} | Act::Rotate { .. } | Act::Keys { .. } | Act::Away { .. } => {}
        }
        names.remove(&NO_OP);
        names.remove(&OpId(self.log.0));
        names
    }

    /// Whether it only hands out keys; these are many and counted apart.
    pub(super) fn is_key_operation(&self) -> bool {
        matches!(self.act, Act::Epoch { .. } | Act::Seal { .. })
    }
}

fn ascending<T: Ord>(items: &[T], max: usize) -> bool {
    items.len() <= max && items.is_sorted_by(|a, b| a < b)
}

fn ascending_by<T, K: Ord>(items: &[T], max: usize, key: impl Fn(&T) -> K) -> bool {
    items.len() <= max && items.is_sorted_by(|a, b| key(a) < key(b))
}
