//! The rules of the evaluation as a recursive definition, from an operation towards the apex: slow, and written apart
//! from the one pass that it judges. Each rule can be left out, to show that the judges miss it.

use super::*;

/// A rule that is left out, or replaced by a simpler one that does not do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rule {
    /// A grant carries no more than its `via` may give.
    Attenuation,
    /// A cut names an operation, not a place in the chain.
    CutByName,
    /// Nothing stands in a log that a revocation does not list.
    Unlisted,
    /// The revocations of a device bind it in objects.
    DeviceCuts,
    /// A fork does not cut a chain.
    Forks,
    /// Rank is that of the grant, not the best of its holder.
    GrantRank,
    /// A shorter path is senior.
    ShorterFirst,
    /// A revocation is healed by equals and seniors only.
    HealByRank,
    /// A revocation that is named as seen is healed.
    Heal,
}

/// What is found out about one log.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Findings {
    pub standing: BTreeSet<OpId>,
    pub grants: BTreeMap<OpId, evaluate::Node>,
    pub frozen: bool,
}

pub type Verdict = BTreeMap<ObjectId, Findings>;

/// The verdict of the code under test.
pub fn evaluated(control: &Control) -> Verdict {
    let of_log = |log: &ControlLog| {
        let evaluation = control.evaluation(log.id()).unwrap();
        let standing = evaluation.standing(log).map(Entry::id).collect();
        let grants = evaluation.order.iter().map(|id| (*id, evaluation.nodes[id].clone())).collect();
        (log.id(), Findings { standing, grants, frozen: evaluation.frozen })
    };
    control.logs().map(of_log).collect()
}

/// The verdict of the definition.
pub fn defined(control: &Control, off: Option<Rule>) -> Verdict {
    let mut definition = Definition { control, off, stands: BTreeMap::new(), cuts: BTreeMap::new() };
    control.logs().map(|log| (log.id(), definition.findings(log))).collect()
}

/// The path of grants from the apex: of each the number of roots before its own, its seq and its id.
pub type Path = Vec<(usize, u64, OpId)>;

pub fn path(log: &ControlLog, via: OpId) -> Path {
    let Some(entry) = log.get(via).filter(|entry| !is_rotation(entry)) else {
        return Vec::new();
    };
    let mut path = path(log, entry.op.via);
    let roots = if path.is_empty() { rotations(log, entry.op.via) } else { 0 };
    path.push((roots, entry.op.seq, entry.id));
    path
}

fn rotations(log: &ControlLog, via: OpId) -> usize {
    std::iter::successors(log.get(via), |entry| log.get(entry.op.via)).count()
}

/// Whether a grant with one path is senior to a grant with another.
pub fn is_senior(one: &Path, other: &Path) -> bool {
    (one.len(), one) < (other.len(), other)
}

struct Definition<'c> {
    control: &'c Control,
    off: Option<Rule>,
    stands: BTreeMap<OpId, bool>,
    /// What a revocation lets stand in a log.
    cuts: BTreeMap<(OpId, ObjectId), BTreeSet<OpId>>,
}

impl<'c> Definition<'c> {
    fn findings(&mut self, log: &'c ControlLog) -> Findings {
        let standing: BTreeSet<OpId> = log.entries().iter().map(Entry::id).filter(|id| self.stands(log, *id)).collect();
        let mut grants = BTreeMap::new();
        for entry in log.entries() {
            let Act::Grant { to, role, .. } = entry.op.act else { continue };
            let effective = standing.contains(&entry.id);
            let mut binds = Vec::new();
            if effective {
                binds = self.revocations(log, entry);
                binds.extend(self.leaves(log, entry, &binds.clone()));
                binds.sort();
            }
            grants.insert(entry.id, evaluate::Node { holder: to, role, effective, binds });
        }
        let apex_of = |via: OpId| via == log.apex() || standing.contains(&via);
        let mut vias = log.entries().iter().filter(|entry| is_rotation(entry)).map(|entry| entry.op.via);
        let frozen = vias.any(|via| apex_of(via) && first_rotations(log, via).len() > 1);
        Findings { standing, grants, frozen }
    }

    fn stands(&mut self, log: &'c ControlLog, id: OpId) -> bool {
        if let Some(known) = self.stands.get(&id) {
            return *known;
        }
        let stands = self.decide(log, log.get(id).unwrap());
        self.stands.insert(id, stands);
        stands
    }

    fn decide(&mut self, log: &'c ControlLog, entry: &'c Entry) -> bool {
        if !self.passes(log, entry) {
            return false;
        }
        let Some(grant) = log.get(entry.op.via) else {
            return kept_by_rotations(log, entry);
        };
        let Act::Grant { role, .. } = grant.op.act else {
            return is_rotation(grant) && kept_by_rotations(log, entry) && self.stands(log, grant.id);
        };
        let attenuated = self.off != Some(Rule::Attenuation) || !matches!(entry.op.act, Act::Grant { .. });
        if !self.stands(log, grant.id) || (attenuated && !evaluate::permits(role, &entry.op.act)) {
            return false;
        }
        if self.off == Some(Rule::Forks) && is_past_a_fork(log, entry) {
            return false;
        }
        let binds = self.revocations(log, grant);
        let leaves = self.leaves(log, grant, &binds);
        binds.iter().all(|revocation| self.inside(*revocation, log, entry))
            && leaves.iter().all(|leave| precedes_or_is(log, entry.id, *leave))
    }

