//! Writing: operations into signed, encrypted records of the own chain, and control statements.

use std::sync::Arc;

use meshwork_protocol::{
    control::Act,
    id::{ChainId, Incarnation, ObjectId, OpId},
    key::Signed,
    limits,
    object::{Dep, Draft, Record, RecordKind, Verified},
};
use rand_core::CryptoRng;
use serde_bytes::ByteBuf;

use super::{AuthorError, Object, Output, Replica, Stored};
use crate::feed::{NewOperation, Operation, decode, encode, split};

/// Bytes that a statement among others in one entry takes beside its own, at most.
const STATEMENT_FRAMING: usize = 16;

impl Replica {
    /// Signs a batch of operations of a folder into records; gives them as they now are.
    pub(super) fn author_operations(
        &mut self,
        rng: &mut impl CryptoRng,
        object: ObjectId,
        operations: Vec<NewOperation>,
        out: &mut Vec<Output>,
    ) -> Result<Vec<Arc<Operation>>, AuthorError> {
        let folder = self.folder(object).ok_or(AuthorError::UnknownObject)?;
        let groups = split(operations, folder.base().map_or(folder.feed(), |base| base.map()));
        let texts: Vec<Vec<u8>> = groups.iter().map(|group| encode(group)).collect::<Result<_, _>>()?;
        let signed = self.author_batch(rng, object, &texts);
        self.checkpoints_due.insert(object);
        self.persist_signed(out);
        signed
    }

    fn author_batch(
        &mut self,
        rng: &mut impl CryptoRng,
        object: ObjectId,
        texts: &[Vec<u8>],
    ) -> Result<Vec<Arc<Operation>>, AuthorError> {
        let mut signed = Vec::new();
        let last = texts.len().saturating_sub(1);
        for (number, text) in texts.iter().enumerate() {
            let record = self.author_record(rng, object, RecordKind::Feed, text, number < last)?;
            let operations = decode(text, record.id().key(), record.header().height)?;
            signed.extend(operations.into_iter().map(Arc::new));
        }
        Ok(signed)
    }

    /// Signs one change of the mesh's graph.
    pub(super) fn author_change(
        &mut self,
        rng: &mut impl CryptoRng,
        object: ObjectId,
        change: &[u8],
        out: &mut Vec<Output>,
    ) -> Result<(), AuthorError> {
        let signed = self.author_record(rng, object, RecordKind::Graph, change, false);
        self.persist_signed(out);
        signed.map(drop)
    }

    /// Signs an act in a control log and takes it in.
    pub(super) fn author_act(&mut self, log: ObjectId, act: Act) -> Result<(), AuthorError> {
        let signed = self.control.sign(&self.device, log, act)?;
        self.adopt_own(log, signed)
    }

    /// Takes in a statement made here.
    pub(super) fn adopt_own(&mut self, log: ObjectId, signed: Signed) -> Result<(), AuthorError> {
        let bytes = signed.to_bytes();
        let _ = self.control.adopt(signed)?;
        self.control.open_epochs(log, self.device.device_id(), &self.seal, &mut self.keyring);
        let fits = |items: &[ByteBuf]| {
            let held: usize = items.iter().map(|item| item.len() + STATEMENT_FRAMING).sum();
            held + bytes.len() + STATEMENT_FRAMING <= limits::STATEMENTS_STORED
        };
        match self.signed.last_mut() {
            Some(Stored::Control { object, items }) if *object == log && fits(items) => items.push(bytes.into()),
            _ => self.signed.push(Stored::Control { object: log, items: vec![bytes.into()] }),
        }
        Ok(())
    }

    /// Appends a record to the own chain of an object, after join records where its frontier is wider
    /// than one record may name.
    pub(super) fn author_record(
        &mut self,
        rng: &mut impl CryptoRng,
        object: ObjectId,
        kind: RecordKind,
        text: &[u8],
        more: bool,
    ) -> Result<Verified, AuthorError> {
        if self.store_failed {
            return Err(AuthorError::StoreFailed);
        }
        if !self.may_write(object) {
            return Err(AuthorError::NotMember);
        }
        self.ensure_epoch(rng, object)?;
        let own = self.own_chain(object);
        let state = self.object(object)?;
        let next = state.intake.chains().deps_for_next(&own, |chain| state.standing(chain));
        for deps in next.joins {
            self.append(rng, object, (RecordKind::Join, &[], true), deps)?;
        }
        self.append(rng, object, (kind, text, more), next.deps)
    }

    /// Makes sure that there is an epoch that exactly the present readers can open.
    pub(super) fn ensure_epoch(&mut self, rng: &mut impl CryptoRng, object: ObjectId) -> Result<(), AuthorError> {
        if self.control.write_epoch(object, &self.keyring).is_some() {
            return Ok(());
        }
        let act = self.control.mint_epoch(rng, object, &self.keyring)?;
        self.author_act(object, act)
    }

    /// Appends a record to the own chain of an object.
    pub(super) fn append(
        &mut self,
        rng: &mut impl CryptoRng,
        object: ObjectId,
        written: (RecordKind, &[u8], bool),
        deps: Vec<Dep>,
    ) -> Result<Verified, AuthorError> {
        let incarnation = self.own_incarnation(object);
        self.append_in(rng, object, incarnation, written, deps)
    }

    /// Appends a record to a chain of this device.
    pub(super) fn append_in(
        &mut self,
        rng: &mut impl CryptoRng,
        object: ObjectId,
        incarnation: Incarnation,
        (kind, text, more): (RecordKind, &[u8], bool),
        deps: Vec<Dep>,
    ) -> Result<Verified, AuthorError> {
        let device = self.device.device_id();
        let epoch = self.control.write_epoch(object, &self.keyring).ok_or(AuthorError::NoEpoch)?;
        let (object_grant, device_grant) = self.control.grants(object, device).ok_or(AuthorError::NotMember)?;
        let control = self.control_frontier(object);
        let own = ChainId::of(&device, &object, &incarnation);
        let chains = self.object(object)?.intake.chains();
        let (seq, prev) = chains.head(&own);
        let height = chains.next_height(&prev, &deps);
        let draft = Draft {
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
            more,
        };
        let key = self.keyring.key(object, epoch).ok_or(AuthorError::NoEpoch)?;
        let record = Record::create(&self.device, draft, key, text, rng)?;
        let state: &mut Object = self.objects.get_mut(&object).ok_or(AuthorError::UnknownObject)?;
        state.intake.append(&record)?;
        if let Some(reread) = &mut state.reread {
            reread.also(&record);
        }
        let (chain, seq, id) = (record.chain(), seq + 1, record.id());
        state.note_written(chain, seq);
        self.note_ledger(object, &record, text);
        self.signed.push(Stored::Record { object, chain, seq, id, own: true, bytes: record.bytes().to_vec() });
        Ok(record)
    }

    /// The newest control statements known, as a record names them.
    fn control_frontier(&self, object: ObjectId) -> Vec<OpId> {
        let heads = self.control.log(object).map(|log| log.heads()).unwrap_or_default();
        let genesis = OpId(object.0);
        let mut heads: Vec<OpId> = if heads.is_empty() { vec![genesis] } else { heads };
        heads.truncate(limits::RECORD_CONTROL_HEADS);
        heads
    }
}
