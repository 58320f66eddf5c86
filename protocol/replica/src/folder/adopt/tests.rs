//! Where things are put: over what their author had seen, else beside what is there.

use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::{
    feed::Key,
    folder::fixtures::{PRINT, SUB, disk, dot, file, operation, path, seq},
};

/// What becomes of these operations one after another, and the steps.
fn put(base: &DiskBase, tail: &[(Arc<Operation>, &[u64])], have: &[u8]) -> (Vec<Verdict>, Vec<Step>) {
    let mut meant = base.map().clone();
    for (operation, seen) in tail {
        let operation = Operation { base: seen.iter().map(|seq| dot(*seq)).collect(), ..Operation::clone(operation) };
        meant.apply(&[Arc::new(operation)]);
    }
    let have: BTreeSet<ContentId> = have.iter().map(|content| ContentId([*content; 32])).collect();
    let mut putting = Putting::new(base, &meant, &have);
    let verdicts = tail
        .iter()
        .map(|(operation, seen)| putting.operation(operation, &seen.iter().map(|seq| dot(*seq)).collect()))
        .collect();
    let Batch { steps, kept, .. } = putting.finish();
    assert_eq!(steps.len(), kept.len());
    (verdicts, steps)
}

fn conflict(content: u8) -> String {
    format!("note (conflict {content:02x}{content:02x}{content:02x}{content:02x}).md")
}

#[test]
fn a_free_name_is_taken_and_a_content_that_is_there_is_not_put_again() {
    let base = disk(&[operation(1, DirId::ROOT, "other", file(2))]);
    let (verdicts, steps) = put(&base, &[(operation(5, DirId::ROOT, "note.md", file(1)), &[])], &[1]);
    assert_eq!(verdicts, [Verdict::Put(path("note.md"))]);
    assert!(matches!(&steps[..], [Step::PutFile { expect: Expect::Absent, copy_from: None, .. }]), "{steps:?}");
    let (verdicts, steps) = put(&base, &[(operation(5, DirId::ROOT, "other", file(2)), &[])], &[]);
    assert_eq!((verdicts, steps.len()), (vec![Verdict::Here], 0));
    // Bytes that another file of the folder has need not come from anywhere.
    let (_, steps) = put(&base, &[(operation(5, DirId::ROOT, "copy", file(2)), &[])], &[]);
    assert!(matches!(&steps[..], [Step::PutFile { copy_from: Some((from, PRINT)), .. }] if *from == path("other")));
}

#[test]
fn what_its_author_had_seen_is_replaced_and_nothing_else_is() {
    let base = disk(&[operation(1, DirId::ROOT, "note.md", file(2))]);
    let edited = operation(5, DirId::ROOT, "note.md", file(1));
    let (verdicts, steps) = put(&base, &[(edited.clone(), &[1])], &[1]);
    assert_eq!(verdicts, [Verdict::Put(path("note.md"))]);
    assert!(matches!(&steps[..], [Step::PutFile { expect: Expect::File(PRINT), .. }]), "{steps:?}");
    let (verdicts, steps) = put(&base, &[(edited, &[])], &[1]);
    assert_eq!(verdicts, [Verdict::Put(path(&conflict(1)))], "beside what is current");
    assert!(matches!(&steps[..], [Step::PutFile { expect: Expect::Absent, .. }]), "{steps:?}");
}

#[test]
fn two_that_want_one_name_are_both_put() {
    let tail = [
        (operation(5, DirId::ROOT, "note.md", file(1)), &[][..]),
        (operation(6, DirId::ROOT, "note.md", file(3)), &[][..]),
        (operation(7, DirId::ROOT, "note.md", file(3)), &[][..]),
    ];
    let (verdicts, steps) = put(&disk(&[]), &tail, &[1, 3]);
    let beside = Verdict::Put(path(&conflict(3)));
    assert_eq!(verdicts, [Verdict::Put(path("note.md")), beside, Verdict::Here]);
    assert_eq!(steps.len(), 2);
}

#[test]
fn directories_are_found_again_or_made() {
    let base = disk(&[operation(1, DirId::ROOT, "renamed", Value::Dir(vec![SUB]))]);
    let inside = operation(5, SUB, "note.md", file(1));
    let (verdicts, _) = put(&base, &[(inside.clone(), &[])], &[1]);
    assert_eq!(verdicts, [Verdict::Put(path("renamed/note.md"))], "where the directory is now");

    let made = operation(4, DirId::ROOT, "sub", Value::Dir(vec![SUB]));
    let (verdicts, steps) = put(&disk(&[]), &[(made.clone(), &[]), (inside.clone(), &[])], &[1]);
    assert_eq!(verdicts, [Verdict::Put(path("sub")), Verdict::Put(path("sub/note.md"))]);
    assert!(matches!(&steps[..], [Step::MakeDir { .. }, Step::PutFile { .. }]), "{steps:?}");

    let base = disk(&[operation(1, DirId::ROOT, "sub", file(2))]);
    let (verdicts, _) = put(&base, &[(made, &[]), (inside, &[])], &[1]);
    let beside = "sub (conflict 07070707)";
    assert_eq!(verdicts, [Verdict::Put(path(beside)), Verdict::Put(path(&format!("{beside}/note.md")))]);
}

