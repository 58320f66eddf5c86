//! Runs the simulation over many seeds; see `docs/hacking.md`.
//!
//! `--seed N` one seed, with its last events if it fails; `--from N --count N` some seeds; `--long` for
//! sixty minutes; `--honest`, `--malicious` and `--checkpointing` only such runs; `--planted NAME` with a planted bug
//! (`all`: each until it is caught).

use std::{
    collections::BTreeMap,
    process::ExitCode,
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use meshwork_tests::sim::{
    fate::Counts,
    planted::Planted,
    world::{Cast, Outcome, STEPS, run},
};

const SEEDS: u64 = 1_000;
const LONG: Duration = Duration::from_secs(3_600);
const REPEATED: u64 = 10;
const LINES: usize = 60;

/// What must have happened at least once in a whole run.
const MUST_HAPPEN: [&str; 40] = [
    "conflict placed",
    "directory put back",
    "fault: crash",
    "fault: crash while placing",
    "fault: crash while storing",
    "fault: fetch cut",
    "fault: file unstable",
    "fault: frame delayed",
    "fault: frame lost",
    "fault: frame repeated out of order",
    "fault: heal",
    "fault: home put back",
    "fault: look everywhere",
    "fault: partition",
    "fault: rows lost",
    "fault: stream cut",
    "fault: watch delayed",
    "fault: watch overflowed",
    "fetch: done",
    "fetch: gone",
    "place: attributes",
    "place: copy",
    "place: exchange",
    "place: file",
    "place: link",
    "place: make directory",
    "place: move",
    "place: not as expected",
    "place: remove",
    "place: remove directory",
    "user: delete",
    "user: delete directory",
    "user: link",
    "user: make directory",
    "user: move over",
    "user: rename",
    "user: swap",
    "user: while the node is down",
    "user: write equal content",
    "user: write over",
];

/// What must have happened besides when all devices keep to the rules.
const HONEST_MUST_HAPPEN: [&str; 14] = [
    "admin: cut off once, and writes on",
    "admin: device demoted",
    "admin: device let in again",
    "admin: device promoted",
    "admin: device removed",
    "admin: device removed and voided",
    "admin: folder shared with a person",
    "admin: person taken out",
    "admin: record in quarantine",
    "admin: taken over",
    "admin: what was cut off is shown, as others built on it",
    "guest: folder accepted",
    "guest: left",
    "guest: record written",
];

/// What must have happened besides when devices write checkpoints.
const CHECKPOINTS_MUST_HAPPEN: [&str; 4] =
    ["checkpoint: chain let go of", "checkpoint: nothing to list", "checkpoint: refused", "checkpoint: written"];

/// What must have happened besides when one device is malicious.
const MALICE_MUST_HAPPEN: [&str; 36] = [
    "fault: word of a removal late",
    "malice: back-dated delete",
    "malice: back-dated record",
    "malice: branch in quarantine",
    "malice: branch stands",
    "malice: broken off",
    "malice: claims of what there is not",
    "malice: content that nobody has",
    "malice: content withheld",
    "malice: endorsed operation shown",
    "malice: flood of records",
    "malice: flood of statements",
    "malice: forged body",
    "malice: forged signature",
    "malice: frame of others repeated",
    "malice: grant after its removal",
    "malice: junior revokes a senior",
    "malice: junk frame",
    "malice: made an admin",
    "malice: old control heads",
    "malice: oversized frame",
    "malice: questions for what there is not",
    "malice: record in quarantine",
    "malice: record of a puppet",
    "malice: record of another incarnation",
    "malice: records withheld",
    "malice: refused",
    "malice: statement with a twin",
    "malice: twin record",
    "malice: twin statement",
    "malice: unknown object",
    "malice: void body",
    "malice: writes after its removal",
    "malice: wrong content refused",
    "malice: wrong height",
    "malice: wrong predecessor",
];

#[derive(Default)]
struct Options {
    seed: Option<u64>,
    from: u64,
    count: Option<u64>,
    long: bool,
    planted: Option<String>,
    cast: Option<Cast>,
}

impl Options {
    /// The casts asked for: both, if none was named.
    fn casts(&self) -> Vec<Cast> {
        self.cast.map_or(Cast::ALL.to_vec(), |cast| vec![cast])
    }
}

fn options() -> Result<Options, String> {
    let mut options = Options::default();
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let mut number = || words.next().and_then(|text| text.parse().ok()).ok_or(format!("{word} needs a number"));
        match word.as_str() {
            "--seed" => options.seed = Some(number()?),
            "--from" => options.from = number()?,
            "--count" => options.count = Some(number()?),
            "--long" => options.long = true,
            "--planted" => options.planted = words.next(),
            "--honest" => options.cast = Some(Cast::Honest),
            "--malicious" => options.cast = Some(Cast::Malicious),
            "--checkpointing" => options.cast = Some(Cast::Checkpointing),
            other => return Err(format!("unknown option {other}")),
        }
    }
    Ok(options)
}

