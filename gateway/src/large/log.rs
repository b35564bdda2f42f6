//! One large conversation as one core sees it: which of its connections are members, and how far each was told.
//!
//! In: entries for all members, changes of the members, what the logic says of them. Out: the connections that an entry goes
//! to. Always: an entry goes to those whose time in the conversation it lies in, from the joining to the leaving, both
//! included; none is answered for before the changes up to its `members_seq` are known. Pure: no clock, no socket.

use super::users::Users;
use crate::connection_map::ConnectionMap;
use crate::planted::{Bug, planted};
use crate::ports::LargeMembers;
use bytes::Bytes;
use im_proto::{ConnectionId, LogId, Seq, TraceId, UserId, internal};
use std::collections::VecDeque;
use std::sync::Arc;

/// Entries that wait for the members. One more is dropped: its readers see the gap, or are hinted by the head.
const WAITING_MAX: usize = 256;

/// One entry on its way to every member; shared by the cores.
#[derive(Debug)]
pub struct Record {
    pub log: LogId,
    pub seq: Seq,
    /// The last change of the members up to and including this entry.
    pub members_seq: Seq,
    /// Of an entry that changes them: the change before it.
    pub members_seq_before: Seq,
    pub joined: Vec<UserId>,
    pub left: Vec<UserId>,
    /// It has the entry by its answer.
    pub answered: ConnectionId,
    pub frame: Bytes,
    pub trace: Option<TraceId>,
}

impl Record {
    /// `None`: an id in it is none.
    pub fn parse(push: internal::LargePush, trace: Option<TraceId>) -> Option<Self> {
        let users = |ids: &[String]| ids.iter().map(|id| UserId::parse(id).ok()).collect::<Option<Vec<_>>>();
        Some(Self {
            log: LogId::parse(&push.log_id).ok()?,
            seq: Seq(push.seq),
            members_seq: Seq(push.members_seq),
            members_seq_before: Seq(push.members_seq_before),
            joined: users(&push.joined)?,
            left: users(&push.left)?,
            answered: ConnectionId(push.answered_connection_id),
            frame: push.frame,
            trace,
        })
    }

