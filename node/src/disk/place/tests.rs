mod races;

use std::{
    cell::Cell,
    collections::BTreeMap,
    fs::{self, OpenOptions, Permissions},
    io::Read,
    os::unix::{
        ffi::OsStrExt,
        fs::{FileExt, MetadataExt, PermissionsExt, symlink},
    },
    sync::atomic::{AtomicBool, Ordering},
};

use meshwork_protocol::id::FileId;
use meshwork_replica::{
    feed::{FileKind, FileValue, Manifest},
    folder::observed::{Hashed, Path},
};

use super::*;
use crate::disk::{
    chunk,
    hash::hash_file,
    temp::Incoming,
    testing::{Fixture, NOW, convergence, noise, path},
};

const THEN: i64 = 1_234_567_890_123_456_789;

/// Receives `bytes` as a finished incoming file and gives the value that names them.
fn receive(folder: &Fixture, bytes: &[u8]) -> FileValue {
    let content = chunk::cut_reader(&mut &bytes[..], 16, bytes.len() as u64, &convergence).unwrap();
    let mut incoming = Incoming::open(&folder.root, content.id, content.chunks.clone(), &convergence).unwrap();
    let mut at = 0;
    for (number, chunk) in content.chunks.iter().enumerate() {
        let next = at + chunk.len as usize;
        incoming.write(number, &bytes[at..next], &convergence).unwrap();
        at = next;
    }
    incoming.finish().unwrap();
    let (manifest, _) = chunk::manifest(16, content.chunks, &convergence);
    value(content.id, bytes.len() as u64, manifest)
}

fn value(content: ContentId, size: u64, manifest: Manifest) -> FileValue {
    FileValue {
        file: FileId([1; 16]),
        kind: FileKind::Regular { manifest },
        content,
        size,
        modified_ns: THEN,
        executable: false,
        unknown: Default::default(),
    }
}

fn batch(steps: &[Step]) -> Batch {
    Batch { steps: steps.to_vec(), ..Batch::default() }
}

fn context(folder: &Fixture) -> Context<'_> {
    Context {
        root: &folder.root,
        history: &folder.history,
        convergence: &convergence,
        displaced: &|number| Some(ContentId([number as u8; 32])),
        now: NOW,
    }
}

fn run(folder: &Fixture, steps: &[Step]) -> Vec<Stepped> {
    place(&context(folder), &batch(steps)).expect("the folder is there and the disk works")
}

fn one(folder: &Fixture, step: Step) -> Stepped {
    run(folder, &[step]).remove(0)
}

fn expect(folder: &Fixture, name: &str) -> Expect {
    match folder.see(name) {
        None => Expect::Absent,
        Some(Seen::File(fingerprint)) => Expect::File(fingerprint),
        Some(Seen::Dir(identity)) => Expect::Dir(identity),
        Some(Seen::Symlink { target }) => Expect::Symlink { target },
        Some(other) => panic!("{other:?}"),
    }
}

fn put(name: &str, expect: Expect, value: FileValue) -> Step {
    Step::PutFile { path: path(name), expect, value, copy_from: None }
}

fn history(folder: &Fixture) -> Vec<(String, Vec<u8>)> {
    let bytes = |entry| {
        let mut bytes = Vec::new();
        folder.history.content(entry).unwrap().read_to_end(&mut bytes).unwrap();
        bytes
    };
    let text = |path: &Path| path.iter().map(|name| name.to_string()).collect::<Vec<_>>().join("/");
    folder.history.list().unwrap().iter().map(|kept| (text(&kept.path), bytes(kept.entry))).collect()
}

/// Nothing but the marker of the folder is among its own files.
fn clean(folder: &Fixture) {
    assert_eq!(folder.temps(), Vec::<String>::new());
}

#[test]
fn a_new_file_has_its_bytes_time_and_bits() {
    let folder = Fixture::new();
    let bytes = noise(300_000, 1);
    let mut value = receive(&folder, &bytes);
    value.executable = true;
    let done = one(&folder, put("a", Expect::Absent, value));
    assert_eq!(folder.read("a"), bytes);
    assert_eq!(done, Stepped::Done(folder.see("a")));
    let Some(Seen::File(print)) = folder.see("a") else { panic!("a file") };
    assert_eq!((print.modified_ns, print.executable, print.size), (THEN, true, 300_000));
    assert_eq!(
        fs::metadata(folder.full("a")).unwrap().mode() & 0o111,
        0o111 & fs::metadata(folder.full("a")).unwrap().mode() >> 2
    );
    clean(&folder);
    assert_eq!(history(&folder), []);
}

