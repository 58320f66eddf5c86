//! The program as an operator meets it: started, probed, stopped.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// The promise is five seconds; a loaded machine may take longer to notice.
const STOP: Duration = Duration::from_secs(30);

struct Running {
    child: Child,
    lines: mpsc::Receiver<Value>,
}

impl Drop for Running {
    fn drop(&mut self) {
        // Already gone in a test that passed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn start(home: &Path) -> Running {
    let mut child =
        command(home).args(["--health", "127.0.0.1:0", "--json"]).stderr(Stdio::piped()).spawn().expect("spawn");
    let reader = BufReader::new(child.stderr.take().expect("piped"));
    let (sender, lines) = mpsc::sync_channel(1000);
    thread::spawn(move || {
        for line in reader.lines().map_while(Result::ok) {
            let Ok(line) = serde_json::from_str(&line) else {
                continue;
            };
            if sender.send(line).is_err() {
                break;
            }
        }
    });
    Running { child, lines }
}

fn command(home: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mesh-relay"));
    command.env_remove("RUST_LOG").env_remove("MESHWORK_LOG");
    command.args(["run", "--listen", "127.0.0.1:0", "--home"]).arg(home);
    command
}

impl Running {
    fn line(&self, message: &str) -> Value {
        loop {
            let line = self.lines.recv_timeout(Duration::from_secs(60)).expect("log line");
            if line["message"] == message {
                return line;
            }
        }
    }

    fn stop(&mut self) -> ExitStatus {
        let pid = Pid::from_child(&self.child);
        kill_process(pid, Signal::TERM).expect("signal");
        let begun = std::time::Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().expect("wait") {
                return status;
            }
            assert!(begun.elapsed() < STOP, "does not stop");
            thread::yield_now();
        }
    }
}

fn get(address: &str, path: &str) -> String {
    let mut stream = TcpStream::connect(address).expect("connect");
    write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").expect("write");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("read");
    answer
}

/// A home must be nobody else's, whatever the umask is.
fn private_dir() -> tempfile::TempDir {
    let private = std::os::unix::fs::PermissionsExt::from_mode(0o700);
    tempfile::Builder::new().permissions(private).tempdir().expect("temporary directory")
}

#[test]
fn it_starts_answers_probes_and_stops() {
    let home = private_dir();
    let mut first = start(home.path());
    let address = first.line("health")["address"].as_str().expect("address").to_owned();
    let device = first.line("started")["device"].clone();
    first.line("listening");
    assert!(get(&address, "/healthz").starts_with("HTTP/1.1 200"));
    while !get(&address, "/readyz").starts_with("HTTP/1.1 200") {}
    let second = command(home.path()).output().expect("second");
    assert!(!second.status.success());
    let said = String::from_utf8_lossy(&second.stderr).into_owned();
    assert!(said.contains("another process uses"), "{said}");
    assert!(first.stop().success());
    first.line("stopped");
    let mut again = start(home.path());
    assert_eq!(again.line("started")["device"], device, "the identity is kept");
    assert!(again.stop().success());
}

#[test]
fn mistakes_are_named() {
    let home = private_dir();
    std::fs::write(home.path().join("config.toml"), "lisen = []").expect("write");
    let output = command(home.path()).output().expect("run");
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("lisen"));
    std::fs::remove_file(home.path().join("config.toml")).expect("remove");
    let output = command(home.path()).args(["--health", "0.0.0.0:1"]).output().expect("run");
    assert!(String::from_utf8_lossy(&output.stderr).contains("loopback"));
    std::fs::write(home.path().join("config.toml"), "[service.admission]\nmembers_of = [\"me\"]").expect("write");
    let output = command(home.path()).output().expect("run");
    assert!(String::from_utf8_lossy(&output.stderr).contains("members_of: \"me\" is not an id"));
}
