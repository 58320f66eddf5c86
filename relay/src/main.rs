//! A community relay for Meshwork.
//!
//! It carries sealed traffic between devices that cannot reach each other directly. It holds no
//! names, no paths and no plaintext, and it can be replaced at any time without loss.

use std::{net::SocketAddr, path::PathBuf, process::ExitCode};

use clap::{Args, Parser, Subcommand};
use meshwork_host::{
    address::Address,
    entropy::entropy,
    identity::Identity,
    program::{self, Options, Program, Setup, init, probe},
};
use meshwork_protocol::{admission::to_text, id::DeviceId, key::DeviceKey};
use meshwork_relay::{
    admission::{self, Mode},
    service::{self, RelaySettings},
};
use serde_json::json;

const PROGRAM: Program = Program { name: "mesh-relay", version: env!("CARGO_PKG_VERSION") };

/// A community relay for Meshwork.
///
/// It carries sealed traffic between devices that cannot reach each other directly, and cannot read it.
#[derive(Debug, Parser)]
#[command(name = PROGRAM.name, version, propagate_version = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run until SIGTERM or SIGINT.
    Run(Run),
    /// Make a home: identity and a commented config.toml.
    Init(Init),
    /// Look from outside whether a server can be reached and is the one that was meant.
    Probe(Probe),
    /// Make a ticket for a device: what it needs to be carried for when admission is for the invited.
    Invite(Invite),
    /// Tell what this relay limits, keeps and can see.
    Terms(Home),
    /// Tell the running relay to open no new channels and to end once the others have.
    Drain(Home),
}

#[derive(Debug, Args)]
struct Init {
    /// Directory to make; an existing config.toml is not overwritten.
    #[arg(long, value_name = "DIR")]
    home: PathBuf,

    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
#[command(
    after_help = "The ticket is no secret: only its device can use it, and pass it on to the other devices of its mesh.
The relay renews it for as long as its name does not stand in service.admission.withdrawn."
)]
struct Invite {
    /// The device: its id, as `mesh relay ls` shows it there.
    device: DeviceId,

    /// Directory of the identity.
    #[arg(long, value_name = "DIR")]
    home: PathBuf,

    /// For how long the ticket holds when it is not shown.
    #[arg(long, value_name = "DAYS", default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..=30))]
    days: u32,

    /// For this device alone, and not for others of its mesh.
    #[arg(long)]
    alone: bool,

    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct Probe {
    /// Its address, such as /ip4/192.0.2.1/tcp/4001/p2p/...
    address: Address,

    /// Its data port, to be probed as well.
    #[arg(long, value_name = "PORT")]
    data: Option<u16>,

    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct Home {
    /// Directory of config.toml.
    #[arg(long, value_name = "DIR")]
    home: PathBuf,

    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
#[command(
    after_help = "Settings not given here are read from config.toml in the home directory, where an unknown key is an error."
)]
struct Run {
    /// Directory of the identity and config.toml; made with mode 0700 if missing.
    #[arg(long, value_name = "DIR")]
    home: PathBuf,

    /// Where to listen, for QUIC (UDP) and TCP at the same port; may be given more than once
    /// [default: 0.0.0.0:4001 and [::]:4001].
    #[arg(long, value_name = "IP:PORT")]
    listen: Vec<SocketAddr>,

    /// Where to answer /healthz and /readyz: a loopback address or the absolute path of a socket
    /// [default: nowhere].
    #[arg(long, value_name = "IP:PORT|PATH")]
    health: Option<String>,

    /// What to log, such as `info` or `info,meshwork_host=debug`. The variables MESHWORK_LOG and
    /// RUST_LOG win over it [default: info].
    #[arg(long, value_name = "FILTER")]
    log: Option<String>,

