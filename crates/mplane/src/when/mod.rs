//! Temporal scopes: when, for how long and how often to measure.
//!
//! A scope such as `now + 30m / 15s` says when a measurement may run (in a capability),
//! shall run (in a specification) or did run (in a result). [`When`] is such a scope,
//! read by `parse`, printed by [`Display`](fmt::Display), and asked here.
//!
//! All times are UTC with a resolution of one microsecond, the resolution of their text;
//! finer instants and durations are cut. Nothing here reads a clock: what "now" means is
//! an argument.
//!
//! Read on in [`Instant`], the durations ([`parse_duration`]), the crontab of a repeat,
//! and [`Occurrences`].
//!
//! Source: protocol description, section 5, "Temporal scope (`when`)"; draft version 1,
//! section "Temporal Scope".
//!
//! Differences: text that the reference implementation misreads in silence is refused
//! (`1w`, trailing words, non-ASCII digits, cron values that never occur) or read with its
//! obvious meaning (`T` and `Z` in timestamps, fractional seconds). A scope starts at
//! `past`, `now` or a timestamp: the bare words `past` and `future`, and durations counted
//! from `past`, name no time and are refused. `now / 1s` is read, as the reference does,
//! although the grammar has no period after a single instant: it is harmless, and so every
//! scope that can be built can be written. Where the reference fails on scopes that start
//! in the past, this module answers.

mod crontab;
mod duration;
mod instant;
mod occurrences;
mod parse;
#[cfg(test)]
mod tests;

use std::fmt;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use self::crontab::Crontab;
pub use self::duration::{
    INFINITE, ParseDurationError, display_duration, is_fractional, parse_duration,
};
pub use self::instant::{Instant, ParseInstantError, display_timestamp};
pub use self::occurrences::{Occurrence, Occurrences};
pub use self::parse::ParseWhenError;

/// A temporal scope.
///
/// # Parsing and printing
///
/// [`FromStr`](std::str::FromStr) reads every form of the grammar, `Display` writes the
/// canonical text, and reading that gives the same scope again. [`hash_text`](Self::hash_text)
/// is the spelling that goes into tokens and schema hashes.
///
/// # Comparing
///
/// Two scopes are equal if they are written alike, not if they cover the same time. The
/// order has no meaning in time: it makes sorted collections possible.
///
/// # Example
///
/// ```
/// use mplane::when::When;
///
/// let when: When = "now + 1800s / 15s".parse()?;
/// assert_eq!(when.to_string(), "now + 30m / 15s");
/// # Ok::<(), mplane::when::ParseWhenError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct When {
    /// Where the scope starts; never [`Instant::Future`].
    start: Instant,
    /// How far the scope reaches from its start.
    extent: Extent,
    /// What happens how often within the scope.
    rhythm: Rhythm,
}

/// How far a scope reaches from its start.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Extent {
    /// No further: the scope is one instant; its start is not `past`.
    Instant,
    /// To an end, never [`Instant::Past`]. It may lie before the start: such a scope is
    /// empty.
    Until(Instant),
    /// For a duration; the start is not `past`.
    For(Duration),
}

/// What happens how often within a scope.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Rhythm {
    /// One measurement, with samples a period apart if there is one.
    Once { period: Option<Duration> },
    /// Measurements a period apart, which is not zero.
    Every { period: Duration, inner: Option<Inner> },
    /// Measurements whenever the crontab matches.
    Cron { crontab: Crontab, inner: Option<Inner> },
}

/// The scope of each measurement of a repeat, counted from its own start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Inner {
    /// How long each measurement lasts.
    duration: Duration,
    /// How far its samples are apart.
    period: Option<Duration>,
}

/// The absolute ends of a scope, both inclusive, UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Bounds {
    /// The first instant; `None` if the scope starts in the indefinite past.
    pub start: Option<Timestamp>,
    /// The last instant; `None` if the scope never ends.
    pub end: Option<Timestamp>,
}

