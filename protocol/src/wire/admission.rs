//! `/meshwork/admission/1`: a device shows a relay its ticket.
//!
//! The device sends one frame of at most [`CAPABILITY_CHAIN`](crate::limits::CAPABILITY_CHAIN) bytes, a
//! [`Chain`](crate::capability::Chain), which is empty where it has none. The relay answers with one frame, an [`Answer`],
//! and closes.

use crate::{
    capability::Chain,
    codec::{self, DecodeError},
    key::Signed,
    limits,
    time::Timestamp,
    wire_codes, wire_enum,
};

/// What a relay says to a ticket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// Others may reach the device through this relay.
    Admitted {
        /// Until when; `None` where it needs no ticket.
        until: Option<Timestamp>,
        /// Whether the relay takes tickets that this device gives.
        gives: bool,
        /// The next ticket, for the one shown ends soon.
        renewed: Option<Chain>,
    },
    /// They may not.
    Refused {
        /// The code of a [`Refusal`].
        code: u8,
    },
}

/// As it travels: a chain is the statements that it is made of, and checked as a whole.
enum Frame {
    Admitted { until: Option<Timestamp>, gives: bool, renewed: Vec<Signed> },
    Refused { code: u8 },
}
wire_enum!(Frame {
    0 => Admitted { until, gives, renewed },
    1 => Refused { code },
});

impl Answer {
    /// The answer as the body of a frame.
    pub fn encode(&self) -> Vec<u8> {
        let frame = match self.clone() {
            Self::Admitted { until, gives, renewed } => {
                Frame::Admitted { until, gives, renewed: renewed.map(|chain| chain.to_signed()).unwrap_or_default() }
            }
            Self::Refused { code } => Frame::Refused { code },
        };
        codec::encode(&frame)
    }

    /// Reads the body of a frame of at most [`limits::CAPABILITY_FRAME`] bytes. A renewed ticket that is none is left out.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        Ok(match codec::decode(bytes, limits::CAPABILITY_FRAME)? {
            Frame::Admitted { until, gives, renewed } => {
                let renewed = Chain::new(renewed).ok().filter(|chain| !chain.links().is_empty());
                Self::Admitted { until, gives, renewed }
            }
            Frame::Refused { code } => Self::Refused { code },
        })
    }
}

/// Why a relay does not carry for a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The ticket cannot be read, or a signature is wrong.
    #[error("the ticket cannot be read; ask the relay's operator for another")]
    Malformed,
    /// There is no ticket, or it is for another device or relay, or from nobody who may give one.
    #[error("this relay carries for devices that its operator invited, and this one was not")]
    NotInvited,
    /// The operator does not take it any more.
    #[error("the relay's operator has withdrawn the ticket")]
    Withdrawn,
    /// It was not renewed in time.
    #[error("the ticket has ended; ask the relay's operator for another")]
    Ended,
    /// It begins later.
    #[error("the ticket does not hold yet; the clock here or at the relay may be wrong")]
    NotYet,
    /// It bounds what is carried, and the relay does not count that.
    #[error("the ticket has bounds that this relay does not count")]
    Bounded,
    /// As many devices as may come by one ticket.
    #[error("too many devices have come by the same ticket")]
    Crowded,
    /// As many devices as the relay knows at one time.
    #[error("the relay knows as many devices as it can")]
    Full,
}

wire_codes!(Refusal { Malformed, NotInvited, Withdrawn, Ended, NotYet, Bounded, Crowded, Full });

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::hex;

    #[test]
    fn golden_bytes() {
        let free = Answer::Admitted { until: None, gives: true, renewed: None };
        let held = Answer::Admitted { until: Some(Timestamp(9)), gives: false, renewed: None };
        let refused = Answer::Refused { code: Refusal::Withdrawn.code() };
        assert_eq!(hex(&free.encode()), "8400f6f580");
        assert_eq!(hex(&held.encode()), "840009f480");
        assert_eq!(hex(&refused.encode()), "820102");
        for answer in [free, held, refused] {
            assert_eq!(Answer::decode(&answer.encode()), Ok(answer));
        }
        assert!(Answer::decode(&[0x82, 7, 0]).is_err());
    }

    #[test]
    fn codes_are_those_of_their_refusals() {
        assert_eq!(Refusal::ALL.map(|refusal| Refusal::from_code(refusal.code())), Refusal::ALL.map(Some));
        assert_eq!(Refusal::from_code(200), None);
    }
}
