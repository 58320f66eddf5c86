//! `/v1/log`, `/v1/caps` and `/v1/quarantine`: who may do what, and why.

use meshwork_protocol::resource::{Request, Response, Verb};

use super::{NodeControl, ResourceError, answer, body, wrong_verb};

pub(super) async fn log<N: NodeControl>(node: &N, request: &Request) -> Result<Response, ResourceError> {
    match request.verb() {
        Verb::Get => Ok(answer(200, &node.control_log().await?)),
        _ => Err(wrong_verb(request)),
    }
}

pub(super) async fn as_of<N: NodeControl>(
    node: &N,
    request: &Request,
    number: &str,
) -> Result<Response, ResourceError> {
    let number = number.parse().map_err(|_| {
        ResourceError::bad_request(
            format!("{number:?} is no place in the log."),
            "Give a number that `mesh log` shows; 0 is the birth of the mesh.",
        )
    })?;
    match request.verb() {
        Verb::Get => Ok(answer(200, &node.devices_as_of(number).await?)),
        _ => Err(wrong_verb(request)),
    }
}

pub(super) async fn caps<N: NodeControl>(node: &N, request: &Request) -> Result<Response, ResourceError> {
    match request.verb() {
        Verb::Get => Ok(answer(200, &node.caps().await?)),
        _ => Err(wrong_verb(request)),
    }
}

pub(super) async fn quarantine<N: NodeControl>(node: &N, request: &Request) -> Result<Response, ResourceError> {
    match request.verb() {
        Verb::Get => Ok(answer(200, &node.quarantine().await?)),
        Verb::Post => Ok(answer(200, &node.adopt(body(request)?).await?)),
        _ => Err(wrong_verb(request)),
    }
}
