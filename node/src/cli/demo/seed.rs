//! What a person might have in a folder: a journal, recipes, letters, some source text, pictures.

use std::{
    fs, io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

/// The file that the demo edits, relative to the folder.
pub(super) const EDITED: &str = "shopping list.txt";

const WORDS: [&str; 40] = [
    "the", "a", "and", "of", "to", "in", "that", "it", "was", "for", "with", "rain", "garden", "river", "bread",
    "letter", "morning", "train", "window", "friend", "table", "colour", "stone", "summer", "paper", "door", "music",
    "walk", "early", "quiet", "again", "maybe", "bought", "found", "wrote", "fixed", "called", "left", "green",
    "small",
];
const DISHES: [&str; 12] = [
    "Apple cake",
    "Bean soup",
    "Crêpes",
    "Dumplings",
    "Egg salad",
    "Fish pie",
    "Gnocchi",
    "Hummus",
    "Irish stew",
    "Jam",
    "Käsespätzle",
    "Lentils",
];
const PEOPLE: [&str; 10] = ["Ada", "Björn", "Chiara", "Dmitri", "Elif", "François", "Grete", "Hana", "Íris", "João"];

/// What was made.
pub(super) struct Seeded {
    pub(super) files: u64,
    pub(super) bytes: u64,
}

/// Fills the directory with a few hundred files, the same each time.
pub(super) fn fill(root: &Path) -> io::Result<Seeded> {
    let mut seed = Seed { root: root.to_owned(), state: 0x6d65_7368, made: Seeded { files: 0, bytes: 0 } };
    seed.write(EDITED, b"bread\nmilk\napples\na new bulb for the lamp in the hall\n")?;
    seed.journal()?;
    seed.recipes()?;
    seed.letters()?;
    seed.source()?;
    seed.pictures()?;
    seed.write("empty note.txt", b"")?;
    fs::create_dir_all(root.join("journal/next year"))?;
    Ok(seed.made)
}

struct Seed {
    root: PathBuf,
    state: u64,
    made: Seeded,
}

impl Seed {
    /// SplitMix64 (Steele, Lea, Flood 2014).
    fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    /// A number below `bound`, which is at least 1.
    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound.max(1) as u64) as usize
    }

    fn write(&mut self, path: impl AsRef<Path>, content: &[u8]) -> io::Result<()> {
        let path = self.root.join(path);
        if let Some(directory) = path.parent() {
            fs::create_dir_all(directory)?;
        }
        fs::write(path, content)?;
        self.made.files += 1;
        self.made.bytes += content.len() as u64;
        Ok(())
    }

    fn prose(&mut self, sentences: usize) -> String {
        let mut text = String::new();
        for number in 0..sentences {
            let length = 5 + self.below(12);
            for place in 0..length {
                let word = WORDS.get(self.below(WORDS.len())).copied().unwrap_or_default();
                match place {
                    0 => text.extend(word.chars().take(1).flat_map(char::to_uppercase).chain(word.chars().skip(1))),
                    _ => text.push_str(&format!(" {word}")),
                }
            }
            text.push_str(if number % 5 == 4 { ".\n\n" } else { ". " });
        }
        text
    }

    fn journal(&mut self) -> io::Result<()> {
        for month in 1..=9 {
            for day in (1..=28).step_by(2) {
                let sentences = 3 + self.below(30);
                let text = format!("2026-{month:02}-{day:02}\n\n{}", self.prose(sentences));
                self.write(format!("journal/2026/{month:02}/2026-{month:02}-{day:02}.md"), text.as_bytes())?;
            }
        }
        Ok(())
    }

    fn recipes(&mut self) -> io::Result<()> {
        for dish in DISHES {
            for kind in ["", " (for guests)", " (quick)"] {
                let steps: String = (1..=6).map(|step| format!("{step}. {}\n", self.prose(1))).collect();
                self.write(format!("recipes/{dish}{kind}.md"), format!("# {dish}{kind}\n\n{steps}").as_bytes())?;
            }
        }
        Ok(())
    }

    fn letters(&mut self) -> io::Result<()> {
        for person in PEOPLE {
            for number in 1..=6 {
                let sentences = 20 + self.below(60);
                let text = format!("Dear {person},\n\n{}\nYours\n", self.prose(sentences));
                self.write(format!("letters/{person}/letter {number}.txt"), text.as_bytes())?;
            }
        }
        Ok(())
    }

    fn source(&mut self) -> io::Result<()> {
        for module in 0..60 {
            let lines: String = (0..20 + self.below(80))
                .map(|line| format!("    total = total * 31 + {} # step {line}\n", self.next() % 1_000))
                .collect();
            let text = format!("def step_{module}(total):\n{lines}    return total\n");
            self.write(format!("projects/clock/src/part{}/step_{module}.py", module % 6), text.as_bytes())?;
        }
        let script = "projects/clock/run.sh";
        self.write(script, b"#!/bin/sh\nexec python3 -m clock \"$@\"\n")?;
        fs::set_permissions(self.root.join(script), fs::Permissions::from_mode(0o755))
    }

    /// Bytes that cannot be compressed, in sizes that need one chunk and many.
    fn pictures(&mut self) -> io::Result<()> {
        for (name, len) in [("harbour", 300 << 10), ("mountains", 1 << 20), ("garden at night", (3 << 20) + 17)] {
            let content: Vec<u8> = (0..len / 8 + 1).flat_map(|_| self.next().to_le_bytes()).take(len).collect();
            self.write(format!("pictures/{name}.raw"), &content)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::demo::tree::Tree;

    #[test]
    fn the_same_few_hundred_files_each_time() {
        let directory = tempfile::tempdir().expect("a directory");
        let (one, two) = (directory.path().join("1"), directory.path().join("2"));
        let made = fill(&one).expect("written");
        fill(&two).expect("written");
        let tree = Tree::read(&one).expect("read");
        assert!((200..500).contains(&made.files), "{}", made.files);
        assert!((4 << 20..8 << 20).contains(&made.bytes), "{}", made.bytes);
        assert_eq!((tree.files(), tree.bytes()), (made.files, made.bytes));
        assert_eq!(tree.hash(), Tree::read(&two).expect("read").hash());
    }
}
