//! The judgement of live acts: who may do what, and each way in which it is refused.

use super::*;
use crate::key::Kind;

fn person(mesh: MeshId, right: Right) -> Capability {
    terms(Audience::Person { mesh }, right)
}

fn ok(permit: Result<Permit, CapabilityError>) -> Option<CapabilityError> {
    permit.err()
}

#[test]
fn own_devices_need_no_capability_for_services() {
    let world = World::new();
    let nothing = Chain::default();
    for own in [LAPTOP, PHONE] {
        assert_eq!(world.check(&nothing, own, ssh()), Ok(Permit { until: None, budgets: vec![] }));
    }
    for other in [HELPER, BOBS, STRANGER] {
        assert_eq!(ok(world.check(&nothing, other, ssh())), Some(CapabilityError::NotEntitled));
    }
    let bobs = Right::Services { device: id(BOBS) };
    assert_eq!(ok(world.check(&nothing, BOBS, bobs)), Some(CapabilityError::NotEntitled), "not a service of Alice");
}

#[test]
fn a_service_is_given_to_all_devices_of_a_person() {
    let world = World::new();
    let chain = first(PHONE, person(world.bob, ssh()));
    for device in [BOBS, BOBS_PHONE] {
        assert_eq!(ok(world.check(&chain, device, ssh())), None);
    }
    assert_eq!(ok(world.check(&chain, STRANGER, ssh())), Some(CapabilityError::NotGiven));
    let http = Right::Service { device: id(LAPTOP), name: label("http") };
    assert_eq!(ok(world.check(&chain, BOBS, http)), Some(CapabilityError::OtherRight));
    let all = first(PHONE, person(world.bob, Right::Services { device: id(LAPTOP) }));
    assert_eq!(ok(world.check(&all, BOBS, ssh())), None);
}

#[test]
fn a_service_is_given_to_one_device_of_a_person() {
    let world = World::new();
    let chain = first(LAPTOP, terms(Audience::Member { mesh: world.bob, device: id(BOBS) }, ssh()));
    assert_eq!(ok(world.check(&chain, BOBS, ssh())), None);
    assert_eq!(ok(world.check(&chain, BOBS_PHONE, ssh())), Some(CapabilityError::NotGiven));
}

#[test]
fn only_devices_of_the_mesh_give_its_services() {
    let world = World::new();
    for other in [HELPER, BOBS, STRANGER] {
        let chain = first(other, person(world.bob, ssh()));
        assert_eq!(ok(world.check(&chain, BOBS, ssh())), Some(CapabilityError::NotEntitled));
    }
    let bobs = Right::Services { device: id(BOBS) };
    let chain = first(BOBS, person(world.alice, bobs.clone()));
    assert_eq!(ok(world.check(&chain, PHONE, bobs.clone())), Some(CapabilityError::NotEntitled));
    let at_bobs = Anchor::Logs { control: &world.control, mesh: world.bob };
    let request = Request { by: id(PHONE), right: bobs, peer: None };
    assert_eq!(ok(check(&chain, NOW, &request, at_bobs, |_| false)), None);
}

#[test]
fn topics_follow_roles() {
    let mut world = World::new();
    let nothing = Chain::default();
    for right in [world.publish(), world.subscribe(), world.topic()] {
        assert_eq!(ok(world.check(&nothing, BOBS, right.clone())), None);
        assert_eq!(ok(world.check(&nothing, HELPER, right.clone())), Some(CapabilityError::NotEntitled));
        assert_eq!(ok(world.check(&nothing, STRANGER, right)), Some(CapabilityError::NotEntitled));
    }
    let carol = mesh(&mut world.control, STRANGER);
    world.grant(LAPTOP, world.object, carol, Role::Read);
    assert_eq!(ok(world.check(&nothing, STRANGER, world.subscribe())), None);
    for right in [world.publish(), world.topic()] {
        assert_eq!(ok(world.check(&nothing, STRANGER, right)), Some(CapabilityError::NotEntitled));
    }
}

