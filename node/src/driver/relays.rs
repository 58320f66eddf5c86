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
    Add { address: String, reply: Reply<Relay> },
    Remove { relay: String, reply: Reply<()> },
}

impl Driver {
    pub(super) fn on_relays(&mut self, ask: Ask) {
        match ask {
            Ask::List(reply) => self.relay_list(reply),
            Ask::Add { address, reply } => answer(reply, self.relay_add(&address)),
            Ask::Remove { relay, reply } => answer(reply, self.server_remove(&RELAY, &relay)),
        }
    }

    fn relay_list(&self, reply: Reply<Vec<Relay>>) {
        let (network, relays) = (self.network.clone(), self.servers(&RELAY));
        tokio::spawn(async move {
            let now = network.snapshot().await.unwrap_or_default();
            answer(reply, Ok(relays.into_iter().map(|(relay, addresses)| shown(relay, &addresses, &now)).collect()));
        });
    }

    fn relay_add(&mut self, text: &str) -> Result<Relay, ResourceError> {
        let (relay, addresses) = self.server_add(&RELAY, text)?;
        Ok(shown(relay, &addresses, &NetworkSnapshot::default()))
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
