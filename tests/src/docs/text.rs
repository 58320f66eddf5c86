//! What a document consists of, as far as a test can judge it.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use serde_json::Value;

/// The line or part of a line that stands for anything.
const ANYTHING: &str = "...";

/// A document of the repository.
pub struct Document {
    /// Path from the workspace's root.
    pub path: PathBuf,
    /// Its text.
    pub text: String,
}

impl Document {
    /// The documents of the repository: `README.md` and everything below `docs/`.
    pub fn all(root: &Path) -> io::Result<Vec<Document>> {
        let mut paths = vec![PathBuf::from("README.md")];
        let mut todo = vec![PathBuf::from("docs")];
        while let Some(folder) = todo.pop() {
            for entry in fs::read_dir(root.join(&folder))? {
                let path = folder.join(entry?.file_name());
                if root.join(&path).is_dir() {
                    todo.push(path);
                } else if path.extension().is_some_and(|extension| extension == "md") {
                    paths.push(path);
                }
            }
        }
        paths.sort();
        let read = |path: PathBuf| Ok(Document { text: fs::read_to_string(root.join(&path))?, path });
        paths.into_iter().map(read).collect()
    }

    /// `path:line`, for messages.
    pub fn at(&self, line: usize) -> String {
        format!("{}:{line}", self.path.display())
    }
}

/// A fenced code block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Block {
    /// Line of its opening fence, from 1.
    pub line: usize,
    /// The first word after the fence.
    pub tag: String,
    /// The words after that.
    pub words: Vec<String>,
    /// What is between the fences.
    pub text: String,
}

impl Block {
    /// Whether the fence has this word.
    pub fn has(&self, word: &str) -> bool {
        self.words.iter().any(|other| other == word)
    }

    /// The value of a word `name=value` of the fence.
    pub fn value(&self, name: &str) -> Option<&str> {
        self.words.iter().find_map(|word| word.strip_prefix(name)?.strip_prefix('='))
    }

    /// Why it is not run, where its fence says `not-run:` and a reason.
    pub fn not_run(&self) -> Option<String> {
        let (first, reason) = self.words.split_first()?;
        (first == "not-run:" && !reason.is_empty()).then(|| reason.join(" "))
    }

    /// The commands of a `console` block, each with the lines shown below it.
    pub fn commands(&self) -> Result<Vec<(String, Vec<String>)>, String> {
        let mut commands: Vec<(String, Vec<String>)> = Vec::new();
        for line in self.text.lines() {
            match (line.strip_prefix("$ "), commands.last_mut()) {
                (Some(command), _) => commands.push((command.to_owned(), Vec::new())),
                (None, Some((command, shown))) if shown.is_empty() && command.ends_with('\\') => {
                    command.push('\n');
                    command.push_str(line);
                }
                (None, Some((_, shown))) => shown.push(line.to_owned()),
                (None, None) => return Err("a console block begins with a prompt `$ `".to_owned()),
            }
        }
        if commands.is_empty() { Err("a console block without a command".to_owned()) } else { Ok(commands) }
    }
}

/// The code blocks of a text. Only fences of three backticks at the beginning of a line are known, so that
/// no block can be missed: any other fence is an error.
pub fn blocks(text: &str) -> Result<Vec<Block>, String> {
    let mut found = Vec::new();
    let mut open: Option<Block> = None;
    for (number, line) in text.lines().enumerate() {
        let is_fence = line.trim_start().starts_with("```") || line.trim_start().starts_with("~~~");
        match (&mut open, is_fence) {
            (Some(_), true) if line == "```" => found.extend(open.take()),
            (Some(block), _) => {
                block.text.push_str(line);
                block.text.push('\n');
            }
            (None, true) => {
                let info = line.strip_prefix("```").ok_or(format!("{}: an unusual fence", number + 1))?;
                let mut words = info.split_whitespace().map(str::to_owned);
                let tag = words.next().ok_or(format!("{}: a block without a tag", number + 1))?;
                open = Some(Block { line: number + 1, tag, words: words.collect(), text: String::new() });
            }
            (None, false) => {}
        }
    }
    match open {
        Some(block) => Err(format!("{}: the block does not end", block.line)),
        None => Ok(found),
    }
}

