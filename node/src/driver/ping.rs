//! How another device is reached, and how long a word there and back takes.

use std::time::UNIX_EPOCH;

use meshwork_host::swarm::{Address, Path, PeerSnapshot, Stream};
use meshwork_protocol::{id::DeviceId, wire};

use super::{
    Driver,
    command::{Reply, answer, no_mesh},
};
use crate::{api::types::Ping, network::ping, resource::ResourceError};

/// Words that are sent.
const WORDS: usize = 5;

impl Driver {
    pub(super) fn ping(&self, name: &str, reply: Reply<Ping>) {
        let device = match self.find_peer(name) {
            Ok(device) => device,
            Err(error) => return answer(reply, Err(error)),
        };
        let (network, name, tried) = (self.network.clone(), self.name_of(device), self.known.of(device));
        tokio::spawn(async move {
            let peers = network.snapshot().await.map(|now| now.peers).unwrap_or_default();
            let Some(peer) = peers.into_iter().find(|peer| peer.device == device) else {
                return answer(reply, Err(not_connected(&name, &tried)));
            };
            let asked = match network.open_stream(device, wire::PING).await {
                Ok(stream) => ping::ask(stream, WORDS).await.map_err(|error| error.to_string()),
                Err(error) => Err(error.to_string()),
            };
            let silent = |problem| {
                let fix = "It may be an older version, or gone just now; `mesh status` shows who is connected.";
                ResourceError::new(504, "no_answer", format!("{name} does not answer: {problem}."), fix)
            };
            let times = asked.map_err(silent);
            answer(reply, times.map(|times| shown(&peer, &name, times)));
        });
    }

    pub(super) fn answer_ping(&self, device: DeviceId, stream: Stream) {
        tokio::spawn(async move {
            if let Err(error) = ping::answer(stream).await {
                tracing::debug!(peer = %device.short(), %error, "a ping was cut short");
            }
        });
    }

    /// Another device that may be connected, by its name or how its id begins.
    pub(super) fn find_peer(&self, name: &str) -> Result<DeviceId, ResourceError> {
        let replica = self.replica.as_ref().ok_or_else(no_mesh)?;
        let known = replica.peers().into_iter().filter(|device| self.is_called(*device, name));
        self.only_one(name, &known.collect::<Vec<_>>(), || {
            ResourceError::not_found(
                format!("There is no other device {name}."),
                "`mesh devices` shows those of this mesh; one of a contact is named by its id.",
            )
        })
    }
}

fn shown(peer: &PeerSnapshot, name: &str, times: Vec<std::time::Duration>) -> Ping {
    let relay = peer.address.parse::<Address>().ok().and_then(|address| address.relay());
    let since = peer.since.duration_since(UNIX_EPOCH).unwrap_or_default();
    Ping {
        device: peer.device.to_string(),
        name: name.to_owned(),
        path: if peer.path == Path::Relayed { "relay" } else { "direct" }.to_owned(),
        transport: peer.path.as_str().to_owned(),
        address: peer.address.clone(),
        relay: relay.map(|relay| relay.to_string()),
        since: since.as_millis().try_into().unwrap_or(u64::MAX),
        times: times.into_iter().map(|time| time.as_micros().try_into().unwrap_or(u64::MAX)).collect(),
        problem: peer.problem.clone(),
    }
}

fn not_connected(name: &str, tried: &[Address]) -> ResourceError {
    let places: Vec<String> = tried.iter().map(ToString::to_string).collect();
    let fix = match places.as_slice() {
        [] => "This device does not know where it is. A relay brings the two together: `mesh relay add ADDRESS`."
            .to_owned(),
        _ => format!(
            "See that its node runs (`mesh up` there). It was last at {}; elsewhere a relay helps: `mesh relay add ADDRESS`.",
            places.join(", ")
        ),
    };
    ResourceError::new(409, "not_connected", format!("{name} is not connected."), fix)
}
