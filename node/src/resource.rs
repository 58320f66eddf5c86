//! Serves a [`Request`] to this node: routes it to the handler of its resource.
//!
//! Doors (the local API, later the console and other devices) translate to a `Request` and back and
//! decide nothing. What the node does is behind [`NodeControl`].

pub mod events;

mod authority;
mod bootstraps;
mod devices;
mod folders;
mod pairing;
mod recovery;
mod relays;
mod services;
mod sharing;
mod status;

#[cfg(test)]
pub(crate) mod fake;
#[cfg(test)]
mod tests;

use std::{future::Future, sync::Arc};

use meshwork_protocol::resource::{Request, Response, Verb};
use serde::{Serialize, de::DeserializeOwned};
use tokio::sync::watch;

use crate::api::types::{
    Accept, Adopt, Adopted, Bootstrap, Cap, Card, Contact, ContactAdd, Device, Done, EventQuery, Finding, Folder,
    FolderAdd, FolderStatus, Join, JoinResult, LogEntry, Member, Missing, PairEvent, PairingOffer, Ping, Problem,
    Quarantined, RecoveryPhrase, RecoveryRestore, RecoveryRotate, RecoveryUse, RecoveryWord, Relay, RelayAdd, Service,
    ServiceGive, ServiceOffer, Shared, Status, Tunnel, TunnelOpen,
};
use events::Subscription;

/// The code of [`ResourceError`] for a folder whose key has not arrived yet.
pub const KEY_NOT_HERE: &str = "key_not_here";

/// Why a request was not granted; the same words go to programs and to people.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message} {fix}")]
pub struct ResourceError {
    /// An HTTP status, 400 to 599.
    pub status: u16,
    /// A word for programs, stable over versions.
    pub code: &'static str,
    /// What happened, as a sentence.
    pub message: String,
    /// What to do, as a sentence.
    pub fix: String,
}

impl ResourceError {
    /// An error with its two sentences.
    pub fn new(status: u16, code: &'static str, message: impl Into<String>, fix: impl Into<String>) -> Self {
        ResourceError { status, code, message: message.into(), fix: fix.into() }
    }

    /// No resource of this name (404).
    pub fn not_found(message: impl Into<String>, fix: impl Into<String>) -> Self {
        ResourceError::new(404, "not_found", message, fix)
    }

    /// The request does not say something that can be done (400).
    pub fn bad_request(message: impl Into<String>, fix: impl Into<String>) -> Self {
        ResourceError::new(400, "bad_request", message, fix)
    }

    /// The answer that carries this error.
    pub fn response(&self) -> Response {
        let problem = Problem {
            status: self.status,
            code: self.code.into(),
            message: self.message.clone(),
            fix: self.fix.clone(),
        };
        Response { status: self.status, body: json_bytes(&problem) }
    }
}

