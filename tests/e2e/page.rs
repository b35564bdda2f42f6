//! The demo page as a browser gets it, and what a page of another site does not get.

use crate::harness::http::{Answer, request};
use crate::harness::raw::{Raw, within};
use crate::harness::server::{Addresses, Folder, Server, Settings};
use serde_json::{Value, json};
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
        let answer = request(server.http, "GET", "/demo.json", &[("Host", &host)]);
        assert!(answer.status == 200 && answer.body.contains("eyJ"), "{host}: {answer:?}");
    }
    let foreign = [format!("evil.example:{port}"), format!("10.0.0.1:{port}"), "localhost".to_owned(), String::new()];
    for host in foreign {
        let answer = request(server.http, "GET", "/demo.json", &[("Host", &host)]);
        assert_eq!(serde_json::from_str::<Value>(&answer.body).unwrap()["users"], json!([]), "{host:?}");
        assert!(!answer.body.contains("eyJ"), "{host:?}: {}", answer.body);
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
        let told: Value = serde_json::from_str(&request(http, "GET", "/demo.json", &[("Host", &host)]).body).unwrap();
        let websocket = format!("ws://127.0.0.1:{}/ws", server.websocket.port());
        assert_eq!(told, json!({ "websocket": websocket, "users": [] }));
        assert_eq!(request(http, "GET", "/", &[("Host", &host)]).status, 200);
        logged(&server, "The page is at http://").await;
        logged(&server, "im-server token --user").await;
        assert!(!server.log().contains("eyJ"), "{}", server.log());
        let tcp = SocketAddr::from(([127, 0, 0, 1], server.tcp.port()));
        let mut refused = Raw::connect(tcp).await;
        refused.send(crate::harness::raw::sign_in(&token, "tab")).await;
        refused.closed_with(im_proto::client::CloseCode::BadToken).await;
    }
}

/// The line of the log with these words, when it is there.
async fn logged(server: &Server, words: &str) -> String {
    within(words, async {
        loop {
            if let Some(line) = server.log().lines().find(|line| line.contains(words)) {
                return line.to_owned();
            }
            tokio::task::yield_now().await;
        }
    })
    .await
}

/// The status line that a WebSocket handshake from a page of `origin` gets.
async fn handshake(server: &Server, origin: Option<&str>) -> String {
    handshake_at(server, &server.websocket.to_string(), origin).await
}

/// The same, with what the browser calls the server.
async fn handshake_at(server: &Server, host: &str, origin: Option<&str>) -> String {
    let mut stream = within("connect", TcpStream::connect(server.websocket)).await.unwrap();
    let origin = origin.map(|origin| format!("Origin: {origin}\r\n")).unwrap_or_default();
    let request = format!(
        "GET /ws HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n{origin}\r\n"
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

/// A phone opens the page by the machine's address in the local network.
#[tokio::test]
async fn where_the_server_listens_on_every_address_its_page_may_connect_by_any_of_them_but_not_by_a_name() {
    let open = SocketAddr::from(([0, 0, 0, 0], 0));
    let addresses = Addresses { websocket: open, http: open, ..Addresses::any_port([127, 0, 0, 1].into()) };
    let server = Server::start_at(Folder::new(), Settings::for_tests(), addresses);
    let (http, websocket) = (server.http.port(), server.websocket.port());
    let page = request(([127, 0, 0, 1], http).into(), "GET", "/demo.json", &[("Host", &format!("192.168.1.5:{http}"))]);
    let told: Value = serde_json::from_str(&page.body).unwrap();
    assert_eq!(told["websocket"], format!("ws://192.168.1.5:{websocket}/ws"));

    let host = format!("192.168.1.5:{websocket}");
    let from = |name: &str| format!("http://{name}:{http}");
    for origin in [from("192.168.1.5"), from("localhost"), from("127.0.0.1")] {
        assert_eq!(handshake_at(&server, &host, Some(&origin)).await, "HTTP/1.1 101", "{origin}");
    }
    // A page on another machine; a name that was made to point here, whichever name the handshake goes to.
    for origin in [from("192.168.1.6"), from("evil.example"), "http://192.168.1.5:1".to_owned()] {
        assert_eq!(handshake_at(&server, &host, Some(&origin)).await, "HTTP/1.1 403", "{origin}");
    }
    let rebound = format!("evil.example:{websocket}");
    assert_eq!(handshake_at(&server, &rebound, Some(&from("evil.example"))).await, "HTTP/1.1 403");
}

#[tokio::test]
async fn a_page_that_is_refused_leaves_a_line_with_its_origin_and_the_settings_name() {
    let server = Server::start(Settings::for_tests());
    assert_eq!(handshake(&server, Some("https://chat.example.com")).await, "HTTP/1.1 403");
    let line = logged(&server, "\"https://chat.example.com\"").await;
    assert!(line.contains("WARN") && line.contains("gateway.origins"), "{line}");
}
