//! The spool: what a component has accepted and not yet got rid of, on disk.
//!
//! An accepted specification is written before its receipt is sent, the start of its
//! service before it runs, its result before it is delivered; rows of what runs are
//! written every [`FLUSH_INTERVAL`], or [`FLUSH_ROWS`] at a time. After a restart the
//! component goes on with what is here; what ran is not run again, it ends with the rows
//! that it had.
//!
//! Results that are given up go to a list of dead letters with the reason.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use mplane::access::{CapabilityName, Identity};
use mplane::exchange::component::{JobId, Record, Saved};
use mplane::json::{self, decode};
use mplane::message::{Message, Specification, Table};
use mplane::registry::Registries;
use rusqlite::{Connection, OpenFlags, OptionalExtension, params};
use serde_json::Value;

use crate::sqlite::{Database, OpenDatabaseError, Opened, WriteError, Written};
use crate::stored::{identity_text, message_text, read_identity, time};

/// How long rows wait at most until they are written.
pub const FLUSH_INTERVAL: Duration = Duration::from_millis(100);

/// How many rows wait at most until they are written.
pub const FLUSH_ROWS: usize = 1_000;

/// Dead letters kept, the oldest go first: they are for people to read.
const DEAD_LETTERS: i64 = 1_000;

/// The part of a spool that dead letters may take, the oldest go first.
const DEAD_PART: u64 = 10;

/// The part of its size by which a spool may be larger, for what was accepted.
const SPARE_PART: u64 = 4;

/// The least size of a spool: the largest message with some to spare.
pub const LEAST_BYTES: u64 = 128 << 20;

/// The size of a spool where none is set: a month of one result of ten kilobytes every 25
/// seconds.
pub const DEFAULT_BYTES: u64 = 1 << 30;

/// The schema, as steps from an empty file.
const MIGRATIONS: [&str; 2] = [include_str!("0001.sql"), include_str!("0002.sql")];

/// An open spool.
#[derive(Debug)]
pub struct Spool {
    database: Database,
    max_bytes: u64,
}

/// How full a spool is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fill {
    /// There is room.
    Low,
    /// There is room, if there was.
    Middle,
    /// There is room for what was accepted only.
    High,
    /// There is more than there may be.
    Over,
}

impl Spool {
    /// Opens a spool of a size in bytes, which is made if it is not there, and reads what
    /// is in it.
    pub fn open(
        path: &Path,
        max_bytes: u64,
        registries: &Registries,
    ) -> Result<(Self, Vec<Saved>), OpenSpoolError> {
        let opened: Opened = Database::open(path, &MIGRATIONS)?;
        let saved = load(&opened.connection, registries)?;
        opened.limit(max_bytes.saturating_add(max_bytes / SPARE_PART))?;
        Ok((Self { database: opened.start()?, max_bytes }, saved))
    }

    /// Returns how many bytes are used.
    pub fn used_bytes(&self) -> u64 {
        self.database.used_bytes()
    }

    /// Says how full it is.
    pub(crate) fn fill(&self) -> Fill {
        let percent = self.used_bytes().saturating_mul(100) / self.max_bytes.max(1);
        match percent {
            0..75 => Fill::Low,
            75..90 => Fill::Middle,
            90..100 => Fill::High,
            _ => Fill::Over,
        }
    }

    /// Writes records, all or none. Calls are carried out in their order. `posted` are those to whom results are posted.
    pub fn write(
        &self,
        records: Vec<Record>,
        posted: Arc<BTreeSet<Identity>>,
    ) -> Written {
        let dead_bytes = self.dead_bytes();
        self.database.write(move |connection| {
            records.into_iter().try_for_each(|record| {
                write_record(connection, record, &posted, dead_bytes)
            })
        })
    }

    /// Returns how many bytes dead letters may take.
    const fn dead_bytes(&self) -> u64 {
        self.max_bytes / DEAD_PART
    }

    /// Writes rows `first..` of a running job.
    pub async fn append_rows(
        &self,
        job: JobId,
        first: usize,
        json: Vec<u8>,
    ) -> Result<(), WriteError> {
        let first = i64::try_from(first).unwrap_or(i64::MAX);
        self.database
            .write(move |connection| {
                connection
                    .prepare_cached(
                        "INSERT INTO row_chunk (job, first_row, json) VALUES (?1, ?2, ?3)",
                    )?
                    .execute(params![number(job), first, json])
                    .map(drop)
            })
            .durable()
            .await
    }

    /// Gives a message up that its receiver refuses for good.
    pub async fn bury(
        &self,
        owner: Identity,
        message: Message,
        reason: String,
    ) -> Result<(), WriteError> {
        let dead_bytes = self.dead_bytes();
        self.database
            .write(move |connection| {
                let (owner, message) = (identity_text(&owner), message_text(&message));
                bury(connection, &owner, &message, &reason, dead_bytes)
            })
            .durable()
            .await
    }
}

