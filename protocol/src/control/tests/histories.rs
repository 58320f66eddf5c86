//! Random hostile histories: any key signs under any of its grants, forks anywhere, cuts anywhere, rotates and leaves.

use proptest::prelude::*;

use super::*;

/// What an evaluation says, free of the order of arrival.
type Verdict = BTreeMap<ObjectId, (BTreeSet<OpId>, BTreeMap<OpId, evaluate::Node>, bool, authority::Roster)>;

fn verdict(control: &Control) -> Verdict {
    let of_log = |log: &ControlLog| {
        let evaluation = control.evaluation(log.id()).unwrap();
        let standing = evaluation.standing(log).map(Entry::id).collect();
        (standing, evaluation.nodes.clone(), evaluation.frozen, evaluation.roster.clone())
    };
    control.logs().map(|log| (log.id(), of_log(log))).collect()
}

fn live(control: &Control) -> BTreeSet<(ObjectId, Holder, Role)> {
    let of_log = |log: &ControlLog| {
        let id = log.id();
        control.live(id).into_iter().map(move |(holder, role)| (id, holder, role)).collect::<Vec<_>>()
    };
    control.logs().flat_map(of_log).collect()
}

struct Dice(SeedRng);

impl Dice {
    fn new(seed: u64) -> Self {
        Self(SeedRng::new(*blake3::hash(&seed.to_be_bytes()).as_bytes()))
    }

    fn below(&mut self, bound: usize) -> usize {
        use rand_core::Rng as _;
        (self.0.next_u64() % bound.max(1) as u64) as usize
    }

    fn one<T: Clone>(&mut self, items: &[T]) -> Option<T> {
        items.get(self.below(items.len())).cloned()
    }
}

/// Two meshes (roots 100 and 101, devices 1 to 4 and 11 to 14) and an object of the first.
struct History {
    control: Control,
    /// All statements, in causal order.
    statements: Vec<Signed>,
    meshes: [ObjectId; 2],
    object: ObjectId,
}

impl History {
    fn new() -> Self {
        let mut control = Control::new();
        let meshes = [control.new_mesh(100), control.new_mesh(101)];
        for (mesh, root, first) in [(meshes[0], 100, 1), (meshes[1], 101, 11)] {
            control.push(Signer::Root(root), mesh, None, None, grant(holder(first), Role::Own, &[]));
        }
        let object = control.new_object(meshes[0], 1);
        let statements =
            [meshes[0], meshes[1], object].iter().flat_map(|log| control.log(*log).unwrap().missing(&[])).collect();
        Self { control, statements, meshes, object }
    }

    fn logs(&self) -> [ObjectId; 3] {
        [self.meshes[0], self.meshes[1], self.object]
    }

    fn signers(&self) -> impl Iterator<Item = Signer> {
        let roots = [100, 101].into_iter().chain(200..210).map(Signer::Root);
        (1..5).chain(11..15).map(Signer::Device).chain(roots)
    }

