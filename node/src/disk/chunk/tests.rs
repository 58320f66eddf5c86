use std::io::Cursor;

use meshwork_protocol::id::hex;
use proptest::prelude::*;

use super::*;
use crate::disk::testing::{convergence, noise};

fn cut_all(average_log2: u8, bytes: &[u8]) -> Content {
    cut_reader(&mut Cursor::new(bytes), average_log2, bytes.len() as u64, &convergence).expect("memory does not fail")
}

/// These figures are the format: a change of the crate, its table or our parameters changes them.
#[test]
fn vectors() {
    let bytes = noise(1 << 20, 1);
    let content = cut_all(16, &bytes);
    let lens: Vec<u32> = content.chunks.iter().map(|chunk| chunk.len).collect();
    let first = content.chunks.first().map(|chunk| hex(&chunk.id.0)).unwrap_or_default();
    let large: Vec<u32> = cut_all(22, &noise(48 << 20, 2)).chunks.iter().map(|chunk| chunk.len).collect();
    let found = (lens.as_slice(), large.as_slice(), content.id.to_string(), first);
    assert_eq!(found, (VECTOR_LENS, VECTOR_LARGE, VECTOR_CONTENT.to_owned(), VECTOR_FIRST.to_owned()));
}

const VECTOR_LENS: &[u32] =
    &[24789, 30454, 44511, 94236, 90411, 19676, 67427, 36279, 31535, 114985, 156807, 70333, 55156, 166562, 45415];
const VECTOR_LARGE: &[u32] =
    &[4361205, 9350399, 4541899, 4361288, 8620647, 1357725, 5021739, 4447491, 5902805, 2366450];
const VECTOR_CONTENT: &str = "78d2f11ec61707cfbac6db0fa72e554050114bf21ff217f006d99ec804d6fa17";
const VECTOR_FIRST: &str = "ec5f7ff84da37460ec52b76e9969e9b4ae51d36a94db6967bc2fd078c30b8c57";

#[test]
fn an_empty_file_has_no_chunk() {
    let content = cut_all(16, b"");
    assert_eq!(content, Content { id: ContentId(*blake3::hash(b"").as_bytes()), size: 0, chunks: Vec::new() });
}

#[test]
fn a_small_file_is_one_chunk_by_the_same_rule() {
    let content = cut_all(16, b"hello");
    let plain = blake3::hash(b"hello");
    assert_eq!(content.chunks, [ChunkRef { id: convergence(plain.as_bytes()), len: 5 }]);
    assert_eq!(content.id, ContentId(*blake3::hash(plain.as_bytes()).as_bytes()));
}

#[test]
fn zeros_are_cut_at_the_largest_chunk() {
    let content = cut_all(16, &vec![0; 1_000_000]);
    let lens: Vec<u32> = content.chunks.iter().map(|chunk| chunk.len).collect();
    assert_eq!(lens, [262_144, 262_144, 262_144, 213_568]);
    assert!(content.chunks.windows(2).take(2).all(|pair| pair[0].id == pair[1].id));
}

#[test]
fn the_average_follows_the_size_and_stays_while_a_file_grows() {
    assert_eq!(average_log2(0, None), 16);
    assert_eq!(average_log2(512 << 20, None), 16);
    assert_eq!(average_log2((512 << 20) + 65_536, None), 17);
    assert_eq!(average_log2(32 << 30, None), 22);
    assert_eq!(average_log2(1 << 40, None), 22);
    assert_eq!(average_log2(u64::MAX, None), 22);
    assert_eq!(average_log2(1 << 30, Some(16)), 16, "a log that grows keeps its cuts");
    assert_eq!(average_log2(8 << 30, Some(16)), 20, "but not for ever");
    assert_eq!(average_log2(100, Some(22)), 22, "a file that shrank, too");
    assert_eq!(average_log2(100, Some(63)), 16, "what a peer wrote is no parameter");
}

#[test]
fn an_insertion_changes_the_chunks_around_it_only() {
    let bytes = noise(4 << 20, 3);
    let mut edited = bytes.clone();
    edited.splice(2_000_000..2_000_000, *b"inserted");
    let (before, after) = (cut_all(16, &bytes), cut_all(16, &edited));
    let kept = after.chunks.iter().filter(|chunk| before.chunks.contains(chunk)).count();
    assert!(kept + 3 >= after.chunks.len(), "{kept} of {} chunks stay", after.chunks.len());
}

