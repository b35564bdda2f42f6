//! The signing key of the data folder, the keys tokens are verified with, and tokens for the command line.
//!
//! In: the configuration, `signing.key` in the data folder (32 random bytes as base64url, mode 0600, made at the first
//! start). Out: a key ring for the logic; tokens. Always: a key never shows in a log or an error; the demo key is in the
//! ring only while every listener is loopback.

use crate::clock::now_ms;
use crate::config::{Algorithm, Config, VerificationKey};
use crate::exit::Failure;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use im_logic::token::{self, Key, KeyRing, NewToken};
use im_proto::{DeviceId, UserId};
use sha2::{Digest as _, Sha256};
use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

const KEY_FILE: &str = "signing.key";
const KEY_BYTES: usize = 32;
/// The key of demo tokens; no real server knows it.
const DEMO_KEY: &str = "demo";
pub const DEMO_USERS: [&str; 4] = ["alice", "bob", "carol", "dave"];
const DEMO_VALID_MS: i64 = 30 * 24 * 3600 * 1000;

/// The secrets of the data folder.
#[derive(Clone)]
pub struct Keys {
    signing: Vec<u8>,
}

impl Keys {
    /// Reads the signing key; makes one in a folder that has none.
    pub fn open_or_create(config: &Config) -> Result<Self, Failure> {
        let path = config.store.folder.join(KEY_FILE);
        if !path.exists() {
            create(&path).map_err(|error| Failure::Folder(format!("cannot write {}: {error}", path.display())))?;
        }
        Self::open(config)
    }

    fn open(config: &Config) -> Result<Self, Failure> {
        let path = config.store.folder.join(KEY_FILE);
        let text = std::fs::read_to_string(&path).map_err(|error| match error.kind() {
            ErrorKind::NotFound => {
                Failure::Folder(format!("{} is not there yet; start the server once first", path.display()))
            }
            _ => Failure::Folder(format!("cannot read {}: {error}", path.display())),
        })?;
        Ok(Self { signing: secret(&path, &text)? })
    }

    /// What the logic verifies tokens with.
    pub fn ring(&self, config: &Config) -> Result<KeyRing, Failure> {
        let mut ring = configured_ring(config, &[token::DEFAULT_KEY, DEMO_KEY])?;
        ring.add(token::DEFAULT_KEY, usable(&self.signing, KEY_FILE)?);
        if config.listen.all_loopback() {
            ring.add(DEMO_KEY, usable(&self.demo_secret(), KEY_FILE)?);
        }
        Ok(ring)
    }

    /// A token for a demo user; worthless on a server that is not all loopback.
    pub fn demo_token(&self, config: &Config, user: &str) -> Result<String, Failure> {
        sign(config, DEMO_KEY, &self.demo_secret(), user, None, now_ms() + DEMO_VALID_MS)
    }

    fn demo_secret(&self) -> Vec<u8> {
        Sha256::new().chain_update(b"im-server demo users").chain_update(&self.signing).finalize().to_vec()
    }
}

/// What every logic role of a deployment verifies tokens with: the keys of the configuration, and no other. One of the kid
/// "default" verifies tokens that name none.
#[cfg(feature = "distributed")]
pub fn shared_ring(config: &Config) -> Result<KeyRing, Failure> {
    if config.auth.keys.is_empty() {
        return Err(Failure::Usage("auth.keys is empty: nobody could sign in".to_owned()));
    }
    configured_ring(config, &[DEMO_KEY])
}

/// `own`: kids that the configuration may not take.
fn configured_ring(config: &Config, own: &[&str]) -> Result<KeyRing, Failure> {
    let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    let mut ring = KeyRing::default();
    ring.issuer = some(&config.auth.issuer);
    ring.audience = some(&config.auth.audience);
    ring.expiry_optional = !config.auth.expiry_required;
    for key in &config.auth.keys {
        if own.contains(&key.kid.as_str()) {
            return Err(Failure::Usage(format!("auth.keys: the kid {} is the server's own", key.kid)));
        }
        ring.add(&key.kid, verification_key(key)?);
    }
    Ok(ring)
}

