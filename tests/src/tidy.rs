//! Reading the house's own source.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// One source file.
pub struct Source {
    /// Path from the workspace's root.
    pub path: PathBuf,
    /// Its text.
    pub text: String,
}

impl Source {
    /// Whether the file holds only tests, what they share, or measurements.
    pub fn is_test(&self) -> bool {
        let stem = self.path.file_stem().unwrap_or_default();
        let folder = |name: &str| self.path.components().any(|part| part.as_os_str() == name);
        ["tests", "testing", "measure"].iter().any(|name| stem == *name) || folder("tests") || folder("benches")
    }

    /// `path:line: text` of each line of code (not of comments, nor of the test module that ends a
    /// file) that has one of `words`.
    pub fn lines_with(&self, words: &[&str]) -> Vec<String> {
        let mut found = Vec::new();
        let mut tests_follow = false;
        for (number, line) in self.text.lines().enumerate() {
            tests_follow |= line.trim() == "#[cfg(test)]";
            let code = line.split("//").next().unwrap_or_default();
            if !tests_follow && words.iter().any(|word| code.contains(word)) {
                found.push(format!("{}:{}: {}", self.path.display(), number + 1, line.trim()));
            }
        }
        found
    }
}

/// A function: where it starts, its name and its lines.
pub struct Function {
    /// Line of its first line, from 1.
    pub line: usize,
    /// Its name.
    pub name: String,
    /// Lines from the signature to the closing brace.
    pub lines: usize,
}

/// The functions of a formatted source text: a body ends at the brace that is indented as its
/// signature is.
pub fn functions(text: &str) -> Vec<Function> {
    let lines: Vec<&str> = text.lines().collect();
    let mut found = Vec::new();
    for (start, line) in lines.iter().enumerate() {
        let Some(name) = signature(line) else { continue };
        let indent = indent_of(line);
        let closing = format!("{}}}", " ".repeat(indent));
        // Some have no body, or all of it in the line.
        let after = lines.iter().skip(start + 1).find(|line| indent_of(line) <= indent);
        let bodiless = after.is_some_and(|line| line.trim_start().starts_with(") ->") && line.ends_with(';'));
        let one_line = bodiless || line.trim_end().ends_with(['}', ';']);
        let end = lines
            .iter()
            .skip(start + 1)
            .position(|line| line.trim_end() == closing || line.trim_end() == format!("{closing};"));
        if let (false, Some(end)) = (one_line, end) {
            found.push(Function { line: start + 1, name, lines: end + 2 });
        }
    }
    found
}

fn indent_of(line: &str) -> usize {
    line.len() - line.trim_start().len()
}

fn signature(line: &str) -> Option<String> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let at = words.iter().position(|word| *word == "fn")?;
    let prefix = ["pub", "pub(crate)", "pub(super)", "async", "const", "unsafe", "extern", "\"C\""];
    if !words[..at].iter().all(|word| prefix.contains(word)) {
        return None;
    }
    words.get(at + 1).map(|name| name.split(['(', '<']).next().unwrap_or_default().to_owned())
}

/// All Rust files of the workspace.
pub fn sources(root: &Path) -> Vec<Source> {
    let mut found = Vec::new();
    for folder in ["protocol", "node", "relay", "bootstrap", "tests"] {
        walk(root, &root.join(folder), &mut found);
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    found
}

fn walk(root: &Path, dir: &Path, found: &mut Vec<Source>) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() && entry.file_name() != "target" {
            walk(root, &path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).unwrap_or_default();
            found.push(Source { path: path.strip_prefix(root).unwrap_or(&path).to_path_buf(), text });
        }
    }
}
