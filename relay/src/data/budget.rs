//! The bytes of a month, a hard bound.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Mutex,
};

use time::OffsetDateTime;

/// Bytes that the file is ahead of what was used: after a crash too few are left, never too many.
const AHEAD: u64 = 64 << 20;

pub(super) struct Budget {
    limit: u64,
    file: Option<PathBuf>,
    state: Mutex<State>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct State {
    month: Month,
    used: u64,
    saved: u64,
}

/// A year and a month, in UTC.
type Month = (i32, u8);

fn this_month() -> Month {
    let now = OffsetDateTime::now_utc();
    (now.year(), now.month().into())
}

impl Budget {
    pub(super) fn open(limit: u64, file: Option<PathBuf>) -> io::Result<Self> {
        let month = this_month();
        let used = match file.as_deref().map(read).transpose()?.flatten() {
            Some((of, used)) if of == month => used,
            _ => 0,
        };
        let budget = Self { limit, file, state: Mutex::new(State { month, used, saved: used }) };
        // A file that cannot be written is to be noticed now.
        budget.save()?;
        Ok(budget)
    }

    pub(super) fn is_spent(&self) -> bool {
        self.limit > 0 && self.used() >= self.limit
    }

    pub(super) fn used(&self) -> u64 {
        let state = super::lock(&self.state);
        if state.month == this_month() { state.used } else { 0 }
    }

    /// Counts bytes; false when they were the last of this month.
    pub(super) fn spend(&self, bytes: u64) -> io::Result<bool> {
        let mut state = super::lock(&self.state);
        let month = this_month();
        if state.month != month {
            *state = State { month, used: 0, saved: 0 };
        }
        state.used = state.used.saturating_add(bytes);
        if state.used > state.saved && self.file.is_some() {
            state.saved = state.used + AHEAD;
            self.write(month, state.saved)?;
        }
        Ok(self.limit == 0 || state.used < self.limit)
    }

    pub(super) fn save(&self) -> io::Result<()> {
        let mut state = super::lock(&self.state);
        state.saved = state.used;
        self.write(state.month, state.used)
    }

    fn write(&self, (year, month): Month, used: u64) -> io::Result<()> {
        let Some(file) = &self.file else { return Ok(()) };
        let temporary = file.with_extension("new");
        fs::write(&temporary, format!("{year}-{month:02} {used}\n"))?;
        fs::rename(&temporary, file)
    }
}

/// What the file says; `None` when there is no file.
fn read(file: &Path) -> io::Result<Option<(Month, u64)>> {
    let text = match fs::read_to_string(file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        text => text?,
    };
    let parsed = || {
        let (month, used) = text.trim().split_once(' ')?;
        let (year, month) = month.split_once('-')?;
        Some(((year.parse().ok()?, month.parse().ok()?), used.parse().ok()?))
    };
    let wrong = || {
        let reason = format!("{} is not a budget file (YYYY-MM BYTES); remove it to count from zero", file.display());
        io::Error::new(io::ErrorKind::InvalidData, reason)
    };
    parsed().map(Some).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_budget_is_hard_and_survives() {
        let home = tempfile::tempdir().expect("temporary directory");
        let file = home.path().join("budget");
        let budget = Budget::open(1_000, Some(file.clone())).expect("open");
        assert!(budget.spend(999).expect("spend") && !budget.is_spent());
        // As after a crash: the file is ahead.
        assert!(Budget::open(1_000, Some(file.clone())).expect("open").is_spent());
        budget.save().expect("save");
        let again = Budget::open(1_000, Some(file.clone())).expect("open");
        assert_eq!(again.used(), 999);
        assert!(!again.spend(1).expect("spend") && again.is_spent());
        fs::write(&file, "1999-01 1000\n").expect("write");
        assert_eq!(Budget::open(1_000, Some(file.clone())).expect("open").used(), 0, "another month");
        fs::write(&file, "rubbish").expect("write");
        assert!(Budget::open(1_000, Some(file)).is_err());
    }
}
