//! The description of the routes: all that is served is described, all that is described is
//! served, and answers are as described.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use http::{Method, Request, StatusCode};
use http_body_util::BodyExt;
use mplane::json::MEDIA_TYPE;
use mplane_runtime::http::PlainHttp;
use mplane_runtime::http::client::{Ask, BaseUrl, HttpClient};
use mplane_runtime::http::server::listen;
use mplane_runtime::metrics::{Ready, serve};
use prometheus_client::registry::Registry;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use tower_service::Service as _;

use crate::ri_tests::{peer, supervisor};
use crate::tell::DESCRIPTION;

/// Returns the description.
fn description() -> Value {
    serde_json::from_str(DESCRIPTION).unwrap()
}

/// Asks a router as a component or a client; returns status and body.
async fn ask(
    router: &mut Router,
    unit: &str,
    method: Method,
    path: &str,
    body: &Value,
) -> (StatusCode, String) {
    let body = if body.is_null() { String::new() } else { body.to_string() };
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header("content-type", MEDIA_TYPE)
        .header("prefer", "wait=0")
        .extension(peer(unit))
        .body(Body::from(body))
        .unwrap();
    let response = router.call(request).await.unwrap();
    let status = response.status();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (status, String::from_utf8(body.to_vec()).unwrap())
}

/// Returns the methods that are described, by path, of the port of the supervisor itself.
fn described() -> BTreeMap<String, BTreeSet<Method>> {
    let description = description();
    let paths = description["paths"].as_object().unwrap();
    let here = paths.iter().filter(|(_, item)| item.get("servers").is_none());
    here.map(|(path, item)| {
        let methods = item.as_object().unwrap().keys();
        let methods = methods.map(|method| method.to_uppercase().parse().unwrap());
        (path.clone(), methods.collect())
    })
    .collect()
}

/// Returns the paths that a router has. It does not tell them but where it is shown for
/// debugging.
fn served(router: &Router) -> BTreeSet<String> {
    let shown = format!("{router:?}");
    let (_, paths) = shown.split_once("paths: {").expect("a router has paths");
    let (paths, _) = paths.split_once("} }").expect("they end");
    let quoted = paths.split('"').skip(1).step_by(2);
    quoted.filter(|path| path.starts_with('/')).map(ToOwned::to_owned).collect()
}

#[tokio::test]
async fn every_route_is_described_and_every_description_has_a_route() {
    let folder = tempfile::tempdir().unwrap();
    let mut router = supervisor(&folder).await.router();
    let described = described();
    let mut paths = served(&router);
    // Where the fallback is.
    paths.retain(|path| !path.contains("__private__") && !path.contains('*'));
    assert_eq!(paths, described.keys().cloned().collect());
    let all = [Method::GET, Method::POST, Method::PUT, Method::PATCH, Method::DELETE];
    for (path, methods) in described {
        let path = path.replace("{token}", "none").replace("{after}", "0");
        for method in &all {
            let (status, body) =
                ask(&mut router, "Clients", method.clone(), &path, &Value::Null).await;
            let is_served = status != StatusCode::METHOD_NOT_ALLOWED
                && !body.contains("there is nothing at");
            assert_eq!(is_served, methods.contains(method), "{method} {path}: {status}");
        }
    }
}

#[test]
fn the_description_is_of_this_version_and_whole() {
    let description = description();
    assert_eq!(description["openapi"], "3.1.0");
    assert_eq!(description["info"]["version"], env!("CARGO_PKG_VERSION"));
    let mut names = BTreeSet::new();
    for item in description["paths"].as_object().unwrap().values() {
        let operations = item.as_object().unwrap().iter();
        for (_, operation) in operations.filter(|(key, _)| *key != "servers") {
            assert!(names.insert(operation["operationId"].as_str().unwrap()));
            assert!(operation["summary"].is_string(), "{operation}");
            assert!(operation["responses"]["200"].is_object(), "{operation}");
        }
    }
    let mut references = BTreeSet::new();
    find_references(&description, &mut references);
    assert!(references.len() > 10, "{references:?}");
    for reference in references {
        assert!(resolve(&description, &reference).is_object(), "{reference}");
    }
}

/// Finds the references in a description.
fn find_references(value: &Value, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(fields) => {
            found.extend(fields.get("$ref").map(|it| it.as_str().unwrap().to_owned()));
            for value in fields.values() {
                find_references(value, found);
            }
        }
        Value::Array(values) => {
            for value in values {
                find_references(value, found);
            }
        }
        _ => {}
    }
}

