//! Networks within one machine whose every packet is known: ground truth for measurements.
//!
//! A lab consists of hosts, which are network namespaces, and of links between them, which
//! are a user-space emulator between TUN devices: delay, jitter, loss, duplication,
//! reordering, rate and queue, limits on size, and changes of all that at given times. It
//! needs no `netem` of the kernel. The packet log says what truly became of every packet.
//!
//! ```no_run
//! use mplane_lab::{Lab, topology::Topology};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let topology = Topology::load("examples/lab/line.toml".as_ref())?;
//! let lab = Lab::start(&topology)?;
//! let b = lab.host("b").and_then(|host| host.ip4()).ok_or("b has an address")?;
//! let a = lab.host("a").ok_or("there is a host a")?;
//! a.run(|| { /* measure to `b` */ })?;
//! for record in &lab.log()?.records {
//!     println!("{:?} after {:?} ns", record.fate, record.delay_ns());
//! }
//! lab.stop()?;
//! # Ok(())
//! # }
//! ```
//!
//! Reading order: [`topology`] (what is to be made), [`emulate`] (what becomes of packets;
//! no device, no clock), [`log`] (what became of them), [`Lab`] (joins them to the kernel),
//! [`registry`] (labs that outlive a command).
//!
//! Monotonic clock for times within a lab; UTC beside it, to compare with measurements.

pub mod accuracy;
pub mod emulate;
mod emulator;
mod interface;
mod lab;
pub mod log;
mod names;
mod namespace;
mod process;
pub mod registry;
pub mod topology;

pub use interface::SetUpError;
pub use lab::{
    Host, Lab, LogTo, Options, ProgramOutput, StartLabError, StopLabError, Stopped,
};
pub use namespace::{CreateNamespaceError, Namespace, become_root_within, is_privileged};
pub use process::{close_output, detach};
