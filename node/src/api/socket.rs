//! The Unix socket of the API: private directory, private file, one owner, peers of the same user only.

use std::{
    fs, io,
    os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    time::Duration,
};

use tokio::net::{UnixListener, UnixStream};

/// Why the socket could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// A process answers at the socket.
    #[error("another node answers at {path}")]
    Live {
        /// The socket.
        path: PathBuf,
    },
    /// Something that is no socket has its name.
    #[error("{path} is no socket")]
    NotASocket {
        /// The file in the way.
        path: PathBuf,
    },
    /// The kernel takes at most 107 bytes.
    #[error("the path {path} is too long for a socket")]
    TooLong {
        /// The path.
        path: PathBuf,
    },
    /// The directory belongs to somebody else.
    #[error("the directory {path} belongs to another user")]
    Foreign {
        /// The directory.
        path: PathBuf,
    },
    /// The file system refused.
    #[error("{path}: {source}")]
    Io {
        /// What was touched.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
}

/// Bytes of a socket's path that every kernel takes (Linux: 108 with the closing zero).
const PATH_BYTES_MAX: usize = 107;

/// A listening API socket. Dropping it removes the file, when it is still its own.
pub struct ApiSocket {
    listener: UnixListener,
    path: PathBuf,
    inode: u64,
    uid: u32,
}

impl ApiSocket {
    /// Opens the socket: makes its directory (mode 0700), replaces the socket of a dead process, refuses
    /// a live one. Needs a tokio runtime.
    pub fn bind(path: &Path) -> Result<Self, BindError> {
        let io_error = |source| BindError::Io { path: path.to_owned(), source };
        if path.as_os_str().len() > PATH_BYTES_MAX {
            return Err(BindError::TooLong { path: path.to_owned() });
        }
        if let Some(directory) = path.parent() {
            make_private(directory)?;
        }
        clear_stale(path)?;
        let listener = UnixListener::bind(path).map_err(io_error)?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o600)).map_err(io_error)?;
        let inode = fs::symlink_metadata(path).map_err(io_error)?.ino();
        Ok(ApiSocket { listener, path: path.to_owned(), inode, uid: own_uid() })
    }

    /// The next connection of this user; `None` when it was refused or failed.
    pub(super) async fn accept(&self) -> Option<UnixStream> {
        let stream = match self.listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Out of descriptors, mostly: without a pause this would spin.
                tracing::warn!(%error, "the local API cannot accept");
                tokio::time::sleep(Duration::from_millis(50)).await;
                return None;
            }
        };
        match stream.peer_cred() {
            Ok(peer) if peer.uid() == self.uid => Some(stream),
            Ok(peer) => {
                tracing::warn!(uid = peer.uid(), "a connection of another user was refused");
                None
            }
            Err(error) => {
                tracing::warn!(%error, "a connection without credentials was refused");
                None
            }
        }
    }
}

impl Drop for ApiSocket {
    fn drop(&mut self) {
        if fs::symlink_metadata(&self.path).is_ok_and(|file| file.ino() == self.inode) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn own_uid() -> u32 {
    rustix::process::geteuid().as_raw()
}

fn make_private(directory: &Path) -> Result<(), BindError> {
    let io_error = |source| BindError::Io { path: directory.to_owned(), source };
    match fs::DirBuilder::new().mode(0o700).create(directory) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(io_error(error)),
        _ => {}
    }
    let found = fs::symlink_metadata(directory).map_err(io_error)?;
    if !found.is_dir() || found.uid() != own_uid() {
        return Err(BindError::Foreign { path: directory.to_owned() });
    }
    fs::set_permissions(directory, fs::Permissions::from_mode(0o700)).map_err(io_error)
}

fn clear_stale(path: &Path) -> Result<(), BindError> {
    let io_error = |source| BindError::Io { path: path.to_owned(), source };
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(io_error(error)),
        Ok(file) if !file.file_type().is_socket() => return Err(BindError::NotASocket { path: path.to_owned() }),
        Ok(_) => {}
    }
    match std::os::unix::net::UnixStream::connect(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path).map_err(io_error),
        // Also when its backlog is full: somebody listens.
        _ => Err(BindError::Live { path: path.to_owned() }),
    }
}
