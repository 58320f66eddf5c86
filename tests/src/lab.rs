//! A NAT laboratory: network namespaces, bridges and nftables on one machine.
//!
//! Every node of a lab is a namespace named after the process that made it, so that labs stand side by side
//! and what a dead process left is told apart. All of it is IPv4, or IPv6 and nothing else.

use std::{
    collections::BTreeMap,
    io::{self, Write as _},
    path::Path,
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
};

use crate::device::wait_for;

mod nat;

pub use nat::Kind;

const PREFIX: &str = "meshlab";
static LABS: AtomicU32 = AtomicU32::new(0);

/// A laboratory; gone with all that runs inside when dropped.
pub struct Lab {
    id: String,
    nodes: BTreeMap<String, Place>,
    sites: u8,
    only_v6: bool,
}

/// A host of a lab, for programs to run in.
#[derive(Clone)]
pub struct Host {
    namespace: String,
    address: String,
}

impl Host {
    /// Its own address.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// A port of it, as programs take it.
    pub fn socket(&self, port: u16) -> String {
        if self.is_v6() { format!("[{}]:{port}", self.address) } else { format!("{}:{port}", self.address) }
    }

    /// A port at all its addresses.
    pub fn everywhere(&self, port: u16) -> String {
        if self.is_v6() { format!("[::]:{port}") } else { format!("0.0.0.0:{port}") }
    }

    fn is_v6(&self) -> bool {
        self.address.contains(':')
    }

    /// A program that runs on this host when started.
    pub fn command(&self, program: impl AsRef<Path>) -> Command {
        inside(&self.namespace, program)
    }
}

/// A router that forwards ports.
pub struct PortForwarding {
    process: Child,
    _place: tempfile::TempDir,
}

