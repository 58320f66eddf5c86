//! What a bootstrap keeps, in memory alone: notes at places, and the numbers of pairing codes.

use std::{collections::BTreeMap, net::IpAddr, time::Duration};

use super::Place;
use crate::{id::DeviceId, limits, time::Timestamp, wire::rendezvous::Refusal};

/// The network that a device comes from: /24 of IPv4, /48 of IPv6. Who has one, has all its addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Source([u8; 7]);

impl Source {
    /// The network of an address.
    pub fn of(ip: IpAddr) -> Self {
        let (version, prefix): (u8, &[u8]) = match &ip.to_canonical() {
            IpAddr::V4(ip) => (4, &ip.octets()[..3]),
            IpAddr::V6(ip) => (6, &ip.octets()[..6]),
        };
        let mut source = [0; 7];
        source[0] = version;
        source[1..=prefix.len()].copy_from_slice(prefix);
        Self(source)
    }
}

struct Kept {
    note: Vec<u8>,
    source: Source,
    until: Timestamp,
}

struct Number {
    device: DeviceId,
    source: Source,
    note: Vec<u8>,
    until: Timestamp,
}

/// The notes and numbers of a bootstrap.
#[derive(Default)]
pub struct Table {
    notes: BTreeMap<Place, BTreeMap<DeviceId, Kept>>,
    of_device: BTreeMap<DeviceId, usize>,
    of_source: BTreeMap<Source, usize>,
    total: usize,
    numbers: BTreeMap<u16, Number>,
    swept: Timestamp,
}

impl Table {
    /// How many notes are kept.
    pub fn notes(&self) -> usize {
        self.total
    }

    /// How many codes are shown or were a moment ago.
    pub fn numbers(&self) -> usize {
        self.numbers.len()
    }

    /// Keeps a note of `device` at a place, instead of its earlier one there, for [`limits::RENDEZVOUS_LIFE`].
    pub fn leave(
        &mut self,
        now: Timestamp,
        (device, source): (DeviceId, Source),
        place: Place,
        note: Vec<u8>,
    ) -> Result<Duration, Refusal> {
        self.sweep(now);
        if note.len() > limits::RENDEZVOUS_NOTE {
            return Err(Refusal::Malformed);
        }
        let here = self.notes.get(&place);
        let earlier = here.and_then(|here| here.get(&device)).map(|kept| kept.source);
        let room = Room { earlier, here: here.map_or(0, BTreeMap::len) };
        self.check(&room, device, source)?;
        if let Some(earlier) = earlier {
            self.count(device, earlier, false);
        }
        self.count(device, source, true);
        let until = now + limits::RENDEZVOUS_LIFE;
        self.notes.entry(place).or_default().insert(device, Kept { note, source, until });
        Ok(limits::RENDEZVOUS_LIFE)
    }

    /// The notes at a place.
    pub fn look(&mut self, now: Timestamp, place: &Place) -> Vec<Vec<u8>> {
        self.sweep(now);
        let here = self.notes.get(place).into_iter().flat_map(BTreeMap::values);
        here.filter(|kept| kept.until > now).map(|kept| kept.note.clone()).collect()
    }

    /// Gives a device the number of a pairing code for [`limits::PAIR_LIFE`]. For [`limits::RENDEZVOUS_QUIET`] after that
    /// no other device gets it: who mistypes, or comes late, is not to meet somebody else.
    pub fn show(
        &mut self,
        now: Timestamp,
        (device, source): (DeviceId, Source),
        number: u16,
        note: Vec<u8>,
    ) -> Result<Duration, Refusal> {
        self.sweep(now);
        if note.len() > limits::RENDEZVOUS_NOTE || !(1..=limits::PAIR_NUMBER).contains(&number) {
            return Err(Refusal::Malformed);
        }
        if self.numbers.get(&number).is_some_and(|held| held.device != device) {
            return Err(Refusal::Taken);
        }
        let others = || self.numbers.iter().filter(|(held, _)| **held != number).map(|(_, held)| held);
        if others().count() >= limits::RENDEZVOUS_NUMBERS {
            return Err(Refusal::Full);
        }
        if others().filter(|held| held.source == source && held.until > now).count()
            >= limits::RENDEZVOUS_NUMBERS_PER_SOURCE
        {
            return Err(Refusal::Network);
        }
        let until = now + limits::PAIR_LIFE;
        self.numbers.insert(number, Number { device, source, note, until });
        Ok(limits::PAIR_LIFE)
    }

