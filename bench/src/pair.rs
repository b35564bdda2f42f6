//! `pair`: one-to-one messages. In each of N direct conversations one user sends and the other receives.
//!
//! In: options. Out: a verified row; with `--floor` the echo floor of the same run before it. Always: each message is
//! one answer and one push; the floor's message is one frame there and one back.

use crate::clock::Clock;
use crate::error::BenchError;
use crate::fleet::Fleet;
use crate::floor;
use crate::link::Observer;
use crate::measure::Counts;
use crate::report::Row;
use crate::run::{self, LoadArgs, Outcome};
use crate::server_process::Server;
use crate::traffic::{Stream, Traffic};
use clap::Args;
use im_client::Recipient;
use im_proto::LogId;
use std::rc::{Rc, Weak};

#[derive(Args)]
pub struct PairArgs {
    #[command(flatten)]
    load: LoadArgs,
    /// Pairs of users, each with a direct conversation.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    pairs: u32,
}

pub async fn run(args: &PairArgs) -> Result<Outcome, BenchError> {
    let floor = if args.load.floor { Some(floor(args).await?) } else { None };
    let server = Server::of(&args.load.server, &args.load.placement)?;
    args.load.placement.pin_load()?;
    let clock = Clock::start();
    let traffic = Traffic::new(clock, Counts::new()?, args.load.payload_bytes());
    let observer: Rc<dyn Observer> = traffic.clone();
    let observer: Weak<dyn Observer> = Rc::downgrade(&observer);
    let fleet = Fleet::new(&server, args.pairs as usize * 2, clock, &observer)?;
    fleet.keep_time();
    fleet.open(0).await?;
    let streams = (0..args.pairs as usize).map(|pair| stream(&fleet, pair)).collect::<Result<_, _>>()?;
    let case = args.load.describe(&format!("pair over {}, {} pairs", server.transport(), args.pairs));
    let mut outcome = run::measured(&args.load, case, &server, &fleet, &traffic, streams).await?;
    outcome.compare_with(floor, |row| row.server_cpu_us_per_message);
    server.stop()?;
    Ok(outcome)
}

fn stream(fleet: &Fleet, pair: usize) -> Result<Stream, BenchError> {
    let (sender, receiver) = (pair * 2, pair * 2 + 1);
    let to = fleet.user(receiver)?;
    let conversation = LogId::direct(&fleet.user(sender)?, &to);
    Ok(Stream { to: Recipient::User(to), conversation, sender, receivers: vec![receiver] })
}

/// As many messages under way on as many connections as there are pairs.
async fn floor(args: &PairArgs) -> Result<Row, BenchError> {
    args.load.placement.pin_load()?;
    let outstanding = args.load.in_flight().unwrap_or(1);
    floor::echo(args.load.floor_setting(), args.pairs as usize, outstanding).await
}
