//! The side of the new device: finds the device that shows the code, proves the code, takes the welcome.

use std::collections::BTreeMap;

use rand_core::CryptoRng;
use serde_bytes::ByteBuf;
use snow::HandshakeState;

use super::{
    AttemptId, Newcomer, PairCode, PairError, PairLink,
    exchange::{Channel, Context, Words, handshake, hear, say},
    is_name, read, write,
};
use crate::{
    id::DeviceId,
    limits,
    time::Timestamp,
    wire::pair::{PairMessage, PairSecret},
};

/// What happens to a [`Join`].
pub enum JoinInput {
    /// A pairing stream to a peer is open.
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
    /// There is no further peer to ask, so that the search may end with those already asked.
    NoMorePeers,
    /// The answer to [`JoinOutput::Welcome`], once it is verified and stored.
    Stored,
    /// The time asked for by [`Join::next_deadline`] has come.
    Tick,
}

/// What a [`Join`] wants done, in order.
#[derive(Debug, PartialEq, Eq)]
pub enum JoinOutput {
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
    /// The code was right; the other device asks its user. Tell ours.
    Waiting {
        /// The device that has the code.
        device: DeviceId,
    },
    /// Verify and store an encoded [`crate::wire::pair::Welcome`], then answer with [`JoinInput::Stored`]; if it is not
    /// worth storing, drop the machine and close its streams.
    Welcome {
        /// The device that gave it.
        device: DeviceId,
        /// The encoding.
        bytes: Vec<u8>,
    },
    /// This device is in.
    Completed {
        /// The device that let it in.
        device: DeviceId,
    },
    /// Pairing did not come about; nothing more will be sent.
    Failed {
        /// Why.
        reason: PairError,
    },
}

enum Proof {
    Code(PairCode),
    Link(Box<PairLink>),
}

enum Step {
    /// Was asked for the number.
    Asked,
    /// Has the number; its turn will come.
    Ready,
    /// Has our SPAKE2 message.
    Words(Box<Words>),
    /// Has the first message of the handshake.
    Second(Box<HandshakeState>),
    /// Has the third, and who we are.
    Third(Box<Channel>),
    /// Accepted the code; a person decides.
    Waiting(Box<Channel>),
    /// Sends the welcome: bytes of the whole, and those that are here.
    Welcome(Box<Channel>, usize, Vec<u8>),
    /// The welcome is being stored here.
    Storing(Box<Channel>),
}

impl Step {
    /// Whether the peer has shown that it has the code.
    fn is_proved(&self) -> bool {
        matches!(self, Self::Waiting(_) | Self::Welcome(..) | Self::Storing(_))
    }

    /// What a refusal at this step means.
    fn refused(&self, declined: bool) -> PairError {
        match self {
            Self::Third(_) => PairError::WrongCode,
            Self::Asked | Self::Ready | Self::Words(_) | Self::Second(_) => PairError::CodeSpent,
            Self::Waiting(_) if declined => PairError::Declined,
            Self::Waiting(_) | Self::Welcome(..) | Self::Storing(_) => PairError::Interrupted,
        }
    }
}

struct Peer {
    device: DeviceId,
    step: Step,
    until: Timestamp,
}

/// One try of a new device to join a mesh. Asks every peer it is connected to for the number of the code, and tries the
/// code with those that have it, one after another.
pub struct Join {
    own: Newcomer,
    proof: Proof,
    peers: BTreeMap<AttemptId, Peer>,
    active: Option<AttemptId>,
    guesses: u32,
    search_until: Timestamp,
    until: Timestamp,
    last: Option<PairError>,
    over: bool,
}

impl Join {
    /// Joins with a code that a person typed; `own` is how this device presents itself.
    pub fn by_code(now: Timestamp, own: Newcomer, code: PairCode) -> Self {
        Self::new(now, own, Proof::Code(code))
    }

