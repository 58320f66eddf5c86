//! Services: ports of this device that others reach through the mesh. Which there are is this device's own affair and
//! stands in its home; the mesh's graph only tells their names, and holds the capabilities that let other people in.

use std::{collections::BTreeMap, fs, path::PathBuf, sync::Arc, time::Duration};

use meshwork_host::swarm::{Address, Stream};
use meshwork_protocol::{
    capability::{Anchor, Audience, Capability, Chain, Label, NO_PARENT, Permit, Request, Right, check},
    id::{DeviceId, LeaseId, MeshId},
    limits,
    time::Timestamp,
    wire::tunnel::{Refusal, TunnelMessage},
};
use meshwork_replica::replica::Replica;
use rand_core::Rng as _;
use serde_json::json;
use tokio::{
    net::TcpStream,
    sync::{mpsc, oneshot},
    time::timeout,
};

use super::{
    Driver, Event,
    bulk::Bulk,
    command::{Reply, answer, internal, no_mesh},
    home,
};
use crate::{
    api::types::{Service, ServiceGive, ServiceGrant, ServiceOffer, ServiceUser},
    clock,
    network::tunnel::{self, Moved, TunnelError, carry, hear, say},
    resource::{ResourceError, events},
};

/// What is asked about services.
pub(crate) enum Ask {
    List(Reply<Vec<Service>>),
    Offer { offer: ServiceOffer, reply: Reply<Service> },
    Withdraw { name: String, reply: Reply<()> },
    Give { name: String, person: String, give: ServiceGive, reply: Reply<Service> },
    Take { name: String, person: String, reply: Reply<()> },
}

/// What a tunnel that is served tells the loop.
pub(crate) enum Serving {
    /// Somebody wants to use a service.
    Asked { number: u64, service: Label, reply: oneshot::Sender<Result<Admission, Refusal>> },
    /// The tunnel has ended.
    Ended { number: u64, moved: Arc<Moved> },
}

/// That a tunnel may be opened.
pub(crate) struct Admission {
    target: String,
    until: Option<Timestamp>,
    listening: Vec<Address>,
}

/// The services of this device and who uses them.
#[derive(Default)]
pub(crate) struct Services {
    home: PathBuf,
    offered: BTreeMap<Label, String>,
    used: BTreeMap<u64, Used>,
    count: u64,
}

/// A tunnel that is served, from the stream on.
struct Used {
    by: DeviceId,
    service: Option<Label>,
    since: Timestamp,
    /// Dropped, it ends the tunnel.
    _end: oneshot::Sender<()>,
}

const OFFERED_FILE: &str = "services.json";
/// The name of a service stands in the graph under this, its device's id, and itself.
const OFFERED: &str = "service.";
/// A capability stands in the graph under this and its lease.
const GRANTED: &str = "grant.";
const DAY: Duration = Duration::from_secs(86_400);

impl Services {
    pub fn load(home: PathBuf) -> Result<Self, String> {
        let text = match fs::read(home.join(OFFERED_FILE)) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => b"{}".to_vec(),
            Err(error) => return Err(error.to_string()),
        };
        let read: BTreeMap<String, String> = serde_json::from_slice(&text).map_err(|error| error.to_string())?;
        let offered = read.into_iter().filter_map(|(name, target)| Some((name.parse().ok()?, target))).collect();
        Ok(Services { home, offered, ..Services::default() })
    }

    /// Stores what is offered, then offers it.
    fn replace(&mut self, offered: BTreeMap<Label, String>) -> Result<(), ResourceError> {
        let named: BTreeMap<String, &String> =
            offered.iter().map(|(name, target)| (name.to_string(), target)).collect();
        let text = serde_json::to_vec_pretty(&named).map_err(internal)?;
        home::write_small(&self.home, OFFERED_FILE, &text).map_err(internal)?;
        self.offered = offered;
        Ok(())
    }
}

