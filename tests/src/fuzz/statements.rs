//! Signed statements and what is in them.

use meshwork_protocol::{
    capability::Capability,
    codec,
    control::{Act, Control, ControlOp, Cut, Genesis, Holder, NO_OP, ObjectGenesis, Parent, Role, SealedKey},
    id::{DeviceId, EpochId, MeshId, ObjectId, OpId, RecordId},
    key::{DeviceKey, Kind, PublicKey, RootKey, Signed},
    limits,
    object::Header,
    seal::SealPublic,
};
use serde::{Serialize, de::DeserializeOwned};
use serde_bytes::{ByteArray, ByteBuf};

use super::frames::canonical;

/// The one device that signs where it does not matter who does.
pub(super) fn signer() -> DeviceKey {
    DeviceKey::from_bytes(&[7; 32])
}

/// An envelope as it came.
pub(super) fn signed(bytes: &[u8]) -> bool {
    let parsed = Signed::parse(bytes);
    let Some(signed) = canonical::<Signed>(bytes, limits::SIGNED) else {
        assert!(parsed.is_err(), "not an envelope");
        return false;
    };
    assert_eq!(signed.verify().is_ok(), parsed.is_ok(), "an envelope is good exactly when it verifies");
    let mut twin = signed.clone();
    twin.signature = ByteArray::new([1; 64]);
    assert_eq!(twin.id(), signed.id(), "the id leaves the signature out");
    assert!(twin.verify().is_err(), "nobody signs like that");
    if let Ok(kind) = signed.verify() {
        assert!(signed.body.len() <= kind.body_limit(), "a body above its limit");
        body(&signed, kind);
    }
    parsed.is_ok()
}

/// A body of any kind, signed by a key that is ours: what comes after the signature is reached.
pub(super) fn statement(bytes: &[u8]) -> bool {
    let Some((first, text)) = bytes.split_first() else { return false };
    let kind = Kind::ALL[usize::from(*first) % Kind::ALL.len()];
    let signed = signer().sign(kind, text.to_vec());
    let parsed = Signed::parse(&signed.to_bytes());
    assert_eq!(parsed.is_ok(), text.len() <= kind.body_limit(), "only the size can be wrong");
    let valid = body(&signed, kind);
    let mut control = Control::new();
    if control.adopt(signed.clone()).is_ok() {
        assert!(valid || kind == Kind::DeviceKeys, "what does not decode is not taken in");
        assert!(control.waiting() + control.logs().count() <= 1, "one statement is one");
    }
    valid
}

/// Whether the body is of its kind; asserts that it is then the one encoding, and of no other kind.
fn body(signed: &Signed, kind: Kind) -> bool {
    for other in Kind::ALL.into_iter().filter(|other| *other != kind) {
        assert!(signed.open::<ByteBuf>(other).is_err(), "kinds do not stand for each other");
    }
    match kind {
        Kind::Genesis => opens::<Genesis>(signed, kind),
        Kind::ObjectGenesis => opens::<ObjectGenesis>(signed, kind),
        Kind::ControlOp => opens::<ControlOp>(signed, kind),
        Kind::RecordHeader => opens::<Header>(signed, kind),
        Kind::Capability => opens::<Capability>(signed, kind),
        Kind::DeviceKeys => false,
    }
}

fn opens<T: Serialize + DeserializeOwned>(signed: &Signed, kind: Kind) -> bool {
    let value = canonical::<T>(&signed.body, kind.body_limit());
    assert_eq!(signed.open::<T>(kind).is_ok(), value.is_some());
    value.is_some()
}

fn acts() -> Vec<Act> {
    let (to, device) = (Holder([2; 32]), DeviceId([3; 32]));
    let seals = vec![SealedKey { device, generation: 1, sealed: ByteArray::new([4; 112]) }];
    let cut = Cut { row: ByteArray::new([5; 32]), operations: vec![OpId([6; 32])], records: vec![RecordId([7; 32])] };
    let parents = vec![Parent { epoch: OpId([8; 32]), wrapped: ByteArray::new([9; 72]) }];
    vec![
        Act::Grant { to, role: Role::Edit, seen: vec![OpId([1; 32]), OpId([2; 32])] },
        Act::Revoke { to, nonce: ByteArray::new([1; 32]), cuts: vec![cut] },
        Act::Leave {},
        Act::Rotate { root: PublicKey([1; 32]) },
        Act::Epoch { id: EpochId([1; 16]), n: 2, parents, seals: seals.clone() },
        Act::Seal { epoch: OpId([1; 32]), seals },
        Act::Keys { seal: SealPublic([1; 32]), generation: 3 },
        Act::Away { device },
    ]
}

/// A body of each kind.
fn bodies() -> Vec<(Kind, Vec<u8>)> {
    let root = RootKey::from_seed(&[1; 64], 0).public();
    let genesis = Genesis { root, convergence: ByteArray::new([2; 32]), recovery: Vec::new() };
    let born = ObjectGenesis { owner: MeshId([1; 32]), kind: 1, convergence: ByteArray::new([2; 32]) };
    let op = |act| ControlOp { log: ObjectId([1; 32]), seq: 1, prev: NO_OP, via: OpId([1; 32]), dev: NO_OP, act };
    let mut bodies = vec![(Kind::Genesis, codec::encode(&genesis)), (Kind::ObjectGenesis, codec::encode(&born))];
    bodies.extend(acts().into_iter().map(|act| (Kind::ControlOp, codec::encode(&op(act)))));
    bodies.push((Kind::RecordHeader, codec::encode(&super::records::header())));
    bodies.extend(super::capability::bodies().into_iter().map(|body| (Kind::Capability, body)));
    bodies
}

pub(super) fn signed_seeds() -> Vec<Vec<u8>> {
    bodies().into_iter().map(|(kind, body)| signer().sign(kind, body).to_bytes()).collect()
}

pub(super) fn statement_seeds() -> Vec<Vec<u8>> {
    let number = |kind| Kind::ALL.iter().position(|other| *other == kind).unwrap_or_default() as u8;
    bodies().into_iter().map(|(kind, body)| [&[number(kind)], body.as_slice()].concat()).collect()
}
