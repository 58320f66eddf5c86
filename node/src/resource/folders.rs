//! `/v1/folders`, `/v1/folders/{title or id}`, its `status` and what it is `missing`.

use std::path::Path;

use meshwork_protocol::{
    limits,
    resource::{Request, Response, Verb},
};

use super::{NodeControl, ResourceError, answer, body, done, wrong_verb};
use crate::api::types::{FolderAdd, FolderGet, LetGo};

/// Bytes of a folder's title.
const TITLE_BYTES_MAX: usize = limits::NAME;
/// Bytes of a path, as the kernel takes it (PATH_MAX).
const PATH_BYTES_MAX: usize = 4_096;

pub(super) async fn folders<N: NodeControl>(node: &N, request: &Request) -> Result<Response, ResourceError> {
    match request.verb() {
        Verb::Get => Ok(answer(200, &node.folders().await?)),
        Verb::Post => {
            let add: FolderAdd = body(request)?;
            check_path(&add.path)?;
            if let Some(title) = &add.title {
                check_title(title)?;
            }
            Ok(answer(201, &node.folder_add(add).await?))
        }
        _ => Err(wrong_verb(request)),
    }
}

pub(super) async fn folder<N: NodeControl>(node: &N, request: &Request, name: &str) -> Result<Response, ResourceError> {
    match request.verb() {
        Verb::Get => {
            let all = node.folders().await?;
            let mut named = all.into_iter().filter(|folder| folder.id == name || folder.title == name);
            match (named.next(), named.next()) {
                (Some(folder), None) => Ok(answer(200, &folder)),
                (Some(_), Some(_)) => Err(ambiguous(name)),
                (None, _) => Err(ResourceError::not_found(
                    format!("This mesh has no folder {name:?}."),
                    "`mesh folder ls` shows the folders that it has.",
                )),
            }
        }
        Verb::Put => {
            let FolderGet { path } = body(request)?;
            check_path(&path)?;
            Ok(answer(201, &node.folder_get(name.to_owned(), path).await?))
        }
        Verb::Delete => {
            node.leave(name.to_owned()).await?;
            Ok(done(200))
        }
        _ => Err(wrong_verb(request)),
    }
}

pub(super) async fn status<N: NodeControl>(node: &N, request: &Request, name: &str) -> Result<Response, ResourceError> {
    match request.verb() {
        Verb::Get => Ok(answer(200, &node.folder_status(name.to_owned()).await?)),
        _ => Err(wrong_verb(request)),
    }
}

pub(super) async fn missing<N: NodeControl>(
    node: &N,
    request: &Request,
    name: &str,
) -> Result<Response, ResourceError> {
    match request.verb() {
        Verb::Get => Ok(answer(200, &node.missing(name.to_owned()).await?)),
        Verb::Delete => {
            let LetGo { paths } = body(request)?;
            Ok(answer(200, &node.let_go(name.to_owned(), paths).await?))
        }
        _ => Err(wrong_verb(request)),
    }
}

fn ambiguous(name: &str) -> ResourceError {
    ResourceError::new(
        409,
        "ambiguous",
        format!("Several folders of this mesh have the title {name:?}."),
        "Name the one you mean by its id, as `mesh folder ls` shows it.",
    )
}

fn check_path(path: &str) -> Result<(), ResourceError> {
    if path.len() > PATH_BYTES_MAX || path.contains('\0') {
        return Err(ResourceError::bad_request(
            "This is no path that a file system knows.",
            "Give a shorter, plain path.",
        ));
    }
    if !Path::new(path).is_absolute() {
        return Err(ResourceError::bad_request(
            format!("The path {path:?} is not absolute."),
            "Give the whole path, beginning with a slash: the node does not know your current directory.",
        ));
    }
    Ok(())
}

fn check_title(title: &str) -> Result<(), ResourceError> {
    let unclean = title.trim().is_empty()
        || title == "."
        || title == ".."
        || title.len() > TITLE_BYTES_MAX
        || title.chars().any(|c| c == '/' || c.is_control());
    if unclean {
        return Err(ResourceError::bad_request(
            "This cannot be the title of a folder.",
            format!("Use 1 to {TITLE_BYTES_MAX} bytes of text without slashes and control characters."),
        ));
    }
    Ok(())
}
