//! Renewal between holders and issuers over a network that loses what it likes.

use rand_core::Rng as _;

use super::*;
use crate::{codec, wire::capability::CapabilityMessage};

const OTHER: LeaseId = LeaseId([8; 16]);
const LEASE: LeaseId = LeaseId([7; 16]);
const DAY: Duration = Duration::from_secs(86_400);

/// Machines of several devices, and the messages between them.
struct Net {
    world: World,
    rng: SeedRng,
    now: Timestamp,
    nodes: Vec<(u8, Renewal)>,
    /// Who cannot be reached.
    away: Vec<u8>,
    /// Of this many messages one is lost; 0: none.
    loses: u64,
    sent: usize,
    told: Vec<(u8, Output)>,
}

impl Net {
    fn new(devices: &[u8]) -> Self {
        let nodes = devices.iter().map(|device| (*device, Renewal::new(key(*device)))).collect();
        let world = World::new();
        Net { world, rng: rng(3), now: NOW, nodes, away: Vec::new(), loses: 0, sent: 0, told: Vec::new() }
    }

    fn node(&self, device: u8) -> &Renewal {
        &self.nodes.iter().find(|(number, _)| *number == device).unwrap().1
    }

    /// Everything that follows from an input, at once.
    fn input(&mut self, device: u8, input: Input) {
        let mut inputs = vec![(device, input)];
        while let Some((device, input)) = inputs.pop() {
            let anchor = match device {
                RELAY | OPERATOR => Anchor::Operator { relay: id(RELAY), key: id(OPERATOR) },
                _ => self.world.anchor(),
            };
            let node = &mut self.nodes.iter_mut().find(|(number, _)| *number == device).unwrap().1;
            let out = node.handle(self.now, &mut self.rng, anchor, input);
            assert!(node.next_deadline().is_none_or(|at| at > self.now), "a deadline is in the future");
            for output in out {
                let Output::Send { to, bytes } = output else {
                    self.told.push((device, output));
                    continue;
                };
                let to = self.nodes.iter().map(|(number, _)| *number).find(|number| id(*number) == to);
                self.sent += usize::from(to.is_some());
                let lost = self.loses > 0 && self.rng.next_u64().is_multiple_of(self.loses);
                if let Some(to) = to.filter(|to| !lost && !self.away.contains(to) && !self.away.contains(&device)) {
                    inputs.push((to, Input::Message { from: id(device), bytes }));
                }
            }
        }
    }

    /// Lets time pass, from deadline to deadline.
    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        loop {
            let next = self.nodes.iter().filter_map(|(device, node)| Some((node.next_deadline()?, *device))).min();
            let Some((at, device)) = next.filter(|(at, _)| *at <= end) else { break };
            self.now = self.now.max(at);
            self.input(device, Input::Tick);
        }
        self.now = end;
    }

    /// Whether the relay lets a device in with what it holds.
    fn is_let_in(&self, device: u8, issuer: u8) -> bool {
        let relay = self.node(RELAY);
        let Some(chain) = self.node(device).held(id(issuer), LEASE) else { return false };
        let anchor = Anchor::Operator { relay: id(RELAY), key: id(OPERATOR) };
        let request = Request { by: id(device), right: circuit(), peer: None };
        check(chain, self.now, &request, anchor, |lease| relay.is_withdrawn(lease)).is_ok()
    }

    fn told(&mut self) -> Vec<(u8, Output)> {
        std::mem::take(&mut self.told)
    }
}

/// A relay that gives a day of circuits to the phone.
fn relay_and_phone() -> Net {
    let mut net = Net::new(&[RELAY, PHONE]);
    let right = Right::Relay { relay: id(RELAY) };
    let expires = NOW + limits::CAPABILITY_LIFE;
    let relays = first(OPERATOR, Capability { lease: OTHER, expires, ..to_device(RELAY, right) });
    let day = Capability { expires: NOW + DAY, ..to_device(PHONE, circuit()) };
    let chain = relays.issue(&key(RELAY), day).unwrap();
    net.input(RELAY, Input::Hold(relays));
    net.input(RELAY, Input::Give(chain.clone()));
    net.input(PHONE, Input::Hold(chain));
    net
}

