//! What a packet log says in numbers, for each direction of each link.

use std::collections::BTreeMap;

use super::{Fate, Record};

/// What became of the packets of one direction.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Packets that arrived at the link, copies not counted.
    pub arrived: u64,
    /// Packets and copies by what became of them; for [`Fate::Unseen`] and
    /// [`Fate::Unlogged`] their counts.
    pub fates: BTreeMap<Fate, u64>,
    /// Copies that were delivered.
    pub copies: u64,
    /// Packets that were delivered after one that had arrived later.
    pub overtaken: u64,
    /// How long packets truly took through the link, in nanoseconds.
    pub delay_ns: Option<Quantiles>,
    /// How much later than intended they departed, in nanoseconds: the emulator's error.
    pub lateness_ns: Option<Quantiles>,
}

/// A distribution in five numbers, by nearest rank.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quantiles {
    /// The smallest.
    pub min: u64,
    /// The median.
    pub p50: u64,
    /// What 99 of 100 do not exceed.
    pub p99: u64,
    /// What 999 of 1000 do not exceed.
    pub p999: u64,
    /// The largest.
    pub max: u64,
}

impl Quantiles {
    /// Returns the quantiles of values, if there are any.
    pub fn of(mut values: Vec<u64>) -> Option<Self> {
        values.sort_unstable();
        let rank = |permille: usize| {
            let place = (values.len() * permille).div_ceil(1000).saturating_sub(1);
            values.get(place).copied()
        };
        Some(Self {
            min: rank(0)?,
            p50: rank(500)?,
            p99: rank(990)?,
            p999: rank(999)?,
            max: rank(1000)?,
        })
    }
}

/// Counts what became of packets, by the number of the link and whether they went back.
pub fn statistics<'a>(
    records: impl IntoIterator<Item = &'a Record>,
) -> BTreeMap<(u16, bool), Statistics> {
    let mut directions: BTreeMap<_, Direction> = BTreeMap::new();
    for record in records {
        directions.entry((record.link, record.is_back)).or_default().count(record);
    }
    directions.into_iter().map(|(key, direction)| (key, direction.finish())).collect()
}

/// A direction that is being counted.
#[derive(Debug, Default)]
struct Direction {
    sums: Statistics,
    delays_ns: Vec<u64>,
    lateness_ns: Vec<u64>,
    /// The highest sequence number that has been delivered.
    newest: Option<u64>,
}

impl Direction {
    /// Counts a record. Those of what was delivered come in the order of departure.
    fn count(&mut self, record: &Record) {
        let fate = self.sums.fates.entry(record.fate).or_default();
        if !record.fate.is_packet() {
            *fate += record.sequence;
            return;
        }
        *fate += 1;
        self.sums.arrived += u64::from(!record.is_copy);
        if record.fate == Fate::Delivered {
            let is_overtaken = self.newest.is_some_and(|newest| record.sequence < newest);
            self.sums.overtaken += u64::from(is_overtaken && !record.is_copy);
            self.newest = self.newest.max(Some(record.sequence));
            self.sums.copies += u64::from(record.is_copy);
            self.delays_ns.extend(record.delay_ns());
            self.lateness_ns.extend(record.lateness_ns());
        }
    }

    /// Returns what was counted.
    fn finish(self) -> Statistics {
        Statistics {
            delay_ns: Quantiles::of(self.delays_ns),
            lateness_ns: Quantiles::of(self.lateness_ns),
            ..self.sums
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::writer::count;

    #[test]
    fn quantiles_are_values_that_occur() {
        let all = Quantiles::of((1..=1000).rev().collect()).expect("values");
        let expected = Quantiles { min: 1, p50: 500, p99: 990, p999: 999, max: 1000 };
        assert_eq!(all, expected);
        assert_eq!(Quantiles::of(Vec::new()), None);
        assert_eq!(Quantiles::of(vec![7]).expect("one").p50, 7);
    }

    #[test]
    fn packets_are_counted_by_direction_and_fate() {
        let delivered = |sequence, departed_ns, is_copy| Record {
            is_copy,
            arrived_ns: 100,
            intended_ns: Some(departed_ns - 5),
            departed_ns: Some(departed_ns),
            ..count(Fate::Delivered, 2, true, sequence)
        };
        let records = [
            delivered(1, 200, false),
            delivered(0, 300, false),
            delivered(0, 310, true),
            count(Fate::LostBurst, 2, true, 2),
            count(Fate::Unseen, 2, true, 40),
            count(Fate::LostRandom, 0, false, 0),
        ];
        let directions = statistics(&records);
        assert_eq!(directions.len(), 2);
        let back = &directions[&(2, true)];
        assert_eq!((back.arrived, back.copies, back.overtaken), (3, 1, 1));
        assert_eq!(back.fates[&Fate::Delivered], 3);
        assert_eq!(back.fates[&Fate::LostBurst], 1);
        assert_eq!(back.fates[&Fate::Unseen], 40);
        assert_eq!(back.delay_ns.expect("delays").min, 100);
        assert_eq!(back.lateness_ns.expect("errors").max, 5);
    }
}
