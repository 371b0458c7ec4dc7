//! Messages as text for people: a summary, the sections, and results as a table.

use std::fmt::Write as _;

use super::{Message, Notification, Statement, Table};
use crate::primitive::NO_VALUE;

impl Message {
    /// Returns a text of several lines that shows all of the message, columns aligned.
    pub fn render(&self) -> String {
        let mut text = String::new();
        self.render_to(&mut text, 0);
        text
    }

    /// Writes the text, indented.
    fn render_to(&self, text: &mut String, depth: usize) {
        let token = self.token().map(|token| token.to_string());
        let mut head = vec![("token", token), ("label", self.label().map(Into::into))];
        let title = |verb: &str| format!("{}: {verb}", self.kind());
        match self {
            Self::Capability(capability) => {
                statement(text, depth, &title(capability.verb()), head, capability);
            }
            Self::Specification(specification) => {
                let title = title(specification.verb());
                statement(text, depth, &title, head, specification);
            }
            Self::Indirection(indirection) => {
                statement(text, depth, &title(indirection.verb()), head, indirection);
            }
            Self::Result(result) => {
                statement(text, depth, &title(result.verb()), head, result);
                rows(text, depth + 1, result.table());
            }
            Self::Receipt(receipt) => {
                notification(text, depth, &title(receipt.verb()), head, receipt);
            }
            Self::Redemption(redemption) => {
                notification(text, depth, &title(redemption.verb()), head, redemption);
            }
            Self::Withdrawal(withdrawal) => {
                notification(text, depth, &title(withdrawal.verb()), head, withdrawal);
            }
            Self::Interrupt(interrupt) => {
                notification(text, depth, &title(interrupt.verb()), head, interrupt);
            }
            Self::Exception(exception) => {
                head.push(("message", Some(exception.message().to_owned())));
                line(text, depth, "exception");
                pairs(text, depth + 1, head);
            }
            Self::Envelope(envelope) => {
                head.push(("when", envelope.when().map(ToString::to_string)));
                let count = envelope.messages().len();
                line(text, depth, &format!("{} ({count})", title(envelope.content())));
                pairs(text, depth + 1, head);
                for message in envelope.messages() {
                    message.render_to(text, depth + 1);
                }
            }
        }
    }
}

/// A name and, if there is one, a value.
type Pair<'a> = (&'a str, Option<String>);

/// Writes a notification.
fn notification(
    text: &mut String,
    depth: usize,
    title: &str,
    head: Vec<Pair<'_>>,
    notification: &Notification,
) {
    if let Some(about) = notification.statement() {
        statement(text, depth, title, head, about);
    } else {
        line(text, depth, title);
        pairs(text, depth + 1, head);
    }
}

/// Writes what statements have in common.
fn statement(
    text: &mut String,
    depth: usize,
    title: &str,
    mut head: Vec<Pair<'_>>,
    statement: &Statement,
) {
    line(text, depth, title);
    head.push(("schema", Some(statement.schema().to_string())));
    head.push(("when", Some(statement.when().to_string())));
    head.push(("registry", Some(statement.registry().to_owned())));
    head.push(("link", statement.link().map(ToOwned::to_owned)));
    head.push(("export", statement.export().map(ToOwned::to_owned)));
    pairs(text, depth + 1, head);
    let parameters: Vec<_> = statement
        .parameters()
        .map(|parameter| {
            let value = parameter.value().map(ToString::to_string);
            let text = value.unwrap_or_else(|| parameter.constraint().to_string());
            (parameter.element().name(), Some(text))
        })
        .collect();
    section(text, depth + 1, "parameters", parameters);
    let metadata: Vec<_> = statement
        .metadata()
        .map(|(element, value)| {
            let value = value.map_or_else(|| NO_VALUE.to_owned(), ToString::to_string);
            (element.name(), Some(value))
        })
        .collect();
    section(text, depth + 1, "metadata", metadata);
    let results: Vec<_> = statement
        .columns()
        .map(|element| (element.name(), Some(element.primitive().to_string())))
        .collect();
    section(text, depth + 1, "results", results);
}

/// Writes a section with its name, if it has entries.
fn section(text: &mut String, depth: usize, name: &str, entries: Vec<Pair<'_>>) {
    if !entries.is_empty() {
        line(text, depth, name);
        pairs(text, depth + 1, entries);
    }
}

/// Writes names and values in two columns.
fn pairs(text: &mut String, depth: usize, pairs: Vec<Pair<'_>>) {
    let width = pairs.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0);
    for (name, value) in pairs {
        if let Some(value) = value {
            line(text, depth, &format!("{name:width$}  {}", on_one_line(&value)));
        }
    }
}

/// Writes the rows of a result, columns aligned, numbers to the right.
fn rows(text: &mut String, depth: usize, table: &Table) {
    let columns: Vec<_> = table
        .columns()
        .iter()
        .map(|column| {
            let cell = |row| {
                column.value(row).map_or_else(
                    || NO_VALUE.to_owned(),
                    |value| on_one_line(&value.to_string()),
                )
            };
            let mut cells = vec![column.element().name().to_owned()];
            cells.extend((0..table.rows()).map(cell));
            let width = cells.iter().map(|cell| cell.chars().count()).max().unwrap_or(0);
            let number = column.element().primitive().is_number();
            (cells, width, number)
        })
        .collect();
    if table.rows() == 0 || columns.is_empty() {
        line(text, depth, "no rows");
        return;
    }
    for row in 0..=table.rows() {
        let mut joined = String::new();
        for (cells, width, number) in &columns {
            let cell = cells.get(row).map_or("", String::as_str);
            let written = if *number {
                write!(joined, "{cell:>width$}  ")
            } else {
                write!(joined, "{cell:width$}  ")
            };
            written.expect("writing to memory does not fail");
        }
        line(text, depth, joined.trim_end());
    }
}

/// Writes one line.
fn line(text: &mut String, depth: usize, line: &str) {
    text.push_str(&"  ".repeat(depth));
    text.push_str(line);
    text.push('\n');
}

/// Escapes what would end a line or move the cursor of a terminal.
fn on_one_line(text: &str) -> String {
    if text.contains(char::is_control) {
        text.escape_debug().to_string()
    } else {
        text.to_owned()
    }
}
