//! The client's shell: the commands of `mpcli`.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{self, IsTerminal};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::Parser;
use jiff::Timestamp;
use mplane::exchange::client::{Measurement, MeasurementState};
use mplane::message::{Capability, Message, ResultStatement};
use mplane::primitive::NO_VALUE;
use mplane::when::When;
use mplane_runtime::client::{Client, ClientError};
use mplane_runtime::http::PlainHttp;
use mplane_runtime::http::client::{AskError, BaseUrl};
use mplane_runtime::shutdown::{HangUp, on_signal};
use tokio_util::sync::CancellationToken;

use crate::logging::LogArgs;
use crate::output::{Output, counted, table};
use crate::programs::{load, make_client, warn_of_plain};
use crate::{Failure, Told};

/// The arguments of the shell.
#[derive(Clone, Debug, Parser)]
pub struct ShellArgs {
    /// The configuration, in TOML or in a form of the reference implementation
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Commands to run, separated by semicolons, instead of those on standard input; the
    /// first that fails ends the shell
    #[arg(short, long = "command", value_name = "COMMANDS")]
    command: Option<String>,
    /// How to log.
    #[command(flatten)]
    log: LogArgs,
}

/// What `help` shows.
const HELP: &str = "\
getcap                    fetch capabilities from the URL
seturl URL                fetch from and send to another URL from now on
listcap                   list known capabilities
showcap NAME              show a capability, by label or token
when [SCOPE]              show or set the temporal scope, such as now + 10s / 1s
set NAME VALUE            set a parameter for the specifications that follow
unset [NAME...]           unset parameters, all without names
show                      show the parameters that are set
runcap NAME               send a specification of a capability
listmeas                  list measurements
showmeas NAME             show a measurement; fetches the result if it is there
wait [NAME]               wait for the result of a measurement, the last without name
stopmeas NAME             interrupt a measurement
help                      show this
exit                      leave";

/// How long one request of `wait` lets the peer wait for the result.
const WAIT_STEP: Duration = Duration::from_secs(1);

/// How long a peer that cannot be reached is tried again by `wait`.
const PATIENCE: Duration = Duration::from_secs(60);

/// The temporal scope until `when` sets another: a few packets.
const DEFAULT_SCOPE: &str = "now + 5s / 1s";

/// Runs the shell: the commands of `-c`, else those on standard input until its end.
pub async fn run(args: &ShellArgs, output: &mut Output) -> Result<(), Failure> {
    args.log.start("warn")?;
    let config = load(&args.config)?;
    let client = make_client(&config, &args.config)?;
    let shutdown = CancellationToken::new();
    let received = on_signal(shutdown.clone(), HangUp::Ends)?;
    let mut shell = Shell {
        client,
        plain_http: config.client.and_then(|client| client.plain_http),
        when: DEFAULT_SCOPE.parse()?,
        parameters: BTreeMap::new(),
    };
    let ended = tokio::select! {
        ended = shell.commands(args, output) => ended,
        () = shutdown.cancelled() => Ok(()),
    };
    match received.number() {
        Some(number) => Err(Failure::Signal(number)),
        None => ended,
    }
}

/// A client and what was set for its next specification.
struct Shell {
    client: Client,
    /// How far plain HTTP may go.
    plain_http: Option<PlainHttp>,
    when: When,
    parameters: BTreeMap<String, String>,
}

impl Shell {
    /// Runs all commands.
    async fn commands(
        &mut self,
        args: &ShellArgs,
        output: &mut Output,
    ) -> Result<(), Failure> {
        if let Some(commands) = &args.command {
            for command in commands.split([';', '\n']) {
                if self.execute(command, output).await? == Flow::Leave {
                    break;
                }
            }
            return Ok(());
        }
        let is_terminal = io::stdin().is_terminal();
        let mut lines = lines();
        loop {
            if is_terminal {
                output.prompt("|mplane| ");
            }
            let Some(line) = lines.recv().await else { return Ok(()) };
            match self.execute(&line?, output).await {
                Ok(Flow::Go) => {}
                Ok(Flow::Leave) => return Ok(()),
                // A person corrects a mistake and goes on; a script must not.
                Err(Failure::Failed(error)) if is_terminal => {
                    let text = mplane_runtime::report(&*error);
                    output.note(format_args!("error: {text}"));
                }
                Err(failure) => return Err(failure),
            }
        }
    }

