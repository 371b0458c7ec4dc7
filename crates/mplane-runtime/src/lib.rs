//! Components and clients of the mPlane protocol, over mutual TLS or, where that is
//! configured, in plain HTTP.
//!
//! The decisions are in the `mplane` crate's state machines; here they meet sockets,
//! clocks and tasks. Reading order: [`service`] (what a measurement is), [`component`]
//! (who runs it), [`external`] (services that are programs of their own), [`client`] (who
//! asks for it), [`http`] and [`tls`] (how they talk), [`config`] (how they are set up).

pub mod client;
pub mod component;
pub mod config;
pub mod external;
pub mod http;
pub mod initiator;
pub mod metrics;
pub mod service;
pub mod shutdown;
pub mod spool;
pub mod sqlite;
pub mod stored;
mod timer;
pub mod tls;

use std::error::Error;

use tokio::runtime::{Handle, RuntimeFlavor};

/// Bytes from which reading or writing a message takes so long, some milliseconds, that others
/// should not wait behind it.
const LARGE: usize = 1 << 20;

/// Reads or writes what has so many bytes, or values of ten bytes each. If that takes long,
/// others of the same thread go on meanwhile.
pub fn at_length<T>(bytes: usize, act: impl FnOnce() -> T) -> T {
    let has_others = || {
        Handle::try_current()
            .is_ok_and(|it| it.runtime_flavor() == RuntimeFlavor::MultiThread)
    };
    if bytes >= LARGE && has_others() { tokio::task::block_in_place(act) } else { act() }
}

/// Tells an error with everything that led to it, on one line.
pub fn report(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let line = error.to_string();
        // Some libraries repeat their cause in their own words.
        if !text.ends_with(&line) {
            text.push_str(": ");
            text.push_str(&line);
        }
        cause = error.source();
    }
    text
}
