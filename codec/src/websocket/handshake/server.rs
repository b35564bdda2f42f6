//! The server's side of the handshake.
//!
//! In: the bytes of a request, the origins that may ask. Out: the answer, 101 or a refusal. Always: one path, GET, HTTP/1.1,
//! version 13; a page of another origin is refused (a client that is no browser names none); a subprotocol may be offered
//! and is not required; no extension is accepted; a request with a body is refused.

use super::head::Head;
use super::origins::Origins;
use super::{HEADERS_MAX, accept, names};
use crate::websocket::{PATH, SUBPROTOCOL};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::BytesMut;
use httparse::Header;

/// Of a refused origin: what is told of it.
const ORIGIN_CHARS_MAX: usize = 128;

/// The request is answered with an HTTP error, and the connection ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    BadRequest,
    /// A page of an origin that may not connect. Empty: it names none that is text.
    Forbidden {
        origin: String,
    },
    NotFound,
    MethodNotAllowed,
    /// Plain HTTP, or another version of WebSocket.
    UpgradeRequired,
    HeadTooLarge,
    VersionNotSupported,
    /// The request did not come whole in time.
    TimedOut,
    /// No more connections now.
    Overloaded,
}

impl Refusal {
    pub fn status(&self) -> u16 {
        match self {
            Self::BadRequest => 400,
            Self::Forbidden { .. } => 403,
            Self::NotFound => 404,
            Self::MethodNotAllowed => 405,
            Self::TimedOut => 408,
            Self::UpgradeRequired => 426,
            Self::HeadTooLarge => 431,
            Self::Overloaded => 503,
            Self::VersionNotSupported => 505,
        }
    }

    /// The whole answer.
    pub fn response(&self) -> String {
        let (reason, header) = match self {
            Self::BadRequest => ("Bad Request", ""),
            Self::Forbidden { .. } => ("Forbidden", ""),
            Self::NotFound => ("Not Found", ""),
            Self::MethodNotAllowed => ("Method Not Allowed", "Allow: GET\r\n"),
            Self::TimedOut => ("Request Timeout", ""),
            Self::UpgradeRequired => ("Upgrade Required", "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"),
            Self::HeadTooLarge => ("Request Header Fields Too Large", ""),
            Self::Overloaded => ("Service Unavailable", "Retry-After: 1\r\n"),
            Self::VersionNotSupported => ("HTTP Version Not Supported", ""),
        };
        let status = self.status();
        format!("HTTP/1.1 {status} {reason}\r\n{header}Connection: close\r\nContent-Length: 0\r\n\r\n")
    }
}

#[derive(Debug, Default)]
pub struct ServerHandshake {
    head: Head,
}

impl ServerHandshake {
    /// Takes the request from the front of `input`, and answers the response with status 101. `None`: more is needed.
    pub fn receive(&mut self, input: &mut BytesMut, origins: &Origins) -> Result<Option<String>, Refusal> {
        match self.head.take(input) {
            Ok(Some(head)) => answer(head, origins).map(Some),
            Ok(None) => Ok(None),
            Err(_) => Err(Refusal::HeadTooLarge),
        }
    }
}

fn answer(head: &[u8], origins: &Origins) -> Result<String, Refusal> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut request = httparse::Request::new(&mut headers);
    match request.parse(head) {
        Ok(httparse::Status::Complete(_)) => {}
        Err(httparse::Error::TooManyHeaders) => return Err(Refusal::HeadTooLarge),
        Err(httparse::Error::Version) => return Err(Refusal::VersionNotSupported),
        Ok(httparse::Status::Partial) | Err(_) => return Err(Refusal::BadRequest),
    }
    judge_target(&request)?;
    let headers = Headers(request.headers);
    judge_origin(&headers, origins)?;
    let key = judge_upgrade(&headers)?;
    let subprotocol = match headers.any_names("sec-websocket-protocol", SUBPROTOCOL)? {
        true => format!("Sec-WebSocket-Protocol: {SUBPROTOCOL}\r\n"),
        false => String::new(),
    };
    let accept = accept(key);
    Ok(format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {accept}\r\n{subprotocol}\r\n"
    ))
}

