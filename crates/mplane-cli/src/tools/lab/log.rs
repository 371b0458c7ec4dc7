//! `mplane lab log`: shows what became of the packets of a lab.

use std::path::PathBuf;

use clap::Args;
use jiff::Timestamp;
use mplane_lab::log::{Fate, Header, Log, Record, statistics};

use super::{Cell, Form, median_and_tail, print};
use crate::output::Output;
use crate::{Failure, Told};

/// The arguments of `mplane lab log`.
#[derive(Args, Clone, Debug)]
pub struct LogFileArgs {
    /// The log; the lab may be running
    file: PathBuf,
    /// How to print it
    #[arg(short, long, default_value = "table")]
    output: Form,
    /// Count what became of packets, for each direction of each link, instead of listing
    /// them
    #[arg(short, long)]
    summary: bool,
    /// The link of which to tell; all without it
    #[arg(long)]
    link: Option<String>,
    /// What became of the packets to list, such as delivered or lost-random
    #[arg(long)]
    fate: Option<String>,
}

impl LogFileArgs {
    /// Shows the log.
    pub(super) fn run(self, output: &mut Output) -> Result<(), Failure> {
        let mut log = Log::load(&self.file)?;
        if let Some(name) = &self.link {
            let number = link_number(&log, name)?;
            log.records.retain(|record| usize::from(record.link) == number);
        }
        if let Some(name) = &self.fate {
            let fate = parse_fate(name)?;
            log.records.retain(|record| record.fate == fate);
        }
        if self.summary {
            summarize(&log, self.output, output);
        } else {
            list(&log, self.output, output);
        }
        Ok(())
    }
}

/// Finds a link by its name.
fn link_number(log: &Log, name: &str) -> Result<usize, Told> {
    let links = &log.description.links;
    links.iter().position(|link| link.name == name).ok_or_else(|| {
        let names: Vec<_> = links.iter().map(|link| link.name.as_str()).collect();
        Told(format!(
            "there is no link {name} in this log; there are {}",
            names.join(", ")
        ))
    })
}

/// Parses what became of a packet.
fn parse_fate(name: &str) -> Result<Fate, Told> {
    Fate::ALL.into_iter().find(|fate| fate.name() == name).ok_or_else(|| {
        let names = Fate::ALL.map(Fate::name);
        Told(format!("there is no fate {name}; there are {}", names.join(", ")))
    })
}

/// Lists packets.
fn list(log: &Log, form: Form, output: &mut Output) {
    let header = [
        "arrived",
        "from",
        "to",
        "number",
        "bytes",
        "source",
        "destination",
        "protocol",
        "detail",
        "fate",
        "delay_us",
        "late_us",
        "notes",
    ];
    let rows = log.records.iter().map(|record| row(log, record));
    print(form, &header, rows, output);
}

/// Tells of one packet.
fn row(log: &Log, record: &Record) -> [Cell; 13] {
    let text = |text: &str| Cell::Text(text.to_owned());
    let (from, to) = log.ends(record).unwrap_or_default();
    let time = |nanos: Option<u64>| nanos.map_or(Cell::Nothing, Cell::Nanos);
    let arrived = if record.fate.is_packet() {
        let nanos = i128::from(record.arrived_utc_ns);
        Cell::Text(Timestamp::from_nanosecond(nanos).unwrap_or_default().to_string())
    } else {
        Cell::Nothing
    };
    let header = Header::read(record.head());
    let [source, destination, protocol, detail] = match header {
        None => [Cell::Nothing, Cell::Nothing, Cell::Nothing, Cell::Nothing],
        Some(header) => [
            Cell::Text(header.source.to_string()),
            Cell::Text(header.destination.to_string()),
            Cell::Text(protocol(header.protocol)),
            Cell::Text(detail(&header)),
        ],
    };
    let notes = match (record.is_copy, record.is_held) {
        (true, true) => "copy held",
        (true, false) => "copy",
        (false, true) => "held",
        (false, false) => "",
    };
    [
        arrived,
        text(from),
        text(to),
        Cell::Number(record.sequence),
        Cell::Number(record.length.into()),
        source,
        destination,
        protocol,
        detail,
        text(record.fate.name()),
        time(record.delay_ns()),
        time(record.lateness_ns()),
        text(notes),
    ]
}

/// Names a protocol, or gives its number.
fn protocol(number: u8) -> String {
    match number {
        1 => "icmp".to_owned(),
        6 => "tcp".to_owned(),
        17 => "udp".to_owned(),
        58 => "icmp6".to_owned(),
        _ => number.to_string(),
    }
}

/// Tells ports, or types and codes with identifier and sequence number.
fn detail(header: &Header) -> String {
    if let Some([source, destination]) = header.ports {
        return format!("{source} -> {destination}");
    }
    let Some([kind, code]) = header.icmp else { return String::new() };
    match header.echo {
        Some([identifier, sequence]) => {
            format!("type {kind} id {identifier} seq {sequence}")
        }
        None => format!("type {kind} code {code}"),
    }
}

/// Counts what became of packets.
fn summarize(log: &Log, form: Form, output: &mut Output) {
    let header = [
        "from",
        "to",
        "arrived",
        "delivered",
        "lost",
        "dropped",
        "copies",
        "overtaken",
        "unseen",
        "delay_p50_us",
        "delay_p99_us",
        "delay_max_us",
        "late_p50_us",
        "late_p99_us",
        "late_max_us",
    ];
    let directions = statistics(&log.records);
    let rows = directions.into_iter().map(|((link, is_back), sums)| {
        let between = log.description.links.get(usize::from(link));
        let [one, two] = between.map(|link| link.between.clone()).unwrap_or_default();
        let (from, to) = if is_back { (two, one) } else { (one, two) };
        let count = |fates: &[Fate]| {
            let counts = fates.iter().filter_map(|fate| sums.fates.get(fate));
            Cell::Number(counts.sum())
        };
        let [delay_p50, delay_p99, delay_max] = median_and_tail(sums.delay_ns);
        let [late_p50, late_p99, late_max] = median_and_tail(sums.lateness_ns);
        let dropped = [
            Fate::DroppedQueue,
            Fate::DroppedSize,
            Fate::DroppedMemory,
            Fate::Refused,
            Fate::Unfinished,
        ];
        [
            Cell::Text(from),
            Cell::Text(to),
            Cell::Number(sums.arrived),
            count(&[Fate::Delivered]),
            count(&[Fate::LostRandom, Fate::LostBurst]),
            count(&dropped),
            Cell::Number(sums.copies),
            Cell::Number(sums.overtaken),
            count(&[Fate::Unseen]),
            delay_p50,
            delay_p99,
            delay_max,
            late_p50,
            late_p99,
            late_max,
        ]
    });
    print(form, &header, rows, output);
}
