//! The server loop: connections, TLS, limits and graceful shutdown around a router.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use http::{Request, Uri};
use hyper::body::Incoming;
use hyper_util::rt::{TokioIo, TokioTimer};
use mplane::access::Identity;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower_service::Service as _;
use tracing::{debug, warn};

use super::{Peer, announced_features};
use crate::tls::{Credentials, identity_of};

/// How long a TLS handshake may take: a peer that is slower holds memory for nothing.
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

/// Serves a router over mutual TLS until `shutdown`; requests that run then may end.
pub async fn serve(
    listener: TcpListener,
    credentials: Arc<Credentials>,
    router: Router,
    shutdown: CancellationToken,
) {
    let acceptor = TlsAcceptor::from(credentials.server());
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
        let (acceptor, router) = (acceptor.clone(), router.clone());
        let shutdown = shutdown.clone();
        connections.spawn(async move {
            serve_connection(stream, address, acceptor, router, shutdown).await;
            drop(slot);
        });
    }
    connections.close();
    if tokio::time::timeout(SHUTDOWN_GRACE, connections.wait()).await.is_err() {
        warn!("connections were cut: their requests did not end in time");
    }
}

/// Serves one connection to its end.
async fn serve_connection(
    stream: TcpStream,
    address: SocketAddr,
    acceptor: TlsAcceptor,
    router: Router,
    shutdown: CancellationToken,
) {
    if let Err(error) = stream.set_nodelay(true) {
        debug!(%address, %error, "cannot send small packets at once");
    }
    let handshake = tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream));
    let stream = tokio::select! {
        handshake = handshake => match handshake {
            Ok(Ok(stream)) => stream,
            // Nobody spoke: a port scan, or a measurement of connects.
            Ok(Err(error))
                if matches!(
                    error.kind(),
                    io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset
                ) =>
            {
                debug!(%address, %error, "a connection ended before its TLS handshake");
                return;
            }
            Ok(Err(error)) => {
                warn!(%address, %error, "refused a TLS connection");
                return;
            }
            Err(_) => {
                warn!(%address, "a TLS handshake took too long");
                return;
            }
        },
        () = shutdown.cancelled() => return,
    };
    let certificates = stream.get_ref().1.peer_certificates();
    let Some(identity) =
        certificates.and_then(|chain| chain.first()).and_then(identity_of)
    else {
        warn!(%address, "refused a certificate without readable subject");
        return;
    };
    debug!(%address, %identity, "connected");
    let service = hyper::service::service_fn(move |request: Request<Incoming>| {
        let request = prepare(request, &identity);
        router.clone().call(request)
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = shutdown.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        debug!(%address, %error, "a connection ended early");
    }
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
