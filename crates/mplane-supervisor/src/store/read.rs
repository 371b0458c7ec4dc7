//! What is read from the store: to answer peers, and to go on after a restart.

use jiff::Timestamp;
use mplane::access::{CapabilityName, Identity};
use mplane::features::Features;
use mplane::token::Token;
use mplane_runtime::stored::{identity_text, read_identity, time};
use rusqlite::{Connection, OptionalExtension, params, params_from_iter};

use super::rows::{LIFE, UNANSWERED, find, read_life, read_token};
use super::{Archive, Id, Reported, StoreError};
use crate::directory::{About, Dialect};
use crate::life::Life;

/// A specification as its client asks for it.
#[derive(Clone, Debug)]
pub struct Known {
    /// Its name here.
    pub id: Id,
    /// How far it is.
    pub life: Life,
    /// As the client sent it, as JSON; `None` when it is not kept any more.
    pub asked: Option<String>,
    /// Who does it.
    pub component: Identity,
    /// What the capability was called.
    pub capability: CapabilityName,
    /// Whether it is for many components.
    pub is_whole: bool,
}

/// A specification for many components, all of whose parts have ended.
#[derive(Clone, Debug)]
pub struct Whole {
    /// What it is.
    pub reported: Reported,
    /// As the client sent it, as JSON.
    pub asked: Option<String>,
}

/// What a client is told about a specification.
#[derive(Clone, Debug)]
pub enum Told {
    /// It is on its way; with the results so far, as JSON, if there are some.
    Pending(Known, Option<String>),
    /// It has ended, and with what, as JSON; `None` when that is not kept any more.
    Ended(Known, Option<String>),
}

/// A component as it was written down.
#[derive(Clone, Debug)]
pub struct Saved {
    /// Who it is.
    pub identity: Identity,
    /// How it writes lists.
    pub dialect: Dialect,
    /// What it understands.
    pub features: Features,
    /// When it was first heard of, UTC.
    pub first_seen: Timestamp,
    /// When it was last heard of, UTC.
    pub last_seen: Timestamp,
    /// What else is known of it.
    pub about: About,
    /// What it offers, as JSON.
    pub capabilities: Vec<String>,
    /// Whether something is queued for it.
    pub is_pending: bool,
}

impl Archive {
    /// Returns what a client is to be told about one of its specifications; `None` if it
    /// has none with this token.
    pub async fn told(
        &self,
        client: &Identity,
        token: &Token,
    ) -> Result<Option<Told>, StoreError> {
        let (client, token) = (identity_text(client), token.clone());
        let known = self.control.look_up(|connection| known(connection, &client, &token));
        let Some(known) = known? else { return Ok(None) };
        Ok(Some(match known.life.state {
            crate::life::State::Settled(_) => {
                let result = self.result(known.id).await?;
                Told::Ended(known, result)
            }
            _ if known.life.has_results => {
                let result = self.result(known.id).await?;
                Told::Pending(known, result)
            }
            _ => Told::Pending(known, None),
        }))
    }

    /// Returns what a specification has yielded, as JSON.
    pub async fn result(&self, id: Id) -> Result<Option<String>, StoreError> {
        let read = self.results.read(move |connection| {
            connection
                .prepare_cached("SELECT message FROM result WHERE specification = ?1")?
                .query_row(params![id.number()], |row| row.get(0))
                .optional()
        });
        Ok(read.await?)
    }

    /// Returns what a report of a component is about; `None` if nothing with this token
    /// was handed to it.
    #[expect(clippy::unused_async, reason = "it is found at once in this kind of store")]
    pub async fn reported(
        &self,
        component: &Identity,
        token: &Token,
    ) -> Result<Option<Reported>, StoreError> {
        let (component, token) = (identity_text(component), token.clone());
        let read = self.control.look_up(|connection| {
            let found = find(connection, &component, &token)?;
            Ok(found.map(|found| Reported {
                id: found.id,
                token: found.token,
                label: found.label,
                handed: found.handed,
                life: found.life,
            }))
        });
        Ok(read?)
    }

    /// Returns the components as they were written down.
    pub async fn components(&self) -> Result<Vec<Saved>, StoreError> {
        Ok(self.control.read(components).await?)
    }

