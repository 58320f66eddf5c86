//! A device is removed while the mesh is in parts.

use std::{fs, path::PathBuf};

use meshwork_tests::device::{Device, figure, noise, tree, wait_equal, wait_for};
use serde_json::Value;

use super::secrecy::Capture;

/// Laptop, desktop and phone with one folder. The phone knows the desktop only; both were made admins or let
/// in by the one before.
struct Three {
    laptop: Device,
    desktop: Device,
    phone: Device,
    folders: [PathBuf; 3],
}

fn three() -> Three {
    let (laptop, desktop, phone) = (Device::start("laptop"), Device::start("desktop"), Device::start("phone"));
    laptop.pair(&desktop);
    laptop.mesh(&["device", "promote", "desktop"]).expect("the first device is an admin");
    wait_for("the desktop to be an admin", || (role(&desktop, "desktop") == Some("admin".into())).then_some(()));
    desktop.pair(&phone);
    let at_laptop = laptop.add("Notes");
    fs::write(at_laptop.join("from laptop"), "first").expect("written");
    let (at_desktop, at_phone) = (desktop.get("Notes"), phone.get("Notes"));
    wait_equal(&at_laptop, &at_phone);
    fs::write(at_phone.join("from phone"), "before it was removed").expect("written");
    wait_equal(&at_phone, &at_laptop);
    wait_equal(&at_phone, &at_desktop);
    wait_for("the laptop to know the phone", || role(&laptop, "phone"));
    Three { laptop, desktop, phone, folders: [at_laptop, at_desktop, at_phone] }
}

pub(super) fn list(device: &Device, command: &[&str]) -> Vec<Value> {
    match device.mesh(command) {
        Ok(Value::Array(values)) => values,
        Ok(value) => vec![value],
        Err(_) => Vec::new(),
    }
}

pub(super) fn role(device: &Device, name: &str) -> Option<Value> {
    list(device, &["devices"]).into_iter().find(|entry| entry["name"] == name).map(|entry| entry["role"].clone())
}

/// The phone is removed at the laptop, which nobody reaches, and writes something that the desktop gets.
fn removed_apart(mesh: &mut Three) {
    mesh.desktop.stop();
    mesh.laptop.mesh(&["device", "remove", "phone", "--yes"]).expect("the laptop is senior");
    assert_eq!(role(&mesh.laptop, "phone"), None);
    mesh.laptop.stop();
    mesh.desktop.run();
    fs::write(mesh.folders[2].join("late"), "after it was removed").expect("written");
    wait_equal(&mesh.folders[2], &mesh.folders[1]);
}

fn log_bytes(device: &Device) -> u64 {
    let segments = fs::read_dir(device.home().join("log")).expect("a log");
    segments.flatten().map(|segment| segment.metadata().map_or(0, |meta| meta.len())).sum()
}

#[test]
fn what_a_removed_device_wrote_since_is_in_quarantine() {
    let mut mesh = three();
    removed_apart(&mut mesh);
    mesh.laptop.run();
    let [at_laptop, at_desktop, at_phone] = &mesh.folders;
    wait_for("the desktop to learn of it", || role(&mesh.desktop, "phone").is_none().then_some(()));
    wait_for("the late file to go", || (!at_desktop.join("late").exists()).then_some(()));
    wait_equal(at_laptop, at_desktop);
    assert_eq!(fs::read_to_string(at_laptop.join("from phone")).expect("it stands"), "before it was removed");
    for device in [&mesh.laptop, &mesh.desktop] {
        let held = wait_for("the quarantine to be shown", || list(device, &["quarantine"]).into_iter().next());
        assert_eq!((&held["name"], &held["changes"][0]), (&"phone".into(), &"late (20 bytes)".into()), "{held}");
    }
    // The bytes are kept where they had been placed.
    let history = tree(&mesh.desktop.home().join("history"));
    let late = blake3::hash(b"after it was removed");
    let kept =
        history.values().flatten().chain(tree(&at_desktop.join(".meshwork")).values().flatten()).any(|it| *it == late);
    assert!(kept, "the late file is in no history: {history:?}");

    // It is sent nothing any more, neither content nor statement.
    let before = log_bytes(&mesh.phone);
    let port = |device: &Device| device.address().rsplit(':').next().expect("a port").to_owned();
    let captures = mesh.laptop.dir("captures");
    let [of_phone, of_desktop] = [&mesh.phone, &mesh.desktop].map(|device| {
        let file = captures.join(port(device));
        (Capture::start(&file, &format!("port {}", port(device))), file)
    });
    let secret = noise(7, 4 << 20);
    fs::write(at_laptop.join("secret"), &secret).expect("written");
    wait_equal(at_laptop, at_desktop);
    wait_for("the phone to be alone", || {
        mesh.phone.mesh(&["status"]).is_ok_and(|status| status["peers"] == Value::Array(Vec::new())).then_some(())
    });
    let bytes = |(capture, file): (Capture, PathBuf)| {
        capture.stop();
        fs::metadata(file).expect("a capture").len()
    };
    let (to_phone, to_desktop) = (bytes(of_phone), bytes(of_desktop));
    figure("removed_device_captured", to_phone, "bytes");
    // The direct connection for large contents has a port of its own.
    assert!(to_phone < 1 << 20, "{to_phone} bytes to and from the phone, {to_desktop} of the desktop");
    assert!(to_desktop > 0, "the capture sees what devices of the mesh say to each other");
    assert!(!at_phone.join("secret").exists());
    assert_eq!(log_bytes(&mesh.phone), before, "the phone was told something");
    let secret = blake3::hash(&secret);
    assert!(!tree(&mesh.phone.home()).values().flatten().any(|held| *held == secret), "the phone has its content");
    assert!(tree(at_desktop).values().flatten().any(|held| *held == secret), "the desktop has it");

    // All of it outlives a restart.
    mesh.desktop.kill();
    mesh.desktop.run();
    wait_for("the desktop to be back", || mesh.desktop.is_idle("Notes").then_some(()));
    wait_equal(at_laptop, at_desktop);
    assert!(!at_desktop.join("late").exists());
    assert_eq!(list(&mesh.desktop, &["quarantine"]).len(), 1);
}

