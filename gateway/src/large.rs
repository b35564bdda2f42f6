//! Entries of large conversations: one record for the whole core, which knows its members.
//!
//! In: records off the lane, sign-ins and their ends, what syncs told, what the logic answers of members and heads. Out:
//! frames queued to the members connected here; questions; hints. Always: an entry is held back until the members of its
//! time are known; a look three times in a heartbeat interval finds what was lost on the way, in a few questions for all
//! connections together; who may have been named by a change while the logic answered is asked about again; what cannot be
//! held or asked is dropped and hinted, so nothing waits for ever.

mod log;
mod recent;
mod users;

use crate::connection::Connection;
use crate::connection_map::ConnectionMap;
use crate::core::Core;
use crate::ports::{ASKED_AT_ONCE_MAX, LargeHead, LargeMembers, LargeMembership, Question};
use crate::sweep::Sweep;
use im_observe::TRACE;
use im_proto::{ConnectionId, LogId, Seq, UserId};
use log::{Came, LargeLog};
use recent::Recent;
use std::collections::{HashMap, HashSet};
use std::rc::Rc;
use std::sync::Arc;
use tracing::field::display;
use users::Users;

pub use log::Record;

/// Looks in a heartbeat interval: what one hears the next acts on, and the hints go out before the interval is over.
const LOOKS_PER_HEARTBEAT: u64 = 3;
/// Conversations without a member on this core whose members are remembered all the same, so that their next entry needs no
/// question. Beyond it all of them are forgotten.
const IDLE_LOGS_MAX: usize = 4_096;
/// Without an answer by then, what waits for the members is dropped and hinted.
const ANSWER_TIMEOUT_MS: u64 = 5_000;

/// What one core knows of large conversations.
#[derive(Default)]
pub struct Large {
    logs: HashMap<LogId, LargeLog>,
    users: Users,
    /// The large conversations of a connection; some may be over.
    of: ConnectionMap<Vec<LogId>>,
    /// Changes of members here. What the logic answers of a user to a question from before one that names it may be too old.
    recent: Recent,
    /// Connections that signed in while their user was named, or may have been: the logic is asked once more.
    unsure: ConnectionMap<UserId>,
    look_at_ms: u64,
}

impl Large {
    /// The user of a connection that signed in, and its large conversations as of when there had been `changes`.
    fn signed_in(&mut self, user: UserId, connection: ConnectionId, large: &[LargeMembership], changes: u64) {
        self.users.signed_in(user.clone(), connection);
        self.is_in(connection, user, large, changes);
    }

    /// The same of connections that were unsure.
    fn of_users(&mut self, changes: u64, users: &[(ConnectionId, Vec<LargeMembership>)]) {
        for (connection, large) in users {
            if let Some(user) = self.unsure.remove(connection) {
                self.is_in(*connection, user, large, changes);
            }
        }
    }

    fn is_in(&mut self, connection: ConnectionId, user: UserId, large: &[LargeMembership], changes: u64) {
        for LargeMembership { log, joined_seq, members_seq } in large {
            self.logs.entry(log.clone()).or_default().signed_in(connection, *joined_seq, *members_seq);
            self.joined(log, &[connection]);
        }
        if self.recent.may_name(&user, changes) {
            self.unsure.insert(connection, user);
        }
    }

    fn joined(&mut self, log: &LogId, connections: &[ConnectionId]) {
        for connection in connections {
            let logs = self.of.entry(*connection).or_default();
            if !logs.contains(log) {
                logs.push(log.clone());
            }
        }
    }

    fn gone(&mut self, user: UserId, connection: ConnectionId) {
        self.users.gone(user, connection);
        self.unsure.remove(&connection);
        for log in self.of.remove(&connection).unwrap_or_default() {
            if let Some(log) = self.logs.get_mut(&log) {
                log.gone(connection);
            }
        }
    }

    fn came(&mut self, record: &Arc<Record>) -> Came {
        let log = self.logs.entry(record.log.clone()).or_default();
        let (came, joined) = log.came(record, &self.users);
        self.changed(record, &joined);
        came
    }

    fn changed(&mut self, record: &Record, joined: &[ConnectionId]) {
        if !record.joined.is_empty() || !record.left.is_empty() {
            self.recent.changed(record.joined.iter().chain(&record.left));
        }
        self.joined(&record.log, joined);
    }

    fn members(&mut self, log: &LogId, members: Option<LargeMembers>) {
        let Some(known) = self.logs.get_mut(log) else { return };
        match members {
            Some(members) => {
                // Who left is none: a sign-in that was told otherwise has older news, and the log asks again.
                let news = members.members.iter().filter(|(_, joined)| known.is_news(*joined));
                self.recent.changed(news.map(|(user, _)| user));
                let joined = known.replace(members, &self.users);
                self.joined(log, &joined);
            }
            None => known.drop_waiting(),
        }
    }

