//! `mplane spool`: shows what a component's spool holds.

use std::path::PathBuf;

use clap::Args;
use mplane::message::Message;
use mplane::when::display_timestamp;
use mplane_runtime::config::RegistriesConfig;
use mplane_runtime::spool::{Content, inspect};

use crate::Failure;
use crate::output::{Output, table};

/// The arguments of `mplane spool`.
#[derive(Args, Clone, Debug)]
pub struct SpoolArgs {
    /// The spool; a component may be using it
    file: PathBuf,
    /// Registry files to know, each after those that it includes
    #[arg(long = "registry", value_name = "FILE")]
    registries: Vec<PathBuf>,
}

impl SpoolArgs {
    /// Shows jobs and dead letters.
    pub fn run(self, output: &mut Output) -> Result<(), Failure> {
        let registries = RegistriesConfig { preload: self.registries }.load()?;
        let Content { jobs, dead_letters } = inspect(&self.file, &registries)?;
        let rows = jobs.iter().map(|saved| {
            let state = match (&saved.finished, saved.started) {
                (Some(Message::Exception(_)), _) => "failed",
                (Some(_), _) => "finished",
                (None, Some(_)) => "running",
                (None, None) => "waiting",
            };
            [
                saved.job.to_string(),
                display_timestamp(saved.accepted).to_string(),
                saved.specification.label().unwrap_or_default().to_owned(),
                saved.specification.when().to_string(),
                saved.owner.to_string(),
                state.to_owned(),
                if saved.is_delivered { "yes" } else { "no" }.to_owned(),
            ]
        });
        let header = ["job", "accepted", "label", "when", "owner", "state", "delivered"];
        output.line(table(&header, rows));
        if dead_letters.is_empty() {
            return Ok(());
        }
        let rows = dead_letters.into_iter().map(|letter| {
            [
                display_timestamp(letter.buried).to_string(),
                letter.owner.to_string(),
                letter.reason,
                letter.message.chars().take(SHOWN).collect(),
            ]
        });
        output.line("\nDead letters:\n");
        output.line(table(&["given up", "owner", "reason", "message"], rows));
        Ok(())
    }
}

/// Characters of a dead letter that a table shows.
const SHOWN: usize = 100;
