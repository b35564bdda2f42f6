//! The promises of the directory.

use super::projection::{a_cover_counts_while_its_claim_stands, cover, covered};
use super::{Stores, device, entry, log, ok, user};
use crate::ports::{
    Created, Device, Directory, Header, MemberRow, Membership, MembershipChange, ReadCursor, ReadMark, Shard,
};
use im_proto::{LogId, Ordinal, Seq};

fn created(log: &LogId, joined: &[&str]) -> MembershipChange {
    MembershipChange {
        log: log.clone(),
        seq: Seq(1),
        after: Seq(0),
        created: Some(Created { name: "a name".to_owned(), creator: user(joined[0]), peer: None }),
        joined: joined.iter().map(|name| user(name)).collect(),
        joined_ordinal: Ordinal(0),
        left: Vec::new(),
    }
}

fn change(log: &LogId, seq: u64, joined: &[&str], left: &[&str]) -> MembershipChange {
    MembershipChange {
        log: log.clone(),
        seq: Seq(seq),
        after: Seq(0),
        created: None,
        joined: joined.iter().map(|name| user(name)).collect(),
        joined_ordinal: Ordinal(seq * 10),
        left: left.iter().map(|name| user(name)).collect(),
    }
}

pub async fn directory(stores: &dyn Stores) {
    let ports = stores.empty().await;
    let directory = ports.directory.clone();
    changes_are_applied_in_their_order_and_once(&*directory).await;
    no_change_is_applied_over_one_that_is_lacking(&*directory).await;
    a_rejoin_begins_a_new_time(&*directory).await;
    lists_are_sorted_and_paged(&*directory).await;
    a_direct_conversation_names_its_peer(&*directory).await;
    large_conversations_are_those_with_more_present_members(&*directory).await;
    memberships_are_answered_in_the_order_asked(&*directory).await;
    read_cursors_are_kept_and_never_fall(&*directory).await;
    devices_are_remembered_per_user(&*directory).await;
    a_cover_counts_while_its_claim_stands(&*directory, &*ports.inbox, &ports, "directory-claims").await;
}

/// What was covered is there after a crash; a cover never goes back.
pub async fn directory_after_a_crash(stores: &dyn Stores) {
    let ports = stores.empty().await;
    let group = log("covered");
    let shard = Shard::of(&group);
    assert_eq!(covered(&*ports.directory, shard).await, None);
    assert!(ports.entry_log.append(vec![entry(&group, 1)]).await.stop.is_none());
    let end = ok(ports.entry_log.end().await);
    ok(ports.directory.apply(vec![created(&group, &["ann", "bob"])]).await);
    let read = read_mark("covered", "ann", 1);
    ok(ports.directory.record_reads(vec![read.clone()]).await);
    cover(&*ports.directory, &[shard], &end).await;

    let ports = stores.crash(ports).await;
    assert_eq!(covered(&*ports.directory, shard).await, Some(end));
    assert_eq!(ok(ports.directory.members(&group, None, 10).await).map(|page| page.members.len()), Some(2));
    assert_eq!(ok(ports.directory.reads(&[(group, user("ann"))]).await), [read.read]);
}

fn read_mark(of: &str, reader: &str, seq: u64) -> ReadMark {
    ReadMark { log: log(of), user: user(reader), read: ReadCursor { seq: Seq(seq), ordinal: Ordinal(seq * 10) } }
}

/// The one row of `name` in `of`, and how much of the log it shows.
async fn member(directory: &dyn Directory, of: &LogId, name: &str) -> Option<(MemberRow, Seq)> {
    let membership = ok(directory.memberships(&user(name), std::slice::from_ref(of)).await).remove(0)?;
    Some((membership.row, membership.header.applied_seq))
}

async fn a_direct_conversation_names_its_peer(directory: &dyn Directory) {
    let pair = log("pair");
    let peer = Some(user("bob"));
    let header = Created { name: String::new(), creator: user("ann"), peer };
    ok(directory
        .apply(vec![MembershipChange { created: Some(header.clone()), ..created(&pair, &["ann", "bob"]) }])
        .await);
    let page = ok(directory.members(&pair, None, 0).await);
    let page = page.map(|page| (page.header, page.members.len()));
    assert_eq!(page, Some((Header { created: header, applied_seq: Seq(1) }, 0)));
}

