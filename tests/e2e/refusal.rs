//! What a user must not do gets a sentence and changes nothing.

use std::{fs, process::Command};

use meshwork_tests::device::{Device, programs};

fn refused(device: &Device, arguments: &[&str]) -> String {
    let (exit, said) = device.mesh(arguments).expect_err("it must be refused");
    assert!((1..=5).contains(&exit), "{arguments:?}: {exit} {said}");
    assert!(!said.contains("panicked") && said.len() > 20, "{said}");
    said
}

#[test]
fn folders_that_cannot_be() {
    let laptop = Device::start("laptop");
    let notes = laptop.add("Notes");
    fs::create_dir_all(notes.join("inner")).expect("a directory");
    let text = |path: std::path::PathBuf| path.display().to_string();
    refused(&laptop, &["folder", "add", &text(notes.join("inner"))]);
    refused(&laptop, &["folder", "add", &text(notes.parent().expect("a parent").to_path_buf())]);
    refused(&laptop, &["folder", "add", &text(laptop.home().join("log"))]);
    refused(&laptop, &["folder", "add", "/nowhere/at/all"]);
    refused(&laptop, &["folder", "add", "/dev/null"]);
    refused(&laptop, &["folder", "add", &text(notes), "--name", "Notes again"]);
    refused(&laptop, &["folder", "get", "Unknown", &text(laptop.dir("there"))]);
    let folders = laptop.mesh(&["folder", "ls"]).expect("a list");
    assert_eq!(folders["title"], "Notes", "nothing was added: {folders}");
}

#[test]
fn a_home_has_one_process() {
    let laptop = Device::start("laptop");
    let output = Command::new(programs().join("mesh"))
        .args(["daemon", "--no-mdns", "--listen", "127.0.0.1:0", "--home"])
        .arg(laptop.home())
        .output()
        .expect("the program mesh is built");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains("in use"), "{said}");
    laptop.mesh(&["status"]).expect("the first one still runs");
}

#[test]
fn without_a_node_commands_say_how_to_start_one() {
    let mut laptop = Device::start("laptop");
    laptop.stop();
    let (exit, said) = laptop.mesh(&["status"]).expect_err("nothing runs");
    assert_eq!(exit, 3, "{said}");
    assert!(said.contains("mesh up"), "{said}");
}

#[test]
fn the_phrase_is_shown_until_it_is_confirmed() {
    let laptop = Device::start("laptop");
    laptop.add("Notes");
    assert_eq!(laptop.mesh(&["status"]).expect("it runs")["root_on_disk"], true);
    let shown = laptop.mesh(&["recovery", "write"]).expect("the phrase");
    let words: Vec<String> =
        shown["words"].as_array().expect("words").iter().filter_map(|word| word.as_str().map(str::to_owned)).collect();
    assert_eq!(words.len(), 12);
    refused(&laptop, &["recovery", "confirm", "--words", "1=wrong,2=wrong"]);
    assert_eq!(laptop.mesh(&["status"]).expect("it runs")["root_on_disk"], true, "nothing was wiped");
    assert!(!laptop.log().contains(&words.join(" ")), "the phrase is in no log");
}
