use std::time::Duration;

use super::*;
use crate::seal::SeedRng;

const NOW: Timestamp = Timestamp(1_800_000_000_000_000);
const DAY: Duration = Duration::from_secs(86_400);
const MONTH: Duration = limits::CAPABILITY_LIFE;

const RELAY: u8 = 1;
const ALICE: u8 = 2;
const ALICES_PHONE: u8 = 3;
const OPERATORS: u8 = 4;
const STRANGER: u8 = 5;

fn key(number: u8) -> DeviceKey {
    DeviceKey::from_bytes(&[number; 32])
}

fn id(number: u8) -> DeviceId {
    key(number).device_id()
}

fn ticket(by: u8, to: u8, passes: bool) -> Chain {
    invite(&key(by), id(RELAY), id(to), (NOW, MONTH), passes, &mut SeedRng::new([16 * by + to; 32])).expect("a ticket")
}

fn passed(ticket: &Chain, by: u8, to: DeviceId) -> Chain {
    pass_on(ticket, &key(by), to, &mut SeedRng::new([9; 32])).expect("a part of the ticket")
}

fn relay(withdrawn: &[LeaseId]) -> Admission {
    let policy = Policy::Invited { givers: [id(OPERATORS)].into(), withdrawn: withdrawn.iter().copied().collect() };
    Admission::new(key(RELAY), policy)
}

fn shown(relay: &mut Admission, by: u8, ticket: &Chain, now: Timestamp) -> Result<Option<Chain>, Refusal> {
    match relay.show(id(by), &ticket.to_bytes(), now) {
        Answer::Admitted { renewed, .. } => {
            assert!(relay.admits(&id(by), now));
            Ok(renewed)
        }
        Answer::Refused { code } => {
            assert!(!relay.admits(&id(by), now));
            Err(Refusal::from_code(code).expect("a code of this version"))
        }
    }
}

#[test]
fn an_open_relay_takes_everybody_and_one_for_the_invited_nobody_else() {
    let mut open = Admission::new(key(RELAY), Policy::Open);
    assert!(open.admits(&id(STRANGER), NOW));
    assert_eq!(shown(&mut open, STRANGER, &Chain::default(), NOW), Ok(None));

    let mut relay = relay(&[]);
    assert!(!relay.admits(&id(STRANGER), NOW));
    assert_eq!(shown(&mut relay, STRANGER, &Chain::default(), NOW), Err(Refusal::NotInvited));
    assert_eq!(relay.show(id(STRANGER), b"nonsense", NOW), Answer::Refused { code: Refusal::Malformed.code() });
    let own = ticket(STRANGER, STRANGER, true);
    assert_eq!(shown(&mut relay, STRANGER, &own, NOW), Err(Refusal::NotInvited), "who invites himself");
}

#[test]
fn a_ticket_is_for_its_device_and_for_those_it_was_passed_on_to() {
    let mut relay = relay(&[]);
    let of_alice = ticket(RELAY, ALICE, true);
    assert_eq!(shown(&mut relay, STRANGER, &of_alice, NOW), Err(Refusal::NotInvited), "a ticket that was found");
    assert_eq!(shown(&mut relay, ALICE, &of_alice, NOW), Ok(None));
    let of_phone = passed(&of_alice, ALICE, id(ALICES_PHONE));
    assert_eq!(shown(&mut relay, ALICES_PHONE, &of_phone, NOW), Ok(None));
    let further = pass_on(&of_phone, &key(ALICES_PHONE), id(STRANGER), &mut SeedRng::new([9; 32]));
    assert!(further.is_err(), "what was passed on is passed on no further");
    let alone = ticket(RELAY, ALICE, false);
    assert!(pass_on(&alone, &key(ALICE), id(ALICES_PHONE), &mut SeedRng::new([9; 32])).is_err());
    let other = invite(&key(RELAY), id(STRANGER), id(ALICE), (NOW, MONTH), true, &mut SeedRng::new([1; 32]));
    assert_eq!(shown(&mut relay, STRANGER, &other.expect("a ticket"), NOW), Err(Refusal::NotInvited));
    assert_eq!(relay.count(NOW), 2);
}

#[test]
fn who_was_named_needs_no_ticket_and_gives_some() {
    let mut relay = relay(&[]);
    assert!(relay.admits(&id(OPERATORS), NOW));
    let answer = relay.show(id(OPERATORS), &Chain::default().to_bytes(), NOW);
    assert_eq!(answer, Answer::Admitted { until: None, gives: true, renewed: None });
    assert_eq!(shown(&mut relay, ALICE, &ticket(OPERATORS, ALICE, false), NOW), Ok(None));
}

