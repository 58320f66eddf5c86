//! Whole networks in one process, over loopback.

mod relays;
mod stolen;

use std::net::Ipv4Addr;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::timeout,
};

use super::*;

const ECHO: &str = "/test/echo/1";
const PAIR: &str = "/test/pair/1";
const VISIT: &str = "/test/visit/1";

/// No test judges times; this only keeps a broken one from hanging.
const OVERALL: Duration = Duration::from_secs(60);

struct Node {
    handle: NetworkHandle,
    events: mpsc::Receiver<NetworkEvent>,
}

fn config(number: u8) -> NetworkConfig {
    NetworkConfig {
        listen: vec![(Ipv4Addr::LOCALHOST, 0).into()],
        mdns: false,
        protocols: vec![ECHO],
        pairing_protocols: vec![PAIR],
        guest_protocols: vec![VISIT],
        ..NetworkConfig::new(Zeroizing::new([number; 32]))
    }
}

/// Starts a node and waits until it listens on both transports.
async fn start(config: NetworkConfig) -> Node {
    let (handle, events) = Network::start(config).expect("start");
    let mut node = Node { handle, events };
    for _ in 0..2 {
        node.until(|event| matches!(event, NetworkEvent::Listening { .. }).then_some(())).await;
    }
    node
}

impl Node {
    fn device(&self) -> DeviceId {
        self.handle.device()
    }

    /// The first event for which `pick` gives a value; others are dropped.
    async fn until<T>(&mut self, mut pick: impl FnMut(&NetworkEvent) -> Option<T>) -> T {
        let wait = async {
            loop {
                let event = self.events.recv().await.expect("network runs");
                if let Some(value) = pick(&event) {
                    return value;
                }
            }
        };
        timeout(OVERALL, wait).await.expect("event within the overall time")
    }

    async fn up(&mut self, peer: DeviceId) -> Path {
        self.until(|event| match event {
            NetworkEvent::PeerUp { device, path } if *device == peer => Some(*path),
            _ => None,
        })
        .await
    }

    async fn down(&mut self, peer: DeviceId) -> DownReason {
        self.until(|event| match event {
            NetworkEvent::PeerDown { device, reason } if *device == peer => Some(reason.clone()),
            _ => None,
        })
        .await
    }

    async fn refused(&mut self) -> (Option<DeviceId>, String) {
        self.until(|event| match event {
            NetworkEvent::Refused { device, reason, .. } => Some((*device, reason.clone())),
            _ => None,
        })
        .await
    }

    async fn stream(&mut self) -> (DeviceId, &'static str, Stream) {
        let wait = async {
            loop {
                if let NetworkEvent::Stream { device, protocol, stream, .. } = self.events.recv().await.expect("runs") {
                    return (device, protocol, stream);
                }
            }
        };
        timeout(OVERALL, wait).await.expect("stream within the overall time")
    }

    async fn allow(&self, devices: &[&Node]) {
        self.handle.set_allowed(devices.iter().map(|node| node.device()).collect()).await.expect("runs");
    }

    async fn addresses(&self, path: Path) -> Vec<Address> {
        let all = self.handle.addresses().await.expect("runs");
        all.into_iter().filter(|address| address.path() == path).collect()
    }

    async fn all_addresses(&self) -> Vec<Address> {
        self.handle.addresses().await.expect("runs")
    }

    /// One connection and none on its way.
    async fn is_settled(&self) -> bool {
        let snapshot = self.handle.snapshot().await.expect("runs");
        snapshot.pending == 0 && snapshot.peers.iter().all(|peer| peer.connections == 1)
    }

    async fn connections(&self) -> usize {
        let snapshot = self.handle.snapshot().await.expect("runs");
        snapshot.peers.iter().map(|peer| peer.connections).sum()
    }
}

