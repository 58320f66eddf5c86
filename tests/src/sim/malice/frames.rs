//! Frames that no honest device sends.

use meshwork_protocol::{
    id::{ChainId, ObjectId},
    limits,
    object::{Prefix, Range},
    wire::sync::{Frame, VectorEntry},
};

use super::{Deed, deed};
use crate::sim::fate::Fate;

pub(super) fn junk(fate: &mut Fate) -> Vec<Deed> {
    let mut bytes = fate.bytes().to_vec();
    bytes.truncate(1 + fate.index(32));
    vec![Deed { name: "malice: junk frame", bytes }]
}

pub(super) fn oversized() -> Vec<Deed> {
    vec![Deed { name: "malice: oversized frame", bytes: vec![0x80; limits::SYNC_FRAME + 1] }]
}

pub(super) fn unknown_object(fate: &mut Fate) -> Vec<Deed> {
    let object = ObjectId(fate.bytes());
    let frame = match fate.below(4) {
        0 => Frame::Records { object, records: vec![fate.bytes().to_vec().into()] },
        1 => Frame::ControlHave { object, heads: Vec::new() },
        2 => Frame::Want { object, ranges: vec![range(fate)] },
        _ => Frame::Announce { object, entries: vec![claim(fate)] },
    };
    vec![deed("malice: unknown object", &frame)]
}

/// Claims of chains that there are not, and questions for them.
pub(super) fn claims(fate: &mut Fate, object: ObjectId) -> Vec<Deed> {
    let entries = (0..1 + fate.below(600)).map(|_| claim(fate)).collect();
    let ranges = (0..64).map(|_| range(fate)).collect();
    let claims = deed("malice: claims of what there is not", &Frame::Announce { object, entries });
    vec![claims, deed("malice: questions for what there is not", &Frame::Want { object, ranges })]
}

fn chain(fate: &mut Fate) -> ChainId {
    let mut chain = [0; 16];
    chain.copy_from_slice(&fate.bytes()[..16]);
    ChainId(chain)
}

fn claim(fate: &mut Fate) -> VectorEntry {
    VectorEntry { chain: chain(fate), seq: u64::MAX - fate.below(9), prefix: Prefix::default() }
}

fn range(fate: &mut Fate) -> Range {
    Range { chain: chain(fate), first: 1, last: u64::MAX, after: Prefix::default() }
}
