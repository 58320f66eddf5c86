use std::collections::{BTreeMap, BTreeSet};

use meshwork_protocol::{
    id::Incarnation,
    key::DeviceKey,
    limits,
    object::{Dep, Draft, RecordKind},
    seal::SeedRng,
};

use super::*;

const OBJECT: ObjectId = ObjectId([1; 32]);
const PEER: DeviceId = DeviceId([9; 32]);

/// Control logs as a table: operations 1, 2, 3 ... each coming after the one before.
struct Table {
    known: BTreeSet<OpId>,
    readers: BTreeSet<DeviceId>,
    cut: Option<RecordId>,
    keys: BTreeMap<EpochId, EpochKey>,
}

impl Judge for Table {
    fn may_send(&self, peer: &DeviceId, _: &ObjectId) -> bool {
        *peer == PEER
    }
    fn missing_control(&self, header: &Header) -> Vec<OpId> {
        header.control.iter().filter(|op| !self.known.contains(op)).copied().collect()
    }
    fn regresses(&self, _: &ObjectId, newer: &[OpId], older: &[OpId]) -> bool {
        newer.iter().any(|newer| older.iter().any(|older| newer < older))
    }
    fn judge(&self, record: &Verified, reaches: &dyn Fn(RecordId) -> bool) -> Result<Standing, NotAuthorised> {
        if self.readers.contains(&record.author()) {
            return Err(NotAuthorised);
        }
        // The record stands if it comes at or before the cut, so the cut must not come before it.
        let past = self.cut.is_some_and(|cut| !reaches(cut));
        Ok(if past { Standing::Void } else { Standing::Stands })
    }
    fn epoch_key(&self, _: &ObjectId, epoch: &EpochId) -> Option<&EpochKey> {
        self.keys.get(epoch)
    }

    fn replaced(&self, _: &Verified) -> Option<BTreeSet<ChainId>> {
        None
    }
}

fn op(n: u8) -> OpId {
    OpId([n; 32])
}

fn key(n: u8) -> DeviceKey {
    DeviceKey::from_bytes(&[n; 32])
}

fn epoch(n: u8) -> EpochKey {
    EpochKey::from_bytes(&[n; 32])
}

fn table() -> Table {
    let keys = BTreeMap::from([(epoch(1).id(OBJECT), epoch(1))]);
    Table { known: (1..5).map(op).collect(), readers: BTreeSet::new(), cut: None, keys }
}

/// Writes records in order, knowing all that it wrote before.
struct Author {
    intake: Intake,
    rng: SeedRng,
}

impl Author {
    fn new() -> Self {
        Author { intake: Intake::new(OBJECT), rng: SeedRng::new([1; 32]) }
    }

    fn write(&mut self, device: u8, deps: &[&Verified]) -> Verified {
        self.write_with(device, deps, epoch(1), |_| ())
    }

    fn write_with(
        &mut self,
        device: u8,
        deps: &[&Verified],
        epoch: EpochKey,
        change: impl FnOnce(&mut Draft),
    ) -> Verified {
        self.write_text(device, deps, epoch, "text", change)
    }

    fn write_text(
        &mut self,
        device: u8,
        deps: &[&Verified],
        epoch: EpochKey,
        text: &str,
        change: impl FnOnce(&mut Draft),
    ) -> Verified {
        let chain = ChainId::of(&key(device).device_id(), &OBJECT, &Incarnation([0; 8]));
        let (have, prev) = self.intake.chains.head(&chain);
        let named = |record: &&Verified| Dep { chain: record.chain(), seq: record.header().seq, id: record.id() };
        let deps: Vec<Dep> = deps.iter().map(named).collect();
        let mut draft = Draft {
            object: OBJECT,
            kind: RecordKind::Feed,
            incarnation: Incarnation([0; 8]),
            seq: have + 1,
            prev,
            control: vec![op(1)],
            object_grant: op(1),
            device_grant: op(1),
            height: self.intake.chains.next_height(&prev, &deps),
            deps,
            more: false,
        };
        change(&mut draft);
        let record = Record::create(&key(device), draft, &epoch, text.as_bytes(), &mut self.rng).expect("a draft");
        let _ = self.intake.restore(&record);
        record
    }
}