/// Returns what a reference within a description leads to.
fn resolve<'a>(description: &'a Value, reference: &str) -> &'a Value {
    let pointer = reference.strip_prefix('#').expect("a reference within");
    description.pointer(pointer).unwrap_or_else(|| panic!("nothing is at {reference}"))
}

/// Checks that a value has exactly the fields and types of a schema.
fn check(description: &Value, schema: &Value, value: &Value, at: &str) {
    if let Some(reference) = schema.get("$ref") {
        let schema = resolve(description, reference.as_str().unwrap());
        return check(description, schema, value, at);
    }
    for key in schema.as_object().unwrap().keys() {
        let known = ["type", "properties", "required", "items", "enum", "description"];
        let is_known = known.contains(&key.as_str()) || key == "additionalProperties";
        assert!(is_known, "{at}: {key} is not checked");
    }
    let types = match &schema["type"] {
        Value::String(one) => vec![one.as_str()],
        several => {
            several.as_array().unwrap().iter().map(|it| it.as_str().unwrap()).collect()
        }
    };
    let found = match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_i64() || number.is_u64() => "integer",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    assert!(types.contains(&found), "{at}: {value} is no {types:?}");
    if let Some(words) = schema.get("enum") {
        assert!(
            words.as_array().unwrap().contains(value),
            "{at}: {value} not in {words}"
        );
    }
    for (index, item) in value.as_array().into_iter().flatten().enumerate() {
        check(description, &schema["items"], item, &format!("{at}[{index}]"));
    }
    if let Some(fields) = value.as_object() {
        assert_eq!(schema["additionalProperties"], false, "{at}");
        let properties = schema["properties"].as_object().unwrap();
        let required = schema["required"].as_array().unwrap();
        let required: BTreeSet<_> =
            required.iter().map(|it| it.as_str().unwrap()).collect();
        let names: BTreeSet<_> = fields.keys().map(String::as_str).collect();
        assert_eq!(names, required, "{at}: what is there, and what must be");
        assert_eq!(names, properties.keys().map(String::as_str).collect(), "{at}");
        for (name, field) in fields {
            check(description, &properties[name], field, &format!("{at}.{name}"));
        }
    }
}

/// Returns what a client is told at a path, which is checked against its description.
async fn told(router: &mut Router, path: &str, status: StatusCode) -> Value {
    let (found, body) = ask(router, "Clients", Method::GET, path, &Value::Null).await;
    assert_eq!(found, status, "{path}: {body}");
    let told: Value = serde_json::from_str(&body).unwrap();
    let description = description();
    let name = match path.split('?').next().unwrap() {
        path if path.starts_with("/measurements/") => "/measurements/{token}",
        path => path,
    };
    let response = &description["paths"][name]["get"]["responses"][status.as_str()];
    let response = response
        .get("$ref")
        .map_or(response, |reference| resolve(&description, reference.as_str().unwrap()));
    check(&description, &response["content"]["application/json"]["schema"], &told, name);
    told
}

/// Makes a message about a measurement.
fn message(kind: &str, token: &str) -> Value {
    let mut message = json!({
        "version": 1,
        "registry": "http://ict-mplane.eu/registry/core",
        "label": "pinger",
        "when": "now ... future / 1s",
        "parameters": {"source.ip4": "192.0.2.1"},
        "results": ["delay.twoway.icmp.us"],
    });
    message[kind] = "measure".into();
    if kind != "capability" {
        message["token"] = token.into();
        message["when"] = "now + 5s / 1s".into();
    }
    if kind == "result" {
        message["resultvalues"] = json!([["250"]]);
        message["when"] = "2026-06-01 12:00:00 ... 2026-06-01 12:00:05".into();
    }
    message
}

