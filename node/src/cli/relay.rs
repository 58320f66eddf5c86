//! `mesh relay`: the relays of the mesh.

use crate::api::types::RelayAdd;

use super::{
    Context,
    arguments::Relay,
    error::CliError,
    screen::{columns, server_row, short},
};

pub(super) async fn relay(context: &mut Context, command: Relay) -> Result<(), CliError> {
    match command {
        Relay::Add { address, ticket } => {
            let relay = context.client.relay_add(&RelayAdd { address, ticket }).await?;
            if context.screen.json {
                return context.screen.value(&relay);
            }
            context
                .screen
                .line(format!("All devices of this mesh use the relay {} from now on.", short(&relay.relay)))?;
            context
                .screen
                .line("It sees who is connected and how much, and nothing of what. How it stands: mesh relay ls")
        }
        Relay::Ls => ls(context).await,
        Relay::Remove { relay } => {
            let done = context.client.relay_remove(&relay).await?;
            if context.screen.json {
                return context.screen.value(&done);
            }
            context.screen.line(format!("No device of this mesh uses the relay {relay} any more."))
        }
    }
}

async fn ls(context: &mut Context) -> Result<(), CliError> {
    let relays = context.client.relays().await?;
    if context.screen.json {
        return relays.iter().try_for_each(|relay| context.screen.value(relay));
    }
    if relays.is_empty() {
        return context
            .screen
            .note("This mesh has no relay. Devices meet on a local network, and where one can be dialled. Add one: mesh relay add ADDRESS");
    }
    let rows: Vec<[String; 4]> = relays
        .into_iter()
        .map(|relay| server_row(&relay.relay, &relay.addresses, relay.state, relay.problem))
        .collect();
    columns(&rows).iter().try_for_each(|line| context.screen.line(line))
}
