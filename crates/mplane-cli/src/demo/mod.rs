//! `mplane demo`: a whole domain on one machine, and a real measurement across it.
//!
//! The demo writes the configuration files that the programs read, and starts supervisor,
//! component and client with the functions that their `main`s call. Every step has a name
//! and a deadline; what fails says which step it was.

mod state;
mod trace;

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::Args;
use mplane::exchange::client::{Measurement, MeasurementState};
use mplane::message::ResultStatement;
use mplane::primitive::Value;
use mplane::when::When;
use mplane_probe::packet::Family;
use mplane_probe::service::source_towards;
use mplane_probe::socket;
use mplane_runtime::client::{Client, ClientError, is_settled};
use mplane_runtime::shutdown::on_signal;
use tokio::net::{TcpListener, lookup_host};
use tokio::time::{sleep, timeout_at};
use tokio_util::sync::CancellationToken;

use self::state::State;
use self::trace::Trace;
use crate::logging::LogArgs;
use crate::output::Output;
use crate::pki::{Authority, Issued, Role};
use crate::programs::{Config, make_client, start_component, start_supervisor};
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

/// How long one request for the result lets the supervisor wait for it.
const WAIT: Duration = Duration::from_secs(10);

/// How often progress is looked at.
const TICK: Duration = Duration::from_millis(100);

/// The shortest and longest measurement.
const DURATIONS: std::ops::RangeInclusive<Duration> =
    Duration::from_secs(1)..=Duration::from_secs(10);

/// The organization in the demo's certificates.
const ORGANIZATION: &str = "mplane-demo";

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
    let shutdown = CancellationToken::new();
    let received = on_signal(shutdown.clone())?;
    let mut demo = Demo {
        args,
        output,
        trace,
        deadline: tokio::time::Instant::now() + TOTAL,
        step: 0,
        shutdown: shutdown.clone(),
    };
    let ended = tokio::select! {
        ended = demo.run() => ended,
        () = shutdown.cancelled() => Ok(Kept::No),
    };
    let kept = matches!(ended, Ok(Kept::Until));
    shutdown.cancel();
    match received.number() {
        // The end of a domain that was left running is no failure.
        Some(_) if kept => Ok(()),
        Some(number) => Err(Failure::Signal(number)),
        None => ended.map(drop),
    }
}

