//! What is found in the memory and on the disks of those who help others: nothing of what these have.

use std::{
    collections::BTreeSet,
    fs, io,
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
};

use meshwork_tests::{
    device::{Device, figure, wait_equal, wait_for},
    lab::{Kind, Lab},
    server::Server,
};

use super::{
    Outcome,
    meeting::{RELAYS, places},
};

/// What is looked for: names of devices, a folder and files, and what is in these.
const DEVICES: [&str; 2] = ["nobodys-desk", "nobodys-lap"];
const FOLDER: &str = "Papers of nobody";
const FILE: &str = "tax-return-of-nobody";
const CONTENT: &str = "the quick brown marker jumps over the lazy memory";
const NAMES: [&str; 4] = [DEVICES[0], DEVICES[1], FOLDER, FILE];
const NEEDLES: [&str; 5] = [DEVICES[0], DEVICES[1], FOLDER, FILE, CONTENT];

const FILES: usize = 50;
/// Lines of the one large file, which travels over the data port.
const LINES: usize = 100_000;

/// More of a mapping than this is not read at one time.
const PIECE: usize = 16 << 20;
/// What two pieces have in common, more than anything that is looked for.
const OVERLAP: usize = 4_096;

/// Two devices that meet at a bootstrap and exchange everything through a relay leave no trace of what they have in the memory
/// and on the disks of either. The relay can write nowhere.
pub(super) fn servers_hold_nothing() -> Outcome {
    let mut lab = Lab::new()?;
    DEVICES.iter().try_for_each(|host| lab.add_site(host, Kind::Symmetric))?;
    let relay = Server::relay_reading_in(&lab, RELAYS[0]);
    let bootstrap = Server::bootstrap_in(&lab, RELAYS[1]);
    let [desk, lap] = DEVICES.map(|host| Device::start_in(&lab, host));
    desk.mesh(&["relay", "add", &relay.address()]).expect("the address is right");
    desk.mesh(&["bootstrap", "add", &bootstrap.address()]).expect("the address is right");
    wait_for("a place at the relay", || (places(&desk) == 1).then_some(()));
    let (code, _) = desk.offer();
    lap.mesh(&["join", &code, "--bootstrap", &bootstrap.address()]).expect("the code is found");
    let folders = [desk.dir(FOLDER), lap.dir(FOLDER)];
    fill(&folders[0])?;
    let before = lab.bytes(RELAYS[0])?;
    desk.add(FOLDER);
    lap.get(FOLDER);
    wait_equal(&folders[0], &folders[1]);
    fs::write(folders[1].join(format!("{FILE} back")), CONTENT)?;
    wait_equal(&folders[0], &folders[1]);
    let carried = lab.bytes(RELAYS[0])? - before;
    figure("lab_secrecy_carried", carried, "bytes");

    let mut missed = Vec::new();
    if carried < 2 * (LINES * CONTENT.len()) as u64 {
        missed.push(format!("only {carried} bytes went through the relay"));
    }
    missed.extend(writable(relay.process_id(), &relay.disk().join("home"))?);
    for (who, server) in [("relay", &relay), ("bootstrap", &bootstrap)] {
        // A dump where not even this is found would be none.
        let own = server.disk().display().to_string();
        let mut search = Search::of([&NEEDLES[..], &[&own]].concat());
        search.memory(server.process_id())?;
        search.disk(server.disk())?;
        figure(&format!("lab_secrecy_{who}_searched"), search.bytes, "bytes");
        if search.found != BTreeSet::from([own.as_str()]) {
            missed.push(format!("of what it knows and what it must not, the {who} holds {:?}", search.found));
        }
    }
    for (device, folder) in [(&desk, &folders[0]), (&lap, &folders[1])] {
        let mut search = Search::of(NEEDLES.to_vec());
        search.memory(device.process_id())?;
        if !NAMES.iter().all(|name| search.found.contains(name)) {
            missed.push(format!("the same search finds only {:?} in the memory of a node", search.found));
        }
        search.disk(&device.home())?;
        search.disk(folder)?;
        if search.found != BTreeSet::from(NEEDLES) {
            missed.push(format!("the same search finds only {:?} in all that a node has", search.found));
        }
    }
    Ok(missed)
}

fn fill(folder: &Path) -> io::Result<()> {
    (0..FILES).try_for_each(|file| fs::write(folder.join(format!("{FILE} {file}")), format!("{file} {CONTENT}")))?;
    // Numbered, so that no part of it is like another and all of it travels.
    let lines: String = (0..LINES).map(|line| format!("{line} {CONTENT}\n")).collect();
    fs::write(folder.join(FILE), lines)
}

/// Complains unless a process sees the root and its home read-only.
fn writable(process: u32, home: &Path) -> io::Result<Vec<String>> {
    let mounts = fs::read_to_string(format!("/proc/{process}/mountinfo"))?;
    // The last of a place lies over the others.
    let is_read_only = |place: &Path| {
        let options = mounts.lines().rev().find_map(|line| {
            let mut words = line.split(' ').skip(4);
            (Path::new(words.next()?) == place).then(|| words.next().unwrap_or_default().to_owned())
        });
        options.is_some_and(|options| options.split(',').any(|option| option == "ro"))
    };
    let places = [Path::new("/"), home].into_iter().filter(|place| !is_read_only(place));
    Ok(places.map(|place| format!("the relay can write to {}", place.display())).collect())
}

/// A search of bytes for several texts.
struct Search<'a> {
    needles: Vec<&'a str>,
    found: BTreeSet<&'a str>,
    /// How many were searched.
    bytes: usize,
}

impl<'a> Search<'a> {
    fn of(needles: Vec<&'a str>) -> Search<'a> {
        Search { needles, found: BTreeSet::new(), bytes: 0 }
    }

    fn look(&mut self, bytes: &[u8]) {
        self.bytes += bytes.len();
        let holds = |needle: &str| bytes.windows(needle.len()).any(|part| part == needle.as_bytes());
        self.found.extend(self.needles.iter().filter(|needle| holds(needle)));
    }

    /// The files below a directory and their names.
    fn disk(&mut self, place: &Path) -> io::Result<()> {
        let mut todo: Vec<PathBuf> = vec![place.to_path_buf()];
        while let Some(path) = todo.pop() {
            self.look(path.strip_prefix(place).unwrap_or(&path).as_os_str().as_encoded_bytes());
            if path.is_dir() {
                todo.extend(fs::read_dir(&path)?.flatten().map(|entry| entry.path()));
            } else if path.is_file() {
                self.look(&fs::read(&path)?);
            }
        }
        Ok(())
    }

    /// Everything that a process has in memory and can read.
    fn memory(&mut self, process: u32) -> io::Result<()> {
        let memory = fs::File::open(format!("/proc/{process}/mem"))?;
        let mut piece = vec![0; PIECE];
        for mapping in fs::read_to_string(format!("/proc/{process}/maps"))?.lines() {
            let Some((range, rest)) = mapping.split_once(' ') else { continue };
            let Some((from, to)) = range.split_once('-') else { continue };
            let (Ok(mut from), Ok(to)) = (u64::from_str_radix(from, 16), u64::from_str_radix(to, 16)) else { continue };
            while rest.starts_with('r') && from < to {
                let wanted = usize::try_from(to - from).unwrap_or(PIECE).min(PIECE);
                // Pages of the kernel's own, [vvar] among them, cannot be read.
                let Ok(read @ 1..) = memory.read_at(&mut piece[..wanted], from) else { break };
                self.look(&piece[..read]);
                from += if read == PIECE { PIECE - OVERLAP } else { read } as u64;
            }
        }
        Ok(())
    }
}
