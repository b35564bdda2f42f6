//! `im-server doctor`: looks at everything that a deployment depends on, and says what to mend.
//!
//! In: the configuration. Out: one line for each dependency and each finding, the worst of all as the outcome. Always: changes
//! nothing; looks at all of them even when the first is away; shows no password.

use crate::config::Config;
use crate::exit::Failure;
use crate::{gateway_role, logging, process, tokens};
use im_gateway::descriptors;
use im_rpc::DeliveryStreams;
use im_storage::finding::{Finding, Severity, judge};
use im_storage::kafka::{KafkaError, KafkaOptions};
use im_storage::mysql::MysqlError;
use im_storage::mysql::migrate::{self, MigrationStatus};
use im_storage::ports::Routes as _;
use im_storage::redis::RedisStore;
use im_storage::{kafka, mongo, mysql};
use std::collections::BTreeSet;
use std::fmt::{Display, Write as _};

/// What was found, and whether a role would start.
#[derive(Default)]
struct Report {
    text: String,
    troubles: usize,
}

pub fn run(config: &Config) -> Result<(), Failure> {
    logging::start(&config.log)?;
    let report = process::runtime("im-doctor", 1)?.block_on(look(config));
    print!("{}", report.text);
    match report.troubles {
        0 => Ok(()),
        troubles => Err(Failure::Service(format!("{troubles} to mend before every role can serve"))),
    }
}

async fn look(config: &Config) -> Report {
    let mut report = Report::default();
    match config.kafka.options() {
        Ok(options) => topics(&options, &mut report).await,
        Err(error) => report.trouble("kafka", &error),
    }
    let options = config.redis.options();
    match RedisStore::check(&options).await {
        Ok(findings) => {
            report.ok("redis", "answers");
            report.findings(findings, &options.allow);
        }
        Err(error) => report.trouble("redis", &error),
    }
    let options = config.mysql.options();
    match mysql::check(&options).await {
        Ok(findings) => {
            report.ok("mysql", "answers");
            report.findings(findings, &options.allow);
            report.schema(migrate::status(&options).await);
        }
        Err(error) => report.trouble("mysql", &error),
    }
    let options = config.mongodb.options();
    match mongo::check(&options).await {
        Ok(findings) => {
            report.ok("mongodb", "answers");
            report.findings(findings, &options.allow);
        }
        Err(error) => report.trouble("mongodb", &error),
    }
    keys(config, &mut report);
    open_files(config, &mut report);
    roles(config, &mut report).await;
    report
}

/// What a role reads from files at its start.
fn keys(config: &Config, report: &mut Report) {
    match tokens::shared_ring(config) {
        Ok(_) => report.ok("auth", &format!("{} keys", config.auth.keys.len())),
        Err(error) => report.trouble("auth", &error),
    }
    match DeliveryStreams::new(0, &config.deliveries()) {
        Ok(_) => report.ok("rpc", if config.tls().is_some() { "mutual TLS" } else { "no TLS: for a private network" }),
        Err(error) => report.trouble("rpc", &error),
    }
    let calls = config.check_calls();
    match (&calls, config.names_logic_roles()) {
        (Err(error), Ok(true)) => report.trouble("rpc", error),
        // The file may be a worker's, or what is missing in the gateway's environment.
        _ => {
            let gateway = calls.and_then(|()| gateway_role::advertised(config, config.listen.gateway_rpc).map(drop));
            if let Err(error) = gateway {
                report.line("rpc", "note", &format!("a gateway with this configuration does not start: {error}"));
            }
        }
    }
}

/// Of this machine and user: a gateway's may be others.
fn open_files(config: &Config, report: &mut Report) {
    let connections_max = config.gateway.connections_max;
    match descriptors::too_low_for(connections_max as usize) {
        Ok(None) => report.ok("files", &format!("enough may be open for {connections_max} connections")),
        Ok(Some(limit)) => report.line(
            "files",
            "note",
            &format!("{limit} may be open, too few for gateway.connections_max {connections_max}; raise the hard limit (ulimit -Hn, LimitNOFILE)"),
        ),
        Err(error) => report.line("files", "note", &error),
    }
}

async fn topics(options: &KafkaOptions, report: &mut Report) {
    match kafka::check(options).await {
        Ok((partitions, findings)) => {
            report.ok("kafka", &format!("topic {}, {partitions} partitions", options.topic));
            report.findings(findings, &options.allow);
        }
        // Kafka itself: there is no other topic to look at.
        Err(error @ KafkaError::Client(_)) => return report.trouble("kafka", &error),
        Err(error) => report.trouble("kafka", &error),
    }
    match kafka::check_relations(options).await {
        Ok(findings) => {
            report.ok("", &format!("topic {}", options.relations_topic));
            report.findings(findings, &options.allow);
        }
        Err(error) => report.trouble("", &error),
    }
}

/// Those that run. None is no trouble: they may be started next.
async fn roles(config: &Config, report: &mut Report) {
    let (calls, deliveries) = (config.calls(), config.deliveries());
    let mut asked = BTreeSet::new();
    for of in [&calls.session, &calls.conversation, &calls.device] {
        for address in of.endpoints.iter().filter(|address| asked.insert(*address)) {
            report.role("logic", address, im_rpc::is_serving(address, &of.connect).await);
        }
    }
    let Ok(redis) = RedisStore::open(&config.redis.options()).await else { return };
    for gateway in redis.routes().gateways().await.unwrap_or_default() {
        report.role("gateway", &gateway.endpoint, im_rpc::is_serving(&gateway.endpoint, &deliveries).await);
    }
}

impl Report {
    fn line(&mut self, what: &str, state: &str, words: &dyn Display) {
        // Writing to a String cannot fail.
        let _ = writeln!(self.text, "{what:<8} {state:<7} {words}");
    }

    fn ok(&mut self, what: &str, words: &str) {
        self.line(what, "ok", &words);
    }

    fn trouble(&mut self, what: &str, words: &dyn Display) {
        self.troubles += 1;
        self.line(what, "MEND", words);
    }

    fn findings(&mut self, findings: Vec<Finding>, allow: &[String]) {
        for finding in judge(findings, allow) {
            match finding.severity {
                Severity::Unsafe => self.trouble("", &finding),
                Severity::Risk => self.line("", "risk", &finding),
                Severity::Note => self.line("", "note", &finding),
            }
        }
    }

    /// Roles refuse a schema that is not this program's.
    fn schema(&mut self, status: Result<Vec<MigrationStatus>, MysqlError>) {
        match status {
            Ok(known) if known.iter().all(|migration| migration.applied_at_ms.is_some()) => {
                self.line("", "ok", &format!("{} migrations applied", known.len()));
            }
            Ok(_) => self.trouble("", &"the tables are not this program's: run `im-server migrate up`"),
            Err(error) => self.trouble("", &error),
        }
    }

    fn role(&mut self, what: &str, address: &str, answer: Result<bool, im_rpc::CallError>) {
        match answer {
            Ok(true) => self.line(what, "ok", &format!("{address} serves")),
            Ok(false) => self.line(what, "note", &format!("{address} is starting or stopping")),
            Err(error) => self.line(what, "note", &format!("{address}: {error}")),
        }
    }
}