/// How long to wait before starting and before stopping a measurement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Delays {
    /// From now to the start; zero if the start has passed.
    pub start: Duration,
    /// From now to the end; `None` if the scope never ends.
    pub end: Option<Duration>,
}

/// # Building
impl When {
    /// Returns `now`: once, at once.
    pub const fn now() -> Self {
        Self::once(Instant::Now, Extent::Instant)
    }

    /// Returns `past ... future`: all time.
    pub const fn past_to_future() -> Self {
        Self::once(Instant::Past, Extent::Until(Instant::Future))
    }

    /// Returns `now ... future`: any time from now on.
    pub const fn now_to_future() -> Self {
        Self::once(Instant::Now, Extent::Until(Instant::Future))
    }

    /// Returns `past ... now`: everything until now.
    pub const fn past_to_now() -> Self {
        Self::once(Instant::Past, Extent::Until(Instant::Now))
    }

    /// Returns the scope of one instant, cut to microseconds within the years 1 to 9999.
    pub fn at(instant: Timestamp) -> Self {
        Self::once(Instant::At(instant::cut(instant)), Extent::Instant)
    }

    /// Returns `start ... end`, both cut to microseconds within the years 1 to 9999.
    pub fn between(start: Timestamp, end: Timestamp) -> Self {
        Self::once(
            Instant::At(instant::cut(start)),
            Extent::Until(Instant::At(instant::cut(end))),
        )
    }

    /// Returns `now + duration`, the duration cut to microseconds and to the longest one
    /// that can be written.
    pub fn now_for(duration: Duration) -> Self {
        Self::once(Instant::Now, Extent::For(duration::cut(duration)))
    }

    /// Returns the scope with another period, cut to microseconds.
    ///
    /// A repeat cannot be without a period: `None` and zero leave it as it is, and so does
    /// any period if its rhythm is a crontab.
    #[must_use]
    pub fn with_period(mut self, period: Option<Duration>) -> Self {
        let new = period.map(duration::cut);
        match &mut self.rhythm {
            Rhythm::Once { period } => *period = new,
            Rhythm::Every { period, .. } => {
                *period = new.filter(|new| !new.is_zero()).unwrap_or(*period);
            }
            Rhythm::Cron { .. } => {}
        }
        self
    }

    /// Returns a scope of one measurement without a period.
    const fn once(start: Instant, extent: Extent) -> Self {
        Self { start, extent, rhythm: Rhythm::Once { period: None } }
    }
}

/// # Kinds of scopes
///
/// None of these questions depends on the time at which it is asked.
impl When {
    /// Returns whether both ends are timestamps.
    pub fn is_definite(&self) -> bool {
        matches!(self.start, Instant::At(_))
            && match self.extent {
                Extent::Instant | Extent::For(_) => true,
                Extent::Until(end) => matches!(end, Instant::At(_)),
            }
    }

    /// Returns whether the scope ends in `future`.
    pub fn is_forever(&self) -> bool {
        self.extent == Extent::Until(Instant::Future)
    }

    /// Returns whether the scope is `now ... future`, with any rhythm.
    pub fn is_future(&self) -> bool {
        self.is_immediate() && self.is_forever()
    }

    /// Returns whether the scope is `now` alone, or `now + 0s`.
    pub fn is_moment(&self) -> bool {
        let is_short = match self.extent {
            Extent::Instant => true,
            Extent::For(duration) => duration.is_zero(),
            Extent::Until(end) => end == Instant::Now,
        };
        self.is_immediate() && is_short && !self.is_repeated()
    }

    /// Returns whether the scope starts `now`.
    pub fn is_immediate(&self) -> bool {
        self.start == Instant::Now
    }

    /// Returns whether the scope is `past ... future`, with any rhythm.
    pub fn is_infinite(&self) -> bool {
        self.start == Instant::Past && self.is_forever()
    }

    /// Returns whether the scope is `past ... now`, with any rhythm.
    pub fn is_past(&self) -> bool {
        self.start == Instant::Past && self.extent == Extent::Until(Instant::Now)
    }

