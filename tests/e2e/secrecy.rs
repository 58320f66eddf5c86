//! What travels between two devices holds no name and no content.

use std::{
    fs,
    io::{BufWriter, Write},
    path::Path,
    process::{Child, Command, Stdio},
};

use meshwork_tests::device::{Device, figure, wait_equal, wait_for};

const NAME: &str = "tax-return-of-nobody";
const MARKER: &str = "the quick brown marker jumps over the lazy capture";

/// Captures loopback into a file until it is stopped.
pub(super) struct Capture {
    process: Child,
}

impl Capture {
    /// Everything, where the filter is empty.
    pub(super) fn start(file: &Path, filter: &str) -> Capture {
        let mut command = Command::new("tcpdump");
        // With room for a burst: a large file travels on a connection of its own.
        command.args(["-i", "lo", "-U", "-B", "262144", "-w"]).arg(file).args(filter.split_whitespace());
        let process = command.stdin(Stdio::null()).stderr(Stdio::null()).spawn().expect("tcpdump is installed");
        wait_for("the capture to begin", || fs::metadata(file).is_ok_and(|meta| meta.len() >= 24).then_some(()));
        Capture { process }
    }

    pub(super) fn stop(mut self) {
        let pid = self.process.id().to_string();
        let stopped = Command::new("kill").args(["-INT", &pid]).status().expect("kill runs");
        assert!(stopped.success(), "the capture ends");
        self.process.wait().expect("tcpdump ends");
    }
}

fn holds(file: &Path, text: &str) -> bool {
    let bytes = fs::read(file).expect("a capture");
    bytes.windows(text.len()).any(|part| part == text.as_bytes())
}

#[test]
fn a_capture_holds_no_name_and_no_content() {
    let (laptop, desktop) = (Device::start("laptop"), Device::start("desktop"));
    let captures = laptop.dir("captures");
    let sealed = captures.join("sealed.pcap");
    let capture = Capture::start(&sealed, "");
    laptop.pair(&desktop);
    let from = laptop.dir("Notes");
    // By hand: 10,000 files and a gibibyte.
    let (files, lines) =
        if std::env::var_os("MESHWORK_LONG").is_some() { (10_000, 18_500_000) } else { (100, 110_000) };
    for file in 0..files {
        fs::write(from.join(format!("{NAME} {file}")), format!("{file} {MARKER}")).expect("written");
    }
    // Numbered, so that no part of it is like another and all of it travels.
    let mut large = BufWriter::new(fs::File::create(from.join(NAME)).expect("created"));
    (0..lines).try_for_each(|line| writeln!(large, "{line} {MARKER}")).and_then(|()| large.flush()).expect("written");
    laptop.add("Notes");
    let to = desktop.get("Notes");
    wait_equal(&from, &to);
    capture.stop();
    let length = |file: &Path| fs::metadata(file).expect("there").len();
    let (captured, large) = (length(&sealed), length(&to.join(NAME)));
    figure("secrecy_files", files + 1, "files");
    figure("secrecy_captured", captured, "bytes");
    assert!(captured > large / 10 * 9, "the traffic was captured");
    assert!(!holds(&sealed, NAME) && !holds(&sealed, MARKER), "the capture holds a name or content");

    // The same search finds both when the same bytes travel in the open.
    let plain = captures.join("plain.pcap");
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    let capture = Capture::start(&plain, "");
    let sender = std::thread::spawn(move || {
        let mut stream = std::net::TcpStream::connect(address).expect("connected");
        stream.write_all(format!("{NAME} {MARKER}").as_bytes()).expect("sent");
    });
    let (mut stream, _) = listener.accept().expect("accepted");
    let mut received = String::new();
    std::io::Read::read_to_string(&mut stream, &mut received).expect("received");
    sender.join().expect("sent");
    wait_for("the capture to hold it", || holds(&plain, MARKER).then_some(()));
    capture.stop();
    assert!(holds(&plain, NAME) && holds(&plain, MARKER));
}