/// Runs a seed; a panic is a failure of it.
fn attempt(seed: u64, cast: Cast, planted: Option<Planted>, keep: bool) -> Outcome {
    std::panic::catch_unwind(|| run(seed, cast, planted, keep)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied());
        Outcome {
            seed,
            failure: Some(format!("panic: {}", text.unwrap_or("without a word"))),
            steps: 0,
            counts: Counts::default(),
            hash: [0; 32],
            lines: Vec::new(),
        }
    })
}

#[derive(Default)]
struct Total {
    seeds: u64,
    steps: u64,
    short: u64,
    counts: Counts,
    failures: Vec<(u64, String)>,
    hashes: BTreeMap<u64, [u8; 32]>,
}

/// Runs seeds on all cores.
fn many(cast: Cast, from: u64, count: u64, until: Option<Instant>, enough: usize) -> Total {
    let (next, stop, total) = (AtomicU64::new(from), AtomicBool::new(false), Mutex::new(Total::default()));
    let cores = thread::available_parallelism().map_or(2, usize::from);
    thread::scope(|scope| {
        for _ in 0..cores {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) && until.is_none_or(|end| Instant::now() < end) {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= from.saturating_add(count) {
                        break;
                    }
                    let outcome = attempt(seed, cast, None, false);
                    let Ok(mut total) = total.lock() else { break };
                    total.seeds += 1;
                    total.steps += outcome.steps;
                    total.short += u64::from(outcome.steps < STEPS);
                    total.counts.merge(&outcome.counts);
                    if seed < from + REPEATED {
                        total.hashes.insert(seed, outcome.hash);
                    }
                    if let Some(reason) = outcome.failure {
                        println!("seed {seed}: {reason}");
                        total.failures.push((seed, reason));
                        stop.store(total.failures.len() >= enough, Ordering::Relaxed);
                    }
                }
            });
        }
    });
    total.into_inner().unwrap_or_default()
}

fn repeat_command(seed: u64, cast: Cast, planted: Option<Planted>) -> String {
    let planted = planted.map(|planted| format!(" --planted {}", planted.name())).unwrap_or_default();
    format!("cargo test --release -p meshwork-tests --test sim -- --{} --seed {seed}{planted}", cast.name())
}

fn show(seed: u64, cast: Cast, planted: Option<Planted>, lines: usize) -> bool {
    let outcome = attempt(seed, cast, planted, true);
    let Some(reason) = &outcome.failure else {
        println!("{} seed {seed}: {} steps, passed", cast.name(), outcome.steps);
        return true;
    };
    for line in outcome.lines.iter().skip(outcome.lines.len().saturating_sub(lines)) {
        println!("{line}");
    }
    println!(
        "{} seed {seed} failed after {} steps: {reason}\nrepeat it with\n  {}",
        cast.name(),
        outcome.steps,
        repeat_command(seed, cast, planted)
    );
    false
}

