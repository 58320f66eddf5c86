//! `/v1/devices` and `/v1/devices/{name or id}`.

use meshwork_protocol::resource::{Request, Response, Verb};

use super::{NodeControl, ResourceError, answer, body, done, wrong_verb};
use crate::api::types::{DeviceRemove, DeviceRole};

pub(super) async fn devices<N: NodeControl>(node: &N, request: &Request) -> Result<Response, ResourceError> {
    match request.verb() {
        Verb::Get => Ok(answer(200, &node.devices().await?)),
        _ => Err(wrong_verb(request)),
    }
}

pub(super) async fn device<N: NodeControl>(node: &N, request: &Request, name: &str) -> Result<Response, ResourceError> {
    match request.verb() {
        Verb::Delete => {
            let DeviceRemove { void } = body(request)?;
            node.device_remove(name.to_owned(), void).await?;
            Ok(done(200))
        }
        Verb::Put => {
            let DeviceRole { role } = body(request)?;
            match role.as_str() {
                "admin" => node.device_promote(name.to_owned()).await?,
                "device" => node.device_demote(name.to_owned()).await?,
                "away" => node.device_away(name.to_owned()).await?,
                _ => {
                    return Err(ResourceError::bad_request(
                        format!("A device cannot be made {role:?}."),
                        "A device can be made admin, device, or away.",
                    ));
                }
            }
            Ok(done(200))
        }
        Verb::Post => {
            node.device_readmit(name.to_owned()).await?;
            Ok(done(200))
        }
        _ => Err(wrong_verb(request)),
    }
}

pub(super) async fn ping<N: NodeControl>(node: &N, request: &Request, name: &str) -> Result<Response, ResourceError> {
    match request.verb() {
        Verb::Get => Ok(answer(200, &node.ping(name.to_owned()).await?)),
        _ => Err(wrong_verb(request)),
    }
}
