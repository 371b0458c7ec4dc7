//! Messages without rows, of the size that they often have.

use mplane::message::{Capability, Specification, Statement};
use mplane::registry::Registries;

/// Returns a capability of 617 bytes as the reference writes it.
pub(crate) fn capability(registries: &Registries) -> Capability {
    let mut statement =
        Statement::measure("now ... future / 1s".parse().expect("a scope"))
            .labelled("ping-average-ip4-from-the-first-floor-of-the-building-in-the-city")
            .parameter(registries, "source.ip4", "192.168.100.201")
            .and_then(|s| s.parameter(registries, "destination.ip4", "*"))
            .and_then(|s| s.parameter(registries, "destination.port", "1 ... 65535"))
            .and_then(|s| s.metavalue(registries, "measurement.identifier", "qof-12"))
            .and_then(|s| s.metavalue(registries, "location.latitude", "47.37"))
            .and_then(|s| s.metavalue(registries, "location.longitude", "8.55"))
            .expect("elements of the core registry");
    for name in [
        "delay.twoway.icmp.us.min",
        "delay.twoway.icmp.us.max",
        "delay.twoway.icmp.us.mean",
        "delay.twoway.icmp.count",
        "packets.lost",
    ] {
        statement = statement.column(registries, name).expect("an element");
    }
    statement.set_link(Some("https://probe.example:8889/".to_owned()));
    Capability::new(statement)
}

/// Returns a specification of about the same size.
pub(crate) fn specification(registries: &Registries) -> Specification {
    let mut specification = Specification::of(&capability(registries));
    for (name, value) in [("destination.ip4", "10.0.37.2"), ("destination.port", "443")] {
        specification.set_parameter(name, value).expect("it is allowed");
    }
    specification.set_when("2017-12-24 22:18:42 + 1m / 1s".parse().expect("a scope"));
    specification
}
