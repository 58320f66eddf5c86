//! Devices that become less, are removed, and come back; and what of theirs is taken over.

use meshwork_protocol::{control::AuthorError as ControlAuthorError, id::DirId};

use super::*;
use crate::folder::{
    self,
    observed::{DirIdentity, Expect, Listing, Path, Step},
};

impl Scene {
    /// All devices lose sight of one, or see it again.
    fn set_apart(&mut self, node: usize, apart: bool) {
        for other in (0..self.nodes.len()).filter(|other| *other != node) {
            for (one, two) in [(node, other), (other, node)] {
                let peer = self.device(two);
                let allowed = self.nodes[one].replica.peers().contains(&peer);
                if apart {
                    self.input(one, Input::PeerDown(peer));
                } else if allowed {
                    self.input(one, Input::PeerUp(peer));
                }
            }
        }
        self.settle();
    }

    pub(super) fn ask(
        &mut self,
        node: usize,
        ask: impl FnOnce(&mut Replica, &mut SeedRng) -> Result<Vec<Output>, AuthorError>,
    ) -> Result<(), AuthorError> {
        let Scene { rng, nodes, .. } = self;
        let outputs = ask(&mut nodes[node].replica, rng)?;
        self.carry_out(node, outputs);
        self.settle();
        Ok(())
    }

    /// A device writes a record with this text.
    pub(super) fn author(&mut self, node: usize, text: &[u8]) -> ChainId {
        let Scene { rng, nodes, folder, .. } = self;
        let replica = &mut nodes[node].replica;
        let chain = replica.author_record(rng, *folder, RecordKind::Feed, text, false).unwrap().chain();
        let mut out = Vec::new();
        replica.persist_signed(&mut out);
        self.carry_out(node, out);
        self.settle();
        chain
    }

    fn role(&self, node: usize, device: usize) -> Option<Role> {
        self.nodes[node].replica.control.role(self.mesh, self.device(device))
    }

    fn targets(&self, node: usize) -> BTreeSet<Vec<u8>> {
        let feed = self.nodes[node].replica.folder(self.folder).unwrap().feed();
        let files = feed.iter().flatten().filter_map(|operation| operation.value.file());
        files.filter_map(|file| file.symlink_target().map(<[u8]>::to_vec)).collect()
    }

    fn quarantined(&self, node: usize) -> usize {
        self.nodes[node].replica.quarantined(self.folder).count()
    }

    /// The attacker is removed apart from the others and writes on.
    fn removed_apart(&mut self, void: bool) -> ChainId {
        self.set_apart(ATTACKER, true);
        let target = self.device(ATTACKER);
        self.ask(VICTIM, |replica, rng| replica.remove_device(rng, target, void)).unwrap();
        assert_eq!((self.role(OTHER, ATTACKER), self.role(ATTACKER, ATTACKER)), (None, Some(Role::Edit)));
        self.author(ATTACKER, &link("late"))
    }

    fn may_write(&self, node: usize) -> bool {
        let replica = &self.nodes[node].replica;
        [self.mesh, self.folder].iter().all(|object| replica.control.write_epoch(*object, &replica.keyring).is_some())
    }
}

#[test]
fn a_demoted_admin_stays_with_those_it_let_in_and_lets_in_nobody_more() {
    let mut scene = Scene::new();
    let [target, other] = [ATTACKER, OTHER].map(|node| scene.device(node));
    scene.ask(VICTIM, |replica, _| replica.promote_device(target)).unwrap();
    let tablet = DeviceKey::from_bytes(&[40; 32]).device_id();
    scene.ask(ATTACKER, |replica, rng| replica.admit(rng, tablet, "tablet")).unwrap();
    scene.author(ATTACKER, &link("as an admin"));
    let demoted = scene.ask(OTHER, |replica, rng| replica.demote_device(rng, target));
    assert!(matches!(demoted, Err(AuthorError::NotSenior)), "{demoted:?}");

    scene.ask(VICTIM, |replica, rng| replica.demote_device(rng, target)).unwrap();
    for node in [VICTIM, ATTACKER, OTHER] {
        assert_eq!(scene.role(node, ATTACKER), Some(Role::Edit));
        assert_eq!(scene.nodes[node].replica.control.role(scene.mesh, tablet), Some(Role::Edit));
        assert_eq!((scene.targets(node).len(), scene.quarantined(node)), (usize::from(node != ATTACKER), 0));
    }
    let watch = DeviceKey::from_bytes(&[41; 32]).device_id();
    let admitted = scene.ask(ATTACKER, |replica, rng| replica.admit(rng, watch, "watch"));
    assert!(matches!(admitted, Err(AuthorError::Author(ControlAuthorError::NotPermitted))), "{admitted:?}");
    let removed = scene.ask(ATTACKER, |replica, rng| replica.remove_device(rng, other, false));
    assert!(matches!(removed, Err(AuthorError::NotSenior)), "{removed:?}");
    let chain = scene.author(ATTACKER, &link("as a device"));
    assert_eq!(chain, scene.nodes[ATTACKER].replica.own_chain(scene.folder), "all of its chain stands");
    assert!(scene.targets(OTHER).contains(&b"as a device"[..]) && scene.may_write(ATTACKER));
}

