//! Translates JSON files: `TLS`, `Access`, `Registries`, `Component`, `Client` and
//! `Supervisor`, which has a `Component` and a `Client` within.

use std::collections::BTreeMap;

use mplane::access::{IdentityRule, Policy};

use super::section::Section;
use super::{
    CAPABILITY_PATHS, FromModule, NO_PORT, Speech, TranslateError, base_url, callees,
    listener, max_results, module, policy, registries, standard_paths, tls,
};
use crate::config::{
    ClientConfig, ComponentConfig, Config, InitiatorConfig, ListenerConfig,
    RegistriesConfig, ServiceEntry, SupervisorConfig, default_poll,
};
use crate::http::path;

/// The keys of paths of who listens for components.
const PATHS: [&str; 3] = ["capability-path", "specification-path", "result-path"];

/// Translates a file.
pub(in crate::config) fn translate<S: FromModule>(
    text: &str,
) -> Result<Config<S>, TranslateError> {
    let mut root = Section::new(String::new(), serde_json::from_str(text)?);
    let mut notes = Vec::new();
    let (tls, speech) = tls(&mut root, &mut notes)?;
    let access = access(&mut root, &mut notes)?;
    let registries = match root.section("Registries")? {
        Some(mut section) => {
            let found = registries(&mut section, ["default", "preload"], &mut notes)?;
            section.leave(&mut notes);
            found
        }
        None => RegistriesConfig::default(),
    };
    let component = root.section("Component")?;
    let component =
        component.map(|s| self::component(speech, s, &mut notes)).transpose()?;
    let supervisor = root.section("Supervisor")?;
    let supervisor =
        supervisor.map(|s| self::supervisor(speech, s, &mut notes)).transpose()?;
    let client = root.section("Client")?;
    let client = client.map(|s| self::client(speech, s, &mut notes)).transpose()?;
    root.leave(&mut notes);
    Ok(Config {
        tls,
        registries,
        metrics: None,
        access,
        component,
        supervisor,
        client,
        notes,
    })
}

/// Takes the rules: roles with their identities, labels with their roles.
fn access(root: &mut Section, notes: &mut Vec<String>) -> Result<Policy, TranslateError> {
    let Some(mut section) = root.section("Access")? else {
        return Ok(Policy::default());
    };
    let mut take = |key| -> Result<_, TranslateError> {
        let remedy = "Roles and Authorizations belong together";
        let place = section.place(key);
        let missing = TranslateError::Missing { place, remedy };
        let mut listed = section.section(key)?.ok_or(missing)?;
        let mut lists = BTreeMap::new();
        for name in listed.keys() {
            lists.insert(name.clone(), listed.list(&name)?);
        }
        Ok(lists)
    };
    let (roles, authorizations) = (take("Roles")?, take("Authorizations")?);
    section.leave(notes);
    let rules =
        |identities: Vec<_>| identities.into_iter().map(IdentityRule::Text).collect();
    let roles = roles.into_iter().map(|(role, list)| (role, rules(list))).collect();
    policy(roles, &authorizations, notes)
}

/// Translates `Component`.
fn component<S: FromModule>(
    speech: Speech,
    mut section: Section,
    notes: &mut Vec<String>,
) -> Result<ComponentConfig<S>, TranslateError> {
    let missing = TranslateError::Missing {
        place: section.place("Modules"),
        remedy: "name what the component measures, such as mplane.components.ping",
    };
    let mut modules = section.section("Modules")?.ok_or(missing)?;
    let mut service = Vec::new();
    for name in modules.keys() {
        if let Some(arguments) = modules.section(&name)? {
            let translated = module(&name, arguments)?;
            service.extend(translated.into_iter().map(ServiceEntry::native));
        }
    }
    let initiator = section.section("Initiator")?;
    let initiator = initiator.map(|s| self::initiator(speech, s, notes)).transpose()?;
    let listener = section.section("Listener")?;
    let listener = listener.map(|s| listening_at(speech, s, notes)).transpose()?;
    let max_results = max_results(&mut section)?;
    section.leave(notes);
    let initiator = initiator.into_iter().collect();
    Ok(ComponentConfig {
        initiator,
        listener,
        max_results,
        ..ComponentConfig::new(service)
    })
}

