//! How what the domain knows is kept in databases: identities, messages and times as text
//! and numbers.

use jiff::Timestamp;
use mplane::access::Identity;
use mplane::json::{Form, encode};
use mplane::message::Message;
use serde::{Deserialize, Serialize};

/// An identity as it is kept.
#[derive(Serialize, Deserialize)]
struct StoredIdentity {
    names: Vec<String>,
    unit: Option<String>,
}

/// Writes an identity: JSON, so that no name can be taken for two.
pub fn identity_text(identity: &Identity) -> String {
    let names = identity.names().map(ToOwned::to_owned).collect();
    let unit = identity.unit().map(ToOwned::to_owned);
    serde_json::json!(StoredIdentity { names, unit }).to_string()
}

/// Reads an identity; `None` if the text is none.
pub fn read_identity(text: &str) -> Option<Identity> {
    let StoredIdentity { names, unit } = serde_json::from_str(text).ok()?;
    if names.is_empty() {
        return Some(Identity::unauthenticated());
    }
    Some(Identity::new(names.into_iter().map(Into::into), unit.as_deref()))
}

/// Writes a message: in the form in which nothing of it is lost.
pub fn message_text(message: &Message) -> String {
    String::from_utf8_lossy(&encode(message, Form::NATIVE)).into_owned()
}

/// Reads a time: microseconds since 1970, UTC.
pub fn time(microseconds: i64) -> Timestamp {
    Timestamp::from_microsecond(microseconds).unwrap_or_default()
}
