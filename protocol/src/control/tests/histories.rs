//! Random hostile histories: any key signs under any of its grants, forks anywhere, cuts anywhere, rotates and leaves.

use super::*;

/// What an evaluation says, free of the order of arrival.
pub type Outcome = BTreeMap<ObjectId, (BTreeSet<OpId>, BTreeMap<OpId, evaluate::Node>, bool, authority::Roster)>;

pub fn outcome(control: &Control) -> Outcome {
    let of_log = |log: &ControlLog| {
        let evaluation = control.evaluation(log.id()).unwrap();
        let standing = evaluation.standing(log).map(Entry::id).collect();
        (standing, evaluation.nodes.clone(), evaluation.frozen, evaluation.roster.clone())
    };
    control.logs().map(|log| (log.id(), of_log(log))).collect()
}

pub struct Dice(SeedRng);

impl Dice {
    pub fn new(seed: u64) -> Self {
        Self(SeedRng::new(*blake3::hash(&seed.to_be_bytes()).as_bytes()))
    }

    pub fn below(&mut self, bound: usize) -> usize {
        use rand_core::Rng as _;
        (self.0.next_u64() % bound.max(1) as u64) as usize
    }

    pub fn bytes(&mut self) -> [u8; 32] {
        use rand_core::Rng as _;
        let mut bytes = [0; 32];
        self.0.fill_bytes(&mut bytes);
        bytes
    }

    pub fn one<T: Clone>(&mut self, items: &[T]) -> Option<T> {
        items.get(self.below(items.len())).cloned()
    }
}

/// Two meshes (roots 100 and 101, devices 1 to 4 and 11 to 14) and an object of the first.
pub struct History {
    pub control: Control,
    /// All statements, in causal order.
    pub statements: Vec<Signed>,
    pub meshes: [ObjectId; 2],
    pub object: ObjectId,
    /// Whether revocations name records of the object, too: of each device hit one of three.
    pub names_records: bool,
}

impl History {
    pub fn new() -> Self {
        let mut control = Control::new();
        let meshes = [control.new_mesh(100), control.new_mesh(101)];
        for (mesh, root, first) in [(meshes[0], 100, 1), (meshes[1], 101, 11)] {
            control.push(Signer::Root(root), mesh, None, None, grant(holder(first), Role::Own, &[]));
        }
        let object = control.new_object(meshes[0], 1);
        let statements =
            [meshes[0], meshes[1], object].iter().flat_map(|log| control.log(*log).unwrap().missing(&[])).collect();
        Self { control, statements, meshes, object, names_records: false }
    }

    pub fn logs(&self) -> [ObjectId; 3] {
        [self.meshes[0], self.meshes[1], self.object]
    }

    fn signers() -> impl Iterator<Item = Signer> {
        let roots = [100, 101].into_iter().chain(200..210).map(Signer::Root);
        (1..5).chain(11..15).map(Signer::Device).chain(roots)
    }

    /// The key's owner, if it is one of these histories.
    pub fn who(key: PublicKey) -> Option<Signer> {
        Self::signers().find(|signer| signer.public() == key)
    }

    /// Somebody and one of the grants that he could sign under.
    fn author(&self, dice: &mut Dice, log: ObjectId) -> Option<(Signer, OpId, OpId)> {
        let held = self.control.log(log)?;
        let grants_of = |log: &ControlLog| -> Vec<(OpId, [u8; 32])> {
            log.entries()
                .iter()
                .filter_map(|entry| match &entry.op.act {
                    Act::Grant { to, .. } => Some((entry.id, to.0)),
                    Act::Rotate { root } => Some((entry.id, root.0)),
                    _ => None,
                })
                .collect()
        };
        if let Birth::Mesh(genesis) = held.birth() {
            let mut vias = grants_of(held);
            if dice.below(4) == 0 {
                vias.retain(|(via, _)| held.get(*via).is_some_and(|entry| matches!(entry.op.act, Act::Rotate { .. })));
            }
            vias.push((OpId(log.0), genesis.root.0));
            let (via, key) = dice.one(&vias)?;
            return Some((Self::who(PublicKey(key))?, via, NO_OP));
        }
        let mesh = dice.one(&self.meshes)?;
        let (dev, key) = dice.one(&grants_of(self.control.log(mesh)?))?;
        let mut vias: Vec<OpId> =
            grants_of(held).into_iter().filter(|(_, to)| *to == mesh.0).map(|(via, _)| via).collect();
        if mesh == self.meshes[0] {
            vias.extend([OpId(log.0); 2]);
        }
        Some((Self::who(PublicKey(key))?, dice.one(&vias)?, dev))
    }

    pub fn ids(&self, log: ObjectId, wanted: impl Fn(&Entry) -> bool) -> Vec<OpId> {
        let entries = self.control.log(log).map_or(&[] as &[Entry], |log| log.entries());
        entries.iter().filter(|entry| wanted(entry)).map(|entry| entry.id).collect()
    }

    fn act(&self, dice: &mut Dice, log: ObjectId, at_apex: bool) -> Act {
        let mesh = self.meshes.iter().position(|mesh| *mesh == log);
        let target = match mesh {
            Some(number) => holder((1 + 10 * number + dice.below(4)) as u8),
            None => person(self.meshes[dice.below(2)]),
        };
        match dice.below(12) {
            0..=4 => {
                let mut seen = Vec::new();
                if dice.below(2) == 0 {
                    seen = self.ids(log, |e| matches!(e.op.act, Act::Revoke { to, .. } if to == target));
                }
                let role = [Role::Own, Role::Own, Role::Invite, Role::Edit, Role::Read][dice.below(5)];
                grant(target, role, &seen)
            }
            5..=8 => self.revoke(dice, log, target),
            9 => Act::Leave {},
            10 if at_apex && mesh.is_some() => Act::Rotate { root: root(200 + dice.below(10) as u8).public() },
            10 => Act::Away { device: target.into() },
            _ => Act::Keys { seal: crate::seal::SealPublic([dice.below(3) as u8; 32]), generation: 1 },
        }
    }

