//! Checkpoints: what is written, who vouches, what is let go of, and who comes late.

use meshwork_protocol::{id::DirId, object::Chains};

use super::*;
use crate::{
    feed::{Dot, Part},
    folder::{
        BaseChange, DiskBase,
        observed::{DirIdentity, Listing},
    },
};

/// A name, and what it is to show; `None` removes it.
fn change(name: &str, target: Option<&str>, base: &[Dot]) -> Vec<u8> {
    let mut operation =
        NewOperation { key: key(name), value: Value::Tombstone, base: base.to_vec(), former: Vec::new() };
    if let Some(target) = target {
        operation.value = decode_link(&link(target));
    }
    encode(&[operation]).unwrap()
}

fn decode_link(text: &[u8]) -> Value {
    crate::feed::decode(text, meshwork_protocol::id::RecordKey([0; 16]), 1).unwrap().remove(0).value
}

fn key(name: &str) -> Key {
    Key { dir: DirId::ROOT, name: Name::try_from(name).unwrap() }
}

impl Scene {
    /// A device changes what a name shows, of what it knows itself.
    fn change(&mut self, node: usize, name: &str, target: Option<&str>) -> RecordId {
        let folder = self.folder;
        let feed = self.nodes[node].replica.folder(folder).unwrap().feed();
        let base: Vec<Dot> = feed.at(&key(name)).iter().map(|operation| operation.dot).collect();
        let text = change(name, target, &base);
        let Scene { rng, nodes, .. } = self;
        let replica = &mut nodes[node].replica;
        let record = replica.author_record(rng, folder, RecordKind::Feed, &text, false).unwrap();
        let mut out = Vec::new();
        replica.merge(folder, &record, &mut out);
        replica.persist_signed(&mut out);
        self.carry_out(node, out);
        record.id()
    }

    fn checkpoint(&mut self, node: usize) {
        let folder = self.folder;
        self.ask(node, |replica, rng| replica.checkpoint(rng, folder)).unwrap();
    }

    fn chains(&self, node: usize) -> &Chains {
        self.nodes[node].replica.intake(self.folder).unwrap().chains()
    }

    fn names(&self, node: usize) -> Vec<String> {
        let feed = self.nodes[node].replica.folder(self.folder).unwrap().feed();
        let shown = feed.view().flatten();
        shown.into_keys().map(|path| path.iter().map(|name| name.to_string()).collect()).collect()
    }

    fn assert_same(&self) {
        let live = |node: usize| -> Vec<String> {
            let feed = self.nodes[node].replica.folder(self.folder).unwrap().feed();
            feed.iter().flatten().map(|operation| format!("{operation:?}")).collect()
        };
        for node in 1..self.nodes.len() {
            assert_eq!(live(node), live(0), "the feed of {node}");
            assert_eq!(self.chains(node).vector(), self.chains(0).vector(), "the chains of {node}");
            assert_eq!(self.nodes[node].replica.digest(), self.nodes[0].replica.digest());
        }
    }

    /// A device starts again with what its store has.
    fn restart(&mut self, node: usize) {
        self.start(node);
        self.come_up(node);
    }

    /// The same where nobody is there.
    fn start(&mut self, node: usize) {
        self.go_down(node);
        let mesh = MeshId(self.mesh.0);
        let mut replica = Replica::new(identity(node as u8 + 1, mesh));
        for entry in &self.nodes[node].log {
            if let Stored::Retired { object, chain, device, by } = entry {
                replica.restore_retired(*object, *chain, *device, *by);
            }
        }
        for entry in &self.nodes[node].log {
            match entry {
                Stored::Control { items, .. } => items.iter().for_each(|item| replica.restore_control(item)),
                Stored::Record { object, bytes, own, .. } => replica.restore_record(*object, bytes.clone(), *own),
                Stored::Retired { .. } => {}
            }
        }
        let out = replica.resume(self.now, &mut self.rng);
        self.nodes[node].replica = replica;
        self.carry_out(node, out);
    }

