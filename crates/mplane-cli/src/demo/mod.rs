//! `mplane demo`: a whole domain on one machine, and a real measurement across it.
//!
//! The demo writes the configuration files that the programs read, and starts supervisor,
//! component and client with the functions that their `main`s call. Every step has a name
//! and a deadline; what fails says which step it was.

mod members;
mod plan;
mod signal;
mod state;
mod trace;

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::Args;
use mplane::exchange::client::{Measurement, MeasurementState};
use mplane::message::ResultStatement;
use mplane::primitive::Value;
use mplane::when::When;
use mplane_runtime::client::{Client, ClientError};
use tokio::signal::unix::SignalKind;
use tokio::time::{sleep, timeout_at};
use tokio_util::sync::CancellationToken;

use self::members::{Members, SUPERVISOR_SECTION};
use self::plan::Plan;
use self::signal::Signal;
use self::state::State;
use self::trace::Trace;
use crate::logging::LogArgs;
use crate::output::{Output, counted};
use crate::programs::{Config, Running, make_client, start_component, start_supervisor};
use crate::shell::rows;
use crate::{Failure, Told};

/// How long all steps together may take. A newcomer waits no longer, and a demo that hangs
/// says where.
const TOTAL: Duration = Duration::from_secs(20);

/// How long a step may take that only needs this machine.
const STEP: Duration = Duration::from_secs(5);

/// How long the result may come after the end of the measurement: replies that are waited
/// for, and two relays.
const DELIVERY: Duration = Duration::from_secs(5);

/// How long what was measured until Ctrl-C may take to come back: the interrupt goes over two
/// relays, and so does the result.
const REST: Duration = Duration::from_secs(3);

/// How long one request for the result lets the supervisor wait for it.
const WAIT: Duration = Duration::from_secs(10);

/// How often progress is looked at.
const TICK: Duration = Duration::from_millis(100);

/// The shortest and longest measurement.
const DURATIONS: std::ops::RangeInclusive<Duration> =
    Duration::from_secs(1)..=Duration::from_secs(10);

/// The arguments of the demo.
#[derive(Args, Clone, Debug)]
pub struct DemoArgs {
    /// Measure to this host instead of this machine
    #[arg(long, value_name = "HOST")]
    target: Option<String>,
    /// Measure TCP connects to this port instead of ping
    #[arg(long, value_name = "PORT")]
    port: Option<u16>,
    /// How long to measure, 1s to 10s
    #[arg(long, value_name = "DURATION", default_value = "4s", value_parser = duration)]
    duration: Duration,
    /// Leave the domain running until Ctrl-C, and keep its files
    #[arg(long)]
    keep: bool,
    /// Keep state in this folder instead of the user's state folder
    #[arg(long, value_name = "DIR")]
    state_dir: Option<PathBuf>,
    /// How to log.
    #[command(flatten)]
    log: LogArgs,
}

/// Reads the duration of the measurement.
fn duration(text: &str) -> Result<Duration, String> {
    let duration =
        mplane::when::parse_duration(text).map_err(|error| error.to_string())?;
    if DURATIONS.contains(&duration) {
        Ok(duration)
    } else {
        Err("the demo measures for 1s to 10s".into())
    }
}

/// Runs the demo. It fails if there is no real result at the end.
pub async fn run(args: &DemoArgs, output: &mut Output) -> Result<(), Failure> {
    let started = Instant::now();
    let trace = Trace::new(started);
    // What the demo tells itself is not logged too.
    args.log.start_with("error", trace.layer())?;
    let signal = Signal::next()?;
    let shutdown = CancellationToken::new();
    // However the demo ends, the members of its domain are told.
    let _told = shutdown.clone().drop_guard();
    let mut demo = Demo {
        args,
        output,
        trace,
        deadline: tokio::time::Instant::now() + TOTAL,
        step: 0,
        shutdown: shutdown.clone(),
    };
    if let Some(domain) = demo.run(&signal).await? {
        // The end of a domain that was left running is no failure.
        signal.arrival().await;
        shutdown.cancel();
        domain.ended().await?;
    }
    Ok(())
}

/// A domain that runs.
struct Domain {
    supervisor: Running,
    component: Running,
    /// Removed, or kept, when the domain is gone.
    state: State,
}