impl Driver {
    pub(super) fn on_services(&mut self, ask: Ask) {
        match ask {
            Ask::List(reply) => answer(reply, Ok(self.services())),
            Ask::Offer { offer, reply } => answer(reply, self.offer_service(&offer)),
            Ask::Withdraw { name, reply } => answer(reply, self.withdraw_service(&name)),
            Ask::Give { name, person, give, reply } => answer(reply, self.give_service(&name, &person, &give)),
            Ask::Take { name, person, reply } => answer(reply, self.take_service(&name, &person)),
        }
    }

    fn services(&self) -> Vec<Service> {
        let Some(replica) = &self.replica else { return Vec::new() };
        let own = self.network.device();
        let mut all: Vec<(DeviceId, Label)> = told(replica).filter(|(device, _)| *device != own).collect();
        all.extend(self.services.offered.keys().map(|name| (own, name.clone())));
        all.sort();
        all.into_iter().map(|(device, name)| self.service(replica, device, &name)).collect()
    }

    fn service(&self, replica: &Replica, device: DeviceId, name: &Label) -> Service {
        let here = device == self.network.device();
        let used = self.services.used.values().filter(|used| here && used.service.as_ref() == Some(name));
        let user = |used: &Used| ServiceUser {
            device: used.by.to_string(),
            name: self.name_of(used.by),
            since: used.since.as_micros() / 1_000,
        };
        let given = grants(replica).filter_map(|(_, chain)| {
            let capability = chain.capability()?;
            let person = person_of(&capability.audience)?;
            let is_of = capability.right == Right::Service { device, name: name.clone() };
            let until = capability.expires.as_micros() / 1_000;
            is_of.then(|| ServiceGrant { person: person.to_string(), name: self.person_name(person), until })
        });
        Service {
            device: device.to_string(),
            device_name: self.name_of(device),
            name: name.to_string(),
            here,
            target: self.services.offered.get(name).filter(|_| here).cloned(),
            users: used.map(user).collect(),
            granted: given.collect(),
        }
    }

    fn offer_service(&mut self, offer: &ServiceOffer) -> Result<Service, ResourceError> {
        let (name, target) = (label(&offer.name)?, target(&offer.target)?);
        self.ensure_mesh()?;
        let mut offered = self.services.offered.clone();
        offered.insert(name.clone(), target);
        if offered.len() > limits::SERVICES {
            return Err(ResourceError::new(
                409,
                "too_many",
                format!("This device offers {} services already.", limits::SERVICES),
                "Withdraw one first: `mesh service withdraw NAME`.",
            ));
        }
        self.services.replace(offered)?;
        let key = told_as(self.network.device(), &name);
        self.ask_replica(|replica, rng| replica.put_setting(rng, &key, Some(Vec::new()))).map_err(internal)?;
        let replica = self.replica.as_ref().ok_or_else(no_mesh)?;
        Ok(self.service(replica, self.network.device(), &name))
    }

    fn withdraw_service(&mut self, name: &str) -> Result<(), ResourceError> {
        let name = self.offered(name)?;
        let mut offered = self.services.offered.clone();
        offered.remove(&name);
        self.services.replace(offered)?;
        self.judge_tunnels();
        let key = told_as(self.network.device(), &name);
        self.ask_replica(|replica, rng| replica.put_setting(rng, &key, None)).map_err(internal)
    }

    fn offered(&self, name: &str) -> Result<Label, ResourceError> {
        let name = label(name)?;
        let known = self.services.offered.contains_key(&name).then_some(name);
        known.ok_or_else(|| {
            ResourceError::not_found(
                "This device offers no such service.",
                "`mesh service ls` shows those that it does.",
            )
        })
    }

