//! What people are told of the store: lists of measurements, stories, and what components have
//! offered.

use jiff::Timestamp;
use mplane::access::Identity;
use mplane_runtime::stored::{identity_text, time};
use rusqlite::types::Value;
use rusqlite::{Connection, Row, params, params_from_iter};
use serde::{Deserialize, Serialize};

use super::read::identity;
use super::{Archive, StoreError};

/// Measurements on one page at most.
pub const PAGE: u32 = 1_000;

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
