//! Records are judged by the pair of grants that they name, not by what their author may do today.

use std::cell::Cell;

use super::{
    histories::{Dice, History, cases, copied, shuffled},
    *,
};

/// By (object grant, device grant): of each device's chain of three records those that are admitted; `None` where the
/// claim is refused.
type Admitted = BTreeMap<(OpId, OpId), Option<Vec<bool>>>;

pub fn record(number: u8, by: DeviceId) -> RecordId {
    RecordId(*blake3::hash(&[&[number], by.0.as_slice()].concat()).as_bytes())
}

fn grants(log: &ControlLog) -> impl Iterator<Item = (OpId, Holder)> {
    log.entries().iter().filter_map(|entry| match entry.op.act {
        Act::Grant { to, .. } => Some((entry.id, to)),
        _ => None,
    })
}

/// The verdict on every claim that names a pair of grants held.
fn judged(history: &History, control: &Control) -> Admitted {
    let log = control.log(history.object).unwrap();
    let object_grants: Vec<OpId> = grants(log).map(|(id, _)| id).chain([log.apex()]).collect();
    let devices = history.meshes.iter().flat_map(|mesh| grants(control.log(*mesh).unwrap()));
    let mut admitted = Admitted::new();
    for (device_grant, device) in devices {
        for object_grant in &object_grants {
            let (object_grant, device) = (*object_grant, device.into());
            let claim = Claim { object: history.object, device, object_grant, device_grant, control: &[] };
            let of_chain = |judgement: Judgement| {
                let chain: Vec<RecordId> = (0..3).map(|number| record(number, device)).collect();
                let admits = |at: usize| judgement.admits(|head| chain[at..].contains(&head));
                (0..3).map(admits).collect()
            };
            admitted.insert((object_grant, device_grant), control.judge(&claim).ok().map(of_chain));
        }
    }
    admitted
}

/// A random history in which revocations name records of their target, too.
fn random(dice: &mut Dice, steps: usize) -> History {
    let mut history = History::new();
    history.names_records = true;
    for _ in 0..steps {
        let _ = history.step(dice);
    }
    history
}

fn count(admitted: &Admitted, wanted: impl Fn(&[bool]) -> bool) -> usize {
    admitted.values().flatten().filter(|chain| wanted(chain)).count()
}

#[test]
fn records_are_judged_alike_whatever_came_first() {
    let (mut whole, mut partly, mut none, mut refused) = (0, 0, 0, 0);
    for seed in cases(60) {
        let mut dice = Dice::new(seed);
        let history = random(&mut dice, 40);
        let expected = judged(&history, &history.control);
        for _ in 0..2 {
            let control = shuffled(&history.statements, &mut dice);
            assert_eq!(judged(&history, &control), expected, "seed {seed}");
        }
        whole += count(&expected, |chain| chain == [true; 3]);
        none += count(&expected, |chain| chain == [false; 3]);
        partly += count(&expected, |chain| chain[0] && !chain[2]);
        refused += expected.values().filter(|admitted| admitted.is_none()).count();
    }
    println!("admitted: whole {whole}, in part {partly}, not at all {none}; refused {refused}");
    assert!(whole > 0 && partly > 0 && none > 0 && refused > 0);
}

/// Whether a record is admitted that was not.
fn lifted(was: &Admitted, is: &Admitted) -> bool {
    was.iter().any(|(pair, chain)| {
        let both = chain.iter().flatten().zip(is[pair].iter().flatten());
        both.into_iter().any(|(was, is)| !was && *is)
    })
}

#[test]
fn a_grant_changes_nothing_about_records_under_other_grants() {
    let (grants, readmissions, cuts, lifts) = <(Cell<u64>, Cell<u64>, Cell<u64>, Cell<u64>)>::default();
    let add = |count: &Cell<u64>| count.set(count.get() + 1);
    for seed in cases(60) {
        let mut dice = Dice::new(seed);
        let mut history = random(&mut dice, 8);
        let mut was = judged(&history, &history.control);
        for _ in 0..30 {
            let before = copied(&history.control);
            let Some(added) = history.step(&mut dice) else { continue };
            let is = judged(&history, &history.control);
            let log = history.control.log(history.control.home(added).unwrap()).unwrap();
            match &log.get(added).unwrap().op.act {
                Act::Grant { seen, .. } => {
                    add(&grants);
                    if !seen.is_empty() && history.control.live(log.id()) != before.live(log.id()) {
                        add(&readmissions);
                    }
                    let unchanged = was.iter().all(|(pair, chain)| is[pair] == *chain);
                    assert!(unchanged, "seed {seed}: a grant changed what is thought of records under others");
                }
                Act::Revoke { .. } | Act::Leave {} | Act::Rotate { .. } if lifted(&was, &is) => add(&lifts),
                Act::Revoke { .. } => add(&cuts),
                _ => assert!(!lifted(&was, &is), "seed {seed}: a note lifted a quarantine"),
            }
            was = is;
        }
    }
    let counts = [grants, readmissions, cuts, lifts].map(Cell::into_inner);
    println!("grants {}, of them re-admissions {}, cuts {}, repairs {}", counts[0], counts[1], counts[2], counts[3]);
    assert!(counts.iter().all(|count| *count > 0));
}

/// The control of the judge above: were records judged by what their author may do today, it would find it.
#[test]
fn a_judgement_by_todays_role_would_lift_quarantines() {
    let lifts = |seed| {
        let mut dice = Dice::new(seed);
        let history = random(&mut dice, 40);
        let strict = judged(&history, &history.control);
        let is_grant = |entry: &Entry| matches!(entry.op.act, Act::Grant { .. });
        let today = |pair: &(OpId, OpId)| {
            let mesh = history.control.log(history.control.home(pair.1).unwrap()).unwrap();
            let device = mesh.get(pair.1).filter(|entry| is_grant(entry)).unwrap();
            let Act::Grant { to, .. } = device.op.act else { return false };
            history.control.role(history.object, to.into()).is_some_and(|role| role >= Role::Edit)
        };
        strict.iter().any(|(pair, chain)| chain.as_ref().is_some_and(|chain| !chain[2]) && today(pair))
    };
    assert!((0..200).any(lifts));
}

#[test]
fn readmission_does_not_admit_what_was_written_past_the_cut() {
    let Shared { mut control, bob, object, admin, bobs_admin, bobs_device, .. } = shared();
    let invited = control.push_as(Signer::Device(1), object, None, None, admin, grant(person(bob), Role::Edit, &[]));
    let bobs = device(12).device_id();
    let [old, new] = [record(0, bobs), record(1, bobs)];
    let removal = control.revocation(&mut rng(1), bobs, &[(object, vec![old])].into());
    let removed = control.push(Signer::Device(11), bob, Some(bobs_device), Some(bobs_admin), removal);
    let back = grant(holder(12), Role::Edit, &[removed]);
    let again = control.push(Signer::Device(11), bob, Some(removed), Some(bobs_admin), back);
    assert_eq!(control.grants(object, bobs), Some((invited, again)), "it is in again");
    let judge = |device_grant| {
        let claim = Claim { object, device: bobs, object_grant: invited, device_grant, control: &[] };
        control.judge(&claim).unwrap()
    };
    assert!(judge(bobs_device).admits(|head| head == old));
    assert!(!judge(bobs_device).admits(|head| head == new), "written past the cut");
    assert!(judge(again).admits(|head| head == new), "written under the new grant");
}