    /// Whether the author's own mesh stands behind an operation of an object's log.
    fn passes(&mut self, log: &'c ControlLog, entry: &'c Entry) -> bool {
        if log.is_mesh() {
            return true;
        }
        let mesh = self.control.home(entry.op.dev).and_then(|home| self.control.log(home)).unwrap();
        if !self.stands(mesh, entry.op.dev) {
            return false;
        }
        let binds = self.revocations(mesh, mesh.get(entry.op.dev).unwrap());
        self.off == Some(Rule::DeviceCuts) || binds.iter().all(|revocation| self.inside(*revocation, log, entry))
    }

    /// The standing revocations that bind a grant.
    fn revocations(&mut self, log: &'c ControlLog, grant: &'c Entry) -> Vec<OpId> {
        let Act::Grant { to, seen, .. } = &grant.op.act else { return Vec::new() };
        let mut own = path(log, grant.id);
        if self.off == Some(Rule::GrantRank) {
            let theirs =
                log.entries().iter().filter(|e| matches!(&e.op.act, Act::Grant { to: other, .. } if other == to));
            own = theirs.map(|entry| path(log, entry.id)).min_by(|a, b| (a.len(), a).cmp(&(b.len(), b))).unwrap_or(own);
        }
        let granter = path(log, grant.op.via);
        let mut binds = Vec::new();
        for entry in log.entries() {
            if !matches!(&entry.op.act, Act::Revoke { to: target, .. } if target == to) {
                continue;
            }
            let theirs = path(log, entry.op.via);
            let may_heal = self.off == Some(Rule::HealByRank) || !self.senior(&theirs, &granter);
            let healed = self.off != Some(Rule::Heal) && seen.contains(&entry.id) && may_heal;
            if self.senior(&theirs, &own) && !healed && self.stands(log, entry.id) {
                binds.push(entry.id);
            }
        }
        binds
    }

    fn senior(&self, one: &Path, other: &Path) -> bool {
        if self.off == Some(Rule::ShorterFirst) { one < other } else { is_senior(one, other) }
    }

    /// Where the holder has given up a grant.
    fn leaves(&mut self, log: &'c ControlLog, grant: &Entry, binds: &[OpId]) -> Vec<OpId> {
        let mut leaves = Vec::new();
        for position in log.under(grant.id) {
            let entry = &log.entries()[*position];
            let inside = binds.iter().all(|revocation| self.inside(*revocation, log, entry));
            if matches!(entry.op.act, Act::Leave {}) && inside && self.passes(log, entry) {
                leaves.push(entry.id);
            }
        }
        leaves
    }

    /// Whether a revocation lets an operation stand.
    fn inside(&mut self, revocation: OpId, log: &ControlLog, entry: &Entry) -> bool {
        let home = self.control.home(revocation).and_then(|home| self.control.log(home)).unwrap();
        let heads = home.get(revocation).unwrap().op.cut_operations(log.id());
        match self.off {
            Some(Rule::Unlisted) if heads.is_empty() => return true,
            Some(Rule::CutByName) => {
                let mut heads = heads.iter().filter_map(|head| log.get(*head));
                return heads.any(|head| head.author() == entry.author() && entry.op.seq <= head.op.seq);
            }
            _ => {}
        }
        let kept = self.cuts.entry((revocation, log.id())).or_insert_with(|| kept(log, heads));
        kept.contains(&entry.id)
    }
}

/// The given operations and those before them in their chains.
pub fn kept(log: &ControlLog, heads: &[OpId]) -> BTreeSet<OpId> {
    let before = |entry: &&Entry| log.get(entry.op.prev);
    heads.iter().flat_map(|head| std::iter::successors(log.get(*head), before)).map(Entry::id).collect()
}

fn precedes_or_is(log: &ControlLog, id: OpId, later: OpId) -> bool {
    kept(log, &[later]).contains(&id)
}

fn is_rotation(entry: &Entry) -> bool {
    matches!(entry.op.act, Act::Rotate { .. })
}

fn first_rotations(log: &ControlLog, via: OpId) -> Vec<OpId> {
    let all: Vec<OpId> = log.entries().iter().filter(|e| e.op.via == via && is_rotation(e)).map(Entry::id).collect();
    let is_first = |id: &OpId| all.iter().all(|other| other == id || !precedes_or_is(log, *other, *id));
    all.iter().copied().filter(is_first).collect()
}

fn kept_by_rotations(log: &ControlLog, entry: &Entry) -> bool {
    first_rotations(log, entry.op.via).iter().all(|rotation| precedes_or_is(log, entry.id, *rotation))
}

fn is_past_a_fork(log: &ControlLog, entry: &Entry) -> bool {
    let own = || log.entries().iter().filter(|other| other.author() == entry.author());
    own().any(|one| one.op.seq <= entry.op.seq && own().any(|other| other.id != one.id && other.op.seq == one.op.seq))
}