    /// Runs one command.
    async fn execute(
        &mut self,
        line: &str,
        output: &mut Output,
    ) -> Result<Flow, Failure> {
        let line = line.trim();
        let (command, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
        let rest = rest.trim();
        match command {
            "" => {}
            "help" | "?" => output.line(HELP),
            "exit" | "quit" => return Ok(Flow::Leave),
            "getcap" => {
                let count = self.client.discover().await?;
                output.note(counted(count, "capability", "capabilities"));
            }
            "seturl" => {
                let url = BaseUrl::parse(argument(rest, "a URL")?, self.plain_http)?;
                warn_of_plain(&url);
                self.client.set_url(url);
            }
            "listcap" => {
                self.discover_once().await?;
                for (_, capability) in self.client.known().capabilities() {
                    let label = capability.label().unwrap_or("(no label)");
                    let token = capability.token();
                    output.line(format_args!("Capability {label} (token {token})"));
                }
            }
            "showcap" => {
                self.discover_once().await?;
                let name = argument(rest, "a label or token")?;
                let (peer, capability) = self.client.known().capability(name)?;
                output.line(describe(capability, &peer.to_string()));
            }
            "when" if rest.is_empty() => {
                output.line(format_args!("when = {}", self.when));
            }
            "when" => self.when = rest.parse()?,
            "set" => {
                let (name, value) =
                    rest.split_once(char::is_whitespace).ok_or_else(|| {
                        Told(
                            "set needs a name and a value, such as set \
                              destination.ip4 192.0.2.1"
                                .into(),
                        )
                    })?;
                self.parameters.insert(name.into(), value.trim().into());
            }
            "unset" if rest.is_empty() => self.parameters.clear(),
            "unset" => {
                for name in rest.split_whitespace() {
                    self.parameters.remove(name);
                }
            }
            "show" => {
                for (name, value) in &self.parameters {
                    output.line(format_args!("{name} = {value}"));
                }
            }
            "runcap" => self.run_capability(rest, output).await?,
            "listmeas" => {
                for measurement in self.client.known().measurements() {
                    output.line(summary(measurement));
                }
            }
            "showmeas" => {
                let measurement = self.measurement(rest)?;
                let measurement = self.client.redeem(measurement, Duration::ZERO).await?;
                show(&measurement, output)?;
            }
            "wait" => self.wait(rest, output).await?,
            "stopmeas" => {
                let measurement =
                    self.measurement(argument(rest, "a label or token")?)?;
                let measurement = self.client.interrupt(measurement).await?;
                output.note(summary(&measurement));
            }
            unknown => {
                return Err(Told(format!(
                    "there is no command {unknown:?}; help lists those there are"
                ))
                .into());
            }
        }
        Ok(Flow::Go)
    }

    /// Fetches capabilities if none are known.
    async fn discover_once(&mut self) -> Result<(), Failure> {
        if self.client.known().capabilities().next().is_none() {
            self.client.discover().await?;
        }
        Ok(())
    }

    /// Sends a specification with the parameters set, as far as the capability has them.
    async fn run_capability(
        &mut self,
        name: &str,
        output: &mut Output,
    ) -> Result<(), Failure> {
        let name = argument(name, "a label or token")?;
        self.discover_once().await?;
        let (_, capability) = self.client.known().capability(name)?;
        let parameters: Vec<_> = self
            .parameters
            .iter()
            .filter(|(parameter, _)| capability.find_parameter(parameter).is_some())
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect();
        let run = self.client.run(name, self.when.clone(), parameters, Duration::ZERO);
        let measurement = run.await?;
        if let MeasurementState::Failed(exception) = &measurement.state {
            return Err(Told(exception.message().to_owned()).into());
        }
        output.note(summary(&measurement));
        Ok(())
    }

    /// Waits for a result and shows it.
    async fn wait(&mut self, name: &str, output: &mut Output) -> Result<(), Failure> {
        let mut measurement = self.measurement(name)?;
        let started = Instant::now();
        let mut lost: Option<Instant> = None;
        while !measurement.is_settled(Timestamp::now()) {
            let asked = Instant::now();
            match self.client.redeem(measurement.clone(), WAIT_STEP).await {
                Ok(redeemed) => {
                    measurement = redeemed;
                    lost = None;
                }
                // A supervisor that restarts has what it has promised.
                Err(error @ ClientError::Ask(AskError::Connect { .. })) => {
                    if lost.get_or_insert_with(Instant::now).elapsed() > PATIENCE {
                        return Err(error.into());
                    }
                    output.progress(format_args!("{error}; tries again"));
                }
                Err(error) => return Err(error.into()),
            }
            // Some answer at once, however long they might wait.
            tokio::time::sleep((WAIT_STEP / 2).saturating_sub(asked.elapsed())).await;
            output.progress(format_args!(
                "waits for {}, {} s",
                measurement.specification.label().unwrap_or_default(),
                started.elapsed().as_secs()
            ));
        }
        show(&measurement, output)
    }

    /// Finds a measurement by label or token, the last without name.
    fn measurement(&self, name: &str) -> Result<Measurement, Told> {
        let known = self.client.known();
        let found = if name.is_empty() {
            known.measurements().last()
        } else {
            known.measurement(name)
        };
        found.cloned().ok_or_else(|| {
            Told(if name.is_empty() {
                "there is no measurement yet; runcap starts one".into()
            } else {
                format!("there is no measurement {name}; listmeas lists those there are")
            })
        })
    }
}

/// Whether the shell goes on.
#[derive(PartialEq, Eq)]
enum Flow {
    Go,
    Leave,
}

/// Returns the argument of a command.
fn argument<'a>(rest: &'a str, what: &str) -> Result<&'a str, Told> {
    if rest.is_empty() { Err(Told(format!("{what} is missing"))) } else { Ok(rest) }
}

