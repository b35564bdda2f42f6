//! After a crash: the projections are rows since the last cover short, and the log has everything.

use crate::harness::*;
use im_proto::client::{self, ErrorCode};
use im_proto::{ClientId, LogId};
use im_storage::ports::{EntryLog as _, Shard, Tail};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use tokio::sync::Barrier;

/// What a user's app would show.
async fn view(world: &World, phone: &Phone) -> Vec<client::ConversationState> {
    let mut states = Vec::new();
    let mut token = Default::default();
    loop {
        let synced = world.sync(phone, &token, 2).await.unwrap();
        for state in synced.conversations {
            states.retain(|known: &client::ConversationState| known.conversation_id != state.conversation_id);
            states.push(state);
        }
        token = synced.token;
        if synced.complete {
            states.sort_by(|a, b| a.conversation_id.cmp(&b.conversation_id));
            return states;
        }
    }
}

#[tokio::test]
async fn after_a_crash_every_user_sees_what_it_saw() {
    // Covers by the clock are far apart, so nothing of this is durable but the log.
    let world = World::new().await;
    let (a, b, c) = (world.phone("a", "1").await, world.phone("b", "1").await, world.phone("c", "1").await);
    let group = LogId::group(&a.user, &ClientId::parse("g").unwrap());
    acked(&world.ask(&a, create("g", &["b", "c"])).await);
    for n in 0..5 {
        acked(&world.ask(&a, to_user("b", &format!("d{n}"))).await);
        acked(&world.ask(&b, to_log(&group, &format!("g{n}"))).await);
    }
    world.ask(&b, mark_read(&world, &LogId::direct(&a.user, &b.user), "r", 3)).await;
    acked(&world.ask(&a, remove(&group, "rm", "c")).await);
    acked(&world.ask(&a, to_log(&group, "behind")).await);
    let phones = [&a, &b, &c];
    let mut before = Vec::new();
    for phone in phones {
        before.push(view(&world, phone).await);
    }
    let versions = world.versions(&phones).await;
    let world = world.crash_and_restart().await;
    assert!(world.metrics.caught_up_entries.load(Ordering::Relaxed) > 0);
    for (phone, before) in phones.iter().zip(before) {
        assert_eq!(view(&world, phone).await, before, "{}", phone.user);
    }
    // Whoever was online must hear of it: no version is given out twice.
    let after = world.versions(&phones).await;
    assert!(versions.iter().zip(&after).all(|(before, after)| after > before), "{versions:?} {after:?}");
    // Members are who they were: the removed one is out, the others are in.
    let c = world.phone("c", "1").await;
    assert_eq!(refused(&world.ask(&c, to_log(&group, "x")).await), ErrorCode::NotAllowed);
    let b = world.phone("b", "1").await;
    assert_eq!(acked(&world.ask(&b, to_log(&group, "y")).await), 9);
}

/// Found by kill -9 under load, once in some hundred kills: who had been removed and was back lost the cursor of before, where
/// a page of the log held the one and not the other.
#[tokio::test]
async fn a_cursor_from_before_a_removal_outlives_a_crash_behind_the_return() {
    let world = World::new().await;
    let (a, b) = (world.phone("a", "1").await, world.phone("b", "1").await);
    let group = LogId::group(&a.user, &ClientId::parse("g").unwrap());
    acked(&world.ask(&a, create("g", &["b"])).await);
    let own = acked(&world.ask(&b, to_log(&group, "own")).await);
    acked(&world.ask(&a, remove(&group, "rm", "b")).await);
    // More than a page of a catching up.
    let more = (0..600).map(|n| (&a, to_log(&group, &format!("g{n}")))).collect();
    assert!(world.ask_all(more).await.iter().all(|body| acked(body) > own));
    acked(&world.ask(&a, add(&group, "back", &["b"])).await);
    // Makes the directory durable, which knows of the return then; the inbox is not.
    acked(&world.ask(&a, to_log(&group, "last")).await);
    assert_eq!(view(&world, &b).await[0].read_seq, own);
    let world = world.crash_and_restart().await;
    assert_eq!(view(&world, &b).await[0].read_seq, own);
}

