//! Whom the relay carries for: its settings, and the door at which devices show their tickets.

use std::{
    collections::BTreeSet,
    io,
    str::FromStr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use meshwork_host::{
    clock,
    frame::{read_frame, write_frame},
    swarm::{Admits, Stream},
};
use meshwork_protocol::{
    admission::{self, Admission, Policy},
    capability::{CapabilityError, Chain},
    id::{DeviceId, LeaseId},
    key::DeviceKey,
    limits,
};
use rand_core::CryptoRng;
use serde::{Deserialize, Serialize};
use tokio::io::AsyncWriteExt;

/// The section `[service.admission]`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AdmissionSettings {
    /// Whom it carries for.
    pub mode: Mode,
    /// Devices that need no ticket, and give some to the other devices of their meshes.
    pub members_of: Vec<String>,
    /// Tickets that do not count any more, by the names that were printed with them.
    pub withdrawn: Vec<String>,
}

/// Whom a relay carries for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Everybody.
    #[default]
    Open,
    /// Devices with a ticket, and those that need none.
    Invited,
}

/// The settings name something that is no device or ticket.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("service.admission.{key}: {text:?} is not an id of {digits} hexadecimal digits")]
pub struct AdmissionError {
    key: &'static str,
    text: String,
    digits: usize,
}

impl AdmissionSettings {
    fn policy(&self) -> Result<Policy, AdmissionError> {
        let givers = ids(&self.members_of, "members_of", 64)?;
        let withdrawn = ids(&self.withdrawn, "withdrawn", 32)?;
        Ok(match self.mode {
            Mode::Open => Policy::Open,
            Mode::Invited => Policy::Invited { givers, withdrawn },
        })
    }
}

fn ids<T: FromStr + Ord>(texts: &[String], key: &'static str, digits: usize) -> Result<BTreeSet<T>, AdmissionError> {
    let id = |text: &String| text.parse().map_err(|_| AdmissionError { key, text: text.clone(), digits });
    texts.iter().map(id).collect()
}

/// Where devices show their tickets. Cheap to clone.
#[derive(Clone)]
pub struct Door(Arc<Mutex<Admission>>);

impl Door {
    /// Of the relay with this key.
    ///
    /// # Errors
    /// When the settings name what is no id.
    pub fn new(key: DeviceKey, settings: &AdmissionSettings) -> Result<Self, AdmissionError> {
        Ok(Self(Arc::new(Mutex::new(Admission::new(key, settings.policy()?)))))
    }

    /// Whether a device may be reached through the relay now.
    pub fn lets(&self, device: &DeviceId) -> bool {
        self.admission().admits(device, clock::now())
    }

    /// The same, as the network asks for it.
    pub fn admits(&self) -> Admits {
        let door = self.clone();
        Box::new(move |device| door.lets(device))
    }

    /// Reads the ticket that a device shows, and says what it is worth.
    pub async fn answer(&self, mut stream: Stream, device: DeviceId) -> io::Result<()> {
        let Some(ticket) = read_frame(&mut stream, limits::CAPABILITY_CHAIN).await? else { return Ok(()) };
        let answer = self.admission().show(device, &ticket, clock::now());
        write_frame(&mut stream, &answer.encode()).await?;
        stream.shutdown().await
    }

    fn admission(&self) -> MutexGuard<'_, Admission> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A ticket of this relay for a device, for so many days, and the name by which it can be withdrawn.
///
/// # Errors
/// When it is for no time, or too long a one.
pub fn invite(
    key: &DeviceKey,
    device: DeviceId,
    days: u32,
    passes: bool,
    rng: &mut impl CryptoRng,
) -> Result<(Chain, LeaseId), CapabilityError> {
    let life = Duration::from_secs(u64::from(days) * 86_400);
    let ticket = admission::invite(key, key.device_id(), device, (clock::now(), life), passes, rng)?;
    let lease = ticket.capability().map(|capability| capability.lease).ok_or(CapabilityError::NotEntitled)?;
    Ok((ticket, lease))
}
