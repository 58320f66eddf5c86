//! Events on their way to the node, in order and bounded, so that the swarm never waits for its reader.

use std::collections::VecDeque;

use super::NetworkEvent;

/// Hints and streams held for a slow reader; beyond it hints are dropped (and counted) and streams reset.
const MAX_WAITING: usize = 1024;

/// The events that the reader has not had room for.
///
/// `PeerUp` and `PeerDown` are never dropped. They stay bounded, at two for each device, because a
/// `PeerDown` takes a `PeerUp` of the same device that was not yet delivered out of the queue.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    waiting: VecDeque<NetworkEvent>,
    dropped: u64,
}

impl Outbox {
    pub(crate) fn push(&mut self, event: NetworkEvent) {
        match &event {
            NetworkEvent::PeerUp { .. } => {}
            NetworkEvent::PeerDown { device, .. } => {
                let gone = *device;
                let before = self.waiting.len();
                self.waiting.retain(|event| match event {
                    NetworkEvent::PeerUp { device, .. } => *device != gone,
                    _ => true,
                });
                if self.waiting.len() < before {
                    self.waiting
                        .retain(|event| !matches!(event, NetworkEvent::Stream { device, .. } if *device == gone));
                    return;
                }
            }
            _ if self.waiting.len() >= MAX_WAITING => {
                self.dropped += 1;
                return;
            }
            _ => {}
        }
        self.waiting.push_back(event);
    }

    pub(crate) fn pop(&mut self) -> Option<NetworkEvent> {
        self.waiting.pop_front()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Events lost to a slow reader since the start.
    pub(crate) fn dropped(&self) -> u64 {
        self.dropped
    }

    pub(crate) fn clear(&mut self) {
        self.waiting.clear();
    }
}

#[cfg(test)]
mod tests {
    use meshwork_protocol::id::DeviceId;

    use super::*;
    use crate::{address::Path, swarm::DownReason};

    fn up(number: u8) -> NetworkEvent {
        NetworkEvent::PeerUp { device: DeviceId([number; 32]), path: Path::Quic }
    }

    fn down(number: u8) -> NetworkEvent {
        NetworkEvent::PeerDown { device: DeviceId([number; 32]), reason: DownReason::Closed }
    }

    fn kinds(outbox: &mut Outbox) -> String {
        let kind = |event| match event {
            NetworkEvent::PeerUp { .. } => 'u',
            NetworkEvent::PeerDown { .. } => 'd',
            _ => 'h',
        };
        std::iter::from_fn(|| outbox.pop()).map(kind).collect()
    }

    #[test]
    fn a_peer_that_comes_and_goes_leaves_nothing_behind() {
        let mut outbox = Outbox::default();
        for _ in 0..10_000 {
            outbox.push(up(1));
            outbox.push(down(1));
        }
        assert!(outbox.is_empty());
        outbox.push(down(1));
        outbox.push(up(1));
        outbox.push(up(2));
        outbox.push(down(1));
        assert_eq!(kinds(&mut outbox), "du");
    }

    #[test]
    fn hints_are_bounded_and_peers_are_not_lost_behind_them() {
        let mut outbox = Outbox::default();
        for _ in 0..2 * MAX_WAITING {
            outbox.push(NetworkEvent::Discovered { device: DeviceId([9; 32]), addresses: Vec::new() });
        }
        outbox.push(up(1));
        assert_eq!(outbox.dropped(), MAX_WAITING as u64);
        assert_eq!(kinds(&mut outbox), format!("{}u", "h".repeat(MAX_WAITING)));
    }
}
