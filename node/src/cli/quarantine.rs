//! `mesh quarantine`: what does not stand, and how to take it over.

use super::{
    Context,
    arguments::{Adopt as AdoptCommand, Quarantine},
    error::CliError,
    screen::count,
};
use crate::api::types::Adopt;

pub(super) async fn quarantine(context: &mut Context, command: Option<Quarantine>) -> Result<(), CliError> {
    match command {
        None => list(context).await,
        Some(Quarantine::Adopt(command)) => adopt(context, command).await,
    }
}

async fn list(context: &mut Context) -> Result<(), CliError> {
    let held = context.client.quarantine().await?;
    if context.screen.json {
        return held.iter().try_for_each(|record| context.screen.value(record));
    }
    if held.is_empty() {
        return context.screen.line("Nothing is in quarantine.");
    }
    for record in &held {
        let changes = count(record.changes.len() as u64, "change");
        context.screen.line(format!("{}: {} by {}, place {}", record.title, changes, record.name, record.seq))?;
        for change in &record.changes {
            context.screen.line(format!("  {change}"))?;
        }
    }
    Ok(())
}

async fn adopt(context: &mut Context, command: AdoptCommand) -> Result<(), CliError> {
    let AdoptCommand { folder, paths, device } = command;
    let adopted = context.client.adopt(&Adopt { folder, device, paths }).await?;
    if context.screen.json {
        return context.screen.value(&adopted);
    }
    for file in &adopted.files {
        context.screen.line(match file.at == file.path {
            true => format!("{} is in the folder now.", file.path),
            false => format!("{} is in the folder now, as {}: its name is taken.", file.path, file.at),
        })?;
    }
    if adopted.here > 0 {
        context.screen.line(format!("{} more: the folder shows it already.", count(adopted.here, "change")))?;
    }
    for path in &adopted.missing {
        context.screen.line(format!(
            "{path} is left: neither this device nor one that is connected has its bytes. Connect one that had it."
        ))?;
    }
    adopted.failed.iter().try_for_each(|failed| context.screen.line(format!("{failed}. Try again.")))
}
