//! `/healthz` and `/readyz`: whether the process is alive, and whether it is of use now.
//!
//! Served on a loopback address or a Unix socket only; the answers hold no names and no secrets.

use std::{
    fmt, fs, io,
    net::SocketAddr,
    os::unix::fs::{FileTypeExt, PermissionsExt},
    path::PathBuf,
    str::FromStr,
};

use axum::{
    Json, Router,
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::get,
};
use serde_json::json;
use tokio::{
    net::{TcpListener, UnixListener},
    sync::watch,
};

use crate::supervise::Stop;

/// Where health is served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HealthAddress {
    /// A TCP address of the loopback interface.
    Tcp(SocketAddr),
    /// A Unix socket, made with mode 0600.
    Unix(PathBuf),
}

/// Text is not a place to serve health.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HealthAddressError {
    /// Others could reach it.
    #[error("{0} is not a loopback address, and others must not reach it; use 127.0.0.1:PORT or the path of a socket")]
    NotLoopback(SocketAddr),
    /// Neither an address nor an absolute path.
    #[error("not ip:port nor the absolute path of a socket")]
    Malformed,
}

impl FromStr for HealthAddress {
    type Err = HealthAddressError;

    fn from_str(text: &str) -> Result<Self, HealthAddressError> {
        if text.starts_with('/') {
            return Ok(Self::Unix(text.into()));
        }
        let address: SocketAddr = text.parse().map_err(|_| HealthAddressError::Malformed)?;
        if address.ip().is_loopback() { Ok(Self::Tcp(address)) } else { Err(HealthAddressError::NotLoopback(address)) }
    }
}

impl fmt::Display for HealthAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => path.display().fmt(f),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Probe {
    program: &'static str,
    version: &'static str,
    failure: Option<String>,
    unready: Option<String>,
}

/// What the probes answer. Cheap to clone; all clones are one.
#[derive(Debug, Clone)]
pub struct Health {
    state: watch::Sender<Probe>,
}

impl Health {
    /// Alive, and not ready because it is starting.
    pub fn new(program: &'static str, version: &'static str) -> Self {
        let state = Probe { program, version, failure: None, unready: Some("starting".into()) };
        Self { state: watch::Sender::new(state) }
    }

    /// The process does its work from now on.
    pub fn set_ready(&self) {
        self.state.send_modify(|state| state.unready = None);
    }

    /// The process cannot do its work for now, and why.
    pub fn set_unready(&self, reason: impl Into<String>) {
        self.state.send_modify(|state| state.unready = Some(reason.into()));
    }

    /// The process will not recover without a restart, and why.
    pub fn set_failed(&self, reason: impl Into<String>) {
        self.state.send_modify(|state| state.failure = Some(reason.into()));
    }

    /// Whether the probes would say ready now.
    pub fn is_ready(&self) -> bool {
        let state = self.state.borrow();
        state.failure.is_none() && state.unready.is_none()
    }

    /// The two routes, to serve them beside others.
    pub fn routes(&self) -> Router {
        Router::new().route("/healthz", get(alive)).route("/readyz", get(ready)).with_state(self.clone())
    }
}

async fn alive(State(health): State<Health>) -> Response {
    let state = health.state.borrow().clone();
    answer(&state, state.failure.as_deref())
}

async fn ready(State(health): State<Health>) -> Response {
    let state = health.state.borrow().clone();
    answer(&state, state.failure.as_deref().or(state.unready.as_deref()))
}

fn answer(state: &Probe, trouble: Option<&str>) -> Response {
    let (code, status) =
        if trouble.is_none() { (StatusCode::OK, "ok") } else { (StatusCode::SERVICE_UNAVAILABLE, "unavailable") };
    let body = json!({"status": status, "program": state.program, "version": state.version, "reason": trouble});
    (code, Json(body)).into_response()
}

/// A listener for health probes, bound and not yet serving.
pub struct HealthServer {
    listener: Listener,
    health: Health,
    others: Router,
}

enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener, PathBuf),
}

