//! What gateways and operators get from logic roles, also when these have lost a store: real roles over gRPC, each with a store of
//! its own.

use super::ask::Answers as _;
use super::{DeliverToGateway, Handler, Remote};
use im_gateway::{LogicAnswer, Question};
use im_logic::accounts::AccountsHandle;
use im_logic::token::{Key, KeyRing, NewToken, issue};
use im_logic::{Logic, LogicConfig, Ports};
use im_proto::client::{self, CloseCode, ErrorClass, ErrorCode, client_frame::Command, server_frame::Body};
use im_proto::services::{Device, ListDevicesCall, SignOutDeviceCall};
use im_proto::{ConnectionId, UserId};
use im_rpc::{CallOptions, ConnectOptions, LogicClient, Served, Stop, logic_service, serve};
use im_storage::embedded::{EmbeddedQueue, EmbeddedRoutes, EmbeddedStore, OpenOptions};
use im_storage::ports::{Gateway, GatewayBoot, Routes as _};
use prost::Message as _;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;

const PATIENCE: Duration = Duration::from_secs(30);
const GATEWAY: GatewayBoot = GatewayBoot(7);
const LEASE_MS: u32 = 3_600_000;
const SECRET: [u8; 32] = [9; 32];

struct Role {
    store: EmbeddedStore,
    served: Served,
    _accounts: AccountsHandle,
    _folder: tempfile::TempDir,
}

impl Role {
    async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let options = OpenOptions { folder: folder.path().to_owned(), cache_bytes: 1024 * 1024, now_ms: now_ms() };
        let store = EmbeddedStore::open(&options).unwrap();
        let (queue, _) = EmbeddedQueue::new(1, 10);
        let routes = Arc::new(EmbeddedRoutes::new());
        routes.renew_lease(&Gateway { boot: GATEWAY, endpoint: String::new() }, LEASE_MS).await.unwrap();
        let ports = Ports {
            queue,
            log: store.entry_log(),
            directory: store.directory(),
            inbox: store.inbox(),
            routes,
            delivery: Arc::new(DeliverToGateway::default()),
        };
        let logic = Logic::new(ports, LogicConfig::default());
        let mut accounts = logic.follow_accounts(&*store.relations()).await.unwrap();
        accounts.ready().await;
        let mut keys = KeyRing::default();
        keys.add("default", Key::hs256(&SECRET).unwrap());
        let handler = Arc::new(Handler(Arc::new(logic.requests(keys))));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let services = logic_service(handler, None, PATIENCE).unwrap();
        let served = serve(listener, None, services, Stop::default()).await.unwrap();
        Self { store, served, _accounts: accounts, _folder: folder }
    }
}

fn now_ms() -> i64 {
    crate::clock::now_ms()
}

fn client_of(roles: &[&Role]) -> LogicClient {
    let connect = ConnectOptions { timeout: PATIENCE, keep_alive: PATIENCE, tls: None };
    let endpoints = roles.iter().map(|role| format!("http://{}", role.served.address)).collect();
    LogicClient::new(&CallOptions { endpoints, timeout: PATIENCE, attempts: 3, connect }).unwrap()
}

fn remote(roles: &[&Role]) -> Remote {
    Remote::new(client_of(roles))
}

fn ann() -> UserId {
    UserId::parse("ann").unwrap()
}

async fn sign_in(remote: &Remote, connection: u64) -> Result<(), (CloseCode, u32)> {
    let user = ann();
    let new = NewToken { user: &user, device: None, issuer: None, audience: None, expires_at_ms: now_ms() + 60_000 };
    let token = issue("default", &SECRET, &new).unwrap();
    let sign_in = client::SignIn {
        protocol_version: 1,
        token,
        device_id: "phone".into(),
        platform: "test".into(),
        ..Default::default()
    };
    let question = Question::SignIn { connection: ConnectionId(connection), sign_in };
    let Some(LogicAnswer::SignedIn { outcome, .. }) = remote.answer(GATEWAY, question).await else { panic!() };
    outcome.map(drop).map_err(|refused| (refused.code, refused.reconnect_after_ms))
}

async fn sync(remote: &Remote, request_id: u64) -> Body {
    let command = Some(Command::Sync(client::Sync::default()));
    let frame = client::ClientFrame { request_id, command, ..Default::default() }.encode_to_vec().into();
    let question = Question::Read { connection: ConnectionId(1), request_id, user: ann(), frame };
    let Some(LogicAnswer::Read { frame, .. }) = remote.answer(GATEWAY, question).await else { panic!() };
    client::ServerFrame::decode_length_delimited(frame).unwrap().body.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn one_logic_role_without_its_store_refuses_nobody_while_another_has_its_own() {
    let (cut_off, whole) = (Role::start().await, Role::start().await);
    cut_off.store.close().await.unwrap();
    // A new client asks the first of its roles first; one that has asked before passes it over for a moment.
    let new = || remote(&[&cut_off, &whole]);
    assert_eq!(sign_in(&new(), 1).await, Ok(()));
}

#[tokio::test(flavor = "multi_thread")]
async fn when_no_logic_role_has_its_store_the_client_is_told_to_try_again_and_it_is_counted() {
    let roles = [Role::start().await, Role::start().await];
    let remote = remote(&[&roles[0], &roles[1]]);
    for role in &roles {
        role.store.close().await.unwrap();
    }
    assert_eq!(sign_in(&remote, 1).await, Err((CloseCode::Internal, 1_000)));
    let Body::Error(error) = sync(&remote, 2).await else { panic!("it was answered") };
    assert_eq!((error.class(), error.code()), (ErrorClass::Retry, ErrorCode::Unavailable));
    let of =
        |name: &str| remote.unanswered().by_question().find(|(question, _)| *question == name).map(|(_, count)| count);
    assert_eq!((of("sign_in"), of("read"), of("heartbeats")), (Some(1), Some(0), Some(0)), "the read was answered");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_sees_the_devices_of_a_user_and_can_end_a_login() {
    let role = Role::start().await;
    let operator = client_of(&[&role]);
    let devices = async || operator.devices(ListDevicesCall { user_id: "ann".to_owned() }).await.unwrap().devices;
    assert!(devices().await.is_empty());
    sign_in(&remote(&[&role]), 1).await.unwrap();
    let phone = |online, gateway_boot| Device {
        device_id: "phone".to_owned(),
        platform: "test".to_owned(),
        online,
        gateway_boot,
    };
    assert_eq!(devices().await, [phone(true, GATEWAY.0)]);
    let ends = async || {
        let login = SignOutDeviceCall { user_id: "ann".to_owned(), device_id: "phone".to_owned() };
        operator.sign_out_device(login).await.unwrap().was_online
    };
    assert!(ends().await);
    assert_eq!(devices().await, [phone(false, 0)]);
    assert!(!ends().await, "there is no login any more");
}
