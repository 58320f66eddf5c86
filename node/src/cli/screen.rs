//! What a command writes: data to standard output, talk to standard error, both plain unless a person looks.

use std::{
    env,
    io::{self, IsTerminal, Write},
};

use serde::Serialize;

use super::error::CliError;

/// Where a command writes and in which form.
pub struct Screen {
    /// Data as JSON, one object a line.
    pub json: bool,
    /// A person looks at standard error, in a terminal that can move its cursor.
    pub interactive: bool,
    /// Colour is wanted and possible.
    pub colour: bool,
    out: Box<dyn Write>,
    err: Box<dyn Write>,
}

impl Screen {
    /// Standard output and standard error. `NO_COLOR` and `TERM=dumb` are honoured.
    pub fn new(json: bool) -> Self {
        let dumb = env::var_os("TERM").is_some_and(|term| term == "dumb");
        let interactive = io::stderr().is_terminal() && !dumb;
        let colour = interactive && env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        Screen { json, interactive, colour, out: Box::new(io::stdout()), err: Box::new(io::stderr()) }
    }

    /// Writes elsewhere; for tests.
    pub fn to(json: bool, out: Box<dyn Write>, err: Box<dyn Write>) -> Self {
        Screen { json, interactive: false, colour: false, out, err }
    }

    /// A line of data.
    pub fn line(&mut self, text: impl AsRef<str>) -> Result<(), CliError> {
        writeln!(self.out, "{}", printable(text.as_ref()))?;
        Ok(self.out.flush()?)
    }

    /// A value as one line of JSON.
    pub fn value<T: Serialize>(&mut self, value: &T) -> Result<(), CliError> {
        let text = serde_json::to_string(value).map_err(io::Error::from)?;
        writeln!(self.out, "{text}")?;
        Ok(self.out.flush()?)
    }

    /// A line of talk; not in JSON mode.
    pub fn note(&mut self, text: impl AsRef<str>) -> Result<(), CliError> {
        if !self.json {
            writeln!(self.err, "{}", printable(text.as_ref()))?;
        }
        Ok(())
    }

    /// A question, without a line break; always shown, as somebody waits for the answer.
    pub fn ask(&mut self, question: &str) -> Result<(), CliError> {
        write!(self.err, "{} ", printable(question))?;
        Ok(self.err.flush()?)
    }

    /// An error, in the form that the reader wants.
    pub fn error(&mut self, error: &CliError) {
        let text = if self.json { error.json() } else { error.text(self.colour) };
        // Nobody is left to be told when this fails.
        let _ = writeln!(self.err, "{text}");
    }
}

/// A relay or bootstrap in a table: its id, where it is, how it stands, and what went wrong.
pub fn server_row(id: &str, addresses: &[String], state: String, problem: Option<String>) -> [String; 4] {
    let place = addresses.first().and_then(|address| address.split("/p2p/").next()).unwrap_or_default();
    [short(id).to_owned(), place.to_owned(), state, problem.unwrap_or_default()]
}

/// Names come from other devices: a control character would let them rewrite the terminal.
pub fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() || is_bidi(c) { '\u{fffd}' } else { c }).collect()
}

/// Characters that reorder what follows them.
fn is_bidi(c: char) -> bool {
    matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Rows of cells as lines, every column as wide as its widest cell.
pub fn columns<const N: usize>(rows: &[[String; N]]) -> Vec<String> {
    let mut widths = [0; N];
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let line = |row: &[String; N]| {
        let cells: Vec<String> = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        format!("  {}", cells.join("  ").trim_end())
    };
    rows.iter().map(line).collect()
}

/// `1 file`, `3 files`.
pub fn count(number: u64, noun: &str) -> String {
    if number == 1 { format!("1 {noun}") } else { format!("{number} {noun}s") }
}

/// Bytes in the largest unit of 1024 that leaves at least 1: `1.5 MiB`.
pub fn bytes(number: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    let mut value = number as f64;
    let mut unit = None;
    for name in UNITS {
        if value < 1_024.0 {
            break;
        }
        value /= 1_024.0;
        unit = Some(name);
    }
    unit.map_or_else(|| count(number, "byte"), |unit| format!("{value:.1} {unit}"))
}

/// Seconds as a person says them: `40 s`, `3 min`, `5 h`, `2 days`.
pub fn duration(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3_600 => format!("{} min", seconds / 60),
        3_600..172_800 => format!("{} h", seconds / 3_600),
        _ => format!("{} days", seconds / 86_400),
    }
}

/// The time of day of a point in time (milliseconds since the Unix epoch), in UTC: `12:03:04Z`.
pub fn time_of_day(milliseconds: u64) -> String {
    let seconds = milliseconds / 1_000 % 86_400;
    format!("{:02}:{:02}:{:02}Z", seconds / 3_600, seconds / 60 % 60, seconds % 60)
}

/// A point in time (milliseconds since the Unix epoch) to the minute, in UTC: `2026-01-31 12:03Z`.
pub fn date_and_time(milliseconds: u64) -> String {
    let seconds = i64::try_from(milliseconds / 1_000).unwrap_or(i64::MAX);
    // What is beyond the year 9999 is no time that a clock has told.
    let time = time::OffsetDateTime::from_unix_timestamp(seconds).unwrap_or(time::OffsetDateTime::UNIX_EPOCH);
    let (year, month, day) = (time.year(), u8::from(time.month()), time.day());
    format!("{year:04}-{month:02}-{day:02} {:02}:{:02}Z", time.hour(), time.minute())
}

/// The first eight characters of an id: enough for a person to tell two apart.
pub fn short(id: &str) -> &str {
    id.get(..8).unwrap_or(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_read_as_a_person_says_them() {
        assert_eq!([bytes(0), bytes(1), bytes(1_023), bytes(1_536)], ["0 bytes", "1 byte", "1023 bytes", "1.5 KiB"]);
        assert_eq!([bytes(3 << 20), bytes(u64::MAX)], ["3.0 MiB", "16777216.0 TiB"]);
        assert_eq!(
            [duration(59), duration(60), duration(7_200), duration(200_000)],
            ["59 s", "1 min", "2 h", "2 days"]
        );
        assert_eq!(time_of_day(86_400_000 + 3_661_000), "01:01:01Z");
        assert_eq!(date_and_time(1_709_210_096_789), "2024-02-29 12:34Z");
        assert_eq!(date_and_time(u64::MAX), "1970-01-01 00:00Z");
    }

    #[test]
    fn columns_line_up() {
        let row = |a: &str, b: &str| [a.to_owned(), b.to_owned()];
        assert_eq!(columns(&[row("a", "x"), row("größer", "")]), ["  a       x", "  größer"]);
    }

    #[test]
    fn a_hostile_name_cannot_move_the_cursor() {
        assert_eq!(printable("a\u{1b}[2Jb\r\nc\u{202e}d"), "a\u{fffd}[2Jb\u{fffd}\u{fffd}c\u{fffd}d");
    }
}
