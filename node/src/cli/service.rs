//! `mesh service`, `mesh open` and `mesh close`: services of devices and the ports that lead to them.

use std::{
    io::{self, Read as _, Write as _},
    net::{Shutdown, TcpStream},
    thread,
    time::Duration,
};

use tokio::{task::spawn_blocking, time::interval};

use super::{
    Context,
    arguments::{Open, Service as Command},
    error::{CliError, Exit},
    screen::{columns, count, date_and_time, short},
};
use crate::api::types::{Service, ServiceOffer, Tunnel, TunnelOpen};

/// How often a port is looked at for what went wrong.
const LOOK: Duration = Duration::from_secs(1);

pub(super) async fn service(context: &mut Context, command: Command) -> Result<(), CliError> {
    match command {
        Command::Offer { name, target } => offer(context, ServiceOffer { name, target }).await,
        Command::Ls => ls(context).await,
        Command::Withdraw { name } => {
            let done = context.client.service_withdraw(&name).await?;
            if context.screen.json {
                return context.screen.value(&done);
            }
            context.screen.line(format!("This device does not offer {name} any more."))
        }
        Command::Grant { name, to, days } => grant(context, &name, &to, days).await,
        Command::Revoke { name, from } => {
            let done = context.client.service_take(&name, &from).await?;
            if context.screen.json {
                return context.screen.value(&done);
            }
            context.screen.line(format!("{from} cannot use {name} any more."))
        }
    }
}

async fn offer(context: &mut Context, offer: ServiceOffer) -> Result<(), CliError> {
    let service = context.client.service_offer(&offer).await?;
    if context.screen.json {
        return context.screen.value(&service);
    }
    let target = service.target.unwrap_or_default();
    context.screen.line(format!("{} leads to {target}, for your devices and nobody else.", service.name))?;
    context.screen.line(format!("On another device: mesh open {}:{}", service.device_name, service.name))
}

async fn grant(context: &mut Context, name: &str, to: &str, days: u32) -> Result<(), CliError> {
    let service = context.client.service_give(name, to, days).await?;
    if context.screen.json {
        return context.screen.value(&service);
    }
    context.screen.line(format!("{to} can use {name} for {}.", count(u64::from(days), "day")))?;
    context.screen.line(format!("There, while a folder is shared: mesh open {}:{name}", short(&service.device)))
}

async fn ls(context: &mut Context) -> Result<(), CliError> {
    let services = context.client.services().await?;
    if context.screen.json {
        return services.iter().try_for_each(|service| context.screen.value(service));
    }
    if services.is_empty() {
        return context.screen.note("Your devices offer nothing. Offer a port of this one: mesh service offer ssh 22");
    }
    let row = |service: Service| {
        let whose = if service.here { "this device".to_owned() } else { service.device_name.clone() };
        let given = service.granted.iter().map(|it| format!("given to {} until {}", it.name, date_and_time(it.until)));
        let users = service.users.iter().map(|user| format!("used by {}", user.name));
        let notes: Vec<String> = given.chain(users).collect();
        [service.name, whose, service.target.unwrap_or_default(), notes.join(", ")]
    };
    columns(&services.into_iter().map(row).collect::<Vec<_>>()).iter().try_for_each(|line| context.screen.line(line))
}

pub(super) async fn open(context: &mut Context, open: &Open) -> Result<(), CliError> {
    let Some(to) = &open.to else { return list(context).await };
    let (device, service) = to.rsplit_once(':').ok_or_else(|| {
        CliError::new(
            Exit::Usage,
            "usage",
            format!("{to} is not a device and a service."),
            "Write DEVICE:SERVICE, such as laptop:ssh; `mesh service ls` shows what there is.",
        )
    })?;
    let asked = TunnelOpen { device: device.to_owned(), service: service.to_owned(), port: open.local };
    let tunnel = context.client.tunnel_open(&asked).await?;
    if open.stdio {
        let address = tunnel.address.clone();
        let carried = spawn_blocking(move || through_stdio(&address)).await.unwrap_or_else(|error| Err(error.into()));
        let problem = problem_of(context, tunnel.port).await?;
        context.client.tunnel_close(tunnel.port).await?;
        return carried.map_err(CliError::from).and_then(|()| problem.map_or(Ok(()), Err));
    }
    if context.screen.json {
        context.screen.value(&tunnel)?;
    } else {
        context.screen.line(format!("{} leads to {} on {}.", tunnel.address, tunnel.service, tunnel.device_name))?;
    }
    if open.background {
        return Ok(());
    }
    context.screen.note("Ctrl-C closes it.")?;
    hold(context, tunnel.port).await
}

