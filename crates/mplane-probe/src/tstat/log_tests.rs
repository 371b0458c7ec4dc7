//! Headers and lines, good and bad.

use mplane::registry::{Registries, TSTAT};
use proptest::prelude::*;

use super::*;
use crate::tstat::Set;
use crate::tstat::samples::{NAMES, header, line};

/// Returns the columns of a set with their types.
fn columns(set: Set) -> Vec<(Column, Primitive)> {
    let registries = Registries::embedded();
    let primitive = |name| registries.element(TSTAT, name).unwrap().primitive();
    set.columns().iter().map(|column| (*column, primitive(column.element))).collect()
}

/// Returns the texts of the values of a flow, by element; those without value are `*`.
fn read(set: Set, header: &str, line: &str) -> Vec<(&'static str, String)> {
    let columns = columns(set);
    let layout = Layout::parse(header.as_bytes(), &columns).unwrap();
    let flow = layout.read(line.as_bytes()).unwrap();
    assert!(flow.is_readable, "{flow:?}");
    let texts = flow.row.iter().map(|value| match value {
        Some(value) => value.to_string(),
        None => "*".to_owned(),
    });
    columns.iter().map(|(column, _)| column.element).zip(texts).collect()
}

/// Returns the text of one element.
#[track_caller]
fn cell<'a>(cells: &'a [(&'static str, String)], element: &str) -> &'a str {
    let mut found = cells.iter().filter(|(name, _)| *name == element);
    &found.next().unwrap_or_else(|| panic!("no {element}")).1
}

#[test]
fn every_column_of_every_set_has_its_place_in_a_full_log() {
    assert_eq!(NAMES.len(), 130);
    for set in Set::ALL {
        let layout = Layout::parse(header().as_bytes(), &columns(set)).unwrap();
        assert!(layout.cells.iter().all(Option::is_some), "{set:?}: {layout:?}");
        let mut fields: Vec<_> = layout.cells.iter().flatten().map(|it| it.0).collect();
        fields.sort_unstable();
        fields.dedup();
        assert_eq!(fields.len(), set.columns().len(), "{set:?}: each has its own");
    }
}

#[test]
fn values_have_the_types_of_their_elements() {
    let line = line(&[
        ("c_ip", "192.0.2.1"),
        ("c_port", "50123"),
        ("c_pkts_all", "21"),
        ("first", "1764370800000.25"),
        ("last", "1764370801500.123456"),
        ("durat", "1499.873"),
        ("c_isint", "1"),
        ("s_isint", "0"),
        ("con_t", "8192"),
        ("c_syn_retx", "0"),
        ("s_syn_retx", "1"),
        ("c_rtt_avg", "10.5"),
        ("s_rtt_avg", "0.125"),
        ("s_ttl_min", "57"),
        ("c_tls_SNI", "host.example"),
        ("p2p_st", "3"),
    ]);
    let core = read(Set::Core, &header(), &line);
    for (element, text) in [
        ("initiator.ip4", "192.0.2.1"),
        ("initiator.port", "50123"),
        ("packets.forward", "21"),
        ("start", "2025-11-28 23:00:00.000250"),
        ("end", "2025-11-28 23:00:01.500123"),
        ("duration.ms", "1499.873"),
        ("initiator.ip4.isinternal", "True"),
        ("responder.ip4.isinternal", "False"),
        ("tstat.flow.class.conn", "8192"),
    ] {
        assert_eq!(cell(&core, element), text, "{element}");
    }
    let options = read(Set::TcpOptions, &header(), &line);
    assert_eq!(cell(&options, "initiator.SYN.equal_seqno"), "True");
    assert_eq!(cell(&options, "responder.SYN.equal_seqno"), "False");
    let times = read(Set::EndToEnd, &header(), &line);
    assert_eq!(cell(&times, "rtt.average.ms"), "10.5");
    assert_eq!(cell(&times, "responder.rtt.average.ms"), "0.125");
    assert_eq!(cell(&times, "responder.ttl.min"), "57");
    let layer7 = read(Set::Layer7, &header(), &line);
    assert_eq!(cell(&layer7, "ssl.hello.client"), "host.example");
    assert_eq!(cell(&read(Set::P2pStats, &header(), &line), "p2p.subtype"), "3");
}

#[test]
fn the_header_says_where_a_value_stands() {
    // Other sets, in another order, and a name of an older release.
    let header = "#0A#last:1 c_ssl_SNI:2 c_port:3 odd.name:4\n";
    let line = "1764370801500.5 host.example 443 x\r\n";
    let layer7 = read(Set::Layer7, header, line);
    assert_eq!(cell(&layer7, "ssl.hello.client"), "host.example");
    assert_eq!(cell(&layer7, "ssl.hello.server"), "*");
    let core = read(Set::Core, header, line);
    assert_eq!(cell(&core, "initiator.port"), "443");
    assert_eq!(cell(&core, "initiator.ip4"), "*");
}

#[test]
fn empty_fields_and_dashes_are_no_values() {
    let header = "#15#c_ip:1 c_port:2 s_ip:3 s_port:4 last:5 con_t:6\n";
    let core = read(Set::Core, header, "-  --- - 5 1\n");
    for element in ["initiator.ip4", "initiator.port", "responder.ip4", "responder.port"]
    {
        assert_eq!(cell(&core, element), "*", "{element}");
    }
    assert_eq!(cell(&core, "tstat.flow.class.conn"), "1");
    assert_eq!(cell(&core, "end"), "1970-01-01 00:00:00.005000");
    // A blank at the end is no field more.
    assert_eq!(read(Set::Core, header, "-  --- - 5 1 \n"), core);
}

#[test]
fn a_field_that_is_not_of_its_type_has_no_value_and_is_told() {
    let header = b"#15#c_ip:1 c_port:2 c_isint:3 durat:4 last:5";
    let layout = Layout::parse(header, &columns(Set::Core)).unwrap();
    for line in [
        "2001:db8::1 1 1 1 5",
        "192.0.2.1 -1 1 1 5",
        "192.0.2.1 1 2 1 5",
        "192.0.2.1 1 1 1,5 5",
    ] {
        let flow = layout.read(line.as_bytes()).unwrap();
        assert!(!flow.is_readable, "{line}");
        let values = flow.row.iter().flatten().count();
        assert_eq!(values, 4, "the others are there: {line}");
    }
}

#[test]
fn what_is_no_header_and_no_line_is_refused() {
    let core = columns(Set::Core);
    let parse = |header: &str| Layout::parse(header.as_bytes(), &core);
    let many: Vec<_> = (1..=1_025).map(|at| format!("n:{at}")).collect();
    for (header, problem) in [
        ("", LineProblem::Header),
        ("c_ip:1 last:2", LineProblem::Header),
        ("#15#c_ip c_port", LineProblem::Header),
        ("#15#last:x", LineProblem::Header),
        ("#15#last:0", LineProblem::Fields),
        ("#15#last:1025", LineProblem::Fields),
        ("#15#", LineProblem::NoEnd),
        ("#15#c_ip:1", LineProblem::NoEnd),
    ] {
        assert_eq!(parse(header), Err(problem), "{header:?}");
    }
    assert_eq!(parse(&format!("#15#{}", many.join(" "))), Err(LineProblem::Fields));
    parse(&format!("#15#last:1 {}", many[1..1_024].join(" "))).unwrap();
    let layout = parse("#15#c_ip:1 last:2").unwrap();
    for (line, problem) in [
        ("", LineProblem::Count { found: 1, expected: 2 }),
        ("192.0.2.1", LineProblem::Count { found: 1, expected: 2 }),
        ("192.0.2.1 5 6", LineProblem::Count { found: 3, expected: 2 }),
        ("192.0.2.1 ", LineProblem::End),
        ("192.0.2.1 -5", LineProblem::End),
        ("192.0.2.1 5.5.5", LineProblem::End),
        ("192.0.2.1 1e9", LineProblem::End),
        ("192.0.2.1 99999999999999999999", LineProblem::End),
    ] {
        assert_eq!(layout.read(line.as_bytes()), Err(problem), "{line:?}");
    }
}

proptest! {
    #[test]
    fn no_header_and_no_line_makes_the_reader_panic(
        header in "#?([0-9]{0,2}#)?((c_ip|c_port|last|c_isint|first|durat)?:?[0-9]{0,3} ?){0,8}",
        line in proptest::collection::vec(any::<u8>(), 0..80),
        fields in "([0-9]{0,4}[.-]?[0-9]{0,25} ?){0,8}",
    ) {
        for set in Set::ALL {
            if let Ok(layout) = Layout::parse(header.as_bytes(), &columns(set)) {
                drop(layout.read(&line));
                drop(layout.read(fields.as_bytes()));
            }
            drop(Layout::parse(&line, &columns(set)));
        }
    }
}
