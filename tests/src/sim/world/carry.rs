//! Inputs into replicas, their outputs carried out, the store, and the life of processes.

use std::collections::{BTreeMap, BTreeSet};

use meshwork_protocol::{
    id::{ChainId, ContentId, RecordKey},
    object::Verified,
};
use meshwork_replica::{
    feed::Value,
    folder,
    replica::{self, Input, Output, Replica, Stored},
};

use super::{Event, MS, World};
use crate::sim::{
    device::{Backup, Fetching, Job, Lot, Rows},
    network::Outgoing,
    planted::Planted,
};

impl World {
    /// Gives a replica an input and carries out what it asks for.
    pub(super) fn drive(&mut self, device: usize, input: Input) {
        let now = self.time();
        let entry = &mut self.devices[device];
        let Some(replica) = &mut entry.replica else { return };
        let outputs = replica.handle(now, &mut entry.rng, input);
        self.carry_out(device, outputs);
    }

    /// Carries out what a replica asks for, as the node does.
    pub(super) fn carry_out(&mut self, device: usize, outputs: Vec<Output>) {
        for output in outputs {
            self.carry_one(device, output);
        }
        self.write_out(device);
        self.schedule_tick(device);
    }

    fn carry_one(&mut self, device: usize, output: Output) {
        let life = self.devices[device].life;
        match output {
            Output::Persist { ticket, entries } => self.persist(device, ticket, entries),
            Output::Send { peer, frame } => {
                let bytes = frame.encode();
                self.trace.bytes(&bytes);
                self.queue_out(device, peer, Outgoing::Frame(bytes));
            }
            Output::Serve { peer, object, places, answer } => {
                self.queue_out(device, peer, Outgoing::Serve { object, places, answer });
            }
            Output::Reread { object, places } => {
                self.counts.add("object read again");
                let delay = self.between(1, 60);
                self.at(delay, Event::Reread { device, life, object, places });
            }
            Output::Forget { chain, .. } => self.forget(device, chain),
            Output::Disconnect { peer, reason } => {
                let Some(peer) = self.index.get(&peer).copied() else {
                    return;
                };
                self.counts.add("peer broken off");
                if self.is_malicious(peer) {
                    self.counts.add("malice: broken off");
                } else if reason != meshwork_protocol::wire::sync::Reason::Silent {
                    self.fail(format!("device {device} breaks off with {peer}: {reason:?}"));
                }
                self.cut(device, peer);
            }
            Output::List(_, paths) => self.begin_job(device, Job::List(paths)),
            Output::Hash(_, files) => self.begin_job(device, Job::Hash(files.into(), Vec::new())),
            Output::Place(_, batch) => {
                self.begin_put(device, &batch);
                if self.devices[device].gathered.batch.replace(batch).is_some() {
                    self.fail(format!("device {device} has two batches to be placed at a time"));
                }
            }
            Output::Base { own, changes, .. } => self.devices[device].gathered.bases.push((own, changes)),
            Output::Fetch { ticket, peer, files, .. } => {
                let fetching = Fetching { ticket, peer, left: files.into(), outcomes: Vec::new() };
                self.devices[device].fetches.insert(ticket, fetching);
                let delay = self.between(1, 60);
                self.at(delay, Event::Fetch { device, life, ticket });
            }
            Output::Incarnation(incarnation) => self.devices[device].secrets.incarnation = incarnation,
            Output::Addresses(_) | Output::PeersChanged => self.meet(device),
            Output::Event(event) => self.on_replica_event(device, event),
        }
    }

    fn on_replica_event(&mut self, device: usize, event: replica::Event) {
        self.trace.line(|| format!("              device {device}: {event:?}"));
        match event {
            replica::Event::Folder(_, folder::Event::Problem { path, reason }) => {
                if reason.contains("changing") {
                    self.counts.add("folder changed between two listings");
                } else if reason.contains("no right to write") && self.knows_of_a_cut(device) {
                    self.counts.add("admin: changes that cannot be signed yet");
                } else {
                    self.fail(format!("device {device}: {path:?}: {reason}"));
                }
            }
            replica::Event::Folder(_, folder::Event::Put { .. }) => self.end_put(device),
            replica::Event::Folder(_, folder::Event::Placed { conflict: true, .. }) => {
                self.counts.add("conflict placed")
            }
            replica::Event::Refused { peer, error } => {
                if self.index.get(&peer).is_some_and(|peer| self.is_malicious(*peer)) {
                    self.counts.add("malice: refused");
                } else {
                    self.fail(format!("device {device} refuses what a peer sent: {error}"));
                }
            }
            replica::Event::FolderForgotten(_) => self.forget_folder(device),
            replica::Event::StoreFailed => self.fail(format!("device {device}: the store failed")),
            _ => {}
        }
    }

