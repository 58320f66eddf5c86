//! Replays the committed corpus of every fuzz target, and some mutations of it; see `docs/hacking.md`.

use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use meshwork_tests::fuzz::{
    PLANTED, TARGETS, Target,
    attempt::{Finding, attempt, corpus, corpus_of, grown, shrink},
    mutate::Mutator,
    named,
};

/// Mutated inputs of each target.
const MUTATIONS: usize = 2_000;
/// The longest that one target is given for them.
const PATIENCE: Duration = Duration::from_secs(5);

/// Time and memory are measured: one test at a time.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn inputs(target: &Target) -> Vec<Vec<u8>> {
    corpus(target).into_iter().map(|(_, input)| input).chain((target.seeds)()).collect()
}

/// What a short run over mutations finds first.
fn search(target: &Target) -> (usize, Result<(), (Finding, Vec<u8>)>) {
    let (inputs, mut mutator, begin) = (inputs(target), Mutator::new(1), Instant::now());
    shrink();
    for number in 0..MUTATIONS {
        if begin.elapsed() > PATIENCE {
            return (number, Ok(()));
        }
        let input = mutator.next(&inputs);
        let outcome = attempt(target, &input);
        // Taking memory takes time: what took too much of both took too much memory.
        if let Err(finding) = grown().and(outcome) {
            return (number, Err((finding, input)));
        }
    }
    (MUTATIONS, Ok(()))
}

#[test]
fn the_corpus_is_clean() {
    let _alone = alone();
    let (mut all, mut findings) = (0, Vec::new());
    for target in &TARGETS {
        shrink();
        let (mut count, mut valid) = (0, 0);
        let seeds = (target.seeds)().into_iter().map(|seed| ("a seed".to_owned(), seed));
        for (name, input) in corpus(target).into_iter().chain(seeds) {
            count += 1;
            match attempt(target, &input) {
                Ok(taken) => valid += usize::from(taken),
                Err(finding) => findings.push(format!("{}, {name}: {finding}", target.name)),
            }
        }
        match grown() {
            Ok(bytes) => println!("{:<14} {count:>5} inputs, {valid:>5} valid, {:>4} MiB", target.name, bytes >> 20),
            Err(finding) => findings.push(format!("{}: {finding}", target.name)),
        }
        if valid == 0 {
            findings.push(format!("{}: takes none of its inputs for valid", target.name));
        }
        all += count;
    }
    println!("FIGURE fuzz_corpus {all} inputs");
    assert!(findings.is_empty(), "{}", findings.join("\n"));
}

#[test]
fn some_mutations_are_clean() {
    let _alone = alone();
    let mut findings = Vec::new();
    let mut all = 0;
    for target in &TARGETS {
        let (runs, outcome) = search(target);
        all += runs;
        if let Err((finding, input)) = outcome {
            findings.push(format!("{}: {finding}\n  {input:02x?}", target.name));
        }
    }
    println!("FIGURE fuzz_mutations {all} runs");
    assert!(findings.is_empty(), "{}", findings.join("\n"));
}

#[test]
fn planted_bugs_are_found() {
    let _alone = alone();
    for target in &PLANTED {
        let (runs, outcome) = search(target);
        let (finding, _) = outcome.err().unwrap_or_else(|| panic!("{} was not found in {runs} runs", target.name));
        let right = match finding {
            Finding::Panic(_) => "planted_panic",
            Finding::Hang(_) => "planted_hang",
            Finding::Memory(_) => "planted_memory",
        };
        assert_eq!(right, target.name, "{finding}");
        println!("{}: found in run {}", target.name, runs + 1);
    }
}

/// A folder that no target reads would be replayed by nobody.
#[test]
fn every_folder_of_the_corpus_has_its_target() {
    let corpora = corpus_of(&TARGETS[0]);
    let folders = fs::read_dir(corpora.parent().expect("a folder of corpora")).expect("the corpora are there");
    let mut bytes = 0;
    for folder in folders.flatten() {
        let name = folder.file_name().to_string_lossy().into_owned();
        let target = named(&name).unwrap_or_else(|| panic!("{name} has no target"));
        let files = corpus(&target);
        assert!(files.len() <= 300, "{name} has {} files", files.len());
        bytes += files.iter().map(|(_, input)| input.len()).sum::<usize>();
    }
    assert!(bytes < 3 << 20, "a corpus of {bytes} bytes");
    assert!(TARGETS.iter().map(|target| target.runs).sum::<u64>() >= 10_000_000, "too few runs in all");
}

/// What is fuzzed is what is built: the two lock files agree.
#[test]
fn the_libfuzzer_program_is_built_from_the_same_versions() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let packages = |path: &str| -> BTreeMap<String, Vec<String>> {
        let text = fs::read_to_string(root.join(path)).expect("a lock file");
        let table: toml::Table = text.parse().expect("TOML");
        let mut found: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for package in table["package"].as_array().expect("packages") {
            let text = |field: &str| package.get(field).and_then(|value| value.as_str()).unwrap_or_default().to_owned();
            found.entry(text("name")).or_default().push(text("version"));
        }
        found
    };
    let (ours, theirs) = (packages("../Cargo.lock"), packages("fuzz/Cargo.lock"));
    assert!(theirs.contains_key("libfuzzer-sys") && !ours.contains_key("libfuzzer-sys"));
    for (name, versions) in &theirs {
        let other = ours.get(name).filter(|ours| !versions.iter().all(|version| ours.contains(version)));
        assert_eq!(other, None, "{name} is at {versions:?} in tests/fuzz/Cargo.lock");
    }
}
