//! The connections to the database.
//!
//! In: options. Out: connections, lent for one call each. Always: a call ends within [`CALL_TIMEOUT`]; a connection whose call
//! failed, timed out or was given up is closed and never lent again; every session has the settings of [`prepare_session`];
//! connections to a server that is no longer the one we talk to are closed.

use super::{MysqlError, MysqlOptions};
use crate::ports::StoreError;
use sqlx::mysql::{MySqlConnectOptions, MySqlDatabaseError, MySqlPoolOptions};
use sqlx::pool::{PoolConnection, PoolConnectionMetadata};
use sqlx::{Connection as _, MySql, MySqlConnection, MySqlPool, Transaction};
use std::future::Future;
use std::str::FromStr as _;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// No call takes longer, all its statements and attempts together.
pub const CALL_TIMEOUT: Duration = Duration::from_secs(9);
/// How long a call waits for a connection.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(8);
/// A connection that was idle for longer is tried before it is lent.
const IDLE_TRUSTED: Duration = Duration::from_secs(1);
/// How long that may take: what stood behind a firewall too long answers nothing.
const PING_TIMEOUT: Duration = Duration::from_secs(1);
/// Prepared statements kept by each connection: more than there are shapes of statements (see `bulk`).
const STATEMENTS_MAX: usize = 128;
/// A transaction that lost against another one is repeated so often.
const ATTEMPTS_MAX: u32 = 6;
/// How long the first repetition waits at most; each further one twice as long.
const PAUSE_MS: u64 = 10;

/// What InnoDB answers to a transaction that must be repeated: lock wait timeout, deadlock, and MariaDB's "record has
/// changed since last read".
const REPEATABLE: [u16; 3] = [1205, 1213, 1020];

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    #[error(transparent)]
    Sql(#[from] sqlx::Error),
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Failure {
    /// The server's number of the error.
    pub fn number(&self) -> Option<u16> {
        let Self::Sql(sqlx::Error::Database(error)) = self else { return None };
        error.try_downcast_ref::<MySqlDatabaseError>().map(MySqlDatabaseError::number)
    }
}

impl From<Failure> for StoreError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Store(error) => error,
            Failure::Sql(error @ (sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_))) => {
                Self::Damaged(format!("mysql: {error}"))
            }
            Failure::Sql(error) => Self::Unavailable(format!("mysql: {error}")),
        }
    }
}

/// A call of a port, ended in time.
pub async fn within<T>(call: impl Future<Output = Result<T, Failure>>) -> Result<T, StoreError> {
    let answered = tokio::time::timeout(CALL_TIMEOUT, call).await;
    answered.map_err(|_| StoreError::Unavailable("mysql: no answer in time".to_owned()))?.map_err(StoreError::from)
}

/// How often a transaction was tried.
#[derive(Default)]
pub struct Attempts(u32);

impl Attempts {
    /// Waits a moment if `failure` says that the transaction may be repeated; else hands it back.
    pub async fn again(&mut self, failure: Failure) -> Result<(), Failure> {
        self.0 += 1;
        if self.0 == ATTEMPTS_MAX || !failure.number().is_some_and(|number| REPEATABLE.contains(&number)) {
            return Err(failure);
        }
        tracing::debug!(attempt = self.0, %failure, "a transaction is repeated");
        // Those who met are to miss each other the next time.
        let pause_ms = rand::random_range(0..PAUSE_MS << self.0);
        tokio::time::sleep(Duration::from_millis(pause_ms)).await;
        Ok(())
    }
}

pub struct Link {
    pool: MySqlPool,
    server: Arc<Mutex<Server>>,
}

/// The server that the last new connection led to.
struct Server {
    identity: String,
    /// Counts the servers, and the returns to one.
    number: u64,
    since: Instant,
}

impl Link {
    /// Connects later.
    pub fn new(options: &MysqlOptions) -> Result<Self, MysqlError> {
        let server = Arc::new(Mutex::new(Server { identity: String::new(), number: 0, since: Instant::now() }));
        let (connected, current) = (server.clone(), server.clone());
        let pool = MySqlPoolOptions::new()
            .max_connections(options.connections_max.max(1))
            .acquire_timeout(ACQUIRE_TIMEOUT)
            .test_before_acquire(false)
            .after_connect(move |connection, _| {
                let server = connected.clone();
                Box::pin(async move {
                    prepare_session(connection).await?;
                    let identity = identity(connection).await?;
                    lock(&server).connected_to(identity);
                    Ok(())
                })
            })
            .before_acquire(move |connection, metadata| {
                let is_of_current = lock(&current).since.elapsed() >= metadata.age;
                Box::pin(async move { Ok(is_of_current && is_alive(connection, metadata).await) })
            })
            .connect_lazy_with(connect_options(options)?);
        Ok(Self { pool, server })
    }

