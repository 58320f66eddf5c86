//! A folder on two devices.

use std::{fs, time::Instant};

use meshwork_tests::device::{Device, figure, leftovers, make_file, make_files, tree, wait_equal, wait_for};

fn pair() -> (Device, Device) {
    let (laptop, desktop) = (Device::start("laptop"), Device::start("desktop"));
    laptop.pair(&desktop);
    (laptop, desktop)
}

#[test]
fn ten_thousand_files_and_a_gibibyte_arrive() {
    let (laptop, desktop) = pair();
    let from = laptop.dir("Stuff");
    make_files(&from, 10_000, 4_096, 1).expect("room for files");
    make_file(&from.join("large"), 1 << 30, 2).expect("room for a gibibyte");
    let begin = Instant::now();
    laptop.add("Stuff");
    let to = desktop.get("Stuff");
    wait_equal(&from, &to);
    figure("e2e_first_sync", begin.elapsed().as_millis(), "ms");
    assert_eq!(tree(&to).values().flatten().count(), 10_001);
    wait_for("both to be idle", || (laptop.is_idle("Stuff") && desktop.is_idle("Stuff")).then_some(()));
    assert_eq!(leftovers(&to), Vec::<std::path::PathBuf>::new());

    fs::write(from.join("new.txt"), "from the laptop").expect("written");
    wait_equal(&from, &to);
    fs::write(to.join("d0001/f000100"), "from the desktop").expect("written");
    fs::rename(to.join("d0002"), to.join("renamed")).expect("renamed");
    fs::remove_dir_all(to.join("d0003")).expect("removed");
    wait_for("the edits to come back", || {
        (!from.join("d0003").exists() && from.join("renamed").is_dir()).then_some(())
    });
    wait_equal(&from, &to);
    assert_eq!(fs::read_to_string(from.join("d0001/f000100")).expect("there"), "from the desktop");
}

#[test]
fn offline_edits_of_both_are_kept() {
    let (mut laptop, mut desktop) = pair();
    let from = laptop.add("Notes");
    for name in ["same.txt", "mine.txt", "yours.txt", "gone.txt"] {
        fs::write(from.join(name), format!("first {name}")).expect("written");
    }
    let to = desktop.get("Notes");
    wait_for("all four to arrive", || (tree(&to).len() == 4).then_some(()));
    wait_equal(&from, &to);

    desktop.stop();
    fs::write(from.join("same.txt"), "as the laptop has it").expect("written");
    fs::write(from.join("mine.txt"), "edited on the laptop").expect("written");
    wait_for("the laptop to record it", || laptop.is_idle("Notes").then_some(()));
    laptop.stop();
    fs::write(to.join("same.txt"), "as the desktop has it").expect("written");
    fs::write(to.join("yours.txt"), "edited on the desktop").expect("written");
    fs::remove_file(to.join("gone.txt")).expect("removed");
    desktop.run();
    laptop.run();

    wait_for("the conflict to be named on both", || {
        let both = [&from, &to]
            .map(|root| tree(root).keys().filter(|path| path.to_string_lossy().contains("(conflict ")).count());
        (both == [1, 1]).then_some(())
    });
    wait_equal(&from, &to);
    let texts: Vec<String> = fs::read_dir(&to)
        .expect("a directory")
        .flatten()
        .filter(|entry| entry.file_name().to_string_lossy().starts_with("same"))
        .map(|entry| fs::read_to_string(entry.path()).expect("text"))
        .collect();
    assert!(texts.contains(&"as the laptop has it".to_owned()), "{texts:?}");
    assert!(texts.contains(&"as the desktop has it".to_owned()), "{texts:?}");
    assert_eq!(fs::read_to_string(from.join("yours.txt")).expect("there"), "edited on the desktop");
    assert_eq!(fs::read_to_string(to.join("mine.txt")).expect("there"), "edited on the laptop");
    assert!(!from.join("gone.txt").exists());
}

#[test]
fn what_was_replaced_is_in_history() {
    let (laptop, desktop) = pair();
    let from = laptop.add("Notes");
    fs::write(from.join("plan.txt"), "the first plan").expect("written");
    let to = desktop.get("Notes");
    wait_for("the plan to arrive", || to.join("plan.txt").exists().then_some(()));
    fs::write(from.join("plan.txt"), "another plan").expect("written");
    wait_for("the other plan", || (fs::read_to_string(to.join("plan.txt")).ok()? == "another plan").then_some(()));
    let mut todo = vec![desktop.home().join("history")];
    let mut found = false;
    while let Some(path) = todo.pop() {
        if path.is_dir() {
            todo.extend(fs::read_dir(&path).expect("a directory").flatten().map(|entry| entry.path()));
        } else {
            found |= fs::read(&path).is_ok_and(|bytes| bytes == b"the first plan");
        }
    }
    assert!(found, "the first plan is in the history of the desktop");
}

#[test]
fn a_folder_that_vanishes_stops_and_deletes_nothing() {
    let (laptop, desktop) = pair();
    let from = laptop.add("Notes");
    fs::write(from.join("kept.txt"), "kept").expect("written");
    let to = desktop.get("Notes");
    wait_for("the file to arrive", || to.join("kept.txt").exists().then_some(()));
    let elsewhere = laptop.dir("elsewhere").join("away");
    fs::rename(&from, &elsewhere).expect("moved away");
    wait_for("the folder to stop", || {
        let status = laptop.mesh(&["folder", "status", "Notes"]).ok()?;
        let status = status.get(0).cloned().unwrap_or(status);
        (status["state"] == "stopped").then_some(())
    });
    assert!(to.join("kept.txt").exists());
    fs::rename(&elsewhere, &from).expect("moved back");
    fs::write(from.join("again.txt"), "again").expect("written");
    wait_for("the folder to go on", || to.join("again.txt").exists().then_some(()));
    assert!(to.join("kept.txt").exists());
}
