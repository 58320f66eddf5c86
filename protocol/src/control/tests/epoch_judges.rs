//! What must hold of key epochs among devices that hold different parts of the logs. In half of the runs one of them
//! is malicious: it mints and seals rubbish.

use std::cell::Cell;

use super::{
    histories::{Dice, cases, copied},
    *,
};
use crate::{
    id::EpochId,
    seal::{Convergence, EpochKey, SealKey},
};
use epoch::Minting;

/// What is promised.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Promise {
    /// No device writes under an epoch that one can open whom it knows to be out.
    Secret,
    /// No device writes under an epoch that it cannot open.
    Held,
    /// When all is delivered, it ends.
    Rest,
    /// At rest everybody can write.
    Able,
    /// At rest all choose one epoch.
    Agreed,
    /// At rest all can read what those who are members wrote.
    Readable,
}

/// What honest devices leave out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rule {
    /// Those to whom an epoch was handed must be readers.
    Recipients,
    /// So must those who can open a newer epoch that carries its secret.
    Wrapped,
    /// An epoch must be open to the writer.
    Openable,
    /// Epochs are sealed to newcomers.
    Supplements,
    /// Who cannot open a seal publishes the next generation of its key.
    Complaints,
}

#[derive(Debug, Default)]
struct Tally {
    writes: Cell<u64>,
    others_out: Cell<u64>,
    epochs: Cell<u64>,
    supplements: Cell<u64>,
    complaints: Cell<u64>,
    rubbish: Cell<u64>,
    removals: Cell<u64>,
    readings: Cell<u64>,
    fallbacks: Cell<u64>,
}

impl Tally {
    fn counts(&self) -> [(&'static str, u64); 9] {
        [
            ("writes", self.writes.get()),
            ("writes while others were out", self.others_out.get()),
            ("epochs minted", self.epochs.get()),
            ("supplements", self.supplements.get()),
            ("complaints", self.complaints.get()),
            ("rubbish minted or sealed", self.rubbish.get()),
            ("removals", self.removals.get()),
            ("epochs read at rest", self.readings.get()),
            ("writes under another than the newest epoch", self.fallbacks.get()),
        ]
    }
}

fn add(count: &Cell<u64>) {
    count.set(count.get() + 1);
}

type Judged<T> = Result<T, (Promise, String)>;

/// A device with all that it holds.
struct Member {
    number: u8,
    seal: SealKey,
    keyring: Keyring,
    control: Control,
    /// The epochs under which it wrote.
    wrote: BTreeSet<EpochId>,
}

impl Member {
    fn id(&self) -> DeviceId {
        device(self.number).device_id()
    }

    fn holds(&self, log: ObjectId, epoch: EpochId) -> bool {
        self.keyring.key(log, epoch).is_some()
    }

    /// How many operations it holds.
    fn operations(&self) -> usize {
        self.control.logs().map(ControlLog::len).sum()
    }

    fn sign(&mut self, log: ObjectId, act: Act) {
        let signed = self.control.sign(&device(self.number), log, act).unwrap();
        assert!(matches!(self.control.insert_operation(signed), Ok(Inserted::Added(_))));
    }
}

struct World<'a> {
    members: Vec<Member>,
    mesh: ObjectId,
    object: ObjectId,
    /// The one of both whose epochs are judged.
    log: ObjectId,
    malicious: Option<usize>,
    off: Option<Rule>,
    dice: Dice,
    tally: &'a Tally,
}

impl<'a> World<'a> {
    /// Five devices; the first, which founded the mesh, and the second are admins by the root.
    fn new(seed: u64, off: Option<Rule>, tally: &'a Tally) -> Self {
        let mut dice = Dice::new(seed);
        let mut control = Control::new();
        let founder = device(1);
        let (mesh, statements) = create_mesh(&mut rng(1), &root(100), &founder, &seal_of(1)).unwrap();
        let admin = control.sign_root_after(statements, mesh);
        let (object, statements) = control.create_object(&mut rng(2), &founder, mesh, 1).unwrap();
        for signed in statements.into_iter().chain([admin]) {
            assert!(matches!(control.adopt(signed), Ok(Inserted::Added(_))));
        }
        let member = |number| Member {
            number,
            seal: seal_of(number),
            keyring: Keyring::new(),
            control: copied(&control),
            wrote: BTreeSet::new(),
        };
        let (mesh, malicious) = (ObjectId::from(mesh), (dice.below(2) == 0).then_some(3));
        let log = [mesh, object][dice.below(2)];
        Self { members: (1..=5).map(member).collect(), mesh, object, log, malicious, off, dice, tally }
    }