/// Found by chaos: partitions that changed hands every ten seconds were never caught up, and each owner had more to repeat.
#[tokio::test]
async fn a_takeover_that_is_cut_short_leaves_less_to_the_next() {
    let world = World::new().await;
    let a = world.phone("a", "1").await;
    let to = |name: &str| LogId::direct(&a.user, &user(name));
    let first = Shard::of(&to("b")).index();
    let later = (0..).map(|n| format!("peer-{n}")).find(|name| Shard::of(&to(name)).index() > first).unwrap();
    let many = (0..1_100).map(|n| (&a, to_user("b", &format!("m{n}")))).collect();
    for body in world.ask_all(many).await {
        acked(&body);
    }
    acked(&world.ask(&a, to_user(&later, "m")).await);

    let mut world = world.crash().await;
    *world.log.away.lock().unwrap() = Some(to(&later));
    world.start_behind();
    let tries = async {
        while world.metrics.store_errors.load(Ordering::Relaxed) < 3 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, tries).await.expect("it was not tried again");
    assert_eq!(world.metrics.caught_up_entries.load(Ordering::Relaxed), 1_100, "once");
    *world.log.away.lock().unwrap() = None;
    world.ready().await;
    assert_eq!(world.metrics.caught_up_entries.load(Ordering::Relaxed), 1_101);
    let heads: Vec<u64> = view(&world, &a).await.iter().map(|state| state.head_seq).collect();
    assert_eq!(heads.iter().sum::<u64>(), 1_101);
}

#[tokio::test]
async fn the_logs_of_a_shard_are_repeated_side_by_side() {
    const COUNT: usize = 8;
    let world = World::new().await;
    let a = world.phone("a", "1").await;
    let shard_of = |name: &str| Shard::of(&LogId::direct(&a.user, &user(name)));
    let peers = (0..).map(|n| format!("peer-{n}")).filter(|name| shard_of(name) == shard_of("peer-0"));
    for peer in peers.take(COUNT) {
        acked(&world.ask(&a, to_user(&peer, "m")).await);
    }
    let mut world = world.crash().await;
    *world.log.ranges_together.lock().unwrap() = Some(Arc::new(Barrier::new(COUNT)));
    world.start().await;
    assert_eq!(world.metrics.caught_up_entries.load(Ordering::Relaxed), COUNT as u64);
}

#[tokio::test]
async fn commands_wait_for_no_catching_up_and_no_change_of_members_is_passed_over() {
    let world = World::new().await;
    let a = world.phone("a", "1").await;
    let group = LogId::group(&a.user, &ClientId::parse("g").unwrap());
    acked(&world.ask(&a, create("g", &["b", "c"])).await);
    acked(&world.ask(&a, remove(&group, "rm", "c")).await);

    // The directory lost both changes, and is not caught up while the inbox is away.
    let mut world = world.crash().await;
    world.inbox.set_away(true);
    world.start_behind();
    let (a, b, c) = (world.phone("a", "1").await, world.phone("b", "1").await, world.phone("c", "1").await);
    assert_eq!(acked(&world.ask(&a, add(&group, "add", &["d"])).await), 3);
    assert_eq!(refused(&world.ask(&c, to_log(&group, "x")).await), ErrorCode::NotAllowed);
    let known = world.ports.directory.conversation(&group).await.unwrap().unwrap();
    let times: Vec<_> =
        known.members.iter().map(|row| (row.user.as_str(), row.joined_seq.0, row.left_seq.map(|seq| seq.0))).collect();
    assert_eq!(times, [("a", 1, None), ("b", 1, None), ("c", 1, Some(2)), ("d", 3, None)]);

    world.inbox.set_away(false);
    world.ready().await;
    assert_eq!(world.metrics.caught_up_entries.load(Ordering::Relaxed), 3);
    assert_eq!(view(&world, &b).await[0].head_seq, 3);
    assert_eq!(view(&world, &c).await[0].head_seq, 2);
}

#[tokio::test]
async fn repeating_everything_changes_nothing() {
    let mut world = World::new().await;
    let (a, b) = (world.phone("a", "1").await, world.phone("b", "1").await);
    acked(&world.ask(&a, to_user("b", "m")).await);
    acked(&world.ask(&a, create("g", &["b"])).await);
    let before = (view(&world, &a).await, view(&world, &b).await);
    let versions = world.versions(&[&a, &b]).await;
    // Another worker takes the partition over and repeats what was never covered.
    let (_queue, mut consumers) = im_storage::embedded::EmbeddedQueue::new(1, 10);
    let mut second = world.logic.spawn_worker(Box::new(consumers.pop().unwrap()));
    assert!(second.ready().await);
    assert_eq!(world.metrics.caught_up_entries.load(Ordering::Relaxed), 2);
    assert_eq!((view(&world, &a).await, view(&world, &b).await), before);
    assert_eq!(world.versions(&[&a, &b]).await, versions);
    second.stop().await.unwrap();
    world.worker.take().unwrap().stop().await.unwrap();
}

