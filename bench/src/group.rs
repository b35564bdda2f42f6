//! `group`: fan-out. One member of a group sends, all others who are online receive.
//!
//! In: options. Out: a verified row; with `--floor` the fan-out floor of the same run before it. Always: the group is
//! made through the protocol, and every member has seen the last change of members before the first message.

use crate::clock::Clock;
use crate::error::BenchError;
use crate::fleet::Fleet;
use crate::floor;
use crate::floor::server::Kind;
use crate::link::Observer;
use crate::measure::Counts;
use crate::report::Row;
use crate::run::{self, LoadArgs, Outcome};
use crate::server_process::Server;
use crate::traffic::{Stream, Traffic};
use clap::Args;
use im_client::{Answer, Recipient, Request};
use im_proto::client::CommandAck;
use im_proto::{LogId, UserId};
use std::rc::{Rc, Weak};
use std::time::{Duration, Instant};

/// Below the server's limit of user ids in one command.
const USERS_PER_COMMAND: usize = 500;
const MEMBERS_TIMEOUT: Duration = Duration::from_secs(30);
const MEMBERS_POLL: Duration = Duration::from_millis(20);

#[derive(Args)]
pub struct GroupArgs {
    #[command(flatten)]
    load: LoadArgs,
    /// Members of the group that are online, the sender included.
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(2..))]
    members: u32,
    /// Members besides who never come online.
    #[arg(long, default_value_t = 0)]
    offline: u32,
}

pub async fn run(args: &GroupArgs) -> Result<Outcome, BenchError> {
    let members = args.members as usize;
    let floor = if args.load.floor { Some(floor(args, members).await?) } else { None };
    let server = Server::of(&args.load.server, &args.load.placement)?;
    args.load.placement.pin_load()?;
    let clock = Clock::start();
    let traffic = Traffic::new(clock, Counts::new()?, args.load.payload_bytes());
    let observer: Rc<dyn Observer> = traffic.clone();
    let observer: Weak<dyn Observer> = Rc::downgrade(&observer);
    let fleet = Fleet::new(&server, members, clock, &observer)?;
    fleet.keep_time();
    fleet.open(0).await?;
    let group = make_group(&fleet, args.offline as usize).await?;
    let stream = Stream {
        to: Recipient::Conversation(group.clone()),
        conversation: group,
        sender: 0,
        receivers: (1..members).collect(),
    };
    let offline = if args.offline > 0 { format!(" and {} offline", args.offline) } else { String::new() };
    let case = args.load.describe(&format!("group over {}, {members} members{offline}", server.transport()));
    let mut outcome = run::measured(&args.load, case, &server, &fleet, &traffic, vec![stream]).await?;
    outcome.compare_with(floor, |row| row.server_cpu_us_per_delivery);
    server.stop()?;
    Ok(outcome)
}

/// A group of the whole fleet and of some who are offline, made by its first user. Every member is there when it returns.
async fn make_group(fleet: &Fleet, offline: usize) -> Result<LogId, BenchError> {
    let creator = &fleet.links[0];
    let others =
        (1..fleet.links.len() + offline).map(|serial| fleet.user(serial)).collect::<Result<Vec<UserId>, _>>()?;
    let (first, rest) = others.split_at(others.len().min(USERS_PER_COMMAND));
    let create = Request::CreateGroup { name: "bench".to_owned(), users: first.to_vec(), command_id: None };
    let mut ack = done(creator.ask(create).await?)?;
    let group = LogId::parse(&ack.conversation_id).map_err(|error| BenchError::Setup(error.to_string()))?;
    for users in rest.chunks(USERS_PER_COMMAND) {
        let add = Request::AddMembers { group: group.clone(), users: users.to_vec(), command_id: None };
        ack = done(creator.ask(add).await?)?;
    }
    let start = Instant::now();
    while fleet.links.iter().any(|link| link.last_seq() < ack.seq) {
        if start.elapsed() > MEMBERS_TIMEOUT {
            return Err(BenchError::Setup("not every member saw the group being made".to_owned()));
        }
        monoio::time::sleep(MEMBERS_POLL).await;
    }
    Ok(group)
}

fn done(answer: Answer) -> Result<CommandAck, BenchError> {
    match answer {
        Answer::Done(ack) => Ok(ack),
        _ => Err(BenchError::Setup("the server answered a group command with something else".to_owned())),
    }
}

/// As many messages under way to as many connections. Merged writes: what the real server is to come near to.
async fn floor(args: &GroupArgs, members: usize) -> Result<Row, BenchError> {
    args.load.placement.pin_load()?;
    let in_flight = args.load.in_flight().unwrap_or(1);
    floor::fan_out(args.load.floor_setting(), Kind::FanOutMerged, members, in_flight).await
}
