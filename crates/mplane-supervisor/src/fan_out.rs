//! Fan-out: one specification for many components.
//!
//! Where several components offer the same under one label, a client may ask all of them at
//! once: `label@*` is a capability of its own. Its parameter `component.identity` selects
//! components: `all`, a common name, a pattern of the identity in which `*` stands for any
//! text, `ELEMENT=PATTERN` for a piece of metadata of the capability, or several of these
//! joined by `&`. The result has the rows of all, each with the component that it comes from.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use mplane::access::Identity;
use mplane::constraint::Constraint;
use mplane::exchange::component::without_serial;
use mplane::limits;
use mplane::message::{
    Capability, Envelope, Exception, Message, Parameter, ResultStatement, Specification,
    Statement, Table,
};
use mplane::primitive::Value;
use mplane::registry::{PLATFORM, Registries};
use mplane::when::When;

use crate::directory::Choice;
use crate::pattern::matches;

/// The end of the label of a capability of all components that offer it.
const ALL: &str = "@*";

/// The parameter that selects components, and the column that names them.
const IDENTITY: &str = "component.identity";

/// The pattern that means all components; `*` alone is how no value is written.
const EVERYBODY: &str = "all";

/// Bytes of what components have yielded that become one result: the largest message, with
/// room for what it says besides.
pub(crate) const MERGED_BYTES: usize = limits::MESSAGE_BYTES / 8 * 7;

/// Components that one specification is handed to at most: a bound on what one request of a
/// client can cause.
pub(crate) const WIDTH: usize = 1_000;

/// Returns the label of the components' capabilities, if a label is that of a fan-out.
pub(crate) fn base_label(label: &str) -> Option<&str> {
    without_serial(label).strip_suffix(ALL)
}

/// Says whether a label is that of a capability of many components.
pub(crate) fn is_of_many(label: &str) -> bool {
    base_label(label).is_some()
}

/// Returns the label in the token of a capability of many components.
pub(crate) fn label_in(token: &str) -> Option<&str> {
    let (_, rest) = token.split_once(ALL)?;
    rest.strip_prefix('.')
}

/// Joins what several components offer under one label into one capability; `None` if there
/// are not several, or they do not offer the same.
pub(crate) fn join(
    label: &str,
    alike: &[Arc<Capability>],
    registries: &Registries,
) -> Option<Capability> {
    let (first, others) = alike.split_first().filter(|(_, others)| !others.is_empty())?;
    if others.iter().any(|other| {
        other.schema() != first.schema()
            || other.verb() != first.verb()
            || other.when() != first.when()
    }) {
        return None;
    }
    let identity = registries.element(PLATFORM, IDENTITY).ok()?;
    let mut joined = Statement::new(first.verb(), PLATFORM, first.when().clone())
        .labelled(format!("{label}{ALL}"));
    let any = || Constraint::Any;
    joined.add_parameter(Parameter::new(Arc::clone(identity), any())).ok()?;
    for parameter in first.parameters() {
        let name = parameter.element().name();
        let constraints = || {
            let of_others = others.iter().filter_map(|other| other.find_parameter(name));
            of_others.map(Parameter::constraint)
        };
        let is_own = |constraint: &Constraint| constraint.single_value().is_some();
        let constraint = if constraints().all(|other| other == parameter.constraint()) {
            parameter.constraint().clone()
        } else if is_own(parameter.constraint()) && constraints().all(is_own) {
            // Each has its own, such as the address that it sends from.
            continue;
        } else {
            any()
        };
        let element = Arc::clone(parameter.element());
        joined.add_parameter(Parameter::new(element, constraint)).ok()?;
    }
    joined.add_column(Arc::clone(identity)).ok()?;
    for column in first.columns() {
        joined.add_column(Arc::clone(column)).ok()?;
    }
    let mut joined = Capability::new(joined);
    // Labels are not part of a token, and others may offer the same under another label. One
    // that is too long for a token cannot be asked of all.
    let unique = format!("{}{ALL}.{label}", joined.token()).parse().ok()?;
    joined.set_token(Some(unique));
    Some(joined)
}