#[test]
fn a_capability_is_renewed_well_before_it_ends() {
    let mut net = relay_and_phone();
    net.pass(DAY / 2 - Duration::from_secs(1));
    assert_eq!((net.sent, net.told()), (0, vec![]));
    net.pass(DAY / 6);
    let told = net.told();
    assert!(matches!(told.as_slice(), [(PHONE, Output::Renewed(_))]), "{told:?}");
    assert_eq!(net.sent, 2, "one question and one answer");
    for _ in 0..29 * 24 {
        net.pass(HOUR);
        assert!(net.is_let_in(PHONE, RELAY));
    }
    assert!(net.sent < 140, "{} messages in a month", net.sent);
}

#[test]
fn lost_messages_and_short_absences_do_no_harm() {
    let mut net = relay_and_phone();
    net.loses = 3;
    for day in 0..25_u32 {
        net.away = if day.is_multiple_of(2) { vec![RELAY] } else { vec![] };
        net.pass(DAY / 4);
        net.away = vec![];
        net.pass(DAY / 4 * 3);
        assert!(net.is_let_in(PHONE, RELAY), "day {day}");
    }
}

#[test]
fn an_issuer_that_is_away_is_asked_ever_more_rarely_and_at_once_when_it_is_back() {
    let mut net = relay_and_phone();
    net.away = vec![RELAY];
    net.pass(DAY + HOUR);
    assert_eq!(net.told(), [(PHONE, Output::Expired { issuer: id(RELAY), lease: LEASE })]);
    assert!((8..40).contains(&net.sent), "{} questions", net.sent);
    net.pass(DAY * 5);
    assert_eq!(net.told(), [], "it is said once");
    net.away = vec![];
    let before = net.sent;
    net.input(PHONE, Input::Connected(id(RELAY)));
    assert_eq!(net.sent - before, 2);
    assert!(net.is_let_in(PHONE, RELAY));
}

#[test]
fn what_was_withdrawn_is_refused_and_not_renewed() {
    let mut net = relay_and_phone();
    assert!(net.is_let_in(PHONE, RELAY));
    net.input(RELAY, Input::Withdraw(LEASE));
    assert!(!net.is_let_in(PHONE, RELAY), "at once, where it was given");
    net.pass(DAY - HOUR);
    assert_eq!(net.told(), [(PHONE, Output::Refused { issuer: id(RELAY), lease: LEASE })]);
    net.pass(HOUR);
    let told = net.told();
    assert!(told.contains(&(PHONE, Output::Expired { issuer: id(RELAY), lease: LEASE })), "{told:?}");
    // The relay forgets it when the last one that it gave is over.
    assert!(net.node(RELAY).is_withdrawn(LEASE));
    net.pass(limits::CLOCK_SKEW);
    assert!(net.told().contains(&(RELAY, Output::Ended(LEASE))));
    assert!(!net.node(RELAY).is_withdrawn(LEASE) && !net.is_let_in(PHONE, RELAY));
}

#[test]
fn what_is_released_is_not_asked_for() {
    let mut net = relay_and_phone();
    net.input(PHONE, Input::Release { issuer: id(RELAY), lease: LEASE });
    net.pass(DAY * 2);
    assert!(net.told().is_empty() && net.node(PHONE).held(id(RELAY), LEASE).is_none());
    assert_eq!(net.node(PHONE).next_deadline(), None);
}

#[test]
fn a_part_lasts_no_longer_than_what_it_is_a_part_of() {
    let mut net = relay_and_phone();
    // Nobody renews what the relay itself was given.
    net.pass(limits::CAPABILITY_LIFE - DAY / 8);
    let expires = net.node(PHONE).held(id(RELAY), LEASE).unwrap().capability().unwrap().expires;
    assert_eq!(expires, NOW + limits::CAPABILITY_LIFE);
    assert!(net.is_let_in(PHONE, RELAY));
    net.pass(DAY);
    assert!(!net.is_let_in(PHONE, RELAY));
    assert!(net.told().contains(&(PHONE, Output::Expired { issuer: id(RELAY), lease: LEASE })));
}

