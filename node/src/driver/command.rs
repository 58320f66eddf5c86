//! What people and programs ask of the node, carried out by the loop.

use std::path::{Path, PathBuf};

use meshwork_host::{entropy::Entropy, identity::IdentityError, swarm::Path as Way};
use meshwork_protocol::{
    control::{self, RootState},
    id::ObjectId,
    key::RootKey,
    phrase::Phrase,
};
use meshwork_replica::{
    folder,
    replica::{AuthorError, Input, Output, Replica},
};
use tokio::sync::oneshot;

use super::{
    Driver, authority, bootstraps, home,
    pairing::PairInput,
    relays,
    restore::{RestoreInput, under_way},
    services, sharing, tunnels,
};
use crate::{
    api::types::{
        Device, Finding, Folder, FolderAdd, FolderState, FolderStatus, Join, JoinResult, Missing, PairEvent,
        PairingOffer, Peer, Ping, RecoveryPhrase, RecoveryRestore, RecoveryRotate, RecoveryWord, Status,
    },
    disk::root::{FolderRoot, NewFolderError, check_new},
    resource::{KEY_NOT_HERE, ResourceError},
};

pub(crate) type Reply<T> = oneshot::Sender<Result<T, ResourceError>>;

/// What is asked.
pub(crate) enum Command {
    Status(Reply<Status>),
    PairOpen { yes: bool, reply: Reply<PairingOffer> },
    PairWait(Reply<PairEvent>),
    PairConfirm { yes: bool, reply: Reply<()> },
    PairCancel(Reply<()>),
    Join { join: Join, reply: Reply<JoinResult> },
    Devices(Reply<Vec<Device>>),
    Ping { device: String, reply: Reply<Ping> },
    Authority(authority::Ask),
    Sharing(sharing::Ask),
    Relays(relays::Ask),
    Bootstraps(bootstraps::Ask),
    Doctor(Reply<Vec<Finding>>),
    Services(services::Ask),
    Tunnels(tunnels::Ask),
    FolderAdd { add: FolderAdd, reply: Reply<Folder> },
    FolderGet { name: String, path: PathBuf, reply: Reply<Folder> },
    Folders(Reply<Vec<Folder>>),
    FolderStatus { name: String, reply: Reply<FolderStatus> },
    Missing { folder: String, reply: Reply<Vec<Missing>> },
    LetGo { folder: String, paths: Vec<String>, reply: Reply<Vec<Missing>> },
    RecoveryPhrase(Reply<RecoveryPhrase>),
    RecoveryConfirm { words: Vec<RecoveryWord>, reply: Reply<()> },
    RecoveryRestore { asked: RecoveryRestore, reply: Reply<JoinResult> },
    RecoveryRotate { asked: RecoveryRotate, reply: Reply<RecoveryPhrase> },
    Shutdown(oneshot::Sender<()>),
}

/// Answers; whoever asked may have gone meanwhile.
pub(super) fn answer<T>(reply: Reply<T>, result: Result<T, ResourceError>) {
    let _ = reply.send(result);
}

impl Driver {
    pub(super) fn on_command(&mut self, command: Command) {
        match command {
            Command::Status(reply) => {
                let status = self.status();
                answer(reply, Ok(status));
            }
            Command::PairOpen { yes, reply } => match self.ensure_mesh() {
                Ok(()) => self.drive_pairing(PairInput::Open { yes, reply }),
                Err(error) => answer(reply, Err(error)),
            },
            Command::PairWait(reply) => self.drive_pairing(PairInput::Wait(reply)),
            Command::PairConfirm { yes, reply } => self.drive_pairing(PairInput::Confirm { yes, reply }),
            Command::PairCancel(reply) => self.drive_pairing(PairInput::Cancel(reply)),
            Command::Join { join, reply } => self.drive_pairing(PairInput::Join { join, reply }),
            Command::Devices(reply) => {
                let devices = self.devices();
                answer(reply, Ok(devices));
            }
            Command::Ping { device, reply } => self.ping(&device, reply),
            Command::Authority(ask) => self.on_authority(ask),
            Command::Sharing(ask) => self.on_sharing(ask),
            Command::Relays(ask) => self.on_relays(ask),
            Command::Bootstraps(ask) => self.on_bootstraps(ask),
            Command::Doctor(reply) => self.doctor(reply),
            Command::Services(ask) => self.on_services(ask),
            Command::Tunnels(ask) => self.on_tunnels(ask),
            Command::FolderAdd { add, reply } => {
                let added = self.folder_add(add);
                answer(reply, added);
            }
            Command::FolderGet { name, path, reply } => {
                let got = self.folder_get(&name, &path);
                answer(reply, got);
            }
            Command::Folders(reply) => {
                let folders = self.folder_ids().into_iter().map(|object| self.folder_of(object)).collect();
                answer(reply, Ok(folders));
            }
            Command::FolderStatus { name, reply } => {
                let status = self
                    .find_folder(&name)
                    .and_then(|object| self.folder_status(object).ok_or_else(|| not_here(&name)));
                answer(reply, status);
            }
            Command::Missing { folder, reply } => {
                let missing = self.missing(&folder);
                answer(reply, missing);
            }
            Command::LetGo { folder, paths, reply } => {
                let gone = self.let_go(&folder, &paths);
                answer(reply, gone);
            }
            Command::RecoveryPhrase(reply) => {
                let phrase = self.ensure_mesh().and_then(|()| self.recovery_phrase());
                answer(reply, phrase);
            }
            Command::RecoveryConfirm { words, reply } => {
                let confirmed = self.recovery_confirm(&words);
                answer(reply, confirmed);
            }
            Command::RecoveryRestore { asked, reply } => self.drive_restore(RestoreInput::Seek { asked, reply }),
            Command::RecoveryRotate { asked, reply } => self.recovery_rotate(&asked, reply),
            Command::Shutdown(done) => self.stopping = Some(done),
        }
    }