    /// Joins with a link; the caller dials [`PairLink::device`] at [`PairLink::addresses`].
    pub fn by_link(now: Timestamp, own: Newcomer, link: PairLink) -> Self {
        Self::new(now, own, Proof::Link(Box::new(link)))
    }

    fn new(now: Timestamp, mut own: Newcomer, proof: Proof) -> Self {
        if !is_name(&own.name) {
            own.name = own.device.short();
        }
        Self {
            own,
            proof,
            peers: BTreeMap::new(),
            active: None,
            guesses: 0,
            search_until: now + limits::PAIR_SEARCH,
            until: now + limits::PAIR_LIFE + limits::PAIR_ANSWER,
            last: None,
            over: false,
        }
    }

    /// Whether this try has come to its end, good or bad.
    pub fn is_over(&self) -> bool {
        self.over
    }

    /// When a [`JoinInput::Tick`] is due.
    pub fn next_deadline(&self) -> Option<Timestamp> {
        if self.over {
            return None;
        }
        let search = self.peers.is_empty().then_some(self.search_until);
        self.peers.values().map(|peer| peer.until).chain(search).chain([self.until]).min()
    }

    /// Takes one input.
    #[must_use]
    pub fn handle(&mut self, now: Timestamp, rng: &mut impl CryptoRng, input: JoinInput) -> Vec<JoinOutput> {
        let mut out = Vec::new();
        if self.over {
            if let JoinInput::Connected { attempt, .. } = input {
                out.push(JoinOutput::Close { attempt });
            }
            return out;
        }
        match input {
            JoinInput::Connected { attempt, device } => self.connected(now, attempt, device, &mut out),
            JoinInput::Message { attempt, bytes } => self.hear(now, rng, attempt, &bytes, &mut out),
            JoinInput::Closed { attempt } => {
                if self.peers.contains_key(&attempt) {
                    self.give_up(now, attempt, PairError::Interrupted, &mut out);
                }
            }
            JoinInput::NoMorePeers => self.search_until = self.search_until.min(now),
            JoinInput::Stored => self.stored(&mut out),
            JoinInput::Tick => {}
        }
        self.expire(now, &mut out);
        self.advance(now, rng, &mut out);
        out
    }

    fn connected(&mut self, now: Timestamp, attempt: AttemptId, device: DeviceId, out: &mut Vec<JoinOutput>) {
        if self.peers.len() >= limits::PAIR_PEERS || self.peers.contains_key(&attempt) {
            out.push(JoinOutput::Close { attempt });
            return;
        }
        let step = match &self.proof {
            Proof::Code(code) => {
                let bytes = write(&PairMessage::Ask { number: code.number() });
                out.push(JoinOutput::Send { attempt, bytes });
                Step::Asked
            }
            Proof::Link(link) if link.device() == device => Step::Ready,
            Proof::Link(_) => {
                self.last.get_or_insert(PairError::PeerMismatch);
                out.push(JoinOutput::Close { attempt });
                return;
            }
        };
        // A peer that waits for its turn waits as long as the whole try lasts.
        let until = if matches!(step, Step::Ready) { self.until } else { now + limits::PAIR_STEP };
        self.peers.insert(attempt, Peer { device, step, until });
    }

    fn hear(
        &mut self,
        now: Timestamp,
        rng: &mut impl CryptoRng,
        id: AttemptId,
        bytes: &[u8],
        out: &mut Vec<JoinOutput>,
    ) {
        let Some(Peer { device, step, until }) = self.peers.remove(&id) else {
            return;
        };
        let proved = step.is_proved();
        let next = read(bytes).and_then(|message| match message {
            PairMessage::Refused { declined } => Err(step.refused(declined)),
            PairMessage::Noise { bytes } => self.next(id, device, step, &bytes, out),
            plain => self.open(id, device, step, plain, rng, out),
        });
        match next {
            Ok(step) => {
                let until = match step {
                    Step::Asked => until,
                    Step::Ready | Step::Storing(_) => self.until,
                    Step::Waiting(_) => now + limits::PAIR_ANSWER + limits::PAIR_STORE,
                    Step::Words(_) | Step::Second(_) | Step::Third(_) | Step::Welcome(..) => now + limits::PAIR_STEP,
                };
                self.peers.insert(id, Peer { device, step, until });
            }
            Err(error) => {
                self.give_up(now, id, error.clone(), out);
                if proved {
                    self.fail(error, out);
                }
            }
        }
    }

