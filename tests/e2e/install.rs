//! The node as a service of systemd, of which there is only the one program here that `mesh` runs.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use meshwork_tests::device::{figure, programs};

/// Notes what it is asked, and on `enable` runs what the unit says, as systemd would; on `disable` it ends that.
const SYSTEMCTL: &str = r#"#!/bin/sh
echo "$@" >> "$NOTES"
unit="$XDG_CONFIG_HOME/systemd/user/$4"
case "$2" in
    enable)
        if [ -e "${NOTES%notes}no walls" ] && grep -q PrivateUsers "$unit"; then exit 1; fi
        eval "exec $(sed -n 's/^ExecStart=//p' "$unit")" > /dev/null 2>&1 &
        echo $! > "$NOTES.pid" ;;
    disable) kill "$(cat "$NOTES.pid")" ;;
esac
"#;

fn mesh(place: &Path, words: &[&str]) -> Output {
    let path = format!("{}:{}", place.display(), std::env::var("PATH").unwrap_or_default());
    let mut command = Command::new(programs().join("mesh"));
    command.env("PATH", path).env("XDG_CONFIG_HOME", place.join("config")).env("NOTES", place.join("notes"));
    command.arg("--home").arg(place.join("the home")).args(words).output().expect("the program mesh is built")
}

/// A place with a systemctl of its own.
fn place() -> tempfile::TempDir {
    let place = tempfile::tempdir().expect("a directory");
    let program = place.path().join("systemctl");
    fs::write(&program, SYSTEMCTL).expect("written");
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("executable");
    place
}

/// The unit that was written.
fn unit(place: &Path) -> PathBuf {
    let units = fs::read_dir(place.join("config/systemd/user")).expect("the directory");
    let paths: Vec<PathBuf> = units.flatten().map(|entry| entry.path()).collect();
    <[PathBuf; 1]>::try_from(paths).map(|[path]| path).expect("one unit")
}

/// How much of the system a unit leaves open, from 0 to 10, as systemd judges it.
fn exposure(unit: &Path, words: &[&str]) -> f64 {
    // A user's manager makes a directory there.
    let place = tempfile::tempdir().expect("a directory");
    let mut analyze = Command::new("systemd-analyze");
    analyze.env("XDG_RUNTIME_DIR", place.path()).args(["security", "--offline=true"]);
    let output = analyze.args(words).arg(unit).output().expect("systemd-analyze is installed");
    let said = said(&output);
    let overall = said.lines().find(|line| line.contains("Overall exposure level for")).unwrap_or(&said);
    let number = overall.rsplit(": ").next().and_then(|rest| rest.split(' ').next()?.parse().ok());
    number.unwrap_or_else(|| panic!("no figure: {said}"))
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[test]
fn a_node_is_made_a_service_and_is_one_no_more() {
    let place = place();
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
    let exposure = exposure(&unit(place.path()), &["--user"]);
    figure("exposure_mesh", exposure, "of 10");
    assert!(exposure <= 3.0);

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
fn where_systemd_cannot_have_user_namespaces_the_service_runs_confined_less() {
    let place = place();
    fs::write(place.path().join("no walls"), "").expect("written");
    let installed = mesh(place.path(), &["up", "--install", "--no-mdns", "--listen", "127.0.0.1:0"]);
    assert!(installed.status.success() && said(&installed).contains("confined less"), "{}", said(&installed));
    let unit = fs::read_to_string(unit(place.path())).expect("the unit");
    assert!(unit.contains("NoNewPrivileges=yes") && !unit.contains("PrivateUsers"), "{unit}");
    let removed = mesh(place.path(), &["down", "--uninstall"]);
    assert!(removed.status.success(), "{}", said(&removed));
}

#[test]
fn the_units_of_relay_and_bootstrap_leave_little_open() {
    for (program, path) in [("relay", "relay/ops/mesh-relay"), ("bootstrap", "bootstrap/ops/mesh-bootstrap")] {
        let unit = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../{path}.service"));
        let exposure = exposure(&unit, &[]);
        figure(&format!("exposure_{program}"), exposure, "of 10");
        assert!(exposure <= 1.5);
    }
}

/// A file of the repository.
fn read(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)).expect(path)
}

/// The commands that a program lists in its help.
fn commands(program: &str) -> Vec<String> {
    let output = Command::new(programs().join(program)).arg("--help").output().expect("the program is built");
    let help = said(&output);
    let lines = help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    let names = lines.filter_map(|line| line.strip_prefix("  ").filter(|rest| !rest.starts_with(' ')));
    names.filter_map(|line| Some(line.split(' ').next()?.to_owned())).filter(|name| name != "help").collect()
}

#[test]
fn the_packages_tell_of_these_programs_and_this_version() {
    let version = env!("CARGO_PKG_VERSION");
    assert!(read(".config/debian/changelog").starts_with(&format!("meshwork ({version}-1) ")));
    for (program, folder) in [("mesh", "node"), ("mesh-relay", "relay"), ("mesh-bootstrap", "bootstrap")] {
        let page = read(&format!("{folder}/ops/{program}.1"));
        let part = page.split("\n.SH ").find_map(|part| part.strip_prefix("COMMANDS\n")).expect("commands");
        let told: Vec<&str> = part.split("\n.TP\n.B ").skip(1).filter_map(|entry| entry.lines().next()).collect();
        assert_eq!(told, commands(program), "{program}");
        assert!(page.lines().next().is_some_and(|title| title.ends_with(&format!("\"Meshwork {version}\""))));
    }
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
