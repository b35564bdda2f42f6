//! Echoes text and binary messages through the gateway's WebSocket codec, for conformance suites (Autobahn and the like).
//!
//! In: `--port N` (default 9001), connections to `ws://127.0.0.1:N/ws`. Out: every message as one frame, every ping
//! answered, a close answered by the same code. Always: the codec is the gateway's own, with wider limits; a thread per
//! connection, because nothing here has to be fast.

use bytes::BytesMut;
use im_codec::websocket::encoder::encode_plain;
use im_codec::websocket::{Decoder, Event, Kind, MessageLimits, Opcode, Origins, Role, ServerHandshake, close};
use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};

const PORT: u16 = 9001;
/// Suites send messages of 16 MiB, in fragments of 64 bytes.
const LIMITS: MessageLimits = MessageLimits { bytes_max: 64 << 20, fragments_max: 1 << 20 };
const READ_BYTES: usize = 64 * 1024;

fn main() -> io::Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port()))?;
    println!("ws://{}/ws", listener.local_addr()?);
    for socket in listener.incoming() {
        let socket = socket?;
        std::thread::spawn(move || {
            if let Err(error) = serve(socket) {
                eprintln!("a connection ended: {error}");
            }
        });
    }
    Ok(())
}

fn port() -> u16 {
    let mut arguments = std::env::args().skip(1);
    match (arguments.next().as_deref(), arguments.next()) {
        (None, _) => PORT,
        (Some("--port"), Some(port)) => port.parse().unwrap_or_else(|_| usage()),
        _ => usage(),
    }
}

fn usage() -> ! {
    eprintln!("usage: websocket_echo [--port N]");
    std::process::exit(2)
}

fn serve(mut socket: TcpStream) -> io::Result<()> {
    socket.set_nodelay(true)?;
    let mut input = BytesMut::new();
    if !shake_hands(&mut socket, &mut input)? {
        return Ok(());
    }
    let mut decoder = Decoder::new(Role::Server, LIMITS);
    let mut message = Vec::new();
    let mut output = Vec::new();
    loop {
        let goes_on = echo(&mut decoder, &mut input, &mut message, &mut output);
        socket.write_all(&output)?;
        output.clear();
        if !goes_on {
            return end(socket);
        }
        if read(&mut socket, &mut input)? == 0 {
            return Ok(());
        }
    }
}

fn shake_hands(socket: &mut TcpStream, input: &mut BytesMut) -> io::Result<bool> {
    let mut handshake = ServerHandshake::default();
    loop {
        if read(socket, input)? == 0 {
            return Ok(false);
        }
        match handshake.receive(input, &Origins::default()) {
            Ok(None) => {}
            Ok(Some(response)) => {
                socket.write_all(response.as_bytes())?;
                return Ok(true);
            }
            Err(refusal) => {
                socket.write_all(refusal.response().as_bytes())?;
                return Ok(false);
            }
        }
    }
}

/// Answers everything in `input`. False: the connection ends.
fn echo(decoder: &mut Decoder, input: &mut BytesMut, message: &mut Vec<u8>, output: &mut Vec<u8>) -> bool {
    loop {
        match decoder.next(input) {
            Ok(None) => return true,
            Ok(Some(Event::Data { kind, bytes, is_last })) => {
                message.extend_from_slice(&bytes);
                if is_last {
                    let opcode = if kind == Kind::Text { Opcode::Text } else { Opcode::Binary };
                    encode_plain(opcode, message, output);
                    message.clear();
                }
            }
            Ok(Some(Event::Ping(payload))) => encode_plain(Opcode::Pong, &payload, output),
            Ok(Some(Event::Pong(_))) => {}
            Ok(Some(Event::Close(frame))) => {
                encode_plain(Opcode::Close, &close::payload(frame.code), output);
                return false;
            }
            Err(violation) => {
                encode_plain(Opcode::Close, &close::payload(Some(violation.code())), output);
                return false;
            }
        }
    }
}

/// Closing with bytes unread would destroy what is on its way.
fn end(mut socket: TcpStream) -> io::Result<()> {
    socket.shutdown(Shutdown::Write)?;
    io::copy(&mut socket, &mut io::sink()).map(drop)
}

fn read(socket: &mut TcpStream, input: &mut BytesMut) -> io::Result<usize> {
    let start = input.len();
    input.resize(start + READ_BYTES, 0);
    let count = socket.read(&mut input[start..])?;
    input.truncate(start + count);
    Ok(count)
}
