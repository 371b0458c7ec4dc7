//! The server loop: connections, TLS, limits and graceful shutdown around a router. Plain
//! HTTP, where it is configured, is the same loop without the handshake.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use http::uri::Authority;
use http::{HeaderMap, Request, Response, StatusCode, Uri, header};
use hyper::body::Incoming;
use hyper_util::rt::{TokioIo, TokioTimer};
use mplane::access::Identity;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower_service::Service as _;
use tracing::{debug, warn};

use super::client::without_brackets;
use super::routes::answer;
use super::{Peer, PlainHttp, announced_features};
use crate::tls::{Credentials, identity_of};

/// How a port is spoken at.
#[derive(Clone)]
pub enum Transport {
    /// With mutual TLS: who comes shows a certificate.
    Tls(Arc<Credentials>),
    /// In plain HTTP: everybody who comes is unauthenticated. It is for ports of which the
    /// configuration says so.
    Plain(PlainHttp),
}

/// How long a TLS handshake, or a request in its place, may take: a peer that is slower
/// holds memory for nothing.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a peer may take to send the head of a request, and how long a connection may
/// idle between two.
const HEAD_TIMEOUT: Duration = Duration::from_secs(75);

/// How long running requests may take to end after a shutdown was asked for.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(5);

/// Connections held at once. Beyond it, new ones wait in the kernel's queue.
const CONNECTIONS: usize = 20_000;

/// How long to wait after the system refused to accept a connection, mostly because it
/// is out of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Opens a port. Port 0 lets the system choose; [`TcpListener::local_addr`] says which.
pub async fn listen(address: SocketAddr) -> Result<TcpListener, ListenError> {
    TcpListener::bind(address).await.map_err(|source| ListenError { address, source })
}

/// A port that cannot be opened.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}; is another program using the port?")]
pub struct ListenError {
    address: SocketAddr,
    source: io::Error,
}

