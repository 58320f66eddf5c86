//! Channels of a relay's data port: who may be joined to whom, once and soon.
//!
//! A device asks for a channel over its authenticated stream and gets two tokens. Whoever presents one of them at the
//! data port is an end of the channel; the relay joins the two ends and copies bytes that it cannot read.

use std::{collections::BTreeMap, fmt};

use rand_core::CryptoRng;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use serde_bytes::ByteBuf;

use crate::{id::DeviceId, limits, time::Timestamp, wire_codes};

/// The version in the first byte of a connection to the data port.
pub const VERSION: u8 = 1;
/// Bytes of a preamble: the version and a token.
pub const PREAMBLE: usize = 1 + Token::LEN;
/// The byte that both ends get when they are joined; every other first byte is a [`Refusal`].
pub const READY: u8 = 1;
/// Bytes behind [`READY`] in the answer to a request: the port, big-endian, and the tokens.
pub const GRANT: usize = 2 + 2 * Token::LEN;

/// The right to be one end of a channel. A secret: it is never shown.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Token(pub [u8; Token::LEN]);

impl Token {
    /// Length in bytes.
    pub const LEN: usize = 16;
}

impl Serialize for Token {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for Token {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let bytes = ByteBuf::deserialize(deserializer)?;
        let token = bytes.as_slice().try_into().map(Token);
        token.map_err(|_| de::Error::custom("a token of another length"))
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(_)")
    }
}

/// The number of a channel, in the order in which they were opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ChannelId(pub u64);

/// A channel that was opened: the first token is for the device that asked, the second for the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Grant {
    /// Where both connect to, on the host of the relay.
    pub port: u16,
    /// One for each end.
    pub tokens: [Token; 2],
}

impl Grant {
    /// Reads what follows [`READY`] in an answer.
    pub fn from_bytes(bytes: &[u8; GRANT]) -> Self {
        let token = |from: usize| Token(std::array::from_fn(|at| bytes[from + at]));
        Self { port: u16::from_be_bytes([bytes[0], bytes[1]]), tokens: [token(2), token(2 + Token::LEN)] }
    }
}

/// The answer to a request: [`READY`] and the grant, or the byte of the refusal alone.
pub fn answer(opened: &Result<Grant, Refusal>) -> Vec<u8> {
    match opened {
        Ok(Grant { port, tokens: [first, second] }) => {
            [&[READY], &port.to_be_bytes()[..], &first.0, &second.0].concat()
        }
        Err(refusal) => vec![refusal.code()],
    }
}

/// A token that was good: what its connection is now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Joined {
    /// The channel.
    pub channel: ChannelId,
    /// The device that asked for it, whose quota it uses.
    pub payer: DeviceId,
    /// Until when the other end is waited for; `None` when it is here already.
    pub wait: Option<Timestamp>,
}

/// Why there is no channel. The number is the byte that the data port answers before it closes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
#[repr(u8)]
pub enum Refusal {
    /// The first byte is another version.
    #[error("this relay speaks another version of the data port; update the older of the two")]
    Version = 2,
    /// Never given out, or forgotten.
    #[error("the token is not known here; ask the relay for a new channel")]
    Unknown = 3,
    /// Presented before.
    #[error("the token was used before; ask the relay for a new channel")]
    Used = 4,
    /// Not presented in time, or the other end did not come in time.
    #[error("the channel waited too long for both its ends; ask the relay for a new one")]
    Expired = 5,
    /// The preamble did not come in time, or came with more behind it.
    #[error("the preamble was not one version and one token within five seconds")]
    Preamble = 6,
    /// The device has too many channels that wait.
    #[error("too many channels of this device wait for an end; use or let them expire")]
    DeviceBusy = 7,
    /// The relay has too many channels or connections.
    #[error("the relay is full; try another, or this one later")]
    Busy = 8,
    /// The relay is about to stop.
    #[error("the relay takes no new channels because it is about to stop; use another")]
    Draining = 9,
    /// The bytes of this month are used up.
    #[error("the relay has used up its bytes of this month; use another")]
    Budget = 10,
    /// A channel to itself.
    #[error("both ends of the channel are the same device")]
    Own = 11,
    /// The relay carries for neither of the two devices.
    #[error("the relay carries for devices that its operator invited, and these two were not")]
    NotInvited = 12,
}

