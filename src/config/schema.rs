//! The configuration as a JSON Schema (draft 2020-12), for editors and for checks before a deployment.
//!
//! In: types and bounds from the structs of [`Config`], descriptions and defaults from `default.yaml`, units from the ends of
//! the names. Out: the schema; its bounds, as a check of values. Always: nothing is written here that is written there.

use super::{Config, ConfigError, defaults};
use schemars::generate::SchemaSettings;
use serde_json::{Value, json};

/// The ends of key names and the units they stand for; the first that fits counts.
const UNITS: [(&str, &str); 7] = [
    ("_per_s", "per second"),
    ("_ms", "milliseconds"),
    ("_s", "seconds"),
    ("_mib", "MiB"),
    ("_bytes", "bytes"),
    ("_bytes_max", "bytes"),
    ("_bytes_max_before_sign_in", "bytes"),
];

pub fn schema() -> Value {
    let settings = SchemaSettings::draft2020_12().for_deserialize().with(|settings| settings.inline_subschemas = true);
    let mut schema = settings.into_generator().into_root_schema_for::<Config>().to_value();
    schema["title"] = json!("The configuration of im-server");
    let default = super::layers::parse("default.yaml", defaults::TEXT).unwrap_or_default();
    // A file needs only the keys that it changes.
    remove(&mut schema, "required");
    for key in defaults::keys() {
        let Some(node) = node_mut(&mut schema, &key.path) else { continue };
        remove(node, "required");
        if !key.comment.is_empty() {
            node["description"] = json!(key.comment);
        }
        if key.is_section {
            continue;
        }
        node["default"] = defaults::at(&default, &key.path).cloned().unwrap_or_default();
        bound_by_format(node);
        let name = key.path.last().copied().unwrap_or_default();
        if let Some((_, unit)) = UNITS.iter().find(|(end, _)| name.ends_with(end)) {
            node["x-unit"] = json!(unit);
        }
    }
    schema
}

/// The schema of one key.
pub fn node<'s>(schema: &'s Value, path: &[&str]) -> Option<&'s Value> {
    path.iter().try_fold(schema, |node, key| node.get("properties")?.get(key))
}

fn node_mut<'s>(schema: &'s mut Value, path: &[&str]) -> Option<&'s mut Value> {
    path.iter().try_fold(schema, |node, key| node.get_mut("properties")?.get_mut(key))
}

fn remove(node: &mut Value, keyword: &str) {
    node.as_object_mut().map(|node| node.remove(keyword));
}

/// `uint32` and its like are no formats of the standard; their bounds say the same.
fn bound_by_format(node: &mut Value) {
    let bits = node["format"].as_str().and_then(|format| format.strip_prefix("uint")?.parse::<u32>().ok());
    if let Some(largest) = bits.and_then(|bits| u64::MAX.checked_shr(64 - bits)) {
        remove(node, "format");
        if node.get("maximum").is_none() {
            node["maximum"] = json!(largest);
        }
    }
}

/// Numbers lie where the schema says.
pub fn check_bounds(values: &Value) -> Result<(), ConfigError> {
    let schema = schema();
    for key in defaults::keys() {
        let (Some(node), Some(value)) = (node(&schema, &key.path), defaults::at(values, &key.path)) else { continue };
        let (Some(least), Some(most), Some(value)) =
            (node["minimum"].as_u64(), node["maximum"].as_u64(), value.as_u64())
        else {
            continue;
        };
        if !(least..=most).contains(&value) {
            return Err(ConfigError::Value(format!("{} must be {least} to {most}", key.path.join("."))));
        }
    }
    Ok(())
}
