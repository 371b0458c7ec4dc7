//! The store: every specification with its story, on disk.
//!
//! Two databases: `control.db` has who offers what and the life of each specification,
//! `results.db` what came of it. Each method is one transaction of the domain, and says
//! when it is durable by returning. The life of a specification changes by
//! [`step`] alone, within a transaction.
//!
//! A result is written before the step that settles its specification: what is settled is
//! there. One that is written and not settled, because the program was cut in between, is
//! delivered again by the component and replaced.

mod offers;
mod people;
mod read;
mod rows;
#[cfg(test)]
mod schema_tests;
pub(crate) mod sweep;
#[cfg(test)]
mod tests;

use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use mplane::access::{CapabilityName, Identity};
use mplane::message::Message;
use mplane::token::Token;
use mplane_runtime::at_length;
use mplane_runtime::sqlite::{
    Database, OpenDatabaseError, ReadError, Readers, WriteError, open_reader,
};
use mplane_runtime::stored::{identity_text, message_text, time};
use rusqlite::{Connection, OptionalExtension, params};

pub(crate) use self::people::shown;
pub use self::people::{
    Filter, Measurement, Offered, PAGE, Page, Part, Refused, Step, Stories, Story,
};
pub use self::read::{Known, Saved, Told, Whole};
use self::rows::{find, life_of, note, write_life};
pub use self::sweep::{Retention, Swept};
use crate::life::{Effect, Event, Life, step};

/// The schemas, as steps from an empty file.
const CONTROL: [&str; 4] = [
    include_str!("control-1.sql"),
    include_str!("control-2.sql"),
    include_str!("control-3.sql"),
    include_str!("control-4.sql"),
];
const RESULTS: [&str; 1] = [include_str!("results-1.sql")];

/// Messages handed out at once, so that a component is not buried by one answer.
const HAND_OUT: i64 = 100;

/// Refusals of one client that are kept, the oldest go first: they are for people who ask
/// soon. Others are not forgotten for a client that is refused again and again.
const REFUSALS: i64 = 1_000;

/// How long after an interrupt was handed out a specification without end may still yield
/// something: components may be away for a while, and deliver what they have then.
pub const AFTER_INTERRUPT: SignedDuration = SignedDuration::from_hours(1);

/// Bytes that are written to find out whether there is room again. No specification has the
/// number 0 under which they are.
const PROBE: i64 = 64 << 10;

/// Names a specification within one supervisor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Id(pub u64);

impl Id {
    /// Returns the number as SQLite keeps it: ids are counted from 1.
    fn number(self) -> i64 {
        i64::try_from(self.0).unwrap_or(i64::MAX)
    }

    /// Returns the id with a number.
    const fn of(number: i64) -> Self {
        Self(number.unsigned_abs())
    }
}

/// An open store. It *is* an archive that is written to, so it dereferences to one.
#[derive(Debug)]
pub struct Store {
    control: Database,
    results: Database,
    archive: Archive,
    last_id: AtomicU64,
}

/// What is in a store, to be read; also while a supervisor writes to it.
#[derive(Debug)]
pub struct Archive {
    control: Arc<Readers>,
    results: Arc<Readers>,
}

impl Deref for Store {
    type Target = Archive;

    fn deref(&self) -> &Archive {
        &self.archive
    }
}

impl Archive {
    /// Opens what a supervisor has written in a folder.
    pub fn open(folder: &Path) -> Result<Self, OpenStoreError> {
        let (control, results) = files(folder);
        for (path, schemas) in [(&control, CONTROL.len()), (&results, RESULTS.len())] {
            let read = || {
                let connection = open_reader(path)?;
                connection.pragma_query_value(None, "user_version", |row| row.get(0))
            };
            let version: i64 = read().map_err(|source| OpenStoreError::NoStore {
                path: path.clone(),
                source,
            })?;
            if version != i64::try_from(schemas).unwrap_or(i64::MAX) {
                let path = path.clone();
                return Err(OpenStoreError::Version { path, version, schemas });
            }
        }
        Ok(Self::new(control, results))
    }