    /// Returns whether the scope is a repeat.
    pub fn is_repeated(&self) -> bool {
        !matches!(self.rhythm, Rhythm::Once { .. })
    }

    /// Returns whether the scope is a single instant.
    pub fn is_singleton(&self) -> bool {
        self.extent == Extent::Instant
    }

    /// Returns whether the scope uses a duration with fractional seconds.
    ///
    /// These are an extension. Never send such a scope to a peer that runs the reference
    /// implementation: it reads `1.5s` as zero seconds.
    pub fn has_fraction(&self) -> bool {
        let extent = match self.extent {
            Extent::For(duration) => Some(duration),
            Extent::Instant | Extent::Until(_) => None,
        };
        let inner = self.inner();
        [extent, self.period(), inner.map(|i| i.duration), inner.and_then(|i| i.period)]
            .into_iter()
            .flatten()
            .any(is_fractional)
    }

    /// Returns the period of the scope, of a repeat the outer one.
    ///
    /// In a capability it is the shortest period allowed.
    pub fn period(&self) -> Option<Duration> {
        match self.rhythm {
            Rhythm::Once { period } => period,
            Rhythm::Every { period, .. } => Some(period),
            Rhythm::Cron { .. } => None,
        }
    }

    /// Returns the period of a measurement's samples, of a repeat the inner one.
    fn sample_period(&self) -> Option<Duration> {
        match self.rhythm {
            Rhythm::Once { period } => period,
            Rhythm::Every { inner, .. } | Rhythm::Cron { inner, .. } => inner?.period,
        }
    }

    /// Returns the shortest time between two things that the scope asks for: samples, or
    /// the starts of a repeat's measurements; `None` if it asks for one thing only.
    ///
    /// Of a crontab it is that of its next occurrences: as many as show the rhythm of
    /// seconds within a minute, of minutes within an hour or of hours within a day.
    pub fn shortest_period(&self, now: Timestamp) -> Option<Duration> {
        /// One more than seconds in a minute.
        const SHOWN: usize = 61;
        let repeat = match &self.rhythm {
            Rhythm::Once { .. } => None,
            Rhythm::Every { period, .. } => Some(*period),
            Rhythm::Cron { .. } => {
                let scope = self.resolve(now);
                let due = |from| scope.next_occurrence(from);
                let first = scope.bounds(now).start.map_or(now, |start| start.max(now));
                let shown =
                    std::iter::successors(due(first), |last| due(last.following?));
                let shown: Vec<_> = shown.take(SHOWN).map(|next| next.due).collect();
                let pairs = shown.iter().zip(shown.iter().skip(1));
                pairs.map(|(one, next)| instant::span(*one, *next)).min()
            }
        };
        [repeat, self.sample_period()].into_iter().flatten().min()
    }

    /// Returns how long one measurement lasts: that of a repeat, or the whole scope;
    /// `None` without end.
    pub fn measurement_duration(&self, now: Timestamp) -> Option<Duration> {
        if self.is_repeated() {
            return Some(self.inner().map_or(Duration::ZERO, |inner| inner.duration));
        }
        self.duration(now)
    }

    /// Returns the scope of each measurement of a repeat, if it is not just an instant.
    fn inner(&self) -> Option<Inner> {
        match self.rhythm {
            Rhythm::Once { .. } => None,
            Rhythm::Every { inner, .. } | Rhythm::Cron { inner, .. } => inner,
        }
    }
}

/// # Questions about time
impl When {
    /// Returns the absolute ends of the scope.
    ///
    /// Of a repeat they bound the starts of its measurements. An end after the last
    /// instant that can be written is moved there.
    pub fn bounds(&self, now: Timestamp) -> Bounds {
        let start = self.start.resolve(now);
        let end = match self.extent {
            Extent::Instant => start,
            Extent::Until(end) => end.resolve(now),
            Extent::For(duration) => start.map(|start| instant::after(start, duration)),
        };
        Bounds { start, end }
    }

