//! The order in which statements come changes nothing.

use super::{
    histories::{Dice, History, Outcome, copied, from_scratch, outcome, shuffled},
    *,
};
use proptest::prelude::*;

/// All orders of the numbers below `count`.
fn orders(count: usize) -> Vec<Vec<usize>> {
    let Some(last) = count.checked_sub(1) else { return vec![Vec::new()] };
    let shorter = orders(last);
    let insert_at = |place: usize| {
        shorter.iter().map(move |order| {
            let mut order = order.clone();
            order.insert(place, last);
            order
        })
    };
    (0..count).flat_map(insert_at).collect()
}

/// Delivers in an order, each statement once; returns how many had to wait.
fn delivered(control: &mut Control, statements: &[Signed], order: &[usize]) -> usize {
    let mut waits =
        |index: usize| matches!(control.insert_operation(statements[index].clone()), Ok(Inserted::Waiting(_)));
    order.iter().filter(|index| waits(**index)).count()
}

#[test]
fn every_order_of_a_few_operations_gives_the_same() {
    assert_eq!(orders(6).len(), 720);
    let (mut different, mut waited): (BTreeSet<usize>, usize) = Default::default();
    for seed in 0..40 {
        let mut dice = Dice::new(seed);
        let mut history = History::new();
        let base = copied(&history.control);
        let known = history.statements.len();
        while history.statements.len() < known + 6 {
            let _ = history.step(&mut dice);
        }
        let expected: Outcome = outcome(&history.control);
        for order in orders(6) {
            let mut control = copied(&base);
            waited += delivered(&mut control, &history.statements[known..], &order);
            assert_eq!(control.waiting(), 0);
            assert_eq!(outcome(&control), expected, "seed {seed}, order {order:?}");
        }
        different.insert(expected.values().map(|(standing, ..)| standing.len()).sum());
    }
    assert!(different.len() > 3, "the histories differ in what stands");
    assert!(waited > 1_000, "few operations had to wait: {waited}");
}

#[test]
fn long_histories_come_in_any_order() {
    for seed in 0..6 {
        let mut dice = Dice::new(seed);
        let mut history = History::new();
        let known = history.statements.len();
        while history.statements.len() < known + 200 {
            let _ = history.step(&mut dice);
        }
        let expected = outcome(&history.control);
        for _ in 0..3 {
            assert_eq!(outcome(&shuffled(&history.statements, &mut dice)), expected, "seed {seed}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 192, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn evaluation_is_a_function_of_the_set(seed: u64, steps in 1..40_usize) {
        let mut dice = Dice::new(seed);
        let mut history = History::new();
        for _ in 0..steps {
            if history.step(&mut dice).is_some() && dice.below(3) == 0 {
                let _ = outcome(&history.control);
            }
        }
        let expected = outcome(&history.control);
        prop_assert_eq!(&outcome(&from_scratch(&history.statements)), &expected);
        for _ in 0..3 {
            prop_assert_eq!(&outcome(&shuffled(&history.statements, &mut dice)), &expected);
        }
    }
}
