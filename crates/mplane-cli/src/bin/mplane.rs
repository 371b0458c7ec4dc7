//! `mplane`: the everyday tool.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use mplane_cli::demo::{self, DemoArgs};
use mplane_cli::output::Output;
use mplane_cli::pki::PkiCommand;
use mplane_cli::tools::{
    BackupArgs, CheckArgs, ComponentsArgs, LabCommand, MeasurementsArgs, RegistryCommand,
    ResultsArgs, ServiceCommand, SpoolArgs, WhenArgs, WhyArgs,
};

/// mPlane: coordinated network measurement.
#[derive(Parser)]
#[command(name = "mplane", version)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

/// What to do.
#[derive(Subcommand)]
enum Command {
    /// Run a whole domain on this machine and measure with it
    ///
    /// Creates a private PKI, starts a supervisor, a component and a client, which talk
    /// over mutual TLS on the loopback interface, measures for a few seconds and shows the
    /// result. Everything is removed at the end. Needs no privileges.
    Demo(DemoArgs),
    /// Say what files contain: messages, registries or configurations
    ///
    /// Prints kind, verb, label, schema hash, token and canonical form of each. The exit
    /// status is 1 if any is refused.
    Check(CheckArgs),
    /// Explain temporal scopes: canonical form, start, end, and what happens next
    When(WhenArgs),
    /// Show what the spool of a component holds, and what could not be delivered
    Spool(SpoolArgs),
    /// Tell the story of a specification: what happened to it, when and why
    ///
    /// Reads the store of a supervisor on this machine, if the configuration is that of a
    /// supervisor; otherwise asks the supervisor as a client, which is told of its own.
    Why(WhyArgs),
    /// List the specifications that a supervisor knows, the latest first
    Measurements(MeasurementsArgs),
    /// List the results that a supervisor keeps, or print one
    Results(ResultsArgs),
    /// List the components that a supervisor knows, or tell all of one
    Components(ComponentsArgs),
    /// Copy the store of a supervisor while it works
    Backup(BackupArgs),
    /// Show element registries
    Registry {
        #[command(subcommand)]
        command: RegistryCommand,
    },
    /// Test services that are programs of their own
    Service {
        #[command(subcommand)]
        command: ServiceCommand,
    },
    /// Make networks in this machine, with delay and loss, whose every packet is logged
    ///
    /// Hosts are network namespaces, links are emulated. Needs root, or user namespaces.
    Lab {
        #[command(subcommand)]
        command: LabCommand,
    },
    /// Create an authority and certificates for the members of a domain
    Pki {
        #[command(subcommand)]
        command: PkiCommand,
    },
}

fn main() -> ExitCode {
    if let Some(failed) = mplane_runtime::external::intercept(std::env::args_os()) {
        return failed;
    }
    let args = Args::parse();
    let mut output = Output::default();
    let result = match args.command {
        Command::Demo(args) => mplane_cli::block_on(demo::run(&args, &mut output)),
        Command::Check(args) => args.run(&mut output),
        Command::When(args) => args.run(&mut output),
        Command::Spool(args) => args.run(&mut output),
        Command::Why(args) => mplane_cli::block_on(args.run(&mut output)),
        Command::Measurements(args) => mplane_cli::block_on(args.run(&mut output)),
        Command::Results(args) => mplane_cli::block_on(args.run(&mut output)),
        Command::Components(args) => mplane_cli::block_on(args.run(&mut output)),
        Command::Backup(args) => args.run(&mut output),
        Command::Registry { command } => command.run(&mut output),
        Command::Service { command } => mplane_cli::block_on(command.run(&mut output)),
        Command::Lab { command } => command.run(&mut output),
        Command::Pki { command } => command.run(&mut output),
    };
    mplane_cli::conclude(result, &mut output)
}