impl Domain {
    /// Waits until all of it has ended.
    async fn ended(self) -> Result<(), Failure> {
        self.component.ended().await?;
        self.supervisor.ended().await
    }
}

/// A demo on its way.
struct Demo<'a> {
    args: &'a DemoArgs,
    output: &'a mut Output,
    trace: Trace,
    deadline: tokio::time::Instant,
    step: usize,
    shutdown: CancellationToken,
}

impl Demo<'_> {
    /// Goes through all steps; returns the domain if it is to be left running. A signal ends
    /// it; if Ctrl-C does while it measures, what was measured until then is shown.
    async fn run(&mut self, signal: &Signal) -> Result<Option<Domain>, Failure> {
        let (domain, mut client, plan) = signal.cuts(self.start()).await?;
        let sent = signal.cuts(self.send(&mut client, &plan)).await?;
        let measured = signal.cuts(self.measure(&mut client, &sent)).await;
        if matches!(measured, Err(Failure::Signal(number)) if number == interrupt()) {
            let again = Signal::next()?;
            again.cuts(self.show_rest(&mut client, sent)).await?;
            self.shutdown.cancel();
            again.cuts(self.step("shut down", STEP, domain.ended())).await?;
            return Err(Failure::Signal(interrupt()));
        }
        if self.show(&measured?) == 0 {
            let text = format!(
                "the step \"measure\" failed: {} did not answer",
                plan.destination
            );
            return Err(Told(text).into());
        }
        if self.args.keep {
            self.explain(domain.state.folder(), &plan);
            return Ok(Some(domain));
        }
        self.shutdown.cancel();
        signal.cuts(self.step("shut down", STEP, domain.ended())).await?;
        Ok(None)
    }

    /// Starts a domain and its client, and finds out what to measure.
    async fn start(&mut self) -> Result<(Domain, Client, Plan), Failure> {
        let args = self.args;
        let make = async { State::create(args.state_dir.as_deref(), args.keep) };
        let state = self.step("make a folder", STEP, make).await?;
        let folder = state.folder().to_owned();

        let create = async { Members::create(&folder) };
        let members = self.step("create a private PKI", STEP, create).await?;
        self.tell(format_args!(
            "private PKI: an authority and three P-256 certificates in {}",
            folder.display()
        ));

        let planned = plan::plan(args.target.as_deref(), args.port);
        let (plan, told) = self.step("choose what to measure", STEP, planned).await?;
        self.tell(told);

        let start = async {
            let path = folder.join("supervisor.toml");
            members.write(&path, &members.supervisor, SUPERVISOR_SECTION)?;
            let shutdown = self.shutdown.child_token();
            start_supervisor(&Config::load(&path)?, &path, shutdown).await
        };
        let supervisor = self.step("start the supervisor", STEP, start).await?;
        let address = supervisor
            .address
            .ok_or_else(|| Told("the supervisor does not say where it listens".into()))?;
        let url = format!("https://{address}/");
        self.tell(format_args!("supervisor: serves components and clients at {url}"));

        let start = async {
            let path = folder.join("component.toml");
            let section =
                format!("[[component.initiator]]\nurl = \"{url}\"\n\n{}", plan.services);
            members.write(&path, &members.component, &section)?;
            let shutdown = self.shutdown.child_token();
            start_component(&Config::load(&path)?, &path, shutdown).await
        };
        let component = self.step("start the component", STEP, start).await?;

        let start = async {
            let path = folder.join("client.toml");
            let section = format!("[client]\nurl = \"{url}\"\n");
            members.write(&path, &members.client, &section)?;
            make_client(&Config::load(&path)?, &path)
        };
        let mut client = self.step("start the client", STEP, start).await?;
        let registered = discover(&mut client, &plan.labels);
        let count = self
            .step("wait until the component has registered", STEP, registered)
            .await?;
        self.tell("component: registered with the supervisor over mutual TLS");
        let capabilities = counted(count, "capability", "capabilities");
        self.tell(format_args!("client: discovered {capabilities} at the supervisor"));

        Ok((Domain { supervisor, component, state }, client, plan))
    }

    /// Runs a step within its time; a failure names the step.
    async fn step<T, E: Into<Failure>>(
        &self,
        name: &str,
        limit: Duration,
        step: impl Future<Output = Result<T, E>>,
    ) -> Result<T, Failure> {
        within(name, limit, self.deadline, step).await
    }

    /// Tells that a step was made.
    fn tell(&mut self, text: impl std::fmt::Display) {
        self.step += 1;
        self.output.note(format_args!("{}. {text}", self.step));
    }

    /// Sends the specification.
    async fn send(
        &mut self,
        client: &mut Client,
        plan: &Plan,
    ) -> Result<Measurement, Failure> {
        let duration = self.args.duration;
        let when = When::now_for(duration).with_period(Some(Duration::from_secs(1)));
        self.tell(format_args!(
            "client: asks for {} to {}, {when}",
            plan.label(),
            plan.destination
        ));
        let destination = plan.destination.to_string();
        let name = match plan.destination {
            IpAddr::V4(_) => "destination.ip4",
            IpAddr::V6(_) => "destination.ip6",
        };
        let port = plan.port.map(|port| port.to_string());
        let mut parameters = vec![(name, destination.as_str())];
        parameters.extend(port.as_deref().map(|port| ("destination.port", port)));
        let sent = client.run(plan.label(), when, parameters, Duration::ZERO);
        self.step("send the specification", STEP, sent).await
    }

    /// Waits for the result, and shows progress meanwhile.
    async fn measure(
        &mut self,
        client: &mut Client,
        sent: &Measurement,
    ) -> Result<ResultStatement, Failure> {
        let duration = self.args.duration;
        let asked = Instant::now();
        let mut measurement = sent.clone();
        let limit = duration + DELIVERY;
        let mut ticks = tokio::time::interval(TICK);
        while !measurement.is_settled(jiff::Timestamp::now()) {
            let left = limit.saturating_sub(asked.elapsed());
            let redeemed = client.redeem(measurement.clone(), WAIT);
            let redeemed = async {
                tokio::pin!(redeemed);
                loop {
                    tokio::select! {
                        redeemed = &mut redeemed => return redeemed,
                        _ = ticks.tick() => self.output.progress(
                            progress(&measurement, asked.elapsed(), duration)
                        ),
                    }
                }
            };
            measurement = within("measure", left, self.deadline, redeemed).await?;
        }
        self.step("measure", STEP, async { result_of(measurement) }).await
    }

    /// Stops the measurement, and shows what was measured until then, if it comes.
    async fn show_rest(
        &mut self,
        client: &mut Client,
        sent: Measurement,
    ) -> Result<(), Failure> {
        self.output.note(
            "   interrupted: waits for what was measured so far; Ctrl-C again ends at once",
        );
        let rest = async {
            let mut measurement = client.interrupt(sent).await?;
            while !measurement.is_settled(jiff::Timestamp::now()) {
                measurement = client.redeem(measurement, WAIT).await?;
            }
            result_of(measurement)
        };
        match self.step("measure", REST, rest).await {
            Ok(result) => {
                self.show(&result);
            }
            Err(Failure::Failed(error)) => {
                self.output.note(format_args!("   nothing could be fetched: {error}"));
            }
            Err(other) => return Err(other),
        }
        Ok(())
    }

    /// Shows the rows, their aggregate, and the way of each message; returns how many rows
    /// have an answer. Rows without any are a result, yet the newcomer must hear of it.
    fn show(&mut self, result: &ResultStatement) -> usize {
        self.output.line("");
        self.output.line(rows(result));
        self.output.line("");
        let (text, answered) = aggregate(result);
        self.output.line(text);
        let said = |name| result.find_metadata(name).map(ToString::to_string);
        let told = |name| said(name).unwrap_or_else(|| "unknown".into());
        self.output.line(format_args!(
            "timestamps: {}; socket: {}; measured by {}",
            match said("timestamp.source").as_deref() {
                Some("kernel") => "taken by the kernel",
                Some("user") => "taken in user space (the kernel gave none)",
                Some("mixed") => "some taken by the kernel, some in user space",
                _ => "none, since nothing was answered",
            },
            told("socket.kind"),
            told("component.identity"),
        ));
        self.output.line(format_args!("\nThe way of each message, over mutual TLS:\n"));
        let trace = self.trace.show();
        self.output.line(trace);
        answered
    }

    /// Says how to talk to the domain with the other programs.
    fn explain(&mut self, folder: &Path, plan: &Plan) {
        let destination = match plan.destination {
            IpAddr::V4(_) => "destination.ip4",
            IpAddr::V6(_) => "destination.ip6",
        };
        let port = plan
            .port
            .map(|port| format!("set destination.port {port}; "))
            .unwrap_or_default();
        self.output.line(format_args!(
            "\nThe domain runs until Ctrl-C. Its files stay in {0}.\nTalk to it:\n\n  \
             mpcli --config {0}/client.toml\n  mpcli --config {0}/client.toml -c \"set \
             {destination} {1}; {port}when now + 3s / 1s; runcap {2}; wait\"\n\n(in a \
             checkout: cargo run --release --bin mpcli -- --config …)",
            folder.display(),
            plan.destination,
            plan.label(),
        ));
    }
}