    /// Copies a store into a folder that does not exist yet, also while a supervisor writes to
    /// it. Returns how many bytes the copy has.
    pub fn copy(from: &Path, to: &Path) -> Result<u64, OpenStoreError> {
        Self::open(from)?;
        std::fs::create_dir(to)
            .map_err(|source| OpenStoreError::Folder { path: to.to_owned(), source })?;
        let (control, results) = files(from);
        let (control_copy, results_copy) = files(to);
        let mut bytes = 0;
        // What is settled in the first copy has its result in the second.
        for (path, copy) in [(control, control_copy), (results, results_copy)] {
            let connection = open_reader(&path).map_err(OpenStoreError::Read)?;
            let name = copy.to_string_lossy();
            connection
                .execute("VACUUM INTO ?1", params![name])
                .map_err(OpenStoreError::Read)?;
            bytes += std::fs::metadata(&copy).map_or(0, |copy| copy.len());
        }
        Ok(bytes)
    }

    /// Makes an archive of files that are there.
    fn new(control: PathBuf, results: PathBuf) -> Self {
        let reader = |path| Arc::new(Readers::new(path));
        Self { control: reader(control), results: reader(results) }
    }
}

/// Returns the files of a store.
fn files(folder: &Path) -> (PathBuf, PathBuf) {
    (folder.join("control.db"), folder.join("results.db"))
}

/// A specification to be accepted.
#[derive(Clone, Debug)]
pub struct New {
    /// Its name here.
    pub id: Id,
    /// Who asks.
    pub client: Identity,
    /// Between the client and us.
    pub token: Token,
    /// As the client labelled it.
    pub label: Option<String>,
    /// Who is to do it.
    pub component: Identity,
    /// Between us and the component.
    pub handed_token: Token,
    /// What the capability is called.
    pub capability: CapabilityName,
    /// As the client sent it.
    pub asked: Message,
    /// As the component gets it.
    pub handed: Message,
    /// When it is given up, UTC.
    pub deadline: Option<Timestamp>,
}

/// How many specifications may be open: a bound on what peers hold that never come back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// How many may wait for one component.
    pub queue: u64,
    /// How many of one client may not have ended, parts of one for many components included.
    pub client: u64,
}

/// What became of a specification that was to be accepted.
#[derive(Clone, Debug, PartialEq)]
pub enum Acceptance {
    /// It is accepted.
    New,
    /// The client has sent one with this token before.
    Known,
    /// As many wait for the component as may.
    QueueFull,
    /// As many of the client have not ended as may.
    ClientFull,
}

/// Something handed to a component.
#[derive(Clone, Debug, PartialEq)]
pub enum Handed {
    /// A specification.
    Specification {
        /// Its name here.
        id: Id,
        /// It, as JSON.
        text: String,
        /// When it was accepted, UTC.
        accepted: Timestamp,
    },
    /// An interrupt.
    Interrupt {
        /// Of which specification.
        id: Id,
        /// The specification, as JSON.
        text: String,
    },
    /// A request for the results so far.
    Redemption {
        /// Of which specification.
        id: Id,
        /// The specification, as JSON.
        text: String,
    },
}

impl Handed {
    /// Returns of which specification it is.
    pub const fn id(&self) -> Id {
        match self {
            Self::Specification { id, .. }
            | Self::Interrupt { id, .. }
            | Self::Redemption { id, .. } => *id,
        }
    }
}

/// What a report of a component is about.
#[derive(Clone, Debug)]
pub struct Reported {
    /// Which specification.
    pub id: Id,
    /// The token that the client knows.
    pub token: Token,
    /// The label that the client knows.
    pub label: Option<String>,
    /// The specification as the component got it, as JSON; `None` when it is not kept any
    /// more.
    pub handed: Option<String>,
    /// How far it is.
    pub life: Life,
}

