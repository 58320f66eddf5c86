//! What is known of a connected peer.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use meshwork_protocol::{
    id::{ChainId, ObjectId, OpId},
    limits,
    object::Vector,
    time::Timestamp,
    wire::sync::ShortDigest,
};

use super::{Audience, Scope};

/// A connected peer.
#[derive(Debug)]
pub(super) struct Peer {
    pub(super) allowed: Audience,
    pub(super) views: BTreeMap<ObjectId, View>,
    /// Whether its first frame came.
    pub(super) greeted: bool,
    pub(super) strikes: u32,
    /// When it was heard last.
    pub(super) heard: Timestamp,
    /// When something was sent to it last.
    pub(super) sent: Timestamp,
    /// When everything is compared again.
    pub(super) compare: Timestamp,
    /// Batches of new records on their way.
    pub(super) pushes: usize,
    /// Objects for which it is being asked.
    pub(super) wants: usize,
    /// Before this, news are gathered.
    pub(super) announce: Timestamp,
    /// Objects with news for the peer.
    pub(super) news: BTreeSet<ObjectId>,
    /// Objects whose view has something due.
    pub(super) timers: BTreeSet<ObjectId>,
}

/// What is known of one peer's holdings of one object.
#[derive(Debug)]
pub(super) struct View {
    pub(super) scope: Scope,
    /// Newest place of each chain that the peer says it holds, or sent.
    pub(super) claims: BTreeMap<ChainId, u64>,
    /// Newest place sent unasked of each chain written here: on its way, if not claimed yet.
    pub(super) pushed: BTreeMap<ChainId, u64>,
    /// Newest place of each chain that the peer was told is held here.
    pub(super) told: BTreeMap<ChainId, u64>,
    /// Chains of which more is held than the peer was told.
    pub(super) news: BTreeSet<ChainId>,
    /// Whether `claims` rests on a statement of the peer.
    pub(super) known: bool,
    /// Whether the peer was told everything that was held then.
    pub(super) introduced: bool,
    /// Whether a full statement was sent since states were last exchanged.
    pub(super) stated: bool,
    /// The digest of what is held here that the peer was told last.
    pub(super) said: Option<ShortDigest>,
    /// The digest that the peer stated last.
    pub(super) digest: Option<ShortDigest>,
    /// A full statement is due, but not before [`View::quiet`].
    pub(super) statement_due: bool,
    /// A question for the control log is due, but not before [`View::quiet_control`].
    pub(super) question_due: bool,
    pub(super) quiet: Timestamp,
    pub(super) quiet_control: Timestamp,
    /// Whether the peer was asked for its control log since states were last exchanged.
    pub(super) questioned: bool,
    /// Since when an answer about the control log is outstanding.
    pub(super) control_asked: Option<Timestamp>,
    /// Whether an answer about the control log is being sent.
    pub(super) control_sending: bool,
    /// The peer asked again meanwhile.
    pub(super) control_next: Option<Vec<OpId>>,
    /// Answers being sent.
    pub(super) serving: usize,
    /// Chains that the peer claims and did not deliver.
    pub(super) pauses: BTreeMap<ChainId, Pause>,
    /// Chains of which the peer holds other records than this replica, while the place is looked for from which on.
    pub(super) probes: BTreeMap<ChainId, Probe>,
}

/// A chain is not asked for until then, unless it grew otherwise.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pause {
    pub(super) until: Timestamp,
    pub(super) tries: u32,
    /// Where the chain stood here.
    pub(super) at: u64,
}

/// Time until what was asked for so often in vain is asked for again.
pub(super) fn want_pause(tries: u32) -> Duration {
    limits::WANT_PAUSE.saturating_mul(1 << tries.min(16)).min(limits::WANT_PAUSE_MAX)
}

/// The search for the first record of a peer's branch: downward in growing steps to one that is held or can be
/// admitted, then up again.
#[derive(Debug, Clone, Copy)]
pub(super) struct Probe {
    /// The place asked for on the way down.
    pub(super) at: u64,
    /// A place above it at which the peer is known to be on another branch.
    pub(super) beyond: u64,
    way: Way,
    pub(super) asked: bool,
    /// Not to be asked for before, because that brought nothing so many times.
    pub(super) until: Timestamp,
    tries: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Down,
    /// What lies between is asked for.
    Up,
    /// It stays, so that it is not begun again.
    Over,
}

impl Probe {
    /// At a place where the peer's record is another one, or goes on from another one.
    pub(super) fn below(seq: u64, step: u64) -> Self {
        let at = seq.saturating_sub(step).max(1);
        Probe { at, beyond: seq, way: Way::Down, asked: false, until: Timestamp(0), tries: 0 }
    }

