//! No escalation: random chains, judged beside a plain reading of each of their links.

use std::collections::BTreeSet;

use rand_core::Rng as _;

use super::*;

/// Not made of keys, which would take time: nobody of these signs.
fn named(number: u8) -> DeviceId {
    DeviceId([number; 32])
}

/// Every right there is at two relays, on two devices and of two objects, that is no more than one act.
fn acts() -> Vec<Right> {
    let relays = [RELAY, STRANGER].map(named);
    let names = ["a", "b"].map(label);
    let mut acts = Vec::new();
    for relay in relays {
        acts.extend([Right::Circuit { relay }, Right::Mailbox { relay }]);
    }
    for (device, object) in [(LAPTOP, 1), (PHONE, 2)] {
        for name in &names {
            let (device, object) = (named(device), ObjectId([object; 32]));
            acts.push(Right::Service { device, name: name.clone() });
            acts.push(Right::Publish { object, name: name.clone() });
            acts.push(Right::Subscribe { object, name: name.clone() });
        }
    }
    acts
}

/// Those, and every right to several of them.
fn rights() -> Vec<Right> {
    let mut rights = acts();
    rights.extend([RELAY, STRANGER].map(|relay| Right::Relay { relay: named(relay) }));
    rights.extend([LAPTOP, PHONE].map(|device| Right::Services { device: named(device) }));
    for object in [1, 2] {
        rights.extend(["a", "b"].map(|name| Right::Topic { object: ObjectId([object; 32]), name: label(name) }));
    }
    rights
}

/// What a right is said to be, as text: `relay/31/circuit`. A right to several acts is a prefix.
fn path(right: &Right) -> String {
    match right {
        Right::Relay { relay } => format!("relay/{relay}/"),
        Right::Circuit { relay } => format!("relay/{relay}/circuit"),
        Right::Mailbox { relay } => format!("relay/{relay}/mailbox"),
        Right::Services { device } => format!("service/{device}/"),
        Right::Service { device, name } => format!("service/{device}/{name}!"),
        Right::Topic { object, name } => format!("topic/{object}/{name}!"),
        Right::Publish { object, name } => format!("topic/{object}/{name}!publish"),
        Right::Subscribe { object, name } => format!("topic/{object}/{name}!subscribe"),
    }
}

/// What a link permits, read plainly and of that link alone.
fn reads(link: &Capability, now: Timestamp, request: &Request) -> bool {
    let mut permits = path(&request.right).starts_with(&path(&link.right));
    permits &= now.0 >= link.not_before.0 - 600_000_000 && now.0 < link.expires.0 + 600_000_000;
    for caveat in &link.caveats {
        if let Caveat::Peers { devices } = caveat {
            permits &= devices.iter().any(|device| Some(*device) == request.peer);
        }
    }
    permits
}

/// Bytes, rate and count of a link; without a caveat there is no bound.
fn bounds(link: &Capability) -> [u64; 3] {
    let mut bounds = [u64::MAX; 3];
    for caveat in &link.caveats {
        match caveat {
            Caveat::Bytes { most } => bounds[0] = *most,
            Caveat::Rate { most } => bounds[1] = *most,
            Caveat::Count { most } => bounds[2] = *most,
            Caveat::Peers { .. } | Caveat::Depth { .. } => {}
        }
    }
    bounds
}

struct Dice {
    rng: SeedRng,
    rights: Vec<Right>,
    acts: Vec<Right>,
}

impl Dice {
    fn below(&mut self, bound: u64) -> u64 {
        self.rng.next_u64() % bound.max(1)
    }

    fn one<T: Clone>(&mut self, items: &[T]) -> T {
        items[self.below(items.len() as u64) as usize].clone()
    }

    fn caveats(&mut self) -> Vec<Caveat> {
        let mut caveats = Vec::new();
        for place in 0..5 {
            if self.below(4) > 0 {
                continue;
            }
            let most = self.below(4);
            let devices: BTreeSet<DeviceId> =
                (0..=self.below(3)).map(|_| named(self.one(&[LAPTOP, BOBS, PHONE]))).collect();
            caveats.push(match place {
                0 => Caveat::Bytes { most },
                1 => Caveat::Rate { most },
                2 => Caveat::Count { most },
                3 => Caveat::Peers { devices: devices.into_iter().collect() },
                _ => Caveat::Depth { most: most + 2 },
            });
        }
        caveats
    }

