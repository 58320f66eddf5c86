//! A new home of a server: identity and a commented configuration.

use std::{
    fs::OpenOptions,
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use meshwork_protocol::{id::DeviceId, key::DeviceKey};

use super::CONFIG_FILE;
use crate::{
    entropy::entropy,
    identity::{HomeLock, Identity, IdentityError, LockError},
};

/// A home was not made.
#[derive(Debug, thiserror::Error)]
pub enum InitError {
    /// There is a configuration already.
    #[error("{0} exists already; edit it, or choose another --home")]
    Exists(PathBuf),
    /// The configuration cannot be written.
    #[error("{path}: {source}")]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The home directory is in use or not private.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// The identity cannot be read or made.
    #[error(transparent)]
    Identity(#[from] IdentityError),
}

/// Makes the home with its identity, if it has none yet, and writes its configuration; tells the id of the server.
pub fn init(home: &Path, config: &str) -> Result<DeviceId, InitError> {
    let lock = HomeLock::acquire(home)?;
    let path = home.join(CONFIG_FILE);
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
    let mut file = match file {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Err(InitError::Exists(path)),
        file => file.map_err(|source| InitError::Write { path: path.clone(), source })?,
    };
    file.write_all(config.as_bytes()).map_err(|source| InitError::Write { path, source })?;
    let identity = Identity::load_or_create(lock.home(), &mut entropy())?;
    Ok(DeviceKey::from_bytes(identity.device_secret()).device_id())
}
