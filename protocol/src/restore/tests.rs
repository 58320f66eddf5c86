use proptest::prelude::*;

use super::*;
use crate::{
    codec,
    control::{Act, Control, Inserted, Role, create_mesh},
    id::{DeviceId, MeshId, ObjectId},
    key::{DeviceKey, PublicKey, RootKey, Signed},
    limits,
    seal::{SealKey, SeedRng},
    wire::{pair::Welcome, restore::RestoreMessage},
};

const FOUNDER: u8 = 1;
const BLANK: u8 = 2;

fn device(number: u8) -> DeviceKey {
    DeviceKey::from_bytes(&[number; 32])
}

fn root(number: u8) -> RootKey {
    RootKey::from_seed(&[number; 64], 0)
}

/// The log of a mesh as its first device holds it.
struct Held {
    mesh: MeshId,
    control: Control,
}

fn held() -> Held {
    let seal = SealKey::from_bytes(&[FOUNDER; 32]);
    let (mesh, born) = create_mesh(&mut SeedRng::new([3; 32]), &root(0), &device(FOUNDER), &seal).unwrap();
    let mut control = Control::new();
    born.into_iter().for_each(|signed| take(&mut control, signed));
    Held { mesh, control }
}

fn take(control: &mut Control, signed: Signed) {
    assert!(matches!(control.adopt(signed), Ok(Inserted::Added(_))));
}

impl Held {
    fn log(&self) -> ObjectId {
        self.mesh.into()
    }

    fn len(&self) -> usize {
        self.control.log(self.log()).unwrap().len()
    }

    fn rotate(&mut self, from: &RootKey, to: &RootKey) {
        let signed = self.control.sign_root(from, self.mesh, Act::Rotate { root: to.public() }).unwrap();
        take(&mut self.control, signed);
    }

    fn welcome(&self) -> Vec<u8> {
        let items = self.control.log(self.log()).unwrap().missing(&[]);
        let items = items.iter().map(|signed| serde_bytes::ByteBuf::from(signed.to_bytes())).collect();
        Welcome { items, addresses: vec!["/ip4/10.0.0.1/tcp/1".into()], name: "laptop".into() }.to_bytes()
    }
}

/// How a conversation ended at either side, and what the blank device said.
struct Outcome {
    restored: Result<Box<Restored>, RestoreError>,
    admission: Option<Admission>,
    said: Vec<Vec<u8>>,
}

/// A conversation in which `spoil` may alter, drop or double each message, counted over both directions.
fn talk(
    held: &mut Held,
    proved: PublicKey,
    by: &RootKey,
    mut spoil: impl FnMut(usize, Vec<u8>) -> Vec<Vec<u8>>,
) -> Outcome {
    let (own, seal) = (device(BLANK), SealKey::from_bytes(&[BLANK; 32]).public());
    let mut guest = Guest::new(by, &own, seal, "tablet", device(FOUNDER).device_id());
    let mut host = Host::new(held.mesh, proved);
    let mut outcome = Outcome { restored: Err(RestoreError::Interrupted), admission: None, said: Vec::new() };
    let (mut to_host, mut to_guest) = (vec![Guest::hello()], Vec::new());
    let mut number = 0;
    while !to_host.is_empty() || !to_guest.is_empty() {
        for bytes in std::mem::take(&mut to_host) {
            outcome.said.push(bytes.clone());
            number += 1;
            for bytes in spoil(number - 1, bytes) {
                match host.hear(&held.control, &bytes) {
                    HostOutput::Welcome => to_guest.extend(parts(&held.welcome()).unwrap()),
                    HostOutput::Adopt(admission) => {
                        admission.statements.iter().for_each(|signed| take(&mut held.control, signed.clone()));
                        outcome.admission = Some(*admission);
                        to_guest.push(host.adopted(true));
                    }
                    HostOutput::End(bytes) => to_guest.push(bytes),
                }
            }
        }
        for bytes in std::mem::take(&mut to_guest) {
            number += 1;
            for bytes in spoil(number - 1, bytes) {
                match guest.hear(&bytes) {
                    Ok(GuestOutput::Wait) => {}
                    Ok(GuestOutput::Say(bytes)) => to_host.push(bytes),
                    Ok(GuestOutput::Completed(restored)) => outcome.restored = Ok(restored),
                    Err(error) => outcome.restored = outcome.restored.or(Err(error)),
                }
            }
        }
    }
    outcome
}

fn straight(_: usize, bytes: Vec<u8>) -> Vec<Vec<u8>> {
    vec![bytes]
}

