//! One run of a service: the contract and the limits applied to a process.

use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::Duration;

use mplane::limits::SCOPE_GRACE_S;
use mplane::primitive::Value;
use mplane::registry::Element;
use mplane::when::display_duration;
use tokio::io::AsyncWriteExt;
use tokio::process::{ChildStderr, ChildStdin, ChildStdout};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::External;
use super::contract::{BadLine, Event, Level};
use super::limits::{DRAIN, LINE_BYTES, Limits, REASON_BYTES};
use super::lines::{Line, Lines, Long, ReadLineError};
use super::process::{Pipes, Process};
use crate::service::{Rows, Work};

/// Who is told what a run does, as it does it.
pub trait Watch: Send + Sync + 'static {
    /// Takes note.
    fn note(&self, note: Note<'_>);
}

/// What a run does.
#[derive(Clone, Copy, Debug)]
pub enum Note<'a> {
    /// Its process has started.
    Started {
        /// The number of its process group.
        group: i32,
    },
    /// It has yielded a row.
    Row(&'a [Option<Value>]),
    /// How far it is, from 0 to 1.
    Progress(f64),
    /// It has a text for the log.
    Log(Level, &'a str),
    /// It has written a line to standard error.
    StandardError(&'a str),
    /// Its process has ended; what is left of the group will be killed.
    Ended {
        /// The number of its process group.
        group: i32,
    },
}

/// A run that is over.
#[derive(Debug)]
pub struct Execution {
    /// Rows that it yielded.
    pub rows: usize,
    /// Lines of its standard output.
    pub lines: u64,
    /// What it said about how the result came about.
    pub metadata: Vec<(Arc<Element>, Option<Value>)>,
    /// What it did wrong, or why it could not measure.
    pub fault: Option<Fault>,
    /// How its process ended, if it did.
    pub status: Option<ExitStatus>,
    /// How it ended when it was told to, if it was.
    pub stopped: Option<Stopped>,
    /// How long it took.
    pub took: Duration,
}

/// How a run ended that was told to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stopped {
    /// How long it took to end.
    pub took: Duration,
    /// Whether it had to be killed.
    pub is_forced: bool,
}

/// What a run did wrong, or why it could not measure.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// Its process cannot be started.
    #[error("it cannot be started")]
    Start(#[source] io::Error),
    /// It says so itself.
    #[error("{0}")]
    Failed(String),
    /// A line breaks the contract.
    #[error("line {number} of its output: {problem}")]
    Line {
        /// Which line, from 1.
        number: u64,
        /// What is wrong.
        problem: BadLine,
    },
    /// A line is too long.
    #[error("line {0} of its output is longer than {LINE_BYTES} bytes")]
    LongLine(u64),
    /// Something follows the final status.
    #[error("line {0} of its output: nothing may follow done or failed")]
    AfterEnd(u64),
    /// Too much output.
    #[error("it wrote more than {0} bytes to standard output; see output-limit-bytes")]
    Output(u64),
    /// Too much output for people.
    #[error("it wrote more than {0} bytes to standard error; see output-limit-bytes")]
    StandardError(u64),
    /// Its output cannot be read.
    #[error("its output cannot be read")]
    Read(#[source] io::Error),
    /// Too many rows.
    #[error("it yielded more than {0} rows; see row-limit")]
    Rows(usize),
    /// It took too long.
    #[error("it took longer than {}; see time-limit", display_duration(*.0))]
    Time(Duration),
    /// It did not end with its temporal scope.
    #[error(
        "it did not end with its temporal scope: it was told to stop {SCOPE_GRACE_S} s \
         after the end, and did not say done"
    )]
    Scope,
    /// It ended without saying how.
    #[error(
        "it ended ({0}) before it said done or failed; its standard error is in the log"
    )]
    Silent(String),
    /// It closed its output and went on.
    #[error("it closed its standard output before it said done or failed")]
    Closed,
}

