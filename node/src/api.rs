//! The local API: HTTP and JSON over a Unix socket that only this user can reach.
//!
//! A door: it refuses what must not come in, translates to a resource request and back, and decides
//! nothing else.

pub mod types;

mod guard;
mod socket;
mod stream;

#[cfg(test)]
mod tests;

use std::{path::Path, sync::Arc, time::Duration};

use axum::{
    Router,
    body::Body,
    extract::{Request as HttpRequest, State},
    http::{HeaderValue, Response as HttpResponse, header},
};
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use meshwork_protocol::resource::Response;
use tokio::{
    io::AsyncWriteExt,
    net::UnixStream,
    sync::{Semaphore, watch},
    task::JoinSet,
};

use crate::resource::{NodeControl, Reply, Resources};
pub use socket::{ApiSocket, BindError};

/// Bytes of the head of a request: path, query and headers.
const HEAD_BYTES_MAX: usize = 16 * 1024;
/// How long open requests may take to end when the node stops.
const DRAIN_MAX: Duration = Duration::from_secs(2);

/// What one node lets programs on its device use.
#[derive(Debug, Clone, Copy)]
pub struct ApiLimits {
    /// Connections at a time; further ones are answered with 503.
    pub connections: usize,
    /// How long a connection may take to send the head, and then the body, of a request.
    pub head_timeout: Duration,
}

impl Default for ApiLimits {
    fn default() -> Self {
        ApiLimits { connections: 64, head_timeout: Duration::from_secs(10) }
    }
}

/// Serves the API until the node is asked to stop, then lets open requests end.
///
/// The socket file is removed when this returns.
pub async fn serve<N: NodeControl>(socket: ApiSocket, resources: Resources<N>, limits: ApiLimits) {
    let mut stopping = resources.stopping();
    let door = Router::new().fallback(handle::<N>).with_state(Arc::new(Door { resources, limits }));
    let places = Arc::new(Semaphore::new(limits.connections));
    let mut connections = JoinSet::new();
    loop {
        let stream = tokio::select! {
            _ = stopping.wait_for(|stop| *stop) => break,
            stream = socket.accept() => stream,
        };
        while connections.try_join_next().is_some() {}
        let Some(stream) = stream else { continue };
        let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
            refuse_busy(stream);
            continue;
        };
        let (door, stopping) = (door.clone(), stopping.clone());
        connections.spawn(async move {
            connection(stream, door, stopping, limits).await;
            drop(place);
        });
    }
    let drained = tokio::time::timeout(DRAIN_MAX, async { while connections.join_next().await.is_some() {} }).await;
    if drained.is_err() {
        tracing::warn!(open = connections.len(), "local requests were cut off by the stop");
    }
}

struct Door<N> {
    resources: Resources<N>,
    limits: ApiLimits,
}

async fn connection(stream: UnixStream, door: Router, mut stopping: watch::Receiver<bool>, limits: ApiLimits) {
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.head_timeout)
        .max_buf_size(HEAD_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(door));
    tokio::pin!(served);
    let ended = tokio::select! {
        result = served.as_mut() => Some(result),
        _ = stopping.wait_for(|stop| *stop) => None,
    };
    let result = match ended {
        Some(result) => result,
        None => {
            served.as_mut().graceful_shutdown();
            served.as_mut().await
        }
    };
    if let Err(error) = result {
        tracing::debug!(%error, "a local connection ended badly");
    }
}

async fn handle<N: NodeControl>(State(door): State<Arc<Door<N>>>, request: HttpRequest) -> HttpResponse<Body> {
    let form = stream::Form::of(request.headers());
    let stopping = door.resources.stopping();
    let request = match guard::admit(request, door.limits.head_timeout).await {
        Ok(request) => request,
        Err(refusal) => return http_response(refusal.response()),
    };
    match door.resources.serve(request).await {
        Reply::Once(response) => http_response(response),
        Reply::Events(events) => stream::response(events, form, stopping),
    }
}

fn http_response(response: Response) -> HttpResponse<Body> {
    let status =
        axum::http::StatusCode::from_u16(response.status).unwrap_or(axum::http::StatusCode::INTERNAL_SERVER_ERROR);
    let mut http = HttpResponse::new(Body::from(response.body));
    *http.status_mut() = status;
    protect(&mut http, "application/json");
    http
}

/// Answers are for the asker alone: not for a cache, not to be guessed at.
fn protect(http: &mut HttpResponse<Body>, content_type: &'static str) {
    let headers = http.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
}

/// Tells one connection too many why it is closed, without ever waiting for it.
fn refuse_busy(stream: UnixStream) {
    const BODY: &str = r#"{"status":503,"code":"busy","message":"Too many programs talk to this node at once.","fix":"Close some of them, or try again in a moment."}"#;
    let head = "HTTP/1.1 503 Service Unavailable\r\nconnection: close\r\ncontent-type: application/json\r\n";
    let text = format!("{head}content-length: {}\r\n\r\n{BODY}", BODY.len());
    tokio::spawn(async move {
        let mut stream = stream;
        let write = async {
            stream.write_all(text.as_bytes()).await?;
            stream.shutdown().await
        };
        let _ = tokio::time::timeout(Duration::from_secs(1), write).await;
    });
}

/// Whether a node answers at this socket now.
pub fn is_live(path: &Path) -> bool {
    std::os::unix::net::UnixStream::connect(path).is_ok()
}
