//! The end of one connection: negotiates streams in both directions.

use std::{
    collections::VecDeque,
    convert::Infallible,
    fmt,
    future::{Ready, ready},
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use libp2p::{
    StreamProtocol,
    core::upgrade::{InboundUpgrade, ReadyUpgrade, UpgradeInfo},
    swarm::{
        ConnectionHandler, ConnectionHandlerEvent, StreamUpgradeError, SubstreamProtocol,
        handler::{ConnectionEvent, FullyNegotiatedInbound, FullyNegotiatedOutbound},
    },
};
use tokio::sync::{oneshot, watch};

use super::{
    OpenError,
    gate::Class,
    stream::Stream,
    streams::{Account, Spoken},
};

/// Time to negotiate one stream, the wait for a free stream id included.
const OPEN_TIMEOUT: Duration = Duration::from_secs(10);

/// Streams being asked for on one connection at one time.
const MAX_REQUESTS: usize = 256;

/// Someone wants a stream.
pub(crate) struct OpenRequest {
    pub(crate) protocol: StreamProtocol,
    pub(crate) reply: oneshot::Sender<Result<Stream, OpenError>>,
}

impl fmt::Debug for OpenRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("OpenRequest").field(&self.protocol).finish()
    }
}

/// What the behaviour tells a connection.
#[derive(Debug)]
pub(crate) enum Order {
    Open(OpenRequest),
    /// The peer is a member from now on.
    Promote,
}

type Event = ConnectionHandlerEvent<ReadyUpgrade<StreamProtocol>, OpenRequest, (&'static str, Stream)>;

/// The handler of one connection.
pub(crate) struct Handler {
    class: Class,
    spoken: Arc<[Spoken]>,
    account: Account,
    requests: VecDeque<OpenRequest>,
    /// Requests being negotiated.
    waiting: usize,
    inbound: VecDeque<(&'static str, Stream)>,
    /// Gone with the connection, by which its streams know.
    life: watch::Sender<()>,
}

impl Handler {
    pub(crate) fn new(class: Class, spoken: Arc<[Spoken]>, account: Account) -> Self {
        Self {
            class,
            spoken,
            account,
            requests: VecDeque::new(),
            waiting: 0,
            inbound: VecDeque::new(),
            life: watch::Sender::new(()),
        }
    }

    fn accept(&mut self, stream: libp2p::Stream, protocol: &StreamProtocol) {
        let Some(index) = self.spoken.iter().position(|spoken| spoken.protocol == *protocol) else {
            return;
        };
        let (Some(spoken), Some(queue)) = (self.spoken.get(index), self.account.queues.get(index)) else {
            return;
        };
        match Arc::clone(queue).try_acquire_owned() {
            Ok(place) => {
                let stream = Stream::inbound(stream, Arc::clone(&self.account.meter), &self.life, place);
                self.inbound.push_back((spoken.name, stream));
            }
            Err(_) => tracing::debug!(protocol = spoken.name, "accept queue is full, stream reset"),
        }
    }
}

impl ConnectionHandler for Handler {
    type FromBehaviour = Order;
    type ToBehaviour = (&'static str, Stream);
    type InboundProtocol = Offer;
    type OutboundProtocol = ReadyUpgrade<StreamProtocol>;
    type InboundOpenInfo = ();
    type OutboundOpenInfo = OpenRequest;

    fn listen_protocol(&self) -> SubstreamProtocol<Offer> {
        let offered = self.spoken.iter().filter(|spoken| self.class.carries(spoken));
        let protocols = offered.map(|spoken| spoken.protocol.clone()).collect();
        SubstreamProtocol::new(Offer { protocols }, ()).with_timeout(OPEN_TIMEOUT)
    }

    fn connection_keep_alive(&self) -> bool {
        self.class == Class::Member
    }

    fn on_behaviour_event(&mut self, order: Order) {
        match order {
            Order::Promote => self.class = Class::Member,
            Order::Open(request) => {
                let spoken = self.spoken.iter().find(|spoken| spoken.protocol == request.protocol);
                if !spoken.is_some_and(|spoken| self.class.carries(spoken)) {
                    drop(request.reply.send(Err(OpenError::NotAllowed)));
                } else if self.requests.len() + self.waiting >= MAX_REQUESTS {
                    drop(request.reply.send(Err(OpenError::Busy)));
                } else {
                    self.requests.push_back(request);
                }
            }
        }
    }

    fn on_connection_event(
        &mut self,
        event: ConnectionEvent<'_, Offer, ReadyUpgrade<StreamProtocol>, (), OpenRequest>,
    ) {
        match event {
            ConnectionEvent::FullyNegotiatedInbound(FullyNegotiatedInbound {
                protocol: (stream, protocol), ..
            }) => {
                self.accept(stream, &protocol);
            }
            ConnectionEvent::FullyNegotiatedOutbound(FullyNegotiatedOutbound { protocol: stream, info: request }) => {
                self.waiting = self.waiting.saturating_sub(1);
                let stream = Stream::outbound(stream, Arc::clone(&self.account.meter), &self.life);
                drop(request.reply.send(Ok(stream)));
            }
            ConnectionEvent::DialUpgradeError(failure) => {
                self.waiting = self.waiting.saturating_sub(1);
                let error = match failure.error {
                    StreamUpgradeError::Timeout => OpenError::Timeout,
                    StreamUpgradeError::NegotiationFailed => OpenError::Unsupported,
                    StreamUpgradeError::Io(_) | StreamUpgradeError::Apply(_) => OpenError::Disconnected,
                };
                drop(failure.info.reply.send(Err(error)));
            }
            _ => {}
        }
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<Event> {
        if let Some(inbound) = self.inbound.pop_front() {
            return Poll::Ready(ConnectionHandlerEvent::NotifyBehaviour(inbound));
        }
        // A caller who has gone away needs no stream.
        while let Some(request) = self.requests.pop_front() {
            if request.reply.is_closed() {
                continue;
            }
            self.waiting += 1;
            let upgrade = ReadyUpgrade::new(request.protocol.clone());
            let protocol = SubstreamProtocol::new(upgrade, request).with_timeout(OPEN_TIMEOUT);
            return Poll::Ready(ConnectionHandlerEvent::OutboundSubstreamRequest { protocol });
        }
        Poll::Pending
    }
}

/// The protocols offered to a peer that opens a stream.
#[derive(Debug, Clone)]
pub(crate) struct Offer {
    protocols: Vec<StreamProtocol>,
}

impl UpgradeInfo for Offer {
    type Info = StreamProtocol;
    type InfoIter = std::vec::IntoIter<StreamProtocol>;

    fn protocol_info(&self) -> Self::InfoIter {
        self.protocols.clone().into_iter()
    }
}

impl InboundUpgrade<libp2p::Stream> for Offer {
    type Output = (libp2p::Stream, StreamProtocol);
    type Error = Infallible;
    type Future = Ready<Result<Self::Output, Self::Error>>;

    fn upgrade_inbound(self, stream: libp2p::Stream, protocol: StreamProtocol) -> Self::Future {
        ready(Ok((stream, protocol)))
    }
}
