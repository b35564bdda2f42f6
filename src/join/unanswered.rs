//! Questions that no logic role answered.
//!
//! In: each of them, by its kind. Out: their numbers. Always: a number only grows.

use std::sync::atomic::{AtomicU64, Ordering};

/// What was asked; in the order of [`NAMES`].
#[derive(Debug, Clone, Copy)]
pub enum Asked {
    SignIn,
    SignOut,
    Read,
    Heartbeats,
    LargeMembers,
    LargeHeads,
    LargeOfUsers,
}

const NAMES: [&str; 7] =
    ["sign_in", "sign_out", "read", "heartbeats", "large_members", "large_heads", "large_of_users"];

#[derive(Debug, Default)]
pub struct Unanswered([AtomicU64; NAMES.len()]);

impl Unanswered {
    pub fn count(&self, asked: Asked) {
        self.0[asked as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// The answer as it is, counted if there is none.
    pub fn note<T>(&self, asked: Asked, answer: Option<T>) -> Option<T> {
        if answer.is_none() {
            self.count(asked);
        }
        answer
    }

    pub fn by_question(&self) -> impl Iterator<Item = (&'static str, u64)> {
        NAMES.into_iter().zip(&self.0).map(|(name, count)| (name, count.load(Ordering::Relaxed)))
    }
}
