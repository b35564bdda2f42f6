//! Whose pages may connect over WebSocket.
//!
//! In: `gateway.origins`, where the demo page is. Out: the origins for the gateway, or which one no browser would ever name.
//! Always: the demo page's own are among them, by every address that it can be opened by.

use super::{Config, ConfigError};
use im_codec::websocket::Origins;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

/// A browser leaves out the port that its scheme means anyway.
const DEFAULT_PORTS: [(&str, u16); 2] = [("http", 80), ("https", 443)];

impl Config {
    /// The page's own by every name that this machine has for itself, then those of `gateway.origins`. Where the page is
    /// served on every address, it may also come by any of them.
    pub(super) fn origins(&self, http: SocketAddr) -> Origins {
        let mut listed = vec![page_origin(&host(http.ip()), http.port())];
        if http.ip().is_loopback() || http.ip().is_unspecified() {
            listed.extend(["localhost", "127.0.0.1", "[::1]"].map(|host| page_origin(host, http.port())));
        }
        listed.extend(self.gateway.origins.iter().cloned());
        Origins { listed, own_http_port: http.ip().is_unspecified().then_some(http.port()) }
    }
}

/// Another form would be compared with what browsers send, and never match.
pub(super) fn check(origins: &[String]) -> Result<(), ConfigError> {
    let Some(wrong) = origins.iter().find(|origin| !is_origin(origin)) else { return Ok(()) };
    Err(ConfigError::Value(format!(
        "gateway.origins: {wrong:?} is not what a browser sends; wanted is scheme://host, with :port unless it is the \
         scheme's own, and nothing behind it: https://chat.example.com"
    )))
}

/// The origin of a page that is served here, as a browser that came by `host` writes it.
pub(crate) fn page_origin(host: &str, port: u16) -> String {
    if is_default("http", port) { format!("http://{host}") } else { format!("http://{host}:{port}") }
}

fn host(address: IpAddr) -> String {
    match address {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => format!("[{address}]"),
    }
}

/// Any scheme: pages inside of apps have their own (`capacitor://localhost`).
fn is_origin(text: &str) -> bool {
    let Some((scheme, authority)) = text.split_once("://") else { return false };
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (authority, None),
    };
    is_scheme(scheme) && is_host(host) && port.is_none_or(|port| is_port(scheme, port))
}

fn is_scheme(scheme: &str) -> bool {
    scheme.starts_with(|first: char| first.is_ascii_alphabetic())
        && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte))
}

fn is_host(host: &str) -> bool {
    match host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        Some(address) => address.parse::<Ipv6Addr>().is_ok(),
        None => !host.is_empty() && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte)),
    }
}

fn is_port(scheme: &str, port: &str) -> bool {
    port.parse().is_ok_and(|number: u16| number.to_string() == port && !is_default(scheme, number))
}

fn is_default(scheme: &str, port: u16) -> bool {
    DEFAULT_PORTS.iter().any(|(of, default)| scheme.eq_ignore_ascii_case(of) && port == *default)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origins(http: &str) -> Origins {
        let config = Config::load(None, std::iter::empty()).unwrap();
        config.origins(http.parse().unwrap())
    }

    #[test]
    fn the_page_may_connect_by_every_address_it_is_opened_by() {
        let own = |http: &str| (origins(http).listed, origins(http).own_http_port);
        let local =
            |port: &str| ["localhost", "127.0.0.1", "[::1]"].map(|host| format!("http://{host}{port}")).to_vec();
        let (listed, own_port) = own("127.0.0.1:6102");
        assert_eq!((&listed[1..], own_port), (&local(":6102")[..], None));
        assert_eq!(own("192.168.1.5:6102"), (vec!["http://192.168.1.5:6102".to_owned()], None));
        assert_eq!(own("[fd00::7]:6102"), (vec!["http://[fd00::7]:6102".to_owned()], None));
        for every in ["0.0.0.0", "[::]"] {
            let (listed, own_port) = own(&format!("{every}:6102"));
            assert_eq!((&listed[1..], own_port), (&local(":6102")[..], Some(6102)));
        }
        // As browsers write it.
        assert_eq!(own("127.0.0.1:80").0[1..], local(""));
        assert_eq!(own("0.0.0.0:80").1, Some(80));
    }

    #[test]
    fn an_origin_that_no_browser_sends_is_an_error_that_says_what_is_wanted() {
        for origin in
            ["https://chat.example.com", "http://10.0.0.7:6102", "http://[fd00::7]:8080", "capacitor://localhost"]
        {
            check(&[origin.to_owned()]).unwrap();
        }
        for wrong in [
            "*",
            "null",
            "",
            "chat.example.com",
            "chat.example.com:443",
            "https://",
            "https://*.example.com",
            "https://chat.example.com/",
            "https://chat.example.com/chat",
            "https://chat.example.com?x",
            "https://me@chat.example.com",
            "https://chat.example.com:",
            "https://chat.example.com:443",
            "http://chat.example.com:80",
            "https://chat.example.com:99999",
            "https://chat.example.com:0443",
            "https://b\u{fc}cher.example",
            " https://chat.example.com",
            "//chat.example.com",
        ] {
            let error = check(&[wrong.to_owned()]).unwrap_err().to_string();
            assert!(error.contains("gateway.origins") && error.contains(&format!("{wrong:?}")), "{error}");
        }
    }
}
