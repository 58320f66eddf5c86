//! What a server tells those who use it: what it sees, keeps and limits.

use serde::Serialize;
use serde_json::{Value, json};

/// The terms of a server.
#[derive(Debug, Clone, Copy)]
pub struct Terms {
    /// What its operator can see.
    pub sees: &'static [&'static str],
    /// What its operator cannot see.
    pub does_not_see: &'static [&'static str],
    /// What it keeps.
    pub keeps: &'static [&'static str],
    /// The line above its limits.
    pub limits: &'static str,
}

impl Terms {
    /// As JSON, with these limits.
    pub fn to_json(&self, limits: &impl Serialize) -> Value {
        json!({"limits": limits, "sees": self.sees, "does_not_see": self.does_not_see, "keeps": self.keeps})
    }

    /// For people, with these limits.
    ///
    /// # Errors
    /// When the limits are nothing that JSON can show.
    pub fn to_text(&self, limits: &impl Serialize) -> Result<String, serde_json::Error> {
        let part = |(title, lines): (&str, &[&str])| {
            let lines: String = lines.iter().map(|line| format!("  - {line}\n")).collect();
            format!("{title}:\n{lines}")
        };
        let parts = [("It sees", self.sees), ("It does not see", self.does_not_see), ("It keeps", self.keeps)];
        Ok(format!("{}{}:\n{}", parts.map(part).concat(), self.limits, serde_json::to_string_pretty(limits)?))
    }
}
