//! `/v1/bootstraps`: the bootstraps of the mesh; `/v1/doctor`: what is well with the network of this device.

use meshwork_protocol::resource::{Request, Response, Verb};

use super::{NodeControl, ResourceError, answer, body, done, wrong_verb};
use crate::api::types::ServerAdd;

pub(super) async fn bootstraps<N: NodeControl>(node: &N, request: &Request) -> Result<Response, ResourceError> {
    match request.verb() {
        Verb::Get => Ok(answer(200, &node.bootstraps().await?)),
        Verb::Post => {
            let ServerAdd { address } = body(request)?;
            Ok(answer(201, &node.bootstrap_add(address).await?))
        }
        _ => Err(wrong_verb(request)),
    }
}

pub(super) async fn bootstrap<N: NodeControl>(
    node: &N,
    request: &Request,
    id: &str,
) -> Result<Response, ResourceError> {
    match request.verb() {
        Verb::Delete => {
            node.bootstrap_remove(id.to_owned()).await?;
            Ok(done(200))
        }
        _ => Err(wrong_verb(request)),
    }
}

pub(super) async fn doctor<N: NodeControl>(node: &N, request: &Request) -> Result<Response, ResourceError> {
    match request.verb() {
        Verb::Get => Ok(answer(200, &node.doctor().await?)),
        _ => Err(wrong_verb(request)),
    }
}
