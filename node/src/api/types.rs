//! The JSON of the local API: every type that a door reads or writes.
//!
//! Ids are lower-case hex. Times are milliseconds since the Unix epoch. A field that a program does
//! not know is to be ignored in answers; requests with unknown fields are refused.

use std::{borrow::Cow, collections::BTreeMap};

mod services;
mod sharing;

use serde::{Deserialize, Serialize};
use zeroize::Zeroize;

pub use services::{Service, ServiceGive, ServiceGrant, ServiceOffer, ServiceUser, Tunnel, TunnelOpen};
pub use sharing::{Accept, Card, CardName, Contact, ContactAdd, Member, Share, Shared};

/// `GET /v1/status`: this node in one answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// Id of this device.
    pub device: String,
    /// Name of this device, as the person gave it.
    pub name: String,
    /// Id of the mesh that this device belongs to.
    pub mesh: String,
    /// Whether the root secret of the mesh still waits in the key file for its phrase to be written down.
    pub root_on_disk: bool,
    /// Whether the mesh is frozen: two new phrases contend for its root, and none owns it.
    pub frozen: bool,
    /// Where this node listens.
    pub addresses: Vec<String>,
    /// Devices connected now.
    pub peers: Vec<Peer>,
    /// Folders that have a place on this device.
    pub folders: Vec<FolderStatus>,
    /// Seconds since the node started.
    pub uptime: u64,
    /// Version of the program that the node runs.
    pub version: String,
}

/// A device with a connection to this one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Peer {
    /// Id of the device.
    pub device: String,
    /// Its name.
    pub name: String,
    /// How the bytes go: `direct` or `relay`.
    pub path: String,
    /// Connected since, in milliseconds since the Unix epoch.
    pub since: u64,
    /// What carries the connection: `quic` or `tcp`, or `relayed`.
    pub transport: String,
}

/// `GET /v1/devices/{name or id}/ping`: how a device is reached.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ping {
    /// Id of the device.
    pub device: String,
    /// Its name.
    pub name: String,
    /// How the bytes go: `direct` or `relay`.
    pub path: String,
    /// What carries the connection: `quic` or `tcp`, or `relayed`.
    pub transport: String,
    /// Where it leads.
    pub address: String,
    /// The relay, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub relay: Option<String>,
    /// Connected since, in milliseconds since the Unix epoch.
    pub since: u64,
    /// How long words there and back took, in microseconds, one after the other.
    pub times: Vec<u64>,
    /// Why there is no direct way, as far as that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

/// A relay of the mesh: an element of `GET /v1/relays`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Relay {
    /// Its id.
    pub relay: String,
    /// Where it is.
    pub addresses: Vec<String>,
    /// `in use`: devices are called through it; `spare`; `away`: it cannot be reached; `refused`: it gives no place.
    pub state: String,
    /// What went wrong last.
    pub problem: Option<String>,
}

/// A bootstrap of the mesh: an element of `GET /v1/bootstraps`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Bootstrap {
    /// Its id.
    pub bootstrap: String,
    /// Where it is.
    pub addresses: Vec<String>,
    /// `in use`: it answered last; `away`: it did not, or refused; `spare`: it was not asked yet.
    pub state: String,
    /// What went wrong last.
    pub problem: Option<String>,
}

/// What was looked at: an element of `GET /v1/doctor`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Finding {
    /// What was looked at: `network`, `bootstrap`, `from outside`, `router`, `clock`, `relay` or `device`.
    pub check: String,
    /// `ok`; `note`: it works, and could be better; `bad`: it does not work.
    pub state: String,
    /// How it is, as a sentence.
    pub found: String,
    /// What helps, as a sentence, unless all is well.
    pub advice: Option<String>,
}

/// The body of `POST /v1/relays`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RelayAdd {
    /// The line that its operator gives.
    pub address: String,
    /// The ticket that its operator made for a device of this mesh, where it takes nobody without.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ticket: Option<String>,
}

/// The body of `POST /v1/bootstraps`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServerAdd {
    /// The line that its operator gives.
    pub address: String,
}

/// A device of the mesh: an element of `GET /v1/devices`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Device {
    /// Id of the device.
    pub device: String,
    /// Its name.
    pub name: String,
    /// Role in the mesh: `admin`, `device` or `helper`.
    pub role: String,
    /// Whether it is the device that answers.
    pub here: bool,
    /// Whether it is connected now (true for the device that answers).
    pub connected: bool,
}

/// `DELETE /v1/devices/{name}`: remove a device from the mesh.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeviceRemove {
    /// Whether nothing that it wrote stands, but what others have built on.
    #[serde(default)]
    pub void: bool,
}

/// `PUT /v1/devices/{name}`: give a device another role, or declare it away.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeviceRole {
    /// `admin`, `device` or `away`.
    pub role: String,
}

