//! What steps are about: where they act, what is to be looked at when they fail, what people are told.

use super::{
    Event,
    observed::{Expect, Path, Step},
};
use crate::feed::Name;

/// Where a step acts.
pub fn place_of(step: &Step) -> &Path {
    match step {
        Step::MakeDir { path }
        | Step::RemoveDir { path, .. }
        | Step::PutFile { path, .. }
        | Step::PutSymlink { path, .. }
        | Step::Remove { path, .. }
        | Step::SetMeta { path, .. }
        | Step::Check { path, .. } => path,
        Step::Move { to, .. } => to,
        Step::Exchange { one, .. } => one,
    }
}

/// The directories to look at again when a step found something else than it expected.
pub fn parents(step: &Step) -> Vec<Path> {
    let mut paths = vec![place_of(step).clone()];
    match step {
        Step::Move { from, .. } => paths.push(from.clone()),
        Step::Exchange { other, .. } => paths.push(other.clone()),
        // What is left in it has to be looked at, too.
        Step::RemoveDir { path, .. } => paths.push(path.iter().cloned().chain(path.last().cloned()).collect()),
        _ => {}
    }
    for path in &mut paths {
        path.pop();
    }
    paths
}

/// Whether a step makes, moves or removes a directory.
pub fn concerns_directory(step: &Step) -> bool {
    match step {
        Step::MakeDir { .. } | Step::RemoveDir { .. } => true,
        Step::Move { expect, .. } | Step::Exchange { one_expect: expect, .. } => matches!(expect, Expect::Dir(_)),
        _ => false,
    }
}

/// Where the directories are that a step moves, once it is done.
pub fn moved_directories(step: &Step) -> Vec<&Path> {
    match step {
        Step::Move { to, expect: Expect::Dir(_), .. } => vec![to],
        Step::Exchange { one, one_expect: Expect::Dir(_), other, .. } => vec![one, other],
        _ => Vec::new(),
    }
}

/// Whether something is in the node's own directory.
pub fn is_aside(path: &Path) -> bool {
    path.first().is_some_and(|name| name.as_bytes() == super::OWN_NAME.as_bytes())
}

/// Steps that give directories which could not be brought back from where they stand aside another name,
/// in the root. `tries` names were taken. Of the steps that are `left` some were to take a directory there first, from the
/// place that the plan had brought it to: one that they did not find is not aside, but wherever its user has it.
pub fn elsewhere(left: &[&Step], tries: usize) -> Vec<Step> {
    let stands = |aside: &Path| !left.iter().any(|step| matches!(step, Step::Move { to, .. } if to == aside));
    let step = |step: &Step| match step {
        Step::Move { from, expect: Expect::Dir(identity), .. } if is_aside(from) && stands(from) => {
            let number = if tries == 0 { String::new() } else { format!(" {}", tries + 1) };
            let name = format!("Recovered {:08x}{number}", identity.inode as u32);
            let to = Name::new(name.as_bytes()).into_iter().collect();
            Some(Step::Move { from: from.clone(), to, expect: Expect::Dir(*identity) })
        }
        _ => None,
    };
    left.iter().copied().filter_map(step).collect()
}

/// What a finished step is to people.
pub fn event_of(step: &Step) -> Option<Event> {
    match step {
        // What stands aside has no name for people.
        Step::Move { from: path, .. } | Step::RemoveDir { path, .. } if is_aside(path) => None,
        Step::Move { to, .. } if is_aside(to) => None,
        Step::PutFile { path, value, .. } => {
            Some(Event::Placed { path: path.clone(), size: value.size, conflict: is_conflict_name(path) })
        }
        Step::PutSymlink { path, target, .. } => {
            Some(Event::Placed { path: path.clone(), size: target.len() as u64, conflict: is_conflict_name(path) })
        }
        Step::Remove { path, .. } | Step::RemoveDir { path, .. } => Some(Event::Removed { path: path.clone() }),
        Step::Move { from, to, .. } => Some(Event::Moved { from: from.clone(), to: to.clone() }),
        Step::MakeDir { .. } | Step::Exchange { .. } | Step::SetMeta { .. } | Step::Check { .. } => None,
    }
}

fn is_conflict_name(path: &Path) -> bool {
    path.last().is_some_and(|name| name.as_bytes().windows(11).any(|part| part == b" (conflict "))
}
