//! One configuration: defaults, then a file, then the environment.
//!
//! In: `default.yaml` (compiled in: every key with its default and its comment), an optional YAML or JSON file, variables
//! `IM_SECTION__KEY`. Out: a checked [`Config`], or an error that names the key and the nearest right one. Always: the
//! keys of `default.yaml` are all the keys there are, so the reference cannot lag behind the code; a type or a bound is
//! written here, a default or a description there, and schema and list of variables are made of both.

mod defaults;
mod distributed;
mod layers;
mod origins;
mod roles;
mod schema;
mod variables;

pub(crate) use origins::page_origin;

pub use distributed::{Kafka, Mongodb, Mysql, Redis, Rpc, RpcDelivery, RpcLogic, RpcService, RpcTls};
pub use schema::schema;
pub use variables::list as variables;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// An IPv4 or an IPv6 address, and a port.
const ADDRESS: &str = r"^([0-9.]+|\[[0-9a-fA-F:.]+\]):[0-9]{1,5}$";
/// Roughly what [`origins`] takes.
const ORIGIN: &str = r"^[A-Za-z][A-Za-z0-9+.-]*://([A-Za-z0-9._-]+|\[[0-9a-fA-F:.]+\])(:[0-9]{1,5})?$";

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    pub listen: Listen,
    pub store: Store,
    pub auth: Auth,
    pub gateway: Gateway,
    pub logic: Logic,
    pub rpc: Rpc,
    pub kafka: Kafka,
    pub redis: Redis,
    pub mysql: Mysql,
    pub mongodb: Mongodb,
    pub log: Log,
}

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Listen {
    #[schemars(regex(pattern = ADDRESS), extend("x-kind" = "address:port"))]
    pub tcp: SocketAddr,
    #[schemars(regex(pattern = ADDRESS), extend("x-kind" = "address:port"))]
    pub websocket: SocketAddr,
    #[schemars(regex(pattern = ADDRESS), extend("x-kind" = "address:port"))]
    pub http: SocketAddr,
    #[schemars(regex(pattern = ADDRESS), extend("x-kind" = "address:port"))]
    pub gateway_rpc: SocketAddr,
    #[schemars(regex(pattern = ADDRESS), extend("x-kind" = "address:port"))]
    pub logic_rpc: SocketAddr,
    #[schemars(regex(pattern = ADDRESS), extend("x-kind" = "address:port"))]
    pub logic_http: SocketAddr,
}

impl Listen {
    /// Only this machine can reach the standalone server.
    pub fn all_loopback(&self) -> bool {
        [self.tcp, self.websocket, self.http].iter().all(|address| address.ip().is_loopback())
    }
}

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Store {
    #[schemars(extend("x-kind" = "path"))]
    pub folder: PathBuf,
    #[schemars(range(min = 1, max = 1048576))]
    pub cache_mib: u32,
}

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Auth {
    pub issuer: String,
    pub audience: String,
    pub expiry_required: bool,
    pub keys: Vec<VerificationKey>,
}

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct VerificationKey {
    pub kid: String,
    pub algorithm: Algorithm,
    #[schemars(extend("x-kind" = "path"))]
    pub file: PathBuf,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize, JsonSchema)]
