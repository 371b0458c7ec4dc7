//! The HTTP client: pooled connections that know who answers, with mutual TLS, or in plain
//! HTTP where the URL was allowed to say so.
//!
//! Proxies are never used: an mPlane domain authenticates its peers itself.

use std::collections::HashMap;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use http::{Method, Request, StatusCode, Uri, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
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
use tokio_util::either::Either;
use tracing::debug;

use super::pace::time_for;
use super::{PlainHttp, announced_features, clock_ahead_s, describe};
use crate::tls::{Credentials, identity_of, is_no_tls};

/// How long a connection, TLS handshake included, may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a peer may take for an answer, beyond the time it was asked to wait and that for
/// the bytes on their way; also how long it may pause within an answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// How long idle connections are kept. Servers close theirs a little later.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);

/// The base URL of a peer: scheme, host and port, and a path without trailing slash. One
/// with the scheme `http` exists only where plain HTTP to its host is configured.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct BaseUrl {
    is_plain: bool,
    authority: String,
    path: String,
}

impl BaseUrl {
    /// Reads a URL such as `https://127.0.0.1:8890/`; one that begins with `http` as far as
    /// plain HTTP may go.
    pub fn parse(text: &str, plain: Option<PlainHttp>) -> Result<Self, ParseUrlError> {
        let refused =
            |problem| ParseUrlError { url: text.chars().take(200).collect(), problem };
        let uri: Uri = text.parse().map_err(|_| refused("it is not a URL"))?;
        let is_plain = match uri.scheme_str() {
            Some("https") => false,
            Some("http") => true,
            _ => return Err(refused("it starts with https://")),
        };
        let authority = uri.authority().ok_or_else(|| refused("it names no host"))?;
        if authority.port_u16().is_none() {
            return Err(refused("it names no port, such as :8890"));
        }
        if authority.as_str().contains('@') {
            return Err(refused("certificates say who one is, not user names"));
        }
        match plain {
            _ if !is_plain => {}
            None => return Err(refused(NOT_PLAIN)),
            Some(plain) if plain.reaches_host(without_brackets(authority.host())) => {}
            Some(_) => return Err(refused(NOT_FAR)),
        }
        Ok(Self {
            is_plain,
            authority: authority.to_string(),
            path: uri.path().trim_end_matches('/').to_owned(),
        })
    }

    /// Says whether the peer is spoken to in plain HTTP.
    pub const fn is_plain(&self) -> bool {
        self.is_plain
    }

    /// Returns the scheme.
    const fn scheme(&self) -> &'static str {
        if self.is_plain { PLAIN } else { "https" }
    }

    /// Returns the URL of a path below.
    fn join(&self, path: &str) -> Result<Uri, http::Error> {
        Uri::builder()
            .scheme(self.scheme())
            .authority(self.authority.as_str())
            .path_and_query(format!("{}{path}", self.path))
            .build()
    }
}

impl std::fmt::Display for BaseUrl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}://{}{}/", self.scheme(), self.authority, self.path)
    }
}

/// The scheme of plain HTTP.
const PLAIN: &str = "http";

/// Why plain HTTP is not spoken.
const NOT_PLAIN: &str =
    "plain HTTP is spoken only where plain-http = \"loopback\" allows it, use https";

/// Why plain HTTP is not spoken with other machines.
const NOT_FAR: &str = "plain HTTP goes to other machines only where plain-http = \
                       \"anywhere\" allows it, use https";

/// Returns a host without the brackets around IPv6 addresses.
pub(super) fn without_brackets(host: &str) -> &str {
    host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host)
}

/// Text that is no base URL.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{url:?} cannot be used: {problem}; write https://HOST:PORT/")]
pub struct ParseUrlError {
    url: String,
    problem: &'static str,
}

/// A request to a peer.
#[derive(Clone, Debug)]
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
    /// How long it is to be waited before the request is made again (`Retry-After`, in
    /// seconds), if the peer cannot answer now.
    pub retry_after: Option<Duration>,
    /// The path below the base URL at which the answer goes on (RFC 8288, relation `next`).
    pub next: Option<String>,
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

/// A client with an identity of its own, or without one for plain HTTP.
#[derive(Debug)]
pub struct HttpClient {
    pool: Client<Connector, Full<Bytes>>,
    identity: Identity,
    /// What peers have announced, by authority.
    features: Mutex<HashMap<String, Features>>,
}

