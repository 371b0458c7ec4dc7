//! Measurement services of the mPlane platform.
//!
//! Reading order: [`packet`] (bytes), [`ping::Strategy`] (what to send when, and what
//! became of it; no socket, no clock), [`socket`] (thin: system calls and kernel time
//! stamps), [`ping::run()`] (joins the two), [`sweep`] (the same for very many
//! destinations), [`tcp`] (the same schedule for connections), [`tstat`] (flows that another
//! program logs), [`service`] (all of it as services of a component).
//!
//! Monotonic clock for delays, UTC for moments. A packet without a reply has no delay,
//! never a delay of zero.

pub mod packet;
pub mod ping;
pub mod service;
pub mod socket;
pub mod sweep;
pub mod tcp;
pub mod tstat;
