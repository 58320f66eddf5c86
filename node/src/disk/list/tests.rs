use std::{
    ffi::OsStr,
    fs::{self, Permissions},
    os::unix::{ffi::OsStrExt, fs::PermissionsExt, fs::symlink, net::UnixListener},
};

use meshwork_replica::folder::observed::Seen;
use rustix::fs::{CWD, FileType, Mode, mknodat};

use super::*;
use crate::disk::testing::{Fixture, path};

#[test]
fn each_kind_is_told() {
    let folder = Fixture::new();
    folder.write("file", "12345");
    folder.write("program", "#!");
    fs::set_permissions(folder.full("program"), Permissions::from_mode(0o755)).unwrap();
    fs::create_dir(folder.full("dir")).unwrap();
    symlink("nowhere/at all", folder.full("link")).unwrap();
    mknodat(CWD, folder.full("pipe"), FileType::Fifo, Mode::RWXU, 0).unwrap();
    let _socket = UnixListener::bind(folder.full("socket")).unwrap();
    folder.write(".meshwork-own", "");

    let listing = folder.list("");
    assert_eq!(listing.identity, folder.root.identity());
    let names: Vec<String> = listing.entries.iter().map(|(name, _)| name.to_string()).collect();
    assert_eq!(names, ["dir", "file", "link", "pipe", "program", "socket"]);
    let seen: Vec<&Seen> = listing.entries.iter().map(|(_, seen)| seen).collect();
    assert!(matches!(seen[0], Seen::Dir(identity) if *identity == folder.list("dir").identity));
    assert!(matches!(seen[1], Seen::File(print) if print.size == 5 && !print.executable));
    assert_eq!(*seen[2], Seen::Symlink { target: b"nowhere/at all".to_vec() });
    assert!(matches!(seen[3], Seen::Skipped { reason } if reason.contains("pipe")));
    assert!(matches!(seen[4], Seen::File(print) if print.executable));
    assert!(matches!(seen[5], Seen::Skipped { reason } if reason.contains("socket")));
}

#[test]
fn names_that_are_not_text_are_kept() {
    let folder = Fixture::new();
    fs::write(folder.root.path().join(OsStr::from_bytes(b"\xff\n\x01")), "").unwrap();
    let names: Vec<Vec<u8>> = folder.list("").entries.iter().map(|(name, _)| name.as_bytes().to_vec()).collect();
    assert_eq!(names, [b"\xff\n\x01".to_vec()]);
}

#[test]
fn a_directory_is_known_by_more_than_its_name() {
    let folder = Fixture::new();
    fs::create_dir(folder.full("a")).unwrap();
    let before = folder.list("a").identity;
    fs::rename(folder.full("a"), folder.full("b")).unwrap();
    assert_eq!(folder.list("b").identity, before);
    fs::remove_dir(folder.full("b")).unwrap();
    fs::create_dir(folder.full("b")).unwrap();
    assert_ne!(folder.list("b").identity, before, "even where the inode number is used again");
}

#[test]
fn a_listing_fails_rather_than_telling_of_nothing() {
    let folder = Fixture::new();
    let missing = |name: &str| list(&folder.root, &path(name));
    assert_eq!(missing("absent"), Err(ListError::Missing));
    folder.write("file", "");
    assert_eq!(missing("file"), Err(ListError::Missing));
    symlink(".", folder.full("link")).unwrap();
    assert_eq!(missing("link"), Err(ListError::Missing), "a link is not a directory");

    let away = folder.dir.path().join("away");
    fs::rename(folder.root.path(), &away).unwrap();
    assert!(matches!(missing(""), Err(ListError::RootLost(_))));
    assert!(matches!(missing("absent"), Err(ListError::RootLost(_))));
    fs::create_dir(folder.root.path()).unwrap();
    assert!(matches!(missing(""), Err(ListError::RootLost(_))), "an empty mount point is not an empty folder");
}

#[test]
fn an_unreadable_directory_is_not_an_empty_one() {
    let folder = Fixture::new();
    fs::create_dir(folder.full("closed")).unwrap();
    folder.write("closed/file", "");
    fs::set_permissions(folder.full("closed"), Permissions::from_mode(0o000)).unwrap();
    let listed = list(&folder.root, &path("closed"));
    fs::set_permissions(folder.full("closed"), Permissions::from_mode(0o755)).unwrap();
    // The superuser reads everything; for all others this must fail.
    match rustix::process::geteuid().is_root() {
        true => assert_eq!(listed.map(|listing| listing.entries.len()), Ok(1)),
        false => assert!(matches!(listed, Err(ListError::Unreadable(reason)) if reason.contains("permission"))),
    }
}
