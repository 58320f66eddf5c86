//! `mesh device`, `mesh log` and `mesh cap`: who may do what, and why.

use std::collections::BTreeMap;

use super::{
    Context,
    arguments::{Cap as CapCommand, Device, DeviceRemove, Log},
    error::{CliError, Exit},
    pair::confirm,
    screen::{columns, date_and_time, short},
    status,
};
use crate::api::types::Cap;

pub(super) async fn device(context: &mut Context, command: Device) -> Result<(), CliError> {
    match command {
        Device::Ls => status::devices(context).await,
        Device::Remove(remove) => device_remove(context, &remove).await,
        Device::Promote { name } => {
            let done = context.client.device_promote(&name).await?;
            if context.screen.json {
                return context.screen.value(&done);
            }
            context.screen.line(format!("{name} is an admin now: it lets devices in and removes those it outranks."))
        }
        Device::Away { name } => {
            let done = context.client.device_away(&name).await?;
            if context.screen.json {
                return context.screen.value(&done);
            }
            context.screen.line(format!("Nobody waits for {name} any more. When it is back, it takes part as before."))
        }
        Device::Demote { name } => {
            let done = context.client.device_demote(&name).await?;
            if context.screen.json {
                return context.screen.value(&done);
            }
            context
                .screen
                .line(format!("{name} is no admin any more. It stays in the mesh, and so do those it let in."))
        }
        Device::Readmit { name, yes } => device_readmit(context, &name, yes).await,
    }
}

async fn device_readmit(context: &mut Context, name: &str, yes: bool) -> Result<(), CliError> {
    if !yes && !context.screen.json {
        context.screen.line(format!("{name} comes back with the key that it had, and gets everything again."))?;
        context.screen.line("If somebody else may have that key, do not: set the device up anew and pair it.")?;
        confirm(context, &format!("Let {name} in again?"), "Answer y to let it in.").await?;
    }
    let done = context.client.device_readmit(name).await?;
    if context.screen.json {
        return context.screen.value(&done);
    }
    context.screen.line(format!(
        "{name} is a device of this mesh again; it connects by itself. What it wrote meanwhile stays in quarantine: `mesh quarantine adopt FOLDER` takes it over."
    ))
}

async fn device_remove(context: &mut Context, remove: &DeviceRemove) -> Result<(), CliError> {
    let DeviceRemove { name, void, yes } = remove;
    if !yes && !context.screen.json {
        context
            .screen
            .line(format!("{name} will be out of this mesh: it is sent nothing any more, and all keys change."))?;
        context.screen.line(match void {
            false => "What it wrote so far, as far as it is known here, stays.",
            true => "Of what it wrote, only what other devices have built on stays.",
        })?;
        confirm(context, &format!("Remove {name}?"), "Answer y to remove it.").await?;
    }
    let done = context.client.device_remove(name, *void).await?;
    if context.screen.json {
        return context.screen.value(&done);
    }
    context.screen.line(format!(
        "{name} is removed. What it holds already it keeps; `mesh quarantine` shows what it wrote since."
    ))
}

pub(super) async fn log(context: &mut Context, log: &Log) -> Result<(), CliError> {
    if let Some(number) = log.at {
        let devices = context.client.devices_as_of(number).await?;
        return status::show_devices(context, devices);
    }
    let entries = context.client.log().await?;
    if context.screen.json {
        return entries.iter().try_for_each(|entry| context.screen.value(entry));
    }
    let mut title = None;
    for entry in &entries {
        if title.replace(&entry.log) != Some(&entry.log) {
            context.screen.line(format!("{}:", entry.title))?;
        }
        let void = if entry.stands { "" } else { "   (void)" };
        let (under, came) = (short(&entry.via), entry.came.map_or_else(|| " ".repeat(17), date_and_time));
        context
            .screen
            .line(format!("  {:>4}  {came}  {} {}, under {under}{void}", entry.number, entry.name, entry.what))?;
    }
    Ok(())
}

