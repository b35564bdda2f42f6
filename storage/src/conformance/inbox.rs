//! The promises of the inbox.

use super::projection::{a_cover_counts_while_its_claim_stands, cover, covered};
use super::{Stores, entry, log, ok, user};
use crate::ports::{Inbox, Move, ReadCursor, Shard, Tail};
use im_proto::{InboxVersion, Ordinal, Seq};

/// A move of `name` in `of`: head 0 or read 0 leaves it.
fn moved(name: &str, of: &str, head: u64, read: u64) -> Move {
    Move {
        user: user(name),
        log: log(of),
        head: Seq(head),
        head_ordinal: Ordinal(head * 10),
        read: ReadCursor { seq: Seq(read), ordinal: Ordinal(read * 10) },
        touch: false,
    }
}

/// (log, head, read) of all rows above `after`, and the version.
async fn rows(inbox: &dyn Inbox, name: &str, after: u64) -> (Vec<(String, u64, u64)>, u64) {
    let page = ok(inbox.since(&user(name), InboxVersion(after), 1_000).await);
    assert!(page.complete);
    let mut last = after;
    let row = |row: &crate::ports::InboxRow| {
        assert!(row.version.0 > last, "versions rise");
        last = row.version.0;
        assert_eq!((row.head.0 * 10, row.read.seq.0 * 10), (row.head_ordinal.0, row.read.ordinal.0));
        (row.log.as_str().to_owned(), row.head.0, row.read.seq.0)
    };
    let rows = page.rows.iter().map(row).collect();
    assert!(last <= page.version.0.max(after));
    (rows, page.version.0)
}

fn row(log: &str, head: u64, read: u64) -> (String, u64, u64) {
    (log.to_owned(), head, read)
}

pub async fn inbox(stores: &dyn Stores) {
    let ports = stores.empty().await;
    every_move_gives_a_higher_version(&*ports.inbox).await;
    heads_and_cursors_never_fall(&*ports.inbox).await;
    a_touch_moves_the_version_alone(&*ports.inbox).await;
    rows_are_paged_by_version(&*ports.inbox).await;
    a_cover_counts_while_its_claim_stands(&*ports.inbox, &*ports.directory, &ports, "inbox-claims").await;
}

async fn every_move_gives_a_higher_version(inbox: &dyn Inbox) {
    assert_eq!(ok(inbox.versions(&[user("v1")]).await), [InboxVersion(0)]);
    assert_eq!(rows(inbox, "v1", 0).await, (vec![], 0));
    let moves =
        vec![moved("v1", "va", 1, 0), moved("v2", "va", 1, 1), moved("v1", "vb", 1, 0), moved("v1", "va", 2, 0)];
    let answers = ok(inbox.bump(moves).await);
    assert!(answers.iter().all(|moved| moved.version > moved.previous));
    assert_eq!((answers[0].previous, answers[1].previous), (InboxVersion(0), InboxVersion(0)));
    assert_eq!((answers[2].previous, answers[3].previous), (answers[0].version, answers[2].version));
    let versions = ok(inbox.versions(&[user("v2"), user("nobody"), user("v1")]).await);
    assert_eq!(versions, [answers[1].version, InboxVersion(0), answers[3].version]);
    assert_eq!(rows(inbox, "v1", 0).await, (vec![row("vb", 1, 0), row("va", 2, 0)], answers[3].version.0));
    assert_eq!(rows(inbox, "v1", answers[2].version.0).await.0, [row("va", 2, 0)]);
    assert_eq!(rows(inbox, "v1", answers[3].version.0).await.0, []);
}