/// Returns what each component is to do, of those that are meant and can.
pub(crate) fn split(
    asked: &Specification,
    offered: impl IntoIterator<Item = Choice>,
    now: Timestamp,
) -> Result<Vec<(Choice, Specification)>, SplitError> {
    let pattern = match asked.value(IDENTITY) {
        Some(Value::String(pattern)) => pattern.to_string(),
        _ => EVERYBODY.to_owned(),
    };
    let mut parts = Vec::new();
    let mut refusal = None;
    for choice in offered {
        let name = choice.component.to_string();
        if !is_meant(&pattern, &choice, &name) {
            continue;
        }
        let mut part = Specification::of(&choice.capability);
        part.set_when(asked.when().clone());
        for parameter in asked.parameters() {
            let wanted = parameter.element().name();
            if let Some(value) = parameter.value()
                && part.find_parameter(wanted).is_some()
                && let Err(error) = part.set_value(wanted, Some(value.clone()))
            {
                refusal.get_or_insert_with(|| format!("{name}: {error}"));
            }
        }
        match part.fulfills(&choice.capability, now) {
            Ok(()) => parts.push((choice, part)),
            Err(reason) => {
                refusal.get_or_insert_with(|| format!("{name}: {reason}"));
            }
        }
    }
    if parts.len() > WIDTH {
        return Err(SplitError::Width { components: parts.len() });
    }
    if parts.is_empty() {
        return Err(refusal.map_or(SplitError::Nobody { pattern }, SplitError::Refused));
    }
    Ok(parts)
}

/// Says whether a component is one of those that are selected: by its name, by a pattern of
/// its identity, or by what its capability says of it, as `ELEMENT=PATTERN`. Of several
/// conditions, joined by `&`, each must hold.
fn is_meant(selector: &str, choice: &Choice, identity: &str) -> bool {
    let is_met = |pattern: &str| {
        let of_metadata = pattern.split_once('=').is_some_and(|(element, pattern)| {
            let told = choice.capability.find_metadata(element);
            told.is_some_and(|told| matches(pattern, &told.to_string()))
        });
        pattern == EVERYBODY
            || pattern == choice.component.common_name()
            || matches(pattern, identity)
            || of_metadata
    };
    // A name may have the sign in it.
    is_met(selector) || selector.contains('&') && selector.split('&').all(is_met)
}

/// What one component has yielded.
pub(crate) struct Yield {
    /// Who.
    pub(crate) component: Identity,
    /// What; `None` if nothing came, or it is not kept any more.
    pub(crate) message: Option<Message>,
    /// How large it is, as JSON.
    pub(crate) bytes: usize,
    /// Whether there is room for it in one result.
    pub(crate) has_room: bool,
}

/// Rows of many components with the same columns, and the time over which they were measured.
struct Joined {
    table: Table,
    start: Option<Timestamp>,
    end: Option<Timestamp>,
}

impl Joined {
    fn new(asked: &Specification) -> Self {
        Self { table: Table::new(asked.columns()), start: None, end: None }
    }

    /// Adds the rows of a result, each with the component that it comes from. Says whether
    /// there was room.
    fn add(
        &mut self,
        asked: &Specification,
        component: &str,
        result: &ResultStatement,
        now: Timestamp,
    ) -> bool {
        if self.table.rows() + result.table().rows() > limits::RESULT_ROWS {
            return false;
        }
        let bounds = result.when().bounds(now);
        self.start = self.start.into_iter().chain(bounds.start).min();
        self.end = self.end.into_iter().chain(bounds.end).max();
        for row in result.table().iter() {
            let value = |element: &str| match element {
                IDENTITY => Some(Value::String(component.into())),
                other => row.value(other),
            };
            let columns: Vec<_> =
                asked.columns().map(|column| value(column.name())).collect();
            self.table.push(columns);
        }
        true
    }

    /// Makes the result.
    fn finish(self, asked: &Specification, now: Timestamp) -> ResultStatement {
        let when = When::between(self.start.unwrap_or(now), self.end.unwrap_or(now));
        let mut result = ResultStatement::of(asked, when, self.table);
        result.set_label(asked.label().map(ToOwned::to_owned));
        result
    }
}

/// Takes room for what a component has yielded, with a cell for its name in each row. Says
/// whether there is enough: one message must hold it all.
fn take_room(room: &mut usize, part: &Yield, rows: usize, name: &str) -> bool {
    let bytes = part.bytes.saturating_add(rows.saturating_mul(name.len() + 3));
    let is_enough = bytes <= *room;
    if is_enough {
        *room -= bytes;
    }
    is_enough
}

/// Why the rows of a component are left out.
const NO_ROOM: &str = "its rows do not fit into one result; its own result has them";

