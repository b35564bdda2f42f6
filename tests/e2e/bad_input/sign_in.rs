//! B9, B10, B23 to B26, B29: who may sign in, with what, and by when.

use crate::harness::bystander::Bystanders;
use crate::harness::raw::{Raw, sign_in};
use crate::harness::server::{Addresses, Folder, Server, Settings};
use crate::harness::tokens::{KEY_ID, now_s};
use im_proto::client::client_frame::Command;
use im_proto::client::{CloseCode, SignIn};
use serde_json::{Value, json};

async fn refused(server: &Server, name: &str, token: &str, code: CloseCode) {
    let mut raw = Raw::connect(server.clients()).await;
    raw.send(sign_in(token, "phone")).await;
    let closing = raw.closed().await;
    assert_eq!(closing.code(), code, "{name}: {closing:?}");
}

fn claims() -> Value {
    json!({ "sub": "ann", "exp": now_s() + 600 })
}

#[tokio::test]
async fn b9_another_protocol_version_is_refused() {
    let server = Server::start(Settings::for_tests());
    for protocol_version in [0, 2, u32::MAX] {
        let mut raw = Raw::connect(server.clients()).await;
        let token = server.key.token("ann");
        let (device_id, platform) = ("phone".to_owned(), "test".to_owned());
        raw.send(Command::SignIn(SignIn { protocol_version, token, device_id, platform, ..Default::default() })).await;
        raw.closed_with(CloseCode::UnsupportedVersion).await;
    }
}

#[tokio::test]
async fn b10_who_does_not_sign_in_by_the_deadline_is_closed() {
    let settings = Settings::for_tests()
        .with("IM_GATEWAY__FIRST_BYTE_TIMEOUT_MS", "2000")
        .with("IM_GATEWAY__SIGN_IN_TIMEOUT_MS", "3000");
    let server = Server::start(settings);
    let mut bystanders = Bystanders::new(&server).await;
    let mut silent = Raw::connect(server.clients()).await;
    silent.closed_with(CloseCode::SignInTimeout).await;

    // Byte by byte, for as long as the server takes them.
    let mut slow = Raw::connect(server.clients()).await;
    slow.send_bytes(&[0x80]).await;
    slow.send_bytes(&[0x20]).await;
    let closing = loop {
        tokio::select! {
            biased;
            got = slow.read_unhurried() => break got,
            () = tokio::time::sleep(std::time::Duration::from_millis(50)) => {
                // It may be closed just now; then the read tells.
                let _ = slow.try_send_bytes(&[0x0a]).await;
            }
        }
    };
    let text = format!("{closing:?}");
    assert!(text.contains("code: SignInTimeout") || text.contains("code: 4003"), "{text}");
    bystanders.are_undisturbed().await;
}

#[tokio::test]
async fn b23_the_algorithm_is_the_keys_and_unknown_critical_headers_are_refused() {
    let server = Server::start(Settings::for_tests());
    let sign = |header: Value| server.key.sign_with_header(&header, &claims());
    let unsigned = |header: Value| {
        let token = sign(header);
        token[..=token.rfind('.').unwrap()].to_owned()
    };
    let cases = [
        ("none", unsigned(json!({ "alg": "none", "kid": KEY_ID }))),
        ("None, signed", sign(json!({ "alg": "None", "kid": KEY_ID }))),
        ("HS512 under an HS256 key", sign(json!({ "alg": "HS512", "kid": KEY_ID }))),
        ("EdDSA under an HS256 key", sign(json!({ "alg": "EdDSA", "kid": KEY_ID }))),
        ("no signature", unsigned(json!({ "alg": "HS256", "kid": KEY_ID }))),
        ("crit", sign(json!({ "alg": "HS256", "kid": KEY_ID, "crit": ["exp2"], "exp2": 1 }))),
    ];
    for (name, token) in cases {
        refused(&server, name, &token, CloseCode::BadToken).await;
    }
    let honest = sign(json!({ "alg": "HS256", "kid": KEY_ID }));
    Raw::connect(server.clients()).await.sign_in(&honest, "phone").await;
}

