//! Where the server is, and TCP connections to it from many source addresses, so that one machine can open more of them than
//! one address has ports.
//!
//! In: a target and a serial number. Out: a connected socket, ready for monoio. Always: connection i comes from the
//! same loopback address in every run; targets off this machine are reached from its ordinary address.

use crate::error::{BenchError, During};
use crate::proc;
use im_client::websocket::Address;
use monoio::net::TcpStream;
use socket2::{Domain, Protocol, Socket, Type};
use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};

/// 127.0.0.2 and up; each may open some 28,000 connections to one target.
const SOURCE_ADDRESSES: usize = 200;

/// Descriptors of this process that are no connections.
const OTHER_FILES: u64 = 50;

/// What frames ride on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Transport {
    Tcp,
    Ws,
}

impl Transport {
    pub fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Ws => "ws",
        }
    }
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Where the load goes, and what it rides on.
#[derive(Debug, Clone)]
pub struct Target {
    pub socket: SocketAddr,
    pub address: Address,
}

impl Target {
    /// `IP:PORT`, or `ws://IP:PORT/ws`.
    pub fn parse(text: &str) -> Result<Self, String> {
        let address = Address::parse(text).map_err(|error| error.to_string())?;
        let socket =
            address.socket().parse().map_err(|_| format!("{} is no IP address with a port", address.socket()))?;
        Ok(Self { socket, address })
    }

    pub fn transport(&self) -> Transport {
        match self.address {
            Address::Tcp { .. } => Transport::Tcp,
            Address::Websocket { .. } => Transport::Ws,
        }
    }
}

/// Says at once when the limit of open files is below what `connections` need.
pub fn check_open_files(connections: usize) -> Result<(), BenchError> {
    let (limit, needed) = (proc::raise_open_files_limit(), connections as u64 + OTHER_FILES);
    if limit >= needed {
        return Ok(());
    }
    Err(BenchError::Setup(format!(
        "{connections} connections need {needed} open files; the limit is {limit} (ulimit -n)"
    )))
}

pub fn connect(target: SocketAddr, serial: usize) -> Result<TcpStream, BenchError> {
    let what = || format!("connection {serial} to {target}");
    let socket = Socket::new(Domain::for_address(target), Type::STREAM, Some(Protocol::TCP)).during(what())?;
    if target.is_ipv4() && target.ip().is_loopback() {
        let source = Ipv4Addr::new(127, 0, 0, 2 + (serial % SOURCE_ADDRESSES) as u8);
        socket.bind(&SocketAddr::from((source, 0)).into()).during(what())?;
    }
    socket.set_tcp_nodelay(true).during(what())?;
    // Connecting on the load's own thread keeps the order of connections; on loopback it takes some 30 µs.
    socket.connect(&target.into()).during(what())?;
    // io_uring waits by itself on a blocking socket and gives EAGAIN on a non-blocking one; epoll needs the latter.
    socket.set_nonblocking(!monoio::utils::detect_uring()).during(what())?;
    TcpStream::from_std(socket.into()).during(what())
}
