//! Translates INI files: `[TLS]`, `[Roles]`, `[Authorizations]`, `[module_…]`,
//! `[component]` and `[client]`. A file with the last two and without modules is a
//! supervisor's, who is a client of components and a component of clients.

use std::collections::BTreeMap;

use mplane::access::{IdentityRule, Policy};

use super::section::Section;
use super::{
    CAPABILITY_PATHS, FromModule, NO_PORT, Speech, TranslateError, base_url, callees,
    lines, listener, max_results, module, policy, registries, standard_paths, tls,
};
use crate::config::{
    ClientConfig, ComponentConfig, Config, InitiatorConfig, ListenerConfig,
    RegistriesConfig, ServiceEntry, SupervisorConfig, default_poll,
};

/// Who opens connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Workflow {
    /// Components do.
    Component,
    /// Clients do.
    Client,
}

/// The keys of `[component]` for registering, and those for listening.
const COMPONENT_KEYS: [[&str; 3]; 2] = [
    ["client_host", "client_port", ""],
    ["listen-port", "listen-host", "listen-cap-link"],
];

/// The keys of paths in `[component]`.
const COMPONENT_PATHS: [&str; 3] =
    ["registration_path", "specification_path", "result_path"];

/// The keys of paths in `[client]`.
const CLIENT_PATHS: [&str; 3] =
    ["registration-path", "specification-path", "result-path"];

/// The keys of `[client]` for listening.
const CLIENT_LISTENING: [&str; 3] = ["listen-port", "listen-host", "listen-spec-link"];

/// The key of `[client]` for the components that a supervisor calls.
const COMPONENT_URLS: &str = "component-urls";

/// The keys of the registries.
const REGISTRIES: [&str; 2] = ["registry_uri", "registry_preload"];

/// Translates a file.
pub(in crate::config) fn translate<S: FromModule>(
    text: &str,
) -> Result<Config<S>, TranslateError> {
    let mut root = Section::new(String::new(), lines::parse(text)?);
    let mut notes = Vec::new();
    let (tls, speech) = tls(&mut root, &mut notes)?;
    let mut config = Config {
        tls,
        registries: RegistriesConfig::default(),
        metrics: None,
        access: access(&mut root, &mut notes)?,
        component: None,
        supervisor: None,
        client: None,
        notes: Vec::new(),
    };
    let services = modules(&mut root)?;
    let mut client = root.section("client")?;
    let mut component = root.section("component")?;
    for section in [&mut client, &mut component].into_iter().flatten() {
        let registries = registries(section, REGISTRIES, &mut notes)?;
        let known = &mut config.registries.preload;
        let new = registries.preload.into_iter().filter(|file| !known.contains(file));
        known.extend(new.collect::<Vec<_>>());
    }
    match (client, component) {
        (Some(client), Some(component)) if services.is_empty() => {
            config.supervisor = Some(supervisor(speech, client, component, &mut notes)?);
        }
        (client, component) => {
            if let Some(section) = client {
                config.client = Some(self::client(speech, section, &mut notes)?);
            }
            if let Some(section) = component {
                config.component =
                    Some(self::component(speech, section, services, &mut notes)?);
            }
        }
    }
    root.leave(&mut notes);
    config.notes = notes;
    Ok(config)
}

/// Takes the rules: identities with their roles, labels with theirs.
fn access(root: &mut Section, notes: &mut Vec<String>) -> Result<Policy, TranslateError> {
    let (given, allowed) = (root.section("Roles")?, root.section("Authorizations")?);
    let (mut given, mut allowed) = match (given, allowed) {
        (Some(given), Some(allowed)) => (given, allowed),
        (None, None) => return Ok(Policy::default()),
        (given, _) => {
            let place = if given.is_some() { "Authorizations" } else { "Roles" };
            let remedy = "[Roles] and [Authorizations] belong together";
            return Err(TranslateError::Missing { place: place.into(), remedy });
        }
    };
    let mut roles: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for identity in given.keys() {
        for role in given.list(&identity)? {
            roles.entry(role).or_default().push(IdentityRule::Text(identity.clone()));
        }
    }
    let mut authorizations = BTreeMap::new();
    for label in allowed.keys() {
        authorizations.insert(label.clone(), allowed.list(&label)?);
    }
    policy(roles, &authorizations, notes)
}

/// Takes the modules of a component.
fn modules<S: FromModule>(
    root: &mut Section,
) -> Result<Vec<ServiceEntry<S>>, TranslateError> {
    let mut services = Vec::new();
    for name in root.keys().into_iter().filter(|name| name.starts_with("module_")) {
        let Some(mut section) = root.section(&name)? else { continue };
        let name = section.required("module", "write the name of the module")?;
        services.extend(module(&name, section)?.into_iter().map(ServiceEntry::native));
    }
    Ok(services)
}

/// Translates `[component]`.
fn component<S>(
    speech: Speech,
    mut section: Section,
    service: Vec<ServiceEntry<S>>,
    notes: &mut Vec<String>,
) -> Result<ComponentConfig<S>, TranslateError> {
    let remedy = "write component-initiated or client-initiated";
    let workflow = workflow(&mut section)?.ok_or_else(|| TranslateError::Missing {
        place: section.place("workflow"),
        remedy,
    })?;
    if service.is_empty() {
        let remedy = "a component measures something: add one, such as [module_ping] with \
                      module = mplane.components.ping";
        return Err(TranslateError::Missing { place: "module_…".into(), remedy });
    }
    let [registering, listening] = COMPONENT_KEYS;
    let mut config = ComponentConfig::new(service);
    config.max_results = max_results(&mut section)?;
    let others = if workflow == Workflow::Component {
        config.initiator.push(initiator(speech, &mut section)?);
        [listening, ["", "", ""]]
    } else {
        config.listener = Some(listening_at(speech, &mut section)?);
        // Where one registers is the other workflow's too.
        [registering, COMPONENT_PATHS]
    };
    leave_other(&mut section, others.as_flattened(), notes)?;
    section.leave(notes);
    Ok(config)
}

