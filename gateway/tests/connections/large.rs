//! Large conversations: one record for all members connected here, and never one for who is no member.

use crate::kit::{Client, On, Server, config, numbered_push, sync};
use crate::on_every_transport_and_driver;
use im_gateway::{LargeHead, LargeMembers, LargeMembership, LogicAnswer, PushFault};
use im_proto::{LogId, Seq, UserId, internal};

on_every_transport_and_driver!(
    an_entry_goes_to_the_members_who_are_connected_and_to_nobody_else,
    an_entry_waits_until_the_members_of_its_time_are_known,
    who_joins_and_who_leaves_by_an_entry_is_known_without_a_question,
    who_is_told_by_an_answer_is_not_pushed_to,
    an_entry_for_which_nobody_knows_the_members_is_hinted,
    a_head_that_was_never_pushed_is_hinted_within_a_heartbeat,
    a_push_that_was_lost_is_hinted_by_the_next_heartbeat_and_a_sync_ends_it,
    a_sign_in_with_older_news_than_the_members_asks_again,
);

fn log() -> LogId {
    LogId::parse("gxxxxxxxxxxxxxxxxxxxxxx").unwrap()
}

fn membership(joined: u64, members_seq: u64) -> LargeMembership {
    LargeMembership { log: log(), joined_seq: Seq(joined), members_seq: Seq(members_seq) }
}

fn members(members_seq: u64, joined: &[(&str, u64)]) -> LargeMembers {
    let members = joined.iter().map(|(user, seq)| (UserId::parse(user).unwrap(), Seq(*seq)));
    LargeMembers { members_seq: Seq(members_seq), members: members.collect() }
}

/// One entry, and what it changes.
#[derive(Default)]
struct Entry<'a> {
    seq: u64,
    members_seq: u64,
    before: u64,
    joined: &'a [&'a str],
    left: &'a [&'a str],
    answered: u64,
}

fn deliver(server: &Server, entry: &Entry<'_>) {
    let ids = |users: &[&str]| users.iter().map(|user| (*user).to_owned()).collect();
    let push = internal::LargePush {
        log_id: log().to_string(),
        seq: entry.seq,
        members_seq: entry.members_seq,
        members_seq_before: entry.before,
        joined: ids(entry.joined),
        left: ids(entry.left),
        answered_connection_id: entry.answered,
        frame: numbered_push(entry.seq, 0),
    };
    server
        .handle
        .deliver(vec![internal::Delivery { kind: Some(internal::delivery::Kind::LargePush(push)), trace: None }]);
}

fn message(server: &Server, seq: u64, members_seq: u64) {
    deliver(server, &Entry { seq, members_seq, ..Entry::default() });
}

/// A client that is a member by what its sign-in is told.
fn member(server: &Server, user: &str, joined: u64, members_seq: u64) -> Client {
    server.logic.set(|s| s.large.insert(user.to_owned(), vec![membership(joined, members_seq)]));
    server.sign_in(user)
}

/// The next thing the client gets is this, pushed to it alone.
fn expect_nothing_before(server: &Server, user: &str, client: &mut Client, number: u64) {
    server.push(&numbered_push(number, 0), &[(user, None)]);
    assert_eq!(client.expect_push(), number);
}

fn an_entry_goes_to_the_members_who_are_connected_and_to_nobody_else(on: On) {
    let server = Server::start(config(on));
    let (mut ann, mut bob) = (member(&server, "ann", 1, 1), member(&server, "bob", 5, 5));
    let mut zoe = server.sign_in("zoe");
    server.logic.set(|s| s.large_members = members(5, &[("ann", 1), ("bob", 5), ("away", 1)]));
    for seq in [4, 5, 6] {
        message(&server, seq, if seq == 4 { 1 } else { 5 });
    }
    assert_eq!([ann.expect_push(), ann.expect_push(), ann.expect_push()], [4, 5, 6]);
    assert_eq!([bob.expect_push(), bob.expect_push()], [5, 6], "from the joining on");
    expect_nothing_before(&server, "zoe", &mut zoe, 99);
    // Each core asks once for all of it.
    server.logic.wait("two questions", |s| (s.large_questions == 2).then_some(()));
}

fn an_entry_waits_until_the_members_of_its_time_are_known(on: On) {
    let server = Server::start(config(on));
    let (mut ann, mut bob) = (member(&server, "ann", 1, 1), member(&server, "bob", 1, 1));
    server.logic.set(|s| s.large_asked = Some(Vec::new()));
    message(&server, 2, 1);
    message(&server, 4, 3);
    message(&server, 5, 3);
    let asked = server.logic.wait("both cores ask", |s| {
        let asked = s.large_asked.as_mut().unwrap();
        (asked.len() == 2).then(|| std::mem::take(asked))
    });
    // By entry 3, which was lost, bob was removed and ann alone stayed.
    for (log, lane) in asked {
        lane.answer(LogicAnswer::LargeMembers { log, members: Some(members(3, &[("ann", 1)])) });
    }
    assert_eq!([ann.expect_push(), ann.expect_push(), ann.expect_push()], [2, 4, 5]);
    expect_nothing_before(&server, "bob", &mut bob, 99);
}

