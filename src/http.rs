//! The HTTP port: the demo page for people, and for operators liveness, readiness, metrics.
//!
//! In: GET and HEAD requests. Out: the page and `/demo.json`; `/healthz` (the process runs), `/readyz` (it takes clients; 503
//! while starting or draining), `/metrics` (Prometheus text). Always: bounded headers and time, no state; nothing secret but
//! the tokens of demo users, which are worth something on this machine only.

use crate::demo::Demo;
use crate::page::Page;
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{
    ALLOW, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HOST, HeaderValue, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

const HEADER_TIMEOUT: Duration = Duration::from_secs(5);
const HEADER_BYTES_MAX: usize = 8 * 1024;
/// Beyond it a new connection waits in the kernel's backlog.
const CONNECTIONS_MAX: usize = 64;
/// A failed accept (no file descriptors left) is tried again after this pause.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);
const TEXT: &str = "text/plain; charset=utf-8";
const METRICS: &str = "text/plain; version=0.0.4; charset=utf-8";

pub type Answer = Response<Full<Bytes>>;

/// What the endpoints tell.
pub struct Endpoints {
    pub ready: AtomicBool,
    pub metrics: Box<dyn Fn() -> String + Send + Sync>,
    /// `None`: a role that serves no people.
    pub page: Option<Page>,
    pub demo: Option<Demo>,
}

/// Serves until the runtime ends.
pub async fn serve(listener: TcpListener, endpoints: Arc<Endpoints>) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(place) = places.clone().acquire_owned().await else { return };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "http accept failed");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let endpoints = endpoints.clone();
        tokio::spawn(async move {
            let service = service_fn(move |request| respond(request, endpoints.clone()));
            let connection = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEADER_TIMEOUT)
                .max_buf_size(HEADER_BYTES_MAX)
                .serve_connection(TokioIo::new(stream), service);
            // A client that breaks off is its own matter.
            let _ = connection.await;
            drop(place);
        });
    }
}

async fn respond(request: Request<Incoming>, endpoints: Arc<Endpoints>) -> Result<Answer, Infallible> {
    let mut answer = match endpoints.find(&request) {
        None => answer(StatusCode::NOT_FOUND, TEXT, "try /, /healthz, /readyz or /metrics\n".into()),
        // The body of an answer to HEAD is left out by hyper.
        Some(answer) if [Method::GET, Method::HEAD].contains(request.method()) => answer,
        Some(_) => {
            let mut refused = answer(StatusCode::METHOD_NOT_ALLOWED, TEXT, "only GET and HEAD\n".into());
            refused.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            refused
        }
    };
    let headers = answer.headers_mut();
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.insert("cross-origin-resource-policy", HeaderValue::from_static("same-origin"));
    let nothing = HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'");
    headers.entry(CONTENT_SECURITY_POLICY).or_insert(nothing);
    Ok(answer)
}

impl Endpoints {
    /// What is at this path; `None`: nothing.
    fn find(&self, request: &Request<Incoming>) -> Option<Answer> {
        let (path, headers) = (request.uri().path(), request.headers());
        Some(match path {
            "/healthz" => answer(StatusCode::OK, TEXT, "ok\n".into()),
            "/readyz" if self.ready.load(Ordering::Acquire) => answer(StatusCode::OK, TEXT, "ready\n".into()),
            "/readyz" => answer(StatusCode::SERVICE_UNAVAILABLE, TEXT, "not ready\n".into()),
            "/metrics" => answer(StatusCode::OK, METRICS, (self.metrics)().into()),
            "/demo.json" => self.demo.as_ref()?.answer(headers.get(HOST).and_then(|host| host.to_str().ok())),
            _ => return self.page.as_ref()?.answer(path, headers),
        })
    }
}

pub fn answer(status: StatusCode, media_type: &'static str, body: Bytes) -> Answer {
    let mut answer = Response::new(Full::new(body));
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
    answer
}
