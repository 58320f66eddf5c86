//! Over a real socket against a fake node. That a connection of another user is refused cannot be
//! shown by a test that runs as one user.

use std::{os::unix::fs::PermissionsExt, path::PathBuf, time::Duration};

use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, BufReader},
    task::JoinHandle,
    time::timeout,
};

use super::*;
use crate::resource::fake::FakeNode;

const SOON: Duration = Duration::from_secs(20);

struct Served {
    node: Arc<FakeNode>,
    stop: watch::Sender<bool>,
    path: PathBuf,
    task: JoinHandle<()>,
    _home: tempfile::TempDir,
}

fn start(limits: ApiLimits) -> Served {
    let home = tempfile::tempdir().expect("a directory");
    let path = home.path().join("run/api.sock");
    let socket = ApiSocket::bind(&path).expect("the socket opens");
    let node = Arc::new(FakeNode::default());
    let stop = watch::Sender::new(false);
    let task = tokio::spawn(serve(socket, Resources::new(Arc::clone(&node), stop.clone()), limits));
    Served { node, stop, path, task, _home: home }
}

impl Served {
    async fn connect(&self) -> UnixStream {
        UnixStream::connect(&self.path).await.expect("the node listens")
    }

    /// Sends text, reads until the node closes.
    async fn raw(&self, request: &[u8]) -> String {
        let mut stream = self.connect().await;
        // The node may close before it has read everything that it refuses.
        let _ = stream.write_all(request).await;
        let mut bytes = Vec::new();
        let _ = timeout(SOON, stream.read_to_end(&mut bytes)).await.expect("an end");
        String::from_utf8_lossy(&bytes).into_owned()
    }

    async fn call(&self, head: &str, body: &str) -> String {
        let length = body.len();
        self.raw(
            format!("{head}\r\nhost: mesh\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}").as_bytes(),
        )
        .await
    }
}

fn status(answer: &str) -> &str {
    answer.split(' ').nth(1).unwrap_or(answer)
}

#[tokio::test]
async fn answers_and_refuses() {
    let served = start(ApiLimits::default());
    let json = "content-type: application/json";
    let cases = [
        ("200", "GET /v1/status HTTP/1.1".to_owned(), ""),
        ("404", "GET /v1/folders/No%20such/status HTTP/1.1".to_owned(), ""),
        ("403", "GET /v1/status HTTP/1.1\r\norigin: https://example.org".to_owned(), ""),
        ("403", "GET /v1/status HTTP/1.1\r\norigin: null".to_owned(), ""),
        ("403", "GET /v1/status HTTP/1.1\r\nreferer: http://localhost/".to_owned(), ""),
        ("415", "POST /v1/pairing HTTP/1.1".to_owned(), "{}"),
        ("415", "POST /v1/pairing HTTP/1.1\r\ncontent-type: text/plain".to_owned(), "{}"),
        ("415", "DELETE /v1/pairing HTTP/1.1".to_owned(), ""),
        ("201", format!("POST /v1/pairing HTTP/1.1\r\n{json}"), "{}"),
        ("201", format!("POST /v1/pairing HTTP/1.1\r\n{json}; charset=utf-8"), "{}"),
        ("405", "OPTIONS /v1/status HTTP/1.1".to_owned(), ""),
        ("400", "GET /v1/../etc HTTP/1.1".to_owned(), ""),
        ("400", "GET /v1/folders/%2e%2e/status HTTP/1.1".to_owned(), ""),
        ("400", "GET /v1/events?since=soon HTTP/1.1".to_owned(), ""),
        ("400", "GET /v1/events?since HTTP/1.1".to_owned(), ""),
    ];
    for (expected, head, body) in cases {
        let answer = served.call(&head, body).await;
        assert_eq!(status(&answer), expected, "{head}\n{answer}");
        let lower = answer.to_ascii_lowercase();
        assert!(!lower.contains("access-control"), "{answer}");
        assert!(lower.contains("content-type: application/json") && lower.contains("nosniff"), "{answer}");
    }
    assert!(!*served.stop.borrow());
}

#[tokio::test]
async fn long_requests_are_refused_before_they_are_kept() {
    let served = start(ApiLimits::default());
    let head = "POST /v1/join HTTP/1.1\r\nhost: mesh\r\nconnection: close\r\ncontent-type: application/json\r\n";
    let announced = served.raw(format!("{head}content-length: 1048577\r\n\r\n").as_bytes()).await;
    assert_eq!(status(&announced), "413", "{announced}");

    let chunk = format!("10000\r\n{}\r\n", " ".repeat(0x10000)).repeat(17);
    let chunked = served.raw(format!("{head}transfer-encoding: chunked\r\n\r\n{chunk}0\r\n\r\n").as_bytes()).await;
    assert!(chunked.is_empty() || status(&chunked) == "413", "{chunked}");

    let mut fits = r#"{"code":"8-a"}"#.to_owned();
    fits.push_str(&" ".repeat((1 << 20) - fits.len()));
    let fitting = served.call("POST /v1/join HTTP/1.1\r\ncontent-type: application/json", &fits).await;
    assert_eq!(status(&fitting), "403", "{fitting}");

    let headers = format!("GET /v1/status HTTP/1.1\r\nx: {}\r\n\r\n", "x".repeat(HEAD_BYTES_MAX));
    assert_eq!(status(&served.raw(headers.as_bytes()).await), "431");
}