/// Serves a router until `shutdown`; requests that run then may end.
pub async fn serve(
    listener: TcpListener,
    transport: Transport,
    router: Router,
    shutdown: CancellationToken,
) {
    let slots = Arc::new(Semaphore::new(CONNECTIONS));
    let connections = TaskTracker::new();
    loop {
        let next = async {
            let slot = Arc::clone(&slots).acquire_owned().await;
            (slot, listener.accept().await)
        };
        let (slot, accepted) = tokio::select! {
            next = next => next,
            () = shutdown.cancelled() => break,
        };
        let (stream, address) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                warn!(%error, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let connection = Connection { address, shutdown: shutdown.clone() };
        let (transport, router) = (transport.clone(), router.clone());
        connections.spawn(async move {
            connection.serve(stream, transport, router).await;
            drop(slot);
        });
    }
    connections.close();
    if tokio::time::timeout(SHUTDOWN_GRACE, connections.wait()).await.is_err() {
        warn!("connections were cut: their requests did not end in time");
    }
}

/// A connection of a peer.
struct Connection {
    address: SocketAddr,
    shutdown: CancellationToken,
}

impl Connection {
    /// Serves it to its end.
    async fn serve(self, stream: TcpStream, transport: Transport, router: Router) {
        let address = self.address;
        if let Err(error) = stream.set_nodelay(true) {
            debug!(%address, %error, "cannot send small packets at once");
        }
        match transport {
            Transport::Tls(credentials) => {
                let acceptor = TlsAcceptor::from(credentials.server());
                self.serve_tls(stream, acceptor, router).await;
            }
            Transport::Plain(plain) => {
                let shown =
                    Shown { identity: Identity::unauthenticated(), plain: Some(plain) };
                self.serve_peer(stream, shown, router).await;
            }
        }
    }

    /// Serves it over TLS; says so to who speaks plain HTTP.
    async fn serve_tls(self, stream: TcpStream, acceptor: TlsAcceptor, router: Router) {
        let address = self.address;
        let handshake = tokio::time::timeout(HANDSHAKE_TIMEOUT, async {
            let mut first = [0];
            if stream.peek(&mut first).await? == 1 && first[0].is_ascii_uppercase() {
                return Ok(Hello::Plain(stream));
            }
            acceptor.accept(stream).await.map(Box::new).map(Hello::Tls)
        });
        let handshake = tokio::select! {
            handshake = handshake => handshake,
            () = self.shutdown.cancelled() => return,
        };
        match handshake {
            Ok(Ok(Hello::Tls(stream))) => {
                let certificates = stream.get_ref().1.peer_certificates();
                let subject = certificates.and_then(|chain| chain.first());
                let Some(identity) = subject.and_then(identity_of) else {
                    warn!(%address, "refused a certificate without readable subject");
                    return;
                };
                let shown = Shown { identity, plain: None };
                self.serve_peer(stream, shown, router).await;
            }
            Ok(Ok(Hello::Plain(stream))) => {
                warn!(%address, "refused plain HTTP: this port speaks TLS");
                self.refuse_plain(stream).await;
            }
            // Nobody spoke: a port scan, or a measurement of connects.
            Ok(Err(error))
                if matches!(
                    error.kind(),
                    io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset
                ) =>
            {
                debug!(%address, %error, "a connection ended before its TLS handshake");
            }
            Ok(Err(error)) => warn!(%address, %error, "refused a TLS connection"),
            Err(_) => warn!(%address, "a TLS handshake took too long"),
        }
    }

    /// Serves a peer who is known.
    async fn serve_peer(
        self,
        stream: impl AsyncRead + AsyncWrite + Unpin,
        shown: Shown,
        router: Router,
    ) {
        let Self { address, shutdown } = self;
        debug!(%address, identity = %shown.identity, "connected");
        let is_plain = shown.plain.is_some();
        let service = hyper::service::service_fn(move |request: Request<Incoming>| {
            let routed = shown
                .may_ask(request.headers())
                .then(|| router.clone().call(prepare(request, &shown.identity)));
            async {
                match routed {
                    Some(routed) => routed.await,
                    None => Ok(refusal(StatusCode::MISDIRECTED_REQUEST, NOT_HERE)),
                }
            }
        });
        let connection = http1().serve_connection(TokioIo::new(stream), service);
        tokio::pin!(connection);
        let ended = tokio::select! {
            ended = connection.as_mut() => ended,
            () = shutdown.cancelled() => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        match ended {
            Ok(()) => {}
            Err(error) if is_plain && error.is_parse() => {
                warn!(%address, %error, "refused what is no HTTP: this port speaks no TLS");
            }
            Err(error) => debug!(%address, %error, "a connection ended early"),
        }
    }

    /// Answers one request in plain HTTP with what to do instead.
    async fn refuse_plain(self, stream: TcpStream) {
        let address = self.address;
        let service = hyper::service::service_fn(|_: Request<Incoming>| {
            let refused = refusal(StatusCode::BAD_REQUEST, NOT_PLAIN);
            std::future::ready(Ok::<_, Infallible>(refused))
        });
        let connection =
            http1().keep_alive(false).serve_connection(TokioIo::new(stream), service);
        tokio::select! {
            ended = tokio::time::timeout(HANDSHAKE_TIMEOUT, connection) => {
                if !matches!(ended, Ok(Ok(()))) {
                    debug!(%address, "a connection ended early");
                }
            }
            () = self.shutdown.cancelled() => {}
        }
    }
}

/// What a connection shows of who is at its other end.
struct Shown {
    identity: Identity,
    /// How far plain HTTP may go, if it is that.
    plain: Option<PlainHttp>,
}

impl Shown {
    /// Says whether a request is meant for this port. A browser on this machine can be made
    /// to send requests to the loopback interface under the name of another host, to which
    /// their answers are then shown.
    fn may_ask(&self, headers: &HeaderMap) -> bool {
        let (Some(plain), Some(host)) = (self.plain, headers.get(header::HOST)) else {
            return true;
        };
        let authority = host.to_str().ok().and_then(|host| host.parse().ok());
        authority.is_some_and(|authority: Authority| {
            plain.reaches_host(without_brackets(authority.host()))
        })
    }
}

/// What to do about plain HTTP where TLS is spoken.
const NOT_PLAIN: &str = "this port speaks TLS: its URL begins with https://";

/// What to do about another host's name at a port of the loopback interface.
const NOT_HERE: &str =
    "this port is for this machine only: its URL has the host localhost";

/// Makes an answer of plain text.
fn refusal(status: StatusCode, text: &str) -> Response<Body> {
    answer(status, "text/plain", text.into())
}

/// How a peer has begun.
enum Hello {
    /// With a handshake.
    Tls(Box<TlsStream<TcpStream>>),
    /// With a capital letter, as methods of HTTP have and handshakes do not.
    Plain(TcpStream),
}

/// Returns how HTTP is spoken, with its limits.
fn http1() -> hyper::server::conn::http1::Builder {
    let mut builder = hyper::server::conn::http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT);
    builder
}

/// Attaches who sent a request, and removes a trailing slash: references write both.
fn prepare(request: Request<Incoming>, identity: &Identity) -> Request<Body> {
    let (mut parts, body) = request.into_parts();
    let path = parts.uri.path();
    let trimmed = path.trim_end_matches('/');
    if trimmed.len() < path.len() {
        let path = if trimmed.is_empty() { "/" } else { trimmed };
        let query =
            parts.uri.query().map(|query| format!("?{query}")).unwrap_or_default();
        if let Ok(uri) = format!("{path}{query}").parse::<Uri>() {
            parts.uri = uri;
        }
    }
    let features = announced_features(&parts.headers);
    parts.extensions.insert(Peer { identity: identity.clone(), features });
    Request::from_parts(parts, Body::new(body))
}