    /// A peer's answer before the handshake.
    fn open(
        &mut self,
        id: AttemptId,
        device: DeviceId,
        step: Step,
        message: PairMessage,
        rng: &mut impl CryptoRng,
        out: &mut Vec<JoinOutput>,
    ) -> Result<Step, PairError> {
        match (step, message) {
            (Step::Asked, PairMessage::Answer { known: true }) => Ok(Step::Ready),
            (Step::Asked, PairMessage::Answer { known: false }) => Err(PairError::NotFound),
            (Step::Words(words), PairMessage::Spake { spake }) => {
                let own = words.message.clone();
                let psk = words.finish(&spake)?;
                let context = Context { words: [&own, &spake], newcomer: self.own.device, trusted: device };
                let mut noise = handshake(true, &psk, &context, rng)?;
                out.push(JoinOutput::Send { attempt: id, bytes: say(&mut noise)? });
                Ok(Step::Second(Box::new(noise)))
            }
            _ => Err(PairError::Interrupted),
        }
    }

    /// A peer's next Noise message.
    fn next(
        &mut self,
        id: AttemptId,
        device: DeviceId,
        step: Step,
        bytes: &[u8],
        out: &mut Vec<JoinOutput>,
    ) -> Result<Step, PairError> {
        match step {
            Step::Second(mut noise) => {
                hear(&mut noise, bytes)?;
                out.push(JoinOutput::Send { attempt: id, bytes: say(&mut noise)? });
                let mut channel = Channel::new(*noise)?;
                out.push(JoinOutput::Send { attempt: id, bytes: channel.seal(&PairSecret::hello(&self.own))? });
                Ok(Step::Third(Box::new(channel)))
            }
            Step::Third(mut channel) => match channel.open(bytes) {
                Some(Ok(PairSecret::Waiting {})) => {
                    out.push(JoinOutput::Waiting { device });
                    Ok(Step::Waiting(channel))
                }
                Some(_) => Err(PairError::Interrupted),
                None => Err(PairError::WrongCode),
            },
            Step::Waiting(channel) => take(channel, 0, Vec::new(), device, bytes, out),
            Step::Welcome(channel, total, held) => take(channel, total, held, device, bytes, out),
            Step::Asked | Step::Ready | Step::Words(_) | Step::Storing(_) => Err(PairError::Interrupted),
        }
    }

    fn stored(&mut self, out: &mut Vec<JoinOutput>) {
        let Some(id) = self.active else { return };
        let Some(Peer { device, step: Step::Storing(channel), .. }) = self.peers.get_mut(&id) else {
            return;
        };
        let device = *device;
        // Without the acknowledgement this device is in all the same.
        if let Ok(bytes) = channel.seal(&PairSecret::Done {}) {
            out.push(JoinOutput::Send { attempt: id, bytes });
        }
        self.close_all(out);
        self.over = true;
        out.push(JoinOutput::Completed { device });
    }

    fn expire(&mut self, now: Timestamp, out: &mut Vec<JoinOutput>) {
        if !self.over && now >= self.until {
            self.fail(PairError::Expired, out);
        }
        let late: Vec<AttemptId> = self.peers.iter().filter(|(_, peer)| now >= peer.until).map(|(id, _)| *id).collect();
        for id in late {
            self.give_up(now, id, PairError::Interrupted, out);
        }
    }

