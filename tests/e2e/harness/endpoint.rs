//! Where a test's clients connect, and over what.
//!
//! In: a server's addresses, `IM_TEST_TRANSPORT`. Out: an address that names its transport. Always: a bare socket address is
//! TCP; displayed, an endpoint is what the client library takes.

use im_codec::websocket::PATH;
use std::fmt;
use std::net::SocketAddr;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Endpoint {
    Tcp(SocketAddr),
    Websocket(SocketAddr),
}

impl Endpoint {
    /// What the tests of this run ride on: `IM_TEST_TRANSPORT`, tcp (unless it is set) or ws.
    pub fn of_this_run(tcp: SocketAddr, websocket: SocketAddr) -> Self {
        match std::env::var("IM_TEST_TRANSPORT").as_deref() {
            Ok("tcp") | Err(_) => Self::Tcp(tcp),
            Ok("ws") => Self::Websocket(websocket),
            Ok(other) => panic!("IM_TEST_TRANSPORT is tcp or ws, not {other}"),
        }
    }

    pub fn socket(self) -> SocketAddr {
        let (Self::Tcp(socket) | Self::Websocket(socket)) = self;
        socket
    }
}

impl From<SocketAddr> for Endpoint {
    fn from(socket: SocketAddr) -> Self {
        Self::Tcp(socket)
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(socket) => write!(f, "tcp://{socket}"),
            Self::Websocket(socket) => write!(f, "ws://{socket}{PATH}"),
        }
    }
}
