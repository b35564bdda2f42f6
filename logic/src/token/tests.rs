//! Tokens as an issuer makes them, and as an attacker would.

use super::*;
use ed25519_dalek::pkcs8::EncodePublicKey as _;
use ed25519_dalek::{Signer as _, SigningKey};
use serde_json::{Value, json};

const NOW_MS: i64 = 1_700_000_000_000;
const NOW_S: i64 = NOW_MS / 1000;
const SECRET: &[u8] = b"0123456789abcdef0123456789abcdef";

fn signing_key() -> SigningKey {
    SigningKey::from_bytes(&[5; 32])
}

fn ring() -> KeyRing {
    let mut ring = KeyRing::default();
    ring.add(DEFAULT_KEY, Key::hs256(SECRET).unwrap());
    let pem = signing_key().verifying_key().to_public_key_pem(Default::default()).unwrap();
    ring.add("ed", Key::ed25519_pem(&pem).unwrap());
    ring
}

fn encode(header: &Value, claims: &Value) -> String {
    format!("{}.{}", URL_SAFE_NO_PAD.encode(header.to_string()), URL_SAFE_NO_PAD.encode(claims.to_string()))
}

fn hs256_with(secret: &[u8], header: &Value, claims: &Value) -> String {
    let message = encode(header, claims);
    let signature = mac(secret, message.as_bytes()).unwrap().finalize().into_bytes();
    format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature))
}

fn hs256(header: Value, claims: Value) -> String {
    hs256_with(SECRET, &header, &claims)
}

fn good_claims() -> Value {
    json!({ "sub": "a", "exp": NOW_S + 100 })
}

fn verify(token: &str) -> Result<Identity, TokenError> {
    ring().verify(token, NOW_MS)
}

#[test]
fn an_issued_token_says_who_it_is_for() {
    let (user, device) = (UserId::parse("a").unwrap(), DeviceId::parse("phone").unwrap());
    let new = NewToken {
        user: &user,
        device: Some(&device),
        issuer: Some("app"),
        audience: Some("im"),
        expires_at_ms: NOW_MS + 5_000,
    };
    let token = issue(DEFAULT_KEY, SECRET, &new).unwrap();
    let mut ring = ring();
    ring.issuer = Some("app".into());
    ring.audience = Some("im".into());
    let expected = Identity { user, device: Some(device), expires_at_ms: Some(NOW_MS + 5_000) };
    assert_eq!(ring.verify(&token, NOW_MS), Ok(expected));
    ring.issuer = Some("other".into());
    assert!(matches!(ring.verify(&token, NOW_MS), Err(TokenError::Bad(_))));
    ring.issuer = None;
    ring.audience = Some("other".into());
    assert!(matches!(ring.verify(&token, NOW_MS), Err(TokenError::Bad(_))));
}

#[test]
fn an_ed25519_token_is_good_by_its_own_key_only() {
    let sign = |header: Value| {
        let message = encode(&header, &good_claims());
        let signature = signing_key().sign(message.as_bytes()).to_bytes();
        format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature))
    };
    assert!(verify(&sign(json!({ "alg": "EdDSA", "kid": "ed" }))).is_ok());
    assert!(verify(&sign(json!({ "alg": "EdDSA" }))).is_err());
    assert!(verify(&sign(json!({ "alg": "HS256", "kid": "ed" }))).is_err());
}

#[test]
fn the_algorithm_is_the_keys_not_the_tokens() {
    for alg in ["none", "None", "HS384", "HS512", "RS256", "EdDSA", ""] {
        assert!(verify(&hs256(json!({ "alg": alg }), good_claims())).is_err(), "{alg}");
    }
    let unsigned = format!("{}.", encode(&json!({ "alg": "none" }), &good_claims()));
    assert!(verify(&unsigned).is_err());
    // The public key of the other algorithm as a secret.
    let public = signing_key().verifying_key().to_bytes();
    let forged = hs256_with(&public, &json!({ "alg": "HS256", "kid": "ed" }), &good_claims());
    assert!(verify(&forged).is_err());
}

