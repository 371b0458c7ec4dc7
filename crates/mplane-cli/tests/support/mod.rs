//! What the tests of whole programs share: programs as child processes, whose output is
//! read line by line until what is waited for is there.

use std::io::{BufRead as _, BufReader, Read};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{sleep, spawn};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

/// How long a condition may take. Only a failing test waits so long.
pub(crate) const DEADLINE: Duration = Duration::from_secs(30);

/// The pause between two looks at a condition of which no line tells.
pub(crate) const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// Makes a folder that is removed at the end of the test.
pub(crate) fn folder() -> TempDir {
    tempfile::Builder::new()
        .prefix("mplane-test-")
        .tempdir()
        .expect("the temporary folder can be written to")
}

/// Prepares a program, without input and without variables that change what it does.
pub(crate) fn command(program: &str) -> Command {
    let mut command = Command::new(program);
    command.stdin(Stdio::null()).env_remove("XDG_STATE_HOME");
    command
}

/// Which output of a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stream {
    /// Standard output.
    Out,
    /// Standard error.
    Err,
}

/// A running program. It is killed if the test ends before it does.
pub(crate) struct Program {
    child: Child,
    lines: Receiver<(Stream, Vec<u8>)>,
    so_far: Output,
}

/// What a program has written.
#[derive(Debug, Default)]
pub(crate) struct Output {
    /// To standard output.
    pub(crate) out: String,
    /// To standard error.
    pub(crate) err: String,
}

/// A program that has ended.
#[derive(Debug)]
pub(crate) struct Finished {
    /// How.
    pub(crate) status: ExitStatus,
    /// What it wrote.
    pub(crate) output: Output,
}

impl Program {
    /// Starts a program and reads what it writes.
    pub(crate) fn start(command: Command) -> Self {
        Self::start_with(command, Stdio::piped(), Stdio::piped())
    }

    /// Starts a program that writes to `out` and `err`; what are pipes is read.
    pub(crate) fn start_with(mut command: Command, out: Stdio, err: Stdio) -> Self {
        command.stdout(out).stderr(err);
        let mut child =
            command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let (sender, lines) = channel();
        if let Some(out) = child.stdout.take() {
            read_lines(Stream::Out, out, sender.clone());
        }
        if let Some(err) = child.stderr.take() {
            read_lines(Stream::Err, err, sender);
        }
        Self { child, lines, so_far: Output::default() }
    }

    /// Returns the number of the process.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Waits for the first line of a stream that contains all of these texts.
    pub(crate) fn wait_for(&mut self, stream: Stream, texts: &[&str]) -> String {
        self.wait_for_nth(stream, texts, 1)
    }

    /// Waits for the nth line, from 1, of a stream that contains all of these texts.
    pub(crate) fn wait_for_nth(
        &mut self,
        stream: Stream,
        texts: &[&str],
        nth: usize,
    ) -> String {
        let started = Instant::now();
        loop {
            if let Some(line) = self.so_far.nth_line(stream, texts, nth) {
                return line;
            }
            let left = DEADLINE.saturating_sub(started.elapsed());
            let Ok((stream, line)) = self.lines.recv_timeout(left) else {
                panic!("no line with {texts:?} came: {:#?}", self.so_far);
            };
            self.so_far.take(stream, &line);
        }
    }

    /// Says whether a line of a stream that contains all of these texts has come.
    pub(crate) fn has_said(&mut self, stream: Stream, texts: &[&str]) -> bool {
        while let Ok((stream, line)) = self.lines.try_recv() {
            self.so_far.take(stream, &line);
        }
        self.so_far.nth_line(stream, texts, 1).is_some()
    }

    /// Says whether it has ended.
    pub(crate) fn has_ended(&mut self) -> bool {
        self.child.try_wait().expect("it is our child").is_some()
    }

