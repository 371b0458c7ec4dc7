//! The client driver: discovers capabilities, sends specifications, redeems results.

use std::sync::Arc;
use std::time::Duration;

use http::{Method, StatusCode};
use jiff::Timestamp;
use mplane::exchange::client::{
    ClientExchange, Measurement, MeasurementState, SpecifyError,
};
use mplane::json::{self, DecodeError, Unreadable};
use mplane::message::{Interrupt, Message};
use mplane::registry::Registries;
use mplane::when::When;
use tracing::warn;

use crate::http::client::{Answer, Ask, AskError, BaseUrl, HttpClient};
use crate::http::path;
use crate::tls::{Credentials, fresh_token};

/// A client of one component or supervisor.
#[derive(Debug)]
pub struct Client {
    http: Arc<HttpClient>,
    base: BaseUrl,
    registries: Registries,
    exchange: ClientExchange,
}

impl Client {
    /// Makes a client of the component or supervisor at a URL.
    pub fn new(credentials: &Credentials, base: BaseUrl, registries: Registries) -> Self {
        let http = Arc::new(HttpClient::new(credentials));
        Self { http, base, registries, exchange: ClientExchange::default() }
    }

    /// Returns where requests go.
    pub const fn url(&self) -> &BaseUrl {
        &self.base
    }

    /// Sends requests elsewhere from now on. What is known stays known.
    pub fn set_url(&mut self, base: BaseUrl) {
        self.base = base;
    }

    /// Returns what is known: capabilities and measurements.
    pub const fn known(&self) -> &ClientExchange {
        &self.exchange
    }

    /// Fetches the capabilities; those known before from the same peer are replaced.
    /// Returns how many there are.
    pub async fn discover(&mut self) -> Result<usize, ClientError> {
        let ask = Ask {
            method: Method::GET,
            path: path::CAPABILITIES,
            messages: &[],
            wait: Duration::ZERO,
        };
        let answer = self.ask(ask).await?;
        let parts = json::decode_parts(&answer.body, &self.registries)?;
        self.exchange.forget_capabilities(&answer.identity);
        for message in parts.messages {
            match message {
                Ok(message) => self.exchange.handle(&answer.identity, message),
                Err(Unreadable { label, error }) => warn!(
                    label,
                    %error,
                    "a capability cannot be read and is left out"
                ),
            }
        }
        Ok(self
            .exchange
            .capabilities()
            .filter(|(peer, _)| **peer == answer.identity)
            .count())
    }

    /// Makes a specification of a capability, named by label or token, and sends it.
    /// Waits at most so long for the result; returns the state of the measurement.
    pub async fn run<'a>(
        &mut self,
        capability: &str,
        when: When,
        parameters: impl IntoIterator<Item = (&'a str, &'a str)>,
        wait: Duration,
    ) -> Result<Measurement, ClientError> {
        let measurement = self
            .exchange
            .specify(capability, when, parameters, fresh_token(), Timestamp::now())
            .map_err(|error| ClientError::Specify(Box::new(error)))?;
        let specification = measurement.specification.clone();
        self.send(specification.into(), wait).await?;
        Ok(self.latest(measurement))
    }

    /// Asks for the result of a measurement, waiting at most so long for it; returns its
    /// state.
    pub async fn redeem(
        &mut self,
        measurement: Measurement,
        wait: Duration,
    ) -> Result<Measurement, ClientError> {
        if let Some(redemption) = measurement.redemption() {
            self.send(redemption.into(), wait).await?;
        }
        Ok(self.latest(measurement))
    }

    /// Stops a measurement; returns its state.
    pub async fn interrupt(
        &mut self,
        measurement: Measurement,
    ) -> Result<Measurement, ClientError> {
        let interrupt = Interrupt::of(&measurement.specification);
        self.send(interrupt.into(), Duration::ZERO).await?;
        Ok(self.latest(measurement))
    }

    /// Sends a message and takes note of the answer.
    async fn send(
        &mut self,
        message: Message,
        wait: Duration,
    ) -> Result<(), ClientError> {
        let messages = [message];
        let ask = Ask { method: Method::POST, path: "/", messages: &messages, wait };
        let answer = self.ask(ask).await?;
        for message in answer.messages(&self.registries)? {
            self.exchange.handle(&answer.identity, message);
        }
        Ok(())
    }

    /// Sends a request and refuses answers that are not understood.
    async fn ask(&self, ask: Ask<'_>) -> Result<Answer, ClientError> {
        let answer = self.http.ask(&self.base, ask).await?;
        if answer.status == StatusCode::OK {
            return Ok(answer);
        }
        let reason = match answer.messages(&self.registries).as_deref() {
            Ok([Message::Exception(exception)]) => exception.message().to_owned(),
            _ => String::from_utf8_lossy(&answer.body).chars().take(200).collect(),
        };
        Err(ClientError::Refused { status: answer.status, reason })
    }

    /// Returns what is now known of a measurement.
    fn latest(&self, measurement: Measurement) -> Measurement {
        let token = measurement.specification.token();
        self.exchange.measurement(token.as_str()).cloned().unwrap_or(measurement)
    }
}

/// Says whether nothing more is to come of a measurement.
pub const fn is_settled(measurement: &Measurement) -> bool {
    !matches!(measurement.state, MeasurementState::Sent | MeasurementState::Promised(_))
}

/// Why a client could not do what it was asked to.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The peer cannot be reached.
    #[error(transparent)]
    Ask(#[from] AskError),
    /// The answer is no message.
    #[error("the answer cannot be read")]
    Decode(#[from] DecodeError),
    /// The peer refused the request.
    #[error("the answer was {status}: {reason}")]
    Refused {
        /// The HTTP status.
        status: StatusCode,
        /// What the peer says.
        reason: String,
    },
    /// The specification cannot be made.
    #[error(transparent)]
    Specify(Box<SpecifyError>),
}
