//! Tests of building messages and asking them.

use jiff::Timestamp;

use super::*;
use crate::primitive::Value;
use crate::registry::Registries;
use crate::when::When;

/// Returns noon on 1 June 2015.
fn noon() -> Timestamp {
    "2015-06-01T12:00:00Z".parse().unwrap()
}

fn scope(text: &str) -> When {
    text.parse().unwrap()
}

/// Returns a capability to ping several targets, once a second at most.
fn ping() -> Capability {
    let registries = Registries::embedded();
    let statement = Statement::measure(scope("now ... future / 1s"))
        .labelled("ping")
        .parameter(&registries, "source.ip4", "10.0.0.1")
        .and_then(|s| s.parameter(&registries, "destination.ip4", "[10.0.0.0/8]"))
        .and_then(|s| s.parameter(&registries, "source.port", "1 ... 9"))
        .and_then(|s| s.metavalue(&registries, "measurement.identifier", "m 1"))
        .and_then(|s| s.column(&registries, "time"))
        .and_then(|s| s.column(&registries, "delay.twoway.icmp.us"))
        .unwrap();
    Capability::new(statement)
}

#[test]
fn specifications_are_filled_in_and_checked() {
    let capability = ping();
    let mut specification = Specification::of(&capability);
    assert_eq!(
        specification.missing().collect::<Vec<_>>(),
        ["destination.ip4", "source.port"]
    );
    specification.set_parameter("destination.ip4", "10.0.0.2 10.0.0.3").unwrap();
    let targets = specification.value("destination.ip4").unwrap();
    assert_eq!(targets.members().len(), 2);
    specification.set_value("source.port", Some(Value::Natural(7))).unwrap();
    specification.set_parameter("source.port", "*").unwrap();
    assert_eq!(specification.value("source.port"), None);
    assert_eq!(
        specification.fulfills(&capability, noon()).unwrap_err().to_string(),
        "parameter source.port has no value"
    );
    specification.set_parameter("source.port", "8").unwrap();
    specification.fulfills(&capability, noon()).unwrap();
    assert!(specification.is_schedulable());
    let error = |name: &str, text: &str| {
        let mut specification = specification.clone();
        specification.set_parameter(name, text).unwrap_err().to_string()
    };
    assert_eq!(
        error("port", "8"),
        "there is no parameter port; the parameters are source.ip4, destination.ip4, \
         source.port"
    );
    assert_eq!(
        error("source.port", "10"),
        "parameter source.port cannot be \"10\": allowed is 1 ... 9"
    );
    assert_eq!(
        error("source.port", "x"),
        "parameter source.port: \"x\" is not of type natural: expected an integer that \
         is not negative, such as 42"
    );
    let text = Some(Value::String("7".into()));
    assert!(specification.set_value("source.port", text).is_err());
}

#[test]
fn statements_are_built_of_known_elements_once_each() {
    let registries = Registries::embedded();
    let statement = || Statement::measure(When::now());
    let error = |built: Result<Statement, BuildError>| built.unwrap_err().to_string();
    assert_eq!(
        error(statement().column(&registries, "no.such")),
        "no element is called \"no.such\" in any known registry; preload the registry \
         that defines it"
    );
    assert_eq!(
        error(statement().parameter(&registries, "source.port", "1 ... x")),
        "parameter source.port: an end of a range: \"x\" is not of type natural: expected \
         an integer that is not negative, such as 42"
    );
    let once = statement().parameter(&registries, "time", "*").unwrap();
    assert_eq!(
        error(once.parameter(&registries, "time", "*")),
        "\"time\" is there already"
    );
}

#[test]
fn temporal_scopes_narrow_but_do_not_widen() {
    let mut specification = Specification::of(&ping());
    specification.narrow_when(scope("now + 1h / 2s"), noon()).unwrap();
    assert_eq!(
        specification
            .narrow_when(scope("now + 2h / 2s"), noon())
            .unwrap_err()
            .to_string(),
        "temporal scope now + 2h / 2s does not lie within now + 1h / 2s, or its period is \
         shorter"
    );
    specification.set_when(scope("now + 2h / 2s"));
    assert_eq!(specification.when(), &scope("now + 2h / 2s"));
}

#[test]
fn a_repeated_specification_stands_for_several_with_its_token() {
    let mut specification = Specification::of(&ping());
    assert!(specification.occurrences(noon()).is_none());
    specification.set_when(scope("repeat now + 2h / 1h { now + 5m / 1s }"));
    let occurrences: Vec<_> = specification.occurrences(noon()).unwrap().collect();
    let scopes: Vec<_> =
        occurrences.iter().map(|occurrence| occurrence.when().to_string()).collect();
    assert_eq!(
        scopes,
        [
            "2015-06-01 12:00:00.000000 + 5m / 1s",
            "2015-06-01 13:00:00.000000 + 5m / 1s",
            "2015-06-01 14:00:00.000000 + 5m / 1s",
        ]
    );
    assert!(occurrences.iter().all(|one| one.token() == specification.token()));
}