    fn give_service(&mut self, name: &str, person: &str, give: &ServiceGive) -> Result<Service, ResourceError> {
        let name = self.offered(name)?;
        if !(1..=30).contains(&give.days) {
            return Err(ResourceError::bad_request(
                "A service is given for 1 to 30 days.",
                "Give it again when the time is over; that is how it ends by itself where it is forgotten.",
            ));
        }
        let (device, mesh, now) = (self.network.device(), self.find_person(person)?, clock::now());
        let mut lease = LeaseId([0; 16]);
        self.rng.fill_bytes(&mut lease.0);
        let capability = Capability {
            parent: NO_PARENT,
            lease,
            audience: Audience::Person { mesh },
            right: Right::Service { device, name: name.clone() },
            caveats: Vec::new(),
            not_before: now,
            expires: now + give.days * DAY,
        };
        let chain = Chain::default().issue(&home::device_key(&self.identity), capability).map_err(internal)?;
        let before = self.given(mesh, &name);
        let (key, value) = (granted_as(lease), Some(chain.to_bytes()));
        self.ask_replica(|replica, rng| replica.put_setting(rng, &key, value)).map_err(internal)?;
        self.take_back(before)?;
        let replica = self.replica.as_ref().ok_or_else(no_mesh)?;
        Ok(self.service(replica, device, &name))
    }

    fn take_service(&mut self, name: &str, person: &str) -> Result<(), ResourceError> {
        let (name, mesh) = (self.offered(name)?, self.find_person(person)?);
        let given = self.given(mesh, &name);
        if given.is_empty() {
            return Err(ResourceError::not_found(
                format!("{} was not given this service.", self.person_name(mesh)),
                "`mesh service ls` shows to whom it was.",
            ));
        }
        self.take_back(given)?;
        self.judge_tunnels();
        Ok(())
    }

    /// The leases under which a person has a service of this device.
    fn given(&self, mesh: MeshId, name: &Label) -> Vec<LeaseId> {
        let right = Right::Service { device: self.network.device(), name: name.clone() };
        let is_it = |chain: &Chain| {
            chain.capability().is_some_and(|it| it.right == right && person_of(&it.audience) == Some(mesh))
        };
        let all = self.replica.iter().flat_map(grants);
        all.filter(|(_, chain)| is_it(chain)).map(|(lease, _)| lease).collect()
    }

    fn take_back(&mut self, leases: Vec<LeaseId>) -> Result<(), ResourceError> {
        leases.into_iter().try_for_each(|lease| {
            self.ask_replica(|replica, rng| replica.put_setting(rng, &granted_as(lease), None)).map_err(internal)
        })
    }

    /// Whether a device may use a service of this one now: as a device of the mesh, or by what was given.
    fn permit(&self, by: DeviceId, name: &Label) -> Option<Permit> {
        let replica = self.replica.as_ref()?;
        let anchor = Anchor::Logs { control: replica.control(), mesh: replica.mesh_id() };
        let right = Right::Service { device: self.network.device(), name: name.clone() };
        let request = Request { by, right, peer: None };
        // A capability may be withdrawn by taking it out of the graph, and no other way.
        let judged = |chain: &Chain| check(chain, clock::now(), &request, anchor, |_| false).ok();
        // Bounds of use are not counted here: a right that has some is none.
        let free = |permit: &Permit| {
            permit.budgets.iter().all(|it| it.bytes.is_none() && it.rate.is_none() && it.count.is_none())
        };
        let by_grant = || {
            let permits = grants(replica).filter_map(|(_, chain)| judged(&chain));
            permits.filter(free).max_by_key(|permit| permit.until)
        };
        judged(&Chain::default()).or_else(by_grant)
    }

