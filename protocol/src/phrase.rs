//! The recovery phrase: twelve words that a person writes down, from which the root key of a mesh is derived.
//!
//! BIP39, English list, empty passphrase: 128 bits of entropy, 4 bits of checksum, PBKDF2-HMAC-SHA512 with 2,048
//! rounds to a seed of 64 bytes.

use bip39::{Language, Mnemonic};
use rand_core::CryptoRng;
use zeroize::Zeroizing;

use crate::limits;

const WORDS: usize = 12;

/// A phrase was not read. The texts are for the person who typed it: they may repeat a word, so they belong on the
/// screen and not in a log.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PhraseError {
    /// Another number of words.
    #[error("a recovery phrase has twelve words; here are {0}")]
    WordCount(usize),
    /// A word that is not in the list.
    #[error("word {position}, “{word}”, is not in the word list; did you mean “{nearest}”?")]
    UnknownWord {
        /// Place of the word, counted from 1.
        position: usize,
        /// The word as typed, cut to a readable length.
        word: String,
        /// The nearest word of the list.
        nearest: &'static str,
    },
    /// All words exist, but they do not belong together.
    #[error("these words do not form a recovery phrase: one of them is wrong, or two have changed places")]
    Checksum,
}

/// A recovery phrase. Wiped when dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct Phrase(Mnemonic);

impl Phrase {
    /// A new phrase.
    pub fn generate(rng: &mut impl CryptoRng) -> Self {
        let mut entropy = Zeroizing::new([0; 16]);
        rng.fill_bytes(entropy.as_mut());
        Self::from_entropy(&entropy)
    }

    /// The phrase that stands for these 16 bytes.
    pub fn from_entropy(entropy: &[u8; 16]) -> Self {
        Self(Mnemonic::from_entropy(entropy).expect("16 bytes make twelve words"))
    }

    /// The 16 bytes for which the phrase stands.
    pub fn entropy(&self) -> Zeroizing<[u8; 16]> {
        let (bytes, _) = self.0.to_entropy_array();
        let bytes = Zeroizing::new(bytes);
        let mut entropy = Zeroizing::new([0; 16]);
        entropy.iter_mut().zip(bytes.iter()).for_each(|(to, from)| *to = *from);
        entropy
    }

    /// Reads a phrase as a person types it: any case, any space, commas, numbers before the words ("1. abandon").
    pub fn parse(text: &str) -> Result<Self, PhraseError> {
        let words: Vec<Zeroizing<String>> = typed_words(text)
            .filter(|word| !word.chars().all(|c| c.is_ascii_digit()))
            .map(|word| Zeroizing::new(word.to_lowercase()))
            .collect();
        for (at, word) in words.iter().enumerate() {
            if word_index(word).is_none() {
                return Err(PhraseError::UnknownWord {
                    position: at + 1,
                    word: shown(word),
                    nearest: nearest_word(word),
                });
            }
        }
        if words.len() != WORDS {
            return Err(PhraseError::WordCount(words.len()));
        }
        let mut joined = Zeroizing::new(String::with_capacity(limits::TYPED));
        for word in &words {
            joined.push_str(word);
            joined.push(' ');
        }
        let phrase = Mnemonic::parse_in_normalized(Language::English, joined.trim_end());
        phrase.map(Self).map_err(|_| PhraseError::Checksum)
    }

    /// The twelve words, in order.
    pub fn words(&self) -> impl Iterator<Item = &'static str> + '_ {
        self.0.words()
    }

    /// The words with one space between them.
    pub fn to_text(&self) -> Zeroizing<String> {
        let mut text = Zeroizing::new(String::with_capacity(WORDS * 9));
        for word in self.words() {
            if !text.is_empty() {
                text.push(' ');
            }
            text.push_str(word);
        }
        text
    }

    /// The seed of the mesh's root keys; takes some milliseconds.
    pub fn seed(&self) -> Zeroizing<[u8; 64]> {
        Zeroizing::new(self.0.to_seed_normalized(""))
    }
}

