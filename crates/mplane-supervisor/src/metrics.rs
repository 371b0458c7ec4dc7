//! What a supervisor counts, for Prometheus.

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

/// Bounds of the time from the acceptance of a specification to its hand-out, in seconds:
/// from the fastest to a day, as components may be away.
const DISPATCH_S: [f64; 12] =
    [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 1.0, 10.0, 600.0, 86_400.0];

/// Bounds of the time that a transaction takes, in seconds.
const STORE_S: [f64; 9] = [0.0001, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.05, 0.5, 5.0];

/// The metrics of a supervisor.
#[derive(Debug)]
pub struct SupervisorMetrics {
    /// Capabilities registered.
    pub(crate) registrations: Counter,
    /// Specifications accepted.
    pub(crate) accepted: Counter,
    /// Specifications refused, by reason.
    pub(crate) refused: Family<RefusedLabel, Counter>,
    /// Hand-outs to components.
    pub(crate) handed: Counter,
    /// Hand-outs made again because nobody answered.
    pub(crate) handed_again: Counter,
    /// Specifications that have ended, by how.
    pub(crate) settled: Family<EndLabel, Counter>,
    /// Deliveries that came after the end.
    pub(crate) too_late: Counter,
    /// Results and exceptions given to clients.
    pub(crate) redeemed: Counter,
    /// Requests that the store could not serve.
    pub(crate) store_failures: Counter,
    /// Requests refused because too many writes waited.
    pub(crate) shed: Counter,
    /// From acceptance to hand-out.
    pub(crate) dispatch: Histogram,
    /// How long transactions take in the store, by what they do.
    pub(crate) store: Family<TransactionLabel, Histogram, fn() -> Histogram>,
    /// Capabilities and reports that were not taken, by kind of message.
    pub(crate) not_taken: Family<NotTakenLabel, Counter>,
    /// Components, by presence.
    pub(crate) components: Family<PresenceLabel, Gauge>,
    /// Components for which something is queued.
    pub(crate) pending: Gauge,
    /// What components are to fetch, in all.
    pub(crate) queued: Gauge,
    /// How long the first of it has been queued, in seconds.
    pub(crate) queued_age: Gauge,
    /// Writes that wait for the store.
    pub(crate) writes: Gauge,
    /// Requests kept open for components.
    pub(crate) fetching: Gauge,
    /// Requests kept open for clients.
    pub(crate) redeeming: Gauge,
}

/// Why a specification was refused.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct RefusedLabel {
    pub(crate) reason: RefusedReason,
}

/// Why a specification was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
#[expect(non_camel_case_types, reason = "the names are those of label values")]
pub(crate) enum RefusedReason {
    /// There is no such capability for the client, or it does not fit.
    capability,
    /// The temporal scope is over.
    scope,
    /// As many wait for the component as may.
    queue,
    /// As many of the client are open as may be.
    client,
}

/// What a transaction does.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct TransactionLabel {
    pub(crate) transaction: Transaction,
}

/// What a transaction does, of those that components and clients wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
#[expect(non_camel_case_types, reason = "the names are those of label values")]
pub(crate) enum Transaction {
    /// A capability is registered.
    register,
    /// A specification is accepted.
    accept,
    /// What is queued is handed out.
    fetch,
    /// A result is taken.
    deliver,
}

/// What was not taken.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct NotTakenLabel {
    pub(crate) kind: &'static str,
}

/// How a specification ended.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct EndLabel {
    pub(crate) end: &'static str,
}

/// Whether components are there.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct PresenceLabel {
    pub(crate) presence: &'static str,
}

impl Default for SupervisorMetrics {
    fn default() -> Self {
        Self {
            registrations: Counter::default(),
            accepted: Counter::default(),
            refused: Family::default(),
            handed: Counter::default(),
            handed_again: Counter::default(),
            settled: Family::default(),
            too_late: Counter::default(),
            redeemed: Counter::default(),
            store_failures: Counter::default(),
            shed: Counter::default(),
            dispatch: Histogram::new(DISPATCH_S),
            store: Family::new_with_constructor(|| Histogram::new(STORE_S)),
            not_taken: Family::default(),
            components: Family::default(),
            pending: Gauge::default(),
            queued: Gauge::default(),
            queued_age: Gauge::default(),
            writes: Gauge::default(),
            fetching: Gauge::default(),
            redeeming: Gauge::default(),
        }
    }
}

impl SupervisorMetrics {
    /// Counts a message of a component that was not taken.
    pub(crate) fn not_taken(&self, kind: &'static str) {
        self.not_taken.get_or_create(&NotTakenLabel { kind }).inc();
    }

    /// Registers the metrics to be shown.
    pub fn register(&self, registry: &mut Registry) {
        let registry = registry.sub_registry_with_prefix("mplane_supervisor");
        let counters = [
            ("registrations", "Capabilities registered", &self.registrations),
            ("specifications_accepted", "Specifications accepted", &self.accepted),
            ("hand_outs", "Hand-outs to components", &self.handed),
            (
                "hand_outs_again",
                "Specifications queued again because nobody answered",
                &self.handed_again,
            ),
            ("deliveries_too_late", "Deliveries after the end", &self.too_late),
            ("redemptions", "Results and exceptions given to clients", &self.redeemed),
            (
                "store_failures",
                "Requests that the store could not serve",
                &self.store_failures,
            ),
            (
                "requests_shed",
                "Requests refused because too many writes waited for the store",
                &self.shed,
            ),
        ];
        for (name, help, counter) in counters {
            registry.register(name, help, counter.clone());
        }
        let refused = self.refused.clone();
        registry.register("specifications_refused", "Specifications refused", refused);
        let settled = self.settled.clone();
        registry.register("specifications_settled", "Specifications ended", settled);
        let dispatch = self.dispatch.clone();
        let help = "From the acceptance of a specification to its hand-out";
        registry.register_with_unit("dispatch", help, Unit::Seconds, dispatch);
        let help = "How long the first of what components are to fetch has waited";
        let age = self.queued_age.clone();
        registry.register_with_unit("queued_age", help, Unit::Seconds, age);
        let help = "How long transactions take in the store";
        registry.register_with_unit("store", help, Unit::Seconds, self.store.clone());
        let help = "Capabilities and reports of components that were not taken";
        registry.register("messages_not_taken", help, self.not_taken.clone());
        let components = self.components.clone();
        registry.register("components", "Components, by presence", components);
        for (name, help, gauge) in [
            (
                "components_pending",
                "Components for which something is queued",
                &self.pending,
            ),
            ("queued", "Messages that components are to fetch", &self.queued),
            ("store_writes_waiting", "Writes that wait for the store", &self.writes),
            ("fetches_open", "Requests kept open for components", &self.fetching),
            ("redemptions_open", "Requests kept open for clients", &self.redeeming),
        ] {
            registry.register(name, help, gauge.clone());
        }
    }
}
