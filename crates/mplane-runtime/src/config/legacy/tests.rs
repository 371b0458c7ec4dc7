//! Files as the reference has them, good and bad.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use mplane::access::{CapabilityName, Identity};
use mplane::message::{Capability, Statement};

use super::*;
use crate::config::{Config, NamesFiles, ServiceEntry, ServiceKind};

/// A service: the module and its arguments.
#[derive(Debug, PartialEq, Eq)]
struct Module(String, Vec<(String, String)>);

impl FromModule for Module {
    fn from_module(
        module: &str,
        arguments: &[(String, String)],
    ) -> Result<Vec<Self>, ModuleError> {
        if module == "mplane.components.ping" {
            Ok(vec![Self(module.into(), arguments.to_vec())])
        } else {
            Err(ModuleError::Unknown { known: &["mplane.components.ping"] })
        }
    }
}

impl NamesFiles for Module {
    fn files(&mut self) -> Vec<&mut PathBuf> {
        Vec::new()
    }
}

const INI_TLS: &str = "[TLS]\ncert = pki/a.crt\nkey = pki/a.key\nca-chain = pki/ca.crt\n";

const INI_ACCESS: &str = "[Roles]\norg.mplane.Test.Clients.Client-1 = guest, admin\n\
    Identity.Unauthenticated.Default = guest\n\
    [Authorizations]\nping-average-ip4 = guest,admin\nping-detail-ip4 = owner\n";

const INI_PING: &str =
    "[module_ping]\nmodule = mplane.components.ping\nip4addr = 192.0.2.1\n";

const JSON_TLS: &str =
    r#""TLS": {"cert": "pki/a.crt", "key": "pki/a.key", "ca-chain": "pki/ca.crt"}"#;

const JSON_PING: &str =
    r#""Modules": {"mplane.components.ping": {"ip4addr": "192.0.2.1"}}"#;

fn ini(text: &str) -> Result<Config<Module>, String> {
    translate_ini(text).map_err(|error| crate::report(&error))
}

fn json(text: &str) -> Result<Config<Module>, String> {
    translate_json(text).map_err(|error| crate::report(&error))
}

/// Checks the service of a component.
fn check_ping(services: &[ServiceEntry<Module>]) {
    let arguments = vec![("ip4addr".to_owned(), "192.0.2.1".to_owned())];
    let [ServiceEntry { service: ServiceKind::Native(module), .. }] = services else {
        panic!("{services:?}")
    };
    assert_eq!(*module, Module("mplane.components.ping".into(), arguments));
}

/// Checks that a client may see one capability and not the other.
fn check_access(policy: &Policy) {
    let names = ["org", "mplane", "Test", "Clients", "Client-1"].map(Into::into);
    let client = Identity::new(names, Some("Clients"));
    let may = |label: &str| {
        let when = "now ... future / 1s".parse().unwrap();
        let capability = Capability::new(Statement::measure(when).labelled(label));
        let name = CapabilityName::of(&capability);
        let offering = Identity::new(["anybody".into()], Some("Components"));
        assert!(policy.permit_offer(&offering, &name).is_ok());
        policy.permit(&client, &name).is_ok()
    };
    assert!(may("ping-average-ip4") && !may("ping-detail-ip4") && !may("ping"));
}

