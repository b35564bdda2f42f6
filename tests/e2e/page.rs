//! The demo page as a browser gets it, and what a page of another site does not get.

use crate::harness::http::{Answer, request};
use crate::harness::raw::{Raw, within};
use crate::harness::server::{Addresses, Folder, Server, Settings};
use serde_json::Value;
use std::net::SocketAddr;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

const FILES: [(&str, &str); 4] = [
    ("/", "text/html; charset=utf-8"),
    ("/page.js", "text/javascript; charset=utf-8"),
    ("/page.css", "text/css; charset=utf-8"),
    ("/icon.svg", "image/svg+xml"),
];

fn browse(server: &Server, path: &str) -> Answer {
    request(server.http, "GET", path, &[("Host", &server.http.to_string())])
}

fn demo(server: &Server) -> Value {
    let answer = browse(server, "/demo.json");
    assert_eq!(answer.status, 200, "{answer:?}");
    serde_json::from_str(&answer.body).unwrap()
}

#[test]
fn the_page_and_its_files_come_with_their_types_and_a_policy_that_lets_nothing_else_in() {
    let server = Server::start(Settings::for_tests());
    for (path, media_type) in FILES {
        let Answer { status, headers, body } = browse(&server, path);
        assert_eq!((status, headers["content-type"].as_str()), (200, media_type), "{path}");
        assert_eq!(headers["content-length"], body.len().to_string(), "{path}");
        assert_eq!(headers["x-content-type-options"], "nosniff");
        assert_eq!(headers["referrer-policy"], "no-referrer");
        assert_eq!(headers["cache-control"], "no-cache");
        let policy = format!(
            "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self' ws://{}; \
             base-uri 'none'; frame-ancestors 'none'; form-action 'none'",
            server.websocket
        );
        assert_eq!(headers["content-security-policy"], policy, "{path}");
    }
    let page = browse(&server, "/").body;
    for inline in ["<style", " style=", "onclick=", "javascript:"] {
        assert!(!page.contains(inline), "the policy forbids {inline}");
    }
    assert!(page.matches("<script").count() == page.matches("<script type=\"module\" src=").count());
}

#[test]
fn a_browser_that_has_a_file_is_sent_304_and_nothing_else() {
    let server = Server::start(Settings::for_tests());
    let mut etags = Vec::new();
    for (path, _) in FILES {
        let etag = browse(&server, path).headers["etag"].clone();
        let again = request(server.http, "GET", path, &[("Host", "localhost"), ("If-None-Match", &etag)]);
        assert_eq!((again.status, again.body.as_str()), (304, ""), "{path}");
        assert_eq!(
            (again.headers["etag"].as_str(), again.headers["cache-control"].as_str()),
            (etag.as_str(), "no-cache")
        );
        let other = request(server.http, "GET", path, &[("Host", "localhost"), ("If-None-Match", "\"another\"")]);
        assert_eq!(other.status, 200, "{path}");
        assert!(!etags.contains(&etag), "each file has its own");
        etags.push(etag);
    }
}

#[test]
fn head_is_get_without_a_body_and_other_methods_are_405() {
    let server = Server::start(Settings::for_tests());
    let host = server.http.to_string();
    for path in ["/", "/page.js", "/demo.json", "/healthz", "/readyz"] {
        let got = browse(&server, path);
        let head = request(server.http, "HEAD", path, &[("Host", &host)]);
        assert_eq!((head.status, head.body.as_str()), (200, ""), "{path}");
        for name in ["content-type", "content-length", "content-security-policy"] {
            assert_eq!(head.headers[name], got.headers[name], "{path}: {name}");
        }
        for method in ["POST", "PUT", "DELETE", "OPTIONS", "PATCH"] {
            let refused = request(server.http, method, path, &[("Host", &host), ("Content-Length", "0")]);
            assert_eq!((refused.status, refused.headers["allow"].as_str()), (405, "GET, HEAD"), "{method} {path}");
        }
    }
    for path in ["/nothing", "/page/index.html", "/../Cargo.toml", "/index.html/"] {
        assert_eq!(browse(&server, path).status, 404, "{path}");
    }
}

#[tokio::test]
async fn the_demo_users_tokens_sign_in_and_lead_to_the_websocket() {
    let server = Server::start(Settings::for_tests());
    let demo = demo(&server);
    assert_eq!(demo["websocket"], format!("ws://{}/ws", server.websocket));
    let users = demo["users"].as_array().unwrap();
    let names: Vec<&str> = users.iter().map(|user| user["user"].as_str().unwrap()).collect();
    assert_eq!(names, ["alice", "bob", "carol", "dave"]);
    for user in users {
        let signed_in = Raw::connect(server.tcp).await.sign_in(user["token"].as_str().unwrap(), "tab").await;
        assert_eq!(signed_in.user_id, user["user"]);
    }
}