    /// Returns the specifications that a component was handed and has not answered for good,
    /// as JSON, and whether it has promised a result.
    pub async fn outstanding(
        &self,
        component: &Identity,
    ) -> Result<Vec<(String, bool)>, StoreError> {
        let component = identity_text(component);
        let read = self.control.read(move |connection| {
            let mut statement = connection.prepare_cached(
                "SELECT handed, state = 'promised' FROM specification WHERE component = ?1
                 AND state IN ('handed', 'promised') AND handed IS NOT NULL",
            )?;
            let rows = statement
                .query_map(params![component], |row| Ok((row.get(0)?, row.get(1)?)))?;
            rows.collect()
        });
        Ok(read.await?)
    }

    /// Returns the specification for many components of which one is a part, if it is.
    #[expect(clippy::unused_async, reason = "it is found at once in this kind of store")]
    pub async fn parent(&self, id: Id) -> Result<Option<Id>, StoreError> {
        let read = self.control.look_up(|connection| {
            connection
                .prepare_cached("SELECT parent FROM specification WHERE id = ?1")?
                .query_row(params![id.number()], |row| row.get(0))
                .optional()
        });
        Ok(read?.flatten().map(Id::of))
    }

    /// Returns specifications for many components all of whose parts have ended, and that
    /// have not: one of them, or all.
    pub async fn complete(&self, one: Option<Id>) -> Result<Vec<Whole>, StoreError> {
        // All are looked for among those that have not ended, one is found by its key.
        let which = one.map_or("", |_| "id = ?1 AND");
        let read = self.control.read(move |connection| {
            let mut statement = connection.prepare_cached(&format!(
                "SELECT id, token, label, asked, {LIFE} FROM specification AS whole
                 WHERE {which} is_parent = 1 AND settled_us IS NULL
                 AND NOT EXISTS (SELECT 1 FROM specification AS part
                   WHERE part.parent = whole.id AND part.settled_us IS NULL)"
            ))?;
            let one = params_from_iter(one.map(Id::number));
            let wholes = statement.query_map(one, |row| {
                let token: String = row.get(1)?;
                Ok(Whole {
                    reported: Reported {
                        id: Id::of(row.get(0)?),
                        token: read_token(&token, 1)?,
                        label: row.get(2)?,
                        handed: None,
                        life: read_life(row, 4)?,
                    },
                    asked: row.get(3)?,
                })
            })?;
            wholes.collect()
        });
        Ok(read.await?)
    }

    /// Returns the parts of a specification for many components: their names, who does them,
    /// and whether they have ended.
    pub async fn parts(&self, id: Id) -> Result<Vec<(Id, Identity, bool)>, StoreError> {
        let read = self.control.read(move |connection| {
            let mut statement = connection.prepare_cached(
                "SELECT id, component, settled_us IS NOT NULL FROM specification
                 WHERE parent = ?1 ORDER BY id",
            )?;
            let parts = statement.query_map(params![id.number()], |row| {
                let component: String = row.get(1)?;
                Ok((Id::of(row.get(0)?), identity(&component), row.get(2)?))
            })?;
            parts.collect()
        });
        Ok(read.await?)
    }

    /// Returns when the first specification is to be looked at, UTC.
    pub async fn next_deadline(&self) -> Result<Option<Timestamp>, StoreError> {
        Ok(self.control.read(super::sweep::next_deadline).await?)
    }

    /// Says whether nothing more comes of a specification of a client.
    #[expect(clippy::unused_async, reason = "it is found at once in this kind of store")]
    pub async fn has_ended(
        &self,
        client: &Identity,
        token: &Token,
    ) -> Result<bool, StoreError> {
        let client = identity_text(client);
        let read = self.control.look_up(|connection| {
            let open: Option<bool> = connection
                .prepare_cached(
                    "SELECT settled_us IS NULL FROM specification
                     WHERE client = ?1 AND token = ?2",
                )?
                .query_row(params![client, token.as_str()], |row| row.get(0))
                .optional()?;
            Ok(open != Some(true))
        });
        Ok(read?)
    }

    /// Says whether something was handed to a component and not answered by it.
    #[expect(clippy::unused_async, reason = "it is found at once in this kind of store")]
    pub async fn is_unanswered(&self, component: &Identity) -> Result<bool, StoreError> {
        let component = identity_text(component);
        let read = self.control.look_up(|connection| {
            connection
                .prepare_cached(&format!(
                    "SELECT 1 FROM specification WHERE component = ?1 AND {UNANSWERED}"
                ))?
                .exists(params![component])
        });
        Ok(read?)
    }

