//! What a folder waits for in vain, and letting go of it.

use std::collections::BTreeMap;

use meshwork_replica::{
    folder::observed::Path,
    replica::{self, AuthorError, path_of},
};

use super::{
    Driver,
    command::{internal, no_mesh},
    report::text,
};
use crate::{api::types::Missing, clock, resource::ResourceError};

impl Driver {
    /// What a folder waits for and nobody connected has, by path.
    pub(super) fn missing(&self, folder: &str) -> Result<Vec<Missing>, ResourceError> {
        let object = self.find_folder(folder)?;
        let missing = self.replica.as_ref().map(|replica| replica.missing(object)).unwrap_or_default();
        Ok(self.told(missing))
    }

    /// Lets go of what is missing at or below these paths, or of all.
    pub(super) fn let_go(&mut self, folder: &str, paths: &[String]) -> Result<Vec<Missing>, ResourceError> {
        let object = self.find_folder(folder)?;
        let paths: Option<Vec<Path>> = paths.iter().map(|path| path_of(path)).collect();
        let paths = paths.ok_or_else(|| self.nothing_missing(folder))?;
        let replica = self.replica.as_mut().ok_or_else(no_mesh)?;
        let (gone, outputs) =
            replica.let_go(clock::now(), &mut self.rng, object, &paths).map_err(|error| match error {
                AuthorError::NotMember => ResourceError::new(
                    403,
                    "not_allowed",
                    format!("You may only read in {folder}."),
                    "Ask whoever shares it with you.",
                ),
                error => internal(error),
            })?;
        self.carry_out(outputs);
        if gone.is_empty() {
            return Err(self.nothing_missing(folder));
        }
        Ok(self.told(gone))
    }

    fn nothing_missing(&self, folder: &str) -> ResourceError {
        ResourceError::not_found(
            format!("Nothing of that is missing in {folder}."),
            "`mesh folder missing` shows what is; what somebody connected has is on its way.",
        )
    }

    /// Once for each path and device.
    fn told(&self, missing: Vec<replica::Missing>) -> Vec<Missing> {
        let mut told = BTreeMap::new();
        for missing in missing {
            let (path, size) = (text(&missing.path), missing.file.size);
            let (device, name) = (missing.device.to_string(), self.name_of(missing.device));
            told.insert((path.clone(), device.clone()), Missing { path, size, device, name });
        }
        told.into_values().collect()
    }
}