fn come_back(held: &mut Held, by: &RootKey) -> Outcome {
    talk(held, by.public(), by, straight)
}

#[test]
fn the_root_lets_a_blank_device_in() {
    let mut held = held();
    let outcome = come_back(&mut held, &root(0));
    let restored = outcome.restored.unwrap();
    let blank = device(BLANK).device_id();
    assert_eq!((restored.mesh, restored.host_name.as_str()), (held.mesh, "laptop"));
    assert_eq!(outcome.admission.unwrap().name, "tablet");
    assert_eq!(held.control.role(held.log(), blank), Some(Role::Own));
    let mut control = Control::new();
    restored.statements.iter().for_each(|signed| take(&mut control, signed.clone()));
    assert_eq!(control.log(held.log()).unwrap().heads(), held.control.log(held.log()).unwrap().heads());
    assert!(control.readers(held.log()).iter().any(|reader| reader.device == blank));
}

#[test]
fn who_did_not_hear_that_it_is_in_may_ask_again() {
    let mut held = held();
    let lost =
        talk(&mut held, root(0).public(), &root(0), |number, bytes| if number == 3 { vec![] } else { vec![bytes] });
    assert!(lost.restored.is_err() && lost.admission.is_some());
    let before = held.len();
    let again = come_back(&mut held, &root(0));
    assert_eq!((again.restored.map(|restored| restored.statements.len()), held.len()), (Ok(before + 1), before));
}

#[test]
fn another_root_is_refused() {
    let mut held = held();
    let before = held.len();
    // It does not come so far, as its connection is refused; if it did, nothing would be told to it.
    let outcome = come_back(&mut held, &root(7));
    assert_eq!((outcome.restored.err(), held.len()), (Some(RestoreError::Interrupted), before));
    // The connection proved the right root, and the grant is signed by another: nothing of it counts.
    let outcome = talk(&mut held, root(0).public(), &root(7), straight);
    assert_eq!((outcome.restored.err(), held.len()), (Some(RestoreError::Unknown), before));
}

#[test]
fn a_root_that_was_replaced_is_told_so_and_its_successor_is_let_in() {
    let mut held = held();
    held.rotate(&root(0), &root(7));
    let before = held.len();
    let outcome = come_back(&mut held, &root(0));
    assert_eq!((outcome.restored.err(), held.len()), (Some(RestoreError::Replaced), before));
    assert!(come_back(&mut held, &root(7)).restored.is_ok());
}

#[test]
fn a_frozen_mesh_lets_no_root_in() {
    let mut held = held();
    let grants_of = |held: &Held, to: &RootKey| {
        held.control.sign_root(&root(0), held.mesh, Act::Rotate { root: to.public() }).unwrap()
    };
    let both = [grants_of(&held, &root(7)), grants_of(&held, &root(8))];
    both.into_iter().for_each(|signed| take(&mut held.control, signed));
    for number in [0, 7, 8] {
        assert_eq!(come_back(&mut held, &root(number)).restored.err(), Some(RestoreError::Frozen));
    }
}

#[test]
fn what_was_said_in_one_conversation_counts_in_no_other() {
    let mut held = held();
    let first = come_back(&mut held, &root(0));
    let before = held.len();
    for proved in [root(0), root(7)] {
        let mut host = Host::new(held.mesh, proved.public());
        let heard: Vec<HostOutput> = first.said.iter().map(|bytes| host.hear(&held.control, bytes)).collect();
        assert!(matches!(heard.last(), Some(HostOutput::End(bytes)) if is_refusal(bytes)), "{heard:?}");
    }
    assert_eq!(held.len(), before);
    // In the log of another mesh neither.
    let seal = SealKey::from_bytes(&[9; 32]);
    let (mesh, born) = create_mesh(&mut SeedRng::new([9; 32]), &root(0), &device(9), &seal).unwrap();
    let mut other = Held { mesh, control: Control::new() };
    born.into_iter().for_each(|signed| take(&mut other.control, signed));
    let mut host = Host::new(mesh, root(0).public());
    let heard: Vec<HostOutput> = first.said.iter().map(|bytes| host.hear(&other.control, bytes)).collect();
    assert!(matches!(heard.as_slice(), [HostOutput::Welcome, HostOutput::End(bytes)] if is_refusal(bytes)));
}

fn is_refusal(bytes: &[u8]) -> bool {
    matches!(codec::decode(bytes, limits::PAIR_FRAME), Ok(RestoreMessage::Refused { .. }))
}