impl Drop for PortForwarding {
    fn drop(&mut self) {
        // Gone already, or gone now.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Where a node is attached to the switch.
#[derive(Clone)]
struct Place {
    address: String,
    /// The switch port that carries what others see of it.
    port: String,
    /// The address that others see.
    outside: String,
}

impl Drop for Lab {
    fn drop(&mut self) {
        for name in self.nodes.keys().map(String::as_str).chain(["switch"]) {
            remove(&self.namespace(name));
        }
    }
}

impl Lab {
    /// Builds the public net with the hosts `boot` and `relay`.
    pub fn new() -> io::Result<Lab> {
        Lab::of(false)
    }

    /// The same without IPv4; its sites are [`Kind::Open`] or [`Kind::Firewall`].
    pub fn only_v6() -> io::Result<Lab> {
        Lab::of(true)
    }

    fn of(only_v6: bool) -> io::Result<Lab> {
        let id = format!("{PREFIX}-{}-{}", std::process::id(), LABS.fetch_add(1, Ordering::Relaxed));
        let mut lab = Lab { id, nodes: BTreeMap::new(), sites: 0, only_v6 };
        remove_stale().and_then(|()| lab.add_namespace("switch")).map_err(|error| {
            io::Error::other(format!("no namespace can be made, which needs root and the program ip: {error}"))
        })?;
        lab.add_bridge("pub")?;
        lab.add_public("boot", 2)?;
        lab.add_public("relay", 3)?;
        Ok(lab)
    }

    /// Adds a host behind a router of this kind.
    pub fn add_site(&mut self, host: &str, kind: Kind) -> io::Result<()> {
        self.sites += 1;
        let site = self.sites;
        if kind == Kind::Open {
            return self.add_public(host, site + 10);
        }
        if self.only_v6 {
            return self.add_v6_site(host, kind);
        }
        let outside = format!("45.64.0.{}", site + 10);
        if kind == Kind::Cgnat {
            let net = format!("100.64.{site}");
            let port = self.add_router(&carrier(host), kind, &outside, "pub", &net)?;
            return self.add_home(host, &net, port, outside);
        }
        let is_public = kind == Kind::Firewall;
        let net = format!("{}.{site}", if is_public { "45.64" } else { "192.168" });
        let port = self.add_router(&format!("{host}-router"), kind, &outside, "pub", &net)?;
        self.add_inner(host, &net, port, if is_public { format!("{net}.2") } else { outside })
    }

    /// Adds a host behind a home router at the carrier of another host, which is of the kind [`Kind::Cgnat`]. With
    /// `hairpin` the carrier lets its customers reach each other by its public address.
    pub fn add_neighbour(&mut self, host: &str, of: &str, hairpin: bool) -> io::Result<()> {
        self.sites += 1;
        let Place { address, port, outside } = self.place(of).clone();
        let net = address.trim_end_matches(".2").replace("192.168", "100.64");
        if hairpin {
            self.nft(&carrier(of), &nat::hairpin(&outside))?;
        }
        self.add_home(host, &net, port, outside)
    }

    /// Adds a host behind a home router, which is a customer of the net above.
    fn add_home(&mut self, host: &str, above: &str, port: String, outside: String) -> io::Result<()> {
        let (router, site) = (format!("{host}-router"), self.sites);
        let net = format!("192.168.{site}");
        self.add_router(&router, Kind::Cgnat, &format!("{above}.{}", site + 1), &format!("n{above}"), &net)?;
        self.ip(&router, &format!("route add default via {above}.1"))?;
        self.add_inner(host, &net, port, outside)
    }

    /// Adds a host in the net of a router.
    fn add_inner(&mut self, host: &str, net: &str, port: String, outside: String) -> io::Result<()> {
        self.add_namespace(host)?;
        let address = format!("{net}.2");
        self.attach(host, "eth0", &format!("n{net}"), &format!("{address}/24"))?;
        self.ip(host, &format!("route add default via {net}.1"))?;
        self.nodes.insert(host.to_owned(), Place { address, port, outside });
        Ok(())
    }

    /// Takes a host out of its net and into that of another host behind a router, as a traveller does.
    pub fn carry(&mut self, host: &str, to: &str) -> io::Result<()> {
        let Place { address, port, outside } = self.place(to).clone();
        let net = address.trim_end_matches(".2");
        self.ip(host, "link del eth0")?;
        let address = format!("{net}.9");
        self.attach(host, "eth0", &format!("n{net}"), &format!("{address}/24"))?;
        self.ip(host, &format!("route add default via {net}.1"))?;
        self.nodes.insert(host.to_owned(), Place { address, port, outside });
        Ok(())
    }

    /// The router of a host forwards ports to whoever asks for that by UPnP, with Debian's miniupnpd, until what is given here
    /// is dropped.
    pub fn forwards_ports(&self, host: &str) -> io::Result<PortForwarding> {
        let router = format!("{host}-router");
        self.nft(&router, nat::FORWARDED)?;
        let place = tempfile::Builder::new().prefix("router-").tempdir()?;
        let config = place.path().join("miniupnpd.conf");
        std::fs::write(&config, nat::MINIUPNPD)?;
        let mut command = inside(&self.namespace(&router), "miniupnpd");
        command.args(["-d", "-f"]).arg(config).arg("-P").arg(place.path().join("pid"));
        let log = place.path().join("log");
        let file = std::fs::File::create(&log)?;
        command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
        let forwarding = PortForwarding { process: command.spawn()?, _place: place };
        let listens = || std::fs::read_to_string(&log).is_ok_and(|said| said.contains("HTTP listening"));
        wait_for("the router to listen", || listens().then_some(()));
        Ok(forwarding)
    }

    /// What a host sends goes over a link of this rate from now on, with a queue of a tenth of a second.
    pub fn limit(&self, host: &str, rate: &str) -> io::Result<()> {
        let words = format!("qdisc replace dev eth0 root tbf rate {rate} burst 16kb latency 100ms");
        run(inside(&self.namespace(host), "tc").args(words.split(' ')), "")
    }

    /// A host by its name.
    ///
    /// # Panics
    /// When there is none, as every function that takes the name of a host.
    #[track_caller]
    pub fn host(&self, host: &str) -> Host {
        Host { namespace: self.namespace(host), address: self.place(host).address.clone() }
    }

    /// Two hosts stop hearing each other; nobody is told.
    pub fn partition(&self, one: &str, other: &str) -> io::Result<()> {
        let (port, peer) = (&self.place(one).port, &self.place(other).outside);
        let family = if self.only_v6 { "ip6" } else { "ip" };
        let rules = format!(
            "table netdev cut-{one}-{other} {{
             chain to {{ type filter hook ingress device {port} priority 0; {family} daddr {peer} drop; }}
             chain from {{ type filter hook egress device {port} priority 0; {family} saddr {peer} drop; }}
             }}"
        );
        self.nft("switch", &rules)
    }