pub enum Algorithm {
    HS256,
    EdDSA,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Driver {
    Auto,
    Uring,
    Epoll,
}

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Gateway {
    #[schemars(range(min = 0, max = 64))]
    pub cores: u16,
    pub driver: Driver,
    #[schemars(inner(regex(pattern = ORIGIN)))]
    pub origins: Vec<String>,
    #[schemars(range(min = 1))]
    pub heartbeat_interval_ms: u32,
    pub idle_timeout_ms: u32,
    pub first_byte_timeout_ms: u32,
    pub sign_in_timeout_ms: u32,
    pub frame_timeout_ms: u32,
    #[schemars(range(min = 4352, max = 196608))]
    pub frame_bytes_max_before_sign_in: u32,
    #[schemars(range(min = 45312, max = 196608))]
    pub frame_bytes_max: u32,
    pub body_bytes_max: u32,
    #[schemars(range(min = 1))]
    pub connections_max: u32,
    #[schemars(range(min = 1))]
    pub accept_rate_per_address_per_s: u32,
    #[schemars(range(min = 1))]
    pub accept_burst_per_address: u32,
    #[schemars(range(min = 1))]
    pub unauthenticated_per_address_max: u32,
    #[schemars(range(min = 1))]
    pub command_rate_per_s: u32,
    #[schemars(range(min = 1))]
    pub command_burst: u32,
    #[schemars(range(min = 1024))]
    pub output_bytes_max: u32,
    #[schemars(range(min = 1))]
    pub output_frames_max: u32,
    #[schemars(range(min = 1))]
    pub stall_timeout_ms: u32,
    #[schemars(range(min = 1000))]
    pub lease_ms: u32,
}

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Logic {
    #[schemars(range(min = 1, max = 64))]
    pub partitions: u32,
    #[schemars(range(min = 1, max = 64))]
    pub workers: u32,
    #[schemars(range(min = 1))]
    pub queue_records_max: u32,
    #[schemars(range(min = 1))]
    pub batch_records_max: u32,
    #[schemars(range(min = 1))]
    pub send_rate_per_user_per_s: u32,
    #[schemars(range(min = 1))]
    pub send_burst_per_user: u32,
    #[schemars(range(min = 1))]
    pub group_members_max: u32,
    pub receipts_members_max: u32,
    #[schemars(range(min = 2))]
    pub large_members_min: u32,
    pub upstream_age_max_ms: u32,
    #[schemars(range(min = 1))]
    pub logs_cached_max: u32,
    // A worker allocates the table at its start.
    #[schemars(range(min = 1, max = 10_000_000))]
    pub commands_remembered_max: u32,
}

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Log {
    pub format: LogFormat,
    pub level: String,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    Pretty,
    Json,
}

/// What an operator must mend; the text says where.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("cannot read the configuration file {path}: {error}")]
    File { path: PathBuf, error: std::io::Error },
    #[error("{source_name} is not valid YAML or JSON: {error}")]
    Syntax { source_name: String, error: String },
    #[error("{source_name}: unknown key {key}{nearest}")]
    UnknownKey { source_name: String, key: String, nearest: String },
    #[error("configuration: {0}")]
    Value(String),
}

impl Config {
    /// Defaults, then `file`, then the variables of `environment` that hold a `__`. One that lacks it and begins like a
    /// section is an error; the others are not ours.
    pub fn load(file: Option<&Path>, environment: impl Iterator<Item = (String, String)>) -> Result<Self, ConfigError> {
        let known = layers::parse("the built-in defaults", defaults::TEXT)?;
        let mut effective = known.clone();
        if let Some(path) = file {
            let text =
                std::fs::read_to_string(path).map_err(|error| ConfigError::File { path: path.to_owned(), error })?;
            let name = path.display().to_string();
            layers::overlay(&mut effective, layers::parse(&name, &text)?, &known, &name, "")?;
        }
        for (variable, text) in environment {
            let Some(path) = variable.strip_prefix(variables::PREFIX) else { continue };
            if !path.contains(variables::SEPARATOR) {
                variables::refuse_lookalike(&variable)?;
                continue;
            }
            let path = path.to_ascii_lowercase();
            let leaf = layers::parse(&variable, &text)?;
            let nested = path
                .rsplit(variables::SEPARATOR)
                .fold(leaf, |value, key| Value::Object(Map::from_iter([(key.to_owned(), value)])));
            layers::overlay(&mut effective, nested, &known, &variable, "")?;
        }
        let config: Self = serde_path(effective).map_err(ConfigError::Value)?;
        config.check()?;
        Ok(config)
    }

    /// Each number within its bounds, then what no single value shows.
    fn check(&self) -> Result<(), ConfigError> {
        schema::check_bounds(&self.values())?;
        let gateway = &self.gateway;
        origins::check(&gateway.origins)?;
        if gateway.idle_timeout_ms <= gateway.heartbeat_interval_ms {
            let rule = "gateway.idle_timeout_ms must be above gateway.heartbeat_interval_ms";
            return Err(ConfigError::Value(rule.to_owned()));
        }
        let checked = self.gateway_config(self.listen.http).check();
        checked.map_err(|error| ConfigError::Value(format!("gateway: {error}")))
    }

    /// `default.yaml` with its comments and the effective values.
    pub fn print(&self) -> String {
        defaults::print(&self.values())
    }

