//! Ports of one device that another reaches through the mesh.

use std::{
    io::{self, BufRead as _, BufReader, Read as _, Write as _},
    net::{Shutdown, TcpListener, TcpStream},
    thread,
    time::{Duration, Instant},
};

use meshwork_tests::device::{Device, Events, figure, noise, wait_for};

use super::{authority::list, sharing::text};

/// A program that greets and then says everything again.
fn echo() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("its address").port();
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            thread::spawn(move || {
                let mut back = stream.try_clone()?;
                back.write_all(b"hello\n")?;
                io::copy(&mut stream, &mut back)?;
                back.shutdown(Shutdown::Write)
            });
        }
    });
    port
}

fn offer(device: &Device, name: &str, port: u16) {
    device.mesh(&["service", "offer", name, &port.to_string()]).expect("an offer");
}

/// A local port that leads to a service, once the device knows of it.
fn open(device: &Device, to: &str) -> (String, String) {
    let opened = wait_for("the service to be known", || device.mesh(&["open", to, "--background"]).ok());
    (text(&opened, "address"), opened["port"].to_string())
}

/// A connection that was greeted.
fn greeted(address: &str) -> Option<BufReader<TcpStream>> {
    let stream = TcpStream::connect(address).ok()?;
    stream.set_nodelay(true).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
    let mut reader = BufReader::new(stream);
    let mut greeting = String::new();
    reader.read_line(&mut greeting).ok()?;
    (greeting == "hello\n").then_some(reader)
}

fn says_again(connection: &mut BufReader<TcpStream>, what: &str) -> bool {
    let mut said = vec![0; what.len()];
    let sent = connection.get_mut().write_all(what.as_bytes());
    sent.and_then(|()| connection.read_exact(&mut said)).is_ok() && said == what.as_bytes()
}

/// Nothing more comes, and the connection ends.
fn is_cut(connection: &mut BufReader<TcpStream>) -> bool {
    !matches!(connection.read(&mut [0]), Ok(1..))
}

#[test]
fn a_service_is_reached_from_another_device() {
    let (mut laptop, desktop) = (Device::start("laptop"), Device::start("desktop"));
    laptop.pair(&desktop);
    let port = echo();
    offer(&laptop, "echo", port);
    let (address, local) = open(&desktop, "laptop:echo");
    let mut connection = greeted(&address).expect("a greeting");
    assert!(says_again(&mut connection, "through the mesh"));
    let services = list(&laptop, &["service", "ls"]);
    assert_eq!((text(&services[0], "name"), text(&services[0]["users"][0], "name")), ("echo".into(), "desktop".into()));

    let ping = desktop.mesh(&["ping", "laptop"]).expect("an answer");
    assert_eq!((text(&ping, "path"), ping["times"].as_array().map(Vec::len)), ("direct".into(), Some(5)), "{ping}");

    // Whoever has said all can still be answered.
    let sent = noise(7, 24 << 20);
    let mut large = greeted(&address).expect("a greeting");
    let mut sending = large.get_ref().try_clone().expect("the same connection");
    let begin = Instant::now();
    let (copy, mut heard) = (sent.clone(), Vec::new());
    let sender = thread::spawn(move || sending.write_all(&copy).and_then(|()| sending.shutdown(Shutdown::Write)));
    large.read_to_end(&mut heard).expect("all of it");
    sender.join().expect("the sender").expect("sent");
    assert!(heard == sent, "{} of {} bytes came back", heard.len(), sent.len());
    let rate = 2.0 * sent.len() as f64 / begin.elapsed().as_secs_f64() / 1e6;
    figure("tunnel_both_ways", format!("{rate:.0}"), "MB/s");
    let mut trips: Vec<f64> = (0..200)
        .map(|_| {
            let begin = Instant::now();
            assert!(says_again(&mut connection, "x"));
            begin.elapsed().as_secs_f64() * 1e6
        })
        .collect();
    trips.sort_by(f64::total_cmp);
    figure("tunnel_round_trip_median", format!("{:.0}", trips[100]), "us");

    // Standard input and output, as ssh takes it.
    let output = desktop.command(&["open", "laptop:echo", "--stdio"], "one line\n");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "hello\none line\n");

    // A service that is not there any more is not reached; one that is withdrawn cuts off who uses it.
    laptop.mesh(&["service", "withdraw", "echo"]).expect("withdrawn");
    assert!(is_cut(&mut connection));
    assert!(greeted(&address).is_none());
    let problem = wait_for("the reason", || {
        let port = list(&desktop, &["open"]).into_iter().find(|it| it["address"] == address.as_str())?;
        port["problem"].as_str().map(str::to_owned)
    });
    assert!(problem.contains("no such service"), "{problem}");
    let is_known = || list(&desktop, &["service", "ls"]).iter().any(|service| service["name"] == "echo");
    wait_for("the news", || (!is_known()).then_some(()));
    let refused = desktop.mesh(&["open", "laptop:echo"]).expect_err("nobody offers it");
    assert!(refused.1.contains("offers no service"), "{}", refused.1);
    desktop.mesh(&["close", &local]).expect("closed");
    assert!(TcpStream::connect(&address).is_err());
    for kind in ["service.opened", "service.closed", "service.ended", "service.refused"] {
        let event = Events::of(&laptop).next(kind);
        assert_eq!(
            (text(&event["fields"], "name"), text(&event["fields"], "service")),
            ("desktop".into(), "echo".into())
        );
    }

    // What is offered outlives a restart.
    offer(&laptop, "echo", port);
    laptop.kill();
    laptop.run();
    let (address, _) = open(&desktop, "laptop:echo");
    wait_for("the service to be reached again", || greeted(&address));
}

