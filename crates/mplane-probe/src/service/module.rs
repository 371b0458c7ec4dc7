//! The reference's modules as services: what its configurations call them.

use mplane_runtime::config::legacy::{FromModule, ModuleError};

use super::{ServiceConfig, Source};

/// The modules that are known.
const MODULES: &[&str] = &[PING];

/// The reference's ping.
const PING: &str = "mplane.components.ping";

/// Its arguments: the addresses to send from.
const PING_ARGUMENTS: &[&str] = &["ip4addr", "ip6addr"];

impl FromModule for ServiceConfig {
    fn from_module(
        module: &str,
        arguments: &[(String, String)],
    ) -> Result<Vec<Self>, ModuleError> {
        if module != PING {
            return Err(ModuleError::Unknown { known: MODULES });
        }
        let (mut ip4, mut ip6) = (None, None);
        for (argument, text) in arguments {
            let source = match argument.as_str() {
                "ip4addr" => &mut ip4,
                "ip6addr" => &mut ip6,
                _ => {
                    let (argument, known) = (argument.clone(), PING_ARGUMENTS);
                    return Err(ModuleError::Argument { argument, known });
                }
            };
            *source = Some(self::source(argument, text)?);
        }
        Ok(vec![Self::Ping { ip4, ip6, sweep_rate: super::default_sweep_rate() }])
    }
}

/// Reads an address to send from; `AUTO` is the one of the route to the Internet.
fn source(argument: &str, text: &str) -> Result<Source, ModuleError> {
    text.to_lowercase().parse().map_err(|error: super::ParseSourceError| {
        ModuleError::Value { argument: argument.into(), problem: error.to_string() }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn translate(module: &str, arguments: &[(&str, &str)]) -> Result<String, String> {
        let own = |(key, value): &(&str, &str)| ((*key).into(), (*value).into());
        let arguments: Vec<_> = arguments.iter().map(own).collect();
        ServiceConfig::from_module(module, &arguments)
            .map(|services| format!("{services:?}"))
            .map_err(|error| error.to_string())
    }

    #[test]
    fn ping_sends_from_the_addresses_of_its_arguments() {
        let translated =
            translate(PING, &[("ip4addr", "192.0.2.1"), ("ip6addr", "AUTO")]);
        assert_eq!(
            translated.unwrap(),
            "[Ping { ip4: Some(Address(192.0.2.1)), ip6: Some(Auto), sweep_rate: 10000 }]"
        );
    }

    #[test]
    fn what_is_not_known_is_told_with_what_is() {
        assert_eq!(
            translate("mplane.components.tstat", &[]).unwrap_err(),
            "it is not known here, known is mplane.components.ping; remove it, or offer \
             what it measures as an external service"
        );
        assert_eq!(
            translate(PING, &[("ip5addr", "AUTO")]).unwrap_err(),
            "it has no argument ip5addr, but ip4addr, ip6addr; remove it"
        );
        assert_eq!(
            translate(PING, &[("ip4addr", "here")]).unwrap_err(),
            "ip4addr: \"here\" is no address; write auto or an address such as 192.0.2.1"
        );
    }
}
