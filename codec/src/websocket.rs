//! WebSocket (RFC 6455) without I/O, for both ends of a connection.
//!
//! In: bytes as they arrive, the frames to send, mask keys from outside. Out: payloads without a copy, control frames, bytes
//! to write. Always: no length is believed before it is checked, no byte is parsed twice, and what is held of a message is
//! a few bytes: payloads are handed on as they arrive. No extension is spoken, so no bit of a payload is ever compressed.
//!
//! `handshake` opens a connection; `decoder`, `mask`, `utf8` and `close` read it; `encoder` writes it; `outgoing` puts one
//! header before all frames that a server has waiting; `server` joins all of it to a session.

pub mod close;
pub mod decoder;
pub mod encoder;
pub mod handshake;
mod mask;
pub mod outgoing;
pub mod server;
mod utf8;

pub use decoder::{Decoder, Event, Kind, MessageLimits, Role, Violation};
pub use encoder::{Header, Opcode, encode_masked};
pub use handshake::client::{ClientHandshake, HandshakeFailed, Request};
pub use handshake::origins::Origins;
pub use handshake::server::{Refusal, ServerHandshake};
pub use outgoing::Outgoing;
pub use server::ServerEnd;

/// Where the server answers.
pub const PATH: &str = "/ws";
/// Taken when a client offers it; a client need not offer any.
pub const SUBPROTOCOL: &str = "im.v1";
/// The longest payload of a control frame.
pub const CONTROL_BYTES_MAX: usize = 125;
/// The longest frame header: two bytes, a length of 64 bits, a mask key.
pub const HEADER_BYTES_MAX: usize = 14;
