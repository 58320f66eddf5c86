//! What must hold of every evaluation, judged on random hostile histories.

use std::cell::Cell;

use super::{
    definition::{Findings, Rule, Verdict, defined, evaluated, is_senior, kept, path},
    histories::{Dice, History, cases, copied, edited, without},
    *,
};

/// What is promised.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Promise {
    /// The one pass finds what the definition finds.
    Defined,
    /// Every live grant leads to the apex through standing, attenuating grants signed by their holders.
    Traceable,
    /// What a holder signs outside his cuts has no effect.
    CutOff,
    /// All that a live grant signs, and its role permits, stands.
    NothingLost,
    /// One more operation changes only what it is for.
    Monotone,
    /// The root can begin anew and re-admit; seniors can remove juniors.
    Governable,
}

/// A promise broken, and how.
type Judged = Result<(), (Promise, String)>;

fn demand(held: bool, promise: Promise, broken: impl FnOnce() -> String) -> Judged {
    if held { Ok(()) } else { Err((promise, broken())) }
}

/// How often each judge had something to judge.
#[derive(Debug, Default)]
struct Tally {
    sets: Cell<u64>,
    traced: Cell<u64>,
    uncut: Cell<u64>,
    cuts: Cell<u64>,
    cuts_in_objects: Cell<u64>,
    deletions: Cell<u64>,
    removals: Cell<u64>,
    freed: Cell<u64>,
    resets: Cell<u64>,
    readmissions: Cell<u64>,
    exclusions: Cell<u64>,
    frozen: Cell<u64>,
}

impl Tally {
    fn counts(&self) -> [(&'static str, u64); 12] {
        [
            ("sets", self.sets.get()),
            ("live grants traced", self.traced.get()),
            ("operations of live grants", self.uncut.get()),
            ("grants cut", self.cuts.get()),
            ("grants cut in objects", self.cuts_in_objects.get()),
            ("cut operations deleted", self.deletions.get()),
            ("removals that void none", self.removals.get()),
            ("grants freed", self.freed.get()),
            ("new beginnings", self.resets.get()),
            ("re-admissions", self.readmissions.get()),
            ("juniors removed", self.exclusions.get()),
            ("frozen meshes", self.frozen.get()),
        ]
    }
}

fn add(count: &Cell<u64>) {
    count.set(count.get() + 1);
}

/// The judges with the evaluation that they judge.
struct Court<'a> {
    evaluate: &'a dyn Fn(&Control) -> Verdict,
    /// Whether it is held against the definition, too.
    compares: bool,
    tally: &'a Tally,
}

fn live(verdict: &Verdict) -> BTreeSet<(ObjectId, Holder, Role)> {
    let of_log = |(log, findings): (&ObjectId, &Findings)| {
        let live: Vec<_> = live_grants(findings).map(|(_, node)| (*log, node.holder, node.role)).collect();
        live
    };
    verdict.iter().flat_map(of_log).collect()
}

fn live_grants(findings: &Findings) -> impl Iterator<Item = (OpId, &evaluate::Node)> {
    findings.grants.iter().map(|(id, node)| (*id, node)).filter(|(_, node)| node.is_live())
}

fn is_removal(entry: &Entry) -> bool {
    matches!(entry.op.act, Act::Revoke { .. } | Act::Leave {} | Act::Rotate { .. })
}

