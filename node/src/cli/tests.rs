//! Command lines as they are typed, and commands against a fake node behind a real socket.

use std::{
    io::{self, Write},
    sync::{Arc, Mutex},
};

use clap::CommandFactory;
use tempfile::TempDir;
use tokio::sync::watch;

use super::*;
use crate::{
    api::{self, ApiLimits, ApiSocket, types::PairEvent},
    resource::{
        Resources,
        fake::{CODE, FakeNode},
    },
};

#[derive(Clone, Default)]
struct Shared(Arc<Mutex<Vec<u8>>>);

impl Shared {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().expect("no panic while writing").clone()).expect("text")
    }
}

impl Write for Shared {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().expect("no panic while writing").extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

struct Ran {
    result: Result<(), CliError>,
    out: String,
    err: String,
}

/// A fake node, and a home where it answers.
struct Desk {
    node: Arc<FakeNode>,
    directory: TempDir,
}

impl Desk {
    fn start() -> Self {
        let desk = Desk { node: Arc::new(FakeNode::default()), directory: tempfile::tempdir().expect("a directory") };
        let socket = ApiSocket::bind(&desk.home().api_socket()).expect("the socket opens");
        let resources = Resources::new(Arc::clone(&desk.node), watch::Sender::new(false));
        tokio::spawn(api::serve(socket, resources, ApiLimits::default()));
        desk
    }

    fn home(&self) -> Home {
        Home::new(self.directory.path())
    }

