//! The client's side of the handshake.
//!
//! In: where to connect, 16 random bytes, then the bytes of the answer. Out: the request to send, and whether the server
//! agreed. Always: nothing is taken for a WebSocket connection but a 101 with the accept value of this very key, without
//! extensions, and with no subprotocol but the one offered.

use super::head::Head;
use super::{HEADERS_MAX, accept, names};
use crate::websocket::SUBPROTOCOL;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::BytesMut;

/// What a client asks for. The texts go into the request as they are: they come from an address that was parsed before.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// With the port, if it is not the scheme's own.
    pub host: &'a str,
    pub path: &'a str,
    /// The page's origin; a client that is no browser has none.
    pub origin: Option<&'a str>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HandshakeFailed {
    /// An HTTP answer of another kind. 503 is to be tried again later.
    #[error("the server answered {status} instead of a WebSocket")]
    Refused { status: u16 },
    #[error("the server's answer is no WebSocket handshake: {0}")]
    Invalid(&'static str),
}

#[derive(Debug)]
pub struct ClientHandshake {
    head: Head,
    accept: String,
}

impl ClientHandshake {
    /// The handshake, and the request to send. `key`: random.
    pub fn new(request: Request<'_>, key: [u8; 16]) -> (Self, String) {
        let key = STANDARD.encode(key);
        let Request { host, path, origin } = request;
        let origin = origin.map_or_else(String::new, |origin| format!("Origin: {origin}\r\n"));
        let text = format!(
            "GET {path} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: {SUBPROTOCOL}\r\n\
             {origin}\r\n"
        );
        (Self { head: Head::default(), accept: accept(&key) }, text)
    }

    /// Takes the answer from the front of `input`. True: the connection is open, and what is left of `input` are frames.
    /// False: more is needed.
    pub fn receive(&mut self, input: &mut BytesMut) -> Result<bool, HandshakeFailed> {
        let Self { head, accept } = self;
        match head.take(input) {
            Ok(Some(head)) => judge(head, accept).map(|()| true),
            Ok(None) => Ok(false),
            Err(_) => Err(HandshakeFailed::Invalid("a head over the limit")),
        }
    }
}

fn judge(head: &[u8], accept: &str) -> Result<(), HandshakeFailed> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut response = httparse::Response::new(&mut headers);
    match response.parse(head) {
        Ok(httparse::Status::Complete(_)) => {}
        _ => return Err(HandshakeFailed::Invalid("not HTTP")),
    }
    let status = response.code.unwrap_or_default();
    if status != 101 {
        return Err(HandshakeFailed::Refused { status });
    }
    let mut upgrades = false;
    let mut connects = false;
    let mut accepts = 0;
    for header in response.headers.iter() {
        let value = std::str::from_utf8(header.value).unwrap_or_default().trim();
        match header.name.to_ascii_lowercase().as_str() {
            "upgrade" => upgrades |= value.eq_ignore_ascii_case("websocket"),
            "connection" => connects |= names(value, "upgrade"),
            "sec-websocket-accept" if value == accept => accepts += 1,
            "sec-websocket-accept" => return Err(HandshakeFailed::Invalid("it accepts another key")),
            "sec-websocket-extensions" => return Err(HandshakeFailed::Invalid("it takes an extension not offered")),
            "sec-websocket-protocol" if value != SUBPROTOCOL => {
                return Err(HandshakeFailed::Invalid("it takes a subprotocol not offered"));
            }
            _ => {}
        }
    }
    if upgrades && connects && accepts == 1 {
        return Ok(());
    }
    Err(HandshakeFailed::Invalid("a header is missing"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::websocket::Origins;
    use crate::websocket::{PATH, ServerHandshake};

    const REQUEST: Request<'static> = Request { host: "localhost:6101", path: PATH, origin: None };

    fn receive(answer: &str) -> Result<bool, HandshakeFailed> {
        let (mut handshake, _) = ClientHandshake::new(REQUEST, *b"the sample nonce");
        handshake.receive(&mut BytesMut::from(answer))
    }

    const ANSWER: &str = "HTTP/1.1 101 Switching Protocols\r\nupgrade: WebSocket\r\nConnection: Upgrade\r\n\
        Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";

    #[test]
    fn client_and_server_agree_and_keep_what_follows() {
        let (mut client, request) = ClientHandshake::new(REQUEST, [7; 16]);
        let answer = ServerHandshake::default()
            .receive(&mut BytesMut::from(request.as_str()), &Origins::default())
            .unwrap()
            .unwrap();
        let mut input = BytesMut::from(answer.as_str());
        input.extend_from_slice(b"frames");
        assert_eq!(client.receive(&mut input), Ok(true));
        assert_eq!(&input[..], b"frames");
    }

    #[test]
    fn an_answer_is_read_at_every_split() {
        for at in 0..ANSWER.len() {
            let (mut handshake, _) = ClientHandshake::new(REQUEST, *b"the sample nonce");
            assert_eq!(handshake.receive(&mut BytesMut::from(&ANSWER[..at])), Ok(false), "split at {at}");
            assert_eq!(handshake.receive(&mut BytesMut::from(&ANSWER[at..])), Ok(true), "split at {at}");
        }
    }

    #[test]
    fn an_answer_that_does_not_agree_is_refused() {
        assert_eq!(receive("HTTP/1.1 403 Forbidden\r\n\r\n"), Err(HandshakeFailed::Refused { status: 403 }));
        for (from, to) in [
            ("s3pPLMBiTxaQ9kYGzzhZRbK+xOo=", "AAAALMBiTxaQ9kYGzzhZRbK+xOo="),
            ("upgrade: WebSocket\r\n", ""),
            ("Connection: Upgrade\r\n", ""),
            ("\r\n\r\n", "\r\nSec-WebSocket-Extensions: permessage-deflate\r\n\r\n"),
            ("\r\n\r\n", "\r\nSec-WebSocket-Protocol: chat\r\n\r\n"),
            ("HTTP/1.1", "SSH-2.0"),
        ] {
            assert!(matches!(receive(&ANSWER.replacen(from, to, 1)), Err(HandshakeFailed::Invalid(_))), "{to}");
        }
    }
}
