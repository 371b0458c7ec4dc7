//! What can be wrong with a topology.

use std::io;
use std::path::PathBuf;

use super::{LAB_NAME_LENGTH, NAME_LENGTH, Prefix};

/// A topology that cannot be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadTopologyError {
    /// The file cannot be read.
    #[error("cannot read the topology {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The file cannot be a topology.
    #[error("{} has {length} bytes, a topology at most a million", path.display())]
    TooLong {
        /// The file.
        path: PathBuf,
        /// Its length.
        length: u64,
    },
    /// Something in it is wrong.
    #[error("{}:{line}:{column}: {problem}", path.display())]
    Wrong {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// The column in characters, from 1.
        column: usize,
        /// What is wrong.
        problem: Problem,
    },
}

/// What is wrong with a topology.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Problem {
    /// It is no TOML, or a key is unknown, missing or has a value that it cannot have.
    #[error("{0}")]
    Toml(String),
    /// The lab cannot be called so.
    #[error(
        "{name:?} is no name of a lab: at most {LAB_NAME_LENGTH} lower-case letters, digits \
         and hyphens, the first a letter"
    )]
    LabName {
        /// The name.
        name: String,
    },
    /// A host cannot be called so.
    #[error(
        "{name:?} is no name of a host: at most {NAME_LENGTH} lower-case letters, digits \
         and hyphens, the first a letter"
    )]
    HostName {
        /// The name.
        name: String,
    },
    /// Two hosts are called the same.
    #[error("there is a second host {name}")]
    SecondHost {
        /// The name.
        name: String,
    },
    /// A link names a host that does not exist.
    #[error("there is no host {name}; write [[host]] with name = {name:?}")]
    NoHost {
        /// The name.
        name: String,
    },
    /// A link joins a host with itself.
    #[error("a link joins two hosts, not one with itself")]
    Loop,
    /// Something is too much.
    #[error("{count} {what}, there may be {most}")]
    TooMany {
        /// How many there are.
        count: usize,
        /// How many there may be.
        most: usize,
        /// Of what.
        what: &'static str,
    },
    /// Two networks overlap, so that routes would be ambiguous.
    #[error("{one} overlaps {other}, which is in the lab already")]
    Overlap {
        /// One of them.
        one: Prefix,
        /// The other.
        other: Prefix,
    },
    /// The ends of a link do not fit to each other.
    #[error(
        "both ends need different addresses in the same networks, one in each, such as \
         [[\"192.0.2.1/30\"], [\"192.0.2.2/30\"]]"
    )]
    Addresses,
    /// An address was given where a network is needed.
    #[error("{prefix} is no network; {} is", prefix.network())]
    NoNetwork {
        /// What was given.
        prefix: Prefix,
    },
    /// A program without a name.
    #[error("a program is a list of its name and its arguments")]
    NoProgram,
    /// The MTU is not possible.
    #[error("an MTU of {mtu} is not possible here, it is from {least} to {most}")]
    Mtu {
        /// What was given.
        mtu: u32,
        /// The least.
        least: u32,
        /// The most.
        most: u32,
    },
    /// A change comes before the one above it.
    #[error("changes are written in the order of their times")]
    Order,
}