    fn who(&self, key: PublicKey) -> Option<Signer> {
        self.signers().find(|signer| signer.public() == key)
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
            vias.push((OpId(log.0), genesis.root.0));
            let (via, key) = dice.one(&vias)?;
            return Some((self.who(PublicKey(key))?, via, NO_OP));
        }
        let mesh = dice.one(&self.meshes)?;
        let (dev, key) = dice.one(&grants_of(self.control.log(mesh)?))?;
        let mut vias: Vec<OpId> =
            grants_of(held).into_iter().filter(|(_, to)| *to == mesh.0).map(|(via, _)| via).collect();
        if mesh == self.meshes[0] {
            vias.extend([OpId(log.0); 2]);
        }
        Some((self.who(PublicKey(key))?, dice.one(&vias)?, dev))
    }

    fn ids(&self, log: ObjectId, wanted: impl Fn(&Entry) -> bool) -> Vec<OpId> {
        let entries = self.control.log(log).map_or(&[] as &[Entry], |log| log.entries());
        entries.iter().filter(|entry| wanted(entry)).map(|entry| entry.id).collect()
    }

    fn act(&self, dice: &mut Dice, log: ObjectId) -> Act {
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
            5..=8 => revoke(target, &self.cuts(dice, log, target)),
            9 => Act::Leave {},
            10 if dice.below(4) == 0 => Act::Rotate { root: root(200 + dice.below(10) as u8).public() },
            10 => Act::Away { device: target.into() },
            _ => Act::Keys { seal: crate::seal::SealPublic([dice.below(3) as u8; 32]), generation: 1 },
        }
    }

    fn cuts(&self, dice: &mut Dice, log: ObjectId, target: Holder) -> Vec<(ObjectId, OpId)> {
        let is_mesh = log != self.object;
        let mut cuts = Vec::new();
        for other in self.logs().into_iter().filter(|other| is_mesh || *other == log) {
            for signer in self.signers() {
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
    fn step(&mut self, dice: &mut Dice) -> Option<OpId> {
        let log = dice.one(&self.logs())?;
        let (by, via, dev) = self.author(dice, log)?;
        let own = self.ids(log, |entry| entry.author() == by.public());
        let prev = match dice.below(5) {
            0 if dice.below(3) == 0 => None,
            0 => dice.one(&own),
            _ => own.last().copied(),
        };
        let act = self.act(dice, log);
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

fn from_scratch(statements: &[Signed]) -> Control {
    let mut control = Control::new();
    for signed in statements {
        assert!(matches!(control.adopt(signed.clone()), Ok(Inserted::Added(_))));
    }
    control
}

/// Delivers in a random order, geneses aside, with bounded retries as a sync would.
fn shuffled(statements: &[Signed], dice: &mut Dice) -> Control {
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
                let _ = verdict(&control);
            }
        }
        rest = again;
    }
    assert!(rest.is_empty());
    assert_eq!(control.waiting(), 0);
    control
}

/// Every live grant leads to the apex through standing, attenuating grants signed by their holders.
fn live_grants_are_traceable(control: &Control) {
    for log in control.logs() {
        let evaluation = control.evaluation(log.id()).unwrap();
        let standing: BTreeSet<OpId> = evaluation.standing(log).map(Entry::id).collect();
        for id in evaluation.order.iter().filter(|id| evaluation.nodes[id].is_live()) {
            let mut entry = log.get(*id).unwrap();
            loop {
                assert!(standing.contains(&entry.id));
                let Act::Grant { role, .. } = entry.op.act else { break };
                let Some(via) = log.get(entry.op.via) else {
                    assert_eq!(entry.op.via, log.apex());
                    break;
                };
                if let Act::Grant { to, role: above, .. } = via.op.act {
                    assert!(above.may_grant(role));
                    assert_eq!(entry.holder(), to);
                }
                entry = via;
            }
        }
    }
}

/// All that a live grant signs, and its role permits, stands; in an object, by devices never cut.
fn the_uncut_is_not_lost(control: &Control) {
    for log in control.logs().filter(|log| log.is_mesh()) {
        let evaluation = control.evaluation(log.id()).unwrap();
        let standing: BTreeSet<OpId> = evaluation.standing(log).map(Entry::id).collect();
        for id in evaluation.order.iter().filter(|id| evaluation.nodes[id].is_live()) {
            for entry in log.under(*id).iter().map(|position| &log.entries()[*position]) {
                let permitted = evaluate::permits(evaluation.nodes[id].role, &entry.op.act);
                assert_eq!(standing.contains(&entry.id), permitted);
            }
        }
    }
}

/// What one more operation may change.
fn changes_are_monotone(before: &Control, after: &Control, added: OpId) {
    let (was, is) = (live(before), live(after));
    let (old, new) = (verdict(before), verdict(after));
    let log = after.home(added).unwrap();
    match &after.log(log).unwrap().get(added).unwrap().op.act {
        Act::Grant { to, role, .. } => {
            let mut allowed = was.clone();
            allowed.insert((log, *to, *role));
            assert!(was.is_subset(&is) && is.is_subset(&allowed), "a grant changed what others have");
        }
        Act::Revoke { .. } | Act::Leave {} | Act::Rotate { .. } => {
            let voided = old.iter().any(|(log, (standing, nodes, ..))| {
                let held = before.log(*log).unwrap();
                let (standing_now, nodes_now, ..) = &new[log];
                let is_removal = |id: &OpId| {
                    held.get(*id).is_some_and(|entry| {
                        matches!(entry.op.act, Act::Revoke { .. } | Act::Leave {} | Act::Rotate { .. })
                    })
                };
                let is_leave = |id: &OpId| held.get(*id).is_some_and(|entry| matches!(entry.op.act, Act::Leave {}));
                standing.difference(standing_now).any(is_removal)
                    || nodes.iter().any(|(id, node)| {
                        node.effective
                            && node.binds.iter().any(|bind| is_leave(bind) && !nodes_now[id].binds.contains(bind))
                    })
            });
            assert!(voided || is.is_subset(&was), "a removal raised somebody");
        }
        _ => assert_eq!(was, is, "a note changed authority"),
    }
}

/// The rules as a recursive definition, from an operation towards the apex: the judge of the one pass. Meshes only.
struct Definition<'a> {
    log: &'a ControlLog,
    known: BTreeMap<OpId, bool>,
}

