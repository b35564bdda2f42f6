//! The port on MySQL.
//!
//! In: calls of the port. Out: rows. Always: each read is one statement, so what it answers is of one moment; each write is
//! one transaction and may be repeated.

use super::claims::Claims;
use super::link::{Attempts, CALL_TIMEOUT, Failure, Link, within};
use super::rows::{self, MembershipRow, MixedRow};
use super::{MysqlError, MysqlOptions, apply, bulk, migrate, server};
use crate::finding::refuse_unsafe;
use crate::ports::{
    Claim, Conversation, Covered, Cursor, Device, Directory, Membership, MembershipChange, Projection, ReadCursor,
    ReadMark, Shard, StoreError,
};
use async_trait::async_trait;
use im_proto::{LogId, Ordinal, Seq, UserId};
use sqlx::Connection as _;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

pub struct MysqlDirectory {
    link: Link,
    claims: Claims,
}

#[derive(sqlx::FromRow)]
struct ReadRow {
    log: String,
    user: String,
    seq: u64,
    ordinal: u64,
}

impl MysqlDirectory {
    /// Looks at the server's settings and at the schema first; changes neither.
    pub async fn open(options: &MysqlOptions) -> Result<Arc<Self>, MysqlError> {
        let look = async {
            let mut connection = super::link::connect(options).await?;
            refuse_unsafe(server::findings(&mut connection).await?, &options.allow).map_err(MysqlError::Weak)?;
            migrate::assert_newest(&mut connection).await?;
            connection.close().await.map_err(MysqlError::from)
        };
        let looked = tokio::time::timeout(CALL_TIMEOUT, look).await;
        looked.map_err(|_| MysqlError::Driver("no answer in time".to_owned()))??;
        Ok(Arc::new(Self { link: Link::new(options)?, claims: Claims::new() }))
    }

    async fn memberships_of(&self, user: &UserId, logs: &[&LogId]) -> Result<HashMap<String, MembershipRow>, Failure> {
        let mut lent = self.link.lend().await?;
        let mut found = HashMap::with_capacity(logs.len());
        for logs in logs.chunks(bulk::ROWS_MAX) {
            let mut statement = bulk::memberships(user, logs);
            let rows: Vec<MembershipRow> = statement.build_query_as().fetch_all(lent.connection()).await?;
            found.extend(rows.into_iter().map(|row| (row.log.clone(), row)));
        }
        lent.done();
        Ok(found)
    }

    /// `marks` by rising key.
    async fn write_reads(&self, marks: &[&ReadMark]) -> Result<(), Failure> {
        let mut lent = self.link.lend().await?;
        bulk::upsert_reads(marks).build().execute(lent.connection()).await?;
        lent.done();
        Ok(())
    }

    async fn write_device(&self, user: &UserId, device: &Device) -> Result<(), Failure> {
        let (user, id) = (user.as_str(), device.id.as_str());
        let mut lent = self.link.lend().await?;
        // Mostly it is known: a sign-in then writes nothing.
        let known = sqlx::query_scalar!("SELECT platform FROM devices WHERE user = ? AND device = ?", user, id);
        let known: Option<String> = known.fetch_optional(lent.connection()).await?;
        if known.as_ref() != Some(&device.platform) {
            let record = sqlx::query!(
                "INSERT INTO devices (user, device, platform) VALUES (?, ?, ?) \
                 ON DUPLICATE KEY UPDATE platform = VALUES(platform)",
                user,
                id,
                device.platform
            );
            record.execute(lent.connection()).await?;
        }
        lent.done();
        Ok(())
    }
}

#[async_trait]
impl Directory for MysqlDirectory {
    async fn conversation(&self, log: &LogId) -> Result<Option<Conversation>, StoreError> {
        within(async {
            let log = log.as_str();
            let mut lent = self.link.lend().await?;
            let asked = sqlx::query_as!(
                MixedRow,
                r#"SELECT name AS "name?: String", creator AS "user!: String", peer AS "peer?: String",
                          applied_seq AS "seq!: u64", CAST(0 AS UNSIGNED) AS "joined_ordinal!: u64",
                          CAST(NULL AS UNSIGNED) AS "left_seq?: u64"
                   FROM conversations WHERE log = ?
                   UNION ALL
                   SELECT NULL, user, NULL, joined_seq, joined_ordinal, left_seq FROM members WHERE log = ?"#,
                log,
                log
            );
            let rows = asked.fetch_all(lent.connection()).await?;
            lent.done();
            Ok(rows::conversation(rows)?)
        })
        .await
    }

