//! The side of the device that is trusted already: makes a code and a link, and lets one newcomer in.

use std::collections::BTreeMap;

use rand_core::CryptoRng;
use serde_bytes::ByteBuf;
use snow::HandshakeState;

use super::{
    AttemptId, DeadCodes, Newcomer, PairCode, PairError, PairLink, VERSION_MIN,
    exchange::{Channel, Context, Psk, Words, handshake, hear, say},
    is_name, read, write,
};
use crate::{
    id::DeviceId,
    limits,
    time::Timestamp,
    wire::pair::{PairMessage, PairSecret},
};

/// What happens to an [`Offer`].
pub enum OfferInput {
    /// A peer opened a pairing stream.
    Connected {
        /// The new stream.
        attempt: AttemptId,
        /// The peer, as the connection proved it.
        device: DeviceId,
    },
    /// A frame arrived.
    Message {
        /// On this stream.
        attempt: AttemptId,
        /// Its content without the length.
        bytes: Vec<u8>,
    },
    /// The stream ended.
    Closed {
        /// This one.
        attempt: AttemptId,
    },
    /// The user's answer to [`OfferOutput::AskUser`].
    Confirm {
        /// The newcomer's stream.
        attempt: AttemptId,
        /// Whether to let it in.
        yes: bool,
    },
    /// The answer to [`OfferOutput::Grant`], once the grant is stored.
    Welcome {
        /// The newcomer's stream.
        attempt: AttemptId,
        /// An encoded [`crate::wire::pair::Welcome`].
        bytes: Vec<u8>,
    },
    /// The time asked for by [`Offer::next_deadline`] has come.
    Tick,
}

/// What an [`Offer`] wants done, in order.
#[derive(Debug, PartialEq, Eq)]
pub enum OfferOutput {
    /// Send a frame.
    Send {
        /// On this stream.
        attempt: AttemptId,
        /// Its content without the length.
        bytes: Vec<u8>,
    },
    /// Close the stream when everything is sent.
    Close {
        /// This one.
        attempt: AttemptId,
    },
    /// The code was right: ask the user whether this device may join.
    AskUser {
        /// The newcomer's stream.
        attempt: AttemptId,
        /// Who asks.
        newcomer: Newcomer,
    },
    /// The user said yes: make the grant, store it, answer with [`OfferInput::Welcome`].
    Grant {
        /// The newcomer's stream.
        attempt: AttemptId,
        /// Who is let in.
        newcomer: Newcomer,
    },
    /// The newcomer has stored its welcome; the offer is over.
    Completed {
        /// The newcomer's stream.
        attempt: AttemptId,
        /// Who joined.
        newcomer: Newcomer,
    },
    /// The offer is over without a completed pairing. After [`OfferOutput::Grant`] the newcomer may be in all the same.
    Dead {
        /// Why.
        reason: PairError,
    },
}

enum Step {
    /// Nothing was said yet.
    Admitted,
    /// Was told that the number is ours, and may try other peers before it comes back.
    Asked,
    /// Waits for the first message of the handshake.
    First(Box<HandshakeState>),
    /// Waits for the third, which proves the code.
    Third(Box<HandshakeState>),
    /// Waits for the newcomer to present itself.
    Hello(Box<Channel>),
    /// Waits for the user.
    Asking(Box<Channel>, Newcomer),
    /// Waits for the welcome from this device.
    Granting(Box<Channel>, Newcomer),
    /// Waits for the newcomer to store it.
    Storing(Box<Channel>, Newcomer),
}

struct Attempt {
    device: DeviceId,
    step: Step,
    until: Timestamp,
}

/// A code and a link for one newcomer. Lives ten minutes, dies of the first wrong guess, and is spent by the first right
/// one.
pub struct Offer {
    device: DeviceId,
    number: u16,
    secrets: Option<(PairCode, PairLink)>,
    until: Timestamp,
    exchanges: u32,
    attempts: BTreeMap<AttemptId, Attempt>,
    /// The newcomer that proved the code.
    winner: Option<AttemptId>,
    over: bool,
}

