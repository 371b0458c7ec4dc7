//! What both benchmark programs measure: results of some sizes.

use mplane::json::{Form, encode};
use mplane::message::{Message, ResultStatement, Statement, Table};
use mplane::primitive::Value;
use mplane::registry::Registries;
use mplane::when::When;

/// The columns of the results: of every type that measurements often have.
const COLUMNS: [&str; 5] =
    ["time", "destination.ip4", "delay.twoway.icmp.us", "hops.ip", "snr"];

/// Returns a result with so many rows of five columns.
pub(crate) fn result(registries: &Registries, rows: usize) -> ResultStatement {
    let mut statement = Statement::measure(
        "2017-12-24 22:18:42 ... 2017-12-25 22:18:42".parse::<When>().expect("a scope"),
    );
    for name in COLUMNS {
        statement = statement.column(registries, name).expect("an element");
    }
    let mut table = Table::new(statement.columns());
    for row in 0..rows {
        let number = row as u64;
        let texts = [
            format!(
                "2017-12-24 {:02}:{:02}:{:02}.{:06}",
                number / 3_600 % 24,
                number / 60 % 60,
                number % 60,
                number * 7_919 % 1_000_000
            ),
            format!("10.{}.{}.{}", number % 7, number / 256 % 256, number % 256),
            (30_000 + number * 31 % 5_000).to_string(),
            (number % 16).to_string(),
            format!("{:?}", (number % 1_000) as f64 / 16.0),
        ];
        let values = statement.columns().zip(&texts).map(|(element, text)| {
            Value::parse(element.primitive(), text).expect("a value")
        });
        table.push(values.collect::<Vec<_>>());
    }
    ResultStatement::new(statement, table)
}

/// Returns a message as bytes.
pub(crate) fn bytes(message: impl Into<Message>, form: Form) -> Vec<u8> {
    encode(&message.into(), form)
}
