//! One command can be followed through all hops by its trace id, and a refused one leaves a line.

use crate::harness::raw::{Raw, send_to_user, within};
use crate::harness::server::{Server, Settings, is_cluster};
use im_proto::client::client_frame::Command;
use im_proto::client::{ClientFrame, server_frame::Body};
use serde_json::Value;
use std::collections::BTreeMap;
use std::time::Duration;

const TRACE: [u8; 16] = *b"a client's trace";

fn lines(server: &Server, target: &str) -> Vec<Value> {
    let log = server.log();
    let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    lines.filter(|line| line["target"] == target).collect()
}

/// How many lines each hop wrote about this trace.
fn hops(server: &Server, trace: &str) -> BTreeMap<String, usize> {
    let mut hops = BTreeMap::new();
    for line in lines(server, "im_trace").iter().filter(|line| line["trace"] == trace) {
        *hops.entry(line["hop"].as_str().unwrap().to_owned()).or_default() += 1;
    }
    hops
}

/// Each hop wrote as many lines; of a cluster at least, where a partition that changes its owner repeats what was under way.
fn has_passed(hops: &BTreeMap<String, usize>, wanted: &BTreeMap<String, usize>) -> bool {
    let enough = |(hop, lines): (&String, &usize)| hops.get(hop).is_some_and(|wrote| wrote >= lines);
    hops == wanted || is_cluster() && hops.len() == wanted.len() && wanted.iter().all(enough)
}

/// The log comes through a pipe, some time after what it tells of.
async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    within(what, async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_command_is_found_by_its_trace_id_at_every_hop() {
    let settings = Settings::for_tests().with("IM_LOG__LEVEL", "debug").with("IM_LOG__FORMAT", "json");
    let server = Server::start(settings);
    let mut bob = Raw::device(&server, "bob", "phone").await;
    let mut ann = Raw::device(&server, "ann", "phone").await;
    let is_entry = |body: &Body| matches!(body, Body::Entry(_)).then_some(());
    // An answer to the sender, a push to the other: each is received and sent.
    let wanted = [("decide", 1), ("deliver", 1), ("forward", 1), ("persist", 1), ("receive", 2), ("send", 2)];
    let wanted = BTreeMap::from(wanted.map(|(hop, lines)| (hop.to_owned(), lines)));

    let command = Some(Command::Send(send_to_user("bob", "m1", "text")));
    ann.send_frame(&ClientFrame { request_id: 900, command, trace_id: TRACE.to_vec().into() }).await;
    assert!(matches!(ann.answer(900).await, Body::SendAck(_)));
    bob.push(is_entry).await;
    let trace: String = TRACE.iter().map(|byte| format!("{byte:02x}")).collect();
    until("the lines of every hop", || has_passed(&hops(&server, &trace), &wanted)).await;

    // What is no trace id counts as none, and the gateway makes one.
    for (request_id, trace_id) in [(901, vec![]), (902, vec![7; 15]), (903, vec![0; 16])] {
        let command = Some(Command::Send(send_to_user("bob", &format!("m{request_id}"), "text")));
        ann.send_frame(&ClientFrame { request_id, command, trace_id: trace_id.into() }).await;
        assert!(matches!(ann.answer(request_id).await, Body::SendAck(_)));
        bob.push(is_entry).await;
        let made = || {
            let mut forwarded = lines(&server, "im_trace").into_iter().filter(|line| line["hop"] == "forward");
            let line = forwarded.find(|line| line["request"] == request_id)?;
            Some(line["trace"].as_str().unwrap_or_default().to_owned())
        };
        until("the line of the first hop", || made().is_some()).await;
        let trace = made().unwrap();
        assert_eq!(trace.len(), 32, "{trace}");
        until("the lines of every hop", || has_passed(&hops(&server, &trace), &wanted)).await;
    }
}

#[tokio::test]
async fn a_refused_command_leaves_one_line_with_its_ids_and_its_code() {
    let settings = Settings::for_tests().with("IM_LOG__FORMAT", "json");
    let server = Server::start(settings);
    let mut ann = Raw::device(&server, "ann", "phone").await;
    ann.message(send_to_user("bob", "m1", "text")).await;
    // The first by the logic, the second by the gateway alone.
    let refused = [
        (900, send_to_user("bob", "m1", "another text"), "CONFLICT"),
        (901, send_to_user("no id", "m2", "x"), "INVALID"),
    ];
    let of_request = |request_id: u64| {
        let lines = lines(&server, "im_refused").into_iter();
        lines.filter(|line| line["request"] == request_id).collect::<Vec<_>>()
    };
    for (request_id, send, code) in refused {
        let frame = ClientFrame { request_id, command: Some(Command::Send(send)), trace_id: TRACE.to_vec().into() };
        ann.send_frame(&frame).await;
        assert!(matches!(ann.answer(request_id).await, Body::Error(_)));
        until("the line", || !of_request(request_id).is_empty()).await;
        let line = &of_request(request_id)[0];
        assert_eq!((line["level"].as_str(), line["user"].as_str()), (Some("INFO"), Some("ann")), "{line}");
        assert!(line["code"].as_str().unwrap().contains(code), "{line}");
        assert_eq!(line["trace"].as_str().map(str::len), Some(32), "{line}");
        assert_eq!(line["left_out"], 0);
    }
    // A second line of the first would stand before that of the second, or, where another process writes it, come soon.
    for request_id in [900, 901] {
        assert_eq!(of_request(request_id).len(), 1, "{request_id}");
    }
}
