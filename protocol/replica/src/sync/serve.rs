//! Reads the records that a peer is to be sent and packs them into frames.

use std::collections::BTreeMap;

use meshwork_protocol::{
    id::{ChainId, ObjectId, RecordId},
    limits,
    object::{Chains, Range},
    wire::sync::{self, Frame, Retirement},
};

/// The frames of one [`super::Output::Serve`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Serving {
    /// To be sent in this order.
    pub frames: Vec<Frame>,
    /// For [`super::Input::Sent`].
    pub through: Vec<(ChainId, u64)>,
}

/// The chains that were let go of here, of which those who ask for these ranges may still wait for something: all, where
/// they are `behind`, or ask for the beginning of one that has taken the place of others.
pub fn retired(chains: &Chains, ranges: &[Range], behind: bool) -> Vec<Retirement> {
    let begins = |range: &Range| range.first == 1 && chains.sealed(&range.chain) > 0;
    if !behind && !ranges.iter().any(begins) {
        return Vec::new();
    }
    let retirement = |(chain, by)| Some(Retirement { chain, device: chains.author(&by)?, by });
    chains.retired().filter_map(retirement).collect()
}

/// The records of `ranges` that one answer has room for, lowest height first: at most
/// [`limits::SERVE_RECORDS`]. Gives where in the log they are ([`Chains::shelf`]).
pub fn plan(chains: &Chains, ranges: &[Range]) -> Vec<(ChainId, u64)> {
    chains.ordered(ranges).take(limits::SERVE_RECORDS).filter_map(|id| chains.shelf(&id)).collect()
}

/// Packs the records of a [`plan`], at most [`limits::SERVE_BYTES`]. `read` gives the bytes of a record
/// from the log; at the first that it cannot give the answer ends.
pub fn pack(
    object: ObjectId,
    places: &[(ChainId, u64)],
    answer: bool,
    mut read: impl FnMut(ChainId, u64) -> Option<Vec<u8>>,
) -> Serving {
    let mut through: BTreeMap<ChainId, u64> = BTreeMap::new();
    let mut records = Vec::new();
    let mut bytes = 0;
    for (chain, seq) in places {
        let Some(record) = read(*chain, *seq) else { break };
        bytes += record.len();
        if bytes > limits::SERVE_BYTES && !records.is_empty() {
            break;
        }
        through.insert(*chain, *seq);
        records.push(record);
    }
    let parts = sync::parts(records).into_iter();
    let mut frames: Vec<Frame> = parts.map(|records| Frame::Records { object, records }).collect();
    if answer {
        frames.push(Frame::Served { object });
    }
    Serving { frames, through: through.into_iter().collect() }
}

/// [`plan`] and [`pack`] in one, for a log that is at hand.
pub fn serve(
    chains: &Chains,
    ranges: &[Range],
    answer: bool,
    mut read: impl FnMut(&RecordId) -> Option<Vec<u8>>,
) -> Serving {
    let mut ids = chains.ordered(ranges).take(limits::SERVE_RECORDS);
    // Asked for in the order of the plan.
    pack(chains.object(), &plan(chains, ranges), answer, |_, _| ids.next().and_then(|id| read(&id)))
}
