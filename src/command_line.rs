//! The command line: what may be asked, and how each question is explained.
//!
//! In: arguments. Out: [`Arguments`]. Always: every command's help says what it does, shows an example that parses (a test
//! runs them through the parser), and names its exit codes.

use crate::config::Driver;
use clap::{Parser, Subcommand};
use std::path::PathBuf;

/// An instant-messaging server for your own apps. Without a command it runs `standalone`.
#[derive(Debug, Parser)]
#[command(name = "im-server", version, disable_version_flag = true, after_help = SERVER_HELP)]
pub struct Arguments {
    /// YAML or JSON with the keys that differ from the defaults; `im-server config print` shows them all
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Override gateway.driver
    #[arg(long, global = true)]
    pub driver: Option<Driver>,
    #[command(subcommand)]
    pub command: Option<Command>,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serve everything from this one process, with its own durable store (the default)
    #[command(after_help = STANDALONE_HELP)]
    Standalone,
    /// Distributed: hold connections of clients
    #[command(after_help = GATEWAY_HELP)]
    Gateway,
    /// Distributed: decide, store and deliver, and answer the gateways' questions
    #[command(after_help = LOGIC_HELP)]
    Logic,
    /// Distributed: make, remove or show what the services must hold before the first start
    #[command(after_help = MIGRATE_HELP)]
    Migrate {
        #[command(subcommand)]
        what: MigrateCommand,
    },
    /// Distributed: look at every service and its settings, and say what to mend
    #[command(after_help = DOCTOR_HELP)]
    Doctor,
    /// Print a token for a user, signed with the key of the data folder, or the shared key "default"
    #[command(after_help = TOKEN_HELP)]
    Token {
        /// Whom the token signs in
        #[arg(long)]
        user: String,
        /// Bind the token to this device; without it, it signs in any device of the user
        #[arg(long)]
        device: Option<String>,
        /// How long it is valid
        #[arg(long, default_value_t = 24 * 3600, value_name = "SECONDS")]
        valid_s: u64,
    },
    /// Ban users: who is banned is signed out within 5 s, and is not signed in
    #[command(after_help = ACCOUNT_HELP)]
    Account {
        /// Of a deployment of many roles, by way of Kafka; without it, of the server whose data are in store.folder
        #[arg(long, global = true)]
        distributed: bool,
        #[command(subcommand)]
        what: AccountCommand,
    },
    /// Show, explain or check the configuration
    #[command(after_help = CONFIG_HELP)]
    Config {
        #[command(subcommand)]
        what: ConfigCommand,
    },
    /// Make a backup, copied into the data folder, serve: check it and give it a new epoch
    #[command(after_help = RESTORE_HELP)]
    Restore,
    /// Print the version
    #[command(after_help = VERSION_HELP)]
    Version,
}

#[derive(Debug, Clone, Subcommand)]
pub enum AccountCommand {
    /// Sign all devices of a user out, and let none of them in any more
    #[command(after_help = BAN_HELP)]
    Ban {
        /// The user's id, as its tokens name it; it need not have signed in yet
        user: String,
    },
    /// Let a banned user in again
    #[command(after_help = UNBAN_HELP)]
    Unban {
        /// The user's id
        user: String,
    },
    /// Print who is banned, and since when
    #[command(after_help = LIST_HELP)]
    List,
}

#[derive(Debug, Clone, Copy, Subcommand)]
pub enum MigrateCommand {
    /// Bring MySQL's tables to this version, and make Kafka's topics where they are missing
    #[command(after_help = UP_HELP)]
    Up,
    /// Take back the newest migration of MySQL's tables
    #[command(after_help = DOWN_HELP)]
    Down,
    /// List the migrations and when each was applied
    #[command(after_help = STATUS_HELP)]
    Status,
}

#[derive(Debug, Clone, Copy, Subcommand)]
pub enum ConfigCommand {
    /// Print every key with its comment and its effective value; a file to start from
    #[command(after_help = PRINT_HELP)]
    Print,
    /// Say "ok", or name the key that is wrong and the nearest right one
    #[command(after_help = CHECK_HELP)]
    Check,
    /// Print the JSON Schema (draft 2020-12) of a configuration file: types, bounds, units, defaults, descriptions
    #[command(after_help = SCHEMA_HELP)]
    Schema,
    /// List the environment variable of every key, with its type, default and description
    #[command(after_help = ENV_HELP)]
    Env,
}

const SERVER_HELP: &str = "\
Example:
  im-server --config im.yaml

Settings come from the defaults, then --config, then variables such as IM_LISTEN__TCP (`im-server config env` lists them).

