//! The embedded adapters keep the promises of their ports.

#![allow(clippy::unwrap_used, reason = "a failed step fails the test")]

use async_trait::async_trait;
use im_proto::{ClientId, ConnectionId, DeviceId, LogId, Seq, UserId};
use im_storage::{
    conformance::{self, Ports, Stores},
    embedded::{EmbeddedQueue, EmbeddedRoutes, EmbeddedStore, OpenError, OpenOptions},
    fault::CutAppends,
    ports::{EntryLog, Gateway, GatewayBoot, Login, NewEntry, Registered, Routes, Stop, StoreError},
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
async fn a_user_with_too_many_devices_loses_the_route_of_the_oldest_login_and_no_login() {
    const DEVICES_MAX: u64 = 32;
    let (routes, ann, boot) = (EmbeddedRoutes::new(), UserId::parse("ann").unwrap(), GatewayBoot(7));
    routes.renew_lease(&Gateway { boot, endpoint: String::new() }, 60_000).await.unwrap();
    let mut logins = Vec::new();
    for number in 0..DEVICES_MAX + 8 {
        let (device, connection) = (DeviceId::parse(&format!("d{number}")).unwrap(), ConnectionId::new(0, number));
        let registered = routes.register(&ann, &device, boot, connection, None, number as i64).await.unwrap().unwrap();
        assert_eq!(registered.replaced, None);
        let Registered { generation, .. } = registered;
        logins.push(Login { user: ann.clone(), device, generation, gateway: boot, connection });
    }
    let known = async || {
        let mut known = routes.look_up(std::slice::from_ref(&ann)).await.unwrap().remove(0);
        known.sort_by_key(|login| login.generation);
        known
    };
    assert_eq!(known().await, logins[8..]);
    // A heartbeat of one without a route neither ends it nor takes the place of a newer one.
    assert_eq!(routes.confirm(&logins[..1]).await.unwrap(), [true]);
    assert_eq!(known().await, logins[8..]);
    // Whoever left makes room first, and then a heartbeat does bring the route back.
    routes.unregister(&logins[20]).await.unwrap();
    assert_eq!(routes.confirm(&logins[..1]).await.unwrap(), [true]);
    assert_eq!(known().await.len() as u64, DEVICES_MAX);
    assert_eq!(known().await[0], logins[0]);
}

#[tokio::test]
async fn the_queue_keeps_its_promises() {
    const RECORDS_MAX: usize = 8;
    conformance::queue(async || EmbeddedQueue::new(4, RECORDS_MAX)).await;
    conformance::queue_in_memory(|| EmbeddedQueue::new(4, RECORDS_MAX), RECORDS_MAX, EmbeddedQueue::close).await;
}

#[tokio::test]
async fn the_relations_keep_their_promises() {
    let folder = tempfile::tempdir().unwrap();
    let store = EmbeddedStore::open(&options(folder.path())).unwrap();
    conformance::relations(&*store.relations()).await;
    let (folder, open) = (tempfile::tempdir().unwrap(), |path: &Path| EmbeddedStore::open(&options(path)).unwrap());
    let store = open(folder.path());
    let relations = store.relations();
    // What a kill leaves is what the files hold while the store is open.
    let copy = tempfile::tempdir().unwrap();
    let mut restarted = None;
    let restart = async |_| {
        for file in ["store.redb", "acked"] {
            std::fs::copy(folder.path().join(file), copy.path().join(file)).unwrap();
        }
        let store = restarted.insert(open(copy.path()));
        store.relations()
    };
    conformance::relations_after_a_restart(relations, restart).await;
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
