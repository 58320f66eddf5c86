//! Which symbolic links may be made.

use meshwork_replica::feed::Name;

use crate::disk::root::{HIDDEN, is_plain};

/// Bytes of a link's text at most: what Linux takes.
const TARGET_BYTES: usize = 4_095;

/// Checks that a link at `path` with the text `target` leads to something inside the folder, whatever
/// other links the folder holds; the error is a sentence.
///
/// `..` is taken only at the beginning: after a name it could go up from where another link leads.
pub fn stays_inside(path: &[Name], target: &[u8]) -> Result<(), String> {
    let refuse = |reason: &str| Err(format!("the link is not made: {reason}"));
    if target.is_empty() || target.len() > TARGET_BYTES || target.contains(&0) {
        return refuse("its text is no path");
    }
    if target.starts_with(b"/") {
        return refuse("it leads to an absolute path, which means another place on each device");
    }
    let mut depth = path.len().saturating_sub(1);
    let mut named = false;
    for part in target.split(|byte| *byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." if named => return refuse("its text goes up again after a name"),
            b".." if depth == 0 => return refuse("it leads out of the folder"),
            b".." => depth -= 1,
            name if depth == 0 && !named && name.starts_with(HIDDEN.as_bytes()) => {
                return refuse("it leads to Meshwork's own files");
            }
            name if Name::new(name).is_ok_and(|name| is_plain(&name)) => named = true,
            _ => return refuse("its text is no path"),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(path: &str, target: &str) -> bool {
        let path: Vec<Name> = path.split('/').map(|part| Name::new(part.as_bytes()).expect("a name")).collect();
        stays_inside(&path, target.as_bytes()).is_ok()
    }

    #[test]
    fn inside_is_made() {
        assert!(at("l", "a"));
        assert!(at("l", "a/b/./c"));
        assert!(at("d/l", "../a"));
        assert!(at("d/e/l", "../../a/b"));
        assert!(at("d/l", ".meshwork"));
        assert!(at("l", "."));
    }

    #[test]
    fn outside_is_refused() {
        for (path, target) in [
            ("l", ""),
            ("l", "/etc/passwd"),
            ("l", ".."),
            ("l", "../a"),
            ("d/l", "../../a"),
            ("d/l", "../.."),
            // With p a link to ".", this would lead to the folder's parent.
            ("l", "p/.."),
            ("l", ".meshwork/folder"),
            ("d/l", "../.meshwork/temp"),
            ("l", "./.meshwork"),
        ] {
            assert!(!at(path, target), "{path} -> {target}");
        }
    }
}