/// Looks for a seed that catches a planted bug.
fn caught(cast: Cast, planted: Planted, from: u64) -> bool {
    let (next, found) = (AtomicU64::new(from), Mutex::new(None::<(u64, String)>));
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(2, usize::from) {
            scope.spawn(|| {
                while found.lock().is_ok_and(|found| found.is_none()) {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= from + SEEDS {
                        break;
                    }
                    if let (Some(reason), Ok(mut found)) =
                        (attempt(seed, cast, Some(planted), false).failure, found.lock())
                    {
                        found.get_or_insert((seed, reason));
                    }
                }
            });
        }
    });
    match found.into_inner().ok().flatten() {
        Some((seed, reason)) => {
            let reason = reason.lines().next().unwrap_or_default();
            println!("planted {}: caught by {} seed {seed}: {reason}", planted.name(), cast.name());
            true
        }
        None => {
            println!("planted {}: NOT caught within {SEEDS} seeds", planted.name());
            false
        }
    }
}

#[derive(Default)]
struct Verdict {
    passed: u64,
    failed: u64,
}

impl Verdict {
    fn add(&mut self, name: &str, good: bool) {
        println!("{} {name}", if good { "ok  " } else { "FAIL" });
        if good { self.passed += 1 } else { self.failed += 1 }
    }
}

fn main() -> ExitCode {
    let options = match options() {
        Ok(options) => options,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::from(2);
        }
    };
    let mut verdict = Verdict::default();
    let planted: Vec<Planted> = match options.planted.as_deref() {
        Some("all") => Planted::ALL.to_vec(),
        None => Planted::ALL.into_iter().filter(|bug| options.cast.is_none_or(|cast| cast == bug.cast())).collect(),
        Some(name) => Planted::ALL.into_iter().filter(|planted| planted.name() == name).collect(),
    };
    if let Some(seed) = options.seed {
        let planted = options.planted.is_some().then(|| planted.first().copied()).flatten();
        let lines = options.count.map_or(LINES, |lines| lines as usize);
        for cast in options.casts() {
            verdict.add(cast.name(), show(seed, cast, planted, lines));
        }
    } else {
        if options.planted.is_none() {
            for cast in options.casts() {
                whole(cast, &options, &mut verdict);
            }
        }
        if options.planted.is_some() || options.count.is_none() {
            for planted in planted {
                let cast = options.cast.unwrap_or(planted.cast());
                verdict.add(&format!("planted {} is caught", planted.name()), caught(cast, planted, options.from));
            }
        }
    }
    println!("{} passed, {} failed", verdict.passed, verdict.failed);
    if verdict.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn whole(cast: Cast, options: &Options, verdict: &mut Verdict) {
    let begin = Instant::now();
    let until = options.long.then(|| begin + LONG / options.casts().len() as u32);
    let count = if options.long { u64::MAX / 2 } else { options.count.unwrap_or(SEEDS) };
    let total = many(cast, options.from, count, until, 5);
    let seconds = begin.elapsed().as_secs_f64();
    for (what, count) in &total.counts.0 {
        println!("{count:>10}  {what}");
    }
    let name = cast.name();
    println!("FIGURE sim_{name}_seeds {} seeds", total.seeds);
    println!("FIGURE sim_{name}_steps {} steps", total.steps);
    println!("FIGURE sim_{name}_rate {:.1} seeds/s", total.seeds as f64 / seconds);
    if let Some((seed, _)) = total.failures.iter().min_by_key(|(seed, _)| *seed) {
        show(*seed, cast, None, LINES);
    }
    verdict.add(&format!("no {name} seed fails"), total.failures.is_empty());
    verdict.add(&format!("every {name} seed has at least 300 steps"), total.short == 0);
    if options.count.is_none() {
        let more: &[&str] = if cast == Cast::Malicious { &MALICE_MUST_HAPPEN } else { &HONEST_MUST_HAPPEN };
        let checkpoints: &[&str] = if cast == Cast::Honest { &[] } else { &CHECKPOINTS_MUST_HAPPEN };
        let all = MUST_HAPPEN.iter().chain(more).chain(checkpoints);
        let never: Vec<_> = all.filter(|what| !total.counts.0.contains_key(*what)).collect();
        never.iter().for_each(|what| println!("never happened: {what}"));
        verdict.add(&format!("with {name} devices every operation and fault fired"), never.is_empty());
    }
    let same = total.hashes.iter().all(|(seed, hash)| attempt(*seed, cast, None, false).hash == *hash);
    verdict.add(&format!("same {name} seed, same trace"), same);
}
