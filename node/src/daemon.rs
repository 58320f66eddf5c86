//! The life of a node process: takes its home, starts the node, opens the doors, and stops in order.

use std::{
    fmt,
    fs::{self, File, OpenOptions},
    future::Future,
    io::{self, Read, Write},
    net::SocketAddr,
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use rustix::fs::{FlockOperation, flock};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::watch,
};

use crate::{
    api::{self, ApiLimits, ApiSocket, BindError},
    resource::{NodeControl, Resources},
};

/// How long the node itself may take to stop; with the 2 s that the doors get, a stop ends within 5 s.
const STOP_MAX: Duration = Duration::from_millis(2_800);

/// The directory that holds everything one node keeps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Home {
    root: PathBuf,
}

impl Home {
    /// A home at `root`, an absolute path; nothing is touched.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Home { root: root.into() }
    }

    /// The directory itself.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The socket of the local API.
    pub fn api_socket(&self) -> PathBuf {
        self.root.join("run/api.sock")
    }

    /// What a node in the background writes while it runs.
    pub fn log_file(&self) -> PathBuf {
        self.root.join("mesh.log")
    }

    fn lock_file(&self) -> PathBuf {
        self.root.join("node.lock")
    }

    /// Makes the directory, private to this user (0700).
    pub fn create(&self) -> Result<(), DaemonError> {
        let failed = |source| DaemonError::Home { path: self.root.clone(), source };
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.root).map_err(failed)?;
        let found = fs::metadata(&self.root).map_err(failed)?;
        if found.uid() != rustix::process::geteuid().as_raw() {
            return Err(DaemonError::ForeignHome { path: self.root.clone() });
        }
        if found.permissions().mode() & 0o077 != 0 {
            fs::set_permissions(&self.root, fs::Permissions::from_mode(0o700)).map_err(failed)?;
        }
        Ok(())
    }

    /// Takes the home for this process; the kernel gives it back when the process ends, however it ends.
    pub fn lock(&self) -> Result<HomeLock, DaemonError> {
        let path = self.lock_file();
        let failed = |source| DaemonError::Home { path: path.clone(), source };
        let mut options = OpenOptions::new();
        let mut file =
            options.read(true).write(true).create(true).truncate(false).mode(0o600).open(&path).map_err(failed)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => {
                let mut holder = String::new();
                let _ = file.take(20).read_to_string(&mut holder);
                return Err(DaemonError::InUse { path: self.root.clone(), holder: holder.trim().parse().ok() });
            }
            Err(error) => return Err(failed(error.into())),
        }
        file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id())).map_err(failed)?;
        Ok(HomeLock { _file: file })
    }
}

/// While this lives, no other process can use the home.
#[derive(Debug)]
pub struct HomeLock {
    _file: File,
}

/// What a node is started with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeConfig {
    /// Where it keeps everything.
    pub home: Home,
    /// Where to listen, TCP and QUIC on the same port; empty for the stored port on all interfaces.
    pub listen: Vec<SocketAddr>,
    /// Whether to look for devices on the local network.
    pub mdns: bool,
    /// Whether to ask the router of the local network to forward ports to this node.
    pub upnp: bool,
    /// Name of the device; the host's name where left out at the first start.
    pub name: Option<String>,
}

/// Why a node could not be started, with what to do about it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct StartError {
    /// What happened, as a sentence.
    pub message: String,
    /// What to do, as a sentence.
    pub fix: String,
}

impl StartError {
    /// The two sentences.
    pub fn new(message: impl fmt::Display, fix: impl Into<String>) -> Self {
        StartError { message: message.to_string(), fix: fix.into() }
    }
}