/// A statement of a control log: an element of `GET /v1/log`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogEntry {
    /// The mesh or object whose log it is.
    pub log: String,
    /// Its title.
    pub title: String,
    /// Place in the order in which the statements of this log came here; the first is 1.
    pub number: u64,
    /// Id of the statement.
    pub id: String,
    /// Key of whoever signed it.
    pub author: String,
    /// The author's name.
    pub name: String,
    /// The grant under which it was signed, or the genesis.
    pub via: String,
    /// When it came to this device, by its clock: milliseconds since the Unix epoch; null where that is not known.
    pub came: Option<u64>,
    /// What it says, in words.
    pub what: String,
    /// Whether it has effect.
    pub stands: bool,
}

/// A grant: an element of `GET /v1/caps`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cap {
    /// Id of the statement that grants.
    pub id: String,
    /// The mesh or object that it is for.
    pub log: String,
    /// Its title.
    pub title: String,
    /// Who holds it: a device of the mesh, or for an object a person.
    pub holder: String,
    /// The holder's name.
    pub name: String,
    /// What it permits.
    pub role: String,
    /// Key of whoever granted it.
    pub author: String,
    /// The author's name.
    pub author_name: String,
    /// The grant that the author relied on, or the genesis.
    pub via: String,
    /// `live`, `ended` by a removal or by leaving, or `void` because the grant before it does not stand.
    pub state: String,
    /// The statements that ended it.
    pub ended_by: Vec<String>,
}

/// A record that is held and does not stand: an element of `GET /v1/quarantine`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quarantined {
    /// Id of the folder.
    pub folder: String,
    /// Its title.
    pub title: String,
    /// The device that wrote it.
    pub device: String,
    /// The device's name.
    pub name: String,
    /// The device's chain in the folder.
    pub chain: String,
    /// Place in it.
    pub seq: u64,
    /// What it would have changed.
    pub changes: Vec<String>,
}

/// `POST /v1/quarantine`: take over what is in quarantine, as this device's own work.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Adopt {
    /// Title or id of the folder.
    pub folder: String,
    /// Name or id of the device that wrote it; without it, any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
    /// What is at or below these paths of the folder; without any, all.
    #[serde(default)]
    pub paths: Vec<String>,
}

/// What was taken over.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Adopted {
    /// Files, links and directories that are in the folder now.
    pub files: Vec<AdoptedFile>,
    /// How many the folder showed already.
    pub here: u64,
    /// Files whose bytes neither this device nor one that is connected has.
    pub missing: Vec<String>,
    /// What could not be put, and why.
    pub failed: Vec<String>,
}

/// Something that was taken over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AdoptedFile {
    /// Its path in quarantine.
    pub path: String,
    /// Where it is now: somewhere else where something has its name that its author had not seen.
    pub at: String,
}

/// `POST /v1/pairing`: let a new device in.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PairOpen {
    /// Admit whoever knows the code, without asking again.
    #[serde(default)]
    pub yes: bool,
}

/// What the new device needs, to be read out or sent by a private way.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PairingOffer {
    /// A number and three words.
    pub code: String,
    /// The code with the addresses of this device.
    pub link: String,
    /// Seconds until the code dies.
    pub expires_in_s: u64,
}

/// What happened to an open pairing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum PairEvent {
    /// A device that knows the code asks to be let in; `POST /v1/pairing/confirm` answers it.
    Asked {
        /// Id of the new device.
        device: String,
        /// The name that it gives itself.
        name: String,
    },
    /// The device is in.
    Paired {
        /// Id of the new device.
        device: String,
        /// Its name.
        name: String,
    },
    /// The pairing failed; the code is dead.
    Failed {
        /// Why, as a sentence.
        reason: String,
    },
    /// Nobody came in time; the code is dead.
    Expired,
}

/// `GET /v1/pairing`: the next event of the open pairing, or null when none came for a while (ask again).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PairPoll {
    /// The event, once.
    pub event: Option<PairEvent>,
}

/// `POST /v1/pairing/confirm`: answers [`PairEvent::Asked`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PairConfirm {
    /// Let the device in, or refuse it.
    pub yes: bool,
}

/// `POST /v1/join`: enter the mesh of the device that showed the code.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Join {
    /// The code or the link.
    pub code: String,
    /// Address of the device that showed it, where neither the link nor the local network tells.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<String>,
    /// Address of a bootstrap of that mesh, where the code can be looked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bootstrap: Option<String>,
}

/// This device is in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinResult {
    /// Id of the mesh that was entered.
    pub mesh: String,
    /// Id of the device that let this one in.
    pub device: String,
    /// Name of that device.
    pub name: String,
}

/// `POST /v1/folders`: make an existing directory a Live Folder, in place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FolderAdd {
    /// Absolute path of the directory.
    pub path: String,
    /// Title; the directory's own name when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
}

/// `PUT /v1/folders/{title or id}`: give a folder of the mesh a place on this device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FolderGet {
    /// Absolute path of the directory that is to hold it.
    pub path: String,
}

/// A folder of the mesh: an element of `GET /v1/folders`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Folder {
    /// Id of its object.
    pub id: String,
    /// Its title.
    pub title: String,
    /// Where it is on this device; null when it has no place here.
    pub path: Option<String>,
    /// Files that it holds.
    pub files: u64,
    /// Bytes of their content.
    pub bytes: u64,
}

