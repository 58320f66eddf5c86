//! How devices that know each other's keys, and not where the other is, meet at a bootstrap that is told neither: each leaves
//! the other a sealed note with its addresses, at a place that only the two can name.

mod table;

use rand_core::CryptoRng;
use zeroize::Zeroizing;

use crate::{
    codec,
    id::DeviceId,
    limits,
    seal::{self, CIPHER_OVERHEAD, SealKey, SealPublic},
    time::Timestamp,
    wire_struct,
};

pub use self::table::{Source, Table};

const SECRET_CONTEXT: &str = "mesh 2026 rendezvous v1";
const NOTE_CONTEXT: &str = "mesh 2026 rendezvous note v1";

/// Where a note is kept: for the bootstrap a number without meaning.
pub type Place = [u8; 32];

/// Where a device is, in its own words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    /// When it was written, by the clock of that device.
    pub written: Timestamp,
    /// Addresses in text form, best first, at most [`limits::RENDEZVOUS_ADDRESSES`].
    pub addresses: Vec<String>,
}
wire_struct!(Note { written, addresses });

/// A note does not open: other devices, or altered on the way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the note is not from that device")]
pub struct NoteError;

/// What this device and another one have in common and nobody else can know: the X25519 secret of their seal keys,
/// bound to both devices. Not even another device of the same mesh, or one that was removed, can read their notes.
pub struct Meeting {
    secret: Zeroizing<[u8; 32]>,
}

impl Meeting {
    /// What `own`, with the secret half of its seal key, shares with `other`; `None` for a key that is none.
    pub fn new(own: (&DeviceId, &SealKey), other: (&DeviceId, &SealPublic)) -> Option<Self> {
        let shared = own.1.agree(other.1)?;
        let (low, high) = if own.0 < other.0 { (own.0, other.0) } else { (other.0, own.0) };
        let mut material = Zeroizing::new([0; 96]);
        for (part, bytes) in material.chunks_exact_mut(32).zip([&*shared, &low.0, &high.0]) {
            part.copy_from_slice(bytes);
        }
        Some(Self { secret: Zeroizing::new(blake3::derive_key(SECRET_CONTEXT, &material[..])) })
    }

    /// Where the notes of `writer` are kept, which is one of the two.
    pub fn place(&self, writer: &DeviceId) -> Place {
        *blake3::keyed_hash(&self.secret, &writer.0).as_bytes()
    }

    /// Seals a note of `writer`: always of [`limits::RENDEZVOUS_NOTE`] bytes, so that the length tells nothing. Addresses
    /// that do not fit are left out, the last ones first.
    pub fn seal(&self, writer: &DeviceId, mut note: Note, rng: &mut impl CryptoRng) -> Vec<u8> {
        note.addresses.retain(|address| address.len() <= limits::ADDRESS);
        note.addresses.truncate(limits::RENDEZVOUS_ADDRESSES);
        let room = limits::RENDEZVOUS_NOTE - CIPHER_OVERHEAD - LENGTH;
        let mut plain = codec::encode(&note);
        while plain.len() > room && note.addresses.pop().is_some() {
            plain = codec::encode(&note);
        }
        let length = u16::try_from(plain.len()).unwrap_or_default().to_be_bytes();
        plain.resize(room, 0);
        seal::encrypt(&self.note_key(), rng, &self.place(writer), &[&length[..], &plain].concat())
    }

    /// Opens a note of `writer`.
    pub fn open(&self, writer: &DeviceId, sealed: &[u8]) -> Result<Note, NoteError> {
        let plain = seal::decrypt(&self.note_key(), &self.place(writer), sealed).map_err(|_| NoteError)?;
        let (length, rest) = plain.split_first_chunk::<LENGTH>().ok_or(NoteError)?;
        let text = rest.get(..u16::from_be_bytes(*length).into()).ok_or(NoteError)?;
        let note: Note = codec::decode(text, limits::RENDEZVOUS_NOTE).map_err(|_| NoteError)?;
        let bounded = note.addresses.len() <= limits::RENDEZVOUS_ADDRESSES
            && note.addresses.iter().all(|address| address.len() <= limits::ADDRESS);
        if bounded { Ok(note) } else { Err(NoteError) }
    }

