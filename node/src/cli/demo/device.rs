//! One device of the demo: a process of this same program with a home and a folder of its own.

use std::{
    fs::{self, OpenOptions},
    net::Ipv4Addr,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use crate::{
    cli::{
        client::Client,
        error::{CliError, Exit},
    },
    daemon::Home,
};

/// How long a node may take to answer after its start.
const START_MAX: Duration = Duration::from_secs(60);
/// How long a node may take to stop before it is killed.
const STOP_MAX: Duration = Duration::from_secs(6);
/// Between two looks at a process that starts or stops.
const LOOK: Duration = Duration::from_millis(5);
/// Bytes of the end of a log that are shown when the demo fails.
const LAST_WORDS_BYTES: usize = 2_000;

pub(super) struct Device {
    pub(super) name: &'static str,
    pub(super) home: Home,
    pub(super) folder: PathBuf,
    pub(super) client: Client,
    process: Option<Child>,
}

impl Device {
    /// A device below `root`; nothing is made yet.
    pub(super) fn new(root: &Path, name: &'static str) -> Self {
        let home = Home::new(root.join(name).join("home"));
        let client = Client::new(&home.api_socket());
        Device { name, home, folder: root.join(name).join("Notes"), client, process: None }
    }

    /// Starts its node, on loopback only, and waits until it answers.
    pub(super) async fn start(&mut self, verbose: u8) -> Result<(), CliError> {
        self.home.create()?;
        let log = OpenOptions::new().append(true).create(true).open(self.home.log_file())?;
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("daemon").arg("--home").arg(self.home.root()).args(["--no-mdns", "--name", self.name]);
        command.arg("--listen").arg(format!("{}:0", Ipv4Addr::LOCALHOST)).arg("--stop-with-stdin");
        command.args((0..verbose).map(|_| "-v"));
        // A group of its own: Ctrl-C is for the demo, which then stops the nodes in order. The pipe ends
        // with this process, however it ends, and the node with the pipe.
        command.process_group(0).stdin(Stdio::piped()).stdout(log.try_clone()?).stderr(log);
        let child = self.process.insert(command.spawn()?);
        let started = Instant::now();
        loop {
            match self.client.status().await {
                Ok(_) => return Ok(()),
                Err(error) if error.exit == Exit::NotRunning => {}
                Err(error) => return Err(error),
            }
            if child.try_wait()?.is_some() || started.elapsed() > START_MAX {
                let message = format!("The node {} did not start.", self.name);
                return Err(CliError::new(Exit::Failed, "not_started", message, "What it told is shown above."));
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Stops the node in order; kills it when that takes too long.
    pub(super) async fn stop(&mut self) {
        let Some(child) = &mut self.process else { return };
        // Without an answer the end of its standard input stops it as well.
        let _ = self.client.shutdown().await;
        drop(child.stdin.take());
        let asked = Instant::now();
        while asked.elapsed() < STOP_MAX {
            if matches!(child.try_wait(), Ok(Some(_)) | Err(_)) {
                self.process = None;
                return;
            }
            tokio::time::sleep(LOOK).await;
        }
        self.kill();
    }

    fn kill(&mut self) {
        if let Some(mut child) = self.process.take() {
            // Both fail only for a process that has ended already.
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// The end of what its node told.
    pub(super) fn last_words(&self) -> Option<String> {
        let log = fs::read(self.home.log_file()).ok()?;
        let tail = log.get(log.len().saturating_sub(LAST_WORDS_BYTES)..)?;
        let text = String::from_utf8_lossy(tail);
        let text = text.trim();
        (!text.is_empty()).then(|| format!("--- {} told: {}", self.name, text.replace('\n', " | ")))
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A path as the text that a request carries.
pub(super) fn text(path: &Path) -> Result<String, CliError> {
    path.to_str().map(str::to_owned).ok_or_else(|| {
        let message = format!("The path {} is not UTF-8.", path.display());
        CliError::new(Exit::Failed, "bad_path", message, "Set TMPDIR to a directory with a plain path.")
    })
}
