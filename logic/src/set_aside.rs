//! Records that no attempt can work off.
//!
//! In: what was found undecodable, or too large for the store. Out: the queue has put it where an operator finds it, its sender
//! is told so for good, one line says which it was. Always: nothing of the partition goes on before the queue has it; a store
//! that is away brings nobody here.

use crate::admit::Dead;
use crate::metrics::add;
use crate::planted::planted;
use crate::refusal::Refusal;
use crate::worker::{Stopped, Told, Worker};
use im_proto::client::server_frame::Body;
use im_storage::ports::{DeadLetter, DeadReason};
use tracing::field::display;

impl Worker {
    pub(crate) async fn set_aside(&self, dead: Vec<Dead>) -> Result<(), Stopped> {
        if dead.is_empty() || planted("poison_skipped") {
            return Ok(());
        }
        let letters: Vec<DeadLetter> = dead.iter().map(|dead| dead.letter.clone()).collect();
        let mut patience = self.patience("set dead letters aside");
        while let Err(error) = self.shared.ports.queue.set_aside(letters.clone()).await {
            patience.wait(&error).await?;
        }
        for dead in &dead {
            self.note(dead);
        }
        self.answer_all(dead.iter().filter_map(last_word).collect());
        Ok(())
    }

    /// Without its content, which may be a message.
    fn note(&self, dead: &Dead) {
        let DeadLetter { partition, queued, reason } = &dead.letter;
        add(self.shared.metrics.dead_letters(*reason), 1);
        let (partition, offset, log) = (partition.0, queued.offset.0, &queued.record.log);
        let trace = dead.origin.and_then(|origin| origin.trace).or(queued.record.trace).map(display);
        let connection = dead.origin.map(|origin| origin.connection.0);
        let request = dead.origin.map(|origin| origin.request_id);
        let (bytes, reason) = (queued.record.upstream.len(), reason.name());
        tracing::warn!(trace, partition, offset, %log, connection, request, bytes, reason, "a record is set aside");
    }
}

/// Whose command was too large has been told so already, when it was decided.
fn last_word(dead: &Dead) -> Option<Told> {
    let is_untold = dead.letter.reason == DeadReason::Undecodable;
    let origin = dead.origin.filter(|_| is_untold)?;
    Some(Told { origin, body: Body::Error(Refusal::UNREADABLE.to_wire()) })
}
