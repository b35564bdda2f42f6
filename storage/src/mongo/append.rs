//! An append as a chain of ordered inserts.
//!
//! In: documents in their order. Out: how many of them are stored for certain, and why not all. Always: the next command is
//! sent only when the one before was whole, so what is stored is a prefix; one deadline for all of them; texts of errors are
//! not read; a doubt about a command is a doubt about all of its documents.

use crate::planted::planted;
use crate::ports::{Appended, Stop, StoreError};
use mongodb::Collection;
use mongodb::bson::Document;
use mongodb::error::{Error, ErrorKind, InsertManyError};
use mongodb::options::{Acknowledgment, WriteConcern};
use std::time::Duration;
use tokio::time::{Instant, timeout_at};

/// Documents of one command. Servers that are MongoDB by protocol alone may cut larger ones and go on behind a failed part.
pub const DOCUMENTS_PER_INSERT_MAX: usize = 100;
/// And their bytes, far below what one command may have.
const BYTES_PER_INSERT_MAX: usize = 8 * 1024 * 1024;
/// A unique key is taken.
const DUPLICATE_KEY: i32 = 11_000;

/// A server is to say that it missed the majority while somebody still listens: in half of the caller's time.
const WTIMEOUT_PART: u32 = 2;
/// None at all would be one without end.
const WTIMEOUT_MIN: Duration = Duration::from_millis(1);

/// For a write whose caller waits for `timeout`.
pub fn durable(timeout: Duration) -> WriteConcern {
    let w_timeout = (timeout / WTIMEOUT_PART).max(WTIMEOUT_MIN);
    WriteConcern::builder().w(Acknowledgment::Majority).journal(true).w_timeout(w_timeout).build()
}

/// Ends within `timeout` of `begun`.
pub async fn append(
    entries: &Collection<Document>,
    documents: Vec<Document>,
    sizes: &[usize],
    begun: Instant,
    timeout: Duration,
) -> Appended {
    let total = documents.len();
    let mut documents = documents.into_iter();
    let mut stored = 0;
    while stored < total {
        let from = if planted("deadline_per_command") { Instant::now() } else { begun };
        let deadline = from + timeout;
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return unknown(stored, "no time left for another command".to_owned());
        }
        let count = command(&sizes[stored..]);
        let command: Vec<Document> = documents.by_ref().take(count).collect();
        let insert = entries.insert_many(command).ordered(!planted("insert_unordered")).write_concern(durable(left));
        match timeout_at(deadline, insert.into_future()).await {
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

/// Each document that is not stored met a taken key, and the others are stored for certain.
pub fn met_taken_keys_alone(error: &Error) -> bool {
    matches!(error.kind.as_ref(), ErrorKind::InsertMany(insert) if are_duplicates(insert))
}

fn are_duplicates(insert: &InsertManyError) -> bool {
    let errors = insert.write_errors.as_deref().unwrap_or_default();
    insert.write_concern_error.is_none() && !errors.is_empty() && errors.iter().all(|error| error.code == DUPLICATE_KEY)
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

    #[test]
    fn a_server_gives_up_waiting_for_a_majority_before_its_caller_does_and_never_waits_for_ever() {
        for timeout in [Duration::ZERO, Duration::from_micros(1), Duration::from_secs(5)] {
            let w_timeout = durable(timeout).w_timeout.unwrap();
            assert!((WTIMEOUT_MIN..=timeout.max(WTIMEOUT_MIN)).contains(&w_timeout), "{timeout:?}");
        }
        assert_eq!(durable(Duration::from_secs(5)).w_timeout, Some(Duration::from_millis(2_500)));
    }

    #[test]
    fn only_taken_keys_count_as_listed_before() {
        use mongodb::bson::{deserialize_from_document, doc};
        let of = |answer: Document| are_duplicates(&deserialize_from_document::<InsertManyError>(answer).unwrap());
        let error = |index: i32, code: i32| doc! { "index": index, "code": code, "errmsg": "" };
        assert!(of(doc! { "writeErrors": [error(1, DUPLICATE_KEY), error(7, DUPLICATE_KEY)] }));
        assert!(!of(doc! { "writeErrors": [error(1, DUPLICATE_KEY), error(7, 91)] }));
        assert!(!of(doc! { "writeErrors": [] }), "it failed, and not for that");
        let unmet = doc! { "code": 64, "codeName": "", "errmsg": "" };
        assert!(!of(doc! { "writeErrors": [error(1, DUPLICATE_KEY)], "writeConcernError": unmet }));
    }

    #[tokio::test]
    async fn behind_the_deadline_no_command_is_begun() {
        // Nobody is there, and nobody is asked.
        let client = mongodb::Client::with_uri_str("mongodb://127.0.0.1:1/?directConnection=true").await.unwrap();
        let entries = client.database("im").collection("entries");
        let appended = append(&entries, vec![Document::new()], &[1], Instant::now(), Duration::ZERO).await;
        assert_eq!(appended.stored, 0);
        let Some(Stop::Unknown(error)) = appended.stop else { panic!("{appended:?}") };
        assert!(error.to_string().contains("no time left"), "{error}");
    }
}
