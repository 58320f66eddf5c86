//! Runs the simulation over many seeds; see `docs/hacking.md`.
//!
//! `--seed N` one seed, with its last events if it fails; `--from N --count N` some seeds; `--long` for
//! sixty minutes; `--planted NAME` with a planted bug (`all`: each until it is caught).

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
    world::{Outcome, STEPS, run},
};

const SEEDS: u64 = 1_000;
const LONG: Duration = Duration::from_secs(3_600);
const REPEATED: u64 = 10;
const LINES: usize = 60;

/// What must have happened at least once in a whole run.
const MUST_HAPPEN: [&str; 39] = [
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

#[derive(Default)]
struct Options {
    seed: Option<u64>,
    from: u64,
    count: Option<u64>,
    long: bool,
    planted: Option<String>,
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
            other => return Err(format!("unknown option {other}")),
        }
    }
    Ok(options)
}

/// Runs a seed; a panic is a failure of it.
fn attempt(seed: u64, planted: Option<Planted>, keep: bool) -> Outcome {
    std::panic::catch_unwind(|| run(seed, planted, keep)).unwrap_or_else(|panic| {
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
fn many(from: u64, count: u64, until: Option<Instant>, enough: usize) -> Total {
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
                    let outcome = attempt(seed, None, false);
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

fn repeat_command(seed: u64, planted: Option<Planted>) -> String {
    let planted = planted.map(|planted| format!(" --planted {}", planted.name())).unwrap_or_default();
    format!("cargo test --release -p meshwork-tests --test sim -- --seed {seed}{planted}")
}

fn show(seed: u64, planted: Option<Planted>, lines: usize) -> bool {
    let outcome = attempt(seed, planted, true);
    let Some(reason) = &outcome.failure else {
        println!("seed {seed}: {} steps, passed", outcome.steps);
        return true;
    };
    for line in outcome.lines.iter().skip(outcome.lines.len().saturating_sub(lines)) {
        println!("{line}");
    }
    println!(
        "seed {seed} failed after {} steps: {reason}\nrepeat it with\n  {}",
        outcome.steps,
        repeat_command(seed, planted)
    );
    false
}

/// Looks for a seed that catches a planted bug.
fn caught(planted: Planted, from: u64) -> bool {
    let (next, found) = (AtomicU64::new(from), Mutex::new(None::<(u64, String)>));
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(2, usize::from) {
            scope.spawn(|| {
                while found.lock().is_ok_and(|found| found.is_none()) {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= from + SEEDS {
                        break;
                    }
                    if let (Some(reason), Ok(mut found)) = (attempt(seed, Some(planted), false).failure, found.lock()) {
                        found.get_or_insert((seed, reason));
                    }
                }
            });
        }
    });
    match found.into_inner().ok().flatten() {
        Some((seed, reason)) => {
            let reason = reason.lines().next().unwrap_or_default();
            println!("planted {}: caught by seed {seed}: {reason}", planted.name());
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
        Some("all") | None => Planted::ALL.to_vec(),
        Some(name) => Planted::ALL.into_iter().filter(|planted| planted.name() == name).collect(),
    };
    if let Some(seed) = options.seed {
        let planted = options.planted.is_some().then(|| planted.first().copied()).flatten();
        verdict.add("seed", show(seed, planted, options.count.map_or(LINES, |lines| lines as usize)));
    } else {
        if options.planted.is_none() {
            whole(&options, &mut verdict);
        }
        if options.planted.is_some() || options.count.is_none() {
            for planted in planted {
                verdict.add(&format!("planted {} is caught", planted.name()), caught(planted, options.from));
            }
        }
    }
    println!("{} passed, {} failed", verdict.passed, verdict.failed);
    if verdict.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn whole(options: &Options, verdict: &mut Verdict) {
    let begin = Instant::now();
    let until = options.long.then(|| begin + LONG);
    let count = if options.long { u64::MAX / 2 } else { options.count.unwrap_or(SEEDS) };
    let total = many(options.from, count, until, 5);
    let seconds = begin.elapsed().as_secs_f64();
    for (what, count) in &total.counts.0 {
        println!("{count:>10}  {what}");
    }
    println!("FIGURE sim_seeds {} seeds", total.seeds);
    println!("FIGURE sim_steps {} steps", total.steps);
    println!("FIGURE sim_rate {:.1} seeds/s", total.seeds as f64 / seconds);
    if let Some((seed, _)) = total.failures.iter().min_by_key(|(seed, _)| *seed) {
        show(*seed, None, LINES);
    }
    verdict.add("no seed fails", total.failures.is_empty());
    verdict.add("every seed has at least 300 steps", total.short == 0);
    if options.count.is_none() {
        let never: Vec<_> = MUST_HAPPEN.iter().filter(|what| !total.counts.0.contains_key(*what)).collect();
        never.iter().for_each(|what| println!("never happened: {what}"));
        verdict.add("every operation and fault fired", never.is_empty());
    }
    let same = total.hashes.iter().all(|(seed, hash)| attempt(*seed, None, false).hash == *hash);
    verdict.add("same seed, same trace", same);
}
