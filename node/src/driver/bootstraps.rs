//! The bootstraps of the mesh, and how they stand.

use meshwork_host::swarm::Address;
use meshwork_protocol::id::DeviceId;

use super::{
    Driver,
    command::{Reply, answer},
    rendezvous::Stood,
    servers::BOOTSTRAP,
};
use crate::{api::types::Bootstrap, resource::ResourceError};

/// What is asked about bootstraps.
pub(crate) enum Ask {
    List(Reply<Vec<Bootstrap>>),
    Add { address: String, reply: Reply<Bootstrap> },
    Remove { bootstrap: String, reply: Reply<()> },
}

impl Driver {
    pub(super) fn on_bootstraps(&mut self, ask: Ask) {
        match ask {
            Ask::List(reply) => answer(reply, Ok(self.bootstraps())),
            Ask::Add { address, reply } => answer(reply, self.bootstrap_add(&address)),
            Ask::Remove { bootstrap, reply } => answer(reply, self.server_remove(&BOOTSTRAP, &bootstrap).map(drop)),
        }
    }

    fn bootstraps(&self) -> Vec<Bootstrap> {
        let stood = self.rendezvous.stood();
        let all = self.servers(&BOOTSTRAP).into_iter();
        all.map(|(bootstrap, addresses)| shown(bootstrap, &addresses, &stood)).collect()
    }

    fn bootstrap_add(&mut self, text: &str) -> Result<Bootstrap, ResourceError> {
        let (bootstrap, addresses) = self.server_add(&BOOTSTRAP, text)?;
        Ok(shown(bootstrap, &addresses, &Stood::new()))
    }
}

fn shown(bootstrap: DeviceId, addresses: &[Address], stood: &Stood) -> Bootstrap {
    let found = stood.get(&bootstrap);
    let state = match found {
        Some(Ok(())) => "in use",
        Some(Err(_)) => "away",
        None => "spare",
    };
    Bootstrap {
        bootstrap: bootstrap.to_string(),
        addresses: addresses.iter().map(ToString::to_string).collect(),
        state: state.to_owned(),
        problem: found.and_then(|found| found.clone().err()),
    }
}
