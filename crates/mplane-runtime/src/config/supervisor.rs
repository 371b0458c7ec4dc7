//! The section `[supervisor]`.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Deserializer};

use super::{CalleeConfig, InitiatorConfig, ListenerConfig, duration};

/// What a supervisor does.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct SupervisorConfig {
    /// Where components and clients reach it.
    pub listener: ListenerConfig,
    /// Where else they reach it: some domains have a port for components, another for
    /// clients.
    pub component_listener: Option<ListenerConfig>,
    /// Components that listen, and that it calls.
    #[serde(default)]
    pub component: Vec<CalleeConfig>,
    /// Other supervisors that it registers with, as a component that has what its components
    /// have.
    #[serde(default)]
    pub initiator: Vec<InitiatorConfig>,
    /// Which hand-outs are made again; the first that names a component counts.
    #[serde(default)]
    pub hand_out: Vec<HandOutConfig>,
    /// The folder of its store; without it nothing is kept over a restart.
    pub data: Option<PathBuf>,
    /// How long a component is offered after it was heard of.
    #[serde(default = "default_expiry", deserialize_with = "duration")]
    pub component_expiry: Duration,
    /// How long results are kept.
    #[serde(default = "default_result_age", deserialize_with = "duration")]
    pub result_age: Duration,
    /// How long stories are kept, at least as long as results.
    #[serde(default = "default_story_age", deserialize_with = "duration")]
    pub story_age: Duration,
    /// How many bytes the results of one client may have.
    #[serde(default = "default_client_bytes")]
    pub client_max_bytes: u64,
    /// How many bytes the results from one component may have.
    #[serde(default = "default_component_bytes")]
    pub component_max_bytes: u64,
    /// How components that are not known are answered.
    #[serde(default)]
    pub unknown_component: UnknownComponent,
    /// How many specifications may wait for one component.
    #[serde(default = "default_queue", deserialize_with = "at_least_one")]
    pub queue: u64,
    /// How many specifications of one client may not have ended.
    #[serde(
        default = "default_client_specifications",
        deserialize_with = "at_least_one"
    )]
    pub client_specifications: u64,
}

/// Whether a hand-out that is not answered is made again.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct HandOutConfig {
    /// A pattern of the identities of components, in which `*` stands for any text.
    pub components: String,
    /// Whether it is made again.
    pub again: bool,
    /// How long it may stay without an answer before it is made again.
    #[serde(default = "default_lease", deserialize_with = "duration")]
    pub after: Duration,
}

/// Ten seconds: components answer at once.
const fn default_lease() -> Duration {
    Duration::from_secs(10)
}

/// How a component that is not known is answered when it asks for specifications.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub enum UnknownComponent {
    /// With 404, which all understand or ignore.
    #[default]
    #[serde(rename = "404")]
    NotFound,
    /// With 428, which has components of some dialects register again, and ends others.
    #[serde(rename = "428")]
    PreconditionRequired,
}

impl SupervisorConfig {
    /// Makes a supervisor that listens there and has else only defaults.
    pub const fn new(
        listener: ListenerConfig,
        component_listener: Option<ListenerConfig>,
    ) -> Self {
        Self {
            listener,
            component_listener,
            component: Vec::new(),
            initiator: Vec::new(),
            hand_out: Vec::new(),
            data: None,
            component_expiry: default_expiry(),
            result_age: default_result_age(),
            story_age: default_story_age(),
            client_max_bytes: default_client_bytes(),
            component_max_bytes: default_component_bytes(),
            unknown_component: UnknownComponent::NotFound,
            queue: default_queue(),
            client_specifications: default_client_specifications(),
        }
    }
}

/// Ten minutes: a restart of a machine, or of a network.
const fn default_expiry() -> Duration {
    Duration::from_secs(600)
}

/// A month.
const fn default_result_age() -> Duration {
    Duration::from_secs(30 * 86_400)
}

/// A quarter of a year.
const fn default_story_age() -> Duration {
    Duration::from_secs(90 * 86_400)
}

/// Ten gibibytes.
const fn default_client_bytes() -> u64 {
    10 << 30
}

/// One gibibyte.
const fn default_component_bytes() -> u64 {
    1 << 30
}

/// As many as one of our components takes.
const fn default_queue() -> u64 {
    10_000
}

/// One for each component of the largest platform known, some times over.
const fn default_client_specifications() -> u64 {
    100_000
}

/// Reads how many specifications may be open.
fn at_least_one<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    match u64::deserialize(deserializer)? {
        0 => Err(serde::de::Error::custom(
            "with 0 no specification could be accepted; it is 1 at least",
        )),
        many => Ok(many),
    }
}
