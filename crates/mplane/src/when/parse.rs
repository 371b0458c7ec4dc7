//! Reading scopes from text.
//!
//! The reader goes through the text once, from left to right, and says where it stopped.
//!
//! Source: protocol description, section 5, "Temporal scope (`when`)".
//!
//! Differences: see the list in [the module above](super).

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use super::crontab::Crontab;
use super::{Extent, Inner, Instant, Rhythm, When, duration, instant};

/// The longest text of a scope, in bytes. A canonical scope with a full crontab has below
/// 900; longer text says nothing more.
const LONGEST_TEXT: usize = 1024;

impl FromStr for When {
    type Err = ParseWhenError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut cursor = Cursor::new(text);
        if text.len() > LONGEST_TEXT {
            return Err(cursor.refuse("a scope of at most 1024 bytes").into());
        }
        let parsed = if cursor.eat("repeat ") {
            scan_repeat(&mut cursor)
        } else {
            scan_simple(&mut cursor)
        };
        Ok(parsed?)
    }
}

/// The error of text that is not a temporal scope.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(transparent)]
pub struct ParseWhenError(#[from] Refusal);

impl ParseWhenError {
    /// Returns the byte at which reading failed.
    pub fn at(&self) -> usize {
        self.0.at()
    }
}

/// Reads a scope that is not a repeat, to the end of the text.
fn scan_simple(cursor: &mut Cursor<'_>) -> Result<When, Refusal> {
    let (start, extent) = scan_range(cursor)?;
    let mut following = match extent {
        Extent::Instant => "` ... `, ` + `, ` / ` or the end",
        Extent::Until(_) | Extent::For(_) => "` / ` or the end",
    };
    let mut period = None;
    if cursor.eat(" / ") {
        period = Some(duration::scan(cursor)?);
        following = "the end after the period";
    }
    cursor.finish(following)?;
    Ok(When { start, extent, rhythm: Rhythm::Once { period } })
}

/// Reads a repeat after its first word, to the end of the text.
fn scan_repeat(cursor: &mut Cursor<'_>) -> Result<When, Refusal> {
    let (start, extent) = scan_range(cursor)?;
    if extent == Extent::Instant {
        return Err(cursor
            .refuse("` ... ` and an end, or ` + ` and a duration, in which to repeat"));
    }
    let rhythm = if cursor.eat(" / ") {
        let beginning = cursor.clone();
        let period = duration::scan(cursor)?;
        if period.is_zero() {
            return Err(beginning.refuse("a period longer than 0s, to repeat at"));
        }
        Rhythm::Every { period, inner: scan_inner(cursor)? }
    } else if cursor.eat(" cron ") {
        let crontab = Crontab::scan(cursor)?;
        Rhythm::Cron { crontab, inner: scan_inner(cursor)? }
    } else {
        return Err(cursor.refuse("` / ` and a period, or ` cron ` and six fields"));
    };
    Ok(When { start, extent, rhythm })
}

/// Reads the inner scope of a repeat, if there is one, to the end of the text.
fn scan_inner(cursor: &mut Cursor<'_>) -> Result<Option<Inner>, Refusal> {
    if !cursor.eat(" { ") {
        cursor.finish("` { now` or the end")?;
        return Ok(None);
    }
    if !cursor.eat("now") {
        return Err(cursor.refuse("now, from which an inner scope starts"));
    }
    // Without a duration there is nothing to say that the instant does not.
    let mut inner = None;
    if cursor.eat(" + ") {
        let duration = duration::scan(cursor)?;
        let period = cursor.eat(" / ").then(|| duration::scan(cursor)).transpose()?;
        inner = Some(Inner { duration, period });
    }
    if !cursor.eat(" }") {
        return Err(cursor.refuse(match inner {
            None => "` + ` and a duration, or ` }`",
            Some(Inner { period: None, .. }) => "` / ` and a period, or ` }`",
            Some(Inner { period: Some(_), .. }) => "` }`",
        }));
    }
    // The reference writes a blank after the brace.
    cursor.eat(" ");
    cursor.finish("the end after the inner scope")?;
    Ok(inner)
}

/// Reads a start and what is said about the end.
fn scan_range(cursor: &mut Cursor<'_>) -> Result<(Instant, Extent), Refusal> {
    let beginning = cursor.clone();
    let start = instant::scan(cursor)?;
    if start == Instant::Future {
        return Err(beginning.refuse("past, now or a time to start from"));
    }
    if start == Instant::Past && !cursor.starts_with(" ... ") {
        return Err(
            cursor.refuse("` ... ` and an end, since past is no time to count from")
        );
    }
    let extent = if cursor.eat(" ... ") {
        let beginning = cursor.clone();
        match instant::scan(cursor)? {
            Instant::Past => {
                return Err(beginning.refuse("now, future or a time to end at"));
            }
            end => Extent::Until(end),
        }
    } else if cursor.eat(" + inf") {
        // Some write the open end twice; it is the same scope.
        cursor.eat(" ... future");
        Extent::Until(Instant::Future)
    } else if cursor.eat(" + ") {
        Extent::For(duration::scan(cursor)?)
    } else {
        Extent::Instant
    };
    Ok((start, extent))
}

/// A place in a text that is being read.
#[derive(Clone, Debug)]
pub(super) struct Cursor<'a> {
    /// The whole text.
    text: &'a str,
    /// What has not been read of it.
    rest: &'a str,
}