#[test]
fn a_part_is_renewed_under_the_renewed_whole() {
    let mut net = Net::new(&[OPERATOR, RELAY, PHONE]);
    let right = Right::Relay { relay: id(RELAY) };
    let relays = first(OPERATOR, Capability { lease: OTHER, expires: NOW + DAY, ..to_device(RELAY, right) });
    let chain = relays.issue(&key(RELAY), to_device(PHONE, circuit())).unwrap();
    net.input(OPERATOR, Input::Give(relays.clone()));
    net.input(RELAY, Input::Hold(relays));
    net.input(RELAY, Input::Give(chain.clone()));
    net.input(PHONE, Input::Hold(chain));
    for _ in 0..24 * 40 {
        net.pass(HOUR);
        assert!(net.is_let_in(PHONE, RELAY));
    }
    net.input(OPERATOR, Input::Withdraw(OTHER));
    net.pass(DAY + HOUR);
    assert!(!net.is_let_in(PHONE, RELAY), "with the whole the part ends");
}

#[test]
fn a_part_that_is_more_than_the_renewed_whole_is_refused() {
    let mut net = Net::new(&[RELAY, PHONE]);
    let relays = first(OPERATOR, Capability { lease: OTHER, expires: NOW + DAY, ..to_device(RELAY, circuit()) });
    let chain = relays.issue(&key(RELAY), to_device(PHONE, circuit())).unwrap();
    let narrower = Capability { caveats: vec![Caveat::Rate { most: 1 }], ..relays.capability().unwrap().clone() };
    let narrower = first(OPERATOR, Capability { expires: NOW + DAY * 2, ..narrower });
    for input in [Input::Hold(relays), Input::Give(chain.clone()), Input::Hold(narrower)] {
        net.input(RELAY, input);
    }
    net.input(PHONE, Input::Hold(chain));
    net.pass(HOUR / 3 * 2);
    assert_eq!(net.told(), [(PHONE, Output::Refused { issuer: id(RELAY), lease: LEASE })]);
}

#[test]
fn a_part_of_what_is_not_held_any_more_is_refused() {
    let mut net = relay_and_phone();
    net.input(RELAY, Input::Release { issuer: id(OPERATOR), lease: OTHER });
    net.pass(DAY / 3 * 2);
    assert_eq!(net.told(), [(PHONE, Output::Refused { issuer: id(RELAY), lease: LEASE })]);
}

/// The laptop gives Bob a day of ssh; he holds it on two devices.
fn service() -> Net {
    let mut net = Net::new(&[LAPTOP, BOBS, BOBS_PHONE]);
    let person = Audience::Person { mesh: net.world.bob };
    let chain = first(LAPTOP, Capability { expires: NOW + DAY, ..terms(person, ssh()) });
    net.input(LAPTOP, Input::Give(chain.clone()));
    net.input(BOBS, Input::Hold(chain.clone()));
    net.input(BOBS_PHONE, Input::Hold(chain));
    net
}

#[test]
fn all_devices_of_a_person_get_the_same_one() {
    let mut net = service();
    net.pass(DAY / 3 * 2);
    let held = |device| net.node(device).held(id(LAPTOP), LEASE).unwrap().clone();
    assert_eq!(held(BOBS), held(BOBS_PHONE));
    assert!(held(BOBS).capability().unwrap().expires > NOW + DAY);
}

#[test]
fn a_device_that_was_removed_gets_no_new_one() {
    let mut net = service();
    net.world.remove(BOBS, net.world.bob, BOBS_PHONE);
    net.pass(DAY / 3 * 2);
    let told = net.told();
    assert!(told.contains(&(BOBS_PHONE, Output::Refused { issuer: id(LAPTOP), lease: LEASE })), "{told:?}");
    assert!(told.iter().any(|(device, output)| *device == BOBS && matches!(output, Output::Renewed(_))));
}