#[test]
fn what_others_have_built_on_stands() {
    let mut mesh = three();
    removed_apart(&mut mesh);
    fs::write(mesh.folders[1].join("on top"), "written with the late file at hand").expect("written");
    wait_equal(&mesh.folders[1], &mesh.folders[2]);
    mesh.laptop.run();
    let [at_laptop, at_desktop, _] = &mesh.folders;
    wait_for("the desktop to learn of it", || role(&mesh.desktop, "phone").is_none().then_some(()));
    wait_equal(at_laptop, at_desktop);
    assert_eq!(fs::read_to_string(at_laptop.join("late")).expect("it stands"), "after it was removed");
    assert_eq!(list(&mesh.laptop, &["quarantine"]), Vec::<Value>::new());
}

#[test]
fn a_junior_does_not_remove_a_senior() {
    let (laptop, desktop) = (Device::start("laptop"), Device::start("desktop"));
    laptop.pair(&desktop);
    wait_for("the desktop to know the laptop", || role(&desktop, "laptop"));
    for admin in [false, true] {
        let (code, said) = desktop.mesh(&["device", "remove", "laptop", "--yes"]).expect_err("refused");
        assert!(code == 4 && said.contains("senior"), "{code} {said}");
        if !admin {
            laptop.mesh(&["device", "promote", "desktop"]).expect("made an admin");
            wait_for("it to be known", || (role(&desktop, "desktop") == Some("admin".into())).then_some(()));
        }
    }
    let why = list(&desktop, &["cap", "explain", "desktop"]);
    let steps: Vec<_> = why.iter().map(|cap| (cap["author_name"].clone(), cap["name"].clone())).collect();
    assert_eq!(steps, [("the recovery phrase".into(), "laptop".into()), ("laptop".into(), "desktop".into())]);
    assert!(list(&laptop, &["log"]).iter().any(|entry| entry["what"] == "made desktop an admin"));
    let then = list(&laptop, &["log", "--at", "1"]);
    assert_eq!(then.iter().map(|device| &device["name"]).collect::<Vec<_>>(), [&Value::from("laptop")]);
    let (code, _) = laptop.mesh(&["device", "remove", "tablet", "--yes"]).expect_err("there is none");
    assert_eq!(code, 5);
}

#[test]
fn the_phrase_takes_the_mesh_back_from_a_stolen_first_device() {
    let (laptop, desktop) = (Device::start("laptop"), Device::start("desktop"));
    laptop.pair(&desktop);
    let at_laptop = laptop.add("Notes");
    fs::write(at_laptop.join("note"), "of the owner").expect("written");
    let at_desktop = desktop.get("Notes");
    wait_equal(&at_laptop, &at_desktop);
    let words = laptop.mesh(&["recovery", "write"]).expect("the phrase is there")["words"].clone();
    let words: Vec<String> = serde_json::from_value(words).expect("words");
    let phrase = words.join(" ");

    let other = "abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon about";
    let (code, said) = desktop.mesh_reading(&["recovery", "use"], other).expect_err("another mesh's phrase");
    assert!(code == 4 && said.contains("does not own"), "{code} {said}");
    let (_, said) = desktop.mesh_reading(&["recovery", "use"], "twelve wrong words").expect_err("no phrase");
    assert!(said.contains("not a recovery phrase"), "{said}");

    desktop.mesh_reading(&["recovery", "use", "--remove", "laptop"], &phrase).expect("the root is senior to all");
    desktop.mesh_reading(&["recovery", "use"], &phrase).expect("the root grants");
    assert_eq!((role(&desktop, "laptop"), role(&desktop, "desktop")), (None, Some("admin".into())));
    assert!(!desktop.log().contains(&words[..2].join(" ")), "the phrase is in the log");

    let tablet = Device::start("tablet");
    desktop.pair(&tablet);
    let at_tablet = tablet.get("Notes");
    wait_equal(&at_desktop, &at_tablet);
    fs::write(at_laptop.join("thief"), "of the thief").expect("written");
    fs::write(at_desktop.join("new"), "of the owner").expect("written");
    wait_equal(&at_desktop, &at_tablet);
    assert!(at_tablet.join("note").exists() && !at_tablet.join("thief").exists() && !at_laptop.join("new").exists());
}
