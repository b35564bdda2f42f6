//! How an HTTP/1.1 connection becomes a WebSocket connection, on both ends.
//!
//! In: the bytes of a head, as they come; what the peers want. Out: an answer to send, or why not. Always: a head is bounded
//! in bytes and headers, and read once, when its last byte is there; what follows it stays in the input.

pub mod client;
mod head;
pub mod origins;
pub mod server;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha1::{Digest as _, Sha1};

/// Of a request or an answer, its empty line included.
pub const HEAD_BYTES_MAX: usize = 8 * 1024;
pub const HEADERS_MAX: usize = 64;

/// What a server answers to a client's key (RFC 6455, section 4.2.2).
fn accept(key: &str) -> String {
    let mut hash = Sha1::new();
    hash.update(key);
    hash.update("258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
    STANDARD.encode(hash.finalize())
}

/// True if the comma-separated `list` names `token`, in any case.
fn names(list: &str, token: &str) -> bool {
    list.split(',').any(|item| item.trim().eq_ignore_ascii_case(token))
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_example_of_the_rfc() {
        assert_eq!(super::accept("dGhlIHNhbXBsZSBub25jZQ=="), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }
}
