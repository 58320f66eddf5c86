//! The code that a person reads from one screen and types at another.

use rand_core::CryptoRng;
use zeroize::{Zeroize as _, Zeroizing};

use crate::{
    limits,
    phrase::{nearest_word, shown, typed_words, word_at, word_index},
};

const WORDS: usize = 3;

/// A code was not read. For the person who typed it: may repeat a word.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CodeError {
    /// Not four parts.
    #[error("a pairing code is a number and three words, as in 42-apple-river-stone")]
    Shape,
    /// The number is missing or out of range.
    #[error("a pairing code begins with a number from 1 to 9999")]
    Number,
    /// A word that is not in the list.
    #[error("“{word}” is not a word of pairing codes; did you mean “{nearest}”?")]
    UnknownWord {
        /// The word as typed, cut to a readable length.
        word: String,
        /// The nearest word of the list.
        nearest: &'static str,
    },
}

/// A number, by which the two devices find each other and which is no secret, and three words of 2,048, which are.
/// Wiped when dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct PairCode {
    number: u16,
    words: [u16; WORDS],
}

impl Drop for PairCode {
    fn drop(&mut self) {
        self.words.zeroize();
    }
}

impl PairCode {
    /// A new code.
    pub fn generate(rng: &mut impl CryptoRng) -> Self {
        let number = loop {
            let drawn = (rng.next_u32() & 0x3fff) as u16;
            if (1..=limits::PAIR_NUMBER).contains(&drawn) {
                break drawn;
            }
        };
        Self { number, words: std::array::from_fn(|_| (rng.next_u32() & 0x7ff) as u16) }
    }

    /// Reads a code as a person types it: any case; spaces, dashes or commas between the parts.
    pub fn parse(text: &str) -> Result<Self, CodeError> {
        let parts: Vec<&str> = typed_words(text).collect();
        let [number, words @ ..] = parts.as_slice() else {
            return Err(CodeError::Shape);
        };
        let number = number.parse().ok().filter(|number| (1..=limits::PAIR_NUMBER).contains(number));
        let number = number.ok_or(CodeError::Number)?;
        let mut found = Vec::with_capacity(WORDS);
        for word in words.iter().take(WORDS) {
            let word = Zeroizing::new(word.to_lowercase());
            found.push(
                word_index(&word)
                    .ok_or_else(|| CodeError::UnknownWord { word: shown(&word), nearest: nearest_word(&word) })?,
            );
        }
        match <[u16; WORDS]>::try_from(found) {
            Ok(found) if words.len() == WORDS => Ok(Self { number, words: found }),
            _ => Err(CodeError::Shape),
        }
    }

    /// The number: 1 to 9,999.
    pub fn number(&self) -> u16 {
        self.number
    }

    /// The code as it is shown.
    pub fn to_text(&self) -> Zeroizing<String> {
        Zeroizing::new(format!("{}-{}", self.number, *self.password()))
    }

    /// The three words with dashes: the password of the key exchange.
    pub(super) fn password(&self) -> Zeroizing<String> {
        let [a, b, c] = self.words.map(word_at);
        Zeroizing::new(format!("{a}-{b}-{c}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seal::SeedRng;

    #[test]
    fn typing_is_forgiven() {
        let mut rng = SeedRng::new([1; 32]);
        for _ in 0..200 {
            let code = PairCode::generate(&mut rng);
            assert!((1..=limits::PAIR_NUMBER).contains(&code.number()));
            let text = code.to_text();
            for typed in [
                text.to_string(),
                text.to_uppercase(),
                format!("  {}  ", text.replace('-', " ")),
                text.replace('-', " – "),
            ] {
                assert!(PairCode::parse(&typed).as_ref() == Ok(&code), "{typed}");
            }
        }
    }

    #[test]
    fn errors_say_what_to_do() {
        let error = |text: &str| PairCode::parse(text).err().map(|e| e.to_string()).unwrap_or_default();
        assert!(error("7-aple-able-zoo").contains("“aple” is not a word"));
        assert!(error("7-able-zoo").contains("a number and three words"));
        assert!(error("7-able-zoo-zoo-zoo").contains("a number and three words"));
        assert!(error("").contains("a number and three words"));
        assert!(error("0-able-zoo-zoo").contains("from 1 to 9999"));
        assert!(error("10000-able-zoo-zoo").contains("from 1 to 9999"));
        assert!(error("able-zoo-zoo").contains("from 1 to 9999"));
    }
}
