//! `/v1/services` and `/v1/tunnels`: services of devices, and local ports that lead to them.

use meshwork_protocol::resource::{Request, Response, Verb};

use super::{NodeControl, ResourceError, answer, body, done, wrong_verb};
use crate::api::types::{ServiceGive, ServiceOffer, TunnelOpen};

pub(super) async fn services<N: NodeControl>(node: &N, request: &Request) -> Result<Response, ResourceError> {
    match request.verb() {
        Verb::Get => Ok(answer(200, &node.services().await?)),
        Verb::Post => {
            let offer: ServiceOffer = body(request)?;
            Ok(answer(201, &node.service_offer(offer).await?))
        }
        _ => Err(wrong_verb(request)),
    }
}

pub(super) async fn service<N: NodeControl>(
    node: &N,
    request: &Request,
    name: &str,
) -> Result<Response, ResourceError> {
    match request.verb() {
        Verb::Delete => {
            node.service_withdraw(name.to_owned()).await?;
            Ok(done(200))
        }
        _ => Err(wrong_verb(request)),
    }
}

pub(super) async fn grant<N: NodeControl>(
    node: &N,
    request: &Request,
    name: &str,
    person: &str,
) -> Result<Response, ResourceError> {
    let (name, person) = (name.to_owned(), person.to_owned());
    match request.verb() {
        Verb::Put => {
            let give: ServiceGive = body(request)?;
            Ok(answer(200, &node.service_give(name, person, give).await?))
        }
        Verb::Delete => {
            node.service_take(name, person).await?;
            Ok(done(200))
        }
        _ => Err(wrong_verb(request)),
    }
}

pub(super) async fn tunnels<N: NodeControl>(node: &N, request: &Request) -> Result<Response, ResourceError> {
    match request.verb() {
        Verb::Get => Ok(answer(200, &node.tunnels().await?)),
        Verb::Post => {
            let open: TunnelOpen = body(request)?;
            Ok(answer(201, &node.tunnel_open(open).await?))
        }
        _ => Err(wrong_verb(request)),
    }
}

pub(super) async fn tunnel<N: NodeControl>(node: &N, request: &Request, port: &str) -> Result<Response, ResourceError> {
    let port = port.parse().map_err(|_| {
        ResourceError::not_found(format!("{port} is no port."), "A tunnel is named by the number of its port.")
    })?;
    match request.verb() {
        Verb::Delete => {
            node.tunnel_close(port).await?;
            Ok(done(200))
        }
        _ => Err(wrong_verb(request)),
    }
}