#[test]
fn an_ini_file_of_a_component_that_registers() {
    let config = ini(&format!(
        "{INI_TLS}{INI_ACCESS}{INI_PING}[component]\nscheduler_max_results = 20\n\
         registry_uri = http://ict-mplane.eu/registry/demo\n\
         registry_preload = a.json, b.json\nworkflow = component-initiated\n\
         client_host = supervisor.example\nclient_port = 8889\n\
         registration_path = /register/capability/\n\
         specification_path = show/specification\nresult_path = register/result\n\
         listen-port = 8888\n[gui]\nport = 1\n"
    ))
    .unwrap();
    assert_eq!(config.tls.unwrap().ca_chain, PathBuf::from("pki/ca.crt"));
    assert_eq!(config.registries.preload, ["a.json", "b.json"].map(PathBuf::from));
    let component = config.component.unwrap();
    let urls = component.initiator.iter().map(|initiator| initiator.url.to_string());
    assert_eq!(urls.collect::<Vec<_>>(), ["https://supervisor.example:8889/"]);
    assert!(component.listener.is_none());
    assert_eq!(component.max_results, NonZeroUsize::new(20));
    check_ping(&component.service);
    check_access(&config.access);
    assert_eq!(
        config.notes,
        [
            "nobody has the role owner that ping-detail-ip4 is for",
            "component.registry_uri: registries are not fetched from \
             http://ict-mplane.eu/registry/demo; name a file in registry_preload if its \
             elements are needed",
            "component.listen-port is for the other workflow and is ignored",
            "gui has no meaning here and is ignored",
        ]
    );
}

#[test]
fn ini_files_of_a_component_that_listens_of_a_client_and_of_a_supervisor() {
    let component = "[component]\nworkflow = client-initiated\nlisten-port = 8888\n";
    let config = ini(&format!("{INI_TLS}{INI_PING}{component}")).unwrap();
    let listener = config.component.unwrap().listener.unwrap();
    assert_eq!(listener.address.to_string(), "0.0.0.0:8888");
    assert!(!config.access.is_restricting());

    let client = "[client]\nworkflow = client-initiated\n\
                  capability-url: 127.0.0.1:8890/capability\n";
    let config = ini(&format!("{INI_TLS}{client}")).unwrap();
    assert_eq!(config.client.unwrap().url.to_string(), "https://127.0.0.1:8890/");

    let client = "[client]\nworkflow = component-initiated\nlisten-host = 127.0.0.1\n\
                  listen-port = 8889\ncomponent-urls = 127.0.0.1:8888/\n";
    let component = component.replace("8888", "8890");
    let config = ini(&format!("{INI_TLS}{INI_ACCESS}{client}{component}")).unwrap();
    let supervisor = config.supervisor.unwrap();
    assert_eq!(supervisor.listener.address.to_string(), "0.0.0.0:8890");
    let second = supervisor.component_listener.unwrap();
    assert_eq!(second.address.to_string(), "127.0.0.1:8889");
    assert!(config.component.is_none() && config.client.is_none());
    assert!(supervisor.component.is_empty(), "they are for the other workflow");
    assert!(config.notes.contains(
        &"client.component-urls is for the other workflow and is ignored".to_owned()
    ));
}

/// Returns the components that a supervisor calls.
fn called(config: &Config<Module>) -> Vec<String> {
    let callees = &config.supervisor.as_ref().unwrap().component;
    callees.iter().map(|callee| callee.url.to_string()).collect()
}

#[test]
fn an_ini_file_of_a_supervisor_that_calls_its_components() {
    let sections = "[client]\nworkflow = client-initiated\n\
        component-urls: 127.0.0.1:8888/, https://probe.example:8889/capability,\n\
        \t127.0.0.1:8888\nlisten-port = 8889\nregistration-path = mine\n\
        [component]\nworkflow = client-initiated\nlisten-port = 8890\n";
    let config = ini(&format!("{INI_TLS}{sections}")).unwrap();
    let urls = ["https://127.0.0.1:8888/", "https://probe.example:8889/"];
    assert_eq!(called(&config), urls, "each once");
    let supervisor = config.supervisor.unwrap();
    assert_eq!(supervisor.listener.address.to_string(), "0.0.0.0:8890");
    assert!(supervisor.component_listener.is_none());
    assert_eq!(
        config.notes,
        [
            "client.listen-port is for the other workflow and is ignored",
            "client.registration-path is for the other workflow and is ignored",
        ]
    );
}