/// Whether the domain was left running until a signal came.
enum Kept {
    No,
    Until,
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

/// What is measured.
struct Plan {
    label: &'static str,
    destination: IpAddr,
    /// The port of a TCP measurement.
    port: Option<u16>,
    /// The sections of the component's configuration.
    services: String,
    /// Answers TCP connects, if the demo measures to itself.
    _listener: Option<TcpListener>,
}

impl Demo<'_> {
    /// Goes through all steps.
    async fn run(&mut self) -> Result<Kept, Failure> {
        let args = self.args;
        let state = State::create(args.state_dir.as_deref(), args.keep)?;
        let folder = state.folder().to_owned();

        let members = self
            .step("create a private PKI", STEP, async { Members::create(&folder) })
            .await?;
        self.tell(format_args!(
            "private PKI: an authority and three P-256 certificates in {}",
            folder.display()
        ));

        let plan = self.step("choose what to measure", STEP, plan(args)).await?;
        self.tell(&plan.1);
        let plan = plan.0;

        let path = folder.join("supervisor.toml");
        members.write(&path, &members.supervisor, SUPERVISOR_SECTION)?;
        let (config, token) = (Config::load(&path)?, self.shutdown.child_token());
        let supervisor = self
            .step("start the supervisor", STEP, start_supervisor(&config, &path, token))
            .await?;
        let address = supervisor
            .address
            .ok_or_else(|| Told("the supervisor does not say where it listens".into()))?;
        let url = format!("https://{address}/");
        self.tell(format_args!("supervisor: serves components and clients at {url}"));

        let path = folder.join("component.toml");
        let section =
            format!("[[component.initiator]]\nurl = \"{url}\"\n\n{}", plan.services);
        members.write(&path, &members.component, &section)?;
        let (config, token) = (Config::load(&path)?, self.shutdown.child_token());
        let component = self
            .step("start the component", STEP, start_component(&config, &path, token))
            .await?;

        let path = folder.join("client.toml");
        members.write(&path, &members.client, &format!("[client]\nurl = \"{url}\"\n"))?;
        let mut client = make_client(&Config::load(&path)?, &path)?;
        let registered = discover(&mut client, plan.label);
        let count = self
            .step("wait until the component has registered", STEP, registered)
            .await?;
        self.tell("component: registered with the supervisor over mutual TLS");
        self.tell(format_args!(
            "client: discovered {count} capabilities at the supervisor"
        ));

        let result = self.measure(&mut client, &plan).await?;
        self.show(&plan, &result)?;
        if !args.keep {
            self.shutdown.cancel();
            let end = async {
                component.ended().await?;
                supervisor.ended().await
            };
            self.step("shut down", STEP, end).await?;
            return Ok(Kept::No);
        }
        self.explain(&folder, &plan);
        self.shutdown.cancelled().await;
        component.ended().await?;
        supervisor.ended().await?;
        Ok(Kept::Until)
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

    /// Measures, and shows progress meanwhile.
    async fn measure(
        &mut self,
        client: &mut Client,
        plan: &Plan,
    ) -> Result<ResultStatement, Failure> {
        let duration = self.args.duration;
        let when = When::now_for(duration).with_period(Some(Duration::from_secs(1)));
        self.tell(format_args!(
            "client: asks for {} to {}, {when}",
            plan.label, plan.destination
        ));
        let destination = plan.destination.to_string();
        let name = match plan.destination {
            IpAddr::V4(_) => "destination.ip4",
            IpAddr::V6(_) => "destination.ip6",
        };
        let port = plan.port.map(|port| port.to_string());
        let mut parameters = vec![(name, destination.as_str())];
        parameters.extend(port.as_deref().map(|port| ("destination.port", port)));
        let asked = Instant::now();
        let sent = client.run(plan.label, when, parameters, Duration::ZERO);
        let mut measurement = self.step("send the specification", STEP, sent).await?;
        let limit = duration + DELIVERY;
        let mut ticks = tokio::time::interval(TICK);
        while !is_settled(&measurement) {
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
        match measurement.state {
            MeasurementState::Result(result) => Ok(result),
            MeasurementState::Failed(exception) => {
                let reason = exception.message();
                Err(Told(format!("the step \"measure\" failed: {reason}")).into())
            }
            _ => Err(Told("the step \"measure\" failed: no result came".into()).into()),
        }
    }

    /// Shows the rows, their aggregate, and the way of each message. Rows without any
    /// answer are a result, yet the newcomer must hear of it.
    fn show(&mut self, plan: &Plan, result: &ResultStatement) -> Result<(), Failure> {
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
        if answered == 0 {
            return Err(Told(format!(
                "the step \"measure\" failed: {} did not answer",
                plan.destination
            ))
            .into());
        }
        Ok(())
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
            plan.label,
        ));
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
            signal @ Failure::Signal(_) => signal,
        }),
        Err(_) => Err(failed("it took too long".into())),
    }
}

/// The supervisor's section: the system chooses the port.
const SUPERVISOR_SECTION: &str = "[supervisor.listener]\naddress = \"127.0.0.1:0\"\n";

/// The certificates of the demo's domain.
struct Members {
    authority: PathBuf,
    supervisor: Issued,
    component: Issued,
    client: Issued,
}

impl Members {
    /// Creates the authority and a certificate for each member.
    fn create(folder: &Path) -> Result<Self, Failure> {
        let authority = Authority::create(folder, ORGANIZATION)?;
        let hosts = ["127.0.0.1", "::1", "localhost"].map(ToOwned::to_owned);
        Ok(Self {
            supervisor: authority.issue(Role::Supervisor, "supervisor-1", &hosts)?,
            component: authority.issue(Role::Component, "probe-1", &hosts)?,
            client: authority.issue(Role::Client, "client-1", &hosts)?,
            authority: authority.cert(),
        })
    }

    /// Writes the configuration of a member.
    fn write(&self, path: &Path, member: &Issued, section: &str) -> Result<(), Failure> {
        let name = |file: &Path| {
            let name = file.file_name().unwrap_or_default();
            name.to_string_lossy().into_owned()
        };
        let text = format!(
            "[tls]\nca-chain = {:?}\ncert = {:?}\nkey = {:?}\n\n{section}",
            name(&self.authority),
            name(&member.cert),
            name(&member.key),
        );
        fs::write(path, text).map_err(|source| {
            let path = path.to_owned();
            WriteConfigError { path, source }.into()
        })
    }
}