/// The `token` command.
pub fn issue(config: &Config, user: &str, device: Option<&str>, valid_s: u64) -> Result<String, Failure> {
    let valid_ms =
        i64::try_from(valid_s).ok().and_then(|s| s.checked_mul(1000)).and_then(|ms| ms.checked_add(now_ms()));
    let expires_at_ms = valid_ms.ok_or_else(|| Failure::Usage("--valid-s is too large".to_owned()))?;
    sign(config, token::DEFAULT_KEY, &default_secret(config)?, user, device, expires_at_ms)
}

/// A deployment's shared secret of the kid "default", or that of the data folder.
fn default_secret(config: &Config) -> Result<Vec<u8>, Failure> {
    let is_shared = |key: &&VerificationKey| key.kid == token::DEFAULT_KEY && matches!(key.algorithm, Algorithm::HS256);
    let Some(key) = config.auth.keys.iter().find(is_shared) else { return Ok(Keys::open(config)?.signing) };
    let read = std::fs::read_to_string(&key.file);
    let text = read.map_err(|error| Failure::Usage(format!("{}: cannot be read: {error}", key.file.display())))?;
    secret(&key.file, &text)
}

fn sign(
    config: &Config,
    kid: &str,
    secret: &[u8],
    user: &str,
    device: Option<&str>,
    expires_at_ms: i64,
) -> Result<String, Failure> {
    let bad = |what: &str| Failure::Usage(format!("{what}: an id is 1 to 64 characters of A-Z a-z 0-9 _ -"));
    let user = UserId::parse(user).map_err(|_| bad("--user"))?;
    let device = device.map(DeviceId::parse).transpose().map_err(|_| bad("--device"))?;
    let some = |text: &'_ str| (!text.is_empty()).then(|| text.to_owned());
    let (issuer, audience) = (some(&config.auth.issuer), some(&config.auth.audience));
    let new = NewToken {
        user: &user,
        device: device.as_ref(),
        issuer: issuer.as_deref(),
        audience: audience.as_deref(),
        expires_at_ms,
    };
    token::issue(kid, secret, &new).map_err(|error| Failure::Other(error.to_string()))
}

fn verification_key(key: &VerificationKey) -> Result<Key, Failure> {
    let name = format!("auth.keys {}: {}", key.kid, key.file.display());
    let text = std::fs::read_to_string(&key.file)
        .map_err(|error| Failure::Usage(format!("{name}: cannot be read: {error}")))?;
    match key.algorithm {
        Algorithm::HS256 => usable(&secret(&key.file, &text)?, &name),
        Algorithm::EdDSA => Key::ed25519_pem(&text).map_err(|error| Failure::Usage(format!("{name}: {error}"))),
    }
}

fn usable(secret: &[u8], name: &str) -> Result<Key, Failure> {
    Key::hs256(secret).map_err(|error| Failure::Usage(format!("{name}: {error}")))
}

fn secret(path: &Path, text: &str) -> Result<Vec<u8>, Failure> {
    URL_SAFE_NO_PAD
        .decode(text.trim().trim_end_matches('='))
        .map_err(|_| Failure::Usage(format!("{}: not base64url", path.display())))
}

/// Whole or not at all: a key file cut short by a crash would lock the folder's users out.
fn create(path: &Path) -> std::io::Result<()> {
    let mut key = [0; KEY_BYTES];
    rand::fill(&mut key);
    let unfinished = path.with_extension("new");
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&unfinished)?;
    writeln!(file, "{}", URL_SAFE_NO_PAD.encode(key))?;
    file.sync_all()?;
    std::fs::rename(&unfinished, path)?;
    path.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all())
}
