//! The promises of the directory.

use super::{Stores, device, entry, log, ok, user};
use crate::ports::{Device, Directory, Membership, MembershipChange, Shard};
use im_proto::{LogId, Ordinal, Seq};

fn created(log: &LogId, joined: &[&str]) -> MembershipChange {
    MembershipChange {
        log: log.clone(),
        seq: Seq(1),
        created: Some(("a name".to_owned(), user(joined[0]))),
        joined: joined.iter().map(|name| user(name)).collect(),
        joined_ordinal: Ordinal(0),
        left: Vec::new(),
    }
}

fn change(log: &LogId, seq: u64, joined: &[&str], left: &[&str]) -> MembershipChange {
    MembershipChange {
        log: log.clone(),
        seq: Seq(seq),
        created: None,
        joined: joined.iter().map(|name| user(name)).collect(),
        joined_ordinal: Ordinal(seq * 10),
        left: left.iter().map(|name| user(name)).collect(),
    }
}

pub async fn directory(stores: &dyn Stores) {
    let directory = stores.empty().await.directory;
    changes_are_applied_in_their_order_and_once(&*directory).await;
    a_rejoin_begins_a_new_time(&*directory).await;
    lists_are_sorted_and_paged(&*directory).await;
    devices_are_remembered_per_user(&*directory).await;
}

/// What was covered is there after a crash; a cover never goes back.
pub async fn directory_after_a_crash(stores: &dyn Stores) {
    let ports = stores.empty().await;
    let group = log("covered");
    let shard = Shard::of(&group);
    assert_eq!(ok(ports.directory.covered(shard).await), None);
    let before = ok(ports.entry_log.end().await);
    assert!(ports.entry_log.append(vec![entry(&group, 1)]).await.stop.is_none());
    let end = ok(ports.entry_log.end().await);
    ok(ports.directory.apply(vec![created(&group, &["ann", "bob"])]).await);
    ok(ports.directory.cover(&[shard], &end).await);
    ok(ports.directory.cover(&[shard], &before).await);

    let ports = stores.crash(ports).await;
    assert_eq!(ok(ports.directory.covered(shard).await), Some(end));
    assert_eq!(ok(ports.directory.members(&group, None, 10).await).len(), 2);
    assert_eq!(ok(ports.inbox.covered(shard).await), None, "one projection's cover says nothing of the other");
}

async fn changes_are_applied_in_their_order_and_once(directory: &dyn Directory) {
    let group = log("applied");
    assert_eq!(ok(directory.conversation(&group).await), None);
    let changes = vec![created(&group, &["ann", "bob"]), change(&group, 2, &["cy"], &["bob"])];
    ok(directory.apply(changes.clone()).await);
    let first = ok(directory.conversation(&group).await);
    let Some(conversation) = &first else { panic!("not created") };
    assert_eq!((conversation.name.as_str(), &conversation.creator), ("a name", &user("ann")));
    assert_eq!(conversation.applied_seq, Seq(2));
    let members: Vec<_> =
        conversation.members.iter().map(|m| (m.user.as_str(), m.joined_seq.0, m.left_seq.map(|seq| seq.0))).collect();
    assert_eq!(members, [("ann", 1, None), ("bob", 1, Some(2)), ("cy", 2, None)]);
    // Again, also out of order and one by one: nothing changes.
    for again in changes.into_iter().rev() {
        ok(directory.apply(vec![again]).await);
    }
    assert_eq!(ok(directory.conversation(&group).await), first);
    // A change without a member still moves the mark.
    ok(directory.apply(vec![change(&group, 5, &[], &[])]).await);
    assert_eq!(ok(directory.conversation(&group).await).map(|c| c.applied_seq), Some(Seq(5)));
}

async fn a_rejoin_begins_a_new_time(directory: &dyn Directory) {
    let group = log("rejoin");
    ok(directory.apply(vec![created(&group, &["ann", "bob"])]).await);
    ok(directory.apply(vec![change(&group, 4, &["bob", "ann"], &["nobody"])]).await);
    for name in ["ann", "bob"] {
        let row = ok(directory.member(&group, &user(name)).await);
        assert_eq!(
            row.map(|of| (of.row.joined_seq, of.applied_seq)),
            Some((Seq(1), Seq(4))),
            "who is a member does not join"
        );
    }
    ok(directory.apply(vec![change(&group, 5, &[], &["bob"]), change(&group, 8, &["bob"], &[])]).await);
    let Some(Membership { row, applied_seq }) = ok(directory.member(&group, &user("bob")).await) else {
        panic!("bob is gone")
    };
    assert_eq!(applied_seq, Seq(8));
    assert_eq!((row.joined_seq, row.joined_ordinal, row.left_seq), (Seq(8), Ordinal(80), None));
    assert_eq!(ok(directory.member(&group, &user("nobody")).await), None);
}

async fn lists_are_sorted_and_paged(directory: &dyn Directory) {
    let group = log("paged");
    ok(directory.apply(vec![created(&group, &["p4", "p1", "p3", "p2", "p5"])]).await);
    ok(directory.apply(vec![change(&group, 2, &[], &["p3"])]).await);
    let page = async |after: Option<&str>, limit| {
        let rows = ok(directory.members(&group, after.map(user).as_ref(), limit).await);
        rows.iter().map(|row| row.user.as_str().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(page(None, 3).await, ["p1", "p2", "p4"]);
    assert_eq!(page(Some("p2"), 10).await, ["p4", "p5"]);
    assert_eq!(page(Some("p5"), 10).await, [""; 0]);
    let others: Vec<_> = ["paged-2", "paged-1"].iter().map(|name| log(name)).collect();
    ok(directory.apply(others.iter().map(|log| created(log, &["p3"])).collect()).await);
    let mine = ok(directory.conversations_of(&user("p3"), None, 10).await);
    assert_eq!(mine, [group.clone(), log("paged-1"), log("paged-2")], "a conversation left is still listed");
    assert_eq!(ok(directory.conversations_of(&user("p3"), Some(&group), 1).await), [log("paged-1")]);
    assert_eq!(
        ok(directory.conversations_of(&user("p"), None, 10).await),
        [],
        "no user's id is the front of another's"
    );
}

async fn devices_are_remembered_per_user(directory: &dyn Directory) {
    let of = |id: &str, platform: &str| Device { id: device(id), platform: platform.to_owned() };
    for (owner, id, platform) in [("dee", "b", "web"), ("dee", "a", "ios"), ("dee", "b", "android"), ("de", "c", "x")] {
        ok(directory.record_device(&user(owner), of(id, platform)).await);
    }
    assert_eq!(ok(directory.devices(&user("dee")).await), [of("a", "ios"), of("b", "android")]);
    assert_eq!(ok(directory.devices(&user("d")).await), []);
}
