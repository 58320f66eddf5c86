//! The identity of a node, kept in one file of its home directory, and the lock on that directory.
//!
//! The file `identity.key`, mode 0600 in a directory of mode 0700, is
//! `magic[8] | version u8 | kdf u8 | salt[16] | nonce[24] | XChaCha20-Poly1305 ciphertext`, where the
//! bytes before the ciphertext are its associated data. With kdf 0 the key is a constant: the file mode
//! protects the secrets then, and the parser is the same as for a file under a passphrase.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use chacha20poly1305::{KeyInit, XChaCha20Poly1305, XNonce, aead::Aead, aead::Payload};
use meshwork_protocol::{codec, id::Incarnation, wire_struct};
use rand_core::CryptoRng;
use serde_bytes::ByteBuf;
use zeroize::{Zeroize, Zeroizing};

/// Name of the key file in the home directory.
pub const KEY_FILE: &str = "identity.key";

/// Name of the lock file in the home directory.
pub const LOCK_FILE: &str = "node.lock";

/// Longest recovery seed, in bytes: what a phrase of 24 words expands to.
pub const MAX_SEED: usize = 64;

const MAGIC: [u8; 8] = *b"MESHKEY\0";
const VERSION: u8 = 1;
const KDF_NONE: u8 = 0;
const SALT: usize = 16;
const NONCE: usize = 24;
const HEAD: usize = MAGIC.len() + 2 + SALT + NONCE;

/// Largest key file that is read, in bytes. A full one has fewer than 300.
const MAX_FILE: usize = 4096;

/// Not a secret: with kdf 0 the file mode is what protects the content.
const PLAIN_KEY: [u8; 32] = *b"meshwork identity.key without kd";

/// An identity could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// Others than the owner could read the secrets.
    #[error(
        "{path} is open to others (mode {mode:03o}): run `chmod {wanted:o} {path}`, and if anybody may have read it, pair this device anew"
    )]
    Permissions {
        /// The file or directory.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
        /// What they should be.
        wanted: u32,
    },
    /// The file belongs to another user.
    #[error("{path} belongs to another user")]
    Owner {
        /// The file or directory.
        path: PathBuf,
    },
    /// The file is not a key file, or it is damaged.
    #[error("{path} is damaged or not a key file: restore it from a backup, or move it away and pair this device anew")]
    Damaged {
        /// The file.
        path: PathBuf,
    },
    /// The file is of a newer version or under a passphrase, which this program does not know.
    #[error("{path} was written by a newer version of this program")]
    Newer {
        /// The file.
        path: PathBuf,
    },
    /// The system refused.
    #[error("{path}: {source}")]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// The home directory is not free.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// A running process holds the lock.
    #[error("another process uses {home}")]
    Held {
        /// The home directory.
        home: PathBuf,
    },
    /// The home directory is not fit for secrets, or cannot be made.
    #[error(transparent)]
    Home(#[from] IdentityError),
}

/// Exclusive use of a home directory, as long as this value lives.
#[derive(Debug)]
pub struct HomeLock {
    home: PathBuf,
    _file: File,
}

impl HomeLock {
    /// Makes the home directory if need be (mode 0700) and locks it. A crashed process leaves no lock behind.
    pub fn acquire(home: &Path) -> Result<Self, LockError> {
        prepare_home(home)?;
        let path = home.join(LOCK_FILE);
        let file = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(&path);
        // A server writes nothing there once it has a home, so that its disk may be read-only.
        let file = file.or_else(|error| match error.kind() {
            io::ErrorKind::ReadOnlyFilesystem => File::open(&path),
            _ => Err(error),
        });
        let file = file.map_err(|source| IdentityError::Io { path: path.clone(), source })?;
        match rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Self { home: home.to_path_buf(), _file: file }),
            Err(rustix::io::Errno::WOULDBLOCK) => Err(LockError::Held { home: home.to_path_buf() }),
            Err(error) => Err(IdentityError::Io { path, source: error.into() }.into()),
        }
    }

    /// The directory.
    pub fn home(&self) -> &Path {
        &self.home
    }
}

/// The secrets of a device. They never leave it; there is no `Debug`.
pub struct Identity {
    device: Zeroizing<[u8; 32]>,
    seal: Zeroizing<[u8; 32]>,
    incarnation: Incarnation,
    seed: Option<Zeroizing<Vec<u8>>>,
}

/// The content of the file, in this order.
struct Secrets {
    device: ByteBuf,
    seal: ByteBuf,
    incarnation: Incarnation,
    seed: Vec<ByteBuf>,
}
wire_struct!(Secrets { device, seal, incarnation, seed });

impl Drop for Secrets {
    fn drop(&mut self) {
        self.device.zeroize();
        self.seal.zeroize();
        self.seed.iter_mut().for_each(|seed| seed.zeroize());
    }
}

