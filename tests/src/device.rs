//! A device for tests: a real `mesh` process with a home and folders of its own, on loopback or in a laboratory.

use std::{
    collections::BTreeMap,
    fs,
    io::{self, BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;
use tempfile::TempDir;

use crate::lab::{Host, Lab};

/// How long anything may take before a test fails.
pub const PATIENCE: Duration = Duration::from_secs(120);
/// How often something is looked at while waiting for it.
const LOOK: Duration = Duration::from_millis(5);

/// The directory of the built programs.
pub fn programs() -> PathBuf {
    let own = std::env::current_exe().unwrap_or_default();
    let deps = own.parent().unwrap_or(Path::new("."));
    deps.parent().unwrap_or(deps).to_path_buf()
}

/// A port of loopback that nobody uses.
pub fn free_port() -> u16 {
    let free = std::net::TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
    free.expect("a free port").port()
}

/// Waits until `look` gives something.
///
/// # Panics
/// When that takes longer than [`PATIENCE`].
#[track_caller]
pub fn wait_for<T>(what: &str, look: impl FnMut() -> Option<T>) -> T {
    patiently(look).unwrap_or_else(|| panic!("waited too long for {what}"))
}

fn patiently<T>(mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let end = Instant::now() + PATIENCE;
    while Instant::now() < end {
        if let Some(found) = look() {
            return Some(found);
        }
        thread::sleep(LOOK);
    }
    None
}

/// A running (or stopped) node with its directory.
pub struct Device {
    name: String,
    /// Kept over restarts, as a node does that chooses its port itself.
    port: u16,
    /// Where it runs, unless on loopback.
    host: Option<Host>,
    place: TempDir,
    process: Option<Child>,
    /// What it logs, where that is not the usual.
    filter: Option<&'static str>,
}

impl Drop for Device {
    fn drop(&mut self) {
        self.kill();
    }
}

impl Device {
    /// Starts a new device.
    pub fn start(name: &str) -> Device {
        Device::start_logging(name, None)
    }

    /// Starts a new device that logs by another filter.
    pub fn start_logging(name: &str, filter: Option<&'static str>) -> Device {
        Device::start_at(name, None, free_port(), filter)
    }

    /// Starts a new device on a host of a laboratory, of the same name; it logs all that helps to find a fault. Commands
    /// are given outside, for the door of a node is a file.
    pub fn start_in(lab: &Lab, host: &str) -> Device {
        Device::start_at(host, Some(lab.host(host)), 4001, Some("info,meshwork=debug,meshwork_host=debug"))
    }

    fn start_at(name: &str, host: Option<Host>, port: u16, filter: Option<&'static str>) -> Device {
        let place = tempfile::Builder::new().prefix("mesh-").tempdir().expect("a directory for a device");
        let mut device = Device { name: name.to_owned(), port, host, place, process: None, filter };
        device.run();
        device
    }

    /// Starts its node (again), and waits until it answers.
    pub fn run(&mut self) {
        let log = fs::OpenOptions::new().create(true).append(true).open(self.place.path().join("log")).expect("a log");
        let program = programs().join("mesh");
        let (mut command, listen) = match &self.host {
            Some(host) => (host.command(program), host.everywhere(self.port)),
            None => (Command::new(program), self.address()),
        };
        command.args(["daemon", "--stop-with-stdin", "--no-mdns", "--listen", &listen, "--name", &self.name]);
        command.arg("--home").arg(self.home()).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(log);
        command.envs(self.filter.map(|filter| ("MESHWORK_LOG", filter)));
        self.process = Some(command.spawn().expect("the program mesh is built"));
        wait_for("the node to answer", || self.mesh(&["status"]).ok());
    }

    /// Ends its node without a warning.
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().expect("the node can be killed");
            process.wait().expect("the node ends");
        }
    }

    /// Asks its node to stop and waits for the end.
    pub fn stop(&mut self) {
        self.mesh(&["down"]).expect("the node stops when asked");
        if let Some(mut process) = self.process.take() {
            let status = process.wait().expect("the node ends");
            assert!(status.success(), "a clean stop: {status}");
        }
    }

    /// While its node is stopped: has it come back at another port, and know nobody's address any more.
    pub fn move_away(&mut self) {
        self.port = free_port();
        fs::remove_file(self.home().join("addresses.json")).expect("addresses are stored");
    }

    /// The process of its node.
    ///
    /// # Panics
    /// When it does not run.
    pub fn process_id(&self) -> u32 {
        self.process.as_ref().expect("it runs").id()
    }

    /// Its home.
    pub fn home(&self) -> PathBuf {
        self.place.path().join("home")
    }

    /// A directory of this device outside its home.
    pub fn dir(&self, name: &str) -> PathBuf {
        let dir = self.place.path().join(name);
        fs::create_dir_all(&dir).expect("a directory");
        dir
    }

    /// What its node has logged.
    pub fn log(&self) -> String {
        fs::read_to_string(self.place.path().join("log")).unwrap_or_default()
    }

    /// Runs a command and gives everything about how it ended.
    pub fn command(&self, arguments: &[&str], input: &str) -> Output {
        self.run_command(Command::new(programs().join("mesh")), arguments, input)
    }

    /// The same on the host where the device is.
    pub fn command_there(&self, arguments: &[&str], input: &str) -> Output {
        let program = programs().join("mesh");
        let command = self.host.as_ref().map_or_else(|| Command::new(&program), |host| host.command(&program));
        self.run_command(command, arguments, input)
    }

    fn run_command(&self, mut command: Command, arguments: &[&str], input: &str) -> Output {
        command.arg("--home").arg(self.home()).arg("--json").args(arguments);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut process = command.spawn().expect("the program mesh is built");
        // A command that reads nothing may have ended before.
        let _ = io::Write::write_all(&mut process.stdin.take().expect("a pipe"), input.as_bytes());
        process.wait_with_output().expect("the program ends")
    }

    /// Runs a command; the JSON that it prints, or exit code and what it says.
    pub fn mesh(&self, arguments: &[&str]) -> Result<Value, (i32, String)> {
        self.mesh_reading(arguments, "")
    }

    /// The same, with something to read on standard input.
    pub fn mesh_reading(&self, arguments: &[&str], input: &str) -> Result<Value, (i32, String)> {
        let output = self.command(arguments, input);
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            return Err((output.status.code().unwrap_or(-1), said));
        }
        let text = String::from_utf8_lossy(&output.stdout);
        let values: Vec<Value> = text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        Ok(match <[Value; 1]>::try_from(values) {
            Ok([value]) => value,
            Err(values) => Value::Array(values),
        })
    }

    /// Where its node listens, `ip:port`.
    pub fn address(&self) -> String {
        format!("{}:{}", self.host.as_ref().map_or("127.0.0.1", Host::address), self.port)
    }

    /// Shows a code and a link, confirming whoever has them.
    pub fn offer(&self) -> (String, String) {
        let offer = self.mesh(&["pair", "--yes", "--no-wait"]).expect("a code");
        let text = |field: &str| offer[field].as_str().expect("a text").to_owned();
        (text("code"), text("link"))
    }

    /// Lets `other` into the mesh of this device, by code.
    pub fn pair(&self, other: &Device) {
        let (code, _) = self.offer();
        other.mesh(&["join", &code, "--at", &self.address()]).expect("the code is right");
    }

    /// Shares a directory of this device.
    pub fn add(&self, name: &str) -> PathBuf {
        let dir = self.dir(name);
        self.mesh(&["folder", "add", &dir.display().to_string(), "--name", name]).expect("the folder is new");
        dir
    }

    /// Has a folder of the mesh here, too.
    pub fn get(&self, name: &str) -> PathBuf {
        let dir = self.dir(name);
        let path = dir.display().to_string();
        wait_for("the folder to be known", || self.mesh(&["folder", "get", name, &path]).ok());
        dir
    }

    /// Whether nothing is left to do in a folder, as far as this device knows.
    pub fn is_idle(&self, name: &str) -> bool {
        self.mesh(&["folder", "status", name]).is_ok_and(|status| {
            let status = status.get(0).cloned().unwrap_or(status);
            status["state"] == "idle" && status["waiting_files"] == 0
        })
    }
}

