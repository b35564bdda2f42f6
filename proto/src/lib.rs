//! The wire and the words of im-server: generated protobuf messages and the id newtypes.
//!
//! In: `client.proto` (what an app sees), `internal.proto` (what crosses the queue and the delivery stream) and
//! `services.proto` (what the roles ask each other). Out: [`client`], [`internal`], [`services`], and the ids every other crate uses instead of strings.
//! Always: the generated files are those that `tests/generated.rs` would make from the `.proto` files, so building needs
//! no protobuf compiler; `descriptor.bin` is the same schema for languages whose packages lack a compiler.

/// What an app sees: `im.v1`.
#[allow(clippy::all, clippy::unwrap_used)]
#[rustfmt::skip]
#[path = "generated/im.v1.rs"]
pub mod client;

/// What gateway, queue and workers exchange: `im.internal.v1`.
#[allow(clippy::all, clippy::unwrap_used)]
#[rustfmt::skip]
#[path = "generated/im.internal.v1.rs"]
pub mod internal;

/// What the roles ask each other: `im.services.v1`.
#[allow(clippy::all, clippy::unwrap_used)]
#[rustfmt::skip]
#[path = "generated/im.services.v1.rs"]
pub mod services;

mod ids;
mod redacted;
mod trace;

pub use ids::{
    ClientId, ConnectionId, DeviceId, Epoch, Generation, ID_BYTES_MAX, InboxVersion, InvalidId, LogId, LogKind,
    Ordinal, Seq, UserId,
};
pub use trace::TraceId;

/// The protocol version this server and its clients speak.
pub const PROTOCOL_VERSION: u32 = 1;
