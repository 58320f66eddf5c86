//! `mesh demo`: two real nodes on this machine, paired, with one folder between them.

mod device;
mod seed;
mod tree;

use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

use tempfile::TempDir;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::mpsc,
};

use super::{
    Context,
    arguments::Demo,
    error::{CliError, Exit},
    screen::{bytes, count, time_of_day},
};
use crate::{
    api::types::{Event, FolderAdd, Join, PairEvent},
    resource::KEY_NOT_HERE,
};
use device::Device;
use tree::Tree;

/// Title of the folder that the demo shares.
const TITLE: &str = "Notes";
/// How long any single step may take on a busy machine.
const STEP_MAX: Duration = Duration::from_secs(180);
/// Between two looks at an edited file; the measured times are this coarse.
const LOOK: Duration = Duration::from_millis(1);
/// Between two looks at a whole folder.
const TREE_LOOK: Duration = Duration::from_millis(20);
/// Between two lines of progress.
const LINE: Duration = Duration::from_secs(1);

pub(super) async fn demo(context: &mut Context, demo: &Demo) -> Result<(), CliError> {
    // Before anything is made: from here on, every end goes through the clean-up below.
    let mut stop = StopSignals::new()?;
    let mut place = tempfile::Builder::new().prefix("meshwork-demo-").tempdir()?;
    place.disable_cleanup(demo.keep);
    let root = place.path().canonicalize()?;
    let mut devices = [Device::new(&root, "laptop"), Device::new(&root, "desktop")];
    let result = tokio::select! {
        result = show(context, &mut devices, demo.once) => result,
        () = stop.next() => if demo.once { Err(interrupted()) } else { Ok(()) },
    };
    context.screen.note("Stopping both nodes ...")?;
    let [laptop, desktop] = &mut devices;
    tokio::join!(laptop.stop(), desktop.stop());
    if let Err(error) = &result {
        devices.iter().filter_map(Device::last_words).try_for_each(|words| context.screen.note(words))?;
        tracing::debug!(%error, "the demo failed");
    }
    drop(devices);
    clean_up(context, place, demo.keep)?;
    result
}

fn clean_up(context: &mut Context, place: TempDir, keep: bool) -> Result<(), CliError> {
    if keep {
        return context.screen.note(format!("Everything is kept in {}.", place.path().display()));
    }
    let path = place.path().to_owned();
    place.close().map_err(|error| {
        CliError::new(
            Exit::Failed,
            "not_cleaned",
            format!("{} could not be removed: {error}.", path.display()),
            "Remove it by hand.",
        )
    })?;
    context.screen.note("The homes and folders of the demo are removed.")
}

fn interrupted() -> CliError {
    CliError::new(Exit::Failed, "interrupted", "The demo was interrupted before its round was complete.", "")
}

struct StopSignals([tokio::signal::unix::Signal; 3]);

impl StopSignals {
    fn new() -> Result<Self, CliError> {
        let [interrupt, terminate, hangup] = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()];
        Ok(StopSignals([signal(interrupt)?, signal(terminate)?, signal(hangup)?]))
    }

    async fn next(&mut self) {
        let [interrupt, terminate, hangup] = &mut self.0;
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
    }
}

/// The whole demo but for its end.
async fn show(context: &mut Context, devices: &mut [Device; 2], once: bool) -> Result<(), CliError> {
    let seeded = seed::fill(&devices[0].folder)?;
    let (files, size) = (count(seeded.files, "file"), bytes(seeded.bytes));
    context.screen.note(format!("Made {files}, {size}, in {}.", devices[0].folder.display()))?;
    for device in devices.iter_mut() {
        device.start(context.verbose).await?;
        context.screen.note(format!("Started {}, home {}.", device.name, device.home.root().display()))?;
    }
    let [laptop, desktop] = &*devices;
    pair(context, laptop, desktop).await?;
    first_sync(context, laptop, desktop).await?;
    if once {
        edit(context, laptop, desktop, "edit_a_to_b").await?;
        edit(context, desktop, laptop, "edit_b_to_a").await?;
        return context.screen.note("One round both ways: every byte equal on both devices.");
    }
    follow(context, laptop, desktop).await
}

async fn pair(context: &mut Context, laptop: &Device, desktop: &Device) -> Result<(), CliError> {
    let started = Instant::now();
    let offer = laptop.client.pair_open(true).await?;
    context.screen.note(format!("{} shows the code {}; {} enters it.", laptop.name, offer.code, desktop.name))?;
    // The link holds the addresses; nothing is looked for on the network.
    let join = Join { code: offer.link, at: None, bootstrap: None };
    tokio::try_join!(desktop.client.join(&join), admitted(laptop))?;
    figure(context, "pairing", started.elapsed().as_millis(), "ms")
}

async fn admitted(laptop: &Device) -> Result<(), CliError> {
    loop {
        match laptop.client.pair_wait().await?.event {
            Some(PairEvent::Paired { .. }) => return Ok(()),
            Some(PairEvent::Failed { reason }) => {
                return Err(CliError::new(Exit::Failed, "pairing_failed", reason, ""));
            }
            Some(PairEvent::Expired) => {
                return Err(CliError::new(Exit::Failed, "pairing_expired", "The code expired.", ""));
            }
            Some(PairEvent::Asked { .. }) | None => {}
        }
    }
}

