//! Dials in progress. One attempt tries the QUIC addresses of a device first and its TCP addresses
//! a moment later, or as soon as QUIC has failed.

use std::{
    collections::BTreeSet,
    num::NonZeroU8,
    time::{Duration, Instant},
};

use libp2p::{
    Multiaddr, PeerId, Swarm,
    multiaddr::Protocol,
    swarm::{
        ConnectionId,
        dial_opts::{DialOpts, PeerCondition},
    },
};
use meshwork_protocol::id::DeviceId;
use tokio::sync::oneshot;

use super::{DialError, behaviour::Behaviour};
use crate::address::{Address, Path, device_of, path_of};

/// Head start of QUIC: longer than its handshake on a LAN and on most other paths, short for a person.
const HEAD_START: Duration = Duration::from_millis(250);

/// Addresses dialled at one time in one attempt.
const AT_ONCE: NonZeroU8 = NonZeroU8::MIN.saturating_add(7);

/// Where the outcome of a dial goes.
pub(crate) type DialReply = oneshot::Sender<Result<DeviceId, DialError>>;

#[derive(Debug)]
struct Attempt {
    /// `None`: whoever answers.
    target: Option<PeerId>,
    in_flight: BTreeSet<ConnectionId>,
    later: Vec<Multiaddr>,
    later_at: Instant,
    replies: Vec<DialReply>,
    error: String,
}

/// All attempts in progress.
#[derive(Debug, Default)]
pub(crate) struct Dials {
    attempts: Vec<Attempt>,
}

impl Dials {
    pub(crate) fn is_dialling(&self, peer: &PeerId) -> bool {
        self.attempts.iter().any(|attempt| attempt.target.as_ref() == Some(peer))
    }

    /// Begins an attempt. Returns `false` when nothing could be started; the reply has its error then.
    pub(crate) fn start(
        &mut self,
        swarm: &mut Swarm<Behaviour>,
        target: Option<PeerId>,
        addresses: &[Address],
        reply: Option<DialReply>,
        now: Instant,
    ) -> bool {
        let (quic, tcp): (Vec<&Address>, Vec<&Address>) = addresses.iter().partition(|a| a.path() == Path::Quic);
        let whole = |list: Vec<&Address>| list.into_iter().map(|a| a.multiaddr().clone()).collect::<Vec<_>>();
        let (first, later) = if quic.is_empty() { (whole(tcp), Vec::new()) } else { (whole(quic), whole(tcp)) };
        let mut attempt = Attempt {
            target,
            in_flight: BTreeSet::new(),
            later,
            later_at: now + HEAD_START,
            replies: reply.into_iter().collect(),
            error: String::new(),
        };
        attempt.dial(swarm, first);
        self.attempts.push(attempt);
        self.settle(swarm).is_empty()
    }

    /// A dial succeeded. Returns whether this connection was asked for by someone who still waits.
    pub(crate) fn established(&mut self, swarm: &mut Swarm<Behaviour>, connection: ConnectionId, peer: &PeerId) {
        let Some(device) = device_of(peer) else { return };
        let concerns =
            |attempt: &Attempt| attempt.target.as_ref() == Some(peer) || attempt.in_flight.contains(&connection);
        for attempt in self.attempts.extract_if(.., |attempt| concerns(attempt)) {
            for surplus in attempt.in_flight.iter().filter(|id| **id != connection) {
                swarm.behaviour_mut().streams.gate.withdraw(*surplus);
            }
            for reply in attempt.replies {
                drop(reply.send(Ok(device)));
            }
        }
    }

    /// A dial failed. Returns the devices whose whole attempt has failed with it.
    pub(crate) fn failed(&mut self, swarm: &mut Swarm<Behaviour>, id: ConnectionId, error: String) -> Vec<PeerId> {
        let Some(attempt) =
            self.attempts.iter_mut().find_map(|attempt| attempt.in_flight.remove(&id).then_some(attempt))
        else {
            return Vec::new();
        };
        attempt.error = error;
        self.settle(swarm)
    }

    /// Starts what is due. Returns the devices whose attempt has failed.
    pub(crate) fn tick(&mut self, swarm: &mut Swarm<Behaviour>, now: Instant) -> Vec<PeerId> {
        for attempt in self.attempts.iter_mut().filter(|attempt| attempt.later_at <= now) {
            let due = std::mem::take(&mut attempt.later);
            attempt.dial(swarm, due);
        }
        self.settle(swarm)
    }

    /// When `tick` has something to do.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        self.attempts.iter().filter(|attempt| !attempt.later.is_empty()).map(|attempt| attempt.later_at).min()
    }

    /// Gives up everything.
    pub(crate) fn clear(&mut self) {
        for attempt in self.attempts.drain(..) {
            attempt.answer(&DialError::Stopped);
        }
    }

    /// Attempts with nothing in flight go on to their other addresses at once, or have failed.
    fn settle(&mut self, swarm: &mut Swarm<Behaviour>) -> Vec<PeerId> {
        for attempt in self.attempts.iter_mut().filter(|attempt| attempt.in_flight.is_empty()) {
            let due = std::mem::take(&mut attempt.later);
            attempt.dial(swarm, due);
        }
        let mut failed = Vec::new();
        for attempt in self.attempts.extract_if(.., |attempt| attempt.in_flight.is_empty()) {
            failed.extend(attempt.target);
            let error = DialError::Failed(attempt.error.clone());
            attempt.answer(&error);
        }
        failed
    }
}

fn is_tcp(address: &Multiaddr) -> bool {
    path_of(address) == Path::Tcp
}

impl Attempt {
    fn answer(self, error: &DialError) {
        for reply in self.replies {
            drop(reply.send(Err(error.clone())));
        }
    }

    fn dial(&mut self, swarm: &mut Swarm<Behaviour>, addresses: Vec<Multiaddr>) {
        if addresses.is_empty() {
            return;
        }
        let Some(peer) = self.target else {
            for address in addresses.into_iter().take(usize::from(AT_ONCE.get())) {
                let options = DialOpts::unknown_peer_id().address(address.clone());
                let options = if is_tcp(&address) { options.allocate_new_port() } else { options }.build();
                let id = options.connection_id();
                swarm.behaviour_mut().streams.gate.invite(id);
                self.begin(swarm, options);
            }
            return;
        };
        let own = |address: &Multiaddr| match address.iter().last() {
            Some(Protocol::P2p(named)) => named == peer,
            _ => true,
        };
        let options =
            DialOpts::peer_id(peer).condition(PeerCondition::Disconnected).override_dial_concurrency_factor(AT_ONCE);
        // From its own listening port, a TCP dial that meets the peer's dial half way becomes one
        // connection with two initiators, and both handshakes fail.
        let options = if addresses.iter().all(is_tcp) { options.allocate_new_port() } else { options };
        self.begin(swarm, options.addresses(addresses.into_iter().filter(own).collect()).build());
    }

    fn begin(&mut self, swarm: &mut Swarm<Behaviour>, options: DialOpts) {
        let id = options.connection_id();
        match swarm.dial(options) {
            Ok(()) => {
                self.in_flight.insert(id);
            }
            Err(error) => {
                swarm.behaviour_mut().streams.gate.withdraw(id);
                self.error = error.to_string();
            }
        }
    }
}