    fn is_reader(&self, by: usize, device: usize) -> bool {
        let control = &self.members[by].control;
        control.role(self.mesh, self.members[device].id()).is_some_and(|role| role >= Role::Edit)
    }

    fn is_honest(&self, member: usize) -> bool {
        self.malicious != Some(member)
    }

    fn random(&mut self) -> SeedRng {
        SeedRng::new(self.dice.bytes())
    }

    /// An admin lets somebody in, or out.
    fn administer(&mut self, by: usize) {
        let target = 1 + self.dice.below(4);
        let mut random = self.random();
        let (id, mesh) = (self.members[target].id(), self.mesh);
        let own = self.members[by].control.role(mesh, self.members[by].id());
        if own != Some(Role::Own) || target == by {
            return;
        }
        let control = &self.members[by].control;
        let act = if control.role(mesh, id).is_some() {
            if target == 1 && self.dice.below(3) > 0 {
                return;
            }
            add(&self.tally.removals);
            control.revocation(&mut random, id, &BTreeMap::new())
        } else {
            let role = [Role::Own, Role::Own, Role::Edit, Role::Edit, Role::Edit, Role::Read][self.dice.below(6)];
            grant(id.into(), role, &control.revocations(mesh, id.into()))
        };
        self.members[by].sign(mesh, act);
    }

    /// Hands on what the other lacks; in part, if so wanted.
    fn deliver(&mut self, from: usize, to: usize, in_part: bool) {
        for log in [self.mesh, self.object] {
            let heads = self.members[to].control.log(log).unwrap().heads();
            let missing = self.members[from].control.log(log).unwrap().missing(&heads);
            let count = if in_part { self.dice.below(missing.len() + 1) } else { missing.len() };
            let control = &mut self.members[to].control;
            for signed in missing.into_iter().take(count) {
                if !control.contains(OpId(signed.id())) {
                    assert!(control.insert_operation(signed).is_ok());
                }
            }
        }
    }

    /// What a node does for its keys. Returns whether it has signed anything.
    fn keep_keys(&mut self, at: usize) -> Judged<bool> {
        let (log, mut random) = (self.log, self.random());
        let member = &mut self.members[at];
        let (id, held) = (member.id(), member.operations());
        member.control.open_epochs(log, id, &member.seal, &mut member.keyring);
        if !self.is_reader(at, at) {
            return Ok(false);
        }
        self.publish(at);
        match self.choice(at) {
            Some(epoch) => self.write(at, epoch)?,
            None => {
                let member = &mut self.members[at];
                if let Ok(act) = member.control.mint_epoch(&mut random, log, &member.keyring) {
                    add(&self.tally.epochs);
                    member.sign(log, act);
                }
            }
        }
        let member = &mut self.members[at];
        if self.off != Some(Rule::Supplements) {
            for act in member.control.supplement(&mut random, log, &member.keyring).unwrap() {
                add(&self.tally.supplements);
                member.sign(log, act);
            }
        }
        Ok(member.operations() > held)
    }

    /// The malicious one opens all that it is given. Returns whether it asked for it.
    fn take(&mut self, at: usize) -> bool {
        let log = self.log;
        let member = &mut self.members[at];
        let (id, held) = (member.id(), member.operations());
        member.control.open_epochs(log, id, &member.seal, &mut member.keyring);
        if self.is_reader(at, at) {
            self.publish(at);
        }
        self.members[at].operations() > held
    }

