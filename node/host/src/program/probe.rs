//! A server as seen from outside: what of it can be reached, and whether it is the one that was meant.

use std::{net::SocketAddr, time::Duration};

use meshwork_protocol::id::DeviceId;
use serde_json::{Value, json};
use tokio::time::timeout;
use zeroize::Zeroizing;

use crate::{
    address::Address,
    entropy::entropy,
    swarm::{Network, NetworkConfig},
};

/// Time that one check may take.
pub const TIME: Duration = Duration::from_secs(10);

/// One thing that was tried.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// What was tried.
    pub name: &'static str,
    /// What is wrong and what to do, when something is.
    pub trouble: Option<String>,
}

impl Check {
    /// As JSON.
    pub fn to_json(&self) -> Value {
        json!({"check": self.name, "ok": self.trouble.is_none(), "trouble": self.trouble})
    }
}

/// Tries TCP and QUIC at one host and port, and the identity behind each.
pub async fn probe(socket: SocketAddr, expected: Option<DeviceId>) -> Vec<Check> {
    let port = socket.port();
    let tcp = reach(Address::tcp(socket)).await;
    let quic = reach(Address::quic(socket)).await;
    let identity = match expected {
        Some(_) if tcp.is_err() && quic.is_err() => {
            Some("nobody answered, so it cannot be told: mend tcp or quic first".into())
        }
        Some(expected) => {
            let others = [&tcp, &quic].into_iter().flatten().find(|found| **found != expected);
            others.map(|found| {
                format!("{found} answers, not {expected}: correct the address, or put back its identity.key")
            })
        }
        None => Some("the address names no device: add the /p2p/... that `init` printed".into()),
    };
    vec![
        check("tcp", tcp, &format!("open TCP port {port} in the firewall and forward it to this host")),
        check("quic", quic, &format!("open UDP port {port} in the firewall and forward it to this host")),
        Check { name: "identity", trouble: identity },
    ]
}

fn check(name: &'static str, found: Result<DeviceId, String>, fix: &str) -> Check {
    Check { name, trouble: found.err().map(|error| format!("{error}; see that it runs, then {fix}")) }
}

/// Who answers there.
async fn reach(address: Address) -> Result<DeviceId, String> {
    let mut secret = Zeroizing::new([0; 32]);
    rand_core::Rng::fill_bytes(&mut entropy(), secret.as_mut_slice());
    let mut config = NetworkConfig::new(secret);
    config.listen = Vec::new();
    config.mdns = false;
    let (handle, mut events) = Network::start(config).map_err(|error| error.to_string())?;
    let listened = tokio::spawn(async move { while events.recv().await.is_some() {} });
    let found = timeout(TIME, handle.dial_unknown(vec![address.clone()])).await;
    handle.shutdown().await;
    listened.abort();
    match found {
        Ok(found) => found.map_err(|error| format!("{address}: {error}")),
        Err(_) => Err(format!("{address} did not answer within {} s", TIME.as_secs())),
    }
}