#[test]
fn an_empty_file_needs_no_transfer() {
    let folder = Fixture::new();
    let nothing =
        value(ContentId(*blake3::hash(b"").as_bytes()), 0, Manifest::Inline { average_log2: 16, chunks: vec![] });
    let steps = [put("a", Expect::Absent, nothing.clone()), put("b", Expect::Absent, nothing)];
    assert!(run(&folder, &steps).iter().all(|done| matches!(done, Stepped::Done(Some(_)))));
    assert_eq!((folder.read("a"), folder.read("b")), (vec![], vec![]));
    assert_ne!(fs::metadata(folder.full("a")).unwrap().ino(), fs::metadata(folder.full("b")).unwrap().ino());
    clean(&folder);
}

#[test]
fn odd_times_are_kept_where_the_disk_can() {
    let folder = Fixture::new();
    for (number, time) in [-1, -1_000_000_000_123, 4_000_000_000_000_000_000, 0].into_iter().enumerate() {
        let mut value = receive(&folder, &[number as u8]);
        value.modified_ns = time;
        one(&folder, put(&format!("{number}"), Expect::Absent, value));
        let Some(Seen::File(print)) = folder.see(&format!("{number}")) else { panic!("a file") };
        assert_eq!(print.modified_ns, time);
    }
}

#[test]
fn a_replaced_version_is_in_history() {
    let folder = Fixture::new();
    folder.write("a", "old");
    fs::set_permissions(folder.full("a"), Permissions::from_mode(0o4640)).unwrap();
    let value = receive(&folder, b"new");
    let done = one(&folder, put("a", expect(&folder, "a"), value));
    assert_eq!(done, Stepped::Done(folder.see("a")));
    assert_eq!(folder.read("a"), b"new");
    assert_eq!(fs::metadata(folder.full("a")).unwrap().mode() & 0o7777, 0o640, "rights stay, special bits go");
    assert_eq!(history(&folder), [("a".to_owned(), b"old".to_vec())]);
    assert_eq!(folder.history.list().unwrap()[0].content, Some(ContentId([0; 32])));
    assert_eq!(fs::metadata(folder.full("a")).unwrap().nlink(), 1);
    clean(&folder);
}

#[test]
fn removed_files_and_links_are_in_history() {
    let folder = Fixture::new();
    fs::create_dir(folder.full("d")).unwrap();
    folder.write("d/a", "old");
    symlink("a", folder.full("d/l")).unwrap();
    let steps = ["d/a", "d/l"].map(|name| Step::Remove { path: path(name), expect: expect(&folder, name) });
    assert_eq!(run(&folder, &steps), [Stepped::Done(None), Stepped::Done(None)]);
    assert_eq!(folder.list("d").entries, []);
    let kept = folder.history.list().unwrap();
    assert_eq!((kept[0].reason, kept[0].size), (Reason::Removed, 3));
    assert_eq!(kept[1].target.as_deref(), Some(&b"a"[..]));
    clean(&folder);
}

#[test]
fn one_content_may_go_to_many_names() {
    let folder = Fixture::new();
    let value = receive(&folder, b"same");
    let steps: Vec<Step> = (0..4).map(|number| put(&format!("{number}"), Expect::Absent, value.clone())).collect();
    assert!(run(&folder, &steps).iter().all(|done| matches!(done, Stepped::Done(Some(_)))));
    for number in 0..4 {
        assert_eq!(folder.read(&format!("{number}")), b"same");
        assert_eq!(fs::metadata(folder.full(&format!("{number}"))).unwrap().nlink(), 1);
    }
    clean(&folder);
}

#[test]
fn an_own_file_with_the_content_is_copied() {
    let folder = Fixture::new();
    let bytes = noise(400_000, 2);
    folder.write("here", &bytes);
    let (Hashed::Content { fingerprint, content, manifest }, _) =
        hash_file(&folder.root, &path("here"), None, &convergence)
    else {
        panic!("readable")
    };
    let copy = |name: &str, content: ContentId, print: Fingerprint| Step::PutFile {
        path: path(name),
        expect: Expect::Absent,
        value: value(content, 400_000, manifest.clone()),
        copy_from: Some((path("here"), print)),
    };
    assert!(matches!(one(&folder, copy("there", content, fingerprint)), Stepped::Done(Some(_))));
    assert_eq!(folder.read("there"), bytes);
    assert_eq!(one(&folder, copy("wrong", ContentId([9; 32]), fingerprint)), Stepped::Changed);
    folder.write("here", "edited");
    assert_eq!(one(&folder, copy("late", content, fingerprint)), Stepped::Changed);
    assert_eq!((folder.see("wrong"), folder.see("late")), (None, None));
    clean(&folder);
}

