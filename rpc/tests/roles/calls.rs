//! Calls to the logic: answered, repeated, refused, or known to have no answer.

use crate::logic::{Logic, PATIENCE, client, connect, head, options, read, serve_logic, serve_logic_within};
use im_proto::services::*;
use im_rpc::{CallError, LogicClient, LogicOptions, is_serving};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::Endpoint;

#[tokio::test]
async fn every_call_is_answered_by_its_handler() {
    let served = serve_logic(Arc::default(), None).await;
    let client = client(&[&served]);
    let answer = ReadAnswer { frame: "pull".into(), inbox_version: Some(3), large_heads: vec![head("glog")] };
    assert_eq!(client.read(read(b"pull")).await.unwrap(), answer);
    let sign_in = im_proto::client::SignIn { device_id: "phone".to_owned(), ..Default::default() };
    let answer =
        client.sign_in(SignInCall { gateway_boot: 1, connection_id: 2, sign_in: Some(sign_in) }).await.unwrap();
    let Some(sign_in_answer::Outcome::SignedIn(signed_in)) = answer.outcome else { panic!() };
    assert_eq!((signed_in.device_id.as_str(), signed_in.generation), ("phone", 9));
    let login = HeldLogin { connection_id: 2, user_id: "ann".into(), device_id: "phone".into(), generation: 9 };
    client.sign_out(SignOutCall { gateway_boot: 1, login: Some(login.clone()) }).await.unwrap();
    let heartbeats = HeartbeatsCall { gateway_boot: 1, logins: vec![login; 2] };
    assert_eq!(client.heartbeats(heartbeats).await.unwrap().answers.len(), 2);
    let devices = client.devices(ListDevicesCall { user_id: "bob".into() }).await.unwrap().devices;
    assert_eq!(devices[0].device_id, "bob");
    let out = SignOutDeviceCall { user_id: "bob".into(), device_id: "web".into() };
    assert!(client.sign_out_device(out).await.unwrap().was_online);
    let members = client.large_members(LargeMembersCall { log_id: "g1".into() }).await.unwrap();
    assert_eq!((members.members_seq, members.members[0].user_id.as_str()), (7, "g1"));
    let ids = ["g2".to_owned(), "g1".to_owned()].to_vec();
    let heads = client.large_heads(LargeHeadsCall { log_ids: ids.clone() }).await.unwrap().heads;
    assert_eq!(heads, [head("g2"), head("g1")]);
    let users = client.large_of_users(LargeOfUsersCall { user_ids: ids }).await.unwrap().users;
    assert_eq!(users[0].large[0].log_id, "g2");
    served.stop().await;
}

#[tokio::test]
async fn the_health_service_says_what_the_role_says() {
    let served = serve_logic(Arc::default(), None).await;
    let address = format!("http://{}", served.address);
    for is_ready in [true, false, true] {
        served.ready(is_ready).await;
        assert_eq!(is_serving(&address, &connect(None)).await.unwrap(), is_ready);
    }
    served.stop().await;
    assert!(is_serving(&address, &connect(None)).await.is_err());
}

#[tokio::test]
async fn a_call_is_repeated_until_its_attempts_are_used_up() {
    let logic = Arc::new(Logic { away: AtomicU32::new(2), ..Default::default() });
    let served = serve_logic(logic.clone(), None).await;
    let client = client(&[&served]);
    assert!(client.read(read(b"x")).await.is_ok(), "the third attempt");
    logic.away.store(3, Ordering::SeqCst);
    assert!(matches!(client.read(read(b"x")).await, Err(CallError::NoAnswer(_))));
    assert_eq!(logic.reads.load(Ordering::SeqCst), 6);
}

#[tokio::test]
async fn what_is_no_id_is_refused_and_not_repeated() {
    let logic = Arc::new(Logic::default());
    let served = serve_logic(logic.clone(), None).await;
    let client = client(&[&served]);
    let call = ReadCall { user_id: "no id".to_owned(), frame: Default::default() };
    assert!(matches!(client.read(call).await, Err(CallError::Refused(_))));
    assert!(matches!(client.sign_in(SignInCall::default()).await, Err(CallError::Refused(_))));
    let many = HeartbeatsCall { gateway_boot: 1, logins: vec![HeldLogin::default(); 1_001] };
    assert!(matches!(client.heartbeats(many).await, Err(CallError::Refused(_))));
    let many = LargeHeadsCall { log_ids: vec!["g".to_owned(); 1_001] };
    assert!(matches!(client.large_heads(many).await, Err(CallError::Refused(_))));
    assert!(matches!(client.large_members(LargeMembersCall::default()).await, Err(CallError::Refused(_))));
    assert_eq!(logic.reads.load(Ordering::SeqCst), 0, "the handler hears of none of it");
}

