//! Targets that break their promises, to see that it is noticed.

use std::time::{Duration, Instant};

use meshwork_protocol::wire::chunks::ChunkHeader;

use super::{Target, attempt, frames::chunk_message_seeds, target};

/// One for each thing that must not happen.
pub const PLANTED: [Target; 3] = [
    target("planted_panic", 0, trusts_a_length, chunk_message_seeds),
    target("planted_hang", 0, waits_as_told, chunk_message_seeds),
    target("planted_memory", 0, takes_memory_as_told, chunk_message_seeds),
];

fn declared(bytes: &[u8]) -> Option<usize> {
    match bytes.first_chunk().and_then(|header| ChunkHeader::parse(*header))? {
        ChunkHeader::Here(len) => Some(len as usize),
        ChunkHeader::Gone | ChunkHeader::End => None,
    }
}

/// Takes what a header declares for what is there.
fn trusts_a_length(bytes: &[u8]) -> bool {
    declared(bytes).is_some_and(|len| !bytes[ChunkHeader::LEN..][..len].is_empty())
}

/// Works as long as a header declares.
fn waits_as_told(bytes: &[u8]) -> bool {
    let (begin, long) = (Instant::now(), Duration::from_nanos(declared(bytes).unwrap_or(0) as u64));
    while begin.elapsed() < long.min(attempt::SLOWEST * 2) {
        std::hint::spin_loop();
    }
    true
}

/// Makes room for what a header declares.
fn takes_memory_as_told(bytes: &[u8]) -> bool {
    let room = vec![1_u8; declared(bytes).unwrap_or(0).min(attempt::LARGEST + (64 << 20))];
    std::hint::black_box(&room).first().is_none_or(|byte| *byte == 1)
}
