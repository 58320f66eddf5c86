//! The folder at a disk that is played by hand.

use std::collections::{BTreeMap, BTreeSet};

use meshwork_protocol::{id::DirId, limits, seal::SeedRng};

use super::{
    agree::agreement,
    fixtures::{PRINT, SUB, dot, file, identity, name, operation, path},
    observed::{DirIdentity, Expect, Fingerprint, Listing, Seen, Step},
    scan::{Difference, Found},
    *,
};
use crate::feed::{FileValue, Name, Value};

const START: Timestamp = Timestamp(1_000_000);

/// A directory of a folder and what the node does in it.
struct Scene {
    disk: Disk,
    feed: FeedMap,
    rng: SeedRng,
    now: Timestamp,
    listings: BTreeMap<Path, Listing>,
    contents: BTreeMap<u64, FileValue>,
    signed: u64,
    /// What was to be stored.
    stored: Vec<BaseChange>,
    /// How much of it had to be durable before the disk was changed last.
    durable: usize,
}

impl Scene {
    /// A disk that shows these operations, as the replica has them.
    fn new(shown: &[Arc<Operation>]) -> Self {
        let mut feed = FeedMap::default();
        feed.apply(shown);
        let bind = |dir: DirId| BaseChange::Dir { dir, identity: Some(identity(dir)) };
        let mut stored = vec![bind(DirId::ROOT)];
        for operation in shown {
            let key = &operation.key;
            stored.extend(operation.value.dirs().iter().copied().map(bind));
            stored.push(BaseChange::Key { key: key.clone(), operations: feed.at(key).to_vec() });
        }
        let rng = SeedRng::new([1; 32]);
        let (listings, contents) = (BTreeMap::new(), BTreeMap::new());
        let disk = Disk::new(restored(&stored));
        Scene { disk, feed, rng, now: START, listings, contents, signed: 100, stored, durable: 0 }
    }

    /// The process dies. What is stored is what had to be when the disk was changed last.
    fn crashes(&mut self) {
        self.stored.truncate(self.durable);
        self.disk = Disk::new(restored(&self.stored));
        self.disk.compare_all(&self.feed);
    }

    /// From now on these operations stand of those at a name in the root, and no others.
    fn stand(&mut self, at: &str, operations: &[Arc<Operation>]) {
        let key = Key { dir: DirId::ROOT, name: name(at) };
        self.feed.set_key(key.clone(), operations.to_vec());
        self.disk.compare(&self.feed, [key]);
    }

    /// What a directory holds from now on.
    fn holds(&mut self, at: &[Name], identity: DirIdentity, entries: &[(&str, Seen)]) {
        let entries = entries.iter().map(|(text, seen)| (name(text), seen.clone())).collect();
        self.listings.insert(at.to_vec(), Listing { identity, entries });
    }

    /// What the root holds from now on: names, inodes and contents.
    fn shows(&mut self, files: &[(&str, u64, u8)]) {
        let entries: Vec<_> =
            files.iter().map(|(text, inode, content)| (*text, self.file(*inode, &file(*content)))).collect();
        self.holds(&[], identity(DirId::ROOT), &entries);
    }

    /// A file of this inode with the content of a value.
    fn file(&mut self, inode: u64, value: &Value) -> Seen {
        self.contents.extend(value.file().map(|value| (inode, value.clone())));
        Seen::File(Fingerprint { inode, ..PRINT })
    }

