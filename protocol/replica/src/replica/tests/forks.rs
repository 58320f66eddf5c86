//! Two records of one device at one place, on real replicas.

use super::*;

impl Scene {
    /// Another replica with the keys of the attacker and all that it holds, as after a restore from a backup.
    pub(super) fn copy_of_attacker(&mut self) -> Replica {
        let original = &self.nodes[ATTACKER];
        let mut copy = Replica::new(identity(2, MeshId(self.mesh.0)));
        for object in [self.mesh, self.folder] {
            let statements = original.replica.control().log(object).unwrap().missing(&[]);
            statements.iter().for_each(|signed| copy.restore_control(&signed.to_bytes()));
        }
        for object in [self.mesh, self.folder] {
            let chains = original.replica.intake(object).unwrap().chains();
            let whole = |(chain, _, last, _)| meshwork_protocol::object::Range {
                chain,
                first: 1,
                last,
                after: Default::default(),
            };
            let ranges: Vec<_> = chains.heads().map(whole).collect();
            for id in chains.ordered(&ranges) {
                let own = chains.place(&id).and_then(|(chain, _)| chains.author(&chain)) == Some(copy.device());
                let bytes = original.records[&chains.shelf(&id).unwrap()].clone();
                copy.restore_record(object, bytes, own);
            }
        }
        let _ = copy.resume(self.now, &mut self.rng);
        copy
    }

    /// What a replica of the attacker writes next and does not send itself.
    pub(super) fn written_by(&mut self, replica: &mut Replica, target: &str) -> Vec<u8> {
        replica.author_record(&mut self.rng, self.folder, RecordKind::Feed, &link(target), false).unwrap();
        match replica.signed.pop() {
            Some(Stored::Record { bytes, .. }) => bytes,
            _ => panic!("no record was signed"),
        }
    }

    pub(super) fn give(&mut self, node: usize, record: &[u8]) -> Vec<Event> {
        let frame = Frame::Records { object: self.folder, records: vec![ByteBuf::from(record)] };
        let peer = self.device(if node == ATTACKER { OTHER } else { ATTACKER });
        self.input(node, Input::Frame { peer, bytes: frame.encode() })
    }

    pub(super) fn links(&self, node: usize) -> BTreeSet<String> {
        let feed = self.nodes[node].replica.folder(self.folder).unwrap().feed();
        let files = feed.iter().flatten().filter_map(|operation| operation.value.file());
        files.map(|file| String::from_utf8_lossy(file.symlink_target().unwrap()).into_owned()).collect()
    }

    fn branches(&self, node: usize) -> usize {
        self.nodes[node].replica.intake(self.folder).unwrap().chains().branches().count()
    }

    fn assert_equal(&self) {
        let digests: BTreeSet<_> = self.nodes.iter().map(|node| node.replica.digest()).collect();
        assert_eq!(digests.len(), 1, "all hold the same");
        let shown: BTreeSet<_> = (0..3).map(|node| self.links(node)).collect();
        assert_eq!(shown.len(), 1, "and show the same: {shown:?}");
    }
}

fn forked(events: &[Event], by: DeviceId) -> bool {
    events.iter().any(|event| matches!(event, Event::ChainForked { device, .. } if *device == by))
}

#[test]
fn twins_that_two_devices_have_shown_stand_on_all_of_them() {
    let mut scene = Scene::new();
    let (mut one, mut two) = (scene.copy_of_attacker(), scene.copy_of_attacker());
    let (left, right) = (scene.written_by(&mut one, "left"), scene.written_by(&mut two, "right"));
    let further = scene.written_by(&mut two, "further");
    scene.give(VICTIM, &left);
    scene.give(OTHER, &right);
    scene.give(OTHER, &further);
    assert_eq!(
        (scene.links(VICTIM), scene.links(OTHER)),
        (["left".into()].into(), ["right", "further"].map(String::from).into())
    );
    scene.settle();
    scene.assert_equal();
    assert_eq!(scene.links(VICTIM), ["left", "right", "further"].map(String::from).into());
    assert!((0..3).all(|node| scene.branches(node) == 2));
    assert!((0..3).all(|node| scene.nodes[node].replica.quarantined(scene.folder).count() == 0));
}