wire_codes!(Refusal { Version, Unknown, Used, Expired, Preamble, DeviceBusy, Busy, Draining, Budget, Own, NotInvited });

impl Refusal {
    /// One lower-case word, for counters.
    pub fn name(self) -> &'static str {
        match self {
            Self::Version => "version",
            Self::Unknown => "unknown",
            Self::Used => "used",
            Self::Expired => "expired",
            Self::Preamble => "preamble",
            Self::DeviceBusy => "device_busy",
            Self::Busy => "busy",
            Self::Draining => "draining",
            Self::Budget => "budget",
            Self::Own => "own",
            Self::NotInvited => "not_invited",
        }
    }
}

struct Waiting {
    payer: DeviceId,
    until: Timestamp,
    tokens: [Token; 2],
    used: [bool; 2],
}

/// The channels that wait for an end.
pub struct Channels {
    port: u16,
    next: u64,
    waiting: BTreeMap<ChannelId, Waiting>,
    tokens: BTreeMap<Token, (ChannelId, usize)>,
    devices: BTreeMap<DeviceId, usize>,
}

impl Channels {
    /// None yet; `port` is told to devices.
    pub fn new(port: u16) -> Self {
        Self { port, next: 0, waiting: BTreeMap::new(), tokens: BTreeMap::new(), devices: BTreeMap::new() }
    }

    /// Opens a channel for the device `from`, which has proved itself, to `to`.
    pub fn open(
        &mut self,
        now: Timestamp,
        rng: &mut impl CryptoRng,
        from: DeviceId,
        to: DeviceId,
    ) -> Result<Grant, Refusal> {
        self.expire(now);
        if from == to {
            return Err(Refusal::Own);
        }
        if self.devices.get(&from).is_some_and(|count| *count >= limits::SPLICE_WAITING_PER_DEVICE) {
            return Err(Refusal::DeviceBusy);
        }
        if self.waiting.len() >= limits::SPLICE_WAITING {
            return Err(Refusal::Busy);
        }
        let channel = ChannelId(self.next);
        self.next += 1;
        let mut tokens = [Token([0; Token::LEN]); 2];
        for (end, token) in tokens.iter_mut().enumerate() {
            rng.fill_bytes(&mut token.0);
            self.tokens.insert(*token, (channel, end));
        }
        *self.devices.entry(from).or_default() += 1;
        let until = now + limits::SPLICE_VALIDITY;
        self.waiting.insert(channel, Waiting { payer: from, until, tokens, used: [false; 2] });
        Ok(Grant { port: self.port, tokens })
    }

    /// Uses up a token.
    pub fn present(&mut self, now: Timestamp, token: Token) -> Result<Joined, Refusal> {
        let (channel, end) = *self.tokens.get(&token).ok_or(Refusal::Unknown)?;
        let waiting = self.waiting.get_mut(&channel).ok_or(Refusal::Unknown)?;
        if waiting.until <= now {
            self.expire(now);
            return Err(Refusal::Expired);
        }
        if std::mem::replace(&mut waiting.used[end], true) {
            return Err(Refusal::Used);
        }
        let payer = waiting.payer;
        if !waiting.used[1 - end] {
            return Ok(Joined { channel, payer, wait: Some(waiting.until) });
        }
        self.forget(channel);
        Ok(Joined { channel, payer, wait: None })
    }

    /// Gives up a channel one end of which went away before the other came.
    pub fn forget(&mut self, channel: ChannelId) {
        let Some(waiting) = self.waiting.remove(&channel) else { return };
        for token in waiting.tokens {
            self.tokens.remove(&token);
        }
        if let Some(count) = self.devices.get_mut(&waiting.payer) {
            *count -= 1;
            if *count == 0 {
                self.devices.remove(&waiting.payer);
            }
        }
    }

