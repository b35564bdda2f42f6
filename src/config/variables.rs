//! Environment variables: each key of the configuration has one.
//!
//! In: the schema and `default.yaml`. Out: names, and a text that lists each with its type, default and meaning. Always: the
//! name follows from the key alone: `IM_`, then the path in capitals with two underscores between its parts.

use super::{ConfigError, defaults, layers, schema};
use serde_json::Value;
use std::fmt::Write as _;

pub const PREFIX: &str = "IM_";
pub const SEPARATOR: &str = "__";
/// In the variables by which Kubernetes names its services to every container; one may well be called `im-gateway`.
const OF_KUBERNETES: [&str; 2] = ["_SERVICE_", "_PORT_"];
const LINE_CHARS_MAX: usize = 100;
const INDENT: &str = "    ";

pub fn name(path: &[&str]) -> String {
    format!("{PREFIX}{}", path.join(SEPARATOR).to_ascii_uppercase())
}

/// An error if `variable`, which holds no separator, begins with a section's name: whoever set it believes it to be obeyed.
pub fn refuse_lookalike(variable: &str) -> Result<(), ConfigError> {
    let keys = defaults::keys();
    let begins_with = |section: &str| variable.strip_prefix(section).is_some_and(|rest| rest.starts_with('_'));
    let is_ours = keys.iter().any(|key| key.is_section && key.path.len() == 1 && begins_with(&name(&key.path)));
    // One of them ends behind its `PORT`.
    let of_kubernetes = OF_KUBERNETES.iter().any(|part| format!("{variable}_").contains(part));
    if !is_ours || of_kubernetes {
        return Ok(());
    }
    let names = keys.iter().filter(|key| !key.is_section).map(|key| name(&key.path));
    Err(layers::unknown("the environment", variable.to_owned(), layers::nearest(variable, names)))
}

/// Every variable, in the order of `default.yaml`.
pub fn list() -> String {
    let schema = schema::schema();
    let mut out = String::from("# Values are YAML; JSON is YAML too. A variable overrides the file.\n");
    for key in defaults::keys().iter().filter(|key| !key.is_section) {
        let Some(node) = schema::node(&schema, &key.path) else { continue };
        let (name, kind, default) = (name(&key.path), kind(node), defaults::scalar(&node["default"]));
        // Writing to a String cannot fail.
        let _ = writeln!(out, "\n{name}  ({kind}; default {default})");
        wrap(&key.comment, &mut out);
    }
    out
}

fn kind(node: &Value) -> String {
    let text = |keyword: &str| node[keyword].as_str().map(str::to_owned);
    if let Some(values) = node["enum"].as_array() {
        return values.iter().map(defaults::scalar).collect::<Vec<_>>().join(" | ");
    }
    let kind = match node["type"].as_str() {
        Some("integer") => format!("integer {} to {}", node["minimum"], node["maximum"]),
        Some("boolean") => "true | false".to_owned(),
        Some("array") => "list".to_owned(),
        Some(other) => text("x-kind").unwrap_or_else(|| other.to_owned()),
        None => "value".to_owned(),
    };
    text("x-unit").map_or(kind.clone(), |unit| format!("{kind}, {unit}"))
}

fn wrap(words: &str, out: &mut String) {
    let mut line = String::from(INDENT);
    for word in words.split(' ') {
        if line.len() > INDENT.len() && line.len() + 1 + word.len() > LINE_CHARS_MAX {
            let _ = writeln!(out, "{}", line.trim_end());
            line = String::from(INDENT);
        }
        line.push_str(word);
        line.push(' ');
    }
    let _ = writeln!(out, "{}", line.trim_end());
}