impl Offer {
    /// A new offer of `device`, to be reached at `addresses` (for the link).
    ///
    /// # Errors
    /// [`PairError::RateLimited`] when too many codes have died; the caller notes each end with [`DeadCodes::note`].
    pub fn new(
        now: Timestamp,
        rng: &mut impl CryptoRng,
        device: DeviceId,
        addresses: &[String],
        dead: &DeadCodes,
    ) -> Result<Self, PairError> {
        dead.permit(now)?;
        let code = PairCode::generate(rng);
        Ok(Self {
            device,
            number: code.number(),
            secrets: Some((code, PairLink::generate(rng, device, addresses))),
            until: now + limits::PAIR_LIFE,
            exchanges: 0,
            attempts: BTreeMap::new(),
            winner: None,
            over: false,
        })
    }

    /// The code to show; `None` once it is spent.
    pub fn code(&self) -> Option<&PairCode> {
        self.secrets.as_ref().map(|(code, _)| code)
    }

    /// The link to show; `None` once it is spent.
    pub fn link(&self) -> Option<&PairLink> {
        self.secrets.as_ref().map(|(_, link)| link)
    }

    /// When the code expires.
    pub fn expires(&self) -> Timestamp {
        self.until
    }

    /// Whether the offer has come to its end, good or bad. It still answers peers with a refusal.
    pub fn is_over(&self) -> bool {
        self.over
    }

    /// When a [`OfferInput::Tick`] is due.
    pub fn next_deadline(&self) -> Option<Timestamp> {
        let own = (!self.over && self.winner.is_none()).then_some(self.until);
        self.attempts.values().map(|attempt| attempt.until).chain(own).min()
    }

    /// Takes one input.
    #[must_use]
    pub fn handle(&mut self, now: Timestamp, rng: &mut impl CryptoRng, input: OfferInput) -> Vec<OfferOutput> {
        let mut out = Vec::new();
        self.expire(now, &mut out);
        match input {
            OfferInput::Connected { attempt, device } => self.admit(now, attempt, device, &mut out),
            OfferInput::Message { attempt, bytes } => self.hear(now, rng, attempt, &bytes, &mut out),
            OfferInput::Closed { attempt } => {
                if self.attempts.remove(&attempt).is_some() && self.winner == Some(attempt) {
                    self.die(PairError::Interrupted, &mut out);
                }
            }
            OfferInput::Confirm { attempt, yes } => self.confirm(now, attempt, yes, &mut out),
            OfferInput::Welcome { attempt, bytes } => self.welcome(now, attempt, &bytes, &mut out),
            OfferInput::Tick => {}
        }
        out
    }

    fn expire(&mut self, now: Timestamp, out: &mut Vec<OfferOutput>) {
        if !self.over && self.winner.is_none() && now >= self.until {
            self.die(PairError::Expired, out);
        }
        let late: Vec<AttemptId> =
            self.attempts.iter().filter(|(_, attempt)| now >= attempt.until).map(|(id, _)| *id).collect();
        for attempt in late {
            self.fail(attempt, PairError::Interrupted, out);
        }
    }

    fn admit(&mut self, now: Timestamp, attempt: AttemptId, device: DeviceId, out: &mut Vec<OfferOutput>) {
        if self.attempts.len() >= limits::PAIR_ATTEMPTS || self.attempts.contains_key(&attempt) {
            out.push(OfferOutput::Close { attempt });
            return;
        }
        let until = now + limits::PAIR_STEP;
        self.attempts.insert(attempt, Attempt { device, step: Step::Admitted, until });
    }