impl Court<'_> {
    /// All judges but the costly one.
    fn judge(
        &self,
        before: (&Control, &Verdict),
        control: &Control,
        added: OpId,
    ) -> Result<Verdict, (Promise, String)> {
        let verdict = (self.evaluate)(control);
        add(&self.tally.sets);
        let defined = !self.compares || verdict == defined(control, None);
        demand(defined, Promise::Defined, || "one pass and definition differ".into())?;
        self.traceable(control, &verdict)?;
        self.nothing_is_lost(control, &verdict)?;
        self.cut_off(control, &verdict)?;
        self.monotone(before, (control, &verdict), added)?;
        Ok(verdict)
    }

    fn traceable(&self, control: &Control, verdict: &Verdict) -> Judged {
        for log in control.logs() {
            let findings = &verdict[&log.id()];
            for (live, _) in live_grants(findings) {
                add(&self.tally.traced);
                let broken = || format!("{live} lives on what gives no such right");
                let mut entry = log.get(live).unwrap();
                loop {
                    demand(findings.standing.contains(&entry.id), Promise::Traceable, broken)?;
                    let Act::Grant { role, .. } = entry.op.act else { break };
                    let Some(via) = log.get(entry.op.via) else {
                        demand(entry.op.via == log.apex(), Promise::Traceable, broken)?;
                        break;
                    };
                    if let Act::Grant { to, role: above, .. } = via.op.act {
                        let attenuates = above.may_grant(role) && entry.holder() == to;
                        demand(attenuates, Promise::Traceable, broken)?;
                    }
                    entry = via;
                }
            }
        }
        Ok(())
    }

    /// In the log of an object only what its authors' meshes never cut is looked at.
    fn nothing_is_lost(&self, control: &Control, verdict: &Verdict) -> Judged {
        for log in control.logs() {
            let findings = &verdict[&log.id()];
            for (live, node) in live_grants(findings) {
                for entry in log.under(live).iter().map(|position| &log.entries()[*position]) {
                    let device = control.home(entry.op.dev).map(|mesh| &verdict[&mesh].grants[&entry.op.dev]);
                    if device.is_none_or(evaluate::Node::is_live) {
                        add(&self.tally.uncut);
                        let permitted = evaluate::permits(node.role, &entry.op.act);
                        let stands = findings.standing.contains(&entry.id);
                        demand(stands == permitted, Promise::NothingLost, || format!("{} under {live}", entry.id))?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Replaces what a holder signed outside the cuts of a grant by operations without effect, and deletes it where
    /// nothing else hangs on it.
    fn cut_off(&self, control: &Control, verdict: &Verdict) -> Judged {
        for log in control.logs() {
            for (grant, node) in verdict[&log.id()].grants.iter().filter(|(_, node)| node.effective) {
                let outside = outside_the_cuts(control, log, *grant, node);
                if outside.is_empty() {
                    continue;
                }
                add(if log.is_mesh() { &self.tally.cuts } else { &self.tally.cuts_in_objects });
                let silenced = edited(control, |entry| {
                    if outside.contains(&entry.id) {
                        entry.op.act = Act::Away { device: DeviceId([0; 32]) };
                    }
                });
                let broken = || format!("what was signed under {grant} after its cut has effect");
                demand(same_authority(verdict, &(self.evaluate)(&silenced), &outside), Promise::CutOff, broken)?;
                if with_dependents(control, &outside) == outside {
                    add(&self.tally.deletions);
                    let shorter = without(control, &outside);
                    demand(same_authority(verdict, &(self.evaluate)(&shorter), &outside), Promise::CutOff, broken)?;
                }
            }
        }
        Ok(())
    }

    fn monotone(&self, before: (&Control, &Verdict), after: (&Control, &Verdict), added: OpId) -> Judged {
        let (was, is) = (live(before.1), live(after.1));
        let log = after.0.home(added).unwrap();
        let entry = after.0.log(log).unwrap().get(added).unwrap();
        match &entry.op.act {
            Act::Grant { to, role, .. } => {
                let mut allowed = was.clone();
                allowed.insert((log, *to, *role));
                let held = was.is_subset(&is) && is.is_subset(&allowed);
                demand(held, Promise::Monotone, || "a grant changed what others have".into())?;
                let healed = is.len() > was.len() && passes_a_senior(after, log, entry, *to);
                demand(!healed, Promise::Monotone, || "a junior healed what a senior revoked".into())?;
            }
            _ if is_removal(entry) => {
                if voids_a_removal(before, after.1) {
                    return self.freed(before.1, after.1, true);
                }
                add(&self.tally.removals);
                demand(is.is_subset(&was), Promise::Monotone, || "a removal raised somebody".into())?;
            }
            _ => demand(was == is, Promise::Monotone, || "a note changed authority".into())?,
        }
        self.freed(before.1, after.1, is_removal(entry))
    }

    /// A bound grant becomes free only when a removal has made all that bound it fall.
    fn freed(&self, before: &Verdict, after: &Verdict, by_removal: bool) -> Judged {
        for (log, was) in before {
            let is = &after[log];
            for (grant, node) in was.grants.iter().filter(|(_, node)| node.effective && !node.binds.is_empty()) {
                if is.grants[grant].is_live() {
                    add(&self.tally.freed);
                    let fallen = node.binds.iter().all(|bind| !is.standing.contains(bind));
                    demand(fallen && by_removal, Promise::Monotone, || format!("{grant} was freed"))?;
                }
            }
        }
        Ok(())
    }

    /// What the entitled can do from here.
    fn governable(&self, control: &Control) -> Judged {
        let verdict = (self.evaluate)(control);
        for log in control.logs() {
            if verdict[&log.id()].frozen {
                add(&self.tally.frozen);
                continue;
            }
            if let Some(apex) = at_apex(control, &verdict, log) {
                self.begins_anew(control, log, apex)?;
            }
            self.seniors_remove_juniors(control, &verdict, log)?;
        }
        Ok(())
    }

    fn begins_anew(&self, control: &Control, log: &ControlLog, apex: Authority) -> Judged {
        let mut copy = copied(control);
        let holders: BTreeSet<Holder> = log.entries().iter().filter_map(granted).collect();
        for to in &holders {
            apex.sign(&mut copy, log.id(), revoke(*to, &[]));
        }
        let newcomer = Holder([99; 32]);
        apex.sign(&mut copy, log.id(), grant(newcomer, Role::Own, &[]));
        add(&self.tally.resets);
        let alone = live_in(&(self.evaluate)(&copy), log.id()) == [(newcomer, Role::Own)].into();
        demand(alone, Promise::Governable, || "the apex could not begin anew".into())?;
        let Some(to) = holders.first() else { return Ok(()) };
        let entries = copy.log(log.id()).unwrap().entries().iter();
        let revocations = entries.filter(|entry| matches!(&entry.op.act, Act::Revoke { to: whom, .. } if whom == to));
        let seen: Vec<OpId> = revocations.map(Entry::id).collect();
        apex.sign(&mut copy, log.id(), grant(*to, Role::Edit, &seen));
        add(&self.tally.readmissions);
        let back = live_in(&(self.evaluate)(&copy), log.id()).contains(&(*to, Role::Edit));
        demand(back, Promise::Governable, || "the apex could not re-admit".into())
    }

    fn seniors_remove_juniors(&self, control: &Control, verdict: &Verdict, log: &ControlLog) -> Judged {
        let findings = &verdict[&log.id()];
        for (senior, admin) in live_grants(findings).filter(|(_, node)| node.role == Role::Own) {
            let rank = path(log, senior);
            let Some(by) = under(verdict, log, senior, admin) else { continue };
            let is_junior = |grant: OpId| is_senior(&rank, &path(log, grant));
            let targets: BTreeSet<Holder> = live_grants(findings)
                .filter(|(grant, node)| node.holder != admin.holder && is_junior(*grant))
                .map(|(_, node)| node.holder)
                .collect();
            for to in targets {
                let mut copy = copied(control);
                by.sign(&mut copy, log.id(), revoke(to, &[]));
                add(&self.tally.exclusions);
                let after = (self.evaluate)(&copy);
                let mut left = live_grants(&after[&log.id()]).filter(|(_, node)| node.holder == to);
                let gone = left.all(|(grant, _)| !is_junior(grant));
                demand(gone, Promise::Governable, || format!("{senior} could not remove its junior"))?;
            }
        }
        Ok(())
    }
}

/// Somebody who may sign, and under what.
#[derive(Clone, Copy)]
struct Authority {
    by: Signer,
    via: OpId,
    dev: OpId,
}

impl Authority {
    /// Signs after the author's newest operation, as a node does.
    fn sign(&self, control: &mut Control, log: ObjectId, act: Act) {
        let prev = control.log(log).and_then(|log| log.tip(self.by.public())).map(Entry::id);
        control.push_as(self.by, log, prev, Some(self.via), self.dev, act);
    }
}

fn at_apex(control: &Control, verdict: &Verdict, log: &ControlLog) -> Option<Authority> {
    let Birth::Mesh(genesis) = log.birth() else {
        let owner = MeshId::from(apex_holder(log));
        return device_of(verdict, owner).map(|(by, dev)| Authority { by, via: log.apex(), dev });
    };
    let (mut via, mut root) = (log.apex(), genesis.root);
    let standing = |entry: &&Entry| verdict[&log.id()].standing.contains(&entry.id);
    while let Some((next, successor)) =
        log.entries().iter().filter(standing).filter(|entry| entry.op.via == via).find_map(|entry| match entry.op.act {
            Act::Rotate { root } => Some((entry.id, root)),
            _ => None,
        })
    {
        (via, root) = (next, successor);
    }
    assert_eq!(control.root_state(MeshId(log.id().0), root), Some(RootState::InForce));
    Some(Authority { by: History::who(root)?, via, dev: NO_OP })
}

fn apex_holder(log: &ControlLog) -> Holder {
    match log.birth() {
        Birth::Mesh(genesis) => Holder(genesis.root.0),
        Birth::Object { genesis, .. } => genesis.owner.into(),
    }
}

/// Somebody who can sign under a live grant.
fn under(verdict: &Verdict, log: &ControlLog, via: OpId, node: &evaluate::Node) -> Option<Authority> {
    if log.is_mesh() {
        let by = History::who(PublicKey(node.holder.0))?;
        return Some(Authority { by, via, dev: NO_OP });
    }
    device_of(verdict, node.holder.into()).map(|(by, dev)| Authority { by, via, dev })
}

/// A device of a mesh that may act in objects, with its grant.
fn device_of(verdict: &Verdict, mesh: MeshId) -> Option<(Signer, OpId)> {
    let mut live = live_grants(verdict.get(&mesh.into())?).filter(|(_, node)| node.role >= Role::Edit);
    live.find_map(|(grant, node)| Some((History::who(PublicKey(node.holder.0))?, grant)))
}

fn live_in(verdict: &Verdict, log: ObjectId) -> BTreeSet<(Holder, Role)> {
    live_grants(&verdict[&log]).map(|(_, node)| (node.holder, node.role)).collect()
}

fn granted(entry: &Entry) -> Option<Holder> {
    match entry.op.act {
        Act::Grant { to, .. } => Some(to),
        _ => None,
    }
}

/// What was signed under a grant, or by it as a device grant, and is outside of a cut that binds it.
fn outside_the_cuts(control: &Control, log: &ControlLog, grant: OpId, node: &evaluate::Node) -> BTreeSet<OpId> {
    let revocations = || node.binds.iter().map(|id| &log.get(*id).unwrap().op);
    let cuts: Vec<&ControlOp> = revocations().filter(|op| matches!(op.act, Act::Revoke { .. })).collect();
    let mut outside = BTreeSet::new();
    for other in control.logs() {
        let inside: Vec<_> = cuts.iter().map(|cut| kept(other, cut.cut_operations(other.id()))).collect();
        let signed = other.entries().iter().filter(|entry| entry.op.via == grant || entry.op.dev == grant);
        outside.extend(signed.map(Entry::id).filter(|id| inside.iter().any(|inside| !inside.contains(id))));
    }
    outside
}

/// The operations with all that name them, directly or not.
fn with_dependents(control: &Control, ids: &BTreeSet<OpId>) -> BTreeSet<OpId> {
    let mut gone = ids.clone();
    let names = |entry: &Entry| {
        let mut names = entry.op.names();
        names.insert(entry.op.dev);
        if let Act::Revoke { cuts, .. } = &entry.op.act {
            names.extend(cuts.iter().flat_map(|cut| &cut.operations));
        }
        names
    };
    loop {
        let before = gone.len();
        for entry in control.logs().flat_map(|log| log.entries()) {
            if !names(entry).is_disjoint(&gone) {
                gone.insert(entry.id);
            }
        }
        if gone.len() == before {
            return gone;
        }
    }
}

/// Whether two verdicts let the same stand, some operations aside.
fn same_authority(one: &Verdict, other: &Verdict, aside: &BTreeSet<OpId>) -> bool {
    live(one) == live(other)
        && one.iter().all(|(log, findings)| {
            let others = &other[log];
            findings.frozen == others.frozen
                && findings.standing.difference(aside).eq(others.standing.difference(aside))
        })
}

/// Whether a removal has come to be void, or no longer binds what it did.
fn voids_a_removal(before: (&Control, &Verdict), after: &Verdict) -> bool {
    before.1.iter().any(|(log, was)| {
        let (held, is) = (before.0.log(*log).unwrap(), &after[log]);
        let is_leave = |id: &OpId| matches!(held.get(*id).unwrap().op.act, Act::Leave {});
        was.standing.difference(&is.standing).any(|id| is_removal(held.get(*id).unwrap()))
            || was.grants.iter().any(|(id, node)| {
                node.effective && node.binds.iter().any(|bind| is_leave(bind) && !is.grants[id].binds.contains(bind))
            })
    })
}

/// Whether a standing revocation of the holder is by one who is senior to the granter.
fn passes_a_senior(after: (&Control, &Verdict), log: ObjectId, grant: &Entry, to: Holder) -> bool {
    let (log, findings) = (after.0.log(log).unwrap(), &after.1[&log]);
    let granter = path(log, grant.op.via);
    log.entries().iter().filter(|entry| findings.standing.contains(&entry.id)).any(|entry| {
        matches!(entry.op.act, Act::Revoke { to: target, .. } if target == to)
            && is_senior(&path(log, entry.op.via), &granter)
    })
}

/// Judges every set on the way through some histories. Returns how often each promise was broken; a history ends with
/// the first.
fn hold_court(court: &Court<'_>, seeds: std::ops::Range<u64>) -> Broken {
    let mut broken = Broken::new();
    for seed in seeds {
        if let Err((step, (promise, how))) = judge_history(court, seed) {
            let first = broken.entry(promise).or_insert((0, step, String::new()));
            first.0 += 1;
            if first.2.is_empty() || step < first.1 {
                (first.1, first.2) = (step, format!("seed {seed}, step {step}: {how}"));
            }
        }
    }
    broken
}

/// By promise how often it was broken, and of the shortest case the length and what happened.
type Broken = BTreeMap<Promise, (u64, usize, String)>;

fn judge_history(court: &Court<'_>, seed: u64) -> Result<(), (usize, (Promise, String))> {
    let mut dice = Dice::new(seed);
    let mut history = History::new();
    let length = [10, 20, 20, 60][dice.below(4)];
    let mut before = copied(&history.control);
    let mut verdict = (court.evaluate)(&before);
    for step in 0..length {
        let Some(added) = history.step(&mut dice) else { continue };
        let judged = court.judge((&before, &verdict), &history.control, added);
        verdict = judged.map_err(|broken| (step, broken))?;
        if dice.below(8) == 0 {
            court.governable(&history.control).map_err(|broken| (step, broken))?;
        }
        before = copied(&history.control);
    }
    court.governable(&history.control).map_err(|broken| (length, broken))
}

#[test]
fn every_set_of_a_hostile_history_keeps_the_promises() {
    let tally = Tally::default();
    let court = Court { evaluate: &evaluated, compares: true, tally: &tally };
    let broken = hold_court(&court, cases(150));
    assert_eq!(broken, Broken::new());
    for (what, count) in tally.counts() {
        println!("{what}: {count}");
        assert!(count > 0, "nothing was judged: {what}");
    }
}

#[test]
fn without_a_rule_a_promise_is_broken() {
    let expected = [
        (Rule::Attenuation, Promise::Traceable),
        (Rule::CutByName, Promise::CutOff),
        (Rule::Unlisted, Promise::CutOff),
        (Rule::DeviceCuts, Promise::CutOff),
        (Rule::Forks, Promise::NothingLost),
        (Rule::GrantRank, Promise::Monotone),
        (Rule::HealByRank, Promise::Monotone),
        (Rule::ShorterFirst, Promise::Governable),
        (Rule::Heal, Promise::Governable),
    ];
    for (rule, promise) in expected {
        assert!(misses(rule, promise), "no history misses the rule {rule:?} by {promise:?}");
    }
}

/// Whether a judge finds a rule left out.
fn misses(rule: Rule, promise: Promise) -> bool {
    let tally = Tally::default();
    let evaluate = |control: &Control| defined(control, Some(rule));
    let court = Court { evaluate: &evaluate, compares: false, tally: &tally };
    (0..400).any(|seed| hold_court(&court, seed..seed + 1).contains_key(&promise))
}
