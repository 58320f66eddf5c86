//! What is well with the network of this device, what is not, and what helps.

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use meshwork_host::swarm::{Address, NetworkHandle, NetworkSnapshot, Path, RelayState};
use meshwork_protocol::{id::DeviceId, time::Timestamp};
use tokio::task::JoinSet;

use super::{
    Driver,
    command::{Reply, answer},
    servers::{BOOTSTRAP, RELAY},
};
use crate::{
    api::types::Finding,
    clock,
    network::rendezvous::{RendezvousError, Seen, probe},
};

/// A clock that differs from that of a bootstrap by more is wrong: what is granted for a time would end at another.
const SKEW: Duration = Duration::from_secs(120);

/// What the driver knows.
struct Known {
    port: Option<u16>,
    bootstraps: Vec<(DeviceId, Vec<Address>)>,
    relays: BTreeSet<DeviceId>,
    /// Other devices of the mesh: their names, and whether they are connected.
    devices: Vec<(String, DeviceId, bool)>,
}

/// How a bootstrap answered when it was to try this device.
struct Tried {
    bootstrap: DeviceId,
    answer: Result<Seen, RendezvousError>,
    at: Timestamp,
}

impl Driver {
    pub(super) fn doctor(&self, reply: Reply<Vec<Finding>>) {
        let replica = self.replica.as_ref();
        let devices = replica.map(|replica| replica.control().devices(replica.mesh_id())).unwrap_or_default();
        let others = devices.into_iter().map(|(device, _)| device).filter(|device| *device != self.network.device());
        let known = Known {
            port: self.listening.iter().find_map(Address::socket).map(|socket| socket.port()),
            bootstraps: self.servers(&BOOTSTRAP).into_iter().collect(),
            relays: self.servers(&RELAY).into_keys().collect(),
            devices: others.map(|device| (self.name_of(device), device, self.peers.is_connected(device))).collect(),
        };
        let network = self.network.clone();
        tokio::spawn(async move {
            let tried = try_all(&network, &known).await;
            let now = network.snapshot().await.unwrap_or_default();
            answer(reply, Ok(findings(&known, &now, &tried)));
        });
    }
}

async fn try_all(network: &NetworkHandle, known: &Known) -> Vec<Tried> {
    let mut tries = JoinSet::new();
    let Some(port) = known.port else { return Vec::new() };
    for (bootstrap, addresses) in known.bootstraps.clone() {
        let network = network.clone();
        tries.spawn(async move {
            let answer = probe(&network, bootstrap, addresses, port).await;
            Tried { bootstrap, answer, at: clock::now() }
        });
    }
    let mut tried = tries.join_all().await;
    tried.sort_by_key(|tried| tried.bootstrap);
    tried
}

fn findings(known: &Known, now: &NetworkSnapshot, tried: &[Tried]) -> Vec<Finding> {
    let mut all = vec![of_interfaces(now)];
    all.extend(of_bootstraps(known, tried));
    all.extend(of_outside(known, now, tried));
    all.extend(of_mapping(tried));
    all.extend(of_clock(tried));
    all.extend(of_relays(known, now));
    all.extend(of_devices(known, now));
    all
}

fn finding(check: &str, state: &str, found: impl Into<String>, advice: Option<&str>) -> Finding {
    let advice = advice.map(str::to_owned);
    Finding { check: check.to_owned(), state: state.to_owned(), found: found.into(), advice }
}

/// Addresses of this machine that others may use.
fn sockets(now: &NetworkSnapshot) -> impl Iterator<Item = SocketAddr> {
    let direct = now.addresses.iter().filter(|address| address.path() != Path::Relayed);
    direct.filter_map(Address::socket).filter(|socket| !socket.ip().is_loopback())
}

fn of_interfaces(now: &NetworkSnapshot) -> Finding {
    let ips: BTreeSet<IpAddr> = sockets(now).map(|socket| socket.ip()).collect();
    if ips.is_empty() {
        let advice = "Connect it to a network; if it is connected, see what --listen says.";
        return finding("network", "bad", "This device has no address that others could use.", Some(advice));
    }
    let texts: Vec<String> = ips.iter().map(ToString::to_string).collect();
    finding("network", "ok", format!("This device is at {}.", texts.join(", ")), None)
}

