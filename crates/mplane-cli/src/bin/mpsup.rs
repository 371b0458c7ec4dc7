//! `mpsup`: runs a supervisor.

use std::process::ExitCode;

use clap::Parser;
use mplane_cli::output::Output;
use mplane_cli::programs::{SupervisorArgs, run_supervisor_args};

/// Runs an mPlane supervisor: components register with it and fetch specifications,
/// clients see one component that can do everything.
#[derive(Parser)]
#[command(name = "mpsup", version)]
struct Args {
    #[command(flatten)]
    supervisor: SupervisorArgs,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let result = mplane_cli::block_on(run_supervisor_args(args.supervisor));
    mplane_cli::conclude(result, &mut Output::default())
}
