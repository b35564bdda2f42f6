//! What gateways ask of large conversations, answered by the request handlers of this process.
//!
//! In: the gateway's question. Out: its answer, in the gateway's words. Always: a store that is away leaves a question for
//! members answered with none, for entries wait for it; the others are asked again by themselves.

use im_gateway::{LargeHead, LargeMembers, LargeMembership, LogicAnswer};
use im_logic::Requests;
use im_proto::{ConnectionId, LogId, UserId};

pub async fn members(requests: &Requests, log: LogId) -> LogicAnswer {
    let members = requests.large_members(&log).await.inspect_err(|error| {
        tracing::warn!(%error, %log, "the members of a large conversation are not known");
    });
    let members = members.ok().map(|known| LargeMembers { members_seq: known.members_seq, members: known.members });
    LogicAnswer::LargeMembers { log, members }
}

pub async fn heads(requests: &Requests, logs: &[LogId]) -> Option<LogicAnswer> {
    let heads = requests.large_heads(logs).await.ok()?;
    let head = |head: im_logic::LargeHead| LargeHead { log: head.log, seq: head.seq, is_large: head.is_large };
    Some(LogicAnswer::LargeHeads { heads: heads.into_iter().map(head).collect() })
}

pub async fn of_users(requests: &Requests, changes: u64, users: Vec<(ConnectionId, UserId)>) -> Option<LogicAnswer> {
    let (connections, users): (Vec<ConnectionId>, Vec<UserId>) = users.into_iter().unzip();
    let large = requests.large_of_users(&users).await.ok()?;
    let users = connections.into_iter().zip(large.into_iter().map(memberships)).collect();
    Some(LogicAnswer::LargeOfUsers { changes, users })
}

pub fn memberships(large: Vec<im_logic::LargeMembership>) -> Vec<LargeMembership> {
    let membership = |of: im_logic::LargeMembership| LargeMembership {
        log: of.log,
        joined_seq: of.joined_seq,
        members_seq: of.members_seq,
    };
    large.into_iter().map(membership).collect()
}