#[tokio::test]
async fn a_stopped_worker_leaves_nothing_to_repeat() {
    let mut world = World::new().await;
    let a = world.phone("a", "1").await;
    acked(&world.ask(&a, to_user("b", "m")).await);
    world.worker.take().unwrap().stop().await.unwrap();
    let world = world.crash_and_restart().await;
    assert_eq!(world.metrics.caught_up_entries.load(Ordering::Relaxed), 0);
    let state = view(&world, &a).await;
    assert_eq!(state[0].head_seq, 1);
}

#[tokio::test]
async fn covers_come_by_themselves_while_the_worker_is_idle() {
    let config = im_logic::LogicConfig { cover_interval_ms: 10, ..generous() };
    let world = World::with(config).await;
    let a = world.phone("a", "1").await;
    acked(&world.ask(&a, to_user("b", "m")).await);
    released(&world, &LogId::direct(&a.user, &user("b"))).await;
}

/// Returns when both projections cover everything of the log: only then may its order be forgotten.
async fn released(world: &World, log: &LogId) {
    let end = world.log.end().await.unwrap();
    while let Tail::Named { .. } = world.log.tail(Shard::of(log), None, &end, 1).await.unwrap() {
        tokio::task::yield_now().await;
    }
}

/// Covers and looks after its claims all the time.
fn restless() -> im_logic::LogicConfig {
    im_logic::LogicConfig { cover_interval_ms: 5, claim_check_interval_ms: 5, ..generous() }
}

#[tokio::test]
async fn a_flushed_inbox_is_made_anew_while_the_worker_runs() {
    let world = World::with(restless()).await;
    let (a, b, c) = (world.phone("a", "1").await, world.phone("b", "1").await, world.phone("c", "1").await);
    let group = LogId::group(&a.user, &ClientId::parse("g").unwrap());
    let pair = LogId::direct(&a.user, &b.user);
    acked(&world.ask(&a, create("g", &["b", "c"])).await);
    for n in 0..5 {
        acked(&world.ask(&a, to_user("b", &format!("d{n}"))).await);
        acked(&world.ask(&b, to_log(&group, &format!("g{n}"))).await);
    }
    world.ask(&b, mark_read(&world, &pair, "r", 3)).await;
    acked(&world.ask(&a, remove(&group, "rm", "c")).await);
    acked(&world.ask(&a, to_log(&group, "behind")).await);
    for log in [&group, &pair, &LogId::user(&b.user)] {
        released(&world, log).await;
    }
    let phones = [&a, &b, &c];
    let mut before = Vec::new();
    for phone in phones {
        before.push((view(&world, phone).await, world.sync(phone, &Default::default(), 100).await.unwrap().token));
    }
    let repaired = world.metrics.projections_repaired.load(Ordering::Relaxed);
    world.inbox.flush();
    let repairing = async {
        while world.metrics.projections_repaired.load(Ordering::Relaxed) == repaired {
            tokio::task::yield_now().await;
        }
        // The repair is under way; what is answered behind it was decided behind it.
        acked(&world.ask(&a, to_user("d", "m")).await)
    };
    tokio::time::timeout(PATIENCE, repairing).await.expect("nobody noticed that the inbox is empty");
    for (phone, (before, token)) in phones.iter().zip(before) {
        let after: Vec<_> = view(&world, phone).await;
        let after: Vec<_> = after.into_iter().filter(|state| state.peer_user_id != "d").collect();
        assert_eq!(after, before, "{}", phone.user);
        // Whoever comes with a token from before the flush is told of everything again, and not of a foreign history.
        let again = world.sync(phone, &token, 100).await.unwrap();
        assert!(before.iter().all(|state| again.conversations.contains(state)), "{}", phone.user);
    }
}

