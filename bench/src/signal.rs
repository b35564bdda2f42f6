//! A bell between two tasks of one thread.
//!
//! In: [`Signal::ring`], any number of times. Out: one wait that ends. Always: a ring while nobody waits is kept, so
//! the next wait ends at once; one waiter at a time.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::task::{Poll, Waker};

#[derive(Default)]
pub struct Signal {
    rung: Cell<bool>,
    waiter: RefCell<Option<Waker>>,
}

impl Signal {
    pub fn ring(&self) {
        self.rung.set(true);
        if let Some(waiter) = self.waiter.borrow_mut().take() {
            waiter.wake();
        }
    }

    pub async fn wait(&self) {
        poll_fn(|context| {
            if self.rung.replace(false) {
                return Poll::Ready(());
            }
            *self.waiter.borrow_mut() = Some(context.waker().clone());
            Poll::Pending
        })
        .await;
    }
}
