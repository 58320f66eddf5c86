//! `/v1/status` and `/v1/shutdown`.

use meshwork_protocol::resource::{Request, Response, Verb};
use tokio::sync::watch;

use super::{NodeControl, ResourceError, answer, done, wrong_verb};

pub(super) async fn status<N: NodeControl>(node: &N, request: &Request) -> Result<Response, ResourceError> {
    match request.verb() {
        Verb::Get => Ok(answer(200, &node.status().await?)),
        _ => Err(wrong_verb(request)),
    }
}

/// Only asks; the daemon stops the doors first, then the node, so that this answer still goes out.
pub(super) fn shutdown(stop: &watch::Sender<bool>, request: &Request) -> Result<Response, ResourceError> {
    match request.verb() {
        Verb::Post => {
            stop.send_replace(true);
            Ok(done(202))
        }
        _ => Err(wrong_verb(request)),
    }
}
