//! `mesh up`, `mesh down` and the process that they start and stop.

use std::{
    ffi::OsString,
    fs::{self, OpenOptions},
    future::Future,
    io::{Read, Seek, SeekFrom},
    os::unix::fs::OpenOptionsExt,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use meshwork_host::telemetry::{self, LogConfig};
use tokio::runtime::Builder;

use super::{
    Context,
    arguments::{Daemon, Node, Up},
    error::{CliError, Exit},
    runtime,
    screen::short,
};
use crate::{
    api::types::Status,
    daemon::{self, Home, NodeConfig, StartError},
    resource::NodeControl,
};

/// How long a node may take to answer after its start; opening a large store is part of it.
const START_MAX: Duration = Duration::from_secs(60);
/// How long a node may take to stop, with some room over what it promises.
const STOP_MAX: Duration = Duration::from_secs(8);
/// Between two looks at a process that starts or stops.
const LOOK: Duration = Duration::from_millis(20);
/// Bytes of the end of a log that are searched for the reason of a failed start.
const REASON_BYTES_MAX: u64 = 16_384;

pub(super) async fn up(context: &mut Context, up: &Up) -> Result<(), CliError> {
    if up.foreground {
        return foreground(context, &up.node);
    }
    if up.install {
        return super::install::install(context, &up.node).await;
    }
    let (status, started) = ensure_running(context, &up.node).await?;
    if context.screen.json {
        return context.screen.value(&status);
    }
    let state = if started { "runs" } else { "was running already" };
    let (name, device) = (&status.name, short(&status.device));
    context
        .screen
        .line(format!("The node of {name} ({device}) {state}. Its home is {}.", context.home.root().display()))?;
    if !started && !is_default(&up.node) {
        context.screen.note(
            "--listen, --no-mdns, --no-upnp and --name take effect at the next start: `mesh down`, then `mesh up` with them.",
        )?;
    }
    next_steps(context, &status)
}

fn is_default(node: &Node) -> bool {
    node.listen.is_empty() && !node.no_mdns && !node.no_upnp && node.name.is_none()
}

/// What a person may want now, by what is not there yet.
fn next_steps(context: &mut Context, status: &Status) -> Result<(), CliError> {
    if status.folders.is_empty() {
        context.screen.line("  share a directory:       mesh folder add PATH")?;
    }
    context.screen.line("  let another device in:   mesh pair")?;
    context.screen.line("  enter another's mesh:    mesh join CODE")?;
    context.screen.line("  see what happens:        mesh watch")?;
    if status.root_on_disk {
        context.screen.line("  write the phrase down:   mesh recovery write")?;
    }
    Ok(())
}

/// The same program as the node itself, in this process's place.
fn foreground(context: &Context, node: &Node) -> Result<(), CliError> {
    use std::os::unix::process::CommandExt;
    let error = node_command(&context.home, node, context.verbose)?.exec();
    Err(error.into())
}

pub(super) fn node_command(home: &Home, node: &Node, verbose: u8) -> Result<Command, CliError> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("daemon").arg("--home").arg(home.root());
    for address in &node.listen {
        command.arg("--listen").arg(address.to_string());
    }
    if node.no_mdns {
        command.arg("--no-mdns");
    }
    if node.no_upnp {
        command.arg("--no-upnp");
    }
    if let Some(name) = &node.name {
        // One word, so that a name beginning with a dash is not taken for a flag.
        let mut word = OsString::from("--name=");
        word.push(name);
        command.arg(word);
    }
    for _ in 0..verbose {
        command.arg("-v");
    }
    Ok(command)
}

/// The status of the node, which is started in the background when it does not run; and whether it was.
pub(super) async fn ensure_running(context: &mut Context, node: &Node) -> Result<(Status, bool), CliError> {
    match context.client.status().await {
        Err(error) if error.exit == Exit::NotRunning => {}
        other => return other.map(|status| (status, false)),
    }
    context.home.create()?;
    let path = context.home.log_file();
    let log = OpenOptions::new().append(true).create(true).mode(0o600).open(&path)?;
    let before = log.metadata()?.len();
    let mut command = node_command(&context.home, node, context.verbose)?;
    command.arg("--detach").stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
    let mut child = command.spawn()?;
    wait_until_ready(context, &mut child, before).await.map(|status| (status, true))
}

