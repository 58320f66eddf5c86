//! Bytes of capabilities: what is accepted, and that nothing else is.

use proptest::prelude::*;

use super::*;
use crate::{
    codec::{self, DecodeError},
    key::{Kind, Signed},
};

fn malformed() -> CapabilityError {
    CapabilityError::Signed(SignedError::Decode(DecodeError::Malformed))
}

/// What is refused of a body that somebody signed nevertheless.
fn refusal(capability: Capability) -> Option<CapabilityError> {
    Chain::new(vec![key(OPERATOR).sign(Kind::Capability, codec::encode(&capability))]).err()
}

fn with_caveats(caveats: Vec<Caveat>) -> Capability {
    Capability { caveats, ..to_device(PHONE, circuit()) }
}

/// Two links with every caveat.
fn full() -> Chain {
    let devices = || vec![id(STRANGER).min(id(BOBS)), id(STRANGER).max(id(BOBS))];
    let caveats = |most| {
        vec![
            Caveat::Bytes { most },
            Caveat::Rate { most },
            Caveat::Count { most },
            Caveat::Peers { devices: devices() },
            Caveat::Depth { most },
        ]
    };
    let relays = Capability { caveats: caveats(5), ..to_device(RELAY, Right::Relay { relay: id(RELAY) }) };
    let phones = Capability { caveats: caveats(4), ..to_device(PHONE, circuit()) };
    first(OPERATOR, relays).issue(&key(RELAY), phones).unwrap()
}

#[test]
fn chains_round_trip() {
    let chain = full();
    assert_eq!(Chain::parse(&chain.to_bytes()), Ok(chain.clone()));
    assert_eq!(Chain::new(chain.to_signed()), Ok(chain));
    assert_eq!(Chain::parse(&[0x80]), Ok(Chain::default()));
}

#[test]
fn a_flipped_bit_anywhere_is_refused() {
    let bytes = full().to_bytes();
    for bit in 0..bytes.len() * 8 {
        let mut flipped = bytes.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        assert!(Chain::parse(&flipped).is_err(), "bit {bit}");
    }
    for len in 0..bytes.len() {
        assert!(Chain::parse(&bytes[..len]).is_err(), "{len} bytes");
    }
    assert!(Chain::parse(&[bytes.as_slice(), &[0]].concat()).is_err());
}

#[test]
fn unknown_caveats_rights_and_audiences_are_refused() {
    let body = |caveat: &[u8]| {
        let known = codec::encode(&with_caveats(vec![Caveat::Bytes { most: 23 }]));
        let at = known.windows(3).position(|bytes| bytes == [0x82, 0x00, 0x17]).unwrap();
        [&known[..at], caveat, &known[at + 3..]].concat()
    };
    let offered = |body: Vec<u8>| Chain::new(vec![key(OPERATOR).sign(Kind::Capability, body)]).err();
    assert_eq!(offered(body(&[0x82, 0x00, 0x17])), None, "the control");
    assert_eq!(offered(body(&[0x82, 0x04, 0x17])), None, "the newest caveat");
    assert_eq!(offered(body(&[0x82, 0x05, 0x17])), Some(malformed()), "a caveat of a later version");
    assert_eq!(offered(body(&[0x81, 0x05])), Some(malformed()), "one without a value");
    assert_eq!(offered(body(&[0x83, 0x00, 0x17, 0x17])), Some(malformed()), "a known one with more to it");
    assert!(codec::decode::<Right>(&[0x82, 0x08, 0x17], 8).is_err());
    assert!(codec::decode::<Audience>(&[0x82, 0x03, 0x17], 8).is_err());
}

#[test]
fn other_statements_are_no_capabilities() {
    let body = codec::encode(&to_device(PHONE, circuit()));
    let error = Chain::new(vec![key(OPERATOR).sign(Kind::ControlOp, body)]).err();
    assert_eq!(error, Some(SignedError::Kind(Kind::ControlOp as u8).into()));
}

#[test]
fn a_forged_signature_is_refused() {
    let mut signed: Vec<Signed> = full().to_signed();
    signed[0].signature = signed[1].signature;
    assert_eq!(Chain::new(signed), Err(SignedError::Signature.into()));
}

#[test]
fn caveats_are_a_list_in_order() {
    let (bytes, rate) = (Caveat::Bytes { most: 1 }, Caveat::Rate { most: 1 });
    assert_eq!(refusal(with_caveats(vec![bytes.clone(), rate.clone()])), None);
    assert_eq!(refusal(with_caveats(vec![rate, bytes.clone()])), Some(CapabilityError::Caveats));
    assert_eq!(refusal(with_caveats(vec![bytes.clone(), bytes])), Some(CapabilityError::Caveats));
}

