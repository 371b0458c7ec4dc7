//! Services in any language: a program of its own that is given a specification and says
//! what it measures, line by line.
//!
//! A folder describes the service ([`Definition`]): what it offers, which command runs it,
//! what a run may use ([`Limits`]). For each run the command is started as a process; one
//! line of JSON goes in, lines of JSON come out ([`Contract`]), SIGTERM ends it early.
//! Whatever the process does, the component goes on: it is bounded in time, memory and
//! output, it is killed with everything it started, and what it did wrong is told with
//! the line and what was expected ([`Fault`]). `docs/external-services.md` is the
//! contract for people.
//!
//! Monotonic clock for all limits.

mod contract;
mod launch;
mod limits;
mod lines;
mod load;
mod process;
mod run;
#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use mplane::json::{Form, encode};
use mplane::message::{Capability, Message};
use mplane::registry::Registries;
use serde::Deserialize;
use tokio::sync::Semaphore;
use tracing::{debug, error, info, warn};

pub use contract::{BadLine, Contract, Event, Level};
pub use launch::{Launcher, intercept};
pub use limits::{BadLimit, Limits};
pub use load::{Definition, LoadServiceError};
pub use run::{Execution, Fault, Note, Stopped, Watch};

use crate::service::{Completed, Run, RunError, Service, Work};
use limits::{LOGGED_BYTES, LOGGED_LINES};

/// The configuration of an external service.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct ExternalConfig {
    /// The folder that describes it.
    pub folder: PathBuf,
}

/// A service that is a program of its own.
#[derive(Debug)]
pub struct External {
    definition: Definition,
    contract: Contract,
    launcher: Option<Launcher>,
    /// One permit for each run that may still start.
    free: Semaphore,
}

impl External {
    /// Makes a service of what its folder says. Without a launcher, memory, open files
    /// and privileges of its processes are not limited.
    pub fn new(
        definition: Definition,
        registries: &Registries,
        launcher: Option<Launcher>,
    ) -> Self {
        let contract = Contract::new(&definition.capability, registries);
        let free = Semaphore::new(definition.limits.parallel);
        Self { definition, contract, launcher, free }
    }

    /// Returns what the folder says.
    pub const fn definition(&self) -> &Definition {
        &self.definition
    }

    /// Carries a specification out, and tells everything about it.
    pub async fn execute(&self, work: Work, watch: Arc<dyn Watch>) -> Execution {
        let message = Message::Specification(work.specification.clone());
        let mut input = encode(&message, Form::NATIVE);
        input.push(b'\n');
        self.execute_with(input, work, watch).await
    }

    /// Does the same with another input, to see what the service makes of it.
    pub async fn execute_with(
        &self,
        input: Vec<u8>,
        work: Work,
        watch: Arc<dyn Watch>,
    ) -> Execution {
        run::execute(self, input, work, watch).await
    }

    /// Measures as a component wants it.
    async fn measure(&self, work: Work) -> Result<Completed, RunError> {
        let name = self.definition.name();
        let Ok(_permit) = self.free.try_acquire() else {
            return Err(RunError(format!(
                "service {name} runs {} times already, as often as it may at once; try \
                 again later",
                self.definition.limits.parallel
            )));
        };
        let log = Log { service: name.clone(), left: AtomicU32::new(LOGGED_LINES) };
        let execution = self.execute(work, Arc::new(log)).await;
        if execution.stopped.is_some_and(|stopped| stopped.is_forced) {
            let grace = self.definition.limits.stop_grace;
            warn!(service = name, ?grace, "was killed: it did not end when told to");
        }
        match execution.fault {
            None => Ok(Completed { metadata: execution.metadata }),
            Some(fault) => {
                let reason = format!("service {name}: {}", crate::report(&fault));
                warn!(reason, rows = execution.rows, "an external service failed");
                Err(RunError(reason))
            }
        }
    }
}

impl Service for External {
    fn capability(&self) -> Capability {
        self.definition.capability.clone()
    }

    fn run(&self, work: Work) -> Run<'_> {
        Box::pin(self.measure(work))
    }
}

/// Writes what a service says for people to the log, within bounds.
struct Log {
    service: String,
    /// Lines that may still be written.
    left: AtomicU32,
}

impl Watch for Log {
    fn note(&self, note: Note<'_>) {
        let service = self.service.as_str();
        let text = match note {
            Note::Started { group } => return debug!(service, group, "runs"),
            Note::Progress(progress) => return debug!(service, progress, "works"),
            Note::Row(_) | Note::Ended { .. } => return,
            Note::Log(_, text) | Note::StandardError(text) => {
                printable(text.as_bytes(), LOGGED_BYTES)
            }
        };
        let take = |left: u32| left.checked_sub(1);
        match self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take) {
            Err(_) => return,
            Ok(1) => {
                return warn!(
                    service,
                    "says more than {LOGGED_LINES} lines; no more of them"
                );
            }
            Ok(_) => {}
        }
        match note {
            Note::Log(Level::Error, _) => error!(service, text, "says"),
            Note::Log(Level::Warn, _) => warn!(service, text, "says"),
            Note::Log(Level::Debug, _) => debug!(service, text, "says"),
            _ => info!(service, text, "says"),
        }
    }
}

/// Returns text of a service as it can be shown to people: nothing that a terminal would
/// act upon, and cut to so many bytes.
fn printable(text: &[u8], limit: usize) -> String {
    let text = String::from_utf8_lossy(text);
    let mut shown = String::with_capacity(text.len().min(limit));
    for character in text.trim_end().chars() {
        if shown.len() + character.len_utf8() > limit {
            shown.push('…');
            break;
        }
        let is_harmless = !character.is_control() || character == '\t';
        shown.push(if is_harmless { character } else { char::REPLACEMENT_CHARACTER });
    }
    shown
}