impl Definition<'_> {
    fn inside(&self, heads: &[OpId], id: OpId) -> bool {
        let marks = self.log.ancestry(heads);
        self.log.entries().iter().zip(marks).any(|(entry, marked)| marked && entry.id == id)
    }

    fn stands(&mut self, id: OpId) -> bool {
        if let Some(known) = self.known.get(&id) {
            return *known;
        }
        let stands = self.decide(id);
        self.known.insert(id, stands);
        stands
    }

    fn decide(&mut self, id: OpId) -> bool {
        let log = self.log;
        let entry = log.get(id).unwrap();
        let via = log.get(entry.op.via);
        let Some((grant, Act::Grant { to, role, seen })) = via.map(|via| (via, &via.op.act)) else {
            let rotations: Vec<&Entry> = log
                .entries()
                .iter()
                .filter(|other| other.op.via == entry.op.via && matches!(other.op.act, Act::Rotate { .. }))
                .collect();
            let is_first = |one: &Entry| !rotations.iter().any(|o| o.id != one.id && self.inside(&[one.id], o.id));
            let kept = rotations.iter().filter(|one| is_first(one)).all(|one| self.inside(&[one.id], id));
            return kept && via.is_none_or(|rotation| self.stands(rotation.id));
        };
        if !self.stands(grant.id) || !evaluate::permits(*role, &entry.op.act) {
            return false;
        }
        let rank = log.grant_rank(grant);
        let mut cuts = Vec::new();
        for other in log.entries() {
            let binding = matches!(&other.op.act, Act::Revoke { to: target, .. } if target == to)
                && other.rank < rank
                && !(seen.contains(&other.id) && grant.rank <= other.rank);
            if binding && self.stands(other.id) {
                cuts.push(other);
            }
        }
        let uncut =
            |definition: &Self, id| cuts.iter().all(|cut| definition.inside(cut.op.cut_operations(log.id()), id));
        let leaves = log.under(grant.id).iter().map(|position| &log.entries()[*position]);
        uncut(self, id)
            && leaves
                .filter(|leave| matches!(leave.op.act, Act::Leave {}) && uncut(self, leave.id))
                .all(|leave| self.inside(&[leave.id], id))
    }
}

fn one_pass_meets_the_definition(control: &Control) {
    for log in control.logs().filter(|log| log.is_mesh()) {
        let evaluation = control.evaluation(log.id()).unwrap();
        let mut definition = Definition { log, known: BTreeMap::new() };
        for (entry, stands) in log.entries().iter().zip(&evaluation.standing) {
            assert_eq!(definition.stands(entry.id), *stands);
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
                let _ = verdict(&history.control);
            }
        }
        let expected = verdict(&history.control);
        prop_assert_eq!(&verdict(&from_scratch(&history.statements)), &expected);
        for _ in 0..3 {
            prop_assert_eq!(&verdict(&shuffled(&history.statements, &mut dice)), &expected);
        }
    }

    #[test]
    fn every_step_of_a_hostile_history_keeps_the_promises(seed: u64, steps in 1..40_usize) {
        let mut dice = Dice::new(seed);
        let mut history = History::new();
        let mut before = from_scratch(&history.statements);
        for _ in 0..steps {
            let Some(added) = history.step(&mut dice) else { continue };
            live_grants_are_traceable(&history.control);
            the_uncut_is_not_lost(&history.control);
            one_pass_meets_the_definition(&history.control);
            changes_are_monotone(&before, &history.control, added);
            let last = history.statements.last().cloned();
            prop_assert_eq!(last.map(|signed| before.insert(signed)), Some(Ok(Inserted::Added(vec![added]))));
        }
    }
}
