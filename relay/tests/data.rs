//! The data port as strangers meet it: honest pairs, and everybody else.

use std::{net::SocketAddr, time::Duration};

use meshwork_host::supervise::Supervisor;
use meshwork_protocol::{
    id::DeviceId,
    splice::{READY, Refusal, Token, VERSION},
};
use meshwork_relay::data::{DataConfig, DataHandle, DataPort};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinHandle,
};

const A: DeviceId = DeviceId([1; 32]);
const B: DeviceId = DeviceId([2; 32]);

struct Port {
    address: SocketAddr,
    handle: DataHandle,
    serving: JoinHandle<std::io::Result<()>>,
    _supervisor: Supervisor,
}

fn config() -> DataConfig {
    DataConfig {
        listen: ([127, 0, 0, 1], 0).into(),
        unpaired: 64,
        unpaired_per_ip: 8,
        pairs: 16,
        idle: Duration::from_secs(60),
        device_rate: 0,
        total_rate: 0,
        monthly_bytes: 0,
        budget_file: None,
    }
}

async fn port(config: DataConfig) -> Port {
    let supervisor = Supervisor::new();
    let port = DataPort::bind(config).await.expect("bind");
    let (address, handle) = (port.address().expect("address"), port.handle());
    let serving = tokio::spawn(port.serve(supervisor.stop()));
    Port { address, handle, serving, _supervisor: supervisor }
}

impl Port {
    async fn say(&self, bytes: &[u8]) -> TcpStream {
        let mut stream = TcpStream::connect(self.address).await.expect("connect");
        stream.write_all(bytes).await.expect("write");
        stream
    }

    async fn present(&self, token: Token) -> TcpStream {
        self.say(&preamble(token)).await
    }

    /// An honest pair, proved to be one.
    async fn pair(&self) -> (TcpStream, TcpStream) {
        let grant = self.handle.open(A, B).expect("open");
        assert_eq!(grant.port, self.address.port());
        let mut a = self.present(grant.tokens[0]).await;
        let mut b = self.present(grant.tokens[1]).await;
        assert_eq!((a.read_u8().await.expect("ready"), b.read_u8().await.expect("ready")), (READY, READY));
        a.write_all(b"ping").await.expect("write");
        let mut said = [0; 4];
        b.read_exact(&mut said).await.expect("read");
        assert_eq!(&said, b"ping");
        (a, b)
    }

    fn count(&self, metric: &str) -> u64 {
        let text = self.handle.metrics();
        let line = text.lines().find_map(|line| line.strip_prefix(&format!("meshwork_relay_{metric} ")));
        line.expect("metric").parse().expect("number")
    }

    fn refused(&self, refusal: Refusal) -> u64 {
        self.count(&format!("data_refused_total{{reason=\"{}\"}}", refusal.name()))
    }
}

fn preamble(token: Token) -> Vec<u8> {
    [&[VERSION], token.0.as_slice()].concat()
}

async fn answer(mut stream: TcpStream) -> Option<Refusal> {
    Refusal::from_code(stream.read_u8().await.ok()?)
}

/// Waits for what another task is about to do.
async fn until(what: impl Fn() -> bool) {
    let waited = async {
        while !what() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), waited).await.expect("it happens");
}

#[tokio::test]
async fn bad_tokens_are_refused_with_their_reason() {
    let port = port(config()).await;
    assert_eq!(answer(port.present(Token([7; 16])).await).await, Some(Refusal::Unknown));
    assert_eq!(answer(port.say(&[9; 17]).await).await, Some(Refusal::Version));
    let grant = port.handle.open(A, B).expect("open");
    let mut first = port.present(grant.tokens[0]).await;
    assert_eq!(answer(port.present(grant.tokens[0]).await).await, Some(Refusal::Used));
    let mut second = port.present(grant.tokens[1]).await;
    assert_eq!((first.read_u8().await.expect("ready"), second.read_u8().await.expect("ready")), (READY, READY));
    assert_eq!(answer(port.present(grant.tokens[0]).await).await, Some(Refusal::Unknown));
    assert_eq!(port.refused(Refusal::Unknown), 2);
    assert_eq!((port.refused(Refusal::Version), port.refused(Refusal::Used)), (1, 1));
    port.pair().await;
}

#[tokio::test]
async fn truncated_and_eager_preambles_are_refused() {
    let port = port(config()).await;
    let mut short = port.say(&[VERSION, 1, 2]).await;
    short.shutdown().await.expect("shutdown");
    assert_eq!(answer(short).await, Some(Refusal::Preamble));
    let grant = port.handle.open(A, B).expect("open");
    let eager = port.say(&[preamble(grant.tokens[0]), b"early".to_vec()].concat()).await;
    until(|| port.refused(Refusal::Preamble) == 2).await;
    drop(eager);
    assert_eq!(answer(port.present(grant.tokens[1]).await).await, Some(Refusal::Unknown), "its channel is gone");
    port.pair().await;
}

