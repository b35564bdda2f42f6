//! Dependencies point one way (docs/architecture.md), and drivers and runtimes are named only where they belong.
//! Read from `cargo metadata`, direct dependencies only, dev-dependencies left out.
#![allow(clippy::unwrap_used)]

use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

/// Our own packages that each of ours may name.
const MAY_NAME: [(&str, &[&str]); 10] = [
    ("im-proto", &[]),
    ("im-observe", &[]),
    ("im-codec", &["im-proto"]),
    ("im-gateway", &["im-observe", "im-proto", "im-codec"]),
    ("im-storage", &["im-observe", "im-proto"]),
    ("im-logic", &["im-observe", "im-proto", "im-storage"]),
    ("im-rpc", &["im-proto"]),
    ("im-client", &["im-proto", "im-codec"]),
    ("im-bench", &["im-proto", "im-codec", "im-client"]),
    ("im-server", &["im-proto", "im-codec", "im-gateway", "im-storage", "im-logic", "im-observe", "im-rpc"]),
];

/// Foreign packages and the only ones of ours that may name them.
const ONLY_IN: [(&str, &[&str]); 8] = [
    ("redb", &["im-storage"]),
    ("redis", &["im-storage"]),
    ("rdkafka", &["im-storage"]),
    ("sqlx", &["im-storage"]),
    ("mongodb", &["im-storage"]),
    ("monoio", &["im-gateway", "im-client", "im-bench"]),
    ("tonic", &["im-rpc"]),
    ("hyper", &["im-server"]),
];

fn direct_dependencies() -> BTreeMap<String, BTreeSet<String>> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--no-deps", "--format-version", "1", "--manifest-path"])
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml"))
        .output()
        .unwrap();
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let packages = metadata["packages"].as_array().unwrap();
    let dependencies = |package: &Value| {
        let all = package["dependencies"].as_array().unwrap();
        all.iter().filter(|d| d["kind"] != "dev").map(|d| text(&d["name"])).collect()
    };
    packages.iter().map(|package| (text(&package["name"]), dependencies(package))).collect()
}

#[test]
fn our_packages_name_only_those_below_them() {
    let found = direct_dependencies();
    assert_eq!(found.len(), MAY_NAME.len(), "a package is missing from this table: {:?}", found.keys());
    for (package, allowed) in MAY_NAME {
        for name in found[package].iter().filter(|name| name.starts_with("im-")) {
            assert!(allowed.contains(&name.as_str()), "{package} must not depend on {name}");
        }
    }
}

#[test]
fn drivers_and_runtimes_are_named_only_where_they_belong() {
    for (package, dependencies) in direct_dependencies() {
        for (foreign, homes) in ONLY_IN {
            let named = dependencies.contains(foreign);
            assert!(!named || homes.contains(&package.as_str()), "{package} must not depend on {foreign}");
        }
        let sans_io = ["im-proto", "im-codec"].contains(&package.as_str());
        for runtime in ["tokio", "monoio", "socket2", "async-trait"] {
            assert!(!(sans_io && dependencies.contains(runtime)), "{package} is sans-io and must not name {runtime}");
        }
    }
}
