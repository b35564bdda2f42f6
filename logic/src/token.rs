//! Who a token says the bearer is.
//!
//! In: a signed token (JWT) and the time. Out: user, bound device and expiry, or why not. Always: a token chooses its key by
//! `kid` out of a local ring and nothing else; the algorithm is the key's, never the token's; a header that asks for
//! anything to be fetched or understood is refused; neither tokens nor keys show in `Debug`.
//!
//! Written on the primitives (`hmac`, `ed25519-dalek`): two algorithms and one form are a page of code, where the general
//! crates bring RSA and three curves along.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ed25519_dalek::VerifyingKey;
use ed25519_dalek::pkcs8::DecodePublicKey as _;
use hmac::{Hmac, Mac as _};
use im_proto::{DeviceId, UserId};
use serde::{Deserialize, Serialize};
use sha2::Sha256;
use std::collections::HashMap;
use std::fmt;

/// A longer token is refused unread.
pub const TOKEN_BYTES_MAX: usize = 4096;
/// An HS256 secret is at least as long as its hash.
pub const SECRET_BYTES_MIN: usize = 32;
/// How far the issuer's clock may be off.
pub const LEEWAY_S: i64 = 60;
/// The key of tokens that name none.
pub const DEFAULT_KEY: &str = "default";

/// What the server checks tokens with.
#[derive(Debug, Default)]
pub struct KeyRing {
    keys: HashMap<String, Key>,
    /// `None`: not checked.
    pub issuer: Option<String>,
    pub audience: Option<String>,
    /// A token may come without an expiry.
    pub expiry_optional: bool,
}

pub enum Key {
    Hs256(Vec<u8>),
    EdDsa(Box<VerifyingKey>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    #[error("an HS256 secret has at least {SECRET_BYTES_MIN} bytes")]
    ShortSecret,
    #[error("not an Ed25519 public key in PEM form")]
    NotAPublicKey,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    pub user: UserId,
    /// The only device the token is good for.
    pub device: Option<DeviceId>,
    pub expires_at_ms: Option<i64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// Was good: the app fetches a fresh one.
    #[error("the token has expired")]
    Expired,
    /// Is not good: the same again will not help.
    #[error("{0}")]
    Bad(&'static str),
}

impl Key {
    pub fn hs256(secret: &[u8]) -> Result<Self, KeyError> {
        if secret.len() < SECRET_BYTES_MIN { Err(KeyError::ShortSecret) } else { Ok(Self::Hs256(secret.to_vec())) }
    }

    pub fn ed25519_pem(pem: &str) -> Result<Self, KeyError> {
        let key = VerifyingKey::from_public_key_pem(pem).map_err(|_| KeyError::NotAPublicKey)?;
        if key.is_weak() { Err(KeyError::NotAPublicKey) } else { Ok(Self::EdDsa(Box::new(key))) }
    }

    fn algorithm(&self) -> &'static str {
        match self {
            Self::Hs256(_) => "HS256",
            Self::EdDsa(_) => "EdDSA",
        }
    }

    fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        match self {
            Self::Hs256(secret) => mac(secret, message).is_some_and(|mac| mac.verify_slice(signature).is_ok()),
            Self::EdDsa(key) => ed25519_dalek::Signature::from_slice(signature)
                .is_ok_and(|signature| key.verify_strict(message, &signature).is_ok()),
        }
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} key", self.algorithm())
    }
}

fn mac(secret: &[u8], message: &[u8]) -> Option<Hmac<Sha256>> {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret).ok()?;
    mac.update(message);
    Some(mac)
}

#[derive(Deserialize)]
struct Header {
    alg: String,
    kid: Option<String>,
    // Each of these asks for something to be fetched, trusted or understood.
    jku: Option<serde::de::IgnoredAny>,
    jwk: Option<serde::de::IgnoredAny>,
    x5u: Option<serde::de::IgnoredAny>,
    x5c: Option<serde::de::IgnoredAny>,
    crit: Option<serde::de::IgnoredAny>,
}

#[derive(Deserialize)]
struct Claims {
    sub: String,
    device: Option<String>,
    exp: Option<Time>,
    nbf: Option<Time>,
    iss: Option<String>,
    aud: Option<Audience>,
}

/// Seconds since 1970; the standard allows fractions.
#[derive(Deserialize, Clone, Copy)]
#[serde(untagged)]
enum Time {
    Whole(i64),
    Fraction(f64),
}

impl Time {
    fn seconds(self) -> i64 {
        match self {
            Self::Whole(seconds) => seconds,
            Self::Fraction(seconds) => seconds as i64,
        }
    }
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    Many(Vec<String>),
}

impl Audience {
    fn names(&self, audience: &str) -> bool {
        match self {
            Self::One(one) => one == audience,
            Self::Many(many) => many.iter().any(|one| one == audience),
        }
    }
}