#[test]
fn what_is_not_received_whole_is_refused() {
    let folder = Fixture::new();
    let absent = value(ContentId([4; 32]), 5, Manifest::Inline { average_log2: 16, chunks: vec![] });
    assert!(matches!(one(&folder, put("a", Expect::Absent, absent)), Stepped::Refused { .. }));
    let mut short = receive(&folder, b"12345");
    short.size = 6;
    assert!(matches!(one(&folder, put("a", Expect::Absent, short)), Stepped::Refused { .. }));
    assert_eq!(folder.see("a"), None);
}

#[test]
fn directories_are_made_moved_and_removed() {
    let folder = Fixture::new();
    assert!(matches!(one(&folder, Step::MakeDir { path: path("a") }), Stepped::Done(Some(Seen::Dir(_)))));
    assert_eq!(one(&folder, Step::MakeDir { path: path("a") }), Stepped::Changed);
    folder.write("a/f", "x");
    let Expect::Dir(identity) = expect(&folder, "a") else { panic!("a directory") };
    assert_eq!(one(&folder, Step::RemoveDir { path: path("a"), expect: identity }), Stepped::Changed, "not empty");
    let away = |from: &str, to: &str| Step::Move { from: path(from), to: path(to), expect: Expect::Dir(identity) };
    let done = run(&folder, &[Step::MakeDir { path: path("b") }, away("a", "b/c")]);
    assert_eq!(done[1], Stepped::Done(Some(Seen::Dir(identity))));
    assert_eq!(folder.read("b/c/f"), b"x");
    assert!(matches!(one(&folder, away("b/c", "b/c/d")), Stepped::Refused { .. }), "into itself");
    fs::remove_file(folder.full("b/c/f")).unwrap();
    fs::remove_dir(folder.full("b/c")).unwrap();
    fs::create_dir(folder.full("b/c")).unwrap();
    assert_eq!(one(&folder, Step::RemoveDir { path: path("b/c"), expect: identity }), Stepped::Changed, "another one");
    let Expect::Dir(identity) = expect(&folder, "b/c") else { panic!("a directory") };
    assert_eq!(one(&folder, Step::RemoveDir { path: path("b/c"), expect: identity }), Stepped::Done(None));
}

#[test]
fn a_directory_may_wait_while_another_takes_its_name() {
    let folder = Fixture::new();
    fs::create_dir(folder.full("a")).unwrap();
    fs::create_dir(folder.full("b")).unwrap();
    folder.write("a/f", "a");
    let (a, b) = (expect(&folder, "a"), expect(&folder, "b"));
    let step =
        |from: &str, to: &str, expect: &Expect| Step::Move { from: path(from), to: path(to), expect: expect.clone() };
    let steps = [
        step("a", ".meshwork/temp/dir-00ff", &a),
        step("b", "a", &b),
        step(".meshwork/temp/dir-00ff/f", "a/g", &expect(&folder, "a/f")),
        step(".meshwork/temp/dir-00ff", "b", &a),
    ];
    assert!(run(&folder, &steps).iter().all(|done| matches!(done, Stepped::Done(Some(_)))));
    assert_eq!(folder.read("a/g"), b"a");
    assert_eq!((expect(&folder, "a"), expect(&folder, "b")), (b, a));
    clean(&folder);
}

/// Cases: a cycle of names, and a swap, without a byte of content.
#[test]
fn names_are_swapped_in_one_act() {
    let folder = Fixture::new();
    folder.write("a", "was a");
    fs::create_dir(folder.full("d")).unwrap();
    folder.write("d/b", "was b");
    let swap = |folder: &Fixture, one: &str, other: &str| Step::Exchange {
        one: path(one),
        one_expect: expect(folder, one),
        other: path(other),
        other_expect: expect(folder, other),
    };
    let step = swap(&folder, "a", "d/b");
    assert_eq!(one(&folder, step.clone()), Stepped::Done(folder.see("a")));
    assert_eq!((folder.read("a"), folder.read("d/b")), (b"was b".to_vec(), b"was a".to_vec()));
    assert_eq!(one(&folder, step), Stepped::Changed);
    let step = swap(&folder, "a", "d");
    assert!(matches!(one(&folder, step), Stepped::Refused { .. } | Stepped::Done(_)), "a file and a directory");
    assert_eq!(history(&folder), []);
}

