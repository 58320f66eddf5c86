mod hostile;
mod rules;
mod world;

use std::time::Duration;

use meshwork_protocol::{id::Incarnation, key::DeviceKey};
use proptest::prelude::*;

use super::*;
use world::{Dice, OBJECT, World};

const SECOND: Duration = Duration::from_secs(1);

/// A record of `write` at one node becomes known to all by `steps` random events.
fn churn(world: &mut World, dice: &mut Dice, steps: usize) {
    let ids = world.ids();
    for _ in 0..steps {
        let (a, b) = (ids[dice.below(ids.len())], ids[dice.below(ids.len())]);
        match dice.below(40) {
            0..4 => world.write(a),
            4..10 => {
                let count = 1 + dice.below(3);
                world.store(a, count);
            }
            10..18 => {
                let which = dice.below(8);
                world.work(a, which);
            }
            18..34 => {
                world.deliver(a, b);
            }
            34 if a != b => world.connect(a, b),
            35 if a != b => world.cut(a, b),
            36 => {
                let op = OpId([dice.below(250) as u8 + 2; 32]);
                world.add_control(a, vec![op], None);
            }
            37 if dice.below(6) == 0 => world.restart(a),
            _ => world.advance(Duration::from_millis(1 << dice.below(15))),
        }
    }
}

/// Joins all nodes in a random tree with some more links.
fn join_up(world: &mut World, dice: &mut Dice) {
    let ids = world.ids();
    for n in 1..ids.len() {
        let other = dice.below(n);
        if !world.streams.contains_key(&(ids[n], ids[other])) {
            world.connect(ids[n], ids[other]);
        }
    }
}

fn assert_comes_together(mut world: World, mut dice: Dice, seed: u64) {
    join_up(&mut world, &mut dice);
    for _ in 0..40 {
        world.settle();
        if world.is_level() {
            break;
        }
        world.advance(SECOND);
    }
    assert!(world.is_level(), "seed {seed}: not level");
    for node in world.nodes.values() {
        assert!(node.intake.pending().is_empty(), "seed {seed}: records left waiting");
        assert_eq!(node.intake.chains().branches().count(), 0, "seed {seed}: something unpersisted was sent");
        assert_eq!(node.log.len(), node.intake.chains().len());
        let counters = node.sync.counters();
        let Counters { malformed, out_of_order, closed, over_claimed, .. } = counters;
        assert_eq!((malformed, out_of_order, closed, over_claimed), (0, 0, 0, 0), "seed {seed}: {counters:?}");
    }
    // Who has settled knows it, and has nothing more to say.
    for _ in 0..4 {
        world.advance(2 * SECOND);
        world.settle();
    }
    assert_eq!(world.settle(), 0, "seed {seed}: still talking");
    for (from, to) in world.streams.keys() {
        assert!(world.nodes[from].sync.is_level(to, &OBJECT), "seed {seed}: does not know that it is level");
    }
}

