//! A gateway without its lease.

use crate::chaos::proxy::{Proxy, Trouble};
use crate::harness::deployment::Services;
use crate::harness::endpoint::Endpoint;
use crate::harness::http;
use crate::harness::raw::{Raw, within_time};
use crate::harness::server::{Server, Settings};
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use tokio::task::block_in_place;

/// Workers look at the leases every 2 s.
const LOOKS: Duration = Duration::from_secs(5);
/// Ten times the lease.
const LEASE_DEADLINE: Duration = Duration::from_secs(30);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_cut_off_from_redis_alone_is_not_ready_and_its_clients_are_answered_all_the_same() {
    let mut server = Server::start_cluster(Settings::for_tests());
    let url = Services::of_environment().redis;
    let (address, database) = url.strip_prefix("redis://").unwrap().split_once('/').unwrap();
    let redis = Proxy::start(vec![address.parse().unwrap()]).await;
    let behind_it = format!("redis://{}/{database}", redis.address);
    let gateway = server.gateway(0);
    block_in_place(|| {
        gateway.terminate();
        assert!(gateway.wait().success());
        gateway.set(Settings::for_tests().with("IM_REDIS__URL", &behind_it));
        gateway.restart();
    });
    let at = gateway.addresses;
    let mut ann = Raw::device_over(&server, Endpoint::of_this_run(at.tcp, at.websocket), "ann", "phone").await;
    ann.message_to_user("bob", "before").await;

    redis.make(Trouble::Cut);
    within_time(LEASE_DEADLINE, "the gateway says that it is not ready", says(at.http, 503)).await;
    let lapsed = Instant::now();
    let mut number = 0;
    while lapsed.elapsed() < LOOKS {
        number += 1;
        ann.message_to_user("bob", &format!("m{number}")).await;
    }
    println!("{number} messages were acked without a lease");

    redis.make(Trouble::None);
    within_time(LEASE_DEADLINE, "it is ready again", says(at.http, 200)).await;
}

async fn says(http: SocketAddr, status: u16) {
    while block_in_place(|| http::get(http, "/readyz").0) != status {
        tokio::task::yield_now().await;
    }
}
