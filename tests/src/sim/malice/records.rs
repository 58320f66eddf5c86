//! Records that are signed by right and wrong all the same, and records that are not signed by right.

use meshwork_protocol::{
    codec,
    id::{ChainId, ContentId, DirId, FileId, Incarnation, ObjectId, RecordId},
    key::{DeviceKey, Kind, Signed},
    limits,
    object::{Draft, Header, Record, RecordKind, Verified},
    wire::sync::Frame,
};
use meshwork_replica::feed::{
    ChunkRef, Dot, FileKind, FileValue, Key, Manifest, Name, NewOperation, Operation, Unknown, Value, encode,
    symlink_content,
};
use serde_bytes::ByteBuf;

use super::{Deed, INCARNATIONS, Malice, Scene, Written, deed, incarnation};
use crate::sim::fate::Fate;

/// Contents that one of its records removes at most.
const DELETES: usize = 4;

impl Malice {
    /// A link under some name: there is nothing to fetch, so it is shown at once where the record counts.
    pub(super) fn write_link(&mut self, fate: &mut Fate, scene: &Scene) -> Option<Vec<Deed>> {
        let text = self.link_text(fate)?;
        let draft = self.draft(fate, self.folder, RecordKind::Feed)?;
        let name = if scene.removed { "malice: back-dated record" } else { "malice: record of another incarnation" };
        let record = self.write(fate, draft, &text)?;
        Some(vec![sent(name, &record)])
    }

    /// Another record at the place of one that it wrote; it may go on from either.
    pub(super) fn twin_record(&mut self, fate: &mut Fate) -> Option<Vec<Deed>> {
        let text = self.link_text(fate)?;
        let written = &self.written.get(fate.index(self.written.len()))?;
        let twin = self.sign(fate, &self.key, written.draft.clone(), &text)?;
        self.chains.get_mut(&self.folder)?.accept(&twin).ok()?;
        self.forked = true;
        Some(vec![sent("malice: twin record", &twin)])
    }

    /// Removes what others wrote, as if it had done so before it was removed itself.
    pub(super) fn delete(&mut self, fate: &mut Fate, scene: &Scene) -> Option<Vec<Deed>> {
        let mut operations = Vec::new();
        let mut contents = Vec::new();
        let chains = self.chains.get(&self.folder)?;
        let known = |dot: &Dot| chains.place_of(&dot.record).is_some();
        for live in scene.own.folder(self.folder)?.feed().iter() {
            let files = live.iter().filter_map(|op| op.value.file()).filter(|file| !file.is_symlink());
            let files: Vec<ContentId> = files.map(|file| file.content).collect();
            let visible = live.iter().all(|op| known(&op.dot));
            if operations.len() < DELETES && !files.is_empty() && visible && fate.once_in(2) {
                operations.push(tombstone(live.iter().map(|op| &**op))?);
                contents.extend(files);
            }
        }
        let draft = self.draft(fate, self.folder, RecordKind::Feed)?;
        let record = self.write(fate, draft, &encode(&operations).ok()?)?;
        self.kills.extend(contents.into_iter().map(|content| (record.id().key(), content)));
        Some(vec![sent("malice: back-dated delete", &record)])
    }

    /// A file whose content nobody has.
    pub(super) fn lie(&mut self, fate: &mut Fate, _: &Scene) -> Option<Vec<Deed>> {
        let content = ContentId(fate.bytes());
        let chunks = vec![ChunkRef { id: meshwork_protocol::id::ChunkId(fate.bytes()), len: 7 }];
        let kind = FileKind::Regular { manifest: Manifest::Inline { average_log2: 16, chunks } };
        let text = encode(&[self.put(fate, kind, content, 7)?]).ok()?;
        let draft = self.draft(fate, self.folder, RecordKind::Feed)?;
        let record = self.write(fate, draft, &text)?;
        self.lies.insert(content);
        Some(vec![sent("malice: content that nobody has", &record)])
    }