    /// Tells the folder; all but placing is answered as the directory is. Gives what is to be placed and what the
    /// node signed.
    fn tell(&mut self, input: Input) -> (Option<Batch>, Vec<Arc<Operation>>, Vec<Output>) {
        let (mut placed, mut signed, mut rest) = (None, Vec::new(), Vec::new());
        let mut inputs = vec![input];
        while let Some(input) = inputs.pop() {
            for output in self.disk.handle(self.now, &mut self.rng, &self.feed, input) {
                match output {
                    Output::List(paths) => {
                        let list = |at: Path| {
                            let listing = self.listings.get(&at).cloned().ok_or(observed::ListError::Missing);
                            (at, listing)
                        };
                        inputs.push(Input::Listed(paths.into_iter().map(list).collect()));
                    }
                    Output::Hash(files) => {
                        let hash = |file: ToHash| {
                            let value = &self.contents[&file.fingerprint.inode];
                            let crate::feed::FileKind::Regular { manifest } = value.kind.clone() else {
                                panic!("a file")
                            };
                            let (fingerprint, content) = (file.fingerprint, value.content);
                            (file, Hashed::Content { fingerprint, content, manifest })
                        };
                        inputs.push(Input::Hashed(files.into_iter().map(hash).collect()));
                    }
                    Output::Author(new) => {
                        let mut operations = Vec::new();
                        for NewOperation { key, value, base, former } in new {
                            self.signed += 1;
                            let (dot, height) = (dot(self.signed), self.signed);
                            operations.push(Arc::new(Operation {
                                dot,
                                height,
                                key,
                                value,
                                base: base.into(),
                                former: former.into(),
                            }));
                        }
                        self.feed.apply(&operations);
                        signed.extend(operations.iter().cloned());
                        inputs.push(Input::Authored(operations));
                    }
                    Output::Base(changes) => self.stored.extend(changes),
                    Output::Place(batch) => {
                        self.durable = self.stored.len();
                        placed = Some(batch);
                    }
                    other => rest.push(other),
                }
            }
        }
        (placed, signed, rest)
    }

    /// Another device's operation arrives, over what is there of these numbers.
    fn arrives(&mut self, operation: &Arc<Operation>, over: &[u64]) {
        let base = over.iter().map(|seq| dot(*seq)).collect();
        let operation = Arc::new(Operation { base, ..Operation::clone(operation) });
        self.feed.apply(std::slice::from_ref(&operation));
        self.disk.compare(&self.feed, [operation.key.clone()]);
    }

    fn tombstones(signed: &[Arc<Operation>]) -> Vec<&Key> {
        signed.iter().filter(|operation| operation.value.is_tombstone()).map(|operation| &operation.key).collect()
    }
}

fn restored(stored: &[BaseChange]) -> DiskBase {
    let mut base = DiskBase::default();
    stored.iter().for_each(|change| base.restore(change.clone()));
    base
}

fn look(at: &[&str]) -> Input {
    Input::Dirty(at.iter().map(|at| if at.is_empty() { Path::new() } else { path(at) }).collect())
}

/// Case: a plan that came to half of what it wanted. What it placed is shown, and what the user does then is done
/// over that: else a version that nobody chose to go would win.
#[test]
fn what_half_a_plan_has_placed_is_shown() {
    let (first, other, third) = (file(1), file(2), file(3));
    let shown = [operation(1, DirId::ROOT, "a", first.clone()), operation(2, DirId::ROOT, "a", other.clone())];
    let mut scene = Scene::new(&shown);
    let (one, two) = (scene.file(11, &first), scene.file(12, &other));
    scene.holds(&[], identity(DirId::ROOT), &[("a", two), ("a (conflict 01010101)", one.clone())]);
    let (placed, signed, _) = scene.tell(look(&[""]));
    assert_eq!((placed, signed.len()), (None, 0));

    scene.arrives(&operation(9, DirId::ROOT, "a", third.clone()), &[1, 2]);
    scene.tell(Input::Tick);
    let (placed, ..) = scene.tell(Input::Arrived(third.file().unwrap().content));
    let batch = placed.expect("a plan");
    assert_eq!(batch.steps.len(), 2, "{batch:?}");
    let outcome = |step: &Step| match step {
        Step::PutFile { .. } => Stepped::Done(Some(Seen::File(Fingerprint { inode: 13, ..PRINT }))),
        _ => Stepped::Changed,
    };
    let outcomes: Vec<Stepped> = batch.steps.iter().map(outcome).collect();
    // Meanwhile the user moved the copy beside it over what had just come.
    scene.holds(&[], identity(DirId::ROOT), &[("a", one)]);
    let (_, signed, _) = scene.tell(Input::Placed(Ok(outcomes)));
    let over: Vec<_> = signed.iter().flat_map(|operation| operation.base.iter().copied()).collect();
    assert!(over.contains(&dot(9)), "{signed:?}");
    let [current] = scene.feed.lookup(DirId::ROOT, b"a") else { panic!("{:?}", scene.feed) };
    assert_eq!(current.value.file().unwrap().content, first.file().unwrap().content);
}

