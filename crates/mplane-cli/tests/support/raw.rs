//! A peer that says to the letter what a test wants said, with a certificate or in plain HTTP.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;

use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};

use crate::support::DEADLINE;

/// What all messages of the protocol are said to be.
pub(crate) const MPLANE: &str = "application/x-mplane+json";

/// Who asks, and whom.
#[derive(Clone)]
pub(crate) struct Raw {
    address: SocketAddr,
    /// With which certificates; plain HTTP without.
    tls: Option<Arc<ClientConfig>>,
}

/// What was answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RawAnswer {
    /// The status.
    pub(crate) status: u16,
    /// The content type.
    pub(crate) content_type: String,
    /// The body.
    pub(crate) body: String,
}

impl Raw {
    /// Makes one who asks in plain HTTP.
    pub(crate) const fn plain(address: SocketAddr) -> Self {
        Self { address, tls: None }
    }

    /// Makes one who asks as a member of the authority in a folder.
    pub(crate) fn with(address: SocketAddr, pki: &Path, member: &str) -> Self {
        let mut trusted = RootCertStore::empty();
        let authority = CertificateDer::from_pem_file(pki.join("ca.crt"));
        trusted.add(authority.expect("it was made")).expect("it is a certificate");
        let own = CertificateDer::pem_file_iter(pki.join(format!("{member}.crt")));
        let own = own.expect("it was made").collect::<Result<_, _>>();
        let key = PrivateKeyDer::from_pem_file(pki.join(format!("{member}.key")));
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("it has them")
            .with_root_certificates(trusted)
            .with_client_auth_cert(own.expect("they are PEM"), key.expect("it is PEM"))
            .expect("they belong together");
        Self { address, tls: Some(Arc::new(config)) }
    }

    /// Asks for what is at a path.
    pub(crate) fn get(&self, path: &str) -> RawAnswer {
        self.ask("GET", path, None, "")
    }

    /// Posts a message.
    pub(crate) fn post(&self, path: &str, body: &str) -> RawAnswer {
        self.ask("POST", path, Some(MPLANE), body)
    }

    /// Asks on a connection of its own; returns the answer.
    pub(crate) fn ask(
        &self,
        method: &str,
        path: &str,
        content_type: Option<&str>,
        body: &str,
    ) -> RawAnswer {
        let content_type =
            content_type.map(|it| format!("Content-Type: {it}\r\n")).unwrap_or_default();
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n{content_type}\
             Content-Length: {}\r\n\r\n{body}",
            self.address,
            body.len()
        );
        let socket = TcpStream::connect(self.address).expect("it listens");
        socket.set_read_timeout(Some(DEADLINE)).expect("it is a time");
        let Some(tls) = &self.tls else { return converse(socket, &request) };
        let name = ServerName::from(self.address.ip());
        let connection = ClientConnection::new(Arc::clone(tls), name);
        converse(StreamOwned::new(connection.expect("it has a name"), socket), &request)
    }
}

/// Sends a request and reads the answer to its end.
fn converse(mut stream: impl Read + Write, request: &str) -> RawAnswer {
    stream.write_all(request.as_bytes()).expect("it reads");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("it answers");
    let (head, body) = answer.split_once("\r\n\r\n").expect("it has a head");
    let mut lines = head.lines();
    let status = lines.next().and_then(|line| line.split(' ').nth(1));
    let header = |name: &str| {
        let mut headers = head.lines().filter_map(|line| line.split_once(": "));
        let found = headers.find(|(known, _)| known.eq_ignore_ascii_case(name));
        found.map_or_else(String::new, |(_, value)| value.to_owned())
    };
    assert!(header("transfer-encoding").is_empty(), "it says how long it is: {head}");
    RawAnswer {
        status: status.and_then(|it| it.parse().ok()).expect("it has a status"),
        content_type: header("content-type"),
        body: body.to_owned(),
    }
}