    /// The next record of an honest device, signed by another key.
    pub(super) fn forge_signature(&mut self, fate: &mut Fate, scene: &Scene) -> Option<Vec<Deed>> {
        let text = self.link_text(fate)?;
        let chains = self.chains.get(&self.folder)?;
        let author = scene.honest.get(fate.index(scene.honest.len()))?;
        let (chain, _, seq, prev) = chains.heads().find(|(_, of, ..)| of == author)?;
        let draft = self.draft(fate, self.folder, RecordKind::Feed)?;
        let own: Record = codec::decode(self.sign(fate, &self.key, draft, &text)?.bytes(), limits::RECORD).ok()?;
        let mut header: Header = own.signed.open(Kind::RecordHeader).ok()?;
        header.incarnation = *self.incarnations.get(&chain)?;
        (header.seq, header.prev, header.deps) = (seq + 1, prev, Vec::new());
        header.height = chains.next_height(&prev, &[]);
        let mut signed: Signed = self.key.sign(Kind::RecordHeader, codec::encode(&header));
        signed.key = (*author).into();
        Some(vec![raw("malice: forged signature", self.folder, codec::encode(&Record { signed, body: own.body }))])
    }

    /// A record with another body than the one that was signed.
    pub(super) fn forge_body(&mut self, fate: &mut Fate) -> Option<Vec<Deed>> {
        let mut bytes = self.throw_away(fate, |_| {})?.into_bytes();
        *bytes.last_mut()? ^= 1;
        Some(vec![raw("malice: forged body", self.folder, bytes)])
    }

    pub(super) fn wrong_height(&mut self, fate: &mut Fate) -> Option<Vec<Deed>> {
        let record = self.throw_away(fate, |draft| draft.height += 3)?;
        Some(vec![sent("malice: wrong height", &record)])
    }

    pub(super) fn wrong_predecessor(&mut self, fate: &mut Fate) -> Option<Vec<Deed>> {
        let written = self.written.last()?;
        let mut draft = written.draft.clone();
        (draft.seq, draft.prev, draft.deps) = (draft.seq + 1, RecordId(fate.bytes()), Vec::new());
        draft.height += 1;
        let text = self.link_text(fate)?;
        let record = self.sign(fate, &self.key, draft, &text)?;
        Some(vec![sent("malice: wrong predecessor", &record)])
    }

    /// A record that claims less knowledge of the control log than what it builds on.
    pub(super) fn old_heads(&mut self, fate: &mut Fate, scene: &Scene) -> Option<Vec<Deed>> {
        let log = self.control.log(self.folder)?;
        let first = log.entries().iter().find(|entry| scene.honest.contains(&entry.author().into()))?.id();
        let record = self.throw_away(fate, |draft| draft.control = vec![first])?;
        Some(vec![sent("malice: old control heads", &record)])
    }

    /// A record whose body says nothing that its kind can say.
    pub(super) fn void_body(&mut self, fate: &mut Fate) -> Option<Vec<Deed>> {
        let kinds =
            [RecordKind::Graph, RecordKind::Feed, RecordKind::Checkpoint, RecordKind::Listing, RecordKind::Join];
        let kind = *fate.pick(&kinds)?;
        let object = if kind == RecordKind::Graph { self.mesh } else { self.folder };
        let draft = self.draft(fate, object, kind)?;
        let text = fate.bytes();
        let record = self.write(fate, draft, &text)?;
        Some(vec![sent("malice: void body", &record)])
    }

    /// More records than may wait, all for the same that never comes.
    pub(super) fn flood(&mut self, fate: &mut Fate) -> Option<Vec<Deed>> {
        self.flooded = true;
        let (incarnation, prev) = (Incarnation([9; 8]), RecordId(fate.bytes()));
        let template = self.draft(fate, self.folder, RecordKind::Join)?;
        let mut records = Vec::new();
        for seq in 2..limits::PENDING_RECORDS as u64 + 100 {
            let draft = Draft { incarnation, seq, prev, height: seq, deps: Vec::new(), ..template.clone() };
            records.push(ByteBuf::from(self.sign(fate, &self.key, draft, &[])?.into_bytes()));
        }
        let parts =
            records.chunks(256).map(|records| Frame::Records { object: self.folder, records: records.to_vec() });
        let mut deeds: Vec<Deed> = parts.map(|frame| deed("malice: flood of records", &frame)).collect();
        deeds.extend(self.flood_statements(fate));
        Some(deeds)
    }