/// DNS rebinding: a site makes its own name point here, so its page may read what this address answers.
#[test]
fn demo_tokens_are_not_for_a_page_that_came_by_another_name() {
    let server = Server::start(Settings::for_tests());
    let port = server.http.port();
    for name in ["localhost".to_owned(), "127.0.0.1".to_owned(), "[::1]".to_owned(), server.http.ip().to_string()] {
        let host = format!("{name}:{port}");
        assert_eq!(request(server.http, "GET", "/demo.json", &[("Host", &host)]).status, 200, "{host}");
    }
    let foreign = [format!("evil.example:{port}"), format!("10.0.0.1:{port}"), "localhost".to_owned(), String::new()];
    for host in foreign {
        let refused = request(server.http, "GET", "/demo.json", &[("Host", &host)]);
        assert_eq!(refused.status, 404, "{host:?}");
        assert!(!refused.body.contains("eyJ"), "{host:?}: {}", refused.body);
    }
    let answer = browse(&server, "/demo.json");
    assert!(!answer.headers.contains_key("access-control-allow-origin"), "{answer:?}");
    assert_eq!(answer.headers["cross-origin-resource-policy"], "same-origin");
    assert_eq!(answer.headers["cache-control"], "no-store");
}

#[tokio::test]
async fn where_others_can_reach_the_server_there_are_no_demo_users_but_the_page_is_there() {
    let any = Addresses::any_port([127, 0, 0, 1].into());
    let open = SocketAddr::from(([0, 0, 0, 0], 0));
    let loopback = Server::start(Settings::for_tests());
    let token = demo(&loopback)["users"][0]["token"].as_str().unwrap().to_owned();
    let public =
        [Addresses { tcp: open, ..any }, Addresses { websocket: open, ..any }, Addresses { http: open, ..any }];
    for addresses in public {
        // The same key, so that only the listeners make the difference.
        let folder = Folder::new();
        std::fs::create_dir(folder.data()).unwrap();
        std::fs::copy(loopback.folder().data().join("signing.key"), folder.data().join("signing.key")).unwrap();
        let server = Server::start_at(folder, Settings::for_tests(), addresses);
        let host = format!("127.0.0.1:{}", server.http.port());
        let http = SocketAddr::from(([127, 0, 0, 1], server.http.port()));
        assert_eq!(request(http, "GET", "/demo.json", &[("Host", &host)]).status, 404);
        assert_eq!(request(http, "GET", "/", &[("Host", &host)]).status, 200);
        assert!(!server.log().contains("eyJ"), "{}", server.log());
        let tcp = SocketAddr::from(([127, 0, 0, 1], server.tcp.port()));
        let mut refused = Raw::connect(tcp).await;
        refused.send(crate::harness::raw::sign_in(&token, "tab")).await;
        refused.closed_with(im_proto::client::CloseCode::BadToken).await;
    }
}

/// The status line that a WebSocket handshake from a page of `origin` gets.
async fn handshake(server: &Server, origin: Option<&str>) -> String {
    let mut stream = within("connect", TcpStream::connect(server.websocket)).await.unwrap();
    let origin = origin.map(|origin| format!("Origin: {origin}\r\n")).unwrap_or_default();
    let request = format!(
        "GET /ws HTTP/1.1\r\nHost: {}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n{origin}\r\n",
        server.websocket
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = vec![0; 12];
    within("an answer", stream.read_exact(&mut answer)).await.unwrap();
    String::from_utf8(answer).unwrap()
}

#[tokio::test]
async fn pages_of_the_server_and_of_listed_origins_may_connect_and_others_get_403() {
    let settings = Settings::for_tests().with("IM_GATEWAY__ORIGINS", "[\"https://chat.example.com\"]");
    let server = Server::start(settings);
    let port = server.http.port();
    let own =
        [format!("http://{}", server.http), format!("http://localhost:{port}"), format!("http://127.0.0.1:{port}")];
    for origin in own.iter().map(String::as_str).chain(["https://chat.example.com"]) {
        assert_eq!(handshake(&server, Some(origin)).await, "HTTP/1.1 101", "{origin}");
    }
    assert_eq!(handshake(&server, None).await, "HTTP/1.1 101", "an app that is no browser");
    let foreign = [
        "https://evil.example".to_owned(),
        "null".to_owned(),
        format!("https://localhost:{port}"),
        "http://localhost".to_owned(),
        "http://chat.example.com".to_owned(),
    ];
    for origin in &foreign {
        assert_eq!(handshake(&server, Some(origin)).await, "HTTP/1.1 403", "{origin}");
    }
}
