//! One consumer after another in the group, for one worker.
//!
//! In: a configuration; the word that a consumer stands still. Out: the consumer that is polled. Always: one at a time is heard;
//! when one is replaced, everything it owned is told as lost before its heir gains anything.

use super::KafkaError;
use super::consumer::{Context, Shared, poll};
use super::standstill::Standstill;
use crate::planted::planted;
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
#[cfg(feature = "conformance")]
use std::sync::PoisonError;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Between attempts to join anew.
const JOIN_PAUSE: Duration = Duration::from_secs(1);

/// How to join the group.
pub(super) struct Joining {
    pub config: ClientConfig,
    pub session_timeout: Duration,
    pub shared: Arc<Shared>,
}

impl Joining {
    pub fn join(&self) -> Result<Arc<BaseConsumer<Context>>, KafkaError> {
        let context = Context {
            shared: self.shared.clone(),
            standstill: Mutex::new(Standstill::new(self.session_timeout)),
            is_replaced: AtomicBool::new(false),
        };
        let consumer: Arc<BaseConsumer<Context>> = Arc::new(self.config.create_with_context(context)?);
        consumer.subscribe(&[&self.shared.topic])?;
        #[cfg(feature = "conformance")]
        {
            *self.shared.current.lock().unwrap_or_else(PoisonError::into_inner) = Arc::downgrade(&consumer);
        }
        Ok(consumer)
    }

    /// Ends with the consumer.
    pub fn run(&self, mut consumer: Arc<BaseConsumer<Context>>) {
        loop {
            poll(&consumer, &self.shared);
            if self.shared.inbound().is_closed {
                return;
            }
            self.give_up(consumer);
            consumer = loop {
                match self.join() {
                    Ok(consumer) => break consumer,
                    Err(error) => tracing::warn!(%error, "kafka: no consumer can be made"),
                }
                std::thread::sleep(JOIN_PAUSE);
                if self.shared.inbound().is_closed {
                    return;
                }
            };
        }
    }

    /// It leaves the group when it can, and for that it must be polled on.
    fn give_up(&self, consumer: Arc<BaseConsumer<Context>>) {
        consumer.context().is_replaced.store(true, Ordering::Release);
        if !planted("replaced_consumer_tells_no_loss") {
            self.shared.inbound().lose_all();
            self.shared.changed.notify_one();
        }
        let leaving = std::thread::Builder::new().name("im-kafka-leaving".to_owned());
        if let Err(error) = leaving.spawn(move || drop(consumer)) {
            tracing::warn!(%error, "no thread for a kafka consumer that leaves");
        }
    }
}
