//! The node as others hold it: questions and commands for the loop.

use std::{path::PathBuf, sync::Arc};

use tokio::sync::{mpsc, oneshot};

use super::{
    Event,
    authority::Ask,
    bootstraps,
    command::{Command, Reply},
    relays, services, sharing, tunnels,
};
use crate::{
    api::types::{
        Accept, Adopt, Adopted, Bootstrap, Cap, Card, Contact, ContactAdd, Device, Finding, Folder, FolderAdd,
        FolderStatus, Join, JoinResult, LogEntry, Member, Missing, PairEvent, PairingOffer, Ping, Quarantined,
        RecoveryPhrase, RecoveryRestore, RecoveryRotate, RecoveryUse, RecoveryWord, Relay, RelayAdd, Service,
        ServiceGive, ServiceOffer, Shared, Status, Tunnel, TunnelOpen,
    },
    resource::{
        NodeControl, ResourceError,
        events::{EventLog, Subscription},
    },
};

/// A running node.
pub struct Node {
    events: mpsc::Sender<Event>,
    log: Arc<EventLog>,
}

impl Node {
    pub(super) fn new(events: mpsc::Sender<Event>, log: Arc<EventLog>) -> Self {
        Node { events, log }
    }

    async fn ask<T>(&self, command: impl FnOnce(Reply<T>) -> Command) -> Result<T, ResourceError> {
        let (reply, answer) = oneshot::channel();
        self.events.send(Event::Command(command(reply))).await.map_err(|_| stopping())?;
        answer.await.unwrap_or_else(|_| Err(stopping()))
    }
}

fn stopping() -> ResourceError {
    ResourceError::new(503, "stopping", "The node is stopping.", "Start it again with `mesh up`.")
}

impl NodeControl for Node {
    async fn status(&self) -> Result<Status, ResourceError> {
        self.ask(Command::Status).await
    }

    async fn pair_open(&self, yes: bool) -> Result<PairingOffer, ResourceError> {
        self.ask(|reply| Command::PairOpen { yes, reply }).await
    }

    async fn pair_wait(&self) -> Result<PairEvent, ResourceError> {
        self.ask(Command::PairWait).await
    }

    async fn pair_confirm(&self, yes: bool) -> Result<(), ResourceError> {
        self.ask(|reply| Command::PairConfirm { yes, reply }).await
    }

    async fn pair_cancel(&self) -> Result<(), ResourceError> {
        self.ask(Command::PairCancel).await
    }

    async fn join(&self, join: Join) -> Result<JoinResult, ResourceError> {
        self.ask(|reply| Command::Join { join, reply }).await
    }

    async fn devices(&self) -> Result<Vec<Device>, ResourceError> {
        self.ask(Command::Devices).await
    }

    async fn ping(&self, name_or_id: String) -> Result<Ping, ResourceError> {
        self.ask(|reply| Command::Ping { device: name_or_id, reply }).await
    }

    async fn device_remove(&self, name_or_id: String, void: bool) -> Result<(), ResourceError> {
        self.ask(|reply| Command::Authority(Ask::Remove { name: name_or_id, void, reply })).await
    }

    async fn device_promote(&self, name_or_id: String) -> Result<(), ResourceError> {
        self.ask(|reply| Command::Authority(Ask::Promote { name: name_or_id, reply })).await
    }

    async fn device_away(&self, name_or_id: String) -> Result<(), ResourceError> {
        self.ask(|reply| Command::Authority(Ask::Away { name: name_or_id, reply })).await
    }

    async fn device_demote(&self, name_or_id: String) -> Result<(), ResourceError> {
        self.ask(|reply| Command::Authority(Ask::Demote { name: name_or_id, reply })).await
    }

    async fn device_readmit(&self, name_or_id: String) -> Result<(), ResourceError> {
        self.ask(|reply| Command::Authority(Ask::Readmit { name: name_or_id, reply })).await
    }

    async fn control_log(&self) -> Result<Vec<LogEntry>, ResourceError> {
        self.ask(|reply| Command::Authority(Ask::Log(reply))).await
    }