    /// Gives up the channels whose time is over; says how many.
    pub fn expire(&mut self, now: Timestamp) -> usize {
        let mut count = 0;
        while let Some(channel) = self.waiting.iter().next().filter(|(_, first)| first.until <= now).map(|(id, _)| *id)
        {
            self.forget(channel);
            count += 1;
        }
        count
    }

    /// How many channels wait.
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Whether no channel waits.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seal::SeedRng;

    const A: DeviceId = DeviceId([1; 32]);
    const B: DeviceId = DeviceId([2; 32]);
    const NOW: Timestamp = Timestamp(1_000_000);

    fn fresh() -> (Channels, SeedRng) {
        (Channels::new(4003), SeedRng::new([7; 32]))
    }

    #[test]
    fn two_tokens_join_once() {
        let (mut channels, mut rng) = fresh();
        let grant = channels.open(NOW, &mut rng, A, B).expect("open");
        let first = channels.present(NOW, grant.tokens[1]).expect("first");
        assert_eq!((first.payer, first.wait), (A, Some(NOW + limits::SPLICE_VALIDITY)));
        assert_eq!(channels.present(NOW, grant.tokens[1]), Err(Refusal::Used));
        let second = channels.present(NOW, grant.tokens[0]).expect("second");
        assert_eq!((second.channel, second.wait), (first.channel, None));
        assert_eq!(channels.present(NOW, grant.tokens[0]), Err(Refusal::Unknown));
        assert!(channels.is_empty() && channels.tokens.is_empty() && channels.devices.is_empty());
    }

    #[test]
    fn a_channel_expires() {
        let (mut channels, mut rng) = fresh();
        let grant = channels.open(NOW, &mut rng, A, B).expect("open");
        let late = NOW + limits::SPLICE_VALIDITY;
        assert_eq!(channels.present(late, grant.tokens[0]), Err(Refusal::Expired));
        assert_eq!(channels.present(late, grant.tokens[0]), Err(Refusal::Unknown));
        assert!(channels.is_empty() && channels.tokens.is_empty() && channels.devices.is_empty());
    }

    #[test]
    fn what_waits_is_bounded() {
        let (mut channels, mut rng) = fresh();
        assert_eq!(channels.open(NOW, &mut rng, A, A), Err(Refusal::Own));
        for _ in 0..limits::SPLICE_WAITING_PER_DEVICE {
            channels.open(NOW, &mut rng, A, B).expect("open");
        }
        assert_eq!(channels.open(NOW, &mut rng, A, B), Err(Refusal::DeviceBusy));
        let mut opened = channels.len();
        for number in 0..=limits::SPLICE_WAITING as u32 {
            let mut device = [9; 32];
            device[..4].copy_from_slice(&number.to_be_bytes());
            match channels.open(NOW, &mut rng, DeviceId(device), B) {
                Ok(_) => opened += 1,
                Err(refusal) => assert_eq!(refusal, Refusal::Busy),
            }
        }
        assert_eq!(opened, limits::SPLICE_WAITING);
        channels.open(NOW + limits::SPLICE_VALIDITY, &mut rng, A, B).expect("the old ones are gone");
        assert_eq!(channels.len(), 1);
    }

    #[test]
    fn an_answer_says_what_was_granted_or_why_not() {
        let (mut channels, mut rng) = fresh();
        let grant = channels.open(NOW, &mut rng, A, B).expect("open");
        let answered = answer(&Ok(grant));
        assert_eq!(answered.len(), 1 + GRANT);
        let (first, rest) = answered.split_at(1);
        assert_eq!(first, [READY]);
        assert_eq!(Grant::from_bytes(rest.try_into().expect("as long as a grant")), grant);
        assert_eq!(answer(&Err(Refusal::Budget)), [Refusal::Budget.code()]);
    }

    #[test]
    fn every_refusal_has_a_byte_of_its_own() {
        for refusal in Refusal::ALL {
            assert_eq!(Refusal::from_code(refusal.code()), Some(refusal));
            assert_ne!(refusal.code(), READY);
        }
        assert_eq!(Refusal::from_code(READY), None);
    }
}
