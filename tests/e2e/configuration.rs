//! The configuration as operators meet it: the schema, the list of variables and the defaults say the same, and the server
//! does what they say.

use crate::harness::server::{Addresses, Folder, Server, Settings, binary};
use serde_json::{Value, json};
use std::process::{Command, Output};

/// Runs without the variables of whoever runs the tests.
fn run(arguments: &[&str], variables: &[(&str, &str)]) -> Output {
    let inherited = std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("IM_"));
    let mut command = Command::new(binary());
    command.args(arguments);
    inherited.for_each(|(name, _)| {
        command.env_remove(name);
    });
    command.envs(variables.iter().copied()).output().unwrap()
}

fn printed(arguments: &[&str], variables: &[(&str, &str)]) -> String {
    let output = run(arguments, variables);
    assert!(output.status.success(), "{arguments:?} {variables:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn schema() -> Value {
    serde_json::from_str(&printed(&["config", "schema"], &[])).unwrap()
}

fn yaml(text: &str) -> Value {
    serde_saphyr::from_str(text).unwrap()
}

/// Every key that holds no further keys: its path and its schema.
fn leaves(schema: &Value) -> Vec<(Vec<String>, Value)> {
    fn descend(node: &Value, path: &mut Vec<String>, found: &mut Vec<(Vec<String>, Value)>) {
        let Some(properties) = node["properties"].as_object() else { return found.push((path.clone(), node.clone())) };
        for (name, inner) in properties {
            path.push(name.clone());
            descend(inner, path, found);
            path.pop();
        }
    }
    let mut found = Vec::new();
    descend(schema, &mut Vec::new(), &mut found);
    found
}

fn variable(path: &[String]) -> String {
    format!("IM_{}", path.join("__").to_uppercase())
}

fn at<'v>(value: &'v Value, path: &[String]) -> &'v Value {
    path.iter().fold(value, |value, key| &value[key])
}

/// Another value than the default that the schema allows.
fn another(path: &[String], leaf: &Value) -> Value {
    let default = &leaf["default"];
    if let Some(values) = leaf["enum"].as_array() {
        return values.iter().find(|value| *value != default).unwrap().clone();
    }
    match leaf["type"].as_str().unwrap() {
        "integer" => json!(default.as_u64().unwrap() + 1),
        "boolean" => json!(!default.as_bool().unwrap()),
        "array" if leaf["items"]["type"] == "string" => json!(["https://chat.example.com"]),
        "array" => json!([{ "kid": "k", "algorithm": "EdDSA", "file": "key.pem" }]),
        "string" if leaf["x-kind"] == "address:port" => json!("127.0.0.1:7"),
        "string" => json!("something"),
        other => panic!("{path:?}: this test knows no {other}"),
    }
}

#[test]
fn the_schema_is_valid_and_takes_the_defaults_and_the_benchmarks_configuration() {
    let schema = schema();
    assert_eq!(schema["$schema"], "https://json-schema.org/draft/2020-12/schema");
    jsonschema::draft202012::meta::validate(&schema).unwrap();
    let validator = jsonschema::draft202012::new(&schema).unwrap();
    let defaults = include_str!("../../src/default.yaml");
    for (name, text) in [("the defaults", defaults), ("bench/server.yaml", include_str!("../../bench/server.yaml"))] {
        let errors: Vec<String> =
            validator.iter_errors(&yaml(text)).map(|error| format!("{}: {error}", error.instance_path())).collect();
        assert!(errors.is_empty(), "{name}: {errors:?}");
    }
    assert!(validator.is_valid(&json!({})), "a file needs no key");
}

#[test]
fn what_the_schema_refuses_the_server_refuses() {
    let validator = jsonschema::draft202012::new(&schema()).unwrap();
    let wrong = [
        ("IM_GATEWAY__CORES", json!({"gateway": {"cores": 65}}), "65"),
        ("IM_GATEWAY__CORES", json!({"gateway": {"cores": -1}}), "-1"),
        ("IM_LOGIC__PARTITIONS", json!({"logic": {"partitions": 0}}), "0"),
        ("IM_GATEWAY__DRIVER", json!({"gateway": {"driver": "kqueue"}}), "kqueue"),
        ("IM_AUTH__EXPIRY_REQUIRED", json!({"auth": {"expiry_required": 7}}), "7"),
        ("IM_LISTEN__TCP", json!({"listen": {"tcp": "localhost"}}), "localhost"),
        ("IM_GATEWAY__ORIGINS", json!({"gateway": {"origins": "x"}}), "x"),
        ("IM_GATEWAY__ORIGINS", json!({"gateway": {"origins": ["https://x/"]}}), "[\"https://x/\"]"),
        ("IM_GATEWAY__ORIGINS", json!({"gateway": {"origins": ["*"]}}), "[\"*\"]"),
        ("IM_AUTH__KEYS", json!({"auth": {"keys": [{"kid": "k"}]}}), "[{\"kid\": \"k\"}]"),
        ("IM_GATEWAY__FRAME_BYTES_MAX", json!({"gateway": {"frame_bytes_max": 196609}}), "196609"),
        ("IM_LISTEN__TPC", json!({"listen": {"tpc": "127.0.0.1:1"}}), "127.0.0.1:1"),
    ];
    for (name, file, value) in wrong {
        assert!(!validator.is_valid(&file), "{file}");
        let output = run(&["config", "check"], &[(name, value)]);
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{name}={value}: {text}");
        let key = file.as_object().unwrap().keys().next().unwrap();
        assert!(text.contains(&format!("{key}.")), "{name}={value} names its key: {text}");
    }
}