    async fn devices_as_of(&self, number: u64) -> Result<Vec<Device>, ResourceError> {
        self.ask(|reply| Command::Authority(Ask::DevicesAsOf { number, reply })).await
    }

    async fn caps(&self) -> Result<Vec<Cap>, ResourceError> {
        self.ask(|reply| Command::Authority(Ask::Caps(reply))).await
    }

    async fn quarantine(&self) -> Result<Vec<Quarantined>, ResourceError> {
        self.ask(|reply| Command::Authority(Ask::Quarantine(reply))).await
    }

    async fn adopt(&self, asked: Adopt) -> Result<Adopted, ResourceError> {
        self.ask(|reply| Command::Authority(Ask::Adopt { asked, reply })).await
    }

    async fn card(&self) -> Result<Card, ResourceError> {
        self.ask(|reply| Command::Sharing(sharing::Ask::Card(reply))).await
    }

    async fn card_name(&self, name: String) -> Result<Card, ResourceError> {
        self.ask(|reply| Command::Sharing(sharing::Ask::CardName { name, reply })).await
    }

    async fn contacts(&self) -> Result<Vec<Contact>, ResourceError> {
        self.ask(|reply| Command::Sharing(sharing::Ask::Contacts(reply))).await
    }

    async fn contact_add(&self, add: ContactAdd) -> Result<Contact, ResourceError> {
        self.ask(|reply| Command::Sharing(sharing::Ask::ContactAdd { add, reply })).await
    }

    async fn contact_remove(&self, name_or_id: String) -> Result<(), ResourceError> {
        self.ask(|reply| Command::Sharing(sharing::Ask::ContactRemove { name: name_or_id, reply })).await
    }

    async fn relays(&self) -> Result<Vec<Relay>, ResourceError> {
        self.ask(|reply| Command::Relays(relays::Ask::List(reply))).await
    }

    async fn relay_add(&self, RelayAdd { address, ticket }: RelayAdd) -> Result<Relay, ResourceError> {
        self.ask(|reply| Command::Relays(relays::Ask::Add { address, ticket, reply })).await
    }

    async fn relay_remove(&self, relay: String) -> Result<(), ResourceError> {
        self.ask(|reply| Command::Relays(relays::Ask::Remove { relay, reply })).await
    }

    async fn bootstraps(&self) -> Result<Vec<Bootstrap>, ResourceError> {
        self.ask(|reply| Command::Bootstraps(bootstraps::Ask::List(reply))).await
    }

    async fn bootstrap_add(&self, address: String) -> Result<Bootstrap, ResourceError> {
        self.ask(|reply| Command::Bootstraps(bootstraps::Ask::Add { address, reply })).await
    }

    async fn bootstrap_remove(&self, bootstrap: String) -> Result<(), ResourceError> {
        self.ask(|reply| Command::Bootstraps(bootstraps::Ask::Remove { bootstrap, reply })).await
    }

    async fn doctor(&self) -> Result<Vec<Finding>, ResourceError> {
        self.ask(Command::Doctor).await
    }

    async fn services(&self) -> Result<Vec<Service>, ResourceError> {
        self.ask(|reply| Command::Services(services::Ask::List(reply))).await
    }

    async fn service_offer(&self, offer: ServiceOffer) -> Result<Service, ResourceError> {
        self.ask(|reply| Command::Services(services::Ask::Offer { offer, reply })).await
    }

    async fn service_withdraw(&self, name: String) -> Result<(), ResourceError> {
        self.ask(|reply| Command::Services(services::Ask::Withdraw { name, reply })).await
    }

    async fn service_give(&self, name: String, person: String, give: ServiceGive) -> Result<Service, ResourceError> {
        self.ask(|reply| Command::Services(services::Ask::Give { name, person, give, reply })).await
    }

    async fn service_take(&self, name: String, person: String) -> Result<(), ResourceError> {
        self.ask(|reply| Command::Services(services::Ask::Take { name, person, reply })).await
    }

