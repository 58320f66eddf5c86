//! Every code block of the documents is run or checked, and every link leads somewhere.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use meshwork_tests::docs::{Block, Document, Home, Session, blocks, links, matches, mentions, same_shape, slug};
use serde_json::Value;

/// Blocks that are shown and not run, by document and first line. Nothing else may say `not-run:`.
const NOT_RUN: [(&str, &str); 11] = [
    ("README.md", "$ cargo build --release && target/release/mesh demo"),
    ("README.md", "$ tests/run"),
    ("README.md", "$ cargo install --path node --locked"),
    ("README.md", "$ mesh recovery confirm"),
    ("docs/hacking.md", "$ cargo build --release"),
    ("docs/hacking.md", "$ tests/run"),
    ("docs/hacking.md", "$ cargo test --release -p meshwork-protocol control"),
    ("docs/hacking.md", "$ cargo test --release -p meshwork-tests --test lab -- Linux/Symmetric"),
    ("docs/hacking.md", "$ cargo test --release -p meshwork-tests --test sim -- --seed 4711"),
    ("docs/hacking.md", "$ cd tests/fuzz && cargo build --release --locked"),
    ("docs/hacking.md", "$ cargo fmt --all"),
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ is a folder of the workspace").to_path_buf()
}

fn documents() -> Vec<Document> {
    let documents = Document::all(&root()).expect("the documents can be read");
    assert!(documents.len() >= 8, "the documents were found");
    documents
}

fn assert_none(what: &str, found: Vec<String>) {
    assert!(found.is_empty(), "{what}:\n\n{}\n", found.join("\n\n"));
}

/// What one document stands for while it is read: its devices, and what they said that is to be typed elsewhere.
struct Reading {
    // Before the place: fields go in this order, and a node is stopped through a socket in its home.
    devices: BTreeMap<String, Session>,
    place: Home,
    device: String,
    code: String,
    link: String,
}

impl Reading {
    fn new() -> Self {
        let place = Home::new().expect("a place for the devices");
        let nothing = || "nothing was shown yet".to_owned();
        Reading { place, devices: BTreeMap::new(), device: String::new(), code: nothing(), link: nothing() }
    }

    /// The shell of the device that a block speaks of; the first device is called `laptop`.
    fn turn_to(&mut self, block: &Block) -> Result<(), String> {
        self.device = block.value("on").unwrap_or("laptop").to_owned();
        if !self.devices.contains_key(&self.device) {
            let session = Session::start(&self.place.of(&self.device)).map_err(|error| error.to_string())?;
            self.devices.insert(self.device.clone(), session);
        }
        Ok(())
    }

    fn run(&mut self, command: &str, again: bool, shown: Option<&[String]>) -> Result<(), String> {
        let command = command.replace("CODE", &self.code).replace("LINK", &format!("'{}'", self.link));
        let session = self.devices.get_mut(&self.device).ok_or("no device")?;
        let output = session.retry(again, |session| {
            let (output, code) = session.run(&command)?;
            let said = || output.join("\n");
            match shown {
                _ if code != 0 => Err(format!("$ {command}\nexit code {code}:\n{}", said())),
                Some(shown) if !shown.is_empty() && !matches(shown, &output) => {
                    Err(format!("$ {command}\nshown:\n{}\nsaid:\n{}", shown.join("\n"), said()))
                }
                _ => Ok(output),
            }
        })?;
        self.note(&output);
        Ok(())
    }

    /// Remembers a pairing code and a link that were shown.
    fn note(&mut self, output: &[String]) {
        for line in output.iter().map(|line| line.trim()) {
            let join = line.strip_prefix("mesh join ");
            let word = join.unwrap_or(line).trim_matches('\'').to_owned();
            if ["mesh-pair:", "mesh-contact:", "mesh-share:"].iter().any(|link| word.starts_with(link)) {
                self.link = word;
            } else if join.is_some() {
                self.code = word;
            }
        }
    }

