//! Relays, and devices that reach each other through them.

use super::*;

fn relay_config(number: u8) -> NetworkConfig {
    NetworkConfig { everyone: true, relay: Some(RelayLimits::default()), protocols: Vec::new(), ..config(number) }
}

/// A relay, and where it is.
async fn relay(config: NetworkConfig) -> (Node, (DeviceId, Vec<Address>)) {
    let relay = start(config).await;
    let place = (relay.device(), relay.all_addresses().await);
    (relay, place)
}

impl Node {
    /// Where this node can be called, once it has a place at this relay.
    async fn reserved(&mut self, relay: DeviceId) -> Address {
        let device = self.device();
        let circuit = self.until(|event| match event {
            NetworkEvent::Listening { address } if address.relay() == Some(relay) => Some(address.clone()),
            _ => None,
        });
        circuit.await.with_device(&device)
    }

    async fn left(&mut self, relay: DeviceId) {
        let is_gone = |event: &NetworkEvent| matches!(event, NetworkEvent::NotListening { address } if address.relay() == Some(relay));
        self.until(|event| is_gone(event).then_some(())).await;
    }

    async fn path_changed(&mut self, peer: DeviceId) -> Path {
        self.until(|event| match event {
            NetworkEvent::PathChanged { device, path } if *device == peer => Some(*path),
            _ => None,
        })
        .await
    }
}

#[tokio::test]
async fn who_is_called_through_a_relay_is_reached_directly_soon() {
    let (relay, place) = relay(relay_config(9)).await;
    let (mut left, mut right) = (start(config(1)).await, start(config(2)).await);
    left.allow(&[&right]).await;
    right.allow(&[&left]).await;
    right.handle.set_relays(vec![place]).await.expect("runs");
    let circuit = right.reserved(relay.device()).await;
    left.handle.dial(right.device(), vec![circuit.clone()]).await.expect("the relay leads there");
    assert_eq!(left.up(right.device()).await, Path::Relayed);
    assert_eq!(right.up(left.device()).await, Path::Relayed);
    let serving = relay.handle.snapshot().await.expect("runs").serving;
    assert_eq!((serving.reservations, serving.circuits_total), (1, 1));
    assert_ne!(left.path_changed(right.device()).await, Path::Relayed);
    assert_ne!(right.path_changed(left.device()).await, Path::Relayed);
    while !left.is_settled().await || !right.is_settled().await {
        tokio::task::yield_now().await;
    }
    while relay.handle.snapshot().await.expect("runs").serving.circuits > 0 {
        tokio::task::yield_now().await;
    }
    let stream = left.handle.open_stream(right.device(), ECHO).await.expect("a stream");
    let (_, _, inbound) = right.stream().await;
    tokio::join!(echo(stream, 100_000), serve_echo(inbound));
}

#[tokio::test]
async fn two_relays_hold_a_place_and_a_third_steps_in() {
    let (first, first_place) = relay(relay_config(7)).await;
    let (second, second_place) = relay(relay_config(8)).await;
    let (third, third_place) = relay(relay_config(9)).await;
    let mut node = start(config(1)).await;
    node.handle.set_relays(vec![first_place, second_place, third_place]).await.expect("runs");
    let mut held = [node.reserved_any().await, node.reserved_any().await];
    held.sort_unstable();
    let mut expected = [first.device(), second.device()];
    expected.sort_unstable();
    assert_eq!(held, expected, "the first two of the list");
    first.handle.shutdown().await;
    node.left(first.device()).await;
    node.reserved(third.device()).await;
    let relays = node.handle.snapshot().await.expect("runs").relays;
    assert_eq!(relays.iter().filter(|relay| relay.state == RelayState::Reserved).count(), 2);
    node.handle.set_relays(Vec::new()).await.expect("runs");
    node.left(second.device()).await;
}

#[tokio::test]
async fn a_relay_that_is_full_says_so_and_the_next_is_taken() {
    let limits = RelayLimits { reservations: 0, ..RelayLimits::default() };
    let (full, full_place) = relay(NetworkConfig { relay: Some(limits), ..relay_config(8) }).await;
    let (free, free_place) = relay(relay_config(9)).await;
    let mut node = start(config(1)).await;
    node.handle.set_relays(vec![full_place, free_place]).await.expect("runs");
    node.reserved(free.device()).await;
    let problem = loop {
        let relays = node.handle.snapshot().await.expect("runs").relays;
        let found = relays.into_iter().find(|relay| relay.relay == full.device()).expect("in the list");
        assert_ne!(found.state, RelayState::Reserved);
        if let Some(problem) = found.problem {
            break problem;
        }
        tokio::task::yield_now().await;
    };
    assert!(!problem.is_empty());
    assert!(full.handle.snapshot().await.expect("runs").serving.refused_total > 0);
}

#[tokio::test]
async fn who_is_not_allowed_is_refused_through_a_relay_as_well() {
    let (relay, place) = relay(relay_config(9)).await;
    let (mut node, stranger) = (start(config(1)).await, start(config(2)).await);
    stranger.allow(&[&node]).await;
    node.handle.set_relays(vec![place]).await.expect("runs");
    let circuit = node.reserved(relay.device()).await;
    let dialled = stranger.handle.dial(node.device(), vec![circuit.clone()]).await;
    assert_eq!(node.refused().await.0, Some(stranger.device()));
    // The handshake ends before the refusal comes: whoever dialled may have seen a connection for a moment.
    drop(dialled);
    while stranger.connections().await > 0 {
        tokio::task::yield_now().await;
    }
    node.allow(&[&stranger]).await;
    stranger.handle.dial(node.device(), vec![circuit]).await.expect("allowed now");
    node.up(stranger.device()).await;
}

impl Node {
    async fn reserved_any(&mut self) -> DeviceId {
        self.until(|event| match event {
            NetworkEvent::Listening { address } => address.relay(),
            _ => None,
        })
        .await
    }
}
