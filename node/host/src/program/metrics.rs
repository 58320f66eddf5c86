//! The text format of Prometheus.

use std::fmt::Write;

/// Adds one metric: of a `kind` (`gauge` or `counter`), with its samples, each with the value of the `label` by which they
/// differ, if it has one.
pub fn family(text: &mut String, kind: &str, name: &str, help: &str, label: &str, samples: &[(&str, u64)]) {
    // Writing to a string does not fail.
    let _ = write!(text, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
    for (value, sample) in samples {
        let label = if value.is_empty() { String::new() } else { format!("{{{label}=\"{value}\"}}") };
        let _ = writeln!(text, "{name}{label} {sample}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_have_a_label_where_they_differ() {
        let mut text = String::new();
        family(&mut text, "gauge", "notes", "Notes.", "kind", &[("", 3)]);
        family(&mut text, "counter", "asked_total", "Asked.", "kind", &[("look", 1), ("leave", 0)]);
        let expected = "# HELP notes Notes.\n# TYPE notes gauge\nnotes 3\n\
            # HELP asked_total Asked.\n# TYPE asked_total counter\nasked_total{kind=\"look\"} 1\nasked_total{kind=\"leave\"} 0\n";
        assert_eq!(text, expected);
    }
}