#[tokio::test]
async fn a_slow_preamble_is_cut_off() {
    let port = port(config()).await;
    let slow = port.say(&[VERSION]).await;
    port.pair().await;
    assert_eq!(answer(slow).await, Some(Refusal::Preamble));
}

#[tokio::test]
async fn a_flood_is_bounded_and_an_honest_pair_goes_on() {
    let port = port(config()).await;
    let (mut a, mut b) = port.pair().await;
    let mut held = Vec::new();
    for _ in 0..8 {
        held.push(port.say(&[VERSION]).await);
    }
    until(|| port.count("data_connections_unpaired") == 8).await;
    for _ in 0..50 {
        assert_eq!(answer(TcpStream::connect(port.address).await.expect("connect")).await, Some(Refusal::Busy));
    }
    assert_eq!(port.refused(Refusal::Busy), 50);
    b.write_all(b"pong").await.expect("write");
    let mut said = [0; 4];
    a.read_exact(&mut said).await.expect("read");
    assert_eq!(&said, b"pong");
    drop(held);
    until(|| port.count("data_connections_unpaired") == 0).await;
    port.pair().await;
}

#[tokio::test]
async fn one_side_that_goes_away_frees_the_channel() {
    let port = port(config()).await;
    let grant = port.handle.open(A, B).expect("open");
    let first = port.present(grant.tokens[0]).await;
    until(|| port.count("data_connections_unpaired") == 1).await;
    drop(first);
    until(|| port.count("data_channels_waiting") == 0 && port.count("data_connections_unpaired") == 0).await;
    assert_eq!(answer(port.present(grant.tokens[1]).await).await, Some(Refusal::Unknown));
}

#[tokio::test]
async fn a_half_close_is_passed_on_and_the_rest_still_flows() {
    let port = port(config()).await;
    let (mut a, mut b) = port.pair().await;
    let noise: Vec<u8> = (0..5_000_000u32).map(|number| (number % 251) as u8).collect();
    let sent = noise.clone();
    let send = tokio::spawn(async move {
        a.write_all(&sent).await.expect("write");
        a.shutdown().await.expect("shutdown");
        a
    });
    let mut got = Vec::new();
    b.read_to_end(&mut got).await.expect("to the end");
    assert!(got == noise, "the bytes are the same");
    let mut a = send.await.expect("join");
    b.write_all(b"thanks").await.expect("write");
    drop(b);
    let mut said = String::new();
    a.read_to_string(&mut said).await.expect("read");
    assert_eq!(said, "thanks");
    until(|| port.count("data_pairs") == 0).await;
    assert_eq!(port.count("data_bytes_total"), 4 + 5_000_000 + 6);
}

#[tokio::test]
async fn an_idle_pair_is_closed() {
    let port = port(DataConfig { idle: Duration::from_millis(50), ..config() }).await;
    let (mut a, _b) = port.pair().await;
    assert_eq!(a.read(&mut [0; 1]).await.unwrap_or(0), 0);
    until(|| port.count("data_cut_total{reason=\"idle\"}") == 1).await;
}

#[tokio::test]
async fn a_broken_end_closes_the_other() {
    let port = port(config()).await;
    let (a, mut b) = port.pair().await;
    a.set_zero_linger().expect("reset instead of an orderly end");
    drop(a);
    assert_eq!(b.read(&mut [0; 1]).await.unwrap_or(0), 0);
    until(|| port.count("data_pairs") == 0).await;
}

#[tokio::test]
async fn the_budget_of_a_month_is_hard() {
    let port = port(DataConfig { monthly_bytes: 8, ..config() }).await;
    let (mut a, mut b) = port.pair().await;
    a.write_all(b"more").await.expect("write");
    let mut last = Vec::new();
    // The bytes that reached the bound still arrive; then both are closed.
    let _ = b.read_to_end(&mut last).await;
    assert_eq!(a.read(&mut [0; 1]).await.unwrap_or(0), 0);
    assert_eq!(port.handle.open(A, B), Err(Refusal::Budget));
    assert_eq!(port.count("data_cut_total{reason=\"budget\"}"), 1);
}

#[tokio::test]
async fn draining_finishes_what_was_begun_and_then_ends() {
    let port = port(config()).await;
    let (mut a, mut b) = port.pair().await;
    port.handle.drain();
    assert_eq!(port.handle.open(A, B), Err(Refusal::Draining));
    a.write_all(b"last").await.expect("write");
    let mut said = [0; 4];
    b.read_exact(&mut said).await.expect("read");
    assert_eq!(&said, b"last");
    assert!(!port.serving.is_finished());
    drop((a, b));
    port.serving.await.expect("join").expect("served to the end");
}
