//! The rules of the house, checked on its source.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use meshwork_tests::tidy::{Source, functions, sources};

/// Lines of a function that no function exceeds.
const FUNCTION_MAX: usize = 70;
/// Lines that 95 of 100 functions do not exceed.
const FUNCTION_P95: usize = 50;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ is a folder of the workspace").to_path_buf()
}

fn assert_none(rule: &str, found: Vec<String>) {
    assert!(found.is_empty(), "{rule}:\n  {}", found.join("\n  "));
}

fn dependencies(manifest: &str) -> Vec<String> {
    let text = fs::read_to_string(root().join(manifest)).expect("the crate has a manifest");
    let table: toml::Table = text.parse().expect("the manifest is TOML");
    let section = table.get("dependencies").and_then(|section| section.as_table());
    section.map(|section| section.keys().cloned().collect()).unwrap_or_default()
}

#[test]
fn edges_run_downward_only() {
    let never: BTreeMap<&str, &[&str]> = BTreeMap::from([
        ("protocol/Cargo.toml", ["tokio", "libp2p", "sled", "clap", "automerge", "meshwork"].as_slice()),
        ("protocol/replica/Cargo.toml", &["tokio", "libp2p", "sled", "clap", "meshwork", "meshwork-host"]),
        ("node/host/Cargo.toml", &["automerge", "sled", "meshwork", "meshwork-replica"]),
        ("node/Cargo.toml", &["libp2p", "automerge", "meshwork-relay", "meshwork-bootstrap"]),
        ("relay/Cargo.toml", &["meshwork", "meshwork-replica", "automerge", "sled", "meshwork-bootstrap"]),
        ("bootstrap/Cargo.toml", &["meshwork", "meshwork-replica", "automerge", "sled", "meshwork-relay"]),
    ]);
    let mut found = Vec::new();
    for (manifest, banned) in never {
        let used = dependencies(manifest);
        assert!(!used.is_empty(), "{manifest} lists its dependencies");
        found.extend(
            used.iter().filter(|used| banned.contains(&used.as_str())).map(|used| format!("{manifest}: {used}")),
        );
    }
    assert_none("dependency edges that point upward", found);
}

#[test]
fn the_pure_floors_stay_pure() {
    let banned = [
        "std::fs",
        "std::net",
        "std::env",
        "Instant::now",
        "SystemTime",
        "thread_rng",
        "OsRng",
        "rand::rng(",
        "async fn",
        "tokio::",
        "HashMap",
        "HashSet",
        "std::thread",
        "println!",
        "eprintln!",
    ];
    let all = sources(&root());
    let pure: Vec<&Source> =
        all.iter().filter(|source| source.path.starts_with("protocol") && !source.is_test()).collect();
    assert!(pure.len() > 20, "the pure floors were found");
    let found = pure.iter().flat_map(|source| source.lines_with(&banned)).collect();
    assert_none("in protocol/ time, randomness and I/O are arguments", found);
}

#[test]
fn no_banned_calls() {
    let banned = [
        "unbounded_channel",
        "mpsc::unbounded",
        "todo!(",
        "unimplemented!(",
        "dbg!(",
        "mod.rs",
        "#[ignore]",
        "should_panic",
    ];
    let all = sources(&root());
    let found =
        all.iter().filter(|source| !source.path.ends_with("tidy.rs")).flat_map(|source| source.lines_with(&banned));
    assert_none("calls and marks that the house does not use", found.collect());
}

#[test]
fn peers_and_users_cannot_make_us_panic() {
    let all = sources(&root());
    let banned = [".unwrap()", "panic!("];
    let product = all.iter().filter(|source| !source.path.starts_with("tests") && !source.is_test());
    assert_none("no unwrap or panic outside tests", product.flat_map(|source| source.lines_with(&banned)).collect());
}

#[test]
fn no_sleep_as_synchronisation() {
    let all = sources(&root());
    let found = all
        .iter()
        .filter(|source| !source.path.ends_with("tidy.rs"))
        .flat_map(|source| source.lines_with(&["thread::sleep(Duration::from_secs"]));
    assert_none("tests wait for what they need, not for a time", found.collect());
}

#[test]
fn files_are_short() {
    let long = sources(&root()).into_iter().filter_map(|source| {
        let max = if source.path.starts_with("protocol") { 600 } else { 800 };
        let lines = source.text.lines().count();
        (lines > max).then(|| format!("{}: {lines} lines, at most {max}", source.path.display()))
    });
    assert_none("long files", long.collect());
}

#[test]
fn functions_are_short() {
    let mut lengths: Vec<usize> = Vec::new();
    let mut long = Vec::new();
    for source in sources(&root()) {
        for function in functions(&source.text) {
            if function.lines > FUNCTION_MAX {
                let at = source.path.display();
                long.push(format!("{at}:{}: {} has {} lines", function.line, function.name, function.lines));
            }
            lengths.push(function.lines);
        }
    }
    assert_none("long functions", long);
    lengths.sort_unstable();
    let p95 = lengths[lengths.len() * 95 / 100];
    println!("{} functions, median {}, p95 {p95}", lengths.len(), lengths[lengths.len() / 2]);
    assert!(p95 <= FUNCTION_P95, "95 of 100 functions have at most {FUNCTION_P95} lines, not {p95}");
}

#[test]
fn files_are_named_after_their_modules() {
    let files = sources(&root());
    let nested =
        files.iter().filter(|source| source.path.ends_with("mod.rs")).map(|source| source.path.display().to_string());
    assert_none("self-named modules, no mod.rs", nested.collect());
    let vague = ["helper", "util", "common", "manager", "misc"];
    let named = files.iter().filter(|source| {
        let stem = source.path.file_stem().unwrap_or_default().to_string_lossy();
        vague.iter().any(|word| stem.contains(word))
    });
    assert_none("names that say nothing", named.map(|source| source.path.display().to_string()).collect());
}

#[test]
fn the_rules_find_what_they_look_for() {
    let text = "fn long() {\n".to_owned() + &"    let x = 1;\n".repeat(80) + "}\n";
    assert_eq!(functions(&text).first().map(|function| function.lines), Some(82));
    let source = Source { path: "protocol/x.rs".into(), text: "use std::fs;\n// std::fs\n".to_owned() };
    assert_eq!(source.lines_with(&["std::fs"]).len(), 1, "code counts, comments do not");
}