/// The parts of what a person typed: between spaces, dashes, commas and full stops. Text beyond the bound is not read.
pub(crate) fn typed_words(text: &str) -> impl Iterator<Item = &str> {
    let end = (0..=limits::TYPED.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    let separator = |c: char| c.is_whitespace() || matches!(c, '-' | '–' | '—' | '_' | ',' | '.' | ';');
    text.get(..end).unwrap_or_default().split(separator).filter(|word| !word.is_empty())
}

/// The place of a word in the list of 2,048.
pub(crate) fn word_index(word: &str) -> Option<u16> {
    Language::English.find_word(word)
}

/// The word at a place of the list; places count modulo 2,048.
pub(crate) fn word_at(index: u16) -> &'static str {
    Language::English.word_list()[usize::from(index) % 2048]
}

/// What was typed, fit to be repeated in a message.
pub(crate) fn shown(word: &str) -> String {
    word.chars().filter(|c| c.is_alphanumeric()).take(24).collect()
}

/// The word of the list that needs the fewest letters changed; the first of them in the alphabet.
pub(crate) fn nearest_word(typed: &str) -> &'static str {
    let typed: Vec<char> = typed.chars().take(24).collect();
    let words = Language::English.word_list().iter();
    words.min_by_key(|word| edit_distance(&typed, word)).copied().unwrap_or_default()
}

/// Levenshtein distance, one row at a time.
fn edit_distance(typed: &[char], word: &str) -> usize {
    let mut row: Vec<usize> = (0..=typed.len()).collect();
    for (line, letter) in word.chars().enumerate() {
        let mut diagonal = line;
        let mut left = line + 1;
        if let Some(first) = row.first_mut() {
            *first = left;
        }
        for (other, cell) in typed.iter().zip(row.iter_mut().skip(1)) {
            let changed = diagonal + usize::from(*other != letter);
            diagonal = *cell;
            left = changed.min(left + 1).min(*cell + 1);
            *cell = left;
        }
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::hex;

    const ZERO: &str = "abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon about";

    #[test]
    fn the_known_phrase_gives_the_known_seed() {
        let phrase = Phrase::from_entropy(&[0; 16]);
        assert_eq!(*phrase.to_text(), ZERO);
        assert_eq!(
            hex(phrase.seed().as_ref()),
            "5eb00bbddcf069084889a8ab9155568165f5c453ccb85e70811aaed6f6da5fc1\
             9a5ac40b389cd370d086206dec8aa6c43daea6690f20ad3d8d48b2d2ce9e38e4"
        );
    }

    #[test]
    fn typing_is_forgiven() {
        let mut rng = crate::seal::SeedRng::new([7; 32]);
        let phrase = Phrase::generate(&mut rng);
        let numbered: String =
            phrase.words().enumerate().map(|(at, word)| format!(" {}. {},\n", at + 1, word.to_uppercase())).collect();
        assert!(Phrase::parse(&numbered) == Ok(phrase.clone()));
        assert_eq!(*Phrase::from_entropy(&phrase.entropy()).to_text(), *phrase.to_text());
    }

    #[test]
    fn errors_say_what_to_do() {
        assert_eq!(Phrase::parse("").err(), Some(PhraseError::WordCount(0)));
        assert_eq!(Phrase::parse("abandon about").err(), Some(PhraseError::WordCount(2)));
        assert_eq!(Phrase::parse(&ZERO.replace("about", "abandon")).err(), Some(PhraseError::Checksum));
        let wrong = Phrase::parse(&ZERO.replace("about", "abuot")).err().map(|e| e.to_string());
        assert_eq!(wrong.as_deref(), Some("word 12, “abuot”, is not in the word list; did you mean “about”?"));
        assert!(Phrase::parse(&"é".repeat(5_000)).is_err());
    }

    #[test]
    fn the_nearest_word_is_near() {
        for (typed, meant) in [("bananna", "banana"), ("aple", "able"), ("zoo", "zoo"), ("elephnt", "elephant")] {
            assert_eq!(nearest_word(typed), meant);
        }
        assert_eq!(edit_distance(&['a', 'b'], ""), 2);
        assert_eq!(edit_distance(&[], "abc"), 3);
    }
}
