//! The HTTPS client: pooled connections with mutual TLS that know who answers.
//!
//! Proxies are never used: an mPlane domain authenticates its peers itself.

use std::collections::HashMap;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::{Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Method, Request, StatusCode, Uri, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use mplane::access::Identity;
use mplane::features::{self, Features};
use mplane::json::{self, DecodeError, MEDIA_TYPE};
use mplane::limits;
use mplane::message::Message;
use mplane::registry::Registries;
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tracing::debug;

use super::{announced_features, describe};
use crate::tls::{Credentials, identity_of};

/// How long a connection, TLS handshake included, may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a peer may take for an answer, beyond the time it was asked to wait.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// How long idle connections are kept. Servers close theirs a little later.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);

/// The base URL of a peer: scheme, host and port, and a path without trailing slash.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct BaseUrl {
    authority: String,
    path: String,
}

impl BaseUrl {
    /// Reads a URL such as `https://127.0.0.1:8890/`.
    pub fn parse(text: &str) -> Result<Self, ParseUrlError> {
        let refused =
            |problem| ParseUrlError { url: text.chars().take(200).collect(), problem };
        let uri: Uri = text.parse().map_err(|_| refused("it is not a URL"))?;
        match uri.scheme_str() {
            Some("https") => {}
            Some("http") => {
                return Err(refused("plain HTTP is not spoken, use https"));
            }
            _ => return Err(refused("it starts with https://")),
        }
        let authority = uri.authority().ok_or_else(|| refused("it names no host"))?;
        if authority.port_u16().is_none() {
            return Err(refused("it names no port, such as :8890"));
        }
        if authority.as_str().contains('@') {
            return Err(refused("certificates say who one is, not user names"));
        }
        Ok(Self {
            authority: authority.to_string(),
            path: uri.path().trim_end_matches('/').to_owned(),
        })
    }

    /// Returns the URL of a path below.
    fn join(&self, path: &str) -> Result<Uri, http::Error> {
        Uri::builder()
            .scheme("https")
            .authority(self.authority.as_str())
            .path_and_query(format!("{}{path}", self.path))
            .build()
    }
}

impl std::fmt::Display for BaseUrl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "https://{}{}/", self.authority, self.path)
    }
}

impl std::str::FromStr for BaseUrl {
    type Err = ParseUrlError;

    fn from_str(text: &str) -> Result<Self, ParseUrlError> {
        Self::parse(text)
    }
}

/// Text that is no base URL.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{url:?} cannot be used: {problem}; write https://HOST:PORT/")]
pub struct ParseUrlError {
    url: String,
    problem: &'static str,
}

/// A request to a peer.
#[derive(Debug)]
pub struct Ask<'a> {
    /// `GET`, or `POST` with messages.
    pub method: Method,
    /// The path below the base URL.
    pub path: &'a str,
    /// What to send.
    pub messages: &'a [Message],
    /// How long the peer may wait for something to answer (`Prefer: wait`).
    pub wait: Duration,
}

/// What a peer answered.
#[derive(Debug)]
pub struct Answer {
    /// The HTTP status.
    pub status: StatusCode,
    /// Who answered.
    pub identity: Identity,
    /// What it understands.
    pub features: Features,
    /// Whether it has waited as asked.
    pub waited: bool,
    /// How far its clock is ahead of ours, in whole seconds (its header `Date` has no
    /// more); `None` if it does not tell.
    pub clock_ahead_s: Option<i64>,
    /// The content type, without parameters.
    pub content_type: String,
    /// The body.
    pub body: Bytes,
}

impl Answer {
    /// Reads the messages in it. An empty body, and a body of another type, holds none.
    pub fn messages(&self, registries: &Registries) -> Result<Vec<Message>, DecodeError> {
        if self.body.is_empty() || self.content_type != MEDIA_TYPE {
            return Ok(Vec::new());
        }
        json::decode_all(&self.body, registries)
    }
}

/// A client with an identity of its own.
#[derive(Debug)]
pub struct HttpClient {
    pool: Client<Connector, Full<Bytes>>,
    identity: Identity,
    /// What peers have announced, by authority.
    features: Mutex<HashMap<String, Features>>,
}

