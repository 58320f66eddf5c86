//! Talks to the node of a home over its socket: one connection a request.

use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use http_body_util::{BodyExt, Full, Limited};
use hyper::{
    Request as HttpRequest, Response as HttpResponse,
    body::{Bytes, Incoming},
    client::conn::http1,
    header,
};
use hyper_util::rt::TokioIo;
use meshwork_protocol::resource::{ResourcePath, Verb};
use serde::{Serialize, de::DeserializeOwned};
use tokio::net::UnixStream;

use super::error::{CliError, Exit};
use crate::api::types::{
    Accept, Adopt, Adopted, Bootstrap, Cap, Card, CardName, Contact, ContactAdd, Device, DeviceRemove, DeviceRole,
    Done, Event, Finding, Folder, FolderAdd, FolderGet, FolderStatus, Join, JoinResult, LetGo, LogEntry, Member,
    Missing, PairConfirm, PairOpen, PairPoll, PairingOffer, Ping, Problem, Quarantined, RecoveryConfirm,
    RecoveryPhrase, RecoveryRestore, RecoveryRotate, RecoveryUse, Relay, RelayAdd, ServerAdd, Service, ServiceGive,
    ServiceOffer, Share, Shared, Status, Tunnel, TunnelOpen,
};

/// How long a node may take for an ordinary answer; it hashes no file while a request waits.
const ANSWER_MAX: Duration = Duration::from_secs(60);
/// A join waits for a person at the other device: as long as a code lives, and a little.
const JOIN_MAX: Duration = Duration::from_secs(660);
/// Taking something over waits for its bytes, which other devices may have.
const ADOPT_MAX: Duration = Duration::from_secs(24 * 60 * 60);
/// Bytes of an answer: a list of 10,000 folders.
const ANSWER_BYTES_MAX: usize = 16 << 20;
/// Bytes of one line of the event stream.
const LINE_BYTES_MAX: usize = 1 << 20;

/// The node of one home.
#[derive(Debug, Clone)]
pub struct Client {
    socket: PathBuf,
}

impl Client {
    /// Nothing is sent yet.
    pub fn new(socket: &Path) -> Self {
        Client { socket: socket.to_owned() }
    }

    /// `GET /v1/status`
    pub async fn status(&self) -> Result<Status, CliError> {
        self.get(&["v1", "status"]).await
    }

    /// `POST /v1/shutdown`; the node stops after it has answered.
    pub async fn shutdown(&self) -> Result<Done, CliError> {
        self.call(Verb::Post, &["v1", "shutdown"], &Done {}, ANSWER_MAX).await
    }

    /// `GET /v1/devices`
    pub async fn devices(&self) -> Result<Vec<Device>, CliError> {
        self.get(&["v1", "devices"]).await
    }

    /// `GET /v1/devices/{name}/ping`
    pub async fn ping(&self, name: &str) -> Result<Ping, CliError> {
        self.get(&["v1", "devices", name, "ping"]).await
    }

    /// `DELETE /v1/devices/{name}`
    pub async fn device_remove(&self, name: &str, void: bool) -> Result<Done, CliError> {
        self.call(Verb::Delete, &["v1", "devices", name], &DeviceRemove { void }, ANSWER_MAX).await
    }

    /// `PUT /v1/devices/{name}`
    pub async fn device_promote(&self, name: &str) -> Result<Done, CliError> {
        let role = DeviceRole { role: "admin".to_owned() };
        self.call(Verb::Put, &["v1", "devices", name], &role, ANSWER_MAX).await
    }

    /// `PUT /v1/devices/{name}`
    pub async fn device_away(&self, name: &str) -> Result<Done, CliError> {
        let role = DeviceRole { role: "away".to_owned() };
        self.call(Verb::Put, &["v1", "devices", name], &role, ANSWER_MAX).await
    }