Exit codes: 0 done, 1 anything else, 2 wrong command line or configuration, 3 a port is in use or not ours to open,
4 the data folder is locked, not writable or of a newer version, 5 the data is damaged, 6 a service is away or unsafe.";

const STANDALONE_HELP: &str = "\
Listens for apps (listen.tcp), browsers (listen.websocket) and HTTP (listen.http: the demo page, health, metrics). Keeps
everything in store.folder. SIGTERM or SIGINT: clients are told to go, everything taken is finished, then it exits.

Example:
  im-server standalone --config im.yaml

Exit codes: 0 told to stop; 1 the store failed while serving, or a worker ended by itself; 2 configuration; 3 port; 4 data
folder; 5 damaged data.";

const GATEWAY_HELP: &str = "\
Listens for apps (listen.tcp), browsers (listen.websocket), HTTP (listen.http) and workers (listen.gateway_rpc). Puts commands
into Kafka, asks the logic roles of rpc.logic.endpoints, and keeps a lease in Redis by which workers find it. SIGTERM or SIGINT:
clients are told to go to another gateway, everything taken is handed on, then it exits.

Example:
  im-server gateway --config im.yaml

Exit codes: 0 told to stop; 2 configuration; 3 port; 6 Kafka or Redis is away or unsafe.";

const LOGIC_HELP: &str = "\
Takes its share of Kafka's partitions and the gateways' questions (listen.logic_rpc); HTTP for operators is listen.logic_http.
Needs Kafka, MongoDB, MySQL and Redis, and the tables of `im-server migrate up`. Tokens are verified by auth.keys, the same for
all logic roles. SIGTERM or SIGINT: what was taken is finished, its partitions go to the others, then it exits.

Example:
  im-server logic --config im.yaml

Exit codes: 0 told to stop; 1 a worker ended by itself; 2 configuration; 3 port; 6 a service is away or unsafe.";

const MIGRATE_HELP: &str = "\
Example:
  im-server migrate status --config im.yaml

Exit codes: 0 done; 2 configuration; 6 MySQL or Kafka is away, or holds what this version does not know.";

const UP_HELP: &str = "\
May be repeated. MongoDB's collections and keys are made by the first logic role.

Example:
  im-server migrate up --config im.yaml

Exit codes: 0 everything is there; 2 configuration; 6 MySQL or Kafka is away, or holds what this version does not know.";

const DOWN_HELP: &str = "\
What the tables of that migration held is gone with them; the logs in MongoDB stay, and logic roles fill empty tables from them,
but for the list of devices, which grows again with sign-ins.
Stop all logic roles first. Topics stay.

Example:
  im-server migrate down --config im.yaml

Exit codes: 0 one migration was taken back, or there was none; 2 configuration; 6 MySQL is away.";

const STATUS_HELP: &str = "\
Example:
  im-server migrate status --config im.yaml

Exit codes: 0 printed; 2 configuration; 6 MySQL is away, or holds a migration that this version does not know.";

const DOCTOR_HELP: &str = "\
Changes nothing. A setting marked MEND keeps roles from starting unless the section's allow list names it; a risk costs
something when the service fails; a note is good to know.

Example:
  im-server doctor --config im.yaml

Exit codes: 0 every role could serve; 2 configuration; 6 something is to be mended first.";

const TOKEN_HELP: &str = "\
For trying things, and for backends that cannot sign tokens yet: whoever has the token is the user until it expires. The key
is made at the server's first start, so start it once before.

Example:
  im-server token --user carol --device phone --valid-s 3600

Exit codes: 0 printed; 2 a wrong id or configuration; 4 the data folder has no key yet, or it cannot be read.";

const ACCOUNT_HELP: &str = "\
Works while the server runs, by its socket control.sock in store.folder (as the server's user, or root), and while it is stopped,
in the folder itself. With --distributed it writes to Kafka's kafka.relations_topic, which every logic role follows.

Example:
  im-server account ban mallory --config im.yaml

Exit codes: 0 done; 1 the server refused or broke off; 2 a wrong id or configuration; 4 the data folder cannot be used; 5 damaged
data; 6 Kafka is away or unsafe.";

const BAN_HELP: &str = "\
Returns when the ban is kept: it outlives every restart. The user's devices are closed with USER_BANNED within 5 s, and so is each
sign-in from then on. What the user has sent stays; others go on undisturbed. May be repeated.

Example:
  im-server account ban mallory --config im.yaml

