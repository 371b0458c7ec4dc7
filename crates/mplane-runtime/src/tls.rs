//! Mutual TLS: certificates in, identities out.
//!
//! Both sides always show a certificate and verify the other's. The identity of a peer is
//! the subject of its certificate. This is the only module that names the library behind
//! it. Who speaks plain HTTP does not come by here.
//!
//! Source: RFC 8446 (TLS 1.3), RFC 5246 (TLS 1.2), RFC 5280 (certificates).

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use mplane::access::Identity;
use mplane::token::Token;
use rustls::crypto::{CryptoProvider, ring};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use x509_parser::prelude::{FromDer, X509Certificate, X509Name};

/// A certificate with its key, and the authorities that peers' certificates come from.
#[derive(Debug)]
pub struct Credentials {
    identity: Identity,
    /// What connections made from now on use.
    current: Mutex<Loaded>,
}

/// What the files of credentials hold.
#[derive(Clone, Debug)]
struct Loaded {
    server: Arc<ServerConfig>,
    client: Arc<ClientConfig>,
}

impl Credentials {
    /// Loads PEM files: the authorities' certificates, one's own certificate (with
    /// intermediate ones behind it) and its unencrypted key.
    pub fn load(
        ca_chain: &Path,
        cert: &Path,
        key: &Path,
    ) -> Result<Self, LoadCredentialsError> {
        let (identity, loaded) = Loaded::load(ca_chain, cert, key)?;
        Ok(Self { identity, current: Mutex::new(loaded) })
    }

    /// Takes over what others say, for all connections made from now on. They must be of
    /// the same identity: peers know each other by it.
    pub fn replace(&self, others: &Self) -> Result<(), OtherIdentityError> {
        if others.identity != self.identity {
            let (now, then) = (self.identity.clone(), others.identity.clone());
            return Err(OtherIdentityError { now, then });
        }
        *self.current() = others.current().clone();
        Ok(())
    }

    /// Returns whom the certificate stands for.
    pub const fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Returns how to serve with the certificate.
    pub(crate) fn server(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.current().server)
    }

    /// Returns how to connect with the certificate.
    pub(crate) fn client(&self) -> Arc<ClientConfig> {
        Arc::clone(&self.current().client)
    }

    /// Locks what is current. A panic elsewhere leaves it whole: every change is one
    /// assignment.
    fn current(&self) -> MutexGuard<'_, Loaded> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Credentials that cannot take the place of others.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the certificate is one of {then} now and was one of {now}; restart the program to be \
     somebody else"
)]
pub struct OtherIdentityError {
    now: Identity,
    then: Identity,
}

impl Loaded {
    /// Loads PEM files; returns whom the certificate stands for, too.
    fn load(
        ca_chain: &Path,
        cert: &Path,
        key: &Path,
    ) -> Result<(Identity, Self), LoadCredentialsError> {
        let authorities = certificates(ca_chain)?;
        let chain = certificates(cert)?;
        let key = PrivateKeyDer::from_pem_file(key).map_err(|source| {
            LoadCredentialsError::Key { path: key.to_owned(), source }
        })?;
        let identity = chain
            .first()
            .and_then(identity_of)
            .ok_or_else(|| LoadCredentialsError::NoIdentity { path: cert.to_owned() })?;
        let mut roots = RootCertStore::empty();
        for authority in authorities {
            roots.add(authority).map_err(|source| LoadCredentialsError::Authority {
                path: ca_chain.to_owned(),
                source,
            })?;
        }
        let roots = Arc::new(roots);
        let refused =
            |source| LoadCredentialsError::Refused { path: cert.to_owned(), source };
        let verifier =
            WebPkiClientVerifier::builder_with_provider(Arc::clone(&roots), provider())
                .build()
                .map_err(|error| refused(rustls::Error::General(error.to_string())))?;
        let mut server = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(refused)?
            .with_client_cert_verifier(verifier)
            .with_single_cert(chain.clone(), key.clone_key())
            .map_err(refused)?;
        server.alpn_protocols = vec![b"http/1.1".to_vec()];
        let mut client = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(refused)?
            .with_root_certificates(roots)
            .with_client_auth_cert(chain, key)
            .map_err(refused)?;
        client.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok((identity, Self { server: Arc::new(server), client: Arc::new(client) }))
    }
}

/// Files that are no credentials.
#[derive(Debug, thiserror::Error)]
pub enum LoadCredentialsError {
    /// A file of certificates.
    #[error("cannot read certificates from {path}")]
    Certificates {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: rustls_pki_types::pem::Error,
    },
    /// A file without certificates.
    #[error("{path} contains no certificate; it is a PEM file with BEGIN CERTIFICATE")]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// A key.
    #[error("cannot read a private key from {path}; it is an unencrypted PEM file")]
    Key {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: rustls_pki_types::pem::Error,
    },
    /// An authority's certificate.
    #[error("{path} contains a certificate that is no authority's")]
    Authority {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: rustls::Error,
    },
    /// A certificate that names nobody.
    #[error("the certificate in {path} has no readable subject")]
    NoIdentity {
        /// The file.
        path: PathBuf,
    },
    /// Certificate and key do not work together.
    #[error("the certificate in {path} cannot be used with its key")]
    Refused {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: rustls::Error,
    },
}

/// Reads all certificates of a PEM file; text around them is ignored.
fn certificates(
    path: &Path,
) -> Result<Vec<CertificateDer<'static>>, LoadCredentialsError> {
    let failed =
        |source| LoadCredentialsError::Certificates { path: path.to_owned(), source };
    let certificates: Vec<_> = CertificateDer::pem_file_iter(path)
        .map_err(failed)?
        .collect::<Result<_, _>>()
        .map_err(failed)?;
    if certificates.is_empty() {
        return Err(LoadCredentialsError::Empty { path: path.to_owned() });
    }
    Ok(certificates)
}

/// Returns the identity in a certificate; `None` if it has no readable subject.
///
/// The identity is the first value of each relative distinguished name, in the order of
/// the certificate.
pub fn identity_of(certificate: &CertificateDer<'_>) -> Option<Identity> {
    let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
    let subject = certificate.subject();
    let names: Vec<Box<str>> = subject
        .iter_rdn()
        .filter_map(|rdn| rdn.iter().next()?.as_str().ok())
        .map(Into::into)
        .collect();
    if names.is_empty() { None } else { Some(Identity::new(names, unit(subject))) }
}

/// Returns the organizational unit of a subject.
fn unit<'a>(subject: &'a X509Name<'_>) -> Option<&'a str> {
    subject.iter_organizational_unit().next()?.as_str().ok()
}

/// Says whether a handshake failed because the peer sent something that is no TLS.
pub(crate) fn is_no_tls(error: &io::Error) -> bool {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    matches!(
        inner,
        Some(rustls::Error::InvalidMessage(rustls::InvalidMessage::InvalidContentType))
    )
}

/// Makes a token that nobody can guess.
///
/// # Panics
///
/// If the operating system has no randomness to give.
pub fn fresh_token() -> Token {
    let mut bits = [0; 16];
    provider()
        .secure_random
        .fill(&mut bits)
        .unwrap_or_else(|_| panic!("the operating system gives no random bits"));
    Token::from_random(bits)
}

/// Returns the implementation of the algorithms.
fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

/// Returns the identity in a certificate file; `None` if there is none to be read.
pub fn identity_in(path: &Path) -> Option<Identity> {
    certificates(path).ok()?.first().and_then(identity_of)
}
