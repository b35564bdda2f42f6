//! The relations on the embedded store.
//!
//! In: relations. Out: to every follower the rows, then what changes. Always: a `put` is synced before anybody hears of it; what
//! a follower has not taken yet is one relation a key, so it is bounded by the rows.

use super::{
    engine::Engine,
    tables::{Place, Tables, open_to_read, store_error},
    writer::{Sync, Writer},
};
use crate::planted::planted;
use crate::ports::{Followed, Relation, RelationFeed, RelationKey, Relations, StoreError};
use async_trait::async_trait;
use bytes::Bytes;
use redb::ReadableTable;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use tokio::sync::Notify;

pub struct EmbeddedRelations {
    engine: Arc<Engine>,
    writer: Writer,
    /// Held over a whole `put`, and while a follower reads the rows: no change falls between rows and changes.
    followers: Arc<tokio::sync::Mutex<Vec<Weak<Untold>>>>,
}

/// What a follower has yet to take.
#[derive(Default)]
struct Untold {
    changes: Mutex<BTreeMap<RelationKey, Option<Bytes>>>,
    changed: Notify,
}

impl Untold {
    fn add(&self, relation: &Relation) {
        let mut changes = self.changes.lock().unwrap_or_else(PoisonError::into_inner);
        changes.insert(relation.key.clone(), relation.value.clone());
        drop(changes);
        self.changed.notify_one();
    }

    fn take(&self) -> Option<Relation> {
        let mut changes = self.changes.lock().unwrap_or_else(PoisonError::into_inner);
        changes.pop_first().map(|(key, value)| Relation { key, value })
    }
}

impl EmbeddedRelations {
    pub(super) fn new(engine: Arc<Engine>, writer: Writer) -> Self {
        Self { engine, writer, followers: Arc::default() }
    }

    fn rows(&self) -> Result<Vec<Relation>, StoreError> {
        let engine = |error: redb::StorageError| store_error(error.into());
        let Some(table) = open_to_read(&self.engine.read()?, Place::Relations).map_err(store_error)? else {
            return Ok(Vec::new());
        };
        let mut rows = Vec::new();
        for row in table.iter().map_err(engine)? {
            let (key, value) = row.map_err(engine)?;
            let Some(key) = RelationKey::parse(key.value()) else { continue };
            rows.push(Relation { key, value: Some(Bytes::copy_from_slice(value.value())) });
        }
        Ok(rows)
    }
}

#[async_trait]
impl Relations for EmbeddedRelations {
    async fn put(&self, relation: Relation) -> Result<(), StoreError> {
        let mut followers = self.followers.clone().lock_owned().await;
        let (key, value) = (relation.key.to_text(), relation.value.clone());
        let put = move |tables: &mut Tables<'_>, _: &mut _| {
            let rows = tables.open(Place::Relations)?;
            match &value {
                Some(value) => drop(rows.insert(key.as_bytes(), &value[..])?),
                None => drop(rows.remove(key.as_bytes())?),
            }
            Ok(())
        };
        let writer = self.writer.clone();
        // A task: what is kept is told, also when the caller gives up between the two.
        let kept_and_told = tokio::spawn(async move {
            let sync = if planted("put_unsynced") { Sync::Later } else { Sync::Durable };
            writer.write(sync, 1, put).await?;
            followers.retain(|follower| follower.upgrade().inspect(|untold| untold.add(&relation)).is_some());
            Ok(())
        });
        kept_and_told.await.unwrap_or_else(|error| Err(StoreError::Unavailable(error.to_string())))
    }

    async fn follow(&self) -> Result<Box<dyn RelationFeed>, StoreError> {
        let mut followers = self.followers.lock().await;
        let rows = if planted("relations_of_the_past_forgotten") { Vec::new() } else { self.rows()? };
        let untold = Arc::new(Untold::default());
        followers.retain(|follower| follower.strong_count() > 0);
        followers.push(Arc::downgrade(&untold));
        Ok(Box::new(Feed { rows: rows.into_iter(), caught_up: false, untold }))
    }
}

struct Feed {
    rows: std::vec::IntoIter<Relation>,
    caught_up: bool,
    untold: Arc<Untold>,
}

#[async_trait]
impl RelationFeed for Feed {
    async fn next(&mut self) -> Followed {
        if let Some(row) = self.rows.next() {
            return Followed::Kept(row);
        }
        if !std::mem::replace(&mut self.caught_up, true) {
            return Followed::CaughtUp;
        }
        loop {
            let changed = self.untold.changed.notified();
            if let Some(relation) = self.untold.take() {
                return Followed::Kept(relation);
            }
            changed.await;
        }
    }
}
