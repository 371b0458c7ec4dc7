//! Durations: `1d2h3m4s`.
//!
//! Units are days, hours, minutes and seconds, largest first, each at most once. A day has
//! 24 hours. The resolution is one microsecond.
//!
//! Source: protocol description, section 5, "Temporal scope (`when`)".
//!
//! Differences: the reference implementation reads any text, taking what it does not
//! understand as zero seconds; here it is refused. Seconds may have a fraction.

use std::fmt;
use std::time::Duration;

use super::parse::{Cursor, Refusal};

/// What `inf` means: 100,000 days, as in the reference implementation, which also writes
/// it so (`100000d`). As the length of a scope, `inf` is `... future` instead.
pub const INFINITE: Duration = Duration::from_secs(100_000 * DAY);

/// The longest duration: all the days of the years 1 to 9999, which no scope exceeds.
const LONGEST: Duration = Duration::from_secs(3_652_059 * DAY);

/// The seconds of a day.
const DAY: u64 = 24 * HOUR;
/// The seconds of an hour.
const HOUR: u64 = 60 * MINUTE;
/// The seconds of a minute.
const MINUTE: u64 = 60;

/// The units in the order in which they are written, with their seconds.
const UNITS: [(&str, u64); 4] = [("d", DAY), ("h", HOUR), ("m", MINUTE), ("s", 1)];

/// The longest fraction of a second: microseconds.
const FRACTION_DIGITS: usize = 6;

/// Reads a duration such as `1d2h3m4s`, `1.5s` or `inf`.
pub fn parse_duration(text: &str) -> Result<Duration, ParseDurationError> {
    let mut cursor = Cursor::new(text);
    let parsed = scan(&mut cursor)
        .and_then(|duration| cursor.finish("the end of the duration").map(|()| duration));
    Ok(parsed?)
}

/// Returns the canonical text of a duration, such as `1d2h3m4s` or `0s`.
///
/// Fractional seconds appear only if there are any, without trailing zeros; what is below
/// a microsecond is cut.
pub fn display_duration(duration: Duration) -> impl fmt::Display {
    fmt::from_fn(move |f| {
        let fraction = duration.subsec_micros();
        let mut rest = duration.as_secs();
        for (unit, seconds) in UNITS {
            let amount = rest / seconds;
            rest %= seconds;
            let sub_second = unit == "s" && fraction > 0;
            if amount == 0 && !sub_second {
                continue;
            }
            write!(f, "{amount}")?;
            if sub_second {
                let digits = format!("{fraction:06}");
                write!(f, ".{}", digits.trim_end_matches('0'))?;
            }
            f.write_str(unit)?;
        }
        if duration < Duration::from_micros(1) {
            f.write_str("0s")?;
        }
        Ok(())
    })
}

/// Returns whether a duration is written with a fraction, which the reference
/// implementation cannot read.
pub fn is_fractional(duration: Duration) -> bool {
    duration.subsec_micros() > 0
}