/// Reads lines of standard input on a thread of its own: reading blocks.
fn lines() -> tokio::sync::mpsc::Receiver<io::Result<String>> {
    let (sender, receiver) = tokio::sync::mpsc::channel(1);
    std::thread::spawn(move || {
        for line in io::stdin().lines() {
            if sender.blocking_send(line).is_err() {
                return;
            }
        }
    });
    receiver
}

/// Shows all of a capability.
fn describe(capability: &Capability, peer: &str) -> String {
    let mut text = format!(
        "capability: {}\nlabel     : {}\ntoken     : {}\nschema    : {}\nregistry  : {}\n\
         when      : {}\noffered by: {peer}",
        capability.verb(),
        capability.label().unwrap_or("(none)"),
        capability.token(),
        capability.schema(),
        capability.registry(),
        capability.when(),
    );
    let mut entry = |section: &str, name: &str, value: &str, about: &str| {
        write!(text, "\n{section:<10}: {name} = {value}  ({about})")
            .expect("writing to text does not fail");
    };
    for parameter in capability.parameters() {
        let element = parameter.element();
        let constraint = parameter.constraint().to_string();
        entry("parameter", element.name(), &constraint, element.description());
    }
    for (element, value) in capability.metadata() {
        let value = value.map_or_else(|| NO_VALUE.to_owned(), ToString::to_string);
        entry("metadata", element.name(), &value, element.description());
    }
    for element in capability.columns() {
        let primitive = element.primitive().name();
        entry("result", element.name(), primitive, element.description());
    }
    text
}

/// Says in a line what has come of a measurement.
fn summary(measurement: &Measurement) -> String {
    let label = measurement.specification.label().unwrap_or("(no label)");
    let token = measurement.specification.token();
    let state = match &measurement.state {
        MeasurementState::Sent => "Sent    ",
        MeasurementState::Promised(_) => "Receipt ",
        MeasurementState::Result(_) | MeasurementState::Results(_) => "Result  ",
        MeasurementState::Failed(_) => "Failed  ",
    };
    format!("{state}{label} (token {token}): {}", measurement.specification.when())
}

/// Shows what has come of a measurement. A failed one is a failure of the command.
fn show(measurement: &Measurement, output: &mut Output) -> Result<(), Failure> {
    match &measurement.state {
        MeasurementState::Failed(exception) => {
            return Err(Told(exception.message().to_owned()).into());
        }
        MeasurementState::Result(result) => show_result(result, output),
        MeasurementState::Results(envelope) => {
            for message in envelope.messages() {
                if let Message::Result(result) = message {
                    show_result(result, output);
                }
            }
        }
        MeasurementState::Sent | MeasurementState::Promised(_) => {
            output.line(summary(measurement));
        }
    }
    Ok(())
}

/// Shows a result: its scope and metadata, and the rows as a table.
fn show_result(result: &ResultStatement, output: &mut Output) {
    output.note(format_args!(
        "{}: {}",
        result.label().unwrap_or("result"),
        result.when()
    ));
    for (element, value) in result.metadata() {
        if let Some(value) = value {
            output.note(format_args!("{element}: {value}"));
        }
    }
    output.line(rows(result));
}

/// Lays the rows of a result out as a table; a cell without value shows `*`.
pub fn rows(result: &ResultStatement) -> String {
    let header: Vec<_> =
        result.table().columns().iter().map(|column| column.element().name()).collect();
    let rows: Vec<Vec<String>> = result
        .table()
        .iter()
        .map(|row| {
            let text = |value: Option<mplane::primitive::Value>| {
                value.map_or_else(|| NO_VALUE.to_owned(), |value| value.to_string())
            };
            row.values().map(text).collect()
        })
        .collect();
    table(&header, rows)
}
