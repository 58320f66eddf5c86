//! `/v1/recovery` and what is below it.

use std::collections::BTreeSet;

use meshwork_protocol::{
    limits,
    resource::{Request, Response, Verb},
};

use super::{NodeControl, ResourceError, answer, body, done, wrong_verb};
use crate::api::types::{RecoveryConfirm, RecoveryRestore, RecoveryRotate, RecoveryUse};

/// Words that must be told to prove that the phrase was written down.
const WORDS_MIN: usize = 2;
/// Words of the longest phrase that BIP-39 knows.
const WORDS_MAX: usize = 24;

pub(super) async fn phrase<N: NodeControl>(node: &N, request: &Request) -> Result<Response, ResourceError> {
    match request.verb() {
        Verb::Get => Ok(answer(200, &node.recovery_phrase().await?)),
        _ => Err(wrong_verb(request)),
    }
}

pub(super) async fn confirm<N: NodeControl>(node: &N, request: &Request) -> Result<Response, ResourceError> {
    match request.verb() {
        Verb::Post => {
            let RecoveryConfirm { words } = body(request)?;
            let positions: BTreeSet<usize> = words.iter().map(|word| word.position).collect();
            let fits = (WORDS_MIN..=WORDS_MAX).contains(&words.len())
                && positions.len() == words.len()
                && positions.iter().all(|position| (1..=WORDS_MAX).contains(position));
            if !fits {
                return Err(ResourceError::bad_request(
                    "At least two words of the phrase are needed, each with its own position from 1.",
                    "Look at the phrase that you wrote down and give two of its words.",
                ));
            }
            node.recovery_confirm(words).await?;
            Ok(done(200))
        }
        _ => Err(wrong_verb(request)),
    }
}

pub(super) async fn speak<N: NodeControl>(node: &N, request: &Request) -> Result<Response, ResourceError> {
    match request.verb() {
        Verb::Post => {
            let asked: RecoveryUse = body(request)?;
            if asked.remove.is_some() && asked.readmit.is_some() {
                return Err(ResourceError::bad_request(
                    "A device is removed or let in again, not both at a time.",
                    "Ask for one, then for the other.",
                ));
            }
            node.recovery_use(asked).await?;
            Ok(done(200))
        }
        _ => Err(wrong_verb(request)),
    }
}

pub(super) async fn restore<N: NodeControl>(node: &N, request: &Request) -> Result<Response, ResourceError> {
    match request.verb() {
        Verb::Post => {
            let asked: RecoveryRestore = body(request)?;
            if asked.at.len() > limits::RESTORE_PEERS {
                return Err(ResourceError::bad_request(
                    format!("A restore tries at most {} addresses.", limits::RESTORE_PEERS),
                    "Name those of devices that run now.",
                ));
            }
            Ok(answer(200, &node.recovery_restore(asked).await?))
        }
        _ => Err(wrong_verb(request)),
    }
}

pub(super) async fn rotate<N: NodeControl>(node: &N, request: &Request) -> Result<Response, ResourceError> {
    match request.verb() {
        Verb::Post => {
            let asked: RecoveryRotate = body(request)?;
            Ok(answer(200, &node.recovery_rotate(asked).await?))
        }
        _ => Err(wrong_verb(request)),
    }
}
