//! What happens, told to whoever watches.

use meshwork_protocol::id::{DeviceId, ObjectId};
use meshwork_replica::{
    folder::{self, observed::Path},
    replica,
};
use serde_json::{Value, json};

use super::Driver;
use crate::{api::types::PairEvent, clock, resource::events};

/// Sentences about single files that are kept for `status`.
const PROBLEMS: usize = 32;

/// A path for people and JSON.
pub(super) fn text(path: &Path) -> String {
    let names: Vec<String> = path.iter().map(ToString::to_string).collect();
    names.join("/")
}

impl Driver {
    /// The title of a folder.
    pub(super) fn title_of(&self, object: ObjectId) -> String {
        let Some(replica) = &self.replica else { return object.short() };
        match replica.graph().object(object) {
            Some(entry) => entry.title,
            None if object == replica.mesh_id().into() => "this mesh".to_owned(),
            None => object.short(),
        }
    }

    /// The name of a device.
    pub(super) fn name_of(&self, device: DeviceId) -> String {
        let Some(replica) = &self.replica else { return device.short() };
        match replica.graph().device(device) {
            Some(entry) => entry.name,
            None => replica.person_of(device).map_or_else(
                || device.short(),
                |person| format!("a device of {} ({})", self.person_name(person), device.short()),
            ),
        }
    }

    /// What keeps single files of a folder from being in line.
    pub(super) fn problems_of(&self, object: ObjectId) -> Vec<String> {
        self.problems.get(&object).cloned().unwrap_or_default()
    }

    pub(super) fn report_peer(&mut self, device: DeviceId, up: bool) {
        let name = self.name_of(device);
        let (kind, what) = if up { (events::PEER_UP, "is connected") } else { (events::PEER_DOWN, "is gone") };
        let fields = [("device", json!(device.to_string())), ("name", json!(name))];
        self.log.post(clock::now(), kind, format!("{name} {what}"), fields);
    }

    pub(super) fn report_start(&mut self) {
        let fields = [("device", json!(self.network.device().to_string()))];
        self.log.post(clock::now(), events::NODE_STARTED, format!("{} has started", self.own_name), fields);
    }

    pub(super) fn report_pairing(&mut self, event: &PairEvent) {
        let (kind, said) = match event {
            PairEvent::Asked { name, .. } => {
                (events::PAIR_ASKED, format!("{name} knows the code and asks to be let in"))
            }
            PairEvent::Paired { name, .. } => (events::PAIR_DONE, format!("{name} was let in")),
            PairEvent::Failed { reason } => (events::PAIR_FAILED, format!("A pairing failed: {reason}")),
            PairEvent::Expired => (events::PAIR_FAILED, "A pairing code expired".to_owned()),
        };
        let device = match event {
            PairEvent::Asked { device, .. } | PairEvent::Paired { device, .. } => Some(("device", json!(device))),
            PairEvent::Failed { .. } | PairEvent::Expired => None,
        };
        self.log.post(clock::now(), kind, said, device);
    }

