//! A community relay for Meshwork.
//!
//! It carries sealed traffic between devices that cannot reach each other directly. It holds no
//! names, no paths and no plaintext, and it can be replaced at any time without loss.

use std::{net::SocketAddr, path::PathBuf, process::ExitCode};

use clap::{Args, Parser, Subcommand};
use meshwork_host::program::{self, Options, Program, Setup};
use meshwork_relay::service::{self, RelaySettings};

const PROGRAM: Program = Program { name: "mesh-relay", version: env!("CARGO_PKG_VERSION") };

/// A community relay for Meshwork.
///
/// It is to carry sealed traffic between devices that cannot reach each other directly. This version
/// starts, listens, tells its health and stops cleanly; it carries nothing yet.
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
    let Command::Run(run) = Cli::parse().command;
    let options = Options { home: run.home, listen: run.listen, health: run.health, log: run.log, json: run.json };
    let ended =
        program::run(PROGRAM, options, async |setup: &mut Setup<'_, RelaySettings>| service::set_up(setup).await).await;
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{}: {error}", PROGRAM.name);
            ExitCode::FAILURE
        }
    }
}