#[test]
fn clients_of_the_reference_sign_indefinite_scopes_with_the_time() {
    let mut specification = Specification::of(&ping());
    let early = specification.reference_client_token(noon()).unwrap();
    let later = noon() + jiff::SignedDuration::from_micros(1_500_000);
    assert_ne!(specification.reference_client_token(later).unwrap(), early);
    specification.set_when(scope("2015-06-01 + 1h / 1s"));
    assert_eq!(specification.reference_client_token(noon()), None);
}

#[test]
fn result_cells_are_set_by_name_and_row() {
    let specification = Specification::of(&ping());
    let table = Table::new(specification.columns());
    let mut result = ResultStatement::of(&specification, When::at(noon()), table);
    assert_eq!(result.token(), specification.token());
    let delay = Some(Value::Natural(42));
    let table = result.table_mut();
    table.set("delay.twoway.icmp.us", 1, delay.clone()).unwrap();
    assert_eq!(table.rows(), 2);
    let last = table.iter().last().unwrap();
    assert_eq!(last.value("delay.twoway.icmp.us"), delay);
    let entries: Vec<_> = last.entries().map(|(e, v)| (e.name(), v.is_some())).collect();
    assert_eq!(entries, [("time", false), ("delay.twoway.icmp.us", true)]);
    assert_eq!(
        table.set("time", 2, delay.clone()).unwrap_err().to_string(),
        "result column \"time\" takes values of type time"
    );
    assert_eq!(
        table.set("port", 0, delay.clone()).unwrap_err().to_string(),
        "there is no result column \"port\""
    );
    assert!(table.set("time", usize::MAX, None).is_err());
    assert_eq!(table.rows(), 2);
    table.clear();
    assert_eq!((table.rows(), table.iter().count()), (0, 0));
}

#[test]
fn envelopes_keep_the_last_messages() {
    let exception = |text: &str| Message::from(Exception::new(None, text));
    let mut envelope = Envelope::of(vec![exception("1"), exception("2")]);
    envelope.push(Exception::new(None, "3"));
    envelope.keep_last(2);
    let texts: Vec<_> = envelope.messages().iter().map(ToString::to_string).collect();
    assert_eq!(texts, ["<Exception: none 2>", "<Exception: none 3>"]);
    envelope.keep_last(0);
    assert!(envelope.is_empty());
    assert_eq!(envelope.len(), 0);
}

#[test]
fn indirections_say_what_was_asked_and_who_does_it() {
    let mut specification = Specification::of(&ping());
    specification.set_parameter("source.port", "8").unwrap();
    let indirection = Indirection::of(&specification, "https://b.example:8889/");
    assert_eq!(indirection.link(), Some("https://b.example:8889/"));
    assert_eq!(indirection.token(), specification.token());
    let port = indirection.find_parameter("source.port").unwrap();
    assert_eq!((port.value(), port.constraint().to_string()), (None, "8".to_owned()));
    assert_eq!(Message::from(indirection).kind(), Kind::Indirection);
}

#[test]
fn messages_render_as_aligned_text() {
    let specification = Specification::of(&ping());
    let mut table = Table::new(specification.columns());
    let time = Some(Value::Time("2015-06-01".parse().unwrap()));
    table.push([time.clone(), Some(Value::Natural(1_234))]);
    table.push([time, None]);
    let result = ResultStatement::of(&specification, When::at(noon()), table);
    let mut envelope = Envelope::of(vec![result.into()]);
    envelope.push(Exception::new(None, "two\nlines"));
    assert_eq!(
        Message::from(envelope).render(),
        "envelope: message (2)\n  \
           result: measure\n    \
             token     0ff56160eace38fbb930d319b6d9a08e\n    \
             label     ping\n    \
             schema    5f9b8ee83543e8e5a88c1dfd185befb3\n    \
             when      2015-06-01 12:00:00.000000\n    \
             registry  http://ict-mplane.eu/registry/core\n    \
             parameters\n      \
               source.ip4       10.0.0.1\n      \
               destination.ip4  *\n      \
               source.port      *\n    \
             metadata\n      \
               measurement.identifier  m 1\n    \
             results\n      \
               time                  time\n      \
               delay.twoway.icmp.us  natural\n    \
             time                        delay.twoway.icmp.us\n    \
             2015-06-01 00:00:00.000000                  1234\n    \
             2015-06-01 00:00:00.000000                     *\n  \
           exception\n    \
             message  two\\nlines\n"
    );
}