#[tokio::test]
async fn what_is_told_has_exactly_the_described_fields() {
    let folder = tempfile::tempdir().unwrap();
    let mut router = supervisor(&folder).await.router();
    let none = told(&mut router, "/components", StatusCode::OK).await;
    assert_eq!(none["components"], json!([]));
    told(&mut router, "/measurements/unknown", StatusCode::NOT_FOUND).await;

    let offer = json!({"envelope": "capability", "version": 1,
        "contents": [message("capability", "")]});
    let register = "/register/capability";
    let (status, body) =
        ask(&mut router, "Components", Method::POST, register, &offer).await;
    assert!(status.is_success() && body.contains("ok"), "{body}");
    // One that ends, one that waits, and one that is refused.
    for token in ["first", "second", "third"] {
        let mut specification = message("specification", token);
        if token == "third" {
            specification["results"] = json!(["packets.lost"]);
        }
        let (status, body) =
            ask(&mut router, "Clients", Method::POST, "/", &specification).await;
        assert!(status.is_success(), "{body}");
        if token == "first" {
            let path = "/show/specification";
            let (_, fetched) =
                ask(&mut router, "Components", Method::GET, path, &Value::Null).await;
            let fetched: Value = serde_json::from_str(&fetched).unwrap();
            let handed = fetched["contents"][0]["token"].as_str().unwrap();
            let result = message("result", handed);
            let path = "/register/result";
            let (status, body) =
                ask(&mut router, "Components", Method::POST, path, &result).await;
            assert!(status.is_success(), "{body}");
        }
    }
    let components = told(&mut router, "/components?presence=connected", StatusCode::OK);
    assert_eq!(components.await["components"][0]["capabilities"], json!(["pinger"]));
    let page = told(&mut router, "/measurements?limit=1", StatusCode::OK).await;
    assert!(page["before"].is_u64(), "there are more: {page}");
    let all = told(&mut router, "/measurements", StatusCode::OK).await;
    let states: Vec<_> = all["measurements"].as_array().unwrap().iter().collect();
    let states: Vec<_> = states.iter().map(|known| &known["state"]).collect();
    assert_eq!(states, ["queued", "result"]);
    let stories = told(&mut router, "/measurements/first", StatusCode::OK).await;
    assert!(stories["stories"][0]["steps"].as_array().unwrap().len() >= 3, "{stories}");
    let refused = told(&mut router, "/measurements/third", StatusCode::OK).await;
    assert_eq!(refused["refused"].as_array().unwrap().len(), 1, "{refused}");
}

#[tokio::test]
async fn the_description_is_told_to_clients_as_what_it_describes() {
    let folder = tempfile::tempdir().unwrap();
    let mut router = supervisor(&folder).await.router();
    for path in ["/openapi.json", "/components", "/measurements", "/measurements/none"] {
        let (status, _) =
            ask(&mut router, "Components", Method::GET, path, &Value::Null).await;
        assert_eq!(status, StatusCode::FORBIDDEN, "{path}");
    }
    let path = "/openapi.json";
    let (status, body) =
        ask(&mut router, "Clients", Method::GET, path, &Value::Null).await;
    assert_eq!((status, body.as_str()), (StatusCode::OK, DESCRIPTION));
}

#[tokio::test]
async fn the_port_for_metrics_and_health_is_as_described() {
    let listener = listen("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let url = BaseUrl::parse(&url, Some(PlainHttp::Loopback)).unwrap();
    let end = CancellationToken::new();
    let is_ready = Arc::new(AtomicBool::new(true));
    let ready: Ready = Arc::new({
        let is_ready = Arc::clone(&is_ready);
        move || {
            is_ready.load(Ordering::Relaxed).then_some(()).ok_or_else(|| "not yet".into())
        }
    });
    tokio::spawn(serve(listener, Registry::default(), ready, end.clone()));
    let client = HttpClient::new(None);
    let description = description();
    let mut statuses = BTreeSet::new();
    for (path, item) in description["paths"].as_object().unwrap() {
        if item.get("servers").is_none() {
            continue;
        }
        for word in [true, false] {
            is_ready.store(word, Ordering::Relaxed);
            let ask =
                Ask { method: Method::GET, path, messages: &[], wait: Duration::ZERO };
            let answer = client.ask(&url, ask).await.unwrap();
            let response = &item["get"]["responses"][answer.status.as_str()];
            let content = response["content"].as_object().expect("it is described");
            let described = content.keys().all(|it| it.starts_with(&answer.content_type));
            assert!(described, "{path}: {}", answer.content_type);
            statuses.insert((path.as_str(), answer.status.as_u16()));
        }
    }
    let expected =
        [("/healthz", 200), ("/metrics", 200), ("/readyz", 200), ("/readyz", 503)];
    assert_eq!(statuses, expected.into());
    end.cancel();
}
