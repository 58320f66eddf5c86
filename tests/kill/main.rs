//! Killed at any moment: the next start needs no hand, goes on, and ends equal.

use std::{
    fs,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use meshwork_tests::device::{Device, figure, leftovers, make_file, make_files, tree, wait_equal, wait_for};

fn points() -> usize {
    if std::env::var_os("MESHWORK_LONG").is_some() { 20 } else { 6 }
}

/// Kills one end after another while a folder arrives, at moments spread over the whole transfer.
fn kill_during(fill: impl Fn(&Path), whole: Duration, what: &str) {
    let (mut laptop, mut desktop) = (Device::start("laptop"), Device::start("desktop"));
    laptop.pair(&desktop);
    let from = laptop.dir("Stuff");
    fill(&from);
    laptop.add("Stuff");
    let to = desktop.get("Stuff");
    let points = points();
    for point in 0..points {
        let pause = whole * u32::try_from(point + 1).expect("few points") / u32::try_from(points).expect("few points");
        let moment = Instant::now() + pause / 4;
        wait_for("the moment to kill", || (Instant::now() >= moment).then_some(()));
        let victim = if point % 2 == 0 { &mut desktop } else { &mut laptop };
        victim.kill();
        victim.run();
    }
    wait_equal(&from, &to);
    wait_for("both to be idle", || (laptop.is_idle("Stuff") && desktop.is_idle("Stuff")).then_some(()));
    assert_eq!(leftovers(&to), Vec::<std::path::PathBuf>::new(), "no temporary file is left");
    let conflicts = tree(&to).keys().filter(|path| path.to_string_lossy().contains("(conflict ")).count();
    assert_eq!(conflicts, 0, "nobody edited anything");
    for device in [&laptop, &desktop] {
        assert!(!device.log().contains("panicked"), "{}", device.log());
    }
    figure(&format!("kill_{what}_points"), points, "kills");
}

#[test]
fn during_a_large_file() {
    kill_during(|root| make_file(&root.join("large"), 1 << 30, 3).expect("room"), Duration::from_secs(8), "large");
}

#[test]
fn during_many_files() {
    kill_during(|root| make_files(root, 10_000, 4_096, 4).expect("room"), Duration::from_secs(8), "many");
}

#[test]
fn a_replaced_file_is_never_absent() {
    let (laptop, mut desktop) = (Device::start("laptop"), Device::start("desktop"));
    laptop.pair(&desktop);
    let from = laptop.add("Notes");
    fs::write(from.join("plan"), "0").expect("written");
    let to = desktop.get("Notes");
    wait_for("the file to arrive", || to.join("plan").exists().then_some(()));
    let (stop, looks, absent) =
        (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let watcher = {
        let (stop, looks, absent, path) = (stop.clone(), looks.clone(), absent.clone(), to.join("plan"));
        thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                looks.fetch_add(1, Ordering::Relaxed);
                if fs::File::open(&path).is_err() {
                    absent.fetch_add(1, Ordering::Relaxed);
                }
            }
        })
    };
    for round in 1..=100 {
        let text = format!("version {round}");
        let draft = from.join(".plan.draft");
        fs::write(&draft, &text).expect("written");
        fs::rename(&draft, from.join("plan")).expect("renamed over");
        if round % 25 == 0 {
            desktop.kill();
            desktop.run();
        }
        wait_for("the version to arrive", || (fs::read_to_string(to.join("plan")).ok()? == text).then_some(()));
    }
    stop.store(true, Ordering::Relaxed);
    watcher.join().expect("it watched");
    figure("replaced_file_polls", looks.load(Ordering::Relaxed), "polls");
    figure("replaced_file_absent", absent.load(Ordering::Relaxed), "polls");
    assert!(looks.load(Ordering::Relaxed) > 1_000);
    assert_eq!(absent.load(Ordering::Relaxed), 0);
}
