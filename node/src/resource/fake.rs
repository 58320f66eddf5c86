//! A node without network and disk, for tests of everything above it.

use std::{
    future::pending,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use meshwork_protocol::time::Timestamp;

use super::{
    NodeControl, ResourceError,
    events::{self, EventLog, Subscription},
};
use crate::api::types::{
    Accept, Adopt, Adopted, AdoptedFile, Bootstrap, Cap, Card, Contact, ContactAdd, Device, Finding, Folder, FolderAdd,
    FolderState, FolderStatus, Join, JoinResult, LogEntry, Member, Missing, PairEvent, PairingOffer, Ping, Quarantined,
    RecoveryPhrase, RecoveryRestore, RecoveryRotate, RecoveryUse, RecoveryWord, Relay, RelayAdd, Service, ServiceGive,
    ServiceGrant, ServiceOffer, Shared, Status, Tunnel, TunnelOpen,
};

pub(crate) const DEVICE: &str = "d1d1d1d1";
pub(crate) const CODE: &str = "7-apple-river-stone";
const RELAY: &str = "a1a1a1a1";
const WORDS: [&str; 4] = ["army", "boat", "cave", "dune"];

#[derive(Default)]
struct State {
    folders: Vec<Folder>,
    pairing: Vec<PairEvent>,
    open: bool,
    wiped: bool,
}

/// Keeps what it is told and answers from it.
#[derive(Default)]
pub(crate) struct FakeNode {
    state: Mutex<State>,
    pub(crate) log: EventLog,
    pub(crate) stopped: Arc<AtomicBool>,
}

impl FakeNode {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn post(&self, text: &str) -> u64 {
        self.log.post(Timestamp(1_000_000), events::FILE_PLACED, text, [("path", text)])
    }

    /// Puts an event of the open pairing in line.
    pub(crate) fn pairing_event(&self, event: PairEvent) {
        self.state().pairing.push(event);
    }
}

fn folder_status(folder: &Folder) -> Option<FolderStatus> {
    Some(FolderStatus {
        id: folder.id.clone(),
        title: folder.title.clone(),
        path: folder.path.clone()?,
        state: FolderState::Idle,
        files: 3,
        bytes: 4_096,
        waiting_files: 0,
        waiting_bytes: 0,
        missing_files: 0,
        rate: 0,
        conflicts: 0,
        problems: Vec::new(),
    })
}

fn no_folder() -> ResourceError {
    ResourceError::not_found("This mesh has no such folder.", "Look at the list.")
}

impl NodeControl for FakeNode {
    async fn status(&self) -> Result<Status, ResourceError> {
        let state = self.state();
        Ok(Status {
            device: DEVICE.to_owned(),
            name: "laptop".to_owned(),
            mesh: "e2e2e2e2".to_owned(),
            root_on_disk: !state.wiped,
            frozen: false,
            addresses: vec!["127.0.0.1:4711".to_owned()],
            peers: Vec::new(),
            folders: state.folders.iter().filter_map(folder_status).collect(),
            uptime: 5,
            version: "0.0.0".to_owned(),
        })
    }

    async fn pair_open(&self, _yes: bool) -> Result<PairingOffer, ResourceError> {
        self.state().open = true;
        Ok(PairingOffer { code: CODE.to_owned(), link: format!("meshwork:{CODE}"), expires_in_s: 600 })
    }

    async fn pair_wait(&self) -> Result<PairEvent, ResourceError> {
        let next = {
            let mut state = self.state();
            if !state.open {
                return Err(ResourceError::new(404, "no_pairing", "No pairing is open.", "Open one."));
            }
            (!state.pairing.is_empty()).then(|| state.pairing.remove(0))
        };
        match next {
            Some(event) => Ok(event),
            None => pending().await,
        }
    }

    async fn pair_confirm(&self, yes: bool) -> Result<(), ResourceError> {
        let (device, name) = ("d2".to_owned(), "desktop".to_owned());
        let outcome = match yes {
            true => PairEvent::Paired { device, name },
            false => PairEvent::Failed { reason: "You refused the device.".to_owned() },
        };
        self.state().pairing.push(outcome);
        Ok(())
    }

    async fn pair_cancel(&self) -> Result<(), ResourceError> {
        self.state().open = false;
        Ok(())
    }

    async fn join(&self, join: Join) -> Result<JoinResult, ResourceError> {
        if join.code != CODE {
            return Err(ResourceError::new(403, "wrong_code", "The code is wrong.", "Ask for a new one."));
        }
        Ok(JoinResult { mesh: "e2e2e2e2".to_owned(), device: "d2".to_owned(), name: "desktop".to_owned() })
    }

    async fn devices(&self) -> Result<Vec<Device>, ResourceError> {
        let (device, name, role) = (DEVICE.to_owned(), "laptop".to_owned(), "admin".to_owned());
        Ok(vec![Device { device, name, role, here: true, connected: true }])
    }

    async fn ping(&self, name_or_id: String) -> Result<Ping, ResourceError> {
        known(&name_or_id)?;
        Ok(Ping {
            device: "d".repeat(64),
            name: name_or_id,
            path: "direct".to_owned(),
            transport: "quic".to_owned(),
            address: "/ip4/192.0.2.7/udp/4001/quic-v1".to_owned(),
            relay: None,
            since: 1_000,
            times: vec![900, 1_100, 1_000],
            problem: None,
        })
    }

    async fn device_remove(&self, name_or_id: String, _void: bool) -> Result<(), ResourceError> {
        known(&name_or_id)
    }

    async fn device_promote(&self, name_or_id: String) -> Result<(), ResourceError> {
        known(&name_or_id)
    }

    async fn device_away(&self, name_or_id: String) -> Result<(), ResourceError> {
        known(&name_or_id)
    }

    async fn device_demote(&self, name_or_id: String) -> Result<(), ResourceError> {
        known(&name_or_id)
    }

    async fn device_readmit(&self, name_or_id: String) -> Result<(), ResourceError> {
        known(&name_or_id)
    }

    async fn control_log(&self) -> Result<Vec<LogEntry>, ResourceError> {
        Ok(Vec::new())
    }

    async fn devices_as_of(&self, _number: u64) -> Result<Vec<Device>, ResourceError> {
        self.devices().await
    }

    async fn caps(&self) -> Result<Vec<Cap>, ResourceError> {
        Ok(Vec::new())
    }

    async fn quarantine(&self) -> Result<Vec<Quarantined>, ResourceError> {
        Ok(Vec::new())
    }

    async fn adopt(&self, asked: Adopt) -> Result<Adopted, ResourceError> {
        known(&asked.folder)?;
        let taken = |path: String| AdoptedFile { at: path.clone(), path };
        Ok(Adopted { files: asked.paths.into_iter().map(taken).collect(), ..Adopted::default() })
    }

    async fn missing(&self, folder: String) -> Result<Vec<Missing>, ResourceError> {
        known(&folder)?;
        Ok(Vec::new())
    }

    async fn let_go(&self, folder: String, paths: Vec<String>) -> Result<Vec<Missing>, ResourceError> {
        known(&folder)?;
        let gone = |path: String| Missing { path, size: 3, device: "d".repeat(64), name: "old-phone".to_owned() };
        Ok(paths.into_iter().map(gone).collect())
    }

    async fn card(&self) -> Result<Card, ResourceError> {
        Ok(Card { name: "Ann".to_owned(), link: "mesh-contact:1?m=e2".to_owned() })
    }

    async fn card_name(&self, name: String) -> Result<Card, ResourceError> {
        Ok(Card { name, ..self.card().await? })
    }

    async fn contacts(&self) -> Result<Vec<Contact>, ResourceError> {
        Ok(vec![bo()])
    }

    async fn contact_add(&self, add: ContactAdd) -> Result<Contact, ResourceError> {
        Ok(Contact { name: add.name.unwrap_or_else(|| bo().name), ..bo() })
    }

    async fn contact_remove(&self, name_or_id: String) -> Result<(), ResourceError> {
        if name_or_id == bo().name { Ok(()) } else { Err(no_contact()) }
    }

    async fn relays(&self) -> Result<Vec<Relay>, ResourceError> {
        Ok(vec![relay("/ip4/192.0.2.7/tcp/4001/p2p/12D3Koo")])
    }

    async fn relay_add(&self, asked: RelayAdd) -> Result<Relay, ResourceError> {
        Ok(relay(&asked.address))
    }

    async fn relay_remove(&self, relay: String) -> Result<(), ResourceError> {
        if relay == RELAY {
            Ok(())
        } else {
            Err(ResourceError::not_found("There is no such relay.", "Look at the list."))
        }
    }

    async fn bootstraps(&self) -> Result<Vec<Bootstrap>, ResourceError> {
        Ok(vec![bootstrap("/ip4/192.0.2.8/tcp/4001/p2p/12D3Koo")])
    }

    async fn bootstrap_add(&self, address: String) -> Result<Bootstrap, ResourceError> {
        Ok(bootstrap(&address))
    }

    async fn bootstrap_remove(&self, bootstrap: String) -> Result<(), ResourceError> {
        if bootstrap == RELAY {
            Ok(())
        } else {
            Err(ResourceError::not_found("There is no such bootstrap.", "Look at the list."))
        }
    }

    async fn doctor(&self) -> Result<Vec<Finding>, ResourceError> {
        let advice = Some("Turn on network time.".to_owned());
        let (check, found) = ("clock".to_owned(), "The clock is wrong.".to_owned());
        Ok(vec![Finding { check, state: "bad".to_owned(), found, advice }])
    }

    async fn services(&self) -> Result<Vec<Service>, ResourceError> {
        Ok(vec![service("ssh", "127.0.0.1:22")])
    }

    async fn service_offer(&self, offer: ServiceOffer) -> Result<Service, ResourceError> {
        Ok(service(&offer.name, &offer.target))
    }

    async fn service_withdraw(&self, name: String) -> Result<(), ResourceError> {
        if name == "ssh" {
            Ok(())
        } else {
            Err(ResourceError::not_found("There is no such service.", "Look at the list."))
        }
    }

    async fn service_give(&self, name: String, person: String, give: ServiceGive) -> Result<Service, ResourceError> {
        self.contact_remove(person.clone()).await?;
        let until = u64::from(give.days) * 86_400_000;
        let granted = vec![ServiceGrant { person: bo().person, name: person, until }];
        Ok(Service { granted, ..service(&name, "127.0.0.1:22") })
    }

    async fn service_take(&self, name: String, person: String) -> Result<(), ResourceError> {
        self.contact_remove(person).await?;
        self.service_withdraw(name).await
    }

    async fn tunnels(&self) -> Result<Vec<Tunnel>, ResourceError> {
        Ok(vec![tunnel("desktop", "ssh", 2_222)])
    }

    async fn tunnel_open(&self, open: TunnelOpen) -> Result<Tunnel, ResourceError> {
        known(&open.device)?;
        Ok(tunnel(&open.device, &open.service, open.port))
    }

    async fn tunnel_close(&self, port: u16) -> Result<(), ResourceError> {
        if port == 2_222 {
            Ok(())
        } else {
            Err(ResourceError::not_found("That port leads nowhere.", "Look at the list."))
        }
    }

    async fn members(&self, folder: String) -> Result<Vec<Member>, ResourceError> {
        self.folder_status(folder).await?;
        let (person, name, role) = ("e2e2e2e2".to_owned(), "you".to_owned(), "own".to_owned());
        Ok(vec![Member { person, name, role, here: true, pending: false }])
    }

    async fn share(&self, folder: String, person: String, role: String) -> Result<Shared, ResourceError> {
        let folder = self.folder_status(folder).await?;
        self.contact_remove(person.clone()).await?;
        let link = "mesh-share:1?o=f0".to_owned();
        Ok(Shared { folder: folder.id, title: folder.title, name: person, role, link })
    }

    async fn unshare(&self, folder: String, person: String) -> Result<(), ResourceError> {
        self.folder_status(folder).await?;
        self.contact_remove(person).await
    }

    async fn accept(&self, accept: Accept) -> Result<Folder, ResourceError> {
        let title = accept.title.unwrap_or_else(|| "Trip".to_owned());
        let folder = Folder { id: "f9".to_owned(), title, path: None, files: 0, bytes: 0 };
        self.state().folders.push(folder.clone());
        Ok(folder)
    }

    async fn leave(&self, folder: String) -> Result<(), ResourceError> {
        let mut state = self.state();
        let before = state.folders.len();
        state.folders.retain(|known| known.id != folder && known.title != folder);
        if state.folders.len() < before { Ok(()) } else { Err(no_folder()) }
    }

    async fn folder_add(&self, add: FolderAdd) -> Result<Folder, ResourceError> {
        let title = add.title.unwrap_or_else(|| "untitled".to_owned());
        let id = format!("f{}", self.state().folders.len());
        let folder = Folder { id, title, path: Some(add.path), files: 3, bytes: 4_096 };
        self.state().folders.push(folder.clone());
        Ok(folder)
    }

    async fn folder_get(&self, name_or_id: String, path: String) -> Result<Folder, ResourceError> {
        let mut state = self.state();
        let named = |folder: &&mut Folder| folder.id == name_or_id || folder.title == name_or_id;
        let folder = state.folders.iter_mut().find(named).ok_or_else(no_folder)?;
        folder.path = Some(path);
        Ok(folder.clone())
    }

    async fn folders(&self) -> Result<Vec<Folder>, ResourceError> {
        Ok(self.state().folders.clone())
    }

    async fn folder_status(&self, name_or_id: String) -> Result<FolderStatus, ResourceError> {
        let state = self.state();
        let named = |folder: &&Folder| folder.id == name_or_id || folder.title == name_or_id;
        state.folders.iter().find(named).and_then(folder_status).ok_or_else(no_folder)
    }

    async fn recovery_phrase(&self) -> Result<RecoveryPhrase, ResourceError> {
        if self.state().wiped {
            return Err(ResourceError::new(410, "root_wiped", "The root secret is gone.", "Use what you wrote down."));
        }
        Ok(RecoveryPhrase { words: WORDS.map(str::to_owned).to_vec() })
    }

    async fn recovery_confirm(&self, words: Vec<RecoveryWord>) -> Result<(), ResourceError> {
        let right = |word: &RecoveryWord| WORDS.get(word.position.wrapping_sub(1)) == Some(&word.word.as_str());
        if !words.iter().all(right) {
            return Err(ResourceError::new(403, "wrong_words", "The words are not those.", "Look again."));
        }
        self.state().wiped = true;
        Ok(())
    }

    async fn recovery_use(&self, asked: RecoveryUse) -> Result<(), ResourceError> {
        asked.remove.as_deref().or(asked.readmit.as_deref()).map_or(Ok(()), known)
    }

    async fn recovery_restore(&self, asked: RecoveryRestore) -> Result<JoinResult, ResourceError> {
        owns(&asked.phrase)?;
        self.log.post(Timestamp(2_000_000), events::RECOVERY_PROGRESS, "desktop answers", [("device", "d2")]);
        Ok(JoinResult { mesh: "e2e2e2e2".to_owned(), device: "d2".to_owned(), name: "desktop".to_owned() })
    }

    async fn recovery_rotate(&self, asked: RecoveryRotate) -> Result<RecoveryPhrase, ResourceError> {
        owns(&asked.phrase)?;
        self.state().wiped = false;
        self.recovery_phrase().await
    }

    fn events(&self, since: Option<u64>) -> Subscription {
        self.log.subscribe(since)
    }

    async fn shutdown(&self) {
        self.stopped.store(true, Ordering::SeqCst);
    }
}

fn bo() -> Contact {
    Contact { person: "b0b0b0b0".to_owned(), name: "bo".to_owned(), connected: false, shared: Vec::new() }
}

fn service(name: &str, target: &str) -> Service {
    Service {
        device: "d".repeat(64),
        device_name: "laptop".to_owned(),
        name: name.to_owned(),
        here: true,
        target: Some(target.to_owned()),
        users: Vec::new(),
        granted: Vec::new(),
    }
}

fn tunnel(device: &str, service: &str, port: u16) -> Tunnel {
    Tunnel {
        address: format!("127.0.0.1:{port}"),
        port,
        device: "d".repeat(64),
        device_name: device.to_owned(),
        service: service.to_owned(),
        open: 0,
        problem: None,
    }
}

fn relay(address: &str) -> Relay {
    Relay { relay: RELAY.to_owned(), addresses: vec![address.to_owned()], state: "spare".to_owned(), problem: None }
}

fn bootstrap(address: &str) -> Bootstrap {
    let (bootstrap, addresses) = (RELAY.to_owned(), vec![address.to_owned()]);
    Bootstrap { bootstrap, addresses, state: "spare".to_owned(), problem: None }
}

fn no_contact() -> ResourceError {
    ResourceError::not_found("You have no such contact.", "Look at the list.")
}

fn known(name: &str) -> Result<(), ResourceError> {
    match name {
        "desktop" => Ok(()),
        _ => Err(ResourceError::not_found("This mesh has no such device.", "`mesh devices` shows those that it has.")),
    }
}

fn owns(phrase: &str) -> Result<(), ResourceError> {
    match phrase {
        "army boat" => Ok(()),
        _ => Err(ResourceError::new(403, "not_root", "This phrase does not own this mesh.", "Look for the paper.")),
    }
}
