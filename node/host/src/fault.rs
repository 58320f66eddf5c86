//! Named points at which a test makes this process die or an operation fail.
//!
//! They exist only with the feature `fault`; without it every function here is empty. Points are armed
//! by [`arm`] in the same process, or from outside through the variable `MESHWORK_FAULT`:
//! `place.rename=die:3,store.flush=fail` dies at the third pass of the first point and fails every pass
//! of the second.

/// Variable that arms points from outside.
pub const FAULT_VARIABLE: &str = "MESHWORK_FAULT";

/// What happens at an armed point.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The process aborts at pass `at` (1 is the first), without any clean-up, as if killed.
    Die {
        /// Which pass.
        at: u32,
    },
    /// [`try_point`] fails from pass `from` on.
    Fail {
        /// First failing pass; 1 is the first.
        from: u32,
    },
}

#[cfg(feature = "fault")]
mod armed {
    use std::{
        collections::BTreeMap,
        sync::{LazyLock, Mutex, PoisonError},
    };

    use super::{FAULT_VARIABLE, Fault};

    static POINTS: LazyLock<Mutex<BTreeMap<String, (Fault, u32)>>> = LazyLock::new(|| {
        let text = std::env::var(FAULT_VARIABLE).unwrap_or_default();
        Mutex::new(parse(&text).into_iter().map(|(name, fault)| (name, (fault, 0))).collect())
    });

    pub(super) fn parse(text: &str) -> Vec<(String, Fault)> {
        let entry = |entry: &str| {
            let (name, what) = entry.split_once('=')?;
            let (what, pass) = what.split_once(':').unwrap_or((what, "1"));
            let pass = pass.parse().ok()?;
            let fault = match what {
                "die" => Fault::Die { at: pass },
                "fail" => Fault::Fail { from: pass },
                _ => return None,
            };
            Some((name.to_owned(), fault))
        };
        text.split(',').filter_map(entry).collect()
    }

    pub(super) fn set(name: &str, fault: Option<Fault>) {
        let mut points = POINTS.lock().unwrap_or_else(PoisonError::into_inner);
        match fault {
            Some(fault) => points.insert(name.to_owned(), (fault, 0)),
            None => points.remove(name),
        };
    }

    /// Counts a pass. Returns whether the operation is to fail.
    pub(super) fn pass(name: &str) -> bool {
        let mut points = POINTS.lock().unwrap_or_else(PoisonError::into_inner);
        let Some((fault, passes)) = points.get_mut(name) else {
            return false;
        };
        *passes = passes.saturating_add(1);
        match *fault {
            Fault::Die { at } if *passes == at => {
                eprintln!("fault point {name}: dying at pass {passes}");
                std::process::abort()
            }
            Fault::Die { .. } => false,
            Fault::Fail { from } => *passes >= from,
        }
    }
}

/// Arms a point of this process, its count of passes at zero.
#[cfg(feature = "fault")]
pub fn arm(name: &str, fault: Fault) {
    armed::set(name, Some(fault));
}

/// Disarms a point of this process.
#[cfg(feature = "fault")]
pub fn disarm(name: &str) {
    armed::set(name, None);
}

/// A point at which the process may die.
#[inline]
pub fn point(name: &str) {
    #[cfg(feature = "fault")]
    armed::pass(name);
    #[cfg(not(feature = "fault"))]
    let _ = name;
}

/// A point at which the process may die or an operation may fail.
#[inline]
pub fn try_point(name: &str) -> std::io::Result<()> {
    #[cfg(feature = "fault")]
    if armed::pass(name) {
        return Err(std::io::Error::other(format!("fault point {name}")));
    }
    #[cfg(not(feature = "fault"))]
    let _ = name;
    Ok(())
}

#[cfg(all(test, feature = "fault"))]
mod tests {
    use super::*;

    #[test]
    fn points_fail_from_the_named_pass_on() {
        arm("test.fail", Fault::Fail { from: 2 });
        assert!(try_point("test.fail").is_ok());
        assert!(try_point("test.fail").is_err());
        assert!(try_point("test.fail").is_err());
        disarm("test.fail");
        assert!(try_point("test.fail").is_ok());
        arm("test.die", Fault::Die { at: 3 });
        point("test.die");
        assert!(try_point("test.die").is_ok());
    }

    #[test]
    fn the_variable_names_points() {
        let parsed = armed::parse("a.b=die:3,c=fail,d=what,e");
        assert_eq!(parsed, [("a.b".into(), Fault::Die { at: 3 }), ("c".into(), Fault::Fail { from: 1 })]);
    }
}
