//! Noticing changes in a folder at once, without ever waiting a fixed time.
//!
//! The operating system's events are only hints of where to look: they come together in a set of
//! directories, and whatever is doubtful (a full queue, an error, too many directories) becomes one
//! request to look everywhere. A file that is closed after writing is reported at once; one that is
//! held open and written to, now and then.

mod events;
mod pending;

use std::{
    path::Path as FsPath,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use notify::{Config, RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::sync::mpsc::{self, error::TrySendError};

pub use pending::Report;
use pending::Shared;

/// Reports, in number, that wait for the reader; then they grow together instead.
const REPORTS: usize = 16;
/// How often everything is looked at where the system cannot watch.
const POLL: Duration = Duration::from_secs(10);
/// How soon a report is offered again to a reader that is busy.
const OFFER_AGAIN: Duration = Duration::from_millis(5);

/// Watches one folder for as long as it lives.
#[derive(Debug)]
pub struct Watch {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
    polling: Arc<AtomicBool>,
}

impl Watch {
    /// Starts watching the folder at `root`, an absolute path without symbolic links.
    ///
    /// The first report asks for a look everywhere: what happened before nobody saw. Where the system
    /// cannot watch (its limit is reached, or it has no such service), reports ask for that every ten
    /// seconds, and the first of them says why.
    pub fn start(root: &FsPath) -> std::io::Result<(Watch, mpsc::Receiver<Report>)> {
        Self::start_with(root, true)
    }

    fn start_with(root: &FsPath, native: bool) -> std::io::Result<(Watch, mpsc::Receiver<Report>)> {
        let shared = Arc::new(Shared::default());
        shared.rescan();
        let polling = Arc::new(AtomicBool::new(false));
        let watcher =
            if native { watch(root, &shared) } else { Err("this system cannot watch directories".to_owned()) };
        let watcher = watcher.map_err(|reason| shared.fall_back(&reason)).ok();
        let (sender, receiver) = mpsc::channel(REPORTS);
        let thread = {
            let (shared, polling) = (Arc::clone(&shared), Arc::clone(&polling));
            std::thread::Builder::new()
                .name("watch".to_owned())
                .spawn(move || deliver(&shared, watcher, &sender, &polling))?
        };
        Ok((Watch { shared, thread: Some(thread), polling }, receiver))
    }

    /// Whether changes are found by looking every ten seconds only.
    pub fn is_polling(&self) -> bool {
        self.polling.load(Ordering::Relaxed)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.shared.stop();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn watch(root: &FsPath, shared: &Arc<Shared>) -> Result<RecommendedWatcher, String> {
    let handler = events::Handler::new(root.to_owned(), Arc::clone(shared));
    // Following links would lead out of the folder.
    let config = Config::default().with_follow_symlinks(false);
    let mut watcher = RecommendedWatcher::new(handler, config).map_err(|error| events::sentence(&error))?;
    watcher.watch(root, RecursiveMode::Recursive).map_err(|error| events::sentence(&error))?;
    Ok(watcher)
}

/// Takes what has come together and hands it to the reader, until one of them ends.
fn deliver(
    shared: &Shared,
    mut watcher: Option<RecommendedWatcher>,
    sender: &mpsc::Sender<Report>,
    polling: &AtomicBool,
) {
    let mut next_poll = Instant::now() + POLL;
    let mut offer_at = None;
    while let Some(mut report) = shared.wait(offer_at.take(), polling.load(Ordering::Relaxed).then_some(next_poll)) {
        if shared.has_fallen_back() {
            polling.store(true, Ordering::Relaxed);
        }
        if polling.load(Ordering::Relaxed) && Instant::now() >= next_poll {
            report.rescan = true;
            next_poll = Instant::now() + POLL;
        }
        // A directory that just came is listed by the reader. All that is made in it after that must
        // give an event, so the watch on it has to be in place first: the watcher's thread answers this
        // only after it has placed the watches for the events it gave.
        if !report.trees.is_empty()
            && let Some(watcher) = &mut watcher
            && watcher.configure(Config::default().with_follow_symlinks(false)).is_err()
        {
            report.rescan = true;
        }
        if report.is_empty() {
            continue;
        }
        match sender.try_send(report) {
            Ok(()) => {}
            Err(TrySendError::Full(report)) => {
                shared.put_back(report);
                offer_at = Some(Instant::now() + OFFER_AGAIN);
            }
            Err(TrySendError::Closed(_)) => break,
        }
    }
}

#[cfg(test)]
mod tests;
