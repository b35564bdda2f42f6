//! The sections of distributed mode: the other roles, and the four services.
//!
//! In: values of the configuration. Out: the options of `storage`'s adapters and of `rpc`. Always: standalone reads none of
//! them; a URL may hold a password, so none is logged.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Rpc {
    pub advertise: String,
    pub logic: RpcLogic,
    pub delivery: RpcDelivery,
    pub tls: RpcTls,
}

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RpcLogic {
    pub endpoints: Vec<String>,
    #[schemars(range(min = 1, max = 10000))]
    pub timeout_ms: u32,
    #[schemars(range(min = 1, max = 10))]
    pub attempts: u32,
    #[schemars(range(min = 100, max = 60000))]
    pub keep_alive_ms: u32,
    pub peer_names: Vec<String>,
}

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RpcDelivery {
    #[schemars(range(min = 1, max = 10000))]
    pub connect_timeout_ms: u32,
    #[schemars(range(min = 100, max = 60000))]
    pub keep_alive_ms: u32,
    pub peer_names: Vec<String>,
}

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RpcTls {
    #[schemars(extend("x-kind" = "path"))]
    pub authority: PathBuf,
    #[schemars(extend("x-kind" = "path"))]
    pub certificate: PathBuf,
    #[schemars(extend("x-kind" = "path"))]
    pub key: PathBuf,
    pub peer_names: Vec<String>,
}

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Kafka {
    pub brokers: String,
    pub topic: String,
    pub dead_letter_topic: String,
    pub relations_topic: String,
    pub group: String,
    #[schemars(range(min = 1, max = 256))]
    pub partitions: u16,
    #[schemars(range(min = 1, max = 16))]
    pub replicas: u8,
    #[schemars(range(min = 100))]
    pub in_flight_max: u32,
    pub settings: Vec<String>,
    pub allow: Vec<String>,
}

#[derive(Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Redis {
    pub url: String,
    pub prefix: String,
    pub allow: Vec<String>,
}

#[derive(Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Mysql {
    pub url: String,
    #[schemars(range(min = 1, max = 1000))]
    pub connections_max: u32,
    pub allow: Vec<String>,
}

#[derive(Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Mongodb {
    pub url: String,
    pub database: String,
    #[schemars(range(min = 100, max = 10000))]
    pub timeout_ms: u32,
    pub allow: Vec<String>,
}

/// Without the URL.
macro_rules! debug_without_url {
    ($($section:ident),*) => {$(
        impl std::fmt::Debug for $section {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.debug_struct(stringify!($section)).finish_non_exhaustive()
            }
        }
    )*};
}
debug_without_url!(Redis, Mysql, Mongodb);

#[cfg(feature = "distributed")]
mod options {
    use super::super::Config;
    use super::{Kafka, Mongodb, Mysql, Redis, RpcTls};
    use crate::exit::Failure;
    use crate::process::usage;
    use im_rpc::{CallOptions, ConnectOptions, TlsOptions, check_advertised};
    use im_storage::kafka::KafkaOptions;
    use im_storage::mongo::MongoOptions;
    use im_storage::mysql::MysqlOptions;
    use im_storage::redis::RedisOptions;
    use std::time::Duration;

    impl Config {
        /// What the clients of the services judge. Asks no service, and reads no file.
        pub fn check_services(&self) -> Result<(), Failure> {
            self.kafka.options()?.check().map_err(usage)?;
            self.redis.options().check().map_err(usage)?;
            self.mysql.options().check().map_err(usage)?;
            self.mongodb.options().check().map_err(usage)?;
            if self.names_logic_roles()? {
                self.check_calls()?;
            }
            match self.rpc.advertise.as_str() {
                "" => Ok(()),
                advertised => check_advertised(advertised, self.tls().is_some())
                    .map_err(|error| usage(format!("rpc.advertise, where workers reach this gateway: {error}"))),
            }
        }

        /// A file that is only for workers names none, and the default fits no TLS.
        pub fn names_logic_roles(&self) -> Result<bool, Failure> {
            let by_default = Self::load(None, std::iter::empty()).map_err(usage)?;
            Ok(self.rpc.logic.endpoints != by_default.rpc.logic.endpoints)
        }

        /// Whom a gateway asks.
        pub fn check_calls(&self) -> Result<(), Failure> {
            self.calls().check().map_err(|error| usage(format!("rpc.logic.endpoints: {error}")))
        }

        /// How a role's own server lets others in.
        pub fn tls(&self) -> Option<TlsOptions> {
            let RpcTls { authority, certificate, key, peer_names } = self.rpc.tls.clone();
            (!authority.as_os_str().is_empty()).then_some(TlsOptions { authority, certificate, key, peer_names })
        }

        /// How a server of the service is accepted: by the service's own names, where it has some.
        fn tls_of(&self, names: &[String]) -> Option<TlsOptions> {
            let tls = self.tls()?;
            let peer_names = if names.is_empty() { tls.peer_names } else { names.to_vec() };
            Some(TlsOptions { peer_names, ..tls })
        }

        /// How gateways ask logic roles.
        pub fn calls(&self) -> CallOptions {
            let logic = &self.rpc.logic;
            let timeout = millis(logic.timeout_ms);
            CallOptions {
                endpoints: logic.endpoints.clone(),
                timeout,
                attempts: logic.attempts,
                // An attempt that meets no connection makes one.
                connect: ConnectOptions {
                    timeout,
                    keep_alive: millis(logic.keep_alive_ms),
                    tls: self.tls_of(&logic.peer_names),
                },
            }
        }

        /// How workers reach gateways, which tell their own addresses.
        pub fn deliveries(&self) -> ConnectOptions {
            let delivery = &self.rpc.delivery;
            ConnectOptions {
                timeout: millis(delivery.connect_timeout_ms),
                keep_alive: millis(delivery.keep_alive_ms),
                tls: self.tls_of(&delivery.peer_names),
            }
        }
    }

    fn millis(ms: u32) -> Duration {
        Duration::from_millis(ms.into())
    }

    impl Kafka {
        pub fn options(&self) -> Result<KafkaOptions, Failure> {
            let setting = |text: &String| {
                let (name, value) = text
                    .split_once('=')
                    .ok_or_else(|| Failure::Usage(format!("kafka.settings: {text:?} is not name=value")))?;
                Ok((name.trim().to_owned(), value.trim().to_owned()))
            };
            Ok(KafkaOptions {
                brokers: self.brokers.clone(),
                topic: self.topic.clone(),
                dead_letter_topic: self.dead_letter_topic.clone(),
                relations_topic: self.relations_topic.clone(),
                group: self.group.clone(),
                settings: self.settings.iter().map(setting).collect::<Result<_, Failure>>()?,
                in_flight_max: self.in_flight_max,
                wall_clock_ms: crate::clock::now_ms,
                allow: self.allow.clone(),
            })
        }
    }

    impl Redis {
        pub fn options(&self) -> RedisOptions {
            RedisOptions { url: self.url.clone(), prefix: self.prefix.clone(), allow: self.allow.clone() }
        }
    }

    impl Mysql {
        pub fn options(&self) -> MysqlOptions {
            let Self { url, connections_max, allow } = self.clone();
            MysqlOptions { url, connections_max, allow }
        }
    }

    impl Mongodb {
        pub fn options(&self) -> MongoOptions {
            MongoOptions {
                url: self.url.clone(),
                database: self.database.clone(),
                timeout: Duration::from_millis(self.timeout_ms.into()),
                wall_clock_ms: crate::clock::now_ms,
                given_time_ms: None,
                allow: self.allow.clone(),
            }
        }
    }
}