    pub async fn lend(&self) -> Result<Lent, Failure> {
        let connection = self.pool.acquire().await?;
        Ok(Lent { connection, server: lock(&self.server).number, is_done: false })
    }
}

fn lock(server: &Mutex<Server>) -> MutexGuard<'_, Server> {
    server.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Server {
    fn connected_to(&mut self, identity: String) {
        if self.identity != identity {
            *self = Self { identity, number: self.number + 1, since: Instant::now() };
        }
    }
}

/// A connection for the time of one call.
pub struct Lent {
    connection: PoolConnection<MySql>,
    server: u64,
    is_done: bool,
}

impl Lent {
    pub fn connection(&mut self) -> &mut MySqlConnection {
        &mut self.connection
    }

    pub async fn begin(&mut self) -> Result<Transaction<'_, MySql>, Failure> {
        Ok((*self.connection).begin().await?)
    }

    /// The number of the server: another one means that rows written before may be gone.
    pub fn server(&self) -> u64 {
        self.server
    }

    /// The call succeeded: the connection may serve others.
    pub fn done(mut self) {
        self.is_done = true;
    }
}

/// Nobody knows what a connection still has to say whose call was given up, and one that failed may lead to a server that
/// is no longer the writable one.
impl Drop for Lent {
    fn drop(&mut self) {
        if !self.is_done {
            self.connection.close_on_drop();
        }
    }
}

pub fn connect_options(options: &MysqlOptions) -> Result<MySqlConnectOptions, MysqlError> {
    // The parser's words may quote the URL.
    let parsed = MySqlConnectOptions::from_str(&options.url)
        .map_err(|_| MysqlError::Options("url is not mysql://user:password@host:port/database".to_owned()))?;
    if parsed.get_database().is_none() {
        return Err(MysqlError::Options("url names no database".to_owned()));
    }
    // The mode of the session is set whole by `prepare_session`.
    Ok(parsed.pipes_as_concat(false).no_engine_substitution(false).statement_cache_capacity(STATEMENTS_MAX))
}

/// One connection outside a pool, which says at once why it cannot be had.
pub async fn connect(options: &MysqlOptions) -> Result<MySqlConnection, MysqlError> {
    let options = connect_options(options)?;
    let connected = tokio::time::timeout(CALL_TIMEOUT, async {
        let mut connection = MySqlConnection::connect_with(&options).await?;
        prepare_session(&mut connection).await?;
        Ok::<_, sqlx::Error>(connection)
    });
    Ok(connected.await.map_err(|_| MysqlError::Driver("no answer in time".to_owned()))??)
}

/// READ COMMITTED: each statement sees one moment, the newest, and locks only rows that it means. Strict: what does not fit
/// is an error and never cut.
async fn prepare_session(connection: &mut MySqlConnection) -> Result<(), sqlx::Error> {
    sqlx::query("SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED").execute(&mut *connection).await?;
    let settings = "SET SESSION sql_mode = 'STRICT_ALL_TABLES,NO_ENGINE_SUBSTITUTION', SESSION autocommit = 1, \
                    SESSION innodb_lock_wait_timeout = 3";
    sqlx::query(settings).execute(connection).await?;
    Ok(())
}

/// Servers that replicate from one another have different numbers.
async fn identity(connection: &mut MySqlConnection) -> Result<String, sqlx::Error> {
    let asked =
        sqlx::query_scalar!(r#"SELECT CONCAT(@@server_id, ' ', @@hostname, ' ', @@port) AS "identity!: String""#);
    asked.fetch_one(connection).await
}

async fn is_alive(connection: &mut MySqlConnection, metadata: PoolConnectionMetadata) -> bool {
    metadata.idle_for < IDLE_TRUSTED
        || tokio::time::timeout(PING_TIMEOUT, connection.ping()).await.is_ok_and(|answered| answered.is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_server_has_another_number_and_so_has_the_first_one_when_it_returns() {
        let mut server = Server { identity: String::new(), number: 0, since: Instant::now() };
        let mut numbers = Vec::new();
        for identity in ["1 a 3306", "1 a 3306", "2 b 3306", "1 a 3306"] {
            server.connected_to(identity.to_owned());
            numbers.push(server.number);
        }
        assert_eq!(numbers, [1, 1, 2, 3]);
    }

    #[test]
    fn errors_that_a_repetition_cannot_help_are_handed_back() {
        assert_eq!(Failure::from(sqlx::Error::PoolTimedOut).number(), None);
        assert!(matches!(Failure::from(sqlx::Error::PoolTimedOut).into(), StoreError::Unavailable(_)));
        assert!(matches!(Failure::from(sqlx::Error::Decode("x".into())).into(), StoreError::Damaged(_)));
    }
}