#[test]
fn helpers_of_a_mesh_have_no_part_in_its_topics() {
    let world = World::new();
    let heard = Right::Subscribe { object: world.alice.into(), name: label("presence") };
    assert_eq!(ok(world.check(&Chain::default(), PHONE, heard.clone())), None);
    assert_eq!(ok(world.check(&Chain::default(), HELPER, heard)), Some(CapabilityError::NotEntitled));
}

#[test]
fn who_may_grant_a_role_may_give_its_topics() {
    let mut world = World::new();
    let carol = mesh(&mut world.control, STRANGER);
    let by_owner = first(PHONE, person(carol, world.topic()));
    assert_eq!(ok(world.check(&by_owner, STRANGER, world.publish())), None);
    let by_editor = first(BOBS, person(carol, world.subscribe()));
    assert_eq!(ok(world.check(&by_editor, STRANGER, world.subscribe())), Some(CapabilityError::NotEntitled));
    world.grant(LAPTOP, world.object, world.bob, Role::Invite);
    assert_eq!(ok(world.check(&by_editor, STRANGER, world.subscribe())), None, "judged by the role of today");
}

#[test]
fn a_relay_knows_its_operator_and_no_mesh() {
    let world = World::new();
    let relays = first(OPERATOR, to_device(RELAY, Right::Relay { relay: id(RELAY) }));
    let phones = relays.issue(&key(RELAY), to_device(PHONE, circuit())).unwrap();
    assert_eq!(ok(at_relay(&phones, NOW, PHONE, None)), None);
    assert_eq!(ok(at_relay(&phones, NOW, LAPTOP, None)), Some(CapabilityError::NotGiven));
    assert_eq!(ok(at_relay(&Chain::default(), NOW, OPERATOR, None)), None);
    assert_eq!(ok(at_relay(&Chain::default(), NOW, PHONE, None)), Some(CapabilityError::NotEntitled));
    let by_nobody = first(STRANGER, to_device(PHONE, circuit()));
    assert_eq!(ok(at_relay(&by_nobody, NOW, PHONE, None)), Some(CapabilityError::NotEntitled));
    let elsewhere = Right::Circuit { relay: id(STRANGER) };
    let other = first(OPERATOR, to_device(PHONE, elsewhere.clone()));
    let request = Request { by: id(PHONE), right: elsewhere, peer: None };
    let anchor = Anchor::Operator { relay: id(RELAY), key: id(OPERATOR) };
    assert_eq!(ok(check(&other, NOW, &request, anchor, |_| false)), Some(CapabilityError::NotEntitled));
    // What concerns a mesh is nothing to it, even from its operator; and a device does not judge for a relay.
    let service = first(OPERATOR, person(world.bob, ssh()));
    let request = Request { by: id(BOBS), right: ssh(), peer: None };
    assert_eq!(ok(check(&service, NOW, &request, anchor, |_| false)), Some(CapabilityError::NotEntitled));
    assert!(!anchor.admits(&Audience::Person { mesh: world.alice }, id(PHONE)));
    assert_eq!(ok(world.check(&phones, PHONE, circuit())), Some(CapabilityError::NotEntitled));
}

#[test]
fn a_part_is_passed_on_by_its_holder() {
    let world = World::new();
    let bobs = first(LAPTOP, person(world.bob, Right::Services { device: id(LAPTOP) }));
    let to_phone = terms(Audience::Member { mesh: world.bob, device: id(BOBS_PHONE) }, ssh());
    let chain = bobs.issue(&key(BOBS), to_phone.clone()).unwrap();
    assert_eq!(ok(world.check(&chain, BOBS_PHONE, ssh())), None);
    let forged = bobs.issue(&key(STRANGER), to_phone).unwrap();
    assert_eq!(ok(world.check(&forged, BOBS_PHONE, ssh())), Some(CapabilityError::NotHolder));
}

