//! The mPlane information model, and the exchanges that messages make up.
//!
//! This crate reads no clock, opens nothing and starts nothing: the same input always
//! yields the same output, and `now` is an argument. A value that exists is valid.
//!
//! Reading order: [`primitive`] and [`constraint`] (values), [`registry`] (what they
//! mean), [`when`] (time), [`message`] (what is said), [`token`] (how it is identified),
//! [`json`] (how it is written), [`features`] and [`access`] (who is spoken to),
//! [`exchange`] (who answers what).

pub mod access;
pub mod address;
pub mod constraint;
pub mod exchange;
pub mod features;
pub mod json;
pub mod limits;
pub mod message;
pub mod primitive;
pub mod registry;
pub mod token;
pub mod when;

pub use jiff::Timestamp;