#[tokio::test]
async fn a_slow_or_silent_connection_is_closed() {
    let limits = ApiLimits { head_timeout: Duration::from_millis(50), ..ApiLimits::default() };
    let served = start(limits);
    assert_eq!(served.raw(b"").await, "");
    assert!(matches!(status(&served.raw(b"GET /v1/sta").await), "" | "408" | "GET"));
    let body = "POST /v1/join HTTP/1.1\r\nhost: m\r\ncontent-type: application/json\r\ncontent-length: 9\r\n\r\n{";
    assert_eq!(status(&served.raw(body.as_bytes()).await), "408");
}

#[tokio::test]
async fn one_connection_too_many_is_told_so() {
    let limits = ApiLimits { connections: 2, ..ApiLimits::default() };
    let served = start(limits);
    let held = [served.connect().await, served.connect().await];
    let answer = served.call("GET /v1/status HTTP/1.1", "").await;
    assert_eq!(status(&answer), "503", "{answer}");
    drop(held);
    let freed = async {
        while status(&served.call("GET /v1/status HTTP/1.1", "").await) != "200" {
            tokio::task::yield_now().await;
        }
    };
    timeout(SOON, freed).await.expect("the places are free again");
}

async fn lines_until(stream: UnixStream, last: &str) -> Vec<String> {
    let mut lines = BufReader::new(stream).lines();
    let mut seen = Vec::new();
    let read = async {
        while let Some(line) = lines.next_line().await.expect("text") {
            let end = line.contains(last);
            seen.push(line);
            if end {
                break;
            }
        }
    };
    timeout(SOON, read).await.expect("the line comes");
    seen
}

#[tokio::test]
async fn events_stream_as_lines_and_as_server_sent_events() {
    let served = start(ApiLimits::default());
    for text in ["one", "two"] {
        served.node.post(text);
    }
    let mut stream = served.connect().await;
    stream.write_all(b"GET /v1/events?since=1 HTTP/1.1\r\nhost: m\r\n\r\n").await.expect("sent");
    let seen = lines_until(stream, "\"two\"").await.join("\n");
    assert!(
        seen.contains("application/x-ndjson") && seen.contains(r#"{"id":2,"time":1000,"kind":"file.placed""#),
        "{seen}"
    );
    assert!(!seen.contains("\"one\""), "{seen}");

    let mut stream = served.connect().await;
    let head = "GET /v1/events HTTP/1.1\r\nhost: m\r\naccept: text/event-stream\r\nlast-event-id: 1\r\n\r\n";
    stream.write_all(head.as_bytes()).await.expect("sent");
    let seen = lines_until(stream, "data: ").await;
    assert!(
        seen.iter().any(|line| line == "id: 2") && seen.iter().any(|line| line == "event: file.placed"),
        "{seen:?}"
    );
}

#[tokio::test]
async fn a_stop_ends_streams_and_removes_the_socket() {
    let served = start(ApiLimits::default());
    let mut stream = served.connect().await;
    stream.write_all(b"GET /v1/events HTTP/1.1\r\nhost: m\r\n\r\n").await.expect("sent");
    served.node.post("never waited for");
    let answer = served.call("POST /v1/shutdown HTTP/1.1\r\ncontent-type: application/json", "").await;
    assert_eq!(status(&answer), "202");
    let mut rest = Vec::new();
    timeout(SOON, stream.read_to_end(&mut rest)).await.expect("the stream ends").expect("in order");
    timeout(SOON, served.task).await.expect("it stops").expect("without panic");
    assert!(!served.path.exists());
}

#[tokio::test]
async fn the_socket_is_private_and_has_one_owner() {
    let home = tempfile::tempdir().expect("a directory");
    let path = home.path().join("run/api.sock");
    let first = ApiSocket::bind(&path).expect("opens");
    let mode = |path: &std::path::Path| std::fs::metadata(path).expect("exists").permissions().mode() & 0o777;
    assert_eq!((mode(&path), mode(&home.path().join("run"))), (0o600, 0o700));
    assert!(is_live(&path));
    assert!(matches!(ApiSocket::bind(&path), Err(BindError::Live { .. })));
    drop(first);
    assert!(!path.exists());

    drop(std::os::unix::net::UnixListener::bind(&path).expect("a socket whose process is gone"));
    assert!(path.exists() && !is_live(&path));
    drop(ApiSocket::bind(&path).expect("replaces it"));

    std::fs::write(&path, "x").expect("a plain file");
    assert!(matches!(ApiSocket::bind(&path), Err(BindError::NotASocket { .. })));
    let long = home.path().join("n".repeat(100)).join("api.sock");
    assert!(matches!(ApiSocket::bind(&long), Err(BindError::TooLong { .. })));
}
