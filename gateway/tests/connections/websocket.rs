//! What WebSocket alone can do wrong: it is told by its own close code or an HTTP status, and the session ends with it.

use crate::kit::{Client, ORIGIN, On, QueueMode, Server, config, numbered_push, read_to_end, send_to, sync};
use crate::websocket_on_both_drivers;
use bytes::{Bytes, BytesMut};
use im_codec::encode_delimited;
use im_codec::websocket::{ClientHandshake, Opcode, PATH, Request, close, encode_masked};
use im_proto::client::{self, CloseCode};
use std::io::Write as _;
use std::net::{Shutdown, TcpStream};

websocket_on_both_drivers!(
    b10_a_handshake_that_comes_byte_by_byte_is_cut_off,
    b10_a_head_over_the_limit_is_refused,
    b14_a_frame_without_a_mask_is_refused,
    b15_a_frame_against_the_rules_is_refused,
    b16_a_message_in_too_many_fragments_or_over_the_limit_is_refused,
    b17_compression_is_not_taken,
    b18_text_is_refused,
    b19_a_message_that_ends_inside_a_frame_is_refused,
    b19_a_message_without_a_frame_is_refused,
    b20_a_page_of_another_origin_is_refused,
    b21_a_flood_of_pings_is_closed,
    a_request_that_is_no_handshake_gets_an_http_answer,
    a_silent_client_behind_its_handshake_is_closed,
    a_ping_is_answered_and_is_no_heartbeat,
    a_close_is_answered_and_the_login_signed_out,
    a_client_that_ends_without_a_close_is_signed_out,
    what_comes_with_the_handshake_is_read,
    frames_behind_a_full_table_wait_in_whole_messages,
    a_message_that_stops_between_two_frames_is_cut_off,
    a_ping_between_the_fragments_of_a_frame_changes_nothing,
    frames_that_wait_together_are_one_message,
    connections_are_counted_by_their_transport,
);

fn frame(request_id: u64, command: client::client_frame::Command) -> Bytes {
    encode_delimited(&client::ClientFrame { request_id, command: Some(command), ..Default::default() })
}

/// What the server answers to a request, when it then ends the connection.
fn answer(server: &Server, request: &str) -> String {
    let mut socket = TcpStream::connect(server.address()).unwrap();
    socket.write_all(request.as_bytes()).unwrap();
    read_to_end(socket)
}

fn request(origin: Option<&str>) -> String {
    ClientHandshake::new(Request { host: "127.0.0.1", path: PATH, origin }, [7; 16]).1
}

fn b10_a_handshake_that_comes_byte_by_byte_is_cut_off(on: On) {
    let mut config = config(on);
    config.session.sign_in_timeout_ms = 2_000;
    let server = Server::start(config);
    let answer = answer(&server, "GET /ws HTTP/1.1\r\nHost: ");
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
    assert_eq!(server.handle.metrics().closes(CloseCode::SignInTimeout), 1);
}

fn b10_a_head_over_the_limit_is_refused(on: On) {
    let server = Server::start(config(on));
    let many = request(None).replacen("\r\n\r\n", &"\r\nX: y".repeat(64), 1) + "\r\n\r\n";
    for large in [many, format!("GET /ws HTTP/1.1\r\nX: {}", "y".repeat(8 * 1024))] {
        let answer = answer(&server, &large);
        assert!(answer.starts_with("HTTP/1.1 431 "), "{answer}");
    }
}

fn b14_a_frame_without_a_mask_is_refused(on: On) {
    let server = Server::start(config(on));
    let mut alice = server.sign_in("alice");
    alice.socket.write_all(&[0x82, 1, 0]).unwrap();
    alice.expect_closed_with(CloseCode::ProtocolError, close::PROTOCOL_ERROR);
    server.logic.wait("a sign-out", |s| s.signed_out.pop());
}