    fn go_down(&mut self, node: usize) {
        let device = self.device(node);
        for other in (0..self.nodes.len()).filter(|other| *other != node) {
            self.input(other, Input::PeerDown(device));
        }
        self.wire.retain(|(from, to, _)| *from != device && *to != device);
    }

    fn come_up(&mut self, node: usize) {
        for other in (0..self.nodes.len()).filter(|other| *other != node) {
            let (one, two) = (self.device(node), self.device(other));
            self.input(other, Input::PeerUp(one));
            self.input(node, Input::PeerUp(two));
        }
        self.settle();
    }

    /// A device loses all that it had of the folder, as one that has never met the others.
    fn forget_folder(&mut self, node: usize) {
        let folder = self.folder;
        self.nodes[node].log.retain(|entry| {
            !matches!(entry, Stored::Record { object, .. } | Stored::Retired { object, .. } if *object == folder)
        });
        let others: Vec<(ChainId, u64)> = self.chains(node).heads().map(|(chain, _, seq, _)| (chain, seq)).collect();
        self.nodes[node].records.retain(|(chain, _), _| !others.iter().any(|(of, _)| of == chain));
    }
}

#[test]
fn all_let_go_of_what_everybody_has_built_on() {
    let mut scene = Scene::new();
    for number in 0..5 {
        scene.change(ATTACKER, "note", Some(&number.to_string()));
    }
    scene.change(ATTACKER, "gone", Some("soon"));
    scene.change(ATTACKER, "gone", None);
    scene.change(OTHER, "other", Some("stays"));
    scene.settle();
    let before = scene.chains(VICTIM).len();
    scene.checkpoint(ATTACKER);
    scene.assert_same();
    // The checkpoint, what vouches for it, and what the other one wrote.
    for node in 0..3 {
        assert!(scene.chains(node).len() < before, "{} of {before} on {node}", scene.chains(node).len());
        assert_eq!(scene.chains(node).retired().count(), 1);
        assert_eq!(scene.names(node), ["note", "other"]);
        let kept: usize = scene.nodes[node].records.len();
        let held: usize = scene.nodes[node].replica.objects.values().map(|object| object.intake.chains().len()).sum();
        assert_eq!(kept, held, "what is not held is not stored");
    }
    let live = scene.nodes[VICTIM].replica.folder(scene.folder).unwrap().feed().iter().flatten().count();
    assert_eq!(live, 2, "the tombstone is gone, too");
    scene.change(ATTACKER, "note", Some("again"));
    scene.change(OTHER, "note", None);
    scene.settle();
    scene.assert_same();
    for node in 0..3 {
        scene.restart(node);
        scene.assert_same();
    }
    // The next one takes the place of that one.
    scene.checkpoint(ATTACKER);
    scene.checkpoint(OTHER);
    scene.assert_same();
    assert_eq!(scene.chains(OTHER).retired().count(), 3);
    for node in 0..3 {
        scene.restart(node);
        scene.assert_same();
    }
}

