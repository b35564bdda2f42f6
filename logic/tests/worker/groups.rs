//! Groups: who may do what, what a member sees, and repeats of every command.

use crate::harness::*;
use im_proto::client::{ErrorCode, client_frame::Command, entry::Content};
use im_proto::{ClientId, LogId};
use std::sync::atomic::Ordering;

fn group_of(creator: &str, id: &str) -> LogId {
    LogId::group(&user(creator), &ClientId::parse(id).unwrap())
}

#[tokio::test]
async fn every_group_command_sent_again_gets_the_same_ack() {
    let world = World::new().await;
    let (a, b) = (world.phone("a", "1").await, world.phone("b", "1").await);
    let group = group_of("a", "g");
    let steps: Vec<(&Phone, Command)> = vec![
        (&a, create("g", &["b"])),
        (&a, add(&group, "add", &["c", "b"])),
        (&a, add(&group, "nobody-new", &["c"])),
        (&a, remove(&group, "rm", "c")),
        (&b, leave(&group, "bye")),
        (&a, leave(&group, "last")),
    ];
    let mut first = Vec::new();
    for (phone, command) in &steps {
        first.push(world.ask(phone, command.clone()).await);
    }
    assert_eq!(first.iter().map(acked).collect::<Vec<_>>(), [1, 2, 3, 4, 5, 6]);
    // From memory, though by now none of them would be allowed.
    for ((phone, command), answer) in steps.iter().zip(&first) {
        assert_eq!(world.ask(phone, command.clone()).await, *answer);
    }
    let world = world.crash_and_restart().await;
    let (a, b) = (world.phone("a", "1").await, world.phone("b", "1").await);
    for ((phone, command), answer) in steps.iter().zip(&first) {
        let phone = if phone.user == a.user { &a } else { &b };
        assert_eq!(world.ask(phone, command.clone()).await, *answer, "{command:?} from the store");
    }
    // The same ids with other content.
    for command in [create("g", &["x"]), add(&group, "add", &["x"]), remove(&group, "rm", "b")] {
        assert_eq!(refused(&world.ask(&a, command).await), ErrorCode::Conflict);
    }
    assert_eq!(world.entries(&group).await.len(), 6);
}

#[tokio::test]
async fn only_the_creator_adds_and_removes_and_it_leaves_last() {
    let world = World::new().await;
    let (a, b, x) = (world.phone("a", "1").await, world.phone("b", "1").await, world.phone("x", "1").await);
    acked(&world.ask(&a, create("g", &["b", "c"])).await);
    let group = group_of("a", "g");
    let refusals = [
        (&b, add(&group, "1", &["x"]), ErrorCode::NotAllowed),
        (&b, remove(&group, "2", "c"), ErrorCode::NotAllowed),
        (&x, add(&group, "3", &["x"]), ErrorCode::NotAllowed),
        (&x, leave(&group, "4"), ErrorCode::NotAllowed),
        (&a, leave(&group, "5"), ErrorCode::NotAllowed),
        (&a, remove(&group, "6", "a"), ErrorCode::InvalidArgument),
        (&a, remove(&group, "7", "x"), ErrorCode::InvalidArgument),
        (&a, add(&group, "8", &[]), ErrorCode::InvalidArgument),
        (&a, add(&group, "9", &["no id"]), ErrorCode::InvalidArgument),
        (&a, add(&LogId::direct(&a.user, &b.user), "10", &["x"]), ErrorCode::NotAllowed),
        (&a, add(&group_of("a", "absent"), "11", &["x"]), ErrorCode::NotAllowed),
    ];
    for (phone, command, code) in refusals {
        assert_eq!(refused(&world.ask(phone, command.clone()).await), code, "{} {command:?}", phone.user);
    }
    assert_eq!(world.entries(&group).await.len(), 1);
}

