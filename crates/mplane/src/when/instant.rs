//! Points in time: timestamps, `past`, `now` and `future`.
//!
//! Timestamps are UTC, from the year 1 on, with a resolution of one microsecond.
//!
//! Source: protocol description, section 5, "Temporal scope (`when`)".
//!
//! Differences: the reference implementation ignores what follows the part it understands,
//! so it takes `2015-06-01T10:20:30` for midnight. Here `T` before and `Z` after the time
//! of day have their obvious meaning, and other text is refused. Fractions may have 7 to 9
//! digits, of which 6 are kept, or none. Years before 1000 are written with four digits, so that
//! they can be read again. The last day of the year 9999 cannot be represented.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use jiff::Timestamp;
use jiff::civil::{Date, Time};
use jiff::tz::Offset;

use super::parse::{Cursor, Refusal};

/// The first instant: 0001-01-01 00:00:00.
const EARLIEST: Timestamp = Timestamp::constant(-62_135_596_800, 0);

/// The last instant: 9999-12-30 22:00:00.999999, where the time library ends so that every
/// time zone has room.
const LATEST: Timestamp = Timestamp::constant(253_402_207_200, 999_999_000);

/// A point in time, possibly relative to the time at which it is looked at.
///
/// The order is a convention for sorting: `past`, timestamps by time, `now`, `future`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Instant {
    /// `past`: before any timestamp.
    Past,
    /// A timestamp, UTC. Printing cuts it to microseconds.
    At(Timestamp),
    /// `now`: the time at which a message is looked at.
    Now,
    /// `future`: after any timestamp.
    Future,
}

impl Instant {
    /// Returns the absolute time in microseconds; `None` for `past` and `future`.
    pub(super) fn resolve(self, now: Timestamp) -> Option<Timestamp> {
        match self {
            Self::Past | Self::Future => None,
            Self::At(timestamp) => Some(cut(timestamp)),
            Self::Now => Some(cut(now)),
        }
    }
}

impl fmt::Display for Instant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Past => f.write_str("past"),
            Self::At(timestamp) => write!(f, "{}", display_timestamp(*timestamp)),
            Self::Now => f.write_str("now"),
            Self::Future => f.write_str("future"),
        }
    }
}

impl FromStr for Instant {
    type Err = ParseInstantError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Some(timestamp) = parse_canonical(text) {
            return Ok(Self::At(timestamp));
        }
        let mut cursor = Cursor::new(text);
        let parsed = scan(&mut cursor)
            .and_then(|instant| cursor.finish("the end of the time").map(|()| instant));
        Ok(parsed?)
    }
}