    /// `PUT /v1/devices/{name}`
    pub async fn device_demote(&self, name: &str) -> Result<Done, CliError> {
        let role = DeviceRole { role: "device".to_owned() };
        self.call(Verb::Put, &["v1", "devices", name], &role, ANSWER_MAX).await
    }

    /// `POST /v1/devices/{name}`
    pub async fn device_readmit(&self, name: &str) -> Result<Done, CliError> {
        self.call(Verb::Post, &["v1", "devices", name], &Done {}, ANSWER_MAX).await
    }

    /// `GET /v1/log`
    pub async fn log(&self) -> Result<Vec<LogEntry>, CliError> {
        self.get(&["v1", "log"]).await
    }

    /// `GET /v1/log/{number}`
    pub async fn devices_as_of(&self, number: u64) -> Result<Vec<Device>, CliError> {
        self.get(&["v1", "log", &number.to_string()]).await
    }

    /// `GET /v1/caps`
    pub async fn caps(&self) -> Result<Vec<Cap>, CliError> {
        self.get(&["v1", "caps"]).await
    }

    /// `GET /v1/quarantine`
    pub async fn quarantine(&self) -> Result<Vec<Quarantined>, CliError> {
        self.get(&["v1", "quarantine"]).await
    }

    /// `POST /v1/quarantine`
    pub async fn adopt(&self, asked: &Adopt) -> Result<Adopted, CliError> {
        self.call(Verb::Post, &["v1", "quarantine"], asked, ADOPT_MAX).await
    }

    /// `GET /v1/card`
    pub async fn card(&self) -> Result<Card, CliError> {
        self.get(&["v1", "card"]).await
    }

    /// `PUT /v1/card`
    pub async fn card_name(&self, name: &str) -> Result<Card, CliError> {
        self.call(Verb::Put, &["v1", "card"], &CardName { name: name.to_owned() }, ANSWER_MAX).await
    }

    /// `GET /v1/contacts`
    pub async fn contacts(&self) -> Result<Vec<Contact>, CliError> {
        self.get(&["v1", "contacts"]).await
    }

    /// `POST /v1/contacts`
    pub async fn contact_add(&self, add: &ContactAdd) -> Result<Contact, CliError> {
        self.call(Verb::Post, &["v1", "contacts"], add, ANSWER_MAX).await
    }

    /// `DELETE /v1/contacts/{name}`
    pub async fn contact_remove(&self, name: &str) -> Result<Done, CliError> {
        self.call(Verb::Delete, &["v1", "contacts", name], &Done {}, ANSWER_MAX).await
    }

    /// `GET /v1/relays`
    pub async fn relays(&self) -> Result<Vec<Relay>, CliError> {
        self.get(&["v1", "relays"]).await
    }

    /// `POST /v1/relays`
    pub async fn relay_add(&self, asked: &RelayAdd) -> Result<Relay, CliError> {
        self.call(Verb::Post, &["v1", "relays"], asked, ANSWER_MAX).await
    }

    /// `GET /v1/bootstraps`
    pub async fn bootstraps(&self) -> Result<Vec<Bootstrap>, CliError> {
        self.get(&["v1", "bootstraps"]).await
    }

    /// `POST /v1/bootstraps`
    pub async fn bootstrap_add(&self, address: &str) -> Result<Bootstrap, CliError> {
        self.call(Verb::Post, &["v1", "bootstraps"], &ServerAdd { address: address.to_owned() }, ANSWER_MAX).await
    }

    /// `DELETE /v1/bootstraps/{bootstrap}`
    pub async fn bootstrap_remove(&self, bootstrap: &str) -> Result<Done, CliError> {
        self.call(Verb::Delete, &["v1", "bootstraps", bootstrap], &Done {}, ANSWER_MAX).await
    }

    /// `GET /v1/doctor`
    pub async fn doctor(&self) -> Result<Vec<Finding>, CliError> {
        self.get(&["v1", "doctor"]).await
    }

    /// `DELETE /v1/relays/{relay}`
    pub async fn relay_remove(&self, relay: &str) -> Result<Done, CliError> {
        self.call(Verb::Delete, &["v1", "relays", relay], &Done {}, ANSWER_MAX).await
    }

