//! A device is lost, and with it the only copy of what it wrote last.

use std::{fs, path::Path};

use meshwork_tests::device::{Device, tree, wait_equal, wait_for};
use serde_json::Value;

use super::authority::list;

fn missing(device: &Device) -> Vec<Value> {
    list(device, &["folder", "missing", "Notes"])
}

/// Whether some file below `root` holds exactly this text.
fn holds(root: &Path, text: &str) -> bool {
    let entries = fs::read_dir(root).expect("a directory").flatten();
    entries.map(|entry| entry.path()).any(|path| {
        let is_dir = path.symlink_metadata().is_ok_and(|meta| meta.is_dir());
        if is_dir { holds(&path, text) } else { fs::read(&path).is_ok_and(|bytes| bytes == text.as_bytes()) }
    })
}

/// The phone has no place for the folder: it knows what was written, and has no bytes to give.
#[test]
fn what_only_a_lost_device_had_is_let_go_of() {
    let (mut laptop, mut desktop, phone) = (Device::start("laptop"), Device::start("desktop"), Device::start("phone"));
    laptop.pair(&desktop);
    laptop.mesh(&["device", "promote", "desktop"]).expect("the first device is an admin");
    wait_for("the desktop to be an admin", || {
        list(&desktop, &["device", "ls"])
            .iter()
            .any(|it| it["name"] == "desktop" && it["role"] == "admin")
            .then_some(())
    });
    desktop.pair(&phone);
    let at_laptop = laptop.add("Notes");
    fs::write(at_laptop.join("note.txt"), "old").expect("written");
    let at_desktop = desktop.get("Notes");
    wait_equal(&at_laptop, &at_desktop);

    desktop.stop();
    fs::write(at_laptop.join("note.txt"), "a newer version").expect("written");
    fs::write(at_laptop.join("only.txt"), "nowhere else").expect("written");
    wait_for("the phone to know of both", || {
        let folders = list(&phone, &["folder", "ls"]);
        folders.iter().any(|folder| folder["files"] == 2 && folder["bytes"] == 27).then_some(())
    });
    laptop.kill();
    desktop.run();
    wait_for("both to be missed", || (missing(&desktop).len() == 2).then_some(()));
    let told: Vec<_> = missing(&desktop).iter().map(|it| (it["path"].clone(), it["name"].clone())).collect();
    assert_eq!(told, [("note.txt".into(), "laptop".into()), ("only.txt".into(), "laptop".into())]);
    assert_eq!(list(&desktop, &["folder", "status", "Notes"])[0]["missing_files"], 2);
    assert!(!desktop.is_idle("Notes"));

    let (code, _) = desktop.mesh(&["folder", "let-go", "Notes", "other.txt"]).expect_err("that is not missing");
    assert_eq!(code, 5);
    for name in ["only.txt", "note.txt"] {
        let gone = list(&desktop, &["folder", "let-go", "Notes", name]);
        assert_eq!(gone.iter().map(|it| it["path"].clone()).collect::<Vec<_>>(), [name]);
    }
    wait_for("nothing to be left", || desktop.is_idle("Notes").then_some(()));
    assert_eq!(tree(&at_desktop).keys().collect::<Vec<_>>(), [Path::new("note.txt")]);
    assert_eq!(fs::read_to_string(at_desktop.join("note.txt")).expect("there"), "old");

    // It was not lost after all: it follows, and keeps its versions in history.
    laptop.run();
    wait_equal(&at_desktop, &at_laptop);
    let place = laptop.home().parent().expect("its place").to_owned();
    assert!(holds(&place, "a newer version") && holds(&place, "nowhere else"));
    for device in [&laptop, &desktop] {
        assert_eq!(missing(device), Vec::<Value>::new());
    }
}