async fn wait_until_ready(context: &Context, child: &mut Child, log_before: u64) -> Result<Status, CliError> {
    let started = Instant::now();
    loop {
        if let Ok(status) = context.client.status().await {
            return Ok(status);
        }
        if let Some(ended) = child.try_wait()? {
            // Another `up` may have been faster: then that node is the one.
            if let Ok(status) = context.client.status().await {
                return Ok(status);
            }
            return Err(not_started(context, log_before, &format!("The node ended at once ({ended}).")));
        }
        if started.elapsed() > START_MAX {
            let seconds = START_MAX.as_secs();
            return Err(not_started(
                context,
                log_before,
                &format!("The node did not answer within {seconds} seconds."),
            ));
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// The status of a node that somebody else starts.
pub(super) async fn wait_for_node(context: &Context) -> Result<Status, CliError> {
    let started = Instant::now();
    loop {
        match context.client.status().await {
            Err(_) if started.elapsed() < START_MAX => tokio::time::sleep(LOOK).await,
            ended => return ended,
        }
    }
}

/// The node's own words, when it left some in its log; else `otherwise`.
fn not_started(context: &Context, log_before: u64, otherwise: &str) -> CliError {
    let log = context.home.log_file();
    let text = end_of(&log, log_before).unwrap_or_default();
    let mut lines = text.lines().skip_while(|line| !line.starts_with("error: "));
    let message = lines.next().and_then(|line| line.strip_prefix("error: ")).unwrap_or(otherwise);
    let fix = lines.next().map(str::trim).filter(|line| !line.is_empty());
    let fix = fix.map_or_else(|| format!("Its log tells more: {}", log.display()), str::to_owned);
    CliError::new(Exit::Failed, "not_started", message, fix)
}

fn end_of(path: &std::path::Path, from: u64) -> std::io::Result<String> {
    let mut file = fs::File::open(path)?;
    let len = file.metadata()?.len();
    file.seek(SeekFrom::Start(from.max(len.saturating_sub(REASON_BYTES_MAX))))?;
    let mut bytes = Vec::new();
    file.take(REASON_BYTES_MAX).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

pub(super) async fn down(context: &mut Context) -> Result<(), CliError> {
    match context.client.shutdown().await {
        Err(error) if error.exit == Exit::NotRunning => {
            return context.screen.note("No node was running.");
        }
        other => other?,
    };
    wait_for_end(context).await?;
    context.screen.note("The node has stopped.")
}

/// Waits until a node that was asked to stop has let go of its home.
pub(super) async fn wait_for_end(context: &Context) -> Result<(), CliError> {
    let started = Instant::now();
    // The home is free when everything is on disk, which is later than the last answer.
    while context.home.lock().is_err() {
        if started.elapsed() > STOP_MAX {
            return Err(CliError::new(
                Exit::Failed,
                "not_stopped",
                format!("The node still runs after {} seconds.", STOP_MAX.as_secs()),
                format!("Its log tells what it does: {}", context.home.log_file().display()),
            ));
        }
        tokio::time::sleep(LOOK).await;
    }
    Ok(())
}

/// Is the node until it is asked to stop.
pub(super) fn daemon<N, F, S>(home: Home, daemon: &Daemon, verbose: u8, start: S) -> Result<(), CliError>
where
    N: NodeControl,
    F: Future<Output = Result<N, StartError>>,
    S: FnOnce(NodeConfig) -> F,
{
    if daemon.detach {
        // Fails only for the leader of a session, which needs no other.
        let _ = rustix::process::setsid();
    }
    log_to_stderr(verbose)?;
    let Node { listen, no_mdns, no_upnp, name } = daemon.node.clone();
    let config = NodeConfig { home, listen, mdns: !no_mdns, upnp: !no_upnp, name };
    let runtime = runtime(&mut Builder::new_multi_thread())?;
    let result = runtime.block_on(daemon::run(config, daemon.stop_with_stdin, start));
    // Whatever still runs has had its time; waiting for it could take for ever.
    runtime.shutdown_background();
    Ok(result?)
}

/// What the node tells: to standard error, which is its log file when it runs in the background.
/// `MESHWORK_LOG` takes the directives of a tracing filter and wins over `-v`.
fn log_to_stderr(verbose: u8) -> Result<(), CliError> {
    let filter = match verbose {
        0 => "warn,meshwork=info,meshwork_host=info",
        1 => "info,meshwork=debug,meshwork_host=debug,meshwork_replica=debug",
        _ => "debug,meshwork=trace,meshwork_host=trace,meshwork_replica=trace",
    };
    let config = LogConfig { filter: filter.to_owned(), ..LogConfig::default() };
    telemetry::start(&config).map_err(|error| {
        let fix = "Write the filter as in MESHWORK_LOG=info,meshwork=debug.";
        CliError::new(Exit::Usage, "bad_log", format!("The log cannot be started: {error}."), fix)
    })
}
