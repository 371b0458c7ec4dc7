//! What the tests on real sockets share.

use std::io::Write as _;

/// Says loudly that a test was not run; in continuous integration, fails instead.
///
/// Written to the terminal itself: the test harness hides what passing tests print.
pub(crate) fn skip(reason: &str) {
    let is_ci = std::env::var("CI").is_ok_and(|value| value == "true");
    assert!(!is_ci, "continuous integration must not skip: {reason}");
    writeln!(std::io::stderr(), "SKIPPED: {reason}").expect("standard error is open");
}
