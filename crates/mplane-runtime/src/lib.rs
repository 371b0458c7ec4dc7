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
