//! `mplane lab`: makes networks in this machine, runs programs in them, and reads the log
//! of their packets.

mod log;
mod run;

use std::ffi::OsString;
use std::process::Command;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use jiff::Timestamp;
use mplane_lab::accuracy::{AccuracyOptions, flood, measure};
use mplane_lab::log::Quantiles;
use mplane_lab::registry::Registry;

pub use self::log::LogFileArgs;
pub use self::run::{HoldArgs, RunArgs, UpArgs};
use crate::Failure;
use crate::output::{Output, table};

/// The tasks of `mplane lab`.
#[derive(Clone, Debug, Subcommand)]
pub enum LabCommand {
    /// Start a lab that goes on until `down`
    Up(UpArgs),
    /// Start a lab, run a command in it, and end it
    ///
    /// The exit status is that of the command. Hosts of the lab have their names within it.
    Run(RunArgs),
    /// End a lab that `up` has started
    Down {
        /// The lab
        lab: String,
    },
    /// List the labs that run, and remove what dead ones have left
    List {
        /// How to print them
        #[arg(short, long, default_value = "table")]
        output: Form,
    },
    /// Run a command in a host of a lab that runs
    Exec {
        /// The lab
        lab: String,
        /// The host
        host: String,
        /// The command, with its arguments
        #[arg(last = true, required = true)]
        command: Vec<OsString>,
    },
    /// Show what became of the packets of a lab
    Log(LogFileArgs),
    /// Measure how exact labs are on this machine
    Accuracy(AccuracyArgs),
    /// Hold a lab (for `up`)
    #[command(hide = true)]
    Hold(HoldArgs),
    /// Remove what a lab has left when it has ended (for `up` and `run`)
    #[command(hide = true)]
    Watch {
        /// The lab
        lab: String,
    },
}

/// How rows are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Form {
    /// Columns for people
    Table,
    /// One JSON array
    Json,
    /// A JSON object for each row, a line each
    Ndjson,
    /// Comma-separated values (RFC 4180) with a header
    Csv,
}

/// The arguments of `mplane lab accuracy`.
#[derive(Args, Clone, Copy, Debug)]
pub struct AccuracyArgs {
    /// How many packets to send over each link
    #[arg(long, default_value_t = 5000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    packets: u32,
    /// The time from one packet to the next, in microseconds
    #[arg(long, value_name = "US", default_value_t = 1000, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    period_us: u64,
    /// The delay of the second link, in milliseconds
    #[arg(long, value_name = "MS", default_value_t = 10, value_parser = clap::value_parser!(u64).range(0..=1000))]
    delay_ms: u64,
    /// Let the emulator never sleep
    #[arg(long)]
    busy: bool,
}

impl LabCommand {
    /// Carries the task out. It must be called before there is a second thread.
    pub fn run(self, output: &mut Output) -> Result<(), Failure> {
        match self {
            Self::Up(args) => args.run(output),
            Self::Run(args) => args.run(output),
            Self::Hold(args) => args.run(output),
            Self::Down { lab } => Ok(Registry::open()?.down(&lab)?),
            Self::List { output: form } => list(form, output),
            Self::Exec { lab, host, command } => {
                let registry = Registry::open()?;
                let mut program = make_command(&command)?;
                Err(registry.become_program(&lab, &host, &mut program).into())
            }
            Self::Log(args) => args.run(output),
            Self::Accuracy(args) => args.run(output),
            Self::Watch { lab } => {
                mplane_lab::detach();
                Ok(Registry::open()?.watch(&lab)?)
            }
        }
    }
}

/// Makes a command of its words.
fn make_command(words: &[OsString]) -> Result<Command, NoCommandError> {
    let (program, arguments) = words.split_first().ok_or(NoCommandError)?;
    let mut command = Command::new(program);
    command.args(arguments);
    Ok(command)
}

/// No command was given.
#[derive(Debug, thiserror::Error)]
#[error("a command is missing")]
struct NoCommandError;

/// Lists the labs that run.
fn list(form: Form, output: &mut Output) -> Result<(), Failure> {
    let header = ["lab", "process", "started", "hosts", "file"];
    let rows = Registry::open()?.list()?.into_iter().map(|entry| {
        let started = i64::try_from(entry.started_utc_s).unwrap_or(i64::MAX);
        let started = Timestamp::from_second(started).unwrap_or(Timestamp::MAX);
        let hosts: Vec<_> = entry.hosts.iter().map(|host| host.name.as_str()).collect();
        [
            Cell::Text(entry.name.clone()),
            Cell::Number(entry.pid.into()),
            Cell::Text(started.to_string()),
            Cell::Text(hosts.join(" ")),
            Cell::Text(entry.file.display().to_string()),
        ]
    });
    let rows: Vec<_> = rows.collect();
    if rows.is_empty() && form == Form::Table {
        output.note("no lab runs");
        return Ok(());
    }
    print(form, &header, rows, output);
    Ok(())
}