impl HttpClient {
    /// Makes a client that shows this certificate; without one it reaches only who speaks
    /// plain HTTP.
    pub fn new(credentials: Option<Arc<Credentials>>) -> Self {
        let identity = credentials
            .as_ref()
            .map_or_else(Identity::unauthenticated, |known| known.identity().clone());
        let pool = Client::builder(TokioExecutor::new())
            .pool_idle_timeout(IDLE_TIMEOUT)
            .pool_timer(TokioTimer::new())
            .build(Connector { credentials });
        Self { pool, identity, features: Mutex::default() }
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
        let answer = self.try_ask(base, &ask).await;
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
    async fn try_ask(
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
            // Who takes something wants to know from which program, and by which clock.
            request = request
                .header(header::CONTENT_TYPE, MEDIA_TYPE)
                .header(header::USER_AGENT, PROGRAM)
                .header(header::DATE, date());
        }
        let request =
            request.body(Full::new(Bytes::from(body))).map_err(AskError::Request)?;
        let limit = ask.wait + ANSWER_TIMEOUT + time_for(sent);
        let response = tokio::time::timeout(limit, self.pool.request(request))
            .await
            .map_err(|_| AskError::TooLate { seconds: limit.as_secs() })?
            .map_err(|source| AskError::Connect { url: base.to_string(), source })?;
        let (parts, body) = response.into_parts();
        let identity = parts.extensions.get::<Identity>().cloned();
        let identity = identity.ok_or(AskError::Nobody)?;
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
        let body = collect(Limited::new(body, limits::MESSAGE_BYTES)).await?;
        let answer = Answer {
            status: parts.status,
            identity,
            features,
            waited: parts.headers.contains_key("preference-applied"),
            clock_ahead_s: parts.headers.get(header::DATE).and_then(clock_ahead_s),
            content_type,
            retry_after: parts.headers.get(header::RETRY_AFTER).and_then(seconds),
            next: parts.headers.get(header::LINK).and_then(next_path),
            body,
        };
        Ok((answer, sent))
    }
}

/// Reads a body, as long as it comes at a pace.
async fn collect(body: Limited<Incoming>) -> Result<Bytes, AskError> {
    let mut body = std::pin::pin!(body);
    let mut bytes = BytesMut::new();
    let started = tokio::time::Instant::now();
    loop {
        let longest = ANSWER_TIMEOUT + time_for(bytes.len());
        let next = tokio::time::timeout_at(started + longest, body.frame()).await;
        let next = next.map_err(|_| AskError::TooLate { seconds: longest.as_secs() })?;
        let Some(frame) = next else { return Ok(bytes.freeze()) };
        if let Ok(data) = frame.map_err(AskError::Body)?.into_data() {
            bytes.extend_from_slice(&data);
        }
    }
}

/// What our programs say they are.
const PROGRAM: &str = concat!("mPlane/", env!("CARGO_PKG_VERSION"));

/// Writes the time of our clock (RFC 9110, section 5.6.7).
fn date() -> String {
    let printer = jiff::fmt::rfc2822::DateTimePrinter::new();
    let now = jiff::Timestamp::now();
    // It can write every year that a clock may have.
    printer.timestamp_to_rfc9110_string(&now).unwrap_or_default()
}

/// Reads a number of seconds.
fn seconds(value: &header::HeaderValue) -> Option<Duration> {
    value.to_str().ok()?.trim().parse().ok().map(Duration::from_secs)
}

/// Reads the path at which an answer goes on, on the same host.
fn next_path(links: &header::HeaderValue) -> Option<String> {
    links.to_str().ok()?.split(',').find_map(|link| {
        let (target, relations) = link.trim().strip_prefix('<')?.split_once('>')?;
        let mut parameters = relations.split(';').map(str::trim);
        let is_next = parameters.any(|it| it == "rel=\"next\"" || it == "rel=next");
        let is_here = target.starts_with('/') && !target.starts_with("//");
        (is_next && is_here).then(|| target.to_owned())
    })
}

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
    /// The connection does not say whom it leads to.
    #[error("nobody is known to have answered")]
    Nobody,
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

/// Opens connections: with TLS, or in plain HTTP if the URL says so.
#[derive(Clone)]
struct Connector {
    /// Which certificate to show, if there is one.
    credentials: Option<Arc<Credentials>>,
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
        let credentials = self.credentials.as_ref();
        let tls = credentials.map(|known| TlsConnector::from(known.client()));
        Box::pin(async move {
            tokio::time::timeout(CONNECT_TIMEOUT, connect(tls, &uri))
                .await
                .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
        })
    }
}