/// What the root could sign, and must not be taken here.
#[test]
fn only_a_grant_and_a_seal_key_are_taken() {
    let held = held();
    let (log, blank) = (held.log(), device(BLANK).device_id());
    let of_root = |act| held.control.sign_root(&root(0), held.mesh, act).unwrap();
    let grant = |to: DeviceId, role| Act::Grant { to: to.into(), role, seen: Vec::new() };
    let rotate = of_root(Act::Rotate { root: root(7).public() });
    let by_founder = held.control.sign(&device(FOUNDER), log, grant(blank, Role::Own)).unwrap();
    let cases = [
        vec![],
        vec![rotate],
        vec![by_founder],
        vec![of_root(grant(blank, Role::Edit))],
        vec![of_root(grant(DeviceId([9; 32]), Role::Own))],
        vec![of_root(grant(blank, Role::Own))],
        vec![held.control.log(log).unwrap().genesis().clone()],
    ];
    for statements in cases {
        let bytes = statements.iter().map(|signed| serde_bytes::ByteBuf::from(signed.to_bytes())).collect();
        let admit = RestoreMessage::Admit { device: blank, name: "tablet".into(), statements: bytes };
        let mut host = Host::new(held.mesh, root(0).public());
        assert_eq!(host.hear(&held.control, &Guest::hello()), HostOutput::Welcome);
        let output = host.hear(&held.control, &codec::encode(&admit));
        assert!(matches!(&output, HostOutput::End(bytes) if is_refusal(bytes)), "{statements:?}");
    }
}

#[test]
fn a_log_that_is_not_whole_or_not_of_the_host_is_not_believed() {
    let held = held();
    let (own, seal) = (device(BLANK), SealKey::from_bytes(&[BLANK; 32]).public());
    let root = root(0);
    let told = |welcome: &[u8], host: u8| {
        let mut guest = Guest::new(&root, &own, seal, "tablet", device(host).device_id());
        parts(welcome).unwrap().iter().try_fold(GuestOutput::Wait, |_, part| guest.hear(part))
    };
    assert!(matches!(told(&held.welcome(), FOUNDER), Ok(GuestOutput::Say(_))));
    assert_eq!(told(&held.welcome(), 9), Err(RestoreError::BadLog));
    let whole = Welcome::parse(&held.welcome()).unwrap();
    let without = |number: usize| {
        let mut welcome = whole.clone();
        welcome.items.remove(number);
        welcome.to_bytes()
    };
    for number in 0..2 {
        assert_eq!(told(&without(number), FOUNDER), Err(RestoreError::BadLog), "item {number} is missing");
    }
    assert!(parts(&vec![0; limits::PAIR_WELCOME + 1]).is_none());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// Whatever happens to one message, nobody panics, and nothing is adopted that the root did not sign for this
    /// device.
    #[test]
    fn spoiled_messages_let_nobody_else_in(at in 0usize..4, place: usize, mask in 1..=255u8, how in 0..4) {
        let mut held = held();
        let before = held.len();
        let outcome = talk(&mut held, root(0).public(), &root(0), |number, mut bytes| {
            if number != at {
                return vec![bytes];
            }
            let place = place % bytes.len();
            match how {
                0 => bytes[place] ^= mask,
                1 => bytes.truncate(place),
                2 => bytes = vec![mask; place % 80],
                _ => return vec![],
            }
            vec![bytes]
        });
        // A version, a name or an address may be another one; they are not signed, and nothing hangs on them.
        prop_assert!(outcome.restored.is_err() || how == 0);
        match outcome.admission {
            Some(admission) => prop_assert_eq!(admission.device, device(BLANK).device_id()),
            None => prop_assert_eq!(held.len(), before),
        }
    }

    #[test]
    fn garbage_ends_with_an_error_and_nothing_adopted(
        messages in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..200), 1..8),
        greeted: bool,
    ) {
        let held = held();
        let mut host = Host::new(held.mesh, root(0).public());
        if greeted {
            prop_assert_eq!(host.hear(&held.control, &Guest::hello()), HostOutput::Welcome);
        }
        let (own, seal, root) = (device(BLANK), SealKey::from_bytes(&[BLANK; 32]).public(), root(0));
        let mut guest = Guest::new(&root, &own, seal, "tablet", device(FOUNDER).device_id());
        for bytes in messages {
            let output = host.hear(&held.control, &bytes);
            prop_assert!(matches!(&output, HostOutput::End(bytes) if is_refusal(bytes)));
            prop_assert!(guest.hear(&bytes).is_err());
        }
        let done = codec::encode(&RestoreMessage::Done {});
        prop_assert!(guest.hear(&done).is_err());
    }
}
