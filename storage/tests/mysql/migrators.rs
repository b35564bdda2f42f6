//! For how long one migrator waits for another.

use super::database::Database;
use im_storage::mysql::{MysqlError, migrate};
use sqlx::{Connection as _, MySqlConnection};
use std::time::Duration;

/// For what a test waits for.
const PATIENCE: Duration = Duration::from_secs(60);

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
