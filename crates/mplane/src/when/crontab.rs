//! Crontabs: at which seconds a repeat is due.
//!
//! Six fields, in this order: second, minute, hour, day of the month, day of the week,
//! month. Each is `*` or a list of numbers and ranges. A time matches if all six fields
//! match; times are UTC with a resolution of one second.
//!
//! Source: protocol description, section 5, "Temporal scope (`when`)".
//!
//! Differences: in Unix crontabs the two kinds of days are alternatives; here both must
//! match. Sunday is 0 and also 7, which the reference implementation reads but never
//! matches. Values up to 63 that never occur are read and never match: the reference writes
//! `*` hours as 0 to 59. Higher ones, descending ranges (which select everything there) and
//! steps are refused; ranges may stand in lists.

use std::fmt;

use jiff::Timestamp;
use jiff::civil::{Date, DateTime, Time};
use jiff::tz::Offset;

use super::Spelling;
use super::parse::{Cursor, Refusal};

/// The most members a list may have: a field knows 60 values at most, and to repeat some
/// is an oversight, but to repeat more is an attempt to keep the reader busy.
const MEMBERS_MAX: usize = 64;

/// The seconds at which a repeat is due.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Crontab {
    /// Seconds of the minute.
    seconds: Set,
    /// Minutes of the hour.
    minutes: Set,
    /// Hours of the day; those above 23 never come.
    hours: Set,
    /// Days of the month, from 1.
    days: Set,
    /// Days of the week from Sunday, which is both 0 and 7.
    weekdays: Set,
    /// Months of the year, from 1.
    months: Set,
}

/// What one field of a crontab may say.
struct Field {
    /// The values that occur, for error messages.
    expected: &'static str,
    /// What `*` stands for.
    all: Set,
}

/// The fields in their order.
const FIELDS: [Field; 6] = [
    Field { expected: "`*` or a second from 0 to 59", all: Set::span(0, 59) },
    Field { expected: "`*` or a minute from 0 to 59", all: Set::span(0, 59) },
    Field { expected: "`*` or an hour from 0 to 23", all: Set::span(0, 59) },
    Field { expected: "`*` or a day of the month from 1 to 31", all: Set::span(1, 31) },
    Field {
        expected: "`*` or a day of the week from 0 (Sunday) to 6",
        all: Set::span(0, 6),
    },
    Field { expected: "`*` or a month from 1 to 12", all: Set::span(1, 12) },
];

impl Crontab {
    /// Reads six fields and leaves the cursor after them.
    pub(super) fn scan(cursor: &mut Cursor<'_>) -> Result<Self, Refusal> {
        let mut next = FIELDS.iter().enumerate();
        let mut scan_next = || {
            let (index, field) = next.next().expect("a crontab has six fields");
            if index > 0 && !cursor.eat(" ") {
                return Err(cursor.refuse("a blank and the next of six cron fields"));
            }
            while cursor.eat(" ") {}
            field.scan(cursor)
        };
        Ok(Self {
            seconds: scan_next()?,
            minutes: scan_next()?,
            hours: scan_next()?,
            days: scan_next()?,
            weekdays: scan_next()?,
            months: scan_next()?,
        })
    }

    /// Writes the fields, with lists in ascending order.
    pub(super) fn write(
        &self,
        f: &mut fmt::Formatter<'_>,
        spelling: Spelling,
    ) -> fmt::Result {
        for (index, (set, field)) in self.fields().into_iter().zip(&FIELDS).enumerate() {
            if index > 0 {
                f.write_str(" ")?;
            }
            if spelling == Spelling::Display && set == field.all {
                f.write_str("*")?;
            } else {
                write!(f, "{set}")?;
            }
        }
        Ok(())
    }

    /// Returns the first matching second that is not before an instant; `None` if there is
    /// none in the calendar.
    pub(super) fn first_from(&self, instant: Timestamp) -> Option<Timestamp> {
        let mut from = Offset::UTC.to_datetime(instant);
        if from.subsec_nanosecond() > 0 {
            from = from.with().subsec_nanosecond(0).build().ok()?;
            from = from.checked_add(jiff::SignedDuration::from_secs(1)).ok()?;
        }
        let matching = self.first_civil_from(from)?;
        Offset::UTC.to_timestamp(matching).ok()
    }

    /// Returns the first matching second of the calendar, from a full second on.
    fn first_civil_from(&self, from: DateTime) -> Option<DateTime> {
        let earliest = self.first_time_from(Time::midnight())?;
        let today = self.first_day_from(from.date())?;
        if today > from.date() {
            return Some(today.to_datetime(earliest));
        }
        if let Some(time) = self.first_time_from(from.time()) {
            return Some(today.to_datetime(time));
        }
        let day = self.first_day_from(today.tomorrow().ok()?)?;
        Some(day.to_datetime(earliest))
    }