#[test]
fn a_json_file_of_a_supervisor_that_calls_its_components() {
    let config = json(&format!(
        r#"{{{JSON_TLS}, "Supervisor": {{
            "Component": {{"Listener": {{"port": "8890"}}}},
            "Client": {{"Initiator": {{
                "capability-url": ["127.0.0.1:8888/", "https://probe.example:8889/"]
            }}}}
        }}}}"#
    ))
    .unwrap();
    let urls = ["https://127.0.0.1:8888/", "https://probe.example:8889/"];
    assert_eq!(called(&config), urls);
    assert!(config.supervisor.unwrap().component_listener.is_none());
    assert_eq!(config.notes, Vec::<String>::new());

    // Those that register and those that are called may be there at once.
    let config = json(
        r#"{"Supervisor": {
            "Component": {"Listener": {"port": "8890"}},
            "Client": {
                "Listener": {"port": "8889"},
                "Initiator": {"capability-url": "127.0.0.1:8888/"}
            }
        }}"#,
    )
    .unwrap();
    assert_eq!(called(&config), ["http://127.0.0.1:8888/"]);
    assert!(config.supervisor.unwrap().component_listener.is_some());
}

#[test]
fn files_of_a_supervisor_that_registers_with_another_one() {
    let sections = "[client]\nworkflow = component-initiated\nlisten-port = 8889\n\
        [component]\nworkflow = component-initiated\nclient_host = above.example\n\
        client_port = 8891\nlisten-port = 8890\n";
    let of_ini = ini(&format!("{INI_TLS}{sections}")).unwrap();
    let ignored = "component.listen-port is for the other workflow and is ignored";
    assert_eq!(of_ini.notes, [ignored]);
    let of_json = json(&format!(
        r#"{{{JSON_TLS}, "Supervisor": {{
            "Component": {{"Initiator": {{"url": "https://above.example:8891/"}}}},
            "Client": {{"Listener": {{"port": "8889"}}}}
        }}}}"#
    ))
    .unwrap();
    for config in [of_ini, of_json] {
        let supervisor = config.supervisor.unwrap();
        assert_eq!(supervisor.listener.address.to_string(), "0.0.0.0:8889");
        assert!(supervisor.component_listener.is_none());
        let [initiator] = supervisor.initiator.as_slice() else { panic!("one") };
        assert_eq!(initiator.url.to_string(), "https://above.example:8891/");
    }
}

#[test]
fn a_supervisor_listens_for_somebody() {
    let sections = "[client]\nworkflow = client-initiated\n\
        component-urls = 127.0.0.1:8888/\n[component]\n\
        workflow = component-initiated\nclient_host = h\nclient_port = 1\n";
    let refusal = ini(&format!("{INI_TLS}{sections}")).unwrap_err();
    assert_eq!(
        refusal,
        "client.listen-port is missing; a supervisor waits for somebody: write \
         component-initiated as workflow of [client], and the port to listen on"
    );
}