    /// `GET /v1/services`
    pub async fn services(&self) -> Result<Vec<Service>, CliError> {
        self.get(&["v1", "services"]).await
    }

    /// `POST /v1/services`
    pub async fn service_offer(&self, offer: &ServiceOffer) -> Result<Service, CliError> {
        self.call(Verb::Post, &["v1", "services"], offer, ANSWER_MAX).await
    }

    /// `DELETE /v1/services/{name}`
    pub async fn service_withdraw(&self, name: &str) -> Result<Done, CliError> {
        self.call(Verb::Delete, &["v1", "services", name], &Done {}, ANSWER_MAX).await
    }

    /// `PUT /v1/services/{name}/grants/{contact}`
    pub async fn service_give(&self, name: &str, person: &str, days: u32) -> Result<Service, CliError> {
        let path = ["v1", "services", name, "grants", person];
        self.call(Verb::Put, &path, &ServiceGive { days }, ANSWER_MAX).await
    }

    /// `DELETE /v1/services/{name}/grants/{contact}`
    pub async fn service_take(&self, name: &str, person: &str) -> Result<Done, CliError> {
        self.call(Verb::Delete, &["v1", "services", name, "grants", person], &Done {}, ANSWER_MAX).await
    }

    /// `GET /v1/tunnels`
    pub async fn tunnels(&self) -> Result<Vec<Tunnel>, CliError> {
        self.get(&["v1", "tunnels"]).await
    }

    /// `POST /v1/tunnels`
    pub async fn tunnel_open(&self, open: &TunnelOpen) -> Result<Tunnel, CliError> {
        self.call(Verb::Post, &["v1", "tunnels"], open, ANSWER_MAX).await
    }

    /// `DELETE /v1/tunnels/{port}`
    pub async fn tunnel_close(&self, port: u16) -> Result<Done, CliError> {
        self.call(Verb::Delete, &["v1", "tunnels", &port.to_string()], &Done {}, ANSWER_MAX).await
    }

    /// `GET /v1/folders/{name}/members`
    pub async fn members(&self, folder: &str) -> Result<Vec<Member>, CliError> {
        self.get(&["v1", "folders", folder, "members"]).await
    }

    /// `PUT /v1/folders/{name}/members/{contact}`
    pub async fn share(&self, folder: &str, person: &str, role: &str) -> Result<Shared, CliError> {
        let path = ["v1", "folders", folder, "members", person];
        self.call(Verb::Put, &path, &Share { role: role.to_owned() }, ANSWER_MAX).await
    }

    /// `DELETE /v1/folders/{name}/members/{contact}`
    pub async fn unshare(&self, folder: &str, person: &str) -> Result<Done, CliError> {
        self.call(Verb::Delete, &["v1", "folders", folder, "members", person], &Done {}, ANSWER_MAX).await
    }

    /// `POST /v1/invitations`
    pub async fn accept(&self, accept: &Accept) -> Result<Folder, CliError> {
        self.call(Verb::Post, &["v1", "invitations"], accept, ANSWER_MAX).await
    }

    /// `DELETE /v1/folders/{name}`
    pub async fn leave(&self, folder: &str) -> Result<Done, CliError> {
        self.call(Verb::Delete, &["v1", "folders", folder], &Done {}, ANSWER_MAX).await
    }

    /// `POST /v1/pairing`
    pub async fn pair_open(&self, yes: bool) -> Result<PairingOffer, CliError> {
        self.call(Verb::Post, &["v1", "pairing"], &PairOpen { yes }, ANSWER_MAX).await
    }

    /// `GET /v1/pairing`
    pub async fn pair_wait(&self) -> Result<PairPoll, CliError> {
        self.get(&["v1", "pairing"]).await
    }

    /// `POST /v1/pairing/confirm`
    pub async fn pair_confirm(&self, yes: bool) -> Result<Done, CliError> {
        self.call(Verb::Post, &["v1", "pairing", "confirm"], &PairConfirm { yes }, ANSWER_MAX).await
    }