fn who_joins_and_who_leaves_by_an_entry_is_known_without_a_question(on: On) {
    let server = Server::start(config(on));
    let (mut ann, mut bob) = (server.sign_in("ann"), server.sign_in("bob"));
    deliver(&server, &Entry { seq: 1, members_seq: 1, joined: &["ann"], ..Entry::default() });
    message(&server, 2, 1);
    deliver(&server, &Entry { seq: 3, members_seq: 3, before: 1, joined: &["bob"], ..Entry::default() });
    deliver(&server, &Entry { seq: 4, members_seq: 4, before: 3, left: &["ann"], ..Entry::default() });
    message(&server, 5, 4);
    assert_eq!([ann.expect_push(), ann.expect_push(), ann.expect_push(), ann.expect_push()], [1, 2, 3, 4]);
    assert_eq!([bob.expect_push(), bob.expect_push(), bob.expect_push()], [3, 4, 5]);
    expect_nothing_before(&server, "ann", &mut ann, 99);
    assert_eq!(server.logic.set(|s| s.large_questions), 0);
}

fn who_is_told_by_an_answer_is_not_pushed_to(on: On) {
    let server = Server::start(config(on));
    let (mut ann, mut bob) = (server.sign_in("ann"), server.sign_in("bob"));
    let answered = server.connection("ann").0;
    deliver(&server, &Entry { seq: 1, members_seq: 1, joined: &["ann", "bob"], answered, ..Entry::default() });
    message(&server, 2, 1);
    assert_eq!(ann.expect_push(), 2);
    assert_eq!([bob.expect_push(), bob.expect_push()], [1, 2]);
}

fn an_entry_for_which_nobody_knows_the_members_is_hinted(on: On) {
    let server = Server::start(config(on));
    let mut ann = member(&server, "ann", 1, 1);
    server.logic.set(|s| s.large_asked = Some(Vec::new()));
    message(&server, 2, 1);
    let asked = server.logic.wait("both cores ask", |s| {
        let asked = s.large_asked.as_mut().unwrap();
        (asked.len() == 2).then(|| std::mem::take(asked))
    });
    for (log, lane) in asked {
        lane.answer(LogicAnswer::LargeMembers { log, members: None });
    }
    loop {
        ann.heartbeat();
        if ann.next_is_hint() {
            break;
        }
    }
}

fn a_head_that_was_never_pushed_is_hinted_within_a_heartbeat(on: On) {
    let mut config = config(on);
    config.session.heartbeat_interval_ms = 600;
    let server = Server::start(config);
    let mut ann = member(&server, "ann", 1, 1);
    let mut zoe = server.sign_in("zoe");
    let head = LargeHead { log: log(), seq: Seq(9), is_large: true };
    server.logic.set(|s| s.large_heads.insert(log().to_string(), head));
    // Without a word of the client's.
    assert_eq!(ann.expect_hint(), 0);
    expect_nothing_before(&server, "zoe", &mut zoe, 99);
}

fn a_push_that_was_lost_is_hinted_by_the_next_heartbeat_and_a_sync_ends_it(on: On) {
    let mut config = config(on);
    config.faults.pushes = PushFault::LoseAll;
    let server = Server::start(config);
    let mut ann = member(&server, "ann", 1, 1);
    server.logic.set(|s| s.large_members = members(1, &[("ann", 1)]));
    message(&server, 2, 1);
    loop {
        ann.heartbeat();
        if ann.next_is_hint() {
            break;
        }
    }
    let head = LargeHead { log: log(), seq: Seq(2), is_large: true };
    server.logic.set(|s| s.large_heads.insert(log().to_string(), head));
    ann.send(2, sync());
    assert_eq!(ann.next_frame().request_id, 2);
    ann.heartbeat();
    ann.expect_heartbeat();
}

fn a_sign_in_with_older_news_than_the_members_asks_again(on: On) {
    let server = Server::start(config(on));
    let mut ann = server.sign_in("ann");
    deliver(&server, &Entry { seq: 1, members_seq: 1, joined: &["ann", "bob"], ..Entry::default() });
    deliver(&server, &Entry { seq: 2, members_seq: 2, before: 1, left: &["bob"], ..Entry::default() });
    assert_eq!([ann.expect_push(), ann.expect_push()], [1, 2]);
    // What bob's sign-in was told is from before the removal.
    let mut bob = member(&server, "bob", 1, 1);
    server.logic.set(|s| s.large_members = members(2, &[("ann", 1)]));
    message(&server, 3, 2);
    assert_eq!(ann.expect_push(), 3);
    expect_nothing_before(&server, "bob", &mut bob, 99);
}
