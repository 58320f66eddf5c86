//! Pairing: how a new device joins a mesh.
//!
//! The device that is trusted already makes a code and shows it; the new one types it. Three words of 2,048 are 33 bits,
//! which anybody could try out in hours if they were a key. They are none: SPAKE2 turns them into a key of which each
//! side can test one guess for each conversation, and the code dies at the first wrong one. That key, or the 128-bit
//! secret of a link, goes into a Noise handshake as pre-shared key; its third message is the proof. The handshake is
//! bound to the two device ids that the connection has proved. Then the trusted device asks its user.
//!
//! [`Offer`] is the trusted side, [`Join`] the new one; both are machines without clock, network or randomness.

mod code;
mod exchange;
mod join;
mod link;
mod offer;

#[cfg(test)]
mod tests;

use std::{collections::VecDeque, fmt};

use crate::{
    id::DeviceId,
    limits,
    seal::SealPublic,
    time::Timestamp,
    wire::pair::{PairMessage, PairSecret},
};

pub use self::{
    code::{CodeError, PairCode},
    join::{Join, JoinInput, JoinOutput},
    link::{LinkError, PairLink},
    offer::{Offer, OfferInput, OfferOutput},
};

/// The version of this protocol, as a newcomer states it.
pub const VERSION: u16 = 1;
/// The oldest version of a newcomer that is let in.
pub const VERSION_MIN: u16 = 1;

/// One conversation with one peer: a stream, numbered by whoever opens or accepts it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AttemptId(pub u64);

/// A device that asks to be let in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Newcomer {
    /// Its id, proved by the connection.
    pub device: DeviceId,
    /// Where secrets for it are sealed to.
    pub seal: SealPublic,
    /// What it calls itself: 1 to [`limits::NAME`] bytes, no control characters.
    pub name: String,
    /// 0 full, 1 storage, 2 relay, 3 browser; other values are to be treated as 0 rights by whoever does not know them.
    pub kind: u8,
}

/// Why pairing did not come about. The texts are for the user of this device; a peer is only ever told *declined* or
/// *failed*.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PairError {
    /// Ten minutes have passed.
    #[error("the code has expired; show a new one")]
    Expired,
    /// The code was used, or died of a wrong guess.
    #[error("this code is no longer valid: it was used, or a wrong one was tried; show a new one")]
    CodeSpent,
    /// The two devices do not have the same code.
    #[error("the code is not the one that was shown; for safety it is now spent: show a new one")]
    WrongCode,
    /// Another device than the one named in the link, or than the connection proved.
    #[error("the device that answered is not the one that was named")]
    PeerMismatch,
    /// A person said no.
    #[error("declined on the other device")]
    Declined,
    /// The newcomer's software is too old.
    #[error("the new device runs too old a version of Meshwork: pairing needs protocol version {min}")]
    VersionTooOld {
        /// The oldest version that is accepted.
        min: u16,
    },
    /// A message or the welcome is beyond its bound.
    #[error("too much data for pairing")]
    Oversize,
    /// Too many codes died one after another.
    #[error("too many wrong codes; wait {retry_s} seconds")]
    RateLimited {
        /// Seconds until a new code may be made.
        retry_s: u64,
    },
    /// No device in reach shows this code.
    #[error("no device in reach shows this code; check its number, and that both devices are on one network")]
    NotFound,
    /// The other side stopped, or sent what does not belong here.
    #[error("the conversation with the other device broke off; try again")]
    Interrupted,
}

/// Codes that died of a wrong guess: after three within an hour there is a pause of ten minutes.
#[derive(Debug, Clone, Default)]
pub struct DeadCodes(VecDeque<Timestamp>);

impl DeadCodes {
    /// Whether a new code may be made at `now`.
    ///
    /// # Errors
    /// [`PairError::RateLimited`] during the pause.
    pub fn permit(&self, now: Timestamp) -> Result<(), PairError> {
        let (Some(first), Some(last)) = (self.0.front(), self.0.back()) else {
            return Ok(());
        };
        let end = *last + limits::PAIR_PAUSE;
        let paused = self.0.len() >= limits::PAIR_DEAD_CODES && *last - *first <= limits::PAIR_PAUSE_WINDOW;
        if paused && now < end {
            return Err(PairError::RateLimited { retry_s: (end - now).as_secs().max(1) });
        }
        Ok(())
    }

    /// Notes the end of an offer; only [`PairError::WrongCode`] counts.
    pub fn note(&mut self, now: Timestamp, reason: &PairError) {
        if *reason != PairError::WrongCode {
            return;
        }
        // A pause that is over has been served.
        if self.0.len() >= limits::PAIR_DEAD_CODES && self.permit(now).is_ok() {
            self.0.clear();
        }
        self.0.push_back(now);
        while self.0.len() > limits::PAIR_DEAD_CODES {
            self.0.pop_front();
        }
    }

    /// Forgets the dead codes, after a pairing that came about.
    pub fn forgive(&mut self) {
        self.0.clear();
    }
}

/// Whether a name from a peer may be shown: not empty, within bounds, and without characters that change how the text
/// around it reads.
pub fn is_name(name: &str) -> bool {
    let hidden = |c: char| {
        c.is_control()
            || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
    };
    !name.trim().is_empty() && name.len() <= limits::NAME && !name.chars().any(hidden)
}

fn read(bytes: &[u8]) -> Result<PairMessage, PairError> {
    crate::codec::decode(bytes, limits::PAIR_FRAME).map_err(|error| match error {
        crate::codec::DecodeError::Oversize { .. } => PairError::Oversize,
        _ => PairError::Interrupted,
    })
}

fn write(message: &PairMessage) -> Vec<u8> {
    crate::codec::encode(message)
}

impl PairSecret {
    fn hello(newcomer: &Newcomer) -> Self {
        Self::Hello {
            version: VERSION,
            device: newcomer.device,
            seal: newcomer.seal,
            kind: newcomer.kind,
            name: newcomer.name.clone(),
        }
    }
}

impl fmt::Display for AttemptId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
