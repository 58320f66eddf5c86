//! Capabilities: chains as a peer shows them, bodies that a key of ours has signed, and messages about renewal.

use std::time::Duration;

use meshwork_protocol::{
    capability::{
        Anchor, Audience, Capability, Caveat, Chain, Input, NO_PARENT, Output, Renewal, Request, Right, check,
    },
    codec,
    id::{DeviceId, LeaseId, MeshId, ObjectId},
    key::{DeviceKey, Kind},
    limits,
    seal::SeedRng,
    time::Timestamp,
    wire::capability::CapabilityMessage,
};

use super::{frames::canonical, statements::signer};

const NOW: Timestamp = Timestamp(1_800_000_000_000_000);
const LEASE: LeaseId = LeaseId([7; 16]);

fn relay() -> DeviceKey {
    DeviceKey::from_bytes(&[8; 32])
}

/// A chain, a body and a message at once.
pub(super) fn run(bytes: &[u8]) -> bool {
    let chain = Chain::parse(bytes).ok();
    if let Some(chain) = &chain {
        assert_eq!(chain.to_bytes(), bytes, "not canonical");
        judged(chain);
    }
    let body = Chain::new(vec![signer().sign(Kind::Capability, bytes.to_vec())]).ok();
    if let Some(chain) = &body {
        assert_eq!(chain.capability().map(codec::encode).as_deref(), Some(bytes), "not canonical");
        judged(chain);
        passed_on(chain);
    }
    heard(bytes) || chain.is_some() || body.is_some()
}

/// Whoever is permitted something is permitted it by each link, within its time and budget.
fn judged(chain: &Chain) {
    assert!(chain.links().len() <= limits::CAPABILITY_LINKS);
    let Some(last) = chain.capability() else { return };
    let Some(first) = chain.links().first() else { return };
    let by = match last.audience {
        Audience::Device { device } | Audience::Member { device, .. } => device,
        Audience::Person { mesh } => DeviceId(mesh.0),
    };
    let at = match last.right {
        Right::Relay { relay } | Right::Circuit { relay } | Right::Mailbox { relay } => relay,
        _ => relay().device_id(),
    };
    let peer = last.caveats.iter().find_map(|caveat| match caveat {
        Caveat::Peers { devices } => devices.first().copied(),
        _ => None,
    });
    let request = Request { by, right: last.right.clone(), peer };
    let anchor = Anchor::Operator { relay: at, key: first.issuer() };
    for now in [last.not_before, Timestamp(last.expires.0 - 1), NOW] {
        let Ok(permit) = check(chain, now, &request, anchor, |_| false) else { continue };
        assert_eq!(permit.budgets.len(), chain.links().len());
        for link in chain.links().iter().map(|link| link.capability()) {
            assert!(link.right.covers(&request.right) && link.not_before <= last.not_before);
            assert!(permit.until.is_some_and(|until| until <= link.expires + limits::CLOCK_SKEW));
        }
        let [budget, .., least] = permit.budgets.as_slice() else { continue };
        assert!(budget.bytes.is_none_or(|most| least.bytes.is_some_and(|less| less <= most)), "a larger share");
    }
}

/// Its holder can pass on all that he has, unless it says that he may not, and no more.
fn passed_on(chain: &Chain) {
    let Some(last) = chain.capability() else { return };
    let mut child = last.clone();
    let mut is_closed = false;
    for caveat in &mut child.caveats {
        if let Caveat::Depth { most } = caveat {
            is_closed = *most == 0;
            *most = most.saturating_sub(1);
        }
    }
    assert_eq!(chain.issue(&relay(), child.clone()).is_ok(), !is_closed, "a part is a part");
    let later = Capability { expires: child.expires + Duration::from_micros(1), ..child };
    assert!(later.expires == last.expires || chain.issue(&relay(), later).is_err(), "more time");
}