impl Identity {
    /// A new identity from this random source, not yet stored.
    pub fn generate(rng: &mut impl CryptoRng) -> Self {
        let mut identity = Self {
            device: Zeroizing::new([0; 32]),
            seal: Zeroizing::new([0; 32]),
            incarnation: Incarnation([0; 8]),
            seed: None,
        };
        rng.fill_bytes(identity.device.as_mut_slice());
        rng.fill_bytes(identity.seal.as_mut_slice());
        rng.fill_bytes(&mut identity.incarnation.0);
        identity
    }

    /// Reads the identity of a home directory, or makes one there if it has none.
    pub fn load_or_create(home: &Path, rng: &mut impl CryptoRng) -> Result<Self, IdentityError> {
        prepare_home(home)?;
        if let Some(identity) = Self::load(home)? {
            return Ok(identity);
        }
        let identity = Self::generate(rng);
        let path = home.join(KEY_FILE);
        let temporary = identity.write_temporary(home, rng)?;
        // A link refuses to replace: of two processes that start at once, one creates and both read the same.
        let linked = fs::hard_link(&temporary, &path);
        let removed = fs::remove_file(&temporary);
        match linked {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            result => result.and(removed).map_err(|source| IdentityError::Io { path: path.clone(), source })?,
        }
        sync_directory(home)?;
        Self::load(home)?.ok_or(IdentityError::Io { path, source: io::ErrorKind::NotFound.into() })
    }

    /// Reads the identity of a home directory; `None` when it has none.
    pub fn load(home: &Path) -> Result<Option<Self>, IdentityError> {
        let path = home.join(KEY_FILE);
        let Some(bytes) = read_private(&path)? else {
            return Ok(None);
        };
        let damaged = || IdentityError::Damaged { path: path.clone() };
        let (head, sealed) = bytes.split_at_checked(HEAD).ok_or_else(damaged)?;
        let (magic, rest) = head.split_at_checked(MAGIC.len()).ok_or_else(damaged)?;
        if magic != MAGIC {
            return Err(damaged());
        }
        if !rest.starts_with(&[VERSION, KDF_NONE]) {
            return Err(IdentityError::Newer { path });
        }
        let nonce = rest.get(2 + SALT..).and_then(|nonce| XNonce::try_from(nonce).ok()).ok_or_else(damaged)?;
        let plain = cipher().decrypt(&nonce, Payload { msg: sealed, aad: head }).map_err(|_| damaged())?;
        let plain = Zeroizing::new(plain);
        let secrets: Secrets = codec::decode(&plain, MAX_FILE).map_err(|_| damaged())?;
        Self::from_secrets(&secrets).map(Some).ok_or_else(damaged)
    }

    /// Writes the identity over the one in the home directory: whole or not at all.
    pub fn save(&self, home: &Path, rng: &mut impl CryptoRng) -> Result<(), IdentityError> {
        let temporary = self.write_temporary(home, rng)?;
        let path = home.join(KEY_FILE);
        fs::rename(&temporary, &path).map_err(|source| IdentityError::Io { path, source })?;
        sync_directory(home)
    }

    /// The Ed25519 secret of the device, which is also its transport key.
    pub fn device_secret(&self) -> &Zeroizing<[u8; 32]> {
        &self.device
    }

    /// The X25519 secret to which keys are sealed for this device.
    pub fn seal_secret(&self) -> &Zeroizing<[u8; 32]> {
        &self.seal
    }

    /// Replaces the sealing secret; takes effect on disk with [`Identity::save`].
    pub fn set_seal_secret(&mut self, secret: Zeroizing<[u8; 32]>) {
        self.seal = secret;
    }

    /// Names the chains that this installation writes.
    pub fn incarnation(&self) -> Incarnation {
        self.incarnation
    }

    /// Begins new chains, after a restore from a backup; takes effect on disk with [`Identity::save`].
    pub fn renew_incarnation(&mut self, rng: &mut impl CryptoRng) {
        rng.fill_bytes(&mut self.incarnation.0);
    }

    /// Begins new chains under a name that was chosen; takes effect on disk with [`Identity::save`].
    pub fn set_incarnation(&mut self, incarnation: Incarnation) {
        self.incarnation = incarnation;
    }

    /// The recovery seed, while the person has not confirmed to have written its phrase down.
    pub fn root_seed(&self) -> Option<&[u8]> {
        self.seed.as_ref().map(|seed| seed.as_slice())
    }

    /// Keeps a recovery seed of at most [`MAX_SEED`] bytes until it is wiped; a longer one is refused
    /// with `false`. Takes effect on disk with [`Identity::save`].
    #[must_use]
    pub fn set_root_seed(&mut self, seed: Zeroizing<Vec<u8>>) -> bool {
        let fits = !seed.is_empty() && seed.len() <= MAX_SEED;
        if fits {
            self.seed = Some(seed);
        }
        fits
    }

