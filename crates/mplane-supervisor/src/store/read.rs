//! What is read from the store: to answer peers, to go on after a restart, and for people.

use jiff::Timestamp;
use mplane::access::{CapabilityName, Identity};
use mplane::features::Features;
use mplane::token::Token;
use mplane_runtime::stored::{identity_text, read_identity, time};
use rusqlite::types::Value;
use rusqlite::{Connection, OptionalExtension, Row, params, params_from_iter};
use serde::{Deserialize, Serialize};

use super::rows::{LIFE, UNANSWERED, find, read_life, read_token};
use super::{Archive, Id, Reported, StoreError};
use crate::directory::{About, Dialect};
use crate::life::Life;

/// Measurements on one page at most.
pub const PAGE: u32 = 1_000;

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

/// One line of a list of measurements. Identities are text for people.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Measurement {
    /// Its name within the supervisor.
    pub id: u64,
    /// Between the client and the supervisor.
    pub token: String,
    /// As the client labelled it.
    pub label: Option<String>,
    /// Who asked.
    pub client: String,
    /// Who does it.
    pub component: String,
    /// The capability.
    pub capability: Option<String>,
    /// `queued`, `handed`, `promised`, `result`, `exception`, `interrupted` or `lost`.
    pub state: String,
    /// When it was accepted, UTC.
    pub accepted: String,
    /// When it ended, UTC.
    pub settled: Option<String>,
    /// When it is given up, UTC.
    pub deadline: Option<String>,
    /// When its client got what came of it, UTC.
    pub redeemed: Option<String>,
    /// How large what came of it is, as JSON; 0 when it is not kept any more.
    pub result_bytes: i64,
}

/// One step of a story.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Step {
    /// When, UTC.
    pub at: String,
    /// What happened.
    pub what: String,
    /// More about it.
    pub detail: Option<String>,
}

/// The story of one specification.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Story {
    /// What it is.
    pub measurement: Measurement,
    /// The token between the supervisor and the component.
    pub handed_token: String,
    /// How often it was handed out.
    pub hand_outs: u32,
    /// What happened, in order.
    pub steps: Vec<Step>,
    /// Of one for many components: what became of each part.
    pub parts: Vec<Part>,
}

/// A part of a specification for many components, which has a story of its own.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Part {
    /// Who does it.
    pub component: String,
    /// Its label: its story can be asked for by it.
    pub label: Option<String>,
    /// Its state, as of a measurement.
    pub state: String,
}

/// A specification that was not accepted.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Refused {
    /// When, UTC.
    pub at: String,
    /// Who asked.
    pub client: String,
    /// The token.
    pub token: String,
    /// As the client labelled it.
    pub label: Option<String>,
    /// Why.
    pub reason: String,
}

/// What is known of a token or label.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Stories {
    /// Specifications that were accepted, the latest first.
    pub stories: Vec<Story>,
    /// Specifications that were not, the latest first.
    pub refused: Vec<Refused>,
}

impl Stories {
    /// Says whether nothing is known.
    pub fn is_empty(&self) -> bool {
        self.stories.is_empty() && self.refused.is_empty()
    }
}

/// Writes a time as the protocol does, UTC.
pub(crate) fn shown(at: Timestamp) -> String {
    mplane::when::display_timestamp(at).to_string()
}

/// Which measurements to list. Empty conditions hold for all.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Who asked.
    pub client: Option<Identity>,
    /// Part of the identity of who asked, as text.
    pub client_part: Option<String>,
    /// Part of the identity of who does it, as text.
    pub component_part: Option<String>,
    /// Part of the label, of the client or of the capability.
    pub label: Option<String>,
    /// The state.
    pub state: Option<String>,
    /// Only those of which something is kept that came.
    pub is_kept: bool,
}

/// A capability that a component offers or has offered.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Offered {
    /// Its label, if it has one.
    pub label: Option<String>,
    /// Its token.
    pub token: String,
    /// Since when it was offered, UTC.
    pub since: String,
    /// Until when, UTC; `None` if it is offered.
    pub until: Option<String>,
    /// Why it is not offered any more.
    pub gone: Option<String>,
}

