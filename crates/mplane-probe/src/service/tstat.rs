//! tStat's log of completed TCP flows: a row for each flow that ends within a measurement,
//! for each of its five sets of columns.
//!
//! While a measurement goes on, the flags that its set needs are on in `runtime.conf`. Its
//! rows are read from the logs at its end. Clock: UTC decides which flows they are; how
//! long a measurement takes is monotonic.
//!
//! *Differences*: the set of round-trip times has the responder's beside the columns of the
//! reference, which has those of one direction. Invented values are marked.

use std::net::Ipv4Addr;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use mplane::address::Address;
use mplane::limits;
use mplane::message::{BuildError, Capability, Statement};
use mplane::primitive::{Primitive, Real, Value};
use mplane::registry::{Element, PLATFORM, Registries, TSTAT};
use mplane::when::Instant;
use mplane_runtime::report;
use mplane_runtime::service::{Completed, Run, RunError, Service, Work};
use tokio::task::spawn_blocking;
use tracing::warn;

use super::{OPEN_SCOPE, SetUpError, Subnet};
use crate::tstat::{Column, Findings, Set, Switches, Tail};

/// How long after the end of its scope a measurement waits for what tStat still writes. A
/// component lets it have [`limits::SCOPE_GRACE_S`].
const FLUSH: Duration = Duration::from_secs(1);

/// A service of one set.
#[derive(Debug)]
struct Tstat {
    capability: Capability,
    set: Set,
    /// The result columns with the types of their elements.
    columns: Arc<[(Column, Primitive)]>,
    /// Where rows come from.
    origin: Origin,
    /// The element that says how many lines could not be read.
    unreadable: Arc<Element>,
    /// The element that says that values are invented.
    simulated: Arc<Element>,
}

/// Where rows come from.
#[derive(Clone, Debug)]
enum Origin {
    /// A tStat.
    Logs {
        /// Its flags.
        switches: Switches,
        /// Its folder.
        folder: PathBuf,
    },
    /// Nowhere: they are invented.
    Nowhere,
}

/// Makes the services of a tStat. Sets whose flags it does not have are logged with the
/// remedy and left out.
pub(super) fn services(
    runtime_conf: &Path,
    log_dir: &Path,
    net: Option<Subnet>,
    registries: &Registries,
) -> Result<Vec<Arc<dyn Service>>, SetUpError> {
    let switches = Switches::open(runtime_conf)
        .map_err(|source| SetUpError::RuntimeConf(Box::new(source)))?;
    Tail::start(log_dir).map_err(|source| SetUpError::LogDir(Box::new(source)))?;
    let mut services: Vec<Arc<dyn Service>> = Vec::new();
    for set in Set::ALL {
        if let Err(error) = switches.check(set.flags()) {
            let problem = report(&error);
            warn!(problem, "{} is not offered", set.label());
            continue;
        }
        let (switches, folder) = (switches.clone(), log_dir.to_owned());
        let origin = Origin::Logs { switches, folder };
        services.push(Arc::new(Tstat::new(set, origin, net, registries)?));
    }
    Ok(services)
}

/// Makes services that invent values, which the log says.
pub(super) fn simulated_services(
    net: Option<Subnet>,
    registries: &Registries,
) -> Result<Vec<Arc<dyn Service>>, BuildError> {
    warn!("simulates tStat: all its values are invented; remove simulate to measure");
    let make = |set| Tstat::new(set, Origin::Nowhere, net, registries);
    Set::ALL.map(|set| Ok(Arc::new(make(set)?) as Arc<dyn Service>)).into_iter().collect()
}

impl Tstat {
    /// Makes a service.
    fn new(
        set: Set,
        origin: Origin,
        net: Option<Subnet>,
        registries: &Registries,
    ) -> Result<Self, BuildError> {
        let scope = OPEN_SCOPE.parse().expect("the scope is a constant");
        let mut statement = Statement::new("measure", TSTAT, scope)
            .labelled(set.label())
            .metavalue(registries, "System_type", "tStat")?;
        if matches!(origin, Origin::Nowhere) {
            statement =
                statement.metavalue(registries, "measurement.simulated", "True")?;
        }
        if let Some(Subnet { address, mask }) = net {
            statement = statement
                .parameter(registries, "subnet.ip4", &address.to_string())?
                .parameter(registries, "subnet.netmask", &mask.to_string())?;
        }
        for column in set.columns() {
            statement = statement.column(registries, column.element)?;
        }
        let types = statement.columns().map(|element| element.primitive());
        let columns = set.columns().iter().copied().zip(types).collect();
        let element = |name| registries.element(PLATFORM, name).map(Arc::clone);
        Ok(Self {
            capability: Capability::new(statement),
            set,
            columns,
            origin,
            unreadable: element("log.lines.unreadable")?,
            simulated: element("measurement.simulated")?,
        })
    }

