//! Key epochs of an object: choosing, minting, handing on and opening.
//!
//! An epoch may be written under only while everybody it is sealed to is still a reader, so that removal takes effect
//! as soon as it is known. Each epoch carries its predecessors' secrets, encrypted under its own, so that newcomers
//! read history.

use std::collections::{BTreeMap, BTreeSet};

use rand_core::CryptoRng;
use serde_bytes::ByteArray;
use zeroize::Zeroizing;

use crate::{
    id::{DeviceId, EpochId, ObjectId, OpId},
    limits,
    seal::{self, Convergence, EpochKey, SealKey, SealPublic},
};

use super::{
    Control,
    authority::Reader,
    evaluate::Evaluation,
    log::{ControlLog, Entry},
    operation::{Act, Parent, SealedKey},
};

const SEAL_PROLOGUE: &[u8] = b"mesh.v1.seal";
const WRAP_AAD: &[u8] = b"mesh.v1.wrap";
const WRAP_CONTEXT: &str = "mesh 2026 wrap v1";

/// Why an epoch could not be minted or handed on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EpochError {
    /// No log of this object is held.
    #[error("the object {0} is not known here")]
    UnknownObject(ObjectId),
    /// The object has epochs, but this device holds none of its secrets yet: another device must seal them to it.
    #[error("the secrets of this object have not arrived yet")]
    NoSecrets,
    /// The seal key of this device does not take a seal.
    #[error("cannot seal to the device {0}")]
    Seal(DeviceId),
}

/// The secrets that a device holds, by object.
#[derive(Default, Clone)]
pub struct Keyring {
    objects: BTreeMap<ObjectId, ObjectKeys>,
}

#[derive(Default, Clone)]
struct ObjectKeys {
    convergence: Option<Convergence>,
    epochs: BTreeMap<EpochId, EpochKey>,
    /// Seals tried already, so that one which does not open is tried once for each key.
    tried: BTreeSet<(OpId, SealPublic)>,
}

impl Keyring {
    /// No secrets.
    pub fn new() -> Self {
        Self::default()
    }

    /// The secret of an epoch.
    pub fn key(&self, object: ObjectId, epoch: EpochId) -> Option<&EpochKey> {
        self.objects.get(&object)?.epochs.get(&epoch)
    }

    /// The secret behind the chunk ids of an object.
    pub fn convergence(&self, object: ObjectId) -> Option<&Convergence> {
        self.objects.get(&object)?.convergence.as_ref()
    }

    /// The epochs of an object whose secrets are held.
    pub fn epochs(&self, object: ObjectId) -> impl Iterator<Item = EpochId> {
        self.objects.get(&object).into_iter().flat_map(|keys| keys.epochs.keys().copied())
    }
}

/// A new epoch with the secrets that it seals, before it is signed.
pub(super) struct Minting<'a> {
    pub object: ObjectId,
    pub n: u32,
    pub key: &'a EpochKey,
    pub convergence: &'a Convergence,
}

impl Minting<'_> {
    /// The act: sealed to as many of the readers as one operation carries, superseding the given epochs.
    pub fn act(
        &self,
        rng: &mut impl CryptoRng,
        readers: &[Reader],
        superseded: &[(OpId, EpochId, &EpochKey)],
    ) -> Result<Act, EpochError> {
        let id = self.key.id(self.object);
        let mut parents = Vec::with_capacity(superseded.len());
        for (op, parent, secret) in superseded {
            let aad = wrap_aad(self.object, id, *parent);
            let wrapped = seal::encrypt(&self.key.subkey(WRAP_CONTEXT), rng, &aad, secret.as_bytes());
            if let Ok(wrapped) = <[u8; 72]>::try_from(wrapped) {
                parents.push(Parent { epoch: *op, wrapped: ByteArray::new(wrapped) });
            }
        }
        parents.sort_by_key(|parent| parent.epoch);
        let readers = readers.get(..limits::SEALS_PER_OPERATION).unwrap_or(readers);
        let seals = readers
            .iter()
            .map(|reader| seal_key(rng, self.object, reader, self.key, self.convergence))
            .collect::<Result<_, _>>()?;
        Ok(Act::Epoch { id, n: self.n, parents, seals })
    }
}

