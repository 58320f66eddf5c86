//! `mesh status` and `mesh devices`.

use std::time::{SystemTime, UNIX_EPOCH};

use super::{
    Context,
    error::CliError,
    folder,
    screen::{columns, count, duration, short},
};
use crate::api::types::{Device, Peer, Status};

pub(super) async fn status(context: &mut Context) -> Result<(), CliError> {
    let status = context.client.status().await?;
    if context.screen.json {
        return context.screen.value(&status);
    }
    let Status { name, device, mesh, uptime, version, .. } = &status;
    context.screen.line(format!(
        "{name} ({}) has been running for {}, version {version}",
        short(device),
        duration(*uptime)
    ))?;
    context.screen.line(match mesh.as_str() {
        "" => "in no mesh yet: `mesh folder add` or `mesh pair` begins one, `mesh join` enters one".to_owned(),
        mesh => format!("mesh {}", short(mesh)),
    })?;
    for address in &status.addresses {
        context.screen.line(format!("listens at {address}"))?;
    }
    context.screen.line(match status.peers.len() {
        0 => "no device is connected".to_owned(),
        number => format!("{} connected", count(number as u64, "device")),
    })?;
    let now = now_ms();
    for line in columns(&status.peers.iter().map(|peer| peer_row(peer, now)).collect::<Vec<_>>()) {
        context.screen.line(line)?;
    }
    folder::show_states(context, &status.folders)?;
    if status.frozen {
        context
            .screen
            .line("This mesh is frozen: its phrase was replaced by two others at once, and no phrase owns it.")?;
        context
            .screen
            .line("  Devices and folders go on, and admins let devices in. To own a mesh by a phrase again,")?;
        context.screen.line("  begin a new one in another home (mesh up --home DIR), and move the folders there.")?;
    }
    if status.root_on_disk {
        context
            .screen
            .line("The root secret of this mesh still is on this device: whoever reads its key file owns the mesh.")?;
        context.screen.line("  write its phrase down: mesh recovery write")?;
    }
    Ok(())
}

fn peer_row(peer: &Peer, now: u64) -> [String; 5] {
    let since = duration(now.saturating_sub(peer.since) / 1_000);
    [
        peer.name.clone(),
        short(&peer.device).to_owned(),
        peer.path.clone(),
        format!("for {since}"),
        peer.transport.clone(),
    ]
}

fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).ok().and_then(|time| time.as_millis().try_into().ok()).unwrap_or(0)
}

pub(super) async fn devices(context: &mut Context) -> Result<(), CliError> {
    let devices = context.client.devices().await?;
    show_devices(context, devices)
}

pub(super) fn show_devices(context: &mut Context, devices: Vec<Device>) -> Result<(), CliError> {
    if context.screen.json {
        return devices.iter().try_for_each(|device| context.screen.value(device));
    }
    let rows: Vec<[String; 4]> = devices
        .into_iter()
        .map(|device| {
            let state = match (device.here, device.connected) {
                (true, _) => "this device",
                (false, true) => "connected",
                (false, false) => "away",
            };
            [device.name, short(&device.device).to_owned(), device.role, state.to_owned()]
        })
        .collect();
    columns(&rows).iter().try_for_each(|line| context.screen.line(line))
}
