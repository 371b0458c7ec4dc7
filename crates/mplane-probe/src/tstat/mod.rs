//! TCP flows as tStat, a passive flow meter, logs them.
//!
//! Reading order: [`Set`] (what can be asked for: columns and the flags they need),
//! [`Flag`] and [`switch_in`] (tStat's `runtime.conf` as text), [`Layout`] (a line of
//! its log as cells); these know no files. [`Switches`] turns flags on and off in the file,
//! [`Tail`] reads what was written to the logs during a measurement.
//!
//! Units: those of the registry, milliseconds with a fraction. Clock: tStat's, UTC; it
//! runs on the same machine, so that its times and the measurement's are comparable.
//!
//! Source: component notes, C-04 and C-05 (tStat proxy); the columns that the header of a
//! log names.
//!
//! *Differences*: the reference returns one row of invented values and leaves the rows in
//! tStat's folders; here a result has the rows. It replaces every 0 of a line in
//! `runtime.conf`, comments included, without a lock; here only the value changes.

mod conf;
mod log;
#[cfg(test)]
pub(crate) mod samples;
mod set;
mod switch;
mod tail;

pub use conf::{Flag, SwitchError, is_on, switch_in};
pub use log::{Flow, Layout, LineProblem};
pub use set::{Column, Set};
pub use switch::{Held, OpenSwitchesError, SwitchFileError, Switches};
pub use tail::{Findings, Tail, TailError};
