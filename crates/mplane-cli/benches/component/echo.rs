//! The floor: a bare axum server with mutual TLS of the same kind, which sends back what
//! it gets.

use std::path::Path;
use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::routing::post;
use http::header;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use mplane::json::MEDIA_TYPE;
use mplane_cli::block_on;
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tower_service::Service as _;

use crate::domain::ADDRESS;

/// Serves until it is killed, with the certificate of the component in this folder. Says
/// first where.
pub(super) fn server(folder: &str) {
    block_on(async {
        let acceptor = TlsAcceptor::from(Arc::new(tls(Path::new(folder))));
        let listener =
            TcpListener::bind((ADDRESS, 0)).await.expect("there are free ports");
        println!("https://{}/", listener.local_addr().expect("it is bound"));
        let router = Router::new().route("/", post(echo));
        loop {
            let (stream, _) = listener.accept().await.expect("there are descriptors");
            let (acceptor, router) = (acceptor.clone(), router.clone());
            tokio::spawn(async move {
                stream.set_nodelay(true).expect("it is a socket");
                let stream =
                    acceptor.accept(stream).await.expect("they trust each other");
                let service = service_fn(move |request| router.clone().call(request));
                let served =
                    http1::Builder::new().serve_connection(TokioIo::new(stream), service);
                // A client that goes away is no failure.
                drop(served.await);
            });
        }
    });
}

/// Sends a body back.
async fn echo(body: Bytes) -> ([(header::HeaderName, &'static str); 1], Bytes) {
    ([(header::CONTENT_TYPE, MEDIA_TYPE)], body)
}

/// Returns how to serve with mutual TLS.
fn tls(folder: &Path) -> ServerConfig {
    let certificate = |name: &str| {
        CertificateDer::from_pem_file(folder.join(name))
            .expect("the certificates are sound")
    };
    let key =
        PrivateKeyDer::from_pem_file(folder.join("com-1.key")).expect("so is the key");
    let mut roots = RootCertStore::empty();
    roots.add(certificate("ca.crt")).expect("it is an authority");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier =
        WebPkiClientVerifier::builder_with_provider(roots.into(), Arc::clone(&provider));
    ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("the provider has them")
        .with_client_cert_verifier(verifier.build().expect("there is an authority"))
        .with_single_cert(vec![certificate("com-1.crt")], key)
        .expect("certificate and key belong together")
}