#[tokio::test]
async fn groups_and_names_are_bounded() {
    let mut config = generous();
    config.limits.group_members_max = 3;
    let world = World::with(config).await;
    let a = world.phone("a", "1").await;
    assert_eq!(refused(&world.ask(&a, create("big", &["b", "c", "d"])).await), ErrorCode::TooLarge);
    assert_eq!(acked(&world.ask(&a, create("g", &["b", "b", "a"])).await), 1);
    let group = group_of("a", "g");
    assert_eq!(refused(&world.ask(&a, add(&group, "1", &["c", "d"])).await), ErrorCode::TooLarge);
    assert_eq!(acked(&world.ask(&a, add(&group, "2", &["c", "b"])).await), 2);
    let Command::CreateGroup(mut long) = create("long", &[]) else { unreachable!() };
    long.name = "n".repeat(129);
    assert_eq!(refused(&world.ask(&a, Command::CreateGroup(long)).await), ErrorCode::TooLarge);
    let entries = world.entries(&group).await;
    assert!(matches!(&entries[0].content, Some(Content::GroupCreated(created)) if created.user_ids == ["a", "b"]));
    assert!(matches!(&entries[1].content, Some(Content::MembersAdded(added)) if added.user_ids == ["c"]));
}

#[tokio::test]
async fn a_member_sees_its_joining_to_its_leaving_and_nothing_else() {
    let world = World::new().await;
    let (a, b, c) = (world.phone("a", "1").await, world.phone("b", "1").await, world.phone("c", "1").await);
    let group = group_of("a", "g");
    // All in one batch: membership changes while entries go by.
    let commands = vec![
        (&a, create("g", &["c"])),
        (&a, to_log(&group, "before")),
        (&a, add(&group, "add", &["b"])),
        (&a, to_log(&group, "seen")),
        (&b, to_log(&group, "own")),
        (&a, remove(&group, "rm", "b")),
        (&a, to_log(&group, "behind")),
        (&b, to_log(&group, "refused")),
    ];
    let answers = world.ask_all(commands).await;
    assert_eq!(refused(&answers[7]), ErrorCode::NotAllowed);
    let name = group.as_str().to_owned();
    let seqs = |told: &[Told]| entries_of(told).iter().map(|(_, seq)| *seq).collect::<Vec<_>>();
    assert_eq!(seqs(&world.pushes(&b, 3).await), [3, 4, 6]);
    assert_eq!(seqs(&world.pushes(&c, 7).await), [1, 2, 3, 4, 5, 6, 7]);
    // The inbox moved once a user, told with the last entry of each.
    assert!(world.pushed_so_far(&b)[2].inbox.is_some());
    assert!(world.pushed_so_far(&c)[..6].iter().all(|told| told.inbox.is_none()));
    assert!(world.pushed_so_far(&c)[6].inbox.is_some());

    let pulled = world.pull(&b, &group, 1).await.unwrap();
    assert_eq!((pulled.floor_seq, pulled.head_seq), (3, 6));
    assert_eq!(pulled.entries.iter().map(|entry| entry.seq).collect::<Vec<_>>(), [3, 4, 5, 6]);
    assert_eq!(world.pull(&b, &group, 8).await.unwrap_err().code(), ErrorCode::Reset);
    let state = world.sync(&b, &Default::default(), 0).await.unwrap().conversations.remove(0);
    assert_eq!((state.conversation_id.clone(), state.head_seq, state.floor_seq, state.member), (name, 6, 3, false));
    assert_eq!((state.head_ordinal, state.floor_ordinal, state.read_ordinal), (3, 1, 3));
    // Back again: a new time begins.
    assert_eq!(acked(&world.ask(&a, add(&group, "again", &["b"])).await), 8);
    let pulled = world.pull(&b, &group, 1).await.unwrap();
    assert_eq!((pulled.floor_seq, pulled.head_seq), (8, 8));
}

#[tokio::test]
async fn members_are_listed_by_id_in_pages_for_members_only() {
    let world = World::new().await;
    let (a, b, x) = (world.phone("a", "1").await, world.phone("b", "1").await, world.phone("x", "1").await);
    acked(&world.ask(&a, create("g", &["b", "c", "d", "e"])).await);
    let group = group_of("a", "g");
    acked(&world.ask(&a, remove(&group, "rm", "d")).await);
    acked(&world.ask(&b, to_log(&group, "hello")).await);
    let list = |after: &str, limit: u32| {
        Command::ListMembers(im_proto::client::ListMembers {
            conversation_id: group.as_str().into(),
            after_user_id: after.into(),
            limit,
        })
    };
    let members = async |after: &str| match world.read(&a, list(after, 2)).await.0 {
        im_proto::client::server_frame::Body::Members(members) => members,
        other => panic!("{other:?}"),
    };
    let first = members("").await;
    let ids =
        |page: &im_proto::client::Members| page.members.iter().map(|member| member.user_id.clone()).collect::<Vec<_>>();
    assert_eq!((ids(&first), first.complete, first.members_seq), (vec!["a".into(), "b".into()], false, 2));
    assert_eq!((first.creator_user_id.as_str(), first.members[1].read_seq), ("a", 3));
    let second = members("b").await;
    assert_eq!((ids(&second), second.complete), (vec!["c".into(), "e".into()], true));
    let removed = world.phone("d", "1").await;
    for outsider in [&x, &removed] {
        assert_eq!(refused(&world.read(outsider, list("", 0)).await.0), ErrorCode::NotAllowed);
    }
}