/// A version that loses its name to another must have its new one first.
#[test]
fn a_name_is_taken_only_from_what_has_another() {
    let (first, second) = (file(1), file(2));
    let mut scene = Scene::new(&[operation(1, DirId::ROOT, "a", first.clone())]);
    let one = scene.file(11, &first);
    scene.holds(&[], identity(DirId::ROOT), &[("a", one)]);
    scene.tell(look(&[""]));
    scene.arrives(&operation(9, DirId::ROOT, "a", second.clone()), &[]);
    scene.tell(Input::Tick);
    let (placed, ..) = scene.tell(Input::Arrived(second.file().unwrap().content));
    let batch = placed.expect("a plan");
    let [Step::PutFile { expect: Expect::Absent, .. }, Step::PutFile { expect: Expect::File(_), .. }] =
        &batch.steps[..]
    else {
        panic!("{batch:?}")
    };
    assert!(batch.may_do(0, &[]));
    assert!(batch.may_do(1, &[Stepped::Done(None)]));
    assert!(!batch.may_do(1, &[Stepped::Changed]));
}

/// The new name of such a version may be taken by an own file that is equal and has lost its own: then it must have come
/// there.
#[test]
fn a_name_is_taken_only_when_an_equal_file_has_come_to_the_other_one() {
    let (content, winner) = (file(1), file(2));
    let mut scene =
        Scene::new(&[operation(1, DirId::ROOT, "a", content.clone()), operation(2, DirId::ROOT, "b", content.clone())]);
    scene.shows(&[("a", 11, 1), ("b", 12, 1)]);
    scene.tell(look(&[""]));
    scene.arrives(&operation(8, DirId::ROOT, "b", Value::Tombstone), &[2]);
    scene.arrives(&operation(9, DirId::ROOT, "a", winner.clone()), &[]);
    let (placed, ..) = scene.tell(Input::Arrived(winner.file().unwrap().content));
    let batch = placed.expect("a plan");
    let [Step::Move { to, .. }, Step::PutFile { expect: Expect::File(_), .. }] = &batch.steps[..] else {
        panic!("{batch:?}")
    };
    assert_eq!(*to, path("a (conflict 01010101)"));
    assert!(batch.may_do(1, &[Stepped::Done(None)]));
    assert!(!batch.may_do(1, &[Stepped::Changed]));
}

/// Case: two directories had stood aside when a plan was cut short. The user had already removed one from its new place.
#[test]
fn only_what_stands_aside_is_brought_back() {
    let dir = |seq: u64, text: &str, id: u8| operation(seq, DirId::ROOT, text, Value::Dir(vec![DirId([id; 16])]));
    let mut scene = Scene::new(&[dir(1, "d", 7), dir(2, "f", 8)]);
    let (d, f) = (identity(DirId([7; 16])), identity(DirId([8; 16])));
    scene.holds(&[], identity(DirId::ROOT), &[("d", Seen::Dir(d)), ("f", Seen::Dir(f))]);
    scene.holds(&path("d"), d, &[]);
    scene.holds(&path("f"), f, &[]);
    scene.tell(Input::DirtyEverywhere);
    scene.arrives(&dir(9, "d", 9), &[1]);
    scene.arrives(&dir(10, "e", 7), &[]);
    scene.arrives(&dir(11, "f", 10), &[2]);
    scene.arrives(&dir(12, "g", 8), &[]);
    let batch = scene.tell(Input::Tick).0.expect("a plan");
    let cut_short = |step: &Step| matches!(step, Step::Move { to, .. } if *to == path("g"));
    let outcome = |step: &Step| if cut_short(step) { Stepped::Changed } else { Stepped::Done(None) };
    let (placed, ..) = scene.tell(Input::Placed(Ok(batch.steps.iter().map(outcome).collect())));
    let back = placed.expect("steps back").steps;
    assert_eq!(back.len(), 3, "{back:?}");
    let (placed, ..) = scene.tell(Input::Placed(Ok(vec![Stepped::Changed; 3])));
    let steps = placed.expect("a step").steps;
    let [Step::Move { expect: Expect::Dir(identity), .. }] = &steps[..] else { panic!("{steps:?}") };
    assert_eq!(*identity, f);
}