fn of_bootstraps(known: &Known, tried: &[Tried]) -> Vec<Finding> {
    if known.bootstraps.is_empty() {
        let advice = "Add one, yours or a friend's: `mesh bootstrap add ADDRESS`. Then `mesh doctor` can look from outside, too.";
        let found = "This mesh has no bootstrap: devices that have all moved find each other on a local network or at a relay only.";
        return vec![finding("bootstrap", "note", found, Some(advice))];
    }
    let one = |tried: &Tried| {
        let name = tried.bootstrap.short();
        match &tried.answer {
            Ok(seen) => {
                finding("bootstrap", "ok", format!("{name} answers, and sees this device at {}.", seen.address), None)
            }
            Err(RendezvousError::Refused(refusal)) => {
                let advice = "That is no fault here. Look again in a moment.";
                finding(
                    "bootstrap",
                    "note",
                    format!("{name} answers, but does not try this device: {refusal}."),
                    Some(advice),
                )
            }
            Err(error) => {
                let advice = "If no other one answers either, this network may block it; else ask its operator, or take it out: `mesh bootstrap remove`.";
                finding("bootstrap", "bad", format!("{name} does not help: {error}."), Some(advice))
            }
        }
    };
    tried.iter().map(one).collect()
}

fn seen(tried: &[Tried]) -> impl Iterator<Item = (&Seen, Timestamp)> {
    tried.iter().filter_map(|tried| Some((tried.answer.as_ref().ok()?, tried.at)))
}

fn of_outside(known: &Known, now: &NetworkSnapshot, tried: &[Tried]) -> Option<Finding> {
    let port = known.port?;
    let own: BTreeSet<IpAddr> = sockets(now).map(|socket| socket.ip()).collect();
    let (first, _) = seen(tried).next()?;
    let tcp = seen(tried).any(|(seen, _)| seen.tcp);
    let quic = seen(tried).any(|(seen, _)| seen.quic);
    let ways = match (tcp, quic) {
        (true, true) => return Some(finding("from outside", "ok", "This device can be reached from outside.", None)),
        (true, false) => "over TCP only",
        (false, true) => "over UDP only",
        (false, false) => "not at all",
    };
    let found = format!(
        "From outside this device can be reached {ways}; others reach it once it has dialled them, or through a relay."
    );
    let advice = if own.contains(&first.address.ip()) {
        format!("It has a public address, so a firewall keeps others out: open port {port} for TCP and UDP.")
    } else {
        format!(
            "It is behind a router. For direct connections with everybody, forward port {port} there, TCP and UDP, to this device."
        )
    };
    Some(finding("from outside", "note", found, Some(&advice)))
}

/// Whether the router keeps to one port for all that this device speaks with, as seen by two bootstraps.
fn of_mapping(tried: &[Tried]) -> Option<Finding> {
    let ipv4 = || seen(tried).map(|(seen, _)| seen.address).filter(SocketAddr::is_ipv4);
    let first = ipv4().next()?;
    if ipv4().count() < 2 {
        return None;
    }
    if ipv4().all(|address| address == first) {
        return Some(finding("router", "ok", "The router keeps to one port, so direct connections can be made.", None));
    }
    let advice = "Between two devices behind such routers only a relay, or a port forwarded at one of them, leads through: `mesh relay add ADDRESS`.";
    let found = "The router gives each connection a port of its own (a symmetric NAT).";
    Some(finding("router", "note", found, Some(advice)))
}

fn of_clock(tried: &[Tried]) -> Option<Finding> {
    let skew = |(seen, at): (&Seen, Timestamp)| (seen.time - at).max(at - seen.time);
    let least = seen(tried).map(skew).min()?;
    if least < SKEW {
        return Some(finding("clock", "ok", "The clock is right.", None));
    }
    let found = format!("The clock differs from that of the bootstraps by {} s at least.", least.as_secs());
    Some(finding(
        "clock",
        "bad",
        found,
        Some("Set it, best by turning on network time (NTP): what is granted for a time would end at another."),
    ))
}

fn of_relays(known: &Known, now: &NetworkSnapshot) -> Vec<Finding> {
    if known.relays.is_empty() {
        let advice = "Add one, yours or a friend's: `mesh relay add ADDRESS`.";
        let found = "This mesh has no relay: two devices behind routers that do not let each other in cannot connect.";
        return vec![finding("relay", "note", found, Some(advice))];
    }
    let one = |relay: &DeviceId| {
        let name = relay.short();
        let stands = now.relays.iter().find(|found| found.relay == *relay)?;
        let problem = stands.problem.clone().unwrap_or_default();
        Some(match stands.state {
            RelayState::Reserved => finding("relay", "ok", format!("This device can be reached through {name}."), None),
            RelayState::Connected if problem.is_empty() => {
                finding("relay", "ok", format!("{name} is connected."), None)
            }
            RelayState::Connected => {
                let advice = "It may be full. Add another: `mesh relay add ADDRESS`.";
                finding("relay", "bad", format!("{name} gives this device no place: {problem}."), Some(advice))
            }
            RelayState::Away if problem.is_empty() => finding("relay", "ok", format!("{name} is spare."), None),
            RelayState::Away => {
                let advice = "Ask its operator, or take it out: `mesh relay remove`.";
                finding("relay", "bad", format!("{name} cannot be reached: {problem}."), Some(advice))
            }
        })
    };
    known.relays.iter().filter_map(one).collect()
}

