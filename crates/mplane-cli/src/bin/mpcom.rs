//! `mpcom`: runs a component.

use std::process::ExitCode;

use clap::Parser;
use mplane_cli::output::Output;
use mplane_cli::programs::{ComponentArgs, run_component_args};

/// Runs an mPlane component: it measures when a client or supervisor asks it to.
#[derive(Parser)]
#[command(name = "mpcom", version)]
struct Args {
    #[command(flatten)]
    component: ComponentArgs,
}

fn main() -> ExitCode {
    if let Some(failed) = mplane_runtime::external::intercept(std::env::args_os()) {
        return failed;
    }
    let args = Args::parse();
    let result = mplane_cli::block_on(run_component_args(args.component));
    mplane_cli::conclude(result, &mut Output::default())
}
