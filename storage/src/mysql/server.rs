//! What a MySQL server says of itself, and what of that an operator should know.
//!
//! In: its variables and our tables. Out: findings. Always: looks only; a variable that a server does not have is no finding;
//! what our sessions set for themselves is looked at as they see it, since a proxy may undo it.

use super::{MysqlError, MysqlOptions, link, migrate};
use crate::finding::{Finding, Severity, judge};
use sqlx::{Connection as _, MySqlConnection, Row as _};
use std::collections::HashMap;

/// The oldest releases that the statements were written for, as (major, minor).
const MYSQL_MIN: (u32, u32) = (8, 4);
const MARIADB_MIN: (u32, u32) = (10, 11);

/// Values of `innodb_doublewrite` with which a torn page cannot be mended; the last one only tells that it is torn.
const NO_DOUBLEWRITE: [&str; 3] = ["OFF", "0", "DETECT_ONLY"];

/// What an operator should know of the server and its schema, the worst first. Changes nothing.
pub async fn check(options: &MysqlOptions) -> Result<Vec<Finding>, MysqlError> {
    let look = async {
        let mut connection = link::connect(options).await?;
        let mut found = findings(&mut connection).await?;
        if let Err(error) = migrate::assert_newest(&mut connection).await {
            let mend = "run `im-server migrate up` of the release that is to run";
            found.push(Finding::new("mysql.schema", Severity::Unsafe, error.to_string(), mend));
        }
        connection.close().await?;
        Ok(judge(found, &options.allow))
    };
    let looked = tokio::time::timeout(link::CALL_TIMEOUT, look).await;
    looked.map_err(|_| MysqlError::Driver("no answer in time".to_owned()))?
}

pub async fn findings(connection: &mut MySqlConnection) -> Result<Vec<Finding>, MysqlError> {
    let mut found = of_variables(&variables(connection).await?);
    // Tables that are not there yet are no finding: the schema's version says so.
    let columns = sqlx::query_scalar!(
        r#"SELECT CONCAT(table_name, '.', column_name) AS "place!: String" FROM information_schema.columns
           WHERE table_schema = DATABASE()
             AND table_name IN ('conversations', 'members', 'read_marks', 'devices')
             AND column_name IN ('log', 'user', 'creator', 'peer', 'device') AND collation_name <> 'ascii_bin'"#
    );
    let columns = columns.fetch_all(&mut *connection).await?;
    if !columns.is_empty() {
        let mend = "make them VARCHAR(64) CHARACTER SET ascii COLLATE ascii_bin, as the migrations do";
        let what = format!("ids would not be compared byte by byte: {}", columns.join(", "));
        found.push(Finding::new("mysql.collation", Severity::Unsafe, what, mend));
    }
    let tables = sqlx::query_scalar!(
        r#"SELECT table_name AS "name!: String" FROM information_schema.tables
           WHERE table_schema = DATABASE()
             AND table_name IN ('conversations', 'members', 'read_marks', 'devices', 'shards') AND engine <> 'InnoDB'"#
    );
    let tables = tables.fetch_all(connection).await?;
    if !tables.is_empty() {
        let what = format!("tables without transactions: {}", tables.join(", "));
        found.push(Finding::new("mysql.engine", Severity::Unsafe, what, "ALTER TABLE … ENGINE = InnoDB"));
    }
    Ok(found)
}

/// Lower-case names. Not checked when this is compiled: the two products do not have the same variables.
async fn variables(connection: &mut MySqlConnection) -> Result<HashMap<String, String>, sqlx::Error> {
    let asked = sqlx::query(
        "SHOW SESSION VARIABLES WHERE Variable_name IN ('version', 'innodb_flush_log_at_trx_commit', 'innodb_doublewrite', \
         'log_bin', 'sync_binlog', 'binlog_format', 'tx_isolation', 'transaction_isolation', 'sql_mode', 'read_only')",
    );
    let rows = asked.fetch_all(connection).await?;
    rows.iter().map(|row| Ok((row.try_get::<String, _>(0)?.to_lowercase(), row.try_get(1)?))).collect()
}

