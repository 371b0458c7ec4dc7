//! `mplane when`: explains temporal scopes.

use std::io;
use std::time::Duration;

use clap::Args;
use jiff::Timestamp;
use mplane::when::{Instant, When, display_duration, display_timestamp};
use serde_json::{Value, json};

use super::{Format, ReadInputError};
use crate::output::Output;
use crate::{Failure, Told};

/// Occurrences shown at most: more is a schedule, not an answer.
const OCCURRENCES: u64 = 100_000;

/// The arguments of `mplane when`.
#[derive(Args, Clone, Debug)]
pub struct WhenArgs {
    /// Temporal scopes such as "now + 30s / 1s"; - reads one from each line of standard
    /// input
    #[arg(required = true, value_name = "SCOPE")]
    scopes: Vec<String>,
    /// The time that now stands for, UTC, such as "2026-06-01 12:00:00"
    #[arg(long, value_name = "TIME", value_parser = time)]
    at: Option<Timestamp>,
    /// How many of the next occurrences of a repeated scope to show
    #[arg(short, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u64).range(0..=OCCURRENCES))]
    n: u64,
    /// How to print
    #[arg(short, long, value_name = "FORMAT", default_value = "text")]
    output: Format,
}

/// Reads a time.
fn time(text: &str) -> Result<Timestamp, String> {
    match text.parse() {
        Ok(Instant::At(timestamp)) => Ok(timestamp),
        Ok(_) => Err("expected a time such as 2026-06-01 12:00:00".into()),
        Err(error) => Err(error.to_string()),
    }
}

impl WhenArgs {
    /// Explains every scope. Fails if any is refused.
    pub fn run(self, output: &mut Output) -> Result<(), Failure> {
        let now = self.at.unwrap_or_else(Timestamp::now);
        let mut refused = 0;
        for scope in &self.scopes {
            if scope == "-" {
                for line in io::stdin().lines() {
                    let line = line.map_err(ReadInputError)?;
                    refused += u64::from(!self.explain(&line, now, output));
                }
            } else {
                refused += u64::from(!self.explain(scope, now, output));
            }
        }
        if refused == 0 {
            Ok(())
        } else {
            Err(Told(format!("{refused} of the scopes cannot be understood")).into())
        }
    }

    /// Explains one scope; says whether it was understood.
    fn explain(&self, input: &str, now: Timestamp, output: &mut Output) -> bool {
        let when: Result<When, _> = input.parse();
        match (&when, self.output) {
            (Ok(when), Format::Json) => output.line(self.as_json(input, when, now)),
            (Ok(when), Format::Text) => self.as_text(when, now, output),
            (Err(error), Format::Json) => {
                let error = json!({"at": error.at(), "message": error.to_string()});
                output.line(json!({"input": input, "error": error}));
            }
            (Err(error), Format::Text) => output.note(format_args!("{input:?}: {error}")),
        }
        when.is_ok()
    }

    /// Returns the next occurrences of a repeated scope; none of a simple one.
    fn next<'a>(
        &self,
        when: &'a When,
        now: Timestamp,
    ) -> impl Iterator<Item = When> + 'a {
        let count = usize::try_from(self.n).unwrap_or(usize::MAX);
        when.occurrences(now).into_iter().flatten().take(count)
    }

    /// Explains a scope as a JSON object.
    fn as_json(&self, input: &str, when: &When, now: Timestamp) -> Value {
        let bounds = when.bounds(now);
        let time =
            |time: Option<Timestamp>| time.map(|t| display_timestamp(t).to_string());
        let next: Vec<_> = self.next(when, now).map(|next| next.to_string()).collect();
        json!({
            "input": input,
            "canonical": when.to_string(),
            "start": time(bounds.start),
            "end": time(bounds.end),
            "duration_s": when.duration(now).map(seconds),
            "period_s": when.period().map(seconds),
            "next": next,
        })
    }

    /// Explains a scope in lines.
    fn as_text(&self, when: &When, now: Timestamp, output: &mut Output) {
        let bounds = when.bounds(now);
        let time = |time: Option<Timestamp>, open: &str| {
            time.map_or_else(|| open.to_owned(), |t| display_timestamp(t).to_string())
        };
        let duration = |duration: Option<Duration>, none: &str| {
            duration.map_or_else(|| none.to_owned(), |d| display_duration(d).to_string())
        };
        output.line(format_args!(
            "{when}\n  start    : {}\n  end      : {}\n  duration : {}\n  period   : {}",
            time(bounds.start, "past"),
            time(bounds.end, "future"),
            duration(when.duration(now), "open"),
            duration(when.period(), "none"),
        ));
        for next in self.next(when, now) {
            output.line(format_args!("  next     : {next}"));
        }
    }
}

/// Returns seconds as JSON: an integer where there is no fraction.
fn seconds(duration: Duration) -> Value {
    if duration.subsec_nanos() == 0 {
        duration.as_secs().into()
    } else {
        duration.as_secs_f64().into()
    }
}
