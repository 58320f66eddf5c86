//! That the laboratory is what it says: every pair of kinds tries to punch over UDP.

use std::{
    io::{self, BufRead as _, BufReader, Write as _},
    net::{SocketAddr, TcpListener, TcpStream, UdpSocket},
    process::{Child, ChildStdin, ChildStdout, ExitCode, Stdio},
    time::{Duration, Instant},
};

use meshwork_tests::lab::{Kind, Lab};

const PROBE: &str = "MESHWORK_LAB_PROBE";
/// How long a side sends before it gives up.
const PUNCH: Duration = Duration::from_millis(600);
const TURN: Duration = Duration::from_millis(50);

fn main() -> ExitCode {
    let ended = match std::env::var(PROBE) {
        Ok(server) if server == "serve" => serve(),
        Ok(what) if what == "listen" => listen(),
        Ok(what) if what.starts_with("connect ") => connect(&what["connect ".len()..]),
        Ok(server) => probe(&server),
        Err(_) => check(),
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("the laboratory: {error} (it needs root, and the programs ip, nft and sysctl)");
            ExitCode::FAILURE
        }
    }
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

/// Prints whether a connection comes about.
fn connect(server: &str) -> io::Result<()> {
    let server = server.parse().map_err(io::Error::other)?;
    println!("{}", TcpStream::connect_timeout(&server, PUNCH).is_ok());
    Ok(())
}

/// Prints the address it is seen under, reads that of the other, and prints whether both hear each other.
fn probe(server: &str) -> io::Result<()> {
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

struct Probe {
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
    fn start(lab: &Lab, host: &str, what: &str) -> io::Result<Probe> {
        let mut command = lab.command(host, std::env::current_exe()?);
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

/// What theory says of a pair: a port that cannot be foretold fails where the other side filters by port.
fn expected(one: Kind, other: Kind) -> bool {
    let blocked = |kind| matches!(kind, Kind::UdpBlocked | Kind::RelayOnly);
    let by_port =
        |kind| matches!(kind, Kind::Firewall | Kind::PortRestricted | Kind::Linux | Kind::Symmetric | Kind::Cgnat);
    let lost = |one, other| one == Kind::Symmetric && by_port(other);
    !(blocked(one) || blocked(other) || lost(one, other) || lost(other, one))
}

fn check() -> io::Result<()> {
    let begin = Instant::now();
    let mut lab = Lab::new()?;
    for kind in Kind::ALL {
        lab.add_site(&format!("{kind:?}-x"), kind)?;
        lab.add_site(&format!("{kind:?}-y"), kind)?;
    }
    println!("FIGURE lab_build_time {} ms", begin.elapsed().as_millis());
    let _server = Probe::start(&lab, "boot", "serve")?;
    let server = format!("{}:4000", lab.address("boot"));
    let mut wrong = 0;
    for (row, one) in Kind::ALL.into_iter().enumerate() {
        print!("{:16}", format!("{one:?}"));
        for other in Kind::ALL.into_iter().take(row + 1) {
            let mut x = Probe::start(&lab, &format!("{one:?}-x"), &server)?;
            let mut y = Probe::start(&lab, &format!("{other:?}-y"), &server)?;
            let met = x.meets(&mut y)?;
            let right = met == expected(one, other);
            wrong += u32::from(!right);
            print!(" {}{}", if met { '+' } else { '.' }, if right { ' ' } else { '!' });
        }
        println!();
    }
    wrong += u32::from(!partitions(&lab, &server)?) + u32::from(!streams(&lab)?);
    if wrong > 0 {
        return Err(io::Error::other(format!("{wrong} checks are not as they must be")));
    }
    Ok(())
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

/// Who may go out over TCP: everybody to the relay, all but [`Kind::RelayOnly`] to others.
fn streams(lab: &Lab) -> io::Result<bool> {
    let _boot = Probe::start(lab, "boot", "listen")?;
    let _relay = Probe::start(lab, "relay", "listen")?;
    let mut right = true;
    for kind in Kind::ALL {
        let reaches = |host| {
            let what = format!("connect {}:4000", lab.address(host));
            Ok::<_, io::Error>(Probe::start(lab, &format!("{kind:?}-x"), &what)?.seen == "true")
        };
        let (boot, relay) = (reaches("boot")?, reaches("relay")?);
        println!("TCP of {kind:?}: to boot {boot}, to relay {relay}");
        right &= relay && boot == (kind != Kind::RelayOnly);
    }
    Ok(right)
}
