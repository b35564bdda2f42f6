//! One request over a socket: enough HTTP to ask the server's port as a browser, an operator or an attacker would.
//!
//! In: an address, a method, a path, headers. Out: status, headers and body. Always: bounded by a read timeout; the only
//! headers sent are those given and `Connection`.

use std::collections::BTreeMap;
use std::io::{Error, ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

const TIMEOUT: Duration = Duration::from_secs(5);

#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    /// Names in lower case.
    pub headers: BTreeMap<String, String>,
    pub body: String,
}

pub fn try_request(address: SocketAddr, method: &str, path: &str, headers: &[(&str, &str)]) -> std::io::Result<Answer> {
    let mut stream = TcpStream::connect_timeout(&address, TIMEOUT)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    let headers: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    write!(stream, "{method} {path} HTTP/1.1\r\n{headers}Connection: close\r\n\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    let invalid = || Error::from(ErrorKind::InvalidData);
    let (head, body) = text.split_once("\r\n\r\n").ok_or_else(invalid)?;
    let mut lines = head.split("\r\n");
    let status = lines.next().and_then(|line| line.split(' ').nth(1)?.parse().ok()).ok_or_else(invalid)?;
    let header = |line: &str| line.split_once(": ").map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()));
    Ok(Answer { status, headers: lines.filter_map(header).collect(), body: body.to_owned() })
}

pub fn request(address: SocketAddr, method: &str, path: &str, headers: &[(&str, &str)]) -> Answer {
    try_request(address, method, path, headers).unwrap_or_else(|error| panic!("{method} {path}: {error}"))
}

pub fn try_get(address: SocketAddr, path: &str) -> std::io::Result<(u16, String)> {
    try_request(address, "GET", path, &[("Host", "test")]).map(|answer| (answer.status, answer.body))
}

pub fn get(address: SocketAddr, path: &str) -> (u16, String) {
    let Answer { status, body, .. } = request(address, "GET", path, &[("Host", "test")]);
    (status, body)
}
