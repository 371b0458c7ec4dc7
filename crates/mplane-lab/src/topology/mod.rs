//! Topologies: hosts, the links between them, and what the links do.
//!
//! `docs/lab.md` describes the file. Link number `n`, counted from 1, has the addresses
//! `10.0.n.1` and `10.0.n.2` (/30), `fd00:0:0:n::1` and `fd00:0:0:n::2` (/64, `n` as it is
//! written in decimal), unless it is given others.

mod file;
mod prefix;
mod problem;
mod route;
#[cfg(test)]
mod tests;

use std::net::{IpAddr, Ipv4Addr};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Duration;

use toml::Spanned;

use self::file::{Family, HostFile, LinkFile, TopologyFile};
use crate::emulate::{Change, Shape};

pub use self::prefix::{ParsePrefixError, Prefix};
pub use self::problem::{LoadTopologyError, Problem};
pub use self::route::{Gateway, Route, routes};

/// Hosts of a lab: each has a network namespace, of which the kernel frees some ten a
/// second only.
pub const HOSTS: usize = 32;

/// Links of a lab: one thread looks after both ends of all of them.
pub const LINKS: usize = 64;

/// Networks that a host answers for: each is a route in all others.
pub const PREFIXES: usize = 16;

/// Programs that run in a host.
pub const PROGRAMS: usize = 16;

/// Changes of a link: a day of changes, one each minute.
pub const CHANGES: usize = 1440;

/// Bytes of a file: many times what the other limits allow for.
const FILE_BYTES: u64 = 1 << 20;

/// The name of a host is at most this long, so that `to-NAME.9` is one of an interface.
const NAME_LENGTH: usize = 10;

/// Links between the same two hosts, so that one digit tells them apart.
const PARALLEL: usize = 9;

/// What interfaces send at most where nothing is given, as on Ethernet.
const MTU: u32 = 1500;

/// The least MTU of IPv4 (RFC 791, section 3.2).
const MTU_IP4: u32 = 68;

/// The least MTU of IPv6 (RFC 8200, section 5).
const MTU_IP6: u32 = 1280;

/// The longest IP packet, and the longest that a TUN device takes.
const MTU_MOST: u32 = 65_535;

/// A network to be made. Every value is possible: names are unique and known, addresses
/// do not overlap.
#[derive(Clone, Debug, PartialEq)]
pub struct Topology {
    /// Its name.
    pub name: String,
    /// Where its random numbers start.
    pub seed: u64,
    /// Whether the emulator never sleeps: it wakes up at once, and uses a processor.
    pub is_busy: bool,
    /// Its hosts, in the order of the file.
    pub hosts: Vec<HostPlan>,
    /// Its links, in the order of the file.
    pub links: Vec<LinkPlan>,
}

/// A host to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostPlan {
    /// Its name.
    pub name: String,
    /// Whether it forwards packets of others.
    pub is_router: bool,
    /// Networks all of whose addresses it answers for.
    pub prefixes: Vec<Prefix>,
    /// Programs that run in it, with their arguments.
    pub programs: Vec<Vec<String>>,
}

/// A link to be made.
#[derive(Clone, Debug, PartialEq)]
pub struct LinkPlan {
    /// Its name: those of its hosts.
    pub name: String,
    /// Its ends; "forth" is from the first to the second.
    pub ends: [EndPlan; 2],
    /// The longest packet that its interfaces send. A router answers longer ones as
    /// routers do: it fragments, or reports them by ICMP.
    pub mtu: u32,
    /// What it does forth and back.
    pub shapes: [Shape; 2],
    /// How that changes, forth and back, in the order of time.
    pub changes: [Vec<(Duration, Change)>; 2],
}

/// An end of a link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndPlan {
    /// The number of its host.
    pub host: usize,
    /// The name of its interface.
    pub interface: String,
    /// Its addresses.
    pub addresses: Vec<Prefix>,
}