    /// Publishes the seal key: once, and again when a seal does not open.
    fn publish(&mut self, at: usize) {
        let (log, mesh, complains) = (self.log, self.mesh, self.off != Some(Rule::Complaints));
        let member = &mut self.members[at];
        let (id, seal) = (member.id(), member.seal.public());
        let known =
            member.control.readers(mesh).iter().find(|reader| reader.device == id).map(|reader| reader.generation);
        let unopened = member.control.is_shut_out(log, id, &member.keyring);
        if known.is_none() || (unopened && complains) {
            if known.is_some() {
                add(&self.tally.complaints);
            }
            member.sign(mesh, Act::Keys { seal, generation: known.unwrap_or(0) + 1 });
        }
    }

    /// The epoch to write under, with all rules or without one.
    fn choice(&self, at: usize) -> Option<EpochId> {
        let (member, log) = (&self.members[at], self.log);
        match self.off {
            Some(Rule::Recipients) => self.newest(at, |_| true),
            Some(Rule::Wrapped) => {
                let reading = &member.control.evaluation(log)?.roster.reading;
                let handed = handed_out(&member.control, log);
                self.newest(at, |id| {
                    let mut seals = handed.iter().filter(|(_, other, _)| *other == id).flat_map(|(.., seals)| *seals);
                    seals.all(|sealed| reading.contains(&sealed.device))
                })
            }
            Some(Rule::Openable) => member.control.evaluation(log)?.epochs.first().copied(),
            _ => member.control.write_epoch(log, &member.keyring),
        }
    }

    /// The newest of the standing epochs that a device holds and that are good enough.
    fn newest(&self, at: usize, good: impl Fn(EpochId) -> bool) -> Option<EpochId> {
        let (member, log) = (&self.members[at], self.log);
        let standing: BTreeSet<OpId> =
            member.control.evaluation(log)?.standing(member.control.log(log)?).map(Entry::id).collect();
        let mut known = known_epochs(&member.control, log);
        known.retain(|(op, id, _)| standing.contains(op) && member.holds(log, *id) && good(*id));
        known.into_iter().max_by_key(|(_, id, n)| (*n, std::cmp::Reverse(*id))).map(|(_, id, _)| id)
    }

    fn write(&mut self, at: usize, epoch: EpochId) -> Judged<()> {
        let (member, log) = (&self.members[at], self.log);
        add(&self.tally.writes);
        if !member.holds(log, epoch) {
            return Err((Promise::Held, format!("device {} cannot open what it writes under", member.number)));
        }
        for (other, out) in self.members.iter().enumerate() {
            if other == at || self.is_reader(at, other) {
                continue;
            }
            add(&self.tally.others_out);
            let mut theirs = Keyring::new();
            member.control.open_epochs(log, out.id(), &out.seal, &mut theirs);
            let minted = handed_out(&member.control, log).into_iter();
            let minted = minted.filter(|(entry, id, _)| *id == epoch && matches!(entry.op.act, Act::Epoch { .. }));
            if theirs.key(log, epoch).is_some()
                || minted.into_iter().any(|(entry, ..)| entry.author() == out.id().into())
            {
                let broken = format!("device {} writes under what {} can open, who is out", member.number, out.number);
                return Err((Promise::Secret, broken));
            }
        }
        let newest = member.keyring.epochs(log).count();
        if newest > 1 && member.control.evaluation(log).unwrap().epochs.first() != Some(&epoch) {
            add(&self.tally.fallbacks);
        }
        self.members[at].wrote.insert(epoch);
        Ok(())
    }

