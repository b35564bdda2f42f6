//! What a round asks the store about its commands, asked side by side.
//!
//! In: the commands that are still to be decided. Out: for those that may be stored, whether they are. Always: nothing is asked
//! before the first of them has to be known, so a batch of new commands asks nothing; what was not foreseen is asked by itself;
//! what another owner stores behind an answer is met as behind any look-up, by the taken key or a later batch. One after the other,
//! the look-ups of a batch that comes again would take longer than its senders wait: they send once more, and the batches behind
//! it come again too.

use super::round::{Next, Round, key, may_have_come_before};
use crate::decide::{Decision, TurnedAway};
use crate::log_state::Lane;
use crate::memory::CommandKey;
use crate::planted::planted;
use crate::prefetch::LOADS_AT_ONCE_MAX;
use crate::worker::Worker;
use futures_util::StreamExt as _;
use futures_util::stream;
use im_storage::ports::{EntryRow, StoreError};
use std::collections::{HashMap, HashSet};

/// What the store holds of each command that was asked for; each answer is used once.
pub(super) type LookedUp = HashMap<CommandKey, Option<EntryRow>>;

impl Worker {
    pub(super) async fn look_ahead(
        &self,
        lanes: &[Lane],
        next: Next<'_>,
        round: &Round,
    ) -> Result<LookedUp, StoreError> {
        if planted("looked_up_one_by_one") {
            return Ok(LookedUp::new());
        }
        let looks = self.foreseen(lanes, next, round.turned_away.clone()).into_iter().map(|key| {
            let log = self.shared.ports.log.clone();
            async move {
                let found = log.find(&key.log, &key.sender, &key.client_id).await;
                (key, found)
            }
        });
        let mut found = stream::iter(looks.collect::<Vec<_>>()).buffer_unordered(LOADS_AT_ONCE_MAX);
        let mut looked_up = LookedUp::new();
        while let Some((key, outcome)) = found.next().await {
            match outcome {
                Ok(row) => drop(looked_up.insert(key, row)),
                // It is met again where the command is decided, and its log given up.
                Err(StoreError::Damaged(_)) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(looked_up)
    }

    /// What would be asked if every look-up found nothing. Each command is decided on the present tips, so this is a guess where
    /// one before it changes the members.
    fn foreseen(&self, lanes: &[Lane], next: Next<'_>, mut turned_away: TurnedAway) -> HashSet<CommandKey> {
        let (mut wanted, mut before) = (HashSet::new(), HashSet::new());
        for work in next.rest {
            let lane = &lanes[work.lane];
            if lane.damaged {
                continue;
            }
            let is_doubtful = next.careful || may_have_come_before(&lane.state.tip, work, next.careful);
            let own = match self.decide_on(lane, work, next.now_ms, &turned_away) {
                Decision::Append(append) => {
                    let own = key(lane, work, &append.client_id);
                    if is_doubtful {
                        wanted.insert(own.clone());
                    }
                    own
                }
                Decision::RefuseUnlessStored { client_id, refusal } => {
                    let own = key(lane, work, &client_id);
                    wanted.insert(own.clone());
                    turned_away.insert(own.clone(), refusal.class());
                    own
                }
                Decision::Await { client_id, after } => {
                    let (own, after) = (key(lane, work, &client_id), key(lane, work, &after));
                    // One that comes before it in the batch is known by then.
                    if !before.contains(&after) {
                        wanted.insert(after);
                    }
                    if is_doubtful {
                        wanted.insert(own.clone());
                    }
                    own
                }
                Decision::Repeat(_) | Decision::Answer(_) | Decision::Refuse(_) => continue,
            };
            before.insert(own);
        }
        wanted
    }
}
