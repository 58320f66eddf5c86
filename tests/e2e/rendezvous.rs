//! Devices that have all moved find each other at a bootstrap, and a device learns there how it is seen.

use meshwork_tests::{
    device::{Device, wait_for},
    server::Server,
};
use serde_json::Value;

use super::{authority::list, sharing::text};

/// How the one bootstrap of the mesh answered this device last.
fn state(device: &Device) -> String {
    list(device, &["bootstrap", "ls"]).first().map(|bootstrap| text(bootstrap, "state")).unwrap_or_default()
}

fn is_connected(device: &Device) -> bool {
    device.mesh(&["status"]).is_ok_and(|status| status["peers"].as_array().is_some_and(|peers| !peers.is_empty()))
}

/// Both stop, go to where nobody has ever seen them, and forget where the other was.
fn move_away(devices: &mut [Device; 2]) {
    for device in devices.iter_mut() {
        device.stop();
        device.move_away();
    }
    devices.iter_mut().for_each(Device::run);
}

#[test]
fn devices_that_have_moved_find_each_other_at_a_bootstrap_and_not_without() {
    let mut devices = ["desk", "lap"].map(Device::start);
    devices[0].pair(&devices[1]);
    let mut bootstrap = Server::bootstrap();
    devices[0].mesh(&["bootstrap", "add", &bootstrap.address()]).expect("it is taken in");
    for device in &devices {
        wait_for("notes to be left", || (state(device) == "in use").then_some(()));
    }
    move_away(&mut devices);
    wait_for("the two to find each other", || devices.iter().all(is_connected).then_some(()));

    // It keeps nothing on its disk: they leave their notes again.
    bootstrap.kill();
    bootstrap.run();
    move_away(&mut devices);
    wait_for("the two to find each other", || devices.iter().all(is_connected).then_some(()));

    bootstrap.kill();
    move_away(&mut devices);
    for device in &devices {
        wait_for("the bootstrap to be missed", || (state(device) == "away").then_some(()));
        assert!(!is_connected(device), "nothing else leads to the other");
    }
    devices[1]
        .mesh(&["bootstrap", "remove", &text(&list(&devices[1], &["bootstrap", "ls"])[0], "bootstrap")])
        .expect("out");
    assert_eq!(list(&devices[1], &["bootstrap", "ls"]), Vec::<Value>::new());
}

#[test]
fn a_code_leads_to_its_device_through_a_bootstrap() {
    let (desk, lap) = (Device::start("desk"), Device::start("lap"));
    let bootstrap = Server::bootstrap();
    desk.mesh(&["bootstrap", "add", &bootstrap.address()]).expect("it is taken in");
    let (code, _) = desk.offer();
    let (_, said) = lap.mesh(&["join", &code, "--bootstrap", "/ip4/127.0.0.1/tcp/1"]).expect_err("it names nobody");
    assert!(said.contains("/p2p/"), "{said}");
    lap.mesh(&["join", &code, "--bootstrap", &bootstrap.address()]).expect("the code is found");
    wait_for("the two to be connected", || (is_connected(&desk) && is_connected(&lap)).then_some(()));
}

#[test]
fn the_doctor_tells_how_a_device_is_seen_from_outside() {
    let desk = Device::start("desk");
    let told = |check: &str| {
        let findings = list(&desk, &["doctor"]);
        findings.into_iter().filter(|finding| text(finding, "check") == check).collect::<Vec<_>>()
    };
    assert_eq!(text(&told("bootstrap")[0], "state"), "note");
    assert_eq!(told("from outside"), Vec::<Value>::new(), "nobody could look");
    let mut bootstrap = Server::bootstrap();
    desk.mesh(&["bootstrap", "add", &bootstrap.address()]).expect("it is taken in");
    let seen = told("from outside");
    assert_eq!(text(&seen[0], "state"), "ok", "{seen:?}");
    bootstrap.kill();
    assert_eq!(text(&told("bootstrap")[0], "state"), "bad");
    let (code, said) = desk.mesh(&["bootstrap", "add", "/ip4/192.0.2.8/tcp/4001"]).expect_err("it names nobody");
    assert!(code != 0 && said.contains("operator"), "{said}");
}
