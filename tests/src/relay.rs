//! A relay for tests: a real `mesh-relay` process with a home of its own, on a host of a laboratory.

use std::{
    fs,
    path::PathBuf,
    process::{Child, Stdio},
};

use serde_json::Value;
use tempfile::TempDir;

use crate::{
    device::{programs, wait_for},
    lab::{Host, Lab},
};

/// A running (or stopped) relay with its directory.
pub struct Relay {
    host: Host,
    place: TempDir,
    process: Option<Child>,
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.kill();
    }
}

impl Relay {
    /// Starts a new relay on a host of a laboratory.
    pub fn start_in(lab: &Lab, host: &str) -> Relay {
        let place = tempfile::Builder::new().prefix("relay-").tempdir().expect("a directory for a relay");
        let mut relay = Relay { host: lab.host(host), place, process: None };
        let mut init = relay.host.command(programs().join("mesh-relay"));
        init.args(["init", "--home"]).arg(relay.home()).stdout(Stdio::null());
        assert!(init.status().is_ok_and(|status| status.success()), "a home for a relay");
        relay.run();
        relay
    }

    /// Starts it (again, as the same relay), and waits until it listens.
    pub fn run(&mut self) {
        let log = fs::File::create(self.place.path().join("log")).expect("a log");
        let mut command = self.host.command(programs().join("mesh-relay"));
        command.args(["run", "--json", "--log", "info", "--listen", &format!("{}:4001", self.host.address())]);
        command.arg("--home").arg(self.home()).stdin(Stdio::null()).stderr(log);
        self.process = Some(command.spawn().expect("the program mesh-relay is built"));
        wait_for("the relay to listen over QUIC and TCP", || (self.addresses().len() == 2).then_some(()));
    }

    /// Ends it without a warning.
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().expect("the relay can be killed");
            process.wait().expect("the relay ends");
        }
    }

    fn home(&self) -> PathBuf {
        self.place.path().join("home")
    }

    /// The addresses that it tells its operator.
    pub fn addresses(&self) -> Vec<String> {
        let log = fs::read_to_string(self.place.path().join("log")).unwrap_or_default();
        let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let listening = lines.filter(|line| line["message"] == "listening");
        listening.filter_map(|line| Some(line["address"].as_str()?.to_owned())).collect()
    }
}