#[test]
fn who_may_give_no_more_renews_no_more() {
    let mut net = Net::new(&[PHONE, BOBS]);
    let chain = first(PHONE, terms(Audience::Person { mesh: net.world.bob }, ssh()));
    net.input(PHONE, Input::Give(chain.clone()));
    net.input(BOBS, Input::Hold(chain));
    net.world.remove(LAPTOP, net.world.alice, PHONE);
    net.pass(HOUR);
    assert!(net.told().contains(&(BOBS, Output::Refused { issuer: id(PHONE), lease: LEASE })));
}

#[test]
fn nobody_gets_what_he_was_not_given() {
    let mut net = service();
    net.nodes.push((STRANGER, Renewal::new(key(STRANGER))));
    let chain = net.node(BOBS).held(id(LAPTOP), LEASE).unwrap().clone();
    net.input(STRANGER, Input::Hold(chain));
    net.pass(DAY / 3 * 2);
    assert!(net.told().contains(&(STRANGER, Output::Refused { issuer: id(LAPTOP), lease: LEASE })));
    let unknown = CapabilityMessage::Ask { lease: OTHER };
    let asked = Input::Message { from: id(BOBS), bytes: codec::encode(&unknown) };
    let out = net.nodes[0].1.handle(net.now, &mut net.rng, net.world.anchor(), asked);
    let refused = codec::encode(&CapabilityMessage::Refused { lease: OTHER });
    assert_eq!(out, [Output::Send { to: id(BOBS), bytes: refused }]);
}

/// What the phone says to a message from the relay, once it has asked.
fn answered(message: impl Fn(&Chain) -> CapabilityMessage) -> Vec<Output> {
    let mut net = relay_and_phone();
    net.away = vec![RELAY];
    net.pass(DAY / 3 * 2);
    let old = net.node(PHONE).held(id(RELAY), LEASE).unwrap().clone();
    let bytes = codec::encode(&message(&old));
    let (now, anchor) = (net.now, net.world.anchor());
    let phone = &mut net.nodes[1].1;
    let first = phone.handle(now, &mut net.rng, anchor, Input::Message { from: id(RELAY), bytes: bytes.clone() });
    let again = phone.handle(now, &mut net.rng, anchor, Input::Message { from: id(RELAY), bytes });
    assert_eq!(again, [], "a question has one answer");
    let changed = phone.held(id(RELAY), LEASE) != Some(&old);
    assert_eq!(changed, matches!(first.as_slice(), [Output::Renewed(_)]));
    first
}

#[test]
fn an_answer_is_to_the_question() {
    let parent = |chain: &Chain| Chain::new(chain.to_signed()[..1].to_vec()).unwrap();
    let offer = |chain: &Chain, by: u8, change: &dyn Fn(&mut Capability)| {
        let mut next = chain.capability().unwrap().clone();
        next.expires = next.expires + HOUR;
        change(&mut next);
        let signed = parent(chain).issue(&key(by), next).unwrap().to_signed();
        CapabilityMessage::Renewed { lease: LEASE, chain: signed }
    };
    let good = answered(|chain| offer(chain, RELAY, &|_| {}));
    assert!(matches!(good.as_slice(), [Output::Renewed(_)]), "{good:?}");
    let narrower = answered(|chain| offer(chain, RELAY, &|next| next.caveats = vec![Caveat::Rate { most: 1 }]));
    assert!(matches!(narrower.as_slice(), [Output::Renewed(_)]), "an issuer may give less from now on");
    let fault = [Output::Fault(id(RELAY))];
    assert_eq!(answered(|chain| offer(chain, STRANGER, &|_| {})), fault, "another issuer's");
    assert_eq!(answered(|chain| offer(chain, RELAY, &|next| next.lease = OTHER)), fault);
    assert_eq!(answered(|chain| offer(chain, RELAY, &|next| next.right = Right::Mailbox { relay: id(RELAY) })), fault);
    let theirs = Audience::Device { device: id(STRANGER) };
    assert_eq!(answered(|chain| offer(chain, RELAY, &|next| next.audience = theirs)), fault);
    assert_eq!(answered(|_| CapabilityMessage::Renewed { lease: LEASE, chain: vec![] }), fault);
    let same = |chain: &Chain| CapabilityMessage::Renewed { lease: LEASE, chain: chain.to_signed() };
    assert_eq!(answered(same), [], "no newer one: asked again later");
}

