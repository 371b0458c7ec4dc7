//! A reference client, recorded, asks a listening component of ours.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use axum::Router;
use mplane::access::{Identity, IdentityRule, Policy};
use mplane::exchange::component::{Budget, ComponentExchange};
use mplane::features::Features;
use mplane::json;
use mplane::message::{Capability, Message, Table};
use mplane::token::Token;
use mplane_runtime::component::{Component, Listening, Offered};
use mplane_runtime::http::Peer;
use mplane_runtime::http::routes::client_routes;
use mplane_runtime::service::{Completed, Run, RunError, Service, Work};
use mplane_testbed::vectors;
use serde_json::Value;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::essence::Answer;
use crate::replay::{
    Decision, Exchange, KIND_OF_RESULTS, NO_BLANK, NO_LINK, Replay, ask,
};

/// What came of a specification when it was recorded.
#[derive(Clone, Debug)]
pub(crate) enum End {
    /// These rows.
    Rows(Table),
    /// A failure.
    Failed(String),
}

/// Services that do what was recorded, when they are told to.
#[derive(Clone, Debug)]
pub(crate) struct Script {
    /// What comes of specifications, by token.
    ends: Arc<BTreeMap<String, End>>,
    /// The tokens of those that may end.
    released: watch::Sender<BTreeSet<String>>,
    /// What comes of all at once, whatever is recorded of each.
    always: Option<End>,
}

impl Script {
    /// Makes a script of what was answered in the end.
    pub(crate) fn of(answers: impl IntoIterator<Item = String>) -> Self {
        let registries = vectors::registries();
        let mut ends = BTreeMap::new();
        for answer in answers {
            let Ok(message) = json::decode(answer.as_bytes(), &registries) else {
                continue;
            };
            let token = message.token().map(|token| token.to_string());
            let end = match message {
                Message::Result(result) => End::Rows(result.table().clone()),
                Message::Exception(failure) => End::Failed(failure.message().to_owned()),
                Message::Envelope(results) => match results.messages().first() {
                    // Each measurement of a repeat yields the same.
                    Some(Message::Result(result)) => End::Rows(result.table().clone()),
                    _ => continue,
                },
                _ => continue,
            };
            ends.insert(token.expect("an answer has a token"), end);
        }
        Self { ends: Arc::new(ends), released: watch::Sender::default(), always: None }
    }

    /// Has the same come of all at once: what came of one.
    pub(crate) fn always(mut self) -> Self {
        let rows = self.ends.values().find(|end| matches!(end, End::Rows(_)));
        self.always = rows.cloned();
        self
    }

    /// Lets a specification end.
    pub(crate) fn release(&self, token: &str) {
        self.released.send_modify(|known| {
            known.insert(token.to_owned());
        });
    }
}

/// A service that does what was recorded.
pub(crate) struct Scripted {
    pub(crate) capability: Capability,
    pub(crate) script: Script,
}

impl Service for Scripted {
    fn capability(&self) -> Capability {
        self.capability.clone()
    }

    fn run(&self, work: Work) -> Run<'_> {
        Box::pin(async move {
            let token = work.specification.token().to_string();
            let mut released = self.script.released.subscribe();
            let may_end = |tokens: &BTreeSet<String>| {
                self.script.always.is_some() || tokens.contains(&token)
            };
            tokio::select! {
                _ = released.wait_for(may_end) => {}
                () = work.stop.cancelled() => {}
            }
            match self.script.always.as_ref().or_else(|| self.script.ends.get(&token)) {
                Some(End::Rows(table)) => {
                    for row in table.iter() {
                        work.rows.push(row.values())?;
                    }
                    Ok(Completed::default())
                }
                Some(End::Failed(reason)) => Err(RunError(reason.clone())),
                None => Err(RunError("nothing is recorded of this".into())),
            }
        })
    }
}

/// Makes a component that offers these capabilities and does what was recorded.
pub(crate) fn component(
    capabilities: impl IntoIterator<Item = Capability>,
    script: &Script,
    policy: Policy,
) -> Arc<Component> {
    let offered = capabilities.into_iter().map(|mut capability| {
        capability.set_link(None);
        let service = Scripted { capability, script: script.clone() };
        Offered { service: Arc::new(service), budget: Budget::default() }
    });
    let (registries, exchange) = (vectors::registries(), ComponentExchange::default());
    let shutdown = CancellationToken::new();
    let component =
        Component::new(offered.collect(), registries, exchange, None, shutdown)
            .expect("a timer");
    component.set_policy(policy);
    component
}