/// A message reaches a device that has asked and that has given.
fn heard(bytes: &[u8]) -> bool {
    let message = canonical::<CapabilityMessage>(bytes, limits::CAPABILITY_FRAME);
    let (key, from) = (signer(), relay());
    let anchor = Anchor::Operator { relay: key.device_id(), key: key.device_id() };
    let mut rng = SeedRng::new([1; 32]);
    let mut renewal = Renewal::new(key.clone());
    let asked = renewal.handle(NOW, &mut rng, anchor, Input::Hold(given(&from, key.device_id(), from.device_id())));
    assert!(matches!(asked.as_slice(), [Output::Send { .. }]), "more than half of its time is over");
    let given = given(&key, from.device_id(), key.device_id());
    assert_eq!(renewal.handle(NOW, &mut rng, anchor, Input::Give(given)), []);
    let input = Input::Message { from: from.device_id(), bytes: bytes.to_vec() };
    let out = renewal.handle(NOW, &mut rng, anchor, input);
    assert!(out.len() <= 1 && renewal.next_deadline().is_some_and(|at| at > NOW));
    assert!(message.is_some() || out == [Output::Fault(from.device_id())], "junk is a fault");
    message.is_some()
}

/// An hour of which three quarters are over.
fn given(by: &DeviceKey, to: DeviceId, relay: DeviceId) -> Chain {
    let capability = Capability {
        not_before: Timestamp(NOW.0 - 2_700_000_000),
        expires: Timestamp(NOW.0 + 900_000_000),
        ..capability(Audience::Device { device: to }, Right::Circuit { relay })
    };
    Chain::default().issue(by, capability).expect("it is well formed")
}

fn capability(audience: Audience, right: Right) -> Capability {
    let expires = NOW + Duration::from_secs(3_600);
    Capability { parent: NO_PARENT, lease: LEASE, audience, right, caveats: Vec::new(), not_before: NOW, expires }
}

/// One of each sort.
fn capabilities() -> Vec<Capability> {
    let (relay, device, mesh) = (relay().device_id(), DeviceId([2; 32]), MeshId([3; 32]));
    let (object, name) = (ObjectId([4; 32]), "ssh-22".parse().expect("a label"));
    let to_device = |right| capability(Audience::Device { device }, right);
    let mut all: Vec<Capability> =
        [Right::Relay { relay }, Right::Circuit { relay }, Right::Mailbox { relay }].map(to_device).into();
    all.push(capability(Audience::Person { mesh }, Right::Services { device }));
    all.push(capability(Audience::Member { mesh, device }, Right::Service { device, name }));
    let name = || "news".parse().expect("a label");
    for right in [
        Right::Topic { object, name: name() },
        Right::Publish { object, name: name() },
        Right::Subscribe { object, name: name() },
    ] {
        all.push(capability(Audience::Person { mesh }, right));
    }
    let peers = Caveat::Peers { devices: vec![DeviceId([1; 32]), device] };
    let numbers = [Caveat::Bytes { most: 1 << 40 }, Caveat::Rate { most: 1 << 20 }, Caveat::Count { most: 8 }];
    let caveats = numbers.into_iter().chain([peers, Caveat::Depth { most: 3 }]).collect();
    all.push(Capability { caveats, ..to_device(Right::Relay { relay }) });
    all
}

pub(super) fn bodies() -> Vec<Vec<u8>> {
    capabilities().iter().map(codec::encode).collect()
}

pub(super) fn seeds() -> Vec<Vec<u8>> {
    let key = signer();
    let relay = relay();
    let whole = capability(Audience::Device { device: relay.device_id() }, Right::Relay { relay: relay.device_id() });
    let part = capability(Audience::Device { device: key.device_id() }, Right::Circuit { relay: relay.device_id() });
    let chain = Chain::default().issue(&key, whole).and_then(|chain| chain.issue(&relay, part)).expect("a chain");
    let newer = Capability {
        not_before: NOW,
        ..given(&relay, key.device_id(), relay.device_id()).capability().cloned().expect("one link")
    };
    let newer = Capability { expires: NOW + Duration::from_secs(3_600), ..newer };
    let renewed = Chain::default().issue(&relay, newer).expect("a chain").to_signed();
    let messages = [
        CapabilityMessage::Ask { lease: LEASE },
        CapabilityMessage::Renewed { lease: LEASE, chain: renewed },
        CapabilityMessage::Refused { lease: LEASE },
    ];
    bodies().into_iter().chain([chain.to_bytes()]).chain(messages.iter().map(codec::encode)).collect()
}
