//! `/meshwork/tunnel/1`: a connection to a service of a device.
//!
//! Whoever opens the stream sends [`Open`](TunnelMessage::Open). The other end answers [`Opened`](TunnelMessage::Opened)
//! once the service has taken the connection, or [`Refused`](TunnelMessage::Refused), which ends the stream. The opener
//! then says with [`Carry`](TunnelMessage::Carry) where the bytes go: through a connection of their own, if the offer could
//! be taken up, else through this stream. From there on there are no frames, only the bytes of the service's protocol.

use crate::{
    capability::Label,
    codec::{self, DecodeError},
    limits,
    wire::chunks::{BulkOffer, Splice},
    wire_codes, wire_enum,
};

/// What the two ends of a tunnel say before it carries anything.
#[derive(Clone, PartialEq, Eq)]
pub enum TunnelMessage {
    /// Asks for a connection to a service.
    Open {
        /// What the device calls it.
        service: Label,
        /// Where an offer can be taken up beside its addresses.
        splice: Option<Splice>,
    },
    /// The service has taken the connection.
    Opened {
        /// A connection that may be made for the bytes.
        offer: Option<BulkOffer>,
    },
    /// There is no connection.
    Refused {
        /// The code of a [`Refusal`].
        code: u8,
    },
    /// What follows are the bytes themselves.
    Carry {
        /// Whether they go through the connection that was offered.
        bulk: bool,
    },
}
wire_enum!(TunnelMessage {
    0 => Open { service, splice },
    1 => Opened { offer },
    2 => Refused { code },
    3 => Carry { bulk },
});

impl TunnelMessage {
    /// The message as the body of a frame.
    pub fn encode(&self) -> Vec<u8> {
        codec::encode(self)
    }

    /// Reads the body of a frame of at most [`limits::TUNNEL_FRAME`] bytes.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        codec::decode(bytes, limits::TUNNEL_FRAME)
    }
}

/// Why there is no tunnel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The device offers no such service, or not to whoever asks: he is not told which.
    #[error("the device offers no such service to this one")]
    NoService,
    /// Nothing takes connections where the service should be.
    #[error("the service does not answer on that device")]
    NoAnswer,
    /// As many tunnels are open as may be.
    #[error("too many tunnels are open on that device")]
    Busy,
}

wire_codes!(Refusal { NoService, NoAnswer, Busy });

#[cfg(test)]
mod tests {
    use serde_bytes::ByteBuf;

    use super::*;
    use crate::{
        id::{DeviceId, hex},
        splice::Token,
        wire::chunks::{BulkAddress, BulkSecret},
    };

    fn open(splice: Option<Splice>) -> TunnelMessage {
        TunnelMessage::Open { service: "ssh".parse().expect("a label"), splice }
    }

    fn reads_back(message: &TunnelMessage) -> bool {
        TunnelMessage::decode(&message.encode()).is_ok_and(|read| read == *message)
    }

    #[test]
    fn golden_bytes() {
        assert_eq!(hex(&open(None).encode()), "830063737368f6");
        assert_eq!(hex(&TunnelMessage::Opened { offer: None }.encode()), "8201f6");
        assert_eq!(hex(&TunnelMessage::Refused { code: Refusal::NoAnswer.code() }.encode()), "820201");
        assert_eq!(hex(&TunnelMessage::Carry { bulk: true }.encode()), "8203f5");
    }

    #[test]
    fn the_largest_messages_fit_and_read_back() {
        let splice = Splice { relay: DeviceId([7; 32]), port: u16::MAX, token: Token([8; 16]) };
        assert!(reads_back(&open(Some(splice))));
        let address = BulkAddress { ip: ByteBuf::from(vec![9; 16]), port: u16::MAX };
        let addresses = vec![address; limits::BULK_ADDRESSES];
        let offer = BulkOffer { addresses, channel: [5; 16], secret: BulkSecret([6; 32]), aes: true };
        assert!(reads_back(&TunnelMessage::Opened { offer: Some(offer) }));
        assert!(reads_back(&TunnelMessage::Carry { bulk: false }));
    }

    #[test]
    fn names_and_refusals_that_are_none() {
        for name in ["", "SSH", "a b", "a/b", &"x".repeat(limits::LABEL + 1)] {
            let bytes = codec::encode(&(0u8, name, None::<u8>));
            assert!(TunnelMessage::decode(&bytes).is_err(), "{name}");
        }
        assert!(TunnelMessage::decode(&[0x82, 9, 0]).is_err());
        assert_eq!(Refusal::ALL.map(|refusal| Refusal::from_code(refusal.code())), Refusal::ALL.map(Some));
        assert_eq!(Refusal::from_code(200), None);
    }
}
