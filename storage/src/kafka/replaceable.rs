//! The producer behind a queue, replaced when it has failed for good.
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
        match by.send(message) {
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
    config.create_with_context(Deliveries(counts.clone()))
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
        let reason = failed.client().fatal_error().map(|(_, reason)| reason).unwrap_or_default();
        tracing::error!(
            reason,
            "the kafka producer failed for good; another takes its place, without what was in flight"
        );
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
