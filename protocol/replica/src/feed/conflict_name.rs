//! The names of entries that lost their own: a function of name and content, the same everywhere.

use meshwork_protocol::{
    id::{ContentId, DirId, hex},
    limits,
};

use super::operation::Name;

/// Marks before the short tag is given up. A name that grows by a mark each time is at its length
/// limit long before; this only stops names that keep changing without growing.
const MAX_SHORT_MARKS: usize = 24;

/// What every conflict name has in it.
const MARK: &str = " (conflict ";

/// Whether a name can be that of a conflict loser; a user may have chosen it as well.
pub(super) fn is_conflict_name(name: &Name) -> bool {
    name.as_bytes().windows(MARK.len()).any(|part| part == MARK.as_bytes())
}

/// The names a conflict loser tries, in turn: `stem (conflict XXXXXXXX).ext`, then the same rule on
/// that name, and so on.
///
/// Where the rule stops giving new names (at 255 bytes), the whole id takes the place of its first
/// eight digits, then the whole id and a number, so that there is always another name to try.
pub(crate) struct ConflictNames {
    original: Name,
    current: Name,
    digits: String,
    marks: usize,
    number: Option<u64>,
}

impl ConflictNames {
    pub(crate) fn for_file(name: &Name, content: &ContentId) -> Self {
        Self::new(name, hex(content.as_bytes()))
    }

    pub(crate) fn for_directory(name: &Name, smallest: &DirId) -> Self {
        Self::new(name, hex(smallest.as_bytes()))
    }

    fn new(name: &Name, digits: String) -> Self {
        ConflictNames { original: name.clone(), current: name.clone(), digits, marks: 0, number: None }
    }

    /// The next name to try; never ends.
    pub(crate) fn advance(&mut self) -> Name {
        if self.number.is_none() && self.marks < MAX_SHORT_MARKS {
            self.marks += 1;
            let tag: String = self.digits.chars().take(8).collect();
            let next = mark(&self.current, &tag);
            if next != self.current {
                self.current = next.clone();
                return next;
            }
        }
        let number = self.number.map_or(1, |number| number + 1);
        self.number = Some(number);
        match number {
            1 => mark(&self.original, &self.digits),
            _ => mark(&self.original, &format!("{} {number}", self.digits)),
        }
    }
}

/// `stem (conflict TAG).ext`, the stem cut so that the whole has at most 255 bytes.
fn mark(name: &Name, tag: &str) -> Name {
    let bytes = name.as_bytes();
    let suffix = format!("{MARK}{tag})");
    let dot = bytes.iter().rposition(|&byte| byte == b'.').filter(|&at| at > 0).unwrap_or(bytes.len());
    let (mut stem, mut extension) = bytes.split_at(dot);
    if suffix.len() + extension.len() >= limits::FILE_NAME {
        (stem, extension) = (bytes, &[]);
    }
    let room = limits::FILE_NAME - suffix.len() - extension.len();
    let mut marked = cut(stem, room).to_vec();
    marked.extend_from_slice(suffix.as_bytes());
    marked.extend_from_slice(extension);
    Name::derived(marked)
}

/// At most `room` bytes of `stem`, not ending inside a UTF-8 character.
fn cut(stem: &[u8], room: usize) -> &[u8] {
    if stem.len() <= room {
        return stem;
    }
    let is_boundary = |at: &usize| stem.get(*at).is_none_or(|byte| byte & 0xc0 != 0x80);
    // A character has at most four bytes; bytes that are no UTF-8 are cut where they are.
    let end = (room.saturating_sub(3)..=room).rev().find(is_boundary).unwrap_or(room);
    stem.get(..end).unwrap_or(stem)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(name: &str, count: usize) -> Vec<String> {
        let mut names = ConflictNames::for_file(&Name::try_from(name).unwrap(), &ContentId([0xab; 32]));
        (0..count).map(|_| names.advance().to_string()).collect()
    }

    #[test]
    fn marks_go_before_the_extension() {
        assert_eq!(names("f.txt", 1), ["f (conflict abababab).txt"]);
        assert_eq!(names("f", 2), ["f (conflict abababab)", "f (conflict abababab) (conflict abababab)"]);
        assert_eq!(names(".profile", 1), [".profile (conflict abababab)"]);
        assert_eq!(names("a.tar.gz", 1), ["a.tar (conflict abababab).gz"]);
        assert_eq!(names("dot.", 1), ["dot (conflict abababab)."]);
    }

    #[test]
    fn long_stems_are_cut_between_characters() {
        let [name] = &names(&format!("{}.txt", "é".repeat(125)), 1)[..] else { panic!("one name") };
        assert_eq!(name, &format!("{} (conflict abababab).txt", "é".repeat(115)));
    }

    #[test]
    fn there_is_always_another_name() {
        let longest = ["n".repeat(255), format!("a.{}", "e".repeat(253)), format!("{}.x", "é".repeat(126)), "f".into()];
        for name in longest {
            let tried = names(&name, 60);
            let distinct: std::collections::BTreeSet<_> = tried.iter().collect();
            assert!(distinct.len() >= 50, "{name}: {} of 60", distinct.len());
            assert_eq!(distinct.iter().filter(|tried| tried.ends_with("ab 9)") || tried.contains("ab 9)")).count(), 1);
            assert!(tried.iter().all(|tried| Name::try_from(tried.as_str()).is_ok()));
        }
    }
}