#[tokio::test]
async fn who_waits_on_a_stream_is_told_when_this_end_closes_the_connection() {
    for path in [Path::Tcp, Path::Quic] {
        let (left, mut right) = pair_over(path).await;
        let near = left.handle.open_stream(right.device(), ECHO).await.expect("a stream");
        let (mut reader, mut writer) = tokio::io::split(near);
        writer.write_all(b"there").await.expect("written");
        writer.flush().await.expect("sent");
        let (_, _, mut far) = right.stream().await;
        far.read_exact(&mut [0; 5]).await.expect("it is there");
        let waiting = tokio::spawn(async move { reader.read(&mut [0; 1]).await });
        // It has to wait before there is anything to be told.
        tokio::task::yield_now().await;
        left.handle.disconnect(right.device()).await.expect("runs");
        let told = timeout(OVERALL, waiting).await.expect("told").expect("no panic");
        assert!(!matches!(told, Ok(1..)), "{path}: {told:?}");
        drop(writer);
    }
}

/// Two nodes that allow each other, connected.
async fn pair_over(path: Path) -> (Node, Node) {
    let (mut left, mut right) = (start(config(1)).await, start(config(2)).await);
    left.allow(&[&right]).await;
    right.allow(&[&left]).await;
    left.handle.dial(right.device(), right.addresses(path).await).await.expect("dial");
    assert_eq!(left.up(right.device()).await, path);
    assert_eq!(right.up(left.device()).await, path);
    (left, right)
}

/// Sends `count` bytes and reads as many back from a peer that echoes, both at once.
async fn echo(stream: Stream, count: usize) {
    let (mut reader, mut writer) = tokio::io::split(stream);
    let sent: Vec<u8> = (0..count).map(|index| (index % 251) as u8).collect();
    let copy = sent.clone();
    let writing = tokio::spawn(async move {
        writer.write_all(&copy).await.expect("write");
        writer.shutdown().await.expect("finish");
        writer
    });
    let mut received = Vec::new();
    timeout(OVERALL, reader.read_to_end(&mut received)).await.expect("in time").expect("read");
    assert!(received == sent, "echo differs: {} of {} bytes", received.len(), sent.len());
    writing.await.expect("writer");
}

async fn serve_echo(stream: Stream) {
    let (mut reader, mut writer) = tokio::io::split(stream);
    tokio::io::copy(&mut reader, &mut writer).await.expect("copy");
    writer.shutdown().await.expect("finish");
}