/// Case: somebody else has written what is here already, and the user has just removed it. He has not removed what the
/// other one wrote.
#[test]
fn what_is_here_already_is_looked_at_before_it_counts_as_shown() {
    for removed in [false, true] {
        let content = file(1);
        let mut scene = Scene::new(&[operation(1, DirId::ROOT, "a", content.clone())]);
        let a = scene.file(11, &content);
        scene.holds(&[], identity(DirId::ROOT), &[("a", a.clone())]);
        scene.tell(look(&[""]));
        scene.arrives(&operation(9, DirId::ROOT, "a", content.clone()), &[]);
        let (placed, ..) = scene.tell(Input::Tick);
        let batch = placed.expect("a plan");
        assert!(matches!(&batch.steps[..], [Step::Check { expect: Expect::File(_), .. }]), "{batch:?}");
        let outcome = if removed { Stepped::Changed } else { Stepped::Done(Some(a)) };
        if removed {
            scene.holds(&[], identity(DirId::ROOT), &[]);
        }
        let (_, signed, _) = scene.tell(Input::Placed(Ok(vec![outcome])));
        assert_eq!(Scene::tombstones(&signed).len(), usize::from(removed));
        let expected: &[u64] = if removed { &[101, 9] } else { &[1, 9] };
        let mut live: Vec<u64> =
            scene.feed.lookup(DirId::ROOT, b"a").iter().map(|operation| fixtures::seq(&operation.dot)).collect();
        live.sort_by_key(|seq| expected.iter().position(|it| it == seq));
        assert_eq!(live, expected);
        scene.holds(&[], identity(DirId::ROOT), &[]);
        let (_, signed, _) = scene.tell(look(&[""]));
        assert_eq!(signed.len(), usize::from(!removed), "what is shown and removed is removed");
    }
}

/// Case: what a name waits for turns up under another one; nobody else need have it.
#[test]
fn a_content_that_comes_to_be_here_is_not_waited_for() {
    let wanted = file(5);
    let mut scene = Scene::new(&[]);
    scene.holds(&[], identity(DirId::ROOT), &[]);
    scene.tell(look(&[""]));
    scene.arrives(&operation(9, DirId::ROOT, "a", wanted.clone()), &[]);
    let (placed, _, outputs) = scene.tell(Input::Tick);
    assert!(placed.is_none() && matches!(&outputs[..], [Output::Want(_)]), "{outputs:?}");
    let here = scene.file(11, &wanted);
    scene.holds(&[], identity(DirId::ROOT), &[("b", here)]);
    let (placed, signed, outputs) = scene.tell(look(&[""]));
    assert_eq!(signed.len(), 1);
    assert!(outputs.iter().any(|output| matches!(output, Output::Unwant(_))), "{outputs:?}");
    let batch = placed.expect("a plan");
    assert!(
        matches!(&batch.steps[..], [Step::PutFile { copy_from: Some((from, _)), .. }] if *from == path("b")),
        "{batch:?}"
    );
}

