//! Token buckets: bytes a second of each device and of all, with one second of burst.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use meshwork_protocol::id::DeviceId;

/// Devices whose bucket is remembered because it is not full.
const DEVICES: usize = 16_384;

/// The bytes that may pass now; below zero they are owed.
struct Bucket {
    level: f64,
    at: Instant,
}

impl Bucket {
    fn full(rate: u64, at: Instant) -> Self {
        Self { level: rate as f64, at }
    }

    fn refill(&mut self, rate: u64, now: Instant) {
        let passed = now.saturating_duration_since(self.at).as_secs_f64();
        self.level = (self.level + passed * rate as f64).min(rate as f64);
        self.at = now;
    }

    /// Takes what has passed already; the time until nothing is owed.
    fn spend(&mut self, rate: u64, bytes: u64, now: Instant) -> Duration {
        self.refill(rate, now);
        self.level -= bytes as f64;
        Duration::from_secs_f64((-self.level).max(0.0) / rate as f64)
    }
}

pub(super) struct Rates {
    device_rate: u64,
    total_rate: u64,
    devices: BTreeMap<DeviceId, Bucket>,
    total: Option<Bucket>,
}

impl Rates {
    pub(super) fn new(device_rate: u64, total_rate: u64) -> Self {
        Self { device_rate, total_rate, devices: BTreeMap::new(), total: None }
    }

    /// Whether one more device can be remembered; forgets those whose bucket is full again.
    pub(super) fn has_room(&mut self, device: DeviceId) -> bool {
        if self.devices.len() >= DEVICES && !self.devices.contains_key(&device) {
            let (now, rate) = (Instant::now(), self.device_rate);
            self.devices.retain(|_, bucket| {
                bucket.refill(rate, now);
                bucket.level < rate as f64
            });
        }
        self.devices.len() < DEVICES || self.devices.contains_key(&device)
    }

    /// Counts bytes; how long their connection is to wait.
    pub(super) fn spend(&mut self, device: DeviceId, bytes: u64, now: Instant) -> Duration {
        let mut wait = Duration::ZERO;
        if self.total_rate > 0 {
            let rate = self.total_rate;
            wait = self.total.get_or_insert_with(|| Bucket::full(rate, now)).spend(rate, bytes, now);
        }
        if self.device_rate > 0 {
            let rate = self.device_rate;
            let bucket = self.devices.entry(device).or_insert_with(|| Bucket::full(rate, now));
            wait = wait.max(bucket.spend(rate, bytes, now));
        }
        wait
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_of_burst_then_the_rate() {
        let mut rates = Rates::new(1_000, 0);
        let (a, b, now) = (DeviceId([1; 32]), DeviceId([2; 32]), Instant::now());
        assert_eq!(rates.spend(a, 1_000, now), Duration::ZERO);
        assert_eq!(rates.spend(a, 500, now), Duration::from_millis(500));
        assert_eq!(rates.spend(b, 1_000, now), Duration::ZERO, "another device has its own");
        assert_eq!(rates.spend(a, 500, now + Duration::from_secs(1)), Duration::ZERO);
    }

    #[test]
    fn all_share_the_total() {
        let mut rates = Rates::new(0, 1_000);
        let now = Instant::now();
        assert_eq!(rates.spend(DeviceId([1; 32]), 1_000, now), Duration::ZERO);
        assert_eq!(rates.spend(DeviceId([2; 32]), 1_000, now), Duration::from_secs(1));
        assert!(rates.devices.is_empty());
    }
}
