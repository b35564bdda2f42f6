//! The demo page: four files, compiled in.
//!
//! In: a path, the browser's `Host` and `If-None-Match`. Out: the file, or 304 for a browser that has it. Always: the page
//! may load nothing from elsewhere and talk to nobody but this server; a browser asks each time and is told when nothing
//! has changed, so a new server is a new page.

use crate::http::Answer;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use hyper::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, ETAG, HOST, HeaderMap, HeaderValue, IF_NONE_MATCH};
use hyper::{Response, StatusCode};
use sha2::{Digest as _, Sha256};
use std::net::{IpAddr, SocketAddr};

/// Path, media type, content. Built from client/web/demo by `scripts/web demo`.
const FILES: [(&str, &str, &[u8]); 4] = [
    ("/", "text/html; charset=utf-8", include_bytes!("page/index.html")),
    ("/page.js", "text/javascript; charset=utf-8", include_bytes!("page/page.js")),
    ("/page.css", "text/css; charset=utf-8", include_bytes!("page/page.css")),
    ("/icon.svg", "image/svg+xml", include_bytes!("page/icon.svg")),
];

pub struct Page {
    websocket: SocketAddr,
    etags: [String; FILES.len()],
}

impl Page {
    /// `websocket`: where the page may connect to, besides its own address.
    pub fn new(websocket: SocketAddr) -> Self {
        let etag = |content| format!("\"{}\"", URL_SAFE_NO_PAD.encode(&Sha256::digest(content)[..16]));
        Self { websocket, etags: FILES.map(|(_, _, content)| etag(content)) }
    }

    /// `None`: no file of the page.
    pub fn answer(&self, path: &str, request: &HeaderMap) -> Option<Answer> {
        let (file, etag) = FILES.iter().zip(&self.etags).find(|((name, _, _), _)| *name == path)?;
        let (_, media_type, content) = *file;
        let text = |name| request.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
        let mut answer = if text(IF_NONE_MATCH).is_some_and(|held| names(held, etag)) {
            let mut answer = Response::new(Bytes::new().into());
            *answer.status_mut() = StatusCode::NOT_MODIFIED;
            answer
        } else {
            crate::http::answer(StatusCode::OK, media_type, Bytes::from_static(content))
        };
        let headers = answer.headers_mut();
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        let values = [(ETAG, etag.clone()), (CONTENT_SECURITY_POLICY, self.policy(text(HOST)))];
        headers.extend(values.into_iter().filter_map(|(name, value)| Some((name, value.parse().ok()?))));
        Some(answer)
    }

    fn policy(&self, host: Option<&str>) -> String {
        let websocket = connect_source(self.websocket, host);
        format!(
            "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self' {websocket}; \
             base-uri 'none'; frame-ancestors 'none'; form-action 'none'"
        )
    }
}

/// The WebSocket address as a policy names it. A listener on every address is reached by the name that the page was. A
/// policy cannot name an IPv6 address, so there it allows the scheme.
fn connect_source(websocket: SocketAddr, host: Option<&str>) -> String {
    let port = websocket.port();
    let name = host.map(|host| host.rsplit_once(':').map_or(host, |(name, _)| name));
    let is_plain = |name: &&str| name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-".contains(&byte));
    match (websocket.ip(), name.filter(is_plain)) {
        (IpAddr::V4(address), _) if !address.is_unspecified() => format!("ws://{address}:{port}"),
        (address, Some(name)) if address.is_unspecified() => format!("ws://{name}:{port}"),
        _ => "ws:".to_owned(),
    }
}

/// `If-None-Match` is a list, or `*`.
fn names(held: &str, etag: &str) -> bool {
    held.split(',').map(|one| one.trim().trim_start_matches("W/")).any(|one| one == etag || one == "*")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_policy_names_the_websocket_as_the_browser_will_reach_it() {
        let source = |listen: &str, host| connect_source(listen.parse().unwrap(), host);
        assert_eq!(source("127.0.0.1:6101", Some("localhost:6102")), "ws://127.0.0.1:6101");
        assert_eq!(source("0.0.0.0:6101", Some("chat.example.com")), "ws://chat.example.com:6101");
        assert_eq!(source("0.0.0.0:6101", Some("10.0.0.7:6102")), "ws://10.0.0.7:6101");
        assert_eq!(source("[::]:6101", Some("[fd00::7]:6102")), "ws:");
        assert_eq!(source("[::1]:6101", Some("localhost:6102")), "ws:");
        assert_eq!(source("0.0.0.0:6101", Some("x; script-src *")), "ws:", "a host says nothing but a name");
    }

    #[test]
    fn a_browser_that_holds_one_of_several_versions_is_told_so() {
        assert!(names("\"a\", W/\"b\"", "\"b\"") && names("*", "\"b\""));
        assert!(!names("\"bb\"", "\"b\"") && !names("", "\"b\""));
    }
}