    pub(super) fn report(&mut self, event: replica::Event) {
        match event {
            replica::Event::Folder(object, event) => self.report_folder(object, event),
            replica::Event::DeviceAdded(device) => {
                let name = self.name_of(device);
                let fields = [("device", json!(device.to_string())), ("name", json!(name))];
                self.log.post(
                    clock::now(),
                    events::DEVICE_ADDED,
                    format!("{name} is a device of this mesh now"),
                    fields,
                );
            }
            replica::Event::DeviceRestored(device) => {
                let name = self.name_of(device);
                let fields = [("device", json!(device.to_string())), ("name", json!(name))];
                let text = format!("{name} was added with the recovery phrase");
                self.log.post(clock::now(), events::DEVICE_RESTORED, text, fields);
            }
            replica::Event::DeviceRemoved(device) => {
                let name = self.name_of(device);
                let fields = [("device", json!(device.to_string())), ("name", json!(name))];
                let text = format!("{name} was removed from this mesh");
                self.log.post(clock::now(), events::DEVICE_REMOVED, text, fields);
            }
            replica::Event::JudgedAgain { object, quarantined } => {
                let title = self.title_of(object);
                let fields = [("folder", json!(object.to_string())), ("quarantined", json!(quarantined))];
                let text = format!("{title}: what stands has changed; {quarantined} records are in quarantine");
                self.log.post(clock::now(), events::JUDGED_AGAIN, text, fields);
            }
            replica::Event::ChainForked { object, device } => {
                let (title, name) = (self.title_of(object), self.name_of(device));
                let fields = [("device", json!(device.to_string())), ("folder", json!(object.to_string()))];
                let text = format!(
                    "{title}: {name} has written two different things in one place. It was restored from a backup, or \
                     somebody else has its key; if nobody restored it, remove it"
                );
                self.note_problem(object, &text);
                self.log.post(clock::now(), events::DEVICE_FORKED, text, fields);
            }
            replica::Event::CopyNoticed(object) => {
                let fields = [("folder", json!(object.to_string()))];
                let text =
                    "Another copy of this device has written in its name. If you restored this one from a backup, \
                            all is well; if not, somebody has its key: remove this device from another one"
                        .to_owned();
                self.note_problem(object, &text);
                self.log.post(clock::now(), events::DEVICE_COPIED, text, fields);
            }
            replica::Event::StoreFailed => {
                let no_fields: [(&str, Value); 0] = [];
                let text =
                    "What happened could not be stored; nothing is recorded until the node starts again".to_owned();
                self.log.post(clock::now(), events::STORE_FAILED, text, no_fields);
            }
            replica::Event::FolderKnown(_) | replica::Event::FolderForgotten(_) | replica::Event::Refused { .. } => {}
        }
    }

    fn report_folder(&mut self, object: ObjectId, event: folder::Event) {
        let title = self.title_of(object);
        let whole = Path::new();
        let (kind, path, said, more) = match &event {
            folder::Event::Placed { path, size, conflict: false } => {
                (events::FILE_PLACED, path, format!("{title}/{} arrived", text(path)), vec![("size", json!(size))])
            }
            folder::Event::Placed { path, size, conflict: true } => {
                let said = format!("{title}/{}: two versions met; this one is kept beside", text(path));
                (events::FILE_CONFLICT, path, said, vec![("size", json!(size))])
            }
            folder::Event::Removed { path } => {
                (events::FILE_REMOVED, path, format!("{title}/{} was removed", text(path)), Vec::new())
            }
            folder::Event::Moved { from, to } => {
                let said = format!("{title}/{} is now {}", text(from), text(to));
                (events::FILE_MOVED, to, said, vec![("from", json!(text(from)))])
            }
            folder::Event::Recorded { operations } => {
                let said = format!("{title}: {operations} changes recorded");
                (events::FOLDER_RECORDED, &whole, said, vec![("operations", json!(operations))])
            }
            // Whoever asked is told.
            folder::Event::Put { .. } => return,
            folder::Event::Problem { path, reason } => {
                let said = format!("{title}/{}: {reason}", text(path));
                if !self.note_problem(object, &said) {
                    return;
                }
                (events::FILE_PROBLEM, path, said, vec![("reason", json!(reason))])
            }
            folder::Event::Stopped { reason } => {
                let more = vec![("state", json!("stopped")), ("reason", json!(reason))];
                (events::FOLDER_STATE, &whole, format!("{title} stopped: {reason}"), more)
            }
            folder::Event::Resumed => {
                (events::FOLDER_STATE, &whole, format!("{title} goes on"), vec![("state", json!("idle"))])
            }
        };
        let fields = [("folder", json!(object.to_string())), ("title", json!(title)), ("path", json!(text(path)))];
        self.log.post(clock::now(), kind, said, fields.into_iter().chain(more));
    }

    /// Keeps a sentence for `status`; tells whether it is new.
    fn note_problem(&mut self, object: ObjectId, said: &str) -> bool {
        let problems = self.problems.entry(object).or_default();
        if problems.iter().any(|known| known == said) {
            return false;
        }
        problems.truncate(PROBLEMS - 1);
        problems.insert(0, said.to_owned());
        true
    }
}
