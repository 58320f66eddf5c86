use std::collections::VecDeque;

use proptest::prelude::*;
use rand_core::CryptoRng;

use super::*;
use crate::{seal::SeedRng, wire::pair::Welcome};

const START: Timestamp = Timestamp(1_000_000_000);
const TRUSTED: DeviceId = DeviceId([1; 32]);
const NEW: DeviceId = DeviceId([2; 32]);
const HERE: AttemptId = AttemptId(7);
const THERE: AttemptId = AttemptId(40);

fn newcomer(device: DeviceId) -> Newcomer {
    Newcomer { device, seal: SealPublic([3; 32]), name: "laptop".into(), kind: 0 }
}

fn offer(rng: &mut impl CryptoRng) -> Offer {
    Offer::new(START, rng, TRUSTED, &["/ip4/10.0.0.1/tcp/1".into()], &DeadCodes::default()).unwrap()
}

fn welcome() -> Vec<u8> {
    let items = (0..30).map(|n| serde_bytes::ByteBuf::from(vec![n; 5_000])).collect();
    Welcome { items, addresses: vec!["/ip4/10.0.0.1/tcp/1".into()], name: "home".into() }.to_bytes()
}

/// The words of `code` with one of them changed.
fn wrong(code: &PairCode, by: u16) -> PairCode {
    let text = code.to_text();
    let mut parts: Vec<&str> = text.split('-').collect();
    let index = crate::phrase::word_index(parts[3]).unwrap();
    parts[3] = crate::phrase::word_at(index + by);
    PairCode::parse(&parts.join("-")).unwrap()
}

/// Two machines with a queue each way; `spoil` may alter, drop or double what travels.
struct Wire<'o> {
    rng: SeedRng,
    now: Timestamp,
    offer: &'o mut Offer,
    join: Join,
    to_offer: VecDeque<OfferInput>,
    to_join: VecDeque<JoinInput>,
    answer: Option<bool>,
    heard: Vec<JoinOutput>,
    said: Vec<OfferOutput>,
    frames: Vec<Vec<u8>>,
}

impl<'o> Wire<'o> {
    fn new(seed: u8, offer: &'o mut Offer, join: Join) -> Self {
        Wire {
            rng: SeedRng::new([seed; 32]),
            now: START,
            offer,
            join,
            to_offer: VecDeque::from([OfferInput::Connected { attempt: THERE, device: NEW }]),
            to_join: VecDeque::from([JoinInput::Connected { attempt: HERE, device: TRUSTED }]),
            answer: Some(true),
            heard: Vec::new(),
            said: Vec::new(),
            frames: Vec::new(),
        }
    }

    fn run(&mut self, mut spoil: impl FnMut(usize, Vec<u8>) -> Vec<Vec<u8>>) {
        loop {
            if let Some(input) = self.to_offer.pop_front() {
                for output in self.offer.handle(self.now, &mut self.rng, input) {
                    self.on_offer(output, &mut spoil);
                }
            } else if let Some(input) = self.to_join.pop_front() {
                for output in self.join.handle(self.now, &mut self.rng, input) {
                    self.on_join(output, &mut spoil);
                }
            } else {
                return;
            }
        }
    }

    fn on_offer(&mut self, output: OfferOutput, spoil: &mut impl FnMut(usize, Vec<u8>) -> Vec<Vec<u8>>) {
        match &output {
            OfferOutput::Send { attempt: THERE, bytes } => {
                self.frames.push(bytes.clone());
                let frames = spoil(self.frames.len() - 1, bytes.clone());
                self.to_join.extend(frames.into_iter().map(|bytes| JoinInput::Message { attempt: HERE, bytes }));
            }
            OfferOutput::Close { attempt: THERE } => self.to_join.push_back(JoinInput::Closed { attempt: HERE }),
            OfferOutput::AskUser { attempt, newcomer: asked } => {
                assert_eq!(*asked, newcomer(NEW));
                let answer = self.answer.map(|yes| OfferInput::Confirm { attempt: *attempt, yes });
                self.to_offer.extend(answer);
            }
            OfferOutput::Grant { attempt, .. } => {
                self.to_offer.push_back(OfferInput::Welcome { attempt: *attempt, bytes: welcome() });
            }
            _ => {}
        }
        self.said.push(output);
    }