#[test]
fn who_comes_late_begins_with_the_checkpoint() {
    for blank in [false, true] {
        let mut scene = Scene::new();
        let first = scene.change(ATTACKER, "note", Some("first"));
        scene.change(OTHER, "kept", Some("by the other"));
        scene.settle();
        assert!(scene.chains(OTHER).contains(&first));
        scene.go_down(OTHER);
        // What the absent one had is replaced and removed by others, each with a checkpoint.
        scene.change(ATTACKER, "note", Some("second"));
        scene.settle();
        scene.change(VICTIM, "kept", None);
        scene.settle();
        scene.checkpoint(ATTACKER);
        scene.checkpoint(VICTIM);
        // It has written, so that nothing is let go of before it has vouched, or is out.
        assert_eq!(scene.chains(VICTIM).retired().count(), 0);
        let other = scene.device(OTHER);
        scene.ask(VICTIM, |replica, rng| replica.remove_device(rng, other, false)).unwrap();
        scene.change(VICTIM, "more", Some("since"));
        scene.settle();
        assert_eq!(scene.chains(VICTIM).retired().count(), 2);
        assert_eq!(scene.chains(ATTACKER).retired().count(), 2);
        scene.ask(VICTIM, |replica, rng| replica.readmit_device(rng, other)).unwrap();
        if blank {
            scene.forget_folder(OTHER);
        } else {
            scene.change(OTHER, "own", Some("while away"));
        }
        scene.restart(OTHER);
        scene.assert_same();
        let mut names = vec!["more", "note"];
        names.extend((!blank).then_some("own"));
        assert!(scene.names(OTHER).iter().all(|name| names.contains(&name.as_str())), "{:?}", scene.names(OTHER));
        assert!(scene.links(OTHER).contains("second"));
        // What it writes now, others take.
        scene.change(OTHER, "note", Some("third"));
        scene.settle();
        scene.assert_same();
        assert!(scene.links(VICTIM).contains("third"));
    }
}

#[test]
fn a_late_change_of_what_was_let_go_of_counts() {
    let mut scene = Scene::new();
    scene.change(ATTACKER, "note", Some("first"));
    scene.change(ATTACKER, "gone", Some("here"));
    scene.change(VICTIM, "mine", Some("here"));
    scene.settle();
    scene.go_down(OTHER);
    scene.change(OTHER, "note", Some("edited while away"));
    scene.change(OTHER, "gone", None);
    scene.change(OTHER, "mine", Some("edited while away"));
    scene.change(ATTACKER, "note", Some("second"));
    scene.settle();
    scene.change(VICTIM, "mine", None);
    scene.settle();
    scene.checkpoint(ATTACKER);
    scene.checkpoint(VICTIM);
    // All wait for the absent one, until it is said that nobody need to.
    assert_eq!(scene.chains(VICTIM).retired().count(), 0);
    let absent = scene.nodes[OTHER].replica.device();
    scene.ask(VICTIM, |replica, _| replica.declare_away(absent)).unwrap();
    assert_eq!(scene.chains(VICTIM).retired().count(), 2);
    scene.come_up(OTHER);
    scene.assert_same();
    // Both edits of the note are there, the edit of what was removed as well; what it removed itself is gone.
    for node in 0..3 {
        assert_eq!(scene.names(node).len(), 3, "{:?}", scene.names(node));
        assert!(!scene.names(node).contains(&"gone".to_owned()));
        let texts = ["edited while away", "second"].map(String::from);
        assert!(texts.iter().all(|text| scene.links(node).contains(text)));
    }
    assert_eq!(scene.chains(OTHER).retired().count(), 2);
}

#[test]
fn a_chain_that_another_copy_wrote_on_is_let_go_of_for_good() {
    let mut scene = Scene::new();
    scene.change(ATTACKER, "note", Some("first"));
    scene.settle();
    // The home as it is now is put back later.
    let backup = (scene.nodes[ATTACKER].log.clone(), scene.nodes[ATTACKER].records.clone());
    scene.change(ATTACKER, "note", Some("second"));
    scene.settle();
    scene.checkpoint(ATTACKER);
    assert_eq!(scene.chains(OTHER).retired().count(), 1);
    scene.go_down(ATTACKER);
    (scene.nodes[ATTACKER].log, scene.nodes[ATTACKER].records) = backup;
    scene.restart(ATTACKER);
    scene.assert_same();
    assert!(scene.links(ATTACKER).contains("second"));
    scene.change(ATTACKER, "note", Some("third"));
    scene.settle();
    scene.assert_same();
    assert_eq!(scene.links(OTHER), ["third".to_owned()].into());
}

