//! The promises that both projections make about claims and covers.

use super::{Ports, entry, log, ok};
use crate::ports::{Claim, Covered, Cursor, Projection, Shard};

/// The cursor that a claim of the one shard shows. The claim is the caller's.
async fn claimed(projection: &dyn Projection, shard: Shard) -> (Claim, Option<Cursor>) {
    let claim = ok(projection.claim(&[shard]).await);
    let (of, covered) = claim.covered[0].clone();
    assert_eq!((claim.covered.len(), of), (1, shard));
    (claim, covered)
}

/// What a new claim of `shard` shows as covered.
pub async fn covered(projection: &dyn Projection, shard: Shard) -> Option<Cursor> {
    claimed(projection, shard).await.1
}

/// Takes `shards` over and covers them.
pub async fn cover(projection: &dyn Projection, shards: &[Shard], cursor: &Cursor) {
    let claim = ok(projection.claim(shards).await);
    assert_eq!(ok(projection.cover(&claim, cursor).await), Covered::Noted, "nobody else claimed");
}

/// `of` names a log of which nothing was covered in either projection.
pub async fn a_cover_counts_while_its_claim_stands(
    projection: &dyn Projection,
    other: &dyn Projection,
    ports: &Ports,
    of: &str,
) {
    let of = log(of);
    let shard = Shard::of(&of);
    let before = ok(ports.entry_log.end().await);
    assert!(ports.entry_log.append(vec![entry(&of, 1)]).await.stop.is_none());
    let middle = ok(ports.entry_log.end().await);
    assert!(ports.entry_log.append(vec![entry(&of, 2)]).await.stop.is_none());
    let behind = ok(ports.entry_log.end().await);

    let (old, of_old) = claimed(projection, shard).await;
    assert_eq!(of_old, None);
    assert_eq!(ok(projection.cover(&old, &middle).await), Covered::Noted);
    let (new, of_new) = claimed(projection, shard).await;
    assert_eq!(of_new, Some(middle.clone()));
    let answer = ok(projection.cover(&old, &behind).await);
    assert_eq!(answer, Covered::Replaced, "who was replaced declares nothing done");
    for nothing_new in [&before, &middle] {
        assert_eq!(ok(projection.cover(&new, nothing_new).await), Covered::Noted);
    }
    assert_eq!(covered(projection, shard).await, Some(middle));
    assert_eq!(ok(projection.cover(&new, &behind).await), Covered::Replaced);
    cover(projection, &[shard], &behind).await;
    assert_eq!(covered(projection, shard).await, Some(behind));
    assert_eq!(covered(other, shard).await, None, "one projection's cover says nothing of the other");

    // A claim of many shards is lost with any of them.
    let shards: Vec<Shard> = Shard::all().collect();
    let all = ok(projection.claim(&shards).await);
    assert_eq!(all.shards().collect::<Vec<_>>(), shards);
    claimed(projection, shard).await;
    assert_eq!(ok(projection.cover(&all, &ok(ports.entry_log.end().await)).await), Covered::Replaced);
}