fn b15_a_frame_against_the_rules_is_refused(on: On) {
    let server = Server::start(config(on));
    for bad in [
        &[0xc2, 0x80, 0, 0, 0, 0][..],
        &[0x83, 0x80, 0, 0, 0, 0],
        &[0x09, 0x80, 0, 0, 0, 0],
        &[0x89, 0xfe, 0, 126],
        &[0x80, 0x80, 0, 0, 0, 0],
        &[0x82, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
        &[0x82, 0xfe, 0, 5],
        &[0x88, 0x82, 0, 0, 0, 0, 0x03, 0xed],
    ] {
        let mut client = server.connect();
        client.socket.write_all(bad).unwrap();
        client.expect_closed_with(CloseCode::ProtocolError, close::PROTOCOL_ERROR);
    }
    let mut client = server.connect();
    client.write_frame(Opcode::Close, b"\x03\xe8\xff");
    client.expect_closed_with(CloseCode::ProtocolError, close::NOT_UTF8);
}

fn b16_a_message_in_too_many_fragments_or_over_the_limit_is_refused(on: On) {
    let server = Server::start(config(on));
    let mut client = server.connect();
    let mut bomb = vec![0x02, 0x80, 0, 0, 0, 0];
    for _ in 0..128 {
        bomb.extend([0x00, 0x80, 0, 0, 0, 0]);
    }
    client.socket.write_all(&bomb).unwrap();
    client.expect_closed_with(CloseCode::FrameTooLarge, close::TOO_BIG);
    let mut client = server.connect();
    // 2^32 bytes: judged by the header.
    client.socket.write_all(&[0x82, 0xff, 0, 0, 0, 1, 0, 0, 0, 0]).unwrap();
    client.expect_closed_with(CloseCode::FrameTooLarge, close::TOO_BIG);
}

fn b17_compression_is_not_taken(on: On) {
    let server = Server::start(config(on));
    let offer = request(None).replacen("\r\n\r\n", "\r\nSec-WebSocket-Extensions: permessage-deflate\r\n\r\n", 1);
    let mut socket = TcpStream::connect(server.address()).unwrap();
    socket.write_all(offer.as_bytes()).unwrap();
    // Compressed, by its reserved bit.
    socket.write_all(&[0xc2, 0x80, 0, 0, 0, 0]).unwrap();
    let mut answer = Vec::new();
    std::io::Read::read_to_end(&mut socket, &mut answer).unwrap();
    let head = String::from_utf8_lossy(&answer);
    assert!(head.starts_with("HTTP/1.1 101 ") && !head.to_lowercase().contains("extensions"), "{head}");
    assert!(answer.ends_with(&[0x88, 2, 0x03, 0xea]), "{answer:x?}");
}

fn b18_text_is_refused(on: On) {
    let server = Server::start(config(on));
    let mut alice = server.sign_in("alice");
    alice.write_frame(Opcode::Text, b"hello");
    alice.expect_closed_with(CloseCode::ProtocolError, close::UNSUPPORTED_DATA);
    let mut bob = server.sign_in("bob");
    bob.write_frame(Opcode::Text, b"h\xffllo");
    bob.expect_closed_with(CloseCode::ProtocolError, close::NOT_UTF8);
}

fn b19_a_message_that_ends_inside_a_frame_is_refused(on: On) {
    let server = Server::start(config(on));
    let whole = frame(2, send_to("bob", "m1", b"x"));
    for cut in [1, whole.len() - 1] {
        let mut alice = server.sign_in("alice");
        alice.write_frame(Opcode::Binary, &whole[..cut]);
        alice.expect_closed(CloseCode::ProtocolError);
    }
    assert_eq!(server.logic.set(|s| s.kept.len()), 0);
}

fn b19_a_message_without_a_frame_is_refused(on: On) {
    let server = Server::start(config(on));
    let mut alice = server.sign_in("alice");
    alice.write_frame(Opcode::Binary, b"");
    alice.expect_closed(CloseCode::ProtocolError);
}

fn b20_a_page_of_another_origin_is_refused(on: On) {
    let server = Server::start(config(on));
    for origin in ["http://evil.example", "null", "http://127.0.0.1"] {
        let answer = answer(&server, &request(Some(origin)));
        assert!(answer.starts_with("HTTP/1.1 403 "), "{origin}: {answer}");
    }
    assert_eq!(server.handle.metrics().sum(|c| c.handshakes_refused), 3);
    let mut socket = TcpStream::connect(server.address()).unwrap();
    socket.write_all(request(Some(ORIGIN)).as_bytes()).unwrap();
    socket.shutdown(Shutdown::Write).unwrap();
    assert!(read_to_end(socket).starts_with("HTTP/1.1 101 "));
}

fn b21_a_flood_of_pings_is_closed(on: On) {
    let server = Server::start(config(on));
    for opcode in [Opcode::Ping, Opcode::Pong] {
        let mut alice = server.sign_in("alice");
        let mut flood = BytesMut::new();
        for _ in 0..100 {
            encode_masked(opcode, &[b"?"], [1, 2, 3, 4], &mut flood);
        }
        alice.socket.write_all(&flood).unwrap();
        alice.expect_closed(CloseCode::Overloaded);
    }
}

fn a_request_that_is_no_handshake_gets_an_http_answer(on: On) {
    let server = Server::start(config(on));
    for (from, to, status) in [
        ("GET /ws", "GET /", "404"),
        ("GET /ws", "POST /ws", "405"),
        ("Version: 13", "Version: 8", "426"),
        ("Upgrade: websocket\r\n", "", "426"),
        ("Sec-WebSocket-Key: ", "Sec-WebSocket-Key: short", "400"),
    ] {
        let answer = answer(&server, &request(None).replacen(from, to, 1));
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{to}: {answer}");
        assert_eq!(answer.contains("Sec-WebSocket-Version: 13\r\n"), status == "426", "{answer}");
    }
    server.wait_for_metrics("nobody is left", |m| m.sum(|c| c.connections) == 0);
}

fn a_silent_client_behind_its_handshake_is_closed(on: On) {
    let mut config = config(on);
    config.session.sign_in_timeout_ms = 2_000;
    let server = Server::start(config);
    server.connect().expect_closed(CloseCode::SignInTimeout);
}

fn a_ping_is_answered_and_is_no_heartbeat(on: On) {
    let mut config = config(on);
    (config.session.heartbeat_interval_ms, config.session.idle_timeout_ms) = (100, 1_000);
    let server = Server::start(config);
    let mut alice = server.sign_in("alice");
    alice.write_frame(Opcode::Ping, b"are you there");
    alice.heartbeat();
    alice.expect_heartbeat();
    assert_eq!(alice.websocket().pongs, [&b"are you there"[..]]);
    // Pings alone do not keep it: they could not tell it that its inbox moved.
    let mut pinging = alice.socket.try_clone().unwrap();
    let mut ping = BytesMut::new();
    encode_masked(Opcode::Ping, &[b""], [0; 4], &mut ping);
    let pings = std::thread::spawn(move || {
        // Until the server has closed.
        while pinging.write_all(&ping).is_ok() {
            std::thread::sleep(std::time::Duration::from_millis(150));
        }
    });
    alice.expect_closed(CloseCode::IdleTimeout);
    alice.socket.shutdown(Shutdown::Both).unwrap();
    pings.join().unwrap();
}

fn a_close_is_answered_and_the_login_signed_out(on: On) {
    let server = Server::start(config(on));
    for (payload, code) in [(&b"\x03\xe9bye"[..], Some(1001)), (b"", None)] {
        let mut alice = server.sign_in("alice");
        alice.write_frame(Opcode::Close, payload);
        assert_eq!(alice.next(), None);
        assert_eq!(alice.websocket().close.as_ref().unwrap().code, code);
        server.logic.wait("a sign-out", |s| s.signed_out.pop());
    }
    server.wait_for_metrics("both ends were the client's", |m| m.sum(|c| c.closed_by_client) == 2);
}

fn a_client_that_ends_without_a_close_is_signed_out(on: On) {
    let server = Server::start(config(on));
    let mut alice = server.sign_in("alice");
    // In the middle of a message.
    alice.socket.write_all(&[0x82, 0xfe, 1, 0, 1, 2, 3, 4, 5]).unwrap();
    drop(alice);
    server.logic.wait("a sign-out", |s| s.signed_out.pop());
}

fn what_comes_with_the_handshake_is_read(on: On) {
    let server = Server::start(config(on));
    let (mut handshake, request) = ClientHandshake::new(Request { host: "h", path: PATH, origin: None }, [7; 16]);
    let sign_in = client::SignIn {
        protocol_version: 1,
        token: "alice".into(),
        device_id: "phone".into(),
        platform: "test".into(),
        ..Default::default()
    };
    let mut stream = BytesMut::from(request.as_str());
    encode_masked(Opcode::Binary, &[&frame(1, client::client_frame::Command::SignIn(sign_in))], [9; 4], &mut stream);
    let mut socket = TcpStream::connect(server.address()).unwrap();
    socket.write_all(&stream).unwrap();
    server.logic.wait("a sign-in", |s| s.connections.get("alice").copied());
    let mut answer = BytesMut::new();
    while !handshake.receive(&mut answer).unwrap() {
        let mut buffer = [0; 256];
        let count = std::io::Read::read(&mut socket, &mut buffer).unwrap();
        assert!(count > 0, "the end before an answer");
        answer.extend_from_slice(&buffer[..count]);
    }
}

fn frames_behind_a_full_table_wait_in_whole_messages(on: On) {
    let server = Server::start(config(on));
    server.logic.set(|s| s.queue = QueueMode::Keep);
    let mut alice = server.sign_in("alice");
    // Three frames a message, more than the table holds, and a ping at the end, in one write.
    let mut stream = BytesMut::new();
    let frames: Vec<_> = (2..=61).map(|n| frame(n, send_to("bob", &format!("m{n}"), b"x"))).collect();
    for three in frames.chunks(3) {
        let parts: Vec<&[u8]> = three.iter().map(|frame| &frame[..]).collect();
        encode_masked(Opcode::Binary, &parts, [5, 6, 7, 8], &mut stream);
    }
    encode_masked(Opcode::Ping, &[b"end"], [5, 6, 7, 8], &mut stream);
    alice.socket.write_all(&stream).unwrap();
    for request_id in 2..=61 {
        server.logic.wait("a record", |s| (!s.kept.is_empty()).then_some(()));
        server.ack_kept(1);
        alice.expect_ack(request_id);
    }
    alice.heartbeat();
    alice.expect_heartbeat();
    assert_eq!(alice.websocket().pongs, [&b"end"[..]]);
}

fn a_message_that_stops_between_two_frames_is_cut_off(on: On) {
    let mut config = config(on);
    config.session.frame_timeout_ms = 300;
    let server = Server::start(config);
    let mut alice = server.sign_in("alice");
    // A heartbeat, and the message goes on.
    alice.socket.write_all(&[0x02, 0x81, 0, 0, 0, 0, 0]).unwrap();
    alice.expect_heartbeat();
    alice.expect_closed(CloseCode::ProtocolError);
    let mut bob = server.sign_in("bob");
    // Half a header.
    bob.socket.write_all(&[0x82]).unwrap();
    bob.expect_closed(CloseCode::ProtocolError);
}

fn a_ping_between_the_fragments_of_a_frame_changes_nothing(on: On) {
    let server = Server::start(config(on));
    let mut alice = server.sign_in("alice");
    let send = frame(2, send_to("bob", "m1", b"x"));
    alice.write(&send[..5]);
    alice.write_frame(Opcode::Ping, b"p");
    alice.write(&send[5..]);
    alice.expect_ack(2);
    assert_eq!(alice.websocket().pongs, [&b"p"[..]]);
}

fn frames_that_wait_together_are_one_message(on: On) {
    let mut config = config(on);
    config.cores = 1;
    let server = Server::start(config);
    let mut alice = server.sign_in("alice");
    let before = alice.websocket().messages;
    let pushes: Vec<_> = (1..=50).map(|n| numbered_push(n, 100)).collect();
    let connection_id = server.connection("alice").0;
    server.handle.deliver(
        pushes
            .iter()
            .map(|frame| {
                let target = im_proto::internal::Target { connection_id, inbox: None };
                let push = im_proto::internal::Push { frame: frame.clone(), targets: vec![target] };
                im_proto::internal::Delivery { kind: Some(im_proto::internal::delivery::Kind::Push(push)), trace: None }
            })
            .collect(),
    );
    for number in 1..=50 {
        assert_eq!(alice.expect_push(), number);
    }
    let metrics = server.handle.metrics();
    let messages = alice.websocket().messages - before;
    // The core may have been awake and have begun before the last of them came, so not always one.
    assert!(messages <= 25, "{messages} messages for 50 frames, {} writes", metrics.sum(|c| c.writes));
}

fn connections_are_counted_by_their_transport(on: On) {
    let server = Server::start(config(on));
    let _web = server.sign_in("alice");
    let socket = TcpStream::connect(server.handle.tcp_address()).unwrap();
    let mut phone = server.sign_in_over(Client::over(socket, crate::kit::Transport::Tcp).unwrap(), "bob");
    phone.send(2, sync());
    assert_eq!(phone.next_frame().request_id, 2);
    let metrics = server.handle.metrics();
    assert_eq!((metrics.sum(|c| c.connections), metrics.sum(|c| c.websocket_connections)), (2, 1));
    server.push(&numbered_push(1, 10), &[("alice", None), ("bob", None)]);
    assert_eq!(phone.expect_push(), 1);
}