    /// The malicious one, member or not, mints or seals, truly or not.
    fn misbehave(&mut self, at: usize) {
        self.take(at);
        let (log, mut random) = (self.log, self.random());
        let readers = self.some_devices(at);
        let member = &self.members[at];
        let (keyring, known) = (member.keyring.clone(), known_epochs(&member.control, log));
        let held: Vec<_> = known.iter().filter(|(_, id, _)| keyring.key(log, *id).is_some()).copied().collect();
        let supplemented = self.dice.one(&held).filter(|_| self.dice.below(3) == 0);
        let rubbish = EpochKey::generate(&mut random);
        let secret = |id: EpochId| keyring.key(log, id).unwrap_or(&rubbish);
        let newest = || known.iter().rev().take(limits::EPOCH_PARENTS);
        let parents: Vec<_> = newest().map(|(op, id, _)| (*op, *id, secret(*id))).collect();
        let n = 1 + newest().map(|(.., n)| *n).max().unwrap_or(0);
        let key = supplemented.map_or(&rubbish, |(_, id, _)| secret(id));
        let convergence = keyring.convergence(log).filter(|_| self.dice.below(4) > 0).cloned();
        let convergence = convergence.unwrap_or_else(|| Convergence::generate(&mut random));
        let minting = Minting { object: log, n, key, convergence: &convergence };
        let Ok(Act::Epoch { id, parents, mut seals, .. }) = minting.act(&mut random, &readers, &parents) else {
            return;
        };
        for sealed in seals.iter_mut().filter(|_| self.dice.below(2) == 0) {
            sealed.sealed[40] ^= 1;
        }
        let act = match supplemented {
            Some((epoch, ..)) => Act::Seal { epoch, seals },
            None => Act::Epoch { id, n, parents, seals },
        };
        self.push_by_force(at, act);
    }

    /// Devices to seal to, readers or not.
    fn some_devices(&mut self, by: usize) -> Vec<Reader> {
        let known = self.members[by].control.readers(self.mesh);
        let as_reader = |member: &Member| {
            let unknown = Reader { device: member.id(), seal: member.seal.public(), generation: 1 };
            known.iter().find(|reader| reader.device == member.id()).copied().unwrap_or(unknown)
        };
        self.members.iter().filter(|_| self.dice.below(2) == 0).map(as_reader).collect()
    }

    /// Signs under any grant ever given, after the newest operation.
    fn push_by_force(&mut self, at: usize, act: Act) {
        let (mesh, log) = (self.mesh, self.log);
        let member = &mut self.members[at];
        let holder = Holder::from(member.id());
        let grants = member
            .control
            .log(mesh)
            .unwrap()
            .entries()
            .iter()
            .filter(|entry| matches!(entry.op.act, Act::Grant { to, .. } if to == holder));
        let Some(grant) = self.dice.one(&grants.map(Entry::id).collect::<Vec<_>>()) else { return };
        let (via, dev) = if log == mesh { (grant, NO_OP) } else { (OpId(log.0), grant) };
        let prev = member.control.log(log).unwrap().tip(member.id().into()).map(Entry::id);
        let signed = member.control.write(Signer::Device(member.number), log, prev, via, dev, act);
        if member.control.insert_operation(signed).is_ok() {
            add(&self.tally.rubbish);
        }
    }

    /// Delivers everything and lets all honest devices act until none of them has anything to do.
    fn come_to_rest(&mut self) -> Judged<()> {
        for _ in 0..60 {
            for member in 1..self.members.len() {
                self.deliver(member, 0, false);
            }
            for member in 1..self.members.len() {
                self.deliver(0, member, false);
            }
            let (mut acted, together) = (false, self.dice.below(2) == 0);
            for member in 0..self.members.len() {
                if self.is_honest(member) && (together || !acted) {
                    acted |= self.keep_keys(member)?;
                } else if !self.is_honest(member) {
                    acted |= self.take(member);
                }
            }
            if !acted {
                return Ok(());
            }
        }
        Err((Promise::Rest, "no rest after 60 rounds".into()))
    }

    fn judge_rest(&self) -> Judged<()> {
        let live: Vec<usize> = (0..5).filter(|member| self.is_honest(*member) && self.is_reader(0, *member)).collect();
        let mut chosen = None;
        for at in &live {
            let member = &self.members[*at];
            let epoch = self.choice(*at);
            let epoch = epoch.ok_or_else(|| (Promise::Able, format!("device {} cannot write", member.number)))?;
            if *chosen.get_or_insert(epoch) != epoch {
                return Err((Promise::Agreed, format!("device {} chooses another epoch", member.number)));
            }
            for writer in &live {
                for written in &self.members[*writer].wrote {
                    add(&self.tally.readings);
                    if !member.holds(self.log, *written) {
                        let broken = format!("device {} cannot read what {writer} wrote", member.number);
                        return Err((Promise::Readable, broken));
                    }
                }
            }
        }
        Ok(())
    }

