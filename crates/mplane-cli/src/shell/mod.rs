//! The client's shell: the commands of `mpcli`.
//!
//! It understands the words of the Python SDK's shell, and those of the shells of the
//! client-supervisor-probe system.

mod show;

use std::collections::BTreeMap;
use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::{ArgGroup, Parser};
use jiff::Timestamp;
use mplane::access::Identity;
use mplane::exchange::client::{Measurement, MeasurementState};
use mplane::message::Capability;
use mplane::when::When;
use mplane_runtime::client::Client;
use mplane_runtime::config::LoadConfigError;
use mplane_runtime::config::legacy::RiClientOptions;
use mplane_runtime::http::PlainHttp;
use mplane_runtime::http::client::BaseUrl;
use mplane_runtime::shutdown::{HangUp, on_signal};
use tokio_util::sync::CancellationToken;

use self::show::{describe, outstanding, show, summary};
pub use self::show::{rows, show_result};
use crate::logging::LogArgs;
use crate::output::{Output, counted};
use crate::programs::{Config, load, make_client, warn_of_plain};
use crate::{Failure, Told};

/// The arguments of the shell: a configuration, or those of a client of the
/// client-supervisor-probe system.
#[derive(Clone, Debug, Parser)]
#[command(group = ArgGroup::new("source").required(true).args(["config", "certfile", "disable_sec"]))]
pub struct ShellArgs {
    /// The configuration, in TOML or in a form of the reference implementation
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// File with cert=, key= and ca-chain=, instead of a configuration
    #[arg(long, value_name = "FILE")]
    certfile: Option<PathBuf>,
    /// Speak plain HTTP, within this machine (instead of --certfile)
    #[arg(long)]
    disable_sec: bool,
    /// Host of the supervisor, with --certfile or --disable-sec
    #[arg(
        short = 'd',
        long,
        value_name = "HOST",
        default_value = "127.0.0.1",
        conflicts_with = "config"
    )]
    supervisor_ipaddr: String,
    /// Port of the supervisor, with --certfile or --disable-sec
    #[arg(
        short = 'p',
        long,
        value_name = "PORT",
        default_value_t = 8888,
        conflicts_with = "config"
    )]
    supervisor_port: u16,
    /// Commands to run, separated by semicolons, instead of those on standard input; the
    /// first that fails ends the shell
    #[arg(short, long = "command", value_name = "COMMANDS")]
    command: Option<String>,
    /// How to log.
    #[command(flatten)]
    log: LogArgs,
}

impl ShellArgs {
    /// Loads the configuration; returns the file that errors name, too.
    fn load(&self) -> Result<(Config, &Path), LoadConfigError> {
        if let Some(path) = &self.config {
            return Ok((load(path)?, path));
        }
        let options = RiClientOptions {
            certs: self.certfile.clone(),
            host: self.supervisor_ipaddr.clone(),
            port: self.supervisor_port,
        };
        let path = self.certfile.as_deref().unwrap_or_else(|| Path::new("--disable-sec"));
        Ok((options.client()?, path))
    }
}

/// What `help` shows.
const HELP: &str = "\
connect [URL]             forget capabilities and fetch them, from the first URL without one
getcap                    fetch capabilities from the URL
seturl URL                fetch from and send to another URL from now on
listcap                   list known capabilities
showcap [NAME]            show a capability, all without name
when [SCOPE]              show or set the temporal scope, such as now + 10s / 1s
set NAME VALUE            set a parameter for the specifications that follow
unset [NAME...]           unset parameters, all without names
show [NAME...]            show the parameters that are set
runcap NAME               send a specification of a capability
listmeas                  list measurements
redeem [NAME]             fetch a result if it is there, all outstanding ones without name
showmeas [NAME]           show a measurement, all without name; redeems it before
wait [NAME]               wait for the result of a measurement, the last without name
stopmeas NAME             interrupt a measurement
help                      show this
exit, quit, EOF           leave
Capabilities and measurements are named by label, by token, or by the number that listcap
and listmeas show";

