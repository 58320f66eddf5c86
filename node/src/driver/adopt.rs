//! Taking over what is in quarantine: the bytes are gathered first, from the own history and then from whoever is
//! connected; then the folder puts what is here, and whoever asked is told.

use std::{collections::BTreeSet, sync::Arc};

use meshwork_protocol::{
    id::{ContentId, DeviceId, ObjectId},
    limits,
};
use meshwork_replica::{
    feed::FileValue,
    folder::observed::Path,
    replica::{AdoptError, Adoption, Choice, path_of},
};

use super::{
    Driver, Event,
    chunks::{Fetching, recall},
    command::{Reply, answer},
    report::text,
};
use crate::{
    api::types::{Adopt, Adopted, AdoptedFile},
    clock,
    resource::ResourceError,
};

/// Something taken over, from the question to the answer; one at a time, for two would fetch into the same files.
pub(crate) struct Adopting {
    object: ObjectId,
    choice: Choice,
    reply: Reply<Adopted>,
    /// What is told when the folder has done it.
    answer: Adopted,
}

impl Driver {
    pub(super) fn adopt(&mut self, asked: &Adopt, reply: Reply<Adopted>) {
        match self.begin_adoption(asked) {
            Ok((object, choice, missing)) => {
                self.adopting = Some(Adopting { object, choice, reply, answer: Adopted::default() });
                self.gather(object, missing);
            }
            Err(error) => answer(reply, Err(error)),
        }
    }

    fn begin_adoption(&self, asked: &Adopt) -> Result<(ObjectId, Choice, Vec<FileValue>), ResourceError> {
        let object = self.find_folder(&asked.folder)?;
        if self.adopting.is_some() {
            return Err(ResourceError::new(
                409,
                "busy",
                "Something is being taken over already.",
                "Wait until that is done.",
            ));
        }
        let device = asked.device.as_deref().map(|name| self.find_quarantined(object, name)).transpose()?;
        let paths: Option<Vec<Path>> = asked.paths.iter().map(|path| path_of(path)).collect();
        let paths = paths.ok_or_else(|| nothing_of_it(&self.title_of(object)))?;
        let choice = Choice { device, paths };
        let adoption = self.adoption(object, &choice)?;
        if adoption.is_empty() {
            return Err(nothing_of_it(&self.title_of(object)));
        }
        let on_its_way =
            |file: &FileValue| self.replica.as_ref().is_some_and(|replica| replica.is_on_its_way(object, file.content));
        let missing = adoption.missing.into_iter().map(|(_, file)| file).filter(|file| !on_its_way(file));
        Ok((object, choice, missing.collect()))
    }

    fn adoption(&self, object: ObjectId, choice: &Choice) -> Result<Adoption, ResourceError> {
        let replica = self.replica.as_ref().ok_or_else(super::command::no_mesh)?;
        replica.adoption(object, choice, &BTreeSet::new()).map_err(|error| self.refusal(object, error))
    }

    /// The device with this name, or whose id begins so, of those of which a folder holds something in quarantine.
    fn find_quarantined(&self, object: ObjectId, name: &str) -> Result<DeviceId, ResourceError> {
        let held = self.replica.iter().flat_map(|replica| replica.quarantined(object)).map(|record| record.device);
        let authors: BTreeSet<DeviceId> = held.filter(|device| self.is_called(*device, name)).collect();
        let nothing = || {
            ResourceError::not_found(
                format!("Nothing that {name} wrote in {} is in quarantine.", self.title_of(object)),
                "`mesh quarantine` shows what is.",
            )
        };
        self.only_one(name, &authors.into_iter().collect::<Vec<_>>(), nothing)
    }