    /// The places to be asked for, if any.
    pub(super) fn range(&self) -> Option<(u64, u64)> {
        match self.way {
            Way::Down => Some((self.at, self.at)),
            Way::Up => Some((self.at + 1, self.beyond.saturating_sub(1))).filter(|(first, last)| first <= last),
            Way::Over => None,
        }
    }

    /// What was asked for is here: what lies between is next, if there is anything.
    pub(super) fn found(&mut self) {
        let way = if self.way == Way::Down { Way::Up } else { Way::Over };
        *self = Probe { way, asked: false, until: Timestamp(0), tries: 0, ..*self };
    }

    /// The question brought nothing.
    pub(super) fn pause(&mut self, now: Timestamp) {
        self.asked = false;
        self.until = now + want_pause(self.tries);
        self.tries += 1;
    }
}

impl Peer {
    pub(super) fn new(now: Timestamp, allowed: Audience, views: BTreeMap<ObjectId, View>) -> Self {
        Peer {
            allowed,
            views,
            greeted: false,
            strikes: 0,
            heard: now,
            sent: now,
            compare: now + limits::COMPARE_PAUSE,
            pushes: 0,
            wants: 0,
            announce: now,
            news: BTreeSet::new(),
            timers: BTreeSet::new(),
        }
    }

    /// The peer may not know of an object any more, or it is gone.
    pub(super) fn forget(&mut self, object: &ObjectId) {
        self.views.remove(object);
        self.news.remove(object);
        self.timers.remove(object);
    }

    pub(super) fn next_deadline(&self) -> Option<Timestamp> {
        let fixed = [self.heard + limits::SILENCE, self.sent + limits::KEEP_ALIVE, self.compare];
        let news = (!self.news.is_empty()).then_some(self.announce);
        let views = self.timers.iter().filter_map(|object| self.views.get(object)).filter_map(View::due);
        fixed.into_iter().chain(news).chain(views).min()
    }
}

impl View {
    pub(super) fn new(now: Timestamp, scope: Scope) -> Self {
        View {
            scope,
            claims: BTreeMap::new(),
            pushed: BTreeMap::new(),
            told: BTreeMap::new(),
            news: BTreeSet::new(),
            known: false,
            introduced: false,
            stated: false,
            said: None,
            digest: None,
            statement_due: false,
            question_due: false,
            quiet: now,
            quiet_control: now,
            questioned: false,
            control_asked: None,
            control_sending: false,
            control_next: None,
            serving: 0,
            pauses: BTreeMap::new(),
            probes: BTreeMap::new(),
        }
    }

    /// Forgets what is known of chains, but that the peer has them still.
    pub(super) fn forget(&mut self, chains: &BTreeSet<ChainId>) {
        for places in [&mut self.pushed, &mut self.told] {
            places.retain(|chain, _| !chains.contains(chain));
        }
        self.news.retain(|chain| !chains.contains(chain));
        self.pauses.retain(|chain, _| !chains.contains(chain));
        self.probes.retain(|chain, _| !chains.contains(chain));
    }

    pub(super) fn claim(&self, chain: &ChainId) -> u64 {
        self.claims.get(chain).copied().unwrap_or(0)
    }

    /// Raises what the peer holds of a chain; false if it claims too many chains.
    pub(super) fn raise(&mut self, chain: ChainId, seq: u64) -> bool {
        if let Some(claim) = self.claims.get_mut(&chain) {
            *claim = seq.max(*claim);
            return true;
        }
        let room = self.claims.len() < limits::SYNC_CHAINS;
        if room {
            self.claims.insert(chain, seq);
        }
        room
    }

    /// The peer was told, or knows, all that is held.
    pub(super) fn introduce(&mut self, held: &Vector) {
        self.introduced = true;
        self.told = held.0.iter().map(|(chain, (seq, _))| (*chain, *seq)).collect();
        self.news.clear();
    }

    /// When something is to be done next.
    pub(super) fn due(&self) -> Option<Timestamp> {
        let answer = self.control_asked.map(|since| since + limits::CONTROL_TIMEOUT);
        let statement = self.statement_due.then_some(self.quiet);
        let question = (self.question_due && self.control_asked.is_none()).then_some(self.quiet_control);
        answer.into_iter().chain(statement).chain(question).min()
    }

    /// Notes how much of a chain the peer was told of, or sent.
    pub(super) fn tell(&mut self, chain: ChainId, seq: u64) {
        let told = self.told.entry(chain).or_default();
        *told = seq.max(*told);
    }

    /// Whether the peer was told that this replica holds a chain up to a place.
    pub(super) fn was_told(&self, chain: &ChainId, seq: u64) -> bool {
        seq <= self.told.get(chain).copied().unwrap_or(0)
    }
}