/// What a specification has come to by a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stepped {
    /// Which specification.
    pub id: Id,
    /// What follows.
    pub effect: Effect,
}

impl Store {
    /// Opens the store in a folder, which is made if it is not there.
    pub fn open(folder: &Path) -> Result<Self, OpenStoreError> {
        std::fs::create_dir_all(folder).map_err(|source| OpenStoreError::Folder {
            path: folder.to_owned(),
            source,
        })?;
        let (control, results) = files(folder);
        let opened = Database::open(&control, &CONTROL)?;
        let last: Option<i64> = opened
            .connection
            .query_row("SELECT max(id) FROM specification", [], |row| row.get(0))
            .map_err(OpenStoreError::Read)?;
        Ok(Self {
            control: opened.start()?,
            results: Database::open(&results, &RESULTS)?.start()?,
            archive: Archive::new(control, results),
            last_id: AtomicU64::new(last.unwrap_or_default().unsigned_abs()),
        })
    }

    /// Returns how many writes wait.
    pub fn waiting(&self) -> usize {
        self.control.waiting().max(self.results.waiting())
    }

    /// Returns a name that no specification has had.
    pub fn next_id(&self) -> Id {
        Id(self.last_id.fetch_add(1, Ordering::Relaxed) + 1)
    }

    /// Finds out whether there is room for more than a few words: writes something, and takes
    /// it away again.
    pub async fn probe(&self) -> Result<(), StoreError> {
        let written = self.results.call(|connection| {
            connection
                .execute(
                    "INSERT OR REPLACE INTO result VALUES (0, 0, hex(zeroblob(?1)))",
                    params![PROBE / 2],
                )
                .map(drop)
        });
        written.await?;
        let deleted = self.results.call(|connection| {
            connection.execute("DELETE FROM result WHERE specification = 0", []).map(drop)
        });
        Ok(deleted.await?)
    }

    /// Accepts a specification, unless the client has sent it before.
    pub async fn accept(
        &self,
        new: New,
        room: Room,
        now: Timestamp,
    ) -> Result<Acceptance, StoreError> {
        let stored = Stored::of(new);
        let written = self.control.call(move |connection| {
            let new = &stored.new;
            if is_known(connection, &stored.client, &new.token)? {
                return Ok(Acceptance::Known);
            }
            if tally(connection, "client", &stored.client)? >= room.client {
                return Ok(Acceptance::ClientFull);
            }
            if tally(connection, "component", &stored.component)? >= room.queue {
                return Ok(Acceptance::QueueFull);
            }
            insert(connection, &stored, None, now)?;
            Ok(Acceptance::New)
        });
        Ok(written.await?)
    }

    /// Accepts one specification for many components: itself, which no component fetches,
    /// and a part for each.
    pub async fn accept_all(
        &self,
        whole: New,
        parts: Vec<New>,
        room: Room,
        now: Timestamp,
    ) -> Result<Acceptance, StoreError> {
        let whole = Stored::of(whole);
        let parts: Vec<_> = parts.into_iter().map(Stored::of).collect();
        let written = self.control.call(move |connection| {
            if is_known(connection, &whole.client, &whole.new.token)? {
                return Ok(Acceptance::Known);
            }
            let open = tally(connection, "client", &whole.client)?;
            let more = u64::try_from(parts.len() + 1).unwrap_or(u64::MAX);
            if open.saturating_add(more) > room.client {
                return Ok(Acceptance::ClientFull);
            }
            for part in &parts {
                if tally(connection, "component", &part.component)? >= room.queue {
                    return Ok(Acceptance::QueueFull);
                }
            }
            insert(connection, &whole, None, now)?;
            // Its parts are what is handed out.
            write_life(connection, whole.new.id, Life::BEGIN_WHOLE, now)?;
            connection
                .prepare_cached("UPDATE specification SET is_parent = 1 WHERE id = ?1")?
                .execute(params![whole.new.id.number()])?;
            let detail = format!("for {} components", parts.len());
            note(connection, whole.new.id, now, "handed", Some(&detail))?;
            for part in &parts {
                insert(connection, part, Some(whole.new.id), now)?;
            }
            Ok(Acceptance::New)
        });
        Ok(written.await?)
    }