#[test]
fn ini_files_that_cannot_work_are_told_with_the_remedy() {
    let component = format!("{INI_TLS}{INI_PING}[component]\n");
    let registers = format!("{component}workflow = component-initiated\n");
    for (text, refusal) in [
        ("[TLS]\ncert = a\n".to_owned(), "TLS.ca-chain is missing; name the PEM file"),
        (
            format!("{INI_TLS}[Roles]\na = b\n"),
            "Authorizations is missing; [Roles] and [Authorizations] belong together",
        ),
        (
            component.clone(),
            "component.workflow is missing; write component-initiated or client-initiated",
        ),
        (
            format!("{component}workflow = none\n"),
            "component.workflow: none is no workflow; write component-initiated or \
             client-initiated",
        ),
        (
            registers.clone(),
            "component.client_host is missing; write the supervisor's host",
        ),
        (
            format!("{registers}result_path = my/results\n"),
            "component.result_path has the path my/results, which here is always \
             /register/result; write that",
        ),
        (
            format!("{INI_TLS}[component]\nworkflow = client-initiated\n"),
            "module_… is missing; a component measures something: add one, such as \
             [module_ping] with module = mplane.components.ping",
        ),
        (
            format!("{INI_TLS}[module_a]\nmodule = mplane.components.tstat\n"),
            "module mplane.components.tstat: it is not known here, known is \
             mplane.components.ping; remove it, or offer what it measures as an external \
             service",
        ),
        (
            format!("{INI_TLS}[client]\ncapability-url = http://127.0.0.1:8890/\n"),
            "client.capability-url: \"http://127.0.0.1:8890/\" cannot be used: plain HTTP \
             is spoken only where plain-http = \"loopback\" allows it, use https; write \
             https://HOST:PORT/; only TOML has that key",
        ),
        (
            format!("{INI_TLS}[client]\ncapability-url = 127.0.0.1:8890/mine\n"),
            "client.capability-url has the path /mine, which here is always /; write that",
        ),
        (
            format!("{INI_TLS}[client]\nworkflow = component-initiated\n"),
            "client.workflow: clients do not listen here; start a supervisor (mpsup), let \
             components register with it, and write client-initiated and its capability-url",
        ),
        (
            format!(
                "{INI_TLS}[client]\nworkflow = client-initiated\n\
                 [component]\nworkflow = client-initiated\n"
            ),
            "client.component-urls is missing; write https://HOST:PORT/ of each component \
             that listens",
        ),
        (
            format!(
                "{INI_TLS}[client]\nworkflow = client-initiated\n\
                 component-urls = 127.0.0.1:8888/, 127.0.0.1/\n\
                 [component]\nworkflow = client-initiated\n"
            ),
            "client.component-urls: \"https://127.0.0.1/\" cannot be used: it names no port, \
             such as :8890; write https://HOST:PORT/",
        ),
        (
            format!(
                "{INI_TLS}[client]\nworkflow = client-initiated\n\
                 component-urls = 127.0.0.1:8888/mine\n\
                 [component]\nworkflow = client-initiated\n"
            ),
            "client.component-urls has the path /mine, which here is always /; write that",
        ),
        (
            format!(
                "{INI_TLS}{INI_PING}[component]\nworkflow = client-initiated\n\
                     listen-host = here\nlisten-port = 1\n"
            ),
            "component.listen-host: here is no address; write one of this machine, or \
             0.0.0.0",
        ),
        (
            format!("{INI_TLS}[Roles]\na..b = c\n[Authorizations]\n"),
            "role c has an identity with an empty name, \"a..b\"; write all names of the \
             certificate's subject, in its order",
        ),
    ] {
        assert_eq!(ini(&text).unwrap_err(), refusal, "{text}");
    }
}

#[test]
fn a_json_file_of_a_component() {
    let config = json(&format!(
        r#"{{{JSON_TLS},
        "Access": {{
            "Roles": {{
                "guest": ["Identity.Unauthenticated.Default"],
                "admin": ["org.mplane.Test.Clients.Client-1"]
            }},
            "Authorizations": {{"ping-average-ip4": ["guest", "admin"]}}
        }},
        "Registries": {{"default": "conf/demo.json", "preload": ["a.json"]}},
        "Component": {{
            {JSON_PING},
            "Initiator": {{
                "url": "https://127.0.0.1:8889/",
                "capability-url": "https://127.0.0.1:8889/register/capability",
                "specification-url": "https://127.0.0.1:8889/show/specification",
                "result-url": "https://127.0.0.1:8889/register/result"
            }},
            "Listener": {{"port": "8888", "interfaces": ["127.0.0.1"]}},
            "scheduler_max_results": "20"
        }}}}"#
    ))
    .unwrap();
    let files = ["conf/demo.json", "a.json"].map(PathBuf::from);
    assert_eq!(config.registries.preload, files);
    let component = config.component.unwrap();
    let urls = component.initiator.iter().map(|initiator| initiator.url.to_string());
    assert_eq!(urls.collect::<Vec<_>>(), ["https://127.0.0.1:8889/"]);
    let listener = component.listener.unwrap();
    assert_eq!(listener.address.to_string(), "127.0.0.1:8888");
    check_ping(&component.service);
    check_access(&config.access);
    assert_eq!(component.max_results, NonZeroUsize::new(20));
    assert!(config.notes.is_empty(), "{:?}", config.notes);
}

