//! A client that sends one specification again and again over a connection of its own.

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::Method;
use mplane::message::{Interrupt, Message, Redemption, Specification};
use mplane::registry::Registries;
use mplane::token::Token;
use mplane_runtime::client::Client;
use mplane_runtime::http::client::{Ask, BaseUrl, HttpClient};
use mplane_runtime::tls::{Credentials, fresh_token};

/// How long a result is waited for.
const PATIENCE: Duration = Duration::from_secs(30);

/// The shortest scope: one measurement. Services of ours need a period.
const AT_ONCE: &str = "now + 0s / 1s";

/// A client with a specification.
pub(super) struct Asker {
    credentials: Arc<Credentials>,
    http: HttpClient,
    base: BaseUrl,
    registries: Registries,
    specification: Specification,
    /// Whether who is asked sends back what it gets.
    is_echo: bool,
}

impl Asker {
    /// Makes a client of a component, with what its capability of this label asks for,
    /// now.
    pub(super) async fn discover(
        credentials: Arc<Credentials>,
        url: &str,
        label: &str,
        parameters: &[(&str, &str)],
    ) -> Self {
        let base = BaseUrl::parse(url, None).expect("it is a URL");
        let registries = Registries::embedded();
        let mut client =
            Client::new(Some(Arc::clone(&credentials)), base.clone(), registries.clone());
        client.discover().await.expect("the component answers");
        let mut known = client.known().capabilities();
        let capability = known.find(|(_, known)| known.label() == Some(label));
        let (_, capability) = capability.expect("the component offers it");
        let mut specification = Specification::of(capability);
        specification.set_when(AT_ONCE.parse().expect("it is a scope"));
        for (name, value) in parameters {
            specification.set_parameter(name, value).expect("it is allowed");
        }
        let http = HttpClient::new(Some(Arc::clone(&credentials)));
        Self { credentials, http, base, registries, specification, is_echo: false }
    }

    /// Returns a client like this one with a connection of its own.
    pub(super) fn another(&self) -> Self {
        Self {
            credentials: Arc::clone(&self.credentials),
            http: HttpClient::new(Some(Arc::clone(&self.credentials))),
            base: self.base.clone(),
            registries: self.registries.clone(),
            specification: self.specification.clone(),
            is_echo: self.is_echo,
        }
    }

    /// Sends the same requests to somebody who sends them back.
    pub(super) fn at_echo(mut self, url: &str) -> Self {
        self.base = BaseUrl::parse(url, None).expect("it is a URL");
        self.is_echo = true;
        self
    }

    /// Has it measured over this scope instead of now.
    pub(super) fn over(mut self, scope: &str) -> Self {
        self.specification.set_when(scope.parse().expect("it is a scope"));
        self
    }

    /// Sends a specification and waits for its result; returns how long that took.
    pub(super) async fn run(&self) -> Duration {
        let started = Instant::now();
        let (token, mut answer) = self.submit(PATIENCE).await;
        while let Message::Receipt(_) = answer {
            answer = self.redeem(token.clone()).await;
        }
        let took = started.elapsed();
        let is_answered = match answer {
            Message::Specification(_) => self.is_echo,
            Message::Result(_) => !self.is_echo,
            _ => false,
        };
        assert!(is_answered, "{answer}");
        took
    }

    /// Sends a specification with a token of its own; returns it with the answer.
    pub(super) async fn submit(&self, wait: Duration) -> (Token, Message) {
        let token = fresh_token();
        let mut specification = self.specification.clone();
        specification.set_token(Some(token.clone()));
        (token, self.ask(specification.into(), wait).await)
    }

    /// Asks for a result, and waits for it.
    pub(super) async fn redeem(&self, token: Token) -> Message {
        self.ask(Redemption::token_only("measure", token).into(), PATIENCE).await
    }

    /// Ends a measurement.
    pub(super) async fn interrupt(&self, token: Token) -> Message {
        self.ask(Interrupt::token_only("measure", token).into(), Duration::ZERO).await
    }

    /// Posts a message; returns the answer.
    async fn ask(&self, message: Message, wait: Duration) -> Message {
        let messages = [message];
        let ask = Ask { method: Method::POST, path: "/", messages: &messages, wait };
        let answer = self.http.ask(&self.base, ask).await.expect("it answers");
        let mut answers = answer.messages(&self.registries).expect("it is a message");
        answers.pop().expect("it is one message")
    }
}