    /// Writes down that a specification was not accepted, and why.
    pub async fn refuse(
        &self,
        client: &Identity,
        token: &Token,
        label: Option<&str>,
        reason: String,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let (client, token) = (identity_text(client), token.clone());
        let label = label.map(ToOwned::to_owned);
        let written = self.control.call(move |connection| {
            connection
                .prepare_cached(
                    "INSERT INTO refusal (at_us, client, token, label, reason)
                     VALUES (?1, ?2, ?3, ?4, ?5)",
                )?
                .execute(params![
                    now.as_microsecond(),
                    client,
                    token.as_str(),
                    label,
                    reason
                ])?;
            connection
                .prepare_cached(
                    "DELETE FROM refusal WHERE client = ?1 AND id <= (
                       SELECT id FROM refusal WHERE client = ?1
                       ORDER BY id DESC LIMIT 1 OFFSET ?2)",
                )?
                .execute(params![client, REFUSALS])
                .map(drop)
        });
        Ok(written.await?)
    }

    /// Hands out what a component is to fetch, a part of it if it is much; also says
    /// whether there is more.
    pub async fn fetch(
        &self,
        component: &Identity,
        lease: Option<Duration>,
        now: Timestamp,
    ) -> Result<(Vec<Handed>, bool), StoreError> {
        let component = identity_text(component);
        let written = self.control.call(move |connection| {
            let mut queued = connection.prepare_cached(
                "SELECT id FROM specification WHERE component = ?1
                 AND (state = 'queued' OR interrupt = 'queued' OR progress = 'queued') ORDER BY id LIMIT ?2",
            )?;
            let ids =
                queued.query_map(params![component, HAND_OUT + 1], |row| row.get(0))?;
            let mut ids: Vec<i64> = ids.collect::<Result<_, _>>()?;
            let is_more = ids.len() > usize::try_from(HAND_OUT).unwrap_or(usize::MAX);
            if is_more {
                ids.pop();
            }
            let mut handed = Vec::new();
            for id in ids.into_iter().map(Id::of) {
                let Some(mut life) = life_of(connection, id)? else { continue };
                // A specification that is handed out again may have its interrupt behind it.
                loop {
                    let (next, effect) = step(life, Event::Fetched { lease }, now);
                    life = next;
                    let read = |connection: &Connection| {
                        connection
                            .prepare_cached(
                                "SELECT handed, accepted_us FROM specification WHERE id = ?1",
                            )?
                            .query_row(params![id.number()], |row| {
                                Ok((row.get(0)?, time(row.get(1)?)))
                            })
                    };
                    match effect {
                        Effect::HandOut => {
                            let detail = format!("hand-out {}", life.epoch);
                            note(connection, id, now, "handed", Some(&detail))?;
                            let (text, accepted) = read(connection)?;
                            handed.push(Handed::Specification { id, text, accepted });
                        }
                        Effect::HandInterrupt => {
                            note(connection, id, now, "interrupt handed", None)?;
                            end_some_time(connection, id, now)?;
                            let (text, _) = read(connection)?;
                            handed.push(Handed::Interrupt { id, text });
                        }
                        Effect::HandRedemption => {
                            let (text, _) = read(connection)?;
                            handed.push(Handed::Redemption { id, text });
                        }
                        _ => break,
                    }
                }
                write_life(connection, id, life, now)?;
            }
            Ok((handed, is_more))
        });
        Ok(written.await?)
    }

    /// Takes a promise of a component; `None` if it is about nothing that was handed to it.
    pub async fn promised(
        &self,
        component: &Identity,
        token: &Token,
        now: Timestamp,
    ) -> Result<Option<Stepped>, StoreError> {
        let (component, token) = (identity_text(component), token.clone());
        let written = self.control.call(move |connection| {
            let Some(found) = find(connection, &component, &token)? else {
                return Ok(None);
            };
            let effect = advance(connection, found.id, found.life, Event::Promised, now)?;
            if effect == Effect::Noted {
                note(connection, found.id, now, "promised", None)?;
            }
            Ok(Some(Stepped { id: found.id, effect }))
        });
        Ok(written.await?)
    }

    /// Takes what a component delivers, as the client is to see it. The first wins: what
    /// differs from it and comes later is noted and not kept.
    pub async fn delivered(
        &self,
        reported: &Reported,
        event: Event,
        message: &Message,
        now: Timestamp,
    ) -> Result<Stepped, StoreError> {
        let id = reported.id;
        let text = at_length(10 * message.value_count(), || message_text(message));
        let bytes = i64::try_from(text.len()).unwrap_or(i64::MAX);
        let is_new = !reported.life.is_settled();
        let differs = if is_new {
            self.keep(id, text, now).await?;
            false
        } else {
            self.result(id).await?.is_some_and(|first| first != text)
        };
        let detail = match message {
            Message::Result(result) => format!("{} rows", result.table().rows()),
            Message::Envelope(results) => format!("{} results", results.len()),
            Message::Exception(exception) => exception.message().to_owned(),
            other => other.kind().to_string(),
        };
        let written = self.control.call(move |connection| {
            let Some(life) = life_of(connection, id)? else {
                return Ok(Stepped { id, effect: Effect::Nothing });
            };
            let effect = advance(connection, id, life, event, now)?;
            match effect {
                Effect::Settle(_) | Effect::Progress => {
                    // The results so far are no step: there may be many.
                    if effect != Effect::Progress {
                        note(connection, id, now, "delivered", Some(&detail))?;
                    }
                    write_bytes(connection, id, bytes)?;
                }
                // Its time ran out while it was written: it is there all the same.
                Effect::TooLate if is_new => {
                    note(connection, id, now, "delivered too late", Some(&detail))?;
                    write_bytes(connection, id, bytes)?;
                }
                Effect::TooLate if differs => {
                    let what = "something else delivered, not kept";
                    note(connection, id, now, what, Some(&detail))?;
                }
                _ => {}
            }
            Ok(Stepped { id, effect })
        });
        Ok(written.await?)
    }

    /// Notes something that happened to a specification and changes nothing.
    pub async fn noted(
        &self,
        id: Id,
        what: &'static str,
        detail: String,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let written = self
            .control
            .call(move |connection| note(connection, id, now, what, Some(&detail)));
        Ok(written.await?)
    }

    /// Takes an interrupt of a client: of a specification, or of all parts of one. Returns what
    /// each has come to.
    pub async fn interrupted(
        &self,
        ids: Vec<Id>,
        now: Timestamp,
    ) -> Result<Vec<Stepped>, StoreError> {
        let written = self.control.call(move |connection| {
            let mut stepped = Vec::with_capacity(ids.len());
            for id in ids {
                let Some(life) = life_of(connection, id)? else { continue };
                let effect = advance(connection, id, life, Event::Interrupted, now)?;
                match effect {
                    Effect::Settle(_) => {
                        let detail = "nobody had fetched it";
                        note(connection, id, now, "interrupted", Some(detail))?;
                    }
                    Effect::Wake => {
                        note(connection, id, now, "interrupt asked for", None)?;
                    }
                    _ => {}
                }
                stepped.push(Stepped { id, effect });
            }
            Ok(stepped)
        });
        Ok(written.await?)
    }

    /// Has components asked for the results so far, unless they are being asked. Returns those
    /// specifications of which there is something to fetch now.
    pub async fn ask_progress(
        &self,
        ids: Vec<Id>,
        now: Timestamp,
    ) -> Result<Vec<Id>, StoreError> {
        let written = self.control.call(move |connection| {
            let mut woken = Vec::new();
            for id in ids {
                let Some(life) = life_of(connection, id)? else { continue };
                let effect = advance(connection, id, life, Event::ProgressAsked, now)?;
                woken.extend((effect == Effect::Wake).then_some(id));
            }
            Ok(woken)
        });
        Ok(written.await?)
    }

    /// Queues again what was handed out and not answered in time, and gives up what is over.
    /// Returns what follows, and when to look again.
    pub async fn expire(
        &self,
        now: Timestamp,
    ) -> Result<(Vec<Overdue>, Option<Timestamp>), StoreError> {
        let written = self.control.call(move |connection| sweep::expire(connection, now));
        Ok(written.await?)
    }

    /// Has handed out again what may not have reached components, because they or the
    /// supervisor were started again. Returns those for which there is something now.
    pub async fn restarted(
        &self,
        components: Vec<Identity>,
        why: &'static str,
        now: Timestamp,
    ) -> Result<Vec<Identity>, StoreError> {
        let written = self
            .control
            .call(move |connection| sweep::restarted(connection, &components, why, now));
        Ok(written.await?)
    }

    /// Notes that a client has got what it asked for, the first time.
    pub fn redeemed(&self, id: Id, now: Timestamp) {
        // Nobody waits for it: it changes what people read, not what is done.
        drop(self.control.write(move |connection| {
            let first = connection
                .prepare_cached(
                    "UPDATE specification SET redeemed_us = ?2
                     WHERE id = ?1 AND redeemed_us IS NULL",
                )?
                .execute(params![id.number(), now.as_microsecond()])?;
            if first > 0 {
                note(connection, id, now, "redeemed", None)?;
            }
            Ok(())
        }));
    }

    /// Keeps the reason for which a specification is lost, unless something has come of it
    /// after all.
    pub async fn keep_reason(
        &self,
        id: Id,
        reason: &Message,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let text = message_text(reason);
        let written = self.results.call(move |connection| {
            connection
                .prepare_cached(
                    "INSERT INTO result VALUES (?1, ?2, ?3) ON CONFLICT DO NOTHING",
                )?
                .execute(params![id.number(), now.as_microsecond(), text])
                .map(drop)
        });
        Ok(written.await?)
    }

    /// Keeps what a client is told of a specification, as JSON.
    async fn keep(&self, id: Id, text: String, now: Timestamp) -> Result<(), StoreError> {
        let written = self.results.call(move |connection| {
            connection
                .prepare_cached(
                    "INSERT INTO result VALUES (?1, ?2, ?3) ON CONFLICT DO UPDATE
                     SET stored_us = ?2, message = ?3",
                )?
                .execute(params![id.number(), now.as_microsecond(), text])
                .map(drop)
        });
        Ok(written.await?)
    }
}

