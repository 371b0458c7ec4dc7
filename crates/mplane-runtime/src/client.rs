//! The client driver: discovers capabilities, sends specifications, redeems results.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use http::{Method, StatusCode};
use jiff::Timestamp;
use mplane::access::Identity;
use mplane::exchange::client::{ClientExchange, Measurement, SpecifyError};
use mplane::features::Features;
use mplane::json::{self, DecodeError, Unreadable};
use mplane::limits;
use mplane::message::{Interrupt, Message};
use mplane::registry::Registries;
use mplane::token::Token;
use mplane::when::When;
use tracing::warn;

use crate::http::client::{Answer, Ask, AskError, BaseUrl, HttpClient};
use crate::http::path;
use crate::initiator::later;
use crate::report;
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
    /// Makes a client of the component or supervisor at a URL, without credentials for
    /// plain HTTP only.
    pub fn new(
        credentials: Option<Arc<Credentials>>,
        base: BaseUrl,
        registries: Registries,
    ) -> Self {
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

    /// Forgets the capabilities of all peers.
    pub fn forget_capabilities(&mut self) {
        let peers: BTreeSet<_> =
            self.exchange.capabilities().map(|(peer, _)| peer.clone()).collect();
        for peer in &peers {
            self.exchange.forget_capabilities(peer);
        }
    }

    /// Fetches the capabilities; those known before from the same peer are replaced.
    /// Returns how many there are.
    ///
    /// A reference component has no list of them but a page of links, which are followed.
    pub async fn discover(&mut self) -> Result<usize, ClientError> {
        let (mut found, mut next) = (Vec::new(), path::CAPABILITIES.to_owned());
        let mut pages = 0;
        let peer = loop {
            let answer = match self.ask(Self::get(&next)).await {
                Err(ClientError::Refused { status: StatusCode::NOT_FOUND, .. })
                    if pages == 0 =>
                {
                    break self.crawl(&mut found).await?;
                }
                answer => answer?,
            };
            found.extend(self.read_capabilities(&answer)?);
            pages += 1;
            match answer.next {
                None => break answer.identity,
                Some(_) if pages == PAGES => return Err(ClientError::Endless { pages }),
                Some(path) => next = path,
            }
        };
        self.exchange.forget_capabilities(&peer);
        for message in found {
            self.exchange.handle(&peer, message);
        }
        Ok(self.exchange.capabilities().filter(|(of, _)| **of == peer).count())
    }

    /// Follows the links of a page; returns who has it. One that leads to no capability is
    /// left out with a warning.
    async fn crawl(&self, found: &mut Vec<Message>) -> Result<Identity, ClientError> {
        let page = self.ask(Self::get(path::CAPABILITY_PAGE)).await?;
        for link in links(&page.body) {
            let answer = self.ask(Self::get(&link)).await;
            match answer.and_then(|answer| self.read_capabilities(&answer)) {
                Ok(capabilities) => found.extend(capabilities),
                Err(ClientError::Ask(error)) => return Err(error.into()),
                Err(error) => {
                    let problem = report(&error);
                    warn!(link, problem, "leads to no capability");
                }
            }
        }
        Ok(page.identity)
    }

    /// Reads the capabilities of an answer; what cannot be read is left out with a
    /// warning.
    fn read_capabilities(&self, answer: &Answer) -> Result<Vec<Message>, ClientError> {
        let parts = json::decode_parts(&answer.body, &self.registries)?;
        let readable = parts.messages.into_iter().filter_map(|message| match message {
            Ok(message) => Some(message),
            Err(Unreadable { label, error, .. }) => {
                warn!(label, %error, "a capability cannot be read and is left out");
                None
            }
        });
        Ok(readable.collect())
    }

    /// Makes a request for what is at a path.
    const fn get(path: &str) -> Ask<'_> {
        Ask { method: Method::GET, path, messages: &[], wait: Duration::ZERO }
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
        let now = Timestamp::now();
        self.exchange.interrupted(&measurement.peer, interrupt.token(), now);
        self.send(interrupt.into(), Duration::ZERO).await?;
        Ok(self.latest(measurement))
    }

    /// Returns what the peer has announced to understand.
    pub fn features(&self) -> Features {
        self.http.features(&self.base)
    }

    /// Sends a message for somebody else, who takes note of the answer: it is returned with
    /// who has given it. Waits at most so long for a result.
    pub async fn post(
        &self,
        message: Message,
        wait: Duration,
    ) -> Result<(Identity, Vec<Message>), ClientError> {
        let (token, messages) = (message.token(), [message]);
        let ask = Ask { method: Method::POST, path: "/", messages: &messages, wait };
        let answer = self.ask(ask).await?;
        let answers = self.read_answers(token.as_ref(), &answer)?;
        Ok((answer.identity, answers))
    }

    /// Sends a message and takes note of the answer.
    async fn send(
        &mut self,
        message: Message,
        wait: Duration,
    ) -> Result<(), ClientError> {
        let (token, messages) = (message.token(), [message]);
        let ask = Ask { method: Method::POST, path: "/", messages: &messages, wait };
        let answer = self.ask(ask).await?;
        for message in self.read_answers(token.as_ref(), &answer)? {
            self.exchange.handle(&answer.identity, message);
        }
        Ok(())
    }

    /// Reads the answers to a message with this token. Some peers do not say what their
    /// exception is about: it is about the message.
    fn read_answers(
        &self,
        token: Option<&Token>,
        answer: &Answer,
    ) -> Result<Vec<Message>, ClientError> {
        let mut answers = answer.messages(&self.registries)?;
        for answer in &mut answers {
            if let Message::Exception(exception) = answer
                && exception.token().is_none()
            {
                exception.set_token(token.cloned());
            }
        }
        Ok(answers)
    }

    /// Sends a request and refuses answers that are not understood. A peer that is overloaded
    /// is asked again when it says so: nothing has come of the request.
    async fn ask(&self, ask: Ask<'_>) -> Result<Answer, ClientError> {
        for _ in 0..RETRIES {
            let answer = self.http.ask(&self.base, ask.clone()).await?;
            match answer.retry_after {
                Some(after) if answer.status == StatusCode::SERVICE_UNAVAILABLE => {
                    let after = after.min(LONGEST_RETRY);
                    warn!(peer = %answer.identity, ?after, "is overloaded; asks again");
                    later(after).await;
                }
                _ => return self.understood(answer),
            }
        }
        let answer = self.http.ask(&self.base, ask).await?;
        self.understood(answer)
    }

    /// Refuses an answer that is not understood.
    fn understood(&self, answer: Answer) -> Result<Answer, ClientError> {
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

/// How often a peer that is overloaded is asked again.
const RETRIES: usize = 5;

/// How long to wait at most before a peer that is overloaded is asked again.
const LONGEST_RETRY: Duration = Duration::from_secs(10);

/// Pages of capabilities read at most: a peer may go on for ever.
const PAGES: usize = 10_000;

/// Links followed at most: as many capabilities as an envelope may hold.
const LINKS: usize = limits::ENVELOPE_CONTENTS;

/// Returns the paths that a page links to, on the same host: reference components write
/// one for each capability.
fn links(page: &[u8]) -> Vec<String> {
    let page = String::from_utf8_lossy(page);
    let mut links = BTreeSet::new();
    for after in page.split("href=").skip(1).take(LINKS) {
        let mut characters = after.chars();
        let Some(quote @ ('"' | '\'')) = characters.next() else { continue };
        let link: String = characters.take_while(|c| *c != quote).collect();
        if link.starts_with('/') && !link.starts_with("//") {
            links.insert(link);
        }
    }
    links.into_iter().collect()
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
    /// There are always more capabilities.
    #[error("the peer has more than {pages} pages of capabilities, which is too much")]
    Endless {
        /// How many were read.
        pages: usize,
    },
    /// The specification cannot be made.
    #[error(transparent)]
    Specify(Box<SpecifyError>),
}

impl ClientError {
    /// Says whether the same may be asked again with more success: the peer, or the way to it,
    /// is out of order for a while.
    pub const fn is_passing(&self) -> bool {
        match self {
            Self::Ask(
                AskError::Connect { .. } | AskError::Body(_) | AskError::TooLate { .. },
            ) => true,
            Self::Refused { status, .. } => {
                matches!(*status, StatusCode::SERVICE_UNAVAILABLE)
            }
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::links;

    #[test]
    fn links_are_paths_on_the_same_host() {
        let page = b"<a href='/capability/1'>a</a><a href=\"/capability/2\">b</a>\
                     <a href='https://elsewhere/'>c</a><a href='//elsewhere/'>d</a>\
                     <a href='/capability/1'>again</a><a href='";
        assert_eq!(links(page), ["/capability/1", "/capability/2"]);
    }
}
