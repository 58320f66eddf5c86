//! Dials in progress. One attempt tries the QUIC addresses of a device first, its TCP addresses a moment later, and the
//! ways through relays after that; each also as soon as those before have failed. A relay itself is tried over TCP first,
//! and a device that was lost with its relay through another one first.

use std::{
    collections::{BTreeMap, VecDeque},
    num::NonZeroU8,
    time::{Duration, Instant},
};

use libp2p::{
    Multiaddr, PeerId, Swarm,
    swarm::{
        ConnectionId,
        dial_opts::{DialOpts, PeerCondition},
    },
};
use meshwork_protocol::id::DeviceId;
use tokio::sync::oneshot;

use super::{DialError, behaviour::Behaviour};
use crate::address::{Address, Path, device_of, path_of, relay_of};

/// Head start of QUIC: longer than its handshake on a LAN and on most other paths, short for a person.
const HEAD_START: Duration = Duration::from_millis(250);

/// Time between two calls through relays in one attempt: the device may be about to win a place at one.
const CALL_AGAIN: Duration = Duration::from_secs(1);

/// Addresses dialled at one time in one attempt.
const AT_ONCE: NonZeroU8 = NonZeroU8::MIN.saturating_add(7);

/// Where the outcome of a dial goes.
pub(crate) type DialReply = oneshot::Sender<Result<DeviceId, DialError>>;

/// Who is dialled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Target {
    /// A device that is not connected.
    Device(PeerId),
    /// The same, when it was connected through a relay.
    Relayed(PeerId),
    /// A device that is connected through a relay, directly.
    Upgrade(PeerId),
    /// A relay.
    Relay(PeerId),
    /// Whoever answers.
    Unknown,
}

impl Target {
    fn peer(self) -> Option<PeerId> {
        match self {
            Target::Device(peer) | Target::Relayed(peer) | Target::Upgrade(peer) | Target::Relay(peer) => Some(peer),
            Target::Unknown => None,
        }
    }
}

/// A whole attempt has failed.
#[derive(Debug)]
pub(crate) struct Failed {
    pub(crate) peer: PeerId,
    /// What the last address said.
    pub(crate) error: String,
}

