//! B14 to B21 where they are WebSocket's own: whatever the other tests ride on, these speak it by hand.

use crate::harness::bystander::Bystanders;
use crate::harness::endpoint::Endpoint;
use crate::harness::raw::{Raw, within};
use crate::harness::server::{Server, Settings};
use crate::harness::wire::frame;
use im_proto::client::CloseCode;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

const FIN: u8 = 0x80;
const CONTINUATION: u8 = 0;
const TEXT: u8 = 1;
const BINARY: u8 = 2;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;

/// Close codes of RFC 6455, section 7.4.1.
const PROTOCOL_ERROR: u16 = 1002;
const UNSUPPORTED_DATA: u16 = 1003;
const NOT_UTF8: u16 = 1007;
const TOO_BIG: u16 = 1009;

fn request(server: &Server) -> String {
    format!(
        "GET /ws HTTP/1.1\r\nHost: {}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: AQIDBAUGBwgJCgsMDQ4PEA==\r\n\r\n",
        server.websocket
    )
}

/// The answer to a request, up to the end of its head.
async fn answer(server: &Server, request: &str) -> (TcpStream, String) {
    let mut stream = TcpStream::connect(server.websocket).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut head = Vec::new();
    let reading = async {
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.expect("the answer has an end"));
        }
    };
    within("the server answers", reading).await;
    (stream, String::from_utf8(head).unwrap())
}

async fn status(server: &Server, request: &str) -> String {
    answer(server, request).await.1.split(' ').nth(1).unwrap().to_owned()
}

/// Each input closes a signed-in connection with these codes, and nobody else is disturbed.
async fn each_closes(inputs: &[(&str, Vec<u8>, CloseCode, u16)]) {
    let server = Server::start(Settings::for_tests());
    let mut bystanders = Bystanders::new(&server).await;
    for (name, bytes, code, websocket_code) in inputs {
        println!("{name}");
        let mut raw = Raw::device_over(&server, Endpoint::Websocket(server.websocket), "eve", "phone").await;
        // The server may end before it took all.
        let _ = raw.try_send_encoded(bytes).await;
        raw.closed_with_both(*code, *websocket_code).await;
        bystanders.are_undisturbed().await;
    }
}

fn unmasked(first: u8, payload: &[u8]) -> Vec<u8> {
    [&[first, payload.len() as u8], payload].concat()
}

#[tokio::test]
async fn b14_a_frame_without_a_mask_closes() {
    each_closes(&[("unmasked", unmasked(FIN | BINARY, b"\0"), CloseCode::ProtocolError, PROTOCOL_ERROR)]).await;
}

#[tokio::test]
async fn b15_a_frame_against_the_rules_closes() {
    let long_length = [&[FIN | BINARY, 0x80 | 127][..], &u64::MAX.to_be_bytes(), b"mask"].concat();
    let inputs = [
        ("a reserved bit", frame(FIN | 0x40 | BINARY, b"\0")),
        ("a reserved opcode", frame(FIN | 3, b"\0")),
        ("a reserved control opcode", frame(FIN | 11, b"")),
        ("a fragmented ping", frame(PING, b"")),
        ("a ping above 125 bytes", frame(FIN | PING, &[0; 126])),
        ("a close code of one byte", frame(FIN | CLOSE, &[3])),
        ("a close code that may not be sent", frame(FIN | CLOSE, &1005_u16.to_be_bytes())),
        ("a close above 125 bytes", frame(FIN | CLOSE, &[&1000_u16.to_be_bytes()[..], &[b'x'; 124]].concat())),
        ("a length with its top bit set", long_length),
        ("a continuation of nothing", frame(FIN | CONTINUATION, b"\0")),
    ];
    let inputs: Vec<_> =
        inputs.into_iter().map(|(name, bytes)| (name, bytes, CloseCode::ProtocolError, PROTOCOL_ERROR)).collect();
    each_closes(&inputs).await;
}

#[tokio::test]
async fn b16_too_many_fragments_or_too_many_bytes_close() {
    let mut bomb = frame(BINARY, b"");
    bomb.extend((0..200).flat_map(|_| frame(CONTINUATION, b"")));
    let huge = [&[FIN | BINARY, 0x80 | 127][..], &(1_u64 << 40).to_be_bytes(), b"mask"].concat();
    let code = CloseCode::FrameTooLarge;
    each_closes(&[("empty fragments", bomb, code, TOO_BIG), ("a terabyte", huge, code, TOO_BIG)]).await;
}

