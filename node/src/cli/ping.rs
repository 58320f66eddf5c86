//! `mesh ping`.

use super::{
    Context,
    error::CliError,
    screen::{date_and_time, short},
};
use crate::api::types::Ping;

pub(super) async fn ping(context: &mut Context, device: &str) -> Result<(), CliError> {
    let ping = context.client.ping(device).await?;
    if context.screen.json {
        return context.screen.value(&ping);
    }
    context.screen.line(format!("{} answers {}.", ping.name, times(&ping)))?;
    let since = date_and_time(ping.since);
    let place = ping.address.split("/p2p").next().unwrap_or_default();
    let Some(relay) = &ping.relay else {
        return context
            .screen
            .line(format!("The way there is direct, by {} to {place}, since {since}.", ping.transport));
    };
    context
        .screen
        .line(format!("The way there leads through the relay {} at {place}, since {since}.", short(relay)))?;
    context.screen.line(match &ping.problem {
        Some(problem) => format!("A direct one did not come about: {problem}."),
        None => "A direct one has not been found yet.".to_owned(),
    })
}

/// In the middle, with the shortest and the longest.
fn times(ping: &Ping) -> String {
    let mut times = ping.times.clone();
    times.sort_unstable();
    let text = |time: Option<&u64>| time.map_or_else(String::new, |time| format!("{:.1}", *time as f64 / 1e3));
    let middle = text(times.get(times.len() / 2));
    format!("after {middle} ms (of {} times, {} to {} ms)", times.len(), text(times.first()), text(times.last()))
}