    fn run(&mut self) -> Judged<()> {
        let count = self.members.len();
        for number in 3..=5 {
            if self.dice.below(3) > 0 {
                self.members[0].sign(self.mesh, grant(holder(number), Role::Edit, &[]));
            }
        }
        self.come_to_rest()?;
        for _ in 0..20 + self.dice.below(60) {
            let member = self.dice.below(count);
            match self.dice.below(6) {
                0 => self.administer(member),
                1 => {
                    if let Some(malicious) = self.malicious {
                        self.misbehave(malicious);
                    }
                }
                2 | 3 => {
                    if self.is_honest(member) {
                        self.keep_keys(member)?;
                    }
                }
                _ => {
                    let (to, in_part) = (self.dice.below(count), self.dice.below(3) == 0);
                    self.deliver(member, to, in_part);
                }
            }
        }
        self.come_to_rest()?;
        self.judge_rest()
    }
}

fn seal_of(number: u8) -> SealKey {
    SealKey::from_bytes(&[number; 32])
}

/// The epochs of a log: the operation that mints, the id, the number.
fn known_epochs(control: &Control, log: ObjectId) -> Vec<(OpId, EpochId, u32)> {
    let minted = control.log(log).unwrap().entries().iter().filter_map(|entry| match entry.op.act {
        Act::Epoch { id, n, .. } => Some((entry.id, id, n)),
        _ => None,
    });
    minted.collect()
}

/// The operations that hand out the key of an epoch.
fn handed_out(control: &Control, log: ObjectId) -> Vec<(&Entry, EpochId, &[SealedKey])> {
    let log = control.log(log).unwrap();
    let of_entry = |entry: &'_ Entry| match &entry.op.act {
        Act::Epoch { id, .. } => Some(*id),
        _ => None,
    };
    let handed = log.entries().iter().filter_map(|entry| match &entry.op.act {
        Act::Epoch { id, seals, .. } => Some((entry, *id, seals.as_slice())),
        Act::Seal { epoch, seals } => Some((entry, of_entry(log.get(*epoch)?)?, seals.as_slice())),
        _ => None,
    });
    handed.collect()
}

impl Control {
    /// Takes the statements of a new mesh and signs as its root that device 2 is an admin.
    fn sign_root_after(&mut self, statements: Vec<Signed>, mesh: MeshId) -> Signed {
        for signed in statements {
            assert!(matches!(self.adopt(signed), Ok(Inserted::Added(_))));
        }
        self.sign_root(&root(100), mesh, grant(holder(2), Role::Own, &[])).unwrap()
    }
}

/// By promise how often it was broken, and a case.
type Broken = BTreeMap<Promise, (u64, String)>;

fn hold_court(seeds: std::ops::Range<u64>, off: Option<Rule>, tally: &Tally) -> Broken {
    let mut broken = Broken::new();
    for seed in seeds {
        if let Err((promise, how)) = World::new(seed, off, tally).run() {
            broken.entry(promise).or_insert((0, format!("seed {seed}: {how}"))).0 += 1;
        }
    }
    broken
}

#[test]
fn epochs_stay_secret_and_come_to_be_shared() {
    let tally = Tally::default();
    let broken = hold_court(cases(300), None, &tally);
    for (what, count) in tally.counts() {
        println!("{what}: {count}");
    }
    assert_eq!(broken, Broken::new());
    for (what, count) in tally.counts() {
        assert!(count > 0, "nothing was judged: {what}");
    }
}

#[test]
fn without_a_rule_a_promise_about_epochs_is_broken() {
    let expected = [
        (Rule::Recipients, Promise::Secret),
        (Rule::Wrapped, Promise::Secret),
        (Rule::Openable, Promise::Held),
        (Rule::Supplements, Promise::Able),
        (Rule::Complaints, Promise::Agreed),
    ];
    for (rule, promise) in expected {
        let tally = Tally::default();
        let found = (0..1_000).any(|seed| hold_court(seed..seed + 1, Some(rule), &tally).contains_key(&promise));
        assert!(found, "no run misses the rule {rule:?} by {promise:?}");
    }
}
