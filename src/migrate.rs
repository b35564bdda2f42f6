//! `im-server migrate`: what the services must hold before the first role starts.
//!
//! In: the configuration. Out: MySQL's tables at this program's version, Kafka's topics; a line for each. Always: may be
//! repeated; a topic or table that is there is left as it is. MongoDB's collections and keys are made by the first logic role.

use crate::command_line::MigrateCommand;
use crate::config::Config;
use crate::exit::Failure;
use crate::logging;
use crate::process::{self, service};
use im_storage::kafka;
use im_storage::mysql::migrate::{self, MigrationStatus};

pub fn run(config: &Config, what: MigrateCommand) -> Result<(), Failure> {
    config.check_services()?;
    logging::start(&config.log)?;
    process::runtime("im-migrate", 1)?.block_on(async {
        let mysql = config.mysql.options();
        let status = match what {
            MigrateCommand::Up => migrate::up(&mysql).await,
            MigrateCommand::Down => migrate::down(&mysql).await,
            MigrateCommand::Status => migrate::status(&mysql).await,
        };
        for migration in status.map_err(service)? {
            println!("mysql  {}", line(&migration));
        }
        if matches!(what, MigrateCommand::Up) {
            let kafka = config.kafka.options()?;
            let wanted = config.kafka.partitions;
            let partitions = kafka::create_topics(&kafka, wanted, config.kafka.replicas).await.map_err(service)?;
            let [topic, letters, relations] = [&kafka.topic, &kafka.dead_letter_topic, &kafka.relations_topic];
            println!("kafka  topics {topic}, {letters} and {relations} are there; {topic} has {partitions} partitions");
            if partitions != usize::from(wanted) {
                println!("kafka  kafka.partitions is {wanted}, and counts only where a topic is made");
            }
        }
        Ok(())
    })
}

fn line(migration: &MigrationStatus) -> String {
    let MigrationStatus { version, description, applied_at_ms } = migration;
    match applied_at_ms {
        Some(at_ms) => format!("{version:04} {description}  applied, unix ms {at_ms}"),
        None => format!("{version:04} {description}  not applied"),
    }
}