    /// Founds a mesh with this device as its first, if it belongs to none yet.
    pub(super) fn ensure_mesh(&mut self) -> Result<(), ResourceError> {
        if self.replica.is_some() {
            return Ok(());
        }
        if self.restoring.is_seeking() || self.pairing.is_joining() {
            return Err(under_way());
        }
        let phrase = Phrase::generate(&mut self.rng);
        let seed = phrase.seed();
        let root = RootKey::from_seed(&seed, 0);
        let (device, seal) = (home::device_key(&self.identity), home::seal_key(&self.identity));
        let (mesh, items) = control::create_mesh(&mut self.rng, &root, &device, &seal).map_err(internal)?;
        self.keep_root(&phrase)?;
        let mut replica = home::replica(&self.identity, mesh);
        let outputs = replica.found(items).map_err(internal)?;
        self.replica = Some(replica);
        self.carry_out(outputs);
        let name = self.own_name.clone();
        self.with_replica(|replica, rng| replica.name_device(rng, &name))
    }

    /// Keeps a phrase in the key file until its owner has written it down.
    pub(super) fn keep_root(&mut self, phrase: &Phrase) -> Result<(), ResourceError> {
        if !self.identity.set_root_seed(zeroize::Zeroizing::new(phrase.entropy().to_vec())) {
            return Err(internal("the root secret does not fit the key file"));
        }
        self.identity.save(&self.home, &mut self.rng).map_err(|error| key_file(&error))
    }

    /// Asks the replica for something that it may refuse.
    fn with_replica(
        &mut self,
        ask: impl FnOnce(&mut Replica, &mut Entropy) -> Result<Vec<Output>, AuthorError>,
    ) -> Result<(), ResourceError> {
        if self.replica.is_none() {
            return Err(no_mesh());
        }
        self.ask_replica(ask).map_err(internal)
    }

    /// The same, for those who tell the refusals apart.
    pub(super) fn ask_replica(
        &mut self,
        ask: impl FnOnce(&mut Replica, &mut Entropy) -> Result<Vec<Output>, AuthorError>,
    ) -> Result<(), AuthorError> {
        let replica = self.replica.as_mut().ok_or(AuthorError::NotMember)?;
        let outputs = ask(replica, &mut self.rng)?;
        self.carry_out(outputs);
        Ok(())
    }

    fn folder_add(&mut self, add: FolderAdd) -> Result<Folder, ResourceError> {
        let path = PathBuf::from(&add.path);
        // Checked before anything is written, so that a refusal leaves no folder behind.
        check_new(&path, ObjectId([0; 32]), &self.home, &self.folders.paths()).map_err(|error| new_folder(&error))?;
        let base_name = path.file_name().map(|name| name.to_string_lossy().into_owned());
        let title = add.title.or(base_name).unwrap_or_else(|| "folder".to_owned());
        if !meshwork_protocol::pairing::is_name(&title) {
            return Err(ResourceError::bad_request(
                "A folder's name has 1 to 64 bytes and no control characters.",
                "Choose another one with --name.",
            ));
        }
        self.check_title_free(&title, None)?;
        self.ensure_mesh()?;
        let mut created = None;
        self.with_replica(|replica, rng| {
            let (object, outputs) = replica.create_folder(rng, &title)?;
            created = Some(object);
            Ok(outputs)
        })?;
        let object = created.ok_or_else(|| internal("no folder was made"))?;
        self.put_folder(object, &path)
    }

