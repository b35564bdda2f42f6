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
use std::net::{Ipv6Addr, SocketAddr};

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
        let websocket = connect_source(&websocket_authority(self.websocket, host));
        format!(
            "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self' {websocket}; \
             base-uri 'none'; frame-ancestors 'none'; form-action 'none'"
        )
    }
}

/// Where a browser that came by `host` reaches the WebSocket: host and port. A listener on every address is reached by the
/// name that the page was.
pub fn websocket_authority(websocket: SocketAddr, host: Option<&str>) -> String {
    if !websocket.ip().is_unspecified() {
        return websocket.to_string();
    }
    format!("{}:{}", host.and_then(name_of).unwrap_or("localhost"), websocket.port())
}

/// Of a `Host`, what stands before its port; `None` if that is neither a plain name nor an address.
fn name_of(host: &str) -> Option<&str> {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if !port.ends_with(']') => name,
        _ => host,
    };
    let is_plain = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-_".contains(&byte));
    let v6 = name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    (is_plain || v6.is_some_and(|address| address.parse::<Ipv6Addr>().is_ok())).then_some(name)
}

/// As a policy names it. A policy cannot name an IPv6 address, so there it allows the scheme.
fn connect_source(authority: &str) -> String {
    if authority.starts_with('[') { "ws:".to_owned() } else { format!("ws://{authority}") }
}

/// `If-None-Match` is a list, or `*`.
fn names(held: &str, etag: &str) -> bool {
    held.split(',').map(|one| one.trim().trim_start_matches("W/")).any(|one| one == etag || one == "*")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_websocket_is_named_as_the_browser_will_reach_it() {
        let authority = |listen: &str, host| websocket_authority(listen.parse().unwrap(), host);
        assert_eq!(authority("127.0.0.1:6101", Some("localhost:6102")), "127.0.0.1:6101");
        assert_eq!(authority("[::1]:6101", Some("localhost:6102")), "[::1]:6101");
        assert_eq!(authority("0.0.0.0:6101", Some("chat.example.com")), "chat.example.com:6101");
        assert_eq!(authority("0.0.0.0:6101", Some("10.0.0.7:6102")), "10.0.0.7:6101");
        assert_eq!(authority("[::]:6101", Some("[fd00::7]:6102")), "[fd00::7]:6101");
        assert_eq!(authority("[::]:6101", Some("[fd00::7]")), "[fd00::7]:6101");
        for host in [None, Some(""), Some(":6102"), Some("x; script-src *"), Some("[x]:6102")] {
            assert_eq!(authority("0.0.0.0:6101", host), "localhost:6101", "a host says nothing but a name: {host:?}");
        }
    }

    #[test]
    fn the_policy_names_the_websocket_or_where_it_cannot_the_scheme() {
        assert_eq!(connect_source("10.0.0.7:6101"), "ws://10.0.0.7:6101");
        assert_eq!(connect_source("[fd00::7]:6101"), "ws:");
    }

    #[test]
    fn a_browser_that_holds_one_of_several_versions_is_told_so() {
        assert!(names("\"a\", W/\"b\"", "\"b\"") && names("*", "\"b\""));
        assert!(!names("\"bb\"", "\"b\"") && !names("", "\"b\""));
    }
}