/// A part of a list, the latest first.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Page {
    /// The measurements.
    pub measurements: Vec<Measurement>,
    /// What to ask for next: those before this one; `None` at the end.
    pub before: Option<u64>,
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

    /// Returns what a component offers and has offered, the latest first, at most [`PAGE`].
    pub async fn history(
        &self,
        component: &Identity,
    ) -> Result<Vec<Offered>, StoreError> {
        let component = identity_text(component);
        let read = self.control.read(move |connection| {
            let mut offered = connection.prepare(
                "SELECT json ->> 'label', token, since_us, until_us, gone FROM capability
                 WHERE component = ?1 ORDER BY id DESC LIMIT ?2",
            )?;
            let rows = offered.query_map(params![component, PAGE], |row| {
                let until: Option<i64> = row.get(3)?;
                Ok(Offered {
                    label: row.get(0)?,
                    token: row.get(1)?,
                    since: shown(time(row.get(2)?)),
                    until: until.map(time).map(shown),
                    gone: row.get(4)?,
                })
            })?;
            rows.collect()
        });
        Ok(read.await?)
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

    /// Lists measurements, the latest first: those before one, at most [`PAGE`].
    pub async fn measurements(
        &self,
        filter: Filter,
        before: Option<u64>,
        limit: u32,
    ) -> Result<Page, StoreError> {
        let read = self
            .control
            .read(move |connection| list(connection, &filter, before, limit.min(PAGE)));
        Ok(read.await?)
    }

    /// Returns the stories of specifications with a token, of either side of the
    /// supervisor, or with a label, and those that were refused. Of one client only, if it is
    /// given: it knows the token of its side.
    pub async fn stories(
        &self,
        token: String,
        client: Option<Identity>,
    ) -> Result<Stories, StoreError> {
        let client = client.as_ref().map(identity_text);
        let read = self
            .control
            .read(move |connection| stories(connection, &token, client.as_deref()));
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
fn identity(text: &str) -> Identity {
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

/// The columns of a [`Measurement`], in their order.
const MEASUREMENT: &str = "id, token, label, client, component, capability_label, state, \
     accepted_us, settled_us, deadline_us, redeemed_us, result_bytes";

/// Reads a measurement.
fn read_measurement(row: &Row<'_>) -> rusqlite::Result<Measurement> {
    let (client, component): (String, String) = (row.get(3)?, row.get(4)?);
    let at = |column| {
        Ok::<_, rusqlite::Error>(row.get::<_, Option<i64>>(column)?.map(time).map(shown))
    };
    Ok(Measurement {
        id: row.get::<_, i64>(0)?.unsigned_abs(),
        token: row.get(1)?,
        label: row.get(2)?,
        client: identity(&client).to_string(),
        component: identity(&component).to_string(),
        capability: row.get(5)?,
        state: row.get(6)?,
        accepted: shown(time(row.get(7)?)),
        settled: at(8)?,
        deadline: at(9)?,
        redeemed: at(10)?,
        result_bytes: row.get(11)?,
    })
}

/// Returns the identities, of those that a query finds, whose text has a part: an array in JSON.
fn named(connection: &Connection, query: &str, part: &str) -> rusqlite::Result<String> {
    let mut statement = connection.prepare(query)?;
    let known = statement.query_map([], |row| row.get::<_, String>(0))?;
    let known: Vec<String> = known.collect::<Result<_, _>>()?;
    let named = known.iter().filter(|text| identity(text).to_string().contains(part));
    Ok(serde_json::json!(named.collect::<Vec<_>>()).to_string())
}

/// Lists measurements.
fn list(
    connection: &Connection,
    filter: &Filter,
    before: Option<u64>,
    limit: u32,
) -> rusqlite::Result<Page> {
    let mut conditions = vec!["1".to_owned()];
    let mut values: Vec<Value> = Vec::new();
    let mut add = |condition: &str, value: Value| {
        values.push(value);
        conditions.push(condition.replace('?', &format!("?{}", values.len())));
    };
    if let Some(client) = &filter.client {
        add("client = ?", identity_text(client).into());
    }
    for (column, query, part) in [
        ("client", "SELECT DISTINCT client FROM specification", &filter.client_part),
        ("component", "SELECT identity FROM component", &filter.component_part),
    ] {
        if let Some(part) = part {
            let condition = format!("{column} IN (SELECT value FROM json_each(?))");
            add(&condition, named(connection, query, part)?.into());
        }
    }
    if let Some(state) = &filter.state {
        add("state = ?", state.clone().into());
    }
    if let Some(label) = &filter.label {
        let condition = "(instr(label, ?) OR instr(capability_label, ?))";
        add(condition, label.clone().into());
    }
    if filter.is_kept {
        add("result_bytes > ?", 0.into());
    }
    if let Some(before) = before {
        add("id < ?", i64::try_from(before).unwrap_or(i64::MAX).into());
    }
    let mut statement = connection.prepare(&format!(
        "SELECT {MEASUREMENT} FROM specification WHERE {} ORDER BY id DESC LIMIT {}",
        conditions.join(" AND "),
        limit.saturating_add(1)
    ))?;
    let rows = statement.query_map(params_from_iter(values), read_measurement)?;
    let mut measurements: Vec<_> = rows.collect::<Result<_, _>>()?;
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let is_more = measurements.len() > limit;
    measurements.truncate(limit);
    let before = measurements.last().filter(|_| is_more).map(|last| last.id);
    Ok(Page { measurements, before })
}

/// Reads stories.
fn stories(
    connection: &Connection,
    token: &str,
    client: Option<&str>,
) -> rusqlite::Result<Stories> {
    // What a client asks must not cost a look at all there is.
    let named = match client {
        Some(_) => {
            "id IN (SELECT id FROM specification WHERE client = ?2 AND token = ?1
             UNION ALL SELECT id FROM specification WHERE label = ?1 AND client = ?2)"
        }
        None => "(token = ?1 OR handed_token = ?1 OR label = ?1) AND ?2 IS NULL",
    };
    let mut statement = connection.prepare(&format!(
        "SELECT {MEASUREMENT}, handed_token, epoch FROM specification
         WHERE {named} ORDER BY id DESC LIMIT 100"
    ))?;
    let mut steps = connection.prepare(
        "SELECT at_us, what, detail FROM step WHERE specification = ?1 ORDER BY number",
    )?;
    let mut parts = connection.prepare(
        "SELECT component, label, state FROM specification WHERE parent = ?1 ORDER BY id",
    )?;
    let found = statement.query_map(params![token, client], |row| {
        let measurement = read_measurement(row)?;
        let id: i64 = row.get(0)?;
        let parts = parts.query_map(params![id], |row| {
            let component: String = row.get(0)?;
            let component = identity(&component).to_string();
            Ok(Part { component, label: row.get(1)?, state: row.get(2)? })
        })?;
        let steps = steps.query_map(params![id], |row| {
            Ok(Step {
                at: shown(time(row.get(0)?)),
                what: row.get(1)?,
                detail: row.get(2)?,
            })
        })?;
        Ok(Story {
            measurement,
            handed_token: row.get(12)?,
            hand_outs: row.get::<_, i64>(13)?.try_into().unwrap_or(u32::MAX),
            steps: steps.collect::<Result<_, _>>()?,
            parts: parts.collect::<Result<_, _>>()?,
        })
    })?;
    let stories = found.collect::<Result<_, _>>()?;
    let mut statement = connection.prepare(
        "SELECT at_us, client, token, label, reason FROM refusal
         WHERE (token = ?1 OR label = ?1) AND (?2 IS NULL OR client = ?2)
         ORDER BY id DESC LIMIT 100",
    )?;
    let refused = statement.query_map(params![token, client], |row| {
        let client: String = row.get(1)?;
        Ok(Refused {
            at: shown(time(row.get(0)?)),
            client: identity(&client).to_string(),
            token: row.get(2)?,
            label: row.get(3)?,
            reason: row.get(4)?,
        })
    })?;
    Ok(Stories { stories, refused: refused.collect::<Result<_, _>>()? })
}
