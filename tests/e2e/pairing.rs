//! A new device enters a mesh, or does not.

use meshwork_tests::device::{Device, wait_for};

#[test]
fn by_code_at_an_address() {
    let (laptop, desktop) = (Device::start("laptop"), Device::start("desktop"));
    laptop.pair(&desktop);
    for device in [&laptop, &desktop] {
        wait_for("both to see each other", || {
            let devices = device.mesh(&["devices"]).ok()?;
            let connected = devices.as_array()?.iter().filter(|device| device["connected"] == true).count();
            (connected == 2).then_some(())
        });
    }
    let names = wait_for("the names to be known", || {
        let devices = desktop.mesh(&["devices"]).ok()?;
        let mut names: Vec<String> = devices.as_array()?.iter().map(|device| device["name"].to_string()).collect();
        names.sort();
        (names == ["\"desktop\"", "\"laptop\""]).then_some(names)
    });
    assert_eq!(names.len(), 2);
    let roles = desktop.mesh(&["devices"]).expect("a list");
    let role = |name: &str| {
        let mut devices = roles.as_array().into_iter().flatten();
        devices.find(|device| device["name"] == name).map(|device| device["role"].clone())
    };
    assert_eq!(role("laptop"), Some("admin".into()));
    assert_eq!(role("desktop"), Some("device".into()), "a paired device is no admin");
}

#[test]
fn by_link() {
    let (laptop, desktop) = (Device::start("laptop"), Device::start("desktop"));
    let (_, link) = laptop.offer();
    let joined = desktop.mesh(&["join", &link]).expect("the link is right");
    let status = laptop.mesh(&["status"]).expect("it runs");
    assert_eq!(joined["mesh"], status["mesh"]);
}

#[test]
fn a_wrong_word_kills_the_code() {
    let (laptop, desktop) = (Device::start("laptop"), Device::start("desktop"));
    let (code, _) = laptop.offer();
    let address = laptop.address();
    let mut words: Vec<&str> = code.split('-').collect();
    words[1] = if words[1] == "apple" { "river" } else { "apple" };
    let (exit, said) = desktop.mesh(&["join", &words.join("-"), "--at", &address]).expect_err("one word is wrong");
    assert_eq!(exit, 4, "{said}");
    assert!(said.contains("spent") || said.contains("shown"), "{said}");
    let (exit, said) = desktop.mesh(&["join", &code, "--at", &address]).expect_err("the right code is dead by now");
    assert!([1, 4, 5].contains(&exit), "{exit}: {said}");
    let devices = laptop.mesh(&["devices"]).expect("a list");
    assert_eq!(devices["name"], "laptop", "nobody came in: {devices}");
    laptop.pair(&desktop);
}

#[test]
fn a_spent_code_lets_nobody_in() {
    let (laptop, desktop, thief) = (Device::start("laptop"), Device::start("desktop"), Device::start("thief"));
    let (code, link) = laptop.offer();
    let address = laptop.address();
    desktop.mesh(&["join", &code, "--at", &address]).expect("the code is right");
    for text in [&code, &link] {
        let (exit, said) = thief.mesh(&["join", text, "--at", &address]).expect_err("it was used");
        assert!([1, 4, 5].contains(&exit), "{exit}: {said}");
    }
}

#[test]
fn nonsense_is_no_code() {
    let device = Device::start("laptop");
    for text in ["", "7", "7-apple", "7-apple-river-ston", "0-apple-river-stone", "mesh-pair:1?s=x", "../../etc/passwd"]
    {
        let (exit, said) = device.mesh(&["join", text, "--at", "127.0.0.1:9"]).expect_err("no code");
        assert!(exit != 0 && !said.is_empty(), "{text:?}: {exit} {said}");
        assert!(!said.contains("panicked"), "{said}");
    }
    device.mesh(&["status"]).expect("it still runs");
}
