//! Keys stolen today, and what was recorded of the network yesterday.

use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

use super::*;

const COUNT: usize = 1 << 20;

/// What one connection carried, as somebody on the way sees it.
#[derive(Default)]
struct Recorded {
    to_server: Vec<u8>,
    to_client: Vec<u8>,
}

async fn listener() -> (TcpListener, Address) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a free port");
    let address = Address::tcp(listener.local_addr().expect("it listens"));
    (listener, address)
}

async fn socket(address: &Address) -> TcpStream {
    TcpStream::connect(address.socket().expect("an address of TCP")).await.expect("connected")
}

/// Carries one connection to `server` and records it.
fn record(listener: TcpListener, server: Address) -> JoinHandle<Recorded> {
    tokio::spawn(async move {
        let (client, _) = listener.accept().await.expect("a connection");
        let ((mut from_client, mut to_client), (mut from_server, mut to_server)) =
            (client.into_split(), socket(&server).await.into_split());
        let mut recorded = Recorded::default();
        let Recorded { to_server: up, to_client: down } = &mut recorded;
        let mut buffers = ([0; 16 << 10], [0; 16 << 10]);
        loop {
            let (read, kept, write) = tokio::select! {
                read = from_client.read(&mut buffers.0) => (read.map(|len| &buffers.0[..len]), &mut *up, &mut to_server),
                read = from_server.read(&mut buffers.1) => (read.map(|len| &buffers.1[..len]), &mut *down, &mut to_client),
            };
            match read {
                Ok(bytes) if !bytes.is_empty() => {
                    kept.extend_from_slice(bytes);
                    if write.write_all(bytes).await.is_err() {
                        return recorded;
                    }
                }
                _ => return recorded,
            }
        }
    })
}

/// Two devices talk over a recorded connection and are gone; gives what it carried.
async fn yesterday() -> Recorded {
    let (client, mut server) = (start(config(1)).await, start(config(2)).await);
    client.allow(&[&server]).await;
    server.allow(&[&client]).await;
    let (tap, address) = listener().await;
    let recorded = record(tap, server.addresses(Path::Tcp).await[0].clone());
    client.handle.dial(server.device(), vec![address]).await.expect("dial");
    let stream = client.handle.open_stream(server.device(), ECHO).await.expect("open");
    let (_, _, at_server) = server.stream().await;
    tokio::join!(echo(stream, COUNT), serve_echo(at_server));
    client.handle.shutdown().await;
    server.handle.shutdown().await;
    timeout(OVERALL, recorded).await.expect("in time").expect("recorded")
}

/// Case: somebody recorded a connection over TCP, and steals the keys of both devices afterwards. The programs of the two,
/// with their keys, get nothing out of what was recorded; that they do talk to whoever holds the keys is the control.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_recorded_connection_does_not_open_to_who_steals_the_keys_later() {
    let recorded = yesterday().await;
    assert!(recorded.to_server.len() > COUNT && recorded.to_client.len() > COUNT, "all of it went this way");
    let said: Vec<u8> = (0..64).collect();
    let shows = |bytes: &[u8]| bytes.windows(said.len()).any(|window| window == said);
    assert!(!shows(&recorded.to_server) && !shows(&recorded.to_client));

    let (client, mut server) = (start(config(1)).await, start(config(2)).await);
    client.allow(&[&server]).await;
    server.allow(&[&client]).await;
    let mut replay = socket(&server.addresses(Path::Tcp).await[0]).await;
    // It may hang up before it has read all of it.
    let _ = replay.write_all(&recorded.to_server).await;
    let mut answer = Vec::new();
    let _ = timeout(OVERALL, replay.read_to_end(&mut answer)).await.expect("the server hangs up");
    assert_eq!(server.connections().await, 0);

    let (fake, address) = listener().await;
    let playing = tokio::spawn(async move {
        let (mut caller, _) = fake.accept().await.expect("a connection");
        let _ = caller.write_all(&recorded.to_client).await;
        let _ = caller.read_to_end(&mut Vec::new()).await;
    });
    let dialled = client.handle.dial(server.device(), vec![address]).await;
    assert!(matches!(dialled, Err(DialError::Failed(_))), "{dialled:?}");
    timeout(OVERALL, playing).await.expect("the client hangs up").expect("played");

    client.handle.dial(server.device(), server.addresses(Path::Tcp).await).await.expect("dial");
    let stream = client.handle.open_stream(server.device(), ECHO).await.expect("open");
    let (_, _, at_server) = server.stream().await;
    tokio::join!(echo(stream, COUNT), serve_echo(at_server));
}
