//! What happened, counted; no addresses, no devices.

use std::sync::atomic::{AtomicU64, Ordering};

use meshwork_host::program::metrics;
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
        let mut family = |kind: &str, name: &str, help: &str, label: &str, samples: &[(&str, u64)]| {
            metrics::family(&mut text, kind, &format!("meshwork_bootstrap_{name}"), help, label, samples);
        };
        for (name, help, value) in gauges {
            family("gauge", name, help, "", &[("", *value as u64)]);
        }
        let asked: Vec<_> = Kind::ALL.map(Kind::name).into_iter().zip(self.asked.iter().map(load)).collect();
        family("counter", "asked_total", "Questions of devices, by kind.", "kind", &asked);
        let refused: Vec<_> = Refusal::ALL.map(Refusal::name).into_iter().zip(self.refused.iter().map(load)).collect();
        family("counter", "refused_total", "Questions and streams refused, by reason.", "reason", &refused);
        text
    }
}

fn add(counts: &[AtomicU64], at: Option<usize>) {
    if let Some(count) = at.and_then(|at| counts.get(at)) {
        count.fetch_add(1, Ordering::Relaxed);
    }
}

fn load(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}