    fn next_waiting(&mut self, log: &LogId) -> Option<(Arc<Record>, Vec<ConnectionId>)> {
        let (record, readers, joined) = self.logs.get_mut(log)?.next_waiting(&self.users)?;
        self.changed(&record, &joined);
        Some((record, readers))
    }

    fn told(&mut self, log: &LogId, seq: Seq, connection: ConnectionId) {
        if let Some(log) = self.logs.get_mut(log) {
            log.given(connection, seq);
        }
    }

    fn heads(&mut self, heads: &[LargeHead]) {
        for LargeHead { log, seq, is_large } in heads {
            let stays = self.logs.get_mut(log).is_none_or(|known| known.heard(*seq, *is_large));
            if !stays {
                self.logs.remove(log);
            }
        }
    }

    fn is_behind(&self, connection: ConnectionId) -> bool {
        let logs = self.of.get(&connection).map(Vec::as_slice).unwrap_or_default();
        logs.iter().filter_map(|log| self.logs.get(log)).any(|log| log.is_behind(connection))
    }

    /// The connections that are behind, each once, and the conversations to ask about.
    fn look(&mut self, now_ms: u64) -> (Vec<ConnectionId>, Vec<LogId>) {
        let mut behind = HashSet::new();
        let mut asked = Vec::new();
        for (log, known) in &mut self.logs {
            if known.asked_at_ms().is_some_and(|at| at + ANSWER_TIMEOUT_MS <= now_ms) {
                known.drop_waiting();
            }
            behind.extend(known.look());
            if known.has_members() {
                asked.push(log.clone());
            }
        }
        if self.logs.len() - asked.len() > IDLE_LOGS_MAX {
            self.logs.retain(|_, known| !known.is_idle());
        }
        (behind.into_iter().collect(), asked)
    }
}

impl Core {
    /// For [`large_signed_in`](Self::large_signed_in), from when the logic was asked.
    pub fn large_changes(&self) -> u64 {
        self.large.borrow().recent.count()
    }

    pub fn large_signed_in(&self, connection: &Connection, user: UserId, large: &[LargeMembership]) {
        self.large.borrow_mut().signed_in(user, connection.id, large, connection.asked_at_change.get());
    }

    pub fn large_gone(&self, connection: ConnectionId, user: UserId) {
        self.large.borrow_mut().gone(user, connection);
    }

    /// A sync told the connection of these conversations up to there.
    pub fn large_told(&self, connection: ConnectionId, heads: &[(LogId, Seq)]) {
        let mut large = self.large.borrow_mut();
        heads.iter().for_each(|(log, seq)| large.told(log, *seq, connection));
    }

    pub fn is_behind_large(&self, connection: ConnectionId) -> bool {
        self.large.borrow().is_behind(connection)
    }

    pub fn large_record(self: &Rc<Self>, record: &Arc<Record>) {
        self.metrics().large_records.add(1);
        tracing::debug!(target: TRACE, hop = "receive", trace = record.trace.map(display), log = %record.log);
        let came = self.large.borrow_mut().came(record);
        match came {
            Came::Goes(readers) => self.push_large(record, &readers),
            Came::Waits { ask: true } => self.ask_large_members(&record.log),
            Came::Waits { ask: false } => {}
        }
    }

    fn ask_large_members(&self, log: &LogId) {
        self.metrics().large_refreshes.add(1);
        let now_ms = self.now_ms();
        if let Some(known) = self.large.borrow_mut().logs.get_mut(log) {
            known.asked(now_ms);
        }
        self.ask(Question::LargeMembers { log: log.clone() });
    }

    /// The logic's answer: what waited goes now.
    pub fn large_members(self: &Rc<Self>, log: &LogId, members: Option<LargeMembers>) {
        self.large.borrow_mut().members(log, members);
        loop {
            let next = self.large.borrow_mut().next_waiting(log);
            let Some((record, readers)) = next else { return };
            self.push_large(&record, &readers);
        }
    }

    pub fn large_heads(&self, heads: &[LargeHead]) {
        self.large.borrow_mut().heads(heads);
    }

    /// Answers for connections that were unsure, to a question from when there had been `changes`.
    pub fn large_of_users(&self, changes: u64, users: &[(ConnectionId, Vec<LargeMembership>)]) {
        self.large.borrow_mut().of_users(changes, users);
    }

    fn push_large(self: &Rc<Self>, record: &Record, readers: &[ConnectionId]) {
        let mut lost = Vec::new();
        for id in readers {
            let Some(connection) = self.connection(*id) else { continue };
            let is_here = connection.session.borrow().is_signed_in() && !self.dice.loses_push();
            if !is_here || !self.push_to(&connection, &record.frame, None) {
                lost.push(*id);
            }
        }
        let (trace, targets, dropped) = (record.trace.map(display), readers.len(), lost.len());
        tracing::debug!(target: TRACE, hop = "send", trace, log = %record.log, targets, dropped);
        if let (false, Some(log)) = (lost.is_empty(), self.large.borrow_mut().logs.get_mut(&record.log)) {
            lost.iter().for_each(|connection| log.lost(*connection, record.seq));
        }
    }