fn receive(intake: &mut Intake, judge: &Table, record: &Verified) -> Receipt {
    intake.receive(judge, &PEER, record.bytes().to_vec())
}

fn ids(arrivals: &[Arrival]) -> Vec<RecordId> {
    arrivals.iter().map(|arrival| arrival.record.id()).collect()
}

#[test]
fn size_form_audience_and_duplicates_come_first() {
    let (mut author, mut intake, judge) = (Author::new(), Intake::new(OBJECT), table());
    let record = author.write(1, &[]);
    let refusal = |receipt: Receipt| receipt.refusal.expect("refused");
    let big = refusal(intake.receive(&judge, &PEER, vec![0; limits::RECORD + 1]));
    assert!(matches!(big, ReceiveError::TooBig(_)) && big.is_fault());
    let mut forged = record.bytes().to_vec();
    *forged.last_mut().expect("bytes") ^= 1;
    let forged = refusal(intake.receive(&judge, &PEER, forged));
    assert!(matches!(forged, ReceiveError::Malformed(RecordError::BodyMismatch)) && forged.is_fault());
    let stranger = intake.receive(&judge, &DeviceId([8; 32]), record.bytes().to_vec());
    assert_eq!(refusal(stranger), ReceiveError::NotSubscribed);
    let mut other = Intake::new(ObjectId([2; 32]));
    assert_eq!(refusal(receive(&mut other, &judge, &record)), ReceiveError::NotSubscribed);
    let receipt = receive(&mut intake, &judge, &record);
    assert_eq!(receipt.place, Some((record.chain(), 1)));
    assert_eq!(receipt.refusal, None);
    assert!(matches!(&receipt.arrivals[0].content, Content::Text(text) if text.as_slice() == b"text"));
    assert_eq!(refusal(receive(&mut intake, &judge, &record)), ReceiveError::Duplicate);
    let expected = ReceiveCounters {
        too_big: 1,
        malformed: 1,
        not_subscribed: 1,
        duplicate: 1,
        admitted: 1,
        ..ReceiveCounters::default()
    };
    assert_eq!(intake.counters(), expected);
}

#[test]
fn what_comes_early_waits_and_comes_in_with_what_it_waited_for() {
    let (mut author, mut intake, judge) = (Author::new(), Intake::new(OBJECT), table());
    let a1 = author.write(1, &[]);
    let a2 = author.write(1, &[]);
    let b1 = author.write(2, &[&a2]);
    let a3 = author.write(1, &[&b1]);
    let receipt = receive(&mut intake, &judge, &a3);
    assert_eq!(receipt.refusal, Some(ReceiveError::Gap { have: 0, want: 3 }));
    assert!(receipt.refusal.is_some_and(|refusal| refusal.waits() && !refusal.is_fault()));
    assert_eq!(receive(&mut intake, &judge, &b1).refusal, Some(ReceiveError::MissingDeps(vec![a2.id()])));
    assert_eq!(receive(&mut intake, &judge, &b1).refusal, Some(ReceiveError::Duplicate));
    assert_eq!(receive(&mut intake, &judge, &a2).refusal, Some(ReceiveError::Gap { have: 0, want: 2 }));
    assert_eq!(intake.pending().len(), 3);
    let receipt = receive(&mut intake, &judge, &a1);
    assert_eq!(ids(&receipt.arrivals), [a1.id(), a2.id(), b1.id(), a3.id()]);
    assert!(intake.pending().is_empty());
    assert_eq!(intake.chains().digest(), author.intake.chains().digest());
}

