//! A reader's shell: one for each device that a document speaks of, each with a home of its own.

use std::{
    fs,
    io::{self, BufRead, BufReader, Write},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use tempfile::TempDir;

use crate::device::programs;

/// How long one command of a document may take.
const PATIENCE: Duration = Duration::from_secs(120);
/// Between two tries of a block that says `retry`.
const AGAIN: Duration = Duration::from_millis(200);
/// What the shell prints after a command, before its exit code.
const END: &str = "::end of the command::";

/// Where the devices of one document live; all of it goes when it is dropped.
pub struct Home(TempDir);

impl Home {
    /// A new place.
    pub fn new() -> io::Result<Self> {
        // Short, since the path of a socket may have 107 bytes only.
        Ok(Home(tempfile::Builder::new().prefix("mesh-docs-").tempdir()?))
    }

    /// The home directory of one device.
    pub fn of(&self, device: &str) -> PathBuf {
        self.0.path().join(device)
    }
}

/// The shell of one device.
pub struct Session {
    home: PathBuf,
    shell: Child,
    lines: mpsc::Receiver<String>,
    /// The lines that the last command printed.
    pub last: Vec<String>,
}

impl Session {
    /// Starts a shell in an empty home directory, with the built programs on its path.
    pub fn start(home: &Path) -> io::Result<Self> {
        fs::create_dir_all(home)?;
        let path = std::env::var_os("PATH").unwrap_or_default();
        let path = std::env::join_paths([programs()].into_iter().chain(std::env::split_paths(&path)));
        let mut command = Command::new("bash");
        command.args(["--noprofile", "--norc"]).current_dir(home).env_clear();
        command.env("PATH", path.map_err(io::Error::other)?).env("HOME", home).env("LANG", "C.UTF-8");
        command.env("TERM", "dumb").process_group(0);
        let mut shell = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit()).spawn()?;
        let output = shell.stdout.take().ok_or(io::ErrorKind::BrokenPipe)?;
        let (sender, lines) = mpsc::channel();
        thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                // Nobody listens any more when the session has ended.
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        Ok(Session { home: home.to_owned(), shell, lines, last: Vec::new() })
    }

    /// Runs a command; its lines of output, standard error among them, and its exit code.
    pub fn run(&mut self, command: &str) -> Result<(Vec<String>, i32), String> {
        let script = format!("{{ {command}\n}} 2>&1 </dev/null; printf '\\n%s%s\\n' '{END}' \"$?\"\n");
        let input = self.shell.stdin.as_mut().ok_or("the shell takes nothing")?;
        input.write_all(script.as_bytes()).and_then(|()| input.flush()).map_err(|error| error.to_string())?;
        let until = Instant::now() + PATIENCE;
        let mut output = Vec::new();
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let line = self.lines.recv_timeout(left).map_err(|_| {
                format!(
                    "no end within {} seconds, or the shell has ended; so far:\n{}",
                    PATIENCE.as_secs(),
                    output.join("\n")
                )
            })?;
            if let Some(code) = line.strip_prefix(END) {
                // The line break that stands before the mark.
                if output.last().is_some_and(String::is_empty) {
                    output.pop();
                }
                self.last.clone_from(&output);
                return Ok((output, code.parse().unwrap_or(-1)));
            }
            output.push(line);
        }
    }

    /// Does `work` with the session, again and again where a reader would look again, too.
    pub fn retry<T>(&mut self, again: bool, mut work: impl FnMut(&mut Self) -> Result<T, String>) -> Result<T, String> {
        let until = Instant::now() + PATIENCE;
        loop {
            match work(self) {
                Err(_) if again && Instant::now() < until => thread::sleep(AGAIN),
                result => return result,
            }
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // A document that failed in the middle leaves its node running. What else fails here has ended already.
        let mut down = Command::new(programs().join("mesh"));
        down.arg("down").env_clear().env("HOME", &self.home).stdout(Stdio::null()).stderr(Stdio::null());
        let _ = down.status();
        let group = format!("-{}", self.shell.id());
        let _ = Command::new("kill").args(["-KILL", "--", &group]).stderr(Stdio::null()).status();
        let _ = self.shell.wait();
    }
}