#[test]
fn nothing_is_put_without_its_bytes_nor_into_what_is_the_nodes_own() {
    let (verdicts, steps) = put(&disk(&[]), &[(operation(5, DirId::ROOT, "note.md", file(1)), &[])], &[2]);
    assert_eq!((verdicts, steps.len()), (vec![Verdict::Missing], 0));
    let tail = [
        (operation(4, DirId::ROOT, ".meshwork", Value::Dir(vec![SUB])), &[][..]),
        (operation(5, SUB, "id", file(1)), &[][..]),
        (operation(6, DirId::ROOT, ".meshwork2", file(1)), &[][..]),
        (operation(7, DirId::ROOT, "gone", Value::Tombstone), &[][..]),
    ];
    let (verdicts, steps) = put(&disk(&[]), &tail, &[1]);
    assert_eq!((verdicts, steps.len()), (vec![Verdict::Nothing; 4], 0));
}

/// An operation of a random history: in the root or a directory, at one of few names, over some that came before.
fn drawn() -> impl Strategy<Value = (u8, u8, u8, Vec<bool>)> {
    (0..3u8, 0..3u8, 0..5u8, prop::collection::vec(any::<bool>(), 12))
}

/// Numbered operations, each with which of those before it at its key its author had seen.
fn history(first: u64, drawn: Vec<(u8, u8, u8, Vec<bool>)>) -> Vec<(Arc<Operation>, Vec<bool>)> {
    let names = ["note.md", "sub", "other"];
    let make = |(number, (dir, at, what, seen)): (u64, (u8, u8, u8, Vec<bool>))| {
        let dir = if dir == 2 { SUB } else { DirId::ROOT };
        let value = match (what, dir) {
            (0, DirId::ROOT) => Value::Dir(vec![SUB]),
            (1, _) => Value::Tombstone,
            (content, _) => file(content),
        };
        (operation(number, dir, names[usize::from(at)], value), seen)
    };
    (first..).zip(drawn).map(make).collect()
}

proptest! {
    /// Whatever is put, what the disk showed stays where it is, unless the author had seen it; and no path is put twice.
    #[test]
    fn what_is_current_stays(shown in prop::collection::vec(drawn(), 0..6), tail in prop::collection::vec(drawn(), 0..6)) {
        let shown: BTreeMap<Key, Arc<Operation>> =
            history(1, shown).into_iter().map(|(operation, _)| (operation.key.clone(), operation)).collect();
        let base = disk(&shown.into_values().collect::<Vec<_>>());
        let seen = |key: &Key, chosen: &[bool]| -> Vec<u64> {
            let before = base.map().at(key).iter().map(|operation| seq(&operation.dot));
            before.zip(chosen).filter(|(_, chosen)| **chosen).map(|(seq, _)| seq).collect()
        };
        let tail: Vec<(Arc<Operation>, Vec<u64>)> =
            history(20, tail).into_iter().map(|(op, chosen)| { let seen = seen(&op.key, &chosen); (op, seen) }).collect();
        let lent: Vec<(Arc<Operation>, &[u64])> = tail.iter().map(|(op, seen)| (op.clone(), seen.as_slice())).collect();
        let (verdicts, steps) = put(&base, &lent, &[0, 1, 2, 3, 4]);
        let view = base.map().view();
        let before = view.flatten();
        let mut paths = BTreeSet::new();
        for step in &steps {
            let path = match step {
                Step::MakeDir { path } | Step::PutFile { path, .. } => path,
                other => return Err(TestCaseError::fail(format!("{other:?}"))),
            };
            prop_assert!(paths.insert(path.clone()), "{path:?} is put twice");
            let expected_absent = !matches!(step, Step::PutFile { expect: Expect::File(_), .. });
            prop_assert_eq!(expected_absent, !before.contains_key(path));
            if let Some(old) = before.get(path) {
                prop_assert!(!old.is_dir());
                let replaced = tail.iter().zip(&verdicts).find(|(_, verdict)| **verdict == Verdict::Put(path.clone()));
                let ((_, seen), _) = replaced.expect("it was put for an operation");
                prop_assert!(old.sources().iter().all(|operation| seen.contains(&seq(&operation.dot))));
            }
            // What is above it is there, or made before.
            let above = &path[..path.len() - 1];
            let is_dir = |path: &[Name]| before.get(path).is_some_and(Entry::is_dir) || paths.contains(path);
            prop_assert!(above.is_empty() || is_dir(above), "{path:?} is in nothing");
        }
    }
}
