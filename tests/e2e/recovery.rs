//! The recovery phrase: a mesh comes back on a blank device, and its phrase is replaced.

use std::{fs, time::Instant};

use meshwork_tests::device::{Device, Events, figure, make_files, tree, wait_equal, wait_for};
use serde_json::Value;

use super::authority::{list, role};

/// The phrase of another mesh.
const OTHER: &str = "abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon about";

fn words(shown: &Value) -> String {
    let words: Vec<String> = serde_json::from_value(shown["words"].clone()).expect("words");
    assert_eq!(words.len(), 12);
    words.join(" ")
}

fn confirm(device: &Device, phrase: &str) {
    let words: Vec<&str> = phrase.split(' ').collect();
    let given = format!("3:{},11:{}", words[2], words[10]);
    device.mesh(&["recovery", "confirm", "--words", &given]).expect("these are the words");
    assert_eq!(device.mesh(&["status"]).expect("it runs")["root_on_disk"], false);
}

fn refused(device: &Device, command: &[&str], phrase: &str, says: &str) -> i32 {
    let (code, said) = device.mesh_reading(command, phrase).expect_err("refused");
    assert!(said.contains(says) && !said.contains("panicked"), "{command:?}: {code} {said}");
    code
}

/// Restores a blank device through `host`.
fn restore(blank: &Device, host: &Device, phrase: &str) -> Value {
    blank.mesh_reading(&["recovery", "restore", "--at", &host.address()], phrase).expect("the phrase owns the mesh")
}

/// Whether a text is in any file of the device's home, or in what it logged.
fn is_kept(device: &Device, text: &str) -> bool {
    let home = device.home();
    let mut files = tree(&home).into_keys().map(|path| home.join(path));
    let holds = |bytes: Vec<u8>| bytes.windows(text.len()).any(|part| part == text.as_bytes());
    device.log().contains(text) || files.any(|path| fs::read(path).is_ok_and(holds))
}

#[test]
fn the_phrase_brings_the_mesh_back_when_its_first_device_is_gone() {
    let laptop = Device::start("laptop");
    let (desktop, phone) = (Device::start_logging("desktop", Some("info,meshwork=debug")), Device::start("phone"));
    laptop.pair(&desktop);
    laptop.mesh(&["device", "promote", "desktop"]).expect("the first device is an admin");
    wait_for("the desktop to be an admin", || (role(&desktop, "desktop") == Some("admin".into())).then_some(()));
    desktop.pair(&phone);
    let at_laptop = laptop.add("Notes");
    make_files(&at_laptop, 200, 3_000, 1).expect("written");
    let at_desktop = desktop.get("Notes");
    wait_equal(&at_laptop, &at_desktop);
    let phrase = words(&laptop.mesh(&["recovery", "write"]).expect("the phrase is there"));
    confirm(&laptop, &phrase);
    drop(laptop);

    let tablet = Device::start("tablet");
    let at = desktop.address();
    assert_eq!(
        refused(&tablet, &["recovery", "restore", "--at", &at], "twelve wrong words", "not a recovery phrase"),
        1
    );
    assert_eq!(refused(&tablet, &["recovery", "restore", "--at", "127.0.0.1:9"], &phrase, "can be reached"), 5);
    assert_eq!(refused(&tablet, &["recovery", "restore", "--at", &at], OTHER, "owns no mesh"), 4);
    wait_for("the refusal to be noted", || desktop.log().contains("device is not allowed").then_some(()));
    assert!(tablet.mesh(&["status"]).expect("it runs")["mesh"] == "" && role(&desktop, "tablet").is_none());

    let (to_desktop, to_phone) = (Events::of(&desktop), Events::of(&phone));
    let start = Instant::now();
    assert_eq!(restore(&tablet, &desktop, &phrase)["name"], "desktop");
    figure("restore", start.elapsed().as_millis(), "ms");
    let id = tablet.mesh(&["status"]).expect("it runs")["device"].clone();
    for events in [&to_desktop, &to_phone] {
        let event = events.next("device.restored");
        assert_eq!(event["fields"]["device"], id);
        assert!(event["text"].to_string().contains("was added with the recovery phrase"), "{event}");
    }
    for device in [&tablet, &desktop, &phone] {
        wait_for("the tablet to be an admin", || (role(device, "tablet") == Some("admin".into())).then_some(()));
    }
    let mesh = |device: &Device| device.mesh(&["status"]).expect("it runs")["mesh"].clone();
    assert_eq!(mesh(&tablet), mesh(&desktop));
    wait_for("the folder to be known", || {
        list(&tablet, &["folder", "ls"]).into_iter().find(|it| it["title"] == "Notes")
    });
    let at_tablet = tablet.get("Notes");
    wait_equal(&at_desktop, &at_tablet);
    fs::write(at_tablet.join("new"), "from the tablet").expect("written");
    wait_equal(&at_desktop, &at_tablet);

    assert_eq!(refused(&tablet, &["recovery", "restore", "--at", &at], &phrase, "belongs to a mesh already"), 1);
    assert_eq!(tablet.mesh(&["status"]).expect("it runs")["root_on_disk"], false);
    assert_eq!(refused(&tablet, &["recovery", "write"], "", "is not on this device"), 4);
    let half = phrase.split(' ').take(2).collect::<Vec<_>>().join(" ");
    assert!(!is_kept(&tablet, &half) && !is_kept(&desktop, &half), "words of the phrase were written");
    fs::write(tablet.home().join("paper"), &phrase).expect("written");
    assert!(is_kept(&tablet, &half), "the same search finds them where they are");
    tablet.mesh_reading(&["recovery", "use", "--remove", "laptop"], &phrase).expect("the root is senior to all");
    wait_for("the laptop to be out", || role(&desktop, "laptop").is_none().then_some(()));
}