/// Case: a home is put back, and the checkpoint that it had written does not know of what it writes then. That comes with
/// the proof that the old chain has forked, when the others have let go of it.
#[test]
fn what_the_disk_shows_and_the_own_checkpoint_does_not_know_is_written_again() {
    let mut scene = Scene::new();
    scene.change(ATTACKER, "note", Some("first"));
    scene.settle();
    let backup = (scene.nodes[ATTACKER].log.clone(), scene.nodes[ATTACKER].records.clone());
    scene.change(ATTACKER, "note", Some("first"));
    scene.settle();
    scene.checkpoint(ATTACKER);
    scene.change(ATTACKER, "gone", None);
    scene.settle();
    assert_eq!(scene.chains(OTHER).retired().count(), 1);
    scene.go_down(ATTACKER);
    (scene.nodes[ATTACKER].log, scene.nodes[ATTACKER].records) = backup;
    scene.start(ATTACKER);
    scene.change(ATTACKER, "more", Some("since"));
    let object = scene.folder;
    let root = DirIdentity { device: 1, inode: 1, born_ns: 0 };
    let shown = scene.nodes[ATTACKER].replica.folder_mut(object).unwrap();
    let mut base = DiskBase::default();
    base.restore(BaseChange::Dir { dir: DirId::ROOT, identity: Some(root) });
    for live in shown.feed().iter() {
        base.restore(BaseChange::Key { key: live[0].key.clone(), operations: live.to_vec() });
    }
    shown.map(base);
    scene.come_up(ATTACKER);
    assert!(!scene.links(OTHER).contains("since"));
    let link = |target: &str| Seen::Symlink { target: target.as_bytes().to_vec() };
    let entries = [("note", "first"), ("more", "since")].map(|(name, target)| (key(name).name, link(target)));
    for _ in 0..3 {
        let listing = Listing { identity: root, entries: entries.to_vec() };
        let input = folder::Input::Listed(vec![(Vec::new(), Ok(listing))]);
        scene.input(ATTACKER, Input::Folder { object, input });
        scene.settle();
    }
    scene.assert_same();
    assert!(scene.links(OTHER).contains("since"));
}

/// Case: a home is put back twice, and its checkpoints do not know of each other; others have built on both.
#[test]
fn what_one_of_two_checkpoints_leaves_out_is_dead_in_whatever_order_both_are_read() {
    let mut scene = Scene::new();
    scene.change(ATTACKER, "note", Some("first"));
    scene.settle();
    let folder = scene.folder;
    let mut written = Vec::new();
    for (node, name) in [(VICTIM, "left"), (OTHER, "right")] {
        let mut copy = scene.copy_of_attacker();
        let text = change(name, Some(name), &[]);
        let record = copy.author_record(&mut scene.rng, folder, RecordKind::Feed, &text, false).unwrap();
        copy.merge(folder, &record, &mut Vec::new());
        for output in copy.checkpoint(&mut scene.rng, folder).unwrap() {
            let Output::Persist { entries, .. } = output else { continue };
            let records = entries.into_iter().filter_map(|entry| match entry {
                Stored::Record { bytes, .. } => Some((node, bytes)),
                _ => None,
            });
            written.extend(records);
        }
    }
    assert_eq!(written.len(), 4);
    for (node, record) in written {
        scene.give(node, &record);
    }
    assert_eq!((scene.names(VICTIM).len(), scene.names(OTHER).len()), (2, 2));
    scene.settle();
    scene.assert_same();
    assert_eq!(scene.names(OTHER), ["note"]);
    for node in 0..3 {
        assert!(scene.chains(node).retired().count() > 0, "the records are not held any more");
        scene.restart(node);
        scene.assert_same();
    }
}