    fn persist(&mut self, device: usize, ticket: u64, entries: Vec<Stored>) {
        for entry in &entries {
            if let Stored::Retired { by, chain, .. } = entry {
                self.trace.line(|| format!("              device {device} lets go of {chain} for {by}"));
            }
            if let Stored::Record { object, chain, seq, id, own: true, .. } = entry {
                let newest = self.devices[device].own_seq.entry(*chain).or_default();
                let expected = *newest + 1;
                *newest = *seq;
                if *seq != expected {
                    self.fail(format!(
                        "device {device} writes place {seq} after {} of its chain {chain}",
                        expected - 1
                    ));
                }
                if *object == self.folder {
                    if self.is_guest(device) {
                        self.counts.add("guest: record written");
                    }
                    self.note_known(device, *id);
                    self.judge_own(device, id.key());
                }
            }
        }
        let lot = &mut self.devices[device].gathered;
        lot.entries.extend(entries);
        lot.tickets.push(ticket);
    }

    /// An author replaces only what his disk showed.
    fn judge_own(&mut self, device: usize, record: RecordKey) {
        let Some(folder) = self.devices[device].replica.as_ref().and_then(|replica| replica.folder(self.folder)) else {
            return;
        };
        let (mut unseen, mut recorded) = (None, Vec::new());
        for op in folder.feed().iter().flatten().filter(|op| op.dot.record == record) {
            let said =
                || format!("              device {device} writes {:?} = {:?} over {:?}", op.key, op.value, op.base);
            self.trace.line(said);
            let content = match &op.value {
                Value::File(file) if !file.is_symlink() => Some(file.content),
                _ => None,
            };
            self.values.insert(op.dot, content);
            recorded.extend(content);
            for dot in &op.base {
                let replaced = self.values.get(dot).copied().flatten();
                if replaced.is_some_and(|content| !self.devices[device].seen.contains(&content)) {
                    unseen =
                        Some(format!("device {device} replaces at {:?} a content that its disk never showed", op.key));
                }
            }
        }
        recorded.into_iter().for_each(|content| self.note_recorded(device, content));
        if let Some(reason) = unseen {
            self.fail(reason);
        }
    }

    fn write_out(&mut self, device: usize) {
        let entry = &mut self.devices[device];
        if entry.writing.is_some() || entry.gathered.is_empty() || entry.replica.is_none() {
            return;
        }
        let lot = std::mem::take(&mut entry.gathered);
        let (tickets, life) = (lot.tickets.clone(), entry.life);
        entry.writing = Some(lot);
        let slow = if self.fate.once_in(8) { 400 } else { 30 };
        let delay = self.between(1, slow);
        self.at(delay, Event::Written(device, life));
        if self.has(Planted::EarlyDurable) {
            if let Some(lot) = &mut self.devices[device].writing {
                lot.tickets.clear();
            }
            for ticket in tickets {
                self.drive(device, Input::Persisted { ticket, durable: true });
            }
        }
    }

    pub(super) fn written(&mut self, device: usize, life: u64) {
        if !self.is_current(device, life) {
            return;
        }
        let Some(lot) = self.devices[device].writing.take() else {
            return;
        };
        self.store(device, &lot.entries);
        self.store_rows(device, &lot);
        if let Some(batch) = lot.batch {
            self.flush_rows(device);
            self.devices[device].disk.begin_batch();
            self.begin_job(device, Job::Place(batch, Vec::new()));
        }
        for ticket in lot.tickets {
            self.drive(device, Input::Persisted { ticket, durable: true });
        }
        self.write_out(device);
    }

