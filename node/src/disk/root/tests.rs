use std::{fs, os::unix::fs::symlink};

use super::*;
use crate::disk::testing::{Fixture, NOW, OBJECT, path};

#[test]
fn a_new_folder_opens_again_and_only_for_its_object() {
    let folder = Fixture::new();
    assert_eq!(FolderRoot::open(folder.root.path(), OBJECT).map(|root| root.object()), Ok(OBJECT));
    let other = FolderRoot::open(folder.root.path(), ObjectId([8; 32])).map(|_| ());
    assert_eq!(other, Err(RootError::OtherFolder));
    assert_eq!(folder.root.verify(), Ok(()));
}

#[test]
fn a_folder_that_is_gone_emptied_or_replaced_stops() {
    let folder = Fixture::new();
    let full = folder.root.path().to_owned();
    let away = folder.dir.path().join("away");

    fs::remove_file(folder.full(".meshwork/folder")).unwrap();
    assert_eq!(folder.root.verify(), Err(RootError::NotAFolder));
    fs::write(folder.full(".meshwork/folder"), "something else").unwrap();
    assert_eq!(folder.root.verify(), Err(RootError::OtherFolder));
    fs::write(folder.full(".meshwork/folder"), OBJECT.to_string()).unwrap();
    assert_eq!(folder.root.verify(), Ok(()));

    fs::rename(&full, &away).unwrap();
    assert_eq!(folder.root.verify(), Err(RootError::Missing));
    fs::create_dir(&full).unwrap();
    assert_eq!(folder.root.verify(), Err(RootError::NotAFolder), "an empty mount point");
    fs::remove_dir(&full).unwrap();
    symlink(&away, &full).unwrap();
    assert_eq!(folder.root.verify(), Err(RootError::Missing), "a link in its place");
    fs::remove_file(&full).unwrap();
    fs::rename(&away, &full).unwrap();
    assert_eq!(folder.root.verify(), Ok(()), "the disk is back");
}

