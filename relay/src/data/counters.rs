//! What happened at the data port, counted; no addresses, no devices.

use std::sync::atomic::{AtomicU64, Ordering};

use meshwork_host::program::metrics;
use meshwork_protocol::splice::Refusal;

use super::splice::End;

#[derive(Default)]
pub(super) struct Counters {
    pub accepted: AtomicU64,
    pub opened: AtomicU64,
    pub expired: AtomicU64,
    pub joined: AtomicU64,
    pub bytes: AtomicU64,
    refused: [AtomicU64; Refusal::ALL.len()],
    cut: [AtomicU64; End::ALL.len()],
}

impl Counters {
    pub(super) fn refuse(&self, refusal: Refusal) -> u64 {
        let index = Refusal::ALL.iter().position(|known| *known == refusal).unwrap_or_default();
        self.refused[index].fetch_add(1, Ordering::Relaxed)
    }

    pub(super) fn cut(&self, end: End) {
        let index = End::ALL.iter().position(|known| *known == end).unwrap_or_default();
        self.cut[index].fetch_add(1, Ordering::Relaxed);
    }

    /// Everything in the text format of Prometheus.
    pub(super) fn text(&self, gauges: &[(&str, &str, u64)]) -> String {
        let mut text = String::new();
        let mut family = |name: &str, help: &str, kind: &str, samples: &[(&str, u64)]| {
            metrics::family(&mut text, kind, &format!("meshwork_relay_{name}"), help, "reason", samples);
        };
        for (name, help, value) in gauges {
            family(name, help, "gauge", &[("", *value)]);
        }
        for (name, help, counter) in [
            ("data_connections_total", "Connections to the data port.", &self.accepted),
            ("data_channels_opened_total", "Channels that devices asked for and got.", &self.opened),
            ("data_channels_expired_total", "Channels whose ends did not come in time.", &self.expired),
            ("data_pairs_total", "Pairs of connections that were joined.", &self.joined),
            ("data_bytes_total", "Bytes carried, both directions.", &self.bytes),
        ] {
            family(name, help, "counter", &[("", counter.load(Ordering::Relaxed))]);
        }
        let refused = Refusal::ALL.iter().map(|one| one.name()).zip(self.refused.iter().map(load));
        let refused: Vec<_> = refused.collect();
        family("data_refused_total", "Channels and connections refused, by reason.", "counter", &refused);
        let cut: Vec<_> = End::ALL.iter().map(|one| one.name()).zip(self.cut.iter().map(load)).collect();
        family("data_cut_total", "Pairs closed before their ends did, by reason.", "counter", &cut);
        text
    }
}

fn load(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}
