//! `mplane check`: says what files contain.

use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use clap::Args;
use mplane::json::{DecodeError, Form, Place, decode, encode};
use mplane::limits;
use mplane::message::Message;
use mplane::registry::{Registries, Registry};
use serde_json::{Value, json};

use super::{Format, ReadInputError};
use crate::output::Output;
use crate::programs::{Config, load_external};
use crate::{Failure, Told};

/// The arguments of `mplane check`.
#[derive(Args, Clone, Debug)]
pub struct CheckArgs {
    /// Files with a message (JSON or YAML), a registry (JSON) or a configuration (TOML, or
    /// the reference implementation's JSON and INI); - reads standard input, also a JSON
    /// message on each line
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Registry files to know, each after those that it includes
    #[arg(long = "registry", value_name = "FILE")]
    registries: Vec<PathBuf>,
    /// How to print
    #[arg(short, long, value_name = "FORMAT", default_value = "text")]
    output: Format,
}

/// What an input contains.
enum Content {
    Message(Box<Message>),
    Registry(Registry),
    /// A configuration, and what in it has no meaning.
    Configuration(Vec<String>),
}

/// Why an input is refused: the place, if it is known, and what is wrong there.
struct Refused {
    at: Value,
    message: String,
}

impl CheckArgs {
    /// Checks every input. Fails if any is refused.
    pub fn run(self, output: &mut Output) -> Result<(), Failure> {
        let config =
            mplane_runtime::config::RegistriesConfig { preload: self.registries.clone() };
        let registries = config.load()?;
        let mut refused = 0;
        for file in &self.files {
            if file.as_os_str() == "-" {
                for (index, input) in standard_input()?.iter().enumerate() {
                    let content = recognize(input, Path::new(""), &registries);
                    let name = format!("line {}", index + 1);
                    refused += u64::from(!self.tell(&name, content, output));
                }
            } else {
                let content = match fs::read(file) {
                    Ok(input) => recognize(&input, file, &registries),
                    Err(error) => Err(Refused {
                        at: Value::Null,
                        message: format!("cannot read {}: {error}", file.display()),
                    }),
                };
                let name = file.display().to_string();
                refused += u64::from(!self.tell(&name, content, output));
            }
        }
        if refused == 0 {
            Ok(())
        } else {
            Err(Told(format!("{refused} of the inputs are refused")).into())
        }
    }

    /// Tells what an input contains; says whether it was understood.
    fn tell(
        &self,
        name: &str,
        content: Result<Content, Refused>,
        output: &mut Output,
    ) -> bool {
        let is_understood = content.is_ok();
        match (content, self.output) {
            (Ok(content), Format::Json) => output.line(as_json(&content)),
            (Ok(content), Format::Text) => {
                output.line(format_args!("{name}: {}", as_text(&content)));
            }
            (Err(refused), Format::Json) => output.line(json!({
                "error": {"at": refused.at, "message": refused.message}
            })),
            (Err(refused), Format::Text) => {
                let place = match refused.at {
                    Value::Null => String::new(),
                    Value::String(pointer) => format!("at {pointer}: "),
                    byte => format!("at byte {byte}: "),
                };
                output.note(format_args!("{name}: {place}{}", refused.message));
            }
        }
        is_understood
    }
}

/// Reads standard input: one input, or one on each line.
fn standard_input() -> Result<Vec<Vec<u8>>, ReadInputError> {
    let mut all = Vec::new();
    io::stdin().read_to_end(&mut all).map_err(ReadInputError)?;
    Ok(inputs(all))
}

/// Tells one input from one on each line. What is one JSON value is one input, and what
/// begins with a lone bracket is meant to be; all else is one on each line.
fn inputs(all: Vec<u8>) -> Vec<Vec<u8>> {
    let lines: Vec<&[u8]> = all
        .split(|byte| *byte == b'\n')
        .map(<[u8]>::trim_ascii)
        .filter(|line| !line.is_empty())
        .collect();
    let is_json = || serde_json::from_slice::<serde::de::IgnoredAny>(&all).is_ok();
    let is_layered = matches!(lines.first(), Some(&(b"{" | b"[")));
    if lines.len() < 2 || is_layered || is_json() {
        vec![all]
    } else {
        lines.into_iter().map(<[u8]>::to_vec).collect()
    }
}

