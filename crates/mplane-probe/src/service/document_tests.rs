//! The manual of measurements says what the capabilities say: it is written from them.
//!
//! `UPDATE_DOCS=1 cargo test -p mplane-probe document` writes it anew.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::sync::Arc;

use mplane::message::Capability;
use mplane::registry::{CORE, Element, Registries, TSTAT};
use mplane_runtime::service::Service;

use super::{Stamps, ping, statistics, sweep, tcp_connect, tstat};
use crate::sweep::DEFAULT_RATE;

/// What capabilities of a name are for, and whom they are for.
const ABOUT: &[(&str, &str)] = &[
    (
        "ping-average",
        "Echo to one destination (ICMP, RFC 792 and RFC 4443), one request each period; at \
         the end a row with the delays of those answered within a second. Without replies \
         the count is 0 and there are no delays. The columns are those of the Python SDK.",
    ),
    (
        "ping-detail",
        "Echo to one destination, a row for each request as soon as its fate is known. A \
         request that was not answered within a second has no delay. The columns are those \
         of the Python SDK.",
    ),
    (
        "ping-statistics",
        "Echo to one destination; at the end one row that says all about it. Requests leave \
         each 100 ms, or at the period of the temporal scope if that is longer. Replies are \
         waited for a second: what comes later is late, and its request lost. Late, \
         duplicated and forged replies are counted apart. Without replies there are counts \
         and no delays. An interrupted measurement has the row so far; what is neither \
         received nor lost then was on its way.",
    ),
    (
        "ping-statistics-custom",
        "The same with packets of your choice: every parameter needs a value.",
    ),
    (
        "ping-sweep",
        "Echo to very many destinations: hosts and networks with blanks between, up to \
         65,536 addresses, each asked once. A network stands for all its addresses, the \
         first and the last included. A row for each target, whether it answers or not. \
         Replies are waited for a second. Requests are told apart by a cookie that only \
         their target has seen; what this machine itself had no room to receive is asked \
         for again. The temporal scope must be long enough for the rate; an instant \
         (`now`) has a second. An interrupted sweep has rows for the targets that were \
         asked.",
    ),
    (
        "ping-sweep-custom",
        "The same with several requests to each target, a second apart at least, with \
         packets and a rate of your choice: every parameter needs a value.",
    ),
    (
        "tcp-connect",
        "TCP handshakes with one port, one each period, a row for each. A refusal is an \
         answer too and has a delay. Connections are closed by a reset at once.",
    ),
    (
        "tstat-log_tcp_complete-core",
        "TCP flows as tStat, a passive flow meter on the same machine, logs them: a row for \
         each flow whose last packet was seen within the temporal scope. Rows come at its \
         end, from what tStat has written a second later; a flow is written once it is \
         complete: after its last segment, or when nothing was seen of it for some minutes. \
         A period in the scope has no meaning. What tStat did not log has no value. \
         `log.lines.unreadable` in the metadata counts lines that are no flows. With the \
         key `net` there are the parameters `subnet.ip4` and `subnet.netmask`, which have \
         one value and state where tStat is.",
    ),
    (
        "tstat-log_tcp_complete-end_to_end",
        "The same flows: round-trip times and times to live. The columns `rtt.…` and \
         `ttl.…` are of the initiator's segments, those that begin with `responder.` of the \
         responder's.",
    ),
    ("tstat-log_tcp_complete-tcp_options", "The same flows: what TCP did."),
    ("tstat-log_tcp_complete-p2p_stats", "The same flows: peer-to-peer programs."),
    ("tstat-log_tcp_complete-layer7", "The same flows: messages, and names in TLS."),
];

/// What a measurement of a name needs.
fn privileges(name: &str) -> &'static str {
    if name.starts_with("ping") {
        "the sysctl `net.ipv4.ping_group_range`, or `CAP_NET_RAW` \
         ([README.md](../README.md#privileges-for-ping))"
    } else if name.starts_with("tstat") {
        "to write in the folder of tStat's `runtime.conf`, and to read its logs"
    } else {
        "none"
    }
}

/// Returns the capabilities of a component that offers all it can, from documentation
/// addresses (RFC 5737, RFC 3849).
fn capabilities(registries: &Registries) -> Vec<Capability> {
    let stamps = Stamps { _socket: None };
    let mut services: Vec<Arc<dyn Service>> = Vec::new();
    let four = "192.0.2.1".parse().expect("an address");
    for source in [four, "2001:db8::1".parse().expect("an address")] {
        let known = "all elements are in the registries";
        services.extend(ping::services(source, &stamps, registries).expect(known));
        services.extend(statistics::services(source, &stamps, registries).expect(known));
        let sweeps = sweep::services(source, DEFAULT_RATE, &stamps, registries);
        services.extend(sweeps.expect(known));
    }
    services.push(tcp_connect::service(four, registries).expect("as above"));
    // They offer what those of a tStat do.
    services.extend(tstat::simulated_services(None, registries).expect("as above"));
    services.iter().map(|service| service.capability()).collect()
}