    /// Returns how long the scope lasts; `None` if an end is indefinite, zero if the scope
    /// ends before it starts.
    pub fn duration(&self, now: Timestamp) -> Option<Duration> {
        match self.extent {
            Extent::Instant => Some(Duration::ZERO),
            Extent::For(duration) => Some(duration),
            Extent::Until(_) => {
                let Bounds { start, end } = self.bounds(now);
                Some(instant::span(start?, end?))
            }
        }
    }

    /// Returns how long to wait before starting and stopping; `None` if it is too late.
    ///
    /// It is too late if a written end has passed, or comes before the start. A late
    /// instant is measured at once, and a late `start + duration` runs for all its
    /// duration, counted from now: specifications travel, and clocks differ. A scope that
    /// starts in the past asks for what is stored, so it starts at once and is never late.
    pub fn delays(&self, now: Timestamp) -> Option<Delays> {
        let now = instant::cut(now);
        let Bounds { start, end } = self.bounds(now);
        let wait = start.map_or(Duration::ZERO, |start| instant::span(now, start));
        let stop = match self.extent {
            Extent::Instant => Some(wait),
            Extent::For(duration) => Some(wait + duration),
            Extent::Until(_) => {
                let late = end
                    .is_some_and(|end| end < start.map_or(now, |start| start.max(now)));
                if late && start.is_some() {
                    return None;
                }
                end.map(|end| instant::span(now, end))
            }
        };
        Some(Delays { start: wait, end: stop })
    }

    /// Returns whether an instant lies in the scope, ends included.
    pub fn contains(&self, instant: Timestamp, now: Timestamp) -> bool {
        self.offset_of(instant, now).is_zero()
    }

    /// Returns how far an instant lies before (negative) or after (positive) the scope;
    /// zero within.
    pub fn offset_of(&self, instant: Timestamp, now: Timestamp) -> SignedDuration {
        let instant = instant::cut(instant);
        match self.bounds(now) {
            Bounds { start: Some(start), .. } if instant < start => {
                instant.duration_since(start)
            }
            Bounds { end: Some(end), .. } if instant > end => instant.duration_since(end),
            _ => SignedDuration::ZERO,
        }
    }

    /// Returns the scope with `now` replaced by the time it means.
    ///
    /// `past` and `future` stay, and so does the inner scope of a repeat.
    #[must_use]
    pub fn resolve(&self, now: Timestamp) -> Self {
        let absolute = |instant: Instant| match instant {
            Instant::Now => Instant::At(instant::cut(now)),
            other => other,
        };
        let extent = match self.extent {
            Extent::Until(end) => Extent::Until(absolute(end)),
            Extent::Instant => Extent::Instant,
            Extent::For(duration) => Extent::For(duration),
        };
        Self { start: absolute(self.start), extent, rhythm: self.rhythm.clone() }
    }

    /// Returns the measurements of a repeat that are not over; `None` if the scope is not
    /// repeated.
    ///
    /// The first is due at the later of now and the start, or when the crontab matches
    /// next; the last not after the end.
    pub fn occurrences(&self, now: Timestamp) -> Option<Occurrences<'_>> {
        Occurrences::new(self, now)
    }
}

/// # Specification against capability
impl When {
    /// Returns whether a component should accept this scope, by the rule of the reference.
    ///
    /// The samples must not be closer than the capability's period, if it has one; and the
    /// start, or an end given as a timestamp, must lie in the capability's scope. So a
    /// scope may reach beyond the capability: clip the work to it. The rule is also laxer
    /// than the protocol: a capability without a period allows any.
    pub fn follows(&self, capability: &Self, now: Timestamp) -> bool {
        if !self.keeps_period_of(capability) {
            return false;
        }
        let start_inside = match self.start.resolve(now) {
            Some(start) => capability.contains(start, now),
            None => capability.start == Instant::Past,
        };
        let end_inside = match self.extent {
            Extent::Until(Instant::At(end)) => capability.contains(end, now),
            _ => false,
        };
        start_inside || end_inside
    }