impl<'a> Cursor<'a> {
    /// Returns a cursor at the beginning of a text.
    pub(super) fn new(text: &'a str) -> Self {
        Self { text, rest: text }
    }

    /// Skips a literal and returns whether it was there.
    pub(super) fn eat(&mut self, literal: &str) -> bool {
        match self.rest.strip_prefix(literal) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    /// Reads ASCII digits, at most as many as given; there may be none.
    pub(super) fn digits(&mut self, most: usize) -> &'a str {
        let count = self.rest.bytes().take(most).take_while(u8::is_ascii_digit).count();
        let (digits, rest) = self.rest.split_at(count);
        self.rest = rest;
        digits
    }

    /// Returns whether a literal comes next.
    pub(super) fn starts_with(&self, literal: &str) -> bool {
        self.rest.starts_with(literal)
    }

    /// Returns whether one of several literals comes next.
    pub(super) fn starts_with_any(&self, literals: &[&str]) -> bool {
        literals.iter().any(|literal| self.starts_with(literal))
    }

    /// Returns whether an ASCII digit comes next.
    pub(super) fn starts_with_digit(&self) -> bool {
        self.rest.starts_with(|c: char| c.is_ascii_digit())
    }

    /// Returns whether a literal and after it an ASCII digit come next.
    pub(super) fn followed_by_digit(&self, literal: &str) -> bool {
        let mut ahead = self.clone();
        ahead.eat(literal) && ahead.starts_with_digit()
    }

    /// Refuses the text unless all of it has been read.
    pub(super) fn finish(&self, expected: &'static str) -> Result<(), Refusal> {
        if self.rest.is_empty() { Ok(()) } else { Err(self.refuse(expected)) }
    }

    /// Returns the refusal of what comes next.
    pub(super) fn refuse(&self, expected: impl Into<Cow<'static, str>>) -> Refusal {
        Refusal { at: self.at(), expected: expected.into(), found: excerpt(self.rest) }
    }

    /// Returns the beginning of what lies between this place and a later one.
    pub(super) fn excerpt_until(&self, later: &Self) -> String {
        let length = self.rest.len().saturating_sub(later.rest.len());
        excerpt(self.rest.get(..length).unwrap_or_default())
    }

    /// Returns how many bytes have been read.
    fn at(&self) -> usize {
        self.text.len() - self.rest.len()
    }
}

/// Returns the first characters of a text: enough to recognise the place.
fn excerpt(text: &str) -> String {
    /// How many characters are recognised at a glance.
    const GLANCE: usize = 16;
    let mut excerpt: String = text.chars().take(GLANCE).collect();
    if text.chars().nth(GLANCE).is_some() {
        excerpt.push('…');
    }
    excerpt
}

/// Where reading stopped, what would have let it go on, and what was there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    /// The byte at which the unreadable part begins.
    at: usize,
    /// What should have been there.
    expected: Cow<'static, str>,
    /// The beginning of what is there.
    found: String,
}

impl Refusal {
    /// Returns the byte at which the unreadable part begins.
    pub(super) fn at(&self) -> usize {
        self.at
    }
}

