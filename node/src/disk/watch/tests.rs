use std::{
    collections::BTreeSet,
    fs::{self, OpenOptions},
    io::Write,
};

use meshwork_replica::folder::observed::Path;

use super::*;
use crate::disk::{
    list::list,
    root::FolderRoot,
    testing::{Fixture, path},
};

/// A watched folder whose first report (look everywhere) has been taken.
fn watched(folder: &Fixture) -> (Watch, mpsc::Receiver<Report>) {
    let (watch, mut reports) = Watch::start(folder.root.path()).unwrap();
    let first = reports.blocking_recv().unwrap();
    assert!(first.rescan);
    (watch, reports)
}

#[test]
fn one_small_write_is_one_prompt_report() {
    let folder = Fixture::new();
    let (_watch, mut reports) = watched(&folder);
    let mut best = Duration::MAX;
    for round in 0..20 {
        let start = Instant::now();
        folder.write("a", [round; 200]);
        let report = reports.blocking_recv().unwrap();
        best = best.min(start.elapsed());
        assert_eq!(report, Report { dirs: BTreeSet::from([Path::new()]), ..Report::default() });
        // Whatever came a second time is here before the mark is.
        fs::create_dir(folder.full("mark")).unwrap();
        let report = reports.blocking_recv().unwrap();
        assert_eq!(report.trees, BTreeSet::from([path("mark")]));
        fs::remove_dir(folder.full("mark")).unwrap();
        reports.blocking_recv().unwrap();
    }
    assert!(best < Duration::from_millis(10), "{best:?}");
    println!("write to report, best of 20: {best:?}");
}

