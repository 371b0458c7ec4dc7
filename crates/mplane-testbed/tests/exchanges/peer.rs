//! A peer that answers as it was recorded, over a real socket in plain HTTP.

use std::sync::{Arc, Mutex};
use std::time::Instant;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use http::{Response, StatusCode, header};
use http_body_util::BodyExt;
use mplane_runtime::http::PlainHttp;
use mplane_runtime::http::client::BaseUrl;
use mplane_runtime::http::server::{Transport, listen, serve};
use tokio::sync::Notify;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::essence::Answer;
use crate::replay::DEADLINE;

/// A request that came.
#[derive(Clone, Debug)]
pub(crate) struct Came {
    /// The method and the path.
    pub(crate) what: String,
    /// The content type.
    pub(crate) content_type: String,
    /// The body.
    pub(crate) body: String,
    /// When, on the monotonic clock.
    pub(crate) at: Instant,
}

/// How it answers.
type Script = dyn Fn(&Came, &str) -> Answer + Send + Sync;

/// A peer that answers as it is told.
pub(crate) struct Scripted {
    script: Box<Script>,
    /// Where it listens.
    authority: String,
    came: Mutex<Vec<Came>>,
    news: Notify,
}

impl Scripted {
    /// Starts to listen. The script gets each request, and the authority of its URL. It
    /// listens until the guard is dropped.
    pub(crate) async fn start(
        script: impl Fn(&Came, &str) -> Answer + Send + Sync + 'static,
    ) -> (Arc<Self>, DropGuard) {
        let any = "127.0.0.1:0".parse().expect("an address");
        let listener = listen(any).await.expect("a port");
        let authority = listener.local_addr().expect("an address").to_string();
        let (came, news) = (Mutex::default(), Notify::new());
        let peer = Arc::new(Self { script: Box::new(script), authority, came, news });
        let router = Router::new().fallback(answer).with_state(Arc::clone(&peer));
        let end = CancellationToken::new();
        let transport = Transport::Plain(PlainHttp::Loopback);
        tokio::spawn(serve(listener, transport, router, end.clone()));
        (peer, end.drop_guard())
    }

    /// Returns where it listens: host and port.
    pub(crate) fn authority(&self) -> &str {
        &self.authority
    }

    /// Returns the URL of a path.
    pub(crate) fn url(&self, path: &str) -> BaseUrl {
        let url = format!("http://{}{path}", self.authority);
        BaseUrl::parse(&url, Some(PlainHttp::Loopback)).expect("a URL")
    }

    /// Returns the requests that came until now.
    pub(crate) fn came(&self) -> Vec<Came> {
        self.came.lock().expect("nobody panics").clone()
    }

    /// Waits until the requests that came are as many as is wanted, or for so long that
    /// they will never be; returns them.
    pub(crate) async fn wait_for(
        &self,
        is_enough: impl Fn(&[Came]) -> bool,
    ) -> Vec<Came> {
        let wait = async {
            loop {
                let news = self.news.notified();
                let came = self.came();
                if is_enough(&came) {
                    return came;
                }
                news.await;
            }
        };
        tokio::time::timeout(DEADLINE, wait).await.unwrap_or_else(|_| self.came())
    }
}

/// Answers a request.
async fn answer(State(peer): State<Arc<Scripted>>, request: Request) -> Response<Body> {
    let at = Instant::now();
    let what = format!("{} {}", request.method(), request.uri().path());
    let content_type = request.headers().get(header::CONTENT_TYPE);
    let content_type = content_type.map_or("", |value| value.to_str().expect("text"));
    let content_type = content_type.to_owned();
    let body = request.into_body().collect().await.expect("a body").to_bytes();
    let body = String::from_utf8(body.to_vec()).expect("text");
    let came = Came { what, content_type, body, at };
    let Answer { status, content_type, body } = (peer.script)(&came, &peer.authority);
    peer.came.lock().expect("nobody panics").push(came);
    peer.news.notify_waiters();
    let mut response = Response::new(Body::from(body));
    let status = u16::try_from(status).expect("a status");
    *response.status_mut() = StatusCode::from_u16(status).expect("a status");
    if !content_type.is_empty() {
        let content_type = content_type.parse().expect("a content type");
        response.headers_mut().insert(header::CONTENT_TYPE, content_type);
    }
    response
}
