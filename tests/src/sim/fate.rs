//! Chance, counts and the trace of one run: all of it follows from the seed.

use std::collections::{BTreeMap, VecDeque};

use rand_chacha::ChaCha8Rng;
use rand_core::{Rng, SeedableRng};

/// The one source of chance of a run.
pub struct Fate(pub ChaCha8Rng);

impl Fate {
    /// From a seed.
    pub fn new(seed: u64) -> Self {
        Fate(ChaCha8Rng::seed_from_u64(seed))
    }

    /// A number below `end`, 0 when `end` is 0.
    pub fn below(&mut self, end: u64) -> u64 {
        if end == 0 { 0 } else { self.0.next_u64() % end }
    }

    /// An index into something of this length.
    pub fn index(&mut self, len: usize) -> usize {
        self.below(len as u64) as usize
    }

    /// True once in `times`.
    pub fn once_in(&mut self, times: u64) -> bool {
        self.below(times) == 0
    }

    /// One of some things.
    pub fn pick<'a, T>(&mut self, of: &'a [T]) -> Option<&'a T> {
        of.get(self.index(of.len()))
    }

    /// 32 bytes.
    pub fn bytes(&mut self) -> [u8; 32] {
        let mut bytes = [0; 32];
        self.0.fill_bytes(&mut bytes);
        bytes
    }
}

/// How often each thing happened.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counts(pub BTreeMap<&'static str, u64>);

impl Counts {
    /// Counts one.
    pub fn add(&mut self, what: &'static str) {
        *self.0.entry(what).or_default() += 1;
    }

    /// Takes another's counts in.
    pub fn merge(&mut self, other: &Counts) {
        for (what, count) in &other.0 {
            *self.0.entry(what).or_default() += count;
        }
    }
}

/// Lines kept for a failure.
const LINES: usize = 40_000;

/// What happened, as a hash, and as text when asked for.
pub struct Trace {
    hasher: blake3::Hasher,
    lines: VecDeque<String>,
    keep: bool,
}

impl Trace {
    /// `keep` keeps the last lines as text.
    pub fn new(keep: bool) -> Self {
        Trace { hasher: blake3::Hasher::new(), lines: VecDeque::new(), keep }
    }

    /// Notes bytes.
    pub fn bytes(&mut self, bytes: &[u8]) {
        self.hasher.update(&(bytes.len() as u64).to_le_bytes()).update(bytes);
    }

    /// Notes numbers.
    pub fn numbers(&mut self, numbers: &[u64]) {
        for number in numbers {
            self.hasher.update(&number.to_le_bytes());
        }
    }

    /// Notes a line, if lines are kept.
    pub fn line(&mut self, line: impl FnOnce() -> String) {
        if self.keep {
            if self.lines.len() >= LINES {
                self.lines.pop_front();
            }
            self.lines.push_back(line());
        }
    }

    /// The hash of all so far.
    pub fn hash(&self) -> [u8; 32] {
        *self.hasher.finalize().as_bytes()
    }

    /// The last lines.
    pub fn into_lines(self) -> Vec<String> {
        self.lines.into()
    }
}
