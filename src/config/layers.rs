//! Layers of settings, one over the other.
//!
//! In: texts and trees of keys. Out: one tree, or an error that names the key and the nearest right one. Always: only keys
//! of the defaults are let in.

use super::ConfigError;
use serde_json::{Map, Value};

pub fn parse(source_name: &str, text: &str) -> Result<Value, ConfigError> {
    serde_saphyr::from_str(text)
        .map_err(|error| ConfigError::Syntax { source_name: source_name.to_owned(), error: error.to_string() })
}

/// Puts `from` over `into`, refusing keys that `known` lacks.
pub fn overlay(into: &mut Value, from: Value, known: &Value, source_name: &str, path: &str) -> Result<(), ConfigError> {
    let (Value::Object(into_keys), Value::Object(known_keys)) = (&mut *into, known) else {
        *into = from;
        return Ok(());
    };
    let from = match from {
        Value::Object(from) => from,
        Value::Null => return Ok(()),
        _ => return Err(ConfigError::Value(format!("{source_name}: {path} must hold keys, not a single value"))),
    };
    for (key, value) in from {
        let full = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
        match (into_keys.get_mut(&key), known_keys.get(&key)) {
            (Some(into), Some(known)) => overlay(into, value, known, source_name, &full)?,
            _ => return Err(unknown_key(source_name, full, path, known_keys)),
        }
    }
    Ok(())
}

fn unknown_key(source_name: &str, key: String, path: &str, known: &Map<String, Value>) -> ConfigError {
    let asked = key.rsplit('.').next().unwrap_or_default().to_owned();
    let full = |name: String| if path.is_empty() { name } else { format!("{path}.{name}") };
    let nearest = nearest(&asked, known.keys().cloned()).map(full);
    unknown(source_name, key, nearest)
}

pub fn nearest(asked: &str, names: impl Iterator<Item = String>) -> Option<String> {
    names.max_by(|a, b| strsim::jaro_winkler(a, asked).total_cmp(&strsim::jaro_winkler(b, asked)))
}

pub fn unknown(source_name: &str, key: String, nearest: Option<String>) -> ConfigError {
    let nearest = nearest.map(|name| format!("; did you mean {name}?")).unwrap_or_default();
    ConfigError::UnknownKey { source_name: source_name.to_owned(), key, nearest }
}