/// A folder that shows a file as the replica has it, and has a plan for it now that other operations stand there: the
/// step is done, and the process dies before anybody knows. Gives the scene and the operation.
fn cut_short(then: &[Arc<Operation>], left: &[(&str, u64, u8)]) -> (Scene, Arc<Operation>) {
    let first = operation(1, DirId::ROOT, "a", file(1));
    let mut scene = Scene::new(std::slice::from_ref(&first));
    let a = scene.file(11, &first.value);
    scene.holds(&[], identity(DirId::ROOT), &[("a", a)]);
    let (placed, signed, _) = scene.tell(look(&[""]));
    assert_eq!((placed, signed.len()), (None, 0));
    scene.stand("a", then);
    let mut placed = scene.tell(Input::Tick).0;
    for value in then.iter().filter_map(|operation| operation.value.file()) {
        placed = scene.tell(Input::Arrived(value.content)).0;
    }
    assert_eq!(placed.expect("a plan").steps.len(), 1);
    scene.shows(left);
    (scene, first)
}

/// Case: what a record had brought was taken off the disk as it stood no more. By the next start it stands again.
#[test]
fn what_a_plan_had_removed_is_not_missed_after_a_crash() {
    for crashes in [1, 2] {
        let (mut scene, first) = cut_short(&[], &[]);
        scene.stand("a", std::slice::from_ref(&first));
        (0..crashes).for_each(|_| scene.crashes());
        let (_, signed, _) = scene.tell(Input::DirtyEverywhere);
        assert_eq!(signed, []);
        let (placed, ..) = scene.tell(Input::Arrived(first.value.file().unwrap().content));
        assert!(matches!(&placed.expect("a plan").steps[..], [Step::PutFile { .. }]));
    }
}

/// Case: two versions were to give way to a third, which took the name of the one, and the process died before the other
/// was removed. By the next start the third stands no more.
#[test]
fn half_a_plan_is_not_the_users_after_a_crash() {
    let both = [operation(1, DirId::ROOT, "a", file(1)), operation(2, DirId::ROOT, "a", file(2))];
    let mut scene = Scene::new(&both);
    let other = "a (conflict 01010101)";
    scene.shows(&[("a", 12, 2), (other, 11, 1)]);
    scene.tell(look(&[""]));
    let third = operation(9, DirId::ROOT, "a", file(3));
    scene.stand("a", std::slice::from_ref(&third));
    scene.tell(Input::Tick);
    let (placed, ..) = scene.tell(Input::Arrived(third.value.file().unwrap().content));
    assert!(matches!(&placed.expect("a plan").steps[..], [Step::PutFile { .. }, Step::Remove { .. }]));
    scene.shows(&[("a", 13, 3), (other, 11, 1)]);
    scene.stand("a", &both);
    scene.crashes();
    let (_, signed, _) = scene.tell(Input::DirtyEverywhere);
    assert_eq!(signed, []);
    let (placed, ..) = scene.tell(Input::Arrived(both[1].value.file().unwrap().content));
    assert!(matches!(&placed.expect("a plan").steps[..], [Step::PutFile { expect: Expect::File(_), .. }]));
}

/// Case: of two versions the one that goes by another name was to take the name of both, the process died before the first
/// step, and the user removed both files. No plan took away what it was to put elsewhere.
#[test]
fn what_a_plan_was_to_rename_and_is_nowhere_was_removed() {
    let both = [operation(1, DirId::ROOT, "a", file(1)), operation(2, DirId::ROOT, "a", file(2))];
    let mut scene = Scene::new(&both);
    scene.shows(&[("a", 12, 2), ("a (conflict 01010101)", 11, 1)]);
    scene.tell(look(&[""]));
    scene.stand("a", &both[..1]);
    let (placed, ..) = scene.tell(Input::Tick);
    assert!(placed.is_some_and(|batch| batch.steps.len() > 1));
    scene.shows(&[]);
    scene.crashes();
    let (_, signed, _) = scene.tell(Input::DirtyEverywhere);
    assert_eq!(Scene::tombstones(&signed).len(), 1);
    assert!(signed.iter().any(|operation| operation.replaces(&both[0].dot)), "{signed:?}");
}