#[tokio::test]
async fn b17_compression_is_not_taken() {
    let server = Server::start(Settings::for_tests());
    let mut bystanders = Bystanders::new(&server).await;
    let offer = "Sec-WebSocket-Extensions: permessage-deflate\r\n\r\n";
    let (_, head) = answer(&server, &request(&server).replace("\r\n\r\n", &format!("\r\n{offer}"))).await;
    assert!(head.starts_with("HTTP/1.1 101 ") && !head.to_lowercase().contains("extensions"), "{head}");
    let compressed = frame(FIN | 0x40 | BINARY, &[0x4b, 0x4c, 0x4a, 0x06, 0x00]);
    bystanders.are_undisturbed().await;
    each_closes(&[("a compressed message", compressed, CloseCode::ProtocolError, PROTOCOL_ERROR)]).await;
}

#[tokio::test]
async fn b18_text_and_what_is_not_utf8_close() {
    let inputs = [
        ("text", frame(FIN | TEXT, b"hello"), CloseCode::ProtocolError, UNSUPPORTED_DATA),
        ("text that is not UTF-8", frame(FIN | TEXT, &[0xff, 0xfe]), CloseCode::ProtocolError, NOT_UTF8),
        ("a reason that is not UTF-8", frame(FIN | CLOSE, b"\x03\xe8\xff"), CloseCode::ProtocolError, NOT_UTF8),
    ];
    each_closes(&inputs).await;
}

#[tokio::test]
async fn b19_a_message_that_ends_inside_a_frame_or_has_none_closes() {
    // No rule of WebSocket is broken, so it is closed with our own code.
    let own = CloseCode::ProtocolError as u16;
    let inputs = [
        ("a frame of 5 bytes with 2", frame(FIN | BINARY, &[5, 1, 2]), CloseCode::ProtocolError, own),
        ("the same behind a heartbeat", frame(FIN | BINARY, &[0, 5, 1, 2]), CloseCode::ProtocolError, own),
        ("half a length", frame(FIN | BINARY, &[0x80]), CloseCode::ProtocolError, own),
        ("nothing", frame(FIN | BINARY, b""), CloseCode::ProtocolError, own),
    ];
    each_closes(&inputs).await;
}

#[tokio::test]
async fn b20_a_page_of_a_foreign_origin_is_refused() {
    let server = Server::start(Settings::for_tests().with("IM_GATEWAY__ORIGINS", "[\"https://app.example\"]"));
    let mut bystanders = Bystanders::new(&server).await;
    let from = |origin: &str| request(&server).replace("\r\n\r\n", &format!("\r\nOrigin: {origin}\r\n\r\n"));
    for foreign in ["http://evil.example", "null", "https://app.example.evil.example", "https://app.example:444"] {
        assert_eq!(status(&server, &from(foreign)).await, "403", "{foreign}");
        bystanders.are_undisturbed().await;
    }
    for own in ["https://app.example".to_owned(), format!("http://{}", server.http)] {
        assert_eq!(status(&server, &from(&own)).await, "101", "{own}");
    }
    assert_eq!(status(&server, &request(&server)).await, "101", "a client that is no page names no origin");
}

#[tokio::test]
async fn b20_a_request_that_is_no_handshake_gets_an_http_answer() {
    let server = Server::start(Settings::for_tests());
    let mut bystanders = Bystanders::new(&server).await;
    for (what, by, expected) in [
        ("Version: 13", "Version: 8", "426"),
        ("Upgrade: websocket\r\n", "", "426"),
        ("AQIDBAUGBwgJCgsMDQ4PEA==", "c2hvcnQ=", "400"),
        ("GET /ws ", "GET /other ", "404"),
        ("GET /ws ", "POST /ws ", "405"),
    ] {
        assert_eq!(status(&server, &request(&server).replace(what, by)).await, expected, "{what} -> {by}");
        bystanders.are_undisturbed().await;
    }
    // A client that took the port for the one of TCP.
    let frames = "\u{8}hello you\r\n\r\n";
    assert_eq!(status(&server, frames).await, "400");
    bystanders.are_undisturbed().await;
}

#[tokio::test]
async fn b21_a_flood_of_pings_closes() {
    let (code, own) = (CloseCode::Overloaded, CloseCode::Overloaded as u16);
    let pings = frame(FIN | PING, b"").repeat(2_000);
    let pongs = frame(FIN | PONG, b"").repeat(2_000);
    each_closes(&[("pings", pings, code, own), ("pongs nobody asked for", pongs, code, own)]).await;
}