async fn list(context: &mut Context) -> Result<(), CliError> {
    let tunnels = context.client.tunnels().await?;
    if context.screen.json {
        return tunnels.iter().try_for_each(|tunnel| context.screen.value(tunnel));
    }
    if tunnels.is_empty() {
        return context.screen.note("No port leads to a service. Open one: mesh open DEVICE:SERVICE");
    }
    let row = |tunnel: Tunnel| {
        let to = format!("{}:{}", tunnel.device_name, tunnel.service);
        [tunnel.address, to, count(tunnel.open as u64, "connection"), tunnel.problem.unwrap_or_default()]
    };
    columns(&tunnels.into_iter().map(row).collect::<Vec<_>>()).iter().try_for_each(|line| context.screen.line(line))
}

/// Keeps a port open until Ctrl-C, telling what goes wrong.
async fn hold(context: &mut Context, port: u16) -> Result<(), CliError> {
    let (mut ticks, mut told) = (interval(LOOK), None);
    loop {
        tokio::select! {
            pressed = tokio::signal::ctrl_c() => {
                pressed?;
                context.client.tunnel_close(port).await?;
                return Ok(());
            }
            _ = ticks.tick() => {
                let problem = problem_of(context, port).await?;
                if let Some(problem) = problem.as_ref().filter(|it| told.as_ref() != Some(&it.message)) {
                    context.screen.note(&problem.message)?;
                }
                told = problem.map(|problem| problem.message);
            }
        }
    }
}

/// What went wrong with the last connection through a port.
async fn problem_of(context: &Context, port: u16) -> Result<Option<CliError>, CliError> {
    let tunnels = context.client.tunnels().await?;
    let Some(tunnel) = tunnels.into_iter().find(|tunnel| tunnel.port == port) else {
        return Err(CliError::new(Exit::Failed, "closed", format!("Port {port} was closed."), "Open it again."));
    };
    let said = |problem: String| {
        CliError::new(
            Exit::Failed,
            "no_tunnel",
            format!("{} on {} was not reached: {problem}.", tunnel.service, tunnel.device_name),
            "`mesh status` shows whether the device is connected; there, `mesh service ls` what it offers.",
        )
    };
    Ok(tunnel.problem.map(said))
}

/// One connection between standard input and output: as soon as the service ends, so does this.
fn through_stdio(address: &str) -> io::Result<()> {
    let mut from = TcpStream::connect(address)?;
    from.set_nodelay(true)?;
    let mut to = from.try_clone()?;
    // It may wait for input that never comes, and ends with the process.
    thread::spawn(move || io::copy(&mut io::stdin(), &mut to).and_then(|_| to.shutdown(Shutdown::Write)));
    let (mut out, mut buffer) = (io::stdout().lock(), vec![0; 64 << 10]);
    loop {
        let read = from.read(&mut buffer)?;
        if read == 0 {
            return Ok(());
        }
        out.write_all(buffer.get(..read).unwrap_or_default())?;
        out.flush()?;
    }
}

pub(super) async fn close(context: &mut Context, port: u16) -> Result<(), CliError> {
    let done = context.client.tunnel_close(port).await?;
    if context.screen.json {
        return context.screen.value(&done);
    }
    context.screen.line(format!("Port {port} is closed."))
}