fn of_variables(variables: &HashMap<String, String>) -> Vec<Finding> {
    let says = |name: &str| variables.get(name).map(String::as_str);
    let mut found = Vec::new();
    let mut unsafe_one = |name, what: String, mend: &str| found.push(Finding::new(name, Severity::Unsafe, what, mend));
    if let Some(version) = says("version").filter(|version| is_too_old(version)) {
        unsafe_one("mysql.version", format!("version {version} is too old"), "upgrade to MySQL 8.4 or MariaDB 10.11");
    }
    if let Some(value) = says("innodb_flush_log_at_trx_commit").filter(|value| *value != "1") {
        let what = format!("innodb_flush_log_at_trx_commit is {value}: a power cut loses what was committed");
        unsafe_one("mysql.flush_log", what, "set innodb_flush_log_at_trx_commit = 1");
    }
    if let Some(value) = says("innodb_doublewrite").filter(|value| NO_DOUBLEWRITE.contains(value)) {
        let what = format!("innodb_doublewrite is {value}: a power cut can tear a page");
        unsafe_one("mysql.doublewrite", what, "set innodb_doublewrite = ON, unless the disk writes pages whole");
    }
    if says("log_bin").is_some_and(|value| ["ON", "1"].contains(&value)) {
        if let Some(value) = says("sync_binlog").filter(|value| *value != "1") {
            let what = format!("sync_binlog is {value}: after a power cut the replicas have other rows");
            unsafe_one("mysql.sync_binlog", what, "set sync_binlog = 1");
        }
        if says("binlog_format") == Some("STATEMENT") {
            let what = "binlog_format is STATEMENT: READ COMMITTED cannot write".to_owned();
            unsafe_one("mysql.binlog_format", what, "set binlog_format = ROW");
        }
    }
    let isolation = says("transaction_isolation").or_else(|| says("tx_isolation"));
    if let Some(value) = isolation.filter(|value| *value != "READ-COMMITTED") {
        let what = format!("our sessions have {value} though they asked for READ-COMMITTED");
        unsafe_one("mysql.isolation", what, "let the proxy keep what a session sets");
    }
    if let Some(value) = says("sql_mode").filter(|value| !value.contains("STRICT_")) {
        let what = format!("our sessions have sql_mode {value:?} though they asked for strict");
        unsafe_one("mysql.sql_mode", what, "let the proxy keep what a session sets");
    }
    if says("read_only").is_some_and(|value| !["OFF", "0"].contains(&value)) {
        unsafe_one("mysql.read_only", "the server takes no writes".to_owned(), "give the address of the primary");
    }
    found
}

fn is_too_old(version: &str) -> bool {
    let mut numbers = version.split(|c: char| !c.is_ascii_digit()).map_while(|part| part.parse::<u32>().ok());
    let release = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    release < if version.contains("MariaDB") { MARIADB_MIN } else { MYSQL_MIN }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(variables: &[(&str, &str)]) -> Vec<&'static str> {
        let variables = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        of_variables(&variables).iter().map(|finding| finding.name).collect()
    }

    #[test]
    fn each_weak_setting_is_a_finding_of_its_own_name() {
        let sound = [
            ("version", "8.4.3"),
            ("innodb_flush_log_at_trx_commit", "1"),
            ("innodb_doublewrite", "ON"),
            ("log_bin", "ON"),
            ("sync_binlog", "1"),
            ("binlog_format", "ROW"),
            ("transaction_isolation", "READ-COMMITTED"),
            ("sql_mode", "STRICT_ALL_TABLES"),
            ("read_only", "OFF"),
        ];
        assert_eq!(names(&sound), [""; 0]);
        let weak = [
            ("version", "5.7.44", "mysql.version"),
            ("innodb_flush_log_at_trx_commit", "2", "mysql.flush_log"),
            ("innodb_doublewrite", "OFF", "mysql.doublewrite"),
            ("innodb_doublewrite", "DETECT_ONLY", "mysql.doublewrite"),
            ("sync_binlog", "0", "mysql.sync_binlog"),
            ("binlog_format", "STATEMENT", "mysql.binlog_format"),
            ("transaction_isolation", "REPEATABLE-READ", "mysql.isolation"),
            ("sql_mode", "", "mysql.sql_mode"),
            ("read_only", "ON", "mysql.read_only"),
        ];
        for (name, value, finding) in weak {
            let changed = sound.map(|(known, sound)| (known, if known == name { value } else { sound }));
            assert_eq!(names(&changed), [finding], "{name} = {value}");
        }
        let without_binlog = [("log_bin", "OFF"), ("sync_binlog", "0"), ("binlog_format", "STATEMENT")];
        assert_eq!(names(&without_binlog), [""; 0], "without a binlog its settings do not matter");
        assert_eq!(names(&[("tx_isolation", "REPEATABLE-READ")]), ["mysql.isolation"], "MariaDB's name of it");
    }

    #[test]
    fn versions_are_told_apart_by_product() {
        let too_old = ["8.0.36", "5.7.44-log", "10.6.16-MariaDB", "10.5.5-MariaDB-log", ""];
        assert!(too_old.iter().all(|version| is_too_old(version)));
        let new_enough = ["8.4.0", "9.1.0-commercial", "10.11.19-MariaDB-0+deb12u1", "11.4.2-MariaDB"];
        assert!(!new_enough.iter().any(|version| is_too_old(version)));
    }
}