#[test]
fn a_ticket_ends_or_is_withdrawn_and_with_it_what_was_passed_on() {
    let of_alice = ticket(RELAY, ALICE, true);
    let of_phone = passed(&of_alice, ALICE, id(ALICES_PHONE));
    let lease = of_alice.capability().expect("a link").lease;
    let mut relay = relay(&[lease]);
    assert_eq!(shown(&mut relay, ALICE, &of_alice, NOW), Err(Refusal::Withdrawn));
    assert_eq!(shown(&mut relay, ALICES_PHONE, &of_phone, NOW), Err(Refusal::Withdrawn));

    let mut relay = super::tests::relay(&[]);
    assert_eq!(shown(&mut relay, ALICES_PHONE, &of_phone, NOW), Ok(None));
    let later = NOW + MONTH + DAY;
    assert!(!relay.admits(&id(ALICES_PHONE), later));
    assert_eq!(relay.count(later), 0);
    assert_eq!(shown(&mut relay, ALICES_PHONE, &of_phone, later), Err(Refusal::Ended));
    let early = Timestamp(NOW.as_micros() - 86_400_000_000);
    assert_eq!(shown(&mut relay, ALICE, &of_alice, early), Err(Refusal::NotYet));
}

#[test]
fn the_relay_renews_what_it_gave_and_its_holder_what_he_passed_on() {
    let mut relay = relay(&[]);
    let of_alice = ticket(RELAY, ALICE, true);
    let of_phone = passed(&of_alice, ALICE, id(ALICES_PHONE));
    let later = NOW + 21 * DAY;
    assert_eq!(shown(&mut relay, ALICES_PHONE, &of_phone, later), Ok(None));
    let renewed = shown(&mut relay, ALICE, &of_alice, later).expect("admitted").expect("renewed");
    let (old, new) = (of_alice.capability().expect("a link"), renewed.capability().expect("a link"));
    assert_eq!((new.lease, &new.audience, new.expires), (old.lease, &old.audience, later + MONTH));
    assert!(!is_due(Some(&of_phone), Some(&of_alice), later) && is_due(Some(&of_phone), Some(&renewed), later));
    assert!(is_due(None, Some(&renewed), later));
    let again = passed(&renewed, ALICE, id(ALICES_PHONE));
    assert!(!is_due(Some(&again), Some(&renewed), later));
    assert_eq!(shown(&mut relay, ALICES_PHONE, &again, NOW + 40 * DAY), Ok(None));

    let given = ticket(OPERATORS, ALICE, false);
    assert!(!is_due(Some(&given), None, NOW) && is_due(Some(&given), None, later));
}

#[test]
fn bounds_that_are_not_counted_are_refused() {
    let mut relay = relay(&[]);
    let whole = ticket(RELAY, ALICE, true);
    let capability = whole.capability().expect("a link").clone();
    let caveats = vec![Caveat::Bytes { most: 1_000 }];
    let bounded = Chain::default().issue(&key(RELAY), Capability { caveats, ..capability.clone() });
    assert_eq!(shown(&mut relay, ALICE, &bounded.expect("a ticket"), NOW), Err(Refusal::Bounded));
    let caveats = vec![Caveat::Peers { devices: vec![id(STRANGER)] }];
    let bounded = Chain::default().issue(&key(RELAY), Capability { caveats, ..capability });
    assert_eq!(shown(&mut relay, ALICE, &bounded.expect("a ticket"), NOW), Err(Refusal::NotInvited));
}

#[test]
fn one_ticket_does_not_fill_the_relay() {
    let mut relay = relay(&[]);
    let of_alice = ticket(RELAY, ALICE, true);
    let made_up = |number: usize| {
        let mut secret = [77; 32];
        secret[..8].copy_from_slice(&number.to_le_bytes());
        DeviceKey::from_bytes(&secret).device_id()
    };
    let mut answers = (0..limits::ADMITTED_BY_TICKET + 3).map(|number| {
        let device = made_up(number);
        relay.show(device, &passed(&of_alice, ALICE, device).to_bytes(), NOW)
    });
    assert!(answers.by_ref().take(limits::ADMITTED_BY_TICKET).all(|answer| matches!(answer, Answer::Admitted { .. })));
    assert!(answers.all(|answer| answer == Answer::Refused { code: Refusal::Crowded.code() }));
    assert_eq!(shown(&mut relay, ALICES_PHONE, &ticket(RELAY, ALICES_PHONE, true), NOW), Ok(None));
    let again = passed(&of_alice, ALICE, made_up(0)).to_bytes();
    assert!(matches!(relay.show(made_up(0), &again, NOW), Answer::Admitted { .. }), "who is in already");
}

#[test]
fn a_ticket_is_one_word() {
    let of_alice = ticket(RELAY, ALICE, true);
    let text = to_text(&of_alice);
    assert_eq!(from_text(&text), Some(of_alice));
    assert!(from_text("").is_none() && from_text(&to_text(&Chain::default())).is_none());
    assert!(from_text(&text[1..]).is_none() && from_text(&text.replace('a', "b")).is_none());
}
