//! `/v1/devices`.

use meshwork_protocol::resource::{Request, Response, Verb};

use super::{NodeControl, ResourceError, answer, wrong_verb};

pub(super) async fn devices<N: NodeControl>(node: &N, request: &Request) -> Result<Response, ResourceError> {
    match request.verb() {
        Verb::Get => Ok(answer(200, &node.devices().await?)),
        _ => Err(wrong_verb(request)),
    }
}
