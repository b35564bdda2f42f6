//! Decisions as tables: what the log knows, what is asked, what comes of it.

use super::*;
use crate::config::LogicConfig;
use crate::membership::Members;
use im_proto::client::{self, ErrorCode};
use im_storage::ports::ReadCursor;
use std::sync::Arc;

const EPOCH: Epoch = Epoch(9);

fn user(text: &str) -> UserId {
    UserId::parse(text).unwrap()
}

fn group() -> LogId {
    LogId::group(&user("a"), &ClientId::parse("g").unwrap())
}

/// A log at seq 4 with three messages.
fn at(creator: &str, members: &[&str]) -> Position {
    let members = Members { creator: Some(user(creator)), present: members.iter().map(|id| user(id)).collect() };
    Position {
        head: Seq(4),
        ordinal: Ordinal(3),
        members_seq: Seq(1),
        members: Arc::new(members),
        ..Position::default()
    }
}

struct Case {
    log: LogId,
    at: Position,
    memory: CommandMemory,
    read: Option<ReadTarget>,
    turned_away: TurnedAway,
}

impl Case {
    fn new(log: LogId, at: Position) -> Self {
        let memory = CommandMemory::new(1_000);
        Self { log, at, memory, read: None, turned_away: TurnedAway::new() }
    }

    fn decide(&self, sender: &str, command: &Command) -> Decision {
        let limits = LogicConfig::default().limits;
        let sender = user(sender);
        let situation = Situation {
            log: &self.log,
            at: &self.at,
            sender: &sender,
            epoch: EPOCH,
            now_ms: 1_000,
            limits: &limits,
            read: self.read.as_ref(),
            memory: &self.memory,
            turned_away: &self.turned_away,
        };
        decide(command, &situation)
    }

    fn remember(&mut self, sender: &str, client_id: &str, written: Written) {
        let key =
            CommandKey { log: self.log.clone(), sender: user(sender), client_id: ClientId::parse(client_id).unwrap() };
        self.memory.remember_written(key, written);
    }
}

fn send(to: client::send::To, id: &str, after: &str) -> Command {
    let (client_message_id, after) = (id.to_owned(), after.to_owned());
    Command::Send(client::Send { to: Some(to), client_message_id, after, body: Default::default() })
}

fn to_user(to: &str, id: &str) -> Command {
    send(client::send::To::UserId(to.into()), id, "")
}

fn to_log(log: &LogId, id: &str) -> Command {
    send(client::send::To::ConversationId(log.into()), id, "")
}

fn leave(id: &str, after: &str) -> Command {
    let (command_id, after) = (id.to_owned(), after.to_owned());
    Command::LeaveGroup(client::LeaveGroup { command_id, conversation_id: (&group()).into(), after })
}

#[track_caller]
fn entry_of(decision: Decision) -> client::Entry {
    match decision {
        Decision::Append(append) => append.entry,
        other => panic!("no entry: {other:?}"),
    }
}

#[track_caller]
fn code_of(decision: Decision) -> ErrorCode {
    match decision {
        Decision::Refuse(refusal) | Decision::RefuseUnlessStored { refusal, .. } => refusal.code,
        other => panic!("not refused: {other:?}"),
    }
}

#[test]
fn a_message_takes_the_next_seq_and_counts_and_other_entries_do_not_count() {
    let case = Case::new(group(), at("a", &["a", "b"]));
    let message = entry_of(case.decide("b", &to_log(&group(), "m")));
    assert_eq!((message.seq, message.ordinal, message.server_time_ms), (5, 4, 1_000));
    let left = entry_of(case.decide("b", &leave("l", "")));
    assert_eq!((left.seq, left.ordinal), (5, 3));
}