    /// Undoes a partition.
    pub fn heal(&self, one: &str, other: &str) -> io::Result<()> {
        self.nft("switch", &format!("delete table netdev cut-{one}-{other}"))
    }

    /// Bytes that a host has received and sent.
    pub fn bytes(&self, host: &str) -> io::Result<u64> {
        let read = |way| {
            let file = format!("/sys/class/net/eth0/statistics/{way}_bytes");
            let output = self.host(host).command("cat").arg(file).output()?;
            String::from_utf8_lossy(&output.stdout).trim().parse::<u64>().map_err(io::Error::other)
        };
        Ok(read("rx")? + read("tx")?)
    }

    #[track_caller]
    fn place(&self, host: &str) -> &Place {
        // Routers have no address that others know.
        let place = self.nodes.get(host).filter(|place| !place.address.is_empty());
        place.unwrap_or_else(|| panic!("the lab has no host {host}"))
    }

    fn namespace(&self, node: &str) -> String {
        format!("{}-{node}", self.id)
    }

    fn add_public(&mut self, host: &str, last: u8) -> io::Result<()> {
        self.add_namespace(host)?;
        let (address, prefix) =
            if self.only_v6 { (format!("2001:db8::{last}"), 32) } else { (format!("45.64.0.{last}"), 16) };
        let port = self.attach(host, "eth0", "pub", &format!("{address}/{prefix}"))?;
        self.nodes.insert(host.to_owned(), Place { outside: address.clone(), address, port });
        Ok(())
    }

    /// Adds a host behind a router that answers for it in the public net, and lets in what it asked for.
    fn add_v6_site(&mut self, host: &str, kind: Kind) -> io::Result<()> {
        let (router, site) = (format!("{host}-router"), self.sites);
        let (net, lan) = (format!("2001:db8:{site}:"), format!("lan{site}"));
        let address = format!("{net}:2");
        self.add_namespace(&router)?;
        self.add_bridge(&lan)?;
        let port = self.attach(&router, "wan", "pub", &format!("2001:db8::{}/32", site + 10))?;
        self.attach(&router, "lan", &lan, &format!("{net}:1/64"))?;
        let mut sysctl = inside(&self.namespace(&router), "sysctl");
        run(sysctl.args(["-qw", "net.ipv6.conf.all.forwarding=1", "net.ipv6.conf.wan.proxy_ndp=1"]), "")?;
        self.ip(&router, &format!("neigh add proxy {address} dev wan"))?;
        self.nft(&router, &nat::rules(kind, "", ""))?;
        self.add_namespace(host)?;
        self.attach(host, "eth0", &lan, &format!("{address}/64"))?;
        self.ip(host, &format!("route add default via {net}:1"))?;
        self.nodes.insert(host.to_owned(), Place { outside: address.clone(), address, port });
        Ok(())
    }

