//! Servers that all devices of a mesh use, its relays and bootstraps: kept in its graph, each under its id.

use std::collections::BTreeMap;

use meshwork_host::swarm::{Address, Path};
use meshwork_protocol::{codec, id::DeviceId, limits};
use meshwork_replica::replica::Replica;

use super::{Driver, command::internal};
use crate::resource::ResourceError;

/// A kind of server.
pub(super) struct Kind {
    /// As people call it, and commands.
    name: &'static str,
    /// Its addresses stand under this and its id.
    setting: &'static str,
    /// How many a mesh has at most.
    most: usize,
}

pub(super) const RELAY: Kind = Kind { name: "relay", setting: "relay.", most: limits::RELAYS };
pub(super) const BOOTSTRAP: Kind = Kind { name: "bootstrap", setting: "bootstrap.", most: limits::BOOTSTRAPS };

/// The servers in the graph of a mesh, with their addresses, which name them.
pub(super) fn list(replica: &Replica, kind: &Kind) -> BTreeMap<DeviceId, Vec<Address>> {
    let entry = |(name, value): (String, Vec<u8>)| {
        let server: DeviceId = name.strip_prefix(kind.setting)?.parse().ok()?;
        let texts: Vec<String> = codec::decode(&value, limits::GRAPH_VALUE).ok()?;
        let addresses = texts.iter().filter_map(|text| text.parse::<Address>().ok());
        let direct = addresses.filter(|address| address.path() != Path::Relayed);
        Some((server, direct.take(limits::RELAY_ADDRESSES).map(|address| address.with_device(&server)).collect()))
    };
    replica.graph().settings(kind.setting).into_iter().filter_map(entry).take(kind.most).collect()
}

impl Driver {
    pub(super) fn servers(&self, kind: &Kind) -> BTreeMap<DeviceId, Vec<Address>> {
        self.replica.as_ref().map(|replica| list(replica, kind)).unwrap_or_default()
    }

    /// Enters a server by its address, and gives all its addresses.
    pub(super) fn server_add(&mut self, kind: &Kind, text: &str) -> Result<(DeviceId, Vec<Address>), ResourceError> {
        let name = kind.name;
        let bad = |error: &dyn std::fmt::Display| {
            ResourceError::bad_request(
                format!("That is no address of a {name}: {error}."),
                format!(
                    "Take the whole line that the {name}'s operator gives, such as /ip4/192.0.2.7/tcp/4001/p2p/12D3Koo..."
                ),
            )
        };
        let address: Address = text.parse().map_err(|error| bad(&error))?;
        let server = address
            .device()
            .filter(|_| address.path() != Path::Relayed)
            .ok_or_else(|| bad(&format!("it does not end with /p2p/ and the {name}'s id")))?;
        self.ensure_mesh()?;
        let mut servers = self.servers(kind);
        if servers.len() >= kind.most && !servers.contains_key(&server) {
            return Err(ResourceError::new(
                409,
                "too_many",
                format!("This mesh has {} {name}s already.", kind.most),
                format!("Take one out first: `mesh {name} remove {}`.", name.to_uppercase()),
            ));
        }
        let mut addresses = servers.remove(&server).unwrap_or_default();
        if !addresses.contains(&address) {
            addresses.insert(0, address);
            addresses.truncate(limits::RELAY_ADDRESSES);
            let value = codec::encode(&addresses.iter().map(Address::to_string).collect::<Vec<_>>());
            self.ask_replica(|replica, rng| replica.put_setting(rng, &setting(kind, server), Some(value)))
                .map_err(internal)?;
        }
        Ok((server, addresses))
    }

    /// Takes out the server whose id begins so, and gives its id.
    pub(super) fn server_remove(&mut self, kind: &Kind, text: &str) -> Result<DeviceId, ResourceError> {
        let servers = self.servers(kind);
        let mut found = servers.keys().filter(|server| server.to_string().starts_with(text) && !text.is_empty());
        let (Some(server), None) = (found.next(), found.next()) else {
            return Err(ResourceError::not_found(
                format!("There is no one {} {text}.", kind.name),
                format!("Take its id from `mesh {} ls`.", kind.name),
            ));
        };
        let server = *server;
        self.ask_replica(|replica, rng| replica.put_setting(rng, &setting(kind, server), None)).map_err(internal)?;
        Ok(server)
    }
}

fn setting(kind: &Kind, server: DeviceId) -> String {
    format!("{}{server}", kind.setting)
}
