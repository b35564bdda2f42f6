//! The promises of the relations.

use super::{ok, user};
use crate::ports::{Followed, RELATION_BYTES_MAX, Relation, RelationFeed, RelationKey, RelationKind, Relations};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

/// No adapter is slower; the suite fails then.
const PATIENCE: Duration = Duration::from_secs(30);

/// On a store that has no relation yet.
pub async fn relations(relations: &dyn Relations) {
    whoever_follows_is_told_what_is_kept_and_then_what_changes(relations).await;
    the_newest_wins_and_a_removed_one_is_gone(relations).await;
    every_follower_is_told_and_one_that_left_stops_nobody(relations).await;
    a_dropped_call_takes_nothing(relations).await;
}

/// `restart` ends the adapter, or kills it, and opens what it left.
pub async fn relations_after_a_restart<R: Relations>(relations: Arc<R>, restart: impl AsyncFnOnce(Arc<R>) -> Arc<R>) {
    put(&*relations, "r-kept", Some("first")).await;
    put(&*relations, "r-kept", Some("second")).await;
    put(&*relations, "r-gone", Some("first")).await;
    put(&*relations, "r-gone", None).await;
    let relations = restart(relations).await;
    let mut feed = ok(relations.follow().await);
    let kept = caught_up(&mut *feed).await;
    assert_eq!(kept.get("r-kept").map(String::as_str), Some("second"), "what was kept is kept");
    assert_eq!(kept.get("r-gone"), None, "what was removed is gone");
}

fn relation(of: &str, value: Option<&str>) -> Relation {
    let key = RelationKey { kind: RelationKind::Account, user: user(of) };
    Relation { key, value: value.map(|text| text.to_owned().into()) }
}

async fn put(relations: &dyn Relations, of: &str, value: Option<&str>) {
    ok(relations.put(relation(of, value)).await);
}

async fn next(feed: &mut dyn RelationFeed) -> Followed {
    tokio::time::timeout(PATIENCE, feed.next()).await.expect("the feed tells nothing")
}

/// User and value of the next relation.
async fn kept(feed: &mut dyn RelationFeed) -> (String, Option<String>) {
    match next(feed).await {
        Followed::Kept(Relation { key, value }) => {
            assert_eq!(key.kind, RelationKind::Account);
            let text = |value: bytes::Bytes| String::from_utf8_lossy(&value).into_owned();
            (key.user.as_str().to_owned(), value.map(text))
        }
        Followed::CaughtUp => panic!("it was caught up before"),
    }
}

/// What is kept, by user.
async fn caught_up(feed: &mut dyn RelationFeed) -> BTreeMap<String, String> {
    let mut rows = BTreeMap::new();
    loop {
        let Followed::Kept(Relation { key, value }) = next(feed).await else { return rows };
        match value {
            Some(value) => {
                drop(rows.insert(key.user.as_str().to_owned(), String::from_utf8_lossy(&value).into_owned()))
            }
            None => drop(rows.remove(key.user.as_str())),
        }
    }
}

/// Until `of` has `value`: steps before it may be told or left out.
async fn until(feed: &mut dyn RelationFeed, of: &str, value: Option<&str>) {
    let wanted = (of.to_owned(), value.map(str::to_owned));
    while kept(feed).await != wanted {}
}

async fn whoever_follows_is_told_what_is_kept_and_then_what_changes(relations: &dyn Relations) {
    let mut early = ok(relations.follow().await);
    assert_eq!(next(&mut *early).await, Followed::CaughtUp, "nothing is kept yet");
    let large = "x".repeat(RELATION_BYTES_MAX);
    let longest = "u".repeat(im_proto::ID_BYTES_MAX);
    put(relations, "ann", Some("")).await;
    assert_eq!(kept(&mut *early).await, ("ann".to_owned(), Some(String::new())), "an empty value is one");
    put(relations, &longest, Some(&large)).await;
    assert_eq!(kept(&mut *early).await, (longest.clone(), Some(large.clone())));
    let mut late = ok(relations.follow().await);
    let rows = caught_up(&mut *late).await;
    assert_eq!(rows, BTreeMap::from([("ann".to_owned(), String::new()), (longest, large)]));
    put(relations, "bob", Some("new")).await;
    for feed in [&mut early, &mut late] {
        assert_eq!(kept(&mut **feed).await, ("bob".to_owned(), Some("new".to_owned())), "told once, and at once");
    }
}

async fn the_newest_wins_and_a_removed_one_is_gone(relations: &dyn Relations) {
    let mut feed = ok(relations.follow().await);
    caught_up(&mut *feed).await;
    for value in [Some("1"), Some("2"), None, Some("3"), None] {
        put(relations, "cy", value).await;
        put(relations, "dee", value.or(Some("last"))).await;
    }
    until(&mut *feed, "dee", Some("last")).await;
    let rows = caught_up(&mut *ok(relations.follow().await)).await;
    assert_eq!((rows.get("cy"), rows.get("dee").map(String::as_str)), (None, Some("last")));
    put(relations, "cy", None).await;
    put(relations, "nobody", None).await;
    put(relations, "cy", Some("again")).await;
    until(&mut *feed, "cy", Some("again")).await;
}

async fn every_follower_is_told_and_one_that_left_stops_nobody(relations: &dyn Relations) {
    let mut stays = ok(relations.follow().await);
    let leaves = ok(relations.follow().await);
    caught_up(&mut *stays).await;
    drop(leaves);
    for number in 0..100 {
        put(relations, &format!("e{number}"), Some("x")).await;
    }
    // The order of keys among each other is not promised.
    let mut told = BTreeSet::new();
    while told.len() < 100 {
        told.insert(kept(&mut *stays).await);
    }
    assert!(told.iter().all(|(of, value)| of.starts_with('e') && value.as_deref() == Some("x")), "{told:?}");
}

async fn a_dropped_call_takes_nothing(relations: &dyn Relations) {
    let mut feed = ok(relations.follow().await);
    caught_up(&mut *feed).await;
    for number in 0..20 {
        let (of, dropped) = (format!("f{number}"), feed.next());
        tokio::select! {
            biased;
            followed = dropped => panic!("nothing was put: {followed:?}"),
            () = tokio::task::yield_now() => {}
        }
        put(relations, &of, Some("x")).await;
        assert_eq!(kept(&mut *feed).await, (of, Some("x".to_owned())));
    }
}
