//! The command line: translates words to requests to the node of a home, and answers to text.

pub mod client;
pub mod error;
pub mod screen;
mod service;

mod arguments;
mod authority;
mod bootstrap;
mod demo;
mod folder;
mod install;
mod pair;
mod ping;
mod quarantine;
mod recovery;
mod relay;
mod sharing;
mod status;
mod up;
mod watch;

#[cfg(test)]
mod tests;

use std::{
    env,
    ffi::OsString,
    future::Future,
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::{Parser, error::ErrorKind};
use tokio::runtime::{Builder, Runtime};

use crate::{
    daemon::{Home, NodeConfig, StartError},
    resource::NodeControl,
};
use arguments::{Arguments, Command};
use client::Client;
use error::{CliError, Exit};
use screen::Screen;

/// What every command needs.
pub(crate) struct Context {
    pub(crate) home: Home,
    pub(crate) client: Client,
    pub(crate) screen: Screen,
    pub(crate) verbose: u8,
}

impl Context {
    pub(crate) fn new(home: Home, screen: Screen, verbose: u8) -> Self {
        let client = Client::new(&home.api_socket());
        Context { home, client, screen, verbose }
    }
}

/// The program `mesh`.
pub fn main() -> ExitCode {
    run(env::args_os(), crate::driver::start)
}

/// Runs the command that `words` name (the program's own name first); `start` starts a node for the
/// command `daemon`.
pub fn run<N, F, S>(words: impl IntoIterator<Item = OsString>, start: S) -> ExitCode
where
    N: NodeControl,
    F: Future<Output = Result<N, StartError>>,
    S: FnOnce(NodeConfig) -> F,
{
    let arguments = match Arguments::try_parse_from(words) {
        Ok(arguments) => arguments,
        Err(error) => return say_usage(&error),
    };
    let mut screen = Screen::new(arguments.global.json);
    let home = match home(arguments.global.home.as_deref()) {
        Ok(home) => home,
        Err(error) => return end(&mut screen, Err(error)),
    };
    if let Command::Daemon(daemon) = arguments.command {
        let result = up::daemon(home, &daemon, arguments.global.verbose, start);
        return end(&mut screen, result);
    }
    let mut context = Context::new(home, screen, arguments.global.verbose);
    let result = runtime(&mut Builder::new_current_thread())
        .and_then(|runtime| runtime.block_on(command(&mut context, arguments.command)));
    end(&mut context.screen, result)
}

async fn command(context: &mut Context, command: Command) -> Result<(), CliError> {
    match command {
        Command::Up(up) => up::up(context, &up).await,
        Command::Down { uninstall: true } => install::uninstall(context),
        Command::Down { uninstall: false } => up::down(context).await,
        Command::Status => status::status(context).await,
        Command::Devices => status::devices(context).await,
        Command::Ping { device } => ping::ping(context, &device).await,
        Command::Device(device) => authority::device(context, device).await,
        Command::Log(log) => authority::log(context, &log).await,
        Command::Cap(cap) => authority::cap(context, cap).await,
        Command::Quarantine { command } => quarantine::quarantine(context, command).await,
        Command::Pair(pair) => pair::pair(context, &pair).await,
        Command::Join(join) => pair::join(context, &join).await,
        Command::Folder(folder) => folder::folder(context, folder).await,
        Command::Contact(contact) => sharing::contact(context, contact).await,
        Command::Relay(command) => relay::relay(context, command).await,
        Command::Bootstrap(command) => bootstrap::bootstrap(context, command).await,
        Command::Doctor => bootstrap::doctor(context).await,
        Command::Service(command) => service::service(context, command).await,
        Command::Open(open) => service::open(context, &open).await,
        Command::Close { port } => service::close(context, port).await,
        Command::Share(share) => sharing::share(context, &share).await,
        Command::Unshare(unshare) => sharing::unshare(context, &unshare).await,
        Command::Members { folder } => sharing::members(context, &folder).await,
        Command::Accept(accept) => sharing::accept(context, accept).await,
        Command::Leave(leave) => sharing::leave(context, &leave).await,
        Command::Watch(watch) => watch::watch(context, &watch).await,
        Command::Recovery(recovery) => recovery::recovery(context, recovery).await,
        Command::Demo(demo) => demo::demo(context, &demo).await,
        // Served before there is a runtime: it needs another kind.
        Command::Daemon(_) => Ok(()),
    }
}

fn runtime(builder: &mut Builder) -> Result<Runtime, CliError> {
    Ok(builder.enable_all().build()?)
}

/// clap's own words: help and version on standard output, mistakes on standard error with exit code 2.
fn say_usage(error: &clap::Error) -> ExitCode {
    let exit = match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => Exit::Done,
        _ => Exit::Usage,
    };
    // Nobody is left to be told when this fails.
    let _ = error.print();
    ExitCode::from(exit as u8)
}

fn end(screen: &mut Screen, result: Result<(), CliError>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.is_closed_pipe() => ExitCode::SUCCESS,
        Err(error) => {
            screen.error(&error);
            ExitCode::from(error.exit as u8)
        }
    }
}

/// `--home`, else `MESH_HOME`, else `meshwork` in the user's state directory (XDG).
fn home(flag: Option<&Path>) -> Result<Home, CliError> {
    let set = |name| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let chosen = flag
        .map(Path::to_owned)
        .or_else(|| set("MESH_HOME"))
        .or_else(|| set("XDG_STATE_HOME").filter(|path| path.is_absolute()).map(|path| path.join("meshwork")))
        .or_else(|| set("HOME").map(|path| path.join(".local/state/meshwork")))
        .ok_or_else(|| {
            CliError::new(
                Exit::Usage,
                "no_home",
                "It is not known where your home directory is.",
                "Name a directory with --home.",
            )
        })?;
    Ok(Home::new(absolute(&chosen)?))
}

/// The path without `.`, `..` and links as far as it exists; what does not exist yet is kept as given.
fn absolute(path: &Path) -> Result<PathBuf, CliError> {
    if let Ok(real) = path.canonicalize() {
        return Ok(real);
    }
    let absolute = std::path::absolute(path)?;
    match (absolute.parent().map(Path::canonicalize), absolute.file_name()) {
        (Some(Ok(parent)), Some(name)) => Ok(parent.join(name)),
        _ => Ok(absolute),
    }
}

/// [`absolute`], as the text that a request can carry.
fn absolute_text(path: &Path) -> Result<String, CliError> {
    absolute(path)?.into_os_string().into_string().map_err(|path| {
        CliError::new(
            Exit::Usage,
            "bad_path",
            format!("The path {} is not UTF-8.", path.display()),
            "Rename the directory; names of files inside it may be anything.",
        )
    })
}
