//! The mPlane information model, and the exchanges that messages make up.
//!
//! This crate reads no clock, opens nothing and starts nothing: the same input always
//! yields the same output, and `now` is an argument. A value that exists is valid.
//!
//! Reading order: [`primitive`] and [`constraint`] (values), [`registry`] (what they
//! mean), [`when`] (time), [`message`] (what is said), [`token`] (how it is identified),
//! [`json`] (how it is written), [`features`] and [`access`] (who is spoken to),
//! [`exchange`] (who answers what).
//!
//! # A ping, from capability to result
//!
//! A component offers to ping: from one address, to any, with at least one second between
//! echo requests. It says so in a [`Capability`](message::Capability), built from elements
//! of the core registry.
//!
//! ```
//! use mplane::json::{self, Form};
//! use mplane::message::{
//!     Capability, Envelope, Interrupt, Message, Receipt, Redemption, ResultStatement,
//!     Specification, Statement, Table, Withdrawal,
//! };
//! use mplane::primitive::Value;
//! use mplane::registry::Registries;
//! use mplane::when::When;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let now: mplane::Timestamp = "2017-12-24T22:18:00Z".parse()?;
//! let registries = Registries::embedded();
//! let capability = Capability::new(
//!     Statement::measure("now ... future / 1s".parse()?)
//!         .parameter(&registries, "source.ip4", "10.0.27.2")?
//!         .parameter(&registries, "destination.ip4", "*")?
//!         .column(&registries, "delay.twoway.icmp.us.min")?
//!         .column(&registries, "delay.twoway.icmp.us.max")?
//!         .column(&registries, "delay.twoway.icmp.us.mean")?
//!         .column(&registries, "delay.twoway.icmp.count")?
//!         .column(&registries, "packets.lost")?,
//! );
//! let written = json::encode(&capability.clone().into(), Form::FILE);
//! assert_eq!(
//!     String::from_utf8(written.clone())?,
//!     r#"{
//!   "capability": "measure",
//!   "parameters": {
//!     "destination.ip4": "*",
//!     "source.ip4": "10.0.27.2"
//!   },
//!   "registry": "http://ict-mplane.eu/registry/core",
//!   "results": [
//!     "delay.twoway.icmp.us.min",
//!     "delay.twoway.icmp.us.max",
//!     "delay.twoway.icmp.us.mean",
//!     "delay.twoway.icmp.count",
//!     "packets.lost"
//!   ],
//!   "token": "d7e9df75145e209e144bf9c06e7a9d2f",
//!   "version": 1,
//!   "when": "now ... future / 1s"
//! }"#
//! );
//!
//! // The client reads it and makes a specification of it. The source is chosen already,
//! // since there is one only.
//! let Message::Capability(received) = json::decode(&written, &registries)? else {
//!     panic!("a capability was sent");
//! };
//! let mut specification = Specification::of(&received);
//! assert_eq!(
//!     specification.to_string(),
//!     "<specification: measure when now ... future / 1s token e00d7fe8 schema 5ce99352 \
//!      p(v)/m/r 2(1)/0/5>"
//! );
//! assert_eq!(
//!     specification.schema().to_string(),
//!     "5ce99352d17576ad1b7ee5e333091654"
//! );
//! specification.narrow_when("2017-12-24 22:18:42 + 1m / 1s".parse()?, now)?;
//! assert_eq!(specification.missing().collect::<Vec<_>>(), ["destination.ip4"]);
//! specification.set_parameter("destination.ip4", "10.0.37.2")?;
//! specification.fulfills(&capability, now)?;
//! let written = json::encode(&specification.into(), Form::REFERENCE);
//!
//! // The component reads what it is to do,
//! let Message::Specification(specification) = json::decode(&written, &registries)? else {
//!     panic!("a specification was sent");
//! };
//! let destination = specification.value("destination.ip4");
//! assert_eq!(destination.map(ToString::to_string).as_deref(), Some("10.0.37.2"));
//! assert_eq!(specification.when().period(), Some(std::time::Duration::from_secs(1)));
//!
//! // does it and returns a result with the same token,
//! let mut table = Table::new(specification.columns());
//! let row = [33_155, 192_307, 55_166, 58_220, 2];
//! table.push(row.map(|number| Some(Value::Natural(number))));
//! let when: When = "2017-12-24 22:18:42.993 ... 2017-12-24 22:19:42.991".parse()?;
//! let result = ResultStatement::of(&specification, when, table);
//! assert_eq!(result.token(), specification.token());
//! let written = json::encode(&result.into(), Form::REFERENCE);
//! assert!(String::from_utf8(written.clone())?.contains(
//!     r#""resultvalues":[["33155","192307","55166","58220","2"]]"#
//! ));
//!
//! // from which the client reads the values.
//! let Message::Result(result) = json::decode(&written, &registries)? else {
//!     panic!("a result was sent");
//! };
//! assert_eq!(
//!     result.to_string(),
//!     "<result: measure when 2017-12-24 22:18:42.993000 ... 2017-12-24 22:19:42.991000 \
//!      token a19d3b85 schema 5ce99352 p/m/r(r) 2/0/5(1)>"
//! );
//! let fastest = result.table().column("delay.twoway.icmp.us.min").and_then(|c| c.value(0));
//! assert_eq!(fastest, Some(Value::Natural(33_155)));
//!
//! // A component that needs longer promises the result with a receipt, the client redeems
//! // it later, or interrupts the work. All say the same token.
//! let receipt = Receipt::of(&specification);
//! assert_eq!(receipt.to_string(), "<receipt: a19d3b858d0f8fc64f472f649d990751>");
//! let mut redemption = Redemption::of_receipt(&receipt);
//! redemption.drop_statement();
//! assert_eq!(
//!     String::from_utf8(json::encode(&redemption.into(), Form::REFERENCE))?,
//!     r#"{"redemption":"measure","token":"a19d3b858d0f8fc64f472f649d990751","version":1}"#
//! );
//! let interrupt = Interrupt::of(&specification);
//! assert_eq!(interrupt.token(), receipt.token());
//!
//! // What it cannot do any more, a component withdraws.
//! let withdrawal = Withdrawal::of(&capability);
//! assert_eq!(withdrawal.token().as_str(), "d7e9df75145e209e144bf9c06e7a9d2f");
//!
//! // Messages travel together in an envelope.
//! let mean_only = Capability::new(
//!     Statement::measure("now ... future / 1s".parse()?)
//!         .parameter(&registries, "source.ip4", "10.0.27.2")?
//!         .parameter(&registries, "destination.ip4", "*")?
//!         .column(&registries, "delay.twoway.icmp.us.mean")?,
//! );
//! let envelope = Envelope::of(vec![capability.into(), mean_only.into()]);
//! assert_eq!(
//!     envelope.to_string(),
//!     "<envelope: message (2): \
//!      <capability: measure when now ... future / 1s token d7e9df75 schema 5ce99352 \
//!      p/m/r 2/0/5> \
//!      <capability: measure when now ... future / 1s token a9ec7fce schema ea37cea5 \
//!      p/m/r 2/0/1>>"
//! );
//! let written = json::encode(&envelope.into(), Form::REFERENCE);
//! let Message::Envelope(envelope) = json::decode(&written, &registries)? else {
//!     panic!("an envelope was sent");
//! };
//! assert_eq!(envelope.len(), 2);
//! # Ok(())
//! # }
//! ```
//!
//! # What it does not do
//!
//! It knows no transport, no certificates and no storage; it never fetches a registry that
//! a message names.

pub mod access;
pub mod address;
pub mod constraint;
pub mod exchange;
pub mod features;
pub mod json;
pub mod limits;
pub mod message;
pub mod primitive;
pub mod registry;
pub mod token;
pub mod when;

pub use jiff::Timestamp;