/// Returns the number of the signal that Ctrl-C sends.
const fn interrupt() -> i32 {
    SignalKind::interrupt().as_raw_value()
}

/// Returns the result of a measurement that nothing more comes of.
fn result_of(measurement: Measurement) -> Result<ResultStatement, Failure> {
    match measurement.state {
        MeasurementState::Result(result) => Ok(result),
        MeasurementState::Failed(exception) => {
            Err(Told(exception.message().to_owned()).into())
        }
        _ => Err(Told("no result came".into()).into()),
    }
}

/// Runs a step within its time and the time for all; a failure names the step.
async fn within<T, E: Into<Failure>>(
    name: &str,
    limit: Duration,
    deadline: tokio::time::Instant,
    step: impl Future<Output = Result<T, E>>,
) -> Result<T, Failure> {
    let deadline = deadline.min(tokio::time::Instant::now() + limit);
    let failed =
        |reason: String| Told(format!("the step \"{name}\" failed: {reason}")).into();
    match timeout_at(deadline, step).await {
        Ok(Ok(done)) => Ok(done),
        Ok(Err(error)) => Err(match error.into() {
            Failure::Failed(error) => failed(mplane_runtime::report(&*error)),
            other => other,
        }),
        Err(_) => Err(failed("it took too long".into())),
    }
}