impl HttpClient {
    /// Makes a client that shows this certificate.
    pub fn new(credentials: &Credentials) -> Self {
        let pool = Client::builder(TokioExecutor::new())
            .pool_idle_timeout(IDLE_TIMEOUT)
            .pool_timer(TokioTimer::new())
            .build(Connector { tls: TlsConnector::from(credentials.client()) });
        Self {
            pool,
            identity: credentials.identity().clone(),
            features: Mutex::default(),
        }
    }

    /// Returns who this client is.
    pub const fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Returns what a peer has announced to understand.
    pub fn features(&self, base: &BaseUrl) -> Features {
        let known = self.features.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(&base.authority).copied().unwrap_or_default()
    }

    /// Sends a request and returns the answer, whatever its status.
    pub async fn ask(&self, base: &BaseUrl, ask: Ask<'_>) -> Result<Answer, AskError> {
        let started = Instant::now();
        let limit = ask.wait + ANSWER_TIMEOUT;
        let answer = tokio::time::timeout(limit, self.ask_untimed(base, &ask))
            .await
            .unwrap_or(Err(AskError::TooLate { seconds: limit.as_secs() }));
        let took_us = u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX);
        match &answer {
            Ok((answer, sent)) => debug!(
                target: EXCHANGE,
                from = %self.identity,
                to = %answer.identity,
                method = %ask.method,
                path = ask.path,
                sends = describe(ask.messages),
                gets = describe_answer(answer),
                status = answer.status.as_u16(),
                sent_bytes = sent,
                received_bytes = answer.body.len(),
                took_us,
            ),
            Err(error) => debug!(
                target: EXCHANGE,
                from = %self.identity,
                to = %base,
                method = %ask.method,
                path = ask.path,
                sends = describe(ask.messages),
                error = crate::report(error),
                took_us,
            ),
        }
        answer.map(|(answer, _)| answer)
    }

    /// Sends a request; returns the answer and the number of bytes sent as body.
    async fn ask_untimed(
        &self,
        base: &BaseUrl,
        ask: &Ask<'_>,
    ) -> Result<(Answer, usize), AskError> {
        let form = self.features(base).form();
        let body = match ask.messages {
            [] => Vec::new(),
            [message] => json::encode(message, form),
            several => json::encode_array(several, form),
        };
        let sent = body.len();
        let mut request = Request::builder()
            .method(ask.method.clone())
            .uri(base.join(ask.path).map_err(AskError::Request)?)
            .header(features::HEADER, Features::OURS.to_string())
            .header("prefer", format!("wait={}", ask.wait.as_secs()));
        if !body.is_empty() {
            request = request.header(header::CONTENT_TYPE, MEDIA_TYPE);
        }
        let request =
            request.body(Full::new(Bytes::from(body))).map_err(AskError::Request)?;
        let response = self
            .pool
            .request(request)
            .await
            .map_err(|source| AskError::Connect { url: base.to_string(), source })?;
        let (parts, body) = response.into_parts();
        let identity = match parts.extensions.get::<Identity>() {
            Some(identity) => identity.clone(),
            None => Identity::unauthenticated(),
        };
        let features = announced_features(&parts.headers);
        self.features
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(base.authority.clone(), features);
        let content_type = parts
            .headers
            .get(header::CONTENT_TYPE)
            .and_then(|value| value.to_str().ok())
            .and_then(|value| value.split(';').next())
            .map_or_else(String::new, |essence| essence.trim().to_ascii_lowercase());
        let body = Limited::new(body, limits::MESSAGE_BYTES)
            .collect()
            .await
            .map_err(AskError::Body)?
            .to_bytes();
        let answer = Answer {
            status: parts.status,
            identity,
            features,
            waited: parts.headers.contains_key("preference-applied"),
            clock_ahead_s: parts.headers.get(header::DATE).and_then(clock_ahead_s),
            content_type,
            body,
        };
        Ok((answer, sent))
    }
}

/// Reads how far a peer's clock is ahead of ours, in whole seconds.
fn clock_ahead_s(date: &header::HeaderValue) -> Option<i64> {
    let date = jiff::fmt::rfc2822::parse(date.to_str().ok()?).ok()?.timestamp();
    // A date has no fraction: it stands for the middle of its second.
    let ahead = date.duration_since(jiff::Timestamp::now()) + HALF_SECOND;
    Some(ahead.as_secs())
}

