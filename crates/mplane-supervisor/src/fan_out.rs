//! Fan-out: one specification for many components.
//!
//! Where several components offer the same under one label, a client may ask all of them at
//! once: `label@*` is a capability of its own. Its parameter `component.identity` selects
//! components: `all`, a common name, a pattern of the identity in which `*` stands for any
//! text, or `ELEMENT=PATTERN` for a piece of metadata of the capability. The result has the
//! rows of all, each with the component that it comes from.

use std::sync::Arc;

use jiff::Timestamp;
use mplane::access::Identity;
use mplane::constraint::Constraint;
use mplane::exchange::component::without_serial;
use mplane::message::{
    Capability, Message, Parameter, ResultStatement, Specification, Statement, Table,
};
use mplane::primitive::Value;
use mplane::registry::{PLATFORM, Registries};
use mplane::when::When;

use crate::directory::Choice;

/// The end of the label of a capability of all components that offer it.
const ALL: &str = "@*";

/// The parameter that selects components, and the column that names them.
const IDENTITY: &str = "component.identity";

/// The pattern that means all components; `*` alone is how no value is written.
const EVERYBODY: &str = "all";

/// Components that one specification is handed to at most: a bound on what one request of a
/// client can cause.
pub(crate) const WIDTH: usize = 1_000;

/// Returns the label of the components' capabilities, if a label is that of a fan-out.
pub(crate) fn base_label(label: &str) -> Option<&str> {
    without_serial(label).strip_suffix(ALL)
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
    // Labels are not part of a token, and others may offer the same under another label. A
    // name too long for a token leaves the label to tell them apart.
    let unique = format!("{}{ALL}.{label}", joined.token()).parse();
    joined.set_token(unique.ok());
    Some(joined)
}

/// Returns what each component is to do, of those that are meant and can.
pub(crate) fn split(
    asked: &Specification,
    offered: impl IntoIterator<Item = Choice>,
    now: Timestamp,
) -> Result<Vec<(Choice, Specification)>, SplitError> {
    if asked.when().is_repeated() {
        return Err(SplitError::Repeat);
    }
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
/// its identity, or by what its capability says of it, as `ELEMENT=PATTERN`.
fn is_meant(pattern: &str, choice: &Choice, identity: &str) -> bool {
    let of_metadata = pattern.split_once('=').is_some_and(|(element, pattern)| {
        let told = choice.capability.find_metadata(element);
        told.is_some_and(|told| matches(pattern, &told.to_string()))
    });
    pattern == EVERYBODY
        || pattern == choice.component.common_name()
        || matches(pattern, identity)
        || of_metadata
}

/// Says whether a text matches a pattern in which `*` stands for any text.
fn matches(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(mut rest) = parts.next().and_then(|first| text.strip_prefix(first)) else {
        return false;
    };
    let mut parts: Vec<_> = parts.collect();
    let Some(last) = parts.pop() else { return rest.is_empty() };
    for part in parts {
        let Some(at) = rest.find(part) else { return false };
        rest = rest.split_at(at + part.len()).1;
    }
    rest.ends_with(last)
}

/// Makes one result of what components have yielded. Those that have failed are told in the
/// metadata; if all have, it is their reasons.
pub(crate) fn merge(
    asked: &Specification,
    parts: Vec<(Identity, Option<Message>)>,
    registries: &Registries,
    now: Timestamp,
) -> Result<ResultStatement, String> {
    let mut table = Table::new(asked.columns());
    let (mut start, mut end) = (None::<Timestamp>, None::<Timestamp>);
    let count = parts.len();
    let mut missing = Vec::new();
    let mut is_full = false;
    for (component, message) in parts {
        let name = component.to_string();
        let result = match message {
            Some(Message::Result(result)) => result,
            Some(Message::Exception(exception)) => {
                missing.push(format!("{name}: {}", exception.message()));
                continue;
            }
            Some(_) | None => {
                missing.push(format!("{name}: nothing came"));
                continue;
            }
        };
        let bounds = result.when().bounds(now);
        start = start.into_iter().chain(bounds.start).min();
        end = end.into_iter().chain(bounds.end).max();
        for row in result.table().iter() {
            if table.rows() == mplane::limits::RESULT_ROWS {
                is_full = true;
                break;
            }
            let value = |element: &str| match element {
                IDENTITY => Some(Value::String(name.as_str().into())),
                other => row.value(other),
            };
            let columns: Vec<_> =
                asked.columns().map(|column| value(column.name())).collect();
            table.push(columns);
        }
    }
    if missing.len() == count {
        return Err(missing.join("; "));
    }
    let when = When::between(start.unwrap_or(now), end.unwrap_or(now));
    let mut result = ResultStatement::of(asked, when, table);
    if is_full {
        missing.push("there are more rows than a result may have".into());
    }
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

/// A fan-out that cannot be made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SplitError {
    /// It is repeated.
    #[error(
        "a repeat cannot be asked of all components at once; ask each, or all without repeat"
    )]
    Repeat,
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
        ] {
            let name = choice.component.to_string();
            assert_eq!(is_meant(pattern, &choice, &name), expected, "{pattern}");
        }
    }

    #[test]
    fn patterns_stand_for_any_text() {
        for (pattern, text, expected) in [
            ("*", "", true),
            ("*", "a.b", true),
            ("a*", "a.b", true),
            ("*b", "a.b", true),
            ("a*c", "a.b", false),
            ("*.Components.probe-*", "Demo.Components.probe-1", true),
            ("*.Components.probe-*", "Demo.Clients.probe-1", false),
            ("a.b", "a.b", true),
            ("a.b", "a.bc", false),
            ("a*a", "a", false),
            ("a**b", "a.b", true),
        ] {
            assert_eq!(matches(pattern, text), expected, "{pattern} {text}");
        }
    }
}