    fn store(&mut self, device: usize, entries: &[Stored]) {
        for entry in entries {
            if let Stored::Record { chain, seq, id, bytes, .. } = entry {
                self.devices[device].records.insert((*chain, *seq), bytes.clone());
                let author = Verified::trusted(bytes.clone()).ok().and_then(|it| self.index.get(&it.author()).copied());
                let may_fork = author.is_none_or(|it| self.is_malicious(it) || self.put_back.contains(&it));
                let known = *self.durable.entry((*chain, *seq)).or_insert(*id);
                if known != *id && !may_fork {
                    self.fail(format!(
                        "two records at place {seq} of one chain, the second durable on device {device}"
                    ));
                }
            }
        }
        self.devices[device].log.extend_from_slice(entries);
    }

    /// The store lets go of a chain; what a backup has of it stays there.
    fn forget(&mut self, device: usize, chain: ChainId) {
        self.counts.add("checkpoint: chain let go of");
        let reclaims = self.fate.once_in(2);
        let entry = &mut self.devices[device];
        entry.records.retain(|(of, _), _| *of != chain);
        let saved = entry.backup.as_ref().map_or(0, |backup| backup.log);
        if reclaims {
            let mut number = 0;
            entry.log.retain(|stored| {
                number += 1;
                number <= saved || !matches!(stored, Stored::Record { chain: of, .. } if *of == chain)
            });
        }
    }

    fn store_rows(&mut self, device: usize, lot: &Lot) {
        if lot.bases.is_empty() {
            return;
        }
        let rows = &mut self.devices[device].rows;
        let mut next = rows.last().cloned().unwrap_or_default();
        for (own, changes) in &lot.bases {
            next.apply(*own, changes);
        }
        rows.push(next);
    }

    pub(super) fn flush(&mut self, device: usize, life: u64) {
        if life == self.devices[device].life {
            self.flush_rows(device);
            let delay = self.between(300, 1_500);
            self.at(delay, Event::Flush(device, life));
        }
    }

    fn flush_rows(&mut self, device: usize) {
        let rows = &mut self.devices[device].rows;
        rows.drain(..rows.len() - 1);
    }

    fn schedule_tick(&mut self, device: usize) {
        let entry = &self.devices[device];
        let Some(due) = entry.replica.as_ref().and_then(Replica::next_deadline) else {
            return;
        };
        let delay = (due - self.time()).as_micros() as u64;
        let at = self.now + delay;
        if entry.tick.is_none_or(|tick| at < tick) {
            let life = entry.life;
            self.devices[device].tick = Some(at);
            self.at(delay, Event::Tick(device, life));
        }
    }

    pub(super) fn tick(&mut self, device: usize, life: u64) {
        if self.is_current(device, life) && self.devices[device].tick.is_some_and(|tick| tick <= self.now) {
            self.devices[device].tick = None;
            self.drive(device, Input::Tick);
        }
    }

    /// A process dies: what is not durable is gone.
    pub(super) fn crash(&mut self, device: usize) {
        if self.devices[device].replica.is_none() || !self.devices[device].joined {
            return;
        }
        self.counts.add("fault: crash");
        self.end_put(device);
        self.note_dead(device);
        if matches!(&self.devices[device].job, Some(Job::Place(batch, done)) if done.len() < batch.steps.len() && !done.is_empty())
        {
            self.counts.add("fault: crash while placing");
        }
        if let Some(lot) = self.devices[device].writing.take() {
            self.counts.add("fault: crash while storing");
            let kept = self.fate.below(lot.entries.len() as u64 + 2) as usize;
            let entries: Vec<Stored> = lot.entries.iter().take(kept).cloned().collect();
            self.store(device, &entries);
            if kept > lot.entries.len() {
                self.store_rows(device, &lot);
            }
        }
        for peer in (0..self.devices.len()).filter(|peer| *peer != device) {
            self.cut(device, peer);
            self.forget_side(device, peer);
        }
        let entry = &mut self.devices[device];
        entry.life += 1;
        entry.replica = None;
        entry.gathered = Lot::default();
        entry.job = None;
        (entry.anything, entry.reporting, entry.tick) = (false, false, None);
        entry.changed.clear();
        entry.fetches.clear();
        let down = self.between(10, 2_500);
        self.at(down, Event::Start(device));
    }

