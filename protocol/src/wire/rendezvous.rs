//! `/meshwork/rendezvous/1`: a device asks a bootstrap. Each [`Ask`] has one [`Answer`], in the same order; a stream carries
//! at most [`limits::RENDEZVOUS_ASKS`].

use serde_bytes::{ByteArray, ByteBuf};

use crate::{
    codec::{self, DecodeError},
    limits,
    time::Timestamp,
    wire_codes, wire_enum,
};

/// What a device asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ask {
    /// Keep this note at a place, instead of one that the device left there before.
    Leave {
        /// Where: [`Meeting::place`](crate::rendezvous::Meeting::place).
        place: ByteArray<32>,
        /// At most [`limits::RENDEZVOUS_NOTE`] bytes that mean nothing to the bootstrap.
        note: ByteBuf,
    },
    /// Give the notes at a place.
    Look {
        /// Where.
        place: ByteArray<32>,
    },
    /// Keep this note under the number of a pairing code, which nobody else has then.
    Show {
        /// 1 to 9,999.
        number: u16,
        /// At most [`limits::RENDEZVOUS_NOTE`] bytes: a [`CardDevice`](crate::contact::CardDevice).
        note: ByteBuf,
    },
    /// Give the note under the number of a pairing code.
    Seek {
        /// 1 to 9,999.
        number: u16,
    },
    /// Try to reach the device from outside, at the address that it is seen at and this port.
    Probe {
        /// The port, for TCP and UDP.
        port: u16,
    },
}
wire_enum!(Ask {
    0 => Leave { place, note },
    1 => Look { place },
    2 => Show { number, note },
    3 => Seek { number },
    4 => Probe { port },
});

/// What a bootstrap answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// To `Leave` and `Show`: it is kept.
    Kept {
        /// For so long, unless it is left again.
        seconds: u32,
    },
    /// To `Look` and `Seek`: what is kept there, at most [`limits::RENDEZVOUS_NOTES_PER_PLACE`].
    Notes {
        /// The notes, in no order.
        notes: Vec<ByteBuf>,
    },
    /// To `Probe`.
    Seen {
        /// The address that the device is seen at: 4 or 16 bytes.
        ip: ByteBuf,
        /// Its port, as the network between the two maps that.
        port: u16,
        /// Whether the device answered over TCP.
        tcp: bool,
        /// Whether the device answered over QUIC.
        quic: bool,
        /// What time it is for the bootstrap.
        time: Timestamp,
    },
    /// To any.
    Refused {
        /// The code of a [`Refusal`].
        code: u8,
    },
}
wire_enum!(Answer {
    0 => Kept { seconds },
    1 => Notes { notes },
    2 => Seen { ip, port, tcp, quic, time },
    3 => Refused { code },
});

/// Why a bootstrap does not do what it is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Not a question, or one above its bounds.
    #[error("the bootstrap does not understand this version")]
    Malformed,
    /// The device has left as many notes as it may.
    #[error("this device has as many notes at the bootstrap as it may")]
    Device,
    /// The network that it comes from has.
    #[error("the network of this device has as many notes at the bootstrap as it may")]
    Network,
    /// The bootstrap holds as much as it can, or so much at that place.
    #[error("the bootstrap is full")]
    Full,
    /// Another device shows a code of this number, or did so a moment ago.
    #[error("the number of the code is taken at the bootstrap")]
    Taken,
    /// It tries others just now, or tried this one a moment ago.
    #[error("the bootstrap is busy")]
    Busy,
}

wire_codes!(Refusal { Malformed, Device, Network, Full, Taken, Busy });

impl Refusal {
    /// One word, for counters.
    pub fn name(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::Device => "device",
            Self::Network => "network",
            Self::Full => "full",
            Self::Taken => "taken",
            Self::Busy => "busy",
        }
    }
}

impl Ask {
    /// The question as the body of a frame.
    pub fn encode(&self) -> Vec<u8> {
        codec::encode(self)
    }

    /// Reads the body of a frame of at most [`limits::RENDEZVOUS_ASK`] bytes.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        codec::decode(bytes, limits::RENDEZVOUS_ASK)
    }
}

impl Answer {
    /// The answer as the body of a frame.
    pub fn encode(&self) -> Vec<u8> {
        codec::encode(self)
    }

    /// Reads the body of a frame of at most [`limits::RENDEZVOUS_ANSWER`] bytes.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        codec::decode(bytes, limits::RENDEZVOUS_ANSWER)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::hex;

    #[test]
    fn golden_bytes() {
        assert_eq!(hex(&Ask::Seek { number: 42 }.encode()), "8203182a");
        assert_eq!(hex(&Ask::Probe { port: 4001 }.encode()), "8204190fa1");
        assert_eq!(hex(&Answer::Kept { seconds: 7200 }.encode()), "8200191c20");
        assert_eq!(hex(&Answer::Refused { code: Refusal::Taken.code() }.encode()), "820304");
    }

    #[test]
    fn the_largest_messages_fit_and_read_back() {
        let note = ByteBuf::from(vec![7; limits::RENDEZVOUS_NOTE]);
        let ask = Ask::Leave { place: ByteArray::new([9; 32]), note: note.clone() };
        assert_eq!(Ask::decode(&ask.encode()).as_ref(), Ok(&ask));
        let answer = Answer::Notes { notes: vec![note; limits::RENDEZVOUS_NOTES_PER_PLACE] };
        assert_eq!(Answer::decode(&answer.encode()).as_ref(), Ok(&answer));
        let (ip, time) = (ByteBuf::from(vec![1; 16]), Timestamp(u64::MAX));
        let seen = Answer::Seen { ip, port: u16::MAX, tcp: true, quic: false, time };
        assert_eq!(Answer::decode(&seen.encode()).as_ref(), Ok(&seen));
        assert_eq!(Refusal::ALL.map(|refusal| Refusal::from_code(refusal.code())), Refusal::ALL.map(Some));
        assert_eq!(Refusal::from_code(200), None);
    }
}