/// The error of text that is not a duration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(transparent)]
pub struct ParseDurationError(#[from] Refusal);

impl ParseDurationError {
    /// Returns the byte at which reading failed.
    pub fn at(&self) -> usize {
        self.0.at()
    }
}

/// Cuts a duration to whole microseconds and to the longest one that can be written.
pub(super) fn cut(duration: Duration) -> Duration {
    let micros = Duration::from_micros(u64::from(duration.subsec_micros()));
    (Duration::from_secs(duration.as_secs()) + micros).min(LONGEST)
}

/// Reads a duration and leaves the cursor after it.
pub(super) fn scan(cursor: &mut Cursor<'_>) -> Result<Duration, Refusal> {
    if cursor.eat("inf") {
        return Ok(INFINITE);
    }
    let beginning = cursor.clone();
    let mut total = Duration::ZERO;
    let mut units = UNITS.iter();
    loop {
        let part = cursor.clone();
        let number = cursor.digits(usize::MAX);
        if number.is_empty() {
            return Err(cursor.refuse("a duration such as 1h30m or 10s"));
        }
        let fraction = scan_fraction(cursor)?;
        // Units come largest first, so each one ends what can still follow.
        let seconds = match units.find(|(unit, _)| cursor.eat(unit)) {
            Some((_, seconds)) => *seconds,
            None if cursor.starts_with_any(&["d", "h", "m", "s"]) => {
                return Err(part.refuse("units in the order d, h, m, s, each once"));
            }
            None => {
                return Err(cursor.refuse(format!(
                    "a unit d, h, m or s after {:?}",
                    part.excerpt_until(cursor)
                )));
            }
        };
        if fraction.is_some() && seconds != 1 {
            return Err(part.refuse("a fraction only before s, smaller units otherwise"));
        }
        let sum = number
            .parse::<u64>()
            .ok()
            .and_then(|number| number.checked_mul(seconds))
            .and_then(|whole| total.checked_add(Duration::from_secs(whole)))
            .and_then(|sum| sum.checked_add(fraction.unwrap_or_default()))
            .filter(|sum| *sum <= LONGEST);
        total = sum.ok_or_else(|| {
            beginning.refuse("a duration of at most 3652059d, or inf for no end")
        })?;
        if !cursor.starts_with_digit() {
            return Ok(total);
        }
    }
}

/// Reads the fraction of a number, if there is one.
fn scan_fraction(cursor: &mut Cursor<'_>) -> Result<Option<Duration>, Refusal> {
    if !cursor.eat(".") {
        return Ok(None);
    }
    let digits = cursor.digits(FRACTION_DIGITS);
    if digits.is_empty() || cursor.starts_with_digit() {
        return Err(cursor.refuse("1 to 6 digits after the point"));
    }
    let micros = digits.bytes().chain(std::iter::repeat(b'0')).take(FRACTION_DIGITS);
    let micros = micros.fold(0, |sum, digit| sum * 10 + u64::from(digit - b'0'));
    Ok(Some(Duration::from_micros(micros)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the message with which a duration is refused.
    fn refusal(text: &str) -> String {
        parse_duration(text).unwrap_err().to_string()
    }

    #[test]
    fn prints_largest_units_first_and_none_that_are_zero() {
        let print = |text| display_duration(parse_duration(text).unwrap()).to_string();
        assert_eq!(print("93784s"), "1d2h3m4s");
        assert_eq!(print("60m"), "1h");
        assert_eq!(print("0d0h"), "0s");
        assert_eq!(print("inf"), "100000d");
        assert_eq!(print("1m0.250s"), "1m0.25s");
        assert_eq!(print("0.000001s"), "0.000001s");
        assert_eq!(display_duration(Duration::from_nanos(999)).to_string(), "0s");
        assert_eq!(
            display_duration(Duration::from_nanos(1_999)).to_string(),
            "0.000001s"
        );
    }

    #[test]
    fn knows_fractions() {
        assert!(is_fractional(Duration::from_millis(1_500)));
        assert!(!is_fractional(Duration::from_secs(1)));
        assert!(!is_fractional(INFINITE));
    }

    #[test]
    fn prints_durations_longer_than_can_be_read() {
        assert_eq!(
            display_duration(Duration::MAX).to_string(),
            "213503982334601d7h15.999999s"
        );
        assert_eq!(cut(Duration::MAX), LONGEST);
    }

    #[test]
    fn refuses_what_the_reference_reads_as_zero() {
        assert_eq!(
            refusal(""),
            "at byte 0: expected a duration such as 1h30m or 10s, found the end"
        );
        assert_eq!(
            refusal("1w"),
            "at byte 1: expected a unit d, h, m or s after \"1\", found \"w\""
        );
        assert_eq!(
            refusal("10"),
            "at byte 2: expected a unit d, h, m or s after \"10\", found the end"
        );
        assert_eq!(
            refusal("4s3m"),
            "at byte 2: expected units in the order d, h, m, s, each once, found \"3m\""
        );
        assert_eq!(
            refusal("1s1s"),
            "at byte 2: expected units in the order d, h, m, s, each once, found \"1s\""
        );
        assert_eq!(
            refusal("1d 1h"),
            "at byte 2: expected the end of the duration, found \" 1h\""
        );
        assert_eq!(
            refusal("1ms"),
            "at byte 2: expected the end of the duration, found \"s\""
        );
        assert_eq!(
            refusal("-1s"),
            "at byte 0: expected a duration such as 1h30m or 10s, found \"-1s\""
        );
        assert_eq!(
            refusal("١s"),
            "at byte 0: expected a duration such as 1h30m or 10s, found \"١s\""
        );
    }

    #[test]
    fn refuses_fractions_that_are_not_of_seconds() {
        assert_eq!(
            refusal("1.5h"),
            "at byte 0: expected a fraction only before s, smaller units otherwise, \
             found \"1.5h\""
        );
        assert_eq!(
            refusal("1.s"),
            "at byte 2: expected 1 to 6 digits after the point, found \"s\""
        );
        assert_eq!(
            refusal("1.1234567s"),
            "at byte 8: expected 1 to 6 digits after the point, found \"7s\""
        );
    }

    #[test]
    fn refuses_durations_longer_than_the_calendar() {
        assert!(parse_duration("3652059d").is_ok());
        for text in [
            "3652059d1s",
            "99999999999d",
            "18446744073709551616s",
            "9999999999999999999d",
        ] {
            let message = refusal(text);
            assert!(
                message.starts_with(
                    "at byte 0: expected a duration of at most 3652059d, or inf for no end"
                ),
                "{message}"
            );
        }
    }
}
