//! Which connections are used, and for how long one migrator waits for another.

use super::database::{Database, url};
use super::gate::Gate;
use super::server::{OwnServer, options};
use super::user;
use futures_util::future::join_all;
use im_storage::mysql::{MysqlDirectory, MysqlError, MysqlOptions, check, migrate};
use im_storage::ports::{Directory as _, StoreError};
use sqlx::{Connection as _, MySqlConnection};
use std::time::Duration;

/// For what a test waits for.
const PATIENCE: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread")]
async fn of_the_connections_to_a_host_that_died_one_is_met_and_the_others_are_not_tried() {
    let database = Database::new().await;
    let server = url().rsplit_once('@').unwrap().1.rsplit_once('/').unwrap().0.to_owned();
    let gate = Gate::new(server.clone()).await;
    let through = database.options.url.replace(&server, &gate.address.to_string());
    let directory = MysqlDirectory::open(&MysqlOptions { url: through, ..database.options.clone() }).await.unwrap();
    let before = gate.accepted();
    while gate.accepted() < before + 3 {
        let together = (0..8).map(|_| async { directory.devices(&user(0)).await.unwrap() });
        join_all(together).await;
    }
    gate.hang();
    // It may meet one that was in use a moment ago, and then nobody answers.
    let met = directory.devices(&user(0)).await;
    assert!(matches!(met, Ok(_) | Err(StoreError::Unavailable(_))), "{met:?}");
    for n in 0..4 {
        let answer = directory.devices(&user(n)).await;
        assert!(answer.is_ok(), "call {n} behind the first met another dead connection: {answer:?}");
    }
    gate.remove().await;
    database.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_takes_no_writes_is_not_asked_until_it_is_promoted() {
    let (primary, copy) = (OwnServer::start(1).await, OwnServer::start(2).await);
    let gate = Gate::new(primary.address.clone()).await;
    migrate::up(&primary.options()).await.unwrap();
    migrate::up(&copy.options()).await.unwrap();
    let directory = MysqlDirectory::open(&options(&gate.address.to_string())).await.unwrap();
    directory.devices(&user(0)).await.unwrap();
    copy.run("SET GLOBAL read_only = 1".to_owned()).await;
    gate.lead_to(copy.address.clone());
    // The first one may meet a connection that was cut.
    for _ in 0..2 {
        let read = directory.devices(&user(0)).await;
        assert!(matches!(read, Err(StoreError::Unavailable(_))), "what a copy holds is not what is so: {read:?}");
    }
    let found: Vec<_> = check(&copy.options()).await.unwrap().into_iter().map(|finding| finding.name).collect();
    assert!(found.contains(&"mysql.read_only"), "an operator is told why: {found:?}");
    copy.run("SET GLOBAL read_only = 0".to_owned()).await;
    let promoted = async { while directory.devices(&user(0)).await.is_err() {} };
    tokio::time::timeout(PATIENCE, promoted).await.expect("it is used once it is promoted");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_migrator_that_meets_another_one_says_so_and_changes_nothing() {
    let database = Database::empty().await;
    let mut other = MySqlConnection::connect(&database.options.url).await.unwrap();
    // As the migrators of sqlx name it.
    let lock = "SELECT GET_LOCK(LOWER(HEX(CRC32(DATABASE()) * 1026731422)), 0)";
    let locked: Option<i64> = sqlx::query_scalar(lock).fetch_one(&mut other).await.unwrap();
    assert_eq!(locked, Some(1));
    let met =
        tokio::time::timeout(PATIENCE, migrate::up(&database.options)).await.expect("it waits for no one for ever");
    assert!(matches!(met, Err(MysqlError::Migrating { .. })), "{met:?}");
    let status = migrate::status(&database.options).await.unwrap();
    assert!(status.iter().all(|migration| migration.applied_at_ms.is_none()), "{status:?}");
    other.close().await.unwrap();
    let applied = migrate::up(&database.options).await.unwrap();
    assert!(applied.iter().all(|migration| migration.applied_at_ms.is_some()), "{applied:?}");
    database.remove().await;
}