    fn folder_get(&mut self, name: &str, path: &Path) -> Result<Folder, ResourceError> {
        let object = self.find_folder(name)?;
        if self.replica.as_ref().is_none_or(|replica| replica.convergence(object).is_none()) {
            return Err(ResourceError::new(
                409,
                KEY_NOT_HERE,
                format!("The key of {name} has not arrived here yet."),
                "It comes by itself from a connected device; try again in a moment.",
            ));
        }
        if let Some(there) = self.folders.path(object) {
            return Err(ResourceError::new(
                409,
                "already_here",
                format!("{name} is on this device already, at {}.", there.display()),
                "Use it there.",
            ));
        }
        if let Err(error) = std::fs::create_dir_all(path) {
            return Err(ResourceError::new(
                422,
                "path",
                format!("{} cannot be made: {error}.", path.display()),
                "Choose a directory that you may write to.",
            ));
        }
        self.put_folder(object, path)
    }

    /// Gives a folder a place on this disk.
    fn put_folder(&mut self, object: ObjectId, path: &Path) -> Result<Folder, ResourceError> {
        let root = FolderRoot::create(path, object, &self.home, &self.folders.paths()).map_err(|e| new_folder(&e))?;
        self.folders.add(object, root).map_err(internal)?;
        self.with_replica(|replica, rng| replica.map_folder(rng, object))?;
        let convergence = self.replica.as_ref().and_then(|replica| replica.convergence(object)).cloned();
        self.folders.open(object, convergence.as_ref());
        self.drive(Input::Folder { object, input: folder::Input::DirtyEverywhere });
        Ok(self.folder_of(object))
    }

    fn recovery_phrase(&self) -> Result<RecoveryPhrase, ResourceError> {
        let phrase = self.held_phrase().ok_or_else(root_wiped)?;
        match self.root_state(&phrase.seed())? {
            Some(RootState::InForce | RootState::Frozen) => Ok(words_of(&phrase)),
            Some(RootState::Replaced) | None => Err(root_wiped()),
        }
    }

    /// The phrase that waits in the key file to be written down.
    pub(super) fn held_phrase(&self) -> Option<Phrase> {
        let entropy = self.identity.root_seed().and_then(|entropy| <&[u8; 16]>::try_from(entropy).ok());
        entropy.map(Phrase::from_entropy)
    }

    fn recovery_confirm(&mut self, words: &[RecoveryWord]) -> Result<(), ResourceError> {
        let phrase = self.recovery_phrase()?;
        let mut positions: Vec<usize> = words.iter().map(|word| word.position).collect();
        positions.sort_unstable();
        positions.dedup();
        let right = |word: &RecoveryWord| {
            let expected = word.position.checked_sub(1).and_then(|index| phrase.words.get(index));
            expected.is_some_and(|expected| expected.eq_ignore_ascii_case(word.word.trim()))
        };
        if positions.len() < 2 || !words.iter().all(right) {
            return Err(ResourceError::new(
                422,
                "wrong_words",
                "These are not the words of the phrase.",
                "Show it again with `mesh recovery write` and compare; nothing was wiped.",
            ));
        }
        self.identity.wipe_root(&self.home, &mut self.rng).map_err(|error| key_file(&error))
    }

    /// Refuses a title that another folder than `own` has.
    pub(super) fn check_title_free(&self, title: &str, own: Option<ObjectId>) -> Result<(), ResourceError> {
        let others = self.folder_ids().into_iter().filter(|object| Some(*object) != own);
        if others.map(|object| self.title_of(object)).all(|other| other != title) {
            return Ok(());
        }
        Err(ResourceError::new(
            409,
            "name_taken",
            format!("There is a folder named {title} already."),
            "Choose another name with --name.",
        ))
    }

    /// The folders of the mesh.
    pub(super) fn folder_ids(&self) -> Vec<ObjectId> {
        self.replica.iter().flat_map(Replica::folders).map(|folder| folder.object()).collect()
    }

    /// The folder with this title or id; several of one title are told apart by id.
    pub(super) fn find_folder(&self, name: &str) -> Result<ObjectId, ResourceError> {
        let ids = self.folder_ids();
        let found: Vec<ObjectId> =
            ids.into_iter().filter(|object| object.to_string() == name || self.title_of(*object) == name).collect();
        match found.as_slice() {
            [object] => Ok(*object),
            [] => Err(ResourceError::not_found(
                format!("There is no folder named {name}."),
                "List them with `mesh folder ls`; a new one may take a moment to be known here.",
            )),
            _ => Err(ResourceError::new(
                409,
                "ambiguous",
                format!("Several folders are named {name}."),
                "Name it by its id, from `mesh --json folder ls`.",
            )),
        }
    }