/// A specification to be accepted, as it is written.
struct Stored {
    new: New,
    client: String,
    component: String,
    asked: String,
    handed: String,
}

impl Stored {
    /// Writes what is to be accepted.
    fn of(new: New) -> Self {
        Self {
            client: identity_text(&new.client),
            component: identity_text(&new.component),
            asked: message_text(&new.asked),
            handed: message_text(&new.handed),
            new,
        }
    }
}

/// Says whether a client has sent a specification with a token before.
fn is_known(
    connection: &Connection,
    client: &str,
    token: &Token,
) -> rusqlite::Result<bool> {
    connection
        .prepare_cached("SELECT 1 FROM specification WHERE client = ?1 AND token = ?2")?
        .exists(params![client, token.as_str()])
}

/// Returns how many specifications of a client have not ended, or how much a component is to
/// fetch.
fn tally(connection: &Connection, kind: &str, name: &str) -> rusqlite::Result<u64> {
    let tally: Option<i64> = connection
        .prepare_cached("SELECT specifications FROM tally WHERE kind = ?1 AND name = ?2")?
        .query_row(params![kind, name], |row| row.get(0))
        .optional()?;
    Ok(u64::try_from(tally.unwrap_or_default()).unwrap_or_default())
}

/// Has a specification without end given up some time after the component was told to stop.
fn end_some_time(
    connection: &Connection,
    id: Id,
    now: Timestamp,
) -> rusqlite::Result<()> {
    let end = now.checked_add(AFTER_INTERRUPT).unwrap_or(Timestamp::MAX);
    connection
        .prepare_cached(
            "UPDATE specification SET deadline_us = ?2
             WHERE id = ?1 AND deadline_us IS NULL",
        )?
        .execute(params![id.number(), end.as_microsecond()])
        .map(drop)
}

