//! The stream behaviour: admits connections through the gate, opens streams on a chosen connection,
//! and hands inbound streams on through a bounded queue for each device and protocol.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    task::{Context, Poll},
};

use libp2p::{
    Multiaddr, PeerId, StreamProtocol,
    core::{Endpoint, transport::PortUse},
    swarm::{
        CloseConnection, ConnectionClosed, ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, NotifyHandler,
        THandler, THandlerInEvent, THandlerOutEvent, ToSwarm, behaviour::ConnectionEstablished,
    },
};
use tokio::sync::{Semaphore, oneshot};

use super::{
    OpenError,
    gate::{Class, Gate},
    handler::{Handler, OpenRequest, Order},
    stream::{Meter, Stream},
};

/// A protocol that this node speaks.
#[derive(Debug, Clone)]
pub(crate) struct Spoken {
    pub(crate) name: &'static str,
    pub(crate) protocol: StreamProtocol,
    /// Who may open it beside members.
    pub(crate) class: Class,
}

/// What all connections to one peer share.
#[derive(Debug, Clone)]
pub(crate) struct Account {
    pub(crate) meter: Arc<Meter>,
    /// Free places of the accept queue of each protocol, in the order of the spoken protocols.
    pub(crate) queues: Arc<[Arc<Semaphore>]>,
}

/// A stream that a peer opened.
#[derive(Debug)]
pub(crate) struct Inbound {
    pub(crate) peer: PeerId,
    pub(crate) connection: ConnectionId,
    pub(crate) protocol: &'static str,
    pub(crate) stream: Stream,
}

/// The behaviour. Its gate comes first: a refused connection costs no handler.
pub(crate) struct Streams {
    pub(crate) gate: Gate,
    spoken: Arc<[Spoken]>,
    accept_queue: usize,
    accounts: BTreeMap<PeerId, Account>,
    pending: VecDeque<ToSwarm<Inbound, Order>>,
}

impl Streams {
    pub(crate) fn new(gate: Gate, spoken: Vec<Spoken>, accept_queue: usize) -> Self {
        Self { gate, spoken: spoken.into(), accept_queue, accounts: BTreeMap::new(), pending: VecDeque::new() }
    }

    /// Asks one connection to open a stream; the answer goes to `reply`.
    pub(crate) fn open(
        &mut self,
        peer: PeerId,
        connection: ConnectionId,
        protocol: &'static str,
        reply: oneshot::Sender<Result<Stream, OpenError>>,
    ) {
        let Some(spoken) = self.spoken.iter().find(|spoken| spoken.name == protocol) else {
            drop(reply.send(Err(OpenError::Unsupported)));
            return;
        };
        let request = OpenRequest { protocol: spoken.protocol.clone(), reply };
        self.notify(peer, connection, Order::Open(request));
    }

    /// Tells one connection that its peer became a member.
    pub(crate) fn promote(&mut self, peer: PeerId, connection: ConnectionId) {
        self.gate.left(connection);
        self.notify(peer, connection, Order::Promote);
    }

    /// Closes one connection.
    pub(crate) fn close(&mut self, peer: PeerId, connection: ConnectionId) {
        let connection = CloseConnection::One(connection);
        self.pending.push_back(ToSwarm::CloseConnection { peer_id: peer, connection });
    }

    /// Stream bytes (received, sent) of a connected peer.
    pub(crate) fn bytes(&self, peer: &PeerId) -> (u64, u64) {
        self.accounts.get(peer).map_or((0, 0), |account| account.meter.read())
    }

    fn notify(&mut self, peer: PeerId, connection: ConnectionId, order: Order) {
        let handler = NotifyHandler::One(connection);
        self.pending.push_back(ToSwarm::NotifyHandler { peer_id: peer, handler, event: order });
    }

    fn handler(&mut self, peer: PeerId, connection: ConnectionId) -> Result<Handler, ConnectionDenied> {
        let class = self.gate.admit(&peer, connection).map_err(ConnectionDenied::new)?;
        let account = self.accounts.entry(peer).or_insert_with(|| {
            let queues = self.spoken.iter().map(|_| Arc::new(Semaphore::new(self.accept_queue))).collect();
            Account { meter: Arc::default(), queues }
        });
        Ok(Handler::new(class, Arc::clone(&self.spoken), account.clone()))
    }
}

impl NetworkBehaviour for Streams {
    type ConnectionHandler = Handler;
    type ToSwarm = Inbound;

    fn handle_established_inbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.handler(peer, connection)
    }

    fn handle_established_outbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.handler(peer, connection)
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        match event {
            FromSwarm::ConnectionEstablished(ConnectionEstablished { peer_id, connection_id, .. }) => {
                self.gate.entered(&peer_id, connection_id);
            }
            FromSwarm::ConnectionClosed(ConnectionClosed { peer_id, connection_id, remaining_established, .. }) => {
                self.gate.left(connection_id);
                if remaining_established == 0 {
                    self.accounts.remove(&peer_id);
                }
            }
            FromSwarm::DialFailure(failure) => self.gate.withdraw(failure.connection_id),
            _ => {}
        }
    }

    fn on_connection_handler_event(&mut self, peer: PeerId, connection: ConnectionId, event: THandlerOutEvent<Self>) {
        let (protocol, stream) = event;
        self.pending.push_back(ToSwarm::GenerateEvent(Inbound { peer, connection, protocol, stream }));
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ToSwarm<Inbound, THandlerInEvent<Self>>> {
        match self.pending.pop_front() {
            Some(action) => Poll::Ready(action),
            None => Poll::Pending,
        }
    }
}

impl Class {
    /// Whether a connection of this class may carry `spoken`.
    pub(crate) fn carries(self, spoken: &Spoken) -> bool {
        self == Class::Member || self == spoken.class
    }
}