/// A plan speaks of a file as it was before the batch; renames inside the batch change its times.
#[test]
fn steps_of_a_batch_may_build_on_each_other() {
    let folder = Fixture::new();
    folder.write("a", "old");
    let known = expect(&folder, "a");
    let Expect::File(print) = known else { panic!("a file") };
    let value = receive(&folder, b"new");
    let steps = [
        Step::Move { from: path("a"), to: path("b"), expect: known.clone() },
        Step::Move { from: path("b"), to: path("c"), expect: known.clone() },
        Step::SetMeta { path: path("c"), expect: print, modified_ns: THEN, executable: true },
        put("c", known, value.clone()),
        put("a", Expect::Absent, receive(&folder, b"other")),
    ];
    let done = run(&folder, &steps);
    assert!(done.iter().all(|done| matches!(done, Stepped::Done(Some(_)))), "{done:?}");
    assert_eq!((folder.read("c"), folder.read("a")), (b"new".to_vec(), b"other".to_vec()));
    assert_eq!(history(&folder), [("c".to_owned(), b"old".to_vec())]);
}

#[test]
fn attributes_change_alone() {
    let folder = Fixture::new();
    folder.write("a", "x");
    let Expect::File(print) = expect(&folder, "a") else { panic!("a file") };
    let step = Step::SetMeta { path: path("a"), expect: print, modified_ns: THEN, executable: true };
    let Stepped::Done(Some(Seen::File(after))) = one(&folder, step.clone()) else { panic!("done") };
    assert_eq!((after.modified_ns, after.executable, after.inode), (THEN, true, print.inode));
    assert_eq!(Some(Seen::File(after)), folder.see("a"));
    assert_eq!(one(&folder, step), Stepped::Changed);
}

#[test]
fn what_is_only_checked_stays_as_it_is() {
    let folder = Fixture::new();
    folder.write("a", "x");
    let planned = expect(&folder, "a");
    let check = |expect: &Expect| Step::Check { path: path("a"), expect: expect.clone() };
    let steps = [Step::Move { from: path("a"), to: path("b"), expect: planned.clone() }, check(&Expect::Absent)];
    assert_eq!(one(&folder, check(&planned)), Stepped::Done(folder.see("a")));
    assert_eq!(expect(&folder, "a"), planned);
    assert_eq!(run(&folder, &steps)[1], Stepped::Changed, "nothing is there to be looked at");
    assert_eq!(one(&folder, check(&planned)), Stepped::Changed);
    folder.write("a", "y");
    assert_eq!(one(&folder, check(&planned)), Stepped::Changed, "another file");
}

/// Cases: file, directory and link take each other's place.
#[test]
fn kinds_change() {
    let folder = Fixture::new();
    fs::create_dir(folder.full("a")).unwrap();
    let link = |expect: Expect, target: &str| Step::PutSymlink { path: path("a"), expect, target: target.into() };
    assert!(matches!(one(&folder, link(expect(&folder, "a"), "b/c")), Stepped::Done(Some(Seen::Symlink { .. }))));
    let value = receive(&folder, b"file");
    assert!(matches!(one(&folder, put("a", expect(&folder, "a"), value.clone())), Stepped::Done(Some(Seen::File(_)))));
    assert!(matches!(one(&folder, link(expect(&folder, "a"), "d")), Stepped::Done(Some(Seen::Symlink { .. }))));
    let kept = folder.history.list().unwrap();
    assert_eq!(kept[0].target.as_deref(), Some(&b"b/c"[..]));
    assert_eq!((kept[1].size, kept[1].target.clone()), (4, None));

    fs::remove_file(folder.full("a")).unwrap();
    fs::create_dir(folder.full("a")).unwrap();
    folder.write("a/unseen", "user's");
    let value = receive(&folder, b"file");
    assert_eq!(one(&folder, put("a", expect(&folder, "a"), value)), Stepped::Changed);
    assert_eq!(folder.read("a/unseen"), b"user's");
    for target in ["/etc/passwd", "../x", ".meshwork/folder"] {
        let refused = one(&folder, Step::PutSymlink { path: path("l"), expect: Expect::Absent, target: target.into() });
        assert!(matches!(refused, Stepped::Refused { .. }), "{target}");
    }
    assert_eq!(folder.see("l"), None);
}

#[test]
fn a_lost_root_stops_the_batch() {
    let folder = Fixture::new();
    folder.write("a", "x");
    let steps = [Step::Remove { path: path("a"), expect: expect(&folder, "a") }];
    let away = folder.dir.path().join("away");
    fs::rename(folder.root.path(), &away).unwrap();
    assert_eq!(place(&context(&folder), &batch(&steps)), Err(BatchError::Root(RootError::Missing)));
    assert_eq!(fs::read(away.join("a")).unwrap(), b"x");
}