#[test]
fn a_direct_message_names_its_receiver_however_it_is_addressed() {
    let log = LogId::direct(&user("a"), &user("b"));
    let empty = Case::new(log.clone(), Position::default());
    let begun = Case::new(log.clone(), at("a", &["a", "b"]));
    let receiver = |entry: client::Entry| match entry.content {
        Some(Content::Message(message)) => message.to_user_id,
        other => panic!("{other:?}"),
    };
    assert_eq!(receiver(entry_of(empty.decide("a", &to_user("b", "m")))), "b");
    assert_eq!(receiver(entry_of(begun.decide("b", &to_user("a", "m")))), "a");
    assert_eq!(receiver(entry_of(begun.decide("b", &to_log(&log, "m")))), "a");
    assert_eq!(code_of(empty.decide("a", &to_log(&log, "m"))), ErrorCode::NotAllowed);
    // A record that came by a log it does not write.
    for (sender, command) in [("a", to_user("c", "m")), ("c", to_user("b", "m")), ("a", to_log(&group(), "m"))] {
        assert_eq!(code_of(begun.decide(sender, &command)), ErrorCode::InvalidArgument, "{sender} {command:?}");
    }
}

#[test]
fn a_repeat_is_answered_from_memory_and_other_content_conflicts() {
    let mut case = Case::new(group(), at("a", &["a", "b"]));
    let Decision::Append(append) = case.decide("b", &to_log(&group(), "m")) else { panic!() };
    let written =
        Written { seq: Seq(5), ordinal: Ordinal(4), server_time_ms: 1_000, content_hash: append.content_hash };
    case.remember("b", "m", written);
    assert!(matches!(case.decide("b", &to_log(&group(), "m")), Decision::Repeat(body) if body == append.answer));
    // Another sender's id of the same name is another command.
    assert!(matches!(case.decide("a", &to_log(&group(), "m")), Decision::Append(_)));
    case.remember("b", "m", Written { content_hash: ContentHash::of("send", []), ..written });
    assert!(
        matches!(case.decide("b", &to_log(&group(), "m")), Decision::Refuse(refusal) if refusal == Refusal::CONFLICT)
    );
}

#[test]
fn a_send_behind_another_waits_until_that_one_is_stored() {
    let mut case = Case::new(group(), at("a", &["a", "b"]));
    let behind = send(client::send::To::ConversationId((&group()).into()), "m2", "m1");
    assert!(matches!(case.decide("b", &behind), Decision::Await { after, .. } if after.as_str() == "m1"));
    // Somebody else's m1 does not count.
    let hash = ContentHash::of("send", []);
    let written = Written { seq: Seq(4), ordinal: Ordinal(3), server_time_ms: 0, content_hash: hash };
    case.remember("a", "m1", written);
    assert!(matches!(case.decide("b", &behind), Decision::Await { .. }));
    case.remember("b", "m1", written);
    assert!(matches!(case.decide("b", &behind), Decision::Append(_)));
}

#[test]
fn a_group_command_behind_another_command_waits_until_that_one_is_stored() {
    let (conversation_id, command_id, after) = (String::from(&group()), "c".to_owned(), "m1".to_owned());
    let add = client::AddMembers {
        command_id: command_id.clone(),
        conversation_id: conversation_id.clone(),
        user_ids: vec!["c".to_owned()],
        after: after.clone(),
    };
    let remove = client::RemoveMember { command_id, conversation_id, user_id: "b".to_owned(), after };
    let behind = [("a", Command::AddMembers(add)), ("a", Command::RemoveMember(remove)), ("b", leave("l", "m1"))];
    for (sender, command) in behind {
        let mut case = Case::new(group(), at("a", &["a", "b"]));
        assert!(matches!(case.decide(sender, &command), Decision::Await { after, .. } if after.as_str() == "m1"));
        let hash = ContentHash::of("send", []);
        case.remember(
            sender,
            "m1",
            Written { seq: Seq(4), ordinal: Ordinal(3), server_time_ms: 0, content_hash: hash },
        );
        assert!(matches!(case.decide(sender, &command), Decision::Append(_)), "{command:?}");
    }
    // It would wait for itself.
    let case = Case::new(group(), at("a", &["a", "b"]));
    assert_eq!(code_of(case.decide("b", &leave("l", "l"))), ErrorCode::InvalidArgument);
}