    fn on_join(&mut self, output: JoinOutput, spoil: &mut impl FnMut(usize, Vec<u8>) -> Vec<Vec<u8>>) {
        match &output {
            JoinOutput::Send { attempt: HERE, bytes } => {
                self.frames.push(bytes.clone());
                let frames = spoil(self.frames.len() - 1, bytes.clone());
                self.to_offer.extend(frames.into_iter().map(|bytes| OfferInput::Message { attempt: THERE, bytes }));
            }
            JoinOutput::Close { attempt: HERE } => self.to_offer.push_back(OfferInput::Closed { attempt: THERE }),
            JoinOutput::Welcome { bytes, .. } => {
                assert_eq!(*bytes, welcome());
                self.to_join.push_back(JoinInput::Stored);
            }
            _ => {}
        }
        self.heard.push(output);
    }

    /// Lets time pass until both are at rest.
    fn wait(&mut self) {
        while let Some(due) = self.join.next_deadline().into_iter().chain(self.offer.next_deadline()).min() {
            self.now = self.now.max(due);
            self.to_offer.push_back(OfferInput::Tick);
            self.to_join.push_back(JoinInput::Tick);
            self.run(|_, bytes| vec![bytes]);
        }
    }

    fn joined(&self) -> bool {
        self.heard.contains(&JoinOutput::Completed { device: TRUSTED })
    }

    fn dead(&self) -> Option<&PairError> {
        self.said.iter().find_map(|output| if let OfferOutput::Dead { reason } = output { Some(reason) } else { None })
    }

    fn failed(&self) -> Option<&PairError> {
        self.heard.iter().find_map(
            |output| {
                if let JoinOutput::Failed { reason } = output { Some(reason) } else { None }
            },
        )
    }
}

fn straight(_: usize, bytes: Vec<u8>) -> Vec<Vec<u8>> {
    vec![bytes]
}

/// One whole pairing by code; what came of it and every frame that travelled.
fn pair_by_code(seed: u8) -> (bool, Vec<Vec<u8>>) {
    let mut offer = offer(&mut SeedRng::new([seed; 32]));
    let code = PairCode::parse(&offer.code().unwrap().to_text()).unwrap();
    let mut wire = Wire::new(seed, &mut offer, Join::by_code(START, newcomer(NEW), code));
    wire.run(straight);
    let completed = wire.said.contains(&OfferOutput::Completed { attempt: THERE, newcomer: newcomer(NEW) });
    assert_eq!(completed, wire.joined());
    assert!(wire.heard.contains(&JoinOutput::Waiting { device: TRUSTED }));
    let frames = std::mem::take(&mut wire.frames);
    assert_eq!(wire.dead(), None);
    assert!(offer.is_over() && offer.code().is_none() && offer.link().is_none());
    (completed, frames)
}

#[test]
fn a_code_lets_a_device_in() {
    let (completed, frames) = pair_by_code(1);
    assert!(completed);
    assert!(frames.iter().all(|frame| frame.len() <= limits::PAIR_FRAME));
}

#[test]
fn the_same_seed_gives_the_same_frames() {
    assert_eq!(pair_by_code(1).1, pair_by_code(1).1);
    assert_ne!(pair_by_code(1).1, pair_by_code(2).1);
}

#[test]
fn neither_words_nor_secret_travel() {
    let mut offer = offer(&mut SeedRng::new([5; 32]));
    let (code, link) = (offer.code().unwrap().to_text(), offer.link().unwrap().clone());
    let words = code.split_once('-').unwrap().1.to_owned();
    let mut wire = Wire::new(5, &mut offer, Join::by_link(START, newcomer(NEW), link.clone()));
    wire.run(straight);
    assert!(wire.joined());
    for frame in &wire.frames {
        let holds = |needle: &[u8]| frame.windows(needle.len()).any(|window| window == needle);
        assert!(!holds(words.as_bytes()) && !holds(link.psk().as_ref()) && !holds(b"laptop"));
    }
}

