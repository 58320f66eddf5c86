mod retire;

use std::collections::BTreeSet;

use proptest::prelude::*;
use serde_bytes::ByteArray;

use super::*;
use crate::{
    id::{EpochId, Incarnation},
    limits,
    object::Header,
};

const OBJECT: ObjectId = ObjectId([1; 32]);

fn device(n: u8) -> DeviceId {
    DeviceId([n; 32])
}

fn chain(n: u8) -> ChainId {
    ChainId::of(&device(n), &OBJECT, &Incarnation([0; 8]))
}

fn header(seq: u64, prev: RecordId, mut deps: Vec<Dep>, height: u64) -> Header {
    deps.sort();
    Header {
        object: OBJECT,
        kind: 1,
        incarnation: Incarnation([0; 8]),
        seq,
        prev,
        control: vec![OpId([1; 32])],
        object_grant: OpId([1; 32]),
        device_grant: OpId([1; 32]),
        epoch: EpochId([0; 16]),
        deps,
        height,
        more: false,
        body_hash: ByteArray::new([0; 32]),
        body_len: 45,
    }
}

fn named(record: &Verified) -> Dep {
    Dep { chain: record.chain(), seq: record.header().seq, id: record.id() }
}

/// What a record names.
fn below(header: &Header) -> impl Iterator<Item = RecordId> + '_ {
    header.deps.iter().map(|dep| dep.id).chain([header.prev])
}

/// The next record of device `n` in `chains`, building on everything there.
fn next(chains: &Chains, n: u8) -> Verified {
    let deps = chains.deps_for_next(&chain(n), |_| u64::MAX);
    assert!(deps.joins.is_empty());
    on(chains, n, deps.deps)
}

fn on(chains: &Chains, n: u8, deps: Vec<Dep>) -> Verified {
    let (seq, prev) = chains.head(&chain(n));
    let height = chains.next_height(&prev, &deps);
    Verified::unsigned(device(n), header(seq + 1, prev, deps, height))
}

#[test]
fn each_error_has_its_case() {
    let mut chains = Chains::new(OBJECT);
    let a1 = on(&chains, 1, vec![]);
    assert_eq!(chains.accept(&a1), Ok(Fit::Line));
    assert_eq!(chains.accept(&a1), Err(ChainError::Duplicate));
    let twin = Verified::unsigned(device(1), Header { more: true, ..a1.header().clone() });
    let on_twin = Verified::unsigned(device(1), header(2, twin.id(), vec![], 2));
    assert_eq!(chains.accept(&on_twin), Err(ChainError::Sidestep { chain: chain(1), seq: 2 }));
    let third = Verified::unsigned(device(1), header(3, a1.id(), vec![], 2));
    assert!(third.header().check().is_err(), "its height is below its place");
    let third = Verified::unsigned(device(1), Header { height: 3, ..third.header().clone() });
    assert_eq!(chains.accept(&third), Err(ChainError::BadPrev { chain: chain(1), seq: 3, named: a1.id() }));
    let of_another = Verified::unsigned(device(2), header(2, a1.id(), vec![], 2));
    assert_eq!(chains.accept(&of_another), Err(ChainError::BadPrev { chain: chain(2), seq: 2, named: a1.id() }));
    let a3 = Verified::unsigned(device(1), header(3, RecordId([9; 32]), vec![], 3));
    assert_eq!(chains.accept(&a3), Err(ChainError::Gap { have: 1, want: 3 }));
    let unknown = RecordId([9; 32]);
    let b1 = Verified::unsigned(
        device(2),
        header(1, RecordId::NONE, vec![Dep { chain: chain(7), seq: 1, id: unknown }, named(&a1)], 2),
    );
    assert_eq!(chains.accept(&b1), Err(ChainError::MissingDeps(vec![unknown])));
    let b1 = Verified::unsigned(device(2), header(1, RecordId::NONE, vec![named(&a1)], 3));
    assert_eq!(chains.accept(&b1), Err(ChainError::BadHeight { stated: 3, below: 1 }));
    let other = Header { object: ObjectId([2; 32]), ..a1.header().clone() };
    assert_eq!(chains.accept(&Verified::unsigned(device(1), other)), Err(ChainError::OtherObject));
    assert_eq!(chains.vector().0, BTreeMap::from([(chain(1), (1, a1.id()))]));
}

