//! What a Redis server says of itself, and what of that an operator should know.
//!
//! In: its INFO. Out: its identity; findings. Always: a finding has a name, so that one can be allowed by it; settings that
//! a managed Redis does not show are left out and never guessed.

use redis::{RedisResult, aio::MultiplexedConnection};
use std::{
    collections::HashMap,
    time::{SystemTime, UNIX_EPOCH},
};

const VERSION_MIN: u32 = 7;
/// Two clocks further apart than this are worth a word: versions and generations are lifted by them.
const CLOCKS_APART_MAX_MS: u64 = 1_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// The adapter refuses the server.
    Unsafe,
    /// A loss that is repaired, at a price.
    Risk,
    /// Good to know.
    Note,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    pub name: &'static str,
    pub severity: Severity,
    pub what: String,
    pub mend: &'static str,
}

pub struct Server {
    info: HashMap<String, String>,
    /// Settings, where the server shows them.
    settings: HashMap<String, String>,
    /// By our clock.
    asked_at_ms: u64,
}

impl Server {
    pub async fn ask(connection: &mut MultiplexedConnection) -> RedisResult<Self> {
        let info: String = redis::cmd("INFO").query_async(connection).await?;
        // Refused by many managed servers.
        let mut settings = redis::cmd("CONFIG");
        let settings = settings.arg("GET").arg("appendfsync").arg("save").query_async(connection).await;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Ok(Self { info: parse(&info), settings: settings.unwrap_or_default(), asked_at_ms: now.as_millis() as u64 })
    }

    fn says(&self, field: &str) -> &str {
        self.info.get(field).map_or("", String::as_str)
    }

    /// This run of this server, and its line of replication. A restart, a failover or a copy from another server changes
    /// it; the scripts read the same.
    pub fn identity(&self) -> String {
        format!("{}:{}", self.says("run_id"), self.says("master_replid"))
    }

    pub fn is_master(&self) -> bool {
        self.says("role") == "master"
    }

    /// The worst first. What is unsafe but allowed is a risk.
    pub fn findings(&self, allow: &[String]) -> Vec<Finding> {
        let found = [self.version(), self.cluster(), self.eviction(), self.persistence(), self.clock(), self.memory()];
        let mut found: Vec<_> = found.into_iter().flatten().collect();
        for finding in &mut found {
            if finding.severity == Severity::Unsafe && allow.iter().any(|name| name == finding.name) {
                finding.severity = Severity::Risk;
            }
        }
        found.sort_by_key(|finding| finding.severity);
        found
    }

    fn version(&self) -> Option<Finding> {
        let version = self.says("redis_version");
        let major = version.split('.').next().and_then(|major| major.parse::<u32>().ok());
        (major < Some(VERSION_MIN)).then(|| Finding {
            name: "version",
            severity: Severity::Unsafe,
            what: format!("version {version:?} is below {VERSION_MIN}"),
            mend: "upgrade the server",
        })
    }

    fn cluster(&self) -> Option<Finding> {
        (self.says("cluster_enabled") == "1").then(|| Finding {
            name: "cluster",
            severity: Severity::Unsafe,
            what: "the server is part of a cluster, whose masters lose rows one by one".to_owned(),
            mend: "use one master with replicas",
        })
    }

    fn eviction(&self) -> Option<Finding> {
        let policy = self.says("maxmemory_policy");
        (policy != "noeviction").then(|| Finding {
            name: "eviction",
            severity: Severity::Unsafe,
            what: format!("maxmemory-policy is {policy:?}: rows would vanish and nobody would know"),
            mend: "set maxmemory-policy noeviction",
        })
    }

    fn persistence(&self) -> Option<Finding> {
        let risk = |what: &str, mend| {
            Some(Finding { name: "persistence", severity: Severity::Risk, what: what.to_owned(), mend })
        };
        let setting = |name| self.settings.get(name).map(String::as_str);
        if self.says("aof_enabled") != "1" {
            let what = match setting("save") {
                Some("") => "nothing is written to disk: a restart empties every inbox, and they are made anew",
                _ => "no append-only file: a restart loses what moved since the last snapshot, and it is repeated",
            };
            return risk(what, "set appendonly yes");
        }
        if self.says("aof_last_write_status") != "ok" {
            return risk("the append-only file could not be written", "look at the server's log and disk");
        }
        if setting("appendfsync") == Some("no") {
            return risk(
                "appendfsync is no: a power cut loses up to half a minute, and it is repeated",
                "set appendfsync everysec",
            );
        }
        None
    }

    fn clock(&self) -> Option<Finding> {
        let theirs_ms = self.says("server_time_usec").parse::<u64>().ok()? / 1_000;
        let apart_ms = theirs_ms.abs_diff(self.asked_at_ms);
        (apart_ms > CLOCKS_APART_MAX_MS).then(|| Finding {
            name: "clock",
            severity: Severity::Risk,
            what: format!("its clock and ours are {apart_ms} ms apart"),
            mend: "keep the clocks of all hosts in step",
        })
    }

    fn memory(&self) -> Option<Finding> {
        (self.says("maxmemory") == "0").then(|| Finding {
            name: "memory",
            severity: Severity::Note,
            what: "maxmemory is not set: a full host kills the server, where a bound would refuse writes".to_owned(),
            mend: "set maxmemory below the host's memory",
        })
    }
}

fn parse(info: &str) -> HashMap<String, String> {
    let fields = info.lines().filter_map(|line| line.split_once(':'));
    fields.map(|(name, value)| (name.to_owned(), value.trim_end().to_owned())).collect()
}
