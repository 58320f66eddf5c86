//! The events of a node: a bounded ring that any number of readers follow at their own pace.

use std::{
    borrow::Cow,
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use meshwork_protocol::time::Timestamp;
use serde_json::Value;
use tokio::sync::watch;

use crate::api::types::Event;

/// Events kept for readers that come later or are slow.
pub const RING_EVENTS_MAX: usize = 1_024;
/// Bytes of the sentence of an event: two paths of a deep tree and room; longer ones are cut.
pub const TEXT_BYTES_MAX: usize = 8_192;

/// The node has started.
pub const NODE_STARTED: &str = "node.started";
/// A device has connected.
pub const PEER_UP: &str = "peer.up";
/// The last connection of a device is gone.
pub const PEER_DOWN: &str = "peer.down";
/// A file from another device is on this disk.
pub const FILE_PLACED: &str = "file.placed";
/// A file was moved to history because another device removed it.
pub const FILE_REMOVED: &str = "file.removed";
/// A file has another name because another device renamed it.
pub const FILE_MOVED: &str = "file.moved";
/// A file cannot be synchronised; `reason` says why.
pub const FILE_PROBLEM: &str = "file.problem";
/// Changes made here are recorded for the others; `operations` says how many.
pub const FOLDER_RECORDED: &str = "folder.recorded";
/// A device joined the mesh.
pub const DEVICE_ADDED: &str = "device.added";
/// A device was added with the recovery phrase, here or elsewhere.
pub const DEVICE_RESTORED: &str = "device.restored";
/// What a restore with the recovery phrase is doing on this device.
pub const RECOVERY_PROGRESS: &str = "recovery.progress";
/// A device was removed from the mesh.
pub const DEVICE_REMOVED: &str = "device.removed";
/// A device signed two records for one place of its chain.
pub const DEVICE_FORKED: &str = "device.forked";
/// Another copy of this device has written in its name.
pub const DEVICE_COPIED: &str = "device.copied";
/// A revocation, or a record that builds on a quarantined one, changed what stands.
pub const JUDGED_AGAIN: &str = "folder.judged";
/// The store failed: nothing is recorded any more until the node starts again.
pub const STORE_FAILED: &str = "store.failed";
/// Two devices changed a file at once; both versions are kept.
pub const FILE_CONFLICT: &str = "file.conflict";
/// The state of a folder changed.
pub const FOLDER_STATE: &str = "folder.state";
/// A new device asks to be let in.
pub const PAIR_ASKED: &str = "pair.asked";
/// A new device is in.
pub const PAIR_DONE: &str = "pair.done";
/// A pairing failed or expired.
pub const PAIR_FAILED: &str = "pair.failed";
/// A device began to use a service of this one.
pub const SERVICE_OPENED: &str = "service.opened";
/// It ended that; `sent` and `received` say how many bytes.
pub const SERVICE_CLOSED: &str = "service.closed";
/// It was ended because the right to it is gone.
pub const SERVICE_ENDED: &str = "service.ended";
/// A device asked for a service that there is not, or not for it.
pub const SERVICE_REFUSED: &str = "service.refused";
/// The reader was away for too long: `count` events before the next one are gone.
pub const EVENTS_LOST: &str = "events.lost";

struct Ring {
    events: VecDeque<Event>,
    newest: u64,
}

impl Ring {
    /// Id of the oldest event kept, or of the next one.
    fn oldest(&self) -> u64 {
        self.events.front().map_or(self.newest.saturating_add(1), |event| event.id)
    }
}

/// The events of one node. Cloning gives another handle to the same ring.
#[derive(Clone)]
pub struct EventLog {
    ring: Arc<Mutex<Ring>>,
    newest: watch::Sender<u64>,
}

impl Default for EventLog {
    fn default() -> Self {
        EventLog::new()
    }
}

impl EventLog {
    /// An empty ring; its first event has id 1.
    pub fn new() -> Self {
        let ring = Ring { events: VecDeque::new(), newest: 0 };
        EventLog { ring: Arc::new(Mutex::new(ring)), newest: watch::Sender::new(0) }
    }

    /// Adds an event, never waits; the oldest one falls out when the ring is full. Returns its id.
    pub fn post<K, V>(
        &self,
        now: Timestamp,
        kind: &'static str,
        text: impl Into<String>,
        fields: impl IntoIterator<Item = (K, V)>,
    ) -> u64
    where
        K: Into<String>,
        V: Into<Value>,
    {
        let mut text: String = text.into();
        text.truncate(text.floor_char_boundary(TEXT_BYTES_MAX));
        let fields: BTreeMap<String, Value> =
            fields.into_iter().map(|(key, value)| (key.into(), value.into())).collect();
        let mut ring = lock(&self.ring);
        ring.newest = ring.newest.saturating_add(1);
        let id = ring.newest;
        if ring.events.len() == RING_EVENTS_MAX {
            ring.events.pop_front();
        }
        let time = now.as_micros() / 1_000;
        ring.events.push_back(Event { id, time, kind: Cow::Borrowed(kind), text, fields });
        drop(ring);
        self.newest.send_replace(id);
        id
    }

    /// Follows the events after id `since`; `None` for new ones only.
    ///
    /// A `since` beyond the newest event comes from before a restart of the node: the reader then gets
    /// all that are kept, after an [`EVENTS_LOST`].
    pub fn subscribe(&self, since: Option<u64>) -> Subscription {
        let newest = self.newest.subscribe();
        let last = lock(&self.ring).newest;
        let (next, lost) = match since {
            None => (last.saturating_add(1), None),
            Some(since) if since > last => (1, Some(0)),
            Some(since) => (since.saturating_add(1), None),
        };
        Subscription { ring: Arc::clone(&self.ring), newest, next, lost }
    }
}

/// One reader of an [`EventLog`].
pub struct Subscription {
    ring: Arc<Mutex<Ring>>,
    newest: watch::Receiver<u64>,
    next: u64,
    /// Events known to be lost that the reader was not told of.
    lost: Option<u64>,
}

impl Subscription {
    /// The next event; `None` when the node is gone. Loses none when the future is dropped.
    pub async fn next(&mut self) -> Option<Event> {
        loop {
            self.newest.borrow_and_update();
            if let Some(event) = self.take() {
                return Some(event);
            }
            self.newest.changed().await.ok()?;
        }
    }

    /// The next event if there is one already.
    pub fn take(&mut self) -> Option<Event> {
        let ring = lock(&self.ring);
        let oldest = ring.oldest();
        if self.next < oldest {
            let missed = oldest.saturating_sub(self.next);
            self.lost = Some(self.lost.unwrap_or(0).saturating_add(missed));
            self.next = oldest;
        }
        if let Some(count) = self.lost.take() {
            let time = ring.events.front().map_or(0, |event| event.time);
            return Some(lost_event(self.next.saturating_sub(1), time, count));
        }
        let index = usize::try_from(self.next.checked_sub(oldest)?).ok()?;
        let event = ring.events.get(index)?.clone();
        self.next = event.id.saturating_add(1);
        Some(event)
    }
}

/// Carries the id before the next event, so that a reader that reconnects after it misses nothing more.
fn lost_event(id: u64, time: u64, count: u64) -> Event {
    let text = match count {
        0 => "The node was started anew; earlier events are gone.".to_owned(),
        1 => "1 event is gone: it was too long ago.".to_owned(),
        count => format!("{count} events are gone: they were too long ago."),
    };
    let fields = BTreeMap::from([("count".to_owned(), Value::from(count))]);
    Event { id, time, kind: Cow::Borrowed(EVENTS_LOST), text, fields }
}

fn lock(ring: &Mutex<Ring>) -> MutexGuard<'_, Ring> {
    ring.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn post(log: &EventLog, text: &str) -> u64 {
        log.post(Timestamp(5_000), FILE_PLACED, text, [("path", "a/b")])
    }

    #[tokio::test]
    async fn a_reader_sees_what_it_asked_for() {
        let log = EventLog::new();
        post(&log, "one");
        post(&log, "two");
        let mut all = log.subscribe(Some(0));
        let mut after = log.subscribe(Some(1));
        let mut new = log.subscribe(None);
        assert!(new.take().is_none());
        let waiting = tokio::spawn(async move { new.next().await });
        assert_eq!(post(&log, "three"), 3);

        assert_eq!(waiting.await.expect("no panic").map(|event| event.id), Some(3));
        let texts: Vec<String> = std::iter::from_fn(|| all.take()).map(|event| event.text).collect();
        assert_eq!(texts, ["one", "two", "three"]);
        let event = after.take().expect("the second event");
        assert_eq!((event.id, event.time, event.kind.as_ref()), (2, 5, FILE_PLACED));
        drop(log);
        after.take();
        assert_eq!(after.next().await, None);
    }

    #[test]
    fn a_slow_reader_is_told_what_it_lost() {
        let log = EventLog::new();
        let mut slow = log.subscribe(Some(0));
        for _ in 0..RING_EVENTS_MAX + 7 {
            post(&log, "x");
        }
        let lost = slow.take().expect("the gap");
        assert_eq!((lost.kind.as_ref(), lost.id), (EVENTS_LOST, 7));
        assert_eq!(lost.fields.get("count"), Some(&Value::from(7)));
        assert_eq!(slow.take().map(|event| event.id), Some(8));
        assert_eq!(std::iter::from_fn(|| slow.take()).count(), RING_EVENTS_MAX - 1);
    }

    #[test]
    fn a_reader_from_before_a_restart_starts_over() {
        let log = EventLog::new();
        post(&log, "one");
        let mut old = log.subscribe(Some(900));
        assert_eq!(old.take().map(|event| event.kind), Some(Cow::Borrowed(EVENTS_LOST)));
        assert_eq!(old.take().map(|event| event.id), Some(1));
        assert!(old.take().is_none());
    }

    #[test]
    fn a_long_sentence_is_cut_between_characters() {
        let log = EventLog::new();
        let mut reader = log.subscribe(None);
        post(&log, &"ä".repeat(TEXT_BYTES_MAX));
        assert_eq!(reader.take().map(|event| event.text.len()), Some(TEXT_BYTES_MAX));
    }
}