#[test]
fn nothing_outside_is_reached() {
    let folder = Fixture::new();
    let outside = folder.dir.path().join("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("secret"), "secret").unwrap();
    symlink(&outside, folder.full("link")).unwrap();
    symlink("..", folder.full("up")).unwrap();
    symlink(outside.join("secret"), folder.full("file")).unwrap();
    for name in ["link/secret", "up/outside/secret", "file", "link", "up"] {
        assert_eq!(folder.root.open_file(&path(name)).map(|_| ()), Err(Errno::LOOP), "{name}");
    }
    assert_eq!(folder.root.parent(&path("link/new")).map(|_| ()), Err(Errno::NOTDIR));
    assert_eq!(folder.root.open_dir(&path("link")).map(|_| ()), Err(Errno::NOTDIR));
}

#[test]
fn own_files_are_out_of_reach_of_paths() {
    let folder = Fixture::new();
    for name in [".meshwork", ".meshwork/folder", ".meshwork/temp/x", ".meshwork-more", ".meshwork/temp"] {
        assert_eq!(folder.root.open_at(&path(name), OFlags::PATH).map(|_| ()), Err(Errno::INVAL), "{name}");
        assert_eq!(folder.root.parent(&path(name)).map(|_| ()), Err(Errno::INVAL), "{name}");
    }
    fs::create_dir_all(folder.full("sub/.meshwork")).unwrap();
    assert!(folder.root.open_dir(&path("sub/.meshwork")).is_ok(), "only at the root");
    fs::create_dir(folder.full(".meshwork/temp/dir-00")).unwrap();
    assert!(folder.root.open_dir(&path(".meshwork/temp/dir-00")).is_ok(), "a directory on its way");
}

#[test]
fn a_pipe_is_never_waited_for() {
    let folder = Fixture::new();
    rustix::fs::mknodat(CWD, folder.full("pipe"), FileType::Fifo, Mode::RWXU, 0).unwrap();
    assert!(folder.root.open_file(&path("pipe")).is_err());
}

#[test]
fn depth_has_no_limit() {
    let folder = Fixture::new();
    let name = Name::new(&[b'd'; 200]).unwrap();
    let mut deep = Vec::new();
    for _ in 0..100 {
        deep.push(name.clone());
        let (dir, last) = folder.root.parent(&deep).expect("the level above");
        mkdirat(&dir, last, Mode::RWXU).expect("a level");
    }
    assert!(folder.root.open_dir(&deep).is_ok(), "20,000 bytes of path");
    while !deep.is_empty() {
        let (dir, last) = folder.root.parent(&deep).expect("the level above");
        unlinkat(&dir, last, AtFlags::REMOVEDIR).expect("an empty level");
        deep.pop();
    }
}

#[test]
fn overlapping_folders_are_refused() {
    let folder = Fixture::new();
    let (base, home) = (folder.dir.path().canonicalize().unwrap(), folder.home());
    let check = |path: &FsPath| check_new(path, ObjectId([8; 32]), &home, &[folder.root.path().to_owned()]);
    let make = |name: &str| {
        fs::create_dir_all(base.join(name)).unwrap();
        base.join(name)
    };
    assert_eq!(check(&make("free")), Ok(()));
    assert_eq!(check(&base), Err(NewFolderError::ContainsHome(base.clone())));
    assert_eq!(check(&make("home/in")), Err(NewFolderError::InsideHome(base.join("home/in"))));
    let inside = make("folder/in");
    let around = folder.root.path().to_owned();
    assert_eq!(check(&inside), Err(NewFolderError::InsideFolder { path: inside.clone(), other: around.clone() }));
    assert_eq!(
        check_new(&inside, ObjectId([8; 32]), &home, &[]),
        Err(NewFolderError::InsideFolder { path: inside, other: around.clone() }),
        "told by the marker alone"
    );
    assert_eq!(check(&around), Err(NewFolderError::OtherFolder(around.clone())));
    assert_eq!(check(&base.join("absent")), Err(NewFolderError::NotADirectory(base.join("absent"))));
    fs::write(base.join("file"), "").unwrap();
    assert_eq!(check(&base.join("file")), Err(NewFolderError::NotADirectory(base.join("file"))));
    let (outer, inner) = (make("outer"), make("outer/inner"));
    assert_eq!(
        check_new(&outer, OBJECT, &home, std::slice::from_ref(&inner)),
        Err(NewFolderError::ContainsFolder { path: outer, other: inner })
    );
    assert_eq!(check_new(&around, OBJECT, &home, &[]), Ok(()), "its own folder may be taken up again");
}

#[test]
fn leftovers_go_but_for_what_is_still_wanted() {
    let folder = Fixture::new();
    let (wanted, other) = (ContentId([1; 32]), ContentId([2; 32]));
    for name in [format!("{wanted}.part"), format!("{other}.part"), format!("{wanted}-3.part"), "junk".to_owned()] {
        folder.write(&format!(".meshwork/temp/{name}"), "bytes");
    }
    assert_eq!(folder.root.clean_temps(&BTreeSet::from([wanted])), Ok(3));
    assert_eq!(folder.temps(), [format!("{wanted}.part")]);
}

#[test]
fn an_interrupted_change_comes_back() {
    let folder = Fixture::new();
    folder.write(".meshwork/temp/x.part.swap", "displaced");
    fs::create_dir(folder.full(".meshwork/temp/dir-07")).unwrap();
    folder.write(".meshwork/temp/dir-07/child", "child");
    folder.root.clean_temps(&BTreeSet::new()).unwrap();
    assert_eq!(super::super::place::recover(&folder.root, &folder.history, NOW), Ok(2));
    assert_eq!(folder.temps(), Vec::<String>::new());
    assert_eq!(folder.read("Recovered/child"), b"child");
    let kept = folder.history.list().unwrap();
    let mut bytes = Vec::new();
    folder.history.content(kept[0].entry).unwrap().read_to_end(&mut bytes).unwrap();
    assert_eq!(bytes, b"displaced");
}