/// Opens a connection to the host of a URL.
async fn connect(tls: Option<TlsConnector>, uri: &Uri) -> io::Result<PeerStream> {
    let host = without_brackets(uri.host().unwrap_or_default());
    let port = uri.port_u16().unwrap_or(443);
    let connect = async {
        let stream = TcpStream::connect((host, port)).await?;
        stream.set_nodelay(true).map(|()| stream)
    };
    // A base URL of plain HTTP exists only where that is configured.
    if uri.scheme_str() == Some(PLAIN) {
        let stream = TokioIo::new(Either::Right(connect.await?));
        return Ok(PeerStream { stream, identity: Identity::unauthenticated() });
    }
    let tls = tls.ok_or_else(|| io::Error::other(NO_CERTIFICATE))?;
    let name = ServerName::try_from(host.to_owned())
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
    let stream = tls.connect(name, connect.await?).await.map_err(no_tls)?;
    let certificates = stream.get_ref().1.peer_certificates();
    let identity = certificates
        .and_then(|chain| chain.first())
        .and_then(identity_of)
        .ok_or_else(|| io::Error::other("the peer's certificate has no subject"))?;
    Ok(PeerStream { stream: TokioIo::new(Either::Left(stream)), identity })
}

/// Why nobody is reached over TLS without a certificate of one's own.
const NO_CERTIFICATE: &str = "for https this program needs a certificate: add the section \
                              [tls] with ca-chain, cert and key";

/// Says in other words that a peer does not speak TLS.
fn no_tls(error: io::Error) -> io::Error {
    if is_no_tls(&error) {
        let text = "the peer does not speak TLS; if it is meant to speak plain HTTP, its \
                    URL begins with http://";
        io::Error::new(error.kind(), text)
    } else {
        error
    }
}

/// A connection that knows whom it leads to.
struct PeerStream {
    stream: TokioIo<Either<TlsStream<TcpStream>, TcpStream>>,
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
        let base = BaseUrl::parse("https://127.0.0.1:8890/", None).unwrap();
        assert_eq!(base.to_string(), "https://127.0.0.1:8890/");
        assert!(!base.is_plain());
        let uri = base.join("/capabilities").unwrap();
        assert_eq!(uri.to_string(), "https://127.0.0.1:8890/capabilities");
        for (url, problem) in [
            ("http://127.0.0.1:8890/", NOT_PLAIN),
            ("127.0.0.1:8890", "it starts with https://"),
            ("https://localhost/", "it names no port, such as :8890"),
            ("https://me@localhost:1/", "certificates say who one is, not user names"),
        ] {
            let error = BaseUrl::parse(url, None).unwrap_err();
            assert_eq!(error.problem, problem, "{url}");
        }
    }

    #[test]
    fn an_answer_goes_on_at_the_same_host_only() {
        let next = |links: &str| next_path(&links.parse().unwrap());
        let found = Some("/capabilities/after/7".to_owned());
        assert_eq!(next("</capabilities/after/7>; rel=\"next\""), found);
        assert_eq!(next("</a>; rel=prev, </capabilities/after/7>; rel=next"), found);
        for links in [
            "</a>; rel=\"prev\"",
            "<https://elsewhere/>; rel=next",
            "<//e/>; rel=next",
            "x",
        ] {
            assert_eq!(next(links), None, "{links}");
        }
    }

    #[test]
    fn base_urls_are_plain_as_far_as_is_allowed() {
        let (here, far) = (Some(PlainHttp::Loopback), Some(PlainHttp::Anywhere));
        for url in ["http://127.0.0.1:1/", "http://[::1]:1/", "http://localhost:1/a"] {
            let base = BaseUrl::parse(url, here).unwrap();
            assert!(base.is_plain());
            let uri = base.join("/capabilities").unwrap();
            assert_eq!(uri.scheme_str(), Some("http"), "{url}");
        }
        for url in ["http://192.0.2.1:1/", "http://[2001:db8::1]:1/", "http://sup:1/"] {
            assert_eq!(BaseUrl::parse(url, here).unwrap_err().problem, NOT_FAR, "{url}");
            assert!(BaseUrl::parse(url, far).unwrap().is_plain(), "{url}");
        }
        assert!(!BaseUrl::parse("https://192.0.2.1:1/", here).unwrap().is_plain());
    }
}
