//! What a server that dies or is replaced does to the rows, and who is told.

use super::gate::Gate;
use super::server::{OwnServer, options};
use super::{change, log, users};
use im_storage::mysql::{MysqlDirectory, migrate};
use im_storage::ports::{Claim, Covered, Cursor, Directory as _, Projection as _, Shard};

fn cursor(byte: u8) -> Cursor {
    Cursor(vec![byte].into())
}

/// The answer of the first call that reaches a server.
async fn cover(directory: &MysqlDirectory, claim: &Claim, byte: u8) -> Covered {
    loop {
        if let Ok(covered) = directory.cover(claim, &cursor(byte)).await {
            return covered;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_covered_survives_a_kill_of_the_server() {
    let mut server = OwnServer::start(1).await;
    migrate::up(&server.options()).await.unwrap();
    let directory = MysqlDirectory::open(&server.options()).await.unwrap();
    let shards: Vec<Shard> = Shard::all().collect();
    let claim = directory.claim(&shards).await.unwrap();
    for round in 1..=5 {
        let batch = (0..50).map(|n| change(&log(&format!("group-{round}-{n}")), 1, users(0..4), Vec::new()));
        directory.apply(batch.collect()).await.unwrap();
        assert_eq!(directory.cover(&claim, &cursor(round)).await.unwrap(), Covered::Noted);
        server.kill();
        server.restart().await;
        assert_eq!(cover(&directory, &claim, round).await, Covered::Noted, "a restart loses no claim");
        for n in 0..50 {
            let found = directory.members(&log(&format!("group-{round}-{n}")), None, 9).await.unwrap();
            assert_eq!(found.map(|page| page.members.len()), Some(4), "round {round}, group {n}");
        }
    }
    let again = directory.claim(&shards).await.unwrap();
    assert!(again.fence > claim.fence);
    assert!(again.covered.iter().all(|(_, covered)| *covered == Some(cursor(5))));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failover_to_a_copy_that_lags_is_told_to_who_covers() {
    let (primary, copy) = (OwnServer::start(1).await, OwnServer::start(2).await);
    let mut gate = Gate::new(primary.address.clone()).await;
    migrate::up(&primary.options()).await.unwrap();
    migrate::up(&copy.options()).await.unwrap();
    let directory = MysqlDirectory::open(&options(&gate.address.to_string())).await.unwrap();
    let group = log("group");
    let shard = Shard::of(&group);
    let claim = directory.claim(&[shard]).await.unwrap();
    assert_eq!(directory.cover(&claim, &cursor(1)).await.unwrap(), Covered::Noted);
    // The copy came as far as this; what follows does not reach it.
    let replicated =
        format!("UPDATE shards SET fence = {}, covered = 0x01 WHERE shard = {}", claim.fence, shard.index());
    copy.run(replicated).await;
    directory.apply(vec![change(&group, 1, users(0..3), Vec::new())]).await.unwrap();
    gate.lead_to(copy.address.clone()).await;
    let later = || vec![change(&group, 2, users(3..4), Vec::new())];
    let lagging = loop {
        if let Ok(lagging) = directory.apply(later()).await {
            break lagging;
        }
    };
    assert_eq!(lagging, std::slice::from_ref(&group), "what came before it would never be applied");
    assert_eq!(cover(&directory, &claim, 2).await, Covered::Lost, "the group would be missing for ever");
    let again = directory.claim(&[shard]).await.unwrap();
    assert_eq!(again.covered, [(shard, Some(cursor(1)))], "from here it is repeated");
    let all = vec![change(&group, 1, users(0..3), Vec::new())].into_iter().chain(later()).collect();
    assert_eq!(directory.apply(all).await.unwrap(), []);
    assert_eq!(directory.cover(&claim, &cursor(2)).await.unwrap(), Covered::Replaced);
    assert_eq!(directory.cover(&again, &cursor(2)).await.unwrap(), Covered::Noted);
    // Back again: what was written meanwhile is not here either.
    gate.lead_to(primary.address.clone()).await;
    assert_eq!(cover(&directory, &again, 3).await, Covered::Lost);
}
