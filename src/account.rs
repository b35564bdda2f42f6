//! `im-server account`: bans users, lets them in again, lists who is banned.
//!
//! In: an order of the operator; a running server, a data folder, or Kafka. Out: a line for what changed, or one for each banned
//! user. Always: what is said to be kept is kept; an order may be repeated.

use crate::clock::now_ms;
use crate::command_line::AccountCommand;
use crate::config::Config;
use crate::control;
use crate::exit::Failure;
use crate::{process, standalone};
use im_logic::accounts::{self, AccountError};
use im_proto::UserId;
use im_storage::embedded::{EmbeddedStore, OpenError};
use im_storage::ports::{Relations, StoreError};
use std::fmt::Write as _;
use std::time::{Duration, Instant};

/// A server that has locked the folder listens a moment later, or after it has repaired the store of one that was killed.
const STARTING_PATIENCE: Duration = Duration::from_secs(10);
const STARTING_POLL: Duration = Duration::from_millis(100);

/// What an operator wants of the accounts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Order {
    Ban(UserId),
    Unban(UserId),
    List,
}

impl Order {
    /// As it goes to a running server.
    pub fn to_line(&self) -> String {
        match self {
            Self::Ban(user) => format!("account ban {user}"),
            Self::Unban(user) => format!("account unban {user}"),
            Self::List => "account list".to_owned(),
        }
    }

    pub fn parse(line: &str) -> Option<Self> {
        let mut words = line.split(' ');
        let mut next = || words.next();
        let order = match (next()?, next()?, next()) {
            ("account", "ban", Some(user)) => Self::Ban(UserId::parse(user).ok()?),
            ("account", "unban", Some(user)) => Self::Unban(UserId::parse(user).ok()?),
            ("account", "list", None) => Self::List,
            _ => return None,
        };
        words.next().is_none().then_some(order)
    }

    fn of(command: &AccountCommand) -> Result<Self, Failure> {
        let user = |text: &str| {
            let wrong = |_| Failure::Usage("USER: an id is 1 to 64 characters of A-Z a-z 0-9 _ -".to_owned());
            UserId::parse(text).map_err(wrong)
        };
        Ok(match command {
            AccountCommand::Ban { user: text } => Self::Ban(user(text)?),
            AccountCommand::Unban { user: text } => Self::Unban(user(text)?),
            AccountCommand::List => Self::List,
        })
    }
}

/// What to print.
pub fn run(config: &Config, command: &AccountCommand, distributed: bool) -> Result<String, Failure> {
    let order = Order::of(command)?;
    process::runtime("im-account", 1)?
        .block_on(async { if distributed { by_kafka(config, &order).await } else { in_folder(config, &order).await } })
}

/// Answers what is to be printed.
pub async fn carry_out(relations: &dyn Relations, order: &Order) -> Result<String, AccountError> {
    Ok(match order {
        Order::Ban(user) => {
            let is_news = accounts::ban(relations, user, now_ms()).await?;
            format!("{user} {}\n", if is_news { "is banned" } else { "was banned already" })
        }
        Order::Unban(user) => {
            let is_news = accounts::unban(relations, user).await?;
            format!("{user} {}\n", if is_news { "is banned no more" } else { "was not banned" })
        }
        Order::List => {
            let mut out = String::new();
            for banned in accounts::banned(relations).await? {
                // Writing to a String cannot fail.
                let _ = writeln!(out, "{}  since unix ms {}", banned.user, banned.since_ms);
            }
            out
        }
    })
}

/// Through the server that runs on the folder; if none does, in the folder itself.
async fn in_folder(config: &Config, order: &Order) -> Result<String, Failure> {
    let folder = &config.store.folder;
    let deadline = Instant::now() + STARTING_PATIENCE;
    let store = loop {
        if let Some(answer) = control::ask(folder, &order.to_line()).await? {
            return Ok(answer);
        }
        if !folder.join("store.redb").exists() {
            let words =
                "there is no store in this folder; start the server once first, or add --distributed for a deployment";
            return Err(Failure::Folder(format!("store.folder {}: {words}", folder.display())));
        }
        match EmbeddedStore::open(&standalone::open_options(config)) {
            Ok(store) => break store,
            Err(OpenError::Locked(_)) if Instant::now() < deadline => tokio::time::sleep(STARTING_POLL).await,
            Err(error) => return Err(standalone::open_failure(config, error)),
        }
    };
    let answer = carry_out(&*store.relations(), order).await.map_err(|error| match error {
        AccountError::Store(StoreError::Damaged(_)) => Failure::Damaged(error.to_string()),
        error => Failure::Other(error.to_string()),
    });
    store.close().await.map_err(process::other)?;
    answer
}

#[cfg(feature = "distributed")]
async fn by_kafka(config: &Config, order: &Order) -> Result<String, Failure> {
    config.check_services()?;
    let relations =
        im_storage::kafka::KafkaRelations::open(&config.kafka.options()?).await.map_err(process::service)?;
    carry_out(&*relations, order).await.map_err(|error| match error {
        AccountError::Store(error) => process::service(error),
        AccountError::TooMany => Failure::Other(error.to_string()),
    })
}

#[cfg(not(feature = "distributed"))]
async fn by_kafka(_: &Config, _: &Order) -> Result<String, Failure> {
    Err(Failure::Usage(crate::exit::STANDALONE_ONLY.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_is_read_back_and_anything_else_is_none() {
        let ann = UserId::parse("ann-B_9").unwrap();
        for order in [Order::Ban(ann.clone()), Order::Unban(ann), Order::List] {
            assert_eq!(Order::parse(&order.to_line()), Some(order));
        }
        for odd in
            ["", "account", "account ban", "account ban no/id", "account list all", "account ban ann bob", "ban ann"]
        {
            assert_eq!(Order::parse(odd), None, "{odd}");
        }
    }
}
