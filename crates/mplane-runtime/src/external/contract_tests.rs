//! Lines of services, good and bad.

use mplane::message::Statement;
use proptest::prelude::*;

use super::*;

/// A contract with columns of all types but URL, one of them a parameter too.
fn contract() -> Contract {
    let registries = Registries::embedded();
    let mut statement = Statement::measure("now ... future / 1s".parse().unwrap())
        .parameter(&registries, "destination.ip4", "192.0.2.0/24")
        .unwrap();
    for name in ["time", "destination.ip4", "packets.ip", "cpuload", "source.device"] {
        statement = statement.column(&registries, name).unwrap();
    }
    Contract::new(&Capability::new(statement), &registries)
}

fn read(line: &str) -> Result<Event, String> {
    contract().read(line.as_bytes()).map_err(|error| error.to_string())
}

#[test]
fn rows_come_in_order_or_by_name() {
    let in_order =
        read(r#"{"row": ["2026-11-20 09:42:15.5", "192.0.2.7", 3, 0.25, "probe"]}"#);
    let by_name = read(
        r#"{"row": {"cpuload": 0.25, "packets.ip": 3, "source.device": "probe",
            "destination.ip4": "192.0.2.7", "time": "2026-11-20T09:42:15.5Z"}}"#,
    );
    assert_eq!(in_order, by_name);
    let Ok(Event::Row(row)) = in_order else { panic!("a row: {in_order:?}") };
    let texts: Vec<_> = row.iter().flatten().map(ToString::to_string).collect();
    let time = "2026-11-20 09:42:15.500000";
    assert_eq!(texts, [time, "192.0.2.7", "3", "0.25", "probe"]);
    assert_eq!(read(r#"{"row": [null, null, null, null, "*"]}"#), {
        Ok(Event::Row(vec![None; 5]))
    });
    let integral = read(r#"{"row": [null, null, null, 1, null]}"#).unwrap();
    assert!(
        matches!(integral, Event::Row(row) if row[3] == Some(Value::Real(Real(1.0))))
    );
}

#[test]
fn other_lines_are_progress_logs_metadata_and_the_end() {
    assert_eq!(read(r#"{"progress": 0.5}"#), Ok(Event::Progress(0.5)));
    assert_eq!(read(r#"{"log": "a"}"#), Ok(Event::Log(Level::Info, "a".into())));
    assert_eq!(
        read("{\"level\": \"warn\", \"log\": \"a\"}\r"),
        Ok(Event::Log(Level::Warn, "a".into()))
    );
    let metadata = read(r#"{"metadata": {"measurement.algorithm": "x"}}"#).unwrap();
    assert!(matches!(metadata, Event::Metadata(pairs) if pairs.len() == 1));
    assert_eq!(read(r#"{"done": true}"#), Ok(Event::Done));
    assert_eq!(read(r#"{"failed": "no route"}"#), Ok(Event::Failed("no route".into())));
}

#[test]
fn lines_that_break_the_contract_are_told_what_was_expected() {
    let columns = "time, destination.ip4, packets.ip, cpuload, source.device";
    for (line, problem) in [
        (
            "starting up",
            "expected a JSON object such as {\"row\": [...]}; what is for people goes \
             to standard error"
                .into(),
        ),
        (
            "[null, null, null, null, null, true]",
            "expected a JSON object such as {\"row\": [...]}; what is for people goes \
             to standard error"
                .into(),
        ),
        (
            "{}",
            "expected one of the keys row, progress, log, metadata, done and failed, \
             with a value"
                .into(),
        ),
        (
            r#"{"done": true, "progress": 1}"#,
            "expected one of the keys row, progress, log, metadata, done and failed, \
             with a value"
                .into(),
        ),
        (
            r#"{"rows": []}"#,
            "unknown field `rows`, expected one of `row`, `progress`, `log`, `level`, \
             `metadata`, `done`, `failed`"
                .into(),
        ),
        (
            r#"{"row": [1, 2]}"#,
            format!("expected a value for each of the columns {columns}, found 2 values"),
        ),
        (
            r#"{"row": {"delay": 1}}"#,
            format!("there is no column delay; the columns are {columns}"),
        ),
        (
            r#"{"row": {"time": null}}"#,
            "column destination.ip4 is missing; a value that was lost is null".into(),
        ),
        (
            r#"{"row": {"time": null, "time": null}}"#,
            "column time stands there twice".into(),
        ),
        (
            r#"{"row": [null, null, -1, null, null]}"#,
            "packets.ip: expected an integer from 0 to 18446744073709551615, or null, \
             found -1"
                .into(),
        ),
        (
            r#"{"row": [null, null, 1.5, null, null]}"#,
            "packets.ip: expected an integer from 0 to 18446744073709551615, or null, \
             found 1.5"
                .into(),
        ),
        (
            r#"{"row": [null, null, "1", null, null]}"#,
            "packets.ip: expected an integer from 0 to 18446744073709551615, or null, \
             found \"1\""
                .into(),
        ),
        (
            r#"{"row": ["now", null, null, null, null]}"#,
            "time: expected a time in UTC such as \"2026-11-20 09:42:15.065311\", or \
             null, found \"now\""
                .into(),
        ),
        (
            r#"{"row": [null, "198.51.100.1", null, null, null]}"#,
            "destination.ip4: 198.51.100.1 is not allowed, the capability allows \
             192.0.2.0/24"
                .into(),
        ),
        (r#"{"progress": 1.5}"#, "expected a progress from 0 to 1, found 1.5".into()),
        (r#"{"progress": 0.5, "level": "info"}"#, "level belongs to log only".into()),
        (
            r#"{"done": false}"#,
            "expected {\"done\": true}; a run that failed says {\"failed\": \"why\"}"
                .into(),
        ),
        (
            r#"{"metadata": {"measurement.incomplete": "x"}}"#,
            "metadata: measurement.incomplete is set by the component, not by a \
             service"
                .into(),
        ),
    ] {
        assert_eq!(read(line), Err(problem), "{line}");
    }
}

proptest! {
    #[test]
    fn no_line_makes_the_reader_panic(line in proptest::collection::vec(any::<u8>(), 0..300)) {
        drop(contract().read(&line));
    }

    #[test]
    fn no_object_makes_the_reader_panic(
        key in "row|progress|log|level|metadata|done|failed|x",
        value in "(\\[|\\{|\"[a-z.0-9]*\"|:|,|-?[0-9.e]{1,20}|null|true|\\]|\\}){0,12}",
    ) {
        drop(contract().read(format!("{{\"{key}\": {value}}}").as_bytes()));
    }

    #[test]
    fn naturals_are_exact(natural: u64) {
        let line = format!("{{\"row\": [null, null, {natural}, null, null]}}");
        let row = contract().read(line.as_bytes());
        let natural = Some(Value::Natural(natural));
        prop_assert!(matches!(row, Ok(Event::Row(row)) if row[2] == natural));
    }
}