#[test]
fn json_files_of_a_client_and_of_a_supervisor() {
    let config = json(&format!(
        r#"{{{JSON_TLS}, "Client": {{
            "Listener": {{"port": "8891"}},
            "Initiator": {{"capability-url": "127.0.0.1:8890/"}}
        }}}}"#
    ))
    .unwrap();
    assert_eq!(config.client.unwrap().url.to_string(), "https://127.0.0.1:8890/");
    assert_eq!(config.notes, ["Client.Listener has no meaning here and is ignored"]);

    let config = json(&format!(
        r#"{{{JSON_TLS}, "Supervisor": {{
            "Component": {{"Listener": {{"port": 8890}}}},
            "Client": {{"Listener": {{
                "port": "8889", "interfaces": ["127.0.0.1"],
                "capability-path": "register/capability"
            }}}}
        }}}}"#
    ))
    .unwrap();
    let supervisor = config.supervisor.unwrap();
    assert_eq!(supervisor.listener.address.to_string(), "0.0.0.0:8890");
    let second = supervisor.component_listener.unwrap();
    assert_eq!(second.address.to_string(), "127.0.0.1:8889");
    assert_eq!(config.notes, Vec::<String>::new());
}

#[test]
fn json_files_that_cannot_work_are_told_with_the_remedy() {
    for (sections, refusal) in [
        (
            r#""Component": {}"#.to_owned(),
            "Component.Modules is missing; name what the component measures, such as \
             mplane.components.ping",
        ),
        (
            r#""Component": {"Modules": {"mplane.components.ott": {}}}"#.to_owned(),
            "module mplane.components.ott: it is not known here, known is \
             mplane.components.ping; remove it, or offer what it measures as an external \
             service",
        ),
        (
            format!(
                r#""Component": {{{JSON_PING}, "Initiator": {{
                    "result-url": "https://h:1/results"}}}}"#
            ),
            "Component.Initiator.result-url has the path /results, which here is always \
             /register/result; write that",
        ),
        (
            format!(
                r#""Component": {{{JSON_PING}, "Initiator": {{
                    "url": "https://h:1/", "result-url": "https://h:2/register/result"}}}}"#
            ),
            "Component.Initiator.result-url: it names another host or port than \
             https://h:1/; write one for all",
        ),
        (
            format!(
                r#""Component": {{{JSON_PING}, "Listener": {{
                    "port": "1", "interfaces": ["127.0.0.1", "::1"]}}}}"#
            ),
            "Component.Listener.interfaces: one address is listened on; write that, or \
             0.0.0.0 for all",
        ),
        (
            r#""Client": {"Listener": {"port": "1"}}"#.to_owned(),
            "Client.Initiator.capability-url is missing; clients do not listen here: write \
             https://HOST:PORT/ of a supervisor or component",
        ),
        (
            r#""Supervisor": {"Component": {"Initiator": {}}}"#.to_owned(),
            "Supervisor.Component.Initiator.url is missing; write the supervisor's \
             https://HOST:PORT/",
        ),
        (
            r#""Supervisor": {"Component": {}}"#.to_owned(),
            "Supervisor.Component.Listener is missing; write the port to listen on for \
             clients, or Initiator with the url of the supervisor to register with",
        ),
        (
            r#""Supervisor": {"Component": {"Initiator": {"url": "https://h:1/"}},
                "Client": {"Initiator": {"capability-url": "https://h:2/"}}}"#
                .to_owned(),
            "Supervisor.Client.Listener is missing; a supervisor waits for somebody: write \
             the port to listen on",
        ),
        (
            r#""Supervisor": {"Component": {"Listener": {"port": 1}}, "Client": {}}"#
                .into(),
            "Supervisor.Client.Listener is missing; write the port to listen on for \
             components, or Initiator with the capability-url of those that listen",
        ),
        (
            r#""Supervisor": {"Component": {"Listener": {"port": 1}},
                "Client": {"Initiator": {"capability-url": []}}}"#
                .into(),
            "Supervisor.Client.Initiator.capability-url is missing; write \
             https://HOST:PORT/ of each component that listens",
        ),
        (
            r#""Supervisor": {"Component": {"Listener": {"port": 1}},
                "Client": {"Initiator": {"capability-url": ["http://h:1/"]}}}"#
                .into(),
            "Supervisor.Client.Initiator.capability-url: \"http://h:1/\" cannot be used: \
             plain HTTP is spoken only where plain-http = \"loopback\" allows it, use https; \
             write https://HOST:PORT/; only TOML has that key",
        ),
        (
            r#""Access": {"Roles": {}}"#.to_owned(),
            "Access.Authorizations is missing; Roles and Authorizations belong together",
        ),
        (r#""Registries": []"#.to_owned(), "Registries: it is a section"),
    ] {
        let text = format!("{{{JSON_TLS}, {sections}}}");
        assert_eq!(json(&text).unwrap_err(), refusal, "{text}");
    }
    let refusal = json("{").unwrap_err();
    assert!(refusal.starts_with("it is no JSON: EOF while parsing"), "{refusal}");
}

