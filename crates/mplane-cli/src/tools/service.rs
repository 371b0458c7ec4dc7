//! `mplane service`: for authors of services that are programs of their own.

use std::fs;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use clap::{Args, Subcommand};
use jiff::Timestamp;
use mplane::json::{Form, encode};
use mplane::limits::SCOPE_GRACE_S;
use mplane::message::{Capability, Message, Specification};
use mplane::registry::Registries;
use mplane::when::When;
use mplane_runtime::config::RegistriesConfig;
use mplane_runtime::external::{
    Definition, Execution, External, Fault, Launcher, Note, Watch,
};
use mplane_runtime::service::{Rows, Work};
use serde_json::json;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::Format;
use crate::output::{Output, counted, table};
use crate::{Failure, Told};

/// How long a service may do nothing before it is told to stop.
const FIRST_SIGN: Duration = Duration::from_secs(2);

/// How long a service may take to refuse a specification.
const REFUSAL: Duration = Duration::from_secs(5);

/// What is no specification.
const GARBAGE: &[u8] = b"this is no specification\n";

/// Lines of a service that are shown.
const SHOWN_LINES: usize = 20;

/// The tasks of `mplane service`.
#[derive(Clone, Debug, Subcommand)]
pub enum ServiceCommand {
    /// Check that a service keeps the contract, before it is deployed
    ///
    /// Loads its folder, runs it with the parameters given, and checks every line. Runs it
    /// again to see that it stops when told to, and with what is no specification. Says
    /// for each check that failed how to mend it; the exit status is 1 if any did.
    Test(TestArgs),
}

/// The arguments of `mplane service test`.
#[derive(Args, Clone, Debug)]
pub struct TestArgs {
    /// The folder with capability.json (or capability.toml) and service.toml
    #[arg(value_name = "DIR")]
    folder: PathBuf,
    /// A parameter of the specification
    #[arg(short, long = "parameter", value_name = "NAME=VALUE", value_parser = pair)]
    parameters: Vec<(String, String)>,
    /// The temporal scope of the specification; default: three seconds or periods
    #[arg(long, value_name = "SCOPE")]
    when: Option<String>,
    /// Registry files to know, each after those that it includes
    #[arg(long = "registry", value_name = "FILE")]
    registries: Vec<PathBuf>,
    /// How to print
    #[arg(short, long, value_name = "FORMAT", default_value = "text")]
    output: Format,
}

/// Reads a parameter.
fn pair(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("expected NAME=VALUE")?;
    Ok((name.to_owned(), value.to_owned()))
}

impl ServiceCommand {
    /// Carries the task out.
    pub async fn run(self, output: &mut Output) -> Result<(), Failure> {
        let Self::Test(args) = self;
        let registries = RegistriesConfig { preload: args.registries.clone() }.load()?;
        let mut checks = Checks::default();
        let label = args.test(&registries, &mut checks, output).await;
        let failed =
            checks.0.iter().filter(|check| check.verdict == Verdict::Failed).count();
        match args.output {
            Format::Json => output.line(checks.as_json(label.as_deref())),
            Format::Text => output.line(checks.as_text()),
        }
        if failed == 0 {
            Ok(())
        } else {
            let checks = counted(checks.0.len(), "check", "checks");
            Err(Told(format!("{failed} of {checks} failed")).into())
        }
    }
}

impl TestArgs {
    /// Makes all checks that can be made; returns the name of the service.
    async fn test(
        &self,
        registries: &Registries,
        checks: &mut Checks,
        output: &mut Output,
    ) -> Option<String> {
        let definition = match Definition::load(&self.folder, registries) {
            Ok(definition) => definition,
            Err(error) => {
                let told = mplane_runtime::report(&error);
                checks.failed("the folder describes a service", told, "mend the file");
                return None;
            }
        };
        let name = definition.name();
        let capability = definition.capability().clone();
        checks.ok("the folder describes a service", capability.to_string());
        if self.output == Format::Text {
            let message = Message::Capability(capability.clone());
            output.line(String::from_utf8_lossy(&encode(&message, Form::FILE)));
        }
        let specification = match self.specify(&capability) {
            Ok(specification) => specification,
            Err(problem) => {
                let remedy = "give -p NAME=VALUE for each parameter, and --when SCOPE";
                checks.failed("the specification can be made", problem, remedy);
                return Some(name);
            }
        };
        checks.ok("the specification can be made", specification.when().to_string());
        let service =
            External::new(definition, registries, Some(Launcher::this_program()));
        let diary = Arc::new(Diary::default());
        check_run(&service, &specification, &diary, checks).await;
        if self.output == Format::Text {
            for line in &diary.entries().said {
                output.note(format_args!("{name} says: {line}"));
            }
        }
        check_stop(&service, &specification, checks).await;
        check_refusal(&service, &specification, checks).await;
        Some(name)
    }