#[test]
fn a_rule_that_memory_cannot_settle_is_left_to_the_store() {
    // Whoever is out may have been in when it sent this very command.
    let case = Case::new(group(), at("a", &["a"]));
    let decision = case.decide("b", &to_log(&group(), "m"));
    assert!(matches!(decision, Decision::RefuseUnlessStored { refusal, .. } if refusal == Refusal::NOT_ALLOWED));
    // What is malformed never was stored.
    assert!(matches!(case.decide("b", &to_log(&group(), "no id")), Decision::Refuse(_)));
}

#[test]
fn a_read_cursor_is_judged_by_what_was_looked_up() {
    let conversation = group();
    let mark = |epoch: u64, seq: u64| {
        let conversation_id = (&conversation).into();
        Command::MarkRead(client::MarkRead { conversation_id, epoch, seq, command_id: "r".into() })
    };
    let cursor = |seq, ordinal| ReadCursor { seq: Seq(seq), ordinal: Ordinal(ordinal) };
    let mut case = Case::new(LogId::user(&user("b")), Position::default());
    assert_eq!(code_of(case.decide("b", &mark(EPOCH.0, 3))), ErrorCode::NotAllowed);
    let target = ReadTarget { allowed: true, last: None, ordinal: Some(Ordinal(2)), current: cursor(1, 1) };
    case.read = Some(target.clone());
    let entry = entry_of(case.decide("b", &mark(EPOCH.0, 3)));
    assert!(matches!(entry.content, Some(Content::ReadMoved(moved)) if (moved.seq, moved.ordinal) == (3, 2)));
    assert_eq!(code_of(case.decide("b", &mark(EPOCH.0 + 1, 3))), ErrorCode::Reset);
    for seq in [0, 1] {
        assert!(matches!(case.decide("b", &mark(EPOCH.0, seq)), Decision::Answer(Body::ReadMarked(marked))
            if (marked.read_seq, marked.read_ordinal) == (1, 1)));
    }
    case.read = Some(ReadTarget { ordinal: None, ..target.clone() });
    assert_eq!(code_of(case.decide("b", &mark(EPOCH.0, 9))), ErrorCode::Reset);
    // A former member, behind its last entry.
    case.read = Some(ReadTarget { last: Some(Seq(2)), ..target });
    assert_eq!(code_of(case.decide("b", &mark(EPOCH.0, 3))), ErrorCode::Reset);
    // By another's log.
    assert_eq!(code_of(case.decide("c", &mark(EPOCH.0, 3))), ErrorCode::InvalidArgument);
}

#[test]
fn the_same_input_gives_the_same_decision() {
    let case = Case::new(group(), at("a", &["a", "b"]));
    let twice = [(); 2].map(|()| format!("{:?}", case.decide("b", &to_log(&group(), "m"))));
    assert_eq!(twice[0], twice[1]);
}

#[test]
fn behind_a_command_refused_for_good_only_what_is_refused_for_good_itself_need_not_wait() {
    let mut case = Case::new(group(), at("a", &["a", "b"]));
    let key = |sender: &str| {
        let client_id = ClientId::parse("m1").unwrap();
        CommandKey { log: group(), sender: user(sender), client_id }
    };
    let behind = send(client::send::To::ConversationId((&group()).into()), "m2", "m1");
    assert!(matches!(case.decide("x", &behind), Decision::Await { .. }));
    case.turned_away.insert(key("x"), ErrorClass::Retry);
    assert!(matches!(case.decide("x", &behind), Decision::Await { .. }));
    case.turned_away.insert(key("x"), ErrorClass::Final);
    assert!(matches!(case.decide("x", &behind), Decision::RefuseUnlessStored { refusal, .. }
        if refusal.code == ErrorCode::NotAllowed));
    // A member's m1 was refused for another reason; m2 could be stored, and its sender may send m1 again.
    case.turned_away.insert(key("b"), ErrorClass::Final);
    assert!(matches!(case.decide("b", &behind), Decision::Await { .. }));
}