/// A value in a row.
#[derive(Clone, Debug)]
enum Cell {
    /// A text.
    Text(String),
    /// A number.
    Number(u64),
    /// Nanoseconds, told as microseconds.
    Nanos(u64),
    /// No value: nothing in tables and CSV, null in JSON.
    Nothing,
}

impl Cell {
    /// Returns it as text.
    fn text(&self) -> String {
        match self {
            Self::Text(text) => text.clone(),
            Self::Number(number) => number.to_string(),
            Self::Nanos(nanos) => microseconds(*nanos),
            Self::Nothing => String::new(),
        }
    }

    /// Returns it as JSON.
    fn json(&self) -> serde_json::Value {
        match self {
            Self::Text(text) => text.as_str().into(),
            Self::Number(number) => (*number).into(),
            Self::Nanos(nanos) => {
                // Exact: a double holds such decimals of less than a day.
                microseconds(*nanos)
                    .parse::<serde_json::Number>()
                    .map_or_else(|_| serde_json::Value::Null, serde_json::Value::Number)
            }
            Self::Nothing => serde_json::Value::Null,
        }
    }

    /// Returns it as a field of CSV (RFC 4180).
    fn csv(&self) -> String {
        let text = self.text();
        if text.contains(['"', ',', '\r', '\n']) {
            format!("\"{}\"", text.replace('"', "\"\""))
        } else {
            text
        }
    }
}

/// Prints rows.
fn print<const N: usize>(
    form: Form,
    header: &[&str; N],
    rows: impl IntoIterator<Item = [Cell; N]>,
    output: &mut Output,
) {
    let object = |row: [Cell; N]| -> serde_json::Value {
        let pairs = header.iter().zip(&row);
        let pairs = pairs.map(|(name, cell)| ((*name).to_owned(), cell.json()));
        serde_json::Value::Object(pairs.collect())
    };
    match form {
        Form::Table => {
            let rows = rows.into_iter().map(|row| row.each_ref().map(Cell::text));
            output.line(table(header, rows));
        }
        Form::Json => {
            let rows: Vec<_> = rows.into_iter().map(object).collect();
            output.line(serde_json::Value::Array(rows));
        }
        Form::Ndjson => rows.into_iter().for_each(|row| output.line(object(row))),
        Form::Csv => {
            output.line(header.join(","));
            for row in rows {
                output.line(row.each_ref().map(Cell::csv).join(","));
            }
        }
    }
}

impl AccuracyArgs {
    /// Measures, and prints the errors in microseconds.
    fn run(self, output: &mut Output) -> Result<(), Failure> {
        mplane_lab::become_root_within();
        let options = AccuracyOptions {
            packets: self.packets,
            period: Duration::from_micros(self.period_us),
            is_busy: self.busy,
        };
        let header = ["delay", "packets", "µs", "p50", "p99", "p99.9", "max"];
        let mut rows = Vec::new();
        for accuracy in measure(options, Duration::from_millis(self.delay_ms))? {
            let delay = format!("{:?}", accuracy.delay);
            let packets = accuracy.delivered.to_string();
            for (what, values) in [
                ("departed later than intended", accuracy.lateness_ns),
                ("sent before the emulator had it", accuracy.before_ns),
            ] {
                let values = values.map(|all| [all.p50, all.p99, all.p999, all.max]);
                let [p50, p99, p999, max] = values.unwrap_or_default().map(microseconds);
                let (delay, packets) = (delay.clone(), packets.clone());
                rows.push([delay, packets, what.to_owned(), p50, p99, p999, max]);
            }
        }
        output.line(table(&header, rows));
        let capacity = flood(self.busy)?;
        output.line(format_args!(
            "\n{} packets of 1000 bytes a second passed, {} were not seen by the emulator",
            capacity.packets_per_s, capacity.unseen
        ));
        Ok(())
    }
}

/// Formats nanoseconds as microseconds.
fn microseconds(nanos: u64) -> String {
    format!("{}.{:03}", nanos / 1000, nanos % 1000)
}

/// Formats a median and a 99th percentile.
fn median_and_tail(quantiles: Option<Quantiles>) -> [Cell; 3] {
    match quantiles {
        Some(all) => [all.p50, all.p99, all.max].map(Cell::Nanos),
        None => [Cell::Nothing, Cell::Nothing, Cell::Nothing],
    }
}