impl Topology {
    /// Loads a topology. A file without a `name` is called by its own.
    pub fn load(path: &Path) -> Result<Self, LoadTopologyError> {
        let read = |source| LoadTopologyError::Read { path: path.to_owned(), source };
        let length = std::fs::metadata(path).map_err(read)?.len();
        if length > FILE_BYTES {
            return Err(LoadTopologyError::TooLong { path: path.to_owned(), length });
        }
        let text = std::fs::read_to_string(path).map_err(read)?;
        let stem = path.file_stem().unwrap_or_default().to_string_lossy();
        let clean = stem.to_lowercase().replace(|letter| !is_in_name(letter), "-");
        let name = clean.trim_start_matches(|letter: char| !letter.is_ascii_lowercase());
        let name: String = name.chars().take(LAB_NAME_LENGTH).collect();
        let name = if name.is_empty() { "lab".to_owned() } else { name };
        Self::parse(&text, &name).map_err(|error| error.at(path, &text))
    }

    /// Parses a topology. `name` is its name if it says none.
    pub fn parse(text: &str, name: &str) -> Result<Self, ParseTopologyError> {
        let file: TopologyFile = toml::from_str(text).map_err(|error| {
            let span = error.span().unwrap_or_default();
            ParseTopologyError {
                span,
                problem: Problem::Toml(error.message().to_owned()),
            }
        })?;
        read(&file, name)
    }

    /// Returns the number of a host.
    pub fn host(&self, name: &str) -> Option<usize> {
        self.hosts.iter().position(|host| host.name == name)
    }

    /// Returns the addresses of a host: those of its links, in their order.
    pub fn addresses(&self, host: usize) -> impl Iterator<Item = IpAddr> {
        let ends = self.links.iter().flat_map(|link| &link.ends);
        let ends = ends.filter(move |end| end.host == host);
        ends.flat_map(|end| end.addresses.iter().map(|prefix| prefix.address))
    }
}

/// What is wrong with a text that is no topology, and where.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{problem}")]
pub struct ParseTopologyError {
    /// The bytes of the text that are wrong.
    pub span: Range<usize>,
    /// What is wrong.
    pub problem: Problem,
}

impl ParseTopologyError {
    /// Makes one about a place.
    fn new<T>(place: &Spanned<T>, problem: Problem) -> Self {
        Self { span: place.span(), problem }
    }

    /// Names the place in the file.
    fn at(self, path: &Path, text: &str) -> LoadTopologyError {
        let before = text.get(..self.span.start).unwrap_or(text);
        let line = before.matches('\n').count() + 1;
        let column =
            before.chars().rev().take_while(|letter| *letter != '\n').count() + 1;
        let path = PathBuf::from(path);
        LoadTopologyError::Wrong { path, line, column, problem: self.problem }
    }
}

/// Letters of a name.
fn is_in_name(letter: char) -> bool {
    letter.is_ascii_lowercase() || letter.is_ascii_digit() || letter == '-'
}

/// The longest name of a lab: it is the name of a folder, and stands in tables.
pub const LAB_NAME_LENGTH: usize = 40;

/// Returns whether a text is a name: letters, digits and hyphens, the first a letter.
pub fn is_name(text: &str, longest: usize) -> bool {
    text.starts_with(|first: char| first.is_ascii_lowercase())
        && text.len() <= longest
        && text.chars().all(is_in_name)
}