/// Replays what a client and a component said.
async fn replay(
    record: &'static str,
    policy: impl FnOnce(&[Capability]) -> Policy,
    decisions: &'static [Decision],
) {
    let exchanges = Exchange::load(record);
    let registries = vectors::registries();
    let decode = |exchange: &Exchange| {
        json::decode(exchange.answer().body.as_bytes(), &registries).ok()
    };
    let mut capabilities = Vec::new();
    for exchange in &exchanges {
        if let Some(Message::Capability(capability)) = decode(exchange)
            && !capabilities.contains(&capability)
        {
            capabilities.push(capability);
        }
    }
    let script = Script::of(exchanges.iter().map(|exchange| exchange.answer().body));
    let component = component(capabilities.clone(), &script, policy(&capabilities));
    let router = client_routes(Arc::new(Listening(component)));
    let mut replay = Replay::new(record, router, decisions);
    let promises = |exchange: &Exchange, token: &Token| {
        let answered = decode(exchange);
        answered.is_some_and(|answered| {
            matches!(answered, Message::Receipt(_))
                && answered.token().as_ref() == Some(token)
        })
    };
    for (index, exchange) in exchanges.iter().enumerate() {
        let ended = decode(exchange).filter(|answered| {
            !matches!(answered, Message::Receipt(_) | Message::Capability(_))
        });
        if let Some(token) = ended.and_then(|ended| ended.token())
            && !exchanges.iter().skip(index).any(|later| promises(later, &token))
        {
            script.release(token.as_str());
        }
        replay.exchange(exchange).await;
    }
    replay.finish();
}

#[tokio::test(start_paused = true)]
async fn a_recorded_client_is_answered_by_a_component_as_recorded() {
    let decisions = &[NO_LINK, NO_BLANK, KIND_OF_RESULTS];
    replay("client-component", |_| Policy::default(), decisions).await;
}

#[tokio::test(start_paused = true)]
async fn recorded_clients_with_certificates_are_answered_by_a_component_as_recorded() {
    let policy = |capabilities: &[Capability]| {
        let who =
            [IdentityRule::Text("org.mplane.Test.Clients.Client-1".to_owned())].to_vec();
        let roles = ["guest".to_owned()].to_vec();
        let labels = capabilities.iter().filter_map(|known| known.label());
        Policy::new(
            [("guest", who.as_slice())],
            labels.map(|label| (label, roles.as_slice())),
        )
        .expect("a policy")
    };
    replay("client-component-tls", policy, &[NO_LINK]).await;
}

#[tokio::test(start_paused = true)]
async fn hostile_requests_are_answered_by_a_component_with_a_reason() {
    let capability = br#"{"capability": "measure", "version": 1, "label": "peer-echo",
        "registry": "http://ict-mplane.eu/registry/core", "when": "now ... future",
        "parameters": {"source.ip4": "127.0.0.1", "destination.ip4": "*"},
        "results": ["time", "delay.twoway.icmp.us", "hops.ip"]}"#;
    let capability = match json::decode(capability, &vectors::registries()) {
        Ok(Message::Capability(capability)) => capability,
        other => panic!("{other:?}"),
    };
    let script = Script::of([]);
    let component = component([capability], &script, Policy::default());
    let mut router = client_routes(Arc::new(Listening(component)));
    let record = vectors::load("../../mplane-supervisor/vectors/hostile.json");
    let requests = record["requests"].as_array().expect("requests");
    assert!(requests.len() > 90, "{}", requests.len());
    for request in requests {
        let answer = ask_hostile(&mut router, request).await;
        let refused = (400..500).contains(&answer.status) && answer.status != 405;
        assert!(answer.status < 500, "{request:#}: {answer:?}");
        assert!(!refused || !answer.body.is_empty(), "{request:#}: no reason");
        let still = serde_json::json!({"method": "GET", "path": "/capabilities"});
        let answer = ask_hostile(&mut router, &still).await;
        assert!(answer.body.contains("peer-echo"), "{request:#}: {answer:?}");
    }
}

/// Sends a request of somebody who means no good.
async fn ask_hostile(router: &mut Router, request: &Value) -> Answer {
    let text = |key: &str| request[key].as_str().unwrap_or_default();
    let body = if request["hex"].is_null() {
        text("body").as_bytes().to_vec()
    } else {
        let digits = text("hex").as_bytes().chunks(2);
        let byte = |pair| u8::from_str_radix(str::from_utf8(pair).ok()?, 16).ok();
        digits.map(|pair| byte(pair).expect("two digits")).collect()
    };
    let mut headers = serde_json::json!({"prefer": "wait=0"});
    if !request["content_type"].is_null() {
        headers["content-type"] = request["content_type"].clone();
    }
    let request = serde_json::json!({
        "method": request["method"], "path": request["path"], "headers": headers,
    });
    let peer = Peer { identity: Identity::unauthenticated(), features: Features::NONE };
    ask(router, peer, &request, body).await
}