/// Writes the manual.
fn document() -> String {
    let registries = Registries::embedded();
    let capabilities = capabilities(&registries);
    let mut text = HEAD.to_owned();
    for (name, about) in ABOUT {
        let label = |suffix| format!("{name}-{suffix}");
        let find = |label: String| {
            capabilities.iter().find(|it| it.label() == Some(label.as_str()))
        };
        let four = find(label("ip4")).or_else(|| find((*name).to_owned()));
        let four = four.expect("a measurement over IPv4, or one of no family");
        let six = find(label("ip6"));
        write(&mut text, name, about, four, six);
    }
    let described = capabilities.iter().filter(|capability| {
        let label = capability.label().expect("ours have labels");
        let name = label.trim_end_matches("-ip4").trim_end_matches("-ip6");
        ABOUT.iter().any(|(known, _)| *known == name)
    });
    assert_eq!(described.count(), capabilities.len(), "each has a description");
    text
}

/// What stands at the start.
const HEAD: &str = "\
# Measurements

What the built-in services measure, capability by capability. This page is written from the
capabilities themselves (`UPDATE_DOCS=1 cargo test -p mplane-probe document`); a running component
shows its own with `mpcli` (`listcap`, `showcap LABEL`). How services are configured stands in
[configuration.md](configuration.md).

Every parameter of a specification has a value. One that allows a single value has it by itself, so
it need not be written: `runcap ping-statistics-ip4` needs `destination.ip4` only. The same
measurement with a choice is a capability of its own, with `custom` in its label.

Delays are monotonic; moments are UTC. Where the kernel stamps packets, delays are from its stamps,
and `timestamp.source` in the metadata of a result says so; `socket.kind` says which kind of socket
was used. Inside, delays are nanoseconds. Lost is not zero: what was not measured has no value (`*`).

Percentiles are those of RFC 2330, section 11.3: the least delay that so many of a hundred do not
exceed, so always one that was measured. The median is the delay in the middle, or the mean of the two
there (RFC 2681). Both are exact up to 65,536 replies; of more, an evenly spaced part of at least
32,768 counts. Reordered is what comes after the reply to a later request (RFC 4737); duplicates, late
and forged replies are no part of that order.
";

/// Writes about a measurement, over IPv4 and perhaps over IPv6.
fn write(
    text: &mut String,
    name: &str,
    about: &str,
    four: &Capability,
    six: Option<&Capability>,
) {
    let label = four.label().expect("ours have labels");
    let and = six.and_then(|it| it.label()).map(|label| format!(" and `{label}`"));
    let registry = match four.registry() {
        CORE => "core",
        TSTAT => "tstat",
        _ => "platform",
    };
    let and = and.unwrap_or_default();
    let privileges = privileges(name);
    let mut put = |line: String| {
        text.push_str(&line);
        text.push('\n');
    };
    put(format!("\n## `{label}`{and}\n\n{about}\n"));
    put(format!("- Temporal scope: `{}`", four.when()));
    put(format!("- Registry: {registry}"));
    put(format!("- Privileges: {privileges}\n"));
    if four.parameters().len() > 0 {
        put("| parameter | allowed | unit | meaning |\n|---|---|---|---|".into());
    }
    for parameter in four.parameters() {
        let element = parameter.element();
        let mut allowed = format!("`{}`", parameter.constraint());
        if element.name().starts_with("source.") {
            allowed = "the address that was configured".into();
        } else if let Some(other) = six.and_then(|it| it.find_parameter(element.name()))
            && other.constraint() != parameter.constraint()
        {
            write!(allowed, ", over IPv6 `{}`", other.constraint()).expect("text");
        }
        let [name, unit, meaning] = cells(element);
        put(format!("| {name} | {allowed} | {unit} | {meaning} |"));
    }
    if four.parameters().len() > 0 {
        put(String::new());
    }
    put("| column | unit | meaning |\n|---|---|---|".into());
    for element in four.columns() {
        put(format!("| {} |", cells(element).join(" | ")));
    }
    if six.is_some() {
        put("\nOver IPv6, names end in `ip6`.".into());
    }
}

/// Returns name, unit and meaning of an element.
fn cells(element: &Element) -> [String; 3] {
    let unit = element.units().unwrap_or_default();
    [format!("`{}`", element.name()), unit, element.description().to_owned()]
}

#[test]
fn the_document_is_that_of_the_capabilities() {
    let path =
        PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../docs/measurements.md");
    let expected = document();
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&path, &expected).expect("the document can be written");
    }
    let found = std::fs::read_to_string(&path).expect("the document is there");
    assert!(
        found == expected,
        "docs/measurements.md is not what the capabilities say; write it anew with \
         UPDATE_DOCS=1 cargo test -p mplane-probe document"
    );
}

#[test]
fn ipv6_measures_what_ipv4_does() {
    let registries = Registries::embedded();
    let capabilities = capabilities(&registries);
    let six = capabilities.iter().filter(|it| it.label().unwrap().ends_with("ip6"));
    assert_eq!(six.clone().count(), 6);
    for capability in six {
        let label = capability.label().unwrap().replace("ip6", "ip4");
        let four = capabilities.iter().find(|it| it.label() == Some(&label));
        let four = four.expect("a measurement over IPv4");
        let names = |it: &Capability| -> Vec<String> {
            let parameters = it.parameters().map(mplane::message::Parameter::element);
            let elements = parameters.chain(it.columns());
            elements.map(|element| element.name().replace("ip6", "ip4")).collect()
        };
        assert_eq!(names(capability), names(four));
    }
}