    async fn tunnels(&self) -> Result<Vec<Tunnel>, ResourceError> {
        self.ask(|reply| Command::Tunnels(tunnels::Ask::List(reply))).await
    }

    async fn tunnel_open(&self, open: TunnelOpen) -> Result<Tunnel, ResourceError> {
        self.ask(|reply| Command::Tunnels(tunnels::Ask::Open { open, reply })).await
    }

    async fn tunnel_close(&self, port: u16) -> Result<(), ResourceError> {
        self.ask(|reply| Command::Tunnels(tunnels::Ask::Close { port, reply })).await
    }

    async fn members(&self, folder: String) -> Result<Vec<Member>, ResourceError> {
        self.ask(|reply| Command::Sharing(sharing::Ask::Members { folder, reply })).await
    }

    async fn share(&self, folder: String, person: String, role: String) -> Result<Shared, ResourceError> {
        self.ask(|reply| Command::Sharing(sharing::Ask::Share { folder, person, role, reply })).await
    }

    async fn unshare(&self, folder: String, person: String) -> Result<(), ResourceError> {
        self.ask(|reply| Command::Sharing(sharing::Ask::Unshare { folder, person, reply })).await
    }

    async fn accept(&self, accept: Accept) -> Result<Folder, ResourceError> {
        self.ask(|reply| Command::Sharing(sharing::Ask::Accept { accept, reply })).await
    }

    async fn leave(&self, folder: String) -> Result<(), ResourceError> {
        self.ask(|reply| Command::Sharing(sharing::Ask::Leave { folder, reply })).await
    }

    async fn folder_add(&self, add: FolderAdd) -> Result<Folder, ResourceError> {
        self.ask(|reply| Command::FolderAdd { add, reply }).await
    }

    async fn folder_get(&self, name_or_id: String, path: String) -> Result<Folder, ResourceError> {
        self.ask(|reply| Command::FolderGet { name: name_or_id, path: PathBuf::from(path), reply }).await
    }

    async fn folders(&self) -> Result<Vec<Folder>, ResourceError> {
        self.ask(Command::Folders).await
    }

    async fn folder_status(&self, name_or_id: String) -> Result<FolderStatus, ResourceError> {
        self.ask(|reply| Command::FolderStatus { name: name_or_id, reply }).await
    }

    async fn missing(&self, folder: String) -> Result<Vec<Missing>, ResourceError> {
        self.ask(|reply| Command::Missing { folder, reply }).await
    }

    async fn let_go(&self, folder: String, paths: Vec<String>) -> Result<Vec<Missing>, ResourceError> {
        self.ask(|reply| Command::LetGo { folder, paths, reply }).await
    }

    async fn recovery_phrase(&self) -> Result<RecoveryPhrase, ResourceError> {
        self.ask(Command::RecoveryPhrase).await
    }

    async fn recovery_confirm(&self, words: Vec<RecoveryWord>) -> Result<(), ResourceError> {
        self.ask(|reply| Command::RecoveryConfirm { words, reply }).await
    }

    async fn recovery_use(&self, asked: RecoveryUse) -> Result<(), ResourceError> {
        self.ask(|reply| Command::Authority(Ask::UsePhrase { asked, reply })).await
    }

    async fn recovery_restore(&self, asked: RecoveryRestore) -> Result<JoinResult, ResourceError> {
        self.ask(|reply| Command::RecoveryRestore { asked, reply }).await
    }

    async fn recovery_rotate(&self, asked: RecoveryRotate) -> Result<RecoveryPhrase, ResourceError> {
        self.ask(|reply| Command::RecoveryRotate { asked, reply }).await
    }

    fn events(&self, since: Option<u64>) -> Subscription {
        self.log.subscribe(since)
    }

    async fn shutdown(&self) {
        let (done, stopped) = oneshot::channel();
        if self.events.send(Event::Command(Command::Shutdown(done))).await.is_ok() {
            // An end without an answer is an end.
            let _ = stopped.await;
        }
    }
}