    /// While a process is down its home may be put back to what it was at an earlier start.
    fn put_back(&mut self, device: usize) {
        // Who removes somebody, or is removed, would have to do so again.
        if self.calm || self.is_concerned(device) {
            return;
        }
        let backup = self.devices[device].backup.take();
        if let Some(backup) = backup.filter(|_| self.fate.once_in(2)) {
            self.counts.add("fault: home put back");
            self.put_back.insert(device);
            self.forget_put(device);
            self.forget_dead(device);
            let entry = &mut self.devices[device];
            entry.log.truncate(backup.log);
            let kept: BTreeMap<(ChainId, u64), Vec<u8>> = entry
                .log
                .iter()
                .filter_map(|stored| match stored {
                    Stored::Record { chain, seq, bytes, .. } => Some(((*chain, *seq), bytes.clone())),
                    Stored::Control { .. } | Stored::Retired { .. } => None,
                })
                .collect();
            entry.records = kept;
            (entry.rows, entry.secrets, entry.mapped) = (vec![backup.rows], backup.secrets, backup.mapped);
            self.count_missing(device);
        } else if self.fate.once_in(2) {
            let entry = &mut self.devices[device];
            let rows = entry.rows.last().cloned().unwrap_or_default();
            let (log, secrets, mapped) = (entry.log.len(), entry.secrets.clone(), entry.mapped);
            entry.backup = Some(Backup { log, rows, secrets, mapped });
        }
    }

    /// The disk is compared with the base that was put back: what that shows and the disk has nowhere counts as removed by
    /// its user, though it may be the node that took it off after the backup was made.
    fn count_missing(&mut self, device: usize) {
        let based = self.devices[device].rows.iter().flat_map(Rows::dots);
        let mut missing: BTreeSet<ContentId> =
            based.filter_map(|dot| self.values.get(dot).copied().flatten()).collect();
        for content in self.contents_under(device, &[]) {
            missing.remove(&content);
        }
        for content in missing.difference(&self.given_up) {
            self.counts.add("content missing where a home was put back");
            self.trace.line(|| format!("              device {device} has no {content:?} any more"));
        }
        self.given_up.append(&mut missing);
    }

    /// A process starts from what was durable.
    pub(super) fn start(&mut self, device: usize) {
        self.put_back(device);
        let (mesh, folder) = (self.mesh_of(device), self.folder);
        let survives = self.fate.index(self.devices[device].rows.len());
        if survives + 1 < self.devices[device].rows.len() {
            self.counts.add("fault: rows lost");
        }
        let hole = (self.has(Planted::LogHole)).then(|| self.fate.index(self.devices[device].log.len()));
        let now = self.time();
        let entry = &mut self.devices[device];
        let rows = entry.rows.swap_remove(survives);
        if entry.disk.recover() > 0 {
            self.counts.add("directory put back");
        }
        let mut replica = Replica::new(entry.secrets.identity(mesh));
        if entry.mapped {
            replica.expect_base(folder, rows.stored());
        }
        entry.rows = vec![rows];
        let mut own_seq = BTreeMap::new();
        for stored in &entry.log {
            if let Stored::Retired { object, chain, device, by } = stored {
                replica.restore_retired(*object, *chain, *device, *by);
            }
        }
        for (number, stored) in entry.log.iter().enumerate() {
            match stored {
                Stored::Retired { .. } => {}
                Stored::Control { items, .. } => items.iter().for_each(|item| replica.restore_control(item)),
                Stored::Record { own: false, .. } if Some(number) == hole => {}
                Stored::Record { object, chain, seq, bytes, own, .. } => {
                    if *own {
                        own_seq.insert(*chain, *seq);
                    }
                    replica.restore_record(*object, bytes.clone(), *own);
                }
            }
        }
        entry.own_seq = own_seq;
        if entry.mapped {
            replica.remap_folder(folder);
        }
        let outputs = replica.resume(now, &mut entry.rng);
        entry.replica = Some(replica);
        entry.anything = true;
        let life = entry.life;
        self.carry_out(device, outputs);
        self.report(device, 0);
        self.at(MS, Event::Map(device, life));
        self.at(500 * MS, Event::Flush(device, life));
        for other in (0..self.devices.len()).filter(|other| *other != device) {
            self.at(MS, Event::Connect(device, other));
        }
    }
}
