//! Pairing: both machines, with somebody between them who alters, drops, doubles and invents.

use std::collections::VecDeque;

use meshwork_protocol::{
    id::DeviceId,
    limits,
    pairing::{AttemptId, DeadCodes, Join, JoinInput, JoinOutput, Newcomer, Offer, OfferInput, OfferOutput},
    seal::{SealPublic, SeedRng},
    time::Timestamp,
    wire::pair::Welcome,
};

use super::program::{Program, part};

const START: Timestamp = Timestamp(1_000_000_000);
const TRUSTED: DeviceId = DeviceId([1; 32]);
const NEW: DeviceId = DeviceId([2; 32]);
const STRANGER: DeviceId = DeviceId([3; 32]);
const HERE: AttemptId = AttemptId(7);
const THERE: AttemptId = AttemptId(40);
const STEPS: usize = 200;

fn welcome() -> Vec<u8> {
    let items = (0..9).map(|number| serde_bytes::ByteBuf::from(vec![number; 5_000])).collect();
    Welcome { items, addresses: Vec::new(), name: "home".to_owned() }.to_bytes()
}

fn newcomer() -> Newcomer {
    Newcomer { device: NEW, seal: SealPublic([4; 32]), name: "laptop".to_owned(), kind: 0 }
}

struct Table {
    rng: SeedRng,
    now: Timestamp,
    offer: Offer,
    join: Join,
    to_offer: VecDeque<OfferInput>,
    to_join: VecDeque<JoinInput>,
    granted: bool,
    joined: bool,
}

impl Table {
    fn new(by_link: bool) -> Self {
        let mut rng = SeedRng::new([5; 32]);
        let addresses = ["/ip4/10.0.0.1/tcp/1".to_owned()];
        let offer = Offer::new(START, &mut rng, TRUSTED, &addresses, &DeadCodes::default()).expect("an offer");
        let (code, link) = (offer.code().expect("a code").clone(), offer.link().expect("a link").clone());
        let join = match by_link {
            true => Join::by_link(START, newcomer(), link),
            false => Join::by_code(START, newcomer(), code),
        };
        Table {
            rng,
            now: START,
            offer,
            join,
            to_offer: VecDeque::from([OfferInput::Connected { attempt: THERE, device: NEW }]),
            to_join: VecDeque::from([JoinInput::Connected { attempt: HERE, device: TRUSTED }]),
            granted: false,
            joined: false,
        }
    }

    fn offer(&mut self, input: OfferInput) {
        for output in self.offer.handle(self.now, &mut self.rng, input) {
            match output {
                OfferOutput::Send { attempt: THERE, bytes } => {
                    assert!(bytes.len() <= limits::PAIR_FRAME, "a message above its limit");
                    self.to_join.push_back(JoinInput::Message { attempt: HERE, bytes });
                }
                OfferOutput::Close { attempt: THERE } => self.to_join.push_back(JoinInput::Closed { attempt: HERE }),
                OfferOutput::AskUser { attempt, newcomer: asked } => {
                    assert_eq!((attempt, asked), (THERE, newcomer()), "only who knows the code is let in");
                    self.to_offer.push_back(OfferInput::Confirm { attempt, yes: true });
                }
                OfferOutput::Grant { attempt, newcomer: granted } => {
                    assert_eq!((attempt, granted), (THERE, newcomer()), "only who knows the code is let in");
                    self.granted = true;
                    self.to_offer.push_back(OfferInput::Welcome { attempt, bytes: welcome() });
                }
                _ => {}
            }
        }
    }

    fn join(&mut self, input: JoinInput) {
        for output in self.join.handle(self.now, &mut self.rng, input) {
            match output {
                JoinOutput::Send { attempt: HERE, bytes } => {
                    assert!(bytes.len() <= limits::PAIR_FRAME, "a message above its limit");
                    self.to_offer.push_back(OfferInput::Message { attempt: THERE, bytes });
                }
                JoinOutput::Close { attempt: HERE } => self.to_offer.push_back(OfferInput::Closed { attempt: THERE }),
                JoinOutput::Welcome { device, bytes } => {
                    assert!(device == TRUSTED && bytes == welcome() && self.granted, "another welcome than was given");
                    self.to_join.push_back(JoinInput::Stored);
                }
                JoinOutput::Completed { .. } => self.joined = true,
                _ => {}
            }
        }
    }