/// The lines outside of code blocks, with their numbers.
fn prose(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut inside = false;
    text.lines().enumerate().filter_map(move |(number, line)| {
        let is_fence = line.starts_with("```");
        inside ^= is_fence;
        (!inside && !is_fence).then_some((number + 1, line))
    })
}

/// The targets of the links of a text, with their lines.
pub fn links(text: &str) -> Vec<(usize, String)> {
    let of_line = |(number, line): (usize, &str)| {
        let targets = line.split("](").skip(1).filter_map(|rest| rest.split_once(')'));
        targets.map(|(target, _)| (number, target.to_owned())).collect::<Vec<_>>()
    };
    prose(text).flat_map(of_line).collect()
}

/// The words in single backticks that name a file of the repository, or `file::name` for something in it.
pub fn mentions(text: &str) -> Vec<(usize, String)> {
    let folders = ["protocol/", "node/", "relay/", "bootstrap/", "tests/", "docs/", ".config/", ".ci/"];
    let is_path = |word: &str| {
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '/' | '.' | '_' | '-' | ':');
        word.chars().all(plain) && folders.iter().any(|folder| word.starts_with(folder))
    };
    let of_line = |(number, line): (usize, &str)| {
        let words = line.split('`').skip(1).step_by(2).filter(|word| is_path(word));
        words.map(|word| (number, word.to_owned())).collect::<Vec<_>>()
    };
    prose(text).flat_map(of_line).collect()
}

/// The anchor of a heading, as code hosts make it.
pub fn slug(heading: &str) -> String {
    let kept = heading.trim_start_matches('#').trim().to_lowercase();
    let kept = kept.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.map(|c| if c == ' ' { '-' } else { c }).collect()
}

/// Whether output is what a document shows. `...` in a line stands for any text, a line of nothing else for any
/// lines.
pub fn matches(shown: &[String], output: &[String]) -> bool {
    match shown.split_first() {
        None => output.is_empty(),
        Some((line, rest)) if line == ANYTHING => (0..=output.len()).any(|skip| matches(rest, &output[skip..])),
        Some((line, rest)) => {
            output.split_first().is_some_and(|(first, others)| line_matches(line, first) && matches(rest, others))
        }
    }
}

fn line_matches(shown: &str, line: &str) -> bool {
    let Some((head, rest)) = shown.split_once(ANYTHING) else { return shown.trim_end() == line.trim_end() };
    let Some(tail) = line.strip_prefix(head) else { return false };
    let ends = tail.char_indices().map(|(at, _)| at).chain([tail.len()]);
    ends.into_iter().any(|at| line_matches(rest, &tail[at..]))
}

/// Whether two values have the same fields and types. Null goes with everything; of a list the first is looked at.
pub fn same_shape(one: &Value, other: &Value) -> Result<(), String> {
    match (one, other) {
        (Value::Null, _) | (_, Value::Null) => Ok(()),
        (Value::Object(one), Value::Object(other)) => {
            if let Some(name) = one.keys().find(|name| !other.contains_key(*name)) {
                return Err(format!("the answer has no {name}"));
            }
            if let Some(name) = other.keys().find(|name| !one.contains_key(*name)) {
                return Err(format!("the document does not show {name}"));
            }
            one.iter().try_for_each(|(name, value)| {
                let against = other.get(name).unwrap_or(&Value::Null);
                same_shape(value, against).map_err(|error| format!("{name}: {error}"))
            })
        }
        (Value::Array(one), Value::Array(other)) => match (one.first(), other.first()) {
            (Some(one), Some(other)) => same_shape(one, other),
            _ => Ok(()),
        },
        (Value::String(_), Value::String(_))
        | (Value::Number(_), Value::Number(_))
        | (Value::Bool(_), Value::Bool(_)) => Ok(()),
        _ => Err(format!("{one} is of another type than {other}")),
    }
}
