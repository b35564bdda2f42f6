//! Listening sockets, one a core and transport, those of a transport on the same port.
//!
//! In: addresses. Out: SO_REUSEPORT sockets, over which the kernel spreads new connections. Always: another server on
//! the port is found before, because with SO_REUSEPORT on both sides the kernel would let both in without a word.

use crate::config::{GatewayConfig, StartError};
use socket2::{Domain, Protocol, Socket, Type};
use std::io;
use std::net::SocketAddr;

/// Connections that the kernel holds for one core to accept.
const BACKLOG: i32 = 1024;

/// Where a gateway listens.
#[derive(Debug, Clone, Copy)]
pub struct Addresses {
    pub tcp: SocketAddr,
    pub websocket: Option<SocketAddr>,
}

/// The sockets of one core.
pub struct Listening {
    pub tcp: Socket,
    pub websocket: Option<Socket>,
}

/// The sockets of every core, and the addresses they got.
pub fn listen_all(config: &GatewayConfig, cores: usize) -> Result<(Vec<Listening>, Addresses), StartError> {
    let (tcp, tcp_address) = listen(config.tcp, cores)?;
    let mut listening: Vec<_> = tcp.into_iter().map(|tcp| Listening { tcp, websocket: None }).collect();
    let mut addresses = Addresses { tcp: tcp_address, websocket: None };
    if let Some(websocket) = &config.websocket {
        let (sockets, address) = listen(websocket.address, cores)?;
        addresses.websocket = Some(address);
        for (core, socket) in listening.iter_mut().zip(sockets) {
            core.websocket = Some(socket);
        }
    }
    Ok((listening, addresses))
}

/// The sockets of a core that starts again.
pub fn listen_again(addresses: Addresses) -> io::Result<Listening> {
    let websocket = addresses.websocket.map(listener).transpose()?;
    Ok(Listening { tcp: listener(addresses.tcp)?, websocket })
}

/// One listener for each core, all on the address of the first, and that address.
fn listen(address: SocketAddr, cores: usize) -> Result<(Vec<Socket>, SocketAddr), StartError> {
    let failed = |source: io::Error| match source.kind() {
        io::ErrorKind::AddrInUse => StartError::AddressInUse { address },
        _ => StartError::Listen { address, source },
    };
    if address.port() != 0 {
        // Bound without SO_REUSEPORT, and closed at once.
        bind(address, false).map_err(failed)?;
    }
    let first = listener(address).map_err(failed)?;
    let local = first.local_addr().map_err(failed)?.as_socket().unwrap_or(address);
    let mut listeners = vec![first];
    for _ in 1..cores {
        listeners.push(listener(local).map_err(failed)?);
    }
    Ok((listeners, local))
}

/// One more listener on an address that this process listens on already.
fn listener(address: SocketAddr) -> io::Result<Socket> {
    let socket = bind(address, true)?;
    socket.set_nonblocking(true)?;
    socket.listen(BACKLOG)?;
    Ok(socket)
}

fn bind(address: SocketAddr, reuse_port: bool) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    // Connections of an earlier run in TIME_WAIT do not hold the port.
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(reuse_port)?;
    socket.bind(&address.into())?;
    Ok(socket)
}
