//! Bugs that can be planted in the simulated surroundings, to show that the judges notice.

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
}

impl Planted {
    /// All of them.
    pub const ALL: [Planted; 6] = [
        Planted::CarelessPlace,
        Planted::ForgetfulHistory,
        Planted::EarlyDurable,
        Planted::SkippedStep,
        Planted::StaleHash,
        Planted::LogHole,
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
        }
    }
}
