//! Ids that a client derives by itself.

use crate::check_file;
use im_proto::{ClientId, LogId, UserId};
use serde_json::json;

fn user(name: &str) -> UserId {
    UserId::parse(name).unwrap()
}

#[test]
fn the_derived_ids_are_those_of_the_file() {
    let long = "x".repeat(64);
    let pairs = [("alice", "bob"), ("bob", "alice"), ("alice", "alice"), ("A", "a"), ("Z", "a"), ("a-_0", &long)];
    let direct = pairs.map(|(a, b)| {
        let conversation = LogId::direct(&user(a), &user(b));
        json!({ "user_ids": [a, b], "conversation_id": conversation.as_str() })
    });
    let groups = [("alice", "c-1"), ("ab", "c"), ("a", "bc"), (&long, &long)].map(|(creator, command_id)| {
        let group = LogId::group(&user(creator), &ClientId::parse(command_id).unwrap());
        json!({ "creator": creator, "command_id": command_id, "conversation_id": group.as_str() })
    });
    let users = ["alice", "bob", "A", &long].map(|name| {
        let log = LogId::user(&user(name));
        json!({ "user_id": name, "user_log_id": log.as_str() })
    });
    check_file("ids.json", &json!({ "direct": direct, "groups": groups, "users": users }));
}