#[test]
fn contexts_are_shared_while_nothing_new_is_named() {
    let mut chains = Chains::new(OBJECT);
    let b1 = next(&chains, 2);
    chains.accept(&b1).expect("in order");
    for _ in 0..10 {
        let record = next(&chains, 1);
        chains.accept(&record).expect("in order");
    }
    let contexts: Vec<_> = chains.records.iter().filter(|e| e.chain == 1).map(|e| Arc::as_ptr(&e.context)).collect();
    assert_eq!(contexts.len(), 10);
    assert!(contexts.iter().all(|context| std::ptr::eq(*context, contexts[0])));
    assert!(chains.context_at(&chain(1), 10).is_some_and(|c| c.contains(&chain(2), 1) && c.contains(&chain(1), 9)));
    assert!(chains.context_at(&chain(1), 10).is_some_and(|c| !c.contains(&chain(1), 10) && !c.contains(&chain(1), 0)));
    assert_eq!(chains.frontiers.len(), 1);
    assert_eq!(chains.frontier(&b1.id()), Some([OpId([1; 32])].as_slice()));
}

#[test]
fn a_wide_frontier_is_joined_first() {
    let mut chains = Chains::new(OBJECT);
    for n in 1..=40 {
        let record = on(&chains, n, vec![]);
        chains.accept(&record).expect("no dependencies");
    }
    let next = chains.deps_for_next(&chain(1), |_| u64::MAX);
    assert_eq!(next.joins.iter().map(Vec::len).collect::<Vec<_>>(), [16, 16]);
    assert_eq!(next.deps.len(), 7);
    for join in next.joins {
        let record = on(&chains, 1, join);
        chains.accept(&record).expect("a join");
    }
    assert_eq!(chains.deps_for_next(&chain(1), |_| u64::MAX), NextDeps { joins: vec![], deps: next.deps.clone() });
    let record = on(&chains, 1, next.deps);
    chains.accept(&record).expect("the record itself");
    assert_eq!(chains.deps_for_next(&chain(1), |_| u64::MAX), NextDeps::default());
    assert_eq!(chains.tips().collect::<Vec<_>>(), [record.id()]);
}

#[test]
fn exactly_sixteen_heads_need_no_join() {
    let mut chains = Chains::new(OBJECT);
    for n in 1..=limits::RECORD_DEPS as u8 {
        let record = on(&chains, n, vec![]);
        chains.accept(&record).expect("no dependencies");
    }
    let next = chains.deps_for_next(&chain(99), |_| u64::MAX);
    assert_eq!((next.joins.len(), next.deps.len()), (0, 16));
}

#[test]
fn void_records_are_not_built_on_but_what_they_hide_is() {
    let mut chains = Chains::new(OBJECT);
    let b1 = on(&chains, 2, vec![]);
    chains.accept(&b1).expect("in order");
    let a1 = on(&chains, 1, vec![]);
    chains.accept(&a1).expect("in order");
    let a2 = on(&chains, 1, vec![named(&b1)]);
    chains.accept(&a2).expect("in order");
    let cut = |c: &ChainId| if *c == chain(1) { 1 } else { u64::MAX };
    let mut expected = vec![named(&a1), named(&b1)];
    expected.sort();
    assert_eq!(chains.deps_for_next(&chain(3), cut).deps, expected);
    assert_eq!(chains.deps_for_next(&chain(3), |_| u64::MAX).deps, [named(&a2)]);
}

#[test]
fn what_stands_includes_what_it_builds_on() {
    let mut chains = Chains::new(OBJECT);
    for n in [1, 1, 2, 1] {
        let record = next(&chains, n);
        chains.accept(&record).expect("in order");
    }
    let cut = |c: &ChainId| if *c == chain(1) { 0 } else { u64::MAX };
    assert_eq!(chains.standing(cut), BTreeMap::from([(chain(1), 2), (chain(2), 1)]));
    assert_eq!(chains.standing(|_| 0), BTreeMap::from([(chain(1), 0), (chain(2), 0)]));
}

#[test]
fn a_range_on_another_branch_gets_the_record_that_proves_it() {
    let mut chains = Chains::new(OBJECT);
    let ids: Vec<RecordId> = (0..5)
        .map(|_| {
            let record = next(&chains, 1);
            chains.accept(&record).expect("in order");
            record.id()
        })
        .collect();
    let range = |first, last, after: RecordId| Range { chain: chain(1), first, last, after: after.prefix() };
    let sent = |range: Range| chains.ordered(&[range]).collect::<Vec<_>>();
    assert_eq!(sent(range(3, 9, ids[1])), ids[2..]);
    assert_eq!(sent(range(3, 4, ids[1])), ids[2..4]);
    assert_eq!(sent(range(3, 9, RecordId([7; 32]))), [ids[1]]);
    assert_eq!(sent(range(0, u64::MAX, RecordId::NONE)), ids);
    assert!(sent(range(4, 3, ids[2])).is_empty());
    assert!(sent(range(u64::MAX, u64::MAX, ids[2])).is_empty());
    assert!(sent(range(6, 9, ids[4])).is_empty());
}

