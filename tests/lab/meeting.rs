//! Two fresh devices in networks of two kinds, the relays that one of them knows, and what they do together.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use meshwork_tests::{
    device::{Device, noise, wait_for},
    lab::{Kind, Lab},
    server::Server,
};

use super::own::Probe;

/// How long a better path may take to come about.
pub(super) const SOON: Duration = Duration::from_secs(10);
/// The size of a file that is worth measuring.
pub(super) const LARGE: usize = 8 << 20;
const FOLDER: &str = "Stuff";

/// The hosts where relays run. In a net that lets through a relay alone, that is the first.
pub(super) const RELAYS: [&str; 2] = ["relay", "boot"];

/// Who meets, and where. What runs inside ends before the laboratory does.
pub(super) struct Meeting {
    pub(super) x: Device,
    pub(super) y: Device,
    pub(super) relays: [Server; 2],
    pub(super) lab: Lab,
    folders: [PathBuf; 2],
    edits: u64,
}

/// A file on its way.
pub(super) struct Sent {
    pub(super) begin: Instant,
    there: PathBuf,
    bytes: Vec<u8>,
}

impl Sent {
    pub(super) fn has_arrived(&self) -> bool {
        holds(&self.there, &self.bytes)
    }
}

impl Drop for Meeting {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("{}", self.logs());
        }
    }
}

impl Meeting {
    /// Brings up two devices; the mesh of the first has the relays.
    pub(super) fn new(one: Kind, other: Kind) -> io::Result<Meeting> {
        let mut lab = Lab::new()?;
        lab.add_site("x", one)?;
        lab.add_site("y", other)?;
        Ok(Meeting::within(lab, if one == Kind::RelayOnly { 1 } else { 2 }))
    }

    /// The same in a laboratory with the hosts `x` and `y`, where `x` reaches so many relays. A link leads through those
    /// where its device has a place already, and the other device may reach but one.
    pub(super) fn within(lab: Lab, reached: usize) -> Meeting {
        let relays = RELAYS.map(|host| Server::relay_in(&lab, host));
        let (x, y) = (Device::start_in(&lab, "x"), Device::start_in(&lab, "y"));
        for address in relays.iter().flat_map(Server::addresses) {
            x.mesh(&["relay", "add", &address]).expect("the address is right");
        }
        wait_for("places at relays", || (places(&x) == reached).then_some(()));
        let folders = [x.dir(FOLDER), y.dir(FOLDER)];
        Meeting { x, y, relays, lab, folders, edits: 0 }
    }

    /// Lets the second into the mesh of the first, by link.
    pub(super) fn pair(&self) -> Duration {
        let (_, link) = self.x.offer();
        let begin = Instant::now();
        self.y.mesh(&["join", &link]).expect("the link is right");
        begin.elapsed()
    }

    /// How each says that it reaches the other: `quic`, `tcp` or `relayed`.
    pub(super) fn paths(&self) -> Option<[String; 2]> {
        Some([path(&self.x)?, path(&self.y)?])
    }

    /// Both come back at another port, and know nobody's address any more.
    pub(super) fn move_away(&mut self) {
        for device in [&mut self.x, &mut self.y] {
            device.stop();
            device.move_away();
        }
        self.x.run();
        self.y.run();
    }

    /// Whether one says that it is connected with the other.
    pub(super) fn sees(&self, side: usize) -> bool {
        path([&self.x, &self.y][side]).is_some()
    }

    /// Waits until both reach each other, directly where that is wanted and comes soon.
    pub(super) fn connect(&self, directly: bool) -> [String; 2] {
        let end = Instant::now() + SOON;
        wait_for("the devices to reach each other", || {
            self.paths().filter(|paths| !directly || is_direct(paths) || Instant::now() > end)
        })
    }

    /// Shares a folder of the first.
    pub(super) fn share(&mut self) {
        self.x.add(FOLDER);
        self.y.get(FOLDER);
        self.edit(0);
    }

    /// One writes; how long it takes until the other has it.
    pub(super) fn edit(&mut self, author: usize) -> Duration {
        let begin = Instant::now();
        self.write(author);
        self.wait_for_edit(author);
        begin.elapsed()
    }

