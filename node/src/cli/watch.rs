//! `mesh watch`.

use super::{
    Context,
    arguments::Watch,
    error::{CliError, Exit},
    screen::time_of_day,
};

pub(super) async fn watch(context: &mut Context, watch: &Watch) -> Result<(), CliError> {
    let mut events = context.client.events(watch.since).await?;
    context.screen.note("Live events; Ctrl-C ends.")?;
    while let Some(event) = events.next().await? {
        if context.screen.json {
            context.screen.value(&event)?;
        } else {
            context.screen.line(format!("{}  {:<14}  {}", time_of_day(event.time), event.kind, event.text))?;
        }
    }
    Err(CliError::new(Exit::NotRunning, "not_running", "The node has stopped.", "Start it with `mesh up`."))
}
