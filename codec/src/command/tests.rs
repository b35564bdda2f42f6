//! Every command: the log it goes to, and what is refused before the logic is asked.

use super::*;
use crate::limits::SYNC_TOKEN_BYTES_MAX;
use im_proto::client::{ErrorCode, send::To};

fn alice() -> UserId {
    UserId::parse("alice").unwrap()
}

fn direct() -> LogId {
    LogId::direct(&alice(), &UserId::parse("bob").unwrap())
}

fn a_group() -> LogId {
    LogId::group(&alice(), &ClientId::parse("c1").unwrap())
}

fn check(command: Command, expect: Result<Route, ErrorCode>) {
    let text = format!("{command:?}");
    let limits = SessionLimits { body_bytes_max: 100, ..SessionLimits::default() };
    let routed = route(&alice(), &command, &limits).unwrap();
    assert_eq!(routed.map_err(|refused| refused.code), expect, "{text}");
}

fn send() -> client::Send {
    client::Send {
        to: Some(To::UserId("bob".into())),
        client_message_id: "m1".into(),
        after: String::new(),
        body: vec![1].into(),
    }
}

#[test]
fn a_send_goes_to_the_conversation_it_addresses() {
    check(Command::Send(send()), Ok(Route::Write(direct())));
    for log in [direct(), a_group()] {
        let to = Some(To::ConversationId(log.as_str().into()));
        check(Command::Send(client::Send { to, ..send() }), Ok(Route::Write(log)));
    }
}

#[test]
fn a_send_that_cannot_be_stored_is_refused_at_once() {
    let refused = |change: fn(&mut client::Send), code| {
        let mut send = send();
        change(&mut send);
        check(Command::Send(send), Err(code));
    };
    refused(|s| s.to = None, ErrorCode::InvalidArgument);
    refused(|s| s.to = Some(To::UserId("b b".into())), ErrorCode::InvalidArgument);
    refused(|s| s.to = Some(To::ConversationId("x".into())), ErrorCode::InvalidArgument);
    refused(|s| s.to = Some(To::ConversationId(LogId::user(&alice()).as_str().into())), ErrorCode::InvalidArgument);
    refused(|s| s.client_message_id.clear(), ErrorCode::InvalidArgument);
    refused(|s| s.client_message_id = "x".repeat(65), ErrorCode::InvalidArgument);
    refused(|s| s.after = "m1".into(), ErrorCode::InvalidArgument);
    refused(|s| s.after = "é".into(), ErrorCode::InvalidArgument);
    refused(|s| s.body.clear(), ErrorCode::InvalidArgument);
    refused(|s| s.body = vec![0; 101].into(), ErrorCode::TooLarge);
}

#[test]
fn a_moved_read_cursor_goes_to_the_readers_own_log() {
    let mark =
        client::MarkRead { conversation_id: direct().as_str().into(), epoch: 1, seq: 3, command_id: "r1".into() };
    check(Command::MarkRead(mark.clone()), Ok(Route::Write(LogId::user(&alice()))));
    let no_id = client::MarkRead { command_id: String::new(), ..mark.clone() };
    check(Command::MarkRead(no_id), Err(ErrorCode::InvalidArgument));
    let own_log = client::MarkRead { conversation_id: LogId::user(&alice()).as_str().into(), ..mark };
    check(Command::MarkRead(own_log), Err(ErrorCode::InvalidArgument));
}

#[test]
fn group_commands_go_to_the_groups_log() {
    let conversation_id = a_group().as_str().to_owned();
    let command_id = "c1".to_owned();
    let create = client::CreateGroup { command_id: command_id.clone(), name: "n".into(), user_ids: vec!["bob".into()] };
    check(Command::CreateGroup(create.clone()), Ok(Route::Write(a_group())));
    check(
        Command::CreateGroup(client::CreateGroup { name: "n".repeat(129), ..create.clone() }),
        Err(ErrorCode::TooLarge),
    );
    check(
        Command::CreateGroup(client::CreateGroup { user_ids: vec!["b".into(); USER_IDS_MAX + 1], ..create }),
        Err(ErrorCode::TooLarge),
    );
    let add = client::AddMembers {
        command_id: command_id.clone(),
        conversation_id: conversation_id.clone(),
        user_ids: vec!["bob".into()],
        after: "m1".into(),
    };
    check(Command::AddMembers(add.clone()), Ok(Route::Write(a_group())));
    for after in ["é".into(), command_id.clone()] {
        check(Command::AddMembers(client::AddMembers { after, ..add.clone() }), Err(ErrorCode::InvalidArgument));
    }
    check(Command::AddMembers(client::AddMembers { user_ids: vec![], ..add.clone() }), Err(ErrorCode::InvalidArgument));
    check(
        Command::AddMembers(client::AddMembers { conversation_id: direct().as_str().into(), ..add }),
        Err(ErrorCode::InvalidArgument),
    );
    let remove = client::RemoveMember {
        command_id: command_id.clone(),
        conversation_id: conversation_id.clone(),
        user_id: "bob".into(),
        after: "m1".into(),
    };
    check(Command::RemoveMember(remove.clone()), Ok(Route::Write(a_group())));
    for after in ["é".into(), command_id.clone()] {
        check(Command::RemoveMember(client::RemoveMember { after, ..remove.clone() }), Err(ErrorCode::InvalidArgument));
    }
    check(
        Command::RemoveMember(client::RemoveMember { user_id: String::new(), ..remove }),
        Err(ErrorCode::InvalidArgument),
    );
    let leave = client::LeaveGroup { command_id: command_id.clone(), conversation_id, after: "m1".into() };
    check(Command::LeaveGroup(leave.clone()), Ok(Route::Write(a_group())));
    for after in ["é".into(), command_id] {
        check(Command::LeaveGroup(client::LeaveGroup { after, ..leave.clone() }), Err(ErrorCode::InvalidArgument));
    }
}

#[test]
fn reads_go_to_the_logic() {
    let pull = client::Pull { conversation_id: direct().as_str().into(), epoch: 1, from_seq: 1, limit: 0 };
    check(Command::Pull(pull.clone()), Ok(Route::Read));
    check(Command::Pull(client::Pull { from_seq: 0, ..pull.clone() }), Err(ErrorCode::InvalidArgument));
    let own = LogId::user(&alice()).as_str().to_owned();
    check(Command::Pull(client::Pull { conversation_id: own, ..pull.clone() }), Ok(Route::Read));
    let others = LogId::user(&UserId::parse("bob").unwrap()).as_str().to_owned();
    check(Command::Pull(client::Pull { conversation_id: others, ..pull }), Err(ErrorCode::NotAllowed));
    check(Command::Sync(client::Sync { token: vec![].into(), limit: 0 }), Ok(Route::Read));
    let sync = |token_bytes| Command::Sync(client::Sync { token: vec![0; token_bytes].into(), limit: 0 });
    check(sync(SYNC_TOKEN_BYTES_MAX), Ok(Route::Read));
    check(sync(SYNC_TOKEN_BYTES_MAX + 1), Err(ErrorCode::TooLarge));
    let list =
        client::ListMembers { conversation_id: a_group().as_str().into(), after_user_id: String::new(), limit: 0 };
    check(Command::ListMembers(list), Ok(Route::Read));
}