/// Finds out what an input contains: by its name if that says, else by its content.
fn recognize(
    input: &[u8],
    path: &Path,
    registries: &Registries,
) -> Result<Content, Refused> {
    let extension = path.extension().and_then(|extension| extension.to_str());
    match extension {
        Some("toml" | "conf" | "ini" | "cfg") => return configuration(path),
        Some("yaml" | "yml") => {
            let json = yaml_to_json(input)?;
            return json_content(&json, registries);
        }
        _ if is_configuration(input) => return configuration(path),
        _ => {}
    }
    json_content(input, registries)
}

/// Says whether JSON is a configuration of the reference: messages and registries have none
/// of its sections.
fn is_configuration(input: &[u8]) -> bool {
    /// The sections, each of which tells it.
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Sections {
        #[serde(rename = "TLS")]
        tls: Option<serde::de::IgnoredAny>,
        client: Option<serde::de::IgnoredAny>,
        component: Option<serde::de::IgnoredAny>,
        supervisor: Option<serde::de::IgnoredAny>,
    }
    serde_json::from_slice(input).is_ok_and(|found: Sections| {
        let sections = [found.tls, found.client, found.component, found.supervisor];
        sections.iter().any(Option::is_some)
    })
}

/// Reads a registry or a message.
fn json_content(input: &[u8], registries: &Registries) -> Result<Content, Refused> {
    /// What tells a registry from a message.
    #[derive(serde::Deserialize)]
    struct Marked {
        #[serde(rename = "registry-format")]
        _format: serde::de::IgnoredAny,
    }
    if input.len() <= limits::REGISTRY_BYTES
        && serde_json::from_slice::<Marked>(input).is_ok()
    {
        return Registry::parse(input, registries).map(Content::Registry).map_err(
            |error| Refused { at: Value::Null, message: mplane_runtime::report(&error) },
        );
    }
    decode(input, registries).map(|message| Content::Message(Box::new(message))).map_err(
        |error| Refused { at: place(&error, input), message: error.problem().to_owned() },
    )
}

/// Returns where a problem is: a byte offset, or a JSON pointer.
fn place(error: &DecodeError, input: &[u8]) -> Value {
    match error.place() {
        Place::Byte(byte) => (*byte).into(),
        Place::Pointer(pointer) => pointer.clone().into(),
        Place::Line { line, column } => {
            let before: usize = input
                .split_inclusive(|byte| *byte == b'\n')
                .take(line.saturating_sub(1))
                .map(<[u8]>::len)
                .sum();
            (before + column.saturating_sub(1)).into()
        }
    }
}

/// Reads YAML as the JSON that it stands for.
fn yaml_to_json(input: &[u8]) -> Result<Vec<u8>, Refused> {
    if input.len() > limits::MESSAGE_BYTES {
        return Err(Refused {
            at: limits::MESSAGE_BYTES.into(),
            message: format!("a message has at most {} bytes", limits::MESSAGE_BYTES),
        });
    }
    let value: Value = yaml_serde::from_slice(input).map_err(|error| Refused {
        at: error.location().map_or(Value::Null, |place| place.index().into()),
        message: error.to_string(),
    })?;
    Ok(value.to_string().into_bytes())
}

/// Reads a configuration, and the files that it names.
fn configuration(path: &Path) -> Result<Content, Refused> {
    let refused = |error: &dyn std::error::Error| Refused {
        at: Value::Null,
        message: mplane_runtime::report(error),
    };
    let config = Config::load(path).map_err(|error| refused(&error))?;
    config.credentials().map_err(|error| refused(&error))?;
    let registries = config.registries.load().map_err(|error| refused(&error))?;
    if let Some(section) = &config.component {
        load_external(section, &registries).map_err(|error| refused(&error))?;
    }
    Ok(Content::Configuration(config.notes))
}

/// Tells content as a JSON object. Keys that do not apply are null.
fn as_json(content: &Content) -> Value {
    match content {
        Content::Configuration(_) => json!({
            "kind": "configuration", "verb": null, "label": null, "schema": null,
            "token": null, "canonical": null,
        }),
        Content::Registry(registry) => json!({
            "kind": "registry", "verb": null, "label": registry.uri(), "schema": null,
            "token": null, "canonical": null,
        }),
        Content::Message(message) => json!({
            "kind": message.kind().key(),
            "verb": message.verb(),
            "label": message.label(),
            "schema": schema(message),
            "token": message.token().map(|token| token.to_string()),
            "canonical": canonical(message, Form::NATIVE),
        }),
    }
}