/// Discovers until capabilities are there; returns how many there are then.
async fn discover(client: &mut Client, labels: &[&str]) -> Result<usize, ClientError> {
    loop {
        let count = client.discover().await?;
        let is_known = |label: &&str| client.known().capability(label).is_ok();
        if labels.iter().all(is_known) {
            return Ok(count);
        }
        sleep(Duration::from_millis(20)).await;
    }
}

/// Says how far a measurement is.
fn progress(measurement: &Measurement, elapsed: Duration, duration: Duration) -> String {
    let state = match measurement.state {
        MeasurementState::Sent => "sent",
        MeasurementState::Promised(_) => "the component has promised a result",
        _ => "the result is there",
    };
    format!(
        "   measuring: {:.0} s of {} s; {state}",
        elapsed.min(duration).as_secs_f64(),
        duration.as_secs()
    )
}

/// Computes the aggregate of the delays in a result, and how many there are.
fn aggregate(result: &ResultStatement) -> (String, usize) {
    let table = result.table();
    let delays = ["delay.twoway.icmp.us", "delay.twoway.tcp.connect.us"]
        .iter()
        .find_map(|name| table.column(name));
    let mut delays: Vec<u64> = (0..table.rows())
        .filter_map(|row| match delays?.value(row) {
            Some(Value::Natural(delay)) => Some(delay),
            _ => None,
        })
        .collect();
    delays.sort_unstable();
    let (sent, answered) = (table.rows(), delays.len());
    let counts = format!("{sent} sent, {answered} answered, {} lost", sent - answered);
    let (Some(min), Some(max)) = (delays.first(), delays.last()) else {
        return (counts, answered);
    };
    #[expect(clippy::cast_precision_loss, reason = "shown with one fraction digit")]
    let (mean, median) = {
        let middle = [delays[(answered - 1) / 2], delays[answered / 2]];
        (
            delays.iter().sum::<u64>() as f64 / answered as f64,
            middle.iter().sum::<u64>() as f64 / 2.0,
        )
    };
    let text = format!(
        "{counts}; delay min {min} µs, mean {mean:.1} µs, median {median:.1} µs, max {max} µs"
    );
    (text, answered)
}
