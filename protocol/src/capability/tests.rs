//! Tests of capabilities as a whole.

mod checks;
mod escalation;
mod forms;
mod renewals;

use std::time::Duration;

use super::*;
use crate::{
    control::{Act, Control, Role, create_mesh},
    key::{DeviceKey, RootKey},
    seal::{SealKey, SeedRng},
};

const NOW: Timestamp = Timestamp(1_800_000_000_000_000);
const HOUR: Duration = Duration::from_secs(3_600);

/// Devices of Alice, of Bob, of nobody; a relay and the key of its operator.
const LAPTOP: u8 = 1;
const PHONE: u8 = 2;
const HELPER: u8 = 3;
const BOBS: u8 = 11;
const BOBS_PHONE: u8 = 12;
const STRANGER: u8 = 21;
const RELAY: u8 = 31;
const OPERATOR: u8 = 32;

fn key(number: u8) -> DeviceKey {
    DeviceKey::from_bytes(&[number; 32])
}

fn id(number: u8) -> DeviceId {
    key(number).device_id()
}

fn rng(seed: u8) -> SeedRng {
    SeedRng::new([seed; 32])
}

fn label(text: &str) -> Label {
    text.parse().unwrap()
}

/// Alice's mesh, Bob's, and an object of Alice in which Bob may edit.
struct World {
    control: Control,
    alice: MeshId,
    bob: MeshId,
    object: ObjectId,
}

impl World {
    fn new() -> Self {
        let mut control = Control::new();
        let alice = mesh(&mut control, LAPTOP);
        let bob = mesh(&mut control, BOBS);
        let (object, born) = control.create_object(&mut rng(9), &key(LAPTOP), alice, 1).unwrap();
        for signed in born {
            let _ = control.adopt(signed).unwrap();
        }
        let mut world = World { control, alice, bob, object };
        world.grant(LAPTOP, alice.into(), id(PHONE), Role::Edit);
        world.grant(LAPTOP, alice.into(), id(HELPER), Role::Read);
        world.grant(BOBS, bob.into(), id(BOBS_PHONE), Role::Edit);
        world.grant(LAPTOP, object, bob, Role::Edit);
        world
    }

    fn grant(&mut self, by: u8, log: ObjectId, to: impl Into<crate::control::Holder>, role: Role) {
        self.act(by, log, Act::Grant { to: to.into(), role, seen: Vec::new() });
    }

    fn act(&mut self, by: u8, log: ObjectId, act: Act) {
        let signed = self.control.sign(&key(by), log, act).unwrap();
        let _ = self.control.adopt(signed).unwrap();
    }

    fn remove(&mut self, by: u8, mesh: MeshId, device: u8) {
        let act = self.control.revocation(&mut rng(8), id(device), &[].into());
        self.act(by, mesh.into(), act);
    }

    fn exclude(&mut self, person: MeshId) {
        let act = self.control.removal(&mut rng(8), self.object, person, &[]);
        self.act(LAPTOP, self.object, act);
    }

    /// As a device of Alice sees it.
    fn anchor(&self) -> Anchor<'_> {
        Anchor::Logs { control: &self.control, mesh: self.alice }
    }

    fn check(&self, chain: &Chain, by: u8, right: Right) -> Result<Permit, CapabilityError> {
        check(chain, NOW, &Request { by: id(by), right, peer: None }, self.anchor(), |_| false)
    }

    fn topic(&self) -> Right {
        Right::Topic { object: self.object, name: label("news") }
    }

    fn publish(&self) -> Right {
        Right::Publish { object: self.object, name: label("news") }
    }

    fn subscribe(&self) -> Right {
        Right::Subscribe { object: self.object, name: label("news") }
    }
}

fn mesh(control: &mut Control, first: u8) -> MeshId {
    let root = RootKey::from_seed(&[first; 64], 0);
    let seal = SealKey::from_bytes(&[first; 32]);
    let (mesh, born) = create_mesh(&mut rng(first), &root, &key(first), &seal).unwrap();
    for signed in born {
        let _ = control.adopt(signed).unwrap();
    }
    mesh
}

fn ssh() -> Right {
    Right::Service { device: id(LAPTOP), name: label("ssh") }
}

fn circuit() -> Right {
    Right::Circuit { relay: id(RELAY) }
}

/// An hour from now on, without caveats.
fn terms(audience: Audience, right: Right) -> Capability {
    let lease = LeaseId([7; 16]);
    Capability { parent: NO_PARENT, lease, audience, right, caveats: Vec::new(), not_before: NOW, expires: NOW + HOUR }
}

fn to_device(number: u8, right: Right) -> Capability {
    terms(Audience::Device { device: id(number) }, right)
}

fn first(by: u8, capability: Capability) -> Chain {
    Chain::default().issue(&key(by), capability).unwrap()
}

/// What a relay says.
fn at_relay(chain: &Chain, now: Timestamp, by: u8, peer: Option<u8>) -> Result<Permit, CapabilityError> {
    let anchor = Anchor::Operator { relay: id(RELAY), key: id(OPERATOR) };
    let request = Request { by: id(by), right: circuit(), peer: peer.map(id) };
    check(chain, now, &request, anchor, |_| false)
}