#[test]
fn a_device_that_is_let_in_again_goes_on_and_what_it_wrote_meanwhile_does_not_stand() {
    for void in [false, true] {
        let mut scene = Scene::new();
        let before = scene.removed_apart(void);
        let target = scene.device(ATTACKER);
        scene.ask(VICTIM, |replica, rng| replica.readmit_device(rng, target)).unwrap();
        assert!(scene.nodes[OTHER].replica.peers().contains(&target), "the door is open again");
        scene.set_apart(ATTACKER, false);
        for node in [VICTIM, ATTACKER, OTHER] {
            assert_eq!((scene.role(node, ATTACKER), scene.quarantined(node)), (Some(Role::Edit), 1), "void: {void}");
            assert!(!scene.targets(node).contains(&b"late"[..]));
        }
        assert!(scene.may_write(ATTACKER), "all keys are sealed to it");
        let after = scene.author(ATTACKER, &link("back"));
        assert_ne!(before, after, "another chain");
        for node in [VICTIM, OTHER] {
            assert_eq!(scene.targets(node), BTreeSet::from([b"back".to_vec()]));
            assert_eq!(scene.quarantined(node), 1, "what does not stand is not brought back by what does");
        }
    }
}

#[test]
fn who_is_junior_to_the_remover_lets_nobody_in_again_and_the_root_does() {
    let mut scene = Scene::new();
    let [target, other] = [ATTACKER, OTHER].map(|node| scene.device(node));
    scene.ask(VICTIM, |replica, _| replica.promote_device(other)).unwrap();
    scene.removed_apart(false);
    for refused in [
        scene.ask(OTHER, |replica, rng| replica.readmit_device(rng, target)),
        scene.ask(OTHER, |replica, rng| replica.admit(rng, target, "again")),
    ] {
        assert!(matches!(refused, Err(AuthorError::NotSenior)), "{refused:?}");
    }
    assert_eq!(
        scene.nodes[OTHER].replica.control.barred_by(scene.mesh, other, target.into()),
        Some(scene.device(VICTIM).into())
    );
    scene.ask(OTHER, |replica, rng| replica.readmit_by_root(rng, &[7; 64], target)).unwrap();
    assert_eq!(scene.role(VICTIM, ATTACKER), Some(Role::Edit));
}

pub(super) fn disk(scene: &mut Scene, node: usize, entries: Vec<(Name, folder::observed::Seen)>) {
    let identity = DirIdentity { device: 1, inode: 1, born_ns: 0 };
    let input = folder::Input::Listed(vec![(Path::new(), Ok(Listing { identity, entries }))]);
    let object = scene.folder;
    scene.input(node, Input::Folder { object, input });
    scene.settle();
}

