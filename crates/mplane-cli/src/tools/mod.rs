//! Small tools of `mplane`: they look at messages, temporal scopes, registries and external
//! services, at what a supervisor knows, and make networks to measure in.

mod backup;
mod check;
mod lab;
mod registry;
mod service;
mod spool;
mod story;
mod when;

use std::io;

use clap::ValueEnum;

pub use backup::BackupArgs;
pub use check::CheckArgs;
pub use lab::{AccuracyArgs, Form, HoldArgs, LabCommand, LogFileArgs, RunArgs, UpArgs};
pub use registry::RegistryCommand;
pub use service::{ServiceCommand, TestArgs};
pub use spool::SpoolArgs;
pub use story::{ComponentsArgs, MeasurementsArgs, ResultsArgs, WhyArgs};
pub use when::WhenArgs;

/// How a tool prints what it found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people.
    Text,
    /// A JSON object for each input, a line each.
    Json,
}

/// Standard input that cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("cannot read standard input")]
struct ReadInputError(#[source] io::Error);