impl HealthServer {
    /// Binds. A socket file left by a dead process is replaced, any other file is not.
    pub async fn bind(address: &HealthAddress, health: Health) -> io::Result<Self> {
        let listener = match address {
            HealthAddress::Tcp(address) => Listener::Tcp(TcpListener::bind(address).await?),
            HealthAddress::Unix(path) => {
                if fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_socket()) {
                    fs::remove_file(path)?;
                }
                let listener = UnixListener::bind(path)?;
                fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
                Listener::Unix(listener, path.clone())
            }
        };
        Ok(Self { listener, health, others: Router::new() })
    }

    /// Serves these routes as well.
    pub fn with_routes(self, others: Router) -> Self {
        Self { others, ..self }
    }

    /// The bound TCP address, when it is one: tells the port that 0 became.
    pub fn tcp_address(&self) -> Option<SocketAddr> {
        match &self.listener {
            Listener::Tcp(listener) => listener.local_addr().ok(),
            Listener::Unix(..) => None,
        }
    }

    /// Serves until told to stop.
    pub async fn serve(self, stop: Stop) -> io::Result<()> {
        let routes = self.health.routes().merge(self.others);
        match self.listener {
            Listener::Tcp(listener) => {
                axum::serve(listener, routes).with_graceful_shutdown(async move { stop.requested().await }).await
            }
            Listener::Unix(listener, path) => {
                let served =
                    axum::serve(listener, routes).with_graceful_shutdown(async move { stop.requested().await }).await;
                served.and(fs::remove_file(path))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::{TcpStream, UnixStream},
    };

    use super::*;
    use crate::supervise::Supervisor;

    async fn ask(mut stream: impl AsyncReadExt + AsyncWriteExt + Unpin, path: &str) -> String {
        let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.expect("write");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("read");
        answer
    }

    #[test]
    fn only_loopback_and_absolute_paths() {
        assert_eq!("/run/x.sock".parse(), Ok(HealthAddress::Unix("/run/x.sock".into())));
        assert!(matches!("127.0.0.1:0".parse(), Ok(HealthAddress::Tcp(_))));
        assert!(matches!("[::1]:80".parse(), Ok(HealthAddress::Tcp(_))));
        assert!(matches!("0.0.0.0:80".parse::<HealthAddress>(), Err(HealthAddressError::NotLoopback(_))));
        assert_eq!("x.sock".parse::<HealthAddress>(), Err(HealthAddressError::Malformed));
    }

    #[tokio::test]
    async fn probes_follow_the_state() {
        let supervisor = Supervisor::new();
        let health = Health::new("mesh-test", "0");
        let address = "127.0.0.1:0".parse().expect("loopback");
        let server = HealthServer::bind(&address, health.clone()).await.expect("bind");
        let address = server.tcp_address().expect("tcp");
        let serving = tokio::spawn(server.serve(supervisor.stop()));
        let get = async |path| ask(TcpStream::connect(address).await.expect("connect"), path).await;
        assert!(get("/healthz").await.starts_with("HTTP/1.1 200"));
        let starting = get("/readyz").await;
        assert!(starting.starts_with("HTTP/1.1 503") && starting.contains("starting"), "{starting}");
        health.set_ready();
        assert!(get("/readyz").await.starts_with("HTTP/1.1 200"));
        health.set_failed("disk is gone");
        assert!(get("/healthz").await.contains("disk is gone"));
        assert!(get("/other").await.starts_with("HTTP/1.1 404"));
        supervisor.request_stop();
        serving.await.expect("join").expect("serve");
    }

    #[tokio::test]
    async fn a_stale_socket_is_replaced_and_a_file_is_not() {
        let home = tempfile::tempdir().expect("temporary directory");
        let (socket, file) = (home.path().join("s"), home.path().join("f"));
        drop(std::os::unix::net::UnixListener::bind(&socket).expect("stale"));
        let health = Health::new("mesh-test", "0");
        let server = HealthServer::bind(&HealthAddress::Unix(socket.clone()), health.clone()).await.expect("replace");
        assert_eq!(fs::metadata(&socket).expect("socket").permissions().mode() & 0o777, 0o600);
        let supervisor = Supervisor::new();
        let serving = tokio::spawn(server.serve(supervisor.stop()));
        assert!(ask(UnixStream::connect(&socket).await.expect("connect"), "/healthz").await.contains("mesh-test"));
        supervisor.request_stop();
        serving.await.expect("join").expect("serve");
        assert!(!socket.exists());
        fs::write(&file, "precious").expect("write");
        assert!(HealthServer::bind(&HealthAddress::Unix(file.clone()), health).await.is_err());
        assert_eq!(fs::read(&file).expect("read"), b"precious");
    }
}