/// Case: of a directory of two ids one goes elsewhere with its file, whose name in the other a directory takes. However
/// little of that comes about, the file is there.
#[test]
fn what_a_directory_takes_the_name_of_is_never_nowhere() {
    let (one, other, third) = (DirId([7; 16]), DirId([8; 16]), DirId([9; 16]));
    let dir = |seq: u64, at: DirId, text: &str, id: DirId| operation(seq, at, text, Value::Dir(vec![id]));
    let held = operation(3, one, "x", file(1));
    let mut scene = Scene::new(&[dir(1, DirId::ROOT, "f", one), dir(2, DirId::ROOT, "f", other), held.clone()]);
    let x = scene.file(11, &held.value);
    scene.holds(&[], identity(DirId::ROOT), &[("f", Seen::Dir(identity(one)))]);
    scene.holds(&path("f"), identity(one), &[("x", x.clone())]);
    let (_, signed, _) = scene.tell(Input::DirtyEverywhere);
    assert_eq!(signed, []);

    scene.arrives(&operation(9, DirId::ROOT, "f", Value::Tombstone), &[1]);
    scene.arrives(&dir(10, DirId::ROOT, "g", one), &[]);
    scene.arrives(&dir(11, other, "x", third), &[]);
    let batch = scene.tell(Input::Tick).0.expect("a plan");
    let spare = path("f/x (conflict 01010101)");
    let at = |is_it: &dyn Fn(&Step) -> bool| batch.steps.iter().position(is_it).expect("a step");
    let parked = at(&|step| matches!(step, Step::Move { to, .. } if *to == spare));
    let put = at(&|step| matches!(step, Step::PutFile { path: to, .. } if *to == path("g/x")));
    let removed = at(&|step| matches!(step, Step::Remove { path, .. } if *path == spare));
    assert!(parked < put && put < removed, "{batch:?}");
    assert_eq!(batch.needs.get(&removed), Some(&put));

    scene.holds(&[], identity(DirId::ROOT), &[("f", Seen::Dir(identity(one))), ("g", Seen::Dir(identity(third)))]);
    scene.holds(&path("f"), identity(one), &[("x (conflict 01010101)", x)]);
    scene.holds(&path("g"), identity(third), &[]);
    scene.crashes();
    scene.tell(Input::DirtyEverywhere);
    let content = held.value.file().expect("a file").content;
    let is_current =
        |live: &[Arc<Operation>]| live.iter().any(|it| it.value.file().is_some_and(|it| it.content == content));
    assert!(scene.feed.iter().any(is_current), "{:?}", scene.feed);
}

/// Case: a directory was to become one with another, and the process died when its file was there already. The user removes
/// what he sees of it: nobody is left waiting for that file.
#[test]
fn what_half_a_merge_has_moved_is_gone_once_it_is_removed() {
    let (one, other) = (DirId([7; 16]), DirId([8; 16]));
    let dir = |seq: u64, text: &str, id: DirId| operation(seq, DirId::ROOT, text, Value::Dir(vec![id]));
    let held = operation(3, one, "x", file(1));
    let mut scene = Scene::new(&[dir(1, "d", one), dir(2, "e", other), held.clone()]);
    let x = scene.file(11, &held.value);
    let (d, e) = (Seen::Dir(identity(one)), Seen::Dir(identity(other)));
    scene.holds(&[], identity(DirId::ROOT), &[("d", d.clone()), ("e", e.clone())]);
    scene.holds(&path("d"), identity(one), &[("x", x.clone())]);
    scene.holds(&path("e"), identity(other), &[]);
    let (_, signed, _) = scene.tell(Input::DirtyEverywhere);
    assert_eq!(signed, []);

    scene.arrives(&operation(9, DirId::ROOT, "d", Value::Tombstone), &[1]);
    scene.arrives(&dir(10, "e", one), &[]);
    let batch = scene.tell(Input::Tick).0.expect("a plan");
    assert!(batch.steps.iter().any(|it| matches!(it, Step::Move { to, .. } if *to == path("e/x"))), "{batch:?}");
    scene.listings.remove(&path("d"));
    scene.holds(&[], identity(DirId::ROOT), &[("Recovered", d.clone()), ("e", e)]);
    scene.holds(&path("Recovered"), identity(one), &[]);
    scene.holds(&path("e"), identity(other), &[("x", x)]);
    scene.crashes();
    let is_current = |feed: &FeedMap| feed.iter().flatten().any(|live| live.value.same_content(&held.value));
    let (placed, ..) = scene.tell(Input::DirtyEverywhere);
    assert_eq!(placed, None, "what is there is not brought once more");
    assert!(is_current(&scene.feed), "{:?}", scene.feed);

    scene.listings.remove(&path("e"));
    scene.holds(&[], identity(DirId::ROOT), &[("Recovered", d)]);
    scene.tell(Input::DirtyEverywhere);
    scene.now = scene.disk.next_deadline().expect("a search");
    scene.tell(Input::Tick);
    assert!(!is_current(&scene.feed), "{:?}", scene.feed);
}

