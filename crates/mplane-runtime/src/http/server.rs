//! The server loop: connections, TLS, limits and graceful shutdown around a router. Plain
//! HTTP, where it is configured, is the same loop without the handshake.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
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
use super::intake::Intake;
use super::outflow::Outflow;
use super::pace::Paced;
use super::routes::{answer, later};
use super::{Origin, Peer, PlainHttp, announced_features, path};
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

/// Connections held at once: two for each of the most components that one supervisor is meant
/// for. Beyond it, new ones wait in the kernel's queue.
const CONNECTIONS: usize = 100_000;

/// Connections of one peer: one that leaks them must not take the place of all others. It is
/// as many programs as may share a certificate.
const CONNECTIONS_OF_PEER: usize = 1_000;

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
    let (intake, outflow) = (Intake::default(), Outflow::default());
    let crowd = Crowd::default();
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
        let (intake, outflow) = (intake.clone(), outflow.clone());
        let (crowd, shutdown) = (crowd.clone(), shutdown.clone());
        let connection = Connection { address, intake, outflow, crowd, shutdown };
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
    intake: Intake,
    outflow: Outflow,
    crowd: Crowd,
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
        let Self { address, intake, outflow, crowd, shutdown } = self;
        debug!(%address, identity = %shown.identity, "connected");
        let is_plain = shown.plain.is_some();
        // In plain HTTP all are one.
        let place =
            if is_plain { Some(None) } else { crowd.join(&shown.identity).map(Some) };
        if place.is_none() {
            warn!(%address, identity = %shown.identity, "has too many connections");
        }
        let is_crowded = place.is_none();
        let service = hyper::service::service_fn(move |request: Request<Incoming>| {
            // References give up on any answer to a registration but 200, and what was handed
            // out would not be again.
            let path = request.uri().path();
            let is_registration = path == path::REGISTER_CAPABILITY;
            let has_room = is_registration || path == path::SHOW_SPECIFICATION;
            let routed = if is_crowded && !is_registration {
                Err(later(refusal(StatusCode::SERVICE_UNAVAILABLE, CROWDED)))
            } else if shown.may_ask(request.headers()) {
                Ok(router.clone().call(prepare(
                    request,
                    &shown.identity,
                    address,
                    &intake,
                )))
            } else {
                Err(refusal(StatusCode::MISDIRECTED_REQUEST, NOT_HERE))
            };
            let (outflow, to) = (outflow.clone(), shown.identity.clone());
            async move {
                let answered = match routed {
                    Ok(routed) if has_room => routed.await?,
                    Ok(routed) => outflow.take(&to, routed.await?),
                    Err(refused) => refused,
                };
                Ok::<_, Infallible>(if is_crowded { close(answered) } else { answered })
            }
        });
        let stream = Paced::new(stream);
        let connection = http1().serve_connection(TokioIo::new(stream), service);
        tokio::pin!(connection);
        // Who is refused must not keep the place of others.
        let refused = async {
            if is_crowded {
                tokio::time::sleep(HANDSHAKE_TIMEOUT).await;
            } else {
                std::future::pending::<()>().await;
            }
        };
        let ended = tokio::select! {
            ended = connection.as_mut() => ended,
            () = refused => return,
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
        drop(place);
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

/// How many connections each peer has.
#[derive(Clone, Debug, Default)]
struct Crowd(Arc<Mutex<BTreeMap<Identity, usize>>>);

/// A connection among those of its peer.
struct Place {
    crowd: Crowd,
    identity: Identity,
}

impl Crowd {
    /// Counts one more connection of a peer until it is dropped; `None` if it has as many as
    /// it may.
    fn join(&self, identity: &Identity) -> Option<Place> {
        let mut crowd = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = crowd.entry(identity.clone()).or_default();
        if *count >= CONNECTIONS_OF_PEER {
            return None;
        }
        *count += 1;
        Some(Place { crowd: self.clone(), identity: identity.clone() })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut crowd = self.crowd.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = crowd.get_mut(&self.identity) {
            *count -= 1;
            if *count == 0 {
                crowd.remove(&self.identity);
            }
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

/// What to do about too many connections.
const CROWDED: &str = "peers of this name have as many connections as one may; close some, or \
                       come with other certificates";

/// Has a connection closed after an answer.
fn close(mut answer: Response<Body>) -> Response<Body> {
    let close = header::HeaderValue::from_static("close");
    answer.headers_mut().insert(header::CONNECTION, close);
    answer
}

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

/// Attaches who sent a request, from where, and where its body finds room, and removes a
/// trailing slash: references write both.
fn prepare(
    request: Request<Incoming>,
    identity: &Identity,
    address: SocketAddr,
    intake: &Intake,
) -> Request<Body> {
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
    parts.extensions.insert(Origin(address));
    parts.extensions.insert(intake.clone());
    Request::from_parts(parts, Body::new(body))
}

#[cfg(test)]
mod tests {
    use axum::routing::get;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;
    use crate::http::pace::PATIENCE;

    #[test]
    fn a_peer_has_its_share_of_the_connections() {
        let crowd = Crowd::default();
        let peer = |name: &str| Identity::new(["Demo", name].map(Into::into), None);
        let mut places: Vec<_> = (0..CONNECTIONS_OF_PEER)
            .map(|_| crowd.join(&peer("a")).expect("there is room"))
            .collect();
        assert!(crowd.join(&peer("a")).is_none());
        assert!(crowd.join(&peer("b")).is_some(), "others have theirs");
        places.pop();
        assert!(crowd.join(&peer("a")).is_some());
        drop(places);
        assert!(crowd.0.lock().unwrap().is_empty(), "nothing is left behind");
    }

    #[tokio::test(start_paused = true)]
    async fn who_does_not_read_its_answer_is_cut() {
        // More than the buffers of two sockets hold.
        const ANSWER: usize = 64 << 20;
        let router = Router::new().route("/", get(|| async { vec![0_u8; ANSWER] }));
        let listener = listen("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let address = listener.local_addr().unwrap();
        let shutdown = CancellationToken::new();
        let transport = Transport::Plain(PlainHttp::Loopback);
        let served = tokio::spawn(serve(listener, transport, router, shutdown.clone()));
        let mut peer = TcpStream::connect(address).await.unwrap();
        peer.write_all(b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
        let asked = tokio::time::Instant::now();
        // The clock goes on whenever nothing else does.
        while asked.elapsed() < 2 * PATIENCE {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        let mut answer = Vec::new();
        let read = peer.read_to_end(&mut answer).await;
        assert!(read.is_err() || answer.len() < ANSWER, "{} bytes", answer.len());
        shutdown.cancel();
        served.await.unwrap();
    }
}