    /// Log one JSON object a line.
    #[arg(long)]
    json: bool,
}

#[tokio::main]
async fn main() -> ExitCode {
    let ended = match Cli::parse().command {
        Command::Run(run) => start(run).await,
        Command::Init(init) => make(&init),
        Command::Invite(asked) => invite(&asked),
        Command::Probe(probe) => look(&probe).await,
        Command::Terms(terms) => show_terms(&terms),
        Command::Drain(drain) => ask_to_drain(&drain).await,
    };
    ended.unwrap_or_else(|error| {
        eprintln!("{}: {error}", PROGRAM.name);
        ExitCode::FAILURE
    })
}

type Ended = Result<ExitCode, Box<dyn std::error::Error + Send + Sync>>;

async fn start(run: Run) -> Ended {
    let options = Options { home: run.home, listen: run.listen, health: run.health, log: run.log, json: run.json };
    program::run(PROGRAM, options, async |setup: &mut Setup<'_, RelaySettings>| service::set_up(setup).await).await?;
    Ok(ExitCode::SUCCESS)
}

fn make(init: &Init) -> Ended {
    let device = init::init(&init.home, include_str!("config.toml"))?;
    let address = Address::tcp(([192, 0, 2, 1], 4001).into()).with_device(&device);
    if init.json {
        println!("{}", json!({"device": device.to_string(), "address": address.to_string()}));
        return Ok(ExitCode::SUCCESS);
    }
    let (name, home) = (PROGRAM.name, init.home.display());
    println!("Made {home} with a new identity and config.toml. Next:");
    println!("  1. read {home}/config.toml");
    println!("  2. {name} run --home {home}");
    println!("  3. on another host, with your public address in place of 192.0.2.1:");
    println!("     {name} probe {address}");
    println!("People add that same address to reach you.");
    Ok(ExitCode::SUCCESS)
}

fn invite(asked: &Invite) -> Ended {
    let identity = Identity::load(&asked.home)?.ok_or("there is no identity yet; make one with `mesh-relay init`")?;
    let key = DeviceKey::from_bytes(identity.device_secret());
    let (ticket, name) = admission::invite(&key, asked.device, asked.days, !asked.alone, &mut entropy())?;
    let ticket = to_text(&ticket);
    if asked.json {
        println!("{}", json!({"ticket": ticket, "name": name.to_string()}));
        return Ok(ExitCode::SUCCESS);
    }
    println!("Its owner adds this relay with its address, and this ticket behind it:");
    println!("  mesh relay add ADDRESS --ticket {ticket}");
    println!("To take the ticket back, add its name {name} to service.admission.withdrawn and start the relay anew.");
    let settings = program::settings::<RelaySettings>(&asked.home)?;
    if settings.admission.mode == Mode::Open {
        println!("Now everybody is carried for, with a ticket or without: service.admission.mode is \"open\".");
    }
    Ok(ExitCode::SUCCESS)
}

async fn look(asked: &Probe) -> Ended {
    let socket = asked.address.socket().ok_or("the address has no IP address and port")?;
    let mut checks = probe::probe(socket, asked.address.device()).await;
    if let Some(port) = asked.data {
        checks.push(service::probe_data((socket.ip(), port).into()).await);
    }
    if asked.json {
        println!("{}", json!(checks.iter().map(probe::Check::to_json).collect::<Vec<_>>()));
    } else {
        for check in &checks {
            println!("{}: {}", check.name, check.trouble.as_deref().unwrap_or("ok"));
        }
    }
    let well = checks.iter().all(|check| check.trouble.is_none());
    Ok(if well { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn ask_to_drain(asked: &Home) -> Ended {
    let address = program::health_address::<RelaySettings>(&asked.home)?;
    service::ask_to_drain(&address.ok_or("config.toml has no health address; send SIGUSR1 instead")?).await?;
    if asked.json {
        println!("{}", json!({"draining": true}));
    } else {
        println!("It opens no new channels, and ends once the others have.");
    }
    Ok(ExitCode::SUCCESS)
}

fn show_terms(asked: &Home) -> Ended {
    let settings = program::settings::<RelaySettings>(&asked.home)?;
    match asked.json {
        true => println!("{}", service::TERMS.to_json(&settings)),
        false => println!("{}", service::TERMS.to_text(&settings)?),
    }
    Ok(ExitCode::SUCCESS)
}
