//! A device is removed while the mesh is in parts.

use std::{
    fs,
    path::PathBuf,
    time::{SystemTime, UNIX_EPOCH},
};

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
    // Else it may be told before its connection is cut.
    mesh.phone.stop();
    mesh.laptop.mesh(&["device", "remove", "phone", "--yes"]).expect("the laptop is senior");
    assert_eq!(role(&mesh.laptop, "phone"), None);
    mesh.laptop.stop();
    mesh.desktop.run();
    mesh.phone.run();
    fs::write(mesh.folders[2].join("late"), "after it was removed").expect("written");
    wait_equal(&mesh.folders[2], &mesh.folders[1]);
}

fn peers(device: &Device) -> usize {
    device.mesh(&["status"]).ok().and_then(|status| status["peers"].as_array().map(Vec::len)).unwrap_or(0)
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
fn what_is_in_quarantine_is_taken_over_beside_what_is_current() {
    let mut mesh = three();
    removed_apart(&mut mesh);
    let [at_laptop, at_desktop, at_phone] = mesh.folders.clone();
    fs::create_dir(at_phone.join("deep")).expect("made");
    fs::write(at_phone.join("deep").join("er"), "in a directory of its own").expect("written");
    fs::write(at_phone.join("from phone"), "edited where nobody knew").expect("written");
    fs::write(at_phone.join("from laptop"), "also edited there").expect("written");
    wait_equal(&at_phone, &at_desktop);
    mesh.laptop.run();
    wait_for("the desktop to learn of it", || role(&mesh.desktop, "phone").is_none().then_some(()));
    wait_for("the late file to go", || (!at_desktop.join("late").exists()).then_some(()));
    wait_equal(&at_laptop, &at_desktop);
    fs::write(at_laptop.join("from laptop"), "newer, and nobody who removed has seen it").expect("written");
    wait_equal(&at_laptop, &at_desktop);
    let shown = |device: &Device| {
        let held = list(device, &["quarantine"]);
        let changes = held.iter().flat_map(|record| record["changes"].as_array().cloned().unwrap_or_default());
        changes.filter_map(|change| change.as_str().map(str::to_owned)).collect::<Vec<_>>()
    };
    let paths = ["late", "deep/", "deep/er", "from phone", "from laptop"];
    let all = |end: &str| {
        let shown = shown(&mesh.laptop);
        let is_shown = |path: &&str| shown.iter().any(|change| change.starts_with(*path) && change.ends_with(end));
        paths.iter().all(is_shown).then_some(())
    };
    wait_for("all of it in quarantine", || all(""));

    let none = mesh.laptop.mesh(&["quarantine", "adopt", "Notes", "nothing"]).expect_err("there is none");
    assert!(none.0 == 5 && none.1.contains("is in quarantine"), "{none:?}");
    mesh.desktop.stop();
    let none = mesh.laptop.mesh(&["quarantine", "adopt", "Notes", "late"]).expect_err("only the desktop has it");
    assert!(none.1.contains("the bytes of late"), "{none:?}");
    mesh.desktop.run();
    wait_for("the two to be connected", || (peers(&mesh.laptop) == 1).then_some(()));
    let taken = mesh.laptop.mesh(&["quarantine", "adopt", "Notes", "late", "deep"]).expect("the desktop has them");
    let at = |taken: &Value| taken["files"].as_array().map_or(0, Vec::len);
    assert_eq!(at(&taken), 3, "{taken}");
    let rest = mesh.laptop.mesh(&["quarantine", "adopt", "Notes", "--device", "phone"]).expect("and the rest");
    assert_eq!((at(&rest), &rest["here"]), (2, &3.into()), "{rest}");
    wait_equal(&at_laptop, &at_desktop);

    let read = |path: &str| fs::read_to_string(at_desktop.join(path)).unwrap_or_default();
    assert_eq!(read("late"), "after it was removed");
    assert_eq!(read("deep/er"), "in a directory of its own");
    assert_eq!(read("from phone"), "edited where nobody knew");
    assert_eq!(read("from laptop"), "newer, and nobody who removed has seen it");
    let beside = tree(&at_desktop).into_keys().find(|path| path.to_string_lossy().contains("laptop (conflict "));
    assert_eq!(beside.map(|path| read(&path.to_string_lossy())).as_deref(), Some("also edited there"));
    wait_for("what is shown to say so", || all(", here as well"));
    mesh.laptop.kill();
    mesh.laptop.run();
    wait_for("the laptop to be back", || mesh.laptop.is_idle("Notes").then_some(()));
    wait_equal(&at_laptop, &at_desktop);
    assert_eq!(read("late"), "after it was removed");
}

#[test]
fn a_device_that_is_let_in_again_connects_by_itself_and_goes_on() {
    let mut mesh = three();
    removed_apart(&mut mesh);
    mesh.laptop.run();
    let [at_laptop, at_desktop, at_phone] = mesh.folders.clone();
    wait_for("the desktop to learn of it", || role(&mesh.desktop, "phone").is_none().then_some(()));
    wait_for("the phone to be alone", || (peers(&mesh.phone) == 0).then_some(()));
    let (code, said) = mesh.desktop.mesh(&["device", "readmit", "phone", "--yes"]).expect_err("it is junior");
    assert!(code == 4 && said.contains("was removed by laptop"), "{code} {said}");
    let (code, said) = mesh.laptop.mesh(&["device", "readmit", "desktop", "--yes"]).expect_err("it is in");
    assert!(code == 5 && said.contains("No device desktop was removed"), "{code} {said}");

    mesh.laptop.mesh(&["device", "readmit", "phone", "--yes"]).expect("the laptop removed it");
    fs::write(at_laptop.join("meanwhile"), "under the new keys").expect("written");
    wait_for("the phone to be connected", || (peers(&mesh.phone) > 0).then_some(()));
    wait_equal(&at_laptop, &at_phone);
    assert!(!at_phone.join("late").exists(), "what it wrote while it was out does not stand, there neither");
    fs::write(at_phone.join("back"), "with the key that it had").expect("written");
    wait_equal(&at_phone, &at_laptop);
    wait_equal(&at_phone, &at_desktop);

    // Its own history has the bytes.
    let taken = mesh.phone.mesh(&["quarantine", "adopt", "Notes"]).expect("it may write");
    assert_eq!(taken["files"][0]["at"], "late", "{taken}");
    wait_equal(&at_phone, &at_laptop);
    assert_eq!(fs::read_to_string(at_laptop.join("late")).expect("taken over"), "after it was removed");

    // All of it outlives a restart.
    mesh.phone.kill();
    mesh.phone.run();
    fs::write(at_phone.join("and on"), "in the same chain").expect("written");
    wait_equal(&at_phone, &at_laptop);
    wait_equal(&at_phone, &at_desktop);
}

#[test]
fn a_demoted_admin_stays_and_so_does_whom_it_let_in() {
    let mesh = three();
    let [at_laptop, at_desktop, at_phone] = &mesh.folders;
    let (code, said) = mesh.desktop.mesh(&["device", "demote", "laptop"]).expect_err("it is junior");
    assert!(code == 4 && said.contains("senior"), "{code} {said}");
    mesh.laptop.mesh(&["device", "demote", "desktop"]).expect("the laptop is senior");
    let (_, said) = mesh.laptop.mesh(&["device", "demote", "desktop"]).expect_err("it is none any more");
    assert!(said.contains("desktop is no admin"), "{said}");
    wait_for("the desktop to learn of it", || (role(&mesh.desktop, "desktop") == Some("device".into())).then_some(()));
    wait_for("the phone to learn of it", || (role(&mesh.phone, "desktop") == Some("device".into())).then_some(()));
    assert_eq!(role(&mesh.laptop, "phone"), Some("device".into()));
    let (code, _) = mesh.desktop.mesh(&["device", "promote", "phone"]).expect_err("only an admin may");
    assert_eq!(code, 4);
    fs::write(at_desktop.join("as a device"), "like others").expect("written");
    wait_equal(at_desktop, at_laptop);
    wait_equal(at_desktop, at_phone);
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
fn the_log_tells_when_each_statement_came() {
    let begin = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_millis();
    let (mut laptop, desktop) = (Device::start("laptop"), Device::start("desktop"));
    laptop.pair(&desktop);
    laptop.add("Notes");
    let came = |device: &Device| -> Vec<Option<u64>> {
        list(device, &["log"]).iter().map(|entry| entry["came"].as_u64()).collect()
    };
    wait_for("the folder to be known", || (came(&desktop).len() == came(&laptop).len()).then_some(()));
    for device in [&laptop, &desktop] {
        let came = came(device);
        assert!(
            came.len() > 4 && came.iter().all(|came| came.is_some_and(|came| u128::from(came) >= begin)),
            "{came:?}"
        );
    }
    let before = came(&laptop);
    laptop.stop();
    laptop.run();
    assert_eq!(came(&laptop), before, "it is remembered");
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