    /// Forgets the recovery seed, in memory and on disk.
    pub fn wipe_root(&mut self, home: &Path, rng: &mut impl CryptoRng) -> Result<(), IdentityError> {
        self.seed = None;
        self.save(home, rng)
    }

    fn from_secrets(secrets: &Secrets) -> Option<Self> {
        let bytes = |field: &ByteBuf| Some(Zeroizing::new(<[u8; 32]>::try_from(field.as_slice()).ok()?));
        let seed = match secrets.seed.as_slice() {
            [] => None,
            [seed] if !seed.is_empty() && seed.len() <= MAX_SEED => Some(Zeroizing::new(seed.to_vec())),
            _ => return None,
        };
        let (device, seal) = (bytes(&secrets.device)?, bytes(&secrets.seal)?);
        Some(Self { device, seal, incarnation: secrets.incarnation, seed })
    }

    fn seal_file(&self, rng: &mut impl CryptoRng) -> Option<Vec<u8>> {
        let secrets = Secrets {
            device: ByteBuf::from(*self.device),
            seal: ByteBuf::from(*self.seal),
            incarnation: self.incarnation,
            seed: self.seed.iter().map(|seed| ByteBuf::from(seed.to_vec())).collect(),
        };
        let plain = Zeroizing::new(codec::encode(&secrets));
        let mut drawn = [0; SALT + NONCE];
        rng.fill_bytes(&mut drawn);
        let mut file = [&MAGIC[..], &[VERSION, KDF_NONE], &drawn].concat();
        let nonce = XNonce::try_from(drawn.get(SALT..)?).ok()?;
        let sealed = cipher().encrypt(&nonce, Payload { msg: &plain, aad: &file }).ok()?;
        file.extend(sealed);
        Some(file)
    }

    fn write_temporary(&self, home: &Path, rng: &mut impl CryptoRng) -> Result<PathBuf, IdentityError> {
        let mut tag = [0; 8];
        rng.fill_bytes(&mut tag);
        let path = home.join(format!("{KEY_FILE}.{}", meshwork_protocol::id::hex(&tag)));
        let bytes = self.seal_file(rng).ok_or_else(|| IdentityError::Damaged { path: path.clone() })?;
        let write = || -> io::Result<()> {
            let mut file = OpenOptions::new().create_new(true).write(true).mode(0o600).open(&path)?;
            file.write_all(&bytes)?;
            file.sync_all()
        };
        match write() {
            Ok(()) => Ok(path),
            Err(source) => {
                // Best effort: what remains is a file that nobody reads.
                let _ = fs::remove_file(&path);
                Err(IdentityError::Io { path, source })
            }
        }
    }
}

fn cipher() -> XChaCha20Poly1305 {
    XChaCha20Poly1305::new(&PLAIN_KEY.into())
}

/// Makes the directory, or checks that nobody else can enter the one that is there.
fn prepare_home(home: &Path) -> Result<(), IdentityError> {
    let io = |source| IdentityError::Io { path: home.to_path_buf(), source };
    DirBuilder::new().recursive(true).mode(0o700).create(home).map_err(io)?;
    check_private(home, &fs::metadata(home).map_err(io)?, 0o700)
}

fn check_private(path: &Path, found: &fs::Metadata, wanted: u32) -> Result<(), IdentityError> {
    let path = path.to_path_buf();
    if found.uid() != rustix::process::geteuid().as_raw() {
        return Err(IdentityError::Owner { path });
    }
    let mode = found.mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(IdentityError::Permissions { path, mode, wanted });
    }
    Ok(())
}

fn read_private(path: &Path) -> Result<Option<Zeroizing<Vec<u8>>>, IdentityError> {
    let io = |source| IdentityError::Io { path: path.to_path_buf(), source };
    let no_follow = rustix::fs::OFlags::NOFOLLOW.bits().cast_signed();
    let file = match OpenOptions::new().read(true).custom_flags(no_follow).open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        result => result.map_err(io)?,
    };
    check_private(path, &file.metadata().map_err(io)?, 0o600)?;
    let mut bytes = Zeroizing::new(Vec::with_capacity(MAX_FILE + 1));
    file.take(MAX_FILE as u64 + 1).read_to_end(&mut bytes).map_err(io)?;
    if bytes.len() > MAX_FILE {
        return Err(IdentityError::Damaged { path: path.to_path_buf() });
    }
    Ok(Some(bytes))
}

fn sync_directory(home: &Path) -> Result<(), IdentityError> {
    let synced = File::open(home).and_then(|directory| directory.sync_all());
    synced.map_err(|source| IdentityError::Io { path: home.to_path_buf(), source })
}

#[cfg(test)]
mod tests;
