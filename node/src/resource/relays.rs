//! `/v1/relays`: the relays of the mesh.

use meshwork_protocol::resource::{Request, Response, Verb};

use super::{NodeControl, ResourceError, answer, body, done, wrong_verb};
use crate::api::types::RelayAdd;

pub(super) async fn relays<N: NodeControl>(node: &N, request: &Request) -> Result<Response, ResourceError> {
    match request.verb() {
        Verb::Get => Ok(answer(200, &node.relays().await?)),
        Verb::Post => {
            let asked: RelayAdd = body(request)?;
            Ok(answer(201, &node.relay_add(asked).await?))
        }
        _ => Err(wrong_verb(request)),
    }
}

pub(super) async fn relay<N: NodeControl>(node: &N, request: &Request, relay: &str) -> Result<Response, ResourceError> {
    match request.verb() {
        Verb::Delete => {
            node.relay_remove(relay.to_owned()).await?;
            Ok(done(200))
        }
        _ => Err(wrong_verb(request)),
    }
}
