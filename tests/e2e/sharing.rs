//! Two persons, a mesh each, share a folder.

use std::{fs, path::PathBuf};

use meshwork_tests::device::{Device, wait_equal, wait_for};
use serde_json::Value;

use super::authority::list;

pub(super) fn text(value: &Value, field: &str) -> String {
    value[field].as_str().unwrap_or_default().to_owned()
}

/// Ann makes a contact of Bo, and gives him the link to a folder of hers.
fn invite(ann: &Device, bo: &Device, folder: &str, role: &str) -> String {
    let card = bo.mesh(&["contact", "card", "--name", "bo"]).expect("a card");
    ann.mesh(&["contact", "add", &text(&card, "link")]).expect("a contact");
    ann.mesh(&["contact", "card", "--name", "ann"]).expect("a name");
    text(&ann.mesh(&["share", folder, "--with", "bo", "--role", role]).expect("an invitation"), "link")
}

fn accept(device: &Device, link: &str, name: &str) -> PathBuf {
    let dir = device.dir(name);
    device.mesh(&["accept", link, &dir.display().to_string()]).expect("the folder and its key come");
    dir
}

fn members(device: &Device, folder: &str) -> Vec<(String, String, bool)> {
    let members = list(device, &["members", folder]);
    members.iter().map(|m| (text(m, "name"), text(m, "role"), m["pending"] == true)).collect()
}

fn peers(device: &Device) -> usize {
    device.mesh(&["status"]).ok().and_then(|status| status["peers"].as_array().map(Vec::len)).unwrap_or(0)
}

#[test]
fn a_folder_is_shared_between_all_devices_of_two_persons() {
    let (laptop, desktop) = (Device::start("laptop"), Device::start("desktop"));
    let (phone, tablet) = (Device::start("phone"), Device::start("tablet"));
    laptop.pair(&desktop);
    phone.pair(&tablet);
    let (trip, secret) = (laptop.add("Trip"), laptop.add("Secret"));
    fs::write(trip.join("plan.md"), "we walk").expect("written");
    fs::write(secret.join("diary"), "not for bo").expect("written");
    let link = invite(&laptop, &phone, "Trip", "edit");
    assert_eq!(members(&laptop, "Trip"), [("you".into(), "own".into(), false), ("bo".into(), "edit".into(), true)]);
    let at_phone = accept(&phone, &link, "Trip");
    wait_equal(&trip, &at_phone);
    fs::write(at_phone.join("plan.md"), "we take the boat").expect("written");
    wait_equal(&at_phone, &trip);

    // The other devices of both, and one that comes later.
    let (at_desktop, at_tablet) = (desktop.get("Trip"), tablet.get("Trip"));
    wait_equal(&trip, &at_desktop);
    wait_equal(&trip, &at_tablet);
    let watch = Device::start("watch");
    phone.pair(&watch);
    let at_watch = watch.get("Trip");
    wait_equal(&trip, &at_watch);
    fs::write(at_watch.join("seen"), "from the newest device").expect("written");
    wait_equal(&at_watch, &trip);
    wait_equal(&at_watch, &at_desktop);

    // Who takes part, and nothing else of either mesh.
    assert_eq!(members(&laptop, "Trip"), [("you".into(), "own".into(), false), ("bo".into(), "edit".into(), false)]);
    assert_eq!(members(&tablet, "Trip"), [("ann".into(), "own".into(), false), ("you".into(), "edit".into(), false)]);
    let titles = |device: &Device| list(device, &["folder", "ls"]).iter().map(|f| text(f, "title")).collect::<Vec<_>>();
    assert_eq!((titles(&phone), titles(&tablet)), (vec!["Trip".to_owned()], vec!["Trip".to_owned()]));
    let all = list(&laptop, &["folder", "ls"]);
    let id_of_secret = all.iter().find(|folder| folder["title"] == "Secret").map(|folder| text(folder, "id"));
    let id_of_secret = id_of_secret.expect("the folder is there");
    let logs = |device: &Device| list(device, &["log"]).iter().map(|entry| text(entry, "log")).collect::<Vec<_>>();
    assert!(logs(&laptop).contains(&id_of_secret) && !logs(&phone).contains(&id_of_secret));
    assert_eq!(list(&phone, &["devices"]).len(), 3);

    // All of it outlives a restart of everybody.
    let mut all = [laptop, desktop, phone, tablet, watch];
    all.iter_mut().for_each(Device::kill);
    all.iter_mut().for_each(Device::run);
    for device in &all {
        wait_for("the folder to be back", || device.is_idle("Trip").then_some(()));
        wait_for("all the others", || (peers(device) == 4).then_some(()));
    }
}

#[test]
fn who_may_read_only_gets_everything_and_changes_nothing() {
    let (ann, bo) = (Device::start("ann"), Device::start("bo"));
    let book = ann.add("Book");
    fs::write(book.join("one"), "first").expect("written");
    let at_bo = accept(&bo, &invite(&ann, &bo, "Book", "read"), "Book");
    wait_equal(&book, &at_bo);
    fs::write(at_bo.join("scribble"), "in the margin").expect("written");
    wait_for("the reader to be told", || {
        let status = bo.mesh(&["folder", "status", "Book"]).ok()?;
        status.to_string().contains("no right to write").then_some(())
    });
    fs::write(book.join("two"), "second").expect("written");
    wait_for("the next page", || at_bo.join("two").exists().then_some(()));
    assert!(!book.join("scribble").exists());
    assert!(at_bo.join("scribble").exists(), "what a reader writes stays his");
    let refused = bo.mesh(&["share", "Book", "--with", "ann"]).expect_err("a reader lets nobody in");
    assert!(refused.1.contains("does not permit"), "{}", refused.1);

    // With a better role it is taken.
    ann.mesh(&["share", "Book", "--with", "bo", "--role", "edit"]).expect("the owner may");
    fs::write(at_bo.join("scribble"), "in the margin, again").expect("written");
    wait_equal(&at_bo, &book);
}

