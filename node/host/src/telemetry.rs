//! Logging: what is said, where to, and what must never be in it.
//!
//! The rule: secrets are not logged at all, and a field named in [`REDACTED`] never shows its value,
//! whoever logs it by mistake. Names and paths of a person's files are logged at `debug` and below only.

use std::{fmt, fs::OpenOptions, io, os::unix::fs::OpenOptionsExt, path::PathBuf, time::SystemTime};

use serde_json::{Map, Value};
use tracing::{
    Event, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::{
    EnvFilter,
    field::RecordFields,
    fmt::{
        FmtContext, FormatEvent, FormatFields, FormattedFields,
        format::{Format, Writer},
        writer::BoxMakeWriter,
    },
    registry::LookupSpan,
    util::SubscriberInitExt,
};

/// Field names whose values are replaced, also as the last word of a longer name (`pairing_code`).
pub const REDACTED: [&str; 10] =
    ["secret", "seed", "phrase", "code", "token", "password", "psk", "ticket", "authorization", "cookie"];

/// Variables that set the filter, the first that is set.
pub const FILTER_VARIABLES: [&str; 2] = ["MESHWORK_LOG", "RUST_LOG"];

/// Where log lines go.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum LogTarget {
    /// Standard error.
    #[default]
    Stderr,
    /// A file, appended to; made with mode 0600.
    File(PathBuf),
}

/// How to log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogConfig {
    /// Filter when no variable says otherwise, `info` or `info,meshwork_host=debug`.
    pub filter: String,
    /// One JSON object a line instead of text.
    pub json: bool,
    /// Where to.
    pub target: LogTarget,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self { filter: "info".into(), json: false, target: LogTarget::Stderr }
    }
}

/// Logging was not set up.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The filter is not one.
    #[error("log filter {filter:?}: {reason}")]
    Filter {
        /// As given.
        filter: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The log file cannot be opened.
    #[error("log file {path}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A logger is already at work in this process.
    #[error("logging is already set up")]
    Twice,
}

/// Sets up logging for the whole process.
pub fn start(config: &LogConfig) -> Result<(), TelemetryError> {
    let set = FILTER_VARIABLES.iter().find_map(|name| std::env::var(name).ok().filter(|value| !value.is_empty()));
    let filter = set.unwrap_or_else(|| config.filter.clone());
    let parsed = EnvFilter::try_new(&filter)
        .map_err(|error| TelemetryError::Filter { filter: filter.clone(), reason: error.to_string() })?;
    let (writer, terminal) = match &config.target {
        LogTarget::Stderr => (BoxMakeWriter::new(io::stderr), io::IsTerminal::is_terminal(&io::stderr())),
        LogTarget::File(path) => {
            let file = OpenOptions::new().create(true).append(true).mode(0o600).open(path);
            let file = file.map_err(|source| TelemetryError::File { path: path.clone(), source })?;
            (BoxMakeWriter::new(std::sync::Arc::new(file)), false)
        }
    };
    let builder =
        tracing_subscriber::fmt().with_env_filter(parsed).with_writer(writer).with_ansi(terminal).fmt_fields(Fields);
    let started = if config.json {
        builder.event_format(JsonLines).finish().try_init()
    } else {
        builder.event_format(Format::default()).finish().try_init()
    };
    started.map_err(|_| TelemetryError::Twice)
}

fn is_redacted(name: &str) -> bool {
    let last = name.rsplit(['_', '.', '-']).next().unwrap_or(name);
    REDACTED.iter().any(|redacted| last.eq_ignore_ascii_case(redacted))
}

/// Writes fields as text, `name=value`, without the values that must not be seen.
struct Fields;

impl<'writer> FormatFields<'writer> for Fields {
    fn format_fields<R: RecordFields>(&self, writer: Writer<'writer>, fields: R) -> fmt::Result {
        let mut text = Text { writer, first: true, result: Ok(()) };
        fields.record(&mut text);
        text.result
    }
}

