//! What others do to the folder while it is being changed.

use super::*;

/// Case: between the plan and the change the user did something else. Nothing of it is touched.
#[test]
fn what_the_plan_did_not_know_of_stays() {
    let folder = Fixture::new();
    folder.write("a", "old");
    let planned = expect(&folder, "a");
    let changes: [&dyn Fn(); 5] = [
        &|| folder.write("a", "edited"),
        &|| drop(fs::remove_file(folder.full("a"))),
        &|| fs::create_dir(folder.full("a")).unwrap(),
        &|| {
            fs::remove_dir(folder.full("a")).unwrap();
            symlink("x", folder.full("a")).unwrap();
        },
        &|| {
            fs::remove_file(folder.full("a")).unwrap();
            folder.write("a", "old");
        },
    ];
    for change in changes {
        change();
        let before = folder.see("a");
        let value = receive(&folder, b"new");
        assert_eq!(one(&folder, put("a", planned.clone(), value)), Stepped::Changed);
        assert_eq!(one(&folder, Step::Remove { path: path("a"), expect: planned.clone() }), Stepped::Changed);
        let away = Step::Move { from: path("a"), to: path("b"), expect: planned.clone() };
        assert_eq!(one(&folder, away), Stepped::Changed);
        assert_eq!(folder.see("a"), before);
        assert_eq!(folder.see("b"), None);
        assert_eq!(history(&folder), []);
    }
    let value = receive(&folder, b"new");
    assert_eq!(one(&folder, put("a", Expect::Absent, value)), Stepped::Changed, "a free name is not free any more");
    assert_eq!(folder.read("a"), b"old");
}

/// Case: the write comes after the check, in the middle of the batch. It is made by the function that
/// tells the old content, which is asked between the two.
#[test]
fn a_write_in_the_last_moment_is_not_lost() {
    for replace in [false, true] {
        let folder = Fixture::new();
        folder.write("a", "old");
        let value = receive(&folder, b"new");
        let steps = [put("a", expect(&folder, "a"), value)];
        let asked = Cell::new(0);
        let interfere = |_: usize| {
            asked.set(asked.get() + 1);
            if replace {
                folder.write("b", "user");
                fs::rename(folder.full("b"), folder.full("a")).unwrap();
            } else {
                folder.write("a", "user");
            }
            None
        };
        let context = Context {
            root: &folder.root,
            history: &folder.history,
            convergence: &convergence,
            displaced: &interfere,
            now: NOW,
        };
        assert_eq!(place(&context, &batch(&steps)), Ok(vec![Stepped::Changed]));
        assert!(asked.get() > 0);
        assert_eq!(folder.read("a"), b"user");
        assert_eq!(history(&folder), []);
    }
}

/// Case: a user's program writes as fast as it can while versions are placed over its file. Every
/// version it closed is the file at the end, or in history, and the name is never empty.
#[test]
fn a_racing_writer_loses_nothing_and_never_sees_the_name_empty() {
    let folder = Fixture::new();
    folder.write("a", "user 0");
    let stop = AtomicBool::new(false);
    let full = folder.full("a");
    let scratch = folder.full("scratch");
    let (written, absent, placed) = std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let mut written = vec![b"user 0".to_vec()];
            for number in 1..u32::MAX {
                if stop.load(Ordering::Relaxed) {
                    break;
                }
                let bytes = format!("user {number}").into_bytes();
                fs::write(&scratch, &bytes).unwrap();
                fs::rename(&scratch, &full).unwrap();
                written.push(bytes);
                // Lets the other side win now and then.
                if number % 8 == 0 {
                    std::thread::yield_now();
                }
            }
            written
        });
        let watcher = scope.spawn(|| {
            let mut absent = 0;
            while !stop.load(Ordering::Relaxed) {
                absent += usize::from(fs::symlink_metadata(&full).is_err());
            }
            absent
        });
        let mut placed = 0;
        for number in 0..3_000u32 {
            let value = receive(&folder, format!("mesh {number}").as_bytes());
            let step = put("a", expect(&folder, "a"), value);
            placed += usize::from(matches!(one(&folder, step), Stepped::Done(_)));
            if placed > 100 {
                break;
            }
        }
        stop.store(true, Ordering::Relaxed);
        (writer.join().unwrap(), watcher.join().unwrap(), placed)
    });
    assert_eq!(absent, 0);
    println!("{placed} placed among {} written", written.len());
    let mut kept: Vec<Vec<u8>> = history(&folder).into_iter().map(|(_, bytes)| bytes).collect();
    kept.push(folder.read("a"));
    // What the user's own program renamed over, it gave up itself: a version counts as lost only if it
    // was displaced by a placed one. Each placed version displaced exactly one of the user's or ours.
    assert!(kept.len() > placed, "{} kept for {placed} placed", kept.len());
    assert!(kept.iter().all(|bytes| written.contains(bytes) || bytes.starts_with(b"mesh")));
    let last = written.last().unwrap();
    assert!(kept.contains(last), "the last version the user closed is there");
}

#[test]
fn a_parent_that_became_a_link_is_not_followed() {
    let folder = Fixture::new();
    let outside = folder.dir.path().join("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("a"), "theirs").unwrap();
    symlink(&outside, folder.full("d")).unwrap();
    let value = receive(&folder, b"new");
    let steps = [
        put("d/b", Expect::Absent, value),
        Step::MakeDir { path: path("d/c") },
        Step::Remove {
            path: path("d/a"),
            expect: Expect::File(
                Meta::at(rustix::fs::CWD, outside.join("a").as_os_str().as_bytes()).unwrap().fingerprint,
            ),
        },
        Step::Move { from: path("d/a"), to: path("x"), expect: Expect::Absent },
    ];
    assert!(run(&folder, &steps).iter().all(|done| *done == Stepped::Changed));
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 1);
    assert_eq!(fs::read(outside.join("a")).unwrap(), b"theirs");
}

#[test]
fn own_files_are_never_a_target() {
    let folder = Fixture::new();
    let value = receive(&folder, b"evil");
    for name in [".meshwork/folder", ".meshwork/temp/x", ".meshwork2"] {
        assert!(matches!(one(&folder, put(name, Expect::Absent, value.clone())), Stepped::Refused { .. }), "{name}");
        assert!(matches!(one(&folder, Step::MakeDir { path: path(name) }), Stepped::Refused { .. }), "{name}");
    }
    assert_eq!(folder.root.verify(), Ok(()));
}