/// A history in which devices also go on from an older record of their own than their newest.
fn forked(steps: &[(u8, prop::sample::Index, Vec<prop::sample::Index>)]) -> (Chains, Vec<Verified>) {
    let (mut chains, mut records) = (Chains::new(OBJECT), Vec::<Verified>::new());
    for (n, from, picks) in steps {
        let own: Vec<RecordId> = records.iter().filter(|r| r.author() == device(*n)).map(Verified::id).collect();
        let prev = match from.index(own.len() + 3) {
            _ if own.is_empty() => RecordId::NONE,
            0 => RecordId::NONE,
            at => own.get(at).or(own.last()).copied().unwrap_or(RecordId::NONE),
        };
        let seq = 1 + chains.place(&prev).map_or(0, |place| place.1);
        let deps: BTreeSet<RecordId> =
            picks.iter().filter(|_| !records.is_empty()).map(|pick| records[pick.index(records.len())].id()).collect();
        let deps: Vec<RecordId> = deps.into_iter().filter(|dep| *dep != prev).collect();
        let deps = chains.deps(&deps);
        let height = chains.next_height(&prev, &deps);
        let record = Verified::unsigned(
            device(*n),
            Header { body_len: 45 + records.len() as u32, ..header(seq, prev, deps, height) },
        );
        chains.accept(&record).expect("everything it builds on is held");
        records.push(record);
    }
    (chains, records)
}

fn reach_of(records: &[Verified]) -> BTreeMap<RecordId, BTreeSet<RecordId>> {
    let mut reach: BTreeMap<RecordId, BTreeSet<RecordId>> = BTreeMap::new();
    for record in records {
        let below = below(record.header()).filter(|id| *id != RecordId::NONE);
        let all = below.flat_map(|id| reach[&id].iter().copied().chain([id])).collect();
        reach.insert(record.id(), all);
    }
    reach
}

#[test]
fn a_fork_is_told_the_same_way_whichever_side_came_first() {
    let a1 = Verified::unsigned(device(1), header(1, RecordId::NONE, vec![], 1));
    let sides =
        [46, 47].map(|body_len| Verified::unsigned(device(1), Header { body_len, ..header(2, a1.id(), vec![], 2) }));
    let after = Verified::unsigned(device(1), header(3, sides[0].id(), vec![], 3));
    let [mut one, mut other] = [Chains::new(OBJECT), Chains::new(OBJECT)];
    let fits: Vec<Fit> = [&a1, &sides[0], &after, &sides[1]].map(|record| one.accept(record).expect("held")).into();
    assert_eq!(fits, [Fit::Line, Fit::Line, Fit::Line, Fit::Branch]);
    let fits: Vec<Fit> = [&a1, &sides[1], &sides[0], &after].map(|record| other.accept(record).expect("held")).into();
    assert_eq!(fits, [Fit::Line, Fit::Line, Fit::Branch, Fit::Line]);
    assert_eq!(one.vector(), other.vector());
    let [left, right] = [&sides[0], &sides[1]].map(|first| ChainId::of_branch(&first.id()));
    let vector = BTreeMap::from([(chain(1), (1, a1.id())), (left, (3, after.id())), (right, (2, sides[1].id()))]);
    assert_eq!(one.vector().0, vector);
    assert_eq!(one.siblings(&left).collect::<BTreeSet<_>>(), BTreeSet::from([left, right]));
    assert_eq!((one.stem(&left), one.stem(&chain(1))), (Some((chain(1), 1)), None));
    // What is on the way to the end of a branch, and where another one parts from it.
    assert_eq!(one.reaches(&left, &after.id()), Some(3));
    assert_eq!(one.reaches(&left, &sides[1].id()), Some(1));
    assert_eq!(one.reaches(&chain(1), &after.id()), Some(1));
    assert_eq!(one.reaches(&right, &a1.id()), Some(1));
    // Each side is in its log where it was when it came.
    assert_eq!(
        [&sides[0], &after, &sides[1]].map(|r| one.shelf(&r.id()).unwrap()),
        [(chain(1), 2), (chain(1), 3), (right, 2)]
    );
    assert_eq!(
        [&sides[1], &sides[0], &after].map(|r| other.shelf(&r.id()).unwrap()),
        [(chain(1), 2), (left, 2), (left, 3)]
    );
    // Nothing of a branch stands by itself; whoever builds on it lets it stand.
    let cut = |chains: &Chains, of: &ChainId| if chains.is_branch(of) { 0 } else { u64::MAX };
    let standing = one.standing(|of| cut(&one, of));
    assert_eq!((standing[&chain(1)], standing[&left], standing[&right]), (1, 0, 0));
    assert_eq!(one.deps_for_next(&chain(2), |of| standing[of]).deps, [named(&a1)]);
    let b1 = on(&one, 2, vec![named(&sides[0])]);
    one.accept(&b1).expect("held");
    let standing = one.standing(|of| cut(&one, of));
    assert_eq!((standing[&chain(1)], standing[&left], standing[&right]), (1, 2, 0));
}

