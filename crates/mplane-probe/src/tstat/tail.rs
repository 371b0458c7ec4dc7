//! What tStat writes to its logs during a measurement.
//!
//! tStat begins a folder `YYYY_MM_DD_HH_MM.out` each hour, and whenever its flags change.
//! How long the log in each folder is is remembered at the start, and read on from there
//! at the end; a folder that is new is read from its beginning. So the names need no
//! order, which they lose when clocks are put back.

use std::collections::BTreeMap;
use std::fs::{self, File, Metadata};
use std::io::{self, BufRead, BufReader, Read as _, Seek as _, SeekFrom};
use std::ops::{ControlFlow, RangeInclusive};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use mplane::primitive::{Primitive, Value};

use super::{Column, Layout, LineProblem};

/// The log of completed TCP flows within a folder.
const LOG: &str = "log_tcp_complete";

/// Folders that are looked at: more than a year of one an hour.
const FOLDERS: usize = 10_000;

/// Bytes of a line: more than thirty times the longest of 130 columns, whose names of
/// hosts have 255 bytes at most.
const LINE_BYTES: usize = 64 << 10;

/// The logs of tStat, from the moment on when it was made.
#[derive(Clone, Debug)]
pub struct Tail {
    /// The folder of the folders.
    folder: PathBuf,
    /// What the log in each folder was.
    known: BTreeMap<String, Known>,
}

/// A file as it was.
#[derive(Clone, Copy, Debug)]
struct Known {
    /// Its number in the file system: another file has another one.
    inode: u64,
    /// Its length.
    bytes: u64,
}

/// What was found in logs besides flows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Findings {
    /// Lines that could not be read, in whole or in part.
    pub unreadable: u64,
    /// What was wrong with the first of them.
    pub problem: Option<LineProblem>,
}

impl Tail {
    /// Remembers what is in the logs now.
    pub fn start(folder: &Path) -> Result<Self, TailError> {
        let mut known = BTreeMap::new();
        for name in folders(folder)? {
            let path = folder.join(&name).join(LOG);
            match fs::metadata(&path) {
                Ok(metadata) => drop(known.insert(name, Known::of(&metadata))),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(source) => return Err(TailError::Log { path, source }),
            }
        }
        Ok(Self { folder: folder.to_owned(), known })
    }

    /// Reads what has been written since, and takes the flows that ended within a time,
    /// until `take` breaks off.
    pub fn read(
        &self,
        columns: &[(Column, Primitive)],
        within: &RangeInclusive<Timestamp>,
        mut take: impl FnMut(Vec<Option<Value>>) -> ControlFlow<()>,
    ) -> Result<Findings, TailError> {
        let mut findings = Findings::default();
        for name in folders(&self.folder)? {
            let path = self.folder.join(&name).join(LOG);
            let file = match File::open(&path) {
                Ok(file) => file,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(source) => return Err(TailError::Log { path, source }),
            };
            let known = self.known.get(&name).copied();
            let mut log = Log { columns, layout: None, findings: &mut findings };
            let ended = log
                .read(file, known, |flow| {
                    if within.contains(&flow.0) {
                        take(flow.1)
                    } else {
                        ControlFlow::Continue(())
                    }
                })
                .map_err(|source| TailError::Log { path, source })?;
            if ended.is_break() {
                break;
            }
        }
        Ok(findings)
    }
}

impl Known {
    /// Returns what a file is.
    fn of(metadata: &Metadata) -> Self {
        Self { inode: metadata.ino(), bytes: metadata.len() }
    }
}

/// One file that is read.
struct Log<'a> {
    columns: &'a [(Column, Primitive)],
    /// What the last header says.
    layout: Option<Layout>,
    findings: &'a mut Findings,
}

