//! Peers of a supervisor: identities, as many as are wanted, and a kept connection for each.

use std::fs;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::body::{Body, Bytes, to_bytes};
use http::{Method, Request, StatusCode, header};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use mplane::features::{self, Features};
use mplane::json::MEDIA_TYPE;
use mplane::limits;
use mplane_cli::pki::Role;
use rcgen::{
    CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, Issuer,
    KeyPair,
};
use rustls::client::Resumption;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{
    CertificateDer, IpAddr, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName,
};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;

use crate::domain::{ADDRESS, Domain};

/// How long an answer may take: longer than any is asked to wait.
const PATIENCE: Duration = Duration::from_secs(60);

/// How long a peer pauses that was not answered.
pub(super) const PAUSE: Duration = Duration::from_millis(50);

/// The members of a domain: whoever is named gets a certificate.
pub(super) struct Members {
    issuer: Issuer<'static, KeyPair>,
    authority: CertificateDer<'static>,
    /// One for all: identities are subjects, and making keys would take the time that is
    /// to be measured elsewhere. P-256, like those of `mplane pki`.
    key: KeyPair,
}

impl Members {
    /// Takes the authority of a domain.
    pub(super) fn new(domain: &Domain) -> Self {
        let file = |name: &str| domain.path().join("pki").join(name);
        let read = |name| fs::read_to_string(file(name)).expect("the folder is ours");
        let key = KeyPair::from_pem(&read("ca.key")).expect("the key is sound");
        let issuer = Issuer::from_ca_cert_pem(&read("ca.crt"), key);
        let authority = CertificateDer::from_pem_file(file("ca.crt"));
        Self {
            issuer: issuer.expect("it is an authority"),
            authority: authority.expect("it is a certificate"),
            key: KeyPair::generate().expect("there is randomness"),
        }
    }

    /// Makes a peer with an identity of its own, which is not connected yet.
    pub(super) fn peer(&self, role: Role, name: &str, address: SocketAddr) -> Peer {
        let mut params = CertificateParams::new(Vec::new()).expect("there are no hosts");
        params.distinguished_name = DistinguishedName::new();
        let unit = if role == Role::Client { "Clients" } else { "Components" };
        for (kind, value) in [
            (DnType::OrganizationName, "Bench"),
            (DnType::OrganizationalUnitName, unit),
            (DnType::CommonName, name),
        ] {
            params.distinguished_name.push(kind, value);
        }
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let certificate = params.signed_by(&self.key, &self.issuer);
        let certificate = certificate.expect("it can be signed").der().clone();
        let key = PrivatePkcs8KeyDer::from(self.key.serialize_der());
        let mut roots = RootCertStore::empty();
        roots.add(self.authority.clone()).expect("it is an authority");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut tls = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("the provider has them")
            .with_root_certificates(roots)
            .with_client_auth_cert(vec![certificate], PrivateKeyDer::from(key))
            .expect("certificate and key belong together");
        // Each connection is to cost a whole handshake, and a peer little memory.
        tls.resumption = Resumption::disabled();
        Peer {
            name: name.to_owned(),
            tls: Arc::new(tls),
            address,
            host: address.to_string(),
            features: Features::OURS.to_string(),
            connection: None,
        }
    }

    /// Makes numbered peers.
    pub(super) fn peers(
        &self,
        role: Role,
        numbers: std::ops::Range<usize>,
        address: SocketAddr,
    ) -> Vec<Peer> {
        let word = if role == Role::Client { "cli" } else { "com" };
        numbers.map(|n| self.peer(role, &format!("{word}-{n}"), address)).collect()
    }
}

/// A component or client: an identity, with a connection that is kept.
pub(super) struct Peer {
    /// Its common name.
    pub(super) name: String,
    tls: Arc<ClientConfig>,
    address: SocketAddr,
    host: String,
    /// What our programs announce.
    features: String,
    connection: Option<SendRequest<Body>>,
}

/// A request.
pub(super) struct Ask {
    pub(super) method: Method,
    pub(super) path: &'static str,
    /// How many seconds the answer may wait.
    pub(super) wait: u64,
    /// A message, or nothing.
    pub(super) body: Bytes,
}