#[test]
fn a_link_lets_a_device_in_once() {
    let mut offer = offer(&mut SeedRng::new([2; 32]));
    let link = PairLink::parse(&offer.link().unwrap().to_text()).unwrap();
    let mut wire = Wire::new(2, &mut offer, Join::by_link(START, newcomer(NEW), link.clone()));
    wire.run(straight);
    assert!(wire.joined());
    let mut again = Wire::new(3, &mut offer, Join::by_link(START, newcomer(NEW), link));
    again.run(straight);
    again.wait();
    assert_eq!((again.joined(), again.failed()), (false, Some(&PairError::CodeSpent)));
}

#[test]
fn a_link_is_for_one_device() {
    let mut other = offer(&mut SeedRng::new([2; 32]));
    let link = PairLink::generate(&mut SeedRng::new([9; 32]), DeviceId([9; 32]), &[]);
    let mut wire = Wire::new(2, &mut other, Join::by_link(START, newcomer(NEW), link));
    wire.run(straight);
    wire.wait();
    assert_eq!((wire.failed(), wire.frames.len()), (Some(&PairError::PeerMismatch), 0));
}

#[test]
fn a_wrong_word_kills_the_code() {
    let mut offer = offer(&mut SeedRng::new([3; 32]));
    let code = offer.code().unwrap().clone();
    let mut wire = Wire::new(3, &mut offer, Join::by_code(START, newcomer(NEW), wrong(&code, 1)));
    wire.run(straight);
    assert_eq!(wire.dead(), Some(&PairError::WrongCode));
    assert_eq!(wire.failed(), None, "another peer with this number might still appear");
    wire.wait();
    assert_eq!(wire.failed(), Some(&PairError::WrongCode));
    let mut right = Wire::new(4, &mut offer, Join::by_code(START, newcomer(NEW), code));
    right.run(straight);
    right.wait();
    assert_eq!((right.joined(), right.failed()), (false, Some(&PairError::CodeSpent)));
}

#[test]
fn a_thousand_guesses_never_succeed() {
    let mut rng = SeedRng::new([4; 32]);
    for guess in 0..1_000u16 {
        let mut offer = offer(&mut rng);
        let code = wrong(offer.code().unwrap(), 1 + guess);
        let mut wire = Wire::new(guess as u8, &mut offer, Join::by_code(START, newcomer(NEW), code));
        wire.run(straight);
        assert_eq!((wire.joined(), wire.dead()), (false, Some(&PairError::WrongCode)));
    }
}

#[test]
fn another_number_does_not_touch_the_code() {
    let mut offer = offer(&mut SeedRng::new([3; 32]));
    let code = offer.code().unwrap().to_text();
    let other = PairCode::parse(&format!("1{}", code.trim_start_matches(char::is_numeric))).unwrap();
    let mut wire = Wire::new(3, &mut offer, Join::by_code(START, newcomer(NEW), other));
    wire.to_join.push_back(JoinInput::NoMorePeers);
    wire.run(straight);
    assert_eq!((wire.failed(), wire.dead()), (Some(&PairError::NotFound), None));
    assert!(offer.code().is_some());
}

#[test]
fn an_offer_lives_ten_minutes() {
    let mut rng = SeedRng::new([3; 32]);
    let mut offer = offer(&mut rng);
    let code = offer.code().unwrap().clone();
    assert_eq!(offer.next_deadline(), Some(START + limits::PAIR_LIFE));
    let mut wire = Wire::new(3, &mut offer, Join::by_code(START, newcomer(NEW), code));
    wire.now = START + limits::PAIR_LIFE;
    wire.run(straight);
    assert_eq!(wire.dead(), Some(&PairError::Expired));
    assert!(!wire.joined());
    let idle = Join::by_code(START, newcomer(NEW), wrong(&PairCode::generate(&mut rng), 0));
    let mut idle = Wire::new(3, &mut offer, idle);
    idle.to_join.clear();
    idle.run(straight);
    idle.wait();
    assert_eq!((idle.failed(), idle.now), (Some(&PairError::NotFound), START + limits::PAIR_SEARCH));
}

