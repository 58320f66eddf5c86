//! Tickets as a device shows them to a relay, and the relay's answers.

use std::time::Duration;

use meshwork_protocol::{
    admission::{Admission, Policy, invite, pass_on},
    capability::Chain,
    id::DeviceId,
    key::DeviceKey,
    limits,
    seal::SeedRng,
    time::Timestamp,
    wire::admission::{Answer, Refusal},
};

const NOW: Timestamp = Timestamp(1_800_000_000_000_000);

fn key(number: u8) -> DeviceKey {
    DeviceKey::from_bytes(&[number; 32])
}

/// The operator's ticket for one device, and the part of it that this one gives to another.
fn tickets() -> [(DeviceId, Chain); 2] {
    let (relay, holder, other) = (key(1), key(2), key(3).device_id());
    let mut rng = SeedRng::new([4; 32]);
    let time = (NOW, Duration::from_secs(86_400));
    let first = invite(&relay, relay.device_id(), holder.device_id(), time, true, &mut rng).expect("a ticket");
    let second = pass_on(&first, &holder, other, &mut rng).expect("a part of it");
    [(holder.device_id(), first), (other, second)]
}

/// A relay admits who shows what it gave, and nobody by anything else.
pub(super) fn run(bytes: &[u8]) -> bool {
    let tickets = tickets();
    let policy = Policy::Invited { givers: Default::default(), withdrawn: Default::default() };
    let mut relay = Admission::new(key(1), policy);
    let mut any = false;
    for (device, ticket) in &tickets {
        let answer = relay.show(*device, bytes, NOW);
        let is_admitted = matches!(answer, Answer::Admitted { .. });
        assert_eq!(is_admitted, ticket.to_bytes() == bytes, "admitted by another ticket than its own");
        assert_eq!(is_admitted, relay.admits(device, NOW));
        any |= is_admitted;
    }
    let Ok(answer) = Answer::decode(bytes) else { return any };
    assert!(bytes.len() <= limits::CAPABILITY_FRAME, "more bytes than the limit");
    assert_eq!(Answer::decode(&answer.encode()), Ok(answer), "what was read is not what is written");
    true
}

pub(super) fn seeds() -> Vec<Vec<u8>> {
    let [(_, first), (_, second)] = tickets();
    let answers = [
        Answer::Admitted { until: None, gives: true, renewed: None },
        Answer::Admitted { until: Some(NOW), gives: false, renewed: Some(first.clone()) },
        Answer::Refused { code: Refusal::Withdrawn.code() },
    ];
    [first.to_bytes(), second.to_bytes()].into_iter().chain(answers.iter().map(Answer::encode)).collect()
}