#[test]
fn what_is_in_quarantine_is_put_as_own_work() {
    let mut scene = Scene::new();
    let folder = scene.folder;
    let (all, have) = (Choice::default(), BTreeSet::new());
    scene.removed_apart(false);
    let target = scene.device(ATTACKER);
    scene.ask(VICTIM, |replica, rng| replica.readmit_device(rng, target)).unwrap();
    scene.set_apart(ATTACKER, false);
    assert_eq!(scene.victim().adoption(folder, &all, &have), Err(AdoptError::NotHere));

    scene.ask(VICTIM, |replica, rng| replica.map_folder(rng, folder)).unwrap();
    scene.input(VICTIM, Input::Folder { object: folder, input: folder::Input::DirtyEverywhere });
    disk(&mut scene, VICTIM, Vec::new());
    let nobody = Choice { device: Some(scene.device(OTHER)), ..Choice::default() };
    assert!(scene.victim().adoption(folder, &nobody, &have).unwrap().is_empty());
    let elsewhere = Choice { paths: path_of("lin").into_iter().collect(), ..Choice::default() };
    assert!(scene.victim().adoption(folder, &elsewhere, &have).unwrap().is_empty());

    let Scene { rng, now, nodes, .. } = &mut scene;
    let (adoption, outputs) = nodes[VICTIM].replica.adopt(*now, rng, folder, &all, &have).unwrap();
    let link = || path_of("link").unwrap();
    assert_eq!(adoption.put, [(link(), link())]);
    let placed = outputs.iter().find_map(|output| match output {
        Output::Place(_, batch) => Some(batch.steps.clone()),
        _ => None,
    });
    assert_eq!(
        placed.expect("steps"),
        [Step::PutSymlink { path: link(), expect: Expect::Absent, target: b"late".to_vec() }]
    );
    let done = folder::Input::Placed(Ok(vec![folder::observed::Stepped::Done(None)]));
    let events = scene.input(VICTIM, Input::Folder { object: folder, input: done });
    assert!(events.contains(&Event::Folder(folder, folder::Event::Put { failed: Vec::new() })), "{events:?}");

    // The disk shows it now: it is recorded like anything that the user does, and others get it.
    let seen = folder::observed::Seen::Symlink { target: b"late".to_vec() };
    disk(&mut scene, VICTIM, vec![(Name::try_from("link").unwrap(), seen)]);
    assert_eq!(scene.targets(OTHER), BTreeSet::from([b"late".to_vec()]));
    let feed = scene.nodes[OTHER].replica.folder(folder).unwrap().feed();
    let [written] = feed.lookup(DirId::ROOT, b"link") else { panic!("one operation") };
    let chains = scene.victim().intake(folder).unwrap().chains();
    assert_eq!(chains.place_of(&written.dot.record).unwrap().0, scene.victim().own_chain(folder));
    assert_eq!((scene.quarantined(VICTIM), scene.quarantined(OTHER)), (1, 1), "what does not stand stays so");
    let again = scene.victim().adoption(folder, &all, &have).unwrap();
    assert_eq!((again.put.len(), again.here.len()), (0, 1));
}

/// Case: the process dies while a demotion is being stored. What is there of it makes nobody a device that is out.
#[test]
fn half_a_demotion_is_never_stored() {
    let mut scene = Scene::new();
    let (target, mesh) = (scene.device(ATTACKER), scene.mesh);
    scene.ask(VICTIM, |replica, _| replica.promote_device(target)).unwrap();
    let before = scene.victim().control.log(mesh).unwrap().missing(&[]);
    let Scene { rng, nodes, .. } = &mut scene;
    let outputs = nodes[VICTIM].replica.demote_device(rng, target).unwrap();
    let entries: Vec<Stored> = outputs
        .into_iter()
        .flat_map(|output| match output {
            Output::Persist { entries, .. } => entries,
            _ => Vec::new(),
        })
        .collect();
    let role = |kept: usize| {
        let mut copy = Replica::new(identity(1, MeshId(mesh.0)));
        before.iter().for_each(|signed| copy.restore_control(&signed.to_bytes()));
        for entry in entries.iter().take(kept) {
            if let Stored::Control { items, .. } = entry {
                let stored = Stored::unpack(&Stored::pack(items)).unwrap();
                stored.iter().for_each(|item| copy.restore_control(item));
            }
        }
        copy.control.role(mesh, target)
    };
    let roles: Vec<Option<Role>> = (0..=entries.len()).map(role).collect();
    assert!(roles.iter().all(Option::is_some), "{roles:?}");
    assert_eq!((roles[0], roles.last().copied().flatten()), (Some(Role::Own), Some(Role::Edit)));
}
