//! A device of which there is a copy: its home was put back from a backup.

use std::{fs, path::Path, process::Command};

use meshwork_tests::device::{Device, tree, wait_equal, wait_for};
use serde_json::Value;

use super::authority::list;

fn copy(from: &Path, to: &Path) {
    let copied = Command::new("cp").arg("-a").arg(from).arg(to).status().expect("cp runs");
    assert!(copied.success(), "the home was copied");
}

/// The home of a stopped device is as it was at the backup again.
fn put_back(device: &Device, backup: &Path) {
    fs::remove_dir_all(device.home()).expect("the home is removed");
    copy(backup, &device.home());
}

fn problems(device: &Device) -> String {
    let folders = list(device, &["folder", "status"]);
    folders.iter().map(|folder| folder["problems"].to_string()).collect()
}

#[test]
fn a_home_put_back_from_a_backup_loses_nothing_and_signs_nothing_twice() {
    let (mut laptop, desktop) = (Device::start("laptop"), Device::start("desktop"));
    laptop.pair(&desktop);
    let at_laptop = laptop.add("Notes");
    fs::write(at_laptop.join("first"), "before the backup").expect("written");
    let at_desktop = desktop.get("Notes");
    wait_equal(&at_laptop, &at_desktop);
    laptop.stop();
    let backup = laptop.dir("backups").join("home");
    copy(&laptop.home(), &backup);

    laptop.run();
    fs::write(at_laptop.join("second"), "after the backup").expect("written");
    fs::write(at_laptop.join("first"), "changed after the backup").expect("written");
    wait_equal(&at_laptop, &at_desktop);
    laptop.stop();
    // While nobody listens, the restored one records what it finds: at places that its chain has already.
    put_back(&laptop, &backup);
    fs::write(at_laptop.join("third"), "of the restored one").expect("written");
    fs::remove_file(at_laptop.join("second")).expect("the backup of the folder does not have it");
    laptop.run();
    wait_equal(&at_laptop, &at_desktop);
    let contents = |root: &Path| -> Vec<String> {
        let texts = tree(root).into_iter().filter(|(path, hash)| hash.is_some() && !path.starts_with(".meshwork"));
        texts.map(|(path, _)| fs::read_to_string(root.join(path)).expect("a text")).collect()
    };
    for text in ["changed after the backup", "after the backup", "of the restored one"] {
        assert!(contents(&at_desktop).iter().any(|held| held == text), "{text} is lost: {:?}", contents(&at_desktop));
    }
    wait_for("its owner to be told", || problems(&laptop).contains("copy of this device").then_some(()));

    // It goes on, also after a restart, and nothing of it is in quarantine.
    laptop.stop();
    laptop.run();
    fs::write(at_laptop.join("fourth"), "and on it goes").expect("written");
    fs::write(at_desktop.join("fifth"), "from the other side").expect("written");
    wait_for("both", || (at_desktop.join("fourth").exists() && at_laptop.join("fifth").exists()).then_some(()));
    wait_equal(&at_laptop, &at_desktop);
    for device in [&laptop, &desktop] {
        assert_eq!(list(device, &["quarantine"]), Vec::<Value>::new());
    }
}