/// A database that fails over to a copy of a moment ago, while the worker has the group in memory.
#[tokio::test]
async fn changes_that_the_directory_lost_are_repeated_before_the_next_one() {
    let world = World::new().await;
    let a = world.phone("a", "1").await;
    let (group, absent) = (group_of("a", "g"), group_of("a", "absent"));
    acked(&world.ask(&a, create("g", &["b", "c"])).await);
    world.directory.lose_changes(usize::MAX);
    acked(&world.ask(&a, add(&group, "dee", &["d"])).await);
    acked(&world.ask(&a, remove(&group, "rm", "c")).await);
    acked(&world.ask(&a, create("absent", &["b"])).await);
    world.directory.lose_changes(0);
    acked(&world.ask(&a, add(&group, "eve", &["e"])).await);
    acked(&world.ask(&a, add(&absent, "fay", &["f"])).await);
    let present = async |log: &LogId| {
        let known = world.ports.directory.conversation(log).await.unwrap().unwrap();
        let present = known.members.into_iter().filter(|row| row.left_seq.is_none());
        present.map(|row| row.user.as_str().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(present(&group).await, ["a", "b", "d", "e"]);
    assert_eq!(present(&absent).await, ["a", "b", "f"]);
}

/// Of a log that was loaded only the last change is known, and not the one before it.
#[tokio::test]
async fn a_change_that_is_handed_on_once_more_is_applied_over_none_that_the_directory_lost() {
    let world =
        World::with(im_logic::LogicConfig { logs_cached_max: 1, commands_remembered_max: 1, ..generous() }).await;
    let a = world.phone("a", "1").await;
    let group = group_of("a", "g");
    acked(&world.ask(&a, create("g", &["b"])).await);
    acked(&world.ask(&a, to_user("x", "first")).await);
    // Both changes, and what is given to it when the log is loaded once more.
    world.directory.lose_changes(3);
    acked(&world.ask(&a, add(&group, "c", &["c"])).await);
    acked(&world.ask(&a, add(&group, "d", &["d"])).await);
    acked(&world.ask(&a, to_user("x", "out-of-memory")).await);
    assert_eq!(acked(&world.ask(&a, add(&group, "d", &["d"])).await), 3);
    let known = world.ports.directory.conversation(&group).await.unwrap().unwrap();
    let members: Vec<&str> = known.members.iter().map(|row| row.user.as_str()).collect();
    assert_eq!(members, ["a", "b", "c", "d"]);
}

/// In a group that talks much and seldom changes its members.
#[tokio::test]
async fn changes_that_the_directory_lost_are_found_without_reading_what_was_said_in_between() {
    const SAID: usize = 150;
    let world = World::new().await;
    let a = world.phone("a", "1").await;
    let group = group_of("a", "g");
    acked(&world.ask(&a, create("g", &["b"])).await);
    world.directory.lose_changes(usize::MAX);
    for (round, user) in ["c", "d", "e"].into_iter().enumerate() {
        acked(&world.ask(&a, add(&group, user, &[user])).await);
        for n in 0..SAID {
            acked(&world.ask(&a, to_log(&group, &format!("m{round}-{n}"))).await);
        }
    }
    world.directory.lose_changes(0);
    let ranged = world.log.ranged.load(Ordering::Relaxed);
    acked(&world.ask(&a, add(&group, "f", &["f"])).await);
    let ranged = (world.log.ranged.load(Ordering::Relaxed) - ranged) as usize;
    let known = world.ports.directory.conversation(&group).await.unwrap().unwrap();
    let members: Vec<&str> = known.members.iter().map(|row| row.user.as_str()).collect();
    assert_eq!(members, ["a", "b", "c", "d", "e", "f"]);
    assert!(ranged < SAID, "{ranged} entries were read of {}", 3 * SAID);
}