    /// Makes the specification to test with.
    fn specify(&self, capability: &Capability) -> Result<Specification, String> {
        let mut specification = Specification::of(capability);
        for (name, value) in &self.parameters {
            specification
                .set_parameter(name, value)
                .map_err(|error| error.to_string())?;
        }
        let missing: Vec<_> = specification.missing().collect();
        if !missing.is_empty() {
            return Err(format!("without a value: {}", missing.join(", ")));
        }
        let when = match &self.when {
            Some(scope) => {
                scope.parse().map_err(|error| format!("{scope:?}: {error}"))?
            }
            None => short_scope(capability.when()),
        };
        if !when.lies_within(capability.when(), Timestamp::now()) {
            let offered = capability.when();
            return Err(format!("the temporal scope {when} does not lie in {offered}"));
        }
        specification.set_when(when);
        Ok(specification)
    }
}

/// Returns a scope of three seconds or periods, if the capability allows it.
fn short_scope(offered: &When) -> When {
    let period = offered.period();
    let length = period.map_or(Duration::ZERO, |period| 3 * period);
    let short = When::now_for(length.max(Duration::from_secs(3))).with_period(period);
    let is_allowed = short.lies_within(offered, Timestamp::now());
    if is_allowed { short } else { offered.clone() }
}

/// Returns the longest scope that the capability allows, to be interrupted.
fn long_scope(offered: &When, short: &When) -> When {
    let period = short.period();
    let hour = When::now_for(Duration::from_secs(3_600)).with_period(period);
    [When::now_to_future().with_period(period), hour]
        .into_iter()
        .find(|scope| scope.lies_within(offered, Timestamp::now()))
        .unwrap_or_else(|| short.clone())
}

/// Runs a service as a component would, and checks what it does.
async fn check_run(
    service: &External,
    specification: &Specification,
    diary: &Arc<Diary>,
    checks: &mut Checks,
) {
    let (work, stop) = work(specification);
    // A component stops what does not end with its scope.
    let scope = work.duration.unwrap_or(FIRST_SIGN);
    let patience = scope + Duration::from_secs(SCOPE_GRACE_S.unsigned_abs());
    let execution = execute(service, None, work, Arc::clone(diary), async {
        tokio::time::sleep(patience).await;
        stop.cancel();
    })
    .await;
    let counts = format!(
        "{}, {}",
        counted(usize::try_from(execution.lines).unwrap_or(usize::MAX), "line", "lines"),
        counted(execution.rows, "row", "rows")
    );
    let keeps = "the run keeps the contract";
    match &execution.fault {
        None => checks.ok(keeps, counts),
        Some(fault) => {
            let told = format!("{counts}; {}", mplane_runtime::report(fault));
            checks.failed(keeps, told, remedy(fault));
        }
    }
    let ends = "it ends with its temporal scope";
    let took = format!("{:.1} s", execution.took.as_secs_f64());
    if execution.stopped.is_none() {
        checks.ok(ends, took);
    } else if specification.when().is_forever() {
        checks.skipped(ends, "the scope has no end".into());
    } else {
        let remedy = "measure for MPLANE_DURATION_S seconds, then say done and exit";
        checks.failed(ends, format!("it was told to after {took}"), remedy);
    }
    let exits = "its exit status is 0";
    match execution.status {
        Some(status) if status.success() => checks.ok(exits, String::new()),
        status => {
            let told =
                status.map_or_else(|| "unknown".into(), |status| status.to_string());
            checks.failed(exits, told, "exit with 0 soon after saying done");
        }
    }
    let nothing = "it leaves no process behind";
    let left = diary.entries().left.join(", ");
    if left.is_empty() {
        checks.ok(nothing, String::new());
    } else {
        let remedy = "wait for every process that it starts; what is left is killed";
        checks.failed(nothing, left, remedy);
    }
}