    fn note_key(&self) -> Zeroizing<[u8; 32]> {
        Zeroizing::new(blake3::derive_key(NOTE_CONTEXT, &self.secret[..]))
    }
}

/// Bytes of the length before the text of a note.
const LENGTH: usize = 2;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seal::SeedRng;

    fn pair() -> [(DeviceId, SealKey); 2] {
        [1u8, 2].map(|seed| (DeviceId([seed; 32]), SealKey::generate(&mut SeedRng::new([seed; 32]))))
    }

    fn meeting(own: &(DeviceId, SealKey), other: &(DeviceId, SealKey)) -> Meeting {
        Meeting::new((&own.0, &own.1), (&other.0, &other.1.public())).expect("keys")
    }

    fn note(addresses: usize, len: usize) -> Note {
        Note { written: Timestamp(7), addresses: (0..addresses).map(|_| "x".repeat(len)).collect() }
    }

    #[test]
    fn the_two_name_the_same_place_and_read_each_other_and_nobody_else_does() {
        let [a, b] = pair();
        let third = (DeviceId([3; 32]), SealKey::generate(&mut SeedRng::new([3; 32])));
        let (here, there) = (meeting(&a, &b), meeting(&b, &a));
        assert_eq!(here.place(&a.0), there.place(&a.0));
        assert_ne!(here.place(&a.0), here.place(&b.0));
        let sealed = here.seal(&a.0, note(2, 30), &mut SeedRng::new([9; 32]));
        assert_eq!(there.open(&a.0, &sealed), Ok(note(2, 30)));
        // Not as one of the other's own, nor by a third device of the same mesh.
        assert_eq!(there.open(&b.0, &sealed), Err(NoteError));
        assert_eq!(meeting(&third, &a).open(&a.0, &sealed), Err(NoteError));
        assert_ne!(meeting(&third, &a).place(&a.0), here.place(&a.0));
    }

    #[test]
    fn all_notes_have_one_length_and_the_last_addresses_give_way() {
        let [a, b] = pair();
        let (here, there) = (meeting(&a, &b), meeting(&b, &a));
        for (addresses, len) in [(0, 0), (1, 20), (4, limits::ADDRESS), (40, limits::ADDRESS), (3, limits::ADDRESS + 1)]
        {
            let sealed = here.seal(&a.0, note(addresses, len), &mut SeedRng::new([9; 32]));
            assert_eq!(sealed.len(), limits::RENDEZVOUS_NOTE);
            let read = there.open(&a.0, &sealed).expect("a note").addresses;
            assert!(read.len() <= addresses && (read.len() == addresses || len >= limits::ADDRESS), "{}", read.len());
        }
    }

    #[test]
    fn a_flipped_bit_or_another_length_is_refused() {
        let [a, b] = pair();
        let sealed = meeting(&a, &b).seal(&a.0, note(1, 30), &mut SeedRng::new([9; 32]));
        let there = meeting(&b, &a);
        for bit in 0..sealed.len() * 8 {
            let mut flipped = sealed.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(there.open(&a.0, &flipped), Err(NoteError), "bit {bit}");
        }
        assert_eq!(there.open(&a.0, &sealed[..40]), Err(NoteError));
        assert_eq!(there.open(&a.0, &[]), Err(NoteError));
    }

    #[test]
    fn a_key_that_gives_everybody_the_same_secret_is_none() {
        let [a, b] = pair();
        assert!(Meeting::new((&a.0, &a.1), (&b.0, &SealPublic([0; 32]))).is_none());
    }
}