    /// Sends a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        send(self.id(), signal);
    }

    /// Waits for the end.
    pub(crate) fn finish(mut self) -> Finished {
        let started = Instant::now();
        while let Ok((stream, line)) =
            self.lines.recv_timeout(DEADLINE.saturating_sub(started.elapsed()))
        {
            self.so_far.take(stream, &line);
        }
        let status = loop {
            if let Some(status) = self.child.try_wait().expect("it is our child") {
                break status;
            }
            let output = &self.so_far;
            assert!(started.elapsed() < DEADLINE, "it does not end: {output:#?}");
            sleep(LOOK_AGAIN);
        };
        Finished { status, output: std::mem::take(&mut self.so_far) }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // It has mostly ended by now, which is no failure.
        let ended = self.child.kill().and_then(|()| self.child.wait());
        drop(ended);
    }
}

impl Output {
    /// Returns the nth line, from 1, of a stream that contains all of these texts.
    fn nth_line(&self, stream: Stream, texts: &[&str], nth: usize) -> Option<String> {
        let text = match stream {
            Stream::Out => &self.out,
            Stream::Err => &self.err,
        };
        let mut found =
            text.lines().filter(|line| texts.iter().all(|text| line.contains(text)));
        found.nth(nth.checked_sub(1)?).map(ToOwned::to_owned)
    }

    /// Takes a line.
    fn take(&mut self, stream: Stream, line: &[u8]) {
        let line = std::str::from_utf8(line).expect("programs write UTF-8");
        match stream {
            Stream::Out => self.out.push_str(line),
            Stream::Err => self.err.push_str(line),
        }
    }
}

impl Finished {
    /// Checks how the program ended, and that it has neither panicked nor written
    /// sequences that only terminals understand; returns what it wrote.
    #[track_caller]
    pub(crate) fn expect(self, code: i32) -> Output {
        let Self { status, output } = self;
        assert_eq!(status.code(), Some(code), "{status}: {output:#?}");
        assert!(!output.err.contains("panicked"), "{output:#?}");
        let has_escape = |text: &str| text.contains('\u{1b}');
        assert!(!has_escape(&output.out) && !has_escape(&output.err), "{output:#?}");
        output
    }
}

/// Runs a program to its end.
pub(crate) fn run(command: Command) -> Finished {
    Program::start(command).finish()
}

/// Sends a signal to a process.
pub(crate) fn send(process: u32, signal: Signal) {
    let process =
        Pid::from_raw(process.try_into().expect("processes have small numbers"));
    kill(process, signal).expect("the process runs");
}

/// Reads lines on a thread of its own: reading blocks.
fn read_lines(
    stream: Stream,
    from: impl Read + Send + 'static,
    to: Sender<(Stream, Vec<u8>)>,
) {
    spawn(move || {
        let mut from = BufReader::new(from);
        let mut line = Vec::new();
        while from.read_until(b'\n', &mut line).is_ok_and(|bytes| bytes > 0) {
            if to.send((stream, std::mem::take(&mut line))).is_err() {
                return;
            }
        }
    });
}

/// Returns the cells of the rows in a result: the lines after the header, which begins
/// with the column `time`, as far as they begin with one.
pub(crate) fn rows(text: &str) -> Vec<Vec<&str>> {
    let cells = |line| -> Vec<&str> {
        let cells = str::split(line, "  ").map(str::trim);
        cells.filter(|cell| !cell.is_empty()).collect()
    };
    text.lines()
        .skip_while(|line| cells(line).first() != Some(&"time"))
        .skip(1)
        .take_while(|line| line.starts_with(|first: char| first.is_ascii_digit()))
        .map(cells)
        .collect()
}

/// Checks that a row was measured just now and that its delay, if there is one, is more
/// than nothing; returns the delay.
#[track_caller]
pub(crate) fn check_row(row: &[&str]) -> Option<u64> {
    let [time, delay, ..] = row else { panic!("a row has a time and a delay: {row:?}") };
    let time: jiff::civil::DateTime = time.parse().expect("the time is one");
    let time = time.to_zoned(jiff::tz::TimeZone::UTC).expect("it is in range");
    let age = jiff::Timestamp::now().duration_since(time.timestamp());
    assert!(age.unsigned_abs() < Duration::from_secs(60), "{row:?} is {age:?} old");
    if *delay == "*" {
        return None;
    }
    let delay: u64 = delay.parse().expect("microseconds are whole");
    assert!((1..10_000_000).contains(&delay), "{row:?}");
    Some(delay)
}
