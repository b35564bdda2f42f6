//! F10: records that no worker can read. They go where an operator finds them, and hold up nobody.

use crate::harness::calls::direct;
use crate::harness::raw::{Raw, send_to_user, within};
use crate::harness::server::{Server, Settings};
use im_proto::LogId;
use im_proto::client::ClientFrame;
use im_proto::client::client_frame::Command;
use im_proto::client::server_frame::Body;
use im_proto::internal::{Origin, Upstream};
use prost::Message as _;
use std::time::Duration;
use tokio::task::block_in_place;

/// Stands in every value; a log line that has it shows what a user wrote.
const CANARY: &str = "canary-in-the-body";
const POLL: Duration = Duration::from_millis(20);

/// Records for the partition of `log`: key and value.
fn poison(log: &LogId) -> Vec<(Vec<u8>, Vec<u8>)> {
    let origin =
        Origin { user_id: "ann".into(), device_id: "phone".into(), gateway_boot: 1, connection_id: 1, request_id: 1 };
    let send = Command::Send(send_to_user("bob", "poison", CANARY));
    let frame = ClientFrame { request_id: 1, command: Some(send), ..Default::default() }.encode_to_vec();
    let whole =
        Upstream { log_id: log.as_str().into(), origin: Some(origin), frame: frame.into(), ..Default::default() };
    let garbage = [&[0xff; 12], CANARY.as_bytes()].concat();
    let (key, odd_key) = (log.as_str().as_bytes().to_vec(), b"no \x00 id \xff".to_vec());
    vec![
        (key.clone(), garbage.clone()),
        // Good but for its key: whoever goes by the value alone stores it.
        (odd_key, whole.encode_to_vec()),
        // Another log's.
        (key.clone(), Upstream { log_id: "another".into(), ..whole.clone() }.encode_to_vec()),
        // From a gateway, with a command that is none.
        (key.clone(), Upstream { frame: garbage.into(), ..whole.clone() }.encode_to_vec()),
        // From nobody.
        (key.clone(), Upstream { origin: None, ..whole }.encode_to_vec()),
        (key, Vec::new()),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_record_that_nobody_can_read_is_set_aside_with_its_reason_and_its_partition_goes_on() {
    let server = Server::start_cluster(Settings::for_tests());
    let mut ann = Raw::device(&server, "ann", "phone").await;
    let mut bob = Raw::device(&server, "bob", "phone").await;
    let log = LogId::parse(&direct("ann", "bob")).unwrap();
    assert_eq!(ann.message_to_user("bob", "m1").await.seq, 1);

    let deployment = server.deployment();
    let poison = poison(&log);
    let partition = block_in_place(|| {
        let partition = deployment.partition_of(&log);
        poison.iter().for_each(|(key, value)| deployment.write_record(partition, key, value));
        partition
    });
    assert_eq!(ann.message_to_user("bob", "m2").await.seq, 2, "it is not held up, and nothing was stored before it");
    let m2 =
        |body: &Body| matches!(body, Body::Entry(pushed) if pushed.entry.as_ref().is_some_and(|e| e.client_id == "m2"));
    bob.push(|body| m2(body).then_some(())).await;

    let values: Vec<Vec<u8>> = poison.iter().map(|(_, value)| value.clone()).collect();
    let letters = block_in_place(|| deployment.set_aside(&values));
    assert_eq!(letters.len(), poison.len(), "each once: {letters:?}");
    for ((key, value), letter) in poison.iter().zip(&letters) {
        assert_eq!((&letter.key, &letter.value), (key, value), "as it came");
        assert_eq!((letter.reason.as_str(), &letter.partition), ("undecodable", &partition.0.to_string()));
    }

    let is_one = |line: &&str| line.contains("a record is set aside") && line.contains("undecodable");
    let told = async {
        while server.log().lines().filter(is_one).count() < poison.len() {
            tokio::time::sleep(POLL).await;
        }
    };
    within("each has its line", told).await;
    assert_eq!(ann.message_to_user("bob", "m3").await.seq, 3);
    assert_eq!(server.log().lines().filter(is_one).count(), poison.len());
    assert!(!server.log().contains(CANARY), "a body is in the log");
    assert_eq!(server.metric("im_logic_dead_letters_total{reason=\"undecodable\"}"), Some(poison.len() as f64));
}