#[derive(Debug)]
struct Attempt {
    target: Target,
    in_flight: BTreeMap<ConnectionId, Vec<Multiaddr>>,
    /// What is to be dialled after this, and the first of it when.
    later: VecDeque<Vec<Multiaddr>>,
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
        self.attempts.iter().any(|attempt| attempt.target.peer().as_ref() == Some(peer))
    }

    /// Begins an attempt. Returns the attempts that have failed with it; the reply has its error then.
    pub(crate) fn start(
        &mut self,
        swarm: &mut Swarm<Behaviour>,
        target: Target,
        addresses: &[Address],
        reply: Option<DialReply>,
        now: Instant,
    ) -> Vec<Failed> {
        let order = match target {
            Target::Relay(_) => [Path::Tcp, Path::Quic, Path::Relayed],
            Target::Relayed(_) => [Path::Relayed, Path::Quic, Path::Tcp],
            _ => [Path::Quic, Path::Tcp, Path::Relayed],
        };
        let of = |path: Path| addresses.iter().filter(move |address| address.path() == path);
        let stage = |path: Path| of(path).map(|address| address.multiaddr().clone()).collect::<Vec<_>>();
        let mut later: VecDeque<Vec<Multiaddr>> =
            order.map(stage).into_iter().filter(|stage| !stage.is_empty()).collect();
        let first = later.pop_front().unwrap_or_default();
        let mut attempt = Attempt {
            target,
            in_flight: BTreeMap::new(),
            later,
            later_at: now + HEAD_START,
            replies: reply.into_iter().collect(),
            error: String::new(),
        };
        attempt.dial(swarm, first);
        self.attempts.push(attempt);
        self.settle(swarm)
    }

    /// A dial succeeded. Returns whether this connection was asked for by someone who still waits.
    pub(crate) fn established(&mut self, swarm: &mut Swarm<Behaviour>, connection: ConnectionId, peer: &PeerId) {
        let Some(device) = device_of(peer) else { return };
        let concerns = |attempt: &Attempt| {
            attempt.target.peer().as_ref() == Some(peer) || attempt.in_flight.contains_key(&connection)
        };
        for attempt in self.attempts.extract_if(.., |attempt| concerns(attempt)) {
            for surplus in attempt.in_flight.keys().filter(|id| **id != connection) {
                swarm.behaviour_mut().streams.gate.withdraw(*surplus);
            }
            for reply in attempt.replies {
                drop(reply.send(Ok(device)));
            }
        }
    }

    /// A dial failed. Returns the attempts that have failed with it.
    pub(crate) fn failed(
        &mut self,
        swarm: &mut Swarm<Behaviour>,
        id: ConnectionId,
        error: String,
        now: Instant,
    ) -> Vec<Failed> {
        let found = self.attempts.iter_mut().find_map(|attempt| Some((attempt.in_flight.remove(&id)?, attempt)));
        let Some((addresses, attempt)) = found else { return Vec::new() };
        attempt.error = error;
        if attempt.target.peer().is_some() && addresses.iter().all(|address| path_of(address) == Path::Relayed) {
            attempt.call_again(addresses, now);
        }
        self.settle(swarm)
    }

    /// Starts what is due. Returns the attempts that have failed.
    pub(crate) fn tick(&mut self, swarm: &mut Swarm<Behaviour>, now: Instant) -> Vec<Failed> {
        for attempt in self.attempts.iter_mut().filter(|attempt| attempt.later_at <= now) {
            attempt.later_at = now + HEAD_START;
            attempt.go_on(swarm);
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
    fn settle(&mut self, swarm: &mut Swarm<Behaviour>) -> Vec<Failed> {
        for attempt in &mut self.attempts {
            while attempt.in_flight.is_empty() && attempt.go_on(swarm) {}
        }
        let mut failed = Vec::new();
        for attempt in self.attempts.extract_if(.., |attempt| attempt.in_flight.is_empty()) {
            failed.extend(attempt.target.peer().map(|peer| Failed { peer, error: attempt.error.clone() }));
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

    /// What failed through relays is tried again while other ways are open.
    fn call_again(&mut self, circuits: Vec<Multiaddr>, now: Instant) {
        if self.later.is_empty() && !self.in_flight.is_empty() {
            self.later_at = now + CALL_AGAIN;
            self.later.push_back(circuits);
        }
    }

    /// Dials what comes next; false where that was all.
    fn go_on(&mut self, swarm: &mut Swarm<Behaviour>) -> bool {
        let Some(due) = self.later.pop_front() else { return false };
        self.dial(swarm, due);
        true
    }

    fn dial(&mut self, swarm: &mut Swarm<Behaviour>, addresses: Vec<Multiaddr>) {
        if addresses.is_empty() {
            return;
        }
        for relay in addresses.iter().filter_map(relay_of) {
            swarm.behaviour_mut().streams.gate.pass(relay);
        }
        let Some(peer) = self.target.peer() else {
            for address in addresses.into_iter().take(usize::from(AT_ONCE.get())) {
                let options = DialOpts::unknown_peer_id().address(address.clone());
                let options = if is_tcp(&address) { options.allocate_new_port() } else { options }.build();
                let id = options.connection_id();
                swarm.behaviour_mut().streams.gate.invite(id);
                self.begin(swarm, options, vec![address]);
            }
            return;
        };
        // Also beside the dials of the punching, which wait for each other where one end can be dialled plainly, and
        // beside a connection that was given up, while its transport still takes leave.
        let options =
            DialOpts::peer_id(peer).condition(PeerCondition::Always).override_dial_concurrency_factor(AT_ONCE);
        // From its own listening port, a TCP dial that meets the peer's dial half way becomes one
        // connection with two initiators, and both handshakes fail. A relay dials nobody, and is to see that port.
        let is_met = !matches!(self.target, Target::Relay(_));
        let options = if is_met && addresses.iter().all(is_tcp) { options.allocate_new_port() } else { options };
        let named = addresses.iter().filter_map(|address| address.clone().with_p2p(peer).ok()).collect();
        self.begin(swarm, options.addresses(named).build(), addresses);
    }

    fn begin(&mut self, swarm: &mut Swarm<Behaviour>, options: DialOpts, addresses: Vec<Multiaddr>) {
        let id = options.connection_id();
        match swarm.dial(options) {
            Ok(()) => {
                self.in_flight.insert(id, addresses);
            }
            Err(error) => {
                swarm.behaviour_mut().streams.gate.withdraw(id);
                self.error = error.to_string();
            }
        }
    }
}