#[test]
fn replicas_come_together_whatever_happens() {
    let cases = std::env::var("MESHWORK_SYNC_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(1_000u32);
    let first = std::env::var("MESHWORK_SYNC_FIRST").ok().and_then(|n| n.parse().ok()).unwrap_or(1);
    for seed in first..first + u64::from(cases) {
        let mut dice = Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        let mut world = World::new(2 + dice.below(3) as u8);
        let steps = 20 + dice.below(200);
        churn(&mut world, &mut dice, steps);
        assert_comes_together(world, dice, seed);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn three_replicas_come_together(seed in 1u64.., steps in 1usize..300) {
        let mut dice = Dice(seed);
        let mut world = World::new(3);
        churn(&mut world, &mut dice, steps);
        assert_comes_together(world, dice, seed);
    }
}

/// A world in which `first` holds some records that the others lack.
fn ahead(nodes: u8, records: usize) -> (World, Vec<DeviceId>) {
    let mut world = World::new(nodes);
    let ids = world.ids();
    for _ in 0..records {
        world.write(ids[0]);
    }
    world.store(ids[0], records);
    (world, ids)
}

#[test]
fn equal_replicas_exchange_one_small_frame_each() {
    let (mut world, ids) = ahead(2, 30);
    world.connect(ids[0], ids[1]);
    world.settle();
    world.cut(ids[0], ids[1]);
    (world.frames_sent, world.bytes_sent) = (0, 0);
    world.connect(ids[0], ids[1]);
    world.settle();
    assert_eq!(world.frames_sent, 2);
    assert!(world.bytes_sent <= 128, "{} bytes", world.bytes_sent);
    assert!(ids.iter().zip(ids.iter().rev()).all(|(a, b)| world.nodes[a].sync.is_level(b, &OBJECT)));
}

#[test]
fn a_newcomer_gets_each_record_once_though_many_have_it() {
    let (mut world, ids) = ahead(5, 3_000);
    for id in &ids[1..4] {
        world.connect(ids[0], *id);
    }
    world.settle();
    world.records_sent = 0;
    for id in &ids[..4] {
        world.connect(ids[4], *id);
    }
    world.settle();
    assert!(world.is_level());
    assert_eq!(world.records_sent, 3_000);
}

#[test]
fn a_new_record_is_sent_at_once_and_only_once() {
    let (mut world, ids) = ahead(3, 5);
    for (a, b) in [(0, 1), (1, 2), (2, 0)] {
        world.connect(ids[a], ids[b]);
    }
    world.settle();
    (world.frames_sent, world.records_sent) = (0, 0);
    world.write(ids[0]);
    world.store(ids[0], 1);
    for _ in 0..2 {
        world.work(ids[0], 0);
    }
    assert_eq!((world.frames_sent, world.records_sent), (2, 2));
    world.settle();
    assert!(world.is_level());
    assert_eq!(world.records_sent, 2);
}

#[test]
fn records_of_others_are_passed_on() {
    let (mut world, ids) = ahead(4, 20);
    for pair in ids.windows(2) {
        world.connect(pair[0], pair[1]);
    }
    world.settle();
    assert!(world.is_level());
    world.write(ids[0]);
    world.settle();
    world.advance(SECOND);
    world.settle();
    assert!(world.is_level());
}

#[test]
fn nothing_is_told_before_it_is_stored() {
    let (mut world, ids) = ahead(2, 1);
    world.connect(ids[0], ids[1]);
    world.settle();
    world.frames_sent = 0;
    world.write(ids[0]);
    world.advance(SECOND);
    assert_eq!(world.frames_sent, 0);
    assert!(world.node(&ids[0]).jobs.is_empty());
    world.settle();
    assert!(world.is_level());
}

#[test]
fn a_peer_that_reads_nothing_is_sent_little() {
    let (mut world, ids) = ahead(2, 1);
    world.connect(ids[0], ids[1]);
    world.settle();
    for _ in 0..500 {
        world.write(ids[0]);
        world.store(ids[0], 1);
        world.advance(Duration::from_millis(1));
    }
    assert_eq!(world.node(&ids[0]).jobs.len(), limits::PUSHES_PER_PEER);
    assert!(world.streams[&(ids[0], ids[1])].len() <= 20);
    world.settle();
    world.advance(SECOND);
    world.settle();
    assert!(world.is_level());
}

#[test]
fn a_silent_peer_is_given_up_for_another() {
    let (mut world, ids) = ahead(3, 10);
    world.connect(ids[0], ids[1]);
    world.settle();
    world.connect(ids[2], ids[0]);
    for _ in 0..4 {
        world.deliver(ids[0], ids[2]);
        world.deliver(ids[2], ids[0]);
    }
    assert!(!world.node(&ids[0]).jobs.is_empty(), "the first peer is being asked");
    world.node(&ids[0]).jobs.clear();
    world.connect(ids[2], ids[1]);
    world.settle();
    assert!(!world.is_level());
    world.advance(limits::WANT_TIMEOUT);
    world.settle();
    assert!(world.is_level());
}

/// A world in which device 1 writes `shared` records that are the same on every side, and then `own` ones,
/// all of which device 2 gets.
fn side(side: u8, shared: usize, own: usize) -> (World, DeviceId, ChainId) {
    let twin = (DeviceKey::from_bytes(&[1; 32]), Incarnation([1; 8]));
    let mut world = World::of(vec![twin, (DeviceKey::from_bytes(&[2; 32]), Incarnation([side; 8]))]);
    let [twin, holder] = [1, 2].map(|n| DeviceKey::from_bytes(&[n; 32]).device_id());
    let chain = world.nodes[&twin].chain();
    for _ in 0..shared {
        world.write(twin);
    }
    world.write(holder);
    world.connect(twin, holder);
    world.settle();
    for _ in 0..own {
        world.write(twin);
    }
    world.settle();
    assert!(world.is_level());
    (world, holder, chain)
}

#[test]
fn replicas_that_met_different_branches_come_to_hold_both() {
    let cases = [(0, 3, 3), (2, 1, 4), (2, 4, 1), (1, 2, 2), (0, 1, 5), (40, 3, 90), (3, 400, 1), (0, 150, 150)];
    for (shared, left, right) in cases {
        // A device restored from a copy of itself signs on in its old chain; each branch has one holder.
        let (mut world, one, chain) = side(1, shared, left);
        let (mut copy, holder, _) = side(2, shared, right);
        let moved = copy.nodes.remove(&holder).expect("the holder");
        let moved = world::Node { key: DeviceKey::from_bytes(&[3; 32]), links: BTreeSet::new(), ..moved };
        let two = moved.id();
        world.nodes.insert(two, moved);
        world.restart(two);
        world.connect(one, two);
        world.frames_sent = 0;
        for _ in 0..20 {
            world.settle();
            world.advance(SECOND);
        }
        for id in [one, two] {
            let chains = world.nodes[&id].intake.chains();
            assert_eq!(chains.branches().count(), 2, "{shared} shared, {left} against {right}");
            assert_eq!(chains.head(&chain).0, shared as u64);
            assert_eq!(chains.len(), shared + left + right + 2);
        }
        assert_eq!(world.digests().len(), 1, "{shared} shared, {left} against {right}");
        assert!(world.frames_sent < 110, "{} frames", world.frames_sent);
        let before = world.frames_sent;
        world.settle();
        assert_eq!(world.frames_sent, before, "all is said");
    }
}

#[test]
fn an_object_added_later_is_compared_then() {
    let (mut world, ids) = ahead(2, 10);
    let (vector, control) = (world.nodes[&ids[1]].intake.chains().vector(), vec![OpId([1; 32])]);
    world.input(ids[1], Input::ObjectRemoved { object: OBJECT });
    world.connect(ids[0], ids[1]);
    world.settle();
    assert!(!world.is_level());
    world.input(ids[1], Input::ObjectAdded { object: OBJECT, vector, retired: BTreeSet::new(), control });
    world.settle();
    assert!(world.is_level());
}

#[test]
fn an_object_not_allowed_is_not_told_and_not_served() {
    let (mut world, ids) = ahead(2, 10);
    world.connect(ids[0], ids[1]);
    world.input(ids[0], Input::Allowed { peer: ids[1], objects: Audience::new() });
    world.settle();
    assert!(world.nodes[&ids[1]].log.is_empty());
    assert!(world.nodes[&ids[0]].sync.counters().not_allowed > 0);
    world.input(ids[0], Input::Allowed { peer: ids[1], objects: Audience::from([(OBJECT, Scope::Whole)]) });
    world.settle();
    world.advance(SECOND);
    world.settle();
    assert!(world.is_level());
}

#[test]
fn a_quiet_stream_stays_open_and_a_dead_one_is_closed() {
    let (mut world, ids) = ahead(2, 1);
    world.connect(ids[0], ids[1]);
    for _ in 0..300 {
        world.settle();
        world.advance(SECOND);
    }
    assert_eq!(world.streams.len(), 2);
    world.advance(limits::SILENCE);
    assert_eq!(world.streams.len(), 0);
}