async fn echo_both_ways(path: Path) {
    const COUNT: usize = 1 << 20;
    let (mut left, mut right) = pair_over(path).await;
    let outgoing = left.handle.open_stream(right.device(), ECHO).await.expect("open");
    let returning = right.handle.open_stream(left.device(), ECHO).await.expect("open back");
    let (from_left, protocol, at_right) = right.stream().await;
    assert_eq!((from_left, protocol), (left.device(), ECHO));
    let (from_right, _, at_left) = left.stream().await;
    assert_eq!(from_right, right.device());
    tokio::join!(echo(outgoing, COUNT), echo(returning, COUNT), serve_echo(at_left), serve_echo(at_right));
    let snapshot = left.handle.snapshot().await.expect("runs");
    let peer = &snapshot.peers[0];
    assert_eq!((peer.received, peer.sent), (2 * COUNT as u64, 2 * COUNT as u64));
    assert_eq!((peer.path, peer.connections), (path, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_carry_a_megabyte_both_ways_over_quic() {
    echo_both_ways(Path::Quic).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_carry_a_megabyte_both_ways_over_tcp() {
    echo_both_ways(Path::Tcp).await;
}

#[tokio::test]
async fn udp_and_tcp_share_a_port_and_quic_is_preferred() {
    let (mut left, right) = (start(config(1)).await, start(config(2)).await);
    let addresses = right.all_addresses().await;
    let ports: BTreeSet<u16> = addresses.iter().filter_map(|address| Some(address.socket()?.port())).collect();
    assert_eq!((addresses.len(), ports.len()), (2, 1), "{addresses:?}");
    left.allow(&[&right]).await;
    right.allow(&[&left]).await;
    left.handle.dial(right.device(), addresses).await.expect("dial");
    assert_eq!(left.up(right.device()).await, Path::Quic);
}

#[tokio::test]
async fn an_unknown_device_is_refused() {
    let (mut left, mut right) = (start(config(1)).await, start(config(2)).await);
    let addresses = left.all_addresses().await;
    assert_eq!(right.handle.dial(left.device(), addresses.clone()).await, Err(DialError::NotAllowed));
    assert_eq!(right.handle.dial(right.device(), addresses.clone()).await, Err(DialError::Own));
    for path in [Path::Quic, Path::Tcp] {
        right.allow(&[&left]).await;
        // The dialler may learn of the refusal before or after its side of the connection is up.
        let _ = right.handle.dial(left.device(), left.addresses(path).await).await;
        let (device, reason) = left.refused().await;
        assert_eq!(device, Some(right.device()));
        assert!(reason.contains("not allowed"), "{reason}");
        assert_eq!(left.connections().await, 0);
        right.allow(&[]).await;
    }
    let open = right.handle.open_stream(left.device(), ECHO).await.expect_err("no way in");
    assert!(matches!(open, OpenError::NotConnected | OpenError::Disconnected), "{open}");
    drop(right.events.try_recv());
}

#[tokio::test]
async fn pairing_admits_for_pairing_only_and_a_paired_device_comes_up() {
    let (mut host, mut guest) = (start(config(1)).await, start(config(2)).await);
    let addresses = host.all_addresses().await;
    host.handle.open_pairing(Instant::now() + OVERALL).await.expect("runs");
    assert_eq!(guest.handle.dial_unknown(addresses).await, Ok(host.device()));
    assert_eq!(guest.handle.open_stream(host.device(), ECHO).await.map(drop), Err(OpenError::NotAllowed));
    let mut asking = guest.handle.open_stream(host.device(), PAIR).await.expect("pairing stream");
    asking.write_all(b"code").await.expect("write");
    let (device, protocol, mut answering) = host.stream().await;
    assert_eq!((device, protocol), (guest.device(), PAIR));
    let mut text = [0; 4];
    answering.read_exact(&mut text).await.expect("read");
    assert_eq!(&text, b"code");
    // A guest that trusts the host already still gets nothing but pairing from it.
    guest.allow(&[&host]).await;
    guest.up(host.device()).await;
    assert_eq!(guest.handle.open_stream(host.device(), ECHO).await.map(drop), Err(OpenError::Unsupported));
    host.allow(&[&guest]).await;
    host.up(guest.device()).await;
    // The promotion reaches the connection on its own way, after which the protocol is offered.
    let stream = loop {
        match guest.handle.open_stream(host.device(), ECHO).await {
            Err(OpenError::Unsupported) => tokio::task::yield_now().await,
            result => break result.expect("promoted"),
        }
    };
    let (_, _, served) = host.stream().await;
    tokio::join!(echo(stream, 1000), serve_echo(served));
    assert_eq!(host.handle.snapshot().await.expect("runs").strangers, 0);
}

#[tokio::test]
async fn a_guest_is_let_in_for_its_purpose_alone_and_nobody_else_is() {
    let visitor =
        |number| NetworkConfig { pairing_protocols: vec![PAIR, VISIT], guest_protocols: Vec::new(), ..config(number) };
    let (mut host, guest, other) = (start(config(1)).await, start(visitor(2)).await, start(visitor(3)).await);
    let addresses = host.all_addresses().await;
    host.handle.set_guests([guest.device()].into()).await.expect("runs");
    assert_eq!(guest.handle.dial_unknown(addresses.clone()).await, Ok(host.device()));
    let mut asking = guest.handle.open_stream(host.device(), VISIT).await.expect("its own protocol");
    asking.write_all(b"here").await.expect("write");
    let (device, protocol, _stream) = host.stream().await;
    assert_eq!((device, protocol), (guest.device(), VISIT));
    assert_eq!(guest.handle.open_stream(host.device(), PAIR).await.map(drop), Err(OpenError::Unsupported));
    assert_eq!(host.handle.snapshot().await.expect("runs").peers, []);
    // What the dialler sees of a connection that is refused after its handshake depends on the transport.
    let _ = other.handle.dial_unknown(addresses).await;
    assert_eq!(host.refused().await, (Some(other.device()), "device is not allowed".into()));
    assert!(other.handle.open_stream(host.device(), VISIT).await.is_err());
}

#[tokio::test]
async fn pairing_is_over_when_its_time_is() {
    let (mut host, guest) = (start(config(1)).await, start(config(2)).await);
    let quic = host.addresses(Path::Quic).await;
    host.handle.open_pairing(Instant::now()).await.expect("runs");
    let _ = guest.handle.dial_unknown(quic.clone()).await;
    assert!(host.refused().await.1.contains("not allowed"));
    host.handle.open_pairing(Instant::now() + OVERALL).await.expect("runs");
    host.handle.close_pairing().await.expect("runs");
    let _ = guest.handle.dial_unknown(quic).await;
    assert!(host.refused().await.1.contains("not allowed"));
}

#[tokio::test]
async fn a_stranger_is_sent_away_after_its_time_and_four_are_a_crowd() {
    let short = NetworkConfig { pairing_time: Duration::from_secs(3), ..config(1) };
    let mut host = start(short).await;
    host.handle.open_pairing(Instant::now() + OVERALL).await.expect("runs");
    let addresses = host.addresses(Path::Quic).await;
    let mut guests = Vec::new();
    let mut streams = Vec::new();
    for number in 2..6 {
        let guest = start(config(number)).await;
        guest.handle.dial_unknown(addresses.clone()).await.expect("room for four");
        // An open stream, so that it is the time that ends the connection and not idleness.
        streams.push(guest.handle.open_stream(host.device(), PAIR).await.expect("pairing stream"));
        streams.push(host.stream().await.2);
        guests.push(guest);
    }
    let fifth = start(config(6)).await;
    let _ = fifth.handle.dial_unknown(addresses).await;
    let (device, reason) = host.refused().await;
    assert_eq!(device, Some(fifth.device()));
    assert!(reason.contains("too many"), "{reason}");
    let gone = async {
        for stream in &mut streams {
            // End of stream or an error: either way it is over.
            let _ = stream.read_u8().await;
        }
    };
    timeout(OVERALL, gone).await.expect("connections end");
    let empty = async {
        while host.handle.snapshot().await.expect("runs").strangers > 0 {
            tokio::task::yield_now().await;
        }
    };
    timeout(OVERALL, empty).await.expect("nobody stays");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_connection_remains_when_both_dial_at_once() {
    for path in [Path::Quic, Path::Tcp] {
        let (mut left, mut right) = (start(config(1)).await, start(config(2)).await);
        left.allow(&[&right]).await;
        right.allow(&[&left]).await;
        let (to_right, to_left) = (right.addresses(path).await, left.addresses(path).await);
        let (one, other) =
            tokio::join!(left.handle.dial(right.device(), to_right), right.handle.dial(left.device(), to_left));
        one.expect("left dials");
        other.expect("right dials");
        let settled = async {
            while !(left.is_settled().await && right.is_settled().await) {
                tokio::task::yield_now().await;
            }
        };
        if timeout(OVERALL, settled).await.is_err() {
            panic!("{:?} {:?}", left.handle.snapshot().await, right.handle.snapshot().await);
        }
        let stream = left.handle.open_stream(right.device(), ECHO).await.expect("open");
        let (_, _, served) = right.stream().await;
        tokio::join!(echo(stream, 1000), serve_echo(served));
        assert_eq!((left.connections().await, right.connections().await), (1, 1));
        while let Ok(event) = left.events.try_recv() {
            assert!(!matches!(event, NetworkEvent::PeerDown { .. }), "{event:?}");
        }
        left.handle.shutdown().await;
        right.handle.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_accept_queue_is_bounded() {
    const ROOM: usize = 4;
    let (left, mut right) = (start(NetworkConfig { accept_queue: ROOM, ..config(1) }).await, start(config(2)).await);
    let mut left = left;
    left.allow(&[&right]).await;
    right.allow(&[&left]).await;
    right.handle.dial(left.device(), left.all_addresses().await).await.expect("dial");
    right.up(left.device()).await;
    let mut opened = Vec::new();
    for _ in 0..ROOM + 6 {
        opened.push(right.handle.open_stream(left.device(), ECHO).await.expect("negotiated"));
    }
    for excess in &mut opened[ROOM..] {
        let ended = timeout(OVERALL, excess.read_u8()).await.expect("excess streams end");
        assert!(ended.is_err());
    }
    let mut waiting = Vec::new();
    for _ in 0..ROOM {
        waiting.push(left.stream().await.2);
    }
    // Use of a stream frees its place.
    opened[0].write_all(b"x").await.expect("write");
    assert_eq!(waiting[0].read_u8().await.expect("read"), b'x');
    let mut next = right.handle.open_stream(left.device(), ECHO).await.expect("open");
    next.write_all(b"y").await.expect("write");
    assert_eq!(left.stream().await.2.read_u8().await.expect("read"), b'y');
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_restarts_is_found_again() {
    let mut left = start(config(1)).await;
    let mut right = start(config(2)).await;
    let device = right.device();
    let addresses = right.all_addresses().await;
    let port = addresses[0].socket().expect("socket");
    left.allow(&[&right]).await;
    right.allow(&[&left]).await;
    left.handle.set_known(device, addresses).await.expect("runs");
    left.up(device).await;
    right.up(left.device()).await;
    right.handle.shutdown().await;
    assert_eq!(right.handle.snapshot().await, Err(Stopped));
    assert!(matches!(left.down(device).await, DownReason::Lost(_) | DownReason::Closed));
    let again = start(NetworkConfig { listen: vec![port], ..config(2) }).await;
    again.allow(&[&left]).await;
    left.up(device).await;
}

#[tokio::test]
async fn a_device_taken_from_the_list_is_disconnected_and_not_dialled() {
    let (mut left, right) = pair_over(Path::Quic).await;
    left.handle.set_known(right.device(), right.all_addresses().await).await.expect("runs");
    left.allow(&[]).await;
    assert_eq!(left.down(right.device()).await, DownReason::Removed);
    assert_eq!(left.handle.dial(right.device(), Vec::new()).await, Err(DialError::NotAllowed));
    left.allow(&[&right]).await;
    assert_eq!(left.handle.dial(right.device(), Vec::new()).await, Err(DialError::NoAddress), "forgotten");
}

#[tokio::test]
async fn a_port_in_use_is_a_clear_error() {
    let left = start(config(1)).await;
    let taken = left.all_addresses().await[0].socket().expect("socket");
    let error = Network::start(NetworkConfig { listen: vec![taken], ..config(2) }).map(drop).expect_err("taken");
    assert!(error.to_string().contains(&taken.to_string()), "{error}");
}

/// Holds two connected nodes idle so that their traffic can be counted from outside:
/// `tcpdump -i lo -n -w idle.pcap udp or tcp`. Prints the ports; lasts `MESHWORK_IDLE_SECONDS`.
#[tokio::test]
#[ignore = "for measuring"]
async fn idle_pair() {
    let text = |name: &str| std::env::var(name).unwrap_or_default();
    let path = if text("MESHWORK_IDLE_PATH") == "tcp" { Path::Tcp } else { Path::Quic };
    let (left, right) = pair_over(path).await;
    println!("{path}: {:?} {:?}", left.all_addresses().await, right.all_addresses().await);
    tokio::time::sleep(Duration::from_secs(text("MESHWORK_IDLE_SECONDS").parse().unwrap_or(130))).await;
    assert_eq!((left.connections().await, right.connections().await), (1, 1));
}
