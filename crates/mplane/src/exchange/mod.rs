//! Exchanges: who answers what, as state machines without I/O.
//!
//! A driver hands messages and the time in and carries actions out; HTTP is one driver,
//! tests with a clock of their own are another. The verbs are the same everywhere:
//! `handle` takes a message, `handle_timeout` says that time has passed, `poll_action`
//! returns what is to be done, `poll_timeout` when to call again.

pub mod client;
pub mod component;