#[test]
fn a_person_may_decline_or_not_answer() {
    for (answer, reason) in [(Some(false), PairError::Declined), (None, PairError::Interrupted)] {
        let mut offer = offer(&mut SeedRng::new([3; 32]));
        let code = offer.code().unwrap().clone();
        let mut wire = Wire::new(3, &mut offer, Join::by_code(START, newcomer(NEW), code));
        wire.answer = answer;
        wire.run(straight);
        wire.wait();
        assert_eq!((wire.dead(), wire.failed()), (Some(&reason), Some(&reason)));
        assert!(!wire.said.iter().any(|output| matches!(output, OfferOutput::Grant { .. })));
    }
}

#[test]
fn a_peer_that_lies_about_the_number_does_not_stop_pairing() {
    let mut offer = offer(&mut SeedRng::new([3; 32]));
    let code = offer.code().unwrap().clone();
    let mut wire = Wire::new(3, &mut offer, Join::by_code(START, newcomer(NEW), code));
    let liar = AttemptId(1);
    wire.to_join.push_front(JoinInput::Connected { attempt: liar, device: DeviceId([66; 32]) });
    let known = write(&PairMessage::Answer { known: true });
    wire.to_join.insert(1, JoinInput::Message { attempt: liar, bytes: known });
    wire.run(straight);
    assert!(!wire.joined(), "the liar was first and says nothing");
    wire.wait();
    assert!(wire.joined());
}

#[test]
fn only_four_peers_at_a_time() {
    let mut rng = SeedRng::new([3; 32]);
    let mut offer = offer(&mut rng);
    for n in 0..4 {
        let input = OfferInput::Connected { attempt: AttemptId(n), device: NEW };
        assert_eq!(offer.handle(START, &mut rng, input), []);
    }
    let fifth = OfferInput::Connected { attempt: AttemptId(4), device: NEW };
    assert_eq!(offer.handle(START, &mut rng, fifth), [OfferOutput::Close { attempt: AttemptId(4) }]);
    let later = START + limits::PAIR_STEP;
    assert_eq!(offer.handle(later, &mut rng, OfferInput::Tick).len(), 8, "a refusal and a close for each");
    assert!(offer.code().is_some());
    let again = OfferInput::Connected { attempt: AttemptId(4), device: NEW };
    assert_eq!(offer.handle(later, &mut rng, again), []);
}

#[test]
fn a_claimed_device_must_be_the_proved_one() {
    let mut offer = offer(&mut SeedRng::new([3; 32]));
    let code = offer.code().unwrap().clone();
    // The prologue binds the id: the first message does not open, long before anything is proved.
    let mut wire = Wire::new(3, &mut offer, Join::by_code(START, newcomer(DeviceId([8; 32])), code));
    wire.run(straight);
    assert_eq!((wire.joined(), wire.dead()), (false, None));
    assert!(wire.offer.code().is_some(), "nothing was guessed");
    wire.wait();
    assert_eq!(wire.failed(), Some(&PairError::CodeSpent));
}

#[test]
fn three_dead_codes_make_a_pause() {
    let mut dead = DeadCodes::default();
    let minute = std::time::Duration::from_secs(60);
    dead.note(START, &PairError::WrongCode);
    dead.note(START, &PairError::Expired);
    dead.note(START + minute, &PairError::WrongCode);
    assert_eq!(dead.permit(START + minute), Ok(()));
    dead.note(START + minute + minute, &PairError::WrongCode);
    assert_eq!(dead.permit(START + minute + minute), Err(PairError::RateLimited { retry_s: 600 }));
    let over = START + minute + minute + limits::PAIR_PAUSE;
    assert_eq!(dead.permit(over), Ok(()));
    dead.note(over, &PairError::WrongCode);
    assert_eq!(dead.permit(over), Ok(()), "the pause was served");
    let slow = START + limits::PAIR_PAUSE_WINDOW + limits::PAIR_PAUSE;
    dead.note(slow, &PairError::WrongCode);
    dead.note(slow + limits::PAIR_PAUSE_WINDOW, &PairError::WrongCode);
    assert_eq!(dead.permit(slow + limits::PAIR_PAUSE_WINDOW), Ok(()));
}

#[test]
fn names_from_peers_are_judged() {
    assert!(is_name("Ada's laptop ✓"));
    for bad in ["", "  ", "a\nb", "a\u{202e}b", "\u{feff}", &"x".repeat(65)] {
        assert!(!is_name(bad), "{bad:?}");
    }
}