/// A message that could not be delivered.
#[derive(Clone, Debug)]
pub struct DeadLetter {
    /// When it was given up, UTC.
    pub buried: Timestamp,
    /// Who should have got it.
    pub owner: Identity,
    /// The message, as JSON.
    pub message: String,
    /// Why it was given up.
    pub reason: String,
}

/// What a spool holds, for people to read.
#[derive(Debug)]
pub struct Content {
    /// Jobs, the oldest first.
    pub jobs: Vec<Saved>,
    /// Dead letters, the latest first.
    pub dead_letters: Vec<DeadLetter>,
}

/// Reads what a spool holds, also while a component uses it.
pub fn inspect(path: &Path, registries: &Registries) -> Result<Content, OpenSpoolError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    let version =
        connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    if version != i64::try_from(MIGRATIONS.len()).unwrap_or(i64::MAX) {
        return Err(OpenSpoolError::Version { path: path.to_owned(), version });
    }
    let jobs = load(&connection, registries)?;
    Ok(Content { jobs, dead_letters: dead_letters(&connection)? })
}

/// Reads the dead letters of a spool, the latest first.
fn dead_letters(connection: &Connection) -> rusqlite::Result<Vec<DeadLetter>> {
    let mut statement = connection.prepare(
        "SELECT buried_us, owner, message, reason FROM dead_letter ORDER BY id DESC",
    )?;
    let letters = statement.query_map([], |row| {
        let owner: String = row.get(1)?;
        Ok(DeadLetter {
            buried: time(row.get(0)?),
            owner: read_identity(&owner).unwrap_or_else(Identity::unauthenticated),
            message: row.get(2)?,
            reason: row.get(3)?,
        })
    })?;
    letters.collect()
}

/// Writes one record.
fn write_record(
    connection: &Connection,
    record: Record,
    posted: &BTreeSet<Identity>,
    dead_bytes: u64,
) -> rusqlite::Result<()> {
    match record {
        Record::Accepted {
            job,
            parent,
            owner,
            specification,
            capability,
            accepted,
        } => connection
            .prepare_cached(
                "INSERT INTO job (id, parent, owner, specification, accepted_us, is_posted,
                 capability_label, capability_token) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
            )?
            .execute(params![
                number(job),
                parent.map(number),
                identity_text(&owner),
                message_text(&Message::from(*specification)),
                accepted.as_microsecond(),
                parent.is_none() && posted.contains(&owner),
                capability.as_ref().and_then(CapabilityName::label),
                capability.as_ref().map(|name| name.token().as_str()),
            ]),
        Record::Started { job, started } => connection
            .prepare_cached("UPDATE job SET started_us = ?2 WHERE id = ?1")?
            .execute(params![number(job), started.as_microsecond()]),
        Record::Finished { job, message, finished } => {
            connection
                .prepare_cached("DELETE FROM row_chunk WHERE job = ?1")?
                .execute(params![number(job)])?;
            connection
                .prepare_cached(
                    "UPDATE job SET message = ?2, finished_us = ?3 WHERE id = ?1",
                )?
                .execute(params![number(job), message_text(&message), finished.as_microsecond()])
        }
        Record::Delivered { job } => connection
            .prepare_cached("UPDATE job SET is_delivered = 1 WHERE id = ?1")?
            .execute(params![number(job)]),
        Record::Forgotten { job, reason } => {
            let undelivered: Option<(String, String)> = connection
                .prepare_cached(
                    "SELECT owner, message FROM job WHERE id = ?1 AND is_posted = 1
                     AND is_delivered = 0 AND message IS NOT NULL",
                )?
                .query_row(params![number(job)], |row| Ok((row.get(0)?, row.get(1)?)))
                .optional()?;
            if let Some((owner, message)) = undelivered {
                bury(connection, &owner, &message, reason, dead_bytes)?;
            }
            connection
                .prepare_cached("DELETE FROM job WHERE id = ?1")?
                .execute(params![number(job)])
        }
    }
    .map(drop)
}

/// Writes a dead letter, and removes the oldest ones beyond the limits. One that is
/// itself beyond them is written without its rows.
fn bury(
    connection: &Connection,
    owner: &str,
    message: &str,
    reason: &str,
    dead_bytes: u64,
) -> rusqlite::Result<()> {
    let bytes = |text: &str| u64::try_from(text.len()).unwrap_or(u64::MAX);
    let message: Cow<'_, str> = if bytes(message) > dead_bytes / DEAD_PART {
        without_rows(message).into()
    } else {
        message.into()
    };
    connection.execute(
        "INSERT INTO dead_letter (buried_us, owner, message, reason)
         VALUES (?1, ?2, ?3, ?4)",
        params![Timestamp::now().as_microsecond(), owner, message, reason],
    )?;
    connection.execute(
        "DELETE FROM dead_letter WHERE id <= (SELECT max(id) FROM dead_letter) - ?1",
        params![DEAD_LETTERS],
    )?;
    let mut sizes = connection.prepare_cached(
        "SELECT id, octet_length(message) FROM dead_letter ORDER BY id DESC",
    )?;
    let mut sizes = sizes.query([])?;
    let mut sum = 0;
    while let Some(row) = sizes.next()? {
        sum += row.get::<_, i64>(1)?.unsigned_abs();
        if sum > dead_bytes {
            let oldest: i64 = row.get(0)?;
            connection
                .execute("DELETE FROM dead_letter WHERE id <= ?1", params![oldest])?;
            break;
        }
    }
    Ok(())
}

