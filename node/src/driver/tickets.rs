//! Tickets: by what right relays that do not take everybody carry for the devices of this mesh. The one of a relay's
//! operator stands in the graph, and the device that it is for passes it on to the others there, so that a relay is added
//! once for all.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use meshwork_host::{
    frame::{read_frame, write_frame},
    swarm::{NetworkHandle, OpenError},
};
use meshwork_protocol::{
    admission::{from_text, invite, is_due, pass_on},
    capability::{Audience, Chain, Right},
    id::DeviceId,
    limits,
    wire::{
        self,
        admission::{Answer, Refusal},
    },
};
use meshwork_replica::replica::Replica;
use tokio::time::{Instant, timeout};

use super::{
    Driver, Event, home,
    servers::{self, RELAY},
};
use crate::{clock, resource::ResourceError};

/// A ticket stands in the graph under this, the id of its relay, a dot and the id of its device.
const TICKET: &str = "ticket.";
/// How often tickets are shown again: a relay renews one that ends soon.
const SHOW_AGAIN: Duration = Duration::from_secs(3_600);

/// Tickets that are entered in one change of the graph, so that it is not too large.
const AT_A_TIME: usize = 32;

type Tickets = BTreeMap<(DeviceId, DeviceId), Chain>;

/// What the relays said.
#[derive(Default)]
pub(super) struct Shown {
    relays: BTreeMap<DeviceId, Stood>,
    again: Option<Instant>,
}

/// What a relay said last.
struct Stood {
    /// To these bytes.
    ticket: Vec<u8>,
    /// Whether it takes tickets that this device gives.
    gives: bool,
    refused: Option<String>,
}

/// Why a relay did not look at a ticket.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ShowError {
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error("the connection broke: {0}")]
    Connection(#[from] std::io::Error),
    #[error("it answered what means nothing here")]
    Nonsense,
    #[error("it did not answer in time")]
    Late,
}

impl Shown {
    /// Why a relay does not carry for this device.
    pub fn refusal(&self, relay: &DeviceId) -> Option<String> {
        self.relays.get(relay)?.refused.clone()
    }

    fn gives(&self, relay: &DeviceId) -> bool {
        self.relays.get(relay).is_some_and(|stood| stood.gives)
    }
}

impl Driver {
    /// Shows a relay by what right this device wants to be reached through it.
    pub(super) fn show_ticket(&self, relay: DeviceId) {
        let Some(replica) = &self.replica else { return };
        let ticket = ticket(replica, relay, self.network.device()).unwrap_or_default().to_bytes();
        let (network, events) = (self.network.clone(), self.events.clone());
        tokio::spawn(async move {
            let answer = show(&network, relay, &ticket).await;
            if matches!(answer, Err(ShowError::Open(OpenError::NotConnected))) {
                // It may wait with the next attempt, after those that were in vain. A network that has stopped makes none.
                let _ = network.reserve(relay).await;
            }
            // A loop that has ended needs no answer.
            let _ = events.send(Event::TicketShown { relay, ticket, answer }).await;
        });
    }

    /// A relay has looked at a ticket.
    pub(super) fn ticket_shown(&mut self, relay: DeviceId, ticket: Vec<u8>, answer: Result<Answer, ShowError>) {
        let (gives, refused, renewed) = match answer {
            Ok(Answer::Admitted { gives, renewed, .. }) => (gives, None, renewed),
            Ok(Answer::Refused { code }) => (false, Some(self.explained(code)), None),
            Err(error) => {
                return tracing::debug!(%relay, %error, "a ticket was not shown");
            }
        };
        let is_admitted = refused.is_none();
        self.tickets.relays.insert(relay, Stood { ticket, gives, refused });
        if is_admitted {
            let network = self.network.clone();
            // A network that has stopped needs no place.
            tokio::spawn(async move { network.reserve(relay).await });
        }
        if let Some(renewed) = renewed {
            self.keep_tickets(vec![(relay, self.network.device(), Some(renewed))]);
        }
        self.pass_tickets_on();
    }

    fn explained(&self, code: u8) -> String {
        let refusal = Refusal::from_code(code).unwrap_or(Refusal::NotInvited);
        match refusal {
            Refusal::NotInvited => format!("{refusal}; tell him the id of this device, {}", self.network.device()),
            other => other.to_string(),
        }
    }

    /// What follows when the graph or the members have changed.
    pub(super) fn tend_tickets(&mut self) {
        self.pass_tickets_on();
        let Some(replica) = &self.replica else { return };
        let own = self.network.device();
        let is_new = |relay: &DeviceId, stood: &Stood| {
            stood.ticket != ticket(replica, *relay, own).unwrap_or_default().to_bytes()
        };
        let new: Vec<DeviceId> =
            self.tickets.relays.iter().filter(|(relay, stood)| is_new(relay, stood)).map(|(relay, _)| *relay).collect();
        new.into_iter().for_each(|relay| self.show_ticket(relay));
    }

    /// Shows the tickets again when that is due.
    pub(super) fn show_tickets_again(&mut self) {
        let now = Instant::now();
        if *self.tickets.again.get_or_insert(now + SHOW_AGAIN) > now {
            return;
        }
        self.tickets.again = Some(now + SHOW_AGAIN);
        let relays: Vec<DeviceId> = self.tickets.relays.keys().copied().collect();
        relays.into_iter().for_each(|relay| self.show_ticket(relay));
    }

