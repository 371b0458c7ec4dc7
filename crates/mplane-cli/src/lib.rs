//! The programs: everything behind the four thin `main` functions.
//!
//! `mpsup` runs a supervisor, `mpcom` a component, `mpcli` is a shell of a client, and
//! `mplane` is the everyday tool, whose `demo` runs all three in one process through the
//! very functions the others call. Reading order: [`programs`] (how each is started),
//! [`shell`], [`pki`], [`tools`], [`demo`], [`output`] (the one place that prints).

pub mod demo;
pub mod logging;
pub mod output;
pub mod pki;
pub mod programs;
pub mod shell;
pub mod tools;

use std::error::Error;
use std::fmt;
use std::process::ExitCode;

use output::Output;

/// How a program ends without having done what it was asked to.
#[derive(Debug)]
pub enum Failure {
    /// It failed, and why (exit status 1).
    Failed(Box<dyn Error + Send + Sync>),
    /// It was told to do what makes no sense, and why (exit status 2).
    Usage(Box<dyn Error + Send + Sync>),
    /// A signal ended it (exit status 128 plus the number of the signal).
    Signal(i32),
    /// The command that it ran ended with this exit status, which is its own too.
    Status(u8),
}

impl<E: Error + Send + Sync + 'static> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::Failed(Box::new(error))
    }
}

/// A failure told in words.
#[derive(Debug)]
pub struct Told(pub String);

impl fmt::Display for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Error for Told {}

/// Ends a program: says what failed, and returns the exit status. They are 0 (done),
/// 1 (failed), 2 (wrong usage, mostly by the argument parser), 128 plus a signal's number, and that
/// of a command which was run for the user.
pub fn conclude(result: Result<(), Failure>, output: &mut Output) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure::Failed(error)) => {
            let text = mplane_runtime::report(&*error);
            output.note(format_args!("error: {text}"));
            ExitCode::FAILURE
        }
        Err(Failure::Usage(error)) => {
            let text = mplane_runtime::report(&*error);
            output.note(format_args!("error: {text}; --help lists all options"));
            ExitCode::from(2)
        }
        Err(Failure::Signal(number)) => {
            ExitCode::from(u8::try_from(128 + number).unwrap_or(u8::MAX))
        }
        Err(Failure::Status(status)) => ExitCode::from(status),
    }
}

/// Runs a program on the threads it needs.
///
/// # Panics
///
/// If the operating system refuses threads.
pub fn block_on<T>(program: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .expect("the operating system gives threads and timers")
        .block_on(program)
}