/// Writes how large what is kept of a specification is.
fn write_bytes(connection: &Connection, id: Id, bytes: i64) -> rusqlite::Result<()> {
    connection
        .prepare_cached("UPDATE specification SET result_bytes = ?2 WHERE id = ?1")?
        .execute(params![id.number(), bytes])
        .map(drop)
}

/// Writes a specification that is accepted.
fn insert(
    connection: &Connection,
    Stored { new, client, component, asked, handed }: &Stored,
    parent: Option<Id>,
    now: Timestamp,
) -> rusqlite::Result<()> {
    connection
        .prepare_cached(
            "INSERT INTO specification (id, client, token, label, component,
             handed_token, capability_label, capability_token, asked, handed,
             accepted_us, deadline_us, state, epoch, interrupt, parent)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, 'queued', 0,
             'unasked', ?13)",
        )?
        .execute(params![
            new.id.number(),
            client,
            new.token.as_str(),
            new.label,
            component,
            new.handed_token.as_str(),
            new.capability.label(),
            new.capability.token().as_str(),
            asked,
            handed,
            now.as_microsecond(),
            new.deadline.map(Timestamp::as_microsecond),
            parent.map(Id::number),
        ])?;
    note(connection, new.id, now, "accepted", None)
}

/// Something whose time was over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Overdue {
    /// Which specification.
    pub id: Id,
    /// The token that the client knows.
    pub token: Token,
    /// Who was to do it.
    pub component: Identity,
    /// What follows.
    pub effect: Effect,
    /// What the component has left undone, as the end of a sentence about it.
    pub reason: &'static str,
}

