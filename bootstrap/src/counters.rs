//! What happened, counted; no addresses, no devices.

use std::{
    fmt::Write,
    sync::atomic::{AtomicU64, Ordering},
};

use meshwork_protocol::wire::rendezvous::{Ask, Refusal};

/// A kind of question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Leave,
    Look,
    Show,
    Seek,
    Probe,
}

impl Kind {
    const ALL: [Self; 5] = [Self::Leave, Self::Look, Self::Show, Self::Seek, Self::Probe];

    pub fn of(ask: &Ask) -> Self {
        match ask {
            Ask::Leave { .. } => Self::Leave,
            Ask::Look { .. } => Self::Look,
            Ask::Show { .. } => Self::Show,
            Ask::Seek { .. } => Self::Seek,
            Ask::Probe { .. } => Self::Probe,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Leave => "leave",
            Self::Look => "look",
            Self::Show => "show",
            Self::Seek => "seek",
            Self::Probe => "probe",
        }
    }
}

#[derive(Default)]
pub struct Counters {
    asked: [AtomicU64; Kind::ALL.len()],
    refused: [AtomicU64; Refusal::ALL.len()],
}

impl Counters {
    pub fn count(&self, kind: Kind) {
        add(&self.asked, Kind::ALL.iter().position(|known| *known == kind));
    }

    pub fn refuse(&self, refusal: Refusal) {
        add(&self.refused, Refusal::ALL.iter().position(|known| *known == refusal));
    }

    /// Everything in the text format of Prometheus.
    pub fn text(&self, gauges: &[(&str, &str, usize)]) -> String {
        let mut text = String::new();
        for (name, help, value) in gauges {
            family(&mut text, name, help, "gauge", &[(String::new(), *value as u64)]);
        }
        let samples = |label: &str, names: &[&str], counts: &[AtomicU64]| -> Vec<(String, u64)> {
            let labels = names.iter().map(|name| format!("{{{label}=\"{name}\"}}"));
            labels.zip(counts.iter().map(|count| count.load(Ordering::Relaxed))).collect()
        };
        let asked = samples("kind", &Kind::ALL.map(Kind::name), &self.asked);
        family(&mut text, "asked_total", "Questions of devices, by kind.", "counter", &asked);
        let refused = samples("reason", &Refusal::ALL.map(Refusal::name), &self.refused);
        family(&mut text, "refused_total", "Questions and streams refused, by reason.", "counter", &refused);
        text
    }
}

fn add(counts: &[AtomicU64], at: Option<usize>) {
    if let Some(count) = at.and_then(|at| counts.get(at)) {
        count.fetch_add(1, Ordering::Relaxed);
    }
}

fn family(text: &mut String, name: &str, help: &str, kind: &str, samples: &[(String, u64)]) {
    // Writing to a string does not fail.
    let _ = write!(text, "# HELP meshwork_bootstrap_{name} {help}\n# TYPE meshwork_bootstrap_{name} {kind}\n");
    for (label, value) in samples {
        let _ = writeln!(text, "meshwork_bootstrap_{name}{label} {value}");
    }
}