/// Why a node process ended before its time.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// Another process has the home.
    #[error("The home {path} is in use by another node{}.", .holder.map(|pid| format!(" (process {pid})")).unwrap_or_default())]
    InUse {
        /// The home.
        path: PathBuf,
        /// Its process, where known.
        holder: Option<u32>,
    },
    /// The home cannot be made or read.
    #[error("The home cannot be used: {path}: {source}.")]
    Home {
        /// What was touched.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// The home is another user's.
    #[error("The home {path} belongs to another user.")]
    ForeignHome {
        /// The home.
        path: PathBuf,
    },
    /// The socket of the API cannot be opened.
    #[error("The socket for programs on this device cannot be opened: {0}.")]
    Api(#[from] BindError),
    /// Signals cannot be received.
    #[error("Signals cannot be received: {0}.")]
    Signals(io::Error),
    /// The node itself did not start.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The node did not stop in time and was cut off; nothing acknowledged is lost.
    #[error("The node did not stop within {} seconds and was cut off.", STOP_MAX.as_secs_f32())]
    StopTimedOut,
}

impl DaemonError {
    /// What to do, as a sentence.
    pub fn fix(&self) -> String {
        match self {
            DaemonError::InUse { .. } => {
                "Use that node, stop it with `mesh down`, or choose another --home.".to_owned()
            }
            DaemonError::Home { .. } => "Make the directory writable for you, or choose another --home.".to_owned(),
            DaemonError::ForeignHome { .. } => "Choose a --home that is yours.".to_owned(),
            DaemonError::Api(BindError::TooLong { .. }) => "Choose a --home with a shorter path.".to_owned(),
            DaemonError::Api(_) => "Look at what is there, remove it, and start again.".to_owned(),
            DaemonError::Signals(_) => "Start again; report it if it stays.".to_owned(),
            DaemonError::Start(error) => error.fix.clone(),
            DaemonError::StopTimedOut => {
                "Nothing that was acknowledged is lost; look at the log if it happens again.".to_owned()
            }
        }
    }
}

/// Runs a node until SIGTERM, SIGINT, a request for shutdown, or (with `stop_with_stdin`) the end of
/// standard input. Order: home, lock, node, API; back the other way round when it stops.
pub async fn run<N, F, S>(config: NodeConfig, stop_with_stdin: bool, start: S) -> Result<(), DaemonError>
where
    N: NodeControl,
    F: Future<Output = Result<N, StartError>>,
    S: FnOnce(NodeConfig) -> F,
{
    let stop = watch::Sender::new(false);
    // From the first moment: a signal during the start stops the node right after it.
    listen_for_signals(&stop)?;
    if stop_with_stdin {
        listen_for_end_of_stdin(stop.clone());
    }
    config.home.create()?;
    let lock = config.home.lock()?;
    let home = config.home.clone();
    let node = Arc::new(start(config).await?);
    let result = match ApiSocket::bind(&home.api_socket()) {
        Ok(socket) => {
            tracing::info!(home = %home.root().display(), pid = std::process::id(), "ready");
            api::serve(socket, Resources::new(Arc::clone(&node), stop), ApiLimits::default()).await;
            Ok(())
        }
        Err(error) => Err(error.into()),
    };
    tracing::info!("stopping");
    let stopped = tokio::time::timeout(STOP_MAX, node.shutdown()).await;
    drop(lock);
    result.and(stopped.map_err(|_| DaemonError::StopTimedOut))
}

fn listen_for_signals(stop: &watch::Sender<bool>) -> Result<(), DaemonError> {
    for kind in [SignalKind::terminate(), SignalKind::interrupt()] {
        let mut signals = signal(kind).map_err(DaemonError::Signals)?;
        let stop = stop.clone();
        tokio::spawn(async move {
            if signals.recv().await.is_some() {
                stop.send_replace(true);
            }
        });
    }
    Ok(())
}

/// A parent that holds the other end takes the node down with it, even when the parent is killed.
fn listen_for_end_of_stdin(stop: watch::Sender<bool>) {
    // A plain thread: a read of standard input cannot be cancelled, and must not hold up the exit.
    std::thread::spawn(move || {
        let mut buffer = [0; 64];
        while io::stdin().read(&mut buffer).is_ok_and(|len| len > 0) {}
        stop.send_replace(true);
    });
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use super::*;
    use crate::resource::fake::FakeNode;

    fn config(root: &Path) -> NodeConfig {
        NodeConfig { home: Home::new(root), listen: Vec::new(), mdns: false, upnp: false, name: None }
    }

    #[test]
    fn a_home_is_private_and_has_one_process() {
        let directory = tempfile::tempdir().expect("a directory");
        let home = Home::new(directory.path().join("a/b"));
        home.create().expect("made");
        let mode = fs::metadata(home.root()).expect("exists").permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
        let lock = home.lock().expect("free");
        let holder = Some(std::process::id());
        match home.lock() {
            Err(DaemonError::InUse { holder: found, .. }) => assert_eq!(found, holder),
            other => panic!("{other:?}"),
        }
        drop(lock);
        home.lock().expect("free again");
    }

    #[tokio::test]
    async fn a_shutdown_request_stops_everything_in_order() {
        let directory = tempfile::tempdir().expect("a directory");
        let config = config(directory.path());
        let home = config.home.clone();
        let node = FakeNode::default();
        let stopped = Arc::clone(&node.stopped);
        let task = tokio::spawn(run(config.clone(), false, async |_| Ok(node)));
        let client = crate::cli::client::Client::new(&home.api_socket());
        let ready = async {
            while client.status().await.is_err() {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), ready).await.expect("the node answers");
        let second = run(config, false, async |_| Ok(FakeNode::default())).await;
        assert!(matches!(second, Err(DaemonError::InUse { .. })), "{second:?}");
        client.shutdown().await.expect("it takes the request");
        task.await.expect("no panic").expect("a clean stop");
        assert!(stopped.load(Ordering::SeqCst));
        assert!(!home.api_socket().exists());
        home.lock().expect("the home is free");
    }

    #[tokio::test]
    async fn a_node_that_does_not_start_gives_the_home_back() {
        let directory = tempfile::tempdir().expect("a directory");
        let config = config(directory.path());
        let home = config.home.clone();
        let error = StartError::new("The key file is damaged.", "Restore it.");
        let result = run::<FakeNode, _, _>(config, false, async |_| Err(error)).await;
        let error = result.expect_err("it did not start");
        assert_eq!((error.to_string().as_str(), error.fix().as_str()), ("The key file is damaged.", "Restore it."));
        home.lock().expect("the home is free");
    }
}
