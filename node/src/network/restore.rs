//! The search of a blank device for its mesh: a network of its own in the name of the root, for as long as it takes.

use std::{collections::BTreeSet, time::Duration};

use meshwork_host::swarm::{Address, Network, NetworkConfig, NetworkHandle, Stream};
use meshwork_protocol::{
    id::DeviceId,
    key::{DeviceKey, RootKey},
    limits,
    restore::{Guest, GuestOutput, RestoreError, Restored},
    seal::SealPublic,
    wire,
};
use tokio::{
    sync::mpsc,
    time::{Instant, timeout, timeout_at},
};

use super::frame::{read_frame, write_frame};

/// How long a device may take to answer.
const DIAL: Duration = Duration::from_secs(20);

/// Somewhere a device of the mesh may be.
pub struct Candidate {
    /// Who shows itself there, if that is known.
    pub device: Option<DeviceId>,
    /// Where.
    pub address: Address,
}

/// Why no device of the mesh was found.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SearchError {
    /// There is no network.
    #[error("the network cannot be used: {0}")]
    Network(String),
    /// Nobody was there.
    #[error("no device answered")]
    Nobody,
    /// Somebody answered and did not let this device in.
    #[error("a device answered, and {0}")]
    Refused(RestoreError),
}

impl SearchError {
    /// How much a person learns from it.
    fn weight(&self) -> u8 {
        match self {
            SearchError::Nobody => 0,
            SearchError::Refused(RestoreError::Unknown) => 1,
            SearchError::Refused(RestoreError::Interrupted | RestoreError::BadLog) => 2,
            SearchError::Refused(_) | SearchError::Network(_) => 3,
        }
    }
}

/// Who looks for his mesh. The root's key is in memory alone, and wiped with this.
pub struct Seeker {
    /// From the phrase.
    pub root: RootKey,
    /// The key that this device keeps.
    pub device: DeviceKey,
    /// Where secrets for it are sealed to.
    pub seal: SealPublic,
    /// What it calls itself.
    pub name: String,
}

impl Seeker {
    /// Tries the candidates as they come, until one lets this device in, none is left, or time is up; tells what
    /// happens in sentences.
    pub async fn search(
        &self,
        mut candidates: mpsc::Receiver<Candidate>,
        tell: &(impl Fn(String) + Sync),
    ) -> Result<Box<Restored>, SearchError> {
        let mut config = NetworkConfig::new(self.root.to_bytes());
        // It only dials: nobody is to find, or reach, a device by the name of the root.
        (config.listen, config.mdns) = (Vec::new(), false);
        config.pairing_protocols = vec![wire::RESTORE];
        config.pairing_time = limits::RESTORE_TIME;
        let (network, _) = Network::start(config).map_err(|error| SearchError::Network(error.to_string()))?;
        let until = Instant::now() + limits::RESTORE_SEARCH;
        let (mut found, mut worst) = (Err(()), SearchError::Nobody);
        let mut answered = BTreeSet::new();
        while let Ok(Some(candidate)) = timeout_at(until, candidates.recv()).await {
            if candidate.device.is_some_and(|device| answered.contains(&device)) {
                continue;
            }
            match self.attempt(&network, &candidate.address, &mut answered, tell).await {
                Ok(restored) => {
                    found = Ok(restored);
                    break;
                }
                Err(error) if error.weight() >= worst.weight() => worst = error,
                Err(_) => {}
            }
        }
        network.shutdown().await;
        found.map_err(|()| worst)
    }

    async fn attempt(
        &self,
        network: &NetworkHandle,
        address: &Address,
        answered: &mut BTreeSet<DeviceId>,
        tell: &(impl Fn(String) + Sync),
    ) -> Result<Box<Restored>, SearchError> {
        let Ok(Ok(device)) = timeout(DIAL, network.dial_unknown(vec![address.clone()])).await else {
            tell(format!("nobody answers at {address}"));
            return Err(SearchError::Nobody);
        };
        answered.insert(device);
        let conversation = timeout(limits::RESTORE_TIME, self.converse(network, device)).await;
        match conversation.unwrap_or(Err(RestoreError::Interrupted)) {
            Ok(mut restored) => {
                tell(format!("{} at {address} lets this device in", restored.host_name));
                restored.addresses.insert(0, address.to_string());
                Ok(restored)
            }
            Err(error) => {
                tell(format!("{} answers at {address}, and {error}", device.short()));
                Err(SearchError::Refused(error))
            }
        }
    }

    async fn converse(&self, network: &NetworkHandle, device: DeviceId) -> Result<Box<Restored>, RestoreError> {
        // A device that does not know this root ends the connection, or does not speak of this with it.
        let stream = network.open_stream(device, wire::RESTORE).await;
        let mut stream: Stream = stream.map_err(|_| RestoreError::Unknown)?;
        let mut guest = Guest::new(&self.root, &self.device, self.seal, &self.name, device);
        write_frame(&mut stream, &Guest::hello()).await.map_err(|_| RestoreError::Interrupted)?;
        while let Ok(Some(bytes)) = read_frame(&mut stream, limits::PAIR_FRAME).await {
            match guest.hear(&bytes)? {
                GuestOutput::Wait => {}
                GuestOutput::Say(bytes) => {
                    write_frame(&mut stream, &bytes).await.map_err(|_| RestoreError::Interrupted)?;
                }
                GuestOutput::Completed(restored) => return Ok(restored),
            }
        }
        Err(RestoreError::Interrupted)
    }
}