impl Log<'_> {
    /// Reads what has been added to a file, flow by flow with its end.
    fn read(
        &mut self,
        file: File,
        known: Option<Known>,
        mut take: impl FnMut((Timestamp, Vec<Option<Value>>)) -> ControlFlow<()>,
    ) -> io::Result<ControlFlow<()>> {
        let now = Known::of(&file.metadata()?);
        // One that is another, or shorter than it was, has been written anew.
        let is_grown =
            |known: &Known| known.inode == now.inode && known.bytes <= now.bytes;
        let before = known.filter(is_grown).map_or(0, |known| known.bytes);
        if before == now.bytes {
            return Ok(ControlFlow::Continue(()));
        }
        let mut reader = BufReader::new(file);
        let mut line = Vec::new();
        if before > 0 {
            if next_line(&mut reader, &mut line)? == Line::Whole && line.starts_with(b"#")
            {
                self.layout = Layout::parse(&line, self.columns).ok();
            }
            // What was not at an end then is of a flow from before.
            reader.seek(SeekFrom::Start(before - 1))?;
            next_line(&mut reader, &mut line)?;
        }
        loop {
            match next_line(&mut reader, &mut line)? {
                Line::None => return Ok(ControlFlow::Continue(())),
                Line::TooLong => self.note(LineProblem::TooLong { bytes: LINE_BYTES }),
                Line::Whole if line.starts_with(b"#") => {
                    match Layout::parse(&line, self.columns) {
                        Ok(layout) => self.layout = Some(layout),
                        Err(problem) => self.note(problem),
                    }
                }
                Line::Whole => {
                    let layout = self.layout.as_ref().ok_or(LineProblem::NoHeader);
                    match layout.and_then(|layout| layout.read(&line)) {
                        Ok(flow) => {
                            if !flow.is_readable {
                                self.note(LineProblem::Field);
                            }
                            if take((flow.end, flow.row)).is_break() {
                                return Ok(ControlFlow::Break(()));
                            }
                        }
                        Err(problem) => self.note(problem),
                    }
                }
            }
        }
    }

    /// Counts a line that cannot be read.
    fn note(&mut self, problem: LineProblem) {
        self.findings.unreadable += 1;
        self.findings.problem.get_or_insert(problem);
    }
}

/// What the next line of a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Line {
    /// One that has an end.
    Whole,
    /// One that has too many bytes.
    TooLong,
    /// There is none, or it is still being written.
    None,
}

/// Reads a line with its end.
fn next_line(reader: &mut impl BufRead, line: &mut Vec<u8>) -> io::Result<Line> {
    line.clear();
    let most = u64::try_from(LINE_BYTES).unwrap_or(u64::MAX);
    reader.by_ref().take(most).read_until(b'\n', line)?;
    if line.ends_with(b"\n") {
        return Ok(Line::Whole);
    }
    if line.len() < LINE_BYTES {
        return Ok(Line::None);
    }
    reader.skip_until(b'\n')?;
    Ok(Line::TooLong)
}

/// Returns the names of tStat's folders in order.
fn folders(folder: &Path) -> Result<Vec<String>, TailError> {
    let failed = |source| TailError::Folder { path: folder.to_owned(), source };
    let mut names = Vec::new();
    for entry in fs::read_dir(folder).map_err(failed)? {
        let name = entry.map_err(failed)?.file_name();
        let Some(name) = name.to_str().filter(|name| is_of_tstat(name)) else { continue };
        if names.len() == FOLDERS {
            return Err(TailError::TooMany { path: folder.to_owned() });
        }
        names.push(name.to_owned());
    }
    names.sort_unstable();
    Ok(names)
}

/// Says whether a name is of the form `YYYY_MM_DD_HH_MM.out`.
fn is_of_tstat(name: &str) -> bool {
    const FORM: &[u8] = b"0000_00_00_00_00.out";
    let is_as = |(byte, form): (u8, &u8)| match form {
        b'0' => byte.is_ascii_digit(),
        other => byte == *other,
    };
    name.len() == FORM.len() && name.bytes().zip(FORM).all(is_as)
}

/// Logs that cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum TailError {
    /// The folder of the folders cannot be read.
    #[error("cannot read the folder {path}, to which tStat writes its logs")]
    Folder {
        /// The folder.
        path: PathBuf,
        /// What happened.
        source: io::Error,
    },
    /// It has too many folders.
    #[error("{path} has more than {FOLDERS} folders of tStat; move old ones elsewhere")]
    TooMany {
        /// The folder.
        path: PathBuf,
    },
    /// A log cannot be read.
    #[error("cannot read the log {path}")]
    Log {
        /// The file.
        path: PathBuf,
        /// What happened.
        source: io::Error,
    },
}

#[cfg(test)]
#[path = "tail_tests.rs"]
mod tests;