    /// A device opened a stream for a tunnel.
    pub(super) fn serve_tunnel(&mut self, by: DeviceId, stream: Stream) {
        let served = self.services.used.values().filter(|used| used.by == by).count();
        let full = served >= limits::TUNNELS_PER_DEVICE || self.services.used.len() >= limits::TUNNELS;
        let known = self.replica.as_ref().is_some_and(|replica| replica.peers().contains(&by));
        if full || !known {
            return;
        }
        self.services.count += 1;
        let (number, (end, ended)) = (self.services.count, oneshot::channel());
        self.services.used.insert(number, Used { by, service: None, since: clock::now(), _end: end });
        let (bulk, events) = (self.bulk.clone(), self.events.clone());
        tokio::spawn(async move {
            let moved = Arc::<Moved>::default();
            let served = async {
                tokio::select! {
                    served = serve(stream, (by, number), &bulk, &events, &moved) => served,
                    _ = ended => Ok(()),
                }
            };
            if let Err(error) = served.await {
                tracing::debug!(peer = %by.short(), %error, "a tunnel ended");
            }
            // A loop that has ended needs no answer.
            let _ = events.send(Event::Serving(Serving::Ended { number, moved })).await;
        });
    }

    pub(super) fn on_serving(&mut self, serving: Serving) {
        match serving {
            Serving::Asked { number, service, reply } => {
                let admitted = self.admit_tunnel(number, &service);
                // The stream may be gone meanwhile.
                let _ = reply.send(admitted);
            }
            Serving::Ended { number, moved } => self.tunnel_ended(number, &moved),
        }
    }

    fn admit_tunnel(&mut self, number: u64, name: &Label) -> Result<Admission, Refusal> {
        let by = self.services.used.get(&number).map(|used| used.by).ok_or(Refusal::NoService)?;
        let target = self.services.offered.get(name).cloned();
        let (Some(target), Some(permit)) = (target, self.permit(by, name)) else {
            self.report_service(events::SERVICE_REFUSED, by, name, "was refused", &[]);
            return Err(Refusal::NoService);
        };
        if let Some(used) = self.services.used.get_mut(&number) {
            used.service = Some(name.clone());
        }
        self.report_service(events::SERVICE_OPENED, by, name, "uses", &[]);
        Ok(Admission { target, until: permit.until, listening: self.listening.clone() })
    }

    fn tunnel_ended(&mut self, number: u64, moved: &Moved) {
        let Some(Used { by, service: Some(name), .. }) = self.services.used.remove(&number) else { return };
        let bytes = [
            ("sent", moved.back.load(std::sync::atomic::Ordering::Relaxed)),
            ("received", moved.there.load(std::sync::atomic::Ordering::Relaxed)),
        ];
        self.report_service(events::SERVICE_CLOSED, by, &name, "does not use any more", &bytes);
    }

    /// Ends tunnels to which nobody has a right any more.
    pub(super) fn judge_tunnels(&mut self) {
        let stands = |used: &Used| match &used.service {
            Some(name) => self.services.offered.contains_key(name) && self.permit(used.by, name).is_some(),
            None => true,
        };
        let ended: Vec<u64> =
            self.services.used.iter().filter(|(_, used)| !stands(used)).map(|(number, _)| *number).collect();
        for number in ended {
            let Some(Used { by, service: Some(name), .. }) = self.services.used.remove(&number) else { continue };
            self.report_service(events::SERVICE_ENDED, by, &name, "may not use any more", &[]);
        }
    }