/// The events of a device, from the first.
pub struct Events {
    process: Child,
    lines: mpsc::Receiver<String>,
}

impl Events {
    /// Begins to watch.
    pub fn of(device: &Device) -> Events {
        let mut command = Command::new(programs().join("mesh"));
        command.arg("--home").arg(device.home()).args(["--json", "watch", "--since", "0"]);
        let mut process = command.stdout(Stdio::piped()).spawn().expect("the program mesh is built");
        let (sender, lines) = mpsc::sync_channel(1_024);
        let reader = BufReader::new(process.stdout.take().expect("a pipe"));
        thread::spawn(move || reader.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
        Events { process, lines }
    }

    /// The next event of this kind.
    pub fn next(&self, kind: &str) -> Value {
        loop {
            let line = self.lines.recv_timeout(PATIENCE).unwrap_or_else(|_| panic!("no event {kind}"));
            let event: Value = serde_json::from_str(&line).expect("an event");
            if event["kind"] == kind {
                return event;
            }
        }
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        // It may have ended with its node.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The files and directories below `root` by path; files with the hash of their bytes. The node's own
/// directory is left out.
pub fn tree(root: &Path) -> BTreeMap<PathBuf, Option<blake3::Hash>> {
    let mut found = BTreeMap::new();
    let mut todo = vec![root.to_path_buf()];
    while let Some(dir) = todo.pop() {
        for entry in fs::read_dir(&dir).into_iter().flatten().flatten() {
            let path = entry.path();
            let Ok(relative) = path.strip_prefix(root).map(Path::to_path_buf) else {
                continue;
            };
            if relative == Path::new(".meshwork") {
                continue;
            }
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                found.insert(relative, None);
                todo.push(path);
            } else {
                found.insert(relative, hash_file(&path).ok());
            }
        }
    }
    found
}

fn hash_file(path: &Path) -> io::Result<blake3::Hash> {
    let mut hasher = blake3::Hasher::new();
    io::copy(&mut fs::File::open(path)?, &mut hasher)?;
    Ok(hasher.finalize())
}

/// Waits until both directories hold the same.
#[track_caller]
pub fn wait_equal(one: &Path, other: &Path) {
    let names = |root: &Path| {
        let mut count = 0_usize;
        let mut todo = vec![root.to_path_buf()];
        while let Some(dir) = todo.pop() {
            for entry in fs::read_dir(&dir).into_iter().flatten().flatten() {
                count += 1;
                if entry.file_type().is_ok_and(|kind| kind.is_dir()) && entry.file_name() != ".meshwork" {
                    todo.push(entry.path());
                }
            }
        }
        count
    };
    // Counting is cheap, so that a large tree is hashed only when that may pay.
    if patiently(|| (names(one) == names(other) && tree(one) == tree(other)).then_some(())).is_none() {
        let (one, other) = (tree(one), tree(other));
        let differing = one.keys().chain(other.keys()).filter(|path| one.get(*path) != other.get(*path));
        panic!("waited too long for both folders to be equal: {:?}", differing.take(10).collect::<Vec<_>>());
    }
}

/// Files that are still on their way in a folder.
pub fn leftovers(root: &Path) -> Vec<PathBuf> {
    let temp = fs::read_dir(root.join(".meshwork/temp"));
    temp.into_iter().flatten().flatten().map(|entry| entry.path()).collect()
}

/// Bytes that repeat for nobody: the same for the same seed.
pub fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    blake3::Hasher::new().update(&seed.to_be_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

/// `count` files of `size` bytes under `root`, a hundred to a directory.
pub fn make_files(root: &Path, count: usize, size: usize, seed: u64) -> io::Result<()> {
    for number in 0..count {
        let dir = root.join(format!("d{:04}", number / 100));
        if number % 100 == 0 {
            fs::create_dir_all(&dir)?;
        }
        fs::write(dir.join(format!("f{number:06}")), noise(seed << 32 | number as u64, size))?;
    }
    Ok(())
}

/// A file of `size` bytes.
pub fn make_file(path: &Path, size: u64, seed: u64) -> io::Result<()> {
    let mut reader = blake3::Hasher::new().update(&seed.to_be_bytes()).finalize_xof();
    let mut file = io::BufWriter::with_capacity(1 << 20, fs::File::create(path)?);
    let mut buffer = vec![0; 1 << 20];
    let mut left = size;
    while left > 0 {
        let now = left.min(buffer.len() as u64) as usize;
        reader.fill(&mut buffer[..now]);
        io::Write::write_all(&mut file, &buffer[..now])?;
        left -= now as u64;
    }
    io::Write::flush(&mut file)
}

/// Prints a measured figure.
pub fn figure(name: &str, value: impl std::fmt::Display, unit: &str) {
    println!("FIGURE {name} {value} {unit}");
}
