//! Every limit on what comes from outside, each with its reason.
//!
//! A limit is reached with a clear error that names it, never with a truncated value.
//! Sizes are bytes unless the name says otherwise.

use std::time::Duration;

/// Bytes of one message. A result of 100,000 rows with five columns takes 7 MB; this
/// leaves room for eight of them and keeps a hostile peer from filling memory.
pub const MESSAGE_BYTES: usize = 64 << 20;

/// Envelopes within envelopes. Registrations need one level, results of repeated
/// measurements two; each is read once more than the one around it.
pub const ENVELOPE_DEPTH: usize = 16;

/// Messages in one envelope: the results of a repeated measurement, more capabilities than
/// the largest component has, and a bound on the work one request can cause.
pub const ENVELOPE_CONTENTS: usize = 16_384;

/// Parameters, metadata or result columns of one statement. The widest known schema has
/// 46 columns.
pub const SECTION_ENTRIES: usize = 1_024;

/// Rows of one result: ten times the largest result of any known component. Longer
/// measurements are repeated, or exported indirectly.
pub const RESULT_ROWS: usize = 1_000_000;

/// Values of one parameter that allows several: the targets of one specification. More
/// are better measured by several specifications.
pub const LIST_MEMBERS: usize = 4_096;

/// Arrays and objects within a value of type object. The JSON reader stops at 128, of
/// which the message around it takes some.
pub const OBJECT_DEPTH: usize = 64;

/// Members of all sets and lists of one message, so that a large message of them takes 40
/// MB and not twenty times its size.
pub const MESSAGE_MEMBERS: usize = 1_000_000;

/// Members of one set constraint, enough for a port list or a list of hosts.
pub const CONSTRAINT_MEMBERS: usize = 65_536;

/// Bytes of one label. The longest known is 41 bytes; supervisors append an identity.
pub const LABEL_BYTES: usize = 512;

/// Bytes of one token. Tokens of ours are 32 hexadecimal digits, peers may choose others.
pub const TOKEN_BYTES: usize = 256;

/// Bytes of one verb.
pub const VERB_BYTES: usize = 64;

/// Bytes of one URL in a link, an export or a registry section, as browsers keep it.
pub const URL_BYTES: usize = 8_192;

/// Bytes of a registry file. The largest known, with 289 elements, takes 60 kB.
pub const REGISTRY_BYTES: usize = 16 << 20;

/// Elements of one registry, includes not counted.
pub const REGISTRY_ELEMENTS: usize = 65_536;

/// Registries that include one another, depth first.
pub const REGISTRY_DEPTH: usize = 16;

/// Jobs that wait or run at once in a component. Beyond it new specifications are refused:
/// what was accepted is never dropped.
pub const JOBS: usize = 10_000;

/// Measurements of repeats that run at once in a component, beside the jobs themselves: two
/// of each, should one take longer than its period.
pub const MEASUREMENTS: usize = 2 * JOBS;

/// Finished jobs a component keeps for repeated redemption, those of which the owner has
/// the result go first: as many as may have been accepted at once.
pub const FINISHED_JOBS: usize = JOBS;

/// Values in all results that a component keeps for repeated redemption, the oldest go
/// first: as many as one of the largest messages has, in some 100 MB of memory.
pub const FINISHED_VALUES: usize = 4_000_000;

/// Capabilities that a component has withdrawn and still remembers, so that who asks for
/// one hears that it is gone. More than any configuration has.
pub const WITHDRAWN_CAPABILITIES: usize = 1_000;

/// The longest time over which the starts of repeats are spread: supervisors take a
/// measurement for lost some time after its scope.
pub const LONGEST_SPREAD: Duration = Duration::from_secs(30);

/// Bytes of input quoted in an error message, so that errors stay readable.
pub const QUOTE_BYTES: usize = 60;

/// How long after the end of its temporal scope a service may still run before it is told
/// to stop, in seconds: replies to the last packets are on the way. Services know how long
/// their scope lasts and measure nothing beyond it.
pub const SCOPE_GRACE_S: i64 = 2;

/// Results that a repeated measurement keeps, the oldest go first. One a minute makes a
/// week.
pub const REPEAT_RESULTS: usize = 10_080;

/// Results that all repeated measurements of a component keep together: with a row each
/// they take 0.7 kB, 140 MB in all.
pub const ALL_REPEAT_RESULTS: usize = 200_000;

/// Values in all results that a repeated measurement keeps, the oldest go first, so that
/// numbers and times of them fit into one message.
pub const REPEAT_VALUES: usize = 1_000_000;

const _: () = assert!(REPEAT_RESULTS <= ENVELOPE_CONTENTS, "they arrive as one envelope");