/// Returns a message without what was measured: who wanted what, when and from where.
fn without_rows(message: &str) -> String {
    let Ok(Value::Object(mut sections)) = serde_json::from_str(message) else {
        return String::new();
    };
    for rows in ["resultvalues", "contents"] {
        if let Some(Value::Array(rows)) = sections.get_mut(rows) {
            rows.clear();
        }
    }
    Value::Object(sections).to_string()
}

/// Reads all jobs.
fn load(
    connection: &Connection,
    registries: &Registries,
) -> Result<Vec<Saved>, OpenSpoolError> {
    let mut statement = connection.prepare(
        "SELECT id, parent, owner, specification, accepted_us, started_us, message,
         is_delivered, capability_label, capability_token, finished_us
         FROM job ORDER BY id",
    )?;
    let mut rows = statement.query([])?;
    let mut all = Vec::new();
    while let Some(row) = rows.next()? {
        let id: i64 = row.get(0)?;
        let unreadable = |what: String| OpenSpoolError::Unreadable { job: id, what };
        let message = |json: String| {
            decode(json.as_bytes(), registries)
                .map_err(|error| unreadable(error.to_string()))
        };
        let specification: Specification = match message(row.get(3)?)? {
            Message::Specification(specification) => specification,
            other => {
                return Err(unreadable(format!(
                    "its specification is a {}",
                    other.kind()
                )));
            }
        };
        let owner: String = row.get(2)?;
        let owner = read_identity(&owner)
            .ok_or_else(|| unreadable("its owner is no identity".into()))?;
        let parent: Option<i64> = row.get(1)?;
        let started: Option<i64> = row.get(5)?;
        let finished: Option<String> = row.get(6)?;
        let capability: (Option<String>, Option<String>) = (row.get(8)?, row.get(9)?);
        let name = |token: String| Some((token.parse().ok()?, capability.0.as_deref()));
        let capability = capability.1.and_then(name);
        let finished_us: Option<i64> = row.get(10)?;
        let mut table = Table::new(specification.columns());
        if finished.is_none() {
            table = load_rows(connection, id, table)?;
        }
        all.push(Saved {
            job: job(id),
            parent: parent.map(job),
            owner,
            specification,
            capability: capability
                .map(|(token, label)| CapabilityName::new(label, token)),
            accepted: time(row.get(4)?),
            started: started.map(time),
            table,
            finished: finished.map(message).transpose()?,
            finished_at: finished_us.map(time),
            is_delivered: row.get(7)?,
        });
    }
    Ok(all)
}

/// Reads the rows of a job that ran.
fn load_rows(
    connection: &Connection,
    job: i64,
    mut table: Table,
) -> Result<Table, OpenSpoolError> {
    let mut statement = connection
        .prepare_cached("SELECT json FROM row_chunk WHERE job = ?1 ORDER BY first_row")?;
    let mut rows = statement.query(params![job])?;
    while let Some(row) = rows.next()? {
        let json: Vec<u8> = row.get(0)?;
        table = json::decode_rows(&json, table).map_err(|error| {
            OpenSpoolError::Unreadable { job, what: error.to_string() }
        })?;
    }
    Ok(table)
}

/// Returns a job's number as SQLite keeps it: jobs are counted from 1.
fn number(job: JobId) -> i64 {
    i64::try_from(job.number()).unwrap_or(i64::MAX)
}

/// Returns the job with a number.
fn job(number: i64) -> JobId {
    JobId::from_number(number.unsigned_abs())
}

/// A spool that cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenSpoolError {
    /// The file.
    #[error(transparent)]
    Open(#[from] OpenDatabaseError),
    /// Its content.
    #[error("cannot read the spool")]
    Read(#[from] rusqlite::Error),
    /// Another version of the program has written it.
    #[error(
        "the spool {path} has schema {version}, this program reads {}; a component of this \
         version brings an older one up to date when it starts",
        MIGRATIONS.len()
    )]
    Version {
        /// The file.
        path: PathBuf,
        /// Its schema.
        version: i64,
    },
    /// A job in it.
    #[error(
        "job {job} in the spool cannot be read: {what}; preload the registry it needs, or move the spool away"
    )]
    Unreadable {
        /// The job.
        job: i64,
        /// What is wrong with it.
        what: String,
    },
}

#[cfg(test)]
mod tests;
