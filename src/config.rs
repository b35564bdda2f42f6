//! One configuration: defaults, then a file, then the environment.
//!
//! In: `default.yaml` (compiled in: every key with its default and its comment), an optional YAML or JSON file, variables
//! `IM_SECTION__KEY`. Out: a checked [`Config`], or an error that names the key and the nearest right one. Always: the
//! keys of `default.yaml` are all the keys there are, so the reference cannot lag behind the code.

use im_codec::SessionLimits;
use im_gateway::{GatewayConfig, WebsocketConfig};
use im_logic::LogicConfig;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

const DEFAULTS: &str = include_str!("default.yaml");
const VARIABLE_PREFIX: &str = "IM_";

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    pub listen: Listen,
    pub store: Store,
    pub auth: Auth,
    pub gateway: Gateway,
    pub logic: Logic,
    pub log: Log,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Listen {
    pub tcp: SocketAddr,
    pub websocket: SocketAddr,
    pub http: SocketAddr,
}

impl Listen {
    /// Only this machine can reach the server.
    pub fn all_loopback(&self) -> bool {
        [self.tcp, self.websocket, self.http].iter().all(|address| address.ip().is_loopback())
    }
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Store {
    pub folder: PathBuf,
    pub cache_mib: u32,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Auth {
    pub issuer: String,
    pub audience: String,
    pub expiry_required: bool,
    pub keys: Vec<VerificationKey>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VerificationKey {
    pub kid: String,
    pub algorithm: Algorithm,
    pub file: PathBuf,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub enum Algorithm {
    HS256,
    EdDSA,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Driver {
    Auto,
    Uring,
    Epoll,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Gateway {
    pub cores: u16,
    pub driver: Driver,
    pub origins: Vec<String>,
    pub heartbeat_interval_ms: u32,
    pub idle_timeout_ms: u32,
    pub first_byte_timeout_ms: u32,
    pub sign_in_timeout_ms: u32,
    pub frame_timeout_ms: u32,
    pub frame_bytes_max_before_sign_in: u32,
    pub frame_bytes_max: u32,
    pub body_bytes_max: u32,
    pub connections_max: u32,
    pub accept_rate_per_address_per_s: u32,
    pub accept_burst_per_address: u32,
    pub unauthenticated_per_address_max: u32,
    pub command_rate_per_s: u32,
    pub command_burst: u32,
    pub output_bytes_max: u32,
    pub output_frames_max: u32,
    pub stall_timeout_ms: u32,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Logic {
    pub partitions: u32,
    pub queue_records_max: u32,
    pub batch_records_max: u32,
    pub send_rate_per_user_per_s: u32,
    pub send_burst_per_user: u32,
    pub group_members_max: u32,
    pub receipts_members_max: u32,
    pub upstream_age_max_ms: u32,
    pub logs_cached_max: u32,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Log {
    pub format: LogFormat,
    pub level: String,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
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
    /// Defaults, then `file`, then the variables of `environment` that hold a `__`.
    pub fn load(file: Option<&Path>, environment: impl Iterator<Item = (String, String)>) -> Result<Self, ConfigError> {
        let known = parse("the built-in defaults", DEFAULTS)?;
        let mut effective = known.clone();
        if let Some(path) = file {
            let text =
                std::fs::read_to_string(path).map_err(|error| ConfigError::File { path: path.to_owned(), error })?;
            let name = path.display().to_string();
            overlay(&mut effective, parse(&name, &text)?, &known, &name, "")?;
        }
        for (variable, text) in environment {
            let Some(path) = variable.strip_prefix(VARIABLE_PREFIX).filter(|p| p.contains("__")) else { continue };
            let path = path.to_ascii_lowercase();
            let leaf = parse(&variable, &text)?;
            let nested =
                path.rsplit("__").fold(leaf, |value, key| Value::Object(Map::from_iter([(key.to_owned(), value)])));
            overlay(&mut effective, nested, &known, &variable, "")?;
        }
        let config: Self = serde_path(effective).map_err(ConfigError::Value)?;
        config.check()?;
        Ok(config)
    }

    /// The rules that no single value shows.
    fn check(&self) -> Result<(), ConfigError> {
        let gateway = &self.gateway;
        let rules = [
            (gateway.heartbeat_interval_ms > 0, "gateway.heartbeat_interval_ms must be above 0"),
            (
                gateway.idle_timeout_ms > gateway.heartbeat_interval_ms,
                "gateway.idle_timeout_ms must be above gateway.heartbeat_interval_ms",
            ),
            (gateway.frame_bytes_max <= 192 * 1024, "gateway.frame_bytes_max is at most 196608"),
            (
                gateway.body_bytes_max < gateway.frame_bytes_max,
                "gateway.body_bytes_max must be below gateway.frame_bytes_max",
            ),
            (gateway.command_rate_per_s > 0, "gateway.command_rate_per_s must be above 0"),
            (self.logic.send_rate_per_user_per_s > 0, "logic.send_rate_per_user_per_s must be above 0"),
            ((1..=64).contains(&self.logic.partitions), "logic.partitions is 1 to 64"),
            (self.logic.batch_records_max > 0, "logic.batch_records_max must be above 0"),
            (self.logic.queue_records_max > 0, "logic.queue_records_max must be above 0"),
        ];
        match rules.iter().find(|(holds, _)| !holds) {
            Some((_, rule)) => Err(ConfigError::Value((*rule).to_owned())),
            None => Ok(()),
        }
    }

    /// What the gateway is started with. `http`: where the page is, whose tabs may connect.
    pub fn gateway_config(&self, http: SocketAddr) -> GatewayConfig {
        let gateway = &self.gateway;
        GatewayConfig {
            tcp: self.listen.tcp,
            websocket: Some(WebsocketConfig { address: self.listen.websocket, origins: self.origins(http) }),
            cores: usize::from(gateway.cores),
            driver: match gateway.driver {
                Driver::Auto => im_gateway::Driver::Auto,
                Driver::Uring => im_gateway::Driver::Uring,
                Driver::Epoll => im_gateway::Driver::Epoll,
            },
            session: SessionLimits {
                first_byte_timeout_ms: gateway.first_byte_timeout_ms.into(),
                sign_in_timeout_ms: gateway.sign_in_timeout_ms.into(),
                frame_timeout_ms: gateway.frame_timeout_ms.into(),
                heartbeat_interval_ms: gateway.heartbeat_interval_ms,
                idle_timeout_ms: gateway.idle_timeout_ms,
                frame_bytes_max_before_sign_in: gateway.frame_bytes_max_before_sign_in,
                frame_bytes_max: gateway.frame_bytes_max,
                body_bytes_max: gateway.body_bytes_max as usize,
                command_rate_per_s: gateway.command_rate_per_s,
                command_burst: gateway.command_burst,
            },
            connections_max: gateway.connections_max as usize,
            accept_rate_per_address_per_s: gateway.accept_rate_per_address_per_s,
            accept_burst_per_address: gateway.accept_burst_per_address,
            unauthenticated_per_address_max: gateway.unauthenticated_per_address_max,
            output_bytes_max: gateway.output_bytes_max as usize,
            output_frames_max: gateway.output_frames_max as usize,
            stall_timeout_ms: gateway.stall_timeout_ms.into(),
            faults: im_gateway::Faults::from_env(),
            ..GatewayConfig::default()
        }
    }

    /// The page's own origins, by every name a browser on this machine may have used, then those of `gateway.origins`.
    fn origins(&self, http: SocketAddr) -> Vec<String> {
        let port = http.port();
        let mut origins = vec![format!("http://{http}")];
        if http.ip().is_loopback() || http.ip().is_unspecified() {
            origins.extend(["localhost", "127.0.0.1", "[::1]"].map(|host| format!("http://{host}:{port}")));
        }
        origins.extend(self.gateway.origins.iter().cloned());
        origins
    }

    /// What the workers and request handlers are started with.
    pub fn logic_config(&self) -> LogicConfig {
        let logic = &self.logic;
        let default = LogicConfig::default();
        LogicConfig {
            batch_records_max: logic.batch_records_max as usize,
            logs_cached_max: logic.logs_cached_max as usize,
            upstream_age_max_ms: logic.upstream_age_max_ms,
            send_rate_per_user_per_s: logic.send_rate_per_user_per_s,
            send_burst_per_user: logic.send_burst_per_user,
            receipts_members_max: logic.receipts_members_max as usize,
            limits: im_logic::Limits {
                body_bytes_max: self.gateway.body_bytes_max as usize,
                group_members_max: logic.group_members_max as usize,
                ..default.limits
            },
            ..default
        }
    }

    /// `default.yaml` with its comments and the effective values.
    pub fn print(&self) -> String {
        let values = serde_json::to_value(self).unwrap_or_default();
        let mut section = String::new();
        let mut lines = Vec::new();
        for line in DEFAULTS.lines() {
            let key = line.trim_start().split(':').next().unwrap_or_default().to_owned();
            let is_key = !line.trim_start().starts_with('#') && line.contains(':');
            if is_key && !line.starts_with(' ') {
                section.clone_from(&key);
            }
            match (is_key && line.starts_with(' ')).then(|| values.get(&section)?.get(&key)).flatten() {
                Some(value) => lines.push(format!("  {key}: {}", scalar(value))),
                None => lines.push(line.to_owned()),
            }
        }
        lines.join("\n") + "\n"
    }
}

/// JSON is YAML, so a list or a quoted text prints as JSON; a plain text without quotes reads better.
fn scalar(value: &Value) -> String {
    match value {
        Value::String(text) if !text.is_empty() && !text.contains([' ', '#', '"', '\\']) => text.clone(),
        other => other.to_string(),
    }
}

fn parse(source_name: &str, text: &str) -> Result<Value, ConfigError> {
    serde_saphyr::from_str(text)
        .map_err(|error| ConfigError::Syntax { source_name: source_name.to_owned(), error: error.to_string() })
}

/// Puts `from` over `into`, refusing keys that `known` lacks.
fn overlay(into: &mut Value, from: Value, known: &Value, source_name: &str, path: &str) -> Result<(), ConfigError> {
    let (Value::Object(into_keys), Value::Object(known_keys)) = (&mut *into, known) else {
        *into = from;
        return Ok(());
    };
    let from = match from {
        Value::Object(from) => from,
        Value::Null => return Ok(()),
        _ => return Err(ConfigError::Value(format!("{source_name}: {path} must hold keys, not a single value"))),
    };
    for (key, value) in from {
        let full = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
        match (into_keys.get_mut(&key), known_keys.get(&key)) {
            (Some(into), Some(known)) => overlay(into, value, known, source_name, &full)?,
            _ => return Err(unknown_key(source_name, full, path, known_keys)),
        }
    }
    Ok(())
}

fn unknown_key(source_name: &str, key: String, path: &str, known: &Map<String, Value>) -> ConfigError {
    let asked = key.rsplit('.').next().unwrap_or_default();
    let nearest = known
        .keys()
        .max_by(|a, b| strsim::jaro_winkler(a, asked).total_cmp(&strsim::jaro_winkler(b, asked)))
        .map(|name| if path.is_empty() { name.clone() } else { format!("{path}.{name}") })
        .map(|name| format!("; did you mean {name}?"))
        .unwrap_or_default();
    ConfigError::UnknownKey { source_name: source_name.to_owned(), key, nearest }
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