    /// Called once a tick; looks when it is time.
    pub fn look_after_large(self: &Rc<Self>) {
        let now_ms = self.now_ms();
        let interval_ms = u64::from(self.shared.session_limits.heartbeat_interval_ms);
        let period_ms = interval_ms / LOOKS_PER_HEARTBEAT;
        if now_ms < self.large.borrow().look_at_ms {
            return;
        }
        self.large.borrow_mut().look_at_ms = now_ms + period_ms;
        let (behind, logs) = self.large.borrow_mut().look(now_ms);
        if !behind.is_empty() {
            let spread_ms = u64::from(self.shared.config.hint_spread_ms).min(period_ms);
            self.sweep(Sweep::hint(behind, spread_ms, now_ms));
        }
        for logs in logs.chunks(ASKED_AT_ONCE_MAX) {
            self.ask(Question::LargeHeads { logs: logs.to_vec() });
        }
        self.ask_about_unsure();
    }

    fn ask_about_unsure(&self) {
        let changes = self.large_changes();
        let unsure = |(id, user): (&ConnectionId, &UserId)| (*id, user.clone());
        let users: Vec<(ConnectionId, UserId)> = self.large.borrow().unsure.iter().map(unsure).collect();
        for users in users.chunks(ASKED_AT_ONCE_MAX) {
            self.ask(Question::LargeOfUsers { changes, users: users.to_vec() });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    fn log() -> LogId {
        LogId::parse("gxxxxxxxxxxxxxxxxxxxxxx").unwrap()
    }

    fn user(name: &str) -> UserId {
        UserId::parse(name).unwrap()
    }

    /// The entry `seq` of the log, by which these join; by that of nobody the members stay those of the last change.
    fn entry(seq: u64, members_seq: u64, joined: &[&str]) -> Arc<Record> {
        Arc::new(Record {
            log: log(),
            seq: Seq(seq),
            members_seq: Seq(members_seq),
            members_seq_before: Seq(seq - 1),
            joined: joined.iter().map(|name| user(name)).collect(),
            left: Vec::new(),
            answered: ConnectionId(0),
            frame: Bytes::new(),
            trace: None,
        })
    }

    fn members(members_seq: u64, joined: &[(&str, u64)]) -> LargeMembers {
        let members = joined.iter().map(|(name, seq)| (user(name), Seq(*seq))).collect();
        LargeMembers { members_seq: Seq(members_seq), members }
    }

    fn unsure(large: &Large) -> Vec<u64> {
        large.unsure.keys().map(|connection| connection.0).collect()
    }

    #[test]
    fn who_signs_in_is_asked_about_again_only_if_a_change_in_between_named_it() {
        let mut large = Large::default();
        // Each answer is as old as its question.
        let mut sign_in = |name: &str, connection: u64, change: &Arc<Record>| {
            let asked = large.recent.count();
            large.came(change);
            large.signed_in(user(name), ConnectionId(connection), &[], asked);
            unsure(&large)
        };
        for number in 1..=500 {
            let change = entry(number, number, &["stranger"]);
            assert!(sign_in(&format!("user{number}"), number, &change).is_empty());
        }
        assert_eq!(sign_in("ann", 900, &entry(501, 501, &["bob", "ann"])), [900]);

        let asked = large.recent.count();
        large.came(&entry(502, 502, &["zoe"]));
        let joined = LargeMembership { log: log(), joined_seq: Seq(501), members_seq: Seq(502) };
        large.of_users(asked, &[(ConnectionId(900), vec![joined])]);
        assert!(unsure(&large).is_empty());
        assert_eq!(large.came(&entry(503, 502, &[])), Came::Goes(vec![ConnectionId(900)]));
    }

    #[test]
    fn who_joined_by_an_entry_that_was_lost_is_asked_about_again_and_nobody_else() {
        let mut large = Large::default();
        large.came(&entry(6, 5, &[]));
        large.members(&log(), Some(members(5, &[("ann", 1), ("zoe", 5)])));
        assert!(large.next_waiting(&log()).is_some());
        let asked = large.recent.count();
        // By entry 7, which never came, bob joined.
        assert_eq!(large.came(&entry(8, 7, &[])), Came::Waits { ask: true });
        large.members(&log(), Some(members(7, &[("ann", 1), ("zoe", 5), ("bob", 7)])));
        for (connection, name) in [(1, "ann"), (2, "bob"), (3, "zoe"), (4, "eve")] {
            large.signed_in(user(name), ConnectionId(connection), &[], asked);
        }
        assert_eq!(unsure(&large), [2]);
    }
}
