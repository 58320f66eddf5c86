//! How a command fails: an exit code for scripts, two sentences for people.

use std::{borrow::Cow, io};

use serde_json::json;

use super::screen::printable;
use crate::{api::types::Problem, daemon::DaemonError};

/// Exit codes of `mesh`; the help text lists them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// Done.
    Done = 0,
    /// It was tried and did not work.
    Failed = 1,
    /// The command line cannot be understood.
    Usage = 2,
    /// No node runs for this home.
    NotRunning = 3,
    /// Somebody or a rule said no.
    Refused = 4,
    /// What was named does not exist.
    NotFound = 5,
}

/// A command that did not end well.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct CliError {
    /// What the process ends with.
    pub exit: Exit,
    /// A word for programs.
    pub code: Cow<'static, str>,
    /// What happened, as a sentence.
    pub message: String,
    /// What to do, as a sentence; may be empty.
    pub fix: String,
}

impl CliError {
    /// An error of the command line's own.
    pub fn new(exit: Exit, code: &'static str, message: impl Into<String>, fix: impl Into<String>) -> Self {
        CliError { exit, code: Cow::Borrowed(code), message: message.into(), fix: fix.into() }
    }

    /// The reader of the output has left (as `head` does); nothing is left to say.
    pub fn is_closed_pipe(&self) -> bool {
        self.code == "closed_pipe"
    }

    /// For a person: what happened, then what to do.
    pub fn text(&self, colour: bool) -> String {
        let mark = if colour { "\u{1b}[1;31merror:\u{1b}[0m" } else { "error:" };
        let (message, fix) = (printable(&self.message), printable(&self.fix));
        if fix.is_empty() { format!("{mark} {message}") } else { format!("{mark} {message}\n       {fix}") }
    }

    /// For a program: one JSON object.
    pub fn json(&self) -> String {
        let error = json!({ "code": self.code, "message": self.message, "fix": self.fix, "exit": self.exit as u8 });
        json!({ "error": error }).to_string()
    }
}

impl From<io::Error> for CliError {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            return CliError::new(Exit::Done, "closed_pipe", "", "");
        }
        CliError::new(Exit::Failed, "io", format!("Reading or writing failed: {error}."), "")
    }
}

impl From<Problem> for CliError {
    fn from(problem: Problem) -> Self {
        let exit = match problem.status {
            404 => Exit::NotFound,
            401 | 403 | 410 => Exit::Refused,
            _ => Exit::Failed,
        };
        CliError { exit, code: problem.code, message: problem.message, fix: problem.fix }
    }
}

impl From<DaemonError> for CliError {
    fn from(error: DaemonError) -> Self {
        CliError::new(Exit::Failed, "daemon", error.to_string(), error.fix())
    }
}