/// Case: what is shown under a name does not count any more, and another version goes by that name then. The file is not
/// taken for that one.
#[test]
fn what_is_disowned_is_not_taken_for_what_takes_its_name() {
    let both = [operation(1, DirId::ROOT, "a", file(1)), operation(2, DirId::ROOT, "a", file(2))];
    let loser = "a (conflict 01010101)";
    let third = operation(3, DirId::ROOT, loser, file(3));
    let mut scene = Scene::new(&[both[0].clone(), both[1].clone(), third.clone()]);
    scene.shows(&[("a", 12, 2), (loser, 13, 3), ("a (conflict 01010101) (conflict 01010101)", 11, 1)]);
    let (placed, signed, _) = scene.tell(look(&[""]));
    assert_eq!((placed, signed.len()), (None, 0));
    scene.stand(loser, &[]);
    scene.disk.disown(&BTreeSet::from([third.key.clone()]));
    let (placed, signed, _) = scene.tell(Input::Tick);
    assert_eq!(placed, None);
    let current = scene.feed.lookup(DirId::ROOT, loser.as_bytes());
    assert!(current.iter().any(|live| live.value.same_content(&third.value)), "{signed:?}");
}

/// Case: a directory was removed, and the replica has it elsewhere by the next look, with somebody else's version of a file
/// in it that is equal to the one that was shown. Only that one was removed.
#[test]
fn what_nobody_saw_in_a_removed_directory_is_not_removed_with_it() {
    let dir = Value::Dir(vec![SUB]);
    let shown = [operation(1, DirId::ROOT, "d", dir.clone()), operation(2, SUB, "x", file(1))];
    let mut base = FeedMap::default();
    base.apply(&shown);
    let mut feed = base.clone();
    feed.apply(&[operation(9, DirId::ROOT, "e", dir)]);
    feed.set_key(shown[1].key.clone(), vec![operation(10, SUB, "x", file(1))]);
    let gone = Difference { at: DirId::ROOT, name: name("d"), now: Found::Absent };
    assert_eq!(agreement(&base, &feed, &[gone]).keys, BTreeSet::new());
}

/// Case: a version was placed, and by the next start its record stands no more.
#[test]
fn what_a_plan_had_placed_is_not_the_users_after_a_crash() {
    let (mut scene, first) = cut_short(&[operation(9, DirId::ROOT, "a", file(2))], &[("a", 12, 2)]);
    scene.stand("a", std::slice::from_ref(&first));
    scene.crashes();
    let (_, signed, _) = scene.tell(Input::DirtyEverywhere);
    assert_eq!(signed, []);
    let (placed, ..) = scene.tell(Input::Arrived(first.value.file().unwrap().content));
    assert!(matches!(&placed.expect("a plan").steps[..], [Step::PutFile { expect: Expect::File(_), .. }]));
}