/// How long one request of `wait` lets the peer wait for the result.
const WAIT_STEP: Duration = Duration::from_secs(1);

/// How long a peer that cannot be reached is tried again by `wait`.
const PATIENCE: Duration = Duration::from_secs(60);

/// The temporal scope until `when` sets another: a few packets.
const DEFAULT_SCOPE: &str = "now + 5s / 1s";

/// Runs the shell: the commands of `-c`, else those on standard input until its end.
pub async fn run(args: &ShellArgs, output: &mut Output) -> Result<(), Failure> {
    args.log.start("warn")?;
    let (config, path) = args.load()?;
    let client = make_client(&config, path)?;
    let shutdown = CancellationToken::new();
    let received = on_signal(shutdown.clone(), HangUp::Ends)?;
    let mut shell = Shell {
        first_url: client.url().clone(),
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
    /// Whom it was started to ask.
    first_url: BaseUrl,
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
            "exit" | "quit" | "EOF" => return Ok(Flow::Leave),
            "connect" => self.connect(rest, output).await?,
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
                for (index, (_, capability)) in (1..).zip(self.capabilities()) {
                    let label = capability.label().unwrap_or("(no label)");
                    let token = capability.token();
                    output.line(format_args!(
                        "{index:>4}: Capability {label} (token {token})"
                    ));
                }
            }
            "showcap" => {
                self.discover_once().await?;
                let shown = if rest.is_empty() {
                    self.capabilities()
                } else {
                    vec![self.capability(rest)?]
                };
                for (peer, capability) in shown {
                    output.line(describe(capability, &peer.to_string()));
                }
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
            "show" if rest.is_empty() => {
                for (name, value) in &self.parameters {
                    output.line(format_args!("{name} = {value}"));
                }
            }
            "show" => {
                for name in rest.split_whitespace() {
                    let value = self.parameters.get(name).ok_or_else(|| {
                        Told(format!("{name} is not set; show lists what is"))
                    })?;
                    output.line(format_args!("{name} = {value}"));
                }
            }
            "runcap" => self.run_capability(rest, output).await?,
            "listmeas" => {
                for (index, known) in (1..).zip(self.client.known().measurements()) {
                    output.line(format_args!("{index:>4}: {}", summary(known)));
                }
            }
            "redeem" => self.redeem(rest, output).await?,
            "showmeas" => self.show_measurements(rest, output).await?,
            "wait" => self.wait(rest, output).await?,
            "stopmeas" => {
                let measurement = self.measurement(argument(rest, NAME)?)?;
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

    /// Forgets all capabilities, and fetches those at a URL: the first one if none is given.
    async fn connect(&mut self, url: &str, output: &mut Output) -> Result<(), Failure> {
        let url = if url.is_empty() {
            self.first_url.clone()
        } else {
            BaseUrl::parse(url, self.plain_http)?
        };
        warn_of_plain(&url);
        self.client.set_url(url);
        self.client.forget_capabilities();
        let count = self.client.discover().await?;
        output.note(counted(count, "capability", "capabilities"));
        Ok(())
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
        let name = argument(name, NAME)?;
        self.discover_once().await?;
        let (_, capability) = self.capability(name)?;
        let token = capability.token();
        let parameters: Vec<_> = self
            .parameters
            .iter()
            .filter(|(parameter, _)| capability.find_parameter(parameter).is_some())
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect();
        let name = token.as_str();
        let run = self.client.run(name, self.when.clone(), parameters, Duration::ZERO);
        let measurement = run.await?;
        if let MeasurementState::Failed(exception) = &measurement.state {
            return Err(Told(exception.message().to_owned()).into());
        }
        output.note(summary(&measurement));
        Ok(())
    }

    /// Asks for a result, or for all that are outstanding; says what has come.
    async fn redeem(&mut self, name: &str, output: &mut Output) -> Result<(), Failure> {
        let asked = if name.is_empty() {
            let now = Timestamp::now();
            let known = self.client.known().measurements().iter();
            known.filter(|known| !known.is_settled(now)).cloned().collect()
        } else {
            vec![self.measurement(name)?]
        };
        if asked.is_empty() {
            output.note("no result is outstanding");
        }
        let mut failed = None;
        for measurement in asked {
            let redeemed = self.client.redeem(measurement, Duration::ZERO).await?;
            output.note(summary(&redeemed));
            if let MeasurementState::Failed(exception) = &redeemed.state {
                failed.get_or_insert_with(|| Told(exception.message().to_owned()));
            }
        }
        failed.map_or(Ok(()), |failed| Err(failed.into()))
    }

    /// Redeems a measurement, or all, and shows what has come. All are shown, also if some
    /// have failed.
    async fn show_measurements(
        &mut self,
        name: &str,
        output: &mut Output,
    ) -> Result<(), Failure> {
        let mut asked = vec![self.measurement(name)?];
        if name.is_empty() {
            asked = self.client.known().measurements().to_vec();
        }
        let mut failed = None;
        for measurement in asked {
            let redeemed = self.client.redeem(measurement, Duration::ZERO).await?;
            if let Err(failure) = show(&redeemed, output) {
                failed.get_or_insert(failure);
            }
        }
        failed.map_or(Ok(()), Err)
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
                // A supervisor that restarts, or has too much to do, has what it has promised.
                Err(error) if error.is_passing() => {
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
                "waits for {}, {} s{}",
                measurement.specification.label().unwrap_or_default(),
                started.elapsed().as_secs(),
                outstanding(&measurement),
            ));
        }
        show(&measurement, output)
    }

    /// Returns the capabilities known, by label: the first has the index 1.
    fn capabilities(&self) -> Vec<(&Identity, &Capability)> {
        let mut known: Vec<_> = self.client.known().capabilities().collect();
        known.sort_by_key(|(_, capability)| capability.label());
        known
    }

    /// Finds a capability by label or token, else by its index.
    fn capability(&self, name: &str) -> Result<(&Identity, &Capability), Failure> {
        let found = self.client.known().capability(name);
        let (Err(_), Some(index)) = (&found, index(name)) else { return Ok(found?) };
        let known = self.capabilities();
        let found = index.checked_sub(1).and_then(|index| known.get(index).copied());
        Ok(found.ok_or_else(|| no_index("capability", name, "listcap", known.len()))?)
    }

    /// Finds a measurement by label or token, else by its index; the last without name.
    fn measurement(&self, name: &str) -> Result<Measurement, Told> {
        let known = self.client.known();
        let sent = known.measurements();
        if name.is_empty() {
            let none = || Told("there is no measurement yet; runcap starts one".into());
            return sent.last().cloned().ok_or_else(none);
        }
        if let Some(found) = known.measurement(name) {
            return Ok(found.clone());
        }
        let Some(index) = index(name) else {
            return Err(Told(format!(
                "there is no measurement {name}; listmeas lists those there are"
            )));
        };
        let found = index.checked_sub(1).and_then(|index| sent.get(index));
        found
            .cloned()
            .ok_or_else(|| no_index("measurement", name, "listmeas", sent.len()))
    }
}

/// What names a capability or a measurement.
const NAME: &str = "a label, token or index";

/// Reads an index. Names of digits only that are too long for one are none.
fn index(name: &str) -> Option<usize> {
    name.parse().ok()
}

/// Says which indices there are.
fn no_index(what: &str, index: &str, list: &str, count: usize) -> Told {
    let there_are = match count {
        0 => "there is none".to_owned(),
        1 => format!("{list} lists only 1"),
        _ => format!("{list} lists 1 to {count}"),
    };
    Told(format!("there is no {what} {index}; {there_are}"))
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