#[test]
fn without_tls_an_ini_file_means_plain_http_within_this_machine() {
    let section = "[component]\nworkflow = client-initiated\nlisten-port = 8888\n";
    let config = ini(&format!("{INI_PING}{section}")).unwrap();
    let listener = config.component.unwrap().listener.unwrap();
    assert_eq!(listener.address.to_string(), "127.0.0.1:8888");
    assert_eq!(listener.plain_http, Some(PlainHttp::Loopback));
    assert!(config.tls.is_none());
    assert_eq!(config.notes, [NO_TLS]);

    let section = "[component]\nworkflow = component-initiated\n\
                   client_host = localhost\nclient_port = 8889\n";
    let config = ini(&format!("{INI_ACCESS}{INI_PING}{section}")).unwrap();
    let initiator = config.component.unwrap().initiator.remove(0);
    assert_eq!(initiator.url.to_string(), "http://localhost:8889/");
    assert!(config.access.is_restricting(), "rules hold without TLS too");

    let far = section.replace("localhost", "sup.example");
    let refusal = ini(&format!("{INI_PING}{far}")).unwrap_err();
    assert_eq!(
        refusal,
        "component.client_host: \"http://sup.example:8889\" cannot be used: plain HTTP goes \
         to other machines only where plain-http = \"anywhere\" allows it, use https; write \
         https://HOST:PORT/; only TOML has that key"
    );
}

#[test]
fn without_tls_a_json_file_means_plain_http_within_this_machine() {
    let client = |url: &str| {
        json(&format!(r#"{{"Client": {{"Initiator": {{"capability-url": "{url}"}}}}}}"#))
    };
    for url in ["http://127.0.0.1:8890/capability", "127.0.0.1:8890"] {
        let client = client(url).unwrap().client.unwrap();
        assert_eq!(client.url.to_string(), "http://127.0.0.1:8890/");
        assert_eq!(client.plain_http, Some(PlainHttp::Loopback));
    }
    let supervisor = |interface: &str| {
        json(&format!(
            r#"{{"Supervisor": {{
                "Component": {{"Listener": {{"port": "8890"}}}},
                "Client": {{"Listener": {{"port": "8889", "interfaces": ["{interface}"]}}}}
            }}}}"#
        ))
    };
    let config = supervisor("::1").unwrap();
    assert_eq!(config.notes, [NO_TLS]);
    let supervisor_config = config.supervisor.unwrap();
    assert_eq!(supervisor_config.listener.address.to_string(), "127.0.0.1:8890");
    let second = supervisor_config.component_listener.unwrap();
    assert_eq!(second.plain_http, Some(PlainHttp::Loopback));
    let refusal = supervisor("0.0.0.0").unwrap_err();
    assert!(
        refusal
            .starts_with("Supervisor.Client.Listener.interfaces: other machines reach"),
        "{refusal}"
    );
}
