//! A log of very many edits: what of it is dead is let go of on all devices, and who comes later begins with what lives.

use std::{fs, path::Path};

use meshwork_tests::device::{Device, tree, wait_equal, wait_for};

/// Edits of one file, each a record: more than a device writes before it lists what of them lives.
const EDITS: usize = 1_100;
/// So that a node tells what it lets go of.
const FILTER: Option<&str> = Some("meshwork_replica=debug");

fn shows(path: &Path, text: &str) -> Option<()> {
    fs::read_to_string(path).is_ok_and(|shown| shown == text).then_some(())
}

fn has_let_go(device: &Device) -> Option<()> {
    device.log().contains("let go of what a checkpoint has taken the place of").then_some(())
}

#[test]
fn a_log_of_many_edits_is_let_go_of_and_a_newcomer_begins_with_what_lives() {
    let (mut laptop, mut desktop) = (Device::start_logging("laptop", FILTER), Device::start_logging("desktop", FILTER));
    laptop.pair(&desktop);
    let mut phone = Device::start("phone");
    laptop.pair(&phone);
    let at_laptop = laptop.add("Notes");
    fs::write(at_laptop.join("kept"), "from the beginning").expect("written");
    fs::write(at_laptop.join("removed"), "soon gone").expect("written");
    let at_desktop = desktop.get("Notes");
    wait_equal(&at_laptop, &at_desktop);
    fs::remove_file(at_desktop.join("removed")).expect("removed");
    let at_phone = phone.get("Notes");
    wait_equal(&at_laptop, &at_phone);
    phone.kill();
    for number in 0..EDITS {
        let text = format!("edit {number}");
        fs::write(at_laptop.join("note"), &text).expect("written");
        wait_for("an edit to be visible", || shows(&at_desktop.join("note"), &text));
    }
    // Who is not there may know better, until it is said that nobody need wait for it.
    assert!([&laptop, &desktop].into_iter().all(|device| has_let_go(device).is_none()));
    laptop.mesh(&["device", "away", "phone"]).expect("the first device is an admin");
    let (code, _) = desktop.mesh(&["device", "away", "phone"]).expect_err("only an admin may");
    assert_eq!(code, 4);
    for device in [&laptop, &desktop] {
        wait_for("the old records to be let go of", || has_let_go(device));
    }

    // What is left is all there is to know, also after a restart and for a newcomer.
    laptop.stop();
    laptop.run();
    desktop.kill();
    desktop.run();
    let tablet = Device::start("tablet");
    laptop.pair(&tablet);
    let at_tablet = tablet.get("Notes");
    wait_equal(&at_laptop, &at_tablet);
    assert!(!at_tablet.join("removed").exists() && at_tablet.join("kept").exists());
    fs::write(at_tablet.join("note"), "from the newcomer").expect("written");
    for shown in [&at_laptop, &at_desktop] {
        wait_for("the newcomer's edit", || shows(&shown.join("note"), "from the newcomer"));
    }
    wait_equal(&at_laptop, &at_desktop);
    // What was away comes back with an edit of before.
    fs::write(at_phone.join("note"), "from long ago").expect("written");
    phone.run();
    let holds = |at: &Path, text: &str| tree(at).keys().any(|name| shows(&at.join(name), text).is_some());
    for at in [&at_laptop, &at_desktop, &at_tablet, &at_phone] {
        for text in ["from long ago", "from the newcomer"] {
            wait_for("both edits", || holds(at, text).then_some(()));
        }
        assert!(!at.join("removed").exists());
    }
}
