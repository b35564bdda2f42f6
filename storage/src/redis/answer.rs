//! What Redis answered, as plain values.
//!
//! In: answers of commands and scripts of ours. Out: numbers, texts, lists. Always: an answer of another form is damage
//! and names its place.

use crate::ports::StoreError;
use redis::Value;

pub fn damaged(place: &str) -> StoreError {
    StoreError::Damaged(format!("redis: {place} does not decode"))
}

/// `None` for nothing.
pub fn text(answer: Value, place: &str) -> Result<Option<String>, StoreError> {
    match answer {
        Value::Nil => Ok(None),
        Value::BulkString(bytes) => String::from_utf8(bytes).map(Some).map_err(|_| damaged(place)),
        Value::SimpleString(text) => Ok(Some(text)),
        _ => Err(damaged(place)),
    }
}

pub fn list(answer: Value, place: &str) -> Result<Vec<Value>, StoreError> {
    match answer {
        Value::Array(values) => Ok(values),
        _ => Err(damaged(place)),
    }
}

/// An integer, or its text.
pub fn number<T: std::str::FromStr + TryFrom<i64>>(answer: Value, place: &str) -> Result<T, StoreError> {
    match answer {
        Value::Int(number) => T::try_from(number).map_err(|_| damaged(place)),
        other => text(other, place)?.and_then(|text| text.parse().ok()).ok_or_else(|| damaged(place)),
    }
}

/// A list of names and values in turn.
pub fn pairs(answer: Value, place: &str) -> Result<Vec<(String, String)>, StoreError> {
    let mut values = list(answer, place)?.into_iter();
    let mut pairs = Vec::with_capacity(values.len() / 2);
    while let Some(name) = values.next() {
        let value = values.next().unwrap_or(Value::Nil);
        let (Some(name), Some(value)) = (text(name, place)?, text(value, place)?) else { return Err(damaged(place)) };
        pairs.push((name, value));
    }
    Ok(pairs)
}
