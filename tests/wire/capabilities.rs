//! Chains of capabilities, and what comes of it when they are shown.

use std::time::Duration;

use meshwork_protocol::{
    capability::{Anchor, Audience, Capability, Caveat, Chain, NO_PARENT, Request, Right, check},
    codec,
    control::Control,
    id::{DeviceId, LeaseId, MeshId, ObjectId},
    key::DeviceKey,
    limits,
    time::Timestamp,
};
use serde_json::{Value, json};

use super::{device, hex};

const NOW: Timestamp = Timestamp(1_800_000_000_000_000);
const HOUR: Duration = Duration::from_secs(3_600);

/// The first is an admin, the second was removed; the others are no devices of the mesh.
const LAPTOP: u8 = 1;
const PHONE: u8 = 2;
const STRANGER: u8 = 4;
const RELAY: u8 = 5;
const OPERATOR: u8 = 6;

fn key(number: u8) -> DeviceKey {
    device(number).0
}

fn id(number: u8) -> DeviceId {
    key(number).device_id()
}

fn gives(number: u8, audience: Audience, right: Right, caveats: Vec<Caveat>) -> Capability {
    let lease = LeaseId([number; 16]);
    Capability { parent: NO_PARENT, lease, audience, right, caveats, not_before: NOW, expires: NOW + HOUR }
}

fn chain(links: Vec<(u8, Capability)>) -> Chain {
    let issue = |chain: Chain, (by, capability)| chain.issue(&key(by), capability).expect("a part");
    links.into_iter().fold(Chain::default(), issue)
}

/// An operator lets his relay let the phone reach the laptop.
fn circuit() -> Chain {
    let devices = |numbers: &[u8]| {
        let mut devices: Vec<DeviceId> = numbers.iter().map(|number| id(*number)).collect();
        devices.sort();
        Caveat::Peers { devices }
    };
    let numbers = |most| vec![Caveat::Bytes { most }, Caveat::Rate { most: most / 2 }, Caveat::Count { most: 8 }];
    let mut wide = numbers(1 << 33);
    wide.extend([devices(&[LAPTOP, PHONE]), Caveat::Depth { most: 1 }]);
    let mut narrow = numbers(1 << 20);
    narrow.extend([devices(&[LAPTOP]), Caveat::Depth { most: 0 }]);
    let relay = id(RELAY);
    chain(vec![
        (OPERATOR, gives(1, Audience::Device { device: relay }, Right::Relay { relay }, wide)),
        (RELAY, gives(2, Audience::Device { device: id(PHONE) }, Right::Circuit { relay }, narrow)),
    ])
}

struct Case {
    name: &'static str,
    chain: Chain,
    now: Timestamp,
    request: Request,
}

fn case(name: &'static str, chain: &Chain, by: u8, right: Right) -> Case {
    Case { name, chain: chain.clone(), now: NOW, request: Request { by: id(by), right, peer: None } }
}

fn at_relay() -> Vec<Case> {
    let (chain, relay) = (circuit(), id(RELAY));
    let circuit = |name, by, peer: u8| {
        let case = case(name, &chain, by, Right::Circuit { relay });
        Case { request: Request { peer: Some(id(peer)), ..case.request }, ..case }
    };
    let mut mailbox_by_circuit = circuit("a mailbox where a circuit is given", PHONE, LAPTOP);
    mailbox_by_circuit.request.right = Right::Mailbox { relay };
    let at = |name, now| Case { now, ..circuit(name, PHONE, LAPTOP) };
    let (begin, end) = (NOW.0 - 600_000_000, (NOW + HOUR + limits::CLOCK_SKEW).0);
    let mailbox = gives(3, Audience::Device { device: id(PHONE) }, Right::Mailbox { relay }, Vec::new());
    let mailbox = self::chain(vec![(OPERATOR, mailbox)]);
    let forged = gives(4, Audience::Device { device: id(PHONE) }, Right::Mailbox { relay }, Vec::new());
    let forged = self::chain(vec![(STRANGER, forged)]);
    vec![
        circuit("a circuit to the laptop", PHONE, LAPTOP),
        circuit("a circuit by another device", STRANGER, LAPTOP),
        circuit("a circuit to a device that is not named", PHONE, STRANGER),
        mailbox_by_circuit,
        at("before the first moment", Timestamp(begin - 1)),
        at("at the first moment", Timestamp(begin)),
        at("at the last moment", Timestamp(end - 1)),
        at("after the last moment", Timestamp(end)),
        case("a mailbox", &mailbox, PHONE, Right::Mailbox { relay }),
        case("a mailbox that a stranger gives", &forged, PHONE, Right::Mailbox { relay }),
    ]
}