fn of_devices(known: &Known, now: &NetworkSnapshot) -> Vec<Finding> {
    let one = |(name, device, connected): &(String, DeviceId, bool)| {
        let peer = now.peers.iter().find(|peer| peer.device == *device).filter(|_| *connected);
        match peer {
            Some(peer) if peer.path == Path::Relayed => {
                let why = peer.problem.clone().unwrap_or_else(|| "a direct way has not been found yet".to_owned());
                finding("device", "ok", format!("{name} is connected through a relay: {why}."), None)
            }
            Some(peer) => finding("device", "ok", format!("{name} is connected directly, by {}.", peer.path), None),
            None => {
                let advice = "See that its node runs (`mesh up` there); `mesh ping` tells where it was last.";
                finding("device", "note", format!("{name} is not connected."), Some(advice))
            }
        }
    };
    known.devices.iter().map(one).collect()
}

#[cfg(test)]
mod tests {
    use meshwork_protocol::wire::rendezvous::Refusal;

    use super::*;

    const NOW: Timestamp = Timestamp(1_000_000_000_000_000);

    fn known() -> Known {
        let bootstraps = [1u8, 2].map(|id| (DeviceId([id; 32]), Vec::new())).to_vec();
        Known { port: Some(4001), bootstraps, relays: BTreeSet::new(), devices: Vec::new() }
    }

    fn tried(id: u8, answer: Result<(&str, bool, bool), RendezvousError>) -> Tried {
        let seen = |(address, tcp, quic): (&str, bool, bool)| Seen {
            address: address.parse().expect("an address"),
            tcp,
            quic,
            time: NOW,
        };
        Tried { bootstrap: DeviceId([id; 32]), answer: answer.map(seen), at: NOW }
    }

    fn here(addresses: &[&str]) -> NetworkSnapshot {
        let addresses = addresses.iter().map(|text| text.parse().expect("an address")).collect();
        NetworkSnapshot { addresses, ..NetworkSnapshot::default() }
    }

    fn states(findings: &[Finding]) -> Vec<(&str, &str)> {
        findings.iter().map(|finding| (finding.check.as_str(), finding.state.as_str())).collect()
    }

    #[test]
    fn a_device_with_a_public_address_is_well() {
        let now = here(&["/ip4/192.0.2.9/tcp/4001"]);
        let tried = [tried(1, Ok(("192.0.2.9:4001", true, true))), tried(2, Ok(("192.0.2.9:4001", true, true)))];
        let all = findings(&known(), &now, &tried);
        let expected = [
            ("network", "ok"),
            ("bootstrap", "ok"),
            ("bootstrap", "ok"),
            ("from outside", "ok"),
            ("router", "ok"),
            ("clock", "ok"),
            ("relay", "note"),
        ];
        assert_eq!(states(&all), expected);
    }

    #[test]
    fn a_firewall_is_told_from_a_router_and_a_symmetric_one_is_named() {
        let behind = here(&["/ip4/10.0.0.2/tcp/4001"]);
        let open = here(&["/ip4/192.0.2.9/tcp/4001"]);
        let two = [tried(1, Ok(("192.0.2.9:4001", false, false))), tried(2, Ok(("192.0.2.9:7777", false, true)))];
        let advice = |now: &NetworkSnapshot| of_outside(&known(), now, &two).and_then(|finding| finding.advice);
        assert!(advice(&behind).is_some_and(|advice| advice.contains("forward port 4001")));
        assert!(advice(&open).is_some_and(|advice| advice.contains("firewall")));
        assert!(of_outside(&known(), &open, &two).is_some_and(|finding| finding.found.contains("UDP only")));
        assert!(of_mapping(&two).is_some_and(|finding| finding.found.contains("symmetric")));
        assert_eq!(of_mapping(&two[..1]), None);
    }

    #[test]
    fn a_wrong_clock_is_found_unless_one_bootstrap_says_that_it_is_right() {
        let off = |id, by: u64| {
            let mut tried = tried(id, Ok(("192.0.2.9:1", true, true)));
            tried.at = Timestamp(NOW.0 - by * 1_000_000);
            tried
        };
        assert!(of_clock(&[off(1, 600)]).is_some_and(|finding| finding.state == "bad"));
        assert!(of_clock(&[off(1, 600), off(2, 3)]).is_some_and(|finding| finding.state == "ok"));
        assert_eq!(of_clock(&[]), None);
    }

    #[test]
    fn bootstraps_that_refuse_or_are_gone_and_no_network_are_told() {
        let tried = [tried(1, Err(Refusal::Busy.into())), tried(2, Err(RendezvousError::Late))];
        let all = findings(&known(), &here(&["/ip4/127.0.0.1/tcp/4001"]), &tried);
        assert_eq!(states(&all), [("network", "bad"), ("bootstrap", "note"), ("bootstrap", "bad"), ("relay", "note")]);
        assert!(all.iter().all(|finding| finding.advice.is_some()));
    }
}
