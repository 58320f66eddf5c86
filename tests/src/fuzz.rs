//! Fuzz targets: every decoder that a peer, a person or a stored file feeds, and the machines behind them.
//!
//! A target takes any bytes, panics when a promise is broken, and tells whether it took the bytes for something
//! valid: a target that refuses all of its corpus proves nothing. `tests/fuzz.rs` replays the committed corpus and
//! some thousand mutations of it; `tests/fuzz/` is the libFuzzer program over the same functions.

mod admission;
pub mod attempt;
mod capability;
mod control;
mod feed;
mod frames;
mod graph;
pub mod mutate;
mod pairing;
mod planted;
mod program;
mod records;
mod replica;
mod statements;
mod stored;
mod typed;

/// Something to be given any bytes.
#[derive(Clone, Copy)]
pub struct Target {
    /// Names its folder in the corpus.
    pub name: &'static str,
    /// Panics when a promise is broken; tells whether the bytes were taken for something valid.
    pub run: fn(&[u8]) -> bool,
    /// Honest inputs to begin with.
    pub seeds: fn() -> Vec<Vec<u8>>,
    /// Executions in a long run.
    pub runs: u64,
}

const fn target(name: &'static str, runs: u64, run: fn(&[u8]) -> bool, seeds: fn() -> Vec<Vec<u8>>) -> Target {
    Target { name, run, seeds, runs }
}

/// All targets. Together their long runs are more than ten million executions.
pub const TARGETS: [Target; 26] = [
    target("address", 900_000, typed::address, typed::address_seeds),
    target("admission", 200_000, admission::run, admission::seeds),
    target("bulk_offer", 900_000, frames::bulk_offer, frames::bulk_offer_seeds),
    target("capability", 200_000, capability::run, capability::seeds),
    target("card", 300_000, typed::card, typed::card_seeds),
    target("chunk_message", 1_000_000, frames::chunk_message, frames::chunk_message_seeds),
    target("control_log", 20_000, control::run, control::seeds),
    target("feed_batch", 800_000, feed::batch, feed::batch_seeds),
    target("feed_listing", 200_000, feed::listing, feed::listing_seeds),
    target("feed_merge", 30_000, feed::merge, feed::merge_seeds),
    target("graph_change", 30_000, graph::run, graph::seeds),
    target("pair_code", 50_000, typed::pair_code, typed::pair_code_seeds),
    target("pair_link", 900_000, typed::pair_link, typed::pair_link_seeds),
    target("pair_message", 1_000_000, frames::pair_message, frames::pair_message_seeds),
    target("pairing", 30_000, pairing::run, pairing::seeds),
    target("phrase", 30_000, typed::phrase, typed::phrase_seeds),
    target("record", 900_000, records::record, records::record_seeds),
    target("record_text", 100_000, records::text, records::text_seeds),
    target("rendezvous", 400_000, frames::rendezvous, frames::rendezvous_seeds),
    target("replica", 20_000, replica::run, replica::seeds),
    target("resource", 900_000, typed::resource, typed::resource_seeds),
    target("signed", 800_000, statements::signed, statements::signed_seeds),
    target("statement", 100_000, statements::statement, statements::statement_seeds),
    target("stored", 900_000, stored::run, stored::seeds),
    target("sync_frame", 1_000_000, frames::sync_frame, frames::sync_frame_seeds),
    target("tunnel", 400_000, frames::tunnel, frames::tunnel_seeds),
];

/// The target of this name, planted ones included.
pub fn named(name: &str) -> Option<Target> {
    TARGETS.iter().chain(&planted::PLANTED).find(|target| target.name == name).copied()
}

pub use planted::PLANTED;