#[test]
fn each_kind_of_change_names_its_directory() {
    let folder = Fixture::new();
    fs::create_dir_all(folder.full("d/e")).unwrap();
    folder.write("d/x", "x");
    let (_watch, mut reports) = watched(&folder);
    let mut expect = |dirs: &[&str], trees: &[&str]| {
        let (mut want_dirs, mut want_trees): (BTreeSet<Path>, BTreeSet<Path>) =
            (dirs.iter().map(|dir| path(dir)).collect(), trees.iter().map(|tree| path(tree)).collect());
        while !want_dirs.is_empty() || !want_trees.is_empty() {
            let report = reports.blocking_recv().unwrap();
            assert!(!report.rescan);
            want_dirs.retain(|dir| !report.dirs.contains(dir));
            want_trees.retain(|tree| !report.trees.contains(tree));
        }
    };
    fs::rename(folder.full("d/x"), folder.full("d/e/y")).unwrap();
    expect(&["d", "d/e"], &[]);
    fs::hard_link(folder.full("d/e/y"), folder.full("d/e/z")).unwrap();
    expect(&["d/e"], &[]);
    fs::set_permissions(folder.full("d/e/y"), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    expect(&["d/e"], &[]);
    std::os::unix::fs::symlink("y", folder.full("d/e/l")).unwrap();
    expect(&["d/e"], &[]);
    fs::remove_file(folder.full("d/e/y")).unwrap();
    expect(&["d/e"], &[]);
    fs::rename(folder.full("d/e"), folder.full("f")).unwrap();
    expect(&["d", ""], &["f"]);
    folder.write("f/new", "in the moved directory");
    expect(&["f"], &[]);
}

#[test]
fn a_file_held_open_is_reported_now_and_then() {
    let folder = Fixture::new();
    let (_watch, mut reports) = watched(&folder);
    let mut log = OpenOptions::new().create(true).append(true).open(folder.full("log")).unwrap();
    log.write_all(b"line\n").unwrap();
    assert_eq!(reports.blocking_recv().unwrap().dirs, BTreeSet::from([Path::new()]), "it was made");
    let start = Instant::now();
    log.write_all(b"line\n").unwrap();
    assert_eq!(reports.blocking_recv().unwrap().dirs, BTreeSet::from([Path::new()]), "it is written to");
    assert!(start.elapsed() >= Duration::from_millis(500));
}

#[test]
fn own_files_are_not_reported() {
    let folder = Fixture::new();
    let (_watch, mut reports) = watched(&folder);
    folder.write(".meshwork/temp/x.part", "x");
    folder.write("theirs", "x");
    assert_eq!(reports.blocking_recv().unwrap().dirs, BTreeSet::from([Path::new()]));
    drop(folder);
}

/// All files beneath a directory, by listing.
fn files(root: &FolderRoot, at: &Path, found: &mut BTreeSet<Path>) {
    use meshwork_replica::folder::observed::Seen;
    let Ok(listing) = list(root, at) else { return };
    for (name, seen) in listing.entries {
        let full = [at.as_slice(), &[name]].concat();
        match seen {
            Seen::Dir(_) => files(root, &full, found),
            _ => drop(found.insert(full)),
        }
    }
}

/// Case: new directories are filled before they are watched.
#[test]
fn nothing_in_new_directories_is_missed() {
    let folder = Fixture::new();
    let (_watch, mut reports) = watched(&folder);
    let base = folder.root.path().to_owned();
    let writer = std::thread::spawn(move || {
        for round in 0..200 {
            let dir = base.join(format!("{round}/a/b/c"));
            fs::create_dir_all(&dir).unwrap();
            fs::write(dir.join("first"), "1").unwrap();
            fs::write(dir.join("second"), "2").unwrap();
        }
    });
    let mut found = BTreeSet::new();
    while found.len() < 400 {
        // A file that is missed makes the test hang here; the runner's limit then fails it.
        let report = reports.blocking_recv().unwrap();
        assert!(!report.rescan, "no event was lost, so nothing calls for a look everywhere");
        for tree in &report.trees {
            files(&folder.root, tree, &mut found);
        }
        for dir in &report.dirs {
            if let Ok(listing) = list(&folder.root, dir) {
                let plain =
                    |(name, seen)| matches!(seen, meshwork_replica::folder::observed::Seen::File(_)).then_some(name);
                found.extend(
                    listing.entries.into_iter().filter_map(plain).map(|name| [dir.as_slice(), &[name]].concat()),
                );
            }
        }
    }
    writer.join().unwrap();
}

#[test]
fn a_reader_that_does_not_read_costs_bounded_memory_and_misses_nothing() {
    let folder = Fixture::new();
    let (_watch, mut reports) = watched(&folder);
    for number in 0..5_000 {
        fs::create_dir(folder.full(&format!("{number}"))).unwrap();
    }
    let (mut trees, mut rescan, mut held) = (BTreeSet::new(), false, 0);
    while !rescan && trees.len() < 5_000 {
        let report = reports.blocking_recv().unwrap();
        held = held.max(report.dirs.len() + report.trees.len());
        trees.extend(report.trees);
        rescan |= report.rescan;
    }
    assert!(held <= 4_097, "{held}");
}

#[test]
fn the_bound_turns_into_a_look_everywhere() {
    let shared = Shared::default();
    for number in 0..5_000 {
        shared.note_tree(path(&format!("{number}")));
    }
    let report = shared.wait(None, None).unwrap();
    assert!(report.rescan && report.dirs.len() + report.trees.len() <= 4_097);
    shared.put_back(report.clone());
    assert_eq!(shared.wait(None, None), Some(report));
}

#[test]
fn where_the_system_cannot_watch_everything_is_looked_at() {
    let folder = Fixture::new();
    let (watch, mut reports) = Watch::start_with(folder.root.path(), false).unwrap();
    let first = reports.blocking_recv().unwrap();
    assert!(first.rescan && first.notice.is_some_and(|notice| notice.contains("every 10 seconds")));
    assert!(watch.is_polling());
    drop(watch);
    assert_eq!(reports.blocking_recv(), None, "it ends at once when it is dropped");
}

#[test]
fn a_root_that_goes_away_calls_for_a_look() {
    let folder = Fixture::new();
    let (_watch, mut reports) = watched(&folder);
    fs::rename(folder.root.path(), folder.dir.path().join("away")).unwrap();
    while !reports.blocking_recv().unwrap().rescan {}
    assert!(folder.root.verify().is_err());
}
