//! Logs in folders of their own.

use std::io::Write as _;

use mplane::primitive::Primitive;
use tempfile::TempDir;

use super::*;
use crate::tstat::samples::{header, line};

/// The only column.
const PORT: &[(Column, Primitive)] =
    &[(Column { element: "initiator.port", log: &["c_port"] }, Primitive::Natural)];

/// A folder to which a tStat writes.
struct Logs(TempDir);

impl Logs {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("there is room"))
    }

    /// Appends text to the log in a folder.
    fn append(&self, folder: &str, text: &str) {
        let folder = self.0.path().join(folder);
        fs::create_dir_all(&folder).expect("it is ours");
        let mut options = File::options();
        let file = options.append(true).create(true).open(folder.join(LOG));
        file.and_then(|mut file| file.write_all(text.as_bytes())).expect("it is ours");
    }

    fn start(&self) -> Tail {
        Tail::start(self.0.path()).unwrap()
    }
}

/// Returns a line of a flow that is told by its port and ended at a second.
fn flow(port: u16, second: i64) -> String {
    let (port, end) = (port.to_string(), format!("{}.5", second * 1_000));
    line(&[("c_port", &port), ("last", &end)])
}

/// Reads the ports of the flows that ended from second 10 to 20, and what was found.
fn read(tail: &Tail) -> (Vec<u64>, Findings) {
    let [from, to] = [10, 20].map(|second| Timestamp::from_second(second).unwrap());
    let mut ports = Vec::new();
    let findings = tail.read(PORT, &(from..=to), |row| {
        let Some(Value::Natural(port)) = &row[0] else { panic!("{row:?}") };
        ports.push(*port);
        ControlFlow::Continue(())
    });
    (ports, findings.unwrap())
}

const FIRST: &str = "2026_11_29_22_00.out";
const SECOND: &str = "2026_11_29_23_00.out";

#[test]
fn flows_that_were_written_and_ended_meanwhile_are_taken() {
    let logs = Logs::new();
    logs.append(FIRST, &(header() + &flow(1, 11)));
    let tail = logs.start();
    assert_eq!(read(&tail), (vec![], Findings::default()));
    let new = [flow(2, 9), flow(3, 10), flow(4, 19), flow(5, 20), flow(6, 12)].concat();
    logs.append(FIRST, &new);
    assert_eq!(read(&tail), (vec![3, 4, 6], Findings::default()));
    // One that is still being written is none yet.
    logs.append(FIRST, flow(7, 12).trim_end_matches('\n'));
    assert_eq!(read(&tail).0, [3, 4, 6]);
    logs.append(FIRST, "\n");
    assert_eq!(read(&tail).0, [3, 4, 6, 7]);
}

#[test]
fn new_folders_are_followed_whatever_their_names() {
    let logs = Logs::new();
    logs.append(SECOND, &(header() + &flow(1, 11)));
    fs::create_dir(logs.0.path().join("2026_11_29_21_00.out")).unwrap();
    let tail = logs.start();
    logs.append(SECOND, &flow(2, 11));
    // Clocks were put back, flags have changed, and a folder had no log yet.
    logs.append(
        FIRST,
        &format!("#01#last:1 c_port:2\n12000.25 3\n{}{}", header(), flow(4, 12)),
    );
    logs.append("2026_11_29_21_00.out", &(header() + &flow(5, 13)));
    for other in ["2026_11_29_23_00", "2026_11_29_2x_00.out", "x"] {
        logs.append(other, &(header() + &flow(9, 11)));
    }
    assert_eq!(read(&tail), (vec![5, 3, 4, 2], Findings::default()));
}

#[test]
fn a_file_is_read_on_at_the_next_line() {
    let logs = Logs::new();
    let first = flow(1, 11);
    let (begun, rest) = first.split_at(40);
    logs.append(FIRST, &(header() + begun));
    let tail = logs.start();
    logs.append(FIRST, &(rest.to_owned() + &flow(2, 11)));
    assert_eq!(read(&tail), (vec![2], Findings::default()));
    // One that is shorter has been written anew.
    fs::write(logs.0.path().join(FIRST).join(LOG), "#01#last:1 c_port:2\n12000.25 3\n")
        .unwrap();
    assert_eq!(read(&tail), (vec![3], Findings::default()));
}

#[test]
fn lines_that_cannot_be_read_are_counted() {
    let logs = Logs::new();
    let tail = logs.start();
    let bad = line(&[("c_port", "x"), ("last", "9")]);
    logs.append(FIRST, &(flow(1, 11) + &header() + &bad + "1 2 3\n#x\n" + &flow(2, 11)));
    let (ports, findings) = read(&tail);
    assert_eq!(ports, [2]);
    let problem = Some(LineProblem::NoHeader);
    assert_eq!(findings, Findings { unreadable: 4, problem });
}

#[test]
fn a_line_has_a_limit() {
    let logs = Logs::new();
    let tail = logs.start();
    let long = |bytes: usize| format!("{}\n", "1".repeat(bytes - 1));
    logs.append(FIRST, "#00#last:1 c_port:2\n");
    let at_limit = format!("11000 {}\n", "0".repeat(LINE_BYTES - 8) + "7");
    assert_eq!(at_limit.len(), LINE_BYTES);
    logs.append(FIRST, &(at_limit + &long(LINE_BYTES + 1) + &long(5 * LINE_BYTES)));
    logs.append(FIRST, "12000 8\n");
    let (ports, findings) = read(&tail);
    assert_eq!(ports, [7, 8]);
    let problem = Some(LineProblem::TooLong { bytes: LINE_BYTES });
    assert_eq!(findings, Findings { unreadable: 2, problem });
}

#[test]
fn who_takes_may_break_off() {
    let logs = Logs::new();
    let tail = logs.start();
    for folder in [FIRST, SECOND] {
        logs.append(folder, &(header() + &flow(1, 11) + &flow(2, 11)));
    }
    let mut taken = 0;
    let all = Timestamp::MIN..=Timestamp::MAX;
    tail.read(PORT, &all, |_| {
        taken += 1;
        ControlFlow::Break(())
    })
    .unwrap();
    assert_eq!(taken, 1);
}

#[test]
fn folders_have_a_limit_and_must_be_there() {
    let logs = Logs::new();
    for index in 0..FOLDERS {
        let name = format!("{index:04}_01_01_00_00.out");
        fs::create_dir(logs.0.path().join(name)).unwrap();
    }
    logs.start();
    fs::create_dir(logs.0.path().join(FIRST.replace("29", "30"))).unwrap();
    let none = logs.0.path().join("none");
    for (path, problem) in [
        (logs.0.path(), "has more than 10000 folders of tStat; move old ones elsewhere"),
        (&none, "cannot read the folder"),
    ] {
        let error = Tail::start(path).unwrap_err().to_string();
        assert!(error.contains(problem), "{error}");
    }
}