/// Case: files with several names. The other name keeps its content.
#[test]
fn other_names_of_a_replaced_file_stay() {
    let folder = Fixture::new();
    folder.write("a", "shared");
    fs::hard_link(folder.full("a"), folder.full("b")).unwrap();
    let value = receive(&folder, b"new");
    assert!(matches!(one(&folder, put("a", expect(&folder, "a"), value)), Stepped::Done(Some(_))));
    OpenOptions::new().write(true).open(folder.full("b")).unwrap().write_all_at(b"edited", 0).unwrap();
    assert_eq!((folder.read("a"), folder.read("b")), (b"new".to_vec(), b"edited".to_vec()));
    assert_eq!(history(&folder), [("a".to_owned(), b"shared".to_vec())]);
}

#[test]
fn a_place_that_takes_no_change_is_a_refusal_with_a_reason() {
    if rustix::process::geteuid().is_root() {
        return; // The superuser may change everything.
    }
    let folder = Fixture::new();
    fs::create_dir(folder.full("d")).unwrap();
    fs::set_permissions(folder.full("d"), Permissions::from_mode(0o555)).unwrap();
    let value = receive(&folder, b"new");
    let done = one(&folder, put("d/a", Expect::Absent, value));
    fs::set_permissions(folder.full("d"), Permissions::from_mode(0o755)).unwrap();
    assert!(matches!(done, Stepped::Refused { reason } if reason.contains("permission")));
    assert_eq!(history(&folder), []);
}

#[test]
fn a_large_batch_is_placed_whole() {
    let folder = Fixture::new();
    let mut steps = Vec::new();
    let mut expected = BTreeMap::new();
    for dir in 0..10 {
        steps.push(Step::MakeDir { path: path(&format!("{dir}")) });
        for file in 0..20 {
            let name = format!("{dir}/{file}");
            let bytes = noise(dir * 100 + file, 7);
            steps.push(put(&name, Expect::Absent, receive(&folder, &bytes)));
            expected.insert(name, bytes);
        }
    }
    assert!(run(&folder, &steps).iter().all(|done| matches!(done, Stepped::Done(Some(_)))));
    for (name, bytes) in expected {
        assert_eq!(folder.read(&name), bytes);
    }
    clean(&folder);
}

/// `cargo test --release -p meshwork -- --ignored --nocapture batch_speed` prints what placing costs.
#[test]
#[ignore = "a measurement"]
fn batch_speed() {
    for count in [1, 2, 4, 8, 16, 64, 1_000, 10_000] {
        let folder = Fixture::new();
        let steps: Vec<Step> = (0..count)
            .map(|number| {
                put(&format!("{number}"), Expect::Absent, receive(&folder, format!("{count} {number}").as_bytes()))
            })
            .collect();
        let start = std::time::Instant::now();
        run(&folder, &steps);
        let put_in = start.elapsed();
        let steps: Vec<Step> = folder
            .list("")
            .entries
            .into_iter()
            .map(|(name, seen)| {
                let Seen::File(print) = seen else { panic!("a file") };
                let value = receive(&folder, format!("{count} {name} again").as_bytes());
                put(&name.to_string(), Expect::File(print), value)
            })
            .collect();
        let start = std::time::Instant::now();
        run(&folder, &steps);
        println!("{count}: new {:?}, replaced {:?}", put_in / count, start.elapsed() / count);
    }
}

/// Case: what is replaced was to be at another name first, and is not. It stays, and what came for its name waits.
#[test]
fn a_step_is_not_done_without_the_one_that_it_needs() {
    let folder = Fixture::new();
    folder.write("a", "old");
    let new = receive(&folder, b"new");
    let away = Step::MakeDir { path: path("nowhere/b") };
    let replace = put("a", expect(&folder, "a"), new);
    let mut both = batch(&[away, replace]);
    both.needs.insert(1, 0);
    let context = context(&folder);
    assert_eq!(place(&context, &both), Ok(vec![Stepped::Changed, Stepped::Changed]));
    assert_eq!((folder.read("a"), history(&folder)), (b"old".to_vec(), vec![]));
    let Step::PutFile { expect: planned, .. } = &mut both.steps[1] else { panic!("a file is put") };
    *planned = expect(&folder, "a");
    both.needs.clear();
    assert!(matches!(place(&context, &both).as_deref(), Ok([Stepped::Changed, Stepped::Done(_)])));
    assert_eq!(folder.read("a"), b"new");
}
