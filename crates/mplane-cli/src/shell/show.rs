//! What the shell shows: capabilities, measurements and results as text.

use std::fmt::Write as _;

use mplane::exchange::client::{Measurement, MeasurementState};
use mplane::message::{Capability, Message, ResultStatement};
use mplane::primitive::NO_VALUE;

use crate::output::{Output, table};
use crate::{Failure, Told};

/// Shows all of a capability.
pub(super) fn describe(capability: &Capability, peer: &str) -> String {
    let mut text = format!(
        "capability: {}\nlabel     : {}\ntoken     : {}\nschema    : {}\nregistry  : {}\n\
         when      : {}\noffered by: {peer}",
        capability.verb(),
        capability.label().unwrap_or("(none)"),
        capability.token(),
        capability.schema(),
        capability.registry(),
        capability.when(),
    );
    let mut entry = |section: &str, name: &str, value: &str, about: &str| {
        write!(text, "\n{section:<10}: {name} = {value}  ({about})")
            .expect("writing to text does not fail");
    };
    for parameter in capability.parameters() {
        let element = parameter.element();
        let constraint = parameter.constraint().to_string();
        entry("parameter", element.name(), &constraint, element.description());
    }
    for (element, value) in capability.metadata() {
        let value = value.map_or_else(|| NO_VALUE.to_owned(), ToString::to_string);
        entry("metadata", element.name(), &value, element.description());
    }
    for element in capability.columns() {
        let primitive = element.primitive().name();
        entry("result", element.name(), primitive, element.description());
    }
    text
}

/// Says in a line what has come of a measurement.
pub(super) fn summary(measurement: &Measurement) -> String {
    let label = measurement.specification.label().unwrap_or("(no label)");
    let token = measurement.specification.token();
    let state = match &measurement.state {
        MeasurementState::Sent => "Sent    ",
        MeasurementState::Promised(_) => "Receipt ",
        MeasurementState::Result(_) | MeasurementState::Results(_) => "Result  ",
        MeasurementState::Failed(_) => "Failed  ",
    };
    format!("{state}{label} (token {token}): {}", measurement.specification.when())
}

/// Says, behind what is waited for, how much of it is outstanding; nothing if nobody says so.
pub(super) fn outstanding(measurement: &Measurement) -> String {
    let told = match &measurement.state {
        MeasurementState::Promised(receipt) => receipt.statement(),
        _ => None,
    };
    let told = told.and_then(|told| told.find_metadata("measurement.incomplete"));
    told.map_or_else(String::new, |told| format!(": {told}"))
}

/// Shows what has come of a measurement. A failed one is a failure of the command.
pub(super) fn show(
    measurement: &Measurement,
    output: &mut Output,
) -> Result<(), Failure> {
    match &measurement.state {
        MeasurementState::Failed(exception) => {
            return Err(Told(exception.message().to_owned()).into());
        }
        MeasurementState::Result(result) => show_result(result, output),
        MeasurementState::Results(envelope) => {
            for message in envelope.messages() {
                if let Message::Result(result) = message {
                    show_result(result, output);
                }
            }
        }
        MeasurementState::Sent | MeasurementState::Promised(_) => {
            output.line(summary(measurement));
        }
    }
    Ok(())
}

/// Shows a result: its scope and metadata, and the rows as a table.
pub fn show_result(result: &ResultStatement, output: &mut Output) {
    output.note(format_args!(
        "{}: {}",
        result.label().unwrap_or("result"),
        result.when()
    ));
    for (element, value) in result.metadata() {
        if let Some(value) = value {
            output.note(format_args!("{element}: {value}"));
        }
    }
    output.line(rows(result));
}

/// Lays the rows of a result out as a table; a cell without value shows `*`.
pub fn rows(result: &ResultStatement) -> String {
    let header: Vec<_> =
        result.table().columns().iter().map(|column| column.element().name()).collect();
    let rows: Vec<Vec<String>> = result
        .table()
        .iter()
        .map(|row| {
            let text = |value: Option<mplane::primitive::Value>| {
                value.map_or_else(|| NO_VALUE.to_owned(), |value| value.to_string())
            };
            row.values().map(text).collect()
        })
        .collect();
    table(&header, rows)
}
