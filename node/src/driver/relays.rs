//! The relays of the mesh: kept in its graph, so that all its devices have the same ones.

use std::collections::BTreeMap;

use meshwork_host::swarm::{Address, NetworkSnapshot, Path, RelayState};
use meshwork_protocol::{codec, id::DeviceId, limits};
use meshwork_replica::replica::Replica;

use super::{
    Driver,
    command::{Reply, answer, internal},
};
use crate::{api::types::Relay, resource::ResourceError};

/// What is asked about relays.
pub(crate) enum Ask {
    List(Reply<Vec<Relay>>),
    Add { address: String, reply: Reply<Relay> },
    Remove { relay: String, reply: Reply<()> },
}

/// A relay's addresses stand under this and its id.
const SETTING: &str = "relay.";

/// The relays in the graph of a mesh, with their addresses, which name them.
pub(super) fn list(replica: &Replica) -> BTreeMap<DeviceId, Vec<Address>> {
    let entry = |(name, value): (String, Vec<u8>)| {
        let relay: DeviceId = name.strip_prefix(SETTING)?.parse().ok()?;
        let texts: Vec<String> = codec::decode(&value, limits::GRAPH_VALUE).ok()?;
        let addresses = texts.iter().filter_map(|text| text.parse::<Address>().ok());
        let direct = addresses.filter(|address| address.path() != Path::Relayed);
        Some((relay, direct.take(limits::RELAY_ADDRESSES).map(|address| address.with_device(&relay)).collect()))
    };
    replica.graph().settings(SETTING).into_iter().filter_map(entry).take(limits::RELAYS).collect()
}

impl Driver {
    pub(super) fn on_relays(&mut self, ask: Ask) {
        match ask {
            Ask::List(reply) => self.relay_list(reply),
            Ask::Add { address, reply } => answer(reply, self.relay_add(&address)),
            Ask::Remove { relay, reply } => answer(reply, self.relay_remove(&relay)),
        }
    }

    fn relays(&self) -> BTreeMap<DeviceId, Vec<Address>> {
        self.replica.as_ref().map(list).unwrap_or_default()
    }

    fn relay_list(&self, reply: Reply<Vec<Relay>>) {
        let (network, relays) = (self.network.clone(), self.relays());
        tokio::spawn(async move {
            let now = network.snapshot().await.unwrap_or_default();
            answer(reply, Ok(relays.into_iter().map(|(relay, addresses)| shown(relay, &addresses, &now)).collect()));
        });
    }

    fn relay_add(&mut self, text: &str) -> Result<Relay, ResourceError> {
        let address: Address = text.parse().map_err(|error| bad_address(&error))?;
        let relay = address
            .device()
            .filter(|_| address.path() != Path::Relayed)
            .ok_or_else(|| bad_address(&"it does not end with /p2p/ and the relay's id"))?;
        self.ensure_mesh()?;
        let mut relays = self.relays();
        if relays.len() >= limits::RELAYS && !relays.contains_key(&relay) {
            return Err(ResourceError::new(
                409,
                "too_many",
                format!("This mesh has {} relays already.", limits::RELAYS),
                "Take one out first: `mesh relay remove RELAY`.",
            ));
        }
        let addresses = relays.entry(relay).or_default();
        if !addresses.contains(&address) {
            addresses.insert(0, address);
            addresses.truncate(limits::RELAY_ADDRESSES);
            let value = codec::encode(&addresses.iter().map(Address::to_string).collect::<Vec<_>>());
            self.ask_replica(|replica, rng| replica.put_setting(rng, &setting(relay), Some(value)))
                .map_err(internal)?;
        }
        Ok(shown(relay, &relays.remove(&relay).unwrap_or_default(), &NetworkSnapshot::default()))
    }

    fn relay_remove(&mut self, text: &str) -> Result<(), ResourceError> {
        let relays = self.relays();
        let mut found = relays.keys().filter(|relay| relay.to_string().starts_with(text) && !text.is_empty());
        let (Some(relay), None) = (found.next(), found.next()) else {
            return Err(ResourceError::not_found(
                format!("There is no one relay {text}."),
                "Take its id from `mesh relay ls`.",
            ));
        };
        self.ask_replica(|replica, rng| replica.put_setting(rng, &setting(*relay), None)).map_err(internal)
    }
}

fn setting(relay: DeviceId) -> String {
    format!("{SETTING}{relay}")
}

fn bad_address(error: &impl std::fmt::Display) -> ResourceError {
    ResourceError::bad_request(
        format!("That is no address of a relay: {error}."),
        "Take the whole line that the relay's operator gives, such as /ip4/192.0.2.7/tcp/4001/p2p/12D3Koo...",
    )
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