/// Translates `Component.Initiator`: one URL, or three that differ in their paths only.
fn initiator(
    speech: Speech,
    mut section: Section,
    notes: &mut Vec<String>,
) -> Result<InitiatorConfig, TranslateError> {
    let mut found: Option<crate::http::client::BaseUrl> = None;
    for (key, path) in [
        ("url", "/"),
        ("capability-url", path::REGISTER_CAPABILITY),
        ("specification-url", path::SHOW_SPECIFICATION),
        ("result-url", path::REGISTER_RESULT),
    ] {
        let Some(text) = section.text(key)? else { continue };
        let place = section.place(key);
        let url = base_url(speech, &place, &text, &[path])?;
        if let Some(first) = &found
            && first.to_string() != url.to_string()
        {
            let problem =
                format!("it names another host or port than {first}; write one for all");
            return Err(TranslateError::Value { place, problem });
        }
        found = Some(url);
    }
    let remedy = "write the supervisor's https://HOST:PORT/";
    let missing = || TranslateError::Missing { place: section.place("url"), remedy };
    let url = found.ok_or_else(missing)?;
    section.leave(notes);
    Ok(InitiatorConfig { url, poll: default_poll() })
}

/// Translates `Client`.
fn client(
    speech: Speech,
    mut section: Section,
    notes: &mut Vec<String>,
) -> Result<ClientConfig, TranslateError> {
    let place = section.place("Initiator.capability-url");
    let missing = || TranslateError::Missing {
        place: place.clone(),
        remedy: "clients do not listen here: write https://HOST:PORT/ of a supervisor or \
                 component",
    };
    let mut initiator = section.section("Initiator")?.ok_or_else(missing)?;
    let urls = initiator.list("capability-url")?;
    let url = match urls.as_slice() {
        [] => return Err(missing()),
        [url] => base_url(speech, &place, url, &CAPABILITY_PATHS)?,
        _ => {
            let problem = "a client asks one; start a supervisor for several components";
            return Err(TranslateError::Value { place, problem: problem.into() });
        }
    };
    initiator.leave(notes);
    section.leave(notes);
    Ok(ClientConfig { url, plain_http: speech.0 })
}

/// Translates `Supervisor`: where it listens for clients and for components, and which
/// components it calls. The reference has it either listen for components or call them.
fn supervisor(
    speech: Speech,
    mut section: Section,
    notes: &mut Vec<String>,
) -> Result<SupervisorConfig, TranslateError> {
    let place = section.place("Component.Listener");
    let remedy = "write the port to listen on for clients, or Initiator with the url of the \
                  supervisor to register with";
    let missing = || TranslateError::Missing { place: place.clone(), remedy };
    let mut side = section.section("Component")?.ok_or_else(missing)?;
    let (for_clients, upward) = (side.section("Listener")?, side.section("Initiator")?);
    side.leave(notes);
    if for_clients.is_none() && upward.is_none() {
        return Err(missing());
    }
    let registers = upward.map(|s| initiator(speech, s, notes)).transpose()?;
    let mut listener = None;
    if let Some(mut section) = for_clients {
        standard_paths(&mut section, PATHS)?;
        listener = Some(listening_at(speech, section, notes)?);
    }

    let place = section.place("Client.Listener");
    let remedy = "write the port to listen on for components, or Initiator with the \
                  capability-url of those that listen";
    let missing = || TranslateError::Missing { place: place.clone(), remedy };
    let mut side = section.section("Client")?.ok_or_else(missing)?;
    let (for_components, initiator) =
        (side.section("Listener")?, side.section("Initiator")?);
    side.leave(notes);
    section.leave(notes);
    if for_components.is_none() && initiator.is_none() {
        return Err(missing());
    }
    let mut component_listener = None;
    if let Some(mut section) = for_components {
        standard_paths(&mut section, PATHS)?;
        component_listener = Some(listening_at(speech, section, notes)?);
    }
    let mut component = Vec::new();
    if let Some(mut section) = initiator {
        component = callees(speech, &mut section, "capability-url")?;
        section.leave(notes);
    }
    // One that registers elsewhere needs no port of its own for clients.
    let Some(listener) = listener.or_else(|| component_listener.take()) else {
        let remedy = "a supervisor waits for somebody: write the port to listen on";
        return Err(TranslateError::Missing { place, remedy });
    };
    let component_listener =
        component_listener.filter(|other| other.address != listener.address);
    let initiator = registers.into_iter().collect();
    let config = SupervisorConfig::new(listener, component_listener);
    Ok(SupervisorConfig { component, initiator, ..config })
}

/// Translates a `Listener`.
fn listening_at(
    speech: Speech,
    mut section: Section,
    notes: &mut Vec<String>,
) -> Result<ListenerConfig, TranslateError> {
    let port = section.required("port", NO_PORT)?;
    let interfaces = section.list("interfaces")?;
    let place = section.place("interfaces");
    if interfaces.len() > 1 {
        let problem = "one address is listened on; write that, or 0.0.0.0 for all";
        return Err(TranslateError::Value { place, problem: problem.into() });
    }
    let place = if interfaces.is_empty() { section.place("port") } else { place };
    let config = listener(speech, &place, interfaces.first().map(String::as_str), &port)?;
    section.leave(notes);
    Ok(config)
}
