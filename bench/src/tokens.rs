//! Tokens for the users of a run.
//!
//! In: the server's signing key, or a command that prints a token. Out: one token a user and device. Always: no token
//! or key is ever printed.

use crate::error::{BenchError, During};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde::Serialize;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

/// The key id that a server gives the key of its data folder.
const KEY_ID: &str = "default";
const LIFETIME_S: u64 = 24 * 3600;

/// Where tokens come from.
pub enum TokenSource {
    Key { key: EncodingKey, issued_s: u64 },
    Command(PathBuf),
}

#[derive(Serialize)]
struct Claims<'a> {
    sub: &'a str,
    iat: u64,
    exp: u64,
}

impl TokenSource {
    /// `path`: an HS256 secret as base64url, as in the `signing.key` of a data folder.
    pub fn from_key_file(path: &Path) -> Result<Self, BenchError> {
        let text = std::fs::read_to_string(path).during(path.display().to_string())?;
        let secret = URL_SAFE_NO_PAD
            .decode(text.trim().trim_end_matches('='))
            .map_err(|_| BenchError::Setup(format!("{} holds no base64url key", path.display())))?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |passed| passed.as_secs());
        Ok(Self::Key { key: EncodingKey::from_secret(&secret), issued_s: now })
    }

    pub fn token(&self, user: &str) -> Result<String, BenchError> {
        match self {
            Self::Key { key, issued_s } => {
                let header = Header { kid: Some(KEY_ID.to_owned()), ..Header::new(Algorithm::HS256) };
                let claims = Claims { sub: user, iat: *issued_s, exp: issued_s + LIFETIME_S };
                jsonwebtoken::encode(&header, &claims, key)
                    .map_err(|error| BenchError::Setup(format!("signing a token: {error}")))
            }
            Self::Command(program) => printed_by(program, user),
        }
    }
}

fn printed_by(program: &Path, user: &str) -> Result<String, BenchError> {
    let output = Command::new(program).arg(user).output().during(program.display().to_string())?;
    let token = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    if output.status.success() && !token.is_empty() {
        return Ok(token);
    }
    Err(BenchError::Setup(format!("{} gave no token for {user}: {}", program.display(), output.status)))
}
