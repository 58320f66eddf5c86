use super::*;
use crate::object::RecordKind;

fn next_chain(n: u8) -> ChainId {
    ChainId::of(&device(n), &OBJECT, &Incarnation([0; 8]).next())
}

fn in_next(chains: &Chains, n: u8, kind: RecordKind, more: bool) -> Verified {
    let deps: Vec<RecordId> = chains.heads().filter(|(chain, ..)| *chain != next_chain(n)).map(|head| head.3).collect();
    let deps = chains.deps(&deps);
    let (seq, prev) = chains.head(&next_chain(n));
    let height = chains.next_height(&prev, &deps);
    let header = Header {
        kind: kind.code(),
        more,
        incarnation: Incarnation([0; 8]).next(),
        ..header(seq + 1, prev, deps, height)
    };
    Verified::unsigned(device(n), header)
}

/// A checkpoint of device `n` in `length` records that build on everything there.
fn checkpoint(chains: &mut Chains, n: u8, length: u64) -> Vec<Verified> {
    let mut records = Vec::new();
    for number in 0..length {
        let kind = if number == 0 { RecordKind::Checkpoint } else { RecordKind::Listing };
        let record = in_next(chains, n, kind, number + 1 < length);
        chains.accept(&record).expect("in order");
        records.push(record);
    }
    records
}

fn write(chains: &mut Chains, n: u8) -> Verified {
    let record = next(chains, n);
    chains.accept(&record).expect("in order");
    record
}

#[test]
fn a_checkpoint_takes_the_place_of_a_chain() {
    let mut chains = Chains::new(OBJECT);
    let (a1, b1, a2) = (write(&mut chains, 1), write(&mut chains, 2), write(&mut chains, 1));
    let run = checkpoint(&mut chains, 1, 2);
    let b2 = write(&mut chains, 2);
    chains.retire(&BTreeSet::from([chain(1)]), &next_chain(1), 2);
    assert_eq!((chains.len(), chains.sealed(&next_chain(1))), (4, 2));
    assert_eq!(chains.retired().collect::<Vec<_>>(), [(chain(1), next_chain(1))]);
    let vector = BTreeMap::from([(next_chain(1), (2, run[1].id())), (chain(2), (2, b2.id()))]);
    assert_eq!(chains.vector().0, vector);
    assert!(!chains.contains(&a1.id()) && chains.contains(&run[0].id()));
    assert_eq!(chains.check(&a2), Err(ChainError::Retired { chain: chain(1), seq: 2 }));
    let a2_key = a2.id().key();
    assert_eq!(chains.place_of(&a2_key), Some((chain(1), 2)), "something of it may still live");
    assert!(chains.context(&b2.id()).is_some_and(|context| context.contains_key(&a2_key)));
    assert!(chains.context(&b1.id()).is_some_and(|context| !context.contains_key(&a2_key)));
    chains.forget_listed(&BTreeSet::from([chain(1)]), |_| false);
    assert_eq!(chains.place_of(&a2_key), None);
    assert_eq!(chains.ordered(&[Range { chain: chain(1), first: 1, last: 9, after: Default::default() }]).count(), 0);

    // Late, and of before the checkpoint: what it builds on was let go of.
    let late = Verified::unsigned(device(3), header(1, RecordId::NONE, vec![named(&a2)], a2.header().height + 1));
    assert_eq!(chains.accept(&late), Ok(Fit::Line));
    let far = Verified::unsigned(device(4), header(1, RecordId::NONE, vec![named(&a2)], u64::MAX));
    assert_eq!(chains.accept(&far), Err(ChainError::BadHeight { stated: u64::MAX, below: 0 }));
    let lying = Dep { seq: 9, ..named(&run[1]) };
    let lying = Verified::unsigned(device(4), header(1, RecordId::NONE, vec![lying], 2));
    assert_eq!(chains.accept(&lying), Err(ChainError::BadDep(run[1].id())));
}

#[test]
fn who_has_not_what_came_before_begins_with_the_checkpoint() {
    let mut whole = Chains::new(OBJECT);
    let (b1, a1) = (write(&mut whole, 2), write(&mut whole, 1));
    let a2 = write(&mut whole, 1);
    let run = checkpoint(&mut whole, 1, 3);
    let b2 = write(&mut whole, 2);
    whole.retire(&BTreeSet::from([chain(1)]), &next_chain(1), 3);
    // One who knows nothing of the chain, and one who knows its beginning.
    for known in [vec![], vec![&a1]] {
        let mut chains = Chains::new(OBJECT);
        for record in [&b1].into_iter().chain(known) {
            chains.accept(record).expect("in order");
        }
        assert_eq!(chains.accept(&run[0]), Err(ChainError::MissingDeps(vec![a2.id()])));
        // Others may say of it what it does not say itself.
        chains.promise(chain(2), device(1), next_chain(1), false);
        chains.promise(chain(1), device(1), next_chain(1), false);
        assert_eq!(chains.check(&run[0]), Err(ChainError::MissingDeps(vec![a2.id()])));
        chains.confirm(&run[0], Some(&BTreeSet::from([chain(1)])));
        assert_eq!((chains.is_doubtful(&next_chain(1)), chains.let_go_count()), (false, 1));
        assert!(!chains.is_retired(&chain(1)));
        assert_eq!(chains.accept(&run[0]), Ok(Fit::Line));
        for record in &run[1..] {
            assert_eq!(chains.accept(record), Ok(Fit::Line));
        }
        assert_eq!(chains.accept(&b2), Ok(Fit::Line));
        assert_eq!((chains.vector(), chains.sealed(&next_chain(1))), (whole.vector(), 3));
        assert_eq!(chains.check(&a2), Err(ChainError::Retired { chain: chain(1), seq: 2 }));
    }
    // Who has it whole keeps it, until all have built on the checkpoint.
    let mut chains = Chains::new(OBJECT);
    chains.promise(chain(1), device(1), next_chain(1), true);
    for record in [&b1, &a1, &a2, &run[0]] {
        assert_eq!(chains.accept(record), Ok(Fit::Line));
    }
    assert_eq!((chains.len(), chains.is_retired(&chain(1))), (4, false));
}

