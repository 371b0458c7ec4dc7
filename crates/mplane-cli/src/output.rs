//! The one place that prints.
//!
//! What a program was asked for goes to standard output, what it says about its work to
//! standard error. A reader that goes away (`| head`) is no failure: the rest is not
//! printed, and the program still ends as it should.

use std::fmt::Display;
use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

use comfy_table::{ContentArrangement, Table};

/// How often progress is shown where a terminal overwrites it.
const REFRESH: Duration = Duration::from_millis(100);

/// How often progress is shown where each time is a line.
const LINE: Duration = Duration::from_secs(1);

/// Standard output and standard error.
#[derive(Debug)]
pub struct Output {
    is_terminal: bool,
    /// When progress was last shown.
    progress: Option<Instant>,
    /// Whether a line of progress stands on the terminal.
    is_dirty: bool,
}

impl Default for Output {
    fn default() -> Self {
        Self { is_terminal: io::stderr().is_terminal(), progress: None, is_dirty: false }
    }
}

impl Output {
    /// Prints a line of what was asked for.
    pub fn line(&mut self, text: impl Display) {
        self.clear();
        // Nobody reads any more, or the disk is full: there is nowhere to say so.
        if writeln!(io::stdout(), "{text}").is_err() {
            tracing::debug!("standard output is closed");
        }
    }

    /// Prints a line about the work.
    pub fn note(&mut self, text: impl Display) {
        self.clear();
        if writeln!(io::stderr(), "{text}").is_err() {
            tracing::debug!("standard error is closed");
        }
    }

    /// Asks for a command.
    pub fn prompt(&mut self, text: impl Display) {
        self.clear();
        let mut stdout = io::stdout();
        if write!(stdout, "{text}").and_then(|()| stdout.flush()).is_err() {
            tracing::debug!("standard output is closed");
        }
    }

    /// Shows how far the work is: in place on a terminal, else as a line each second.
    pub fn progress(&mut self, text: impl Display) {
        let pause = if self.is_terminal { REFRESH } else { LINE };
        if self.progress.is_some_and(|last| last.elapsed() < pause) {
            return;
        }
        self.progress = Some(Instant::now());
        if self.is_terminal {
            let mut stderr = io::stderr();
            // Return, text, and erase to the end of the line (ECMA-48 EL).
            if write!(stderr, "\r{text}\u{1b}[K").and_then(|()| stderr.flush()).is_ok() {
                self.is_dirty = true;
            }
        } else {
            self.note(text);
        }
    }

    /// Removes the line of progress.
    fn clear(&mut self) {
        if std::mem::take(&mut self.is_dirty) {
            let mut stderr = io::stderr();
            if write!(stderr, "\r\u{1b}[K").and_then(|()| stderr.flush()).is_err() {
                tracing::debug!("standard error is closed");
            }
        }
    }
}

/// Counts things in words that fit.
pub fn counted(count: usize, one: &str, several: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { several })
}

/// Lays rows out in columns, without blanks at the ends of lines.
pub fn table<R>(header: &[&str], rows: impl IntoIterator<Item = R>) -> String
where
    R: IntoIterator<Item = String>,
{
    let mut table = Table::new();
    table
        .load_style(comfy_table::presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Disabled)
        .set_header(header.to_vec());
    for row in rows {
        table.add_row(row.into_iter().collect::<Vec<_>>());
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    let text = table.to_string();
    let lines: Vec<_> = text.lines().map(str::trim_end).collect();
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_aligned_and_end_without_blanks() {
        let rows = [["a".to_owned(), String::new()], ["longer".into(), "b".into()]];
        assert_eq!(table(&["one", "two"], rows), "one     two\na\nlonger  b");
    }
}