    /// A link after `parent` that mostly keeps to it.
    fn link(&mut self, parent: Option<&Capability>, to: u8) -> Capability {
        let hour = |hours: u64| NOW + HOUR * hours as u32;
        let fresh = Capability {
            caveats: self.caveats(),
            not_before: hour(self.below(3)),
            expires: hour(5 + self.below(3)),
            ..to_device(to, self.one(&self.rights.clone()))
        };
        let mut link = Capability { audience: fresh.audience, ..parent.unwrap_or(&fresh).clone() };
        for caveat in &mut link.caveats {
            match caveat {
                Caveat::Depth { most } if parent.is_some() => *most = most.saturating_sub(1),
                Caveat::Bytes { most } | Caveat::Rate { most } => *most = most.saturating_sub(self.below(2)),
                _ => {}
            }
        }
        match self.below(8) {
            0 => link.right = fresh.right,
            1 => link.caveats = fresh.caveats,
            2 => link.not_before = fresh.not_before,
            3 => link.expires = fresh.expires,
            4 => {
                let narrower: Vec<Right> = self.acts.iter().filter(|act| link.right.covers(act)).cloned().collect();
                link.right = self.one(&narrower);
            }
            _ => {}
        }
        if !link.right.is_at_relay() {
            link.audience = Audience::Person { mesh: MeshId([to; 32]) };
        }
        link
    }
}

/// A chain of one to four links after each other, or what the first bad one was refused for.
fn chain(dice: &mut Dice) -> Result<Chain, CapabilityError> {
    let links = 1 + dice.below(4) as u8;
    (0..links).try_fold(Chain::default(), |chain, at| {
        let parent = chain.last().map(|link| link.capability().clone());
        chain.issue(&key(OPERATOR + at), dice.link(parent.as_ref(), OPERATOR + at + 1))
    })
}

#[test]
fn rights_cover_what_they_say() {
    for (one, other) in rights().iter().flat_map(|one| rights().into_iter().map(move |other| (one.clone(), other))) {
        let is_part = path(&other).starts_with(&path(&one));
        assert_eq!(one.covers(&other), is_part, "{one:?}, {other:?}");
    }
}

/// Somebody who wants to do something at some time; often enough what the last link is about.
fn request(dice: &mut Dice, last: &Capability, holder: DeviceId) -> (Timestamp, Request) {
    let covered: Vec<Right> = dice.acts.iter().filter(|act| last.right.covers(act)).cloned().collect();
    let all = dice.rights.clone();
    let right = if dice.below(2) > 0 { dice.one(&covered) } else { dice.one(&all) };
    let by = dice.one(&[holder, holder, holder, named(OPERATOR)]);
    let peer = dice.one(&[None, Some(named(LAPTOP)), Some(named(BOBS)), Some(named(STRANGER))]);
    let edge = dice.one(&[0, 1, 600_000_000, 1_199_999_999, 1_200_000_000]);
    (Timestamp((NOW + HOUR * dice.below(9) as u32).0 + edge - 600_000_000), Request { by, right, peer })
}

#[test]
fn no_chain_permits_what_one_of_its_links_does_not() {
    let mut dice = Dice { rng: rng(1), rights: rights(), acts: acts() };
    let anchor = Anchor::Operator { relay: named(RELAY), key: id(OPERATOR) };
    let here = format!("relay/{}/", named(RELAY));
    let (mut accepted, mut refused, mut permitted) = ([0; 5], 0, 0);
    for _ in 0..6_000 {
        let Ok(chain) = chain(&mut dice) else {
            refused += 1;
            continue;
        };
        accepted[chain.links().len()] += 1;
        let links: Vec<&Capability> = chain.links().iter().map(Link::capability).collect();
        let last = links[links.len() - 1];
        let holder = id(OPERATOR + links.len() as u8);
        for _ in 0..24 {
            let (now, request) = request(&mut dice, last, holder);
            let every = links.iter().all(|link| reads(link, now, &request));
            assert_eq!(reads(last, now, &request), every, "the last link alone says no more than all: {links:?}");
            let permit = check(&chain, now, &request, anchor, |_| false);
            let may = every && path(&links[0].right).starts_with(&here) && request.by == holder;
            assert_eq!(permit.is_ok(), may, "{permit:?} for {request:?} at {now:?}: {links:?}");
            permitted += usize::from(may);
        }
        for earlier in &links {
            assert!(bounds(last).iter().zip(bounds(earlier)).all(|(less, most)| *less <= most), "{links:?}");
        }
    }
    println!("accepted by length {accepted:?}, refused {refused}, acts permitted {permitted}");
    assert!(accepted[1..].iter().all(|count| *count > 200) && refused > 500 && permitted > 500);
}
