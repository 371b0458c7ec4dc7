//! Networks within one machine whose every packet is known.
pub mod emulate;
pub mod log;
