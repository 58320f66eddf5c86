//! The node as a service of systemd, of which there is only the one program here that `mesh` runs.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::{Command, Output},
};

use meshwork_tests::device::programs;

/// Notes what it is asked, and on `enable` runs what the unit says, as systemd would; on `disable` it ends that.
const SYSTEMCTL: &str = r#"#!/bin/sh
echo "$@" >> "$NOTES"
unit="$XDG_CONFIG_HOME/systemd/user/$4"
case "$2" in
    enable) eval "exec $(sed -n 's/^ExecStart=//p' "$unit")" > /dev/null 2>&1 & echo $! > "$NOTES.pid" ;;
    disable) kill "$(cat "$NOTES.pid")" ;;
esac
"#;

fn mesh(place: &Path, words: &[&str]) -> Output {
    let path = format!("{}:{}", place.display(), std::env::var("PATH").unwrap_or_default());
    let mut command = Command::new(programs().join("mesh"));
    command.env("PATH", path).env("XDG_CONFIG_HOME", place.join("config")).env("NOTES", place.join("notes"));
    command.arg("--home").arg(place.join("the home")).args(words).output().expect("the program mesh is built")
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[test]
fn a_node_is_made_a_service_and_is_one_no_more() {
    let place = tempfile::tempdir().expect("a directory");
    let program = place.path().join("systemctl");
    fs::write(&program, SYSTEMCTL).expect("written");
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("executable");

    // One that runs already makes room for it.
    let words = ["--no-mdns", "--listen", "127.0.0.1:0", "--name", "attic"];
    let started = mesh(place.path(), &[&["up"][..], &words].concat());
    assert!(started.status.success(), "{}", said(&started));
    let installed = mesh(place.path(), &[&["up", "--install"][..], &words].concat());
    assert!(installed.status.success(), "{}", said(&installed));
    assert!(said(&installed).contains("The node of attic runs, and will whenever you log in"), "{}", said(&installed));
    assert!(said(&mesh(place.path(), &["status"])).contains("attic"));
    let again = mesh(place.path(), &[&["up", "--install"][..], &words].concat());
    assert!(again.status.success(), "{}", said(&again));

    let removed = mesh(place.path(), &["down", "--uninstall"]);
    assert!(removed.status.success(), "{}", said(&removed));
    let units = place.path().join("config/systemd/user");
    assert_eq!(fs::read_dir(units).expect("the directory").count(), 0);
    let notes = fs::read_to_string(place.path().join("notes")).expect("what was asked");
    let asked: Vec<&str> = notes.lines().filter_map(|line| line.split(' ').nth(1)).collect();
    assert_eq!(asked, ["daemon-reload", "enable", "daemon-reload", "enable", "disable", "daemon-reload"]);
    let nothing = mesh(place.path(), &["down", "--uninstall"]);
    assert!(said(&nothing).contains("is no service"), "{}", said(&nothing));
}

#[test]
fn without_systemd_it_says_what_to_do() {
    let place = tempfile::tempdir().expect("a directory");
    let mut command = Command::new(programs().join("mesh"));
    command.env("PATH", place.path()).env("XDG_CONFIG_HOME", place.path().join("config"));
    let refused = command.arg("--home").arg(place.path().join("home")).args(["up", "--install"]).output();
    let refused = refused.expect("the program mesh is built");
    assert!(
        !refused.status.success() && said(&refused).contains("start the node with `mesh up`"),
        "{}",
        said(&refused)
    );
}