    /// `DELETE /v1/pairing`
    pub async fn pair_cancel(&self) -> Result<Done, CliError> {
        self.call(Verb::Delete, &["v1", "pairing"], &Done {}, ANSWER_MAX).await
    }

    /// `POST /v1/join`
    pub async fn join(&self, join: &Join) -> Result<JoinResult, CliError> {
        self.call(Verb::Post, &["v1", "join"], join, JOIN_MAX).await
    }

    /// `GET /v1/folders`
    pub async fn folders(&self) -> Result<Vec<Folder>, CliError> {
        self.get(&["v1", "folders"]).await
    }

    /// `POST /v1/folders`
    pub async fn folder_add(&self, add: &FolderAdd) -> Result<Folder, CliError> {
        self.call(Verb::Post, &["v1", "folders"], add, ANSWER_MAX).await
    }

    /// `PUT /v1/folders/{name}`
    pub async fn folder_get(&self, name: &str, path: &str) -> Result<Folder, CliError> {
        let get = FolderGet { path: path.to_owned() };
        self.call(Verb::Put, &["v1", "folders", name], &get, ANSWER_MAX).await
    }

    /// `GET /v1/folders/{name}/missing`
    pub async fn missing(&self, folder: &str) -> Result<Vec<Missing>, CliError> {
        self.get(&["v1", "folders", folder, "missing"]).await
    }

    /// `DELETE /v1/folders/{name}/missing`
    pub async fn let_go(&self, folder: &str, asked: &LetGo) -> Result<Vec<Missing>, CliError> {
        self.call(Verb::Delete, &["v1", "folders", folder, "missing"], asked, ANSWER_MAX).await
    }

    /// `GET /v1/folders/{name}/status`
    pub async fn folder_status(&self, name: &str) -> Result<FolderStatus, CliError> {
        self.get(&["v1", "folders", name, "status"]).await
    }

    /// `GET /v1/recovery`
    pub async fn recovery_phrase(&self) -> Result<RecoveryPhrase, CliError> {
        self.get(&["v1", "recovery"]).await
    }

    /// `POST /v1/recovery/confirm`
    pub async fn recovery_confirm(&self, confirm: &RecoveryConfirm) -> Result<Done, CliError> {
        self.call(Verb::Post, &["v1", "recovery", "confirm"], confirm, ANSWER_MAX).await
    }

    /// `POST /v1/recovery/restore`
    pub async fn recovery_restore(&self, asked: &RecoveryRestore) -> Result<JoinResult, CliError> {
        self.call(Verb::Post, &["v1", "recovery", "restore"], asked, JOIN_MAX).await
    }

    /// `POST /v1/recovery/rotate`
    pub async fn recovery_rotate(&self, asked: &RecoveryRotate) -> Result<RecoveryPhrase, CliError> {
        self.call(Verb::Post, &["v1", "recovery", "rotate"], asked, ANSWER_MAX).await
    }

    /// `POST /v1/recovery/use`
    pub async fn recovery_use(&self, asked: &RecoveryUse) -> Result<Done, CliError> {
        self.call(Verb::Post, &["v1", "recovery", "use"], asked, ANSWER_MAX).await
    }

    /// `GET /v1/events`; events after id `since`, `None` for new ones only.
    pub async fn events(&self, since: Option<u64>) -> Result<EventLines, CliError> {
        let mut target = "/v1/events".to_owned();
        if let Some(since) = since {
            target.push_str(&format!("?since={since}"));
        }
        let response = self.send(Verb::Get, &target, Bytes::new()).await?;
        if !response.status().is_success() {
            return Err(problem(response).await);
        }
        Ok(EventLines { body: response.into_body(), buffer: Vec::new() })
    }

    async fn get<T: DeserializeOwned>(&self, components: &[&str]) -> Result<T, CliError> {
        self.call(Verb::Get, components, &(), ANSWER_MAX).await
    }

