//! `mpcli`: a shell to ask components and supervisors.

use std::process::ExitCode;

use clap::Parser;
use mplane_cli::output::Output;
use mplane_cli::shell::{ShellArgs, run};

/// A shell for mPlane clients: discovers capabilities, runs them, shows results. Commands
/// come from -c, or a line each from standard input; `help` lists them.
#[derive(Parser)]
#[command(name = "mpcli", version)]
struct Args {
    #[command(flatten)]
    shell: ShellArgs,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let mut output = Output::default();
    let result = mplane_cli::block_on(run(&args.shell, &mut output));
    mplane_cli::conclude(result, &mut output)
}