    fn block(&mut self, block: &Block) -> Result<(), String> {
        if block.not_run().is_some() {
            return block.commands().map(drop);
        }
        let (known, unknown): (Vec<&String>, Vec<&String>) = block.words.iter().partition(|word| match &*block.tag {
            "console" | "sh" => *word == "retry" || word.starts_with("on="),
            "json" => *word == "answer",
            _ => false,
        });
        if !unknown.is_empty() {
            return Err(format!("the words {unknown:?} after {} beside {known:?} mean nothing", block.tag));
        }
        match &*block.tag {
            "console" => self.console(block),
            "sh" => {
                self.turn_to(block)?;
                self.run(&format!("(set -e\n{})", block.text), block.has("retry"), None)
            }
            "json" => self.json(block),
            "toml" => block.text.parse::<toml::Table>().map(drop).map_err(|error| error.to_string()),
            "text" => Ok(()),
            other => Err(format!("nobody knows what to do with a block of {other}")),
        }
    }

    fn console(&mut self, block: &Block) -> Result<(), String> {
        let commands = block.commands()?;
        self.turn_to(block)?;
        commands.iter().try_for_each(|(command, shown)| self.run(command, block.has("retry"), Some(shown)))
    }

    /// JSON is read; that which says `answer` has the shape of what the last command printed.
    fn json(&mut self, block: &Block) -> Result<(), String> {
        let shown: Value = serde_json::from_str(&block.text).map_err(|error| error.to_string())?;
        if !block.has("answer") {
            return Ok(());
        }
        let last = self.devices.get(&self.device).map(|session| session.last.join("\n")).unwrap_or_default();
        let answer = serde_json::from_str(&last).map_err(|error| format!("{error} in {last:?}"))?;
        same_shape(&shown, &answer).map_err(|error| format!("{error}, in the answer\n{answer}"))
    }
}

/// Reads a document to its first mistake; gives the number of its blocks.
fn read(document: &Document) -> Result<usize, String> {
    let blocks = blocks(&document.text).map_err(|error| format!("{}:{error}", document.path.display()))?;
    let mut reading = Reading::new();
    for block in &blocks {
        reading.block(block).map_err(|error| format!("{}: {error}", document.at(block.line)))?;
    }
    Ok(blocks.len())
}

#[test]
fn every_block_is_run_or_checked() {
    let (mut count, mut wrong) = (0, Vec::new());
    for document in documents() {
        match read(&document) {
            Ok(blocks) => count += blocks,
            Err(error) => wrong.push(error),
        }
    }
    assert_none("documents that do not do as they say", wrong);
    println!("FIGURE documents_blocks {count} blocks");
    assert!(count >= 20, "only {count} blocks were found");
}

#[test]
fn nothing_hides_among_what_is_not_run() {
    let mut found = Vec::new();
    for document in documents() {
        for block in blocks(&document.text).expect("the blocks can be read") {
            if block.words.iter().any(|word| word.contains("not-run")) {
                assert!(block.not_run().is_some(), "{}: not-run: and a reason", document.at(block.line));
                let first = block.text.lines().next().unwrap_or_default();
                found.push((document.path.display().to_string(), first.to_owned()));
            }
        }
    }
    let expected: Vec<(String, String)> =
        NOT_RUN.iter().map(|(path, line)| (path.to_string(), line.to_string())).collect();
    assert_eq!(found, expected, "the blocks that are not run are listed in this test, in order");
}

/// What is not run is at least not made up: the parts, tests and packages that it names exist.
#[test]
fn what_is_not_run_names_what_exists() {
    let script = fs::read_to_string(root().join("tests/run")).expect("the script");
    let manifest = fs::read_to_string(root().join("tests/Cargo.toml")).expect("the manifest");
    let lock = fs::read_to_string(root().join("Cargo.lock")).expect("the lock file");
    let mut wrong = Vec::new();
    for document in documents() {
        for block in blocks(&document.text).expect("the blocks can be read").iter().filter(|b| b.not_run().is_some()) {
            let words: Vec<&str> = block.text.split_whitespace().collect();
            for pair in words.windows(2) {
                let known = match pair {
                    ["--test", name] => manifest.contains(&format!("name = \"{name}\"")),
                    ["-p", name] => lock.contains(&format!("name = \"{name}\"")),
                    ["tests/run", part] if part.chars().all(|c| c.is_ascii_lowercase()) => {
                        script.contains(&format!("part_{part}()"))
                    }
                    _ => true,
                };
                if !known {
                    wrong.push(format!("{}: {}", document.at(block.line), pair.join(" ")));
                }
            }
        }
    }
    assert_none("commands that cannot work", wrong);
}