    /// One writes.
    pub(super) fn write(&mut self, author: usize) {
        self.edits += 1;
        fs::write(self.folders[author].join(note(author)), self.edits.to_string()).expect("written");
    }

    /// Whether the other has what this one wrote last.
    pub(super) fn has_edit(&self, author: usize) -> bool {
        let read = |side: usize| fs::read(self.folders[side].join(note(author))).ok();
        read(author).is_some_and(|text| read(1 - author) == Some(text))
    }

    pub(super) fn wait_for_edit(&self, author: usize) {
        wait_for("an edit to arrive", || self.has_edit(author).then_some(()));
    }

    /// One puts a large file into the folder; how long it takes until the other has it.
    pub(super) fn send(&mut self, author: usize) -> Duration {
        let sent = self.begin_to_send(author, LARGE);
        wait_for("a large file to arrive", || sent.has_arrived().then_some(()));
        sent.begin.elapsed()
    }

    /// One puts a file of this size into the folder.
    pub(super) fn begin_to_send(&mut self, author: usize, size: usize) -> Sent {
        self.edits += 1;
        let (name, bytes) = (format!("large-{}", self.edits), noise(self.edits, size));
        let draft = self.folders[author].with_extension("draft");
        fs::write(&draft, &bytes).expect("written");
        let begin = Instant::now();
        fs::rename(&draft, self.folders[author].join(&name)).expect("moved in");
        Sent { begin, there: self.folders[1 - author].join(&name), bytes }
    }

    /// Asks a program on the host of the first through the second, by standard input and output; how long all of it takes.
    pub(super) fn ask_service(&self) -> io::Result<Duration> {
        let _echo = Probe::start(&self.lab, "x", "echo")?;
        self.x.mesh(&["service", "offer", "echo", "4002"]).expect("the name is right");
        wait_for("the service to be known", || {
            self.y.mesh(&["service", "ls"]).ok()?.to_string().contains("echo").then_some(())
        });
        let begin = Instant::now();
        let answer = self.y.command_there(&["open", "x:echo", "--stdio"], "is anybody there?");
        let taken = begin.elapsed();
        if answer.stdout == b"is anybody there?" {
            return Ok(taken);
        }
        Err(io::Error::other(format!("the service answered {answer:?}")))
    }

    /// Bytes that each relay has received and sent.
    pub(super) fn relayed(&self) -> io::Result<[u64; 2]> {
        Ok([self.lab.bytes(RELAYS[0])?, self.lab.bytes(RELAYS[1])?])
    }

    /// The end of what both have logged, to find out what went wrong.
    pub(super) fn logs(&self) -> String {
        let tail = |device: &Device| {
            let log = device.log();
            // Those are the questions of this test.
            let lines: Vec<&str> = log.lines().filter(|line| !line.contains("request verb=GET")).collect();
            lines[lines.len().saturating_sub(60)..].join("\n")
        };
        format!("-- log of x\n{}\n-- log of y\n{}", tail(&self.x), tail(&self.y))
    }
}

fn path(device: &Device) -> Option<String> {
    let status = device.mesh(&["status"]).ok()?;
    Some(status["peers"].get(0)?["transport"].as_str()?.to_owned())
}

fn note(author: usize) -> String {
    format!("note-{author}")
}

pub(super) fn is_direct(paths: &[String; 2]) -> bool {
    paths.iter().all(|path| path != "relayed")
}

/// Relays that a device has a place at.
pub(super) fn places(device: &Device) -> usize {
    let listed = device.mesh(&["relay", "ls"]).unwrap_or_default();
    let relays = listed.as_array().cloned().unwrap_or_else(|| vec![listed]);
    relays.iter().filter(|relay| relay["state"] == "in use").count()
}

fn holds(path: &Path, bytes: &[u8]) -> bool {
    let is_whole = fs::metadata(path).is_ok_and(|meta| meta.len() == bytes.len() as u64);
    is_whole && fs::read(path).is_ok_and(|found| found == bytes)
}