#[tokio::test]
async fn b24_an_expired_token_wants_a_fresh_one_and_a_broken_one_is_bad() {
    let settings = Settings::for_tests().with("IM_AUTH__ISSUER", "the-app").with("IM_AUTH__AUDIENCE", "im");
    let server = Server::start(settings);
    let with = |change: Value| {
        let mut claims = json!({ "sub": "ann", "iss": "the-app", "aud": "im", "exp": now_s() + 600 });
        for (key, value) in change.as_object().unwrap() {
            claims[key] = value.clone();
        }
        claims.as_object_mut().unwrap().retain(|_, value| !value.is_null());
        server.key.sign(&claims)
    };
    refused(&server, "expired", &with(json!({ "exp": now_s() - 300 })), CloseCode::TokenExpired).await;
    let good = with(json!({}));
    let bad = [
        ("not yet valid", with(json!({ "nbf": now_s() + 300 }))),
        ("without expiry", with(json!({ "exp": null }))),
        ("expiry as text", with(json!({ "exp": "tomorrow" }))),
        ("wrong issuer", with(json!({ "iss": "other" }))),
        ("no issuer", with(json!({ "iss": null }))),
        ("wrong audience", with(json!({ "aud": "other" }))),
        ("no subject", with(json!({ "sub": null }))),
        ("a subject that is no id", with(json!({ "sub": "ann smith" }))),
        ("an empty subject", with(json!({ "sub": "" }))),
        ("over 4096 bytes", with(json!({ "padding": "x".repeat(4096) }))),
        ("empty", String::new()),
        ("garbled", "not.a.token".to_owned()),
        ("no base64", "%%%.%%%.%%%".to_owned()),
        ("two parts", good[..good.rfind('.').unwrap()].to_owned()),
        ("four parts", format!("{good}.x")),
        ("a changed signature", format!("{}A", &good[..good.len() - 2])),
        ("dots", "...".to_owned()),
        ("another's signature", {
            let (head, _) = good.rsplit_once('.').unwrap();
            let other = with(json!({ "sub": "eve" }));
            format!("{head}.{}", other.rsplit_once('.').unwrap().1)
        }),
    ];
    for (name, token) in bad {
        refused(&server, name, &token, CloseCode::BadToken).await;
    }
    Raw::connect(server.clients()).await.sign_in(&good, "phone").await;
}

#[tokio::test]
async fn f27_a_clock_a_minute_off_locks_nobody_out() {
    let server = Server::start(Settings::for_tests());
    let fast_clock = json!({ "sub": "ann", "exp": now_s() + 600, "nbf": now_s() + 30, "iat": now_s() + 30 });
    Raw::connect(server.clients()).await.sign_in(&server.key.sign(&fast_clock), "phone").await;
    let just_over = json!({ "sub": "bob", "exp": now_s() - 20 });
    Raw::connect(server.clients()).await.sign_in(&server.key.sign(&just_over), "phone").await;
}

#[tokio::test]
async fn a_connection_ends_when_its_token_does() {
    let server = Server::start(Settings::for_tests());
    let mut raw = Raw::connect(server.clients()).await;
    // Inside the leeway of a minute for clocks, and nearly through it.
    raw.sign_in(&server.key.sign(&json!({ "sub": "ann", "exp": now_s() - 54 })), "phone").await;
    raw.closed_with(CloseCode::TokenExpired).await;
}

#[tokio::test]
async fn b25_a_key_id_is_an_index_and_nothing_is_fetched() {
    let server = Server::start(Settings::for_tests());
    // A listener that would notice being asked for a key.
    let trap = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/keys", trap.local_addr().unwrap());
    let sign = |header: Value| server.key.sign_with_header(&header, &claims());
    let cases = [
        ("unknown", sign(json!({ "alg": "HS256", "kid": "other" }))),
        ("a path", sign(json!({ "alg": "HS256", "kid": "../../../../dev/null" }))),
        ("a URL", sign(json!({ "alg": "HS256", "kid": url }))),
        ("empty", sign(json!({ "alg": "HS256", "kid": "" }))),
        ("of another key", sign(json!({ "alg": "HS256", "kid": "default" }))),
        ("jku", sign(json!({ "alg": "HS256", "kid": KEY_ID, "jku": url }))),
        ("x5u", sign(json!({ "alg": "HS256", "kid": KEY_ID, "x5u": url }))),
        ("jwk", sign(json!({ "alg": "HS256", "kid": KEY_ID, "jwk": { "kty": "oct", "k": "AAAA" } }))),
    ];
    for (name, token) in cases {
        refused(&server, name, &token, CloseCode::BadToken).await;
    }
    let fetched = tokio::time::timeout(std::time::Duration::ZERO, trap.accept()).await;
    assert!(fetched.is_err(), "somebody asked {url}");
}

#[test]
fn b26_a_configured_secret_under_32_bytes_is_refused_at_start() {
    let folder = Folder::new();
    let file = folder.path().join("weak.key");
    // 31 bytes as base64url.
    std::fs::write(&file, "A".repeat(42)).unwrap();
    let keys = json!([{ "kid": "weak", "algorithm": "HS256", "file": file }]).to_string();
    let settings = Settings::for_tests().with("IM_AUTH__KEYS", &keys);
    let any = Addresses::any_port([127, 0, 0, 1].into());
    let (status, text) = Server::refuse_to_start(&folder, &settings, any);
    assert_eq!(status.code(), Some(2), "{text}");
    assert!(text.contains("32 bytes"), "{text}");
    assert!(!text.contains("AAAA"), "the secret is not shown: {text}");
}

#[tokio::test]
async fn b29_a_token_that_binds_a_device_serves_no_other() {
    let server = Server::start(Settings::for_tests());
    let token = server.key.token_for_device("ann", "phone");
    let mut other = Raw::connect(server.clients()).await;
    other.send(sign_in(&token, "tablet")).await;
    other.closed_with(CloseCode::BadToken).await;
    let signed_in = Raw::connect(server.clients()).await.sign_in(&token, "phone").await;
    assert_eq!((signed_in.user_id.as_str(), signed_in.device_id.as_str()), ("ann", "phone"));
}