    /// Returns whether all of this scope lies in the capability's, with samples not closer
    /// than its period. An empty scope lies nowhere.
    ///
    /// This is what a client may send and a policy may allow. A scope that lies within a
    /// capability also [`follows`](Self::follows) it.
    pub fn lies_within(&self, capability: &Self, now: Timestamp) -> bool {
        let mine = self.reach(now);
        let offered = capability.reach(now);
        let starts_inside = match (mine.start, offered.start) {
            (_, None) => true,
            (None, Some(_)) => false,
            (Some(mine), Some(offered)) => mine >= offered,
        };
        let ends_inside = match (mine.end, offered.end) {
            (_, None) => true,
            (None, Some(_)) => false,
            (Some(mine), Some(offered)) => mine <= offered,
        };
        starts_inside
            && ends_inside
            && !self.is_empty(now)
            && self.follows(capability, now)
    }

    /// Returns whether the scope ends before it starts, so that it lies nowhere.
    fn is_empty(&self, now: Timestamp) -> bool {
        let Bounds { start, end } = self.bounds(now);
        start.zip(end).is_some_and(|(start, end)| end < start)
    }

    /// Returns the shortest period that a capability allows, if that is what keeps this
    /// scope from following it: its samples are closer, or it does not say how close.
    pub fn missed_period(&self, capability: &Self) -> Option<Duration> {
        capability.period().filter(|_| !self.keeps_period_of(capability))
    }

    /// Returns whether the samples are at least a capability's period apart.
    fn keeps_period_of(&self, capability: &Self) -> bool {
        match capability.period() {
            None => true,
            Some(shortest) => self.sample_period().is_some_and(|mine| mine >= shortest),
        }
    }

    /// Returns the bounds with the last measurement of a repeat included.
    fn reach(&self, now: Timestamp) -> Bounds {
        let Bounds { start, end } = self.bounds(now);
        let tail = self.inner().map_or(Duration::ZERO, |inner| inner.duration);
        Bounds { start, end: end.map(|end| instant::after(end, tail)) }
    }
}

/// # Text
impl When {
    /// Returns the text that goes into schema hashes and tokens.
    ///
    /// It is the canonical text as the reference writes it: a crontab's `*` is written out
    /// (hours as 0 to 59), and an inner scope ends in a blank after its brace.
    pub fn hash_text(&self) -> String {
        fmt::from_fn(|f| self.write(f, Spelling::Hash)).to_string()
    }

    /// Writes the canonical text in one of its spellings.
    fn write(&self, f: &mut fmt::Formatter<'_>, spelling: Spelling) -> fmt::Result {
        if self.is_repeated() {
            f.write_str("repeat ")?;
        }
        write!(f, "{}", self.start)?;
        match self.extent {
            Extent::Instant => {}
            Extent::Until(end) => write!(f, " ... {end}")?,
            Extent::For(duration) => write!(f, " + {}", display_duration(duration))?,
        }
        if let Some(period) = self.period() {
            write!(f, " / {}", display_duration(period))?;
        }
        if let Rhythm::Cron { crontab, .. } = &self.rhythm {
            f.write_str(" cron ")?;
            crontab.write(f, spelling)?;
        }
        let Some(inner) = self.inner() else { return Ok(()) };
        write!(f, " {{ now + {}", display_duration(inner.duration))?;
        if let Some(period) = inner.period {
            write!(f, " / {}", display_duration(period))?;
        }
        f.write_str(match spelling {
            Spelling::Display => " }",
            Spelling::Hash => " } ",
        })
    }
}

impl fmt::Display for When {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write(f, Spelling::Display)
    }
}

/// Which of the two canonical texts to write.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Spelling {
    /// For people and peers.
    Display,
    /// For schema hashes and tokens.
    Hash,
}