    /// Brings the bytes of files here, then goes on.
    fn gather(&self, object: ObjectId, files: Vec<FileValue>) {
        let (network, bulk) = (self.network.clone(), self.bulk.clone());
        let (shelf, blobs, events) = (self.folders.shelf(object), self.blobs.clone(), self.events.clone());
        let replica = self.replica.as_ref();
        let shares = |peer: &DeviceId| replica.is_some_and(|replica| replica.shares_with(object, *peer));
        let peers: Vec<DeviceId> = self.peers.open().into_iter().filter(shares).collect();
        tokio::spawn(async move {
            let mut have = BTreeSet::new();
            if let Some(shelf) = shelf {
                let (own, wanted, pages) = (shelf.clone(), files.clone(), Arc::clone(&blobs));
                // A thread that has ended has found nothing.
                have = tokio::task::spawn_blocking(move || recall(&own, &pages, &wanted)).await.unwrap_or_default();
                for peer in peers {
                    let left: Vec<FileValue> =
                        files.iter().filter(|file| !have.contains(&file.content)).cloned().collect();
                    for files in left.chunks(limits::FETCH_JOB_FILES) {
                        let fetching = Fetching::new((&network, &bulk), peer, object, &shelf, &blobs);
                        have.extend(fetching.gain(files.to_vec()).await);
                    }
                }
            }
            // A loop that has ended needs no answer.
            let _ = events.send(Event::Gathered { object, have }).await;
        });
    }

    /// The bytes are here, as far as anybody has them.
    pub(super) fn gathered(&mut self, object: ObjectId, have: &BTreeSet<ContentId>) {
        let Some(mut adopting) = self.adopting.take_if(|adopting| adopting.object == object) else { return };
        let Some(replica) = &mut self.replica else { return };
        match replica.adopt(clock::now(), &mut self.rng, object, &adopting.choice, have) {
            Ok((adoption, outputs)) => {
                let put = adoption.put.iter();
                adopting.answer = Adopted {
                    files: put.map(|(path, to)| AdoptedFile { path: text(path), at: text(to) }).collect(),
                    here: adoption.here.len() as u64,
                    missing: adoption.missing.iter().map(|(path, _)| text(path)).collect(),
                    failed: Vec::new(),
                };
                if adoption.put.is_empty() {
                    return self.finish_adoption(adopting);
                }
                self.adopting = Some(adopting);
                self.carry_out(outputs);
            }
            Err(error) => answer(adopting.reply, Err(self.refusal(object, error))),
        }
    }

    /// The folder has put what it could.
    pub(super) fn adoption_put(&mut self, object: ObjectId, failed: &[(Path, String)]) {
        let Some(mut adopting) = self.adopting.take_if(|adopting| adopting.object == object) else { return };
        for (path, reason) in failed {
            let path = text(path);
            adopting.answer.files.retain(|file| file.at != path);
            adopting.answer.failed.push(format!("{path}: {reason}"));
        }
        self.finish_adoption(adopting);
    }

    fn finish_adoption(&self, adopting: Adopting) {
        let Adopting { object, reply, answer: adopted, .. } = adopting;
        if adopted.files.is_empty() && adopted.here == 0 && adopted.failed.is_empty() {
            let title = self.title_of(object);
            let missing = adopted.missing.join(", ");
            return answer(
                reply,
                Err(ResourceError::new(
                    409,
                    "no_bytes",
                    format!("Neither this device nor one that is connected has the bytes of {missing} in {title}."),
                    "Connect a device that had them: it may have them in its history.",
                )),
            );
        }
        answer(reply, Ok(adopted));
    }

    fn refusal(&self, object: ObjectId, error: AdoptError) -> ResourceError {
        let title = self.title_of(object);
        match error {
            AdoptError::NotMember => ResourceError::new(
                403,
                "not_permitted",
                format!("This device may not write in {title}."),
                "Somebody who may can take it over.",
            ),
            AdoptError::NotHere => ResourceError::new(
                409,
                "not_here",
                format!("{title} has no place on this device."),
                "Give it one with `mesh folder get`, or do it on a device that has it.",
            ),
            AdoptError::Busy => ResourceError::new(
                409,
                "busy",
                format!("{title} is at work, or its directory is not there."),
                "Try again when `mesh folder status` shows it idle.",
            ),
        }
    }
}

fn nothing_of_it(title: &str) -> ResourceError {
    ResourceError::not_found(
        format!("Nothing of that in {title} is in quarantine and can be taken over."),
        "`mesh quarantine` shows what is; what a device removed there is not removed again.",
    )
}