    fn values(&self) -> Value {
        serde_json::to_value(self).unwrap_or_default()
    }
}

/// Deserialises one section after the other, so that an error names the section.
fn serde_path(value: Value) -> Result<Config, String> {
    serde_path_to_error::deserialize(value).map_err(|error| format!("{}: {}", error.path(), error.inner()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(file: Option<&str>, environment: &[(&str, &str)]) -> Result<Config, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("im.yaml");
        if let Some(text) = file {
            std::fs::write(&path, text).unwrap();
        }
        let environment = environment.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
        Config::load(file.map(|_| path.as_path()), environment).map_err(|error| error.to_string())
    }

    #[test]
    fn the_file_overrides_the_defaults_and_the_environment_overrides_the_file() {
        let file = "listen: {tcp: '127.0.0.1:1'}\nlogic:\n  partitions: 3\n";
        let config = load(Some(file), &[("IM_LISTEN__TCP", "127.0.0.1:2"), ("IM_LOG", "x"), ("PATH", "y")]).unwrap();
        assert_eq!(config.listen.tcp.port(), 2);
        assert_eq!(config.logic.partitions, 3);
        assert_eq!(config.listen.http.port(), 6102);
    }

    #[test]
    fn json_works_by_the_same_names() {
        let config = load(Some(r#"{"listen": {"tcp": "127.0.0.1:7"}}"#), &[]).unwrap();
        assert_eq!(config.listen.tcp.port(), 7);
    }

    #[test]
    fn an_unknown_key_is_an_error_that_names_the_nearest_one() {
        let error = load(Some("gateway: {heartbeat_intervall_ms: 5}"), &[]).unwrap_err();
        assert!(error.contains("gateway.heartbeat_intervall_ms"), "{error}");
        assert!(error.contains("did you mean gateway.heartbeat_interval_ms?"), "{error}");
        let error = load(None, &[("IM_LISTEN__TPC", "127.0.0.1:7")]).unwrap_err();
        assert!(error.contains("IM_LISTEN__TPC") && error.contains("listen.tcp"), "{error}");
    }

    #[test]
    fn a_variable_with_one_underscore_too_few_is_an_error_that_names_the_right_one() {
        for (wrong, right) in [
            ("IM_LISTEN_TCP", "IM_LISTEN__TCP"),
            ("IM_GATEWAY_HEARTBEAT_INTERVAL_MS", "IM_GATEWAY__HEARTBEAT_INTERVAL_MS"),
            ("IM_RPC_TLS_AUTHORITY", "IM_RPC__TLS__AUTHORITY"),
            ("IM_LOGIC_PARTITION", "IM_LOGIC__PARTITIONS"),
        ] {
            let error = load(None, &[(wrong, "1")]).unwrap_err();
            assert!(error.contains(wrong) && error.contains(&format!("did you mean {right}?")), "{error}");
        }
        let of_tests = ["IM_FAULT_POINT", "IM_PLANTED_BUG", "IM_TEST_KAFKA", "IM_SERVICES_KAFKA_PORT", "IM_SERVER_BIN"];
        let of_kubernetes = ["IM_GATEWAY_SERVICE_HOST", "IM_GATEWAY_PORT", "IM_LOGIC_PORT_6104_TCP_ADDR"];
        for not_ours in of_tests.iter().chain(&of_kubernetes) {
            assert!(load(None, &[(not_ours, "1")]).is_ok(), "{not_ours}");
        }
    }

    #[test]
    fn a_wrong_value_is_an_error_that_names_its_key() {
        let error = load(Some("gateway: {cores: many}"), &[]).unwrap_err();
        assert!(error.contains("gateway.cores"), "{error}");
        let error = load(Some("gateway: {idle_timeout_ms: 10}"), &[]).unwrap_err();
        assert!(error.contains("gateway.idle_timeout_ms"), "{error}");
    }

    #[test]
    fn what_print_writes_loads_to_the_same() {
        let config = load(None, &[("IM_LOGIC__PARTITIONS", "5"), ("IM_AUTH__ISSUER", "a b")]).unwrap();
        let printed = config.print();
        assert!(printed.contains("# Native clients"), "comments stay");
        let again = load(Some(&printed), &[]).unwrap();
        assert_eq!(serde_json::to_value(&config).unwrap(), serde_json::to_value(&again).unwrap());
    }
}