/// Checks that a service stops when it is told to, in the midst of its work.
async fn check_stop(
    service: &External,
    specification: &Specification,
    checks: &mut Checks,
) {
    let stops = "it stops when told to by SIGTERM";
    let mut specification = specification.clone();
    let offered = service.definition().capability().when();
    let scope = long_scope(offered, specification.when());
    specification.set_when(scope);
    let (work, stop) = work(&specification);
    let diary = Arc::new(Diary::default());
    let sign = Arc::clone(&diary);
    let execution = execute(service, None, work, diary, async {
        // Whatever comes first: it has started its work, or seems to have nothing to say.
        drop(tokio::time::timeout(FIRST_SIGN, sign.row.notified()).await);
        stop.cancel();
    })
    .await;
    let grace = service.definition().limits().stop_grace;
    match (execution.stopped, &execution.fault) {
        (None, _) => checks.skipped(stops, "it ended by itself before".into()),
        (Some(stopped), _) if stopped.is_forced => {
            let told = format!("it had to be killed after {grace:?}");
            let remedy = "end within stop-grace after SIGTERM; in a shell script with a \
                          trap, start programs with & and wait for them";
            checks.failed(stops, told, remedy);
        }
        (Some(_), Some(fault)) => {
            checks.failed(stops, mplane_runtime::report(fault), remedy(fault));
        }
        (Some(stopped), None) => {
            checks.ok(stops, format!("after {:.3} s", stopped.took.as_secs_f64()));
        }
    }
}

/// Checks that a service refuses what is no specification.
async fn check_refusal(
    service: &External,
    specification: &Specification,
    checks: &mut Checks,
) {
    let refuses = "it refuses what is no specification";
    if specification.parameters().len() == 0 {
        checks.skipped(refuses, "it has no parameters to read".into());
        return;
    }
    let (work, stop) = work(specification);
    let diary = Arc::new(Diary::default());
    let execution = execute(service, Some(GARBAGE.to_vec()), work, diary, async {
        tokio::time::sleep(REFUSAL).await;
        stop.cancel();
    })
    .await;
    let has_refused = matches!(execution.fault, Some(Fault::Failed(_)));
    if has_refused && execution.rows == 0 && execution.stopped.is_none() {
        let told = execution.fault.map(|fault| fault.to_string()).unwrap_or_default();
        checks.ok(refuses, told);
    } else {
        let told = execution.fault.map_or_else(
            || "it measured something".to_owned(),
            |fault| mplane_runtime::report(&fault),
        );
        let remedy = "say {\"failed\": \"why\"} if the first line cannot be read";
        checks.failed(refuses, told, remedy);
    }
}

/// Returns work to do, and what stops it.
fn work(specification: &Specification) -> (Work, CancellationToken) {
    let stop = CancellationToken::new();
    let work = Work {
        specification: specification.clone(),
        duration: specification.when().duration(Timestamp::now()),
        rows: Rows::new(specification),
        stop: stop.clone(),
    };
    (work, stop)
}

/// Runs a service to its end, and something beside it until then.
async fn execute(
    service: &External,
    input: Option<Vec<u8>>,
    work: Work,
    diary: Arc<Diary>,
    beside: impl Future<Output = ()>,
) -> Execution {
    let run = async {
        match input {
            None => service.execute(work, diary).await,
            Some(input) => service.execute_with(input, work, diary).await,
        }
    };
    let beside = async {
        beside.await;
        std::future::pending().await
    };
    tokio::select! {
        execution = run => execution,
        execution = beside => execution,
    }
}

/// Says how to mend a fault.
const fn remedy(fault: &Fault) -> &'static str {
    match fault {
        Fault::Start(_) => "check command in service.toml, and that it is executable",
        Fault::Failed(_) => "give parameters with which it can measure here",
        Fault::Line { .. } => "write the line as docs/external-services.md says",
        Fault::LongLine(_) => "end each line with a line feed, and write shorter ones",
        Fault::AfterEnd(_) => "say done or failed last",
        Fault::Output(_) | Fault::StandardError(_) => {
            "write less, or raise output-limit-bytes in service.toml"
        }
        Fault::Read(_) => "try again",
        Fault::Rows(_) => "yield fewer rows, or raise row-limit in service.toml",
        Fault::Time(_) => "end earlier, or raise time-limit in service.toml",
        Fault::Scope => "measure for MPLANE_DURATION_S seconds, then say done",
        Fault::Silent(_) | Fault::Closed => {
            "say {\"done\": true} or {\"failed\": \"why\"}, and flush it, before it ends"
        }
    }
}

/// What a run does, remembered.
#[derive(Default)]
struct Diary {
    entries: Mutex<Entries>,
    /// Tells that a row has come.
    row: Notify,
}

/// What is remembered.
#[derive(Default)]
struct Entries {
    /// Lines for people, the first ones.
    said: Vec<String>,
    /// Processes that were left.
    left: Vec<String>,
}