    fn add_router(&mut self, name: &str, kind: Kind, outside: &str, above: &str, lan: &str) -> io::Result<String> {
        self.add_namespace(name)?;
        self.add_bridge(&format!("n{lan}"))?;
        let prefix = if above == "pub" { 16 } else { 24 };
        let port = self.attach(name, "wan", above, &format!("{outside}/{prefix}"))?;
        self.attach(name, "lan", &format!("n{lan}"), &format!("{lan}.1/24"))?;
        let mut sysctl = inside(&self.namespace(name), "sysctl");
        sysctl.args(["-qw", "net.ipv4.ip_forward=1", "net.ipv4.neigh.wan.proxy_delay=0"]);
        run(sysctl.arg(format!("net.ipv4.conf.wan.proxy_arp={}", u8::from(kind == Kind::Firewall))), "")?;
        self.nft(name, &nat::rules(kind, outside, &self.place("relay").address))?;
        Ok(port)
    }

    fn add_namespace(&mut self, node: &str) -> io::Result<()> {
        run(Command::new("ip").args(["netns", "add", &self.namespace(node)]), "")?;
        if node != "switch" {
            let nowhere = Place { address: String::new(), port: String::new(), outside: String::new() };
            self.nodes.insert(node.to_owned(), nowhere);
        }
        self.ip(node, "link set lo up")
    }

    fn add_bridge(&self, name: &str) -> io::Result<()> {
        self.ip("switch", &format!("link add {name} type bridge"))?;
        self.ip("switch", &format!("link set {name} up"))
    }

    fn attach(&self, node: &str, interface: &str, net: &str, address: &str) -> io::Result<String> {
        let port = format!("p{}", LABS.fetch_add(1, Ordering::Relaxed));
        let far = self.namespace(node);
        self.ip("switch", &format!("link add {port} type veth peer name {interface} netns {far}"))?;
        self.ip("switch", &format!("link set {port} master {net} up"))?;
        // Nobody else has the address, so nobody has to be asked first.
        let sure = if address.contains(':') { " nodad" } else { "" };
        self.ip(node, &format!("addr add {address} dev {interface}{sure}"))?;
        self.ip(node, &format!("link set {interface} up"))?;
        Ok(port)
    }

    fn ip(&self, node: &str, words: &str) -> io::Result<()> {
        run(Command::new("ip").args(["-n", &self.namespace(node)]).args(words.split(' ')), "")
    }

    fn nft(&self, node: &str, rules: &str) -> io::Result<()> {
        run(inside(&self.namespace(node), "nft").args(["-f", "-"]), rules)
    }
}

fn carrier(host: &str) -> String {
    format!("{host}-carrier")
}

fn inside(namespace: &str, program: impl AsRef<Path>) -> Command {
    let mut command = Command::new("ip");
    command.args(["netns", "exec", namespace]).arg(program.as_ref());
    command
}

/// Removes what dead processes left.
fn remove_stale() -> io::Result<()> {
    let listed = Command::new("ip").args(["netns", "list"]).output()?;
    for name in String::from_utf8_lossy(&listed.stdout).lines().filter_map(|line| line.split(' ').next()) {
        let mut parts = name.split('-');
        let ours = parts.next() == Some(PREFIX);
        if ours && parts.next().is_some_and(|pid| !Path::new("/proc").join(pid).exists()) {
            remove(name);
        }
    }
    Ok(())
}

/// Kills what runs in a namespace and removes it.
fn remove(namespace: &str) {
    if let Ok(inside) = Command::new("ip").args(["netns", "pids", namespace]).output() {
        for pid in String::from_utf8_lossy(&inside.stdout).split_whitespace() {
            let _ = Command::new("kill").args(["-9", pid]).stderr(Stdio::null()).status();
        }
    }
    let _ = Command::new("ip").args(["netns", "del", namespace]).stderr(Stdio::null()).status();
}

fn run(command: &mut Command, input: &str) -> io::Result<()> {
    let spawned = command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn();
    let mut child = spawned.map_err(|error| io::Error::other(format!("{command:?}: {error}")))?;
    child.stdin.take().map_or(Ok(()), |mut pipe| pipe.write_all(input.as_bytes()))?;
    let output = child.wait_with_output()?;
    if output.status.success() {
        return Ok(());
    }
    Err(io::Error::other(format!("{command:?}: {}", String::from_utf8_lossy(&output.stderr))))
}