#[test]
fn links_belong_together() {
    let relays = first(OPERATOR, to_device(RELAY, Right::Relay { relay: id(RELAY) }));
    let phones = relays.issue(&key(RELAY), to_device(PHONE, circuit())).unwrap();
    let [first_link, second_link] = phones.to_signed().try_into().unwrap();
    assert_eq!(Chain::new(vec![second_link.clone()]), Err(CapabilityError::Broken), "without what it is a part of");
    assert_eq!(Chain::new(vec![first_link.clone(), first_link]), Err(CapabilityError::Broken));
    let twin = first(OPERATOR, Capability { lease: LeaseId([8; 16]), ..relays.links()[0].capability().clone() });
    let [other] = twin.to_signed().try_into().unwrap();
    assert_eq!(Chain::new(vec![other, second_link]), Err(CapabilityError::Broken), "after another one");
}

#[test]
fn chains_are_short() {
    let hop = |chain: &Chain, by| chain.issue(&key(by), to_device(by + 1, circuit()));
    let whole = (OPERATOR..OPERATOR + 5).fold(Chain::default(), |chain, by| hop(&chain, by).unwrap());
    assert_eq!(whole.links().len(), limits::CAPABILITY_LINKS);
    assert_eq!(ok(at_relay(&whole, NOW, OPERATOR + 5, None)), None);
    assert_eq!(hop(&whole, OPERATOR + 5), Err(CapabilityError::TooLong));
    let mut signed = whole.to_signed();
    let body = crate::codec::encode(&Capability { parent: whole.last().unwrap().id(), ..to_device(PHONE, circuit()) });
    signed.push(key(OPERATOR + 5).sign(Kind::Capability, body));
    assert_eq!(Chain::new(signed), Err(CapabilityError::TooLong));
}

#[test]
fn the_depth_of_a_chain_is_up_to_its_issuers() {
    let deep = |most| Capability { caveats: vec![Caveat::Depth { most }], ..to_device(RELAY, circuit()) };
    let closed = first(OPERATOR, deep(0));
    assert_eq!(ok(at_relay(&closed, NOW, RELAY, None)), None);
    let wider = Err(CapabilityError::Wider(Field::Caveats));
    assert_eq!(closed.issue(&key(RELAY), deep(0)), wider);
    assert_eq!(closed.issue(&key(RELAY), to_device(PHONE, circuit())), wider);
    let open = first(OPERATOR, deep(1));
    assert_eq!(open.issue(&key(RELAY), deep(1)), wider);
    assert_eq!(open.issue(&key(RELAY), deep(0)).map(|chain| chain.links().len()), Ok(2));
}

#[test]
fn a_link_gives_no_other_right() {
    let world = World::new();
    let pairs = [
        (circuit(), Right::Mailbox { relay: id(RELAY) }),
        (circuit(), Right::Relay { relay: id(RELAY) }),
        (Right::Relay { relay: id(RELAY) }, Right::Circuit { relay: id(STRANGER) }),
    ];
    for (right, other) in pairs {
        let chain = first(OPERATOR, to_device(RELAY, right));
        let wider = chain.issue(&key(RELAY), to_device(PHONE, other));
        assert_eq!(wider, Err(CapabilityError::Wider(Field::Right)));
    }
    let pairs = [
        (ssh(), Right::Services { device: id(LAPTOP) }),
        (ssh(), Right::Service { device: id(LAPTOP), name: label("http") }),
        (ssh(), Right::Service { device: id(PHONE), name: label("ssh") }),
        (ssh(), world.topic()),
        (world.subscribe(), world.publish()),
        (world.publish(), world.topic()),
        (world.topic(), Right::Publish { object: world.object, name: label("other") }),
        (world.topic(), Right::Publish { object: world.alice.into(), name: label("news") }),
    ];
    for (right, other) in pairs {
        let wider = first(LAPTOP, person(world.bob, right)).issue(&key(BOBS), person(world.bob, other));
        assert_eq!(wider, Err(CapabilityError::Wider(Field::Right)));
    }
}

#[test]
fn a_link_gives_no_more_time() {
    let moment = Duration::from_micros(1);
    let parent = Capability { not_before: NOW + moment, ..to_device(RELAY, circuit()) };
    let chain = first(OPERATOR, parent.clone());
    let offer = |not_before, expires| {
        chain.issue(&key(RELAY), Capability { not_before, expires, ..to_device(PHONE, circuit()) }).err()
    };
    assert_eq!(offer(parent.not_before, parent.expires), None);
    let wider = Some(CapabilityError::Wider(Field::Time));
    assert_eq!(offer(NOW, parent.expires), wider);
    assert_eq!(offer(parent.not_before, parent.expires + moment), wider);
}