/// What a running node can be asked to do. The event loop implements it; every method may be called
/// at any time and from several tasks at once.
pub trait NodeControl: Send + Sync + 'static {
    /// This node in one answer.
    fn status(&self) -> impl Future<Output = Result<Status, ResourceError>> + Send;

    /// Opens a pairing. An older one that is still open dies. With `yes`, whoever knows the code is let in.
    fn pair_open(&self, yes: bool) -> impl Future<Output = Result<PairingOffer, ResourceError>> + Send;

    /// Waits for the next event of the open pairing. Must lose no event when the future is dropped
    /// before it is ready. Fails with 404 `no_pairing` when none is open and no event waits.
    fn pair_wait(&self) -> impl Future<Output = Result<PairEvent, ResourceError>> + Send;

    /// Answers [`PairEvent::Asked`].
    fn pair_confirm(&self, yes: bool) -> impl Future<Output = Result<(), ResourceError>> + Send;

    /// Closes the open pairing, if there is one; its code dies.
    fn pair_cancel(&self) -> impl Future<Output = Result<(), ResourceError>> + Send;

    /// Enters the mesh of the device that showed the code or link; ready when this device is in.
    fn join(&self, join: Join) -> impl Future<Output = Result<JoinResult, ResourceError>> + Send;

    /// All devices of the mesh.
    fn devices(&self) -> impl Future<Output = Result<Vec<Device>, ResourceError>> + Send;

    /// How a device is reached, and how long a word there and back takes.
    fn ping(&self, name_or_id: String) -> impl Future<Output = Result<Ping, ResourceError>> + Send;

    /// Removes a device from the mesh; with `void` nothing that it wrote stands but what others built on.
    fn device_remove(&self, name_or_id: String, void: bool) -> impl Future<Output = Result<(), ResourceError>> + Send;

    /// Makes a device of the mesh an admin.
    fn device_promote(&self, name_or_id: String) -> impl Future<Output = Result<(), ResourceError>> + Send;

    /// Declares that nobody need wait for a device.
    fn device_away(&self, name_or_id: String) -> impl Future<Output = Result<(), ResourceError>> + Send;

    /// Makes an admin a device like others.
    fn device_demote(&self, name_or_id: String) -> impl Future<Output = Result<(), ResourceError>> + Send;

    /// Lets a device in again that was removed from the mesh.
    fn device_readmit(&self, name_or_id: String) -> impl Future<Output = Result<(), ResourceError>> + Send;

    /// Everything said in the control logs.
    fn control_log(&self) -> impl Future<Output = Result<Vec<LogEntry>, ResourceError>> + Send;

    /// The devices of the mesh as of a statement of its log.
    fn devices_as_of(&self, number: u64) -> impl Future<Output = Result<Vec<Device>, ResourceError>> + Send;

    /// All grants.
    fn caps(&self) -> impl Future<Output = Result<Vec<Cap>, ResourceError>> + Send;

    /// Records that are held and do not stand.
    fn quarantine(&self) -> impl Future<Output = Result<Vec<Quarantined>, ResourceError>> + Send;

    /// Takes over what is in quarantine; ready when it is in the folder, which may wait for bytes.
    fn adopt(&self, asked: Adopt) -> impl Future<Output = Result<Adopted, ResourceError>> + Send;

    /// Makes a directory a Live Folder, in place; ready when it is recorded, not when it is scanned.
    fn folder_add(&self, add: FolderAdd) -> impl Future<Output = Result<Folder, ResourceError>> + Send;

    /// Gives a folder of the mesh a place on this device; ready when that is recorded.
    fn folder_get(
        &self,
        name_or_id: String,
        path: String,
    ) -> impl Future<Output = Result<Folder, ResourceError>> + Send;

    /// All folders of the mesh, with or without a place here.
    fn folders(&self) -> impl Future<Output = Result<Vec<Folder>, ResourceError>> + Send;

    /// How far a folder is on this device.
    fn folder_status(&self, name_or_id: String) -> impl Future<Output = Result<FolderStatus, ResourceError>> + Send;

    /// What a folder waits for on this device, and nobody connected has.
    fn missing(&self, folder: String) -> impl Future<Output = Result<Vec<Missing>, ResourceError>> + Send;

    /// Lets go of what is missing at or below these paths, or of all; tells what that was.
    fn let_go(
        &self,
        folder: String,
        paths: Vec<String>,
    ) -> impl Future<Output = Result<Vec<Missing>, ResourceError>> + Send;

    /// Who this mesh is, for other people.
    fn card(&self) -> impl Future<Output = Result<Card, ResourceError>> + Send;

    /// Says what the person of this mesh calls himself.
    fn card_name(&self, name: String) -> impl Future<Output = Result<Card, ResourceError>> + Send;

    /// Other people known here.
    fn contacts(&self) -> impl Future<Output = Result<Vec<Contact>, ResourceError>> + Send;

    /// Makes a contact of whoever made a card.
    fn contact_add(&self, add: ContactAdd) -> impl Future<Output = Result<Contact, ResourceError>> + Send;

    /// Forgets a contact; what is shared stays shared.
    fn contact_remove(&self, name_or_id: String) -> impl Future<Output = Result<(), ResourceError>> + Send;

    /// The relays of the mesh, and how they stand.
    fn relays(&self) -> impl Future<Output = Result<Vec<Relay>, ResourceError>> + Send;

    /// Has all devices of the mesh use a relay, too.
    fn relay_add(&self, asked: RelayAdd) -> impl Future<Output = Result<Relay, ResourceError>> + Send;

    /// Has no device of the mesh use a relay any more.
    fn relay_remove(&self, relay: String) -> impl Future<Output = Result<(), ResourceError>> + Send;

    /// The bootstraps of the mesh, and how they stand.
    fn bootstraps(&self) -> impl Future<Output = Result<Vec<Bootstrap>, ResourceError>> + Send;

    /// Has all devices of the mesh use a bootstrap, too.
    fn bootstrap_add(&self, address: String) -> impl Future<Output = Result<Bootstrap, ResourceError>> + Send;

    /// Has no device of the mesh use a bootstrap any more.
    fn bootstrap_remove(&self, bootstrap: String) -> impl Future<Output = Result<(), ResourceError>> + Send;

    /// What is well with the network of this device, and what is not.
    fn doctor(&self) -> impl Future<Output = Result<Vec<Finding>, ResourceError>> + Send;

    /// What the devices of the mesh offer.
    fn services(&self) -> impl Future<Output = Result<Vec<Service>, ResourceError>> + Send;

    /// Offers a service of this device to the devices of the mesh.
    fn service_offer(&self, offer: ServiceOffer) -> impl Future<Output = Result<Service, ResourceError>> + Send;

    /// Offers it no more; tunnels to it end.
    fn service_withdraw(&self, name: String) -> impl Future<Output = Result<(), ResourceError>> + Send;

    /// Lets a contact use a service of this device for a time.
    fn service_give(
        &self,
        name: String,
        person: String,
        give: ServiceGive,
    ) -> impl Future<Output = Result<Service, ResourceError>> + Send;

    /// Lets a contact use it no more; his tunnels end.
    fn service_take(&self, name: String, person: String) -> impl Future<Output = Result<(), ResourceError>> + Send;

    /// The local ports that lead to services of other devices.
    fn tunnels(&self) -> impl Future<Output = Result<Vec<Tunnel>, ResourceError>> + Send;

    /// Opens one.
    fn tunnel_open(&self, open: TunnelOpen) -> impl Future<Output = Result<Tunnel, ResourceError>> + Send;

    /// Closes one, and every connection through it.
    fn tunnel_close(&self, port: u16) -> impl Future<Output = Result<(), ResourceError>> + Send;

    /// Who takes part in a folder.
    fn members(&self, folder: String) -> impl Future<Output = Result<Vec<Member>, ResourceError>> + Send;

    /// Gives a contact a role in a folder.
    fn share(
        &self,
        folder: String,
        person: String,
        role: String,
    ) -> impl Future<Output = Result<Shared, ResourceError>> + Send;

    /// Takes a person out of a folder.
    fn unshare(&self, folder: String, person: String) -> impl Future<Output = Result<(), ResourceError>> + Send;

    /// Takes part in what another person shares.
    fn accept(&self, accept: Accept) -> impl Future<Output = Result<Folder, ResourceError>> + Send;

    /// Gives up another person's folder, on all devices of this mesh.
    fn leave(&self, folder: String) -> impl Future<Output = Result<(), ResourceError>> + Send;

    /// The phrase of the root secret, while that is on disk; 410 `root_wiped` afterwards.
    fn recovery_phrase(&self) -> impl Future<Output = Result<RecoveryPhrase, ResourceError>> + Send;

    /// Compares words of the phrase (at least two, positions different) and wipes the root secret when all are right.
    fn recovery_confirm(&self, words: Vec<RecoveryWord>) -> impl Future<Output = Result<(), ResourceError>> + Send;

    /// Makes this device an admin, removes a device or lets one in again, by the word of the root.
    fn recovery_use(&self, asked: RecoveryUse) -> impl Future<Output = Result<(), ResourceError>> + Send;

    /// Enters, on a blank device, the mesh that a phrase owns; ready when this device is in.
    fn recovery_restore(
        &self,
        asked: RecoveryRestore,
    ) -> impl Future<Output = Result<JoinResult, ResourceError>> + Send;

    /// Puts a new phrase in the place of the one given. The new one stays on this device until it is confirmed.
    fn recovery_rotate(
        &self,
        asked: RecoveryRotate,
    ) -> impl Future<Output = Result<RecoveryPhrase, ResourceError>> + Send;

    /// Events after `since`; `None` for new ones only. See [`events::EventLog::subscribe`].
    fn events(&self, since: Option<u64>) -> Subscription;

    /// Stops: nothing acknowledged is lost. Ready when all is on disk.
    fn shutdown(&self) -> impl Future<Output = ()> + Send;
}