    /// Returns the first matching time of day from a full second on.
    fn first_time_from(&self, from: Time) -> Option<Time> {
        let (hour, minute, second) = (from.hour(), from.minute(), from.second());
        let (seconds, minutes) = (self.seconds.up_to(59), self.minutes.up_to(59));
        // The later the digits in which the answer differs, the earlier it is.
        let in_this_minute = || {
            let second = seconds.first_from(second)?;
            (self.hours.contains(hour) && self.minutes.contains(minute))
                .then_some((hour, minute, second))
        };
        let in_this_hour = || {
            let minute = minutes.first_from(minute + 1)?;
            let second = seconds.first_from(0)?;
            self.hours.contains(hour).then_some((hour, minute, second))
        };
        let in_a_later_hour = || {
            let hour = self.hours.first_from(hour + 1)?;
            Some((hour, minutes.first_from(0)?, seconds.first_from(0)?))
        };
        let (hour, minute, second) =
            in_this_minute().or_else(in_this_hour).or_else(in_a_later_hour)?;
        // Fails for hours above 23, which never come.
        Time::new(hour, minute, second, 0).ok()
    }

    /// Returns the first matching day from a day on.
    ///
    /// Only months and days that the fields name are looked at. A pair such as 29 February
    /// on a Monday returns after 40 years at most; one such as 31 February never comes.
    fn first_day_from(&self, from: Date) -> Option<Date> {
        if !self.names_a_day() {
            return None;
        }
        let (mut year, mut month, mut day) = (from.year(), from.month(), from.day());
        let months = self.months.up_to(12);
        loop {
            let Some(named) = months.first_from(month) else {
                year += 1;
                (month, day) = (1, 1);
                continue;
            };
            if named != month {
                (month, day) = (named, 1);
            }
            let first = Date::new(year, month, 1).ok()?;
            let first_weekday = first.weekday().to_sunday_zero_offset();
            while let Some(named) = self.days.first_from(day) {
                if named > first.days_in_month() {
                    break;
                }
                let weekday = (first_weekday + named - 1) % 7;
                let sunday_as_seven = weekday == 0 && self.weekdays.contains(7);
                if self.weekdays.contains(weekday) || sunday_as_seven {
                    return Date::new(year, month, named).ok();
                }
                day = named + 1;
            }
            (month, day) = (month + 1, 1);
        }
    }

    /// Returns whether any of the months has any of the days, and a weekday occurs.
    fn names_a_day(&self) -> bool {
        const LEAP_YEAR: i16 = 2000;
        if self.weekdays.up_to(7) == Set::EMPTY {
            return false;
        }
        (1..=12).filter(|month| self.months.contains(*month)).any(|month| {
            let first = Date::constant(LEAP_YEAR, month, 1);
            self.days.first_from(1).is_some_and(|day| day <= first.days_in_month())
        })
    }

    /// Returns the sets in the order of the fields.
    fn fields(&self) -> [Set; 6] {
        [self.seconds, self.minutes, self.hours, self.days, self.weekdays, self.months]
    }
}

impl Field {
    /// Reads `*` or a list, and leaves the cursor after it.
    fn scan(&self, cursor: &mut Cursor<'_>) -> Result<Set, Refusal> {
        let set = if cursor.eat("*") { self.all } else { self.scan_list(cursor)? };
        if cursor.starts_with("/") {
            return Err(cursor.refuse("no steps: list the values, as 0,15,30,45"));
        }
        Ok(set)
    }

    /// Reads numbers and ranges with commas between.
    fn scan_list(&self, cursor: &mut Cursor<'_>) -> Result<Set, Refusal> {
        let beginning = cursor.clone();
        let mut set = Set::EMPTY;
        for _ in 0..MEMBERS_MAX {
            let low = self.scan_number(cursor)?;
            let mut high = low;
            if cursor.eat("-") {
                let end = cursor.clone();
                high = self.scan_number(cursor)?;
                if high < low {
                    return Err(end.refuse(format!("a number from {low} up")));
                }
            }
            set = set.union(Set::span(low, high));
            if !cursor.eat(",") {
                return Ok(set);
            }
        }
        Err(beginning.refuse("a list of at most 64 members"))
    }

    /// Reads a number that may occur, or at least fits into a set.
    fn scan_number(&self, cursor: &mut Cursor<'_>) -> Result<i8, Refusal> {
        let beginning = cursor.clone();
        cursor
            .digits(3)
            .parse()
            .ok()
            .filter(|number| {
                Set::READABLE.contains(*number) && !cursor.starts_with_digit()
            })
            .ok_or_else(|| beginning.refuse(self.expected))
    }
}

/// A set of numbers from 0 to 63: one bit each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Set(u64);

impl Set {
    /// The set of nothing.
    const EMPTY: Self = Self(0);

    /// The set of everything that fits.
    const READABLE: Self = Self::span(0, 63);

    /// Returns the numbers from the lower to the higher, both from 0 to 63, inclusive.
    const fn span(low: i8, high: i8) -> Self {
        Self((u64::MAX << low) & (u64::MAX >> (63 - high)))
    }

    /// Returns the numbers in one set or the other.
    const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Returns the numbers up to one.
    const fn up_to(self, high: i8) -> Self {
        Self(self.0 & Self::span(0, high).0)
    }