async fn first_sync(context: &mut Context, laptop: &Device, desktop: &Device) -> Result<(), CliError> {
    let started = Instant::now();
    let path = device::text(&laptop.folder)?;
    laptop.client.folder_add(&FolderAdd { path, title: Some(TITLE.to_owned()) }).await?;
    let path = device::text(&desktop.folder)?;
    // The folder's name and its key reach the other device with the first records.
    within(STEP_MAX, "the folder is known on the other device", async {
        loop {
            match desktop.client.folder_get(TITLE, &path).await {
                Err(error) if error.exit == Exit::NotFound || error.code == KEY_NOT_HERE => {
                    tokio::time::sleep(TREE_LOOK).await
                }
                other => return other,
            }
        }
    })
    .await?;
    let tree = until_equal(context, &laptop.folder, &desktop.folder).await?;
    figure(context, "first_sync", started.elapsed().as_millis(), "ms")?;
    figure(context, "first_sync_files", tree.files().into(), "files")?;
    figure(context, "first_sync_bytes", tree.bytes().into(), "bytes")
}

/// Changes a file on one device, measures until the other has the same bytes, then compares everything.
async fn edit(context: &mut Context, from: &Device, to: &Device, name: &str) -> Result<(), CliError> {
    let before = fs::read_to_string(from.folder.join(seed::EDITED))?;
    let after = format!("{before}Added on the {} in the demo.\n", from.name);
    fs::write(from.folder.join(seed::EDITED), &after)?;
    let closed = Instant::now();
    let seen = to.folder.join(seed::EDITED);
    within(STEP_MAX, "the edit is seen on the other device", async {
        // Between two versions the name always leads to one of them, so an error is one.
        while fs::read(&seen)? != after.as_bytes() {
            tokio::time::sleep(LOOK).await;
        }
        Ok(())
    })
    .await?;
    let took = closed.elapsed();
    let tree = until_equal(context, &from.folder, &to.folder).await?;
    context.screen.note(format!(
        "Edited {} on {}: the same on {} after {} ms; all {} equal.",
        seed::EDITED,
        from.name,
        to.name,
        took.as_millis(),
        count(tree.files(), "file")
    ))?;
    figure(context, name, took.as_millis(), "ms")
}

/// Waits until both directories hold the same names and bytes, read from both disks.
async fn until_equal(context: &mut Context, here: &Path, there: &Path) -> Result<Tree, CliError> {
    let started = Instant::now();
    let mut last_line = started;
    let wanted = Tree::read(here)?;
    loop {
        // An error is a file that went while it was read: not equal yet.
        if tree::has_size_of(there, &wanted) && Tree::read(there).is_ok_and(|tree| tree.hash() == wanted.hash()) {
            return Ok(wanted);
        }
        if last_line.elapsed() > LINE {
            last_line = Instant::now();
            let (files, size) = tree::size(there);
            context.screen.note(format!("  {files} of {}, {}", count(wanted.files(), "file"), bytes(size)))?;
        }
        if started.elapsed() > STEP_MAX {
            let difference = wanted.difference(&Tree::read(there)?);
            let message = format!("The folders are not equal after {} seconds: {difference}.", STEP_MAX.as_secs());
            return Err(CliError::new(Exit::Failed, "not_equal", message, "Look at the logs with --keep."));
        }
        tokio::time::sleep(TREE_LOOK).await;
    }
}

async fn within<T>(
    limit: Duration,
    what: &str,
    step: impl Future<Output = Result<T, CliError>>,
) -> Result<T, CliError> {
    tokio::time::timeout(limit, step).await.unwrap_or_else(|_| {
        let message = format!("It took more than {} seconds until {what}.", limit.as_secs());
        Err(CliError::new(Exit::Failed, "timeout", message, "Look at the logs with --keep."))
    })
}

fn figure(context: &mut Context, name: &str, value: u128, unit: &str) -> Result<(), CliError> {
    if context.screen.json {
        return context
            .screen
            .value(&serde_json::json!({ "figure": format!("demo_{name}"), "value": value as u64, "unit": unit }));
    }
    context.screen.line(format!("FIGURE demo_{name} {value} {unit}"))
}

/// Tells where the folders are and shows what happens, until somebody ends it.
async fn follow(context: &mut Context, laptop: &Device, desktop: &Device) -> Result<(), CliError> {
    let screen = &mut context.screen;
    screen.note("")?;
    screen.note("Both folders are equal. Change anything in either, and see the other follow:")?;
    for device in [laptop, desktop] {
        screen.note(format!("  {:<8} {}", device.name, device.folder.display()))?;
    }
    screen.note("Ctrl-C ends the demo and removes everything.")?;
    screen.note("")?;
    let (send, mut receive) = mpsc::channel::<(&'static str, Event)>(64);
    for device in [laptop, desktop] {
        let mut events = device.client.events(None).await?;
        let (send, name) = (send.clone(), device.name);
        tokio::spawn(async move {
            while let Ok(Some(event)) = events.next().await {
                if send.send((name, event)).await.is_err() {
                    break;
                }
            }
        });
    }
    drop(send);
    while let Some((name, event)) = receive.recv().await {
        if screen.json {
            screen.value(&serde_json::json!({ "device": name, "event": event }))?;
        } else {
            screen.line(format!("{}  {name:<8}  {:<14}  {}", time_of_day(event.time), event.kind, event.text))?;
        }
    }
    Err(CliError::new(
        Exit::Failed,
        "nodes_gone",
        "Both nodes of the demo have stopped.",
        "Look at their logs with --keep.",
    ))
}
