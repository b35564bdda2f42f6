//! Equal questions of many, read once.
//!
//! In: a question, and how to read its answer. Out: an answer whose reading began after the question was asked. Always: of
//! one question one read is under way, and one waits that all who ask meanwhile share; as many questions are remembered as
//! are being asked. After a push to a large conversation was lost, a thousand devices want the same entries in one moment.

use crate::planted::planted;
use im_storage::ports::StoreError;
use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::OnceCell;

type Shared<A> = Arc<OnceCell<Result<A, StoreError>>>;

pub(super) struct JoinedReads<Q, A> {
    lines: Mutex<HashMap<Q, Line<A>>>,
}

/// Those who ask one question.
struct Line<A> {
    /// Whoever holds it reads.
    turn: Arc<tokio::sync::Mutex<()>>,
    /// The read that has not begun.
    next: Option<Shared<A>>,
    askers: usize,
}

impl<Q: Clone + Eq + Hash, A: Clone> JoinedReads<Q, A> {
    pub fn new() -> Self {
        Self { lines: Mutex::new(HashMap::new()) }
    }

    pub async fn ask<R>(&self, question: Q, read: impl FnOnce() -> R) -> Result<A, StoreError>
    where
        R: Future<Output = Result<A, StoreError>>,
    {
        let (turn, answer) = self.join(&question);
        let asker = Asker { reads: self, question };
        let read = async || {
            let _turn = turn.lock().await;
            asker.begins();
            read().await
        };
        answer.get_or_init(read).await.clone()
    }

    fn join(&self, question: &Q) -> (Arc<tokio::sync::Mutex<()>>, Shared<A>) {
        let mut lines = self.lines();
        let line =
            lines.entry(question.clone()).or_insert_with(|| Line { turn: Arc::default(), next: None, askers: 0 });
        line.askers += 1;
        (Arc::clone(&line.turn), Arc::clone(line.next.get_or_insert_default()))
    }

    fn lines(&self) -> MutexGuard<'_, HashMap<Q, Line<A>>> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Asker<'a, Q: Clone + Eq + Hash, A: Clone> {
    reads: &'a JoinedReads<Q, A>,
    question: Q,
}

impl<Q: Clone + Eq + Hash, A: Clone> Asker<'_, Q, A> {
    /// Who asks from now on shares the read behind this one.
    fn begins(&self) {
        if let Some(line) = self.reads.lines().get_mut(&self.question)
            && !planted("older_answers_shared")
        {
            line.next = None;
        }
    }
}

impl<Q: Clone + Eq + Hash, A: Clone> Drop for Asker<'_, Q, A> {
    fn drop(&mut self) {
        let mut lines = self.reads.lines();
        if let Some(line) = lines.get_mut(&self.question) {
            line.askers -= 1;
            if line.askers == 0 {
                lines.remove(&self.question);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt as _;
    use futures_util::future::join_all;
    use std::pin::pin;
    use std::sync::atomic::{AtomicU64, Ordering};
    use tokio::sync::Semaphore;

    /// What is there rises; a read sees what was there when it began, and ends when it is let.
    struct Store {
        present: AtomicU64,
        begun: AtomicU64,
        gate: Semaphore,
    }

    impl Store {
        fn new() -> Self {
            Self { present: AtomicU64::new(0), begun: AtomicU64::new(0), gate: Semaphore::new(0) }
        }

        async fn read(&self) -> Result<u64, StoreError> {
            self.begun.fetch_add(1, Ordering::SeqCst);
            let seen = self.present.load(Ordering::SeqCst);
            self.gate.acquire().await.unwrap().forget();
            Ok(seen)
        }
    }

    #[tokio::test]
    async fn who_asks_while_a_read_is_under_way_shares_the_next_one_and_is_told_nothing_older_than_the_question() {
        let (store, reads) = (Store::new(), JoinedReads::new());
        let ask = || reads.ask("q", || store.read());
        let mut first = pin!(ask());
        assert!((&mut first).now_or_never().is_none());
        store.present.store(1, Ordering::SeqCst);
        let mut later = pin!(join_all((0..100).map(|_| ask())));
        assert!((&mut later).now_or_never().is_none());
        store.gate.add_permits(2);
        assert_eq!(first.await.unwrap(), 0);
        assert!(later.await.into_iter().all(|told| told.unwrap() == 1), "older than the question");
        assert_eq!(store.begun.load(Ordering::SeqCst), 2, "a hundred questions, one read");
        assert!(reads.lines().is_empty());
    }

    #[tokio::test]
    async fn who_gives_up_keeps_nobody_waiting() {
        let (store, reads) = (Store::new(), JoinedReads::new());
        let mut reader = Box::pin(reads.ask("q", || store.read()));
        assert!((&mut reader).now_or_never().is_none());
        let mut next = Box::pin(reads.ask("q", || store.read()));
        let mut behind = pin!(reads.ask("q", || store.read()));
        assert!((&mut next).now_or_never().is_none() && (&mut behind).now_or_never().is_none());
        drop(reader);
        drop(next);
        store.gate.add_permits(1);
        assert_eq!(behind.await.unwrap(), 0);
        assert!(reads.lines().is_empty());
    }

    #[tokio::test]
    async fn other_questions_wait_for_nothing() {
        let (store, reads) = (Store::new(), JoinedReads::new());
        let mut slow = pin!(reads.ask("slow", || store.read()));
        assert!((&mut slow).now_or_never().is_none());
        assert_eq!(reads.ask("other", async || Ok(7)).await.unwrap(), 7);
    }
}
