//! Reading files for their content, between two looks that agree.

use std::{
    fs::File,
    io,
    sync::OnceLock,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use meshwork_replica::{
    feed::Name,
    folder::observed::{Fingerprint, Hashed, Path},
};
use rustix::{fs::fstatfs, io::Errno};

use super::{
    Convergence, cause,
    chunk::{self, Page},
    errno,
    root::FolderRoot,
    stat::Meta,
};

/// How far apart two changes of a file are for their times to differ, where the kernel stamps them by
/// its timer tick (at 100 Hz, the slowest in use).
const TICK: Duration = Duration::from_millis(10);
/// The same where the file system stores whole seconds.
const SECOND: Duration = Duration::from_secs(1);

/// A file to be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Job {
    /// Where.
    pub path: Path,
    /// The average of the chunks of its last version, as a power of two.
    pub average_log2: Option<u8>,
}

/// Reads the files one after the other; `each` gets the number of the job, its outcome, and the
/// manifest pages to be stored. It may stop the work by giving `false`.
pub fn hash_files(
    root: &FolderRoot,
    jobs: &[Job],
    convergence: &Convergence<'_>,
    mut each: impl FnMut(usize, Hashed, Vec<Page>) -> bool,
) {
    for (number, job) in jobs.iter().enumerate() {
        let (hashed, pages) = hash_file(root, &job.path, job.average_log2, convergence);
        if !each(number, hashed, pages) {
            break;
        }
    }
}

/// Reads one file. Its content is given only where the file was the same before and after.
pub fn hash_file(
    root: &FolderRoot,
    path: &[Name],
    average_log2: Option<u8>,
    convergence: &Convergence<'_>,
) -> (Hashed, Vec<Page>) {
    match read(root, path, average_log2, convergence) {
        Ok(read) => read,
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::ISDIR | Errno::NXIO) => (Hashed::Missing, Vec::new()),
        Err(error) => (Hashed::Unreadable(format!("the file cannot be read: {}", cause(error))), Vec::new()),
    }
}

fn read(
    root: &FolderRoot,
    path: &[Name],
    average_log2: Option<u8>,
    convergence: &Convergence<'_>,
) -> Result<(Hashed, Vec<Page>), Errno> {
    let mut file = root.open_file(path)?;
    let before = Meta::of(&file)?.fingerprint;
    let average_log2 = chunk::average_log2(before.size, average_log2);
    // The file may grow without end while it is read: one byte more than expected is enough to know.
    let mut bounded = io::Read::take(&mut file, before.size.saturating_add(1));
    let content = chunk::cut_reader(&mut bounded, average_log2, before.size, convergence).map_err(|e| errno(&e))?;
    settle(&file, &before);
    // By name too: the name may have got another file meanwhile.
    let after = Meta::of(&file)?.fingerprint;
    let named = Meta::of(root.open_file(path)?)?.fingerprint;
    if before != after || before != named || content.size != before.size {
        return Ok((Hashed::Unstable, Vec::new()));
    }
    let (manifest, pages) = chunk::manifest(average_log2, content.chunks, convergence);
    Ok((Hashed::Content { fingerprint: after, content: content.id, manifest }, pages))
}

/// Waits until a change of the file would show in its times: a write in the same clock tick as the
/// last one would leave no trace in the fingerprint.
fn settle(file: &File, seen: &Fingerprint) {
    let window = if seen.changed_ns % 1_000_000_000 == 0 {
        SECOND
    } else if stamps_finely(file) {
        return;
    } else {
        TICK
    };
    let changed = Duration::from_nanos(u64::try_from(seen.changed_ns).unwrap_or(0));
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    // A change time in the future says nothing about when to look again; one window is then enough.
    let left = (changed + window).saturating_sub(now).min(window);
    if !left.is_zero() {
        std::thread::sleep(left);
    }
}

/// Whether the kernel gives a changed file a time of its own once its old one was looked at: Linux
/// 6.13 on ext4, XFS, Btrfs and tmpfs.
fn stamps_finely(file: &File) -> bool {
    const FINE: [u64; 4] = [0xef53, 0x5846_5342, 0x9123_683e, 0x0102_1994];
    static KERNEL: OnceLock<bool> = OnceLock::new();
    let kernel = *KERNEL.get_or_init(|| {
        let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map_while(|part| part.parse::<u32>().ok());
        (numbers.next(), numbers.next()) >= (Some(6), Some(13))
    });
    kernel && fstatfs(file).is_ok_and(|stat| FINE.contains(&(stat.f_type as u64)))
}

#[cfg(test)]
mod tests;
