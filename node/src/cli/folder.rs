//! `mesh folder add|get|ls|status`.

use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use super::{
    Context, absolute_text,
    arguments::{Folder, FolderAdd, FolderGet, FolderLetGo},
    error::{CliError, Exit},
    pair::confirm,
    screen::{Screen, bytes, columns, count, short},
};
use crate::{
    api::types::{self, FolderState, FolderStatus},
    resource::KEY_NOT_HERE,
};

/// Between two looks at a folder that is waited for.
const LOOK: Duration = Duration::from_millis(200);
/// How long a device that has just joined waits for what its mesh holds.
const ARRIVAL: Duration = Duration::from_secs(10);
/// Between two lines about it where there is no terminal.
const LINE: Duration = Duration::from_secs(5);
/// A folder that stays idle and empty for this long is an empty one.
const EMPTY: Duration = Duration::from_secs(3);

pub(super) async fn folder(context: &mut Context, command: Folder) -> Result<(), CliError> {
    match command {
        Folder::Add(add) => self::add(context, add).await,
        Folder::Get(get) => self::get(context, get).await,
        Folder::Ls => ls(context).await,
        Folder::Status(which) => status(context, which.name.as_deref()).await,
        Folder::Missing { name } => missing(context, &name).await,
        Folder::LetGo(which) => let_go(context, which).await,
    }
}

async fn add(context: &mut Context, add: FolderAdd) -> Result<(), CliError> {
    let path = absolute_text(&add.path)?;
    let folder = context.client.folder_add(&types::FolderAdd { path, title: add.name }).await?;
    let title = folder.title.clone();
    if add.wait {
        return wait(context, &folder.id).await;
    }
    if context.screen.json {
        return context.screen.value(&folder);
    }
    context.screen.line(format!("{title:?} is a Live Folder now, in place."))?;
    context.screen.line(format!("  how far it is:          mesh folder status {}", word(&title)))?;
    context.screen.line(format!("  on your other devices:  mesh folder get {} PATH", word(&title)))
}

async fn get(context: &mut Context, get: FolderGet) -> Result<(), CliError> {
    let path = absolute_text(&get.path)?;
    let folder = get_when_known(context, &get.name, &path).await?;
    if get.wait {
        return wait(context, &folder.id).await;
    }
    if context.screen.json {
        return context.screen.value(&folder);
    }
    context.screen.line(format!("{:?} comes to {path}.", folder.title))?;
    context.screen.line(format!("  how far it is:  mesh folder status {}", word(&folder.title)))
}

/// A name as one word of a shell.
pub(super) fn word(name: &str) -> String {
    let plain = |c: char| c.is_alphanumeric() || matches!(c, '-' | '_' | '.' | '/');
    if !name.is_empty() && name.chars().all(plain) {
        name.to_owned()
    } else {
        format!("'{}'", name.replace('\'', r"'\''"))
    }
}

/// Right after a join the folders and their keys take a moment to arrive.
pub(super) async fn get_when_known(context: &mut Context, name: &str, path: &str) -> Result<types::Folder, CliError> {
    let end = Instant::now() + ARRIVAL;
    loop {
        let error = match context.client.folder_get(name, path).await {
            Ok(folder) => return Ok(folder),
            Err(error) => error,
        };
        let newcomer =
            error.code == KEY_NOT_HERE || error.exit == Exit::NotFound && context.client.folders().await?.is_empty();
        if !newcomer || Instant::now() >= end {
            return Err(error);
        }
        tokio::time::sleep(LOOK).await;
    }
}

async fn ls(context: &mut Context) -> Result<(), CliError> {
    let folders = context.client.folders().await?;
    if context.screen.json {
        return folders.iter().try_for_each(|folder| context.screen.value(folder));
    }
    if folders.is_empty() {
        return context.screen.note("This mesh has no folder yet. `mesh folder add PATH` makes one.");
    }
    let rows: Vec<[String; 5]> = folders
        .into_iter()
        .map(|folder| {
            let place = folder.path.unwrap_or_else(|| "(not on this device)".to_owned());
            [folder.title, short(&folder.id).to_owned(), count(folder.files, "file"), bytes(folder.bytes), place]
        })
        .collect();
    columns(&rows).iter().try_for_each(|line| context.screen.line(line))
}

async fn status(context: &mut Context, name: Option<&str>) -> Result<(), CliError> {
    let folders = match name {
        Some(name) => vec![context.client.folder_status(name).await?],
        None => context.client.status().await?.folders,
    };
    if context.screen.json {
        return folders.iter().try_for_each(|folder| context.screen.value(folder));
    }
    show_states(context, &folders)
}

async fn missing(context: &mut Context, name: &str) -> Result<(), CliError> {
    let missing = context.client.missing(name).await?;
    if context.screen.json {
        return missing.iter().try_for_each(|missing| context.screen.value(missing));
    }
    if missing.is_empty() {
        return context.screen.line("Nothing is missing.");
    }
    let row = |missing: types::Missing| [missing.path, bytes(missing.size), format!("by {}", missing.name)];
    let rows: Vec<[String; 3]> = missing.into_iter().map(row).collect();
    columns(&rows).iter().try_for_each(|line| context.screen.line(line))
}