/// Understands what was written.
fn read(file: &TopologyFile, name: &str) -> Result<Topology, ParseTopologyError> {
    let name = match &file.name {
        Some(given) if is_name(given.get_ref(), LAB_NAME_LENGTH) => given.get_ref(),
        Some(given) => {
            let name = given.get_ref().clone();
            return Err(ParseTopologyError::new(given, Problem::LabName { name }));
        }
        None => name,
    };
    let limited = |count, most, what| {
        let problem = Problem::TooMany { count, most, what };
        if count > most {
            Err(ParseTopologyError { span: 0..0, problem })
        } else {
            Ok(())
        }
    };
    limited(file.host.len(), HOSTS, "hosts")?;
    limited(file.link.len(), LINKS, "links")?;
    let mut hosts: Vec<HostPlan> = Vec::new();
    for host in &file.host {
        let name = host.name.get_ref();
        if hosts.iter().any(|other| other.name == *name) {
            let problem = Problem::SecondHost { name: name.clone() };
            return Err(ParseTopologyError::new(&host.name, problem));
        }
        hosts.push(read_host(host)?);
    }
    let mut networks: Vec<Prefix> = Vec::new();
    let mut claim = |place: Range<usize>, network: Prefix| {
        if let Some(other) = networks.iter().find(|other| other.overlaps(network)) {
            let problem = Problem::Overlap { one: network, other: *other };
            return Err(ParseTopologyError { span: place, problem });
        }
        networks.push(network);
        Ok(())
    };
    let mut links: Vec<LinkPlan> = Vec::new();
    for (link, number) in file.link.iter().zip(1..) {
        let plan = read_link(link, number, &file.families, &hosts, &links)?;
        let place = link.addresses.as_ref().map(Spanned::span);
        let place = place.unwrap_or_else(|| link.between.span());
        let [end, _] = &plan.ends;
        for address in &end.addresses {
            claim(place.clone(), address.network())?;
        }
        links.push(plan);
    }
    for host in &file.host {
        for prefix in &host.prefixes {
            claim(prefix.span(), prefix.get_ref().0.network())?;
        }
    }
    let name = name.to_owned();
    Ok(Topology { name, seed: file.seed, is_busy: file.busy, hosts, links })
}

/// Understands a host.
fn read_host(file: &HostFile) -> Result<HostPlan, ParseTopologyError> {
    let wrong = |problem| ParseTopologyError::new(&file.name, problem);
    let name = file.name.get_ref().clone();
    if !is_name(&name, NAME_LENGTH) {
        return Err(wrong(Problem::HostName { name }));
    }
    for (count, most, what) in [
        (file.prefixes.len(), PREFIXES, "prefixes of a host"),
        (file.run.len(), PROGRAMS, "programs of a host"),
    ] {
        if count > most {
            return Err(wrong(Problem::TooMany { count, most, what }));
        }
    }
    for prefix in &file.prefixes {
        let prefix_given = prefix.get_ref().0;
        if prefix_given.network() != prefix_given {
            let problem = Problem::NoNetwork { prefix: prefix_given };
            return Err(ParseTopologyError::new(prefix, problem));
        }
    }
    if let Some(empty) = file.run.iter().find(|words| words.get_ref().is_empty()) {
        return Err(ParseTopologyError::new(empty, Problem::NoProgram));
    }
    Ok(HostPlan {
        name,
        is_router: file.router,
        prefixes: file.prefixes.iter().map(|prefix| prefix.get_ref().0).collect(),
        programs: file.run.iter().map(|words| words.get_ref().clone()).collect(),
    })
}