/// A configuration that cannot be written.
#[derive(Debug, thiserror::Error)]
#[error("cannot write {path}")]
struct WriteConfigError {
    path: PathBuf,
    source: io::Error,
}

/// Decides what to measure, by trying what this process may do.
async fn plan(args: &DemoArgs) -> Result<(Plan, String), Failure> {
    let destination = match &args.target {
        None => IpAddr::V4(Ipv4Addr::LOCALHOST),
        Some(host) => resolve(host).await?,
    };
    let family = Family::of(destination);
    let source = source_towards(destination)?;
    if args.port.is_none() {
        let availability = socket::detect(family).await;
        if availability.is_usable() {
            let ip6 = match family {
                Family::V4 => {
                    loopback_ip6().map(|address| format!("ip6 = \"{address}\"\n"))
                }
                Family::V6 => None,
            };
            let key = if family == Family::V4 { "ip4" } else { "ip6" };
            let services = format!(
                "[[component.service]]\ntype = \"ping\"\n{key} = \"{source}\"\n{}{}",
                ip6.unwrap_or_default(),
                tcp_service(source),
            );
            let label = match family {
                Family::V4 => "ping-detail-ip4",
                Family::V6 => "ping-detail-ip6",
            };
            let plan = Plan { label, destination, port: None, services, _listener: None };
            return Ok((plan, availability.to_string()));
        }
        if args.target.is_some() {
            return Err(Told(format!(
                "{availability}; or name a port of the target with --port, to measure TCP \
                 connects"
            ))
            .into());
        }
        let (plan, _) = tcp_plan(destination, source, None).await?;
        return Ok((plan, format!("{availability}; measures TCP connects instead")));
    }
    let (plan, told) = tcp_plan(destination, source, args.port).await?;
    Ok((plan, told))
}

/// Plans a measurement of TCP connects: to a port, or to a listener of the demo's own.
async fn tcp_plan(
    destination: IpAddr,
    source: IpAddr,
    port: Option<u16>,
) -> Result<(Plan, String), Failure> {
    if !destination.is_ipv4() {
        return Err(Told("TCP connects are measured over IPv4 only".into()).into());
    }
    let (port, listener) = if let Some(port) = port {
        (port, None)
    } else {
        let listener = TcpListener::bind((destination, 0)).await?;
        (listener.local_addr()?.port(), Some(listener))
    };
    let plan = Plan {
        label: "tcp-connect-ip4",
        destination,
        port: Some(port),
        services: tcp_service(source),
        _listener: listener,
    };
    Ok((plan, format!("measures TCP connects to port {port}")))
}

/// Returns the section of the TCP service, which connects over IPv4 only.
fn tcp_service(source: IpAddr) -> String {
    if source.is_ipv4() {
        format!("\n[[component.service]]\ntype = \"tcp-connect\"\nip4 = \"{source}\"\n")
    } else {
        String::new()
    }
}

/// Returns the IPv6 loopback address, where there is IPv6.
fn loopback_ip6() -> Option<IpAddr> {
    let address = IpAddr::V6(Ipv6Addr::LOCALHOST);
    std::net::UdpSocket::bind((address, 0)).is_ok().then_some(address)
}

/// Returns an address of a host, IPv4 first.
async fn resolve(host: &str) -> Result<IpAddr, Failure> {
    if let Ok(address) = host.parse() {
        return Ok(address);
    }
    let found: Vec<_> = lookup_host((host, 0))
        .await
        .map_err(|source| ResolveError { host: host.to_owned(), source })?
        .map(|found| found.ip())
        .collect();
    let address = found.iter().find(|ip| ip.is_ipv4()).or_else(|| found.first()).copied();
    address.ok_or_else(|| Told(format!("{host} has no address")).into())
}

/// A name without address.
#[derive(Debug, thiserror::Error)]
#[error("cannot find the address of {host}; give an address instead of a name")]
struct ResolveError {
    host: String,
    source: io::Error,
}

/// Discovers until a capability is there; returns how many there are then.
async fn discover(client: &mut Client, label: &str) -> Result<usize, ClientError> {
    loop {
        let count = client.discover().await?;
        if client.known().capability(label).is_ok() {
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
