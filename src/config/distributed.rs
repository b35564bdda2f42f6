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
    pub session: RpcService,
    pub conversation: RpcService,
    pub device: RpcService,
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

/// What is empty or 0 is as in [`RpcLogic`].
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RpcService {
    pub endpoints: Vec<String>,
    #[schemars(range(min = 0, max = 10000))]
    pub timeout_ms: u32,
    #[schemars(range(min = 0, max = 10))]
    pub attempts: u32,
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
    use super::{Kafka, Mongodb, Mysql, Redis, Rpc, RpcService, RpcTls};
    use crate::exit::Failure;
    use crate::process::usage;
    use im_rpc::{CallOptions, ConnectOptions, LogicOptions, TlsOptions, check_advertised};
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
            let Rpc { logic, session, conversation, device, .. } = &self.rpc;
            let is_named = [session, conversation, device].iter().any(|service| !service.endpoints.is_empty());
            Ok(is_named || logic.endpoints != by_default.rpc.logic.endpoints)
        }

        /// Whom a gateway asks.
        pub fn check_calls(&self) -> Result<(), Failure> {
            let LogicOptions { session, conversation, device } = self.calls();
            let of = [(session, "session"), (conversation, "conversation"), (device, "device")];
            for ((options, service), own) in
                of.into_iter().zip([&self.rpc.session, &self.rpc.conversation, &self.rpc.device])
            {
                let section = if own.endpoints.is_empty() { "logic" } else { service };
                options.check().map_err(|error| usage(format!("rpc.{section}.endpoints: {error}")))?;
            }
            Ok(())
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
        pub fn calls(&self) -> LogicOptions {
            let Rpc { session, conversation, device, .. } = &self.rpc;
            LogicOptions {
                session: self.calls_of(session),
                conversation: self.calls_of(conversation),
                device: self.calls_of(device),
            }
        }

        fn calls_of(&self, own: &RpcService) -> CallOptions {
            let logic = &self.rpc.logic;
            let names = |own: &[String], of_all: &[String]| if own.is_empty() { of_all.to_vec() } else { own.to_vec() };
            let number = |own: u32, of_all: u32| if own == 0 { of_all } else { own };
            CallOptions {
                endpoints: names(&own.endpoints, &logic.endpoints),
                timeout: millis(number(own.timeout_ms, logic.timeout_ms)),
                attempts: number(own.attempts, logic.attempts),
                // An attempt that meets no connection makes one.
                connect: ConnectOptions {
                    timeout: millis(logic.timeout_ms),
                    keep_alive: millis(logic.keep_alive_ms),
                    tls: self.tls_of(&names(&own.peer_names, &logic.peer_names)),
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

#[cfg(all(test, feature = "distributed"))]
mod tests {
    use crate::config::Config;
    use std::time::Duration;

    #[test]
    fn a_service_is_called_as_all_are_but_for_what_its_own_section_says() {
        let set = [
            ("IM_RPC__LOGIC__ENDPOINTS", r#"["http://worker-1:6104"]"#),
            ("IM_RPC__LOGIC__ATTEMPTS", "2"),
            ("IM_RPC__SESSION__TIMEOUT_MS", "700"),
            ("IM_RPC__DEVICE__ENDPOINTS", r#"["http://worker-9:6104"]"#),
            ("IM_RPC__DEVICE__ATTEMPTS", "5"),
            ("IM_RPC__TLS__AUTHORITY", "/authority.pem"),
            ("IM_RPC__LOGIC__PEER_NAMES", r#"["logic.im"]"#),
            ("IM_RPC__DEVICE__PEER_NAMES", r#"["devices.im"]"#),
        ];
        let set = set.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let calls = Config::load(None, set.into_iter()).unwrap().calls();
        let said = [&calls.session, &calls.conversation, &calls.device].map(|of| {
            let names = of.connect.tls.as_ref().unwrap().peer_names.join(",");
            (of.endpoints.join(","), of.timeout, of.attempts, names)
        });
        let expected = |endpoint: &str, ms, attempts, names: &str| {
            (endpoint.to_owned(), Duration::from_millis(ms), attempts, names.to_owned())
        };
        assert_eq!(said[0], expected("http://worker-1:6104", 700, 2, "logic.im"));
        assert_eq!(said[1], expected("http://worker-1:6104", 2_000, 2, "logic.im"));
        assert_eq!(said[2], expected("http://worker-9:6104", 2_000, 5, "devices.im"));
    }
}