#[tokio::test]
async fn a_silent_logic_costs_the_deadline_of_each_attempt_and_no_more() {
    let logic = Arc::new(Logic { is_silent: true, ..Default::default() });
    let served = serve_logic(logic.clone(), None).await;
    let mut options = options(vec![format!("http://{}", served.address)]);
    (options.timeout, options.attempts) = (Duration::from_secs(1), 2);
    let outcome = LogicClient::new(&options).unwrap().read(read(b"x")).await;
    assert!(matches!(outcome, Err(CallError::NoAnswer(_))));
    assert_eq!(logic.reads.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn each_service_is_asked_where_and_for_as_long_as_its_own_options_say() {
    let (all, own) = (Arc::new(Logic::default()), Arc::new(Logic { is_silent: true, ..Default::default() }));
    let (of_all, of_own) = (serve_logic(all.clone(), None).await, serve_logic(own.clone(), None).await);
    let mut logic = LogicOptions::alike(&options(vec![format!("http://{}", of_all.address)]));
    logic.conversation.endpoints = vec![format!("http://{}", of_own.address)];
    (logic.conversation.timeout, logic.conversation.attempts) = (Duration::from_secs(1), 2);
    let client = LogicClient::of_services(&logic).unwrap();
    assert!(matches!(client.read(read(b"x")).await, Err(CallError::NoAnswer(_))));
    assert_eq!((own.reads.load(Ordering::SeqCst), all.reads.load(Ordering::SeqCst)), (2, 0));
    of_own.stop().await;
    assert!(client.devices(ListDevicesCall { user_id: "bob".into() }).await.is_ok(), "the others are asked elsewhere");
}

#[tokio::test]
async fn a_caller_that_names_no_deadline_is_answered_within_that_of_the_server() {
    let logic = Arc::new(Logic { is_silent: true, ..Default::default() });
    let served = serve_logic_within(Duration::from_millis(50), logic.clone(), None).await;
    let channel = Endpoint::from_shared(format!("http://{}", served.address)).unwrap().connect().await.unwrap();
    let mut bare = tonic::client::Grpc::new(channel);
    bare.ready().await.unwrap();
    let path = PathAndQuery::from_static("/im.services.v1.ConversationService/Read");
    let codec = tonic_prost::ProstCodec::<ReadCall, ReadAnswer>::default();
    let answered = tokio::time::timeout(PATIENCE / 2, bare.unary(tonic::Request::new(read(b"x")), path, codec)).await;
    assert!(answered.expect("the server has a deadline of its own").is_err());
    assert_eq!(logic.reads.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_request_above_its_bound_is_refused_and_not_repeated() {
    let logic = Arc::new(Logic::default());
    let served = serve_logic(logic.clone(), None).await;
    let client = client(&[&served]);
    let fits = vec![b'x'; 192 * 1024].leak();
    client.read(read(fits)).await.unwrap();
    let large = vec![b'x'; 256 * 1024].leak();
    assert!(matches!(client.read(read(large)).await, Err(CallError::Refused(_))));
    assert_eq!(logic.reads.load(Ordering::SeqCst), 1, "the handler does not hear of it");
}

#[tokio::test]
async fn calls_go_on_when_one_of_two_logics_is_gone_and_when_it_is_back() {
    let (first, second) = (Arc::new(Logic::default()), Arc::new(Logic::default()));
    let (one, two) = (serve_logic(first.clone(), None).await, serve_logic(second.clone(), None).await);
    let client = client(&[&one, &two]);
    while first.reads.load(Ordering::SeqCst) == 0 || second.reads.load(Ordering::SeqCst) == 0 {
        client.read(read(b"x")).await.unwrap();
    }
    one.stop().await;
    for _ in 0..50 {
        client.read(read(b"x")).await.unwrap();
    }
}

#[tokio::test]
async fn a_logic_that_gives_no_answer_is_passed_over_and_costs_one_attempt_of_one_call() {
    let (silent, lively) = (Arc::new(Logic { is_silent: true, ..Default::default() }), Arc::new(Logic::default()));
    let (one, two) = (serve_logic(silent.clone(), None).await, serve_logic(lively.clone(), None).await);
    let mut options = options([&one, &two].map(|served| format!("http://{}", served.address)).into());
    (options.timeout, options.attempts) = (Duration::from_secs(1), 2);
    let client = LogicClient::new(&options).unwrap();
    for _ in 0..20 {
        client.read(read(b"x")).await.unwrap();
    }
    let asked = silent.reads.load(Ordering::SeqCst);
    assert!(asked < 10, "{asked} of 20 calls were given to it");
    assert_eq!(lively.reads.load(Ordering::SeqCst), 20);
}