#[test]
fn every_key_has_a_description_a_default_and_a_bound_and_its_unit_if_it_has_one() {
    let schema = schema();
    let leaves = leaves(&schema);
    assert!(!leaves.is_empty());
    for (path, leaf) in leaves {
        assert!(leaf["description"].as_str().is_some_and(|text| text.ends_with('.')), "{path:?} is not described");
        assert!(!leaf["default"].is_null(), "{path:?} has no default");
        let is_number = leaf["type"] == "integer";
        assert_eq!(is_number, leaf["minimum"].is_u64() && leaf["maximum"].is_u64(), "{path:?}: {leaf}");
        let name = path.last().unwrap();
        let has_unit = ["_ms", "_mib", "_per_s"].iter().any(|end| name.ends_with(end)) || name.contains("_bytes");
        assert_eq!(has_unit, leaf["x-unit"].is_string(), "{path:?}: {leaf}");
    }
}

#[test]
fn every_key_of_the_schema_is_listed_as_a_variable_and_the_variable_is_obeyed() {
    let list = printed(&["config", "env"], &[]);
    let defaults = yaml(&printed(&["config", "print"], &[]));
    let schema = schema();
    let leaves = leaves(&schema);
    assert_eq!(list.lines().filter(|line| line.starts_with("IM_")).count(), leaves.len(), "no variable without a key");
    for (path, leaf) in leaves {
        let name = variable(&path);
        let line =
            list.lines().find(|line| line.starts_with(&format!("{name}  ("))).unwrap_or_else(|| panic!("{name}"));
        let default = &leaf["default"];
        let shown = default.as_str().filter(|text| !text.is_empty()).map_or(default.to_string(), str::to_owned);
        assert!(line.ends_with(&format!("; default {shown})")), "{line}");
        let first = leaf["description"].as_str().unwrap().split(' ').next().unwrap();
        let below = list.lines().skip_while(|other| *other != line).nth(1).unwrap();
        assert!(below.starts_with(&format!("    {first}")), "{name}: {below}");

        let other = another(&path, &leaf);
        let text = other.as_str().map_or(other.to_string(), str::to_owned);
        let effective = yaml(&printed(&["config", "print"], &[(&name, &text)]));
        assert_eq!((at(&defaults, &path), at(&effective, &path)), (default, &other), "{name}={text}");
    }
}

#[test]
fn the_configuration_in_compose_yaml_is_accepted() {
    let compose = yaml(&std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/compose.yaml")).unwrap());
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), compose["configs"]["im-server"]["content"].as_str().unwrap()).unwrap();
    let arguments = ["config", "check", "--config", file.path().to_str().unwrap()];
    for role in ["gateway-1", "gateway-2", "worker-1", "worker-2", "migrate"] {
        let environment = compose["services"][role]["environment"].as_object().cloned().unwrap_or_default();
        let variables: Vec<_> =
            environment.iter().map(|(name, value)| (name.as_str(), value.as_str().unwrap())).collect();
        assert_eq!(printed(&arguments, &variables), "ok\n", "{role}");
    }
}

#[test]
fn with_json_logs_a_server_that_cannot_start_says_why_in_json_too() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let tcp = taken.local_addr().unwrap();
    let addresses = Addresses { tcp, ..Addresses::any_port([127, 0, 0, 1].into()) };
    let settings = Settings::for_tests().with("IM_LOG__FORMAT", "json");
    let refused = |settings: &Settings| Server::refuse_to_start(&Folder::new(), settings, addresses);
    let (status, text) = refused(&settings);
    assert_eq!(status.code(), Some(3), "{text}");
    let parse = |line| serde_json::from_str::<Value>(line).unwrap_or_else(|_| panic!("no JSON: {line}"));
    let lines: Vec<Value> = text.lines().map(parse).collect();
    let last = lines.last().expect("it says nothing");
    assert_eq!(last["level"], "ERROR");
    let message = last["message"].as_str().unwrap();
    assert!(message.contains("listen.tcp") && message.contains(&tcp.to_string()), "{message}");

    let (status, text) = refused(&settings.with("IM_LOG__LEVEL", "\"off\""));
    assert!(status.code() == Some(3) && text.contains("listen.tcp"), "no level hides why: {text}");
}