async fn let_go(context: &mut Context, which: FolderLetGo) -> Result<(), CliError> {
    let FolderLetGo { name, paths, yes } = which;
    if !yes && !context.screen.json {
        missing(context, &name).await?;
        context.screen.line("If a device that has some of it may come back, wait for it.")?;
        let what = if paths.is_empty() { "all of it" } else { "what you named" };
        confirm(context, &format!("Let go of {what}?"), "Answer y to let go of it.").await?;
    }
    let gone = context.client.let_go(&name, &types::LetGo { paths }).await?;
    if context.screen.json {
        return gone.iter().try_for_each(|gone| context.screen.value(gone));
    }
    context.screen.line(format!("{} let go of.", count(gone.len() as u64, "version")))
}

/// One line a folder, and what keeps it from being in order.
pub(super) fn show_states(context: &mut Context, folders: &[FolderStatus]) -> Result<(), CliError> {
    if folders.is_empty() {
        return context.screen.line("no folder is on this device");
    }
    let rows: Vec<[String; 5]> = folders
        .iter()
        .map(|folder| {
            let size = format!("{}, {}", count(folder.files, "file"), bytes(folder.bytes));
            [folder.title.clone(), folder.state.name().to_owned(), size, waiting(folder), folder.path.clone()]
        })
        .collect();
    for (line, folder) in columns(&rows).iter().zip(folders) {
        context.screen.line(line)?;
        if let FolderState::Stopped { reason } = &folder.state {
            context.screen.line(format!("    stopped: {reason}"))?;
        }
        if folder.conflicts > 0 {
            context
                .screen
                .line(format!("    {} kept, both versions beside each other", count(folder.conflicts, "conflict")))?;
        }
        if folder.missing_files > 0 {
            let (files, title) = (count(folder.missing_files, "file"), word(&folder.title));
            context.screen.line(format!("    nobody connected has {files}: mesh folder missing {title}"))?;
        }
        for problem in &folder.problems {
            context.screen.line(format!("    problem: {problem}"))?;
        }
    }
    Ok(())
}

fn waiting(folder: &FolderStatus) -> String {
    if folder.waiting_files == 0 && folder.waiting_bytes == 0 {
        return String::new();
    }
    let (files, size) = (count(folder.waiting_files, "file"), bytes(folder.waiting_bytes));
    format!("{files}, {size} to come at {}/s", bytes(folder.rate))
}

/// Follows a folder until nothing is left to do.
async fn wait(context: &mut Context, id: &str) -> Result<(), CliError> {
    let mut progress = Progress::new(&context.screen);
    let started = Instant::now();
    let status = loop {
        let status = context.client.folder_status(id).await?;
        if let FolderState::Stopped { reason } = &status.state {
            return Err(CliError::new(Exit::Failed, "folder_stopped", reason.clone(), ""));
        }
        let idle = status.state == FolderState::Idle && status.waiting_files == 0;
        if idle && (status.files > 0 || started.elapsed() > EMPTY) {
            break status;
        }
        progress.show(&status, &mut context.screen)?;
        tokio::time::sleep(LOOK).await;
    };
    drop(progress);
    if context.screen.json {
        return context.screen.value(&status);
    }
    let (files, size) = (count(status.files, "file"), bytes(status.bytes));
    context.screen.line(format!("{:?} is here: {files}, {size} in {}.", status.title, status.path))
}

/// A bar on a terminal, a line now and then elsewhere.
struct Progress {
    bar: Option<ProgressBar>,
    last_line: Instant,
}

impl Progress {
    fn new(screen: &Screen) -> Self {
        let bar = (screen.interactive && !screen.json).then(|| {
            let bar = ProgressBar::new(0);
            let colour = if screen.colour { ".cyan" } else { "" };
            let template = format!("{{bar:30{colour}}} {{msg}}");
            bar.set_style(ProgressStyle::with_template(&template).unwrap_or_else(|_| ProgressStyle::default_bar()));
            bar
        });
        Progress { bar, last_line: Instant::now() }
    }

    fn show(&mut self, status: &FolderStatus, screen: &mut Screen) -> Result<(), CliError> {
        let text = match waiting(status) {
            none if none.is_empty() => format!("{}: {}", status.state.name(), count(status.files, "file")),
            waiting => format!("{}: {waiting}", status.state.name()),
        };
        if let Some(bar) = &self.bar {
            bar.set_length(status.bytes.saturating_add(status.waiting_bytes));
            bar.set_position(status.bytes);
            bar.set_message(text);
            return Ok(());
        }
        if self.last_line.elapsed() < LINE {
            return Ok(());
        }
        self.last_line = Instant::now();
        screen.note(text)
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::word;

    #[test]
    fn a_name_can_be_pasted_into_a_shell() {
        assert_eq!(word("Notes"), "Notes");
        assert_eq!(word("My notes"), "'My notes'");
        assert_eq!(word("it's; rm"), r"'it'\''s; rm'");
        assert_eq!(word(""), "''");
    }
}
