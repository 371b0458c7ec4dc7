//! A section `[[component.service]]`: what is measured, and what it may use.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use mplane::exchange::component::{Budget, Concurrency, WhenBusy};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};

use super::optional_duration;
use crate::external::ExternalConfig;

/// A service with what it may use.
#[derive(Clone, Debug)]
pub struct ServiceEntry<S> {
    /// What measures.
    pub service: ServiceKind<S>,
    /// What each of its capabilities may use.
    pub budget: Budget,
}

/// A service: a program of its own, or one within the program.
#[derive(Clone, Debug)]
pub enum ServiceKind<S> {
    /// A program of its own: `type = "external"`.
    External(ExternalConfig),
    /// One within the program: any other type.
    Native(S),
}

/// A service that may name files.
pub trait NamesFiles {
    /// Returns the paths in its configuration, which are relative to the file of that.
    fn files(&mut self) -> Vec<&mut PathBuf>;
}

impl<S> ServiceEntry<S> {
    /// Makes a service within the program that may use what it likes.
    pub fn native(service: S) -> Self {
        Self { service: ServiceKind::Native(service), budget: Budget::default() }
    }
}

impl<'de, S: DeserializeOwned> Deserialize<'de> for ServiceEntry<S> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut table = toml::Table::deserialize(deserializer)?;
        let mut of_budget = toml::Table::new();
        for key in BudgetConfig::KEYS {
            of_budget.extend(table.remove_entry(key));
        }
        let budget = BudgetConfig::deserialize(of_budget);
        let budget = budget.map_err(|error| own_words(&error))?.into();
        let is_external =
            table.get("type").is_some_and(|kind| kind.as_str() == Some(EXTERNAL));
        let service = if is_external {
            table.remove("type");
            ExternalConfig::deserialize(table).map(ServiceKind::External)
        } else {
            S::deserialize(table).map(ServiceKind::Native)
        };
        let service = service.map_err(|error| own_words(&error))?;
        Ok(Self { service, budget })
    }
}

/// The type of services that are programs of their own.
const EXTERNAL: &str = "external";

/// Takes over what is wrong with a service. The types that exist are those of both kinds.
fn own_words<E: serde::de::Error>(error: &toml::de::Error) -> E {
    let message = error.message();
    if message.starts_with("unknown variant") {
        E::custom(format_args!("{message} or `{EXTERNAL}`"))
    } else {
        E::custom(message)
    }
}

/// The budget of a service as it is written, beside the keys of the service itself.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct BudgetConfig {
    concurrency: Option<ConcurrencyConfig>,
    #[serde(default)]
    when_busy: WhenBusyConfig,
    #[serde(default, deserialize_with = "optional_duration")]
    min_period: Option<Duration>,
    #[serde(default, deserialize_with = "optional_duration")]
    max_duration: Option<Duration>,
}

impl BudgetConfig {
    const KEYS: [&str; 4] = ["concurrency", "when-busy", "min-period", "max-duration"];
}

/// A class of concurrency as it is written.
#[derive(Debug, Deserialize)]
#[serde(
    untagged,
    expecting = "concurrency is \"unlimited\", \"exclusive\", or a number from 1 on"
)]
enum ConcurrencyConfig {
    Word(ConcurrencyWord),
    Shared(NonZeroUsize),
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum ConcurrencyWord {
    Unlimited,
    Exclusive,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum WhenBusyConfig {
    #[default]
    Wait,
    Refuse,
}

impl From<BudgetConfig> for Budget {
    fn from(config: BudgetConfig) -> Self {
        Self {
            concurrency: match config.concurrency {
                None | Some(ConcurrencyConfig::Word(ConcurrencyWord::Unlimited)) => {
                    Concurrency::Unlimited
                }
                Some(ConcurrencyConfig::Word(ConcurrencyWord::Exclusive)) => {
                    Concurrency::Exclusive
                }
                Some(ConcurrencyConfig::Shared(most)) => Concurrency::Shared(most),
            },
            when_busy: match config.when_busy {
                WhenBusyConfig::Wait => WhenBusy::Wait,
                WhenBusyConfig::Refuse => WhenBusy::Refuse,
            },
            min_period: config.min_period,
            max_duration: config.max_duration,
        }
    }
}