#[test]
fn what_names_unknown_control_waits_for_it() {
    let (mut author, mut intake, mut judge) = (Author::new(), Intake::new(OBJECT), table());
    let a1 = author.write_with(1, &[], epoch(1), |draft| draft.control = vec![op(2), op(7), op(8)]);
    let a2 = author.write_with(1, &[], epoch(1), |draft| draft.control = vec![op(8)]);
    let receipt = receive(&mut intake, &judge, &a1);
    assert_eq!(receipt.refusal, Some(ReceiveError::NeedControl(vec![op(7), op(8)])));
    assert_eq!(receive(&mut intake, &judge, &a2).refusal, Some(ReceiveError::Gap { have: 0, want: 2 }));
    judge.known.insert(op(7));
    assert!(intake.control_arrived(&judge, &[op(7)]).is_empty());
    judge.known.insert(op(8));
    assert_eq!(ids(&intake.control_arrived(&judge, &[op(8)])), [a1.id(), a2.id()]);
}

#[test]
fn twins_are_two_branches_that_do_not_stand_by_themselves() {
    let (mut author, mut intake, judge) = (Author::new(), Intake::new(OBJECT), table());
    let mut twin = Author::new();
    let a1 = author.write(1, &[]);
    let other = twin.write_with(1, &[], epoch(1), |draft| draft.more = true);
    let on_other = twin.write(1, &[]);
    assert!(receive(&mut intake, &judge, &a1).refusal.is_none());
    let sidestep = Some(ReceiveError::Sidestep { chain: a1.chain(), seq: 2 });
    assert_eq!(receive(&mut intake, &judge, &on_other).refusal, sidestep);
    let receipt = receive(&mut intake, &judge, &other);
    let arrivals: Vec<_> = receipt.arrivals.iter().map(|it| (it.record.id(), it.fit, it.standing)).collect();
    let expected = [(other.id(), Fit::Branch, Standing::Void), (on_other.id(), Fit::Line, Standing::Void)];
    assert_eq!(arrivals, expected);
    assert_eq!(intake.chains().head(&a1.chain()), (0, RecordId::NONE));
    assert_eq!((intake.counters().branch, intake.counters().sidestep), (1, 1));
}

#[test]
fn branches_are_bounded_unless_somebody_builds_on_one_more() {
    let (mut intake, judge) = (Intake::new(OBJECT), table());
    let twin = |intake: &mut Intake, number: usize| {
        let record = Author::new().write_text(1, &[], epoch(1), &number.to_string(), |_| ());
        receive(intake, &judge, &record).refusal.is_some()
    };
    let refused: Vec<_> = (0..limits::BRANCHES + 3).map(|number| twin(&mut intake, number)).collect();
    assert_eq!(refused.iter().filter(|refused| **refused).count(), 3);
    assert!(refused.ends_with(&[true, true, true]));
    assert_eq!((intake.chains().branches().count(), intake.counters().equivocation), (limits::BRANCHES, 3));
    let late = Author::new().write_text(1, &[], epoch(1), "late", |draft| draft.more = true);
    let mut other = Author::new();
    let _ = other.intake.restore(&late);
    let built = other.write(2, &[&late]);
    assert_eq!(receive(&mut intake, &judge, &built).refusal, Some(ReceiveError::MissingDeps(vec![late.id()])));
    assert_eq!(ids(&receive(&mut intake, &judge, &late).arrivals), [late.id(), built.id()]);
}

#[test]
fn control_knowledge_never_goes_backwards() {
    let (mut author, mut intake, judge) = (Author::new(), Intake::new(OBJECT), table());
    let a1 = author.write_with(1, &[], epoch(1), |draft| draft.control = vec![op(3)]);
    let b1 = author.write_with(2, &[&a1], epoch(1), |draft| draft.control = vec![op(2)]);
    let a2 = author.write_with(1, &[], epoch(1), |draft| draft.control = vec![op(2)]);
    assert_eq!(receive(&mut intake, &judge, &a1).refusal, None);
    assert_eq!(receive(&mut intake, &judge, &b1).refusal, Some(ReceiveError::BackwardsAuthority));
    assert_eq!(receive(&mut intake, &judge, &a2).refusal, Some(ReceiveError::BackwardsAuthority));
}