#[test]
fn who_is_taken_out_gets_nothing_more_and_what_he_wrote_since_does_not_stand() {
    let (mut ann, mut bo) = (Device::start("ann"), Device::start("bo"));
    let trip = ann.add("Trip");
    fs::write(trip.join("plan"), "we walk").expect("written");
    let at_bo = accept(&bo, &invite(&ann, &bo, "Trip", "edit"), "Trip");
    fs::write(at_bo.join("before"), "while he took part").expect("written");
    wait_equal(&at_bo, &trip);

    // Apart: he is taken out there, and writes on here.
    bo.stop();
    ann.mesh(&["unshare", "Trip", "--with", "bo", "--yes"]).expect("the owner may");
    ann.stop();
    bo.run();
    fs::write(at_bo.join("after"), "he does not know yet").expect("written");
    wait_for("it to be recorded", || bo.is_idle("Trip").then_some(()));
    ann.run();
    fs::write(trip.join("new"), "not for him").expect("written");
    wait_for("it to be recorded", || ann.is_idle("Trip").then_some(()));
    assert_eq!(members(&ann, "Trip"), [("you".into(), "own".into(), false)]);

    // In again: what he wrote in between is shown and does not stand, what he writes now does.
    assert_eq!(peers(&ann), 0, "there is nothing to connect for");
    ann.mesh(&["share", "Trip", "--with", "bo"]).expect("the owner may");
    wait_for("the new file", || at_bo.join("new").exists().then_some(()));
    let held = wait_for("the quarantine", || list(&ann, &["quarantine"]).into_iter().next());
    assert_eq!((text(&held, "title"), &held["changes"][0]), ("Trip".into(), &"after (20 bytes)".into()), "{held}");
    assert!(!trip.join("after").exists() && trip.join("before").exists());
    fs::write(at_bo.join("again"), "he is back").expect("written");
    wait_for("what he writes now", || trip.join("again").exists().then_some(()));
    wait_equal(&trip, &at_bo);
}

#[test]
fn who_leaves_keeps_his_files_and_may_come_back() {
    let (ann, mut bo) = (Device::start("ann"), Device::start("bo"));
    let trip = ann.add("Trip");
    fs::write(trip.join("plan"), "we walk").expect("written");
    let link = invite(&ann, &bo, "Trip", "edit");
    let at_bo = accept(&bo, &link, "Trip");
    wait_equal(&trip, &at_bo);
    bo.mesh(&["leave", "Trip", "--yes"]).expect("he may");
    wait_for("the owner to learn of it", || (members(&ann, "Trip").len() == 1).then_some(()));
    assert_eq!(list(&bo, &["folder", "ls"]), Vec::<Value>::new());
    bo.kill();
    bo.run();
    assert_eq!(list(&bo, &["folder", "ls"]), Vec::<Value>::new());
    assert_eq!(fs::read_to_string(at_bo.join("plan")).expect("it stays"), "we walk");
    fs::write(trip.join("later"), "without him").expect("written");
    wait_for("it to be recorded", || ann.is_idle("Trip").then_some(()));
    assert!(!at_bo.join("later").exists());

    let owned = ann.mesh(&["leave", "Trip", "--yes"]).expect_err("it is hers");
    assert!(owned.1.contains("cannot leave"), "{}", owned.1);

    // The directory is an ordinary one: he takes part again in the same place.
    let link = text(&ann.mesh(&["share", "Trip", "--with", "bo"]).expect("an invitation"), "link");
    bo.mesh(&["accept", &link, &at_bo.display().to_string()]).expect("the folder comes");
    wait_equal(&trip, &at_bo);
    fs::write(at_bo.join("back"), "again").expect("written");
    wait_equal(&at_bo, &trip);
}

#[test]
fn bad_links_and_names_are_refused_with_a_sentence() {
    let ann = Device::start("ann");
    let card = text(&ann.mesh(&["contact", "card"]).expect("a card"), "link");
    ann.add("Trip");
    let shown = |command: &[&str], sentence: &str| {
        let (code, said) = ann.mesh(command).expect_err("it is refused");
        assert!(said.contains(sentence) && code != 0, "{command:?}: {said}");
    };
    shown(&["contact", "add", "hello"], "begins with mesh-contact:1?");
    shown(&["contact", "add", &card[..card.len() / 2]], "damaged");
    shown(&["contact", "add", &card], "your own mesh");
    shown(&["accept", &card], "begins with mesh-share:1?");
    shown(&["share", "Trip", "--with", "nobody"], "no contact named nobody");
    shown(&["share", "Nothing", "--with", "nobody"], "no folder named Nothing");
    shown(&["share", "Trip", "--with", "nobody", "--role", "god"], "god");
    shown(&["unshare", "Trip", "--with", "nobody", "--yes"], "no contact named nobody");
    shown(&["leave", "Trip", "--yes"], "cannot leave");
}
