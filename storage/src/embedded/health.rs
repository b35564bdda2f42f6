//! Whether the store may still be believed.
//!
//! In: the first failed commit, or a write nobody answered. Out: the reason, to every later call and to whoever waits
//! for it. Always: a failed store never recovers by itself: what the disk holds is not known until it is opened again,
//! so nothing more is acked and no question about what is stored is answered.

use crate::ports::StoreError;
use tokio::sync::watch;

pub struct Health {
    failed: watch::Sender<Option<String>>,
}

impl Health {
    pub fn new() -> Self {
        Self { failed: watch::Sender::new(None) }
    }

    /// Only the first reason is kept.
    pub fn fail(&self, reason: &str) {
        let first = self.failed.send_if_modified(|slot| {
            let first = slot.is_none();
            slot.get_or_insert_with(|| reason.to_owned());
            first
        });
        if first {
            tracing::error!(reason, "the store failed; nothing more is stored until it is opened again");
        }
    }

    pub fn check(&self) -> Result<(), StoreError> {
        match &*self.failed.borrow() {
            None => Ok(()),
            Some(reason) => Err(StoreError::Unavailable(format!("the store failed: {reason}"))),
        }
    }

    /// Returns when the store has failed, with the reason.
    pub async fn failed(&self) -> String {
        let mut receiver = self.failed.subscribe();
        match receiver.wait_for(Option::is_some).await {
            Ok(reason) => reason.clone().unwrap_or_default(),
            // The sender lives in `self`, so it cannot be gone while we wait.
            Err(_) => "closed".to_owned(),
        }
    }
}
