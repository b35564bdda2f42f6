//! Tokens as an app's backend makes them, and broken ones.
//!
//! In: claims. Out: JWTs, signed with a key that the server was told of by its configuration. Always: the key is made by
//! the test and lies in its folder.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

pub const KEY_ID: &str = "test";
const SECRET: &[u8] = b"canary-signing-secret-of-the-tests-0123456789";
const VALID_S: i64 = 3600;

/// An HS256 key besides the server's own.
#[derive(Clone)]
pub struct SigningKey {
    file: PathBuf,
}

impl SigningKey {
    pub fn in_folder(folder: &Path) -> Self {
        let file = folder.join("test.key");
        if !file.exists() {
            std::fs::write(&file, Self::secret_text()).unwrap();
        }
        Self { file }
    }

    /// What the key's file holds; it must never be seen in a log.
    pub fn secret_text() -> String {
        URL_SAFE_NO_PAD.encode(SECRET)
    }

    /// The value of `auth.keys`.
    pub fn configuration(&self) -> String {
        json!([{ "kid": KEY_ID, "algorithm": "HS256", "file": self.file }]).to_string()
    }

    pub fn token(&self, user: &str) -> String {
        self.sign(&json!({ "sub": user, "exp": now_s() + VALID_S }))
    }

    pub fn token_for_device(&self, user: &str, device: &str) -> String {
        self.sign(&json!({ "sub": user, "exp": now_s() + VALID_S, "device": device }))
    }

    /// Any claims, rightly signed.
    pub fn sign(&self, claims: &Value) -> String {
        let mut header = Header::new(Algorithm::HS256);
        header.kid = Some(KEY_ID.to_owned());
        jsonwebtoken::encode(&header, claims, &EncodingKey::from_secret(SECRET)).unwrap()
    }

    /// Any header and claims; the signature is HS256 by the right secret, whatever the header says.
    pub fn sign_with_header(&self, header: &Value, claims: &Value) -> String {
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let message = format!("{}.{}", part(header), part(claims));
        let key = EncodingKey::from_secret(SECRET);
        let signature = jsonwebtoken::crypto::sign(message.as_bytes(), &key, Algorithm::HS256).unwrap();
        format!("{message}.{signature}")
    }
}

pub fn now_s() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() as i64
}