/// `GET /v1/folders/{title or id}/status`: how far a folder is on this device.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FolderStatus {
    /// Id of its object.
    pub id: String,
    /// Its title.
    pub title: String,
    /// Where it is on this device.
    pub path: String,
    /// What the node does with it now.
    #[serde(flatten)]
    pub state: FolderState,
    /// Files that it holds here.
    pub files: u64,
    /// Bytes of their content.
    pub bytes: u64,
    /// Files known and not yet placed here.
    pub waiting_files: u64,
    /// Bytes known and not yet placed here.
    pub waiting_bytes: u64,
    /// Of those the files of which nobody who is connected has the bytes.
    pub missing_files: u64,
    /// Content received, bytes per second, over the last seconds.
    pub rate: u64,
    /// Kept conflicts that wait for a person.
    pub conflicts: u64,
    /// What keeps single files from being synced, a sentence each.
    pub problems: Vec<String>,
}

/// A version that a folder waits for on this device, and that nobody connected has: an element of
/// `GET /v1/folders/{title or id}/missing`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Missing {
    /// Where it is to be.
    pub path: String,
    /// Bytes.
    pub size: u64,
    /// The device that wrote it.
    pub device: String,
    /// What that device is called.
    pub name: String,
}

/// `DELETE /v1/folders/{title or id}/missing`: let go of what nobody has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LetGo {
    /// At or below these paths; everything where there is none.
    #[serde(default)]
    pub paths: Vec<String>,
}

/// What a node does with a folder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum FolderState {
    /// Nothing to do.
    Idle,
    /// Looking at the disk.
    Scanning,
    /// Sending, receiving or placing files.
    Syncing,
    /// Not synced until a person acts.
    Stopped {
        /// Why and what to do, as a sentence.
        reason: String,
    },
}

impl FolderState {
    /// One word for it.
    pub fn name(&self) -> &'static str {
        match self {
            FolderState::Idle => "idle",
            FolderState::Scanning => "scanning",
            FolderState::Syncing => "syncing",
            FolderState::Stopped { .. } => "stopped",
        }
    }
}

/// `GET /v1/recovery`: the phrase of the mesh's root secret. Neither printed by `Debug` nor kept.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecoveryPhrase {
    /// The words in their order.
    pub words: Vec<String>,
}

impl Drop for RecoveryPhrase {
    fn drop(&mut self) {
        self.words.zeroize();
    }
}

/// `POST /v1/recovery/confirm`: proves that the phrase was written down; the root secret is then wiped.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RecoveryConfirm {
    /// At least two words, each at another position.
    pub words: Vec<RecoveryWord>,
}

/// `POST /v1/recovery/use`: speak with the root's word, which the whole phrase gives.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RecoveryUse {
    /// The phrase: its words with spaces between them.
    pub phrase: String,
    /// Name or id of a device to remove. Without it, the device that answers becomes an admin.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remove: Option<String>,
    /// Name or id of a removed device to let in again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub readmit: Option<String>,
    /// Whether nothing that the removed device wrote stands, but what others have built on.
    #[serde(default)]
    pub void: bool,
}

impl Drop for RecoveryUse {
    fn drop(&mut self) {
        self.phrase.zeroize();
    }
}

/// `POST /v1/recovery/restore`: enter, on a blank device, the mesh that the phrase owns.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RecoveryRestore {
    /// The phrase: its words with spaces between them.
    pub phrase: String,
    /// Addresses of devices of the mesh. Without any, devices that the local network shows are asked.
    #[serde(default)]
    pub at: Vec<String>,
}

impl Drop for RecoveryRestore {
    fn drop(&mut self) {
        self.phrase.zeroize();
    }
}

/// `POST /v1/recovery/rotate`: put a new phrase in the place of the one that is given.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RecoveryRotate {
    /// The phrase that owns the mesh until now.
    pub phrase: String,
}

impl Drop for RecoveryRotate {
    fn drop(&mut self) {
        self.phrase.zeroize();
    }
}

/// A word of the phrase.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RecoveryWord {
    /// Position in the phrase; the first is 1.
    pub position: usize,
    /// The word.
    pub word: String,
}

impl Drop for RecoveryWord {
    fn drop(&mut self) {
        self.word.zeroize();
    }
}

/// `GET /v1/events`: what a stream starts after.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EventQuery {
    /// Start after the event of this id; 0 for all that are kept; left out for new ones only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<u64>,
}

/// Something happened on this node.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// Number of the event, rising by one; begins at 1 when the node starts.
    pub id: u64,
    /// When, in milliseconds since the Unix epoch.
    pub time: u64,
    /// What, as `noun.verb`: `file.placed`.
    pub kind: Cow<'static, str>,
    /// The same as a sentence for a person.
    pub text: String,
    /// The same for a program.
    pub fields: BTreeMap<String, serde_json::Value>,
}

/// An empty answer: it was done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Done {}

/// The body of every answer that is not a success.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct Problem {
    /// The HTTP status again.
    pub status: u16,
    /// A word for programs, stable over versions.
    pub code: Cow<'static, str>,
    /// What happened, as a sentence.
    pub message: String,
    /// What to do, as a sentence.
    pub fix: String,
}
