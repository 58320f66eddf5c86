//! The number of a pairing code at bootstraps: shown by one device, sought by another. The words of the code stay between
//! the two; a bootstrap that leads elsewhere leads to somebody who does not know them.

use std::time::Duration;

use meshwork_host::swarm::Address;
use meshwork_protocol::{
    codec,
    contact::CardDevice,
    limits,
    pairing::PairCode,
    wire::rendezvous::{Answer, Ask, Refusal},
};
use serde_bytes::ByteBuf;
use tokio::{task::JoinSet, time::sleep};

use super::{Driver, Event, pairing::PairInput, servers::BOOTSTRAP};
use crate::network::rendezvous;

/// How long after it was not known a number is asked for again.
const AGAIN: Duration = Duration::from_secs(1);

impl Driver {
    /// Has whoever types the code find this device at the bootstraps of the mesh.
    pub(super) fn show_number(&self, code: &PairCode) {
        let card =
            CardDevice { device: self.network.device(), addresses: self.listening_addresses(limits::PAIR_ADDRESSES) };
        let ask = Ask::Show { number: code.number(), note: ByteBuf::from(codec::encode(&card)) };
        for (bootstrap, addresses) in self.servers(&BOOTSTRAP) {
            let (network, ask) = (self.network.clone(), ask.clone());
            tokio::spawn(async move {
                let answers = rendezvous::ask(&network, bootstrap, addresses, &[ask]).await;
                let problem = match answers.as_deref() {
                    Ok([Answer::Refused { code }]) => {
                        Refusal::from_code(*code).unwrap_or(Refusal::Malformed).to_string()
                    }
                    Ok(_) => return,
                    Err(error) => error.to_string(),
                };
                tracing::info!(%bootstrap, problem, "the code cannot be found at a bootstrap");
            });
        }
    }

    /// Looks at a bootstrap for the device that shows a code of this number, again and again: it may be about to tell. Ends
    /// when what is given here is dropped.
    pub(super) fn seek_number(&self, bootstrap: Address, number: u16) -> JoinSet<()> {
        let (network, events) = (self.network.clone(), self.events.clone());
        let mut seeking = JoinSet::new();
        seeking.spawn(async move {
            let Some(server) = bootstrap.device() else { return };
            loop {
                let answers = rendezvous::ask(&network, server, vec![bootstrap.clone()], &[Ask::Seek { number }]).await;
                let addresses: Vec<Address> = match answers {
                    Ok(answers) => answers.iter().flat_map(addresses).collect(),
                    Err(error) => {
                        tracing::info!(%error, "the bootstrap does not help");
                        Vec::new()
                    }
                };
                if !addresses.is_empty() {
                    // A loop that has ended needs no answer.
                    let _ = events.send(Event::Pairing(PairInput::Sought { addresses })).await;
                    return;
                }
                sleep(AGAIN).await;
            }
        });
        seeking
    }
}

/// Where the device is that shows a code, in its own words.
fn addresses(answer: &Answer) -> Vec<Address> {
    let Answer::Notes { notes } = answer else { return Vec::new() };
    let cards = notes.iter().filter_map(|note| codec::decode::<CardDevice>(note, limits::RENDEZVOUS_NOTE).ok());
    let of_card = |card: CardDevice| {
        let addresses = card.addresses.into_iter().take(limits::PAIR_ADDRESSES);
        addresses.filter_map(move |text| Some(text.parse::<Address>().ok()?.with_device(&card.device)))
    };
    cards.take(1).flat_map(of_card).collect()
}
