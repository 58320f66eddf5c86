//! The memory of a relay through which a thousand devices can be reached, and of circuits between them that carry nothing.

use std::{
    fs,
    time::{Duration, Instant},
};

use meshwork_host::swarm::{Address, Network, NetworkConfig, NetworkHandle, Path, RelayState};
use meshwork_protocol::{id::DeviceId, key::DeviceKey};
use meshwork_tests::{device::figure, server::Server};
use zeroize::Zeroizing;

const DEVICES: usize = 1_000;
const CIRCUITS: usize = 250;
/// How long all of them may take.
const PATIENCE: Duration = Duration::from_secs(300);

#[tokio::main]
async fn main() {
    // cargo bench asks with other words whether there is anything for it to list.
    if std::env::args().any(|argument| argument == "--list") {
        return;
    }
    let relay = Server::relay();
    let address: Address = relay.address().parse().expect("its address");
    let id = address.device().expect("its id");
    figure("relay_memory_idle", memory(&relay) / 1_024, "MiB");
    let mut devices = Vec::new();
    let begin = Instant::now();
    for number in 0..DEVICES {
        devices.push(start(number, id, &address).await);
    }
    wait("places at the relay", &devices, async |device| {
        let now = device.snapshot().await.expect("it runs");
        now.relays.iter().any(|relay| relay.state == RelayState::Reserved)
    })
    .await;
    figure("relay_reservations_time", begin.elapsed().as_secs(), "s");
    let reserved = memory(&relay);
    figure("relay_memory_1000_reservations", reserved / 1_024, "MiB");
    let callers: Vec<NetworkHandle> = devices.chunks_exact(2).take(CIRCUITS).map(|pair| pair[0].clone()).collect();
    for pair in devices.chunks_exact(2).take(CIRCUITS) {
        for (one, other) in [(&pair[0], &pair[1]), (&pair[1], &pair[0])] {
            one.set_allowed([other.device()].into()).await.expect("it runs");
        }
        pair[0].dial(pair[1].device(), Vec::new()).await.expect("a circuit");
    }
    wait("circuits", &callers, async |device| {
        let now = device.snapshot().await.expect("it runs");
        now.peers.iter().any(|peer| peer.path == Path::Relayed)
    })
    .await;
    let circuits = memory(&relay).saturating_sub(reserved);
    figure("relay_memory_idle_circuit", circuits / CIRCUITS as u64, "KiB");
}

/// A device that listens nowhere: it can be reached through the relay alone.
async fn start(number: usize, relay: DeviceId, address: &Address) -> NetworkHandle {
    let mut secret = [0; 32];
    secret[..8].copy_from_slice(&(number as u64 + 1).to_be_bytes());
    let mut config = NetworkConfig::new(Zeroizing::new(secret));
    (config.listen, config.mdns) = (Vec::new(), false);
    let (device, mut events) = Network::start(config).expect("a network");
    assert_eq!(device.device(), DeviceKey::from_bytes(&secret).device_id());
    tokio::spawn(async move { while events.recv().await.is_some() {} });
    device.set_relays(vec![(relay, vec![address.clone()])]).await.expect("it runs");
    device
}

async fn wait(what: &str, devices: &[NetworkHandle], is_well: impl AsyncFn(&NetworkHandle) -> bool) {
    let end = Instant::now() + PATIENCE;
    for device in devices {
        while !is_well(device).await {
            assert!(Instant::now() < end, "waited too long for {what}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

/// What a process holds in memory, in KiB.
fn memory(relay: &Server) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", relay.process_id())).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("its memory");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}
