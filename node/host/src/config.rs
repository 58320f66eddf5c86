//! Configuration: defaults, then the file, then what the command line says. An unknown key is an error.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use serde::de::DeserializeOwned;
pub use toml::Table;

/// Largest configuration file that is read, in bytes.
const MAX_FILE: u64 = 1 << 20;

/// The configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("{path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Not TOML, an unknown key, or a value that does not fit.
    #[error("{origin}: {reason}")]
    Invalid {
        /// The file, or the command line.
        origin: String,
        /// What and where.
        reason: String,
    },
}

/// Reads a configuration of type `T`.
///
/// `T` has `#[serde(default, deny_unknown_fields)]` on itself and on each section. `path` need not
/// exist. `flags` holds what the command line sets, in the shape of the file.
pub fn load<T: DeserializeOwned>(path: &Path, flags: Table) -> Result<T, ConfigError> {
    let origin = path.display().to_string();
    let text = match read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
        result => result.map_err(|source| ConfigError::Read { path: path.to_path_buf(), source })?,
    };
    // The file alone first: an error in it should show its line.
    toml::from_str::<T>(&text)
        .map_err(|error| ConfigError::Invalid { origin: origin.clone(), reason: error.to_string() })?;
    let mut table: Table =
        toml::from_str(&text).map_err(|error| ConfigError::Invalid { origin, reason: error.to_string() })?;
    merge(&mut table, flags);
    T::deserialize(table)
        .map_err(|error| ConfigError::Invalid { origin: "command line".into(), reason: error.to_string() })
}

fn read(path: &Path) -> io::Result<String> {
    if fs::metadata(path)?.len() > MAX_FILE {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, "larger than 1 MiB"));
    }
    fs::read_to_string(path)
}

fn merge(table: &mut Table, over: Table) {
    for (key, value) in over {
        match (table.get_mut(&key), value) {
            (Some(toml::Value::Table(old)), toml::Value::Table(new)) => merge(old, new),
            (_, value) => {
                table.insert(key, value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Default, PartialEq, Deserialize)]
    #[serde(default, deny_unknown_fields)]
    struct Config {
        name: String,
        network: Network,
    }

    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(default, deny_unknown_fields)]
    struct Network {
        listen: Vec<SocketAddr>,
        mdns: bool,
    }

    impl Default for Network {
        fn default() -> Self {
            Self { listen: Vec::new(), mdns: true }
        }
    }

    fn loaded(file: Option<&str>, flags: &str) -> Result<Config, ConfigError> {
        let home = tempfile::tempdir().expect("temporary directory");
        let path = home.path().join("config.toml");
        if let Some(text) = file {
            fs::write(&path, text).expect("write");
        }
        load(&path, toml::from_str(flags).expect("flags"))
    }

    #[test]
    fn flags_win_over_the_file_and_the_file_over_defaults() {
        assert_eq!(loaded(None, "").expect("defaults"), Config::default());
        let file = "name = 'a'\n[network]\nmdns = false\nlisten = ['127.0.0.1:1']";
        let both = loaded(Some(file), "[network]\nlisten = ['127.0.0.1:2']").expect("merged");
        assert_eq!(both.name, "a");
        assert_eq!(both.network, Network { listen: vec!["127.0.0.1:2".parse().expect("address")], mdns: false });
    }

    #[test]
    fn mistakes_are_named() {
        let unknown = loaded(Some("[network]\nmdsn = true"), "").expect_err("unknown key").to_string();
        assert!(unknown.contains("mdsn") && unknown.contains("line 2"), "{unknown}");
        assert!(loaded(Some("name = 5"), "").is_err());
        assert!(loaded(Some("name ="), "").is_err());
        let flag = loaded(None, "colour = 'red'").expect_err("unknown flag").to_string();
        assert!(flag.contains("command line"), "{flag}");
    }
}
