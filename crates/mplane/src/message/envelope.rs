//! Envelopes: messages that travel together.

use std::fmt::{self, Display};

use jiff::Timestamp;

use super::Message;
use crate::token::Token;
use crate::when::When;

/// A list of messages.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct Envelope {
    content: Option<String>,
    token: Option<Token>,
    label: Option<String>,
    when: Option<When>,
    messages: Vec<Message>,
}

impl Envelope {
    /// Makes an envelope of messages of any kind.
    pub const fn of(messages: Vec<Message>) -> Self {
        Self { content: None, token: None, label: None, when: None, messages }
    }

    /// Says what kind of messages it contains; the default is `message`.
    #[must_use]
    pub fn with_content(mut self, content: impl Into<String>) -> Self {
        self.content = Some(content.into());
        self
    }

    /// Returns what kind of messages it says it contains.
    pub fn content(&self) -> &str {
        self.content.as_deref().unwrap_or("message")
    }

    /// Returns the token, if it is about one statement.
    pub const fn token(&self) -> Option<&Token> {
        self.token.as_ref()
    }

    /// Sets the token.
    pub fn set_token(&mut self, token: Option<Token>) {
        self.token = token;
    }

    /// Returns the label.
    pub fn label(&self) -> Option<&str> {
        self.label.as_deref()
    }

    /// Sets the label.
    pub fn set_label(&mut self, label: Option<String>) {
        self.label = label;
    }

    /// Returns the temporal scope, if it holds the results of a repeated measurement.
    pub const fn when(&self) -> Option<&When> {
        self.when.as_ref()
    }

    /// Sets the temporal scope.
    pub fn set_when(&mut self, when: Option<When>) {
        self.when = when;
    }

    /// Returns the messages.
    pub fn messages(&self) -> &[Message] {
        &self.messages
    }

    /// Returns the messages.
    pub fn into_messages(self) -> Vec<Message> {
        self.messages
    }

    /// Changes each message.
    #[must_use]
    pub fn map(mut self, change: impl FnMut(Message) -> Message) -> Self {
        self.messages = self.messages.into_iter().map(change).collect();
        self
    }

    /// Returns the number of messages.
    pub const fn len(&self) -> usize {
        self.messages.len()
    }

    /// Says whether there are no messages.
    pub const fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    /// Keeps the last messages only, at most `count`.
    pub fn keep_last(&mut self, count: usize) {
        self.messages.drain(..self.messages.len().saturating_sub(count));
    }

    /// Says whether these are all results of a repeat, and not those so far. Who does not say
    /// how far they are has all, as references do.
    pub fn are_all_of(&self, repeat: &When, now: Timestamp) -> bool {
        self.say_all_of(repeat, now).unwrap_or(true)
    }

    /// Returns whether these say that they are all results of a repeat: their scope reaches its
    /// end or, of one without end, beyond the start of the latest. Results so far reach to that
    /// start. `None` if they do not say how far they are.
    pub fn say_all_of(&self, repeat: &When, now: Timestamp) -> Option<bool> {
        let bounds = self.when()?.bounds(now);
        let (start, end) = (bounds.start?, bounds.end?);
        let reaches_the_end = repeat.bounds(start).end.is_some_and(|last| end >= last);
        let starts = self.messages.iter().filter_map(|message| match message {
            Message::Result(result) => result.when().bounds(now).start,
            _ => None,
        });
        Some(reaches_the_end || end > starts.max().unwrap_or(start))
    }

    /// Says whether there is an exception among the messages.
    pub fn has_exception(&self) -> bool {
        self.messages.iter().any(|message| matches!(message, Message::Exception(_)))
    }

    /// Adds a message.
    pub fn push(&mut self, message: impl Into<Message>) {
        self.messages.push(message.into());
    }
}

impl Display for Envelope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<envelope: {} ({})", self.content(), self.messages.len())?;
        if let Some(token) = &self.token {
            write!(f, " token {}", token.short())?;
        }
        f.write_str(": ")?;
        for (index, message) in self.messages.iter().enumerate() {
            if index > 0 {
                f.write_str(" ")?;
            }
            message.fmt(f)?;
        }
        f.write_str(">")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::{Capability, ResultStatement, Specification, Statement, Table};

    fn time(minutes: i64) -> Timestamp {
        Timestamp::from_second(minutes * 60).unwrap()
    }

    fn results(starts: &[i64], from: i64, until: i64) -> Envelope {
        let scope = "now ... future".parse().unwrap();
        let specification =
            Specification::of(&Capability::new(Statement::measure(scope)));
        let result = |start: &i64| {
            let when = When::between(time(*start), time(*start + 1));
            let table = Table::new(specification.columns());
            ResultStatement::of(&specification, when, table).into()
        };
        let mut envelope = Envelope::of(starts.iter().map(result).collect());
        envelope.set_when(Some(When::between(time(from), time(until))));
        envelope
    }

    #[test]
    fn results_are_all_where_their_scope_reaches_the_end() {
        for (repeat, starts, from, until, expected) in [
            ("repeat now + 1h / 10m", &[0, 10][..], 0, 10, false),
            ("repeat now + 1h / 10m", &[0, 10], 0, 60, true),
            ("repeat now + 1h / 10m", &[0, 60], 0, 60, true),
            // Interrupted, and so far.
            ("repeat now ... future / 10m", &[0, 10], 0, 10, false),
            ("repeat now ... future / 10m", &[0, 10], 0, 12, true),
            ("repeat now ... future / 10m", &[], 0, 0, false),
            // It began late.
            ("repeat 1970-01-01 00:00 ... 1970-01-01 01:00 / 10m", &[10], 5, 10, false),
            ("repeat 1970-01-01 00:00 ... 1970-01-01 01:00 / 10m", &[10], 5, 60, true),
        ] {
            let repeat: When = repeat.parse().unwrap();
            let are_all = results(starts, from, until).are_all_of(&repeat, time(1_000));
            assert_eq!(are_all, expected, "{repeat}: {starts:?} until {until}");
        }
        let repeat: When = "repeat now + 1h / 10m".parse().unwrap();
        let unsaid = Envelope::of(Vec::new());
        assert!(unsaid.are_all_of(&repeat, time(0)), "nobody says how far");
    }
}