/// A request that was not answered: the connection could not be made, or it broke.
#[derive(Debug)]
pub(super) struct Unanswered;

impl Peer {
    /// Sends a request, over a new connection if there is none.
    pub(super) async fn ask(
        &mut self,
        ask: Ask,
    ) -> Result<(StatusCode, Bytes), Unanswered> {
        let asked = tokio::time::timeout(PATIENCE, self.ask_untimed(ask)).await;
        let answer = asked.ok().flatten();
        if answer.is_none() {
            self.connection = None;
        }
        answer.ok_or(Unanswered)
    }

    /// Sends a request until it is answered, and something else than that the supervisor
    /// cannot do it now.
    pub(super) async fn insist(&mut self, ask: impl Fn() -> Ask) -> (StatusCode, Bytes) {
        loop {
            match self.ask(ask()).await {
                Ok((StatusCode::SERVICE_UNAVAILABLE, _)) | Err(Unanswered) => {
                    tokio::time::sleep(PAUSE).await;
                }
                Ok(answer) => return answer,
            }
        }
    }

    /// Sends a request that is to be answered with 200.
    pub(super) async fn must(&mut self, ask: Ask) -> Bytes {
        let answer = self.ask(ask).await;
        let (status, body) = answer.expect("the server runs");
        assert_eq!(status, StatusCode::OK, "{}", String::from_utf8_lossy(&body));
        body
    }

    /// Closes the connection.
    pub(super) fn leave(&mut self) {
        self.connection = None;
    }

    /// Takes the connection elsewhere.
    pub(super) fn move_to(&mut self, address: SocketAddr) {
        self.leave();
        self.address = address;
        self.host = address.to_string();
    }

    async fn ask_untimed(&mut self, ask: Ask) -> Option<(StatusCode, Bytes)> {
        let connection = match &mut self.connection {
            Some(connection) if !connection.is_closed() => connection,
            closed => {
                let made = connect(Arc::clone(&self.tls), self.address).await?;
                closed.insert(made)
            }
        };
        let mut request = Request::builder()
            .method(ask.method)
            .uri(ask.path)
            .header(header::HOST, &self.host)
            .header(features::HEADER, &self.features)
            .header("prefer", format!("wait={}", ask.wait));
        if !ask.body.is_empty() {
            request = request.header(header::CONTENT_TYPE, MEDIA_TYPE);
        }
        let request = request.body(Body::from(ask.body)).expect("it is a request");
        connection.ready().await.ok()?;
        let response = connection.send_request(request).await.ok()?;
        let (parts, body) = response.into_parts();
        let body = to_bytes(Body::new(body), limits::MESSAGE_BYTES).await.ok()?;
        Some((parts.status, body))
    }
}

/// Makes a connection.
async fn connect(
    tls: Arc<ClientConfig>,
    address: SocketAddr,
) -> Option<SendRequest<Body>> {
    let stream = TcpStream::connect(address).await.ok()?;
    stream.set_nodelay(true).ok()?;
    let ip: std::net::IpAddr = ADDRESS.parse().expect("it is one");
    let name = ServerName::IpAddress(IpAddr::from(ip));
    let stream = TlsConnector::from(tls).connect(name, stream).await.ok()?;
    let (sender, connection) = handshake(TokioIo::new(stream)).await.ok()?;
    tokio::spawn(async move {
        // That it breaks is told by the request.
        drop(connection.await);
    });
    Some(sender)
}

/// Does something for each item, so many at once; returns what came of them, in no order.
pub(super) async fn each<I, O, R>(
    items: Vec<I>,
    at_once: usize,
    act: impl Fn(I) -> R + Clone + Send + 'static,
) -> Vec<O>
where
    I: Send + 'static,
    O: Send + 'static,
    R: Future<Output = O> + Send,
{
    let items = Arc::new(Mutex::new(items.into_iter()));
    let next = move || items.lock().unwrap_or_else(PoisonError::into_inner).next();
    let mut working = JoinSet::new();
    for _ in 0..at_once {
        let (next, act) = (next.clone(), act.clone());
        working.spawn(async move {
            let mut done = Vec::new();
            while let Some(item) = next() {
                done.push(act(item).await);
            }
            done
        });
    }
    working.join_all().await.into_iter().flatten().collect()
}