#[test]
fn a_device_that_is_removed_is_cut_off() {
    let (laptop, desktop) = (Device::start("laptop"), Device::start("desktop"));
    laptop.pair(&desktop);
    offer(&laptop, "echo", echo());
    let (address, _) = open(&desktop, "laptop:echo");
    let mut connection = greeted(&address).expect("a greeting");
    assert!(says_again(&mut connection, "still in"));
    laptop.mesh(&["device", "remove", "desktop", "--yes"]).expect("removed");
    assert!(is_cut(&mut connection));
    assert!(greeted(&address).is_none());
}

#[test]
fn another_person_uses_what_was_given_and_nothing_else() {
    let (ann, bo) = (Device::start("ann"), Device::start("bo"));
    ann.add("Trip");
    let card = bo.mesh(&["contact", "card", "--name", "bo"]).expect("a card");
    ann.mesh(&["contact", "add", &text(&card, "link")]).expect("a contact");
    let shared = ann.mesh(&["share", "Trip", "--with", "bo", "--role", "read"]).expect("an invitation");
    bo.mesh(&["accept", &text(&shared, "link"), &bo.dir("Trip").display().to_string()]).expect("in");
    offer(&ann, "echo", echo());
    offer(&ann, "diary", echo());
    let id = text(&ann.mesh(&["status"]).expect("a status"), "device");
    let (echo, _) = open(&bo, &format!("{id}:echo"));
    let (diary, _) = open(&bo, &format!("{id}:diary"));
    assert!(greeted(&echo).is_none(), "it was not given");
    let offered = bo.mesh(&["service", "ls"]);
    assert!(!format!("{offered:?}").contains("diary"), "{offered:?}");

    let given = ann.mesh(&["service", "grant", "echo", "--to", "bo", "--days", "2"]).expect("given");
    assert_eq!(text(&given["granted"][0], "name"), "bo");
    let mut connection = greeted(&echo).expect("a greeting");
    assert!(says_again(&mut connection, "as a guest"));
    assert!(greeted(&diary).is_none(), "only what was given");
    let long = ann.mesh(&["service", "grant", "echo", "--to", "bo", "--days", "31"]).expect_err("too long");
    assert!(long.1.contains("1 to 30 days"), "{}", long.1);
    ann.mesh(&["service", "grant", "echo", "--to", "bo", "--days", "5"]).expect("prolonged");
    assert!(says_again(&mut connection, "and longer"));
    assert_eq!(list(&ann, &["service", "ls"])[1]["granted"].as_array().map(Vec::len), Some(1));

    ann.mesh(&["service", "revoke", "echo", "--from", "bo"]).expect("taken back");
    assert!(is_cut(&mut connection));
    assert!(greeted(&echo).is_none());
}
