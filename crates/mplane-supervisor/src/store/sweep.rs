//! What time takes: leases, deadlines, and what is kept no longer.

use std::time::Duration;

use jiff::Timestamp;
use mplane::access::Identity;
use mplane_runtime::stored::{identity_text, read_identity, time};
use rusqlite::{Connection, params};

use super::rows::{LIFE, UNANSWERED, note, read_life, read_token};
use super::{Id, Overdue, Store, StoreError, advance};
use crate::life::{Effect, End, Event, State};

/// Specifications looked at in one transaction, so that it does not hold up others.
const AT_ONCE: i64 = 1_000;

/// The condition that what is kept of a specification can go. What has not ended is in use:
/// the results so far of a repeat, and those of a part until all are joined.
const IS_SPARE: &str = "result_bytes > 0 AND settled_us IS NOT NULL
     AND NOT EXISTS (SELECT 1 FROM specification AS whole
       WHERE whole.id = specification.parent AND whole.settled_us IS NULL)";

/// What is kept how long, and how much of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// How long results are kept after the end.
    pub results: Duration,
    /// How long stories are kept after the end, and what a component does not offer any
    /// more; no shorter than results.
    pub stories: Duration,
    /// How many bytes the results of one client may have, the oldest go first.
    pub client_bytes: u64,
    /// How many bytes the results from one component may have, the oldest go first.
    pub component_bytes: u64,
}

/// What was not kept any longer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// Results.
    pub results: usize,
    /// Stories.
    pub stories: usize,
}

/// Makes the steps that time makes; returns when to look again.
pub(super) fn expire(
    connection: &Connection,
    now: Timestamp,
) -> rusqlite::Result<(Vec<Overdue>, Option<Timestamp>)> {
    let mut overdue = Vec::new();
    for (condition, event) in [
        ("deadline_us <= ?1 AND settled_us IS NULL", Event::TimeOver),
        ("lease_us <= ?1", Event::LeaseOver),
    ] {
        let mut due = connection.prepare_cached(&format!(
            "SELECT id, component, token, {LIFE} FROM specification
             WHERE {condition} LIMIT ?2"
        ))?;
        let rows = due.query_map(params![now.as_microsecond(), AT_ONCE], |row| {
            let (component, token): (String, String) = (row.get(1)?, row.get(2)?);
            let token = read_token(&token, 2)?;
            Ok((Id::of(row.get(0)?), component, token, read_life(row, 3)?))
        })?;
        for row in rows.collect::<Result<Vec<_>, _>>()? {
            let (id, component, token, life) = row;
            let effect = advance(connection, id, life, event, now)?;
            match effect {
                Effect::Wake => {
                    let detail = "the component did not answer the hand-out";
                    note(connection, id, now, "queued again", Some(detail))?;
                }
                Effect::Settle(End::Lost) => {
                    let detail = format!("the component {}", reason(life.state));
                    note(connection, id, now, "lost", Some(&detail))?;
                }
                Effect::Settle(_) => {
                    let detail = "the results so far are all that came";
                    note(connection, id, now, "ended", Some(detail))?;
                }
                _ => {}
            }
            let Some(component) = read_identity(&component) else { continue };
            let reason = reason(life.state);
            overdue.push(Overdue { id, token, component, effect, reason });
        }
    }
    Ok((overdue, next_deadline(connection)?))
}

/// Has handed out again what may not have reached components; returns those for which there
/// is something now.
pub(super) fn restarted(
    connection: &Connection,
    components: &[Identity],
    why: &str,
    now: Timestamp,
) -> rusqlite::Result<Vec<Identity>> {
    let mut woken = Vec::new();
    let mut open = connection.prepare_cached(&format!(
        "SELECT id, {LIFE} FROM specification WHERE component = ?1 AND {UNANSWERED}"
    ))?;
    for component in components {
        let rows = open.query_map(params![identity_text(component)], |row| {
            Ok((Id::of(row.get(0)?), read_life(row, 1)?))
        })?;
        let mut is_woken = false;
        for row in rows.collect::<Result<Vec<_>, _>>()? {
            let (id, life) = row;
            if advance(connection, id, life, Event::Restarted, now)? == Effect::Wake {
                note(connection, id, now, "queued again", Some(why))?;
                is_woken = true;
            }
        }
        woken.extend(is_woken.then(|| component.clone()));
    }
    Ok(woken)
}

/// Says in which way a component has left a specification alone.
const fn reason(state: State) -> &'static str {
    match state {
        State::Queued => "did not fetch the specification",
        State::Handed { .. } => "fetched the specification and did not answer",
        State::Receipted | State::Settled(_) => {
            "promised a result and did not deliver it"
        }
    }
}

/// Returns when the first specification is to be looked at.
pub(super) fn next_deadline(
    connection: &Connection,
) -> rusqlite::Result<Option<Timestamp>> {
    let next: Option<i64> = connection.query_row(
        "SELECT min(next) FROM (
           SELECT min(lease_us) AS next FROM specification WHERE lease_us IS NOT NULL
           UNION ALL
           SELECT min(deadline_us) FROM specification
           WHERE settled_us IS NULL AND deadline_us IS NOT NULL)",
        [],
        |row| row.get(0),
    )?;
    Ok(next.map(time))
}