impl Control {
    /// The epoch to write an object's records under: of those sealed to present readers only and open to this
    /// device, the newest. `None`: mint one first.
    pub fn write_epoch(&self, object: ObjectId, keyring: &Keyring) -> Option<EpochId> {
        let epochs = &self.evaluation(object)?.epochs;
        epochs.iter().copied().find(|id| keyring.key(object, *id).is_some())
    }

    /// A new epoch for all readers of an object, superseding those that this device holds. Sign and insert the act,
    /// then open it like any other.
    pub fn mint_epoch(&self, rng: &mut impl CryptoRng, object: ObjectId, keyring: &Keyring) -> Result<Act, EpochError> {
        let (log, evaluation) = self.evaluated(object).ok_or(EpochError::UnknownObject(object))?;
        let convergence = keyring.convergence(object).ok_or(EpochError::NoSecrets)?;
        let superseded = newest_held(log, evaluation, keyring);
        let largest = superseded.iter().map(|(_, epoch)| epoch.n).max().unwrap_or(0);
        let parents: Vec<(OpId, EpochId, &EpochKey)> = superseded
            .iter()
            .filter_map(|(_, epoch)| Some((epoch.op, epoch.id, keyring.key(object, epoch.id)?)))
            .collect();
        let key = EpochKey::generate(rng);
        let minting = Minting { object, n: largest.saturating_add(1), key: &key, convergence };
        minting.act(rng, &evaluation.roster.readers, &parents)
    }

    /// Acts that seal the epochs this device holds to every reader that cannot open them yet: newcomers, and devices
    /// with a new seal key. Empty when nobody lacks anything.
    pub fn supplement(
        &self,
        rng: &mut impl CryptoRng,
        object: ObjectId,
        keyring: &Keyring,
    ) -> Result<Vec<Act>, EpochError> {
        let (log, evaluation) = self.evaluated(object).ok_or(EpochError::UnknownObject(object))?;
        let Some(convergence) = keyring.convergence(object) else {
            return Ok(Vec::new());
        };
        let held: Vec<Epoch<'_>> = epochs(log).filter(|epoch| keyring.key(object, epoch.id).is_some()).collect();
        let unwrapping = unwrapping(object, &held, keyring);
        let mut acts = Vec::new();
        let mut missing: BTreeMap<OpId, Vec<SealedKey>> = BTreeMap::new();
        for reader in &evaluation.roster.readers {
            let mut opens = sealed_to(log, reader);
            close(&mut opens, &unwrapping);
            for epoch in held.iter().rev() {
                let Some(key) = keyring.key(object, epoch.id).filter(|_| !opens.contains(&epoch.id)) else {
                    continue;
                };
                let sealed = seal_key(rng, object, reader, key, convergence)?;
                missing.entry(epoch.op).or_default().push(sealed);
                opens.insert(epoch.id);
                close(&mut opens, &unwrapping);
            }
        }
        for (epoch, seals) in missing {
            acts.extend(
                seals.chunks(limits::SEALS_PER_OPERATION).map(|seals| Act::Seal { epoch, seals: seals.to_vec() }),
            );
        }
        Ok(acts)
    }

    /// Whether something that was sealed to this device, by its newest key, does not open: then nobody seals it to the
    /// device once more, unless it publishes the next generation of its key.
    pub fn is_shut_out(&self, object: ObjectId, device: DeviceId, keyring: &Keyring) -> bool {
        let Some((log, evaluation)) = self.evaluated(object) else { return false };
        let reader = evaluation.roster.readers.iter().find(|reader| reader.device == device);
        reader.is_some_and(|reader| sealed_to(log, reader).iter().any(|id| keyring.key(object, *id).is_none()))
    }

