//! The schema, version by version.
//!
//! In: the statements under `migrations/mysql`, compiled in. Out: tables. Always: one migrator at a time (a lock of the
//! server, which is not waited for without end); a version is never changed once applied, and one that was is refused by its
//! checksum; MySQL has no transactions over tables, so a migration that was cut off is marked and refused until somebody
//! looked.

use super::{MysqlError, MysqlOptions, link};
use crate::planted::planted;
use sqlx::migrate::{MigrateError, Migrator};
use sqlx::{Connection as _, MySqlConnection};
use std::collections::BTreeMap;

static MIGRATIONS: Migrator = sqlx::migrate!("./migrations/mysql");

/// How long one migrator waits for another.
const LOCK_WAIT_SECONDS: u32 = 20;
/// By the name that sqlx gives its own lock, so that earlier programs are waited for too. It asks for it again, which one
/// session may; alone it would wait for ever on MySQL, and on MariaDB, which refuses to wait so, go on without it.
const LOCK: &str = "SELECT GET_LOCK(LOWER(HEX(CRC32(DATABASE()) * 1026731422)), ?)";

/// "No such table".
const NO_TABLE: u16 = 1146;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MigrationStatus {
    pub version: i64,
    pub description: String,
    /// `None`: not applied.
    pub applied_at_ms: Option<i64>,
}

struct Applied {
    version: i64,
    checksum: Vec<u8>,
    is_finished: bool,
    applied_at_ms: i64,
}

/// Every migration this program knows, by rising version.
pub async fn status(options: &MysqlOptions) -> Result<Vec<MigrationStatus>, MysqlError> {
    let mut connection = link::connect(options).await?;
    let status = known(&mut connection).await?;
    connection.close().await?;
    Ok(status)
}

/// Applies what is missing; answers what is applied now.
pub async fn up(options: &MysqlOptions) -> Result<Vec<MigrationStatus>, MysqlError> {
    let mut connection = link::connect(options).await?;
    lock(&mut connection).await?;
    known(&mut connection).await?;
    MIGRATIONS.run(&mut connection).await?;
    let status = known(&mut connection).await?;
    connection.close().await?;
    Ok(status)
}

/// Takes the last applied migration back, with the rows it made; answers what is applied now.
pub async fn down(options: &MysqlOptions) -> Result<Vec<MigrationStatus>, MysqlError> {
    let mut connection = link::connect(options).await?;
    lock(&mut connection).await?;
    let applied = known(&mut connection).await?;
    let mut applied = applied.iter().rev().filter(|of| of.applied_at_ms.is_some());
    if applied.next().is_some() {
        let target = applied.next().map_or(0, |before| before.version);
        MIGRATIONS.undo(&mut connection, target).await?;
    }
    let status = known(&mut connection).await?;
    connection.close().await?;
    Ok(status)
}

/// Until the connection ends.
async fn lock(connection: &mut MySqlConnection) -> Result<(), MysqlError> {
    let asked = sqlx::query_scalar(LOCK).bind(LOCK_WAIT_SECONDS);
    let locked: Option<i64> = asked.fetch_one(connection).await?;
    match locked {
        Some(1) => Ok(()),
        _ if planted("migrator_lock_ignored") => Ok(()),
        _ => Err(MysqlError::Migrating { waited_seconds: LOCK_WAIT_SECONDS }),
    }
}

/// The schema is what this program was written for.
pub async fn assert_newest(connection: &mut MySqlConnection) -> Result<(), MysqlError> {
    let status = known(connection).await?;
    let wanted = status.last().map_or(0, |last| last.version);
    let missing = status.iter().position(|of| of.applied_at_ms.is_none());
    match missing {
        None => Ok(()),
        Some(first) => {
            let applied = first.checked_sub(1).map_or(0, |before| status[before].version);
            Err(MysqlError::OldSchema { applied, wanted })
        }
    }
}

async fn known(connection: &mut MySqlConnection) -> Result<Vec<MigrationStatus>, MysqlError> {
    let mut applied = applied(connection).await?;
    let mut status = Vec::new();
    for migration in MIGRATIONS.iter().filter(|migration| migration.migration_type.is_up_migration()) {
        let found = applied.remove(&migration.version);
        if found.as_ref().is_some_and(|found| !found.is_finished) {
            return Err(MysqlError::UnfinishedMigration { version: migration.version });
        }
        if found.as_ref().is_some_and(|found| found.checksum != *migration.checksum) {
            return Err(MysqlError::ChangedMigration { version: migration.version });
        }
        status.push(MigrationStatus {
            version: migration.version,
            description: migration.description.to_string(),
            applied_at_ms: found.map(|found| found.applied_at_ms),
        });
    }
    match applied.into_keys().next_back() {
        Some(version) => Err(MysqlError::NewSchema { version }),
        None => Ok(status),
    }
}

async fn applied(connection: &mut MySqlConnection) -> Result<BTreeMap<i64, Applied>, MysqlError> {
    let asked = sqlx::query_as!(
        Applied,
        r#"SELECT version AS "version!: i64", checksum AS "checksum!: Vec<u8>", success AS "is_finished!: bool",
                  CAST(UNIX_TIMESTAMP(installed_on) AS SIGNED) * 1000 AS "applied_at_ms!: i64"
           FROM _sqlx_migrations"#
    );
    match asked.fetch_all(connection).await.map_err(link::Failure::from) {
        Ok(rows) => Ok(rows.into_iter().map(|row| (row.version, row)).collect()),
        Err(failure) if failure.number() == Some(NO_TABLE) => Ok(BTreeMap::new()),
        Err(failure) => Err(MysqlError::Driver(failure.to_string())),
    }
}

impl From<MigrateError> for MysqlError {
    fn from(error: MigrateError) -> Self {
        match error {
            MigrateError::Dirty(version) => Self::UnfinishedMigration { version },
            MigrateError::VersionMismatch(version) => Self::ChangedMigration { version },
            MigrateError::VersionMissing(version) => Self::NewSchema { version },
            error => Self::Driver(error.to_string()),
        }
    }
}
