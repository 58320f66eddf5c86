//! `/v1/pairing`, `/v1/pairing/confirm` and `/v1/join`.

use std::time::Duration;

use meshwork_protocol::resource::{Request, Response, Verb};

use super::{NodeControl, ResourceError, answer, body, done, wrong_verb};
use crate::api::types::{Join, PairConfirm, PairOpen, PairPoll};

/// How long `GET /v1/pairing` waits for an event before it answers that none came.
const POLL_MAX: Duration = Duration::from_secs(25);
/// Bytes of a code or link: 4 addresses of 128 bytes, the code and room.
const CODE_BYTES_MAX: usize = 2_048;

pub(super) async fn pairing<N: NodeControl>(node: &N, request: &Request) -> Result<Response, ResourceError> {
    match request.verb() {
        Verb::Post => Ok(answer(201, &node.pair_open(body::<PairOpen>(request)?.yes).await?)),
        Verb::Get => match tokio::time::timeout(POLL_MAX, node.pair_wait()).await {
            Ok(event) => Ok(answer(200, &PairPoll { event: Some(event?) })),
            Err(_) => Ok(answer(200, &PairPoll { event: None })),
        },
        Verb::Delete => {
            node.pair_cancel().await?;
            Ok(done(200))
        }
        Verb::Put => Err(wrong_verb(request)),
    }
}

pub(super) async fn confirm<N: NodeControl>(node: &N, request: &Request) -> Result<Response, ResourceError> {
    match request.verb() {
        Verb::Post => {
            node.pair_confirm(body::<PairConfirm>(request)?.yes).await?;
            Ok(done(200))
        }
        _ => Err(wrong_verb(request)),
    }
}

pub(super) async fn join<N: NodeControl>(node: &N, request: &Request) -> Result<Response, ResourceError> {
    match request.verb() {
        Verb::Post => {
            let join: Join = body(request)?;
            if join.code.trim().is_empty() || join.code.len() > CODE_BYTES_MAX {
                return Err(ResourceError::bad_request(
                    "This is no pairing code: it is empty or far too long.",
                    "Type the number and the three words, or paste the link, that `mesh pair` shows.",
                ));
            }
            Ok(answer(200, &node.join(join).await?))
        }
        _ => Err(wrong_verb(request)),
    }
}