    /// Opens with a device's seal key what is sealed to it in the log of an object, and with that what these epochs
    /// supersede. Returns the epochs that are new in the keyring.
    pub fn open_epochs(
        &self,
        object: ObjectId,
        device: DeviceId,
        seal: &SealKey,
        keyring: &mut Keyring,
    ) -> Vec<EpochId> {
        let Some(log) = self.log(object) else { return Vec::new() };
        let keys = keyring.objects.entry(object).or_default();
        let before: BTreeSet<EpochId> = keys.epochs.keys().copied().collect();
        let public = seal.public();
        for entry in log.entries() {
            let Some((id, seals)) = handed_out(log, entry) else {
                continue;
            };
            let Ok(position) = seals.binary_search_by_key(&device, |sealed| sealed.device) else {
                continue;
            };
            let Some(sealed) = seals.get(position).filter(|_| !keys.epochs.contains_key(&id)) else {
                continue;
            };
            if keys.tried.insert((entry.id, public))
                && let Some((key, convergence)) = open_key(object, id, sealed, seal)
                && convergence.commitment() == *log.convergence()
            {
                keys.convergence.get_or_insert(convergence);
                keys.epochs.insert(id, key);
            }
        }
        unwrap_superseded(log, keys);
        keys.epochs.keys().copied().filter(|id| !before.contains(id)).collect()
    }
}

/// The epochs of a log that may be written under by whoever can open them, best first: everybody who may hold them is
/// a reader.
pub(super) fn choices(log: &ControlLog, evaluation: &Evaluation) -> Vec<EpochId> {
    let mut numbers: BTreeMap<EpochId, u32> = BTreeMap::new();
    let mut holders = Holders::default();
    for entry in evaluation.standing(log) {
        if let Act::Epoch { id, n, .. } = entry.op.act {
            holders.add(id, [entry.author().into()]);
            let largest = numbers.entry(id).or_insert(n);
            *largest = n.max(*largest);
        }
    }
    holders.close(log, evaluation);
    let reading = &evaluation.roster.reading;
    let mut clean: Vec<(u32, EpochId)> = numbers
        .into_iter()
        .filter(|(id, _)| holders.0.get(id).is_some_and(|holders| holders.is_subset(reading)))
        .map(|(id, n)| (n, id))
        .collect();
    clean.sort_by(|a, b| b.0.cmp(&a.0).then(a.1.cmp(&b.1)));
    clean.into_iter().map(|(_, id)| id).collect()
}

/// Who may hold the secret of each epoch.
#[derive(Default)]
struct Holders(BTreeMap<EpochId, BTreeSet<DeviceId>>);

impl Holders {
    /// Returns whether any of them is new.
    fn add(&mut self, id: EpochId, devices: impl IntoIterator<Item = DeviceId>) -> bool {
        let known = self.0.entry(id).or_default();
        let before = known.len();
        known.extend(devices);
        known.len() > before
    }

    fn hold(&self, id: EpochId, device: DeviceId) -> bool {
        self.0.get(&id).is_some_and(|known| known.contains(&device))
    }

    /// Adds to whom the secrets have been handed on: sealed, or wrapped into that of a newer epoch. What does not
    /// stand has been handed on as well if its author held it; if not, it is rubbish and must not force anybody to
    /// mint.
    fn close(&mut self, log: &ControlLog, evaluation: &Evaluation) {
        let handed: Vec<(bool, &Entry, EpochId, &[SealedKey])> = log
            .entries()
            .iter()
            .zip(&evaluation.standing)
            .filter_map(|(entry, stands)| handed_out(log, entry).map(|(id, seals)| (*stands, entry, id, seals)))
            .collect();
        // Whoever mints an epoch that does not stand holds it, unless he only names one that does.
        let minted: BTreeSet<EpochId> = self.0.keys().copied().collect();
        for (_, entry, id, _) in handed.iter().filter(|(stands, _, id, _)| !stands && !minted.contains(id)) {
            if as_epoch(entry).is_some() {
                self.add(*id, [entry.author().into()]);
            }
        }
        loop {
            let mut grown = false;
            // Newest first: so what is wrapped over many epochs is found at once.
            for (stands, entry, id, seals) in handed.iter().rev() {
                let author = entry.author().into();
                if *stands || self.hold(*id, author) {
                    grown |= self.add(*id, seals.iter().map(|sealed| sealed.device));
                }
                for older in superseded(log, entry) {
                    if *stands || self.hold(older, author) {
                        let newer = self.0.get(id).cloned().unwrap_or_default();
                        grown |= self.add(older, newer);
                    }
                }
            }
            if !grown {
                return;
            }
        }
    }
}