impl Diary {
    /// Opens it. A panic elsewhere leaves it whole.
    fn entries(&self) -> MutexGuard<'_, Entries> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Watch for Diary {
    fn note(&self, note: Note<'_>) {
        match note {
            Note::Row(_) => self.row.notify_one(),
            Note::Log(_, text) | Note::StandardError(text) => {
                let mut entries = self.entries();
                if entries.said.len() < SHOWN_LINES {
                    entries.said.push(text.escape_debug().to_string());
                }
            }
            Note::Ended { group } => self.entries().left = processes(group),
            Note::Started { .. } | Note::Progress(_) => {}
        }
    }
}

/// Names the processes of a group that are alive.
fn processes(group: i32) -> Vec<String> {
    let folders = fs::read_dir("/proc").into_iter().flatten().flatten();
    let stats =
        folders.filter_map(|folder| fs::read_to_string(folder.path().join("stat")).ok());
    stats.filter_map(|stat| alive(&stat, group)).collect()
}

/// Names a process that is alive and of a group, by what the kernel says of it (proc(5)).
fn alive(stat: &str, group: i32) -> Option<String> {
    let (name, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_whitespace();
    let (state, its_group) = (fields.next()?, fields.nth(1)?);
    let is_alive = !matches!(state, "Z" | "X");
    (is_alive && its_group == group.to_string()).then(|| format!("{name})"))
}

/// What was checked.
#[derive(Default)]
struct Checks(Vec<Check>);

/// One check.
struct Check {
    what: &'static str,
    verdict: Verdict,
    /// What was seen.
    seen: String,
    /// How to mend it.
    remedy: Option<&'static str>,
}

/// How a check went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    /// Well.
    Ok,
    /// Not well.
    Failed,
    /// It could not be made.
    Skipped,
}

impl Verdict {
    /// Returns the word for it.
    const fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Failed => "failed",
            Self::Skipped => "skipped",
        }
    }
}

impl Checks {
    /// Notes a check that went well.
    fn ok(&mut self, what: &'static str, seen: String) {
        self.0.push(Check { what, verdict: Verdict::Ok, seen, remedy: None });
    }

    /// Notes a check that failed.
    fn failed(&mut self, what: &'static str, seen: String, remedy: &'static str) {
        let verdict = Verdict::Failed;
        self.0.push(Check { what, verdict, seen, remedy: Some(remedy) });
    }

    /// Notes a check that could not be made.
    fn skipped(&mut self, what: &'static str, seen: String) {
        self.0.push(Check { what, verdict: Verdict::Skipped, seen, remedy: None });
    }

    /// Tells the checks as a table.
    fn as_text(&self) -> String {
        let rows = self.0.iter().flat_map(|check| {
            let seen = check.seen.clone();
            let row = [check.what.to_owned(), check.verdict.word().to_owned(), seen];
            let remedy = check.remedy.map(|remedy| {
                [String::new(), String::new(), format!("remedy: {remedy}")]
            });
            std::iter::once(row).chain(remedy)
        });
        table(&["check", "result", "seen"], rows)
    }

    /// Tells the checks as a JSON object.
    fn as_json(&self, service: Option<&str>) -> serde_json::Value {
        let check = |check: &Check| {
            json!({
                "check": check.what, "result": check.verdict.word(),
                "seen": check.seen, "remedy": check.remedy,
            })
        };
        let is_ok = self.0.iter().all(|check| check.verdict != Verdict::Failed);
        let checks: Vec<_> = self.0.iter().map(check).collect();
        json!({"service": service, "ok": is_ok, "checks": checks})
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_processes_of_a_group_that_are_alive() {
        let stat = "77 (a) b) S 1 42 42 0 -1";
        assert_eq!(alive(stat, 42).as_deref(), Some("77 (a) b)"));
        assert_eq!(alive(stat, 1), None);
        assert_eq!(alive("77 (sh) Z 1 42 42 0 -1", 42), None);
        assert_eq!(alive("", 42), None);
    }

    #[test]
    fn tests_with_a_scope_that_the_capability_allows() {
        for (offered, short, long) in [
            ("now ... future / 1s", "now + 3s / 1s", "now ... future / 1s"),
            ("now ... future", "now + 3s", "now ... future"),
            ("now ... future / 10s", "now + 30s / 10s", "now ... future / 10s"),
            ("past ... now", "past ... now", "past ... now"),
        ] {
            let offered: When = offered.parse().unwrap();
            assert_eq!(short_scope(&offered).to_string(), short);
            assert_eq!(long_scope(&offered, &short_scope(&offered)).to_string(), long);
        }
    }
}