struct Text<'writer> {
    writer: Writer<'writer>,
    first: bool,
    result: fmt::Result,
}

impl Text<'_> {
    fn put(&mut self, field: &Field, value: fmt::Arguments<'_>) {
        if self.result.is_err() {
            return;
        }
        let space = if self.first { "" } else { " " };
        self.first = false;
        self.result = match field.name() {
            "message" => write!(self.writer, "{space}{value}"),
            name if is_redacted(name) => write!(self.writer, "{space}{name}=[redacted]"),
            name => write!(self.writer, "{space}{name}={value}"),
        };
    }
}

impl Visit for Text<'_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "message" {
            self.put(field, format_args!("{value}"));
        } else {
            self.put(field, format_args!("{value:?}"));
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.put(field, format_args!("{value:?}"));
    }
}

/// Writes an event as one line of JSON: `time` (ms since the epoch), `level`, `target`, `spans`, and its fields.
struct JsonLines;

impl<S, N> FormatEvent<S, N> for JsonLines
where
    S: Subscriber + for<'lookup> LookupSpan<'lookup>,
    N: for<'writer> FormatFields<'writer> + 'static,
{
    fn format_event(&self, context: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let mut line = Object(Map::new());
        event.record(&mut line);
        let mut line = line.0;
        line.insert("time".into(), u64::try_from(since.as_millis()).unwrap_or(u64::MAX).into());
        line.insert("level".into(), event.metadata().level().as_str().to_lowercase().into());
        line.insert("target".into(), event.metadata().target().into());
        let spans: Vec<Value> = context
            .event_scope()
            .into_iter()
            .flat_map(|scope| scope.from_root())
            .map(|span| match span.extensions().get::<FormattedFields<N>>() {
                Some(fields) if !fields.is_empty() => format!("{}{{{fields}}}", span.name()).into(),
                _ => span.name().into(),
            })
            .collect();
        if !spans.is_empty() {
            line.insert("spans".into(), spans.into());
        }
        writeln!(writer, "{}", Value::Object(line))
    }
}

struct Object(Map<String, Value>);

impl Object {
    fn put(&mut self, field: &Field, value: impl Into<Value>) {
        let value = if is_redacted(field.name()) { "[redacted]".into() } else { value.into() };
        self.0.insert(field.name().into(), value);
    }
}

impl Visit for Object {
    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, value);
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.put(field, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, value);
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, value);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.put(field, format!("{value:?}"));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Page(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Page {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().expect("page").extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn lines(json: bool) -> String {
        let page = Page::default();
        let writer = page.clone();
        let builder = tracing_subscriber::fmt().with_writer(move || writer.clone()).with_ansi(false).fmt_fields(Fields);
        let speak = || {
            let span = tracing::info_span!("pairing", code = "482913", device = 7);
            span.in_scope(|| {
                tracing::info!(pairing_code = 482_913, api_token = "tok-1", size = 5, name = "x", "hello")
            });
        };
        if json {
            tracing::subscriber::with_default(builder.event_format(JsonLines).finish(), speak);
        } else {
            tracing::subscriber::with_default(builder.finish(), speak);
        }
        String::from_utf8(page.0.lock().expect("page").clone()).expect("text")
    }

    #[test]
    fn secrets_do_not_reach_the_log() {
        for json in [false, true] {
            let text = lines(json);
            assert!(text.contains("hello") && text.contains("[redacted]"), "{text}");
            assert!(!text.contains("482913") && !text.contains("tok-1"), "{text}");
        }
    }

    #[test]
    fn json_lines_are_json() {
        let line: Value = serde_json::from_str(lines(true).trim()).expect("one object");
        assert_eq!(line["message"], "hello");
        assert_eq!(line["size"], 5);
        assert_eq!(line["level"], "info");
        assert_eq!(line["spans"][0], "pairing{code=[redacted] device=7}");
    }
}