#[test]
fn who_is_behind_is_told_what_he_need_not_wait_for() {
    let mut scene = Scene::new();
    scene.change(ATTACKER, "note", Some("first"));
    scene.change(OTHER, "other", Some("stays"));
    scene.settle();
    let mut copy = scene.copy_of_attacker();
    scene.go_down(OTHER);
    scene.checkpoint(ATTACKER);
    scene.settle();
    // The checkpoint does not know of it, the victim builds on it, and then both let go of its chain.
    let stray = scene.written_by(&mut copy, "stray");
    scene.send_record(scene.folder, stray);
    scene.change(VICTIM, "more", Some("since"));
    let absent = scene.device(OTHER);
    scene.ask(VICTIM, |replica, _| replica.declare_away(absent)).unwrap();
    scene.settle();
    assert_eq!([VICTIM, ATTACKER].map(|node| scene.chains(node).retired().count()), [1, 1]);
    scene.come_up(OTHER);
    scene.assert_same();
    assert_eq!(scene.chains(OTHER).retired().count(), 1);
    assert!(scene.links(OTHER).contains("since"));
}

#[test]
fn what_was_vouched_for_in_a_chain_that_is_no_more_goes_on_to_stand() {
    let mut scene = Scene::new();
    scene.change(VICTIM, "note", Some("first"));
    scene.settle();
    let backup = (scene.nodes[VICTIM].log.clone(), scene.nodes[VICTIM].records.clone());
    let (mut one, mut two) = (scene.copy_of_attacker(), scene.copy_of_attacker());
    let (left, right) = (scene.written_by(&mut one, "left"), scene.written_by(&mut two, "right"));
    scene.checkpoint(VICTIM);
    assert_eq!(scene.chains(OTHER).retired().count(), 1);
    // The home is put back, and shows one of two twins before it hears that its chain is no more.
    (scene.nodes[VICTIM].log, scene.nodes[VICTIM].records) = backup;
    scene.start(VICTIM);
    let attacker = scene.device(ATTACKER);
    scene.input(VICTIM, Input::PeerUp(attacker));
    let hello = Frame::Hello { version: sync_frames::VERSION, objects: vec![] };
    scene.input(VICTIM, Input::Frame { peer: attacker, bytes: hello.encode() });
    scene.send_record(scene.folder, left);
    scene.send_record(scene.folder, right);
    assert!(scene.links(VICTIM).contains("left") && !scene.links(VICTIM).contains("right"));
    scene.come_up(VICTIM);
    scene.assert_same();
    assert_eq!(scene.chains(VICTIM).retired().count(), 1);
    assert!(scene.links(OTHER).contains("left") && !scene.links(OTHER).contains("right"));
}

#[test]
fn a_checkpoint_speaks_of_its_authors_chains_alone() {
    let mut scene = Scene::new();
    scene.change(VICTIM, "note", Some("of the victim"));
    scene.change(ATTACKER, "note2", Some("of the attacker"));
    scene.settle();
    let before = scene.shown();
    let (attacker, folder) = (scene.device(ATTACKER), scene.folder);
    // It lists what is nowhere, and withdraws all that it has.
    let own = scene.chains(ATTACKER).roots(attacker).collect();
    let text = Part { chains: own, ..Part::default() }.encode().unwrap();
    let incarnation = scene.nodes[ATTACKER].replica.own_incarnation(folder).next();
    let Scene { rng, nodes, .. } = &mut scene;
    let replica = &mut nodes[ATTACKER].replica;
    let deps = replica.objects[&folder].intake.chains().deps_for_next(&ChainId([0; 16]), |_| u64::MAX).deps;
    replica.append_in(rng, folder, incarnation, (RecordKind::Checkpoint, &text, false), deps).unwrap();
    let Some(Stored::Record { bytes, .. }) = replica.signed.pop() else { panic!("it is signed") };
    scene.send_record(folder, bytes);
    scene.settle();
    let after = scene.shown();
    assert_eq!(before.live.len(), after.live.len() + 1);
    assert!(after.live.iter().all(|operation| !operation.contains("note2")));
    // What is no checkpoint at all is void.
    let void = scene.counters(folder).void;
    let bad = scene.write(folder, RecordKind::Listing, b"nothing of the kind");
    scene.send_record(folder, bad);
    assert_eq!((scene.counters(folder).void, scene.shown() == after), (void + 1, true));
}
