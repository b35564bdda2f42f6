//! What gateways ask of large conversations, over gRPC: both ends, and the words between them.
//!
//! In: a gateway's question; the handlers' answers. Out: the same in the words of `services.proto`, and back. Always: an
//! answer with an id that is none counts as no answer.

use im_gateway::{LargeHead, LargeMembers, LargeMembership, LogicAnswer};
use im_proto::services;
use im_proto::{ConnectionId, LogId, Seq, UserId};
use im_rpc::LogicClient;

pub async fn members(client: &LogicClient, log: &LogId) -> Option<LargeMembers> {
    let answer = client.large_members(services::LargeMembersCall { log_id: log.into() }).await;
    answer
        .inspect_err(|error| tracing::warn!(%error, %log, "the members of a large conversation are not known"))
        .ok()
        .and_then(members_of)
}

pub async fn heads(client: &LogicClient, logs: &[LogId]) -> Option<LogicAnswer> {
    let log_ids = logs.iter().map(String::from).collect();
    let answer = client.large_heads(services::LargeHeadsCall { log_ids }).await.ok()?;
    Some(LogicAnswer::LargeHeads { heads: answer.heads.iter().map(head_of).collect::<Option<_>>()? })
}

pub async fn of_users(client: &LogicClient, changes: u64, users: Vec<(ConnectionId, UserId)>) -> Option<LogicAnswer> {
    let user_ids = users.iter().map(|(_, user)| user.into()).collect();
    let answer = client.large_of_users(services::LargeOfUsersCall { user_ids }).await.ok()?;
    let large = answer.users.iter().map(|of| memberships_of(&of.large));
    let users = users.into_iter().zip(large).map(|((connection, _), large)| Some((connection, large?)));
    Some(LogicAnswer::LargeOfUsers { changes, users: users.collect::<Option<_>>()? })
}

pub fn memberships_of(large: &[services::LargeMembership]) -> Option<Vec<LargeMembership>> {
    let membership = |of: &services::LargeMembership| {
        let log = LogId::parse(&of.log_id).ok()?;
        Some(LargeMembership { log, joined_seq: Seq(of.joined_seq), members_seq: Seq(of.members_seq) })
    };
    large.iter().map(membership).collect()
}

/// Up to where a sync told of large conversations.
pub fn told_of(heads: &[services::LargeHead]) -> Vec<(LogId, Seq)> {
    heads.iter().filter_map(head_of).map(|head| (head.log, head.seq)).collect()
}

fn members_of(answer: services::LargeMembersAnswer) -> Option<LargeMembers> {
    let member = |of: &services::LargeMember| Some((UserId::parse(&of.user_id).ok()?, Seq(of.joined_seq)));
    let members = answer.members.iter().map(member).collect::<Option<_>>()?;
    Some(LargeMembers { members_seq: Seq(answer.members_seq), members })
}

fn head_of(head: &services::LargeHead) -> Option<LargeHead> {
    Some(LargeHead { log: LogId::parse(&head.log_id).ok()?, seq: Seq(head.seq), is_large: head.is_large })
}

// ---------------------------------------------------------------------------------------------------- the other end

pub fn memberships(large: &[im_logic::LargeMembership]) -> Vec<services::LargeMembership> {
    let membership = |of: &im_logic::LargeMembership| services::LargeMembership {
        log_id: (&of.log).into(),
        joined_seq: of.joined_seq.0,
        members_seq: of.members_seq.0,
    };
    large.iter().map(membership).collect()
}

pub fn told(heads: &[(LogId, Seq)]) -> Vec<services::LargeHead> {
    let head = |(log, seq): &(LogId, Seq)| services::LargeHead { log_id: log.into(), seq: seq.0, is_large: true };
    heads.iter().map(head).collect()
}

pub fn members_answer(known: im_logic::LargeMembers) -> services::LargeMembersAnswer {
    let member =
        |(user, joined): (UserId, Seq)| services::LargeMember { user_id: (&user).into(), joined_seq: joined.0 };
    services::LargeMembersAnswer {
        members_seq: known.members_seq.0,
        members: known.members.into_iter().map(member).collect(),
    }
}

pub fn heads_answer(heads: Vec<im_logic::LargeHead>) -> services::LargeHeadsAnswer {
    let head = |head: im_logic::LargeHead| services::LargeHead {
        log_id: (&head.log).into(),
        seq: head.seq.0,
        is_large: head.is_large,
    };
    services::LargeHeadsAnswer { heads: heads.into_iter().map(head).collect() }
}
