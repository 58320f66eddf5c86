//! How a capability is renewed: its holder asks, its issuer answers with a new one.

use crate::{id::LeaseId, key::Signed, wire_enum};

/// A message between the holder and the issuer of a capability, at most [`crate::limits::CAPABILITY_FRAME`] bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CapabilityMessage {
    /// Prolong what you gave me.
    Ask {
        /// The lease of the issuer.
        lease: LeaseId,
    },
    /// The newest there is.
    Renewed {
        /// The lease of the issuer.
        lease: LeaseId,
        /// Its [`Chain`](crate::capability::Chain).
        chain: Vec<Signed>,
    },
    /// It is not, or no longer, yours.
    Refused {
        /// The lease asked for.
        lease: LeaseId,
    },
}
wire_enum!(CapabilityMessage {
    0 => Ask { lease },
    1 => Renewed { lease, chain },
    2 => Refused { lease },
});
