//! `mplane backup`: copies the store of a supervisor while it works.

use std::path::PathBuf;

use clap::Args;
use mplane_supervisor::store::Archive;

use crate::output::Output;
use crate::programs::load;
use crate::{Failure, Told};

/// The arguments of `mplane backup`.
#[derive(Args, Clone, Debug)]
pub struct BackupArgs {
    /// The configuration of the supervisor
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// The folder of the copy, which must not exist yet
    folder: PathBuf,
}

impl BackupArgs {
    /// Makes the copy.
    pub fn run(self, output: &mut Output) -> Result<(), Failure> {
        let config = load(&self.config)?;
        let data = config.supervisor.and_then(|supervisor| supervisor.data);
        let Some(data) = data else {
            return Err(Told(format!(
                "{} names no store: supervisor.data is missing",
                self.config.display()
            ))
            .into());
        };
        let bytes = Archive::copy(&data, &self.folder)?;
        output.note(format_args!("{bytes} bytes in {}", self.folder.display()));
        Ok(())
    }
}
