//! Meshwork in networks as they are: real devices and relays behind real address translation.
//!
//! `--long` takes all pairs of networks; other arguments name what to run, such as `matrix`, a situation or a pair like
//! `Linux/Symmetric`.

use std::{
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    process::ExitCode,
    time::Instant,
};

use meshwork_tests::{device::figure, lab::Kind};

mod matrix;
mod meeting;
mod own;
mod secrecy;
mod situations;

/// What is not as it must be; nothing, where all is well.
type Outcome = io::Result<Vec<String>>;

fn main() -> ExitCode {
    if let Some(ended) = own::probe() {
        return ended.map_or(ExitCode::FAILURE, |()| ExitCode::SUCCESS);
    }
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let all = arguments.iter().any(|argument| argument == "--long");
    let names: Vec<&String> = arguments.iter().filter(|argument| !argument.starts_with('-')).collect();
    let wanted = |name: &str| names.is_empty() || names.iter().any(|asked| *asked == name);
    let (mut missed, mut ran) = (Vec::new(), 0);
    let mut run = |name: &str, what: &dyn Fn() -> Outcome| {
        println!("\n-- {name}");
        let begin = Instant::now();
        ran += 1;
        missed.extend(outcome(what).into_iter().map(|miss| format!("{name}: {miss}")));
        figure(&format!("lab_{name}_time"), begin.elapsed().as_secs(), "s");
    };
    if wanted("own") {
        run("own", &|| own::check(all));
    }
    let asked = |(one, other): &(Kind, Kind)| names.iter().any(|name| **name == format!("{one:?}/{other:?}"));
    let any = Kind::ALL.into_iter().flat_map(|one| Kind::ALL.map(|other| (one, other)));
    let cells: Vec<_> = if wanted("matrix") { pairs(all) } else { any.filter(asked).collect() };
    if !cells.is_empty() {
        run("matrix", &|| matrix::matrix(&cells));
    }
    for (name, is_slow, situation) in situations::ALL {
        if wanted(name) && (all || !is_slow || !names.is_empty()) {
            run(name, &situation);
        }
    }
    if ran == 0 {
        missed.push(format!("nothing is called {names:?}"));
    }
    missed.iter().for_each(|miss| eprintln!("MISS {miss}"));
    figure("lab_misses", missed.len(), "misses");
    if missed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// What is not as it must be; a device that does not answer as it must panics, and that is a miss, too.
fn outcome(what: impl FnOnce() -> Outcome) -> Vec<String> {
    match catch_unwind(AssertUnwindSafe(what)) {
        Ok(Ok(missed)) => missed,
        Ok(Err(error)) => vec![error.to_string()],
        Err(panic) => {
            let text = panic.downcast_ref::<String>().cloned();
            vec![text.or_else(|| Some((*panic.downcast_ref::<&str>()?).to_owned())).unwrap_or_default()]
        }
    }
}

/// The pairs of kinds. All: who joins by link is in the worse net. For continuous integration: each kind with the next
/// one, who is in the better net joins, and what is met most.
fn pairs(all: bool) -> Vec<(Kind, Kind)> {
    if all {
        let row = |(row, one)| Kind::ALL.into_iter().skip(row).map(move |other| (one, other));
        return Kind::ALL.into_iter().enumerate().flat_map(row).collect();
    }
    let ring = Kind::ALL.into_iter().cycle().skip(1).zip(Kind::ALL);
    let most = [
        (Kind::Linux, Kind::Linux),
        (Kind::Symmetric, Kind::AddrRestricted),
        (Kind::Cgnat, Kind::Cgnat),
        (Kind::UdpBlocked, Kind::Open),
    ];
    ring.chain(most).collect()
}