    pub(super) fn status(&self) -> Status {
        let replica = self.replica.as_ref();
        let folders = self.folders.objects().into_iter().filter_map(|object| self.folder_status(object)).collect();
        Status {
            device: self.network.device().to_string(),
            name: self.own_name.clone(),
            mesh: replica.map(|replica| replica.mesh_id().to_string()).unwrap_or_default(),
            root_on_disk: self.identity.root_seed().is_some(),
            frozen: replica.is_some_and(|replica| replica.control().is_frozen(replica.mesh_id())),
            addresses: self.listening.iter().map(ToString::to_string).collect(),
            peers: self
                .peers
                .connected()
                .map(|(device, path, since)| Peer {
                    device: device.to_string(),
                    name: self.name_of(device),
                    path: if path == Way::Relayed { "relay" } else { "direct" }.to_owned(),
                    since,
                    transport: path.as_str().to_owned(),
                })
                .collect(),
            folders,
            uptime: self.started.elapsed().as_secs(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
        }
    }

    fn devices(&self) -> Vec<Device> {
        let Some(replica) = &self.replica else {
            return Vec::new();
        };
        let devices = replica.control().devices(replica.mesh_id()).into_iter();
        devices.map(|(device, role)| self.device_entry(device, role)).collect()
    }

    pub(super) fn folder_of(&self, object: ObjectId) -> Folder {
        let totals = self.replica.as_ref().and_then(|replica| replica.folder(object)).map(|folder| folder.totals());
        let (files, bytes) = totals.unwrap_or_default();
        let path = self.folders.path(object).map(|path| path.display().to_string());
        Folder { id: object.to_string(), title: self.title_of(object), path, files, bytes }
    }

    fn folder_status(&self, object: ObjectId) -> Option<FolderStatus> {
        let replica = self.replica.as_ref()?;
        let folder = replica.folder(object)?;
        let path = self.folders.path(object)?.display().to_string();
        let (all_files, all_bytes) = folder.totals();
        let (waiting_files, waiting_bytes) = replica.transfers_left(object);
        let state = match folder.state() {
            folder::State::Stopped { reason } => FolderState::Stopped { reason },
            folder::State::Scanning { .. } => FolderState::Scanning,
            folder::State::Syncing { .. } => FolderState::Syncing,
            folder::State::Idle | folder::State::Unmapped if waiting_files > 0 => FolderState::Syncing,
            folder::State::Idle | folder::State::Unmapped => FolderState::Idle,
        };
        Some(FolderStatus {
            id: object.to_string(),
            title: self.title_of(object),
            path,
            state,
            files: all_files.saturating_sub(waiting_files as u64),
            bytes: all_bytes.saturating_sub(waiting_bytes),
            waiting_files: waiting_files as u64,
            waiting_bytes,
            missing_files: replica.missing_files(object) as u64,
            rate: 0,
            conflicts: folder.conflicts(),
            problems: self.problems_of(object),
        })
    }
}

fn not_here(name: &str) -> ResourceError {
    ResourceError::new(
        409,
        "not_here",
        format!("{name} has no place on this device."),
        "Give it one with `mesh folder get`.",
    )
}

pub(super) fn words_of(phrase: &Phrase) -> RecoveryPhrase {
    RecoveryPhrase { words: phrase.words().map(str::to_owned).collect() }
}

fn root_wiped() -> ResourceError {
    ResourceError::new(
        410,
        "root_wiped",
        "The recovery phrase is not on this device (any more).",
        "It is where you wrote it down; a device that was paired never had it.",
    )
}

pub(super) fn internal(error: impl std::fmt::Display) -> ResourceError {
    ResourceError::new(
        500,
        "internal",
        format!("That did not work: {error}."),
        "Look at the log; report it if it stays.",
    )
}

pub(super) fn no_mesh() -> ResourceError {
    ResourceError::new(
        409,
        "no_mesh",
        "This device belongs to no mesh yet.",
        "`mesh folder add` or `mesh pair` begins one, `mesh join` enters one.",
    )
}

pub(super) fn key_file(error: &IdentityError) -> ResourceError {
    ResourceError::new(
        500,
        "key_file",
        format!("The key file could not be written: {error}."),
        "Make room, then try again.",
    )
}

fn new_folder(error: &NewFolderError) -> ResourceError {
    ResourceError::new(422, "path", format!("{error}."), "Choose another directory.")
}