/// A receipt leaves no row: whoever missed one finds nothing new in the rows that are made anew, and looks only if told to.
#[tokio::test]
async fn an_inbox_that_is_made_anew_makes_everyone_look_for_receipts() {
    let world = World::with(restless()).await;
    let (a, b) = (world.phone("a", "1").await, world.phone("b", "1").await);
    let pair = LogId::direct(&a.user, &b.user);
    acked(&world.ask(&a, to_user("b", "m")).await);
    world.ask(&b, mark_read(&world, &pair, "r", 1)).await;
    for log in [&pair, &LogId::user(&b.user)] {
        released(&world, log).await;
    }
    let before = world.versions(&[&a]).await;
    let repaired = world.metrics.projections_repaired.load(Ordering::Relaxed);
    world.inbox.forget_covers();
    let told = async {
        while world.metrics.projections_repaired.load(Ordering::Relaxed) == repaired {
            tokio::task::yield_now().await;
        }
        // Who repairs is through when every shard is covered.
        while world.versions(&[&a]).await <= before {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, told).await.expect("nobody is told to look");
}

#[tokio::test]
async fn a_worker_that_was_replaced_covers_nothing() {
    let mut world = World::with(restless()).await;
    let a = world.phone("a", "1").await;
    let log = LogId::direct(&a.user, &user("b"));
    acked(&world.ask(&a, to_user("b", "first")).await);
    released(&world, &log).await;
    // The new owner claims, and has applied nothing yet of what the old one still stores.
    let shards: Vec<Shard> = Shard::all().collect();
    let claim = world.ports.inbox.claim(&shards).await.unwrap();
    let known = claim.covered.iter().find(|(shard, _)| *shard == Shard::of(&log)).unwrap().1.clone();
    acked(&world.ask(&a, to_user("b", "second")).await);
    // Its last act is to cover.
    world.worker.take().unwrap().stop().await.unwrap();
    let covered = world.ports.inbox.claim(&shards).await.unwrap().covered;
    let after = covered.into_iter().find(|(shard, _)| *shard == Shard::of(&log)).unwrap().1;
    assert_eq!(after, known, "the old owner covered what the new one has to repeat");
}

#[tokio::test]
async fn an_inbox_that_is_away_delays_no_ack_and_gets_what_it_missed_when_it_is_back() {
    let world = World::with(restless()).await;
    let (a, b) = (world.phone("a", "1").await, world.phone("b", "1").await);
    let pair = LogId::direct(&a.user, &b.user);
    acked(&world.ask(&a, to_user("b", "before")).await);
    let token = world.sync(&b, &Default::default(), 100).await.unwrap().token;
    world.inbox.set_away(true);
    assert_eq!(acked(&world.ask(&a, to_user("b", "stored")).await), 2);
    assert_eq!(refused(&world.ask(&b, mark_read(&world, &pair, "r", 2)).await), ErrorCode::Unavailable);
    assert_eq!(acked(&world.ask(&b, to_user("a", "answered")).await), 3);

    // Who asks meanwhile is told where every conversation stands, and again from the same version when the inbox is back.
    let meanwhile = world.sync(&b, &token, 100).await.unwrap();
    assert_eq!(meanwhile.conversations.iter().map(|state| state.head_seq).collect::<Vec<_>>(), [3]);
    assert!(meanwhile.complete);

    world.inbox.set_away(false);
    let repaired = async {
        loop {
            let synced = world.sync(&b, &meanwhile.token, 100).await.unwrap();
            match synced.conversations.first() {
                Some(state) if state.head_seq == 3 => return,
                _ => tokio::task::yield_now().await,
            }
        }
    };
    tokio::time::timeout(PATIENCE, repaired).await.expect("the inbox never got what it missed");
}

/// Nothing is owned until it is caught up, which may take long.
#[tokio::test]
async fn an_inbox_that_is_back_is_used_before_anything_is_caught_up() {
    let world = World::with(restless()).await;
    let a = world.phone("a", "1").await;
    acked(&world.ask(&a, to_user("c", "m")).await);

    let mut world = world.crash().await;
    *world.log.away.lock().unwrap() = Some(LogId::direct(&a.user, &user("c")));
    world.start_behind();
    let (a, b) = (world.phone("a", "1").await, world.phone("b", "1").await);
    acked(&world.ask(&a, to_user("b", "before")).await);
    world.pushes(&b, 1).await;
    world.inbox.set_away(true);
    acked(&world.ask(&a, to_user("b", "missed")).await);
    world.inbox.set_away(false);
    let pushed = async {
        for n in 0.. {
            acked(&world.ask(&a, to_user("b", &format!("m{n}"))).await);
            if world.pushed_so_far(&b).len() > 1 {
                return;
            }
        }
    };
    tokio::time::timeout(PATIENCE, pushed).await.expect("nobody is pushed to any more");
    *world.log.away.lock().unwrap() = None;
    world.ready().await;
    assert!(world.metrics.partitions_caught_up.load(Ordering::Relaxed) > 0);
}
