//! The packet log: what truly became of every packet on every link.
//!
//! A log is a file: [`MAGIC`], the version, the size of a record and the length of what
//! follows (two bytes, two bytes, four bytes), a description in JSON ([`Description`]), and
//! records of [`RECORD_BYTES`] until the end. All numbers are little-endian. A program that
//! is killed leaves whole records and perhaps a part of one, which readers ignore.
//!
//! Times are monotonic nanoseconds of the machine (`CLOCK_MONOTONIC`); each record says
//! its arrival in UTC too, as the system clock had it at that moment.

mod header;
mod record;
mod statistics;
mod writer;

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::Path;

use serde::{Deserialize, Serialize};

pub use header::Header;
pub use record::{Fate, HEAD_BYTES, RECORD_BYTES, Record};
pub use statistics::{Quantiles, Statistics, statistics};
pub(crate) use writer::{Entry, Writer, count};

/// How a log begins.
pub const MAGIC: [u8; 8] = *b"mPlnLab\n";

/// The version of the format that is written and read.
pub const VERSION: u16 = 1;

/// The longest description that is read: 64 links need a hundredth of it.
const DESCRIPTION_BYTES: u32 = 1 << 20;

/// Records of one log at most: as a file of about 1 GB. What comes later is counted
/// ([`Fate::Unlogged`]) but not recorded.
pub const RECORDS: u64 = 10_000_000;

/// What a log is about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Description {
    /// The name of the lab.
    pub lab: String,
    /// The seed of its random numbers.
    pub seed: u64,
    /// When it started, in monotonic nanoseconds. Scheduled changes count from here.
    pub started_ns: u64,
    /// When it started, in nanoseconds of UTC since 1970.
    pub started_utc_ns: u64,
    /// Its links, in the order of their numbers.
    pub links: Vec<LinkDescription>,
}

/// A link of a lab.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkDescription {
    /// Its name.
    pub name: String,
    /// The hosts that it joins; "forth" is from the first to the second.
    pub between: [String; 2],
}

/// A log that was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Log {
    /// What it is about.
    pub description: Description,
    /// What became of packets, in the order in which that was known.
    pub records: Vec<Record>,
}

impl Log {
    /// Reads a log from a file.
    pub fn load(path: &Path) -> Result<Self, ReadLogError> {
        Self::read(&File::open(path).map_err(ReadLogError::Read)?)
    }

    /// Reads a log from its beginning.
    pub fn read(file: &File) -> Result<Self, ReadLogError> {
        let mut file = io::BufReader::new(FromStart { file, at: 0 });
        let description = read_description(&mut file)?;
        let mut records = Vec::new();
        let mut bytes = [0; RECORD_BYTES];
        while read_whole(&mut file, &mut bytes)? {
            let number = records.len();
            let record = Record::decode(&bytes).ok_or(ReadLogError::Record { number })?;
            records.push(record);
        }
        Ok(Self { description, records })
    }

    /// Returns the records of a link in one direction. `from` and `to` are the hosts.
    pub fn between(&self, from: &str, to: &str) -> impl Iterator<Item = &Record> {
        let is_it = move |record: &&Record| {
            self.ends(record).is_some_and(|(one, other)| one == from && other == to)
        };
        self.records.iter().filter(is_it)
    }

    /// Returns the hosts from which and to which a packet went.
    pub fn ends(&self, record: &Record) -> Option<(&str, &str)> {
        let [one, other] = &self.description.links.get(usize::from(record.link))?.between;
        Some(if record.is_back { (other, one) } else { (one, other) })
    }
}

/// A file that is read from its start, wherever others write to it.
struct FromStart<'a> {
    file: &'a File,
    at: u64,
}

impl Read for FromStart<'_> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let length = self.file.read_at(bytes, self.at)?;
        self.at += u64::try_from(length).unwrap_or(0);
        Ok(length)
    }
}

/// Reads what stands before the records.
fn read_description(file: &mut impl Read) -> Result<Description, ReadLogError> {
    let mut start = [0; 16];
    if !read_whole(file, &mut start)? || !start.starts_with(&MAGIC) {
        return Err(ReadLogError::NoLog);
    }
    let [.., v0, v1, r0, r1, l0, l1, l2, l3] = start;
    let version = u16::from_le_bytes([v0, v1]);
    let size = u16::from_le_bytes([r0, r1]);
    if version != VERSION || usize::from(size) != RECORD_BYTES {
        return Err(ReadLogError::Version { version });
    }
    let length = u32::from_le_bytes([l0, l1, l2, l3]);
    if length > DESCRIPTION_BYTES {
        return Err(ReadLogError::LongDescription { length });
    }
    let mut text = Vec::new();
    file.take(length.into()).read_to_end(&mut text).map_err(ReadLogError::Read)?;
    serde_json::from_slice(&text).map_err(ReadLogError::Description)
}

/// Writes what stands before the records.
fn describe(description: &Description) -> Vec<u8> {
    let text = serde_json::to_vec(description).expect("text and numbers can be encoded");
    let length = u32::try_from(text.len()).expect("a lab has few links");
    let mut bytes = MAGIC.to_vec();
    bytes.extend(VERSION.to_le_bytes());
    let size = u16::try_from(RECORD_BYTES).expect("records are small");
    bytes.extend(size.to_le_bytes());
    bytes.extend(length.to_le_bytes());
    bytes.extend(text);
    bytes
}

/// Fills `bytes`, or returns false at the end.
fn read_whole(file: &mut impl Read, bytes: &mut [u8]) -> Result<bool, ReadLogError> {
    match file.read_exact(bytes) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(ReadLogError::Read(error)),
    }
}

/// A log that cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadLogError {
    /// The file cannot be read.
    #[error("cannot read the packet log")]
    Read(#[source] io::Error),
    /// It is something else.
    #[error("this is no packet log of a lab")]
    NoLog,
    /// It is of another version.
    #[error(
        "this packet log has version {version}; this program reads version {VERSION}"
    )]
    Version {
        /// The version.
        version: u16,
    },
    /// It says more about itself than a lab can have.
    #[error("the description has {length} bytes, at most {DESCRIPTION_BYTES} are read")]
    LongDescription {
        /// Its length in bytes.
        length: u32,
    },
    /// What it says about itself cannot be understood.
    #[error("cannot understand the description of the packet log")]
    Description(#[source] serde_json::Error),
    /// A record has a fate that is not known.
    #[error("record {number} of the packet log is damaged")]
    Record {
        /// Its number, from 0.
        number: usize,
    },
}
