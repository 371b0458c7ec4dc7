//! What of an answer does not depend on who gives it, and when.

use std::collections::BTreeSet;
use std::fmt::{self, Display};

use serde_json::Value;

/// An answer as it came.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    /// The HTTP status.
    pub(crate) status: u64,
    /// The content type with its parameters; empty if there is none.
    pub(crate) content_type: String,
    /// The body.
    pub(crate) body: String,
}

/// What of an answer does not depend on who gives it: status and content type, the kind of
/// message with all that the request determines, the links of a page. Texts for people and
/// times that are not in the request are left out.
#[derive(Clone, Debug)]
pub(crate) struct Essence {
    pub(crate) status: u64,
    pub(crate) content_type: String,
    pub(crate) content: Content,
}

/// What a body says.
#[derive(Clone, Debug)]
pub(crate) enum Content {
    /// There is none.
    Nothing,
    /// The links of a page.
    Links(BTreeSet<String>),
    /// Text for people.
    Text,
    /// A message, or an answer to a registration.
    Json(Value),
}

impl Essence {
    /// Returns the essence of an answer to a request with this body.
    pub(crate) fn of(answer: &Answer, asked: &str) -> Self {
        let content = if answer.body.is_empty() {
            Content::Nothing
        } else if answer.content_type.starts_with("text/html") {
            let quoted = answer.body.split("href=").skip(1);
            let links = quoted.filter_map(|after| {
                let quote = after.chars().next()?;
                after.split(quote).nth(1).map(ToOwned::to_owned)
            });
            Content::Links(links.collect())
        } else {
            serde_json::from_str(&answer.body)
                .map_or(Content::Text, |json| Content::Json(message(json, asked)))
        };
        let Answer { status, content_type, .. } = answer.clone();
        Self { status, content_type, content }
    }
}

impl Display for Essence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { status, content_type, content } = self;
        write!(f, "{status} {content_type}")?;
        match content {
            Content::Nothing => Ok(()),
            Content::Links(links) => write!(f, " {links:?}"),
            Content::Text => write!(f, " …"),
            Content::Json(json) => write!(f, " {json}"),
        }
    }
}

/// Returns the essence of a message that came after a request with this body.
pub(crate) fn message(mut json: Value, asked: &str) -> Value {
    if let Some(fields) = json.as_object_mut() {
        for (key, value) in fields {
            match key.as_str() {
                "message" | "reason" => *value = "…".into(),
                "when" => {
                    if let Some(when) = value.as_str() {
                        *value = scope(when, asked).into();
                    }
                }
                "resultvalues" => without_times(value, asked),
                _ => {}
            }
        }
    }
    if json.get("registered").is_none() {
        for answer in
            json.as_object_mut().into_iter().flat_map(|fields| fields.values_mut())
        {
            // The answer to a registration, by label.
            if answer.get("registered").is_some() {
                *answer = message(answer.take(), asked);
            }
        }
    }
    if let Some(contents) = json.get_mut("contents").and_then(Value::as_array_mut) {
        for content in contents {
            *content = message(content.take(), asked);
            let is_callback =
                content["label"] == "callback" && !content["specification"].is_null();
            // References hash the time into the token of each result of a repeat.
            if is_callback || !content["result"].is_null() {
                content["token"] = "…".into();
            }
            if is_callback {
                content["when"] = "…".into();
            }
        }
    }
    json
}

/// Leaves times out of cells.
fn without_times(cells: &mut Value, asked: &str) {
    match cells {
        Value::Array(cells) => {
            for cell in cells {
                without_times(cell, asked);
            }
        }
        Value::String(text) => *text = scope(text, asked),
        _ => {}
    }
}

/// Leaves times out of a scope that are not in the request.
fn scope(when: &str, asked: &str) -> String {
    let (range, period) = when
        .split_once(" / ")
        .map_or((when, None), |(range, period)| (range, Some(period)));
    let times = range
        .split(" ... ")
        .map(|time| if is_time(time) && !asked.contains(time) { "…" } else { time });
    let mut scope = times.collect::<Vec<_>>().join(" ... ");
    if let Some(period) = period {
        scope.push_str(" / ");
        scope.push_str(period);
    }
    scope
}

/// Says whether this is a time such as `2026-11-20 07:29:38.989005`.
fn is_time(text: &str) -> bool {
    let form: String =
        text.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
    form.starts_with("0000-00-00 00:00:00")
}
