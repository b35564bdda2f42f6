//! What each fresh device must see: whole, consistent in itself, and equal to what the others see.
//!
//! In: read-backs. Out: breaches. Always: a member reads from the entry of its joining to the head, a former member to the
//! entry of its leaving.

use super::Breach;
use crate::harness::read_back::{ReadBack, ReadConversation};
use im_proto::client::Entry;
use im_proto::client::entry::Content;
use std::collections::BTreeMap;

pub fn check(read_backs: &[ReadBack], breaches: &mut Vec<Breach>) {
    for read in read_backs {
        for conversation in &read.conversations {
            whole(read, conversation, breaches);
            bounds(read, conversation, breaches);
            counts(read, conversation, breaches);
        }
    }
    same_heads(read_backs, breaches);
    same_for_one_user(read_backs, breaches);
}

fn name(read: &ReadBack, conversation: &ReadConversation) -> String {
    format!("{}/{} {}", read.user, read.device, conversation.state.conversation_id)
}

/// Every seq from floor to head is there.
fn whole(read: &ReadBack, conversation: &ReadConversation, breaches: &mut Vec<Breach>) {
    let state = &conversation.state;
    let seqs: Vec<u64> = conversation.entries.iter().map(|entry| entry.seq).collect();
    let wanted: Vec<u64> = (state.floor_seq.max(1)..=state.head_seq).collect();
    if seqs != wanted {
        let text = format!("{}: {} to {} read as {seqs:?}", name(read, conversation), state.floor_seq, state.head_seq);
        breaches.push(Breach::Hole(text));
    }
}

/// The floor is the joining, the head of a former member its leaving.
fn bounds(read: &ReadBack, conversation: &ReadConversation, breaches: &mut Vec<Breach>) {
    let state = &conversation.state;
    if !state.conversation_id.starts_with('g') {
        return;
    }
    let joins = |entry: &Entry| match &entry.content {
        Some(Content::GroupCreated(created)) => created.user_ids.contains(&read.user),
        Some(Content::MembersAdded(added)) => added.user_ids.contains(&read.user),
        _ => false,
    };
    let leaves = |entry: &Entry| match &entry.content {
        Some(Content::MemberRemoved(removed)) => removed.user_id == read.user,
        Some(Content::MemberLeft(_)) => entry.sender_user_id == read.user,
        _ => false,
    };
    if !conversation.entries.first().is_some_and(joins) {
        breaches.push(Breach::Diverged(format!("{}: the floor is no joining", name(read, conversation))));
    }
    if conversation.entries.last().is_some_and(leaves) == state.member {
        breaches.push(Breach::Diverged(format!("{}: member is {}", name(read, conversation), state.member)));
    }
}

/// Ordinals count messages; the read ordinal is that of the read seq, so unread is what lies behind it.
fn counts(read: &ReadBack, conversation: &ReadConversation, breaches: &mut Vec<Breach>) {
    let state = &conversation.state;
    let mut ordinal = state.floor_ordinal;
    let mut read_ordinal = 0;
    for entry in &conversation.entries {
        ordinal += u64::from(matches!(entry.content, Some(Content::Message(_) | Content::Tombstone(_))));
        if entry.ordinal != ordinal {
            let text = format!("{} {}: ordinal {}, not {ordinal}", name(read, conversation), entry.seq, entry.ordinal);
            breaches.push(Breach::Count(text));
        }
        if entry.seq == state.read_seq {
            read_ordinal = ordinal;
        }
    }
    if state.head_ordinal != ordinal {
        let text = format!("{}: head ordinal {}, not {ordinal}", name(read, conversation), state.head_ordinal);
        breaches.push(Breach::Count(text));
    }
    // A cursor from before a rejoining counts nothing: the floor's ordinal is higher.
    if state.read_seq >= state.floor_seq && state.read_ordinal != read_ordinal {
        let text = format!("{}: read ordinal {}, not {read_ordinal}", name(read, conversation), state.read_ordinal);
        breaches.push(Breach::Count(text));
    }
}

/// All present members know the same head.
fn same_heads(read_backs: &[ReadBack], breaches: &mut Vec<Breach>) {
    let mut heads: BTreeMap<&str, u64> = BTreeMap::new();
    for read in read_backs {
        for conversation in read.conversations.iter().filter(|conversation| conversation.state.member) {
            let state = &conversation.state;
            let head = *heads.entry(&state.conversation_id).or_insert(state.head_seq);
            if head != state.head_seq {
                let text = format!("{}: head {}, not {head}", name(read, conversation), state.head_seq);
                breaches.push(Breach::Diverged(text));
            }
        }
    }
}

/// Two devices of a user see the same, cursors included; a direct peer's cursor is what the peer itself sees.
fn same_for_one_user(read_backs: &[ReadBack], breaches: &mut Vec<Breach>) {
    let mut by_user: BTreeMap<&str, &ReadBack> = BTreeMap::new();
    for read in read_backs {
        let first = *by_user.entry(&read.user).or_insert(read);
        let states = |read: &ReadBack| -> Vec<_> { read.conversations.iter().map(|c| c.state.clone()).collect() };
        if states(first) != states(read) {
            breaches.push(Breach::Diverged(format!("{}: {} and {} differ", read.user, first.device, read.device)));
        }
    }
    for read in read_backs {
        for conversation in read.conversations.iter().filter(|c| !c.state.peer_user_id.is_empty()) {
            let state = &conversation.state;
            let Some(peer) = by_user.get(state.peer_user_id.as_str()) else { continue };
            let own = peer.conversations.iter().find(|c| c.state.conversation_id == state.conversation_id);
            if own.is_some_and(|own| own.state.read_seq != state.peer_read_seq) {
                breaches.push(Breach::Cursor(format!("{}: the peer's cursor differs", name(read, conversation))));
            }
        }
    }
}
