//! Mutations of inputs, out of a number: what stable Rust has of a fuzzer.

use rand_chacha::ChaCha8Rng;
use rand_core::{Rng as _, SeedableRng as _};

/// Bytes out of a number, for programs that need no form.
pub fn bytes(seed: u8, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    ChaCha8Rng::from_seed([seed; 32]).fill_bytes(&mut bytes);
    bytes
}

/// Makes new inputs out of old ones.
pub struct Mutator(ChaCha8Rng);

impl Mutator {
    /// The same number gives the same inputs.
    pub fn new(seed: u8) -> Self {
        Mutator(ChaCha8Rng::from_seed([seed; 32]))
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.0.next_u32() as usize).checked_rem(bound).unwrap_or(0)
    }

    /// One of `corpus`, with one to eight changes.
    pub fn next(&mut self, corpus: &[Vec<u8>]) -> Vec<u8> {
        let mut input = corpus.get(self.below(corpus.len())).cloned().unwrap_or_default();
        for _ in 0..=self.below(8) {
            self.change(&mut input, corpus);
        }
        input
    }

    fn change(&mut self, input: &mut Vec<u8>, corpus: &[Vec<u8>]) {
        let at = self.below(input.len());
        let len = self.below(16).min(input.len() - at);
        match self.below(8) {
            0 | 1 if !input.is_empty() => input[at] ^= 1 << self.below(8),
            2 if !input.is_empty() => input[at] = [0, 1, 0x7f, 0x80, 0xff, b'%', b'-'][self.below(7)],
            3 => drop(input.drain(at..at + len)),
            4 => {
                let copied = input[at..at + len].to_vec();
                input.splice(at..at, copied);
            }
            5 => input.truncate(at),
            6 => {
                let other = corpus.get(self.below(corpus.len())).cloned().unwrap_or_default();
                let from = self.below(other.len());
                input.truncate(at);
                input.extend_from_slice(&other[from..]);
            }
            _ => input.insert(at, self.0.next_u32() as u8),
        }
    }
}
