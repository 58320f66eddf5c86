//! `mesh pair` and `mesh join`.

use std::{io, time::Duration};

use tokio::signal::unix::{SignalKind, signal};

use super::{
    Context,
    arguments::{self, Node},
    error::{CliError, Exit},
    screen::{duration, short},
    up,
};
use crate::api::types::{Join, PairEvent};

pub(super) async fn pair(context: &mut Context, pair: &arguments::Pair) -> Result<(), CliError> {
    let offer = context.client.pair_open(pair.yes).await?;
    if context.screen.json {
        context.screen.value(&offer)?;
    } else {
        let life = duration(offer.expires_in_s);
        context.screen.line(format!("On the new device, within {life}, enter one of these:"))?;
        context.screen.line(format!("  mesh join {}", offer.code))?;
        context.screen.line(format!("  mesh join '{}'", offer.link))?;
    }
    if pair.no_wait {
        return Ok(());
    }
    context.screen.note("Waiting for it (Ctrl-C closes the code) ...")?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::select! {
        result = until_paired(context) => result,
        _ = interrupt.recv() => {
            context.client.pair_cancel().await?;
            Err(CliError::new(Exit::Refused, "cancelled", "The code is closed.", "`mesh pair` opens a new one."))
        }
    }
}

async fn until_paired(context: &mut Context) -> Result<(), CliError> {
    loop {
        let Some(event) = context.client.pair_wait().await?.event else {
            continue;
        };
        if context.screen.json {
            context.screen.value(&event)?;
        }
        match event {
            PairEvent::Asked { device, name } => {
                let question = format!("{name} ({}) knows the code. Let it in? [y/N]", short(&device));
                let yes = confirmed(context, &question).await?;
                context.client.pair_confirm(yes).await?;
            }
            PairEvent::Paired { device, name } => {
                return context.screen.note(format!("{name} ({}) is in.", short(&device)));
            }
            PairEvent::Failed { reason } => {
                return Err(CliError::new(Exit::Refused, "pairing_failed", reason, "`mesh pair` opens a new code."));
            }
            PairEvent::Expired => {
                let message = "Nobody came in time; the code is dead.";
                return Err(CliError::new(Exit::Refused, "pairing_expired", message, "`mesh pair` opens a new one."));
            }
        }
    }
}

/// Only a clear yes is one; the end of the input is a no.
async fn confirmed(context: &mut Context, question: &str) -> Result<bool, CliError> {
    context.screen.ask(question)?;
    let answer = read_line().await?;
    Ok(matches!(answer.trim().to_lowercase().as_str(), "y" | "yes"))
}

/// A line of standard input, without holding up the runtime or its end.
pub(super) async fn read_line() -> Result<String, CliError> {
    let (send, receive) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || {
        let mut line = String::new();
        let result = io::stdin().read_line(&mut line).map(|_| line);
        // Nobody waits any more when the command was interrupted.
        let _ = send.send(result);
    });
    match receive.await {
        Ok(result) => Ok(result?),
        Err(_) => Err(CliError::new(Exit::Failed, "io", "Standard input cannot be read.", "")),
    }
}

/// Goes on only after a yes; `fix` tells whoever did not say it what to answer.
pub(super) async fn confirm(context: &mut Context, question: &str, fix: &str) -> Result<(), CliError> {
    context.screen.ask(&format!("{question} [y/N]"))?;
    if matches!(read_line().await?.trim(), "y" | "Y" | "yes") {
        return Ok(());
    }
    Err(CliError::new(Exit::Refused, "declined", "Nothing was done.", fix))
}

pub(super) async fn join(context: &mut Context, join: &arguments::Join) -> Result<(), CliError> {
    let (_, started) = up::ensure_running(context, &Node::default()).await?;
    if started {
        context.screen.note("The node of this device was started.")?;
    }
    let request = Join { code: join.code.join("-"), at: join.at.clone(), bootstrap: join.bootstrap.clone() };
    let client = context.client.clone();
    let exchange = client.join(&request);
    tokio::pin!(exchange);
    let joined = tokio::select! {
        joined = exchange.as_mut() => joined?,
        () = tokio::time::sleep(Duration::from_secs(1)) => {
            context.screen.note("Looking for the other device; it may ask there whether to let this one in ...")?;
            exchange.await?
        }
    };
    if context.screen.json {
        return context.screen.value(&joined);
    }
    context.screen.line(format!("This device is in the mesh of {} ({}).", joined.name, short(&joined.device)))?;
    context.screen.line("  see its folders:      mesh folder ls")?;
    context.screen.line("  have one here, too:   mesh folder get NAME PATH")
}