async fn large_conversations_are_those_with_more_present_members(directory: &dyn Directory) {
    let [one, two, three] = ["glarge-1", "glarge-2", "glarge-3"].map(log);
    let all = ["lea", "lea-2", "lea-3", "lea-4"];
    ok(directory.apply(vec![created(&one, &all[..3]), created(&two, &all), created(&three, &all[..2])]).await);
    let large = async |name: &str, members_min, after: Option<&LogId>, limit| {
        let listed = ok(directory.large_conversations(&user(name), members_min, after, limit).await);
        listed.into_iter().map(|(log, of)| (log, of.row.joined_seq.0, of.header.applied_seq.0)).collect::<Vec<_>>()
    };
    assert_eq!(large("lea", 2, None, 10).await, [(one.clone(), 1, 1), (two.clone(), 1, 1)]);
    assert_eq!(large("lea", 2, None, 1).await, [(one.clone(), 1, 1)]);
    assert_eq!(large("lea", 2, Some(&one), 10).await, [(two.clone(), 1, 1)]);
    assert_eq!(large("lea", 4, None, 10).await, []);
    assert_eq!(large("lea-4", 2, None, 10).await, [(two.clone(), 1, 1)]);
    // Who joins again, or leaves without being there, changes no count; who left is in none.
    let again = change(&one, 2, &["lea", "lea-3"], &["lea-9"]);
    ok(directory.apply(vec![again.clone(), change(&two, 2, &[], &["lea"]), change(&three, 2, &["lea-3"], &[])]).await);
    assert_eq!(large("lea", 2, None, 10).await, [(one.clone(), 1, 2), (three.clone(), 1, 2)]);
    assert_eq!(large("lea-3", 2, None, 10).await, [(one.clone(), 1, 2), (two.clone(), 1, 2), (three, 2, 2)]);
    ok(directory
        .apply(vec![again, change(&one, 3, &["lea-5"], &["lea-2", "lea-3"]), change(&two, 3, &["lea"], &[])])
        .await);
    assert_eq!(large("lea", 2, None, 1).await, [(two.clone(), 3, 3)]);
    assert_eq!(large("lea-5", 1, None, 10).await, [(one, 3, 3)]);
    assert_eq!(large("lea", 3, None, 10).await, [(two, 3, 3)]);
}

async fn memberships_are_answered_in_the_order_asked(directory: &dyn Directory) {
    let (one, two, unknown) = (log("asked-1"), log("asked-2"), log("asked-3"));
    ok(directory.apply(vec![created(&one, &["mel"]), created(&two, &["ned", "mel"])]).await);
    ok(directory.apply(vec![change(&two, 3, &[], &["mel"])]).await);
    let asked = [two.clone(), unknown, one, two];
    let answered = ok(directory.memberships(&user("mel"), &asked).await);
    let seqs = |of: &Option<Membership>| of.as_ref().map(|of| (of.row.left_seq, of.header.applied_seq));
    let left = Some((Some(Seq(3)), Seq(3)));
    assert_eq!(answered.iter().map(seqs).collect::<Vec<_>>(), [left, None, Some((None, Seq(1))), left]);
    assert_eq!(answered[0].as_ref().map(|of| &of.header.created.creator), Some(&user("ned")));
    assert_eq!(ok(directory.memberships(&user("ned"), &asked[1..3]).await), [None, None], "known, but not in it");
    assert_eq!(ok(directory.memberships(&user("mel"), &[]).await), []);
}

async fn read_cursors_are_kept_and_never_fall(directory: &dyn Directory) {
    let reads = |marks: &[(&str, &str, u64)]| marks.iter().map(|(of, who, seq)| read_mark(of, who, *seq)).collect();
    // Nothing of these conversations was applied: the cursors come from other logs.
    ok(directory.record_reads(reads(&[("read-1", "ann", 5), ("read-1", "bob", 2), ("read-2", "ann", 1)])).await);
    ok(directory.record_reads(reads(&[("read-1", "ann", 4), ("read-1", "bob", 3), ("read-1", "bob", 1)])).await);
    ok(directory.record_reads(Vec::new()).await);
    let asked = [("read-2", "ann"), ("read-2", "bob"), ("read-1", "bob"), ("read-1", "ann")];
    let asked: Vec<_> = asked.iter().map(|(of, who)| (log(of), user(who))).collect();
    let answered: Vec<_> = ok(directory.reads(&asked).await).iter().map(|read| (read.seq.0, read.ordinal.0)).collect();
    assert_eq!(answered, [(1, 10), (0, 0), (3, 30), (5, 50)]);

    // The furthest of a conversation; one whose id begins with another's is another one.
    ok(directory.record_reads(reads(&[("read-11", "ann", 99)])).await);
    for (of, furthest) in [("read-1", Some(5)), ("read-2", Some(1)), ("read-3", None)] {
        let expected = furthest.map(|seq| read_mark(of, "ann", seq));
        assert_eq!(ok(directory.furthest_read(&log(of)).await), expected);
    }
}