/// Runs a service.
pub(super) async fn execute(
    service: &External,
    input: Vec<u8>,
    work: Work,
    watch: Arc<dyn Watch>,
) -> Execution {
    let started = Instant::now();
    let command = command(service, &work);
    let (process, Pipes { stdin, stdout, stderr }) = match Process::start(command) {
        Ok(started) => started,
        Err(error) => return Execution::without_process(Fault::Start(error)),
    };
    watch.note(Note::Started { group: process.group() });
    let limits = service.definition.limits;
    let flooded = CancellationToken::new();
    let listening =
        listen(stderr, limits.output_bytes, Arc::clone(&watch), flooded.clone());
    let mut listening = AbortOnDropHandle::new(tokio::spawn(listening));
    let run = OneRun {
        service,
        limits,
        work: &work,
        watch: &*watch,
        process,
        started,
        deadline: started + limits.time,
        phase: Phase::Measuring,
        has_ended: false,
        is_closed: false,
        lines: 0,
        rows: 0,
        metadata: Vec::new(),
        status: None,
    };
    let stdout = Lines::new(stdout, limits.output_bytes, Long::Refuse);
    let execution = run.complete(stdout, write(stdin, input), flooded).await;
    // The last words of the service are on their way to the log.
    if timeout(DRAIN, &mut listening).await.is_err() {
        tracing::debug!("standard error stays open after the run");
    }
    execution
}

/// Returns the command that starts the service for some work.
fn command(service: &External, work: &Work) -> tokio::process::Command {
    let definition = &service.definition;
    let mut command = match &service.launcher {
        None => tokio::process::Command::new(&definition.program),
        Some(launcher) => launcher.command(
            &definition.program,
            definition.limits.memory_bytes,
            definition.may_gain_privileges,
        ),
    };
    command.args(&definition.arguments).current_dir(&definition.folder);
    command.env_clear().envs(&definition.environment);
    let times = [
        ("MPLANE_DURATION_S", work.duration),
        ("MPLANE_PERIOD_S", work.specification.when().period()),
    ];
    for (name, time) in times {
        if let Some(time) = time {
            command.env(name, time.as_secs_f64().to_string());
        }
    }
    command
}

/// Writes the input. A service need not read it.
async fn write(mut stdin: ChildStdin, input: Vec<u8>) {
    if let Err(error) = stdin.write_all(&input).await {
        tracing::debug!(%error, "the service did not read its specification");
    }
}

/// Passes standard error on, line by line; tells when there is too much.
async fn listen(
    stderr: ChildStderr,
    limit: u64,
    watch: Arc<dyn Watch>,
    flooded: CancellationToken,
) {
    let mut lines = Lines::new(stderr, limit, Long::Split);
    loop {
        match lines.next().await {
            Ok(Some(line)) => {
                let text = String::from_utf8_lossy(&line.content);
                watch.note(Note::StandardError(&text));
            }
            Ok(None) => return,
            Err(ReadLineError::Flood) => return flooded.cancel(),
            Err(error) => {
                tracing::debug!(error = crate::report(&error), "standard error is lost");
                return;
            }
        }
    }
}

/// A run.
struct OneRun<'a> {
    service: &'a External,
    limits: Limits,
    work: &'a Work,
    watch: &'a dyn Watch,
    process: Process,
    started: Instant,
    /// When the phase ends, however far the process is.
    deadline: Instant,
    phase: Phase,
    /// Whether the process has ended.
    has_ended: bool,
    /// Whether its output is at the end.
    is_closed: bool,
    lines: u64,
    rows: usize,
    metadata: Vec<(Arc<Element>, Option<Value>)>,
    /// What it said at its end: nothing if it is done, else why it failed.
    status: Option<Result<(), String>>,
}

/// How far a run is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// It measures.
    Measuring,
    /// It has said its final status and is to end by itself.
    Finished,
    /// It has been told to end.
    Stopping { since: Instant, why: Why },
}

