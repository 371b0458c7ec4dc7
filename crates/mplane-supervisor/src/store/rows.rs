//! Rows of the control database as values of the domain.

use jiff::Timestamp;
use mplane::token::Token;
use mplane_runtime::stored::time;
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::Id;
use crate::life::{Asked, End, Life, State};

/// A specification that was found by the token of its component.
#[derive(Clone, Debug)]
pub(super) struct Found {
    pub(super) id: Id,
    pub(super) life: Life,
    pub(super) token: Token,
    pub(super) label: Option<String>,
    pub(super) handed: Option<String>,
}

/// What was handed to a component and not answered by it.
pub(super) const UNANSWERED: &str = "settled_us IS NULL
     AND (lease_us IS NOT NULL OR interrupt = 'sent' OR progress = 'sent')";

/// The columns that [`read_life`] reads, in its order.
pub(super) const LIFE: &str =
    "state, epoch, interrupt, lease_us, progress, result_bytes > 0";

/// Reads how far a specification is, from these columns on.
pub(super) fn read_life(row: &Row<'_>, first: usize) -> rusqlite::Result<Life> {
    let (state, interrupt): (String, String) = (row.get(first)?, row.get(first + 2)?);
    let lease: Option<i64> = row.get(first + 3)?;
    let unknown = |column: usize, word: &str| {
        let error = format!("{word} is no state").into();
        rusqlite::Error::FromSqlConversionFailure(
            column,
            rusqlite::types::Type::Text,
            error,
        )
    };
    let state = match state.as_str() {
        "queued" => State::Queued,
        "handed" => State::Handed { lease: lease.map(time) },
        "promised" => State::Receipted,
        other => match End::ALL.into_iter().find(|end| end.word() == other) {
            Some(end) => State::Settled(end),
            None => return Err(unknown(first, other)),
        },
    };
    let asked = |column: usize, word: &str| match word {
        "unasked" => Ok(Asked::Unasked),
        "queued" => Ok(Asked::Queued),
        "sent" => Ok(Asked::Sent),
        other => Err(unknown(column, other)),
    };
    let (epoch, progress): (i64, String) = (row.get(first + 1)?, row.get(first + 4)?);
    Ok(Life {
        state,
        epoch: u32::try_from(epoch).unwrap_or(u32::MAX),
        interrupt: asked(first + 2, &interrupt)?,
        progress: asked(first + 4, &progress)?,
        has_results: row.get(first + 5)?,
    })
}

/// Reads how far a specification is; `None` if there is none.
pub(super) fn life_of(connection: &Connection, id: Id) -> rusqlite::Result<Option<Life>> {
    connection
        .prepare_cached(&format!("SELECT {LIFE} FROM specification WHERE id = ?1"))?
        .query_row(params![id.number()], |row| read_life(row, 0))
        .optional()
}

/// Writes how far a specification is.
pub(super) fn write_life(
    connection: &Connection,
    id: Id,
    life: Life,
    now: Timestamp,
) -> rusqlite::Result<()> {
    let (lease, settled) = match life.state {
        State::Handed { lease } => (lease.map(Timestamp::as_microsecond), None),
        State::Settled(_) => (None, Some(now.as_microsecond())),
        State::Queued | State::Receipted => (None, None),
    };
    connection
        .prepare_cached(
            "UPDATE specification SET state = ?2, epoch = ?3, interrupt = ?4, lease_us = ?5,
             settled_us = ?6, progress = ?7 WHERE id = ?1",
        )?
        .execute(params![
            id.number(),
            life.state.word(),
            life.epoch,
            // Nothing is to be told any more to who has answered.
            if settled.is_some() { Asked::Sent.word() } else { life.interrupt.word() },
            lease,
            settled,
            if settled.is_some() { Asked::Sent.word() } else { life.progress.word() },
        ])
        .map(drop)
}

/// Finds the specification that was handed to a component with a token.
pub(super) fn find(
    connection: &Connection,
    component: &str,
    token: &Token,
) -> rusqlite::Result<Option<Found>> {
    connection
        .prepare_cached(&format!(
            "SELECT id, token, label, {LIFE}, handed FROM specification
             WHERE component = ?1 AND handed_token = ?2"
        ))?
        .query_row(params![component, token.as_str()], |row| {
            let token: String = row.get(1)?;
            Ok(Found {
                id: Id::of(row.get(0)?),
                token: read_token(&token, 1)?,
                label: row.get(2)?,
                life: read_life(row, 3)?,
                handed: row.get(9)?,
            })
        })
        .optional()
}

/// Reads a token.
pub(super) fn read_token(text: &str, column: usize) -> rusqlite::Result<Token> {
    text.parse().map_err(|error: mplane::token::ParseTokenError| {
        let kind = rusqlite::types::Type::Text;
        rusqlite::Error::FromSqlConversionFailure(column, kind, Box::new(error))
    })
}

/// Writes down what happens to a specification.
pub(super) fn note(
    connection: &Connection,
    id: Id,
    now: Timestamp,
    what: &str,
    detail: Option<&str>,
) -> rusqlite::Result<()> {
    connection
        .prepare_cached(
            "INSERT INTO step (specification, number, at_us, what, detail)
             VALUES (?1, (SELECT coalesce(max(number), 0) + 1 FROM step
                          WHERE specification = ?1), ?2, ?3, ?4)",
        )?
        .execute(params![id.number(), now.as_microsecond(), what, detail])
        .map(drop)
}

impl State {
    /// Returns how it is written.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Handed { .. } => "handed",
            Self::Receipted => "promised",
            Self::Settled(end) => end.word(),
        }
    }
}

impl End {
    /// All of them.
    pub const ALL: [Self; 4] =
        [Self::Result, Self::Exception, Self::Interrupted, Self::Lost];

    /// Returns how it is written.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Result => "result",
            Self::Exception => "exception",
            Self::Interrupted => "interrupted",
            Self::Lost => "lost",
        }
    }
}

impl Asked {
    /// Returns how it is written.
    const fn word(self) -> &'static str {
        match self {
            Self::Unasked => "unasked",
            Self::Queued => "queued",
            Self::Sent => "sent",
        }
    }
}
