//! What a Redis server says of itself, and what of that an operator should know.
//!
//! In: its INFO. Out: its identity; findings. Always: a finding has a name, so that one can be allowed by it; settings that
//! a managed Redis does not show are left out and never guessed.

use crate::finding::{Finding, Severity, judge};
use redis::{RedisResult, aio::MultiplexedConnection};
use std::{
    collections::HashMap,
    time::{SystemTime, UNIX_EPOCH},
};

const VERSION_MIN: u32 = 7;
/// Two clocks further apart than this are worth a word: versions and generations are lifted by them.
const CLOCKS_APART_MAX_MS: u64 = 1_000;

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

    pub fn findings(&self, allow: &[String]) -> Vec<Finding> {
        let found = [self.version(), self.cluster(), self.eviction(), self.persistence(), self.clock(), self.memory()];
        judge(found.into_iter().flatten().collect(), allow)
    }

    fn version(&self) -> Option<Finding> {
        let version = self.says("redis_version");
        let major = version.split('.').next().and_then(|major| major.parse::<u32>().ok());
        (major < Some(VERSION_MIN)).then(|| Finding {
            name: "redis.version",
            severity: Severity::Unsafe,
            found: format!("version {version:?} is below {VERSION_MIN}"),
            mend: "upgrade the server".to_owned(),
        })
    }

    fn cluster(&self) -> Option<Finding> {
        (self.says("cluster_enabled") == "1").then(|| Finding {
            name: "redis.cluster",
            severity: Severity::Unsafe,
            found: "the server is part of a cluster, whose masters lose rows one by one".to_owned(),
            mend: "use one master with replicas".to_owned(),
        })
    }

    fn eviction(&self) -> Option<Finding> {
        let policy = self.says("maxmemory_policy");
        (policy != "noeviction").then(|| Finding {
            name: "redis.eviction",
            severity: Severity::Unsafe,
            found: format!("maxmemory-policy is {policy:?}: rows would vanish and nobody would know"),
            mend: "set maxmemory-policy noeviction".to_owned(),
        })
    }

    fn persistence(&self) -> Option<Finding> {
        let risk = |what: &str, mend: &str| {
            Some(Finding {
                name: "redis.persistence",
                severity: Severity::Risk,
                found: what.to_owned(),
                mend: mend.to_owned(),
            })
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
            name: "redis.clock",
            severity: Severity::Risk,
            found: format!("its clock and ours are {apart_ms} ms apart"),
            mend: "keep the clocks of all hosts in step".to_owned(),
        })
    }

    fn memory(&self) -> Option<Finding> {
        (self.says("maxmemory") == "0").then(|| Finding {
            name: "redis.memory",
            severity: Severity::Note,
            found: "maxmemory is not set: a full host kills the server, where a bound would refuse writes".to_owned(),
            mend: "set maxmemory below the host's memory".to_owned(),
        })
    }
}

fn parse(info: &str) -> HashMap<String, String> {
    let fields = info.lines().filter_map(|line| line.split_once(':'));
    fields.map(|(name, value)| (name.to_owned(), value.trim_end().to_owned())).collect()
}
