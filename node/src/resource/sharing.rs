//! `/v1/card`, `/v1/contacts`, `/v1/invitations` and the members of folders: other people.

use meshwork_protocol::resource::{Request, Response, Verb};

use super::{NodeControl, ResourceError, answer, body, done, wrong_verb};
use crate::api::types::{Accept, CardName, ContactAdd, Share};

pub(super) async fn card<N: NodeControl>(node: &N, request: &Request) -> Result<Response, ResourceError> {
    match request.verb() {
        Verb::Get => Ok(answer(200, &node.card().await?)),
        Verb::Put => {
            let CardName { name } = body(request)?;
            Ok(answer(200, &node.card_name(name).await?))
        }
        _ => Err(wrong_verb(request)),
    }
}

pub(super) async fn contacts<N: NodeControl>(node: &N, request: &Request) -> Result<Response, ResourceError> {
    match request.verb() {
        Verb::Get => Ok(answer(200, &node.contacts().await?)),
        Verb::Post => {
            let add: ContactAdd = body(request)?;
            Ok(answer(201, &node.contact_add(add).await?))
        }
        _ => Err(wrong_verb(request)),
    }
}

pub(super) async fn contact<N: NodeControl>(
    node: &N,
    request: &Request,
    name: &str,
) -> Result<Response, ResourceError> {
    match request.verb() {
        Verb::Delete => {
            node.contact_remove(name.to_owned()).await?;
            Ok(done(200))
        }
        _ => Err(wrong_verb(request)),
    }
}

pub(super) async fn members<N: NodeControl>(
    node: &N,
    request: &Request,
    folder: &str,
) -> Result<Response, ResourceError> {
    match request.verb() {
        Verb::Get => Ok(answer(200, &node.members(folder.to_owned()).await?)),
        _ => Err(wrong_verb(request)),
    }
}

pub(super) async fn member<N: NodeControl>(
    node: &N,
    request: &Request,
    folder: &str,
    person: &str,
) -> Result<Response, ResourceError> {
    match request.verb() {
        Verb::Put => {
            let Share { role } = body(request)?;
            Ok(answer(200, &node.share(folder.to_owned(), person.to_owned(), role).await?))
        }
        Verb::Delete => {
            node.unshare(folder.to_owned(), person.to_owned()).await?;
            Ok(done(200))
        }
        _ => Err(wrong_verb(request)),
    }
}

pub(super) async fn invitations<N: NodeControl>(node: &N, request: &Request) -> Result<Response, ResourceError> {
    match request.verb() {
        Verb::Post => {
            let accept: Accept = body(request)?;
            Ok(answer(201, &node.accept(accept).await?))
        }
        _ => Err(wrong_verb(request)),
    }
}
