//! Envelopes: messages that travel together.

use std::fmt::{self, Display};

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
