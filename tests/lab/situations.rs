//! What happens to networks: relays die, nets part and heal, much is forbidden.

use std::time::{Duration, Instant};

use meshwork_tests::{
    device::{Device, figure, wait_for},
    lab::{Kind, Lab},
    server::Server,
};

use super::{
    Outcome, matrix,
    meeting::{LARGE, Meeting, RELAYS, is_direct, places},
    secrecy,
};

/// How long devices may take to be together again.
const BACK: Duration = Duration::from_secs(30);
/// The same where nothing but this device has changed.
const SOON_BACK: Duration = Duration::from_secs(10);

/// How long a device that is carried about is at one place.
const STAY: Duration = Duration::from_secs(3);

/// How long an edit may take beside a file that fills the link.
const BESIDE: Duration = Duration::from_secs(1);
/// A file that fills a link of 20 Mbit/s for longer than the edits take.
const FILLING: usize = 32 << 20;

type Situation = fn() -> Outcome;

/// By name; the slow ones are left out unless asked for.
pub(super) const ALL: [(&str, bool, Situation); 15] = [
    ("relay_dies", false, relay_dies),
    ("roaming", false, roaming),
    ("bootstrap_alone", false, bootstrap_alone),
    ("partition_heals", false, partition_heals),
    ("direct_path_is_cut", true, direct_path_is_cut),
    ("twenty_alone", true, twenty_alone),
    ("only_v6", false, only_v6),
    ("udp_blocked", false, udp_blocked),
    ("ports_forwarded", false, ports_forwarded),
    ("saturated_link", false, saturated_link),
    ("saturated_link_to_a_relay", false, saturated_link_to_a_relay),
    ("relay_only", false, relay_only),
    ("carrier_without_hairpin", false, carrier_without_hairpin),
    ("carrier_with_hairpin", false, carrier_with_hairpin),
    ("servers_hold_nothing", false, secrecy::servers_hold_nothing),
];

/// The relay between two devices dies: they go on through the other one, and take places at it again when it is back.
fn relay_dies() -> Outcome {
    let mut meeting = met(Meeting::new(Kind::Symmetric, Kind::Symmetric)?, false);
    let both = |meeting: &Meeting| (places(&meeting.x) == 2 && places(&meeting.y) == 2).then_some(());
    wait_for("both to have places at both relays", || both(&meeting));
    let before = meeting.relayed()?;
    meeting.send(0);
    let after = meeting.relayed()?;
    let busy = usize::from(after[1] - before[1] > after[0] - before[0]);
    meeting.relays[busy].kill();
    let failover = meeting.edit(0);
    figure("lab_relay_death_edit", failover.as_millis(), "ms");
    let begin = Instant::now();
    meeting.relays[busy].run();
    wait_for("both to have places at both relays again", || both(&meeting));
    figure("lab_relay_return", begin.elapsed().as_millis(), "ms");
    meeting.edit(1);
    Ok(late(&meeting, "an edit through the other relay", (failover, BACK)))
}

/// Two devices that no relay brings together, and of which neither knows any more where the other is, find each other at a
/// bootstrap; and as each dials the other at once where that was seen, they come through both routers.
fn bootstrap_alone() -> Outcome {
    let mut meeting = met(Meeting::new(Kind::AddrRestricted, Kind::PortRestricted)?, true);
    let mut bootstrap = Server::bootstrap_in(&meeting.lab, RELAYS[1]);
    meeting.x.mesh(&["bootstrap", "add", &bootstrap.address()]).expect("it is taken in");
    for device in [&meeting.x, &meeting.y] {
        wait_for("notes to be left", || (bootstrap_state(device) == "in use").then_some(()));
    }
    meeting.relays.iter_mut().for_each(Server::kill);
    meeting.move_away();
    let begin = Instant::now();
    let paths = meeting.connect(true);
    let found = begin.elapsed();
    figure("lab_found_at_bootstrap", found.as_millis(), "ms");
    let edit = meeting.edit(1);
    let mut missed = late(&meeting, "an edit after both were found", (found + edit, BACK));
    if !is_direct(&paths) {
        missed.push(format!("they are connected by {paths:?}"));
    }
    bootstrap.kill();
    meeting.move_away();
    for device in [&meeting.x, &meeting.y] {
        wait_for("the bootstrap to be missed", || (bootstrap_state(device) == "away").then_some(()));
    }
    if meeting.paths().is_some() {
        missed.push("without any server they are connected all the same".to_owned());
    }
    Ok(missed)
}

/// How the one bootstrap of the mesh answered this device last.
fn bootstrap_state(device: &Device) -> String {
    let bootstrap = device.mesh(&["bootstrap", "ls"]).unwrap_or_default();
    bootstrap["state"].as_str().unwrap_or_default().to_owned()
}