/// Makes one result of what components have yielded. Those that have failed are told in the
/// metadata; if all have, it is their reasons.
pub(crate) fn merge(
    asked: &Specification,
    parts: Vec<Yield>,
    registries: &Registries,
    now: Timestamp,
) -> Result<ResultStatement, String> {
    let mut joined = Joined::new(asked);
    let (count, mut room) = (parts.len(), MERGED_BYTES);
    let mut missing = Vec::new();
    for part in parts {
        let name = part.component.to_string();
        match &part.message {
            Some(Message::Result(result)) => {
                let rows = result.table().rows();
                let has_room = take_room(&mut room, &part, rows, &name)
                    && joined.add(asked, &name, result, now);
                if !has_room {
                    missing.push(format!("{name}: {NO_ROOM}"));
                }
            }
            other => missing.push(failure(&name, other.as_ref(), part.has_room)),
        }
    }
    if missing.len() == count {
        return Err(missing.join("; "));
    }
    let mut result = joined.finish(asked, now);
    if !missing.is_empty()
        && let Ok(element) = registries.element(PLATFORM, "measurement.incomplete")
    {
        let text =
            format!("{} of {count} components: {}", missing.len(), missing.join("; "));
        let value = Some(Value::String(text.into()));
        let _unchanged = result.add_metadata(Arc::clone(element), value).is_err();
    }
    Ok(result)
}

/// Says why there are no rows of a component.
fn failure(name: &str, message: Option<&Message>, has_room: bool) -> String {
    match message {
        None if !has_room => format!("{name}: {NO_ROOM}"),
        Some(Message::Exception(exception)) => format!("{name}: {}", exception.message()),
        Some(_) | None => format!("{name}: nothing came"),
    }
}

/// Makes one envelope of the repeats of components: a result for each measurement, with the
/// rows of all, and an exception for each component that has failed. If all have failed, it
/// is their reasons.
pub(crate) fn merge_repeats(
    asked: &Specification,
    parts: Vec<Yield>,
    now: Timestamp,
) -> Result<Envelope, String> {
    let repeats = Repeats::of(asked, parts, now);
    if repeats.results.is_empty() {
        return Err(repeats.missing.join("; "));
    }
    Ok(repeats.envelope(asked, now, true))
}

/// Makes one envelope of the repeats of components as far as they have come; `None` if there
/// are no results yet.
pub(crate) fn so_far(
    asked: &Specification,
    parts: Vec<Yield>,
    now: Timestamp,
) -> Option<Envelope> {
    let mut repeats = Repeats::of(asked, parts, now);
    // Nobody has failed who has not come yet.
    repeats.missing.clear();
    (!repeats.results.is_empty()).then(|| repeats.envelope(asked, now, false))
}

/// What came of the repeats of many components.
struct Repeats {
    /// The measurements, by their number.
    results: BTreeMap<i128, Joined>,
    /// Why there is nothing of others.
    missing: Vec<String>,
    /// Until when there is something of each, if there is.
    until: Option<Timestamp>,
}

impl Repeats {
    /// Puts together what was measured at the same time. Starts are spread, each component
    /// having a phase of its own, and clocks differ a little: those belong together that are as
    /// many periods after the first of their component, which may itself be some periods late.
    fn of(asked: &Specification, parts: Vec<Yield>, now: Timestamp) -> Self {
        let mut measured = Vec::new();
        let (mut missing, mut room) = (Vec::new(), MERGED_BYTES);
        let until = parts.iter().map(|part| reaches(part.message.as_ref(), now)).min();
        for part in parts {
            let name = part.component.to_string();
            let messages = match &part.message {
                Some(Message::Envelope(results)) => results.messages(),
                Some(result @ Message::Result(_)) => std::slice::from_ref(result),
                other => {
                    missing.push(failure(&name, other.as_ref(), part.has_room));
                    continue;
                }
            };
            let results: Vec<_> = messages
                .iter()
                .filter_map(|message| match message {
                    Message::Result(result) => Some(result.clone()),
                    _ => None,
                })
                .collect();
            let rows = results.iter().map(|result| result.table().rows()).sum();
            if !take_room(&mut room, &part, rows, &name) {
                missing.push(format!("{name}: {NO_ROOM}"));
                continue;
            }
            for message in messages {
                if let Message::Exception(exception) = message {
                    missing.push(format!("{name}: {}", exception.message()));
                }
            }
            measured.push((name, results));
        }
        let start = |result: &ResultStatement| result.when().bounds(now).start;
        let first_of =
            |results: &[ResultStatement]| results.iter().filter_map(start).min();
        let first = measured.iter().filter_map(|(_, results)| first_of(results)).min();
        let period = asked.when().period().map(|period| period.as_micros());
        let period = period.and_then(|period| i128::try_from(period).ok());
        let period = period.filter(|period| *period > 0);
        let number = |own_first: Option<Timestamp>, result: &ResultStatement| {
            let since =
                |at: Timestamp, from: Timestamp| at.duration_since(from).as_micros();
            let (own_first, late) = (own_first?, since(own_first?, first?));
            let since = since(start(result)?, own_first);
            Some(match period {
                Some(period) => late / period + (since + period / 2) / period,
                None => late + since,
            })
        };
        let mut results = BTreeMap::new();
        for (name, measured) in &measured {
            let own_first = first_of(measured);
            for result in measured {
                let joined = results
                    .entry(number(own_first, result).unwrap_or_default())
                    .or_insert_with(|| Joined::new(asked));
                if !joined.add(asked, name, result, now) {
                    missing.push(format!("{name}: {NO_ROOM}"));
                }
            }
        }
        Self { results, missing, until: until.flatten() }
    }

