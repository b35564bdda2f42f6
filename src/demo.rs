//! `/demo.json`: what the page has to know of this server, and users to try it with.
//!
//! In: the `Host` of a request. Out: the WebSocket address as that browser reaches it, and a fresh token for each demo user,
//! or no users. Always: users are there only while every listener is loopback, and only for a browser that came by a
//! loopback name and our port: a page of another site whose name was made to point here (DNS rebinding) is told of none,
//! and one that asks across origins reads nothing.

use crate::config::Config;
use crate::http::Answer;
use crate::page::websocket_authority;
use crate::tokens::{DEMO_USERS, Keys};
use hyper::header::{CACHE_CONTROL, HeaderValue};
use hyper::{StatusCode, Uri};
use serde_json::{Value, json};
use std::net::{IpAddr, SocketAddr};

/// Where a browser goes if an address names no port.
const HTTP_PORT: u16 = 80;

pub struct Demo {
    websocket: SocketAddr,
    users: Option<Users>,
}

struct Users {
    config: Config,
    keys: Keys,
    /// Where this is served.
    port: u16,
}

impl Demo {
    #[cfg_attr(not(feature = "distributed"), expect(dead_code, reason = "of the role `gateway`"))]
    pub fn without_users(websocket: SocketAddr) -> Self {
        Self { websocket, users: None }
    }

    /// Without users where others than this machine can reach the server. `http`: where this is served.
    pub fn new(config: &Config, keys: &Keys, websocket: SocketAddr, http: SocketAddr) -> Self {
        let users = || Users { config: config.clone(), keys: keys.clone(), port: http.port() };
        Self { websocket, users: config.listen.all_loopback().then(users) }
    }

    pub fn answer(&self, host: Option<&str>) -> Answer {
        let websocket = format!("ws://{}/ws", websocket_authority(self.websocket, host));
        let users = self.users.as_ref().map(|users| users.for_host(host)).unwrap_or_default();
        let body = json!({ "websocket": websocket, "users": users });
        let mut answer = crate::http::answer(StatusCode::OK, "application/json", body.to_string().into());
        answer.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        answer
    }
}

impl Users {
    /// None for whoever sent another `Host` than our own.
    fn for_host(&self, host: Option<&str>) -> Vec<Value> {
        if !host.is_some_and(|host| is_loopback(host, self.port)) {
            return Vec::new();
        }
        let user = |user| Some(json!({ "user": user, "token": self.keys.demo_token(&self.config, user).ok()? }));
        DEMO_USERS.into_iter().filter_map(user).collect()
    }
}

/// A name that can mean this machine only, and `port`.
fn is_loopback(host: &str, port: u16) -> bool {
    let Ok(uri) = host.parse::<Uri>() else { return false };
    let Some(authority) = uri.authority().filter(|authority| authority.as_str() == host && !host.contains('@')) else {
        return false;
    };
    let name = authority.host();
    let address = name.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    let is_ours = name.eq_ignore_ascii_case("localhost") || address.is_ok_and(|address| address.is_loopback());
    is_ours && authority.port_u16().unwrap_or(HTTP_PORT) == port
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_name_of_this_machine_with_our_port_is_ours() {
        for host in ["127.0.0.1:6102", "localhost:6102", "LocalHost:6102", "[::1]:6102", "127.9.9.9:6102"] {
            assert!(is_loopback(host, 6102), "{host}");
        }
        for host in ["evil.example:6102", "localhost.evil.example:6102", "127.0.0.1.evil.example:6102", "10.0.0.1:6102"]
        {
            assert!(!is_loopback(host, 6102), "{host}");
        }
        for host in [
            "localhost",
            "localhost:6103",
            "",
            ":6102",
            "a@localhost:6102",
            "localhost:6102/x",
            "http://localhost:6102",
        ] {
            assert!(!is_loopback(host, 6102), "{host}");
        }
        assert!(is_loopback("localhost", 80));
    }
}
