//! The relays of the mesh, and how they stand.

use meshwork_host::swarm::{Address, NetworkSnapshot, RelayState};
use meshwork_protocol::id::DeviceId;

use super::{
    Driver,
    command::{Reply, answer},
    servers::RELAY,
};
use crate::{api::types::Relay, resource::ResourceError};

/// What is asked about relays.
pub(crate) enum Ask {
    List(Reply<Vec<Relay>>),
    Add { address: String, ticket: Option<String>, reply: Reply<Relay> },
    Remove { relay: String, reply: Reply<()> },
}

impl Driver {
    pub(super) fn on_relays(&mut self, ask: Ask) {
        match ask {
            Ask::List(reply) => self.relay_list(reply),
            Ask::Add { address, ticket, reply } => answer(reply, self.relay_add(&address, ticket.as_deref())),
            Ask::Remove { relay, reply } => answer(reply, self.relay_remove(&relay)),
        }
    }

    fn relay_list(&self, reply: Reply<Vec<Relay>>) {
        let (network, relays) = (self.network.clone(), self.servers(&RELAY));
        let refused: Vec<Option<String>> = relays.keys().map(|relay| self.tickets.refusal(relay)).collect();
        tokio::spawn(async move {
            let now = network.snapshot().await.unwrap_or_default();
            let shown = relays.into_iter().zip(refused).map(|((relay, addresses), refused)| {
                let shown = shown(relay, &addresses, &now);
                let problem = refused.or(shown.problem);
                Relay { problem, ..shown }
            });
            answer(reply, Ok(shown.collect()));
        });
    }

    fn relay_add(&mut self, text: &str, ticket: Option<&str>) -> Result<Relay, ResourceError> {
        let named = text.parse::<Address>().ok().and_then(|address| address.device());
        let ticket = ticket.map(|ticket| self.read_ticket(named, ticket)).transpose()?;
        let (relay, addresses) = self.server_add(&RELAY, text)?;
        if let Some((device, ticket)) = ticket {
            self.keep_tickets(vec![(relay, device, Some(ticket))]);
        }
        Ok(shown(relay, &addresses, &NetworkSnapshot::default()))
    }

    fn relay_remove(&mut self, text: &str) -> Result<(), ResourceError> {
        let relay = self.server_remove(&RELAY, text)?;
        self.drop_tickets(relay);
        Ok(())
    }
}

fn shown(relay: DeviceId, addresses: &[Address], now: &NetworkSnapshot) -> Relay {
    let found = now.relays.iter().find(|found| found.relay == relay);
    let state = match found.map(|found| found.state) {
        Some(RelayState::Reserved) => "in use",
        Some(RelayState::Connected) => "refused",
        Some(RelayState::Away) if found.is_some_and(|found| found.problem.is_some()) => "away",
        Some(RelayState::Away) | None => "spare",
    };
    Relay {
        relay: relay.to_string(),
        addresses: addresses.iter().map(ToString::to_string).collect(),
        state: state.to_owned(),
        problem: found.and_then(|found| found.problem.clone()),
    }
}
