//! B11, B12 and B21: too many connections, too much silence, too many heartbeats.

use crate::harness::bystander::Bystanders;
use crate::harness::raw::{Got, Raw, within};
use crate::harness::server::{Server, Settings};
use futures_util::future::join_all;
use im_proto::client::server_frame::Body;
use im_proto::client::{CloseCode, ServerFrame};

/// Whether the connection was closed with `OVERLOADED` rather than left open until `probe` says otherwise.
async fn is_turned_away(raw: &mut Raw, server: &Server, user: &str) -> bool {
    let request = crate::harness::raw::sign_in(&server.key.token(user), "phone");
    let frame = im_proto::client::ClientFrame { request_id: 1, command: Some(request), ..Default::default() };
    // The server may have closed already; then the read tells.
    let _ = raw.try_send_bytes(&prost::Message::encode_length_delimited_to_vec(&frame)).await;
    match raw.read().await {
        Got::Frame(ServerFrame { body: Some(Body::SignedIn(_)), .. }) => false,
        Got::Frame(ServerFrame { body: Some(Body::Closing(closing)), .. }) => {
            assert_eq!(closing.code(), CloseCode::Overloaded);
            assert!(closing.reconnect_after_ms > 0, "{closing:?}");
            true
        }
        // Reset before the reason was read: our bytes met a closed socket.
        Got::End => true,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn b11_connections_beyond_the_limit_are_turned_away_and_their_places_come_back() {
    let server = Server::start(Settings::for_tests().with("IM_GATEWAY__CONNECTIONS_MAX", "12"));
    let mut bystanders = Bystanders::new(&server).await;
    let mut open = Vec::new();
    let mut turned_away = 0;
    for number in 0..20 {
        let mut raw = Raw::connect(server.clients()).await;
        match is_turned_away(&mut raw, &server, &format!("user{number}")).await {
            true => turned_away += 1,
            false => open.push(raw),
        }
    }
    assert_eq!((open.len(), turned_away), (10, 10));
    bystanders.are_undisturbed().await;
    drop(open);
    let again = async {
        loop {
            let mut raw = Raw::connect(server.clients()).await;
            if !is_turned_away(&mut raw, &server, "late").await {
                return;
            }
        }
    };
    within("a place comes back", again).await;
}

#[tokio::test]
async fn b11_one_address_cannot_hold_all_unauthenticated_places() {
    // One core accepts in the order of connecting.
    let settings =
        Settings::for_tests().with("IM_GATEWAY__CORES", "1").with("IM_GATEWAY__UNAUTHENTICATED_PER_ADDRESS_MAX", "5");
    let server = Server::start(settings);
    let mut bystanders = Bystanders::new(&server).await;
    let mut silent = Vec::new();
    for _ in 0..5 {
        silent.push(Raw::connect(server.clients()).await);
    }
    // They are counted when accepted; one more than fits is closed.
    let mut beyond = Raw::connect(server.clients()).await;
    beyond.closed_with(CloseCode::Overloaded).await;
    bystanders.are_undisturbed().await;
}

#[tokio::test]
async fn b11_a_burst_of_connections_from_one_address_is_cut() {
    let settings = Settings::for_tests()
        .with("IM_GATEWAY__ACCEPT_RATE_PER_ADDRESS_PER_S", "1")
        .with("IM_GATEWAY__ACCEPT_BURST_PER_ADDRESS", "8");
    let server = Server::start(settings);
    let mut bystanders = Bystanders::new(&server).await;
    // All at once: one after the other, a slow machine stays within the rate.
    let server = &server;
    let knock = |number: u32| async move {
        let mut raw = Raw::connect(server.clients()).await;
        is_turned_away(&mut raw, server, &format!("user{number}")).await
    };
    let turned_away = join_all((0..40).map(knock)).await.into_iter().filter(|turned_away| *turned_away).count();
    assert!(turned_away >= 4, "{turned_away}");
    bystanders.are_undisturbed().await;
}

#[tokio::test]
async fn b11_a_flood_of_silent_connections_costs_little_and_is_given_back() {
    const CONNECTIONS: u64 = 1000;
    const BYTES_EACH_MAX: u64 = 16 * 1024;
    /// Between one flood and the next like it: less than any buffer of a connection.
    const BYTES_EACH_LEFT_MAX: u64 = 1024;
    const FLOODS: usize = 5;
    // Over WebSocket the handshake is a first byte. The bystanders are silent while the floods last.
    let settings = Settings::for_tests()
        .with("IM_GATEWAY__FIRST_BYTE_TIMEOUT_MS", "3000")
        .with("IM_GATEWAY__SIGN_IN_TIMEOUT_MS", "3000")
        .with("IM_GATEWAY__IDLE_TIMEOUT_MS", "120000");
    let server = Server::start(settings);
    let mut bystanders = Bystanders::new(&server).await;
    let before = server.resident_bytes();
    let open_before = server.metric("im_gateway_connections{");
    let mut peaks = Vec::new();
    for _ in 0..FLOODS {
        let mut open = Vec::new();
        for _ in 0..CONNECTIONS {
            open.push(Raw::connect(server.clients()).await);
        }
        bystanders.are_undisturbed().await;
        peaks.push(server.resident_bytes().saturating_sub(before));
        for raw in &mut open {
            raw.closed_with(CloseCode::SignInTimeout).await;
        }
        drop(open);
        let gone = async {
            while server.metric("im_gateway_connections{") != open_before {
                tokio::task::yield_now().await;
            }
        };
        within("every connection is gone", gone).await;
    }
    bystanders.are_undisturbed().await;
    let left = server.resident_bytes().saturating_sub(before);
    println!("{peaks:?} bytes for {CONNECTIONS} connections, {left} when they are gone");
    assert!(peaks[0] < CONNECTIONS * BYTES_EACH_MAX, "{peaks:?} bytes for {CONNECTIONS} connections");
    // The allocator keeps pages, and the processes of a cluster take some for other things now and then. What is left behind by a
    // connection would make every flood need more of them than the one before.
    let more = peaks.windows(2).map(|two| two[1].saturating_sub(two[0])).min().unwrap();
    assert!(more < CONNECTIONS * BYTES_EACH_LEFT_MAX, "{peaks:?}: floods leave something behind");
}

#[tokio::test]
async fn b12_silence_beyond_the_idle_timeout_closes_and_heartbeats_keep_open() {
    let settings = Settings::for_tests()
        .with("IM_GATEWAY__HEARTBEAT_INTERVAL_MS", "200")
        .with("IM_GATEWAY__IDLE_TIMEOUT_MS", "4000");
    let server = Server::start(settings);
    let mut alive = Raw::device(&server, "ann", "phone").await;
    let mut silent = Raw::device(&server, "bob", "phone").await;
    let closed = async {
        tokio::select! {
            closing = silent.closed() => closing,
            () = async { loop {
                tokio::time::sleep(std::time::Duration::from_millis(200)).await;
                alive.is_alive().await;
            } } => unreachable!(),
        }
    };
    let closing = within("the silent one is closed", closed).await;
    assert_eq!(closing.code(), CloseCode::IdleTimeout);
    alive.is_alive().await;
}

#[tokio::test]
async fn b21_a_flood_of_heartbeats_closes() {
    let server = Server::start(Settings::for_tests());
    let mut bystanders = Bystanders::new(&server).await;
    let mut raw = Raw::device(&server, "eve", "phone").await;
    // It may be closed before it took all.
    let _ = raw.try_send_bytes(&[0; 20_000]).await;
    raw.closed_with(CloseCode::Overloaded).await;
    bystanders.are_undisturbed().await;
}