    fn changes_members(&self) -> bool {
        self.members_seq == self.seq
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Member {
    joined: Seq,
    /// `None` while a member.
    left: Option<Seq>,
    /// The last entry that was queued to the connection, or told by a sync. A client that has it sees any gap before it.
    given: Seq,
}

#[derive(Debug, Default)]
pub struct LargeLog {
    /// `members` shows every change up to this one, of all users signed in on this core. 0: the logic was not asked yet.
    members_seq: Seq,
    /// The highest `members_seq` there was: who joined up to it was named by then.
    seen_seq: Seq,
    /// The last entry known that has had its time to come here.
    head: Seq,
    /// What the logic named last. It becomes the head with the next look, when it has had its time.
    heard: Seq,
    members: ConnectionMap<Member>,
    waiting: VecDeque<Arc<Record>>,
    /// When the logic was asked for the members and has not answered.
    asked_at_ms: Option<u64>,
}

/// What becomes of an entry that came.
#[derive(Debug, PartialEq, Eq)]
pub enum Came {
    /// It goes to these connections.
    Goes(Vec<ConnectionId>),
    /// It waits for the members. True: the logic is to be asked for them.
    Waits { ask: bool },
}

impl LargeLog {
    pub fn came(&mut self, record: &Arc<Record>, users: &Users) -> (Came, Vec<ConnectionId>) {
        if self.waiting.is_empty() && self.knows_members(record) {
            let joined = self.change(record, users);
            return (Came::Goes(self.readers(record)), joined);
        }
        if self.waiting.len() < WAITING_MAX {
            self.waiting.push_back(record.clone());
        } else {
            self.head = self.head.max(record.seq);
        }
        (Came::Waits { ask: self.asked_at_ms.is_none() }, Vec::new())
    }

    pub fn asked(&mut self, now_ms: u64) {
        self.asked_at_ms = Some(now_ms);
    }

    pub fn asked_at_ms(&self) -> Option<u64> {
        self.asked_at_ms
    }

    /// Whether somebody with this joining can be news to those who knew of every change so far.
    pub fn is_news(&self, joined: Seq) -> bool {
        joined > self.seen_seq
    }

    fn knows_up_to(&mut self, members_seq: Seq) {
        self.members_seq = members_seq;
        self.seen_seq = self.seen_seq.max(members_seq);
    }

    /// All present members, as the logic knows them. Answers the connections that are members now and were not.
    pub fn replace(&mut self, now: LargeMembers, users: &Users) -> Vec<ConnectionId> {
        self.asked_at_ms = None;
        self.knows_up_to(now.members_seq);
        let mut before = std::mem::take(&mut self.members);
        let mut new = Vec::new();
        for (user, joined) in &now.members {
            for connection in users.connections(user) {
                let given = before.remove(&connection).map(|member| member.given);
                if given.is_none() {
                    new.push(connection);
                }
                let given = given.unwrap_or_default();
                self.members.insert(connection, Member { joined: *joined, left: None, given });
            }
        }
        // Who left by an entry that waits gets it, and those before it.
        for record in &self.waiting {
            for connection in record.left.iter().flat_map(|user| users.connections(user)) {
                if let Some(member) = before.remove(&connection) {
                    self.members.insert(connection, Member { left: Some(record.seq), ..member });
                }
            }
        }
        new
    }

    /// The next entry that waited and can go. Behind the last of them nothing waits: what the logic's answer was too old
    /// for is dropped, and its readers are hinted.
    pub fn next_waiting(&mut self, users: &Users) -> Option<(Arc<Record>, Vec<ConnectionId>, Vec<ConnectionId>)> {
        let record = self.waiting.pop_front()?;
        if !self.knows_members(&record) {
            self.waiting.push_front(record);
            self.drop_waiting();
            return None;
        }
        let joined = self.change(&record, users);
        let readers = self.readers(&record);
        Some((record, readers, joined))
    }

    /// Nobody answered who the members are.
    pub fn drop_waiting(&mut self) {
        self.asked_at_ms = None;
        self.head = self.waiting.drain(..).map(|record| record.seq).fold(self.head, Seq::max);
    }

    /// A connection signed in, whose user is a member as of `members_seq`.
    pub fn signed_in(&mut self, connection: ConnectionId, joined: Seq, members_seq: Seq) {
        if members_seq < self.members_seq {
            // The member may have left since: the logic is asked before the next entry goes.
            self.members_seq = Seq(0);
        }
        self.members.entry(connection).or_insert(Member { joined, left: None, given: Seq(0) });
    }

    pub fn gone(&mut self, connection: ConnectionId) {
        self.members.remove(&connection);
    }

    pub fn given(&mut self, connection: ConnectionId, seq: Seq) {
        if let Some(member) = self.members.get_mut(&connection) {
            member.given = member.given.max(seq);
        }
    }

    /// The entry was meant for the connection and did not reach it.
    pub fn lost(&mut self, connection: ConnectionId, seq: Seq) {
        if let Some(member) = self.members.get_mut(&connection) {
            member.given = member.given.min(Seq(seq.0.saturating_sub(1)));
        }
    }

    /// What the logic says is the head. False: the answer says that the conversation is not large any more.
    pub fn heard(&mut self, seq: Seq, is_large: bool) -> bool {
        self.heard = self.heard.max(seq);
        is_large || seq < self.head
    }

    /// What was heard by the last look counts from now on. Answers the connections that are behind.
    pub fn look(&mut self) -> Vec<ConnectionId> {
        self.head = self.head.max(self.heard);
        self.members.keys().filter(|connection| self.is_behind(**connection)).copied().collect()
    }

    /// The connection was not given the head, though it may read it.
    pub fn is_behind(&self, connection: ConnectionId) -> bool {
        let behind = |member: &Member| member.left.is_none() && member.given < self.head && member.joined <= self.head;
        self.members.get(&connection).is_some_and(behind) && !planted(Bug::LargeHeadsUnhinted)
    }

    pub fn has_members(&self) -> bool {
        !self.members.is_empty()
    }

    pub fn is_idle(&self) -> bool {
        self.members.is_empty() && self.waiting.is_empty() && self.asked_at_ms.is_none()
    }

    /// The members are those of the time of the entry, or the entry itself says how they changed since.
    fn knows_members(&self, record: &Record) -> bool {
        // Before its first entry a log has no members.
        let is_next =
            self.members_seq == record.members_seq_before && (self.members_seq > Seq(0) || record.seq == Seq(1));
        self.members_seq >= record.members_seq
            || record.changes_members() && is_next
            || planted(Bug::StaleMembersExpanded)
    }

    /// Applies what the entry itself changes. Answers the connections that became members by it.
    fn change(&mut self, record: &Record, users: &Users) -> Vec<ConnectionId> {
        if !record.changes_members() || record.seq <= self.members_seq || planted(Bug::StaleMembersExpanded) {
            return Vec::new();
        }
        self.knows_up_to(record.seq);
        let joined: Vec<ConnectionId> = record.joined.iter().flat_map(|user| users.connections(user)).collect();
        for connection in &joined {
            let given = self.members.get(connection).map(|member| member.given).unwrap_or_default();
            self.members.insert(*connection, Member { joined: record.seq, left: None, given });
        }
        for connection in record.left.iter().flat_map(|user| users.connections(user)) {
            if let Some(member) = self.members.get_mut(&connection) {
                member.left = Some(record.seq);
            }
        }
        joined
    }

    /// Whom the entry goes to: they count as given it, unless it is said to be lost. Those for whom it was the last are
    /// members no more.
    fn readers(&mut self, record: &Record) -> Vec<ConnectionId> {
        self.head = self.head.max(record.seq);
        let mut readers = Vec::with_capacity(self.members.len());
        self.members.retain(|connection, member| {
            let may_read = member.joined <= record.seq && member.left.is_none_or(|left| record.seq <= left);
            let is_answered = *connection == record.answered;
            if may_read || is_answered {
                member.given = member.given.max(record.seq);
            }
            if may_read && !is_answered {
                readers.push(*connection);
            }
            member.left.is_none_or(|left| record.seq < left)
        });
        readers
    }
}