    fn report_service(
        &self,
        kind: &'static str,
        by: DeviceId,
        name: &Label,
        what: &str,
        bytes: &[(&'static str, u64)],
    ) {
        let device = self.name_of(by);
        let text = format!("{device} {what} {name}");
        let mut fields =
            vec![("device", json!(by.to_string())), ("name", json!(device)), ("service", json!(name.to_string()))];
        fields.extend(bytes.iter().map(|(key, count)| (*key, json!(count))));
        self.log.post(clock::now(), kind, text, fields);
    }
}

/// One tunnel, from the first message to the last byte.
async fn serve(
    mut stream: Stream,
    (by, number): (DeviceId, u64),
    bulk: &Bulk,
    events: &mpsc::Sender<Event>,
    moved: &Moved,
) -> Result<(), TunnelError> {
    let TunnelMessage::Open { service, splice } = hear(&mut stream).await? else {
        return Err(TunnelError::Unexpected);
    };
    let (reply, answered) = oneshot::channel();
    let asked = Event::Serving(Serving::Asked { number, service, reply });
    events.send(asked).await.map_err(|_| TunnelError::Unexpected)?;
    let Admission { target, until, listening } = match answered.await.map_err(|_| TunnelError::Unexpected)? {
        Ok(admission) => admission,
        Err(refusal) => return refuse(&mut stream, refusal).await,
    };
    let Ok(Ok(service)) = timeout(limits::TUNNEL_ANSWER, TcpStream::connect(&target)).await else {
        return refuse(&mut stream, Refusal::NoAnswer).await;
    };
    service.set_nodelay(true)?;
    let (offer, connection) = bulk.offer(by, &listening, splice).unzip();
    say(&mut stream, &TunnelMessage::Opened { offer }).await?;
    let TunnelMessage::Carry { bulk } = hear(&mut stream).await? else { return Err(TunnelError::Unexpected) };
    let carried = async {
        match connection.filter(|_| bulk) {
            Some(connection) => {
                let channel = connection.connected().await.map_err(|_| TunnelError::Late)?;
                Ok(carry(channel, service, moved).await?)
            }
            None => Ok(carry(stream, service, moved).await?),
        }
    };
    match until {
        Some(until) => timeout(until - clock::now(), carried).await.unwrap_or(Ok(())),
        None => carried.await,
    }
}

async fn refuse(stream: &mut Stream, refusal: Refusal) -> Result<(), TunnelError> {
    tunnel::say(stream, &TunnelMessage::Refused { code: refusal.code() }).await?;
    Err(refusal.into())
}

/// The services that the devices of a mesh say they offer.
pub(super) fn told(replica: &Replica) -> impl Iterator<Item = (DeviceId, Label)> {
    replica.graph().settings(OFFERED).into_keys().filter_map(|key| {
        let (device, name) = key.strip_prefix(OFFERED)?.split_once('.')?;
        Some((device.parse().ok()?, name.parse().ok()?))
    })
}

fn told_as(device: DeviceId, name: &Label) -> String {
    format!("{OFFERED}{device}.{name}")
}

/// The capabilities in the graph of a mesh.
fn grants(replica: &Replica) -> impl Iterator<Item = (LeaseId, Chain)> {
    replica.graph().settings(GRANTED).into_values().filter_map(|bytes| {
        let chain = Chain::parse(&bytes).ok()?;
        Some((chain.capability()?.lease, chain))
    })
}

fn granted_as(lease: LeaseId) -> String {
    format!("{GRANTED}{lease}")
}

fn person_of(audience: &Audience) -> Option<MeshId> {
    match audience {
        Audience::Person { mesh } | Audience::Member { mesh, .. } => Some(*mesh),
        Audience::Device { .. } => None,
    }
}

pub(super) fn label(name: &str) -> Result<Label, ResourceError> {
    name.parse().map_err(|error| {
        ResourceError::bad_request(
            format!("{name} is no name of a service: {error}."),
            "Choose another name, such as ssh or photos-web.",
        )
    })
}

/// A port of this device, or a host and a port as this device reaches them.
fn target(text: &str) -> Result<String, ResourceError> {
    let (host, port) = text.rsplit_once(':').unwrap_or(("127.0.0.1", text));
    let is_host =
        !host.is_empty() && host.len() <= 255 && !host.contains(|it: char| it.is_whitespace() || it.is_control());
    match port.parse::<u16>() {
        Ok(port) if port > 0 && is_host => Ok(format!("{host}:{port}")),
        _ => Err(ResourceError::bad_request(
            format!("{text} is no port of this device, and no host with a port."),
            "Say where the service takes connections, such as 22, localhost:8080 or 192.168.1.1:80.",
        )),
    }
}