/// Cases: the process dies before the first step; the user removes the file before the next start, or after the node has
/// looked at it. Of the first nobody can tell who did it, and the node says nothing in the user's name.
#[test]
fn a_plan_is_remembered_until_it_is_known_what_it_came_to() {
    for removed_while_down in [false, true] {
        let (mut scene, first) = cut_short(&[], if removed_while_down { &[] } else { &[("a", 11, 1)] });
        scene.stand("a", &[first]);
        scene.crashes();
        let (_, signed, _) = scene.tell(Input::DirtyEverywhere);
        assert_eq!(signed, []);
        assert_eq!(scene.disk.base().intents().count(), 0);
        if !removed_while_down {
            scene.shows(&[]);
            let (_, signed, _) = scene.tell(look(&[""]));
            assert_eq!(Scene::tombstones(&signed).len(), 1, "{signed:?}");
        }
    }
}

/// Case: the user wrote after a plan was done, which was signed; what the plan came to was not stored.
#[test]
fn what_was_written_after_a_plan_was_written_over_what_it_came_to() {
    let (mut scene, first) = cut_short(&[], &[]);
    scene.shows(&[("a", 13, 3)]);
    let (_, signed, _) = scene.tell(Input::Placed(Ok(vec![Stepped::Done(None)])));
    assert!(signed.is_empty(), "the watch has not told yet");
    let (_, signed, _) = scene.tell(look(&[""]));
    let [own] = &signed[..] else { panic!("{signed:?}") };
    assert!(own.base.is_empty());
    scene.stand("a", &[first.clone(), own.clone()]);
    scene.crashes();
    scene.disk.replay_own(&signed);
    let (_, signed, _) = scene.tell(Input::DirtyEverywhere);
    assert_eq!(signed, []);
    let (placed, ..) = scene.tell(Input::Arrived(first.value.file().unwrap().content));
    let batch = placed.expect("a plan");
    assert!(matches!(&batch.steps[..], [Step::PutFile { expect: Expect::Absent, .. }]), "{batch:?}");
}

/// Case: a directory is renamed while only the place where it was is looked at.
#[test]
fn a_directory_out_of_sight_is_looked_for() {
    for moved in [true, false] {
        let inside = file(1);
        let shown = [
            operation(1, DirId::ROOT, "d", Value::Dir(vec![SUB])),
            operation(2, DirId::ROOT, "e", Value::Dir(vec![DirId([8; 16])])),
            operation(3, SUB, "a", inside.clone()),
        ];
        let mut scene = Scene::new(&shown);
        let (a, e) = (scene.file(11, &inside), identity(DirId([8; 16])));
        scene.holds(&[], identity(DirId::ROOT), &[("d", Seen::Dir(identity(SUB))), ("e", Seen::Dir(e))]);
        scene.holds(&path("d"), identity(SUB), &[("a", a.clone())]);
        scene.holds(&path("e"), e, &[]);
        let (placed, signed, _) = scene.tell(Input::DirtyEverywhere);
        assert_eq!((placed, signed.len()), (None, 0));

        let new = scene.file(12, &file(2));
        scene.listings.remove(&path("d"));
        scene.holds(&[], identity(DirId::ROOT), &[("e", Seen::Dir(e)), ("new", new)]);
        if moved {
            scene.holds(&path("e"), e, &[("d", Seen::Dir(identity(SUB)))]);
            scene.holds(&path("e/d"), identity(SUB), &[("a", a)]);
        }
        let (_, signed, _) = scene.tell(look(&[""]));
        let keys: Vec<_> = signed.iter().map(|operation| operation.key.name.clone()).collect();
        assert_eq!(keys, [name("new")], "what is known of files is told at once");
        assert_ne!(scene.disk.state(), State::Idle);

        scene.now = scene.disk.next_deadline().expect("a search");
        assert_eq!(scene.now, START + limits::SEARCH_PAUSE);
        let (_, signed, _) = scene.tell(Input::Tick);
        let gone = Scene::tombstones(&signed);
        let inside = Key { dir: SUB, name: name("a") };
        assert_eq!(gone.contains(&&inside), !moved, "{signed:?}");
        assert!(gone.contains(&&Key { dir: DirId::ROOT, name: name("d") }), "{signed:?}");
        assert_eq!(scene.disk.state(), State::Idle);
        assert_eq!(scene.feed.view().node_at(&path("e/d")).is_some(), moved);
    }
}