impl std::error::Error for Refusal {}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "at byte {}: expected {}, found ", self.at, self.expected)?;
        if self.found.is_empty() {
            f.write_str("the end")
        } else {
            write!(f, "{:?}", self.found)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the canonical text of a scope.
    fn canonical(text: &str) -> String {
        text.parse::<When>().unwrap().to_string()
    }

    /// Returns the message with which a scope is refused.
    fn refusal(text: &str) -> String {
        text.parse::<When>().unwrap_err().to_string()
    }

    #[test]
    fn reads_every_form_of_the_grammar() {
        for text in [
            "now",
            "2015-06-01 10:20:30.500000",
            "now + 30m / 15s",
            "now ... future",
            "past ... now / 1d",
            "2015-06-01 00:00:00.000000 ... now",
            "repeat now ... future / 1h",
            "repeat now + 30m / 1m { now + 5s }",
            "repeat now + 30m / 1m { now + 5s / 1s }",
            "repeat now ... future cron 0 0 * 1,2,3,4,5,6,7 1 * { now + 5m }",
        ] {
            assert_eq!(canonical(text), text);
        }
    }

    #[test]
    fn reads_an_infinite_duration_as_an_open_end() {
        assert_eq!(canonical("now + inf"), "now ... future");
        assert_eq!(canonical("now + inf ... future"), "now ... future");
        assert_eq!(canonical("now + inf ... future / 10s"), "now ... future / 10s");
        assert_eq!(canonical("now + 100000d"), "now + 100000d");
    }

    #[test]
    fn reads_what_says_nothing_and_does_not_write_it() {
        assert_eq!(canonical("repeat now + 1h / 1m { now } "), "repeat now + 1h / 1m");
        assert_eq!(
            canonical("repeat now + 1h cron  0 0-3,2  * *  * 007"),
            "repeat now + 1h cron 0 0,1,2,3 * * * 7"
        );
    }

    #[test]
    fn reads_the_notation_of_iso_8601() {
        assert_eq!(
            canonical("2015-06-01T10:20Z ... 2015-06-01T10:20:30.5Z / 1s"),
            "2015-06-01 10:20:00.000000 ... 2015-06-01 10:20:30.500000 / 1s"
        );
    }

    #[test]
    fn refuses_with_the_place_and_the_remedy() {
        assert_eq!(
            refusal("now +1s"),
            "at byte 3: expected ` ... `, ` + `, ` / ` or the end, found \" +1s\""
        );
        assert_eq!(
            refusal("2015-06-01..2015-06-02"),
            "at byte 10: expected ` ... `, ` + `, ` / ` or the end, found \"..2015-06-02\""
        );
        assert_eq!(
            refusal("now + 1h 30m"),
            "at byte 8: expected ` / ` or the end, found \" 30m\""
        );
        assert_eq!(
            refusal("now / 1s + 1h"),
            "at byte 8: expected the end after the period, found \" + 1h\""
        );
        assert_eq!(
            refusal("past"),
            "at byte 4: expected ` ... ` and an end, since past is no time to count from, \
             found the end"
        );
        assert_eq!(
            refusal("future"),
            "at byte 0: expected past, now or a time to start from, found \"future\""
        );
        assert_eq!(
            refusal("now ... past"),
            "at byte 8: expected now, future or a time to end at, found \"past\""
        );
    }

    #[test]
    fn refuses_repeats_that_name_no_rhythm() {
        assert_eq!(
            refusal("repeat now / 1m"),
            "at byte 10: expected ` ... ` and an end, or ` + ` and a duration, in which to \
             repeat, found \" / 1m\""
        );
        assert_eq!(
            refusal("repeat now + 1h"),
            "at byte 15: expected ` / ` and a period, or ` cron ` and six fields, \
             found the end"
        );
        assert_eq!(
            refusal("repeat now + 1h / 0s"),
            "at byte 18: expected a period longer than 0s, to repeat at, found \"0s\""
        );
        assert_eq!(
            refusal("repeat now + 1h / 1m cron * * * * * *"),
            "at byte 20: expected ` { now` or the end, found \" cron * * * * * …\""
        );
    }

    #[test]
    fn refuses_inner_scopes_that_are_not_relative_to_now() {
        assert_eq!(
            refusal("repeat now + 1h / 1m { past + 5s }"),
            "at byte 23: expected now, from which an inner scope starts, \
             found \"past + 5s }\""
        );
        assert_eq!(
            refusal("repeat now + 1h / 1m { now / 1s }"),
            "at byte 26: expected ` + ` and a duration, or ` }`, found \" / 1s }\""
        );
        assert_eq!(
            refusal("repeat now + 1h / 1m { now + 5s"),
            "at byte 31: expected ` / ` and a period, or ` }`, found the end"
        );
        assert_eq!(
            refusal("repeat now + 1h / 1m { now + 5s / 1s / 1s }"),
            "at byte 36: expected ` }`, found \" / 1s }\""
        );
        assert_eq!(
            refusal("repeat now + 1h / 1m { now + 5s } x"),
            "at byte 34: expected the end after the inner scope, found \"x\""
        );
    }

    #[test]
    fn refuses_text_that_is_too_long() {
        let message = refusal(&format!("now + {}s", "0".repeat(LONGEST_TEXT)));
        assert_eq!(
            message,
            "at byte 0: expected a scope of at most 1024 bytes, found \"now + 0000000000…\""
        );
    }

    #[test]
    fn has_room_for_the_longest_canonical_text() {
        let end = "9999-12-30 22:00:00.999999";
        let duration = "3652058d23h59m59.999999s";
        let text = format!(
            "repeat {end} ... {end} cron * * * * 0-7 * {{ now + {duration} / {duration} }}"
        );
        let when: When = text.parse().unwrap();
        assert_eq!(when.hash_text().parse(), Ok(when));
    }
}