    /// Returns the specifications of which a client has not got what came of them, those
    /// that have not ended included.
    pub async fn unredeemed(
        &self,
        client: &Identity,
    ) -> Result<Vec<(Id, Token)>, StoreError> {
        let client = identity_text(client);
        let read = self.control.read(move |connection| {
            let mut unredeemed = connection.prepare_cached(
                "SELECT id, token FROM specification
                 WHERE client = ?1 AND redeemed_us IS NULL AND parent IS NULL",
            )?;
            let rows = unredeemed.query_map(params![client], |row| {
                let token: String = row.get(1)?;
                Ok((Id::of(row.get(0)?), read_token(&token, 1)?))
            })?;
            rows.collect()
        });
        Ok(read.await?)
    }

    /// Counts what components are to fetch, and tells when the first specification of it was
    /// accepted, UTC.
    pub async fn queued(&self) -> Result<(u64, Option<Timestamp>), StoreError> {
        let read = self.control.read(|connection| {
            let (queued, first): (i64, Option<i64>) = connection.query_row(
                // Interrupts and the like are of specifications that may be old.
                "SELECT count(*), min(CASE state WHEN 'queued' THEN id END)
                 FROM specification
                 WHERE state = 'queued' OR interrupt = 'queued' OR progress = 'queued'",
                [],
                |row| Ok((row.get(0)?, row.get(1)?)),
            )?;
            let since: Option<i64> = connection
                .query_row(
                    "SELECT accepted_us FROM specification WHERE id = ?1",
                    params![first],
                    |row| row.get(0),
                )
                .optional()?;
            Ok((queued.unsigned_abs(), since.map(time)))
        });
        Ok(read.await?)
    }
}

/// Finds a specification of a client.
fn known(
    connection: &Connection,
    client: &str,
    token: &Token,
) -> rusqlite::Result<Option<Known>> {
    connection
        .prepare_cached(&format!(
            "SELECT id, asked, component, capability_label, capability_token, {LIFE},
             is_parent
             FROM specification WHERE client = ?1 AND token = ?2"
        ))?
        .query_row(params![client, token.as_str()], |row| {
            let (component, label): (String, Option<String>) = (row.get(2)?, row.get(3)?);
            let capability: String = row.get(4)?;
            Ok(Known {
                id: Id::of(row.get(0)?),
                asked: row.get(1)?,
                component: identity(&component),
                capability: CapabilityName::new(
                    label.as_deref(),
                    read_token(&capability, 4)?,
                ),
                life: read_life(row, 5)?,
                is_whole: row.get(11)?,
            })
        })
        .optional()
}

/// Reads an identity that this program has written.
pub(super) fn identity(text: &str) -> Identity {
    read_identity(text).unwrap_or_else(Identity::unauthenticated)
}

/// Reads the components.
fn components(connection: &Connection) -> rusqlite::Result<Vec<Saved>> {
    let mut statement = connection.prepare(
        "SELECT identity, dialect, features, first_seen_us, last_seen_us, EXISTS (
           SELECT 1 FROM specification WHERE component = identity
           AND (state = 'queued' OR interrupt = 'queued' OR progress = 'queued')),
         address, version, clock_ahead_s FROM component",
    )?;
    let mut offered = connection.prepare(
        "SELECT json FROM capability WHERE component = ?1 AND until_us IS NULL ORDER BY id",
    )?;
    let rows = statement.query_map([], |row| {
        let (text, dialect): (String, String) = (row.get(0)?, row.get(1)?);
        let features: String = row.get(2)?;
        Ok(Saved {
            identity: identity(&text),
            dialect: Dialect::read(&dialect),
            features: Features::parse(&features),
            first_seen: time(row.get(3)?),
            last_seen: time(row.get(4)?),
            is_pending: row.get(5)?,
            about: About {
                address: row.get(6)?,
                version: row.get(7)?,
                clock_ahead_s: row.get(8)?,
            },
            capabilities: offered
                .query_map(params![text], |row| row.get(0))?
                .collect::<Result<_, _>>()?,
        })
    })?;
    rows.collect()
}