#[test]
fn a_link_has_no_laxer_caveats() {
    let devices = |numbers: &[u8]| Caveat::Peers { devices: numbers.iter().map(|n| DeviceId([*n; 32])).collect() };
    let cases = [
        (Caveat::Bytes { most: 5 }, Caveat::Bytes { most: 5 }, Caveat::Bytes { most: 6 }),
        (Caveat::Rate { most: 5 }, Caveat::Rate { most: 4 }, Caveat::Rate { most: 6 }),
        (Caveat::Count { most: 5 }, Caveat::Count { most: 0 }, Caveat::Count { most: 6 }),
        (devices(&[1, 2]), devices(&[2]), devices(&[2, 3])),
        (Caveat::Depth { most: 2 }, Caveat::Depth { most: 1 }, Caveat::Depth { most: 2 }),
    ];
    for (given, within, beyond) in cases {
        let with = |number, caveats| Capability { caveats, ..to_device(number, circuit()) };
        let chain = first(OPERATOR, with(RELAY, vec![given]));
        let offer = |caveats| chain.issue(&key(RELAY), with(PHONE, caveats)).err();
        assert_eq!(offer(vec![within]), None);
        let wider = Some(CapabilityError::Wider(Field::Caveats));
        assert_eq!(offer(vec![beyond]), wider);
        assert_eq!(offer(vec![]), wider, "a caveat cannot be left out");
    }
}

#[test]
fn a_right_holds_from_its_first_moment_to_before_its_last() {
    let chain = first(OPERATOR, to_device(PHONE, circuit()));
    let (begin, end) = (NOW - Timestamp(limits::CLOCK_SKEW.as_micros() as u64), NOW + HOUR + limits::CLOCK_SKEW);
    let begin = Timestamp(begin.as_micros() as u64);
    let at = |now| ok(at_relay(&chain, now, PHONE, None));
    assert_eq!(at(Timestamp(begin.0 - 1)), Some(CapabilityError::NotYet));
    assert_eq!(at(begin), None);
    assert_eq!(at(Timestamp(end.0 - 1)), None);
    assert_eq!(at(end), Some(CapabilityError::Expired));
    assert_eq!(at_relay(&chain, NOW, PHONE, None).map(|permit| permit.until), Ok(Some(end)));
}

#[test]
fn a_right_extends_to_named_peers_only() {
    let caveats = vec![Caveat::Peers { devices: vec![id(LAPTOP)] }];
    let chain = first(OPERATOR, Capability { caveats, ..to_device(PHONE, circuit()) });
    assert_eq!(ok(at_relay(&chain, NOW, PHONE, Some(LAPTOP))), None);
    for peer in [Some(STRANGER), None] {
        assert_eq!(ok(at_relay(&chain, NOW, PHONE, peer)), Some(CapabilityError::OtherPeer));
    }
}

#[test]
fn budgets_are_counted_for_every_link() {
    let with = |number, caveats| Capability { caveats, ..to_device(number, circuit()) };
    let relays = first(OPERATOR, with(RELAY, vec![Caveat::Bytes { most: 100 }, Caveat::Count { most: 9 }]));
    let caveats = vec![Caveat::Bytes { most: 100 }, Caveat::Rate { most: 7 }, Caveat::Count { most: 2 }];
    let phones = relays.issue(&key(RELAY), with(PHONE, caveats)).unwrap();
    let [one, two] = at_relay(&phones, NOW, PHONE, None).unwrap().budgets.try_into().unwrap();
    let budget = |link: &Link, bytes, rate, count| Budget { capability: link.id(), bytes, rate, count };
    assert_eq!(one, budget(&phones.links()[0], Some(100), None, Some(9)));
    assert_eq!(two, budget(&phones.links()[1], Some(100), Some(7), Some(2)));
}

