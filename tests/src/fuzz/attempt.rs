//! Running a target, and what must not come of it.

use std::{
    any::Any,
    fmt, fs,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use super::Target;

/// The longest that one input may take.
pub const SLOWEST: Duration = Duration::from_secs(1);
/// The most memory that the process may have had, in bytes.
pub const LARGEST: usize = 512 << 20;

/// What must not happen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finding {
    /// A promise was broken, or a bound of the language.
    Panic(String),
    /// It took longer than [`SLOWEST`].
    Hang(Duration),
    /// The process grew above [`LARGEST`], in bytes.
    Memory(usize),
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Finding::Panic(text) => write!(f, "panic: {text}"),
            Finding::Hang(time) => write!(f, "took {time:?}"),
            Finding::Memory(bytes) => write!(f, "took {} MiB", bytes >> 20),
        }
    }
}

fn said(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied());
    text.unwrap_or("without a word").to_owned()
}

/// Runs a target on an input; tells whether it took it for valid. Memory is looked at by [`grown`].
pub fn attempt(target: &Target, input: &[u8]) -> Result<bool, Finding> {
    let begin = Instant::now();
    let valid = catch_unwind(AssertUnwindSafe(|| (target.run)(input)));
    let time = begin.elapsed();
    match valid {
        Err(panic) => Err(Finding::Panic(said(&*panic))),
        Ok(_) if time > SLOWEST => Err(Finding::Hang(time)),
        Ok(valid) => Ok(valid),
    }
}

/// Forgets the most memory that the process has had.
pub fn shrink() {
    // Refused where the kernel keeps no such count; then the count is of the whole run, which is stricter.
    let _ = fs::write("/proc/self/clear_refs", "5");
}

/// Whether the process has had too much memory since [`shrink`].
pub fn grown() -> Result<usize, Finding> {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib: usize = line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(usize::MAX >> 10);
    if kib << 10 > LARGEST { Err(Finding::Memory(kib << 10)) } else { Ok(kib << 10) }
}

/// The folder of the committed corpus of a target.
pub fn corpus_of(target: &Target) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target.name)
}

/// The committed inputs of a target, by name of the file.
pub fn corpus(target: &Target) -> Vec<(String, Vec<u8>)> {
    let files = fs::read_dir(corpus_of(target)).into_iter().flatten().flatten();
    let named = files.map(|file| (file.file_name().to_string_lossy().into_owned(), file.path()));
    let mut inputs: Vec<(String, Vec<u8>)> =
        named.filter_map(|(name, path)| Some((name, fs::read(path).ok()?))).collect();
    inputs.sort();
    inputs
}