#[test]
fn a_moment_at_a_time_is_not_asked_for_at_every_moment() {
    let mut net = relay_and_phone();
    net.away = vec![RELAY];
    net.pass(DAY);
    for moment in 1..5_u64 {
        let old = net.node(PHONE).held(id(RELAY), LEASE).unwrap().clone();
        let expires = net.now + Duration::from_micros(moment);
        let next = Capability { expires, ..old.capability().unwrap().clone() };
        let parent = Chain::new(old.to_signed()[..1].to_vec()).unwrap();
        let chain = parent.issue(&key(RELAY), next).unwrap().to_signed();
        let bytes = codec::encode(&CapabilityMessage::Renewed { lease: LEASE, chain });
        net.input(PHONE, Input::Message { from: id(RELAY), bytes });
        assert_ne!(net.node(PHONE).held(id(RELAY), LEASE), Some(&old));
        let before = net.sent;
        net.pass(limits::RENEW_PAUSE - Duration::from_micros(1));
        assert_eq!(net.sent, before);
        net.pass(limits::RENEW_PAUSE);
        assert_eq!(net.sent, before + 1);
    }
}

#[test]
fn unasked_answers_and_junk_change_nothing() {
    let mut net = relay_and_phone();
    let old = net.node(PHONE).held(id(RELAY), LEASE).unwrap().clone();
    let refused = codec::encode(&CapabilityMessage::Refused { lease: LEASE });
    net.input(PHONE, Input::Message { from: id(RELAY), bytes: refused });
    assert_eq!(net.told(), []);
    for junk in [vec![], vec![0xff], vec![0; limits::CAPABILITY_FRAME + 1], codec::encode(&old.to_signed())] {
        net.input(PHONE, Input::Message { from: id(RELAY), bytes: junk });
        assert_eq!(net.told(), [(PHONE, Output::Fault(id(RELAY)))]);
    }
    assert_eq!(net.node(PHONE).held(id(RELAY), LEASE), Some(&old));
}

#[test]
fn tables_are_bounded() {
    let mut net = Net::new(&[PHONE]);
    let lease = |number: usize| LeaseId(*[number.to_be_bytes(), [0; 8]].concat().first_chunk().unwrap());
    let capability = |number| Capability { lease: lease(number), ..to_device(PHONE, circuit()) };
    for number in 0..=limits::LEASES_GIVEN {
        net.input(PHONE, Input::Give(first(PHONE, capability(number))));
    }
    assert_eq!(net.told(), [(PHONE, Output::NotKept(lease(limits::LEASES_GIVEN)))]);
    for number in 0..=limits::LEASES_HELD {
        net.input(PHONE, Input::Hold(first(RELAY, capability(number))));
    }
    assert_eq!(net.told(), [(PHONE, Output::NotKept(lease(limits::LEASES_HELD)))]);
    // What is known is not new, and what another gave cannot be renewed here.
    net.input(PHONE, Input::Hold(first(RELAY, Capability { expires: NOW + DAY, ..capability(0) })));
    assert_eq!(net.told(), []);
    net.input(PHONE, Input::Give(first(RELAY, capability(1))));
    assert_eq!(net.told(), [(PHONE, Output::NotKept(lease(1)))]);
    // Room is made by what is withdrawn and over.
    net.input(PHONE, Input::Withdraw(lease(5)));
    net.pass(HOUR + limits::CLOCK_SKEW);
    let told = net.told();
    assert!(told.contains(&(PHONE, Output::Ended(lease(5)))), "{}", told.len());
    net.input(PHONE, Input::Give(first(PHONE, capability(limits::LEASES_GIVEN))));
    assert!(!net.told().iter().any(|(_, output)| matches!(output, Output::NotKept(_))));
}