    /// Makes the envelope.
    fn envelope(self, asked: &Specification, now: Timestamp, are_all: bool) -> Envelope {
        let first = self.results.values().filter_map(|joined| joined.start).min();
        let last = self.results.values().filter_map(|joined| joined.end).max();
        // Results so far reach as far as those of the component that has come least far.
        let so_far = self.until.or(first);
        let until = if are_all { last.into_iter().chain([now]).max() } else { so_far };
        let mut messages: Vec<Message> = self
            .results
            .into_values()
            .map(|joined| joined.finish(asked, now).into())
            .collect();
        let token = asked.token();
        let failures = self.missing.into_iter().take(WIDTH);
        messages.extend(
            failures.map(|reason| Exception::new(Some(token.clone()), reason).into()),
        );
        let mut envelope = Envelope::of(messages).with_content("result");
        envelope.keep_last(limits::ENVELOPE_CONTENTS);
        envelope.set_token(Some(token));
        envelope.set_label(asked.label().map(ToOwned::to_owned));
        let scope = When::between(first.unwrap_or(now), until.unwrap_or(now));
        envelope.set_when(Some(scope.with_period(asked.when().period())));
        envelope
    }
}

/// Returns until when there is something of a component: nothing at first, and all that may be
/// of one that has failed.
fn reaches(message: Option<&Message>, now: Timestamp) -> Option<Timestamp> {
    match message? {
        Message::Envelope(results) => results.when()?.bounds(now).end,
        Message::Result(result) => result.when().bounds(now).end,
        _ => Some(Timestamp::MAX),
    }
}

/// A fan-out that cannot be made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SplitError {
    /// Too many components.
    #[error(
        "{components} components are meant, a specification is handed to {WIDTH} at most; \
         narrow component.identity"
    )]
    Width {
        /// How many.
        components: usize,
    },
    /// No component.
    #[error("no component that offers it is called {pattern}")]
    Nobody {
        /// The pattern.
        pattern: String,
    },
    /// None can do it; why the first cannot.
    #[error("none of the components can do it; {0}")]
    Refused(String),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn components_are_selected_by_name_identity_or_metadata() {
        let registries = Registries::embedded();
        let statement = Statement::measure(When::now_to_future())
            .metavalue(&registries, "location.civil", "Politecnico, Turin")
            .unwrap();
        let names = ["Demo", "Components", "probe-1"].map(Into::into);
        let choice = Choice {
            component: Identity::new(names, Some("Components")),
            capability: Arc::new(Capability::new(statement)),
        };
        for (pattern, expected) in [
            ("all", true),
            ("probe-1", true),
            ("probe", false),
            ("Demo.*", true),
            ("location.civil=*Turin", true),
            ("location.civil=Turin", false),
            ("location.latitude=*", false),
            ("Demo.*&location.civil=*Turin", true),
            ("Demo.*&location.civil=*Milan", false),
            ("probe-2&location.civil=*Turin", false),
        ] {
            let name = choice.component.to_string();
            assert_eq!(is_meant(pattern, &choice, &name), expected, "{pattern}");
        }
    }
}