#[test]
fn what_is_withdrawn_does_not_hold_nor_what_hangs_on_it() {
    let relays = first(OPERATOR, to_device(RELAY, circuit()));
    let phones = Capability { lease: LeaseId([8; 16]), ..to_device(PHONE, circuit()) };
    let phones = relays.issue(&key(RELAY), phones).unwrap();
    let anchor = Anchor::Operator { relay: id(RELAY), key: id(OPERATOR) };
    let request = Request { by: id(PHONE), right: circuit(), peer: None };
    let without = |lease| ok(check(&phones, NOW, &request, anchor, |other| other == LeaseId([lease; 16])));
    assert_eq!(without(7), Some(CapabilityError::Withdrawn));
    assert_eq!(without(8), Some(CapabilityError::Withdrawn));
    assert_eq!(without(9), None);
}

#[test]
fn with_the_membership_of_its_first_issuer_a_chain_ends() {
    let mut world = World::new();
    let chain = first(PHONE, person(world.bob, ssh()));
    assert_eq!(ok(world.check(&chain, BOBS, ssh())), None);
    world.remove(LAPTOP, world.alice, PHONE);
    assert_eq!(ok(world.check(&chain, BOBS, ssh())), Some(CapabilityError::NotEntitled));
}

#[test]
fn with_the_membership_of_the_serving_device_its_services_end() {
    let mut world = World::new();
    let service = Right::Services { device: id(PHONE) };
    let chain = first(LAPTOP, person(world.bob, service.clone()));
    assert_eq!(ok(world.check(&chain, BOBS, service.clone())), None);
    world.remove(LAPTOP, world.alice, PHONE);
    assert_eq!(ok(world.check(&chain, BOBS, service)), Some(CapabilityError::NotEntitled));
}

#[test]
fn with_the_membership_of_an_issuer_between_a_chain_ends() {
    let mut world = World::new();
    let shared = first(LAPTOP, person(world.bob, ssh()));
    let chain = shared.issue(&key(BOBS_PHONE), person(world.bob, ssh())).unwrap();
    assert_eq!(ok(world.check(&chain, BOBS, ssh())), None);
    world.remove(BOBS, world.bob, BOBS_PHONE);
    assert_eq!(ok(world.check(&chain, BOBS, ssh())), Some(CapabilityError::NotHolder));
    assert_eq!(ok(world.check(&shared, BOBS, ssh())), None, "what it hung on goes on");
}

#[test]
fn with_the_membership_of_its_holder_a_capability_ends() {
    let mut world = World::new();
    let chain = first(LAPTOP, terms(Audience::Member { mesh: world.bob, device: id(BOBS_PHONE) }, ssh()));
    assert_eq!(ok(world.check(&chain, BOBS_PHONE, ssh())), None);
    world.remove(BOBS, world.bob, BOBS_PHONE);
    assert_eq!(ok(world.check(&chain, BOBS_PHONE, ssh())), Some(CapabilityError::NotGiven));
    // A mesh of its own does not bring it back.
    mesh(&mut world.control, BOBS_PHONE);
    assert_eq!(ok(world.check(&chain, BOBS_PHONE, ssh())), Some(CapabilityError::NotGiven));
}

#[test]
fn with_the_role_of_a_person_what_he_gave_of_a_topic_ends() {
    let mut world = World::new();
    world.grant(LAPTOP, world.object, world.bob, Role::Invite);
    let carol = mesh(&mut world.control, STRANGER);
    let chain = first(BOBS, person(carol, world.subscribe()));
    assert_eq!(ok(world.check(&chain, STRANGER, world.subscribe())), None);
    world.exclude(world.bob);
    assert_eq!(ok(world.check(&chain, STRANGER, world.subscribe())), Some(CapabilityError::NotEntitled));
}

#[test]
fn an_object_is_no_person() {
    let world = World::new();
    let chain = first(LAPTOP, person(MeshId(world.object.0), ssh()));
    assert_eq!(ok(world.check(&chain, BOBS, ssh())), Some(CapabilityError::NotGiven));
}