#[test]
fn a_header_that_asks_for_keys_or_extensions_is_refused() {
    for field in ["jku", "jwk", "x5u", "x5c", "crit"] {
        let mut header = json!({ "alg": "HS256" });
        header[field] = json!(["https://example.com/key"]);
        assert!(verify(&hs256(header, good_claims())).is_err(), "{field}");
    }
    for kid in ["unknown", "../default", "https://example.com", "", "' or 1=1"] {
        assert!(verify(&hs256(json!({ "alg": "HS256", "kid": kid }), good_claims())).is_err(), "{kid}");
    }
    assert!(verify(&hs256(json!({ "alg": "HS256", "typ": "JWT", "x5t": "ignored" }), good_claims())).is_ok());
}

#[test]
fn times_are_held_with_a_minute_of_leeway() {
    let at = |claims: Value| verify(&hs256(json!({ "alg": "HS256" }), claims));
    assert!(at(json!({ "sub": "a", "exp": NOW_S - 59 })).is_ok());
    assert_eq!(at(json!({ "sub": "a", "exp": NOW_S - 60 })), Err(TokenError::Expired));
    assert!(at(json!({ "sub": "a", "exp": (NOW_S + 5) as f64 + 0.5 })).is_ok());
    assert!(at(json!({ "sub": "a", "exp": NOW_S + 100, "nbf": NOW_S + 60 })).is_ok());
    assert!(matches!(at(json!({ "sub": "a", "exp": NOW_S + 100, "nbf": NOW_S + 61 })), Err(TokenError::Bad(_))));
    assert!(matches!(at(json!({ "sub": "a" })), Err(TokenError::Bad(_))));
    assert!(matches!(at(json!({ "sub": "a", "exp": i64::MIN })), Err(TokenError::Expired)));
    assert!(at(json!({ "sub": "a", "exp": i64::MAX, "nbf": i64::MIN })).is_ok());
    let mut ring = ring();
    ring.expiry_optional = true;
    let endless = ring.verify(&hs256(json!({ "alg": "HS256" }), json!({ "sub": "a" })), NOW_MS).unwrap();
    assert_eq!(endless.expires_at_ms, None);
}

#[test]
fn a_garbled_token_is_refused_whatever_is_garbled() {
    let good = hs256(json!({ "alg": "HS256" }), good_claims());
    assert!(verify(&good).is_ok());
    for at in 0..good.len() {
        let mut bytes = good.clone().into_bytes();
        bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
        let garbled = String::from_utf8(bytes).unwrap();
        // The last character of base64 has bits that mean nothing, and the decoder refuses those too.
        assert!(verify(&garbled).is_err(), "byte {at}");
        assert!(verify(&good[..at]).is_err(), "cut at {at}");
    }
    for text in ["", ".", "..", "...", "a.b.c", "é.é.é", &format!("{good}."), &format!("{good}="), &"a".repeat(4097)]
    {
        assert!(verify(text).is_err(), "{text}");
    }
    for claims in [json!({ "sub": "no id", "exp": NOW_S + 1 }), json!({ "exp": NOW_S + 1 }), json!([])] {
        assert!(verify(&hs256(json!({ "alg": "HS256" }), claims)).is_err());
    }
    let with_device = json!({ "sub": "a", "exp": NOW_S + 1, "device": "no id" });
    assert!(verify(&hs256(json!({ "alg": "HS256" }), with_device)).is_err());
}

#[test]
fn weak_keys_are_refused_and_keys_never_show() {
    assert_eq!(Key::hs256(&[1; 31]).unwrap_err(), KeyError::ShortSecret);
    assert_eq!(Key::ed25519_pem("no key").unwrap_err(), KeyError::NotAPublicKey);
    let user = UserId::parse("a").unwrap();
    let new = NewToken { user: &user, device: None, issuer: None, audience: None, expires_at_ms: 0 };
    assert_eq!(issue(DEFAULT_KEY, &[1; 31], &new).unwrap_err(), KeyError::ShortSecret);
    let shown = format!("{:?}", ring());
    assert!(!shown.contains("48") && !shown.contains("0123"), "{shown}");
}
