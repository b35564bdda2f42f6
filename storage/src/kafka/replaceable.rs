//! The producer behind a queue, replaced when it has failed for good, or loses whatever it is given.
//!
//! In: messages. Out: whether librdkafka took them. Always: a send waits for a lock at most; while a producer that failed is
//! replaced there is no room; what it had in flight is given up, and its senders send again; a core never waits for its end.

use super::KafkaError;
use super::producer::{Deliveries, Message, ProducerCounts};
use crate::planted::planted;
use rdkafka::ClientConfig;
use rdkafka::error::{KafkaError as ClientError, RDKafkaErrorCode};
use rdkafka::producer::{Producer as _, ThreadedProducer};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// An idempotent producer that gave messages up waits until it is clear what became of those on their way, and sends nothing
/// meanwhile. One that was cut off under load was seen to wait for two minutes, though the broker was back after two seconds.
const LOSING_MAX: Duration = Duration::from_secs(3);
/// Between attempts to make a producer.
const MAKE_PAUSE: Duration = Duration::from_secs(1);
/// Between two looks whether somebody still sends by the one that was replaced.
const RELEASE_POLL: Duration = Duration::from_millis(10);

pub(super) type Native = ThreadedProducer<Deliveries>;

pub(super) struct ReplaceableProducer(Arc<State>);

struct State {
    config: ClientConfig,
    counts: Arc<ProducerCounts>,
    current: Mutex<Arc<Native>>,
    is_being_replaced: AtomicBool,
}

impl ReplaceableProducer {
    pub fn new(config: ClientConfig, counts: Arc<ProducerCounts>) -> Result<Self, KafkaError> {
        let first = make(&config, &counts)?;
        let current = Mutex::new(Arc::new(first));
        Ok(Self(Arc::new(State { config, counts, current, is_being_replaced: AtomicBool::new(false) })))
    }

    /// For the sends of one call. Whoever keeps it longer keeps a producer that was replaced from ending.
    pub fn current(&self) -> Arc<Native> {
        self.0.current.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// False: there is no room now.
    pub fn send(&self, by: &Arc<Native>, message: Message<'_>) -> Result<bool, ClientError> {
        if by.client().context().has_lost_everything_for(LOSING_MAX) && !planted("stuck_producer_stays") {
            self.replace(by);
            return Ok(false);
        }
        // Before it is sent: the brokers' word may come first.
        self.0.counts.in_flight.fetch_add(1, Ordering::Relaxed);
        let sent = by.send(message);
        if sent.is_err() {
            self.0.counts.in_flight.fetch_sub(1, Ordering::Relaxed);
        }
        match sent {
            Ok(()) => Ok(true),
            Err((ClientError::MessageProduction(RDKafkaErrorCode::QueueFull), _)) => Ok(false),
            Err((error, _)) if by.client().fatal_error().is_none() || planted("failed_producer_stays") => Err(error),
            Err(_) => {
                self.replace(by);
                Ok(false)
            }
        }
    }

    /// Begins it, once.
    fn replace(&self, failed: &Arc<Native>) {
        if self.0.is_being_replaced.swap(true, Ordering::AcqRel) {
            return;
        }
        let replacing = Replacing(self.0.clone());
        // It may have been replaced since the caller took it.
        if !Arc::ptr_eq(&self.current(), failed) {
            return;
        }
        let failed = failed.clone();
        let thread = std::thread::Builder::new().name("im-kafka-new".to_owned());
        if let Err(error) = thread.spawn(move || replacing.run(failed)) {
            tracing::error!(%error, "a producer that failed for good cannot be replaced yet");
        }
    }
}

fn make(config: &ClientConfig, counts: &Arc<ProducerCounts>) -> Result<Native, ClientError> {
    config.create_with_context(Deliveries::new(counts.clone()))
}

/// While it is there nobody else begins; once it is gone, for whatever reason, somebody may.
struct Replacing(Arc<State>);

impl Drop for Replacing {
    fn drop(&mut self) {
        self.0.is_being_replaced.store(false, Ordering::Release);
    }
}

impl Replacing {
    fn run(self, failed: Arc<Native>) {
        match failed.client().fatal_error() {
            Some((_, reason)) => tracing::error!(reason, "the kafka producer failed for good; another takes its place"),
            None => tracing::warn!("kafka takes nothing of this producer any more; another takes its place"),
        }
        let state = &self.0;
        let fresh = loop {
            match make(&state.config, &state.counts) {
                Ok(fresh) => break Arc::new(fresh),
                Err(error) => tracing::error!(%error, "no kafka producer can be made; trying again"),
            }
            std::thread::sleep(MAKE_PAUSE);
        };
        *state.current.lock().unwrap_or_else(PoisonError::into_inner) = fresh;
        state.counts.replaced.fetch_add(1, Ordering::Relaxed);
        drop(self);
        // Whoever drops the last one waits for its end, so that must not be a core.
        while Arc::strong_count(&failed) > 1 {
            std::thread::sleep(RELEASE_POLL);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    const PATIENCE: Duration = Duration::from_secs(30);

    #[test]
    fn a_producer_that_loses_whatever_it_is_given_is_replaced() {
        let mut config = ClientConfig::new();
        // Nobody listens there.
        config.set("bootstrap.servers", "127.0.0.1:1").set("message.timeout.ms", "100");
        let counts = Arc::new(ProducerCounts::default());
        let producer = ReplaceableProducer::new(config, counts.clone()).unwrap();
        let begun = Instant::now();
        while counts.replaced.load(Ordering::Relaxed) == 0 {
            assert!(begun.elapsed() < PATIENCE, "it is used on");
            let message = Message::with_opaque_to("topic", Box::default()).key(&b"key"[..]).payload(&b"value"[..]);
            producer.send(&producer.current(), message).unwrap();
            std::thread::sleep(RELEASE_POLL);
        }
        assert!(counts.lost.load(Ordering::Relaxed) > 0 && begun.elapsed() >= LOSING_MAX);
    }
}