#[derive(Debug, Clone)]
enum Spoil {
    Flip(usize, u8),
    Cut(usize),
    Double,
    Drop,
    Garbage(Vec<u8>),
    Earlier(usize),
}

fn spoil() -> impl Strategy<Value = Spoil> {
    prop_oneof![
        4 => (any::<usize>(), 1..=255u8).prop_map(|(at, mask)| Spoil::Flip(at, mask)),
        2 => any::<usize>().prop_map(Spoil::Cut),
        1 => Just(Spoil::Double),
        1 => Just(Spoil::Drop),
        1 => proptest::collection::vec(any::<u8>(), 0..80).prop_map(Spoil::Garbage),
        2 => any::<usize>().prop_map(Spoil::Earlier),
    ]
}

impl Spoil {
    fn apply(&self, bytes: &[u8], seen: &[Vec<u8>]) -> Vec<Vec<u8>> {
        match self {
            Spoil::Flip(place, mask) => {
                let mut bytes = bytes.to_vec();
                let place = place % bytes.len();
                bytes[place] ^= mask;
                vec![bytes]
            }
            Spoil::Cut(len) => vec![bytes[..len % bytes.len()].to_vec()],
            Spoil::Double => vec![bytes.to_vec(), bytes.to_vec()],
            Spoil::Drop => vec![],
            Spoil::Garbage(garbage) => vec![garbage.clone()],
            Spoil::Earlier(which) => vec![seen[which % seen.len()].clone()],
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// Whatever happens to one message, nobody panics, and neither side believes in a pairing that did not happen. The
    /// newcomer is in before its last acknowledgement.
    #[test]
    fn spoiled_messages_never_let_anyone_in(seed: u8, at in 0usize..15, by_link: bool, how in spoil()) {
        let mut rng = SeedRng::new([seed; 32]);
        let mut offer = offer(&mut rng);
        let (code, link) = (offer.code().unwrap().clone(), offer.link().unwrap().clone());
        let (join, last) = if by_link {
            (Join::by_link(START, newcomer(NEW), link), 11)
        } else {
            (Join::by_code(START, newcomer(NEW), code), 14)
        };
        let mut wire = Wire::new(seed, &mut offer, join);
        let mut seen: Vec<Vec<u8>> = Vec::new();
        let mut changed = false;
        wire.run(|index, bytes| {
            seen.push(bytes.clone());
            if index != at {
                return vec![bytes];
            }
            let spoiled = how.apply(&bytes, &seen);
            let harmless = spoiled.first() == Some(&bytes);
            changed = !harmless || spoiled.len() == 2 && index != last;
            spoiled
        });
        wire.wait();
        let completed = wire.said.contains(&OfferOutput::Completed { attempt: THERE, newcomer: newcomer(NEW) });
        if changed {
            prop_assert!(!completed, "the offer completed");
            prop_assert!(at == last || !wire.joined(), "the newcomer believes it is in");
        }
        prop_assert!(wire.offer.is_over() && wire.join.is_over());
    }

    #[test]
    fn garbage_never_panics(inputs in proptest::collection::vec((0u64..5, proptest::collection::vec(any::<u8>(), 0..64)), 0..40)) {
        let mut rng = SeedRng::new([8; 32]);
        let mut offer = offer(&mut rng);
        let mut join = Join::by_code(START, newcomer(NEW), offer.code().unwrap().clone());
        for (id, bytes) in inputs {
            let attempt = AttemptId(id);
            let late = START + std::time::Duration::from_secs(u64::from(rng.next_u32() % 30));
            let _ = offer.handle(late, &mut rng, OfferInput::Connected { attempt, device: NEW });
            let _ = join.handle(late, &mut rng, JoinInput::Connected { attempt, device: TRUSTED });
            let _ = offer.handle(late, &mut rng, OfferInput::Message { attempt, bytes: bytes.clone() });
            let _ = join.handle(late, &mut rng, JoinInput::Message { attempt, bytes });
        }
        prop_assert!(offer.code().is_some(), "nothing of this is a guess");
    }
}
