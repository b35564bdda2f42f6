//! The embedded adapters keep the promises of their ports.

#![allow(clippy::unwrap_used, reason = "a failed step fails the test")]

use async_trait::async_trait;
use im_proto::{ClientId, LogId, Seq, UserId};
use im_storage::{
    conformance::{self, Ports, Stores},
    embedded::{EmbeddedQueue, EmbeddedRoutes, EmbeddedStore, OpenError, OpenOptions},
    fault::CutAppends,
    ports::{EntryLog, NewEntry, Stop, StoreError},
};
use std::{path::Path, sync::Mutex, time::Duration};
use tempfile::TempDir;

/// Stores in folders of their own.
#[derive(Default)]
struct Folders(Mutex<Vec<(TempDir, EmbeddedStore)>>);

fn options(folder: &Path) -> OpenOptions {
    OpenOptions { folder: folder.to_owned(), cache_bytes: 1 << 20, now_ms: 1_000 }
}

impl Folders {
    fn open(&self, folder: TempDir) -> Ports {
        let store = EmbeddedStore::open(&options(folder.path())).unwrap();
        let ports = Ports { entry_log: store.entry_log(), directory: store.directory(), inbox: store.inbox() };
        self.0.lock().unwrap().push((folder, store));
        ports
    }
}

#[async_trait]
impl Stores for Folders {
    async fn empty(&self) -> Ports {
        self.open(tempfile::tempdir().unwrap())
    }

    /// What a kill leaves is what the files hold while the store is open.
    async fn crash(&self, ports: Ports) -> Ports {
        drop(ports);
        let copy = tempfile::tempdir().unwrap();
        for file in ["store.redb", "acked"] {
            let stores = self.0.lock().unwrap();
            let (folder, _) = stores.last().unwrap();
            std::fs::copy(folder.path().join(file), copy.path().join(file)).unwrap();
        }
        self.open(copy)
    }
}

#[tokio::test]
async fn the_entry_log_keeps_its_promises() {
    conformance::entry_log(&Folders::default()).await;
    conformance::entry_log_after_a_crash(&Folders::default()).await;
}

#[tokio::test]
async fn the_directory_keeps_its_promises() {
    conformance::directory(&Folders::default()).await;
    conformance::directory_after_a_crash(&Folders::default()).await;
}

#[tokio::test]
async fn the_inbox_keeps_its_promises() {
    conformance::inbox(&Folders::default()).await;
    conformance::inbox_after_a_crash(&Folders::default()).await;
}

#[tokio::test(start_paused = true)]
async fn the_routes_keep_their_promises() {
    conformance::routes(&EmbeddedRoutes::new(), async |time: Duration| tokio::time::advance(time).await).await;
}

#[tokio::test]
async fn the_queue_keeps_its_promises() {
    const RECORDS_MAX: usize = 8;
    conformance::queue(async || EmbeddedQueue::new(4, RECORDS_MAX)).await;
    conformance::queue_in_memory(|| EmbeddedQueue::new(4, RECORDS_MAX), RECORDS_MAX, EmbeddedQueue::close).await;
}

#[tokio::test]
async fn an_append_cut_at_any_prefix_can_be_told_and_finished() {
    let entries = Folders::default().empty().await.entry_log;
    let entries = CutAppends::new(entries);
    for keep in 0..=4u64 {
        let batch: Vec<_> = (1..=5u64)
            .map(|seq| NewEntry {
                log: LogId::parse(&format!("cut-{keep}")).unwrap(),
                seq: Seq(seq),
                sender: UserId::parse("sender").unwrap(),
                client_id: ClientId::parse(&format!("id-{seq}")).unwrap(),
                stored: format!("entry {seq}").into(),
            })
            .collect();
        entries.cut_next(keep as usize);
        let appended = entries.append(batch.clone()).await;
        assert!(matches!(appended.stop, Some(Stop::Unknown(_))));
        for entry in &batch {
            let found = entries.find(&entry.log, &entry.sender, &entry.client_id).await.unwrap();
            assert_eq!(found.is_some(), entry.seq.0 <= keep);
        }
        let appended = entries.append(batch[keep as usize..].to_vec()).await;
        assert!(appended.stop.is_none());
    }
}

#[tokio::test]
async fn a_folder_is_opened_by_one_at_a_time_and_says_what_is_wrong_with_it() {
    let folder = tempfile::tempdir().unwrap();
    let store = EmbeddedStore::open(&options(folder.path())).unwrap();
    let second = EmbeddedStore::open(&options(folder.path()));
    assert!(matches!(second, Err(OpenError::Locked(_))));
    store.close().await.unwrap();
    let log = LogId::parse("x").unwrap();
    assert!(matches!(store.entry_log().head(&log).await, Err(StoreError::Unavailable(_))), "a closed store says so");
    drop(store);
    std::fs::write(folder.path().join("store.redb"), "something else entirely").unwrap();
    assert!(matches!(EmbeddedStore::open(&options(folder.path())), Err(OpenError::Damaged(_))));
    std::fs::remove_file(folder.path().join("store.redb")).unwrap();
    let gone = EmbeddedStore::open(&options(folder.path()));
    assert!(matches!(gone, Err(OpenError::Damaged(_))), "acked entries cannot be gone in silence");
}