pub(super) async fn cap(context: &mut Context, command: CapCommand) -> Result<(), CliError> {
    let caps = context.client.caps().await?;
    match command {
        CapCommand::Ls => list(context, &caps),
        CapCommand::Show { id } => show(context, &caps, &id),
        CapCommand::Explain { device } => explain(context, &caps, &device),
    }
}

fn list(context: &mut Context, caps: &[Cap]) -> Result<(), CliError> {
    if context.screen.json {
        return caps.iter().try_for_each(|cap| context.screen.value(cap));
    }
    let row = |cap: &Cap| {
        let by = format!("by {}", cap.author_name);
        [short(&cap.id).to_owned(), cap.title.clone(), cap.name.clone(), cap.role.clone(), cap.state.clone(), by]
    };
    columns(&caps.iter().map(row).collect::<Vec<_>>()).iter().try_for_each(|line| context.screen.line(line))
}

fn show(context: &mut Context, caps: &[Cap], id: &str) -> Result<(), CliError> {
    let mut found = caps.iter().filter(|cap| id.len() >= 8 && cap.id.starts_with(id));
    let (Some(cap), None) = (found.next(), found.next()) else {
        return Err(CliError::new(
            Exit::NotFound,
            "not_found",
            format!("There is no grant {id}."),
            "`mesh cap ls` shows all grants; eight digits of the id or more name one.",
        ));
    };
    if context.screen.json {
        return context.screen.value(cap);
    }
    let lines = [
        format!("grant {} in {}", cap.id, cap.title),
        format!("  makes {} ({}) {}", cap.name, short(&cap.holder), cap.role),
        format!("  signed by {} ({}), who acts under {}", cap.author_name, short(&cap.author), short(&cap.via)),
        format!("  {}", state(cap)),
    ];
    lines.iter().try_for_each(|line| context.screen.line(line))
}

fn state(cap: &Cap) -> String {
    let ids: Vec<&str> = cap.ended_by.iter().map(|id| short(id)).collect();
    match cap.state.as_str() {
        "live" => "it is in force".to_owned(),
        "ended" => format!("ended by {}", ids.join(", ")),
        _ => "void: the grant that its author relied on does not stand, or was cut before it".to_owned(),
    }
}

/// The chain of grants from the recovery phrase to a device.
fn explain(context: &mut Context, caps: &[Cap], device: &str) -> Result<(), CliError> {
    let by_id: BTreeMap<&str, &Cap> = caps.iter().map(|cap| (cap.id.as_str(), cap)).collect();
    let is_meant = |cap: &&Cap| cap.name == device || (device.len() >= 8 && cap.holder.starts_with(device));
    let held: Vec<&Cap> = caps.iter().filter(is_meant).collect();
    let best = held.iter().find(|cap| cap.state == "live").or(held.first());
    let Some(best) = best else {
        return Err(CliError::new(
            Exit::NotFound,
            "not_found",
            format!("Nobody has ever let a device {device} in."),
            "`mesh devices` shows the devices of this mesh.",
        ));
    };
    let mut chain = vec![*best];
    while let Some(above) = chain.last().and_then(|cap| by_id.get(cap.via.as_str())) {
        chain.push(above);
    }
    chain.reverse();
    if context.screen.json {
        return chain.iter().try_for_each(|cap| context.screen.value(cap));
    }
    for (depth, cap) in chain.iter().enumerate() {
        let line = format!("{} made {} {} ({})", cap.author_name, cap.name, cap.role, short(&cap.id));
        context.screen.line(format!("{:indent$}{line}: {}", "", state(cap), indent = depth * 2))?;
    }
    context.screen.line(match (best.state.as_str(), best.role.as_str()) {
        ("live", "admin") => {
            format!("So {device} reads and writes all folders, lets devices in, and removes those it outranks.")
        }
        ("live", "device") => format!("So {device} reads and writes all folders of this mesh."),
        ("live", _) => format!("So {device} keeps what it cannot read."),
        _ => format!("So {device} has no right here now."),
    })
}