#[test]
fn a_twin_that_turns_up_later_is_in_quarantine_until_somebody_builds_on_it() {
    let mut scene = Scene::new();
    let (mut one, mut two) = (scene.copy_of_attacker(), scene.copy_of_attacker());
    let (first, late) = (scene.written_by(&mut one, "first"), scene.written_by(&mut two, "late"));
    scene.give(VICTIM, &first);
    scene.settle();
    scene.assert_equal();
    let attacker = scene.device(ATTACKER);
    assert!(forked(&scene.give(VICTIM, &late), attacker), "the alarm is raised");
    scene.settle();
    scene.assert_equal();
    assert_eq!(scene.links(OTHER), ["first".to_owned()].into());
    assert!((0..3).all(|node| scene.nodes[node].replica.quarantined(scene.folder).count() == 1));
    // It is its author's copy that goes on from it: a new chain that builds on all that stands and on the twin.
    let twin = Record::parse(late).unwrap();
    let built = scene.nodes[OTHER].replica.append(
        &mut scene.rng,
        scene.folder,
        (RecordKind::Join, &[], false),
        vec![meshwork_protocol::object::Dep { chain: twin.chain(), seq: twin.header().seq, id: twin.id() }],
    );
    built.unwrap();
    scene.nodes[OTHER].replica.judge_again(scene.folder);
    scene.input(OTHER, Input::Tick);
    scene.settle();
    scene.assert_equal();
    assert_eq!(scene.links(VICTIM), ["first", "late"].map(String::from).into());
}

#[test]
fn a_device_that_meets_its_own_copy_goes_on_in_a_new_chain() {
    let mut scene = Scene::new();
    let mut copy = scene.copy_of_attacker();
    let (own, foreign) = (scene.write_link("own"), scene.written_by(&mut copy, "foreign"));
    let shelf = (scene.nodes[ATTACKER].replica.own_chain(scene.folder), 1);
    scene.nodes[ATTACKER].records.insert(shelf, own.clone());
    scene.give(VICTIM, &own);
    let before = scene.nodes[ATTACKER].replica.own_chain(scene.folder);
    let events = scene.give(ATTACKER, &foreign);
    assert!(events.contains(&Event::CopyNoticed(scene.folder)));
    let after = scene.nodes[ATTACKER].replica.own_chain(scene.folder);
    assert_ne!(before, after);
    scene.settle();
    scene.assert_equal();
    assert_eq!(scene.links(OTHER), ["own".to_owned()].into(), "what it had written itself goes on to stand");
    let attacker = &mut scene.nodes[ATTACKER].replica;
    attacker.author_record(&mut scene.rng, scene.folder, RecordKind::Feed, &link("next"), false).unwrap();
    scene.input(ATTACKER, Input::Tick);
    scene.settle();
    assert_eq!(scene.links(VICTIM), ["own", "next"].map(String::from).into());
    assert_eq!(scene.links(OTHER), scene.links(VICTIM));
    let chains = scene.victim().intake(scene.folder).unwrap().chains();
    assert!(chains.head(&after).0 >= 2, "the new chain holds the record that vouches, and the next");
}

#[test]
fn a_restored_backup_never_signs_a_place_twice_that_it_is_told_of_in_time() {
    let mut scene = Scene::new();
    let mut backup = scene.copy_of_attacker();
    let mut original = scene.copy_of_attacker();
    let newer = scene.written_by(&mut original, "newer than the backup");
    let peer = scene.device(VICTIM);
    let frame = Frame::Records { object: scene.folder, records: vec![ByteBuf::from(newer)] };
    let before = backup.own_chain(scene.folder);
    let _ = backup.handle(scene.now, &mut scene.rng, Input::PeerUp(peer));
    let hello = Frame::Hello { version: sync_frames::VERSION, objects: vec![] };
    let _ = backup.handle(scene.now, &mut scene.rng, Input::Frame { peer, bytes: hello.encode() });
    let out = backup.handle(scene.now, &mut scene.rng, Input::Frame { peer, bytes: frame.encode() });
    let kept = out.iter().position(|it| matches!(it, Output::Incarnation(_)));
    let stored = out.iter().position(|it| matches!(it, Output::Persist { .. }));
    assert!(kept.is_some() && kept < stored, "the new name is kept before what made it necessary is stored");
    backup.author_record(&mut scene.rng, scene.folder, RecordKind::Feed, &link("edit"), false).unwrap();
    let chains = backup.intake(scene.folder).unwrap().chains();
    assert_eq!(chains.branches().count(), 0);
    assert_eq!((chains.head(&before).0, chains.head(&backup.own_chain(scene.folder)).0), (1, 1));
}