/// Makes a step of a specification, and writes where it has led.
fn advance(
    connection: &Connection,
    id: Id,
    life: Life,
    event: Event,
    now: Timestamp,
) -> rusqlite::Result<Effect> {
    let (next, effect) = step(life, event, now);
    if next != life {
        write_life(connection, id, next, now)?;
    }
    Ok(effect)
}

/// A store that cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenStoreError {
    /// Its folder.
    #[error("cannot make the folder {path}")]
    Folder {
        /// The folder.
        path: PathBuf,
        /// What happened.
        source: std::io::Error,
    },
    /// One of its files.
    #[error(transparent)]
    Open(#[from] OpenDatabaseError),
    /// There is none.
    #[error("{path} is no store of a supervisor")]
    NoStore {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: rusqlite::Error,
    },
    /// Another version of the program has written it.
    #[error(
        "{path} has schema {version}, this program reads {schemas}; a supervisor of this \
         version brings an older one up to date when it starts"
    )]
    Version {
        /// The file.
        path: PathBuf,
        /// Its schema.
        version: i64,
        /// The schema that is read.
        schemas: usize,
    },
    /// The content of one of them.
    #[error("cannot read the store")]
    Read(#[source] rusqlite::Error),
}

/// Something that the store has not done.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// It could not be written.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// It could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
}