    /// A record in a chain of its own that it does not go on with.
    fn throw_away(&mut self, fate: &mut Fate, change: impl FnOnce(&mut Draft)) -> Option<Verified> {
        let text = self.link_text(fate)?;
        let mut draft = self.draft(fate, self.folder, RecordKind::Feed)?;
        let mut number = [0; 8];
        number.copy_from_slice(&fate.bytes()[..8]);
        (draft.incarnation, draft.seq, draft.prev) = (Incarnation(number), 1, RecordId::NONE);
        draft.height = self.chains.get(&self.folder)?.next_height(&RecordId::NONE, &draft.deps);
        change(&mut draft);
        self.sign(fate, &self.key, draft, &text)
    }

    pub(super) fn link_text(&mut self, fate: &mut Fate) -> Option<Vec<u8>> {
        self.marks += 1;
        let target = format!("malice {}", self.marks).into_bytes();
        let (content, size) = (symlink_content(&target), target.len() as u64);
        encode(&[self.put(fate, FileKind::Symlink { target: target.into() }, content, size)?]).ok()
    }

    fn put(&self, fate: &mut Fate, kind: FileKind, content: ContentId, size: u64) -> Option<NewOperation> {
        let name = ["a", "b", "c.txt", "m", "n", "o"][fate.index(6)];
        let file = FileValue {
            file: FileId([1; 16]),
            kind,
            content,
            size,
            modified_ns: 0,
            executable: false,
            unknown: Unknown::default(),
        };
        let key = Key { dir: DirId::ROOT, name: Name::try_from(name).ok()? };
        Some(NewOperation { key, value: Value::File(file), base: Vec::new(), former: Vec::new() })
    }

    /// The next record of one of its chains.
    pub(super) fn draft(&self, fate: &mut Fate, object: ObjectId, kind: RecordKind) -> Option<Draft> {
        let pick = fate.index(8);
        self.draft_by(&self.key, incarnation(fate.below(INCARNATIONS)), object, kind, pick)
    }

    pub(super) fn draft_by(
        &self,
        key: &DeviceKey,
        incarnation: Incarnation,
        object: ObjectId,
        kind: RecordKind,
        pick: usize,
    ) -> Option<Draft> {
        let device = key.device_id();
        let (object_grant, device_grant) = self.control.grants(object, device)?;
        let mut control = self.control.log(object)?.heads();
        control.truncate(limits::RECORD_CONTROL_HEADS);
        let chains = self.chains.get(&object)?;
        let chain = ChainId::of(&device, &object, &incarnation);
        let ends: Vec<ChainId> = chains.ends(&chain).collect();
        let chain = ends.get(pick % ends.len().max(1)).copied().unwrap_or(chain);
        let (seq, prev) = chains.head(&chain);
        let mut deps = chains.deps_for_next(&chain, |_| u64::MAX).deps;
        deps.truncate(limits::RECORD_DEPS);
        let height = chains.next_height(&prev, &deps);
        Some(Draft {
            object,
            kind,
            incarnation,
            seq: seq + 1,
            prev,
            control,
            object_grant,
            device_grant,
            deps,
            height,
            more: false,
        })
    }

    /// Signs a record and goes on from it.
    fn write(&mut self, fate: &mut Fate, draft: Draft, text: &[u8]) -> Option<Verified> {
        let record = self.sign(fate, &self.key, draft.clone(), text)?;
        self.chains.get_mut(&draft.object)?.accept(&record).ok()?;
        if draft.object == self.folder {
            self.written.push(Written { draft });
        }
        Some(record)
    }

    pub(super) fn sign(&self, fate: &mut Fate, key: &DeviceKey, draft: Draft, text: &[u8]) -> Option<Verified> {
        let object = draft.object;
        let epoch = self.control.write_epoch(object, &self.keyring).or_else(|| self.keyring.epochs(object).next())?;
        Record::create(key, draft, self.keyring.key(object, epoch)?, text, &mut fate.0).ok()
    }
}

fn tombstone<'a>(live: impl Iterator<Item = &'a Operation>) -> Option<NewOperation> {
    let live: Vec<&Operation> = live.collect();
    let mut base: Vec<Dot> = live.iter().map(|op| op.dot).collect();
    base.sort_unstable();
    Some(NewOperation { key: live.first()?.key.clone(), value: Value::Tombstone, base, former: Vec::new() })
}

pub(super) fn sent(name: &'static str, record: &Verified) -> Deed {
    raw(name, record.header().object, record.bytes().to_vec())
}

fn raw(name: &'static str, object: ObjectId, record: Vec<u8>) -> Deed {
    deed(name, &Frame::Records { object, records: vec![record.into()] })
}
