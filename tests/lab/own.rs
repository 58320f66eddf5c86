//! That the laboratory is what it says: every pair of kinds tries to punch over UDP.

use std::{
    io::{self, BufRead as _, BufReader, Write as _},
    net::{SocketAddr, TcpListener, TcpStream, UdpSocket},
    process::{Child, ChildStdin, ChildStdout, Stdio},
    time::{Duration, Instant},
};

use meshwork_tests::{
    device::figure,
    lab::{Kind, Lab},
};

use super::{Outcome, pairs};

const PROBE: &str = "MESHWORK_LAB_PROBE";
/// How long a side sends before it gives up.
const PUNCH: Duration = Duration::from_millis(600);
const TURN: Duration = Duration::from_millis(50);

/// Does what this process was started for, where that is to be a probe.
pub(super) fn probe() -> Option<io::Result<()>> {
    let what = std::env::var(PROBE).ok()?;
    Some(match what.strip_prefix("connect ") {
        Some(server) => connect(server),
        None if what == "serve" => serve(),
        None if what == "listen" => listen(),
        None if what == "echo" => echo(),
        None => punch_by(&what),
    })
}

/// Tells everybody the address that he is seen under.
fn serve() -> io::Result<()> {
    let socket = UdpSocket::bind("0.0.0.0:4000")?;
    println!("ready");
    loop {
        let (_, from) = socket.recv_from(&mut [0; 16])?;
        socket.send_to(from.to_string().as_bytes(), from)?;
    }
}

fn listen() -> io::Result<()> {
    let listener = TcpListener::bind("0.0.0.0:4000")?;
    println!("ready");
    listener.incoming().try_for_each(|stream| stream.map(drop))
}

/// Says everything again on connections from this host.
fn echo() -> io::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:4002")?;
    println!("ready");
    listener.incoming().try_for_each(|stream| {
        let mut stream = stream?;
        std::thread::spawn(move || io::copy(&mut stream.try_clone()?, &mut stream));
        Ok(())
    })
}

/// Prints whether a connection comes about.
fn connect(server: &str) -> io::Result<()> {
    let server = server.parse().map_err(io::Error::other)?;
    println!("{}", TcpStream::connect_timeout(&server, PUNCH).is_ok());
    Ok(())
}

/// Prints the address it is seen under, reads that of the other, and prints whether both hear each other.
fn punch_by(server: &str) -> io::Result<()> {
    let socket = UdpSocket::bind("0.0.0.0:4001")?;
    socket.set_read_timeout(Some(TURN))?;
    let mut seen = "none".to_owned();
    let end = Instant::now() + PUNCH;
    while seen == "none" && Instant::now() < end {
        // A firewall of the host itself may refuse; that is silence, too.
        let _ = socket.send_to(b"who", server);
        let mut bytes = [0; 64];
        if let Ok((len, _)) = socket.recv_from(&mut bytes) {
            seen = String::from_utf8_lossy(&bytes[..len]).into_owned();
        }
    }
    println!("{seen}");
    for line in io::stdin().lock().lines() {
        println!("{}", line?.parse().is_ok_and(|peer| punch(&socket, peer)));
    }
    Ok(())
}

fn punch(socket: &UdpSocket, mut peer: SocketAddr) -> bool {
    let (mut heard, mut answered) = (false, false);
    let end = Instant::now() + PUNCH;
    while Instant::now() < end {
        let _ = socket.send_to(if heard { b"yes" } else { b"hey" }, peer);
        let mut bytes = [0; 3];
        if let Ok((3, from)) = socket.recv_from(&mut bytes)
            && from.ip() == peer.ip()
        {
            (heard, peer) = (true, from);
            answered |= &bytes == b"yes";
        }
    }
    answered
}

/// A program on a host of the laboratory.
pub(super) struct Probe {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    seen: String,
}

impl Drop for Probe {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Probe {
    pub(super) fn start(lab: &Lab, host: &str, what: &str) -> io::Result<Probe> {
        let mut command = lab.host(host).command(std::env::current_exe()?);
        let mut child = command.env(PROBE, what).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let pipes = child.stdin.take().zip(child.stdout.take());
        let (input, output) = pipes.ok_or_else(|| io::Error::other("a probe without pipes"))?;
        let mut probe = Probe { child, input, output: BufReader::new(output), seen: String::new() };
        probe.seen = probe.line()?;
        Ok(probe)
    }

