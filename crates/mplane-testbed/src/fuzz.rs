//! What fuzzing checks: the bodies of the targets in `fuzz/`.
//!
//! They are functions here so that the kept corpora run as ordinary tests too. Each takes
//! any bytes, and panics only if something is wrong.

use mplane::Timestamp;
use mplane::constraint::Constraint;
use mplane::json::{Form, decode_all, encode, encode_array};
use mplane::primitive::{Primitive, Value};
use mplane::registry::{Registries, Registry};
use mplane::when::{Instant, When, parse_duration};
use mplane_probe::packet::{
    EchoReply, EchoRequest, Family, Framing, Message, read_packet, read_quoted_request,
};
use mplane_probe::sweep::CookieKey;

/// Every primitive, so that a byte can choose one.
const PRIMITIVES: [Primitive; 8] = [
    Primitive::String,
    Primitive::Natural,
    Primitive::Real,
    Primitive::Bool,
    Primitive::Time,
    Primitive::Address,
    Primitive::Url,
    Primitive::Object,
];

/// Reads messages. What is read can be written in both forms and read again as the same.
///
/// # Panics
///
/// If it cannot.
pub fn json(input: &[u8]) {
    let registries = Registries::embedded();
    let Ok(messages) = decode_all(input, &registries) else { return };
    for form in [Form::NATIVE, Form::REFERENCE, Form::FILE] {
        let written = encode_array(&messages, form);
        let again = decode_all(&written, &registries).expect("what was written is read");
        let rewritten = encode_array(&again, form);
        assert_eq!(rewritten, written, "{}", String::from_utf8_lossy(&written));
    }
    for message in messages {
        assert!(!encode(&message, Form::REFERENCE).is_empty());
        assert!(!message.to_string().is_empty());
        assert!(!message.render().is_empty());
    }
}

/// Reads temporal scopes, instants and durations. What is read prints and reads as the
/// same, and answers every question.
///
/// # Panics
///
/// If it does not.
pub fn when(input: &[u8]) {
    let Ok(text) = str::from_utf8(input) else { return };
    if let Ok(duration) = parse_duration(text) {
        let printed = mplane::when::display_duration(duration).to_string();
        assert_eq!(parse_duration(&printed), Ok(duration));
    }
    if let Ok(instant) = text.parse::<Instant>() {
        assert_eq!(instant.to_string().parse(), Ok(instant));
    }
    let (one, other) = text.split_once('\n').unwrap_or((text, "now ... future"));
    let (Ok(one), Ok(other)) = (one.parse::<When>(), other.parse::<When>()) else {
        return;
    };
    for scope in [&one, &other] {
        assert_eq!(scope.to_string().parse().as_ref(), Ok(scope));
        assert_eq!(scope.hash_text().parse().as_ref(), Ok(scope));
        for now in [Timestamp::MIN, Timestamp::UNIX_EPOCH, Timestamp::MAX] {
            let bounds = scope.bounds(now);
            assert_eq!(scope.resolve(now).bounds(Timestamp::UNIX_EPOCH), bounds);
            assert!(scope.delays(now).is_some() || !scope.is_infinite());
            scope.occurrences(now).into_iter().flatten().take(3).for_each(drop);
            assert!(!one.lies_within(&other, now) || one.follows(&other, now));
        }
    }
}

/// Reads constraints on one type, which the first byte chooses. What is read prints and
/// reads as the same, and what two have in common is in both.
///
/// # Panics
///
/// If it is not.
pub fn constraint(input: &[u8]) {
    let Some((choice, text)) = input.split_first() else { return };
    let Ok(text) = str::from_utf8(text) else { return };
    let primitive = PRIMITIVES[usize::from(*choice) % PRIMITIVES.len()];
    if let Ok(Some(value)) = Value::parse(primitive, text) {
        let printed = value.to_string();
        assert_eq!(Value::parse(primitive, &printed), Ok(Some(value)), "{printed:?}");
    }
    let (one, other) = text.split_once('\n').unwrap_or((text, "*"));
    let read = |text: &str| Constraint::parse(primitive, text);
    let (Ok(one), Ok(other)) = (read(one), read(other)) else { return };
    for constraint in [&one, &other] {
        let printed = constraint.to_string();
        assert_eq!(read(&printed).as_ref(), Ok(constraint), "{printed:?}");
    }
    let both = one.intersect(&other);
    assert_eq!(other.intersect(&one), both);
    if let Some(both) = both {
        assert!(one.contains(&both) && other.contains(&both), "{one} {other} {both}");
    }
}

/// Reads a registry file. What is read can be shown and searched.
///
/// # Panics
///
/// If it cannot.
pub fn registry(input: &[u8]) {
    let mut registries = Registries::embedded();
    let Ok(registry) = Registry::parse(input, &registries) else { return };
    assert!(registry.to_markdown().lines().count() >= 2 + registry.elements().len());
    for element in registry.elements() {
        assert_eq!(registry.element(element.name()), Some(element));
        assert!(element.transformation_to(element).is_some());
    }
    let uri = registry.uri().to_owned();
    registries.add(registry);
    assert!(registries.registry(&uri).is_some());
}

/// Reads a packet as an ICMP socket delivers it, and as an error queue quotes a request. The
/// first byte chooses the family and whether there is an IPv4 header. What is read is within
/// the packet, prints, and is what a request that was written so says.
///
/// # Panics
///
/// If it is not.
pub fn reply(input: &[u8]) {
    let Some((choice, packet)) = input.split_first() else { return };
    let family = if choice & 1 == 0 { Family::V4 } else { Family::V6 };
    let framing = if choice & 2 == 0 { Framing::Bare } else { Framing::Ipv4Header };
    let key = CookieKey::random();
    if let Some(quoted) = read_quoted_request(family, packet) {
        check_payload(packet, quoted.payload, &key);
    }
    let read = match read_packet(family, framing, packet) {
        Ok(read) => read,
        Err(error) => {
            assert!(!error.to_string().is_empty());
            return;
        }
    };
    match read.message {
        Message::EchoReply(reply) => {
            check_payload(packet, reply.payload, &key);
            let EchoReply { identifier, sequence, payload } = reply;
            let mut written = Vec::new();
            EchoRequest { identifier, sequence, payload }.write(family, &mut written);
            let again = read_quoted_request(family, &written).expect("a request");
            let again = (again.identifier, again.sequence, again.payload);
            assert_eq!(again, (identifier, sequence, payload));
        }
        Message::Report(report) => {
            check_payload(packet, report.quoted.payload, &key);
            assert!(!report.problem.to_string().is_empty());
        }
        Message::Other { .. } => {}
    }
}

/// Checks that a payload is no longer than its packet, and proves nothing to who has drawn
/// its key only now.
fn check_payload(packet: &[u8], payload: &[u8], key: &CookieKey) {
    assert!(payload.len() + 8 <= packet.len());
    assert_eq!(key.read(payload), None);
}
