//! `/meshwork/pair/1`: a newcomer and the device that shows a code.
//!
//! Newcomer first: `Ask`, `Answer`, then by code `Code`, `Spake`, or by link `Link`; three `Noise` messages of
//! `Noise_XXpsk3_25519_ChaChaPoly_BLAKE2s`; then [`PairSecret`]s inside `Noise` messages. `Refused` ends it at any point.

use serde_bytes::ByteBuf;

use crate::{
    codec::{self, DecodeError},
    id::DeviceId,
    limits,
    seal::SealPublic,
    wire_enum, wire_struct,
};

/// What travels in clear on the stream, which is itself encrypted and authenticated between the two devices.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PairMessage {
    /// Does your code begin with this number?
    Ask {
        /// 1 to 9,999.
        number: u16,
    },
    /// The answer to `Ask`.
    Answer {
        /// Whether it does.
        known: bool,
    },
    /// Start with the code of this number.
    Code {
        /// 1 to 9,999.
        number: u16,
        /// The newcomer's SPAKE2 message, 33 bytes.
        spake: ByteBuf,
    },
    /// The answer to `Code`.
    Spake {
        /// The SPAKE2 message of the device that shows the code, 33 bytes.
        spake: ByteBuf,
    },
    /// Start with the secret of the link; a `Noise` message follows at once.
    Link {},
    /// A Noise message: of the handshake, or a sealed [`PairSecret`].
    Noise {
        /// The message.
        bytes: ByteBuf,
    },
    /// The end, without a reason that could help to guess.
    Refused {
        /// Whether a person said no.
        declined: bool,
    },
}
wire_enum!(PairMessage {
    0 => Ask { number },
    1 => Answer { known },
    2 => Code { number, spake },
    3 => Spake { spake },
    4 => Link {},
    5 => Noise { bytes },
    6 => Refused { declined },
});

/// What travels sealed under the handshake's keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PairSecret {
    /// The newcomer presents itself.
    Hello {
        /// Its newest version of this protocol.
        version: u16,
        /// Its id, equal to that of the connection.
        device: DeviceId,
        /// Where secrets for it are sealed to.
        seal: SealPublic,
        /// 0 full, 1 storage, 2 relay, 3 browser.
        kind: u8,
        /// Its name, at most [`limits::NAME`] bytes.
        name: String,
    },
    /// The code was right; a person is being asked.
    Waiting {},
    /// A part of the encoded [`Welcome`], in order; all but the last are [`limits::PAIR_PART`] bytes.
    Part {
        /// Bytes of the whole.
        total: u32,
        /// The next of them.
        bytes: ByteBuf,
    },
    /// The newcomer has stored the welcome.
    Done {},
}
wire_enum!(PairSecret {
    0 => Hello { version, device, seal, kind, name },
    1 => Waiting {},
    2 => Part { total, bytes },
    3 => Done {},
});

/// What a newcomer is given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Welcome {
    /// Signed statements: the genesis of the mesh first, then its control log in causal order.
    pub items: Vec<ByteBuf>,
    /// Where the devices of the mesh may be reached, in text form.
    pub addresses: Vec<String>,
    /// The name of the mesh.
    pub name: String,
}
wire_struct!(Welcome { items, addresses, name });

impl Welcome {
    /// The encoding; the pairing machine refuses it when it is longer than [`limits::PAIR_WELCOME`].
    pub fn to_bytes(&self) -> Vec<u8> {
        codec::encode(self)
    }

    /// Reads a welcome and checks its bounds; the statements in it are not looked at.
    pub fn parse(bytes: &[u8]) -> Result<Self, DecodeError> {
        let welcome: Self = codec::decode(bytes, limits::PAIR_WELCOME)?;
        let bounded = welcome.items.len() <= limits::PAIR_ITEMS
            && welcome.addresses.len() <= limits::PAIR_WELCOME_ADDRESSES
            && welcome.addresses.iter().all(|address| address.len() <= limits::ADDRESS)
            && welcome.name.len() <= limits::NAME;
        if bounded { Ok(welcome) } else { Err(DecodeError::Malformed) }
    }
}
