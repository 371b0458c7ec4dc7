//! Messages as JSON.
//!
//! Reading accepts everything that any known program writes: native numbers and booleans
//! or their text, keys in any order, unknown keys, message kinds of both protocol
//! versions. Writing follows a [`Form`], chosen by what the peer understands.
//!
//! Message types know nothing of JSON: the wire has its own structures here.
//!
//! Source: mPlane protocol specification, "Representation"; RFC 8259.
//!
//! Differences: duplicate keys are refused (the reference takes the last one), `export`
//! is export (the reference reads it as link), and written keys are always sorted.

mod decode;
mod encode;
mod wire;

pub use decode::{
    DecodeError, Parts, Place, Unreadable, decode, decode_all, decode_parts, decode_rows,
};
pub use encode::{Form, Layout, encode, encode_array, encode_rows};

/// The media type of messages, written without parameters: the reference's programs
/// compare it literally.
pub const MEDIA_TYPE: &str = "application/x-mplane+json";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::Registries;

    fn read(input: &str) -> Result<crate::message::Message, String> {
        decode(input.as_bytes(), &Registries::embedded()).map_err(|e| e.to_string())
    }

    #[test]
    fn one_unreadable_capability_does_not_cost_the_others() {
        let contents = r#"{"capability": "measure", "label": "a", "when": "now",
            "parameters": {"no.such": "*"}}, {"capability": "measure", "label": "b",
            "when": "now", "results": ["packets.lost"]}"#;
        let registries = Registries::embedded();
        for (input, is_array, place) in [
            (format!("[{contents}]"), true, "/0/parameters/no.such"),
            (
                format!(r#"{{"envelope": "capability", "contents": [{contents}]}}"#),
                false,
                "/contents/0/parameters/no.such",
            ),
        ] {
            let parts = decode_parts(input.as_bytes(), &registries).unwrap();
            assert_eq!(parts.is_array, is_array);
            let unreadable = parts.messages[0].as_ref().unwrap_err();
            assert_eq!(unreadable.label.as_deref(), Some("a"));
            assert_eq!(*unreadable.error.place(), Place::Pointer(place.into()));
            assert_eq!(parts.messages[1].as_ref().unwrap().label(), Some("b"));
        }
    }

    #[test]
    fn errors_name_the_place_and_the_remedy() {
        for (input, message) in [
            (
                "{}",
                "in the message: no key says what kind of message this is; one of \
                 capability, specification, result, receipt, redemption, withdrawal, \
                 interrupt, exception or envelope does",
            ),
            (
                r#"{"capability": "measure", "version": 3}"#,
                "at /version: only protocol version 1 is spoken here",
            ),
            (
                r#"{"capability": "measure", "capability": "query"}"#,
                "at line 1 column 38: key \"capability\" stands there twice",
            ),
            (
                r#"{"result": "measure", "when": "2026-06-01", "results": ["packets.lost"],
                    "resultvalues": [[1], [1, 2]]}"#,
                "at /resultvalues: row 1 has more values than there are result columns at \
                 line 1 column 12",
            ),
            (
                r#"{"result": "measure", "when": "2026-06-01", "results": ["packets.lost"],
                    "resultvalues": [[-1]]}"#,
                "at /resultvalues: row 0, column packets.lost: \"-1\" is not of type \
                 natural: naturals are not negative at line 1 column 5",
            ),
        ] {
            assert_eq!(read(input).unwrap_err(), message, "{input}");
        }
    }

    #[test]
    fn limits_are_errors() {
        let deep = format!(
            "{}{}",
            r#"{"envelope": "message", "contents": ["#.repeat(20),
            "]}".repeat(20)
        );
        assert!(read(&deep).unwrap_err().contains("envelopes nest at most 8 deep"));
        let nested = format!("{}{}", "[".repeat(200_000), "]".repeat(200_000));
        let ignored = format!(r#"{{"capability": "measure", "unknown": {nested}}}"#);
        assert!(read(&ignored).is_ok(), "unknown keys are skipped, however deep");
        let long = "x".repeat(crate::limits::LABEL_BYTES + 1);
        let labelled = format!(r#"{{"capability": "measure", "label": "{long}"}}"#);
        assert_eq!(
            read(&labelled).unwrap_err(),
            "at /label: there are at most 512 bytes here"
        );
        let large = vec![b' '; crate::limits::MESSAGE_BYTES + 1];
        let error = decode(&large, &Registries::embedded()).unwrap_err();
        assert_eq!(error.problem(), "a message has at most 67108864 bytes");
    }
}