    /// Delivers what is next in one direction, as `alter` makes of it.
    fn deliver(&mut self, to_join: bool, alter: impl FnOnce(&mut Vec<u8>)) {
        if to_join {
            let Some(mut input) = self.to_join.pop_front() else { return };
            if let JoinInput::Message { bytes, .. } = &mut input {
                alter(bytes);
            }
            self.join(input);
        } else {
            let Some(mut input) = self.to_offer.pop_front() else { return };
            if let OfferInput::Message { bytes, .. } = &mut input {
                alter(bytes);
            }
            self.offer(input);
        }
    }

    fn step(&mut self, program: &mut Program<'_>) {
        let to_join = program.once_in(2);
        match program.below(12) {
            0..=5 => self.deliver(to_join, |_| {}),
            6 => {
                let (at, mask) = (program.number() as usize, program.byte());
                self.deliver(to_join, |bytes| {
                    let len = bytes.len().max(1);
                    bytes.iter_mut().skip(at % len).take(1).for_each(|byte| *byte ^= mask);
                });
            }
            7 => {
                let replaced = program.part().to_vec();
                self.deliver(to_join, |bytes| *bytes = replaced);
            }
            8 if to_join => drop(self.to_join.pop_front()),
            8 => drop(self.to_offer.pop_front()),
            9 => {
                let (attempt, bytes) = (AttemptId(u64::from(program.byte())), program.part().to_vec());
                match program.below(4) {
                    0 => self.offer(OfferInput::Connected { attempt, device: STRANGER }),
                    1 => self.join(JoinInput::Connected { attempt, device: STRANGER }),
                    2 => self.offer(OfferInput::Message { attempt, bytes }),
                    _ => self.join(JoinInput::Message { attempt, bytes }),
                }
            }
            10 => {
                self.now = Timestamp(self.now.0 + u64::from(program.byte()) * 1_000_000);
                self.offer(OfferInput::Tick);
                self.join(JoinInput::Tick);
            }
            _ => {
                let attempt = AttemptId(u64::from(program.byte()));
                self.offer(OfferInput::Closed { attempt });
                self.join(if to_join { JoinInput::NoMorePeers } else { JoinInput::Closed { attempt } });
            }
        }
    }
}

pub(super) fn run(bytes: &[u8]) -> bool {
    let mut program = Program::new(bytes);
    let mut table = Table::new(program.once_in(2));
    for _ in 0..STEPS {
        if program.is_over() {
            break;
        }
        table.step(&mut program);
    }
    // Undisturbed, what is under way ends, and with the last deadline all of it.
    for _ in 0..STEPS {
        table.deliver(true, |_| {});
        table.deliver(false, |_| {});
    }
    while let Some(due) = table.join.next_deadline().into_iter().chain(table.offer.next_deadline()).min() {
        assert!(due > table.now, "a deadline that has passed");
        table.now = due;
        table.offer(OfferInput::Tick);
        table.join(JoinInput::Tick);
    }
    assert!(table.join.is_over() && table.offer.is_over(), "neither waits for ever");
    assert!(table.granted || !table.joined, "nobody is in who was not let in");
    table.joined
}

pub(super) fn seeds() -> Vec<Vec<u8>> {
    let honest = |first: u8| [&[first], [0, 0, 1, 0].repeat(20).as_slice()].concat();
    let known = |message: &[u8]| [&[0, 0, 0, 1, 7], part(message).as_slice()].concat();
    let ask = known(&[0x82, 0, 7]);
    let altered = [&[0], [0, 0, 1, 0].repeat(3).as_slice(), &[1, 6, 5, 1]].concat();
    vec![honest(0), honest(1), ask, altered, super::mutate::bytes(1, 200)]
}
