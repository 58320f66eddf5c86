//! Bugs that can be planted in the simulated surroundings, to show that the judges notice.

use super::world::Cast;

/// A planted bug.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Planted {
    /// Placing does not compare what is there with what the plan assumed.
    CarelessPlace,
    /// What placing replaces or removes is not kept in history.
    ForgetfulHistory,
    /// Entries are reported durable before they are.
    EarlyDurable,
    /// A step of placing is reported done that was not.
    SkippedStep,
    /// Reading a file gives what was there before.
    StaleHash,
    /// After a restart the log lacks an entry that was durable.
    LogHole,
    /// What was fetched is not compared with what was asked for.
    UnverifiedContent,
    /// A record goes to the log before its signature was checked.
    UnverifiedRecord,
    /// Of two records at one place the log keeps the later one.
    TwinReplaces,
}

impl Planted {
    /// All of them.
    pub const ALL: [Planted; 9] = [
        Planted::CarelessPlace,
        Planted::ForgetfulHistory,
        Planted::EarlyDurable,
        Planted::SkippedStep,
        Planted::StaleHash,
        Planted::LogHole,
        Planted::UnverifiedContent,
        Planted::UnverifiedRecord,
        Planted::TwinReplaces,
    ];

    /// The name for the command line.
    pub fn name(self) -> &'static str {
        match self {
            Planted::CarelessPlace => "careless-place",
            Planted::ForgetfulHistory => "forgetful-history",
            Planted::EarlyDurable => "early-durable",
            Planted::SkippedStep => "skipped-step",
            Planted::StaleHash => "stale-hash",
            Planted::LogHole => "log-hole",
            Planted::UnverifiedContent => "unverified-content",
            Planted::UnverifiedRecord => "unverified-record",
            Planted::TwinReplaces => "twin-replaces",
        }
    }

    /// The cast in whose runs it can show.
    pub fn cast(self) -> Cast {
        match self {
            Planted::UnverifiedContent | Planted::UnverifiedRecord | Planted::TwinReplaces => Cast::Malicious,
            _ => Cast::Honest,
        }
    }
}