#[test]
fn without_a_right_nothing_is_admitted_nor_waits() {
    let (mut author, mut intake, mut judge) = (Author::new(), Intake::new(OBJECT), table());
    judge.readers.insert(key(1).device_id());
    let a1 = author.write(1, &[]);
    let a2 = author.write(1, &[]);
    assert_eq!(receive(&mut intake, &judge, &a2).refusal, Some(ReceiveError::NotAuthorised));
    assert_eq!(receive(&mut intake, &judge, &a1).refusal, Some(ReceiveError::NotAuthorised));
    assert!(intake.chains().is_empty() && intake.pending().is_empty());
}

#[test]
fn past_a_cut_a_record_is_kept_but_void() {
    let (mut author, mut intake, mut judge) = (Author::new(), Intake::new(OBJECT), table());
    let (a1, a2) = (author.write(1, &[]), author.write(1, &[]));
    judge.cut = Some(a1.id());
    assert_eq!(receive(&mut intake, &judge, &a1).arrivals[0].standing, Standing::Stands);
    assert_eq!(receive(&mut intake, &judge, &a2).arrivals[0].standing, Standing::Void);
    assert_eq!((intake.counters().admitted, intake.counters().after_cut), (2, 1));
}

#[test]
fn heights_are_checked() {
    let (mut author, mut intake, judge) = (Author::new(), Intake::new(OBJECT), table());
    let high = author.write_with(1, &[], epoch(1), |draft| draft.height = u64::MAX);
    let refusal = receive(&mut intake, &judge, &high).refusal;
    assert_eq!(refusal, Some(ReceiveError::BadHeight { stated: u64::MAX, below: 0 }));
}

#[test]
fn records_whose_key_is_wanting_are_admitted() {
    let (mut author, mut intake, judge) = (Author::new(), Intake::new(OBJECT), table());
    let a1 = author.write_with(1, &[], epoch(2), |_| ());
    let a2 = author.write_with(1, &[], epoch(2), |_| ());
    assert_eq!(receive(&mut intake, &judge, &a1).arrivals[0].content, Content::Locked);
    assert_eq!(receive(&mut intake, &judge, &a2).arrivals[0].content, Content::Locked);
    assert!(matches!(open(&a1, Some(&epoch(2))), Content::Text(_)));
    assert_eq!(open(&a1, Some(&epoch(1))), Content::Void(OpenError::BadCipher));
    assert_eq!(intake.counters().no_key, 2);
}

#[test]
fn a_body_that_never_opens_leaves_its_record_in_the_chain() {
    let (mut author, mut intake, mut judge) = (Author::new(), Intake::new(OBJECT), table());
    // The key held under this epoch's id is another one, as if the author had encrypted rubbish.
    judge.keys.insert(epoch(2).id(OBJECT), epoch(3));
    let a1 = author.write_with(1, &[], epoch(2), |_| ());
    let a2 = author.write(1, &[]);
    assert_eq!(receive(&mut intake, &judge, &a1).arrivals[0].content, Content::Void(OpenError::BadCipher));
    assert!(matches!(receive(&mut intake, &judge, &a2).arrivals[0].content, Content::Text(_)));
    assert_eq!(intake.counters().bad_cipher, 1);
}

#[test]
fn texts_are_not_shown_in_logs() {
    let (mut author, mut intake, judge) = (Author::new(), Intake::new(OBJECT), table());
    let receipt = receive(&mut intake, &judge, &author.write(1, &[]));
    assert!(format!("{:?}", receipt.arrivals[0].content).contains("4 bytes"));
}
