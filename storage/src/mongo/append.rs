//! An append as a chain of ordered inserts.
//!
//! In: documents in their order. Out: how many of them are stored for certain, and why not all. Always: the next command is
//! sent only when the one before was whole, so what is stored is a prefix; texts of errors are not read; a doubt about a
//! command is a doubt about all of its documents.

use crate::planted::planted;
use crate::ports::{Appended, Stop, StoreError};
use mongodb::Collection;
use mongodb::bson::Document;
use mongodb::error::{Error, ErrorKind, WriteFailure};
use mongodb::options::{Acknowledgment, WriteConcern};
use std::time::Duration;

/// Documents of one command. Servers that are MongoDB by protocol alone may cut larger ones and go on behind a failed part.
const DOCUMENTS_PER_INSERT_MAX: usize = 100;
/// And their bytes, far below what one command may have.
const BYTES_PER_INSERT_MAX: usize = 8 * 1024 * 1024;
/// A unique key is taken.
const DUPLICATE_KEY: i32 = 11_000;

pub fn durable(timeout: Duration) -> WriteConcern {
    WriteConcern::builder().w(Acknowledgment::Majority).journal(true).w_timeout(timeout).build()
}

pub async fn append(
    entries: &Collection<Document>,
    documents: Vec<Document>,
    sizes: &[usize],
    timeout: Duration,
) -> Appended {
    let total = documents.len();
    let mut documents = documents.into_iter();
    let mut stored = 0;
    while stored < total {
        let count = command(&sizes[stored..]);
        let command: Vec<Document> = documents.by_ref().take(count).collect();
        let insert = entries.insert_many(command).ordered(!planted("insert_unordered")).write_concern(durable(timeout));
        match tokio::time::timeout(timeout, insert.into_future()).await {
            Ok(Ok(_)) => stored += count,
            Ok(Err(error)) => return stopped(stored, &error),
            Err(_) => return unknown(stored, "no answer in time".to_owned()),
        }
    }
    Appended { stored, stop: None }
}

/// How many documents go into one command: at least one.
fn command(sizes: &[usize]) -> usize {
    let mut bytes = 0;
    let fits = |size: &&usize| {
        bytes += **size;
        bytes <= BYTES_PER_INSERT_MAX
    };
    sizes.iter().take(DOCUMENTS_PER_INSERT_MAX).take_while(fits).count().max(1)
}

/// A single write met a taken key.
pub fn is_duplicate(error: &Error) -> bool {
    matches!(error.kind.as_ref(), ErrorKind::Write(WriteFailure::WriteError(error)) if error.code == DUPLICATE_KEY)
}

fn stopped(stored: usize, error: &Error) -> Appended {
    let ErrorKind::InsertMany(insert) = error.kind.as_ref() else { return unknown(stored, error.kind.to_string()) };
    // Stored, but perhaps not by a majority: nothing of the command is certain.
    if insert.write_concern_error.is_some() {
        return unknown(stored, "the write concern was not met".to_owned());
    }
    match insert.write_errors.as_deref().unwrap_or_default().iter().min_by_key(|error| error.index) {
        Some(error) if error.code == DUPLICATE_KEY => {
            Appended { stored: stored + error.index, stop: Some(Stop::Taken) }
        }
        Some(error) => unknown(stored, format!("write error {}", error.code)),
        None => unknown(stored, "an insert failed without a reason".to_owned()),
    }
}

fn unknown(stored: usize, why: String) -> Appended {
    Appended { stored, stop: Some(Stop::Unknown(StoreError::Unavailable(format!("mongodb: {why}")))) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_bounded_in_documents_and_bytes_and_has_at_least_one() {
        assert_eq!(command(&[10; 500]), DOCUMENTS_PER_INSERT_MAX);
        assert_eq!(command(&[10; 3]), 3);
        assert_eq!(command(&[BYTES_PER_INSERT_MAX / 2; 9]), 2);
        assert_eq!(command(&[BYTES_PER_INSERT_MAX + 1; 9]), 1);
    }
}