    async fn call<T: DeserializeOwned>(
        &self,
        verb: Verb,
        components: &[&str],
        body: &impl Serialize,
        within: Duration,
    ) -> Result<T, CliError> {
        let path = ResourcePath::new(components.iter().copied()).map_err(|error| {
            CliError::new(
                Exit::Usage,
                "bad_name",
                format!("This cannot be a name: {error}."),
                "Look at the list of names.",
            )
        })?;
        let body = match verb {
            Verb::Get => Vec::new(),
            _ => serde_json::to_vec(body).map_err(io::Error::from)?,
        };
        let exchange = async {
            let response = self.send(verb, &path.to_string(), body.into()).await?;
            if !response.status().is_success() {
                return Err(problem(response).await);
            }
            let bytes = read(response).await?;
            serde_json::from_slice(&bytes).map_err(broken)
        };
        tokio::time::timeout(within, exchange).await.unwrap_or_else(|_| {
            Err(CliError::new(
                Exit::Failed,
                "timeout",
                format!("The node did not answer within {} seconds.", within.as_secs()),
                "Look at mesh.log in its home; `mesh down` and `mesh up` start it anew.",
            ))
        })
    }

    async fn send(&self, verb: Verb, target: &str, body: Bytes) -> Result<HttpResponse<Incoming>, CliError> {
        let stream = UnixStream::connect(&self.socket).await.map_err(|error| self.no_connection(&error))?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
        tokio::spawn(connection);
        let request = HttpRequest::builder()
            .method(verb.name())
            .uri(target)
            .header(header::HOST, "mesh")
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::new(body))
            .map_err(broken)?;
        sender.send_request(request).await.map_err(broken)
    }

    fn no_connection(&self, error: &io::Error) -> CliError {
        let home = self.socket.parent().and_then(Path::parent).unwrap_or(&self.socket);
        match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => CliError::new(
                Exit::NotRunning,
                "not_running",
                format!("No node is running for the home {}.", home.display()),
                "Start it with `mesh up`, or name another home with --home.",
            ),
            io::ErrorKind::PermissionDenied => CliError::new(
                Exit::Refused,
                "not_yours",
                format!("The home {} belongs to another user.", home.display()),
                "Run the command as that user, or name another home with --home.",
            ),
            _ => CliError::new(Exit::Failed, "io", format!("The node cannot be reached: {error}."), ""),
        }
    }
}

async fn read(response: HttpResponse<Incoming>) -> Result<Bytes, CliError> {
    let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await.map_err(broken)?;
    Ok(body.to_bytes())
}

async fn problem(response: HttpResponse<Incoming>) -> CliError {
    match read(response).await {
        Ok(bytes) => serde_json::from_slice::<Problem>(&bytes).map_or_else(broken, CliError::from),
        Err(error) => error,
    }
}

fn broken(error: impl std::fmt::Display) -> CliError {
    CliError::new(
        Exit::Failed,
        "broken_answer",
        format!("The node broke off or gave an answer that is not understood: {error}."),
        "If it still runs, stop it with `mesh down` and start it with this version: `mesh up`.",
    )
}

/// The events of a node as they come.
pub struct EventLines {
    body: Incoming,
    buffer: Vec<u8>,
}

impl EventLines {
    /// The next event; `None` when the node stopped.
    pub async fn next(&mut self) -> Result<Option<Event>, CliError> {
        loop {
            while let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.buffer.drain(..=end).collect();
                if !line.trim_ascii().is_empty() {
                    return serde_json::from_slice(&line).map(Some).map_err(broken);
                }
            }
            if self.buffer.len() > LINE_BYTES_MAX {
                return Err(broken("a line without end"));
            }
            match self.body.frame().await {
                Some(Ok(frame)) => self.buffer.extend_from_slice(frame.data_ref().map_or(&[], |data| data)),
                Some(Err(_)) | None => return Ok(None),
            }
        }
    }
}
