//! The section `[access]`: roles, and what they may use.

use std::collections::BTreeMap;

use mplane::access::{IdentityRule, Policy, PolicyError};
use serde::{Deserialize, Deserializer};

/// The section as it is written.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct AccessConfig {
    /// Who has a role, by its name.
    roles: BTreeMap<String, Vec<WrittenIdentity>>,
    /// Which roles may use a capability, by its label or token.
    authorizations: BTreeMap<String, Vec<String>>,
}

/// An identity as it is written.
#[derive(Debug, Deserialize)]
#[serde(untagged, expecting = "an identity is text with dots, or the list of its names")]
enum WrittenIdentity {
    /// `"mplane.Clients.ops-1"`
    Text(String),
    /// `["mplane", "Clients", "ops.2"]`
    Names(Vec<String>),
}

/// Reads the section.
pub(super) fn policy<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Policy, D::Error> {
    let AccessConfig { roles, authorizations } = AccessConfig::deserialize(deserializer)?;
    let rule = |identity| match identity {
        WrittenIdentity::Text(text) => IdentityRule::Text(text),
        WrittenIdentity::Names(names) => IdentityRule::Names(names),
    };
    let roles = roles
        .into_iter()
        .map(|(role, identities)| (role, identities.into_iter().map(rule).collect()))
        .collect();
    make_policy(&roles, &authorizations).map_err(serde::de::Error::custom)
}

/// Makes a policy of what was read.
pub(super) fn make_policy(
    roles: &BTreeMap<String, Vec<IdentityRule>>,
    authorizations: &BTreeMap<String, Vec<String>>,
) -> Result<Policy, PolicyError> {
    Policy::new(
        roles.iter().map(|(role, identities)| (role.as_str(), identities.as_slice())),
        authorizations.iter().map(|(name, roles)| (name.as_str(), roles.as_slice())),
    )
}