#[test]
fn a_device_that_came_back_is_an_ordinary_one_after_a_restart() {
    let (laptop, mut tablet) = (Device::start("laptop"), Device::start("tablet"));
    let at_laptop = laptop.add("Notes");
    fs::write(at_laptop.join("note"), "first").expect("written");
    let phrase = words(&laptop.mesh(&["recovery", "write"]).expect("the phrase is there"));
    restore(&tablet, &laptop, &phrase);
    tablet.kill();
    tablet.run();
    let at_tablet = tablet.get("Notes");
    wait_equal(&at_laptop, &at_tablet);
    let phone = Device::start("phone");
    tablet.pair(&phone);
    let at_phone = phone.get("Notes");
    wait_equal(&at_laptop, &at_phone);
}

#[test]
fn a_new_phrase_takes_the_place_of_the_old_one() {
    let (laptop, desktop) = (Device::start("laptop"), Device::start("desktop"));
    laptop.pair(&desktop);
    let old = words(&laptop.mesh(&["recovery", "write"]).expect("the phrase is there"));
    assert_eq!(refused(&desktop, &["recovery", "rotate"], OTHER, "does not own this mesh"), 4);
    let new = words(&desktop.mesh_reading(&["recovery", "rotate"], &old).expect("the phrase owns the mesh"));
    assert_ne!(old, new);
    assert_eq!(words(&desktop.mesh(&["recovery", "write"]).expect("it waits to be written down")), new);
    confirm(&desktop, &new);
    wait_for("the old phrase to be wiped", || {
        (laptop.mesh(&["status"]).expect("it runs")["root_on_disk"] == false).then_some(())
    });
    refused(&laptop, &["recovery", "write"], "", "is not on this device");
    for device in [&laptop, &desktop] {
        assert_eq!(refused(device, &["recovery", "use"], &old, "was replaced"), 4);
        assert_eq!(refused(device, &["recovery", "rotate"], &old, "was replaced"), 4);
    }
    let tablet = Device::start("tablet");
    assert_eq!(refused(&tablet, &["recovery", "restore", "--at", &laptop.address()], &old, "was replaced"), 4);
    desktop.mesh_reading(&["recovery", "use"], &new).expect("the new root grants");
    desktop.mesh_reading(&["recovery", "use", "--remove", "laptop"], &new).expect("the new root is senior to all");
    assert_eq!((role(&desktop, "laptop"), role(&desktop, "desktop")), (None, Some("admin".into())));
    restore(&tablet, &desktop, &new);
    wait_for("the tablet to be an admin", || (role(&desktop, "tablet") == Some("admin".into())).then_some(()));
    assert!(!is_kept(&desktop, &new.split(' ').take(2).collect::<Vec<_>>().join(" ")));
}

#[test]
fn two_new_phrases_at_once_freeze_the_mesh_and_it_says_so() {
    let (mut laptop, mut desktop) = (Device::start("laptop"), Device::start("desktop"));
    laptop.pair(&desktop);
    wait_for("the desktop to know the laptop", || role(&desktop, "laptop"));
    let old = words(&laptop.mesh(&["recovery", "write"]).expect("the phrase is there"));
    laptop.stop();
    let one = words(&desktop.mesh_reading(&["recovery", "rotate"], &old).expect("the phrase owns the mesh"));
    desktop.stop();
    laptop.run();
    let other = words(&laptop.mesh_reading(&["recovery", "rotate"], &old).expect("the phrase owns the mesh"));
    assert_eq!(laptop.mesh(&["status"]).expect("it runs")["frozen"], false);
    desktop.run();
    let tablet = Device::start("tablet");
    for device in [&laptop, &desktop] {
        wait_for("it to be frozen", || (device.mesh(&["status"]).ok()?["frozen"] == true).then_some(()));
        for phrase in [&old, &one, &other] {
            assert_eq!(refused(device, &["recovery", "use"], phrase, "frozen"), 4);
            let at = device.address();
            assert_eq!(refused(&tablet, &["recovery", "restore", "--at", &at], phrase, "frozen"), 4);
        }
    }
    // Who was an admin goes on.
    laptop.pair(&tablet);
    wait_for("the desktop to know the tablet", || role(&desktop, "tablet"));
}
