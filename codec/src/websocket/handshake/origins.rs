//! Which pages may connect.
//!
//! In: the origin that a browser names, the host that its handshake goes to. Out: may it. Always: an origin that is listed may,
//! as it is written; beside the list only a page that was opened by the very IP address that it now connects to. A name is
//! not enough for that: whoever owns one can make it point here (DNS rebinding).

use std::net::{IpAddr, SocketAddr};

/// Where a browser goes if an address names no port.
const HTTP_PORT: u16 = 80;

#[derive(Debug, Clone, Default)]
pub struct Origins {
    /// As browsers write them: `http://127.0.0.1:6102`.
    pub listed: Vec<String>,
    /// The port of this server's own page where that is served on every address, so that it cannot be listed.
    pub own_http_port: Option<u16>,
}

impl Origins {
    /// `host`: of the handshake.
    pub(super) fn allow(&self, origin: &str, host: Option<&str>) -> bool {
        self.listed.iter().any(|listed| listed.eq_ignore_ascii_case(origin)) || self.is_own(origin, host)
    }

    fn is_own(&self, origin: &str, host: Option<&str>) -> bool {
        let (page, goes_to) = (origin.strip_prefix("http://").and_then(address), host.and_then(address));
        let (Some((page, port)), Some((goes_to, _))) = (page, goes_to) else { return false };
        page == goes_to && self.own_http_port == Some(port)
    }
}

/// Of `host` or `host:port`, where the host is an IP address.
fn address(authority: &str) -> Option<(IpAddr, u16)> {
    if let Ok(address) = authority.parse::<SocketAddr>() {
        return Some((address.ip(), address.port()));
    }
    let bare = authority.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(authority);
    bare.parse().ok().map(|address| (address, HTTP_PORT))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn on_every_address(port: u16) -> Origins {
        Origins { listed: vec!["https://chat.example.com".to_owned()], own_http_port: Some(port) }
    }

    #[test]
    fn a_listed_origin_may_and_nothing_that_only_resembles_it() {
        let origins = on_every_address(6102);
        assert!(origins.allow("https://chat.example.com", None) && origins.allow("HTTPS://chat.example.com", None));
        for other in
            ["http://chat.example.com", "https://chat.example.com:8443", "https://chat.example.com/", "null", ""]
        {
            assert!(!origins.allow(other, Some("chat.example.com:6101")), "{other}");
        }
    }

    #[test]
    fn the_own_page_may_by_the_ip_address_it_was_opened_by() {
        let origins = on_every_address(6102);
        assert!(origins.allow("http://192.168.1.5:6102", Some("192.168.1.5:6101")));
        assert!(origins.allow("http://[fd00::7]:6102", Some("[fd00::7]:6101")));
        let on_port_80 = on_every_address(80);
        assert!(on_port_80.allow("http://192.168.1.5", Some("192.168.1.5:6101")));
        assert!(on_port_80.allow("http://[fd00::7]", Some("[fd00::7]:6101")));
    }

    #[test]
    fn a_name_another_address_another_port_or_scheme_is_not_the_own_page() {
        let origins = on_every_address(6102);
        let host = Some("192.168.1.5:6101");
        // The first two are what a page sees whose name was made to point here.
        assert!(!origins.allow("http://evil.example:6102", host));
        assert!(!origins.allow("http://evil.example:6102", Some("evil.example:6101")));
        assert!(!origins.allow("http://192.168.1.6:6102", host));
        assert!(!origins.allow("http://192.168.1.5", host));
        assert!(!origins.allow("http://192.168.1.5:6103", host));
        assert!(!origins.allow("https://192.168.1.5:6102", host));
        assert!(!origins.allow("http://192.168.1.5:6102", None));
        let elsewhere = Origins { own_http_port: None, ..origins };
        assert!(!elsewhere.allow("http://192.168.1.5:6102", host));
    }
}