/// Gives a few bytes at a time, and now and then an interruption.
struct Dribble<'a>(&'a [u8], usize);

impl Read for Dribble<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.1 = self.1 * 7 % 65_537 + 1;
        if self.1.is_multiple_of(5) {
            return Err(io::ErrorKind::Interrupted.into());
        }
        let count = self.1.min(buffer.len()).min(self.0.len());
        buffer[..count].copy_from_slice(&self.0[..count]);
        self.0 = &self.0[count..];
        Ok(count)
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn how_the_reader_gives_the_bytes_makes_no_difference(len in 0usize..3_000_000, seed: u64, step in 1usize..60_000, hint in 0u64..4_000_000) {
        let bytes = noise(len, seed);
        let whole = cut_all(16, &bytes);
        let dribbled = cut_reader(&mut Dribble(&bytes, step), 16, hint, &convergence).expect("only interruptions");
        prop_assert_eq!(&whole, &dribbled);
        prop_assert_eq!(whole.size, len as u64);
        let (last, rest) = whole.chunks.split_last().map_or((None, &[][..]), |(last, rest)| (Some(last), rest));
        prop_assert!(rest.iter().all(|chunk| (16_384..=262_144).contains(&chunk.len)));
        prop_assert!(last.is_none_or(|chunk| chunk.len <= 262_144));
    }

    #[test]
    fn a_manifest_gives_its_chunks_back(count in 0usize..5_000, seed: u64) {
        let chunks = made_up(count, seed);
        let (manifest, pages) = manifest(16, chunks.clone(), &convergence);
        let by_id = |id: ChunkId| pages.iter().find(|page| page.id == id).map(|page| page.bytes.as_slice());
        let read = match manifest {
            Manifest::Inline { chunks, .. } => chunks,
            Manifest::Paged { root, chunks: total, .. } => {
                prop_assert_eq!(total as usize, count);
                let ids = root_entries(by_id(root).expect("the root page")).expect("a root page");
                ids.into_iter().flat_map(|id| page_entries(by_id(id).expect("a page")).expect("a page")).collect()
            }
        };
        prop_assert_eq!(read, chunks);
    }
}

fn made_up(count: usize, seed: u64) -> Vec<ChunkRef> {
    let id = |number: usize| {
        ChunkId(*blake3::hash(&[seed.to_le_bytes(), (number as u64).to_le_bytes()].concat()).as_bytes())
    };
    (0..count).map(|number| ChunkRef { id: id(number), len: 65_536 }).collect()
}

#[test]
fn a_changed_chunk_changes_its_page_and_the_root_only() {
    let mut chunks = made_up(4_000, 5);
    let (_, before) = manifest(16, chunks.clone(), &convergence);
    chunks[2_000].id = ChunkId([1; 32]);
    let (_, after) = manifest(16, chunks, &convergence);
    let fresh = after.iter().filter(|page| !before.contains(page)).count();
    assert!((2..=3).contains(&fresh), "{fresh} of {} pages are new", after.len());
}

#[test]
fn pages_are_bounded_whatever_the_ids() {
    let same = vec![ChunkRef { id: ChunkId([1; 32]), len: 1 << 24 }; 10_000];
    let (_, pages) = manifest(22, same, &convergence);
    assert_eq!(pages.len(), 11);
    assert!(pages.iter().all(|page| page.bytes.len() <= 1_024 * 42));
    assert!(page_entries(&codec::encode(&vec![ChunkRef { id: ChunkId([1; 32]), len: 1 }; 1_025])).is_err());
    assert!(page_entries(&[0xff; 100]).is_err());
}

/// `cargo test --release -p meshwork -- --ignored --nocapture speed` prints what one core does.
#[test]
#[ignore = "a measurement"]
fn speed() {
    let bytes = noise(256 << 20, 4);
    for average in [16, 18, 20, 22] {
        let start = std::time::Instant::now();
        let content = cut_all(average, &bytes);
        let taken = start.elapsed().as_secs_f64();
        println!("2^{average}: {} chunks, {:.2} GiB/s", content.chunks.len(), 0.25 / taken);
    }
}