    fn line(&mut self) -> io::Result<String> {
        let mut line = String::new();
        self.output.read_line(&mut line)?;
        Ok(line.trim().to_owned())
    }

    fn meets(&mut self, other: &mut Probe) -> io::Result<bool> {
        writeln!(self.input, "{}", other.seen)?;
        writeln!(other.input, "{}", self.seen)?;
        Ok((self.line()? == "true") & (other.line()? == "true"))
    }
}

/// What theory says of a pair over UDP: a port that cannot be foretold fails where the other side filters by port.
pub(super) fn crosses(one: Kind, other: Kind) -> bool {
    let blocked = |kind| matches!(kind, Kind::UdpBlocked | Kind::RelayOnly);
    let by_port =
        |kind| matches!(kind, Kind::Firewall | Kind::PortRestricted | Kind::Linux | Kind::Symmetric | Kind::Cgnat);
    let lost = |one, other| one == Kind::Symmetric && by_port(other);
    !(blocked(one) || blocked(other) || lost(one, other) || lost(other, one))
}

/// That every pair of kinds crosses or does not, as theory says; and what else a laboratory must do.
pub(super) fn check(all: bool) -> Outcome {
    let begin = Instant::now();
    let mut lab = Lab::new()?;
    for kind in Kind::ALL {
        lab.add_site(&format!("{kind:?}-x"), kind)?;
        lab.add_site(&format!("{kind:?}-y"), kind)?;
    }
    figure("lab_build_time", begin.elapsed().as_millis(), "ms");
    let _server = Probe::start(&lab, "boot", "serve")?;
    let server = format!("{}:4000", lab.host("boot").address());
    let mut wrong = Vec::new();
    for (one, other) in pairs(all) {
        let mut x = Probe::start(&lab, &format!("{one:?}-x"), &server)?;
        let mut y = Probe::start(&lab, &format!("{other:?}-y"), &server)?;
        let crossed = x.meets(&mut y)?;
        println!("UDP of {one:?} and {other:?}: {crossed}");
        if crossed != crosses(one, other) {
            wrong.push(format!("UDP of {one:?} and {other:?}: {crossed}"));
        }
    }
    if !partitions(&lab, &server)? {
        wrong.push("a partition does not do as it must".to_owned());
    }
    wrong.extend(streams(&lab)?);
    Ok(wrong)
}

/// Two hosts that hear each other do not while they are apart, and do again afterwards.
fn partitions(lab: &Lab, server: &str) -> io::Result<bool> {
    let mut x = Probe::start(lab, "Open-x", server)?;
    let mut y = Probe::start(lab, "Open-y", server)?;
    let before = x.meets(&mut y)?;
    lab.partition("Open-x", "Open-y")?;
    let apart = x.meets(&mut y)?;
    lab.heal("Open-x", "Open-y")?;
    let healed = x.meets(&mut y)?;
    println!("partition: before {before}, apart {apart}, healed {healed}");
    Ok(before && !apart && healed)
}

/// Who may go out over TCP: everybody to the relay, all but [`Kind::RelayOnly`] to others. Gives where it is not so.
fn streams(lab: &Lab) -> Outcome {
    let _boot = Probe::start(lab, "boot", "listen")?;
    let _relay = Probe::start(lab, "relay", "listen")?;
    let mut wrong = Vec::new();
    for kind in Kind::ALL {
        let reaches = |host| {
            let what = format!("connect {}:4000", lab.host(host).address());
            Ok::<_, io::Error>(Probe::start(lab, &format!("{kind:?}-x"), &what)?.seen == "true")
        };
        let (boot, relay) = (reaches("boot")?, reaches("relay")?);
        let said = format!("TCP of {kind:?}: to boot {boot}, to relay {relay}");
        println!("{said}");
        if !relay || boot == (kind == Kind::RelayOnly) {
            wrong.push(said);
        }
    }
    Ok(wrong)
}