/// The epochs that an operation says to supersede.
fn superseded<'l>(log: &'l ControlLog, entry: &'l Entry) -> impl Iterator<Item = EpochId> {
    let parents = as_epoch(entry).map_or(&[] as &[Parent], |epoch| epoch.parents);
    parents.iter().filter_map(|parent| Some(as_epoch(log.get(parent.epoch)?)?.id))
}

/// An operation that mints an epoch.
struct Epoch<'l> {
    op: OpId,
    id: EpochId,
    n: u32,
    parents: &'l [Parent],
}

fn epochs(log: &ControlLog) -> impl DoubleEndedIterator<Item = Epoch<'_>> {
    log.entries().iter().filter_map(as_epoch)
}

fn as_epoch(entry: &Entry) -> Option<Epoch<'_>> {
    match &entry.op.act {
        Act::Epoch { id, n, parents, .. } => Some(Epoch { op: entry.id, id: *id, n: *n, parents }),
        _ => None,
    }
}

/// The epoch whose key an operation hands out, with the seals.
fn handed_out<'l>(log: &'l ControlLog, entry: &'l Entry) -> Option<(EpochId, &'l [SealedKey])> {
    match &entry.op.act {
        Act::Epoch { id, seals, .. } => Some((*id, seals)),
        Act::Seal { epoch, seals } => Some((as_epoch(log.get(*epoch)?)?.id, seals)),
        _ => None,
    }
}