/// The error of text that is not a point in time.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(transparent)]
pub struct ParseInstantError(#[from] Refusal);

impl ParseInstantError {
    /// Returns the byte at which reading failed.
    pub fn at(&self) -> usize {
        self.0.at()
    }
}

/// Returns the canonical text of a timestamp, `YYYY-MM-DD HH:MM:SS.ffffff`, UTC.
///
/// It is cut to microseconds, and to the years 1 to 9999.
pub fn display_timestamp(timestamp: Timestamp) -> impl fmt::Display {
    fmt::from_fn(move |f| {
        let text = canonical(timestamp);
        f.write_str(str::from_utf8(&text).map_err(|_| fmt::Error)?)
    })
}

/// Where the parts of a canonical timestamp end, and the places between, by example.
const CANONICAL: &[u8; 26] = b"0000-00-00 00:00:00.000000";

/// Returns the canonical text of a timestamp.
fn canonical(timestamp: Timestamp) -> [u8; 26] {
    let civil = Offset::UTC.to_datetime(cut(timestamp));
    let micros = civil.subsec_nanosecond() / 1_000;
    let parts = [
        (0..4, i32::from(civil.year())),
        (5..7, i32::from(civil.month())),
        (8..10, i32::from(civil.day())),
        (11..13, i32::from(civil.hour())),
        (14..16, i32::from(civil.minute())),
        (17..19, i32::from(civil.second())),
        (20..26, micros),
    ];
    let mut text = *CANONICAL;
    for (place, mut number) in parts {
        for digit in text.get_mut(place).into_iter().flatten().rev() {
            *digit += u8::try_from(number % 10).unwrap_or(0);
            number /= 10;
        }
    }
    text
}

/// Reads a timestamp in its canonical text, which nearly all are; `None` if it is none.
fn parse_canonical(text: &str) -> Option<Timestamp> {
    let bytes: &[u8; 26] = text.as_bytes().try_into().ok()?;
    // Counted, which is faster than stopping at the first: times stand in every row.
    let misfits = bytes.iter().zip(CANONICAL).filter(|(byte, example)| match example {
        b'0' => !byte.is_ascii_digit(),
        separator => byte != separator,
    });
    if misfits.count() > 0 {
        return None;
    }
    let digit = |index: usize| i32::from(bytes[index] & 0xf);
    let two = |index: usize| digit(index) * 10 + digit(index + 1);
    let part = |index: usize| i8::try_from(two(index)).ok();
    let year = i16::try_from(two(0) * 100 + two(2)).ok()?;
    let date = Date::new(year, part(5)?, part(8)?).ok()?;
    let micros = (two(20) * 100 + two(22)) * 100 + two(24);
    let time = Time::new(part(11)?, part(14)?, part(17)?, micros * 1_000).ok()?;
    let timestamp = Offset::UTC.to_timestamp(date.to_datetime(time)).ok()?;
    (EARLIEST..=LATEST).contains(&timestamp).then_some(timestamp)
}

/// Cuts a timestamp to whole microseconds and to the years that can be written.
pub(super) fn cut(timestamp: Timestamp) -> Timestamp {
    if timestamp.subsec_nanosecond() % 1_000 == 0 {
        return timestamp.clamp(EARLIEST, LATEST);
    }
    // Nanoseconds, because the library takes no microseconds of its last second.
    let nanos = timestamp.as_nanosecond().div_euclid(1_000) * 1_000;
    Timestamp::from_nanosecond(nanos)
        .map_or(EARLIEST, |timestamp| timestamp.clamp(EARLIEST, LATEST))
}

/// Returns the instant a duration later, unless the calendar ends before.
pub(super) fn checked_after(
    timestamp: Timestamp,
    duration: Duration,
) -> Option<Timestamp> {
    timestamp.checked_add(duration).ok().map(cut)
}

/// Returns the instant a duration later, or the last one there is.
pub(super) fn after(timestamp: Timestamp, duration: Duration) -> Timestamp {
    checked_after(timestamp, duration).unwrap_or(LATEST)
}

/// Returns how long after one instant another comes, zero if it comes before.
pub(super) fn span(from: Timestamp, to: Timestamp) -> Duration {
    Duration::try_from(to.duration_since(from)).unwrap_or(Duration::ZERO)
}

/// Reads an instant and leaves the cursor after it.
pub(super) fn scan(cursor: &mut Cursor<'_>) -> Result<Instant, Refusal> {
    if cursor.eat("past") {
        return Ok(Instant::Past);
    }
    if cursor.eat("now") {
        return Ok(Instant::Now);
    }
    if cursor.eat("future") {
        return Ok(Instant::Future);
    }
    if !cursor.starts_with_digit() {
        return Err(cursor.refuse("past, now, future or a time as 2015-06-01 10:20:30"));
    }
    Ok(Instant::At(scan_timestamp(cursor)?))
}

/// Reads a timestamp and leaves the cursor after it.
fn scan_timestamp(cursor: &mut Cursor<'_>) -> Result<Timestamp, Refusal> {
    let beginning = cursor.clone();
    let year = cursor.digits(4);
    if year.len() < 4 || cursor.starts_with_digit() {
        return Err(beginning.refuse("a year of four digits"));
    }
    let year = year.parse().expect("four digits are a year");
    let month = scan_part(cursor, "-", 1, 12, "- and a month from 1 to 12")?;
    let day = scan_part(cursor, "-", 1, 31, "- and a day from 1 to 31")?;
    let date = Date::new(year, month, day)
        .map_err(|_| beginning.refuse("a day that exists in its month"))?;

    // Some write more than one blank before the time of day.
    let mut ahead = cursor.clone();
    while ahead.starts_with("  ") {
        ahead.eat(" ");
    }
    if ahead.followed_by_digit(" ") {
        *cursor = ahead;
    }
    let time = if cursor.followed_by_digit(" ") || cursor.starts_with("T") {
        scan_time_of_day(cursor)?
    } else {
        Time::midnight()
    };
    Offset::UTC
        .to_timestamp(date.to_datetime(time))
        .ok()
        .filter(|timestamp| (EARLIEST..=LATEST).contains(timestamp))
        .ok_or_else(|| {
            beginning.refuse("a time from 0001-01-01 to 9999-12-30 22:00, or future")
        })
}

/// Reads the time of day of a timestamp, with the blank or `T` before it.
fn scan_time_of_day(cursor: &mut Cursor<'_>) -> Result<Time, Refusal> {
    let separator = if cursor.starts_with("T") { "T" } else { " " };
    let hour = scan_part(cursor, separator, 0, 23, "an hour from 0 to 23")?;
    let minute = scan_part(cursor, ":", 0, 59, ": and a minute from 0 to 59")?;
    let mut second = 0;
    let mut nanos = 0;
    if cursor.starts_with(":") {
        second = scan_part(cursor, ":", 0, 59, "a second from 0 to 59")?;
        nanos = scan_fraction(cursor)?;
    }
    cursor.eat("Z");
    Ok(Time::new(hour, minute, second, nanos).expect("the parts were checked"))
}

/// Reads a separator and a number of one or two digits within limits.
fn scan_part(
    cursor: &mut Cursor<'_>,
    separator: &str,
    least: i8,
    most: i8,
    expected: &'static str,
) -> Result<i8, Refusal> {
    let beginning = cursor.clone();
    cursor
        .eat(separator)
        .then(|| cursor.digits(2).parse().ok())
        .flatten()
        .filter(|number| (least..=most).contains(number) && !cursor.starts_with_digit())
        .ok_or_else(|| beginning.refuse(expected))
}

/// Reads the fraction of a second, if there is one, in nanoseconds cut to microseconds.
fn scan_fraction(cursor: &mut Cursor<'_>) -> Result<i32, Refusal> {
    if !cursor.eat(".") {
        return Ok(0);
    }
    let digits = cursor.digits(9);
    if cursor.starts_with_digit() {
        return Err(cursor.refuse("at most 9 digits after the point"));
    }
    let micros = digits.bytes().chain(std::iter::repeat(b'0')).take(6);
    Ok(micros.fold(0, |sum, digit| sum * 10 + i32::from(digit - b'0')) * 1_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the canonical text of an instant.
    fn canonical(text: &str) -> String {
        text.parse::<Instant>().unwrap().to_string()
    }

    /// Returns the message with which an instant is refused.
    fn refusal(text: &str) -> String {
        text.parse::<Instant>().unwrap_err().to_string()
    }

    #[test]
    fn prints_six_fraction_digits_and_four_of_the_year() {
        assert_eq!(canonical("2015-6-1"), "2015-06-01 00:00:00.000000");
        assert_eq!(canonical("2015-06-01 1:2"), "2015-06-01 01:02:00.000000");
        assert_eq!(canonical("0001-01-01"), "0001-01-01 00:00:00.000000");
        assert_eq!(canonical("now"), "now");
    }

    #[test]
    fn reads_the_notation_of_iso_8601() {
        assert_eq!(canonical("2015-06-01T10:20:30Z"), "2015-06-01 10:20:30.000000");
        assert_eq!(canonical("2015-06-01 10:20:30.5Z"), "2015-06-01 10:20:30.500000");
        assert_eq!(canonical("2015-06-01  10:20:30."), "2015-06-01 10:20:30.000000");
    }

    #[test]
    fn keeps_microseconds() {
        assert_eq!(
            canonical("2015-06-01 10:20:30.123456789"),
            "2015-06-01 10:20:30.123456"
        );
        assert_eq!(
            canonical("1969-12-31 23:59:59.9999999"),
            "1969-12-31 23:59:59.999999"
        );
        let fine = Timestamp::new(0, -1).unwrap();
        assert_eq!(display_timestamp(fine).to_string(), "1969-12-31 23:59:59.999999");
    }

    #[test]
    fn prints_the_ends_of_the_time_library_within_the_calendar() {
        let print = |timestamp| display_timestamp(timestamp).to_string();
        assert_eq!(print(Timestamp::MIN), "0001-01-01 00:00:00.000000");
        assert_eq!(print(Timestamp::MAX), "9999-12-30 22:00:00.999999");
        assert_eq!(after(EARLIEST, Duration::MAX), LATEST);
    }

    #[test]
    fn sorts_timestamps_between_past_and_now() {
        let sorted = ["past", "2015-01-01", "2016-01-01", "now", "future"]
            .map(|text| text.parse::<Instant>().unwrap());
        assert!(sorted.is_sorted());
    }

    #[test]
    fn refuses_with_the_place_and_the_remedy() {
        assert_eq!(
            refusal(""),
            "at byte 0: expected past, now, future or a time as 2015-06-01 10:20:30, \
             found the end"
        );
        assert_eq!(
            refusal("15-06-01"),
            "at byte 0: expected a year of four digits, found \"15-06-01\""
        );
        assert_eq!(
            refusal("2015-13-01"),
            "at byte 4: expected - and a month from 1 to 12, found \"-13-01\""
        );
        assert_eq!(
            refusal("2015-02-29"),
            "at byte 0: expected a day that exists in its month, found \"2015-02-29\""
        );
        assert_eq!(
            refusal("2015-06-01 24:00"),
            "at byte 10: expected an hour from 0 to 23, found \" 24:00\""
        );
        assert_eq!(
            refusal("2015-06-01 10"),
            "at byte 13: expected : and a minute from 0 to 59, found the end"
        );
        assert_eq!(
            refusal("2015-06-01 10:20:30+02:00"),
            "at byte 19: expected the end of the time, found \"+02:00\""
        );
        assert_eq!(
            refusal("9999-12-31"),
            "at byte 0: expected a time from 0001-01-01 to 9999-12-30 22:00, or future, \
             found \"9999-12-31\""
        );
        assert_eq!(
            refusal("0000-01-01"),
            "at byte 0: expected a time from 0001-01-01 to 9999-12-30 22:00, or future, \
             found \"0000-01-01\""
        );
    }
}