    /// The note under the number of a pairing code.
    pub fn seek(&mut self, now: Timestamp, number: u16) -> Option<Vec<u8>> {
        self.sweep(now);
        self.numbers.get(&number).filter(|held| held.until > now).map(|held| held.note.clone())
    }

    fn check(&self, room: &Room, device: DeviceId, source: Source) -> Result<(), Refusal> {
        let is_new = usize::from(room.earlier.is_none());
        let of_device = self.of_device.get(&device).copied().unwrap_or(0);
        let from_here = usize::from(room.earlier != Some(source));
        let of_source = self.of_source.get(&source).copied().unwrap_or(0);
        if of_device + is_new > limits::RENDEZVOUS_NOTES_PER_DEVICE {
            return Err(Refusal::Device);
        }
        if of_source + from_here > limits::RENDEZVOUS_NOTES_PER_SOURCE {
            return Err(Refusal::Network);
        }
        if self.total + is_new > limits::RENDEZVOUS_NOTES || room.here + is_new > limits::RENDEZVOUS_NOTES_PER_PLACE {
            return Err(Refusal::Full);
        }
        Ok(())
    }

    fn count(&mut self, device: DeviceId, source: Source, more: bool) {
        fn add<K: Ord>(counts: &mut BTreeMap<K, usize>, key: K, more: bool) {
            let count = counts.entry(key).or_default();
            *count = if more { *count + 1 } else { count.saturating_sub(1) };
        }
        add(&mut self.of_device, device, more);
        add(&mut self.of_source, source, more);
        self.total = if more { self.total + 1 } else { self.total.saturating_sub(1) };
    }

    /// Lets go of what has had its time; now and then, as it looks at everything.
    fn sweep(&mut self, now: Timestamp) {
        if now - self.swept < limits::RENDEZVOUS_SWEEP && now >= self.swept {
            return;
        }
        self.swept = now;
        let mut gone = Vec::new();
        self.notes.retain(|_, here| {
            here.retain(|device, kept| {
                let stays = kept.until > now;
                if !stays {
                    gone.push((*device, kept.source));
                }
                stays
            });
            !here.is_empty()
        });
        gone.into_iter().for_each(|(device, source)| self.count(device, source, false));
        self.of_device.retain(|_, count| *count > 0);
        self.of_source.retain(|_, count| *count > 0);
        self.numbers.retain(|_, held| held.until + limits::RENDEZVOUS_QUIET > now);
    }
}

/// What is at a place before a note comes there.
struct Room {
    /// Where the earlier note of the same device came from.
    earlier: Option<Source>,
    here: usize,
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp(1_000_000_000_000_000);

    fn who(device: u16, network: u16) -> (DeviceId, Source) {
        let [high, low] = network.to_be_bytes();
        let mut id = [0; 32];
        id[..2].copy_from_slice(&device.to_be_bytes());
        (DeviceId(id), Source::of([10, high, low, 1].into()))
    }

    fn place(number: u32) -> Place {
        *blake3::hash(&number.to_be_bytes()).as_bytes()
    }

    #[test]
    fn notes_are_kept_replaced_and_forgotten() {
        let mut table = Table::default();
        assert_eq!(table.look(NOW, &place(1)), Vec::<Vec<u8>>::new());
        assert_eq!(table.leave(NOW, who(1, 1), place(1), vec![1]), Ok(limits::RENDEZVOUS_LIFE));
        table.leave(NOW, who(1, 2), place(1), vec![2]).expect("the same device, from elsewhere");
        assert_eq!((table.look(NOW, &place(1)), table.notes()), (vec![vec![2]], 1));
        table.leave(NOW, who(2, 2), place(1), vec![3]).expect("another device");
        assert_eq!(table.look(NOW, &place(1)).len(), 2);
        let late = NOW + limits::RENDEZVOUS_LIFE;
        assert_eq!(table.look(late, &place(1)), Vec::<Vec<u8>>::new());
        table.look(late + limits::RENDEZVOUS_SWEEP, &place(9));
        assert_eq!((table.notes(), table.of_device.len(), table.of_source.len()), (0, 0, 0));
    }

    #[test]
    fn a_clock_that_went_back_keeps_nothing_for_ever() {
        let mut table = Table::default();
        table.leave(NOW, who(1, 1), place(1), vec![1]).expect("kept");
        let before = Timestamp(1_000_000);
        table.look(before, &place(1));
        assert_eq!(table.swept, before);
        table.look(NOW + limits::RENDEZVOUS_LIFE, &place(1));
        assert_eq!(table.notes(), 0);
    }