/// Half of the resolution of a date.
const HALF_SECOND: jiff::SignedDuration = jiff::SignedDuration::from_millis(500);

/// The target of the log events that tell the way of each message.
pub const EXCHANGE: &str = "mplane::exchange";

/// How much of an answer that is no message a log shows, in characters.
const SHOWN: usize = 60;

/// Says in a few words what was answered.
fn describe_answer(answer: &Answer) -> String {
    match answer.messages(embedded()) {
        Ok(messages) if messages.is_empty() && answer.body.is_empty() => "nothing".into(),
        Ok(messages) if !messages.is_empty() => describe(&messages),
        // The answer to a registration is JSON, and no message.
        _ => String::from_utf8_lossy(&answer.body).chars().take(SHOWN).collect(),
    }
}

/// Returns the embedded registries, enough to describe messages.
fn embedded() -> &'static Registries {
    static EMBEDDED: std::sync::LazyLock<Registries> =
        std::sync::LazyLock::new(Registries::embedded);
    &EMBEDDED
}

/// A request without an answer.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// The request cannot be written.
    #[error("cannot write a request")]
    Request(#[source] http::Error),
    /// No connection, or it broke.
    #[error("cannot reach {url}")]
    Connect {
        /// The peer.
        url: String,
        /// What happened.
        source: hyper_util::client::legacy::Error,
    },
    /// The answer did not arrive whole, or was too large.
    #[error("the answer did not arrive whole")]
    Body(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// No answer in time.
    #[error("there was no answer for {seconds} s")]
    TooLate {
        /// How long it was waited for.
        seconds: u64,
    },
}

/// Opens TLS connections.
#[derive(Clone)]
struct Connector {
    tls: TlsConnector,
}

impl std::fmt::Debug for Connector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connector").finish_non_exhaustive()
    }
}

impl tower_service::Service<Uri> for Connector {
    type Response = PeerStream;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<PeerStream>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let tls = self.tls.clone();
        Box::pin(async move {
            tokio::time::timeout(CONNECT_TIMEOUT, connect(&tls, &uri))
                .await
                .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
        })
    }
}

/// Opens a TLS connection to the host of a URL.
async fn connect(tls: &TlsConnector, uri: &Uri) -> io::Result<PeerStream> {
    let host = uri.host().unwrap_or_default();
    let host = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host);
    let port = uri.port_u16().unwrap_or(443);
    let stream = TcpStream::connect((host, port)).await?;
    stream.set_nodelay(true)?;
    let name = ServerName::try_from(host.to_owned())
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
    let stream = tls.connect(name, stream).await?;
    let certificates = stream.get_ref().1.peer_certificates();
    let identity = certificates
        .and_then(|chain| chain.first())
        .and_then(identity_of)
        .ok_or_else(|| io::Error::other("the peer's certificate has no subject"))?;
    Ok(PeerStream { stream: TokioIo::new(stream), identity })
}

/// A TLS connection that knows whom it leads to.
struct PeerStream {
    stream: TokioIo<TlsStream<TcpStream>>,
    identity: Identity,
}

impl Connection for PeerStream {
    fn connected(&self) -> Connected {
        Connected::new().extra(self.identity.clone())
    }
}

impl Read for PeerStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl Write for PeerStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, buffer)
    }

    fn poll_flush(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base_urls_name_scheme_host_and_port() {
        let base = BaseUrl::parse("https://127.0.0.1:8890/").unwrap();
        assert_eq!(base.to_string(), "https://127.0.0.1:8890/");
        let uri = base.join("/capabilities").unwrap();
        assert_eq!(uri.to_string(), "https://127.0.0.1:8890/capabilities");
        for (url, problem) in [
            ("http://127.0.0.1:8890/", "plain HTTP is not spoken, use https"),
            ("127.0.0.1:8890", "it starts with https://"),
            ("https://localhost/", "it names no port, such as :8890"),
            ("https://me@localhost:1/", "certificates say who one is, not user names"),
        ] {
            let error = BaseUrl::parse(url).unwrap_err();
            assert_eq!(error.problem, problem, "{url}");
        }
    }
}
