//! The measurements of a repeat, one after the other.
//!
//! Times are UTC. The next one is computed, not searched for second by second.
//!
//! Source: protocol description, section 5, "Temporal scope (`when`)", last point.
//!
//! Differences: the reference implementation steps through a crontab from the current
//! fraction of a second; here a crontab matches full seconds. A crontab that never matches
//! ends the sequence instead of searching on.

use std::time::Duration;

use jiff::Timestamp;

use super::{Bounds, Extent, Instant, Rhythm, When, instant};

/// One measurement of a repeat.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Occurrence {
    /// When it starts, UTC.
    pub due: Timestamp,
    /// The scope of the measurement, with an absolute start.
    pub scope: When,
    /// From when on to look for the one that follows; `None` if there can be none.
    pub following: Option<Timestamp>,
}

/// The measurements of a repeat in order, as scopes with an absolute start.
///
/// There may be very many: bound them with the time up to which they are needed.
#[derive(Clone, Debug)]
pub struct Occurrences<'a> {
    /// The repeat.
    when: &'a When,
    /// The time from which to look for the next one; `None` after the last.
    from: Option<Timestamp>,
    /// The last instant at which a measurement may start, if there is one.
    end: Option<Timestamp>,
}

impl<'a> Occurrences<'a> {
    /// Returns the occurrences from now on; `None` if the scope is not repeated.
    pub(super) fn new(when: &'a When, now: Timestamp) -> Option<Self> {
        let now = instant::cut(now);
        let Bounds { start, end } = when.bounds(now);
        let from = Some(start.map_or(now, |start| start.max(now)));
        when.is_repeated().then_some(Self { when, from, end })
    }
}

impl Iterator for Occurrences<'_> {
    type Item = When;

    fn next(&mut self) -> Option<When> {
        // Nothing follows unless a next time is found and put back.
        let from = self.from.take()?;
        let Occurrence { due, following, scope } =
            self.when.occurrence(from, self.end)?;
        self.from = following;
        debug_assert!(due >= from, "time goes on");
        Some(scope)
    }
}

impl std::iter::FusedIterator for Occurrences<'_> {}

impl When {
    /// Returns the first occurrence of a repeat with absolute ends at or after `from`:
    /// for a period, `from` is itself one. `None` if the repeat is over, or is none.
    ///
    /// State machines keep [`Occurrence::following`] instead of an iterator.
    pub fn next_occurrence(&self, from: Timestamp) -> Option<Occurrence> {
        self.occurrence(from, self.bounds(from).end)
    }

    /// Returns the first occurrence at or after `now` of a repeat with absolute ends whose
    /// first one was at `first`: the rhythm stays as it was.
    pub fn resumed_occurrence(
        &self,
        first: Timestamp,
        now: Timestamp,
    ) -> Option<Occurrence> {
        let from = match &self.rhythm {
            Rhythm::Every { period, .. } if now > first => {
                let passed = now.duration_since(first).as_nanos();
                let period = i128::try_from(period.as_nanos()).ok()?;
                // Rounded up: an occurrence that has passed is not repeated.
                let skipped = passed.checked_add(period)?.checked_sub(1)? / period;
                let nanoseconds = u64::try_from(skipped.checked_mul(period)?).ok()?;
                instant::checked_after(first, Duration::from_nanos(nanoseconds))?
            }
            _ => first.max(now),
        };
        self.next_occurrence(from)
    }

    /// Returns the first occurrence from a time on, up to an end.
    fn occurrence(&self, from: Timestamp, end: Option<Timestamp>) -> Option<Occurrence> {
        let (due, step) = match &self.rhythm {
            Rhythm::Once { .. } => return None,
            Rhythm::Every { period, .. } => (from, *period),
            Rhythm::Cron { crontab, .. } => {
                (crontab.first_from(from)?, Duration::from_secs(1))
            }
        };
        if end.is_some_and(|end| due > end) {
            return None;
        }
        let following = instant::checked_after(due, step);
        Some(Occurrence { due, scope: self.measurement_at(due), following })
    }

    /// Returns the scope of the measurement of a repeat that starts at an instant.
    fn measurement_at(&self, due: Timestamp) -> Self {
        match self.inner() {
            None => Self::at(due),
            Some(inner) => Self {
                start: Instant::At(due),
                extent: Extent::For(inner.duration),
                rhythm: Rhythm::Once { period: inner.period },
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the occurrences of a repeat from noon on 1 June 2015, a Monday.
    fn occurrences(text: &str) -> Vec<String> {
        let when: When = text.parse().unwrap();
        let now = "2015-06-01T12:00:00.25Z".parse().unwrap();
        when.occurrences(now).unwrap().map(|when| when.to_string()).collect()
    }

    #[test]
    fn includes_both_ends() {
        assert_eq!(
            occurrences("repeat 2015-06-01 13:00 + 2s / 1s { now + 5s }"),
            [
                "2015-06-01 13:00:00.000000 + 5s",
                "2015-06-01 13:00:01.000000 + 5s",
                "2015-06-01 13:00:02.000000 + 5s",
            ]
        );
    }

    #[test]
    fn starts_a_period_now_and_a_crontab_at_its_next_second() {
        assert_eq!(
            occurrences("repeat 2015-06-01 ... 2015-06-01 12:00:01.25 / 1s"),
            ["2015-06-01 12:00:00.250000", "2015-06-01 12:00:01.250000"]
        );
        assert_eq!(
            occurrences("repeat past ... 2015-06-01 12:00:02 cron * * * * * *"),
            ["2015-06-01 12:00:01.000000", "2015-06-01 12:00:02.000000"]
        );
    }

    #[test]
    fn finds_the_first_monday_of_each_month_of_ten_years() {
        let text = "repeat now ... 2025-06-01 cron 0 0 0 1-7 1 * { now + 5m }";
        let mondays = occurrences(text);
        assert_eq!(mondays.len(), 119);
        assert_eq!(mondays.first().unwrap(), "2015-07-06 00:00:00.000000 + 5m");
        assert_eq!(mondays.last().unwrap(), "2025-05-05 00:00:00.000000 + 5m");
    }

    #[test]
    fn ends_if_nothing_matches() {
        assert!(occurrences("repeat now ... future cron 0 0 0 31 * 2").is_empty());
        assert!(occurrences("repeat now ... future cron * * 24 * * *").is_empty());
        assert!(occurrences("repeat 2014-01-01 ... 2014-02-01 / 1d").is_empty());
    }

    #[test]
    fn ends_with_the_calendar() {
        assert_eq!(
            occurrences("repeat 9999-12-30 20:00 ... future / 1h30m"),
            ["9999-12-30 20:00:00.000000", "9999-12-30 21:30:00.000000"]
        );
        assert_eq!(
            occurrences("repeat 9999-12-30 20:00 ... future cron 0 0 * * * *").len(),
            3
        );
    }

    #[test]
    fn are_only_those_of_repeats() {
        assert!(When::now_to_future().occurrences(Timestamp::UNIX_EPOCH).is_none());
    }
}