/// What a link or a mentioned path has wrong, if anything.
fn target_error(document: &Document, target: &str) -> Option<String> {
    if ["http://", "https://", "mailto:"].iter().any(|scheme| target.starts_with(scheme)) {
        return None;
    }
    let (path, anchor) = target.split_once('#').unwrap_or((target, ""));
    let own = document.path.parent().unwrap_or(Path::new(""));
    let file = if path.is_empty() { root().join(&document.path) } else { root().join(own).join(path) };
    if !file.exists() {
        return Some(format!("there is no {path}"));
    }
    if anchor.is_empty() {
        return None;
    }
    let text = if path.is_empty() { document.text.clone() } else { fs::read_to_string(file).unwrap_or_default() };
    let known = text.lines().any(|line| line.starts_with('#') && slug(line) == anchor);
    (!known).then(|| format!("there is no heading #{anchor} in {path}"))
}

fn mention_error(mention: &str) -> Option<String> {
    let (path, name) = mention.split_once("::").unwrap_or((mention, ""));
    match fs::metadata(root().join(path)) {
        Err(_) => Some(format!("there is no {path}")),
        Ok(_) if name.is_empty() => None,
        Ok(_) => {
            let text = fs::read_to_string(root().join(path)).unwrap_or_default();
            let word = |c: char| !(c.is_alphanumeric() || c == '_');
            (!text.split(word).any(|found| found == name)).then(|| format!("there is no {name} in {path}"))
        }
    }
}

fn dead_ends(document: &Document) -> Vec<String> {
    let links = links(&document.text).into_iter().map(|(line, target)| (line, target_error(document, &target)));
    let mentions = mentions(&document.text).into_iter().map(|(line, mention)| (line, mention_error(&mention)));
    let wrong = links.chain(mentions).filter_map(|(line, error)| Some((line, error?)));
    wrong.map(|(line, error)| format!("{}: {error}", document.at(line))).collect()
}

#[test]
fn links_and_paths_lead_somewhere() {
    let documents = documents();
    let found: usize = documents.iter().map(|one| links(&one.text).len() + mentions(&one.text).len()).sum();
    assert!(found >= 30, "only {found} links and paths were found");
    assert_none("dead ends", documents.iter().flat_map(dead_ends).collect());
}

fn planted(text: &str) -> Document {
    Document { path: "docs/planted.md".into(), text: text.to_owned() }
}

#[test]
fn planted_mistakes_are_caught() {
    let good =
        "```console\n$ echo one; echo two\none\n...\n$ cat nothing 2>/dev/null || \\\n  echo longer\nlonger\n```\n";
    assert_eq!(read(&planted(good)), Ok(1));
    for (mistake, said) in [
        ("```console\n$ echo one\ntwo\n```\n", "said:\none"),
        ("```console\n$ echo one; false\none\n```\n", "exit code 1"),
        ("```console\nno prompt\n```\n", "begins with a prompt"),
        ("```sh\nfalse\ntrue\n```\n", "exit code 1"),
        ("```sh retyr\ntrue\n```\n", "mean nothing"),
        ("```json\n{\"a\": }\n```\n", "expected value"),
        ("```console\n$ echo '{\"a\": 1}'\n```\n```json answer\n{\"b\": 1}\n```\n", "has no b"),
        ("```toml\na = \n```\n", "TOML"),
        ("```python\nprint()\n```\n", "nobody knows"),
        ("```\nplain\n```\n", "without a tag"),
        ("  ```sh\ntrue\n  ```\n", "unusual fence"),
        ("~~~sh\ntrue\n~~~\n", "unusual fence"),
        ("```sh\ntrue\n", "does not end"),
    ] {
        let error = read(&planted(mistake)).expect_err(mistake);
        assert!(error.contains(said), "{mistake}: {error}");
    }
    for dead in ["[x](nowhere.md)", "[x](architecture.md#nowhere)", "`tests/nowhere.rs`", "`tests/run::nowhere`"] {
        assert_eq!(dead_ends(&planted(dead)).len(), 1, "{dead}");
    }
    assert_eq!(dead_ends(&planted("[x](architecture.md) `tests/docs.rs::planted`")), Vec::<String>::new());
}