/// Behind two routers that give each connection a port of its own nobody comes through, unless one of them forwards a port
/// when it is asked to.
fn ports_forwarded() -> Outcome {
    let mut lab = Lab::new()?;
    lab.add_site("x", Kind::Symmetric)?;
    lab.add_site("y", Kind::Symmetric)?;
    let forwarding = lab.forwards_ports("x")?;
    let begin = Instant::now();
    let meeting = met(Meeting::within(lab, 2), true);
    let paths = meeting.connect(true);
    figure("lab_forwarded_port", begin.elapsed().as_millis(), "ms");
    drop(forwarding);
    Ok(if is_direct(&paths) { Vec::new() } else { vec![format!("they are connected by {paths:?}")] })
}

/// Where there is no IPv4 at all, two devices behind firewalls meet at a relay, and come through directly from there; where
/// that does not do, files take the relay's data port.
fn only_v6() -> Outcome {
    let mut lab = Lab::only_v6()?;
    lab.add_site("x", Kind::Firewall)?;
    lab.add_site("y", Kind::Firewall)?;
    let begin = Instant::now();
    let mut meeting = met(Meeting::within(lab, 2), true);
    figure("lab_only_v6_direct", begin.elapsed().as_millis(), "ms");
    let edit = meeting.edit(1);
    meeting.lab.partition("x", "y")?;
    wait_for("the relay to take over", || meeting.paths().filter(|paths| !is_direct(paths)));
    let before: u64 = meeting.relayed()?.iter().sum();
    let rate = LARGE as f64 / 1e6 / meeting.send(0).as_secs_f64();
    let carried = meeting.relayed()?.iter().sum::<u64>() - before;
    figure("lab_only_v6_relayed_rate", format_args!("{rate:.1}"), "MB/s");
    let mut missed = late(&meeting, "an edit without IPv4", (edit, SOON_BACK));
    if carried < 2 * LARGE as u64 {
        missed.push(format!("the relays carried only {carried} bytes"));
    }
    Ok(missed)
}

/// A file fills a link: whatever else the two have to say to each other arrives all the same.
fn saturated_link() -> Outcome {
    saturated("saturated_link", Kind::Linux, true)
}

fn saturated_link_to_a_relay() -> Outcome {
    saturated("saturated_link_to_a_relay", Kind::Symmetric, false)
}

fn saturated(name: &str, kind: Kind, directly: bool) -> Outcome {
    let mut meeting = met(Meeting::new(kind, kind)?, directly);
    ["x", "y"].iter().try_for_each(|host| meeting.lab.limit(host, "20mbit"))?;
    let quiet = meeting.edit(0);
    let sent = meeting.begin_to_send(0, FILLING);
    let mut edits = Vec::new();
    // The first part of the file is not there at once, and the link not full.
    while edits.len() < 10 || sent.begin.elapsed() < STAY {
        edits.push(meeting.edit(edits.len() % 2));
    }
    if sent.has_arrived() {
        return Ok(vec!["the file was there before the edits".to_owned()]);
    }
    wait_for("the file to arrive", || sent.has_arrived().then_some(()));
    let taken = sent.begin.elapsed();
    edits.sort();
    let most = *edits.last().expect("edits");
    figure(&format!("lab_{name}_quiet_edit"), quiet.as_millis(), "ms");
    figure(&format!("lab_{name}_edit_median"), edits[edits.len() / 2].as_millis(), "ms");
    figure(&format!("lab_{name}_edit_max"), most.as_millis(), "ms");
    figure(&format!("lab_{name}_rate"), format_args!("{:.2}", FILLING as f64 / 1e6 / taken.as_secs_f64()), "MB/s");
    Ok(late(&meeting, "an edit beside a file", (most, BESIDE)))
}

/// Twenty devices that were all switched off find each other by what they have stored, with no server alive.
fn twenty_alone() -> Outcome {
    let mut lab = Lab::new()?;
    let hosts: Vec<String> = (0..20).map(|number| format!("d{number}")).collect();
    hosts.iter().try_for_each(|host| lab.add_site(host, Kind::Open))?;
    let mut devices: Vec<Device> = hosts.iter().map(|host| Device::start_in(&lab, host)).collect();
    let (first, others) = devices.split_first().expect("twenty");
    others.iter().for_each(|other| first.pair(other));
    let all_met = |devices: &[Device]| devices.iter().all(|device| peers(device) == devices.len() - 1).then_some(());
    wait_for("all to have met", || all_met(&devices));
    devices.iter_mut().for_each(Device::stop);
    let begin = Instant::now();
    devices.iter_mut().for_each(Device::run);
    let started = begin.elapsed();
    wait_for("all to be together again", || all_met(&devices));
    figure("lab_twenty_started", started.as_millis(), "ms");
    figure("lab_twenty_together", begin.elapsed().as_millis(), "ms");
    let late = begin.elapsed() - started;
    Ok(if late > BACK { vec![format!("they were together after {late:?}")] } else { Vec::new() })
}

/// Devices that one is connected with.
fn peers(device: &Device) -> usize {
    let status = device.mesh(&["status"]).unwrap_or_default();
    status["peers"].as_array().map_or(0, Vec::len)
}

