//! A database of a test's own.
//!
//! In: the server named by `IM_TEST_MYSQL`. Out: options for adapters. Always: its name is random, so that runs may overlap.

use im_storage::mysql::{MysqlDirectory, MysqlOptions, migrate};
use sqlx::{AssertSqlSafe, Connection as _, Executor as _, MySqlConnection};
use std::sync::Arc;

pub fn url() -> String {
    std::env::var("IM_TEST_MYSQL").expect("IM_TEST_MYSQL names the server; see scripts/services env")
}

/// A database of its own; dropped at the end.
pub struct Database {
    pub name: String,
    pub options: MysqlOptions,
}

impl Database {
    pub async fn empty() -> Self {
        let name = format!("im_test_{:016x}", rand::random::<u64>());
        let (server, _) = url().rsplit_once('/').map(|(server, of)| (server.to_owned(), of.to_owned())).unwrap();
        let options = MysqlOptions { url: format!("{server}/{name}"), connections_max: 4, allow: Vec::new() };
        let mut admin = MySqlConnection::connect(&url()).await.unwrap();
        admin.execute(AssertSqlSafe(format!("CREATE DATABASE {name} CHARACTER SET utf8mb4"))).await.unwrap();
        Self { name, options }
    }

    /// With the schema.
    pub async fn new() -> Self {
        let database = Self::empty().await;
        migrate::up(&database.options).await.unwrap();
        database
    }

    pub async fn open(&self) -> Arc<MysqlDirectory> {
        MysqlDirectory::open(&self.options).await.unwrap()
    }

    pub async fn run(&self, statement: &str) {
        let mut connection = MySqlConnection::connect(&self.options.url).await.unwrap();
        connection.execute(AssertSqlSafe(statement.to_owned())).await.unwrap();
    }

    pub async fn number(&self, statement: &str) -> i64 {
        let mut connection = MySqlConnection::connect(&self.options.url).await.unwrap();
        sqlx::query_scalar(AssertSqlSafe(statement.to_owned())).fetch_one(&mut connection).await.unwrap()
    }

    pub async fn remove(self) {
        self.run(&format!("DROP DATABASE {}", self.name)).await;
    }
}
