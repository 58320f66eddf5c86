//! The task that owns the swarm.

use std::{
    io,
    net::{SocketAddr, UdpSocket},
    time::{Duration, Instant},
};

use libp2p::{Swarm, futures::StreamExt};
use tokio::{
    sync::{mpsc, oneshot},
    time::sleep_until,
};

use super::{Command, NetworkEvent, behaviour::Behaviour, router::Router};

/// Time to say goodbye to all peers.
const GOODBYE: Duration = Duration::from_secs(2);

/// How often a socket is tried that is about to become free.
const CHECK: Duration = Duration::from_millis(5);

/// A deadline far enough that waking up for nothing costs nothing.
const IDLE: Duration = Duration::from_secs(3600);

/// Runs until told to shut down, or until all handles are gone.
pub(super) async fn run(
    mut swarm: Swarm<Behaviour>,
    mut router: Router,
    mut commands: mpsc::Receiver<Command>,
    events: mpsc::Sender<NetworkEvent>,
) {
    let reply = serve(&mut swarm, &mut router, &mut commands, &events).await;
    let sockets = router.udp_sockets();
    router.stop(&mut swarm);
    let end = Instant::now() + GOODBYE;
    while swarm.network_info().num_peers() > 0 {
        tokio::select! {
            event = swarm.select_next_some() => router.on_event(&mut swarm, event, Instant::now()),
            () = sleep_until(end.into()) => break,
        }
    }
    while let Some(event) = router.outbox.pop() {
        if events.try_send(event).is_err() {
            break;
        }
    }
    drop(swarm);
    wait_for(&sockets, end).await;
    commands.close();
    if let Some(reply) = reply {
        // Whoever asked may have gone away.
        let _ = reply.send(());
    }
}

/// Waits until these sockets are free: the QUIC endpoint lets go of them in a task of its own, and who
/// restarts a node on its port must find it free.
async fn wait_for(sockets: &[SocketAddr], end: Instant) {
    let mut check = tokio::time::interval(CHECK);
    while Instant::now() < end && sockets.iter().any(|socket| is_taken(*socket)) {
        check.tick().await;
    }
}

fn is_taken(socket: SocketAddr) -> bool {
    matches!(UdpSocket::bind(socket), Err(error) if error.kind() == io::ErrorKind::AddrInUse)
}

async fn serve(
    swarm: &mut Swarm<Behaviour>,
    router: &mut Router,
    commands: &mut mpsc::Receiver<Command>,
    events: &mpsc::Sender<NetworkEvent>,
) -> Option<oneshot::Sender<()>> {
    loop {
        let deadline = router.next_deadline().unwrap_or_else(|| Instant::now() + IDLE);
        tokio::select! {
            event = swarm.select_next_some() => router.on_event(swarm, event, Instant::now()),
            command = commands.recv() => match command {
                Some(Command::Shutdown(reply)) => return Some(reply),
                Some(command) => router.on_command(swarm, command, Instant::now()),
                None => return None,
            },
            room = events.reserve(), if !router.outbox.is_empty() => match room {
                Ok(room) => {
                    if let Some(event) = router.outbox.pop() {
                        room.send(event);
                    }
                }
                Err(_) => router.outbox.clear(),
            },
            () = sleep_until(deadline.into()) => {}
        }
        router.on_tick(swarm, Instant::now());
    }
}