    fn hear(
        &mut self,
        now: Timestamp,
        rng: &mut impl CryptoRng,
        id: AttemptId,
        bytes: &[u8],
        out: &mut Vec<OfferOutput>,
    ) {
        let Some(Attempt { device, step, until }) = self.attempts.remove(&id) else {
            return;
        };
        let next = read(bytes).and_then(|message| match (step, message) {
            (Step::Admitted, PairMessage::Ask { number }) => {
                let known = number == self.number;
                out.push(OfferOutput::Send { attempt: id, bytes: write(&PairMessage::Answer { known }) });
                Ok(Some(if known { Step::Asked } else { Step::Admitted }))
            }
            (Step::Admitted | Step::Asked, first) => self.begin(id, device, first, rng, out).map(Some),
            (step, PairMessage::Noise { bytes }) => self.next(id, device, step, &bytes, out),
            _ => Err(PairError::Interrupted),
        });
        match next {
            Ok(Some(step)) => {
                let until = match step {
                    // Further questions buy no further time.
                    Step::Admitted => until,
                    Step::Asked => now + limits::PAIR_TURN,
                    Step::First(_) | Step::Third(_) | Step::Hello(_) => now + limits::PAIR_STEP,
                    Step::Asking(..) => now + limits::PAIR_ANSWER,
                    Step::Granting(..) | Step::Storing(..) => now + limits::PAIR_STORE,
                };
                self.attempts.insert(id, Attempt { device, step, until });
            }
            Ok(None) => {}
            Err(error) => self.fail(id, error, out),
        }
    }

    /// The next Noise message of a peer; `None` when that was the last.
    fn next(
        &mut self,
        id: AttemptId,
        device: DeviceId,
        step: Step,
        bytes: &[u8],
        out: &mut Vec<OfferOutput>,
    ) -> Result<Option<Step>, PairError> {
        match step {
            Step::First(mut noise) => {
                hear(&mut noise, bytes)?;
                out.push(OfferOutput::Send { attempt: id, bytes: say(&mut noise)? });
                Ok(Some(Step::Third(noise)))
            }
            Step::Third(noise) => self.prove(id, noise, bytes, out).map(Some),
            Step::Hello(mut channel) => {
                let newcomer = meet(&mut channel, device, bytes)?;
                out.push(OfferOutput::Send { attempt: id, bytes: channel.seal(&PairSecret::Waiting {})? });
                out.push(OfferOutput::AskUser { attempt: id, newcomer: newcomer.clone() });
                Ok(Some(Step::Asking(channel, newcomer)))
            }
            Step::Storing(mut channel, newcomer) => match channel.open(bytes) {
                Some(Ok(PairSecret::Done {})) => {
                    self.over = true;
                    out.push(OfferOutput::Close { attempt: id });
                    out.push(OfferOutput::Completed { attempt: id, newcomer });
                    Ok(None)
                }
                _ => Err(PairError::Interrupted),
            },
            Step::Admitted | Step::Asked | Step::Asking(..) | Step::Granting(..) => Err(PairError::Interrupted),
        }
    }

    /// The first message that touches the secret.
    fn begin(
        &mut self,
        id: AttemptId,
        device: DeviceId,
        message: PairMessage,
        rng: &mut impl CryptoRng,
        out: &mut Vec<OfferOutput>,
    ) -> Result<Step, PairError> {
        let (code, link) = self.secrets.as_ref().ok_or(PairError::CodeSpent)?;
        if self.exchanges >= limits::PAIR_EXCHANGES {
            return Err(PairError::CodeSpent);
        }
        self.exchanges += 1;
        let trusted = self.device;
        let join = |psk: &Psk, words: [&[u8]; 2], rng: &mut _| {
            let context = Context { words, newcomer: device, trusted };
            handshake(false, psk, &context, rng).map(|noise| Step::First(Box::new(noise)))
        };
        match message {
            PairMessage::Code { number, spake } if number == self.number => {
                let words = Words::start(code, rng);
                let own = words.message.clone();
                let psk = words.finish(&spake)?;
                let step = join(&psk, [&spake, &own], rng)?;
                let answer = PairMessage::Spake { spake: ByteBuf::from(own) };
                out.push(OfferOutput::Send { attempt: id, bytes: write(&answer) });
                Ok(step)
            }
            PairMessage::Link {} => join(&link.psk(), [&[], &[]], rng),
            _ => Err(PairError::Interrupted),
        }
    }

    /// The third message of the handshake: right, and the secret is spent on this newcomer; wrong, and it is spent too.
    fn prove(
        &mut self,
        id: AttemptId,
        mut noise: Box<HandshakeState>,
        bytes: &[u8],
        out: &mut Vec<OfferOutput>,
    ) -> Result<Step, PairError> {
        self.winner = Some(id);
        self.secrets = None;
        let others: Vec<AttemptId> = self.attempts.keys().copied().collect();
        for other in others {
            self.refuse(other, false, out);
        }
        hear(&mut noise, bytes).map_err(|_| PairError::WrongCode)?;
        Ok(Step::Hello(Box::new(Channel::new(*noise)?)))
    }