impl Store {
    /// Keeps no longer what has its time behind it, or is more than may be: a part of it.
    /// Returns how much; nothing means that all is done.
    pub async fn sweep(
        &self,
        retention: Retention,
        now: Timestamp,
    ) -> Result<Swept, StoreError> {
        let before = |age: Duration| {
            now.checked_sub(age).map_or(i64::MIN, Timestamp::as_microsecond)
        };
        let (results, stories) = (before(retention.results), before(retention.stories));
        // Looking for it takes a while: that must not hold up those who write.
        let found = self.archive.control.read(move |connection| {
            let old = format!(
                "SELECT id FROM specification WHERE settled_us <= ?1 AND {IS_SPARE}
                 ORDER BY settled_us LIMIT ?2"
            );
            let old = ids(connection, &old, results)?;
            let mut gone: Vec<(i64, &str)> =
                old.into_iter().map(|id| (id, "it was kept as long as is set")).collect();
            for (of, most, why) in [
                ("client", retention.client_bytes, "its client has more than is kept"),
                (
                    "component",
                    retention.component_bytes,
                    "its component has more than is kept",
                ),
            ] {
                let over = over_quota(connection, of, most)?;
                gone.extend(over.into_iter().map(|id| (id, why)));
            }
            gone.sort_unstable();
            gone.dedup_by_key(|(id, _)| *id);
            // Parts of one for many components are forgotten with it: here they come first.
            let forgotten = ids(
                connection,
                "SELECT id FROM specification WHERE settled_us <= ?1
                 ORDER BY settled_us, parent IS NULL LIMIT ?2",
                stories,
            )?;
            Ok((gone, forgotten))
        });
        let (gone, forgotten) = found.await?;
        let swept = Swept { results: gone.len(), stories: forgotten.len() };
        // Results first: should the program be cut in between, they are found again.
        if swept != Swept::default() {
            let without: Vec<i64> =
                gone.iter().map(|(id, _)| id).chain(&forgotten).copied().collect();
            let deleted = self.results.call(move |connection| {
                let mut delete = connection
                    .prepare_cached("DELETE FROM result WHERE specification = ?1")?;
                for id in without {
                    delete.execute(params![id])?;
                }
                Ok(())
            });
            deleted.await?;
        }
        let noted = self.control.call(move |connection| {
            for (id, why) in gone {
                // A tombstone is left, which can say what became of it.
                connection
                    .prepare_cached(
                        "UPDATE specification SET result_bytes = 0, asked = NULL,
                         handed = NULL WHERE id = ?1",
                    )?
                    .execute(params![id])?;
                let what = "result not kept any more";
                note(connection, Id::of(id), now, what, Some(why))?;
            }
            for id in forgotten {
                connection
                    .prepare_cached("DELETE FROM specification WHERE id = ?1")?
                    .execute(params![id])?;
            }
            for (query, before) in [
                ("DELETE FROM capability WHERE until_us <= ?1", stories),
                ("DELETE FROM refusal WHERE at_us <= ?1", stories),
                ("DELETE FROM tally WHERE specifications = ?1", 0),
                ("DELETE FROM kept WHERE bytes = ?1", 0),
            ] {
                connection.prepare_cached(query)?.execute(params![before])?;
            }
            Ok(())
        });
        noted.await?;
        Ok(swept)
    }
}

/// Reads ids.
fn ids(connection: &Connection, query: &str, at: i64) -> rusqlite::Result<Vec<i64>> {
    let mut statement = connection.prepare_cached(query)?;
    statement.query_map(params![at, AT_ONCE], |row| row.get(0))?.collect()
}

/// Returns the oldest results of those who have more than they may: of clients or of
/// components, as the column says.
fn over_quota(
    connection: &Connection,
    column: &str,
    most: u64,
) -> rusqlite::Result<Vec<i64>> {
    let most = i64::try_from(most).unwrap_or(i64::MAX);
    let mut over = connection.prepare_cached(
        "SELECT name, bytes - ?2 FROM kept WHERE kind = ?1 AND bytes > ?2",
    )?;
    let over: Vec<(String, i64)> = over
        .query_map(params![column, most], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect::<Result<_, _>>()?;
    let of_one = if column == "component" { "AND is_parent = 0" } else { "" };
    let mut ids = Vec::new();
    for (name, mut excess) in over {
        let mut oldest = connection.prepare_cached(&format!(
            "SELECT id, result_bytes FROM specification INDEXED BY specification_kept
             WHERE {column} = ?1 AND {IS_SPARE} {of_one} ORDER BY settled_us LIMIT ?2"
        ))?;
        let mut rows = oldest.query(params![name, AT_ONCE])?;
        while excess > 0
            && let Some(row) = rows.next()?
        {
            ids.push(row.get(0)?);
            excess -= row.get::<_, i64>(1)?;
        }
    }
    Ok(ids)
}