    /// Keeps the ticket that an operator gave, if it is one for this relay and a device of this mesh.
    pub(super) fn read_ticket(&self, relay: Option<DeviceId>, text: &str) -> Result<(DeviceId, Chain), ResourceError> {
        let bad = |message: String, advice: &str| ResourceError::bad_request(message, advice.to_owned());
        let chain = from_text(text).ok_or_else(|| {
            bad("That is no ticket of a relay.".into(), "Take the whole word that the relay's operator gives.")
        })?;
        let capability = chain.capability().filter(|capability| match capability.right {
            Right::Relay { relay: at } | Right::Circuit { relay: at } => Some(at) == relay,
            _ => false,
        });
        let Some(Audience::Device { device }) = capability.map(|capability| &capability.audience) else {
            let advice = "Take address and ticket from the same operator.";
            return Err(bad("That ticket is for another relay.".into(), advice));
        };
        let is_own = self.replica.as_ref().is_some_and(|replica| devices(replica).contains(device));
        if !is_own && *device != self.network.device() {
            let message = format!("That ticket is for {}, which is no device of this mesh.", device.short());
            let advice = format!("Ask for one for this device, {}.", self.network.device());
            return Err(ResourceError::bad_request(message, advice));
        }
        Ok((*device, chain))
    }

    /// Enters tickets, or takes them out.
    pub(super) fn keep_tickets(&mut self, tickets: Vec<(DeviceId, DeviceId, Option<Chain>)>) {
        let settings: Vec<(String, Option<Vec<u8>>)> = tickets
            .into_iter()
            .map(|(relay, device, ticket)| (setting(&relay, &device), ticket.map(|ticket| ticket.to_bytes())))
            .collect();
        if settings.is_empty() {
            return;
        }
        if let Err(error) = self.ask_replica(|replica, rng| replica.put_settings(rng, settings)) {
            tracing::debug!(%error, "tickets for relays could not be kept");
        }
    }

    /// Takes out all tickets of a relay.
    pub(super) fn drop_tickets(&mut self, relay: DeviceId) {
        let Some(replica) = &self.replica else { return };
        let of_relay = list(replica).into_keys().filter(|(at, _)| *at == relay);
        let dropped = of_relay.map(|(relay, device)| (relay, device, None)).collect();
        self.tickets.relays.remove(&relay);
        self.keep_tickets(dropped);
    }

    /// Gives the other devices of the mesh a part of what this one has, and takes it from those that are none any more.
    fn pass_tickets_on(&mut self) {
        let Some(replica) = &self.replica else { return };
        let (own, now, key) = (self.network.device(), clock::now(), home::device_key(&self.identity));
        let passes = |relay: DeviceId| {
            let gives = self.tickets.gives(&relay);
            let mine = ticket(replica, relay, own).filter(|ticket| !gives && ticket.links().len() == 1);
            (gives || mine.is_some()).then_some((relay, mine))
        };
        let passed: Vec<_> = servers::list(replica, &RELAY).into_keys().filter_map(passes).collect();
        if passed.is_empty() {
            // To read the tickets of all devices is to check their signatures.
            return;
        }
        let (tickets, devices) = (list(replica), devices(replica));
        let mut changes = Vec::new();
        for (relay, mine) in passed {
            for device in devices.iter().filter(|device| **device != own) {
                let given = tickets.get(&(relay, *device)).filter(|ticket| !is_over(ticket));
                if given.is_some_and(|given| is_of_operator(given, relay)) || !is_due(given, mine.as_ref(), now) {
                    continue;
                }
                let given = match &mine {
                    Some(mine) => pass_on(mine, &key, *device, &mut self.rng),
                    None => invite(&key, relay, *device, (now, limits::CAPABILITY_LIFE), false, &mut self.rng),
                };
                // One that is for its device alone is not passed on.
                changes.extend(given.ok().map(|given| (relay, *device, Some(given))));
            }
            let gone = tickets.keys().filter(|(at, device)| *at == relay && !devices.contains(device));
            changes.extend(gone.map(|(relay, device)| (*relay, *device, None)));
        }
        // The change leads here again, for the rest.
        changes.truncate(AT_A_TIME);
        self.keep_tickets(changes);
    }
}

/// Whether it has ended, however it came to that.
fn is_over(ticket: &Chain) -> bool {
    ticket.capability().is_none_or(|capability| capability.expires <= clock::now())
}

/// Whether the operator gave it to this device itself.
fn is_of_operator(ticket: &Chain, relay: DeviceId) -> bool {
    matches!(ticket.links(), [link] if link.issuer() == relay)
}

fn setting(relay: &DeviceId, device: &DeviceId) -> String {
    format!("{TICKET}{relay}.{device}")
}

/// The devices of the mesh.
fn devices(replica: &Replica) -> BTreeSet<DeviceId> {
    replica.control().members(replica.mesh_id().into()).map(|(device, _)| device).collect()
}

fn ticket(replica: &Replica, relay: DeviceId, device: DeviceId) -> Option<Chain> {
    Chain::parse(&replica.graph().setting(&setting(&relay, &device))?).ok()
}

/// The tickets in the graph, by relay and device.
fn list(replica: &Replica) -> Tickets {
    let entry = |(name, value): (String, Vec<u8>)| {
        let (relay, device) = name.strip_prefix(TICKET)?.split_once('.')?;
        Some(((relay.parse().ok()?, device.parse().ok()?), Chain::parse(&value).ok()?))
    };
    replica.graph().settings(TICKET).into_iter().filter_map(entry).collect()
}

async fn show(network: &NetworkHandle, relay: DeviceId, ticket: &[u8]) -> Result<Answer, ShowError> {
    let shown = async {
        let mut stream = network.open_stream(relay, wire::ADMISSION).await?;
        write_frame(&mut stream, ticket).await?;
        let answer = read_frame(&mut stream, limits::CAPABILITY_FRAME).await?.ok_or(ShowError::Nonsense)?;
        Answer::decode(&answer).map_err(|_| ShowError::Nonsense)
    };
    timeout(limits::SPLICE_PREAMBLE, shown).await.map_err(|_| ShowError::Late)?
}