    async fn run(&self, words: &[&str]) -> Ran {
        run_at(self.home(), words).await
    }
}

async fn run_at(home: Home, words: &[&str]) -> Ran {
    let arguments = Arguments::try_parse_from(["mesh"].iter().chain(words)).expect("a right command line");
    let (out, err) = (Shared::default(), Shared::default());
    let screen = Screen::to(arguments.global.json, Box::new(out.clone()), Box::new(err.clone()));
    let mut context = Context::new(home, screen, 0);
    let result = command(&mut context, arguments.command).await;
    if let Err(error) = &result {
        context.screen.error(error);
    }
    Ran { result, out: out.text(), err: err.text() }
}

fn exit(ran: &Ran) -> Exit {
    ran.result.as_ref().err().map_or(Exit::Done, |error| error.exit)
}

#[test]
fn the_words_are_consistent() {
    Arguments::command().debug_assert();
}

#[test]
fn every_command_has_an_example() {
    fn check(command: &clap::Command, path: &str) {
        let example = command.get_after_help().map(ToString::to_string).unwrap_or_default();
        assert!(example.contains(path), "{path} has no example: {example:?}");
        assert!(command.get_about().is_some(), "{path} is not explained");
        for inner in command.get_subcommands().filter(|inner| !inner.is_hide_set()) {
            check(inner, &format!("{path} {}", inner.get_name()));
        }
    }
    check(&Arguments::command(), "mesh");
}

#[test]
fn right_and_wrong_command_lines() {
    let right: [&[&str]; 12] = [
        &["up", "--foreground", "--listen", "127.0.0.1:0", "--listen", "[::1]:7", "--no-mdns", "--name", "laptop"],
        &["--home", "/x", "--json", "-vv", "status"],
        &["status", "--home", "/x", "--json"],
        &["pair", "--yes", "--no-wait"],
        &["join", "7", "apple", "river", "stone"],
        &["join", "meshwork:7-apple-river-stone@127.0.0.1:1", "--at", "127.0.0.1:1"],
        &["folder", "add", "x", "--name", "My notes", "--wait"],
        &["folder", "get", "Notes", "y"],
        &["folder", "status"],
        &["watch", "--since", "17"],
        &["recovery", "confirm", "--words", "3:river,17:stone"],
        &["demo", "--once", "--keep"],
    ];
    for words in right {
        Arguments::try_parse_from(["mesh"].iter().chain(words)).unwrap_or_else(|error| panic!("{words:?}: {error}"));
    }
    let wrong: [&[&str]; 9] = [
        &[],
        &["pear"],
        &["up", "--listen", "here"],
        &["pair", "--no-wait"],
        &["join"],
        &["join", "7", "a", "b", "c", "d"],
        &["folder", "get", "Notes"],
        &["watch", "--since", "-1"],
        &["recovery"],
    ];
    for words in wrong {
        assert!(Arguments::try_parse_from(["mesh"].iter().chain(words)).is_err(), "{words:?}");
    }
}

#[tokio::test]
async fn a_session_from_start_to_end() {
    let desk = Desk::start();
    let ran = desk.run(&["up"]).await;
    assert!(ran.out.contains("laptop") && ran.out.contains("mesh pair") && ran.out.contains("already"), "{}", ran.out);

    let folder = desk.directory.path().join("My notes");
    std::fs::create_dir(&folder).expect("made");
    let path = folder.to_str().expect("UTF-8");
    let ran = desk.run(&["folder", "add", path, "--name", "My notes"]).await;
    assert!(ran.out.contains("mesh folder get 'My notes' PATH"), "{}{}", ran.out, ran.err);
    let ran = desk.run(&["folder", "add", &format!("{path}/../My notes/."), "--name", "Twice", "--json"]).await;
    let canonical = folder.canonicalize().expect("exists");
    let added: crate::api::types::Folder = serde_json::from_str(&ran.out).expect("one object");
    assert_eq!(added.path.as_deref(), canonical.to_str());

    let ran = desk.run(&["folder", "ls"]).await;
    assert!(ran.out.contains("My notes") && ran.out.contains("4.0 KiB"), "{}", ran.out);
    let ran = desk.run(&["folder", "ls", "--json"]).await;
    assert_eq!(ran.out.lines().count(), 2);
    let ran = desk.run(&["folder", "get", "My notes", path, "--wait"]).await;
    assert!(ran.out.contains("is here: 3 files, 4.0 KiB"), "{}{}", ran.out, ran.err);
    let ran = desk.run(&["folder", "status", "My notes"]).await;
    assert!(ran.out.contains("idle"), "{}", ran.out);

    let ran = desk.run(&["status"]).await;
    assert!(
        ran.out.contains("laptop") && ran.out.contains("My notes") && ran.out.contains("recovery write"),
        "{}",
        ran.out
    );
    let ran = desk.run(&["devices"]).await;
    assert!(ran.out.contains("this device"), "{}", ran.out);
    let ran = desk.run(&["join", "7", "apple", "river", "stone"]).await;
    assert!(ran.out.contains("in the mesh of desktop"), "{}{}", ran.out, ran.err);
}

#[tokio::test]
async fn a_pairing_ends_in_a_word_and_a_code_of_exit() {
    let desk = Desk::start();
    let ran = desk.run(&["pair", "--yes", "--no-wait", "--json"]).await;
    assert!(ran.out.contains(CODE) && ran.err.is_empty(), "{}{}", ran.out, ran.err);

    let (device, name) = ("d2d2d2d2d2d2".to_owned(), "desk\u{1b}[2Jtop".to_owned());
    desk.node.pairing_event(PairEvent::Paired { device, name });
    let ran = desk.run(&["pair", "--yes"]).await;
    assert!(ran.out.contains("mesh join 7-apple-river-stone"), "{}", ran.out);
    assert!(ran.err.contains("(d2d2d2d2) is in.") && !ran.err.contains('\u{1b}'), "{}", ran.err);
    assert_eq!(exit(&ran), Exit::Done);

    desk.node.pairing_event(PairEvent::Expired);
    assert_eq!(exit(&desk.run(&["pair"]).await), Exit::Refused);
    desk.node.pairing_event(PairEvent::Failed { reason: "A word of the code was wrong.".to_owned() });
    let ran = desk.run(&["pair"]).await;
    assert!(ran.err.contains("A word of the code was wrong."), "{}", ran.err);
}

#[tokio::test]
async fn the_phrase_is_shown_and_then_wiped() {
    let desk = Desk::start();
    let ran = desk.run(&["recovery", "write"]).await;
    assert!(ran.out.contains(" 1 army") && ran.out.contains(" 4 dune"), "{}", ran.out);
    let ran = desk.run(&["recovery", "confirm", "--words", "1:army,2:cave"]).await;
    assert_eq!(exit(&ran), Exit::Refused);
    assert_eq!(exit(&desk.run(&["recovery", "confirm", "--words", "army,boat"]).await), Exit::Usage);
    let ran = desk.run(&["recovery", "confirm", "--words", "1:Army,3:cave"]).await;
    assert!(ran.out.contains("wiped"), "{}{}", ran.out, ran.err);
    assert_eq!(exit(&desk.run(&["recovery", "write"]).await), Exit::Refused);
}

#[tokio::test]
async fn a_phrase_is_never_a_word_of_the_command_line() {
    for command in ["restore", "rotate", "use"] {
        assert!(Arguments::try_parse_from(["mesh", "recovery", command, "army", "boat"]).is_err(), "{command}");
    }
    let right = ["mesh", "recovery", "restore", "--at", "127.0.0.1:1", "--at", "[::1]:7"];
    Arguments::try_parse_from(right).expect("several addresses");
}

#[tokio::test]
async fn live_events_until_the_node_stops() {
    let desk = Desk::start();
    desk.node.post("alpha");
    desk.node.post("beta");
    let watch = desk.run(&["watch", "--since", "1"]);
    let stop = async {
        let client = Client::new(&desk.home().api_socket());
        // The reader is there once both its request and this one were taken.
        client.status().await.expect("it answers");
        client.shutdown().await.expect("it stops");
    };
    let (ran, ()) = tokio::join!(watch, stop);
    assert!(ran.out.contains("00:00:01Z  file.placed     beta") && !ran.out.contains("alpha"), "{}", ran.out);
    assert_eq!(exit(&ran), Exit::NotRunning);
}

#[tokio::test]
async fn errors_say_what_happened_and_what_to_do() {
    let empty = tempfile::tempdir().expect("a directory");
    for words in [&["status"][..], &["pair"], &["folder", "ls"], &["watch"], &["recovery", "write"]] {
        let ran = run_at(Home::new(empty.path()), words).await;
        assert_eq!(exit(&ran), Exit::NotRunning, "{words:?}");
        assert!(ran.out.is_empty() && ran.err.starts_with("error: No node is running for the home"), "{}", ran.err);
        assert!(ran.err.contains("`mesh up`"), "{}", ran.err);
    }
    let ran = run_at(Home::new(empty.path()), &["down"]).await;
    assert_eq!((exit(&ran), ran.err.as_str()), (Exit::Done, "No node was running.\n"));
    let ran = run_at(Home::new(empty.path()), &["status", "--json"]).await;
    let value: serde_json::Value = serde_json::from_str(&ran.err).expect("one object");
    assert_eq!((&value["error"]["code"], &value["error"]["exit"]), (&"not_running".into(), &3.into()));

    let desk = Desk::start();
    let ran = desk.run(&["folder", "get", "None", "/tmp/x"]).await;
    assert_eq!(
        (exit(&ran), ran.err.as_str()),
        (Exit::NotFound, "error: This mesh has no such folder.\n       Look at the list.\n")
    );
    assert_eq!(exit(&desk.run(&["join", "8-wrong"]).await), Exit::Refused);
    assert_eq!(exit(&desk.run(&["folder", "status", "a/b"]).await), Exit::Usage);
    assert_eq!(exit(&desk.run(&["folder", "status", ".."]).await), Exit::Usage);
}

#[test]
fn a_reader_that_left_is_no_error() {
    struct Gone;
    impl Write for Gone {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::BrokenPipe.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let mut screen = Screen::to(false, Box::new(Gone), Box::new(Gone));
    let error = screen.line("x").expect_err("nobody reads");
    assert!(error.is_closed_pipe());
}