/// What a door sends back.
pub enum Reply {
    /// One answer.
    Once(Response),
    /// Events without end.
    Events(Subscription),
}

/// The resources of one node.
pub struct Resources<N> {
    node: Arc<N>,
    stop: watch::Sender<bool>,
}

impl<N> Clone for Resources<N> {
    fn clone(&self) -> Self {
        Resources { node: Arc::clone(&self.node), stop: self.stop.clone() }
    }
}

impl<N: NodeControl> Resources<N> {
    /// The resources of `node`; `stop` becomes true when somebody asks for its shutdown.
    pub fn new(node: Arc<N>, stop: watch::Sender<bool>) -> Self {
        Resources { node, stop }
    }

    /// Becomes true when the node is to stop.
    pub fn stopping(&self) -> watch::Receiver<bool> {
        self.stop.subscribe()
    }

    /// Serves a request; never fails, an error is an answer too.
    pub async fn serve(&self, request: Request) -> Reply {
        let verb = request.verb();
        let path = request.path().clone();
        let reply = self.route(request).await.unwrap_or_else(|error| Reply::Once(error.response()));
        let status = if let Reply::Once(response) = &reply { response.status } else { 200 };
        tracing::debug!(%verb, %path, status, "request");
        reply
    }

    async fn route(&self, request: Request) -> Result<Reply, ResourceError> {
        let node = &*self.node;
        let components: Vec<&str> = request.path().components().iter().map(String::as_str).collect();
        let response = match components.as_slice() {
            ["v1", "status"] => status::status(node, &request).await?,
            ["v1", "shutdown"] => status::shutdown(&self.stop, &request)?,
            ["v1", "devices"] => devices::devices(node, &request).await?,
            ["v1", "devices", name] => devices::device(node, &request, name).await?,
            ["v1", "devices", name, "ping"] => devices::ping(node, &request, name).await?,
            ["v1", "log"] => authority::log(node, &request).await?,
            ["v1", "log", number] => authority::as_of(node, &request, number).await?,
            ["v1", "caps"] => authority::caps(node, &request).await?,
            ["v1", "quarantine"] => authority::quarantine(node, &request).await?,
            ["v1", "pairing"] => pairing::pairing(node, &request).await?,
            ["v1", "pairing", "confirm"] => pairing::confirm(node, &request).await?,
            ["v1", "join"] => pairing::join(node, &request).await?,
            ["v1", "folders"] => folders::folders(node, &request).await?,
            ["v1", "folders", name] => folders::folder(node, &request, name).await?,
            ["v1", "folders", name, "status"] => folders::status(node, &request, name).await?,
            ["v1", "folders", name, "missing"] => folders::missing(node, &request, name).await?,
            ["v1", "folders", name, "members"] => sharing::members(node, &request, name).await?,
            ["v1", "folders", name, "members", person] => sharing::member(node, &request, name, person).await?,
            ["v1", "card"] => sharing::card(node, &request).await?,
            ["v1", "contacts"] => sharing::contacts(node, &request).await?,
            ["v1", "contacts", name] => sharing::contact(node, &request, name).await?,
            ["v1", "relays"] => relays::relays(node, &request).await?,
            ["v1", "relays", relay] => relays::relay(node, &request, relay).await?,
            ["v1", "bootstraps"] => bootstraps::bootstraps(node, &request).await?,
            ["v1", "bootstraps", id] => bootstraps::bootstrap(node, &request, id).await?,
            ["v1", "doctor"] => bootstraps::doctor(node, &request).await?,
            ["v1", "services"] => services::services(node, &request).await?,
            ["v1", "services", name] => services::service(node, &request, name).await?,
            ["v1", "services", name, "grants", person] => services::grant(node, &request, name, person).await?,
            ["v1", "tunnels"] => services::tunnels(node, &request).await?,
            ["v1", "tunnels", port] => services::tunnel(node, &request, port).await?,
            ["v1", "invitations"] => sharing::invitations(node, &request).await?,
            ["v1", "recovery"] => recovery::phrase(node, &request).await?,
            ["v1", "recovery", "confirm"] => recovery::confirm(node, &request).await?,
            ["v1", "recovery", "use"] => recovery::speak(node, &request).await?,
            ["v1", "recovery", "restore"] => recovery::restore(node, &request).await?,
            ["v1", "recovery", "rotate"] => recovery::rotate(node, &request).await?,
            ["v1", "events"] => return self.events(&request),
            _ => {
                return Err(ResourceError::not_found(
                    format!("There is no resource {}.", request.path()),
                    "The resources are listed in the documentation of the local API.",
                ));
            }
        };
        Ok(Reply::Once(response))
    }