async fn changes_are_applied_in_their_order_and_once(directory: &dyn Directory) {
    let group = log("applied");
    assert_eq!(ok(directory.conversation(&group).await), None);
    let changes = vec![created(&group, &["ann", "bob"]), change(&group, 2, &["cy"], &["bob"])];
    ok(directory.apply(changes.clone()).await);
    let first = ok(directory.conversation(&group).await);
    let Some(conversation) = &first else { panic!("not created") };
    let header = &conversation.header;
    assert_eq!((header.created.name.as_str(), &header.created.creator), ("a name", &user("ann")));
    assert_eq!((&header.created.peer, header.applied_seq), (&None, Seq(2)));
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
    assert_eq!(ok(directory.conversation(&group).await).map(|c| c.header.applied_seq), Some(Seq(5)));
}

/// As a copy has it that took over before it had everything.
async fn no_change_is_applied_over_one_that_is_lacking(directory: &dyn Directory) {
    let (group, absent, whole) = (log("hole"), log("hole-absent"), log("hole-whole"));
    let behind =
        |of, after, seq, joined: &[&str]| MembershipChange { after: Seq(after), ..change(of, seq, joined, &[]) };
    ok(directory.apply(vec![created(&group, &["ann"]), created(&whole, &["ann"])]).await);
    // Its change 3 was never applied here.
    let over = vec![
        behind(&group, 3, 5, &["cy"]),
        behind(&group, 5, 6, &["dee"]),
        behind(&absent, 1, 2, &["cy"]),
        behind(&whole, 1, 2, &["cy"]),
    ];
    assert_eq!(ok(directory.apply(over).await), [group.clone(), absent.clone()], "named, and the others applied");
    assert_eq!(member(directory, &group, "cy").await, None);
    assert_eq!(member(directory, &absent, "cy").await, None);
    assert_eq!(member(directory, &group, "ann").await.map(|(_, applied)| applied), Some(Seq(1)), "its place is kept");
    assert_eq!(member(directory, &whole, "cy").await.map(|(_, applied)| applied), Some(Seq(2)));
    let all = [(1, 3, "bob"), (3, 5, "cy"), (5, 6, "dee")].map(|(after, seq, who)| behind(&group, after, seq, &[who]));
    assert_eq!(ok(directory.apply(all.to_vec()).await), []);
    for name in ["ann", "bob", "cy", "dee"] {
        let row = member(directory, &group, name).await;
        assert_eq!(row.map(|(row, applied)| (row.left_seq, applied)), Some((None, Seq(6))), "{name}");
    }
    assert_eq!(ok(directory.apply(all.to_vec()).await), [], "what was applied lacks nothing");
}

async fn a_rejoin_begins_a_new_time(directory: &dyn Directory) {
    let group = log("rejoin");
    ok(directory.apply(vec![created(&group, &["ann", "bob"])]).await);
    ok(directory.apply(vec![change(&group, 4, &["bob", "ann"], &["nobody"])]).await);
    for name in ["ann", "bob"] {
        let seqs = member(directory, &group, name).await.map(|(row, applied)| (row.joined_seq, applied));
        assert_eq!(seqs, Some((Seq(1), Seq(4))), "who is a member does not join");
    }
    ok(directory.apply(vec![change(&group, 5, &[], &["bob"]), change(&group, 8, &["bob"], &[])]).await);
    let Some((row, applied_seq)) = member(directory, &group, "bob").await else { panic!("bob is gone") };
    assert_eq!(applied_seq, Seq(8));
    assert_eq!((row.joined_seq, row.joined_ordinal, row.left_seq), (Seq(8), Ordinal(80), None));
    assert_eq!(member(directory, &group, "nobody").await, None);
}

async fn lists_are_sorted_and_paged(directory: &dyn Directory) {
    let group = log("paged");
    ok(directory.apply(vec![created(&group, &["p4", "p1", "p3", "p2", "p5"])]).await);
    ok(directory.apply(vec![change(&group, 2, &[], &["p3"])]).await);
    let page = async |after: Option<&str>, limit| {
        let Some(page) = ok(directory.members(&group, after.map(user).as_ref(), limit).await) else {
            panic!("not created")
        };
        assert_eq!(page.header.applied_seq, Seq(2));
        page.members.iter().map(|row| row.user.as_str().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(page(None, 3).await, ["p1", "p2", "p4"]);
    assert_eq!(page(Some("p2"), 10).await, ["p4", "p5"]);
    assert_eq!(page(Some("p5"), 10).await, [""; 0]);
    assert_eq!(ok(directory.members(&log("never-made"), None, 1).await), None);
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