#[test]
fn peers_are_a_few_in_order() {
    let peers = |numbers: std::ops::Range<u8>| {
        with_caveats(vec![Caveat::Peers { devices: numbers.map(|number| DeviceId([number; 32])).collect() }])
    };
    assert_eq!(refusal(peers(0..16)), None);
    assert_eq!(refusal(peers(0..17)), Some(CapabilityError::Caveats));
    assert_eq!(refusal(peers(0..0)), Some(CapabilityError::Caveats));
    let devices = vec![DeviceId([2; 32]), DeviceId([1; 32])];
    assert_eq!(refusal(with_caveats(vec![Caveat::Peers { devices }])), Some(CapabilityError::Caveats));
}

#[test]
fn the_time_is_possible_and_bounded() {
    let lasting = |life| Capability { expires: NOW + life, ..to_device(PHONE, circuit()) };
    assert_eq!(refusal(lasting(Duration::ZERO)), Some(CapabilityError::Time));
    assert_eq!(refusal(lasting(Duration::from_micros(1))), None);
    assert_eq!(refusal(lasting(limits::CAPABILITY_LIFE)), None);
    let longer = limits::CAPABILITY_LIFE + Duration::from_micros(1);
    assert_eq!(refusal(lasting(longer)), Some(CapabilityError::Time));
    let backward = Capability { expires: Timestamp(0), ..to_device(PHONE, circuit()) };
    assert_eq!(refusal(backward), Some(CapabilityError::Time));
    let for_ever = Capability { expires: Timestamp(u64::MAX), ..to_device(PHONE, circuit()) };
    assert_eq!(refusal(for_ever), Some(CapabilityError::Time));
}

#[test]
fn rights_at_a_relay_are_for_devices_and_others_for_persons() {
    let (mesh, device) = (MeshId([1; 32]), id(PHONE));
    let person = [Audience::Person { mesh }, Audience::Member { mesh, device }];
    for audience in person {
        assert_eq!(refusal(terms(audience, circuit())), Some(CapabilityError::Audience));
        assert_eq!(refusal(terms(audience, ssh())), None);
    }
    assert_eq!(refusal(to_device(PHONE, ssh())), Some(CapabilityError::Audience));
}

#[test]
fn names_have_one_form() {
    for good in ["ssh", "a", "http-8080", "x.y_z", &"n".repeat(limits::LABEL)] {
        assert_eq!(good.parse::<Label>().map(|label| label.to_string()), Ok(good.to_owned()));
    }
    for bad in ["", "SSH", "a b", "ä", "a/b", "\u{202e}", &"n".repeat(limits::LABEL + 1)] {
        assert_eq!(bad.parse::<Label>(), Err(LabelError), "{bad:?}");
        assert!(codec::decode::<Label>(&codec::encode(&bad), 128).is_err(), "{bad:?}");
    }
}

#[test]
fn the_largest_capability_fits() {
    let mesh = MeshId([255; 32]);
    let most = u64::MAX;
    let largest = Capability {
        parent: CapabilityId([255; 32]),
        caveats: vec![
            Caveat::Bytes { most },
            Caveat::Rate { most },
            Caveat::Count { most },
            Caveat::Peers { devices: (0..16).map(|number| DeviceId([number; 32])).collect() },
            Caveat::Depth { most },
        ],
        not_before: Timestamp(u64::MAX - 1),
        expires: Timestamp(u64::MAX),
        ..terms(
            Audience::Member { mesh, device: DeviceId([255; 32]) },
            Right::Service { device: id(LAPTOP), name: label(&"n".repeat(limits::LABEL)) },
        )
    };
    let signed = key(LAPTOP).sign(Kind::Capability, codec::encode(&largest));
    assert!(signed.verify().is_ok());
    assert!(signed.to_bytes().len() <= limits::CAPABILITY_BODY + limits::SIGNED_OVERHEAD);
    assert!(limits::CAPABILITY_LINKS * signed.to_bytes().len() + 8 <= limits::CAPABILITY_CHAIN);
}

#[test]
fn a_chain_is_bounded_before_it_is_read() {
    let long = vec![0x80; limits::CAPABILITY_CHAIN + 1];
    let oversize = DecodeError::Oversize { len: long.len(), max: limits::CAPABILITY_CHAIN };
    assert_eq!(Chain::parse(&long), Err(SignedError::from(oversize).into()));
}

proptest! {
    #[test]
    fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        if let Ok(chain) = Chain::parse(&bytes) {
            prop_assert_eq!(chain.to_bytes(), bytes);
        }
    }

    #[test]
    fn times_never_overflow(not_before in any::<u64>(), expires in any::<u64>(), now in any::<u64>()) {
        let capability = Capability {
            not_before: Timestamp(not_before),
            expires: Timestamp(expires),
            ..to_device(PHONE, circuit())
        };
        if let Ok(chain) = Chain::default().issue(&key(OPERATOR), capability) {
            let permit = at_relay(&chain, Timestamp(now), PHONE, None);
            let skew = 600_000_000;
            let inside = now.saturating_add(skew) >= not_before && now < expires.saturating_add(skew);
            prop_assert_eq!(permit.is_ok(), inside);
        }
    }
}