/// A history: each step, a device writes on top of its own chain and of any records there are.
fn histories() -> impl Strategy<Value = Vec<(u8, Vec<prop::sample::Index>)>> {
    prop::collection::vec((1u8..6, prop::collection::vec(any::<prop::sample::Index>(), 0..4)), 1..40)
}

struct History {
    chains: Chains,
    records: Vec<Verified>,
    /// By brute force: what each record reaches.
    reach: BTreeMap<RecordId, BTreeSet<RecordId>>,
}

fn written(steps: &[(u8, Vec<prop::sample::Index>)]) -> History {
    let mut history = History { chains: Chains::new(OBJECT), records: Vec::new(), reach: BTreeMap::new() };
    for (n, picks) in steps {
        let picked: BTreeSet<RecordId> = match history.records.len() {
            0 => BTreeSet::new(),
            len => picks.iter().map(|pick| history.records[pick.index(len)].id()).collect(),
        };
        let picked: Vec<RecordId> = picked.into_iter().collect();
        let record = on(&history.chains, *n, history.chains.deps(&picked));
        history.chains.accept(&record).expect("written in order");
        let below: Vec<RecordId> = below(record.header()).collect();
        let mut reach = BTreeSet::new();
        for id in below.into_iter().filter(|id| *id != RecordId::NONE) {
            reach.insert(id);
            reach.extend(&history.reach[&id]);
        }
        history.reach.insert(record.id(), reach);
        history.records.push(record);
    }
    history
}

