//! What users do in their folders.

use meshwork_replica::{feed::Name, folder::observed::Path};

use super::World;
use crate::sim::disk::{Shown, content_of};

const NAMES: [&str; 6] = ["a", "b", "c.txt", "d", "e.tar.gz", "f"];
const DEPTH: usize = 3;

impl World {
    pub(super) fn user(&mut self, device: usize) {
        // A few operations in a row, as a program or a person in a hurry does.
        for _ in 0..1 + self.fate.below(3) {
            self.user_operation(device);
        }
    }

    fn user_operation(&mut self, device: usize) {
        let tree: Vec<(Path, Shown)> = self.devices[device].disk.tree().into_iter().collect();
        let files: Vec<Path> =
            tree.iter().filter(|(_, shown)| *shown != Shown::Dir).map(|(path, _)| path.clone()).collect();
        let dirs: Vec<Path> =
            tree.iter().filter(|(_, shown)| *shown == Shown::Dir).map(|(path, _)| path.clone()).collect();
        let all: Vec<Path> = tree.iter().map(|(path, _)| path.clone()).collect();
        let slot = self.slot(&dirs);
        let occupied = tree.iter().find(|(path, _)| *path == slot).map(|(_, shown)| shown.clone());
        let any = self.fate.pick(&all).cloned();
        let file = self.fate.pick(&files).cloned();
        match self.fate.below(20) {
            0..=4 if !matches!(occupied, Some(Shown::Dir)) => {
                let what = if occupied.is_some() { "user: write over" } else { "user: write new" };
                let bytes = self.fresh_bytes();
                self.user_write(device, slot, bytes, what);
            }
            5 if !matches!(occupied, Some(Shown::Dir)) => {
                let closed: Vec<Vec<u8>> = self.closed.values().cloned().collect();
                let Some(bytes) = self.fate.pick(&closed).cloned() else {
                    return;
                };
                self.user_write(device, slot, bytes, "user: write equal content");
            }
            6..=8 => {
                let Some(path) = file else { return };
                let bytes = self.fresh_bytes();
                self.user_write(device, path, bytes, "user: write over");
            }
            9 | 10 => self.user_remove(device, file, "user: delete"),
            11 => {
                let dir = self.fate.pick(&dirs).cloned();
                self.user_remove(device, dir, "user: delete directory");
            }
            12 | 13 if occupied.is_none() && self.devices[device].disk.make_dir(&slot) => {
                self.done(device, "user: make directory", &[slot]);
            }
            14..=16 if occupied.is_none() => {
                let Some(from) = any else { return };
                if self.devices[device].disk.rename(&from, &slot) {
                    self.done(device, "user: rename", &[from, slot]);
                }
            }
            17 => self.user_move_over(device, file, &files),
            18 => {
                let (Some(one), Some(other)) = (any, self.fate.pick(&all).cloned()) else {
                    return;
                };
                if one != other && self.devices[device].disk.swap(&one, &other) {
                    self.done(device, "user: swap", &[one, other]);
                }
            }
            _ if occupied.is_none() => {
                let target = format!("to {}", self.fate.below(4));
                if self.devices[device].disk.make_symlink(&slot, target.as_bytes()) {
                    self.done(device, "user: link", &[slot]);
                }
            }
            _ => {}
        }
    }

    /// A name in some directory.
    fn slot(&mut self, dirs: &[Path]) -> Path {
        let above: Vec<Path> = dirs.iter().filter(|dir| dir.len() < DEPTH).cloned().collect();
        let mut slot =
            if self.fate.once_in(3) { Path::new() } else { self.fate.pick(&above).cloned().unwrap_or_default() };
        let name = NAMES[self.fate.index(NAMES.len())];
        slot.extend(Name::try_from(name));
        slot
    }

    fn fresh_bytes(&mut self) -> Vec<u8> {
        self.writes += 1;
        let size = self.fate.below(40) as usize;
        let mut bytes = format!("version {}", self.writes).into_bytes();
        bytes.resize(bytes.len() + size, b'.');
        bytes
    }

    fn user_write(&mut self, device: usize, path: Path, bytes: Vec<u8>, what: &'static str) {
        let before = self.devices[device].disk.read(&path);
        if !self.devices[device].disk.write(&path, bytes.clone()) {
            return;
        }
        if let Some(before) = before.filter(|before| *before != bytes) {
            self.given_up.insert(content_of(&before));
            self.devices[device].before.insert(path.clone(), before);
        }
        let content = content_of(&bytes);
        if self.leaver == Some(device) || self.is_guest(device) {
            self.closers.entry(content).or_default().insert(device);
        }
        self.trace
            .line(|| format!("              device {device} closes {content:?} {:?}", String::from_utf8_lossy(&bytes)));
        self.devices[device].seen.insert(content);
        self.closed.insert(content, bytes);
        self.done(device, what, &[path]);
    }

    fn user_remove(&mut self, device: usize, path: Option<Path>, what: &'static str) {
        let Some(path) = path else { return };
        let gone = self.contents_under(device, &path);
        if self.devices[device].disk.remove(&path) {
            self.given_up.extend(gone);
            self.done(device, what, &[path]);
        }
    }

    fn user_move_over(&mut self, device: usize, from: Option<Path>, files: &[Path]) {
        let (Some(from), Some(to)) = (from, self.fate.pick(files).cloned()) else {
            return;
        };
        let gone = self.contents_under(device, &to);
        if self.devices[device].disk.rename(&from, &to) {
            self.given_up.extend(gone);
            self.done(device, "user: move over", &[from, to]);
        }
    }

    fn done(&mut self, device: usize, what: &'static str, paths: &[Path]) {
        self.counts.add(what);
        self.trace.bytes(what.as_bytes());
        self.trace.line(|| format!("              device {device}: {what} {paths:?}"));
        if self.removed && self.is_malicious(device) {
            self.counts.add("malice: writes after its removal");
        }
        if self.devices[device].replica.is_none() {
            self.counts.add("user: while the node is down");
        }
        let dirs: Vec<Path> = paths.iter().map(|path| path[..path.len().saturating_sub(1)].to_vec()).collect();
        self.touched(device, dirs);
    }
}
