//! mPlane over HTTPS: one server loop, one client, and the routes that clients use. Plain
//! HTTP is the same without TLS, where it is configured.
//!
//! Source: mPlane protocol specification, "mPlane over HTTPS"; protocol notes, section 7.

pub mod client;
mod intake;
mod outflow;
mod pace;
mod page;
mod plain;
pub mod routes;
pub mod server;

use std::time::Duration;

use mplane::access::Identity;
use mplane::features::Features;
use mplane::message::Message;

pub use intake::Received;
pub use plain::PlainHttp;

/// Paths, relative to a base URL.
pub mod path {
    /// The capabilities of a component or supervisor, as one envelope.
    pub const CAPABILITIES: &str = "/capabilities";
    /// A page with a link to each capability of a component.
    pub const CAPABILITY_PAGE: &str = "/capability";
    /// Where components offer capabilities to a supervisor.
    pub const REGISTER_CAPABILITY: &str = "/register/capability";
    /// The query behind it of the first envelope of all that a component offers.
    pub const FIRST: &str = "registration=first";
    /// The query of the last one: what the component has offered before is not offered any
    /// more, unless it has come since the first.
    pub const LAST: &str = "registration=last";
    /// The query of the only one.
    pub const WHOLE: &str = "registration=whole";
    /// Where components fetch specifications from a supervisor.
    pub const SHOW_SPECIFICATION: &str = "/show/specification";
    /// Where components deliver receipts, results and exceptions.
    pub const REGISTER_RESULT: &str = "/register/result";
}

/// The longest that a request may ask to wait for an answer (`Prefer: wait`), so that a
/// connection lost on the way is noticed.
pub const LONGEST_WAIT: Duration = Duration::from_secs(30);

/// How many seconds a peer is asked to wait with what cannot be done now.
pub const RETRY_AFTER_S: u16 = 5;

/// How long a specification waits for its result when the client does not say: the
/// reference waits as long.
pub const DEFAULT_WAIT: Duration = Duration::from_secs(5);

/// Where a request came from.
#[derive(Clone, Copy, Debug)]
pub struct Origin(pub std::net::SocketAddr);

/// Who sent a request.
#[derive(Clone, Debug)]
pub struct Peer {
    /// The subject of its certificate; unauthenticated in plain HTTP.
    pub identity: Identity,
    /// What it understands.
    pub features: Features,
}

impl Peer {
    /// Returns the scheme of the URL by which it reached us, and the port if that URL has
    /// none.
    pub fn scheme(&self) -> (&'static str, u16) {
        if self.identity.is_authenticated() { ("https", 443) } else { ("http", 80) }
    }
}

/// Reads the seconds of a `Prefer: wait=N` header (RFC 7240), limited to
/// [`LONGEST_WAIT`].
pub fn preferred_wait(headers: &http::HeaderMap) -> Option<Duration> {
    headers
        .get_all("prefer")
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split([',', ';']))
        .find_map(|preference| preference.trim().strip_prefix("wait="))
        .and_then(|seconds| seconds.trim_matches('"').parse().ok())
        .map(|seconds| Duration::from_secs(seconds).min(LONGEST_WAIT))
}

/// Reads from its header `Date` how far a peer's clock is ahead of ours, in whole seconds.
pub fn clock_ahead_s(date: &http::HeaderValue) -> Option<i64> {
    let date = jiff::fmt::rfc2822::parse(date.to_str().ok()?).ok()?.timestamp();
    // A date has no fraction: it stands for the middle of its second.
    let ahead = date.duration_since(jiff::Timestamp::now()) + HALF_SECOND;
    Some(ahead.as_secs())
}

/// Half of the resolution of a date.
const HALF_SECOND: jiff::SignedDuration = jiff::SignedDuration::from_millis(500);

/// Reads the features that a peer announces.
fn announced_features(headers: &http::HeaderMap) -> Features {
    let header = headers.get(mplane::features::HEADER).and_then(|v| v.to_str().ok());
    header.map_or(Features::NONE, Features::parse)
}

/// Says in a few words what messages these are, for logs.
pub fn describe(messages: &[Message]) -> String {
    match messages {
        [] => "nothing".into(),
        [Message::Envelope(envelope)] => match envelope.messages() {
            [] => "empty envelope".into(),
            [only] => format!("envelope of {}", describe_one(only)),
            contents => {
                let kind = contents[0].kind();
                let kind = if contents.iter().all(|message| message.kind() == kind) {
                    kind.key()
                } else {
                    "message"
                };
                format!("envelope of {} {}", contents.len(), plural(kind))
            }
        },
        [only] => describe_one(only),
        several => format!("{} messages", several.len()),
    }
}

/// Says in a few words what message this is.
fn describe_one(message: &Message) -> String {
    let kind = message.kind();
    match message {
        Message::Exception(exception) => format!("exception: {}", exception.message()),
        Message::Result(result) => format!(
            "result {} ({} rows)",
            result.label().unwrap_or_default(),
            result.table().rows()
        ),
        _ => match (message.label(), message.token()) {
            (Some(label), _) => format!("{kind} {label}"),
            (None, Some(token)) => format!("{kind} {}", token.short()),
            (None, None) => kind.to_string(),
        },
    }
}

/// Returns the plural of a kind of message.
fn plural(kind: &str) -> String {
    kind.strip_suffix('y').map_or_else(|| format!("{kind}s"), |stem| format!("{stem}ies"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_how_long_a_peer_wants_to_wait() {
        let wait = |value: &str| {
            let mut headers = http::HeaderMap::new();
            headers.insert("prefer", value.parse().unwrap());
            preferred_wait(&headers)
        };
        assert_eq!(wait("wait=3"), Some(Duration::from_secs(3)));
        assert_eq!(wait("respond-async, wait=100"), Some(LONGEST_WAIT));
        assert_eq!(wait("respond-async"), None);
        assert_eq!(wait("wait=soon"), None);
    }
}
