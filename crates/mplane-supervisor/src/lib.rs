//! The supervisor: a component to many clients, a client to many components.
//!
//! Components register their capabilities and fetch specifications; clients see one
//! component that can do everything. Reading order: [`directory`] (who offers what),
//! [`life`] (what happens to a specification), [`relay`] (who is answered what),
//! [`server`] (HTTPS around it).

pub mod caller;
#[cfg(test)]
mod caller_tests;
pub mod directory;
mod fan_out;
pub mod life;
pub mod metrics;
#[cfg(test)]
mod openapi_tests;
mod pattern;
pub mod relay;
pub mod ri;
#[cfg(test)]
mod ri_tests;
pub mod server;
#[cfg(test)]
mod server_tests;
pub mod store;
pub mod tell;
pub mod upward;
pub mod waiters;
