//! Tests of the platform against recorded vectors, foreign peers and itself.
//!
//! Nothing here is published; it may see every other crate.

pub mod fuzz;
pub mod vectors;

/// The documents whose examples are tests.
#[cfg(doctest)]
#[doc = include_str!("../../../docs/model.md")]
pub mod documents {}