#[test]
fn what_a_chain_built_on_goes_with_it() {
    let mut whole = Chains::new(OBJECT);
    let a1 = write(&mut whole, 1);
    let run = checkpoint(&mut whole, 1, 1);
    // What the checkpoint does not know of builds on what nobody else does.
    let below = on(&whole, 3, vec![]);
    whole.accept(&below).expect("in order");
    let stray = on(&whole, 1, vec![named(&below)]);
    whole.accept(&stray).expect("in order");
    let above = on(&whole, 4, vec![named(&run[0]), named(&stray)]);
    whole.accept(&above).expect("in order");
    let further = on(&whole, 4, vec![]);
    whole.accept(&further).expect("in order");
    let has = |chains: &Chains, of: u8| {
        [&above, &further].map(|it| chains.context(&it.id()).is_some_and(|context| context.contains(&chain(of), 1)))
    };
    assert_eq!(has(&whole, 3), [true, true]);
    let mut fresh = Chains::new(OBJECT);
    fresh.promise(chain(1), device(1), next_chain(1), true);
    for record in [&a1, &run[0], &below] {
        assert_eq!(fresh.accept(record), Ok(Fit::Line));
    }
    fresh.promise(chain(1), device(1), next_chain(1), true);
    for record in [&above, &further] {
        assert_eq!(fresh.accept(record), Ok(Fit::Line));
    }
    for mut chains in [whole, fresh] {
        chains.retire(&BTreeSet::from([chain(1)]), &next_chain(1), 1);
        assert_eq!(has(&chains, 3), [false, false]);
        let context = chains.context(&further.id()).expect("held");
        assert_eq!(context.entries().collect::<Vec<_>>().len(), 2, "the checkpoint, and the one before it");
    }
}

#[test]
fn a_fork_ends_with_the_chain() {
    let mut chains = Chains::new(OBJECT);
    let a1 = write(&mut chains, 1);
    let twin = Verified::unsigned(device(1), Header { body_len: 99, ..a1.header().clone() });
    assert_eq!(chains.accept(&twin), Ok(Fit::Branch));
    let b1 = on(&chains, 2, vec![named(&a1)]);
    chains.accept(&b1).expect("in order");
    checkpoint(&mut chains, 1, 1);
    let mut other = chains.clone();
    chains.retire(&BTreeSet::from([chain(1)]), &next_chain(1), 1);
    assert_eq!((chains.branches().count(), chains.roots(device(1)).count()), (0, 1));
    assert_eq!(chains.check(&twin), Err(ChainError::Retired { chain: chain(1), seq: 1 }));
    // One who learns of it later still is the same.
    other.accept(&on(&other, 3, vec![])).expect("in order");
    chains.accept(&on(&chains, 3, vec![])).expect("in order");
    other.retire(&BTreeSet::from([chain(1)]), &next_chain(1), 1);
    assert_eq!(chains.vector(), other.vector());
}

proptest! {
    /// A replica that let go of something, and one that never had it, admit the same as one that has all.
    #[test]
    fn what_is_let_go_of_is_not_missed(steps in histories(), at in any::<prop::sample::Index>(), author in 1u8..6) {
        let mut whole = Chains::new(OBJECT);
        let at = at.index(steps.len() + 1);
        let early: Vec<Verified> = steps[..at].iter().map(|(n, _)| write(&mut whole, *n)).collect();
        let mut late = checkpoint(&mut whole, author, 2);
        for (n, _) in steps[at..].iter().filter(|(n, _)| *n != author) {
            late.push(write(&mut whole, *n));
        }
        let mut settled = whole.clone();
        settled.retire(&BTreeSet::from([chain(author)]), &next_chain(author), 2);
        let mut fresh = Chains::new(OBJECT);
        fresh.promise(chain(author), device(author), next_chain(author), true);
        let mut waiting: Vec<&Verified> = early.iter().chain(&late).filter(|it| it.chain() != chain(author)).collect();
        let mut rounds = waiting.len() + 1;
        while !waiting.is_empty() && rounds > 0 {
            rounds -= 1;
            waiting.retain(|record| fresh.accept(record).is_err());
        }
        prop_assert!(waiting.is_empty());
        let tips = |chains: &Chains| -> BTreeSet<RecordId> { chains.tips().collect() };
        prop_assert_eq!(settled.vector(), fresh.vector());
        prop_assert_eq!(tips(&settled), tips(&fresh));
        prop_assert_eq!(tips(&settled), tips(&whole));
        let mut vector = whole.vector();
        vector.0.remove(&chain(author));
        prop_assert_eq!(settled.vector(), vector);
        for record in late.iter().filter(|record| record.chain() != next_chain(author)) {
            let context = |chains: &Chains| -> BTreeMap<ChainId, u64> {
                let entries = chains.context(&record.id()).map(|context| context.entries().collect::<BTreeMap<_, _>>());
                entries.unwrap_or_default().into_iter().filter(|(of, _)| *of != chain(author)).collect()
            };
            prop_assert_eq!(context(&settled), context(&whole));
            prop_assert_eq!(context(&fresh), context(&whole));
        }
    }
}