    fn events(&self, request: &Request) -> Result<Reply, ResourceError> {
        match request.verb() {
            Verb::Get => Ok(Reply::Events(self.node.events(body::<EventQuery>(request)?.since))),
            _ => Err(wrong_verb(request)),
        }
    }
}

/// A success with this JSON.
fn answer<T: Serialize>(status: u16, value: &T) -> Response {
    Response { status, body: json_bytes(value) }
}

/// A success that has nothing to tell.
fn done(status: u16) -> Response {
    answer(status, &Done {})
}

/// The body of a request; an empty one counts as an object without fields.
fn body<T: DeserializeOwned>(request: &Request) -> Result<T, ResourceError> {
    let text = if request.body().is_empty() { b"{}" } else { request.body() };
    serde_json::from_slice(text).map_err(|error| {
        ResourceError::bad_request(
            format!("The body of {} {} cannot be read: {error}.", request.verb(), request.path()),
            "Send the JSON object that the documentation of the local API shows for it.",
        )
    })
}

/// The resource exists, but does not know this verb (405).
fn wrong_verb(request: &Request) -> ResourceError {
    ResourceError::new(
        405,
        "wrong_verb",
        format!("{} cannot be used on {}.", request.verb(), request.path()),
        "The documentation of the local API shows the verbs of each resource.",
    )
}

fn json_bytes<T: Serialize>(value: &T) -> Vec<u8> {
    serde_json::to_vec(value).unwrap_or_else(|error| {
        tracing::error!(%error, "an answer could not be written as JSON");
        br#"{"status":500,"code":"internal","message":"The answer could not be written.","fix":"Report this."}"#
            .to_vec()
    })
}