    async fn memberships(&self, user: &UserId, logs: &[LogId]) -> Result<Vec<Option<Membership>>, StoreError> {
        // A log may be asked for twice.
        let mut found = HashMap::with_capacity(logs.len());
        for (log, row) in within(self.memberships_of(user, &logs.iter().collect::<Vec<_>>())).await? {
            found.insert(log, rows::membership(user.clone(), row)?);
        }
        Ok(logs.iter().map(|log| found.get(log.as_str()).cloned()).collect())
    }

    async fn members(
        &self,
        log: &LogId,
        after: Option<&UserId>,
        limit: usize,
    ) -> Result<Option<Conversation>, StoreError> {
        within(async {
            let (log, after) = (log.as_str(), after.map(UserId::as_str).unwrap_or_default());
            let mut lent = self.link.lend().await?;
            let asked = sqlx::query_as!(
                MixedRow,
                r#"(SELECT name AS "name?: String", creator AS "user!: String", peer AS "peer?: String",
                           applied_seq AS "seq!: u64", CAST(0 AS UNSIGNED) AS "joined_ordinal!: u64",
                           CAST(NULL AS UNSIGNED) AS "left_seq?: u64"
                    FROM conversations WHERE log = ?)
                   UNION ALL
                   (SELECT NULL, user, NULL, joined_seq, joined_ordinal, left_seq
                    FROM members WHERE log = ? AND left_seq IS NULL AND user > ? ORDER BY user LIMIT ?)"#,
                log,
                log,
                after,
                limit as u64
            );
            let rows = asked.fetch_all(lent.connection()).await?;
            lent.done();
            Ok(rows::conversation(rows)?)
        })
        .await
    }

    async fn conversations_of(
        &self,
        user: &UserId,
        after: Option<&LogId>,
        limit: usize,
    ) -> Result<Vec<LogId>, StoreError> {
        within(async {
            let mut lent = self.link.lend().await?;
            let asked = sqlx::query_scalar!(
                r#"SELECT log AS "log!: String" FROM members WHERE user = ? AND log > ? ORDER BY log LIMIT ?"#,
                user.as_str(),
                after.map(LogId::as_str).unwrap_or_default(),
                limit as u64
            );
            let logs = asked.fetch_all(lent.connection()).await?;
            lent.done();
            Ok(logs.iter().map(|log| rows::log(log, "members")).collect::<Result<_, _>>()?)
        })
        .await
    }

    async fn large_conversations(
        &self,
        user: &UserId,
        members_min: usize,
        after: Option<&LogId>,
        limit: usize,
    ) -> Result<Vec<(LogId, Membership)>, StoreError> {
        within(async {
            let mut lent = self.link.lend().await?;
            let asked = sqlx::query_as!(
                MembershipRow,
                r#"SELECT m.log AS "log!: String", m.joined_seq, m.joined_ordinal, m.left_seq, c.name AS "name!: String",
                          c.creator AS "creator!: String", c.peer AS "peer?: String", c.applied_seq
                   FROM members m JOIN conversations c ON c.log = m.log
                   WHERE m.user = ? AND m.log > ? AND m.left_seq IS NULL AND c.members_count > ?
                   ORDER BY m.log LIMIT ?"#,
                user.as_str(),
                after.map(LogId::as_str).unwrap_or_default(),
                members_min as u64,
                limit as u64
            );
            let rows = asked.fetch_all(lent.connection()).await?;
            lent.done();
            let large = |row: MembershipRow| Ok((rows::log(&row.log, "members")?, rows::membership(user.clone(), row)?));
            rows.into_iter().map(large).collect()
        })
        .await
    }

    async fn apply(&self, changes: Vec<MembershipChange>) -> Result<Vec<LogId>, StoreError> {
        within(apply::apply(&self.link, &changes)).await
    }

    async fn record_reads(&self, reads: Vec<ReadMark>) -> Result<(), StoreError> {
        let mut highest: BTreeMap<(&LogId, &UserId), &ReadMark> = BTreeMap::new();
        for mark in &reads {
            let known = highest.entry((&mark.log, &mark.user)).or_insert(mark);
            if known.read.seq < mark.read.seq {
                *known = mark;
            }
        }
        let marks: Vec<&ReadMark> = highest.into_values().collect();
        within(async {
            for marks in marks.chunks(bulk::ROWS_MAX) {
                let mut attempts = Attempts::default();
                while let Err(failure) = self.write_reads(marks).await {
                    attempts.again(failure).await?;
                }
            }
            Ok(())
        })
        .await
    }

    async fn reads(&self, of: &[(LogId, UserId)]) -> Result<Vec<ReadCursor>, StoreError> {
        let keys: Vec<(&LogId, &UserId)> = of.iter().map(|(log, user)| (log, user)).collect();
        let found = within(async {
            let mut lent = self.link.lend().await?;
            let mut found = HashMap::with_capacity(keys.len());
            for keys in keys.chunks(bulk::PAIRS_MAX) {
                let rows: Vec<ReadRow> = bulk::reads(keys).build_query_as().fetch_all(lent.connection()).await?;
                for ReadRow { log, user, seq, ordinal } in rows {
                    found.insert((log, user), ReadCursor { seq: Seq(seq), ordinal: Ordinal(ordinal) });
                }
            }
            lent.done();
            Ok(found)
        })
        .await?;
        Ok(of.iter().map(|(log, user)| found.get(&(log.into(), user.into())).copied().unwrap_or_default()).collect())
    }

    async fn furthest_read(&self, log: &LogId) -> Result<Option<ReadMark>, StoreError> {
        let row = within(async {
            let mut lent = self.link.lend().await?;
            let row = sqlx::query!(
                r#"SELECT user AS "user!: String", seq AS "seq!: u64", ordinal AS "ordinal!: u64"
                   FROM read_marks WHERE log = ? ORDER BY seq DESC LIMIT 1"#,
                log.as_str()
            )
            .fetch_optional(lent.connection())
            .await?;
            lent.done();
            Ok(row)
        })
        .await?;
        row.map(|row| {
            let read = ReadCursor { seq: Seq(row.seq), ordinal: Ordinal(row.ordinal) };
            Ok(ReadMark { log: log.clone(), user: rows::user(&row.user, "read_marks")?, read })
        })
        .transpose()
    }

    async fn record_device(&self, user: &UserId, device: Device) -> Result<(), StoreError> {
        within(async {
            let mut attempts = Attempts::default();
            while let Err(failure) = self.write_device(user, &device).await {
                attempts.again(failure).await?;
            }
            Ok(())
        })
        .await
    }

    async fn devices(&self, user: &UserId) -> Result<Vec<Device>, StoreError> {
        within(async {
            let mut lent = self.link.lend().await?;
            let asked = sqlx::query!(
                r#"SELECT device AS "device!: String", platform AS "platform!: String"
                   FROM devices WHERE user = ? ORDER BY device"#,
                user.as_str()
            );
            let rows = asked.fetch_all(lent.connection()).await?;
            lent.done();
            let device = |id: &str, platform| Ok(Device { id: rows::device(id, "devices")?, platform });
            rows.into_iter().map(|row| device(&row.device, row.platform)).collect()
        })
        .await
    }
}

#[async_trait]
impl Projection for MysqlDirectory {
    async fn claim(&self, shards: &[Shard]) -> Result<Claim, StoreError> {
        within(async {
            let mut attempts = Attempts::default();
            loop {
                match self.claims.claim(&self.link, shards).await {
                    Ok(claim) => return Ok(claim),
                    Err(failure) => attempts.again(failure).await?,
                }
            }
        })
        .await
    }

    async fn cover(&self, claim: &Claim, cursor: &Cursor) -> Result<Covered, StoreError> {
        within(async {
            let mut attempts = Attempts::default();
            loop {
                match self.claims.cover(&self.link, claim, cursor).await {
                    Ok(covered) => return Ok(covered),
                    Err(failure) => attempts.again(failure).await?,
                }
            }
        })
        .await
    }
}
