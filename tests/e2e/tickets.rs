//! Relays that carry for invited devices alone.

use meshwork_tests::{
    device::{Device, wait_for},
    server::Server,
};

use super::{authority::list, sharing::text};

/// How the one relay of the mesh stands on this device, and why.
fn relay(device: &Device) -> (String, String) {
    let relays = list(device, &["relay", "ls"]);
    let word = |key: &str| relays.first().and_then(|relay| relay[key].as_str()).unwrap_or_default().to_owned();
    (word("state"), word("problem"))
}

fn is_carried_for(device: &Device) {
    wait_for("a place at the relay", || (relay(device).0 == "in use").then_some(()));
}

fn is_refused(device: &Device, why: &str) {
    wait_for("the relay to refuse", || {
        let (state, problem) = relay(device);
        (state != "in use" && problem.contains(why)).then_some(())
    });
}

fn id(device: &Device) -> String {
    text(&device.mesh(&["status"]).expect("its status"), "device")
}

fn invited(more: &str) -> Server {
    let mut relay = Server::relay();
    relay.kill();
    relay.invite_only(more);
    relay.run();
    relay
}

#[test]
fn a_ticket_opens_a_relay_to_all_devices_of_a_mesh_and_to_nobody_else() {
    let [desk, lap, stranger] = ["desk", "lap", "stranger"].map(Device::start);
    let mut relay = invited("");
    let address = relay.address();
    desk.pair(&lap);
    desk.mesh(&["relay", "add", &address]).expect("it is taken in");
    is_refused(&desk, &id(&desk));
    is_refused(&lap, &id(&lap));

    let (ticket, name) = relay.invite(&id(&desk));
    let (_, said) = stranger.mesh(&["relay", "add", &address, "--ticket", &ticket]).expect_err("another's ticket");
    assert!(said.contains("no device of this mesh"), "{said}");
    let (_, said) = desk.mesh(&["relay", "add", &address, "--ticket", &ticket[1..]]).expect_err("half a ticket");
    assert!(said.contains("no ticket"), "{said}");
    let other = Server::bootstrap();
    let (_, said) = desk.mesh(&["relay", "add", &other.address(), "--ticket", &ticket]).expect_err("another relay");
    assert!(said.contains("another relay"), "{said}");
    // Whichever device it is entered on.
    lap.mesh(&["relay", "add", &address, "--ticket", &ticket]).expect("the ticket is taken");
    is_carried_for(&desk);
    is_carried_for(&lap);
    stranger.mesh(&["relay", "add", &address]).expect("it is taken in");
    is_refused(&stranger, &id(&stranger));

    // It keeps nothing: they show their tickets again.
    relay.kill();
    relay.run();
    is_carried_for(&desk);
    is_carried_for(&lap);

    relay.kill();
    relay.invite_only(&format!("withdrawn = [\"{name}\"]"));
    relay.run();
    is_refused(&desk, "withdrawn");
    is_refused(&lap, "withdrawn");
}

#[test]
fn an_operators_own_device_needs_no_ticket_and_brings_the_others() {
    let [desk, lap] = ["desk", "lap"].map(Device::start);
    desk.pair(&lap);
    let relay = invited(&format!("members_of = [\"{}\"]", id(&desk)));
    desk.mesh(&["relay", "add", &relay.address()]).expect("it is taken in");
    is_carried_for(&desk);
    is_carried_for(&lap);
}