    /// Starts with the next peer that has the number, or ends the search.
    fn advance(&mut self, now: Timestamp, rng: &mut impl CryptoRng, out: &mut Vec<JoinOutput>) {
        if self.over || self.active.is_some() {
            return;
        }
        let ready = self.peers.iter().find(|(_, peer)| matches!(peer.step, Step::Ready)).map(|(id, _)| *id);
        if let Some(id) = ready.filter(|_| self.guesses < limits::PAIR_GUESSES) {
            self.guesses += 1;
            self.active = Some(id);
            if let Err(error) = self.start(now, rng, id, out) {
                self.fail(error, out);
            }
            return;
        }
        let nobody = self.peers.is_empty() && now >= self.search_until;
        if nobody || ready.is_some() {
            let reason = self.last.clone().unwrap_or(PairError::NotFound);
            self.fail(reason, out);
        }
    }

    fn start(
        &mut self,
        now: Timestamp,
        rng: &mut impl CryptoRng,
        id: AttemptId,
        out: &mut Vec<JoinOutput>,
    ) -> Result<(), PairError> {
        let Some(peer) = self.peers.get_mut(&id) else {
            return Ok(());
        };
        peer.until = now + limits::PAIR_STEP;
        match &self.proof {
            Proof::Code(code) => {
                let words = Words::start(code, rng);
                let spake = ByteBuf::from(words.message.clone());
                let bytes = write(&PairMessage::Code { number: code.number(), spake });
                out.push(JoinOutput::Send { attempt: id, bytes });
                peer.step = Step::Words(Box::new(words));
            }
            Proof::Link(link) => {
                let context = Context { words: [&[], &[]], newcomer: self.own.device, trusted: peer.device };
                let mut noise = handshake(true, &link.psk(), &context, rng)?;
                out.push(JoinOutput::Send { attempt: id, bytes: write(&PairMessage::Link {}) });
                out.push(JoinOutput::Send { attempt: id, bytes: say(&mut noise)? });
                peer.step = Step::Second(Box::new(noise));
            }
        }
        Ok(())
    }

    /// Lets go of one peer and remembers why, if that tells the user more than what is known already.
    fn give_up(&mut self, now: Timestamp, id: AttemptId, error: PairError, out: &mut Vec<JoinOutput>) {
        let proved = self.peers.remove(&id).is_some_and(|peer| peer.step.is_proved());
        out.push(JoinOutput::Close { attempt: id });
        if self.active == Some(id) {
            self.active = None;
            self.search_until = self.search_until.min(now + limits::PAIR_LINGER);
            if self.last != Some(PairError::WrongCode) {
                self.last = Some(error.clone());
            }
            if proved {
                self.fail(error, out);
            }
        }
    }

    fn fail(&mut self, reason: PairError, out: &mut Vec<JoinOutput>) {
        if !self.over {
            self.over = true;
            self.close_all(out);
            out.push(JoinOutput::Failed { reason });
        }
    }

    fn close_all(&mut self, out: &mut Vec<JoinOutput>) {
        out.extend(std::mem::take(&mut self.peers).into_keys().map(|attempt| JoinOutput::Close { attempt }));
    }
}

/// Takes the next part of the welcome.
fn take(
    mut channel: Box<Channel>,
    total: usize,
    mut held: Vec<u8>,
    device: DeviceId,
    bytes: &[u8],
    out: &mut Vec<JoinOutput>,
) -> Result<Step, PairError> {
    let Some(Ok(PairSecret::Part { total: stated, bytes })) = channel.open(bytes) else {
        return Err(PairError::Interrupted);
    };
    let stated = usize::try_from(stated).map_err(|_| PairError::Oversize)?;
    if stated > limits::PAIR_WELCOME {
        return Err(PairError::Oversize);
    }
    let expected = stated.saturating_sub(held.len()).min(limits::PAIR_PART);
    if bytes.is_empty() || bytes.len() != expected || (total != 0 && total != stated) {
        return Err(PairError::Interrupted);
    }
    held.extend_from_slice(&bytes);
    if held.len() < stated {
        return Ok(Step::Welcome(channel, stated, held));
    }
    out.push(JoinOutput::Welcome { device, bytes: held });
    Ok(Step::Storing(channel))
}