/// Why a run was told to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Why {
    /// Who asked for it wants no more, or the component ends.
    Interrupted,
    /// It should have ended by itself.
    OutOfScope,
    /// It took too long.
    TooLong,
}

impl OneRun<'_> {
    /// Follows the process to its end, and tells how it went.
    async fn complete(
        mut self,
        mut stdout: Lines<ChildStdout>,
        write: impl Future<Output = ()>,
        flooded: CancellationToken,
    ) -> Execution {
        let mut write = pin!(Some(write));
        let fault = self.follow(&mut stdout, write.as_mut(), &flooded).await.err();
        // Who writes on is not kept waiting by a full pipe.
        drop(stdout);
        write.set(None);
        if fault.is_some() && !self.has_ended {
            self.process.terminate();
            let ended = timeout(self.limits.stop_grace, self.process.ended()).await;
            self.has_ended = ended.is_ok();
        }
        let stopped = match self.phase {
            Phase::Stopping { since, .. } => {
                Some(Stopped { took: since.elapsed(), is_forced: !self.has_ended })
            }
            Phase::Measuring | Phase::Finished => None,
        };
        let fault = match fault {
            Some(fault) => Some(fault),
            None => self.verdict(),
        };
        let status = self.process.reap().await;
        let fault = fault.map(|fault| match (fault, status) {
            (Fault::Silent(_), Some(status)) => Fault::Silent(status.to_string()),
            (fault, _) => fault,
        });
        Execution {
            rows: self.rows,
            lines: self.lines,
            metadata: self.metadata,
            fault,
            status,
            stopped,
            took: self.started.elapsed(),
        }
    }

    /// Follows the process until there is nothing more to wait for, or it does something
    /// wrong.
    async fn follow<F: Future<Output = ()>>(
        &mut self,
        stdout: &mut Lines<ChildStdout>,
        mut write: Pin<&mut Option<F>>,
        flooded: &CancellationToken,
    ) -> Result<(), Fault> {
        while !(self.has_ended && self.is_closed) {
            let is_measuring = self.phase == Phase::Measuring;
            let written = async {
                match write.as_mut().as_pin_mut() {
                    Some(write) => write.await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                line = stdout.next(), if !self.is_closed => self.read(line)?,
                () = self.process.ended(), if !self.has_ended => self.note_end(),
                () = self.work.stop.cancelled(), if is_measuring => {
                    let why = if self.is_out_of_scope() {
                        Why::OutOfScope
                    } else {
                        Why::Interrupted
                    };
                    self.stop(why);
                }
                () = flooded.cancelled() => {
                    return Err(Fault::StandardError(self.limits.output_bytes));
                }
                () = sleep_until(self.deadline) => {
                    if self.has_ended || !is_measuring {
                        return Ok(());
                    } else if self.is_closed {
                        return Err(Fault::Closed);
                    }
                    self.stop(Why::TooLong);
                }
                () = written => write.set(None),
            }
        }
        Ok(())
    }

    /// Reads a line of standard output.
    fn read(&mut self, line: Result<Option<Line>, ReadLineError>) -> Result<(), Fault> {
        let number = self.lines + 1;
        let line = match line {
            Ok(Some(line)) => line,
            Ok(None) => {
                self.is_closed = true;
                self.end_within(self.limits.stop_grace);
                return Ok(());
            }
            Err(ReadLineError::Long) => return Err(Fault::LongLine(number)),
            Err(ReadLineError::Flood) => {
                return Err(Fault::Output(self.limits.output_bytes));
            }
            Err(ReadLineError::Read(error)) => return Err(Fault::Read(error)),
        };
        self.lines = number;
        if line.content.trim_ascii().is_empty() {
            return Ok(());
        }
        if self.status.is_some() {
            return Err(Fault::AfterEnd(number));
        }
        match self.service.contract.read(&line.content) {
            Ok(event) => self.take(event),
            // It was told to end while it wrote.
            Err(_) if !line.is_whole && self.phase != Phase::Measuring => Ok(()),
            Err(problem) => Err(Fault::Line { number, problem }),
        }
    }

    /// Takes what a line says.
    fn take(&mut self, event: Event) -> Result<(), Fault> {
        match event {
            Event::Row(row) => {
                if self.rows == self.limits.rows {
                    return Err(Fault::Rows(self.limits.rows));
                }
                self.watch.note(Note::Row(&row));
                push(&self.work.rows, row, self.limits.rows)?;
                self.rows += 1;
            }
            Event::Progress(progress) => self.watch.note(Note::Progress(progress)),
            Event::Log(level, text) => self.watch.note(Note::Log(level, &text)),
            Event::Metadata(metadata) => {
                for (element, value) in metadata {
                    // What is said again is known better.
                    self.metadata.retain(|(known, _)| known.name() != element.name());
                    self.metadata.push((element, value));
                }
            }
            Event::Done => self.finish(Ok(())),
            Event::Failed(reason) => {
                self.finish(Err(super::printable(reason.as_bytes(), REASON_BYTES)));
            }
        }
        Ok(())
    }

    /// Takes note of the final status.
    fn finish(&mut self, status: Result<(), String>) {
        self.status = Some(status);
        if self.phase == Phase::Measuring {
            self.phase = Phase::Finished;
        }
        self.end_within(self.limits.stop_grace);
    }

    /// Takes note that the process has ended. What it started and left behind would keep
    /// the pipes open.
    fn note_end(&mut self) {
        self.has_ended = true;
        self.watch.note(Note::Ended { group: self.process.group() });
        self.process.kill();
        self.end_within(DRAIN);
    }

    /// Tells the process to end.
    fn stop(&mut self, why: Why) {
        self.process.terminate();
        self.phase = Phase::Stopping { since: Instant::now(), why };
        self.deadline = Instant::now() + self.limits.stop_grace;
    }

    /// Lets the run last so much longer at most.
    fn end_within(&mut self, duration: Duration) {
        self.deadline = self.deadline.min(Instant::now() + duration);
    }

    /// Says whether the temporal scope is over, and with it the time after which a
    /// component stops a service.
    fn is_out_of_scope(&self) -> bool {
        // The component counts from a moment before the process started.
        let grace = Duration::from_secs(SCOPE_GRACE_S.unsigned_abs()) / 2;
        self.work.duration.is_some_and(|scope| self.started.elapsed() >= scope + grace)
    }

    /// Judges a run that broke no rule of the contract.
    fn verdict(&mut self) -> Option<Fault> {
        let why = match self.phase {
            Phase::Stopping { why, .. } => Some(why),
            Phase::Measuring | Phase::Finished => None,
        };
        match (self.status.take(), why) {
            (Some(Err(reason)), _) => Some(Fault::Failed(reason)),
            (_, Some(Why::TooLong)) => Some(Fault::Time(self.limits.time)),
            (Some(Ok(())), _) | (None, Some(Why::Interrupted)) => None,
            (None, Some(Why::OutOfScope)) => Some(Fault::Scope),
            (None, None) => Some(Fault::Silent("unknown".into())),
        }
    }
}

/// Adds a row; the result may be full before the service has reached its own limit.
fn push(rows: &Rows, row: Vec<Option<Value>>, limit: usize) -> Result<(), Fault> {
    rows.push(row).map_err(|_| Fault::Rows(limit))
}

impl Execution {
    /// Tells that nothing ran.
    fn without_process(fault: Fault) -> Self {
        Self {
            rows: 0,
            lines: 0,
            metadata: Vec::new(),
            fault: Some(fault),
            status: None,
            stopped: None,
            took: Duration::ZERO,
        }
    }
}