    /// Returns whether a number is in the set.
    fn contains(self, number: i8) -> bool {
        self.first_from(number) == Some(number)
    }

    /// Returns the first number of the set that is not below another.
    fn first_from(self, number: i8) -> Option<i8> {
        let number = u32::try_from(number).ok()?;
        let rest = u64::MAX.checked_shl(number)? & self.0;
        i8::try_from(rest.trailing_zeros()).ok().filter(|_| rest != 0)
    }
}

impl fmt::Display for Set {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut from = 0;
        while let Some(number) = self.first_from(from) {
            if from > 0 {
                f.write_str(",")?;
            }
            write!(f, "{number}")?;
            from = number + 1;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads a crontab.
    fn crontab(text: &str) -> Crontab {
        Crontab::scan(&mut Cursor::new(text)).unwrap()
    }

    /// Returns the first match from a timestamp on, as text.
    fn first_from(text: &str, from: &str) -> Option<String> {
        crontab(text).first_from(from.parse().unwrap()).map(|t| t.to_string())
    }

    /// Returns the message with which a crontab is refused.
    fn refusal(text: &str) -> String {
        Crontab::scan(&mut Cursor::new(text)).unwrap_err().to_string()
    }

    #[test]
    fn finds_the_next_match() {
        let find = |text| first_from(text, "2015-06-01T12:00:00Z").unwrap();
        assert_eq!(find("* * * * * *"), "2015-06-01T12:00:00Z");
        assert_eq!(find("1 * * * * *"), "2015-06-01T12:00:01Z");
        assert_eq!(find("30 59 11 * * *"), "2015-06-02T11:59:30Z");
        assert_eq!(find("0 0 0 1 1 *"), "2016-02-01T00:00:00Z");
        assert_eq!(find("0 0 0 29 1 2"), "2016-02-29T00:00:00Z");
        assert_eq!(find("0 0 12 * 7 *"), "2015-06-07T12:00:00Z");
        assert_eq!(find("0 0 0 31 * 1,3"), "2016-01-31T00:00:00Z");
    }

    #[test]
    fn skips_values_that_never_occur() {
        let find = |text| first_from(text, "2015-06-01T12:00:30Z").unwrap();
        assert_eq!(find("10,61 * * * * *"), "2015-06-01T12:01:10Z");
        assert_eq!(find("0 0,60 * * * *"), "2015-06-01T13:00:00Z");
        assert_eq!(find("0 0 0,24 0,1 7,8 2,13"), "2026-02-01T00:00:00Z");
    }

    #[test]
    fn starts_at_a_full_second() {
        let find = |text| first_from(text, "2015-12-31T23:59:59.5Z").unwrap();
        assert_eq!(find("* * * * * *"), "2016-01-01T00:00:00Z");
    }

    #[test]
    fn crosses_the_longest_gaps() {
        // 2100 is no leap year.
        let next = first_from("0 0 0 29 0 2", "2088-02-29T00:00:01Z");
        assert_eq!(next.unwrap(), "2128-02-29T00:00:00Z");
    }

    #[test]
    fn ends_where_nothing_matches() {
        for text in [
            "0 0 0 31 * 2",
            "0 0 0 30 * 2",
            "0 0 24 * * *",
            "0 0 0 31 * 4,6,9,11",
            "60 * * * * *",
            "0 60 * * * *",
            "0 0 0 0 * *",
            "0 0 0 * 8 *",
            "0 0 0 * * 0,13",
        ] {
            assert_eq!(first_from(text, "2015-06-01T12:00:00Z"), None, "{text}");
        }
        assert_eq!(first_from("0 0 0 1 * 1", "9999-01-01T00:00:01Z"), None);
        assert_eq!(first_from("* * * * * *", &Timestamp::MAX.to_string()), None);
    }

    #[test]
    fn refuses_with_the_place_and_the_remedy() {
        assert_eq!(
            refusal("64 * * * * *"),
            "at byte 0: expected `*` or a second from 0 to 59, found \"64 * * * * *\""
        );
        assert_eq!(
            refusal("0 0 0 x * *"),
            "at byte 6: expected `*` or a day of the month from 1 to 31, found \"x * *\""
        );
        assert_eq!(
            refusal("0 */15 * * * *"),
            "at byte 3: expected no steps: list the values, as 0,15,30,45, \
             found \"/15 * * * *\""
        );
        assert_eq!(
            refusal("5-0 * * * * *"),
            "at byte 2: expected a number from 5 up, found \"0 * * * * *\""
        );
        assert_eq!(
            refusal("0 0 0 1"),
            "at byte 7: expected a blank and the next of six cron fields, found the end"
        );
        assert_eq!(
            refusal("0,,1 0 0 1 1 1"),
            "at byte 2: expected `*` or a second from 0 to 59, found \",1 0 0 1 1 1\""
        );
        assert_eq!(
            refusal(&"0,".repeat(65)),
            "at byte 0: expected a list of at most 64 members, found \"0,0,0,0,0,0,0,0,…\""
        );
    }
}