/// Of the epochs held, those that no other one held supersedes; the standing and largest first, as many as an epoch
/// may have parents.
fn newest_held<'l>(log: &'l ControlLog, evaluation: &Evaluation, keyring: &Keyring) -> Vec<(bool, Epoch<'l>)> {
    let held = || epochs(log).filter(|epoch| keyring.key(log.id(), epoch.id).is_some());
    let superseded: BTreeSet<EpochId> = held()
        .flat_map(|epoch| epoch.parents)
        .filter_map(|parent| Some(as_epoch(log.get(parent.epoch)?)?.id))
        .collect();
    let standing: BTreeSet<OpId> = evaluation.standing(log).map(|entry| entry.id).collect();
    let mut newest: Vec<(bool, Epoch<'l>)> = held()
        .filter(|epoch| !superseded.contains(&epoch.id))
        .map(|epoch| (standing.contains(&epoch.op), epoch))
        .collect();
    newest.sort_by(|a, b| b.0.cmp(&a.0).then(b.1.n.cmp(&a.1.n)).then(a.1.op.cmp(&b.1.op)));
    newest.truncate(limits::EPOCH_PARENTS);
    newest
}

/// The epochs sealed to a reader under its present seal key.
fn sealed_to(log: &ControlLog, reader: &Reader) -> BTreeSet<EpochId> {
    let to_reader = |seals: &[SealedKey]| {
        let found = seals.binary_search_by_key(&reader.device, |sealed| sealed.device).ok();
        found.and_then(|position| seals.get(position)).is_some_and(|sealed| sealed.generation == reader.generation)
    };
    log.entries()
        .iter()
        .filter_map(|entry| handed_out(log, entry))
        .filter(|(_, seals)| to_reader(seals))
        .map(|(id, _)| id)
        .collect()
}

/// Which epochs open with which: pairs (newer, older) whose wrapped secret this device has checked. Newest first.
fn unwrapping(object: ObjectId, held: &[Epoch<'_>], keyring: &Keyring) -> Vec<(EpochId, EpochId)> {
    let id_of: BTreeMap<OpId, EpochId> = held.iter().map(|epoch| (epoch.op, epoch.id)).collect();
    let mut pairs = Vec::new();
    for epoch in held.iter().rev() {
        let Some(key) = keyring.key(object, epoch.id) else {
            continue;
        };
        for parent in epoch.parents {
            if let Some(older) = id_of.get(&parent.epoch)
                && unwrap(object, key, epoch.id, *older, parent).is_some()
            {
                pairs.push((epoch.id, *older));
            }
        }
    }
    pairs
}

fn close(opens: &mut BTreeSet<EpochId>, unwrapping: &[(EpochId, EpochId)]) {
    loop {
        let before = opens.len();
        for (newer, older) in unwrapping {
            if opens.contains(newer) {
                opens.insert(*older);
            }
        }
        if opens.len() == before {
            return;
        }
    }
}

fn unwrap_superseded(log: &ControlLog, keys: &mut ObjectKeys) {
    loop {
        let before = keys.epochs.len();
        for epoch in epochs(log).rev() {
            let Some(key) = keys.epochs.get(&epoch.id).cloned() else {
                continue;
            };
            for parent in epoch.parents {
                let Some(older) = log.get(parent.epoch).and_then(as_epoch).map(|older| older.id) else {
                    continue;
                };
                if !keys.epochs.contains_key(&older)
                    && let Some(secret) = unwrap(log.id(), &key, epoch.id, older, parent)
                {
                    keys.epochs.insert(older, secret);
                }
            }
        }
        if keys.epochs.len() == before {
            return;
        }
    }
}

fn unwrap(object: ObjectId, key: &EpochKey, newer: EpochId, older: EpochId, parent: &Parent) -> Option<EpochKey> {
    let aad = wrap_aad(object, newer, older);
    let plain = seal::decrypt(&key.subkey(WRAP_CONTEXT), &aad, parent.wrapped.as_slice()).ok()?;
    let secret = EpochKey::from_bytes(plain.first_chunk()?);
    (secret.id(object) == older).then_some(secret)
}

fn wrap_aad(object: ObjectId, newer: EpochId, older: EpochId) -> Vec<u8> {
    [WRAP_AAD, &object.0, &newer.0, &older.0].concat()
}

fn seal_prologue(object: ObjectId, epoch: EpochId, device: DeviceId, generation: u32) -> Vec<u8> {
    [SEAL_PROLOGUE, &object.0, &epoch.0, &device.0, &generation.to_be_bytes()].concat()
}

fn seal_key(
    rng: &mut impl CryptoRng,
    object: ObjectId,
    reader: &Reader,
    key: &EpochKey,
    convergence: &Convergence,
) -> Result<SealedKey, EpochError> {
    let prologue = seal_prologue(object, key.id(object), reader.device, reader.generation);
    let plain = Zeroizing::new([*key.as_bytes(), *convergence.as_bytes()].concat());
    let sealed = seal::seal(&reader.seal, &prologue, &plain, rng).map_err(|_| EpochError::Seal(reader.device))?;
    let sealed = <[u8; 112]>::try_from(sealed).map_err(|_| EpochError::Seal(reader.device))?;
    Ok(SealedKey { device: reader.device, generation: reader.generation, sealed: ByteArray::new(sealed) })
}

fn open_key(object: ObjectId, id: EpochId, sealed: &SealedKey, seal: &SealKey) -> Option<(EpochKey, Convergence)> {
    let prologue = seal_prologue(object, id, sealed.device, sealed.generation);
    let plain = seal::open(seal, &prologue, sealed.sealed.as_slice()).ok()?;
    let (secret, rest) = plain.split_first_chunk()?;
    let (key, convergence) = (EpochKey::from_bytes(secret), Convergence::from_bytes(rest.first_chunk()?));
    (key.id(object) == id).then_some((key, convergence))
}