/// Understands the link with this number, counted from 1.
fn read_link(
    file: &LinkFile,
    number: u8,
    families: &[Family],
    hosts: &[HostPlan],
    others: &[LinkPlan],
) -> Result<LinkPlan, ParseTopologyError> {
    let wrong = |problem| ParseTopologyError::new(&file.between, problem);
    let [one, two] = file.between.get_ref();
    let find = |name: &Spanned<String>| {
        let known = hosts.iter().position(|host| host.name == *name.get_ref());
        let name_given = name.get_ref().clone();
        known.ok_or_else(|| {
            ParseTopologyError::new(name, Problem::NoHost { name: name_given })
        })
    };
    let joined = [find(one)?, find(two)?];
    let [first, second] = joined;
    if first == second {
        return Err(wrong(Problem::Loop));
    }
    let is_parallel = |link: &&LinkPlan| {
        let ends = link.ends.each_ref().map(|end| end.host);
        ends == [first, second] || ends == [second, first]
    };
    let parallel = others.iter().filter(is_parallel).count();
    if parallel >= PARALLEL {
        let (count, what) = (parallel + 1, "links between the same hosts");
        return Err(wrong(Problem::TooMany { count, most: PARALLEL, what }));
    }
    let suffix = if parallel == 0 { String::new() } else { format!(".{}", parallel + 1) };
    let [addresses_one, addresses_two] = read_addresses(file, number, families)?;
    let end = |host, peer: &Spanned<String>, addresses| EndPlan {
        host,
        interface: format!("to-{}{suffix}", peer.get_ref()),
        addresses,
    };
    let ends = [end(first, two, addresses_one), end(second, one, addresses_two)];
    let addresses = ends.iter().flat_map(|end| &end.addresses);
    let has_ip6 = addresses.clone().any(|prefix| prefix.address.is_ipv6());
    let least = if has_ip6 { MTU_IP6 } else { MTU_IP4 };
    if let Some(mtu) = &file.mtu
        && !(least..=MTU_MOST).contains(mtu.get_ref())
    {
        let problem = Problem::Mtu { mtu: *mtu.get_ref(), least, most: MTU_MOST };
        return Err(ParseTopologyError::new(mtu, problem));
    }
    if file.change.len() > CHANGES {
        let (count, what) = (file.change.len(), "changes of a link");
        return Err(wrong(Problem::TooMany { count, most: CHANGES, what }));
    }
    for (before, after) in file.change.iter().zip(file.change.iter().skip(1)) {
        if before.at.get_ref().0 > after.at.get_ref().0 {
            return Err(ParseTopologyError::new(&after.at, Problem::Order));
        }
    }
    let shape = |own| {
        let mut shape = Shape::default();
        Change::from(&file.both).apply(&mut shape);
        Change::from(own).apply(&mut shape);
        shape
    };
    let mut changes = [Vec::new(), Vec::new()];
    for change in &file.change {
        let [forth, back] = &mut changes;
        for (direction, own) in [(forth, &change.forth), (back, &change.back)] {
            let at = change.at.get_ref().0;
            direction.push((at, Change::from(&change.both)));
            direction.push((at, Change::from(own)));
        }
    }
    Ok(LinkPlan {
        name: format!("{}-{}{suffix}", one.get_ref(), two.get_ref()),
        ends,
        mtu: file.mtu.as_ref().map_or(MTU, |mtu| *mtu.get_ref()),
        shapes: [shape(&file.forth), shape(&file.back)],
        changes,
    })
}

/// Returns the addresses of both ends of the link with this number: those given, or
/// automatic ones.
fn read_addresses(
    file: &LinkFile,
    number: u8,
    families: &[Family],
) -> Result<[Vec<Prefix>; 2], ParseTopologyError> {
    let Some(given) = &file.addresses else {
        return Ok([1, 2].map(|end| {
            let automatic = families.iter().map(|family| match family {
                Family::Ip4 => Prefix {
                    address: Ipv4Addr::new(10, 0, number, end).into(),
                    length: 30,
                },
                Family::Ip6 => {
                    let text = format!("fd00:0:0:{number}::{end}/64");
                    text.parse().expect("decimal digits are hexadecimal ones")
                }
            });
            automatic.collect()
        }));
    };
    let ends = given
        .get_ref()
        .each_ref()
        .map(|end| -> Vec<_> { end.iter().map(|prefix| prefix.0).collect() });
    let networks = ends.each_ref().map(|end| {
        let mut networks: Vec<_> = end.iter().map(|prefix| prefix.network()).collect();
        networks.sort();
        networks.dedup();
        networks
    });
    let [one, two] = &ends;
    let [networks_one, networks_two] = &networks;
    let is_shared = one.iter().any(|prefix| two.contains(prefix));
    let is_unique = networks_one.len() == one.len() && networks_two.len() == two.len();
    if networks_one != networks_two || is_shared || !is_unique {
        return Err(ParseTopologyError::new(given, Problem::Addresses));
    }
    Ok(ends)
}