/// A device is carried into another net, and back: whatever either writes arrives as if nothing had been.
fn roaming() -> Outcome {
    let mut meeting = met(Meeting::new(Kind::PortRestricted, Kind::Linux)?, true);
    meeting.lab.add_site("cafe", Kind::AddrRestricted)?;
    meeting.lab.add_site("train", Kind::Symmetric)?;
    let mut missed = Vec::new();
    for (net, author) in [("cafe", 0), ("train", 1)] {
        // Nobody goes on within seconds.
        let arrived = Instant::now();
        while arrived.elapsed() < STAY {
            let taken = meeting.edit(author);
            missed.extend(late(&meeting, "an edit while nothing happens", (taken, SOON_BACK)));
        }
        let begin = Instant::now();
        meeting.lab.carry("y", net)?;
        let carried = begin.elapsed();
        meeting.edit(author);
        meeting.edit(1 - author);
        let taken = begin.elapsed();
        println!("carried to the {net} in {carried:?}, edits both ways {taken:?} after the beginning of that");
        figure(&format!("lab_roaming_{net}_edits"), taken.as_millis(), "ms");
        missed.extend(late(&meeting, "edits after a change of nets", (taken, SOON_BACK)));
    }
    Ok(missed)
}

/// One device is cut off from everybody, and both write; healed, both have both.
fn partition_heals() -> Outcome {
    let mut meeting = met(Meeting::new(Kind::FullCone, Kind::PortRestricted)?, true);
    let others = ["y", RELAYS[0], RELAYS[1]];
    others.iter().try_for_each(|other| meeting.lab.partition("x", other))?;
    meeting.write(0);
    meeting.write(1);
    let begin = Instant::now();
    wait_for("both to be alone", || (!meeting.sees(0) && !meeting.sees(1)).then_some(()));
    figure("lab_partition_noticed", begin.elapsed().as_millis(), "ms");
    let mut missed = Vec::new();
    if meeting.has_edit(0) || meeting.has_edit(1) {
        missed.push("an edit crossed the partition".to_owned());
    }
    others.iter().try_for_each(|other| meeting.lab.heal("x", other))?;
    let begin = Instant::now();
    meeting.wait_for_edit(0);
    meeting.wait_for_edit(1);
    let healed = begin.elapsed();
    figure("lab_partition_heal_edit", healed.as_millis(), "ms");
    missed.extend(late(&meeting, "edits after the partition", (healed, BACK)));
    Ok(missed)
}

/// The direct path between two devices ends; the relays are left.
fn direct_path_is_cut() -> Outcome {
    let mut meeting = met(Meeting::new(Kind::FullCone, Kind::PortRestricted)?, true);
    meeting.lab.partition("x", "y")?;
    let taken = meeting.edit(0);
    figure("lab_direct_cut_edit", taken.as_millis(), "ms");
    Ok(Vec::new())
}

fn udp_blocked() -> Outcome {
    alike("udp_blocked", Kind::UdpBlocked)
}

fn relay_only() -> Outcome {
    alike("relay_only", Kind::RelayOnly)
}

fn alike(name: &str, kind: Kind) -> Outcome {
    let (cell, missed) = matrix::cell(kind, kind)?;
    figure(&format!("lab_{name}_pairing"), cell.pairing.as_millis(), "ms");
    figure(&format!("lab_{name}_edit"), cell.edit.as_millis(), "ms");
    figure(&format!("lab_{name}_rate"), format_args!("{:.1}", cell.rate), "MB/s");
    Ok(missed)
}

/// Two homes of one carrier whose router does not turn packets round cannot reach each other directly.
fn carrier_without_hairpin() -> Outcome {
    neighbours("carrier_without_hairpin", false)
}

fn carrier_with_hairpin() -> Outcome {
    neighbours("carrier_with_hairpin", true)
}

fn neighbours(name: &str, hairpin: bool) -> Outcome {
    let mut lab = Lab::new()?;
    lab.add_site("x", Kind::Cgnat)?;
    lab.add_neighbour("y", "x", hairpin)?;
    let (cell, mut missed) = matrix::measure(Meeting::within(lab, 2), hairpin)?;
    figure(&format!("lab_{name}_connect"), cell.connected.as_millis(), "ms");
    figure(&format!("lab_{name}_edit"), cell.edit.as_millis(), "ms");
    figure(&format!("lab_{name}_rate"), format_args!("{:.1}", cell.rate), "MB/s");
    if !hairpin && cell.path != "relayed" {
        missed.push(format!("{}, where nothing but a relay can be", cell.path));
    }
    Ok(missed)
}

/// Pairs the devices, shares a folder, and has them at the path that they are to have.
fn met(mut meeting: Meeting, directly: bool) -> Meeting {
    meeting.pair();
    let paths = meeting.connect(directly);
    assert_eq!(is_direct(&paths), directly, "{paths:?}");
    meeting.share();
    meeting
}

fn late(meeting: &Meeting, what: &str, (taken, bound): (Duration, Duration)) -> Vec<String> {
    if taken <= bound {
        return Vec::new();
    }
    println!("{}", meeting.logs());
    vec![format!("{what} took {taken:?}, more than {bound:?}")]
}