impl KeyRing {
    /// Adds a key; one of the same id is replaced.
    pub fn add(&mut self, kid: &str, key: Key) {
        self.keys.insert(kid.to_owned(), key);
    }

    pub fn verify(&self, token: &str, now_ms: i64) -> Result<Identity, TokenError> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err(TokenError::Bad("the token is too long"));
        }
        let claims = self.signed_claims(token)?;
        self.check(&claims, now_ms.div_euclid(1000))?;
        let user = UserId::parse(&claims.sub).map_err(|_| TokenError::Bad("the token's subject is no user id"))?;
        let device = claims.device.as_deref().map(DeviceId::parse).transpose();
        let device = device.map_err(|_| TokenError::Bad("the token's device is no device id"))?;
        let expires_at_ms = claims.exp.map(|exp| exp.seconds().saturating_mul(1000));
        Ok(Identity { user, device, expires_at_ms })
    }

    /// The claims of a token whose signature holds. Nothing but the header is decoded before that.
    fn signed_claims(&self, token: &str) -> Result<Claims, TokenError> {
        const FORM: TokenError = TokenError::Bad("the token is garbled");
        let (message, signature) = token.rsplit_once('.').ok_or(FORM)?;
        let (header, claims) = message.split_once('.').ok_or(FORM)?;
        let header: Header = decode(header).ok_or(FORM)?;
        let asks = [&header.jku, &header.jwk, &header.x5u, &header.x5c, &header.crit];
        if asks.iter().any(|field| field.is_some()) {
            return Err(TokenError::Bad("the token's header names a foreign key or a critical extension"));
        }
        let kid = header.kid.as_deref().unwrap_or(DEFAULT_KEY);
        let key = self.keys.get(kid).ok_or(TokenError::Bad("the token's key is not known"))?;
        if header.alg != key.algorithm() {
            return Err(TokenError::Bad("the token's algorithm is not its key's"));
        }
        let signature = URL_SAFE_NO_PAD.decode(signature).map_err(|_| FORM)?;
        if !key.verifies(message.as_bytes(), &signature) {
            return Err(TokenError::Bad("the token's signature does not hold"));
        }
        decode(claims).ok_or(FORM)
    }

    fn check(&self, claims: &Claims, now_s: i64) -> Result<(), TokenError> {
        if claims.nbf.is_some_and(|nbf| now_s < nbf.seconds().saturating_sub(LEEWAY_S)) {
            return Err(TokenError::Bad("the token is not valid yet"));
        }
        if self.issuer.is_some() && self.issuer != claims.iss {
            return Err(TokenError::Bad("the token is of another issuer"));
        }
        if let Some(audience) = &self.audience
            && !claims.aud.as_ref().is_some_and(|aud| aud.names(audience))
        {
            return Err(TokenError::Bad("the token is for another audience"));
        }
        match claims.exp {
            Some(exp) if now_s >= exp.seconds().saturating_add(LEEWAY_S) => Err(TokenError::Expired),
            None if !self.expiry_optional => Err(TokenError::Bad("the token has no expiry")),
            _ => Ok(()),
        }
    }
}

fn decode<T: serde::de::DeserializeOwned>(part: &str) -> Option<T> {
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).ok()?).ok()
}

/// What a token is to say.
#[derive(Debug, Clone)]
pub struct NewToken<'a> {
    pub user: &'a UserId,
    pub device: Option<&'a DeviceId>,
    pub issuer: Option<&'a str>,
    pub audience: Option<&'a str>,
    pub expires_at_ms: i64,
}

#[derive(Serialize)]
struct NewClaims<'a> {
    sub: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    device: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    iss: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    aud: Option<&'a str>,
    exp: i64,
}

/// A token signed with an HS256 secret that the servers know as `kid`.
pub fn issue(kid: &str, secret: &[u8], new: &NewToken<'_>) -> Result<String, KeyError> {
    if secret.len() < SECRET_BYTES_MIN {
        return Err(KeyError::ShortSecret);
    }
    let header = serde_json::json!({ "alg": "HS256", "typ": "JWT", "kid": kid });
    let claims = NewClaims {
        sub: new.user.as_str(),
        device: new.device.map(DeviceId::as_str),
        iss: new.issuer,
        aud: new.audience,
        exp: new.expires_at_ms.div_euclid(1000),
    };
    let claims = serde_json::json!(claims);
    let message =
        format!("{}.{}", URL_SAFE_NO_PAD.encode(header.to_string()), URL_SAFE_NO_PAD.encode(claims.to_string()));
    let signature = mac(secret, message.as_bytes()).ok_or(KeyError::ShortSecret)?.finalize().into_bytes();
    Ok(format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature)))
}

#[cfg(test)]
mod tests;