    fn confirm(&mut self, now: Timestamp, id: AttemptId, yes: bool, out: &mut Vec<OfferOutput>) {
        let Some(attempt) = self.attempts.remove(&id) else {
            return;
        };
        match attempt.step {
            Step::Asking(channel, newcomer) if yes => {
                out.push(OfferOutput::Grant { attempt: id, newcomer: newcomer.clone() });
                let (step, until) = (Step::Granting(channel, newcomer), now + limits::PAIR_STORE);
                self.attempts.insert(id, Attempt { step, until, ..attempt });
            }
            Step::Asking(..) => self.fail(id, PairError::Declined, out),
            step => {
                self.attempts.insert(id, Attempt { step, ..attempt });
            }
        }
    }

    fn welcome(&mut self, now: Timestamp, id: AttemptId, bytes: &[u8], out: &mut Vec<OfferOutput>) {
        let Some(attempt) = self.attempts.remove(&id) else {
            return;
        };
        let (mut channel, newcomer) = match attempt.step {
            Step::Granting(channel, newcomer) => (channel, newcomer),
            step => {
                self.attempts.insert(id, Attempt { step, ..attempt });
                return;
            }
        };
        match parts(&mut channel, bytes) {
            Ok(frames) => {
                out.extend(frames.into_iter().map(|bytes| OfferOutput::Send { attempt: id, bytes }));
                let (step, until) = (Step::Storing(channel, newcomer), now + limits::PAIR_STORE);
                self.attempts.insert(id, Attempt { step, until, ..attempt });
            }
            Err(error) => self.fail(id, error, out),
        }
    }

    /// Ends one attempt, and the offer with it if that attempt had spent it.
    fn fail(&mut self, id: AttemptId, error: PairError, out: &mut Vec<OfferOutput>) {
        self.refuse(id, error == PairError::Declined, out);
        if self.winner == Some(id) {
            self.die(error, out);
        }
    }

    fn refuse(&mut self, id: AttemptId, declined: bool, out: &mut Vec<OfferOutput>) {
        self.attempts.remove(&id);
        out.push(OfferOutput::Send { attempt: id, bytes: write(&PairMessage::Refused { declined }) });
        out.push(OfferOutput::Close { attempt: id });
    }

    fn die(&mut self, reason: PairError, out: &mut Vec<OfferOutput>) {
        if self.over {
            return;
        }
        self.over = true;
        self.secrets = None;
        let open: Vec<AttemptId> = self.attempts.keys().copied().collect();
        for attempt in open {
            self.refuse(attempt, false, out);
        }
        out.push(OfferOutput::Dead { reason });
    }
}

/// Reads how a newcomer presents itself.
fn meet(channel: &mut Channel, proved: DeviceId, bytes: &[u8]) -> Result<Newcomer, PairError> {
    let Some(Ok(PairSecret::Hello { version, device, seal, kind, name })) = channel.open(bytes) else {
        return Err(PairError::Interrupted);
    };
    if version < VERSION_MIN {
        return Err(PairError::VersionTooOld { min: VERSION_MIN });
    }
    if device != proved {
        return Err(PairError::PeerMismatch);
    }
    if !is_name(&name) {
        return Err(PairError::Interrupted);
    }
    Ok(Newcomer { device, seal, name, kind })
}

/// Cuts a welcome into sealed frames.
fn parts(channel: &mut Channel, welcome: &[u8]) -> Result<Vec<Vec<u8>>, PairError> {
    if welcome.is_empty() || welcome.len() > limits::PAIR_WELCOME {
        return Err(PairError::Oversize);
    }
    let total = u32::try_from(welcome.len()).map_err(|_| PairError::Oversize)?;
    let part = |bytes: &[u8]| channel.seal(&PairSecret::Part { total, bytes: ByteBuf::from(bytes) });
    welcome.chunks(limits::PAIR_PART).map(part).collect()
}