fn judge_target(request: &httparse::Request<'_, '_>) -> Result<(), Refusal> {
    if request.version != Some(1) {
        return Err(Refusal::VersionNotSupported);
    }
    let path = request.path.unwrap_or_default();
    if path.split('?').next() != Some(PATH) {
        return Err(Refusal::NotFound);
    }
    if request.method != Some("GET") {
        return Err(Refusal::MethodNotAllowed);
    }
    Ok(())
}

fn judge_origin(headers: &Headers<'_>, origins: &Origins) -> Result<(), Refusal> {
    let mut named = headers.all("origin");
    let Some(first) = named.next() else { return Ok(()) };
    let origin = first.unwrap_or_default();
    let host = headers.one("host").ok().flatten();
    // Two are no browser's.
    if named.next().is_none() && origins.allow(origin, host) {
        return Ok(());
    }
    Err(Refusal::Forbidden { origin: origin.chars().take(ORIGIN_CHARS_MAX).collect() })
}

/// The client's key, when everything that an upgrade needs is there.
fn judge_upgrade<'a>(headers: &Headers<'a>) -> Result<&'a str, Refusal> {
    let has_body = headers.one("content-length")?.is_some_and(|length| length != "0");
    if headers.one("host")?.is_none() || has_body || headers.one("transfer-encoding")?.is_some() {
        return Err(Refusal::BadRequest);
    }
    let upgrades = headers.any_names("upgrade", "websocket")? && headers.any_names("connection", "upgrade")?;
    if !upgrades || headers.one("sec-websocket-version")? != Some("13") {
        return Err(Refusal::UpgradeRequired);
    }
    let key = headers.one("sec-websocket-key")?.ok_or(Refusal::BadRequest)?;
    match STANDARD.decode(key) {
        Ok(bytes) if bytes.len() == 16 => Ok(key),
        _ => Err(Refusal::BadRequest),
    }
}