/// Returns the message written by us, as JSON.
fn canonical(message: &Message, form: Form) -> Value {
    serde_json::from_slice(&encode(message, form)).unwrap_or_default()
}

/// Tells content in lines.
fn as_text(content: &Content) -> String {
    match content {
        Content::Configuration(notes) => {
            let notes = notes.iter().map(|note| format!("\n  {note}"));
            format!(
                "configuration, and the files that it names{}",
                notes.collect::<String>()
            )
        }
        Content::Registry(registry) => format!(
            "registry {} revision {}, {} elements",
            registry.uri(),
            registry.revision(),
            registry.elements().len()
        ),
        Content::Message(message) => {
            let line = |name: &str, value: Option<String>| {
                value.map_or_else(String::new, |value| format!("\n  {name}: {value}"))
            };
            format!(
                "{}{}{}{}{}\n{}",
                message.kind(),
                line("verb  ", message.verb().map(ToOwned::to_owned)),
                line("label ", message.label().map(ToOwned::to_owned)),
                line("schema", schema(message)),
                line("token ", message.token().map(|token| token.to_string())),
                String::from_utf8_lossy(&encode(message, Form::FILE)),
            )
        }
    }
}

/// Returns the schema hash, if the message has a schema.
fn schema(message: &Message) -> Option<String> {
    message.statement().map(|statement| statement.schema().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Tells what an input contains, as `-o json` does.
    fn told(input: &str, path: &str) -> Value {
        match recognize(input.as_bytes(), Path::new(path), &Registries::embedded()) {
            Ok(content) => as_json(&content),
            Err(refused) => json!({"at": refused.at, "message": refused.message}),
        }
    }

    const CAPABILITY: &str = r#"{"capability": "measure", "version": 1, "label": "ping",
        "registry": "http://ict-mplane.eu/registry/core", "when": "now ... future / 1s",
        "parameters": {"source.ip4": "127.0.0.1", "destination.ip4": "*"},
        "results": ["time", "delay.twoway.icmp.us"]}"#;

    #[test]
    fn tells_kind_schema_token_and_canonical_form_of_a_message() {
        let told = told(CAPABILITY, "");
        assert_eq!(told["kind"], "capability");
        assert_eq!(told["verb"], "measure");
        assert_eq!(told["label"], "ping");
        assert_eq!(told["schema"], "db8ef547ed26bf93839cbb245e4c6040");
        assert_eq!(told["token"], "0cb9cff17300728cbd2b925332c9fe79");
        assert_eq!(told["canonical"]["parameters"]["destination.ip4"], "*");
    }

    #[test]
    fn reads_yaml_and_registries() {
        let yaml = "capability: measure\nwhen: now\nresults: [packets.lost]\n";
        assert_eq!(told(yaml, "a.yaml")["kind"], "capability");
        let registry = include_str!("../../../../registry/core.json");
        assert_eq!(told(registry, "")["kind"], "registry");
    }

    #[test]
    fn configurations_of_the_reference_are_told_from_messages() {
        assert!(is_configuration(br#"{"TLS": {}, "Component": {}}"#));
        assert!(is_configuration(br#"{"Client": {}}"#), "it lacks TLS, which is told");
        assert!(!is_configuration(CAPABILITY.as_bytes()));
        assert!(!is_configuration(include_bytes!("../../../../registry/core.json")));
    }

    #[test]
    fn refusals_name_a_byte_or_a_pointer() {
        assert_eq!(told("{\n\"capability\": }", "")["at"], 16);
        let refused = told(r#"{"capability": "measure", "when": "tomorrow"}"#, "");
        assert_eq!(refused["at"], "/when");
        assert_eq!(told("\u{0}", "")["at"], 0);
    }

    #[test]
    fn lines_are_inputs_unless_they_are_one_together() {
        let count = |text: &str| inputs(text.as_bytes().to_vec()).len();
        assert_eq!(count(CAPABILITY), 1, "one message on several lines");
        assert_eq!(count("{\"a\": 1}\nrubbish\n\n{\"b\": 2}\n"), 3);
        assert_eq!(count("null\n[]\n{a}\n"), 3);
        assert_eq!(count("{\n\"capability\": \n}\n"), 1, "meant to be one");
    }
}
