//! `mesh bootstrap` and `mesh doctor`.

use super::{
    Context,
    arguments::Bootstrap,
    error::CliError,
    screen::{columns, server_row, short},
};

pub(super) async fn bootstrap(context: &mut Context, command: Bootstrap) -> Result<(), CliError> {
    match command {
        Bootstrap::Add { address } => {
            let added = context.client.bootstrap_add(&address).await?;
            if context.screen.json {
                return context.screen.value(&added);
            }
            let id = short(&added.bootstrap);
            context.screen.line(format!("All devices of this mesh find each other at {id} from now on."))?;
            context.screen.line("It sees which devices look for each other, and cannot read where they are. How it stands: mesh bootstrap ls")
        }
        Bootstrap::Ls => ls(context).await,
        Bootstrap::Remove { bootstrap } => {
            let done = context.client.bootstrap_remove(&bootstrap).await?;
            if context.screen.json {
                return context.screen.value(&done);
            }
            context.screen.line(format!("No device of this mesh uses the bootstrap {bootstrap} any more."))
        }
    }
}

async fn ls(context: &mut Context) -> Result<(), CliError> {
    let bootstraps = context.client.bootstraps().await?;
    if context.screen.json {
        return bootstraps.iter().try_for_each(|bootstrap| context.screen.value(bootstrap));
    }
    if bootstraps.is_empty() {
        return context.screen.note(
            "This mesh has no bootstrap. Devices that have moved meet on a local network, or at a relay. Add one: mesh bootstrap add ADDRESS",
        );
    }
    let rows: Vec<[String; 4]> = bootstraps
        .into_iter()
        .map(|bootstrap| server_row(&bootstrap.bootstrap, &bootstrap.addresses, bootstrap.state, bootstrap.problem))
        .collect();
    columns(&rows).iter().try_for_each(|line| context.screen.line(line))
}

/// Says of everything that was looked at how it is, and where it is not well, what helps.
pub(super) async fn doctor(context: &mut Context) -> Result<(), CliError> {
    context.screen.note("Looking at the network of this device; up to half a minute.")?;
    let findings = context.client.doctor().await?;
    if context.screen.json {
        return findings.iter().try_for_each(|finding| context.screen.value(finding));
    }
    for finding in findings {
        let mark = match finding.state.as_str() {
            "ok" => "ok  ",
            "note" => "note",
            _ => "BAD ",
        };
        context.screen.line(format!("{mark}  {}: {}", finding.check, finding.found))?;
        if let Some(advice) = finding.advice {
            context.screen.line(format!("      {advice}"))?;
        }
    }
    Ok(())
}