    #[test]
    fn devices_networks_places_and_the_whole_are_bounded() {
        let mut table = Table::default();
        for number in 0..limits::RENDEZVOUS_NOTES_PER_DEVICE as u32 {
            table.leave(NOW, who(1, 1), place(number), vec![1]).expect("within bounds");
        }
        assert_eq!(table.leave(NOW, who(1, 1), place(70_000), vec![1]), Err(Refusal::Device));
        table.leave(NOW, who(1, 1), place(0), vec![2]).expect("in the place of an earlier one");
        let mut device = 2;
        while table.leave(NOW, who(device, 1), place(80_000 + u32::from(device)), vec![1]).is_ok() {
            device += 1;
        }
        assert_eq!(table.of_source[&who(1, 1).1], limits::RENDEZVOUS_NOTES_PER_SOURCE);
        assert_eq!(table.leave(NOW, who(device, 1), place(90_000), vec![1]), Err(Refusal::Network));
        for device in 0..limits::RENDEZVOUS_NOTES_PER_PLACE as u16 {
            table.leave(NOW, who(40_000 + device, 40_000 + device), place(91_000), vec![1]).expect("room at the place");
        }
        assert_eq!(table.leave(NOW, who(50_000, 50_000), place(91_000), vec![1]), Err(Refusal::Full));
        assert_eq!(
            table.leave(NOW, who(1, 1), place(0), vec![0; limits::RENDEZVOUS_NOTE + 1]),
            Err(Refusal::Malformed)
        );
        let mut device = 2_000;
        while table.notes() < limits::RENDEZVOUS_NOTES {
            table.leave(NOW, who(device, device), place(100_000 + u32::from(device)), vec![1]).expect("room");
            device += 1;
        }
        assert_eq!(table.leave(NOW, who(60_000, 60_000), place(1), vec![1]), Err(Refusal::Full));
        assert!(table.leave(NOW, who(1, 1), place(0), vec![1]).is_ok(), "who has a note may renew it");
    }

    #[test]
    fn a_number_belongs_to_one_device_and_rests_after_that() {
        let mut table = Table::default();
        assert_eq!(table.show(NOW, who(1, 1), 42, vec![1]), Ok(limits::PAIR_LIFE));
        assert_eq!(table.seek(NOW, 42), Some(vec![1]));
        assert_eq!(table.show(NOW, who(2, 2), 42, vec![2]), Err(Refusal::Taken));
        table.show(NOW, who(1, 1), 42, vec![3]).expect("its own");
        let after = NOW + limits::PAIR_LIFE;
        assert_eq!(table.seek(after, 42), None);
        assert_eq!(table.show(after, who(2, 2), 42, vec![2]), Err(Refusal::Taken));
        assert!(table.show(after + limits::RENDEZVOUS_QUIET, who(2, 2), 42, vec![2]).is_ok());
        assert_eq!(table.show(NOW, who(1, 1), 0, vec![]), Err(Refusal::Malformed));
        assert_eq!(table.show(NOW, who(1, 1), 10_000, vec![]), Err(Refusal::Malformed));
    }

    #[test]
    fn numbers_of_a_network_and_in_all_are_bounded() {
        let mut table = Table::default();
        for number in 1..=limits::RENDEZVOUS_NUMBERS_PER_SOURCE as u16 {
            table.show(NOW, who(number, 1), number, vec![]).expect("within bounds");
        }
        assert_eq!(table.show(NOW, who(99, 1), 99, vec![]), Err(Refusal::Network));
        let mut number = 100;
        while table.numbers() < limits::RENDEZVOUS_NUMBERS {
            table.show(NOW, who(number, number), number, vec![]).expect("room");
            number += 1;
        }
        assert_eq!(table.show(NOW, who(9_000, 9_000), 9_000, vec![]), Err(Refusal::Full));
    }

    #[test]
    fn networks_are_told_apart_and_one_written_two_ways_is_one() {
        let of = |text: &str| Source::of(text.parse().expect("an address"));
        assert_eq!(of("192.0.2.1"), of("192.0.2.250"));
        assert_eq!(of("192.0.2.1"), of("::ffff:192.0.2.9"));
        assert_ne!(of("192.0.2.1"), of("192.0.3.1"));
        assert_eq!(of("2001:db8:1::1"), of("2001:db8:1:ffff::1"));
        assert_ne!(of("2001:db8:1::1"), of("2001:db8:2::1"));
    }
}
