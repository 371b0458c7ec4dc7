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
mod error;
mod rows;
#[cfg(test)]
mod tests;
mod value;
mod wire;

pub use decode::{Parts, Unreadable, decode, decode_all, decode_parts, decode_rows};
pub use encode::{Form, Layout, encode, encode_array, encode_rows};
pub use error::{DecodeError, Place};

/// The media type of messages, written without parameters: the reference's programs
/// compare it literally.
pub const MEDIA_TYPE: &str = "application/x-mplane+json";