    /// Measures, and pushes the rows.
    async fn measure(&self, work: Work) -> Result<Completed, RunError> {
        match &self.origin {
            Origin::Nowhere => self.invent(&work).await,
            Origin::Logs { switches, folder } => {
                self.collect(&work, switches, folder).await
            }
        }
    }

    /// Has tStat log what is asked for until the end, and reads it.
    async fn collect(
        &self,
        work: &Work,
        switches: &Switches,
        folder: &Path,
    ) -> Result<Completed, RunError> {
        let (switches, folder) = (switches.clone(), folder.to_owned());
        let flags = self.set.flags();
        let (tail, held, from) = blocking(move || {
            let tail = Tail::start(&folder).map_err(|error| failed(&error))?;
            let from = Timestamp::now();
            let held = switches.hold(flags).map_err(|error| failed(&error))?;
            Ok((tail, held, from))
        })
        .await?;
        wait(work).await;
        let to = Timestamp::now();
        blocking(move || {
            drop(held);
            Ok(())
        })
        .await?;
        if !work.stop.is_cancelled() {
            tokio::select! {
                () = tokio::time::sleep(FLUSH) => {}
                () = work.stop.cancelled() => {}
            }
        }
        let (rows, columns) = (work.rows.clone(), Arc::clone(&self.columns));
        let findings = blocking(move || {
            let most = most_rows(columns.len());
            let mut taken = 0;
            let mut overflow = None;
            let take = |row| {
                if taken == most {
                    overflow = Some(RunError(format!(
                        "a result of {} columns has at most {most} rows; ask for a shorter \
                         measurement",
                        columns.len()
                    )));
                    return ControlFlow::Break(());
                }
                taken += 1;
                match rows.push(row) {
                    Ok(()) => ControlFlow::Continue(()),
                    Err(error) => {
                        overflow = Some(error);
                        ControlFlow::Break(())
                    }
                }
            };
            let findings = tail.read(&columns, &(from..=to), take);
            overflow.map_or(Ok(()), Err)?;
            findings.map_err(|error| failed(&error))
        })
        .await?;
        self.tell(&findings);
        let unreadable = Value::Natural(findings.unreadable);
        Ok(Completed { metadata: vec![(Arc::clone(&self.unreadable), Some(unreadable))] })
    }

    /// Logs what could not be read.
    fn tell(&self, findings: &Findings) {
        if let Some(problem) = &findings.problem {
            let lines = findings.unreadable;
            let set = self.set.label();
            warn!(set, lines, first = %problem, "lines of tStat's logs could not be read");
        }
    }

    /// Invents a row.
    async fn invent(&self, work: &Work) -> Result<Completed, RunError> {
        let start = Timestamp::now();
        wait(work).await;
        work.rows.push(self.columns.iter().map(|(_, primitive)| {
            Some(match primitive {
                Primitive::Natural => Value::Natural(0),
                Primitive::Real => Value::Real(Real(0.0)),
                Primitive::Bool => Value::Bool(true),
                Primitive::Time => Value::Time(Instant::At(start)),
                // For documentation (RFC 5737, RFC 2606).
                Primitive::Address => {
                    Value::Address(Address::host(Ipv4Addr::new(192, 0, 2, 1).into()))
                }
                Primitive::Url => Value::Url("http://www.example.com/".into()),
                Primitive::String => Value::String("simulated".into()),
                Primitive::Object => Value::Object("{}".into()),
            })
        }))?;
        let simulated = Some(Value::Bool(true));
        Ok(Completed { metadata: vec![(Arc::clone(&self.simulated), simulated)] })
    }
}

impl Service for Tstat {
    fn capability(&self) -> Capability {
        self.capability.clone()
    }

    fn run(&self, work: Work) -> Run<'_> {
        Box::pin(self.measure(work))
    }
}

/// Waits for the end of a measurement.
async fn wait(work: &Work) {
    let end = async {
        match work.duration {
            Some(duration) => tokio::time::sleep(duration).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        () = end => {}
        () = work.stop.cancelled() => {}
    }
}

/// Does what waits for files on a thread for that.
async fn blocking<T: Send + 'static>(
    act: impl FnOnce() -> Result<T, RunError> + Send + 'static,
) -> Result<T, RunError> {
    let done = spawn_blocking(act).await;
    done.unwrap_or_else(|_| Err(RunError("the service failed inside".into())))
}

/// Tells why files cannot be used.
fn failed(error: &dyn std::error::Error) -> RunError {
    RunError(report(error))
}

/// Returns how many rows of so many columns a result may have, so that it is no larger
/// than the largest message.
fn most_rows(columns: usize) -> usize {
    limits::RESULT_ROWS.min(limits::FINISHED_VALUES / columns.max(1))
}

#[cfg(test)]
#[path = "tstat_tests.rs"]
mod tests;