async fn heads_and_cursors_never_fall(inbox: &dyn Inbox) {
    ok(inbox.bump(vec![moved("fall", "fa", 5, 3)]).await);
    let (_, version) = rows(inbox, "fall", 0).await;
    for (head, read) in [(5, 3), (4, 0), (0, 2), (5, 0)] {
        let answer = ok(inbox.bump(vec![moved("fall", "fa", head, read)]).await)[0];
        assert_eq!((answer.previous.0, answer.version.0), (version, version), "head {head}, read {read}");
    }
    ok(inbox.bump(vec![moved("fall", "fa", 2, 4), moved("fall", "fa", 6, 1)]).await);
    assert_eq!(rows(inbox, "fall", 0).await.0, [row("fa", 6, 4)]);
    let reads = ok(inbox.reads(&[(log("fa"), user("nobody")), (log("fa"), user("fall"))]).await);
    assert_eq!(reads, [ReadCursor::default(), ReadCursor { seq: Seq(4), ordinal: Ordinal(40) }]);
}

async fn a_touch_moves_the_version_alone(inbox: &dyn Inbox) {
    ok(inbox.bump(vec![moved("touch", "ta", 5, 3)]).await);
    let touch = Move { touch: true, ..moved("touch", "ta", 1, 1) };
    let answer = ok(inbox.bump(vec![touch]).await)[0];
    assert!(answer.version > answer.previous);
    assert_eq!(rows(inbox, "touch", answer.previous.0).await, (vec![row("ta", 5, 3)], answer.version.0));
}

async fn rows_are_paged_by_version(inbox: &dyn Inbox) {
    let moves = (1..=10).map(|n| moved("pages", &format!("page-{n}"), 1, 0)).collect();
    ok(inbox.bump(moves).await);
    let (mut after, mut seen) = (InboxVersion(0), 0);
    loop {
        let page = ok(inbox.since(&user("pages"), after, 3).await);
        seen += page.rows.len();
        if page.complete {
            break;
        }
        assert_eq!(page.rows.len(), 3);
        after = page.rows[2].version;
    }
    assert_eq!(seen, 10);
    let ahead = ok(inbox.since(&user("pages"), InboxVersion(u64::MAX), 3).await);
    assert!(ahead.rows.is_empty() && ahead.version.0 < u64::MAX, "a token of another history can be told");
}

/// What a cover covered is there after a crash; a version that was given is not given again; what was lost can be
/// replayed.
pub async fn inbox_after_a_crash(stores: &dyn Stores) {
    let ports = stores.empty().await;
    let of = log("crashed");
    let shards: Vec<_> = Shard::all().collect();
    assert_eq!(covered(&*ports.inbox, Shard::of(&of)).await, None);
    assert!(ports.entry_log.append(vec![entry(&of, 1)]).await.stop.is_none());
    let kept = ok(ports.inbox.bump(vec![moved("crash", "crashed", 1, 0)]).await)[0];
    let end = ok(ports.entry_log.end().await);
    cover(&*ports.inbox, &shards, &end).await;
    assert!(ports.entry_log.append(vec![entry(&of, 2)]).await.stop.is_none());
    let lost = ok(ports.inbox.bump(vec![moved("crash", "crashed", 2, 1)]).await)[0];

    let ports = stores.crash(ports).await;
    assert_eq!(covered(&*ports.inbox, Shard::of(&of)).await, Some(end.clone()));
    let (rows_left, version) = rows(&*ports.inbox, "crash", 0).await;
    assert!(rows_left[0].1 >= 1 && version >= kept.version.0);
    let until = ok(ports.entry_log.end().await);
    let Tail::Named { entries, .. } = ok(ports.entry_log.tail(Shard::of(&of), Some(&end), &until, 10).await) else {
        panic!("nothing was released")
    };
    assert!(entries.contains(&(of, Seq(2))), "what no cover covered is named");
    let replayed = ok(ports.inbox.bump(vec![moved("crash", "crashed", 2, 1), moved("crash", "crashed", 3, 0)]).await);
    assert!(replayed[1].version > lost.version, "a version was given twice");
    assert_eq!(rows(&*ports.inbox, "crash", 0).await.0, [row("crashed", 3, 1)]);
}
