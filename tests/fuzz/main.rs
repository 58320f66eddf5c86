//! The libFuzzer program: one of the fuzz targets, named by `MESHWORK_FUZZ`; without a name it lists them all with
//! the number of their executions in a long run. The target's honest inputs are first written to the folder that
//! `MESHWORK_FUZZ_SEEDS` names. `tests/run fuzz --long` builds and runs it.

#![no_main]

use std::{
    panic::{AssertUnwindSafe, catch_unwind, set_hook},
    sync::{Mutex, OnceLock, PoisonError},
};

use libfuzzer_sys::fuzz_target;
use meshwork_tests::fuzz::{TARGETS, Target, named};

static CHOSEN: OnceLock<Target> = OnceLock::new();
/// What the last panic said, and where.
static SAID: Mutex<String> = Mutex::new(String::new());

fn choose() {
    let Some(target) = std::env::var("MESHWORK_FUZZ").ok().and_then(|name| named(&name)) else {
        TARGETS.iter().for_each(|target| println!("{} {}", target.name, target.runs));
        std::process::exit(0);
    };
    // A panic inside automerge is caught and is an answer. libFuzzer's own hook would end the process there.
    set_hook(Box::new(|panic| *SAID.lock().unwrap_or_else(PoisonError::into_inner) = panic.to_string()));
    if let Ok(folder) = std::env::var("MESHWORK_FUZZ_SEEDS") {
        for (number, seed) in (target.seeds)().into_iter().enumerate() {
            std::fs::write(format!("{folder}/seed-{number}"), seed).expect("the folder of the corpus is there");
        }
    }
    let _ = CHOSEN.set(target);
}

fuzz_target!(init: choose(), |bytes: &[u8]| {
    let Some(target) = CHOSEN.get() else { return };
    if catch_unwind(AssertUnwindSafe(|| (target.run)(bytes))).is_err() {
        eprintln!("{}: {}", target.name, SAID.lock().unwrap_or_else(PoisonError::into_inner));
        std::process::abort();
    }
});