    fn revoke(&self, dice: &mut Dice, log: ObjectId, target: Holder) -> Act {
        let mut act = revoke(target, &self.cuts(dice, log, target));
        let Act::Revoke { nonce, cuts, .. } = &mut act else { return act };
        if self.names_records {
            let row = ByteArray::new(Cut::row(nonce, self.object));
            let holders =
                if log == self.object { (11..15).collect() } else { (1..5).chain(11..15).collect::<Vec<u8>>() };
            let hit = holders.into_iter().map(|number| device(number).device_id());
            let hit = hit.filter(|device| log == self.object || target == Holder::from(*device));
            let mut records: Vec<RecordId> =
                hit.map(|device| super::records::record(dice.below(3) as u8, device)).collect();
            records.sort();
            match cuts.iter_mut().find(|cut| cut.row == row) {
                Some(cut) => cut.records = records,
                None => cuts.push(Cut { row, operations: Vec::new(), records }),
            }
            cuts.sort_by_key(|cut| *cut.row);
        }
        act
    }

    fn cuts(&self, dice: &mut Dice, log: ObjectId, target: Holder) -> Vec<(ObjectId, OpId)> {
        let is_mesh = log != self.object;
        let mut cuts = Vec::new();
        for other in self.logs().into_iter().filter(|other| is_mesh || *other == log) {
            for signer in Self::signers() {
                let theirs = self.ids(other, |entry| {
                    let hit = if is_mesh { entry.author().0 == target.0 } else { entry.holder() == target };
                    hit && entry.author() == signer.public()
                });
                match dice.below(4) {
                    0 => {}
                    1 => cuts.extend(dice.one(&theirs).map(|id| (other, id))),
                    _ => cuts.extend(theirs.last().map(|id| (other, *id))),
                }
            }
        }
        cuts
    }

    /// Adds one hostile operation; `None` when the draw gives none that is well formed.
    pub fn step(&mut self, dice: &mut Dice) -> Option<OpId> {
        let log = dice.one(&self.logs())?;
        let (by, via, dev) = self.author(dice, log)?;
        let own = self.ids(log, |entry| entry.author() == by.public());
        let prev = match dice.below(5) {
            0 if dice.below(3) == 0 => None,
            0 => dice.one(&own),
            _ => own.last().copied(),
        };
        let act = self.act(dice, log, matches!(by, Signer::Root(_)));
        let signed = self.control.write(by, log, prev, via, dev, act);
        match self.control.insert(signed.clone()) {
            Ok(Inserted::Added(ids)) => {
                self.statements.push(signed);
                ids.first().copied()
            }
            _ => None,
        }
    }
}

pub fn from_scratch(statements: &[Signed]) -> Control {
    let mut control = Control::new();
    for signed in statements {
        assert!(matches!(control.adopt(signed.clone()), Ok(Inserted::Added(_))));
    }
    control
}

/// Delivers in a random order, geneses aside, with bounded retries as a sync would.
pub fn shuffled(statements: &[Signed], dice: &mut Dice) -> Control {
    let mut control = Control::new();
    let mut rest: Vec<Signed> = Vec::new();
    for signed in statements {
        if signed.kind == Kind::Genesis as u8 {
            assert!(control.adopt(signed.clone()).is_ok());
        } else {
            rest.insert(dice.below(rest.len() + 1), signed.clone());
        }
    }
    for _ in 0..statements.len() {
        let mut again = Vec::new();
        for signed in rest {
            match control.insert(signed.clone()) {
                Ok(_) => {}
                Err(ControlError::UnknownLog(_) | ControlError::NotEntitled) => again.push(signed),
                Err(error) => panic!("refused in another order: {error}"),
            }
            if dice.below(4) == 0 {
                let _ = outcome(&control);
            }
        }
        rest = again;
    }
    assert!(rest.is_empty());
    assert_eq!(control.waiting(), 0);
    control
}

/// The same logs with some operations changed in their place, ids and all else as they were.
pub fn edited(control: &Control, edit: impl Fn(&mut Entry)) -> Control {
    let (homes, persons) = (control.homes.clone(), control.persons.clone());
    let mut copy = Control { homes, persons, ..Control::new() };
    for log in control.logs() {
        let mut twin = ControlLog::new(log.genesis().clone(), log.birth().clone());
        for entry in log.entries() {
            let mut entry = entry.clone();
            edit(&mut entry);
            twin.push(entry);
        }
        copy.logs.insert(log.id(), twin);
    }
    copy
}

pub fn copied(control: &Control) -> Control {
    edited(control, |_| {})
}

/// The same logs without some operations that no others name.
pub fn without(control: &Control, gone: &BTreeSet<OpId>) -> Control {
    let mut copy = Control::new();
    let (meshes, objects): (Vec<_>, Vec<_>) = control.logs().partition(|log| log.is_mesh());
    for log in meshes.into_iter().chain(objects) {
        assert!(copy.found(ControlLog::new(log.genesis().clone(), log.birth().clone())).is_ok());
        for entry in log.entries().iter().filter(|entry| !gone.contains(&entry.id)) {
            assert!(matches!(copy.admit(entry.signed.clone()), Ok(Admitted::Added(_))));
        }
    }
    copy
}

/// How many cases a judge gets: so many, and more in the same measure as PROPTEST_CASES exceeds its default.
pub fn cases(usual: u64) -> std::ops::Range<u64> {
    0..usual * u64::from(proptest::test_runner::Config::default().cases) / 256
}