fn in_mesh(mesh: MeshId, object: ObjectId) -> Vec<Case> {
    let person = Audience::Person { mesh };
    let name = |text: &str| text.parse().expect("a name");
    let all = Right::Services { device: id(LAPTOP) };
    let ssh = Right::Service { device: id(LAPTOP), name: name("ssh") };
    let topic = Right::Topic { object, name: name("news") };
    let publish = Right::Publish { object, name: name("news") };
    let subscribe = Right::Subscribe { object, name: name("news") };
    let member = |number| Audience::Member { mesh, device: id(number) };
    let to_all = (LAPTOP, gives(1, person, all, Vec::new()));
    let of_phone = chain(vec![to_all.clone(), (PHONE, gives(2, member(LAPTOP), ssh.clone(), Vec::new()))]);
    let of_laptop = chain(vec![to_all, (LAPTOP, gives(3, member(LAPTOP), ssh.clone(), Vec::new()))]);
    let news = chain(vec![(LAPTOP, gives(4, person, topic, Vec::new()))]);
    let hears = chain(vec![(LAPTOP, gives(5, person, subscribe.clone(), Vec::new()))]);
    let says = chain(vec![(PHONE, gives(6, person, publish.clone(), Vec::new()))]);
    vec![
        case("a service by a chain", &of_laptop, LAPTOP, ssh.clone()),
        case("a service through a device that was removed", &of_phone, LAPTOP, ssh.clone()),
        case("a service by a device that was removed", &of_laptop, PHONE, ssh.clone()),
        case("a service without a chain", &Chain::default(), LAPTOP, ssh),
        case("to publish where all is given", &news, LAPTOP, publish.clone()),
        case("to publish where to subscribe is given", &hears, LAPTOP, publish.clone()),
        case("to subscribe where that is given", &hears, LAPTOP, subscribe),
        case("to publish, given by a device that was removed", &says, LAPTOP, publish),
    ]
}

fn told(case: &Case, anchor: Anchor<'_>) -> Value {
    let Case { name, chain, now, request } = case;
    json!({
        "name": name,
        "chain": hex(&chain.to_bytes()),
        "now": now.as_micros(),
        "by": request.by.to_string(),
        "right": hex(&codec::encode(&request.right)),
        "peer": request.peer.map(|peer| peer.to_string()),
        "permitted": check(chain, *now, request, anchor, |_| false).is_ok(),
    })
}

/// Every case, with the judgement of a relay or of the laptop.
pub(crate) fn cases(control: &Control, mesh: MeshId, object: ObjectId) -> Value {
    let operator = Anchor::Operator { relay: id(RELAY), key: id(OPERATOR) };
    let logs = Anchor::Logs { control, mesh };
    let at_relay: Vec<Value> = at_relay().iter().map(|case| told(case, operator)).collect();
    let in_mesh: Vec<Value> = in_mesh(mesh, object).iter().map(|case| told(case, logs)).collect();
    json!({
        "relay": id(RELAY).to_string(),
        "operator": id(OPERATOR).to_string(),
        "at_relay": at_relay,
        "in_mesh": in_mesh,
    })
}