proptest! {
    #[test]
    fn contexts_equal_what_is_reachable(steps in histories()) {
        let History { chains, records, reach } = written(&steps);
        for record in &records {
            let context = chains.context(&record.id()).expect("held");
            for other in &records {
                let inside = context.contains(&other.chain(), other.header().seq);
                prop_assert_eq!(inside, reach[&record.id()].contains(&other.id()));
            }
            let size: u64 = context.entries().map(|(_, seq)| seq).sum();
            prop_assert_eq!(size, reach[&record.id()].len() as u64);
            let below = reach[&record.id()].iter().filter_map(|id| chains.height(id)).max().unwrap_or(0);
            prop_assert_eq!(chains.height(&record.id()), Some(below + 1));
            prop_assert_eq!(chains.place(&record.id()), Some((record.chain(), record.header().seq)));
            prop_assert_eq!(chains.record_at(&record.chain(), record.header().seq), Some(record.id()));
        }
        let built_on: BTreeSet<RecordId> = reach.values().flatten().copied().collect();
        let tips: BTreeSet<RecordId> = chains.tips().collect();
        prop_assert_eq!(tips, records.iter().map(Verified::id).filter(|id| !built_on.contains(id)).collect());
    }

    #[test]
    fn the_next_record_reaches_all_that_stands(
        steps in histories(),
        own in 1u8..7,
        cuts in prop::collection::vec(0u64..9, 6),
    ) {
        let History { chains, records, reach } = written(&steps);
        for cut in [None, Some(cuts)] {
            let standing = chains.standing(|c| {
                let device = (1u8..7).find(|n| chain(*n) == *c && *n != own);
                cut.as_ref().zip(device).map_or(u64::MAX, |(cuts, n)| cuts[n as usize - 1])
            });
            let next = chains.deps_for_next(&chain(own), |c| standing.get(c).copied().unwrap_or(0));
            let mut named: Vec<Dep> = next.joins.concat();
            named.extend(next.deps);
            let named: Vec<RecordId> = named.into_iter().map(|dep| dep.id).collect();
            let mut reached: BTreeSet<RecordId> = named.iter().flat_map(|id| &reach[id]).copied().collect();
            // Nothing is named that another name, or the own chain, reaches already.
            let own_head = chains.head(&chain(own)).1;
            let own_reach = reach.get(&own_head).cloned().unwrap_or_default();
            prop_assert!(named.iter().all(|id| !reached.contains(id) && !own_reach.contains(id)));
            reached.extend(named);
            reached.extend(own_reach);
            reached.insert(own_head);
            let all: BTreeSet<RecordId> = records
                .iter()
                .filter(|r| standing[&r.chain()] >= r.header().seq)
                .map(Verified::id)
                .chain([own_head])
                .collect();
            prop_assert_eq!(reached, all);
        }
    }

    #[test]
    fn any_causal_order_gives_the_same(steps in histories(), seed in any::<u64>()) {
        let History { chains, records, .. } = written(&steps);
        // Deliver in a random order, each time the first of the rest that can be admitted.
        let mut rest = records.clone();
        let mut state = seed | 1;
        let mut copy = Chains::new(OBJECT);
        while !rest.is_empty() {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            let start = (state >> 33) as usize % rest.len();
            let at = (0..rest.len()).map(|i| (start + i) % rest.len()).find(|i| copy.check(&rest[*i]).is_ok());
            let record = rest.remove(at.expect("some record is always admissible"));
            prop_assert_eq!(copy.accept(&record), Ok(Fit::Line));
            prop_assert_eq!(copy.accept(&record), Err(ChainError::Duplicate));
        }
        prop_assert_eq!(copy.vector(), chains.vector());
        prop_assert_eq!(copy.digest(), chains.digest());
    }

    #[test]
    fn sent_in_order_a_difference_is_admitted_as_it_comes(
        steps in histories(),
        keep in prop::collection::vec(0u64..12, 6),
    ) {
        let History { chains, records, .. } = written(&steps);
        let mut behind = Chains::new(OBJECT);
        for record in &records {
            let limit = (1u8..7).find(|n| chain(*n) == record.chain()).map_or(0, |n| keep[n as usize - 1]);
            if record.header().seq <= limit {
                let _ = behind.accept(record);
            }
        }
        let ranges: Vec<Range> = chains
            .vector()
            .0
            .iter()
            .map(|(chain, (last, _))| (*chain, behind.head(chain), *last))
            .map(|(chain, (seq, id), last)| Range { chain, first: seq + 1, last, after: id.prefix() })
            .collect();
        for id in chains.ordered(&ranges) {
            let record = records.iter().find(|r| r.id() == id).expect("held");
            prop_assert_eq!(behind.accept(record), Ok(Fit::Line));
        }
        prop_assert_eq!(behind.digest(), chains.digest());
    }

    #[test]
    fn forked_histories_are_the_same_in_any_order(
        steps in prop::collection::vec((1u8..4, any::<prop::sample::Index>(), prop::collection::vec(any::<prop::sample::Index>(), 0..3)), 1..30),
        seed in any::<u64>(),
    ) {
        let (chains, records) = forked(&steps);
        let reach = reach_of(&records);
        let mut rest = records.clone();
        let mut state = seed | 1;
        let mut copy = Chains::new(OBJECT);
        let mut shelves = BTreeSet::new();
        while !rest.is_empty() {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            let start = (state >> 33) as usize % rest.len();
            let at = (0..rest.len()).map(|i| (start + i) % rest.len()).find(|i| copy.check(&rest[*i]).is_ok());
            let record = rest.remove(at.expect("some record is always admissible"));
            copy.accept(&record).expect("checked");
            let shelf = copy.shelf(&record.id()).expect("held");
            prop_assert!(shelves.insert((record.id(), shelf)));
        }
        prop_assert_eq!(copy.vector(), chains.vector());
        for record in &records {
            let context = copy.context(&record.id()).expect("held");
            for other in &records {
                let (of, seq) = copy.place(&other.id()).expect("held");
                let inside = reach[&record.id()].contains(&other.id());
                prop_assert_eq!(context.contains(&of, seq), inside);
                prop_assert_eq!(context.contains_key(&other.id().key()), inside);
                prop_assert_eq!(copy.record_at(&of, seq), Some(other.id()));
            }
        }
        // The log's place of a record never changes, and no two share one.
        let places: BTreeSet<_> = shelves.iter().map(|(_, shelf)| *shelf).collect();
        prop_assert_eq!(places.len(), records.len());
        prop_assert!(shelves.iter().all(|(id, shelf)| copy.shelf(id) == Some(*shelf)));
    }
}