/// Takes where to register.
fn initiator(
    speech: Speech,
    section: &mut Section,
) -> Result<InitiatorConfig, TranslateError> {
    standard_paths(section, COMPONENT_PATHS)?;
    let host = section.required("client_host", "write the supervisor's host")?;
    let port = section.required("client_port", NO_PORT)?;
    let place = section.place("client_host");
    let url = base_url(speech, &place, &format!("{host}:{port}"), &["/"])?;
    Ok(InitiatorConfig { url, poll: default_poll() })
}

/// Translates `[client]` of a client.
fn client(
    speech: Speech,
    mut section: Section,
    notes: &mut Vec<String>,
) -> Result<ClientConfig, TranslateError> {
    if workflow(&mut section)? == Some(Workflow::Component) {
        let problem = "clients do not listen here; start a supervisor (mpsup), let \
                       components register with it, and write client-initiated and its \
                       capability-url";
        let place = section.place("workflow");
        return Err(TranslateError::Value { place, problem: problem.into() });
    }
    let key =
        if section.has("capability-url") { "capability-url" } else { "default-url" };
    let missing = TranslateError::Missing {
        place: section.place("capability-url"),
        remedy: "write https://HOST:PORT/ of a supervisor or component",
    };
    let url = section.text(key)?.ok_or(missing)?;
    let url = base_url(speech, &section.place(key), &url, &CAPABILITY_PATHS)?;
    let [registration, specification, result] = CLIENT_PATHS;
    let others = ["listen-port", "listen-spec-link", registration, specification, result];
    leave_other(&mut section, &others, notes)?;
    section.leave(notes);
    Ok(ClientConfig { url, plain_http: speech.0 })
}

/// Translates `[client]` and `[component]` of a supervisor.
fn supervisor(
    speech: Speech,
    mut client: Section,
    mut component: Section,
    notes: &mut Vec<String>,
) -> Result<SupervisorConfig, TranslateError> {
    let is_registering = workflow(&mut component)? == Some(Workflow::Component);
    let (for_components, callees) = if workflow(&mut client)? == Some(Workflow::Client) {
        let callees = callees(speech, &mut client, COMPONENT_URLS)?;
        leave_other(&mut client, &CLIENT_LISTENING, notes)?;
        leave_other(&mut client, &CLIENT_PATHS, notes)?;
        (None, callees)
    } else {
        standard_paths(&mut client, CLIENT_PATHS)?;
        let listener = listening_at(speech, &mut client)?;
        leave_other(&mut client, &[COMPONENT_URLS], notes)?;
        (Some(listener), Vec::new())
    };
    let [registering, listening] = COMPONENT_KEYS;
    let (listener, component_listener, initiator) = if is_registering {
        let registers = initiator(speech, &mut component)?;
        leave_other(&mut component, &listening, notes)?;
        // One that registers elsewhere has no port of its own for clients.
        let listener = for_components.ok_or_else(|| TranslateError::Missing {
            place: client.place("listen-port"),
            remedy: "a supervisor waits for somebody: write component-initiated as workflow \
                     of [client], and the port to listen on",
        })?;
        (listener, None, vec![registers])
    } else {
        let listener = listening_at(speech, &mut component)?;
        leave_other(&mut component, &registering, notes)?;
        leave_other(&mut component, &COMPONENT_PATHS, notes)?;
        let second = for_components.filter(|other| other.address != listener.address);
        (listener, second, Vec::new())
    };
    client.leave(notes);
    component.leave(notes);
    Ok(SupervisorConfig {
        component: callees,
        initiator,
        ..SupervisorConfig::new(listener, component_listener)
    })
}

/// Takes who opens connections.
fn workflow(section: &mut Section) -> Result<Option<Workflow>, TranslateError> {
    match section.text("workflow")?.as_deref() {
        None => Ok(None),
        Some("component-initiated") => Ok(Some(Workflow::Component)),
        Some("client-initiated") => Ok(Some(Workflow::Client)),
        Some(other) => Err(TranslateError::Value {
            place: section.place("workflow"),
            problem: format!(
                "{other} is no workflow; write component-initiated or client-initiated"
            ),
        }),
    }
}

/// Takes where to listen.
fn listening_at(
    speech: Speech,
    section: &mut Section,
) -> Result<ListenerConfig, TranslateError> {
    let port = section.required("listen-port", NO_PORT)?;
    let host = section.text("listen-host")?;
    let key = if host.is_some() { "listen-host" } else { "listen-port" };
    listener(speech, &section.place(key), host.as_deref(), &port)
}

/// Takes keys of the workflow that is not chosen, and tells them.
fn leave_other(
    section: &mut Section,
    keys: &[&str],
    notes: &mut Vec<String>,
) -> Result<(), TranslateError> {
    for key in keys {
        if section.text(key)?.is_some() {
            let place = section.place(key);
            notes.push(format!("{place} is for the other workflow and is ignored"));
        }
    }
    Ok(())
}