Exit codes: 0 the user is banned; 1 the server refused or broke off (repeat it), or a million users are banned already; 2 a wrong
id or configuration; 4 the data folder cannot be used; 5 damaged data; 6 Kafka is away or unsafe.";

const UNBAN_HELP: &str = "\
The user's devices may sign in within 5 s. Clients do not come back from a ban by themselves: their user signs in again.

Example:
  im-server account unban mallory --config im.yaml

Exit codes: 0 the user is not banned; 1 the server refused or broke off (repeat it); 2 a wrong id or configuration; 4 the data
folder cannot be used; 5 damaged data; 6 Kafka is away or unsafe.";

const LIST_HELP: &str = "\
A line for each, by rising id: the user, and the time of the ban in milliseconds since 1970.

Example:
  im-server account list --distributed --config im.yaml

Exit codes: 0 printed; 1 the server refused or broke off; 2 configuration; 4 the data folder cannot be used; 5 damaged data; 6
Kafka is away or unsafe.";

const CONFIG_HELP: &str = "\
Example:
  im-server config check --config im.yaml

Exit codes: 0 done; 2 the configuration is wrong.";

const PRINT_HELP: &str = "\
Example:
  im-server config print --config im.yaml

Exit codes: 0 printed; 2 the configuration is wrong.";

const CHECK_HELP: &str = "\
Checks --config and the environment; opens no port and no file that the configuration names.

Example:
  im-server config check --config im.yaml

Exit codes: 0 it is right; 2 it is wrong, and the text says where.";

const SCHEMA_HELP: &str = "\
Editors that read JSON Schema complete and check the file with it; x-unit holds a number's unit.

Example:
  im-server config schema

Exit codes: 0 printed.";

const ENV_HELP: &str = "\
Example:
  im-server config env

Exit codes: 0 printed.";

const RESTORE_HELP: &str = "\
A backup is a copy of the whole store.folder, taken while the server is stopped, or a snapshot of its file system at one
moment. To go back to it: stop the server, put the copy in the folder's place, run this, start the server.

This reads the whole store, refuses one with a wrong checksum, and gives it a new epoch: every client's cursor is answered
RESET once, and the client reads the restored history anew. Without it, clients that saw messages younger than the backup
would take new messages under the same numbers for those they know. The server cannot notice that by itself when the whole
folder was replaced; when only store.redb was, it refuses to start (exit code 5) until this has run.

Example:
  im-server restore --config im.yaml

Exit codes: 0 restored; 2 configuration; 4 there is no store in the folder, or a server is running on it; 5 damaged.";

const VERSION_HELP: &str = "\
Example:
  im-server version

Exit codes: 0 printed.";

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    fn commands(command: &clap::Command, path: &str, found: &mut Vec<(String, clap::Command)>) {
        found.push((path.to_owned(), command.clone()));
        for inner in command.get_subcommands().filter(|inner| inner.get_name() != "help") {
            commands(inner, &format!("{path} {}", inner.get_name()), found);
        }
    }

    #[test]
    fn the_options_of_the_configuration_stand_before_or_behind_the_command_or_without_one() {
        for line in
            ["im-server --driver epoll", "im-server --driver epoll standalone", "im-server gateway --driver epoll"]
        {
            let parsed = Arguments::try_parse_from(line.split(' ')).unwrap_or_else(|error| panic!("{line}: {error}"));
            assert_eq!(parsed.driver, Some(Driver::Epoll), "{line}");
        }
        assert!(Arguments::try_parse_from(["im-server", "--driver", "kqueue"]).is_err());
    }

    #[test]
    fn every_help_text_has_an_example_of_its_command_that_parses_and_the_exit_codes() {
        let mut found = Vec::new();
        commands(&Arguments::command(), "im-server", &mut found);
        for (path, command) in found {
            let about = command.get_about().unwrap_or_else(|| panic!("{path} does not say what it does")).to_string();
            assert!(!about.is_empty(), "{path}");
            let help = command.get_after_help().unwrap_or_else(|| panic!("{path} has no help text")).to_string();
            let examples: Vec<&str> = help.lines().filter(|line| line.starts_with("  im-server")).collect();
            assert!(!examples.is_empty() && help.contains("Exit codes: 0 "), "{path}: {help}");
            for example in examples {
                assert!(example.trim().starts_with(&path), "{path}: {example}");
                Arguments::try_parse_from(example.split_whitespace())
                    .unwrap_or_else(|error| panic!("{example}: {error}"));
            }
            for argument in command.get_arguments() {
                assert!(argument.get_help().is_some(), "{path}: {} is not explained", argument.get_id());
            }
        }
    }
}
