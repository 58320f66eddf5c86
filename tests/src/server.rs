//! A relay or bootstrap for tests: a real process with a home of its own, on loopback or on a host of a laboratory.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use serde_json::Value;
use tempfile::TempDir;

use crate::{
    device::{free_port, programs, wait_for},
    lab::{Host, Lab},
};

/// A running (or stopped) relay or bootstrap with its directory.
pub struct Server {
    program: &'static str,
    /// Where it runs, unless on loopback.
    host: Option<Host>,
    /// Kept over restarts.
    port: u16,
    place: TempDir,
    process: Option<Child>,
    /// Whether it can write to its log and the socket where it tells its health, and nowhere else.
    is_read_only: bool,
}

/// Runs a program that can write to the directory that comes first, though not to the home there, and nowhere else. A host of
/// a laboratory has mounts of its own.
const READ_ONLY: &str = r#"mount --bind "$0" "$0" && mount --bind "$0/home" "$0/home" &&
mount -o remount,ro,bind "$0/home" && mount -o remount,ro,bind / && exec "$@""#;

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

impl Server {
    /// Starts a new relay on a host of a laboratory.
    pub fn relay_in(lab: &Lab, host: &str) -> Server {
        Server::start("mesh-relay", Some(lab.host(host)), 4001, false)
    }

    /// The same with a disk that cannot be written.
    pub fn relay_reading_in(lab: &Lab, host: &str) -> Server {
        Server::start("mesh-relay", Some(lab.host(host)), 4001, true)
    }

    /// Starts a new bootstrap on a host of a laboratory, perhaps beside a relay.
    pub fn bootstrap_in(lab: &Lab, host: &str) -> Server {
        Server::start("mesh-bootstrap", Some(lab.host(host)), 4011, false)
    }

    /// Starts a new relay on loopback.
    pub fn relay() -> Server {
        Server::start("mesh-relay", None, free_port(), false)
    }

    /// Its process.
    ///
    /// # Panics
    /// When it does not run.
    pub fn process_id(&self) -> u32 {
        self.process.as_ref().expect("it runs").id()
    }

    /// Starts a new bootstrap on loopback.
    pub fn bootstrap() -> Server {
        Server::start("mesh-bootstrap", None, free_port(), false)
    }

    fn start(program: &'static str, host: Option<Host>, port: u16, is_read_only: bool) -> Server {
        let place = tempfile::Builder::new().prefix("server-").tempdir().expect("a directory for a server");
        let mut server = Server { program, host, port, place, process: None, is_read_only };
        let mut init = server.command();
        init.args(["init", "--home"]).arg(server.home()).stdout(Stdio::null());
        assert!(init.status().is_ok_and(|status| status.success()), "a home for a server");
        server.run();
        server
    }

    fn command(&self) -> Command {
        let program = programs().join(self.program);
        if let Some(host) = self.host.as_ref().filter(|_| self.is_read_only && self.home().exists()) {
            let mut command = host.command("sh");
            command.args(["-c", READ_ONLY]).arg(self.place.path()).arg(program);
            return command;
        }
        self.host.as_ref().map_or_else(|| Command::new(&program), |host| host.command(&program))
    }

    /// Starts it (again, as the same server), and waits until it listens.
    pub fn run(&mut self) {
        let log = fs::File::create(self.place.path().join("log")).expect("a log");
        let listen =
            self.host.as_ref().map_or_else(|| format!("127.0.0.1:{}", self.port), |host| host.socket(self.port));
        let health = self.place.path().join("health");
        let mut command = self.command();
        command.args(["run", "--json", "--log", "info", "--listen", &listen]);
        command.arg("--health").arg(health).arg("--home").arg(self.home()).stdin(Stdio::null()).stderr(log);
        self.process = Some(command.spawn().expect("the program is built"));
        wait_for("the server to listen over QUIC and TCP", || (self.addresses().len() == 2).then_some(()));
    }

    /// Ends it without a warning.
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().expect("the server can be killed");
            process.wait().expect("the server ends");
        }
    }

    /// Has it carry for invited devices alone, after its next start; `more` is the rest of the section.
    pub fn invite_only(&self, more: &str) {
        let config = self.home().join("config.toml");
        let text = fs::read_to_string(&config).expect("its settings");
        let (before, _) = text.split_once("[service.admission]").expect("the section on admission");
        let section = format!("{before}[service.admission]\nmode = \"invited\"\n{more}\n");
        fs::write(config, section).expect("its settings are written");
    }

    /// A ticket for a device, and the name by which it is withdrawn.
    pub fn invite(&self, device: &str) -> (String, String) {
        let made = self.command().args(["invite", device, "--json", "--home"]).arg(self.home()).output();
        let made: Value = serde_json::from_slice(&made.expect("it runs").stdout).expect("a ticket");
        let word = |key: &str| made[key].as_str().expect("a word").to_owned();
        (word("ticket"), word("name"))
    }

    /// All that it has on its disk, and its log.
    pub fn disk(&self) -> &Path {
        self.place.path()
    }

    fn home(&self) -> PathBuf {
        self.place.path().join("home")
    }

    /// The address that its operator passes on.
    pub fn address(&self) -> String {
        self.addresses().into_iter().find(|address| address.contains("/tcp/")).expect("it listens over TCP")
    }

    /// The addresses that it tells its operator.
    pub fn addresses(&self) -> Vec<String> {
        let log = fs::read_to_string(self.place.path().join("log")).unwrap_or_default();
        let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let listening = lines.filter(|line| line["message"] == "listening");
        listening.filter_map(|line| Some(line["address"].as_str()?.to_owned())).collect()
    }
}