struct Headers<'a>(&'a [Header<'a>]);

impl<'a> Headers<'a> {
    fn all(&self, name: &str) -> impl Iterator<Item = Result<&'a str, Refusal>> {
        let text = |header: &'a Header<'a>| std::str::from_utf8(header.value).map(str::trim);
        self.0
            .iter()
            .filter(move |header| header.name.eq_ignore_ascii_case(name))
            .map(move |header| text(header).map_err(|_| Refusal::BadRequest))
    }

    /// A header that may stand there once at most.
    fn one(&self, name: &str) -> Result<Option<&'a str>, Refusal> {
        let mut all = self.all(name);
        let first = all.next().transpose()?;
        if all.next().is_some() { Err(Refusal::BadRequest) } else { Ok(first) }
    }

    /// True if a header of this name lists `token`.
    fn any_names(&self, name: &str, token: &str) -> Result<bool, Refusal> {
        let mut any = false;
        for value in self.all(name) {
            any |= names(value?, token);
        }
        Ok(any)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REQUEST: &str = "GET /ws HTTP/1.1\r\nHost: 127.0.0.1:6101\r\nUpgrade: websocket\r\n\
        Connection: keep-alive, Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";

    fn receive(request: &[u8], origins: &[&str]) -> Result<Option<String>, Refusal> {
        let listed = origins.iter().map(|o| o.to_string()).collect();
        let origins = Origins { listed, own_http_port: None };
        ServerHandshake::default().receive(&mut BytesMut::from(request), &origins)
    }

    fn with(header: &str) -> String {
        REQUEST.replacen("\r\n\r\n", &format!("\r\n{header}\r\n\r\n"), 1)
    }

    fn check(request: &str, expected: Refusal) {
        assert_eq!(receive(request.as_bytes(), &[]), Err(expected), "{request}");
    }

    #[test]
    fn a_request_is_read_at_every_split_and_what_follows_it_is_kept() {
        let stream = [REQUEST.as_bytes(), b"frames"].concat();
        for at in 0..=stream.len() {
            let mut handshake = ServerHandshake::default();
            let mut answer = None;
            let mut input = BytesMut::new();
            for piece in [&stream[..at], &stream[at..]] {
                input.extend_from_slice(piece);
                if answer.is_none() {
                    answer = handshake.receive(&mut input, &Origins::default()).unwrap();
                }
            }
            let answer = answer.unwrap();
            assert!(answer.starts_with("HTTP/1.1 101 "), "{answer}");
            assert!(answer.contains("Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"), "{answer}");
            assert_eq!(&input[..], b"frames", "split at {at}");
        }
    }

    #[test]
    fn neither_subprotocol_nor_extension_is_taken_unless_it_is_ours() {
        let offered = with("Sec-WebSocket-Protocol: chat, im.v1\r\nSec-WebSocket-Extensions: permessage-deflate");
        let answer = receive(offered.as_bytes(), &[]).unwrap().unwrap();
        assert!(answer.contains("Sec-WebSocket-Protocol: im.v1\r\n") && !answer.contains("Extensions"), "{answer}");
        let answer = receive(with("Sec-WebSocket-Protocol: chat").as_bytes(), &[]).unwrap().unwrap();
        assert!(!answer.contains("Protocol:"), "{answer}");
    }

    #[test]
    fn a_page_of_another_origin_is_refused() {
        let page = with("Origin: http://localhost:6102");
        assert!(receive(page.as_bytes(), &["http://localhost:6102"]).is_ok());
        let refused = |origin: &str| Refusal::Forbidden { origin: origin.to_owned() };
        assert_eq!(receive(page.as_bytes(), &["http://localhost"]), Err(refused("http://localhost:6102")));
        check(&with("Origin: null"), refused("null"));
        let two = with("Origin: http://a\r\nOrigin: http://a");
        assert_eq!(receive(two.as_bytes(), &["http://a"]), Err(refused("http://a")));
        let long = "x".repeat(5_000);
        check(&with(&format!("Origin: {long}")), refused(&long[..ORIGIN_CHARS_MAX]));
        let no_text = with("Origin: ?").replace('?', "\u{1}").into_bytes();
        let no_text: Vec<u8> = no_text.into_iter().map(|byte| if byte == 1 { 0xff } else { byte }).collect();
        assert_eq!(receive(&no_text, &[]), Err(refused("")));
    }

    #[test]
    fn a_request_that_is_no_handshake_is_told_why() {
        check(&REQUEST.replace("/ws", "/"), Refusal::NotFound);
        check(&REQUEST.replace("GET", "POST"), Refusal::MethodNotAllowed);
        check(&REQUEST.replace("HTTP/1.1", "HTTP/1.0"), Refusal::VersionNotSupported);
        check(&REQUEST.replace("HTTP/1.1", "HTTP/2.0"), Refusal::VersionNotSupported);
        check(&REQUEST.replace("Upgrade: websocket\r\n", ""), Refusal::UpgradeRequired);
        check(&REQUEST.replace("keep-alive, Upgrade", "keep-alive"), Refusal::UpgradeRequired);
        check(&REQUEST.replace("Version: 13", "Version: 8"), Refusal::UpgradeRequired);
        check(&REQUEST.replace("Host: 127.0.0.1:6101\r\n", ""), Refusal::BadRequest);
        check(&REQUEST.replace("dGhlIHNhbXBsZSBub25jZQ==", "c2hvcnQ="), Refusal::BadRequest);
        check(&REQUEST.replace("dGhlIHNhbXBsZSBub25jZQ==", "dGhlIHNhbXBsZSBub25jZQ"), Refusal::BadRequest);
        check(&with("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="), Refusal::BadRequest);
        check(&with("Content-Length: 5"), Refusal::BadRequest);
        check(&with("Transfer-Encoding: chunked"), Refusal::BadRequest);
        check(&with("Sec WebSocket: x"), Refusal::BadRequest);
    }

    #[test]
    fn a_head_is_bounded_in_bytes_and_headers() {
        let many = with(&vec!["X: y"; HEADERS_MAX].join("\r\n"));
        check(&many, Refusal::HeadTooLarge);
        check(&with(&format!("X: {}", "y".repeat(super::super::HEAD_BYTES_MAX))), Refusal::HeadTooLarge);
        let endless = vec![b'a'; super::super::HEAD_BYTES_MAX];
        assert_eq!(receive(&endless, &[]), Err(Refusal::HeadTooLarge));
    }

    #[test]
    fn a_refusal_names_what_would_be_taken() {
        assert!(Refusal::UpgradeRequired.response().contains("Sec-WebSocket-Version: 13\r\n"));
        assert!(Refusal::MethodNotAllowed.response().contains("Allow: GET\r\n"));
        assert!(Refusal::Overloaded.response().starts_with("HTTP/1.1 503 "));
    }
}
