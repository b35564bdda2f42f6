//! Who is in a conversation, read off its entries.
//!
//! In: an entry. Out: the change it makes to the directory, and the members behind it. Always: the change follows from the
//! entry alone, so it is the same when it is decided, when another worker meets it, and when it is repeated after a crash.

use crate::entry::damaged;
use im_proto::client::{self, entry::Content};
use im_proto::{LogId, LogKind, Ordinal, Seq, UserId};
use im_storage::ports::{Created, MembershipChange, StoreError};

/// The members at one place of a log.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Members {
    /// `None` for an empty log and for users' own logs.
    pub creator: Option<UserId>,
    /// Rising, without repetition.
    pub present: Vec<UserId>,
}

impl Members {
    pub fn contains(&self, user: &UserId) -> bool {
        self.present.binary_search(user).is_ok()
    }

    /// In a direct conversation: the one that `user` talks to, perhaps itself.
    pub fn peer_of<'a>(&'a self, user: &'a UserId) -> &'a UserId {
        self.present.iter().find(|member| *member != user).unwrap_or(user)
    }

    /// The members behind `change`.
    pub fn with(&self, change: &MembershipChange) -> Self {
        let mut next = self.clone();
        if let Some(created) = &change.created {
            next.creator = Some(created.creator.clone());
        }
        next.present.extend(change.joined.iter().cloned());
        next.present.sort_unstable();
        next.present.dedup();
        next.present.retain(|member| !change.left.contains(member));
        next
    }
}

/// What `entry` changes in the directory; `None` if nothing. `after`: the last entry before it that changed something.
pub(crate) fn change_of(
    log: &LogId,
    entry: &client::Entry,
    after: Seq,
) -> Result<Option<MembershipChange>, StoreError> {
    let mut change = MembershipChange {
        log: log.clone(),
        seq: Seq(entry.seq),
        after,
        created: None,
        joined: Vec::new(),
        joined_ordinal: Ordinal(entry.ordinal),
        left: Vec::new(),
    };
    let sender = || parse(log, entry, &entry.sender_user_id);
    match &entry.content {
        Some(Content::Message(message)) if entry.seq == 1 && log.kind() == Some(LogKind::Direct) => {
            let (creator, peer) = (sender()?, parse(log, entry, &message.to_user_id)?);
            change.joined = vec![creator.clone(), peer.clone()];
            change.created = Some(Created { name: String::new(), creator, peer: Some(peer) });
            change.joined.sort_unstable();
            change.joined.dedup();
            // The message itself is unread for the receiver: what counts begins before it.
            change.joined_ordinal = Ordinal(entry.ordinal - 1);
        }
        Some(Content::GroupCreated(created)) => {
            change.created = Some(Created { name: created.name.clone(), creator: sender()?, peer: None });
            change.joined = parse_all(log, entry, &created.user_ids)?;
        }
        Some(Content::MembersAdded(added)) if !added.user_ids.is_empty() => {
            change.joined = parse_all(log, entry, &added.user_ids)?;
        }
        Some(Content::MemberRemoved(removed)) => change.left = vec![parse(log, entry, &removed.user_id)?],
        Some(Content::MemberLeft(_)) => change.left = vec![sender()?],
        // Each by name, so that a new content has to say whether it changes who is a member.
        Some(Content::Message(_) | Content::MembersAdded(_) | Content::Tombstone(_) | Content::ReadMoved(_)) | None => {
            return Ok(None);
        }
    }
    Ok(Some(change))
}

fn parse(log: &LogId, entry: &client::Entry, user: &str) -> Result<UserId, StoreError> {
    UserId::parse(user).map_err(|_| damaged(log, Seq(entry.seq), "a user id"))
}

fn parse_all(log: &LogId, entry: &client::Entry, users: &[String]) -> Result<Vec<UserId>, StoreError> {
    users.iter().map(|user| parse(log, entry, user)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(text: &str) -> UserId {
        UserId::parse(text).unwrap()
    }

    fn entry(seq: u64, sender: &str, content: Content) -> client::Entry {
        client::Entry { seq, ordinal: 1, sender_user_id: sender.into(), content: Some(content), ..Default::default() }
    }

    #[test]
    fn the_first_message_of_a_direct_log_makes_its_pair() {
        let message =
            |to: &str| Content::Message(client::Message { body: Default::default(), to_user_id: to.to_owned() });
        let log = LogId::direct(&user("b"), &user("a"));
        let change = change_of(&log, &entry(1, "b", message("a")), Seq(0)).unwrap().unwrap();
        let created = Created { name: String::new(), creator: user("b"), peer: Some(user("a")) };
        assert_eq!(change.created, Some(created));
        assert_eq!((change.joined.clone(), change.joined_ordinal), (vec![user("a"), user("b")], Ordinal(0)));
        let members = Members::default().with(&change);
        assert_eq!(members.peer_of(&user("a")), &user("b"));
        assert!(change_of(&log, &entry(2, "b", message("a")), Seq(1)).unwrap().is_none());

        let own = LogId::direct(&user("a"), &user("a"));
        let change = change_of(&own, &entry(1, "a", message("a")), Seq(0)).unwrap().unwrap();
        let members = Members::default().with(&change);
        assert_eq!((members.present.len(), members.peer_of(&user("a"))), (1, &user("a")));
    }

    #[test]
    fn members_stay_sorted_through_every_change() {
        let log = LogId::parse("gxxxxxxxxxxxxxxxxxxxxxx").unwrap();
        let ids = |ids: &[&str]| ids.iter().map(|id| (*id).to_owned()).collect::<Vec<_>>();
        let steps = [
            entry(1, "m", Content::GroupCreated(client::GroupCreated { name: "n".into(), user_ids: ids(&["z", "m"]) })),
            entry(2, "m", Content::MembersAdded(client::MembersAdded { user_ids: ids(&["b", "a"]) })),
            entry(3, "m", Content::MemberRemoved(client::MemberRemoved { user_id: "z".into() })),
            entry(4, "a", Content::MemberLeft(client::MemberLeft {})),
        ];
        let members = steps.iter().fold(Members::default(), |members, step| {
            members.with(&change_of(&log, step, Seq(step.seq - 1)).unwrap().unwrap())
        });
        assert_eq!(members, Members { creator: Some(user("m")), present: vec![user("b"), user("m")] });
        let nobody_new = entry(5, "m", Content::MembersAdded(client::MembersAdded { user_ids: vec![] }));
        assert!(change_of(&log, &nobody_new, Seq(4)).unwrap().is_none());
    }
}
