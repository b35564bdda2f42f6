//! Entries of a large conversation: one record for each gateway, however many members there are.
//!
//! In: the entries of one log, and the gateways that live. Out: records, and answers to the senders. Always: no row is
//! moved and no route looked up for a member that merely receives; those who write, join or leave have their rows moved as
//! in a small conversation. Every gateway with a lease gets the record: of a conversation this large nearly each has a
//! member, and one that has none drops it.

use super::outbox::{Outbox, inbox_move};
use super::plan::Run;
use super::{Moves, ROUTES_PATIENCE, Told, Worker};
use crate::frame;
use crate::metrics::add;
use crate::persist::Stored;
use im_proto::internal::LargePush;
use im_proto::{Seq, UserId};
use im_storage::ports::GatewayBoot;
use tokio::time::timeout;

impl Worker {
    /// The gateways with a lease. Like routes they are hints: without them the pushes are lost, and the gateways find that
    /// by the heads.
    pub(super) async fn gateways(&self) -> Vec<GatewayBoot> {
        match timeout(ROUTES_PATIENCE, self.shared.ports.routes.gateways()).await {
            Ok(Ok(gateways)) => gateways.into_iter().map(|gateway| gateway.boot).collect(),
            away => {
                add(&self.shared.metrics.store_errors, 1);
                tracing::warn!(?away, "no gateways: large conversations of a batch are not pushed");
                Vec::new()
            }
        }
    }

    /// A writer's move rides on the last of its entries. Those who joined or left hear of their move by their heartbeat: they
    /// sync, whatever became of the record.
    pub(super) fn tell_gateways(
        &self,
        run: &Run<'_>,
        entries: &[Stored],
        movers: &[UserId],
        moves: &Moves,
        gateways: &[GatewayBoot],
        outbox: &mut Outbox,
    ) {
        let is_changed = |user: &UserId| {
            let changes = entries.iter().filter_map(|entry| entry.change.as_ref());
            changes.into_iter().any(|change| change.joined.contains(user) || change.left.contains(user))
        };
        for (at, entry) in entries.iter().enumerate() {
            let origin = entry.answer.as_ref().map(|(origin, _)| *origin);
            outbox.large(gateways, origin, || self.large_push(run, entry));
            let is_last = !entries[at + 1..].iter().any(|later| later.sender == entry.sender);
            let mover = movers.binary_search(&entry.sender).ok().filter(|_| is_last && !is_changed(&entry.sender));
            let of_sender = mover.map(|mover| run.moves.start + mover);
            let inbox = of_sender.and_then(|of_sender| inbox_move(&moves.moved[of_sender..=of_sender]));
            if let (Some(of_sender), Some(_)) = (of_sender, inbox) {
                outbox.address(&moves.logins[of_sender], origin, inbox);
                outbox.push(origin.and_then(|origin| origin.trace), bytes::Bytes::new);
            }
            if let Some((origin, body)) = &entry.answer {
                outbox.answer(Told { origin: *origin, body: body.clone() }, inbox);
            }
        }
    }

    fn large_push(&self, run: &Run<'_>, entry: &Stored) -> LargePush {
        let ids = |users: &[UserId]| users.iter().map(String::from).collect();
        let change = entry.change.as_ref();
        LargePush {
            log_id: run.log.into(),
            seq: entry.position.head.0,
            members_seq: entry.position.members_seq.0,
            members_seq_before: change.map_or(Seq(0), |_| entry.position.members_seq_before).0,
            joined: change.map(|change| ids(&change.joined)).unwrap_or_default(),
            left: change.map(|change| ids(&change.left)).unwrap_or_default(),
            answered_connection_id: 0,
            frame: frame::entry_pushed(run.log, self.epoch, &entry.bytes),
        }
    }
}
