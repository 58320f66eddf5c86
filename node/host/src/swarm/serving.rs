//! What this node gives to others as a relay, counted.

use std::collections::{BTreeMap, BTreeSet};

use libp2p::{Multiaddr, PeerId, Swarm, relay};

use super::{ServingSnapshot, behaviour::Behaviour};
use crate::address::{Address, Path};

/// Counts reservations and circuits.
#[derive(Debug, Default)]
pub(crate) struct Serving {
    /// Where others reach this relay, when the operator has said so.
    public: Vec<Address>,
    reserved: BTreeSet<PeerId>,
    circuits: BTreeMap<(PeerId, PeerId), usize>,
    counted: ServingSnapshot,
}

impl Serving {
    pub(crate) fn new(public: Vec<Address>) -> Self {
        Self { public, ..Self::default() }
    }

    pub(crate) fn snapshot(&self) -> ServingSnapshot {
        ServingSnapshot { reservations: self.reserved.len(), circuits: self.circuits.values().sum(), ..self.counted }
    }

    /// This node listens at an address: it says so to those who reserve.
    pub(crate) fn listening(&self, swarm: &mut Swarm<Behaviour>, address: &Multiaddr) {
        let is_own = Address::from_multiaddr(address).is_ok_and(|address| address.path() != Path::Relayed);
        if !swarm.behaviour().serving.is_enabled() || !is_own {
            return;
        }
        if self.public.is_empty() {
            swarm.add_external_address(address.clone());
        }
        for address in &self.public {
            swarm.add_external_address(address.bare());
        }
    }

    pub(crate) fn on_event(&mut self, event: relay::Event) {
        match event {
            relay::Event::ReservationReqAccepted { src_peer_id, .. } => {
                self.reserved.insert(src_peer_id);
                self.counted.reservations_total += 1;
            }
            relay::Event::ReservationClosed { src_peer_id } | relay::Event::ReservationTimedOut { src_peer_id } => {
                self.reserved.remove(&src_peer_id);
            }
            relay::Event::CircuitReqAccepted { src_peer_id, dst_peer_id } => {
                *self.circuits.entry((src_peer_id, dst_peer_id)).or_default() += 1;
                self.counted.circuits_total += 1;
            }
            relay::Event::CircuitClosed { src_peer_id, dst_peer_id, .. } => {
                if let Some(open) = self.circuits.get_mut(&(src_peer_id, dst_peer_id)) {
                    *open = open.saturating_sub(1);
                }
                self.circuits.retain(|_, open| *open > 0);
            }
            relay::Event::ReservationReqDenied { status, .. } | relay::Event::CircuitReqDenied { status, .. } => {
                tracing::debug!(?status, "refused");
                self.counted.refused_total += 1;
            }
            event => tracing::debug!(?event, "relay"),
        }
    }
}
