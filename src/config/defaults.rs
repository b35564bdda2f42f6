//! `default.yaml`: every key, its default and what it does. The one place where either is written.
//!
//! In: the text, compiled in. Out: its keys in order, with their comments; the text again with other values in it. Always: a
//! key's comment stands right above it; sections nest by two blanks.

use serde_json::Value;

pub const TEXT: &str = include_str!("../default.yaml");
const INDENT: usize = 2;

/// A line of `default.yaml` that names a key.
pub struct Key {
    /// From the outermost section to the key itself.
    pub path: Vec<&'static str>,
    pub comment: String,
    /// Holds other keys.
    pub is_section: bool,
    line: usize,
}

pub fn keys() -> Vec<Key> {
    let mut keys = Vec::new();
    let mut sections: Vec<&'static str> = Vec::new();
    let mut comment: Vec<&str> = Vec::new();
    for (line, text) in TEXT.lines().enumerate() {
        let content = text.trim_start();
        if let Some(words) = content.strip_prefix('#') {
            comment.push(words.trim());
        } else if let Some((name, value)) = content.split_once(':') {
            sections.truncate((text.len() - content.len()) / INDENT);
            let path = sections.iter().copied().chain([name]).collect();
            let is_section = value.is_empty();
            if is_section {
                sections.push(name);
            }
            keys.push(Key { path, comment: std::mem::take(&mut comment).join(" "), is_section, line });
        } else {
            // The comment of the whole file ends at an empty line.
            comment.clear();
        }
    }
    keys
}

/// The value at a path of keys.
pub fn at<'v>(value: &'v Value, path: &[&str]) -> Option<&'v Value> {
    path.iter().try_fold(value, |value, key| value.get(key))
}

/// The text with these values.
pub fn print(values: &Value) -> String {
    let mut lines: Vec<String> = TEXT.lines().map(str::to_owned).collect();
    for Key { path, line, .. } in keys().iter().filter(|key| !key.is_section) {
        if let (Some(value), Some(name)) = (at(values, path), path.last()) {
            lines[*line] = format!("{:1$}{name}: {2}", "", (path.len() - 1) * INDENT, scalar(value));
        }
    }
    lines.join("\n") + "\n"
}

/// JSON is YAML, so a list or a quoted text prints as JSON; a plain text without quotes reads better.
pub fn scalar(value: &Value) -> String {
    match value {
        Value::String(text) if !text.is_empty() && !text.contains([' ', '#', '"', '\\']) => text.clone(),
        other => other.to_string(),
    }
}
