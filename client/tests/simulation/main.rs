//! Many seeds, each another run of four devices against an unkind server: whatever happens on the way, in the end every
//! send has one answer, stands once and in its order, and every device was told every entry once, in order.
//!
//! `IM_SEED=n` runs one seed, `IM_SEEDS=n` so many.

#![allow(clippy::unwrap_used)]

mod device;
mod server;

use device::Device;
use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};
use server::Server;

const UNKIND_STEPS: usize = 3_000;
const KIND_STEPS_MAX: usize = 60_000;

struct World {
    server: Server,
    devices: Vec<Device>,
    now_ms: u64,
    rng: SmallRng,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut rng = SmallRng::seed_from_u64(seed);
        let users = ["ann", "ann", "bob", "cid"];
        let devices = users.iter().enumerate().map(|(number, user)| Device::new(number, user, &mut rng)).collect();
        Self { server: Server::default(), devices, now_ms: 0, rng }
    }

    fn step(&mut self) {
        self.now_ms += self.rng.random_range(0..20);
        for device in &mut self.devices {
            device.turn(&mut self.server, self.now_ms);
        }
        for _ in 0..self.rng.random_range(0..4) {
            self.server.step(&mut self.rng);
        }
        let index = self.rng.random_range(0..self.devices.len());
        for _ in 0..self.rng.random_range(0..6) {
            self.devices[index].hear(&mut self.server, self.now_ms, &mut self.rng);
        }
    }

    fn unkind_step(&mut self) {
        let index = self.rng.random_range(0..self.devices.len());
        let device = &mut self.devices[index];
        match self.rng.random_range(0..1_000) {
            0..80 => (0..self.rng.random_range(1..4)).for_each(|_| device.send(self.now_ms, &mut self.rng)),
            80..83 => device.break_link(&mut self.server, self.now_ms),
            83..85 => device.restart(&mut self.server, self.now_ms, &mut self.rng),
            // Nothing moves for a while: requests time out, heartbeats are due, links fall silent.
            85..87 => self.now_ms += self.rng.random_range(0..12_000),
            _ => {}
        }
        self.step();
    }

    /// Every send has its answer and every device was told every entry of its conversations.
    fn is_settled(&self) -> bool {
        self.devices.iter().all(|device| {
            let answered = device.sent.values().map(Vec::len).sum::<usize>() == device.ended.len();
            let shown = |log: &String| device.shown.get(log).map_or(0, Vec::len);
            answered && self.logs_of(device).all(|(log, entries)| shown(log) >= entries.len())
        })
    }

    fn logs_of<'a>(
        &'a self,
        device: &'a Device,
    ) -> impl Iterator<Item = (&'a String, &'a Vec<im_proto::client::Entry>)> {
        let user = im_proto::UserId::parse(device.user).unwrap();
        let conversations = device::USERS.map(|peer| {
            let peer = im_proto::UserId::parse(peer).unwrap();
            im_proto::LogId::direct(&user, &peer).to_string()
        });
        self.server.logs.iter().filter(move |(log, _)| conversations.contains(log))
    }

    fn check(&self, seed: u64) {
        for device in &self.devices {
            for (log, entries) in self.logs_of(device) {
                assert_eq!(device.shown.get(log), Some(entries), "seed {seed}: device {}", device.number);
            }
            for (log, sent) in &device.sent {
                let entries = &self.server.logs.get(log).cloned().unwrap_or_default();
                let stored: Vec<&String> = entries
                    .iter()
                    .filter(|entry| entry.client_id.starts_with(&format!("d{}-", device.number)))
                    .map(|entry| &entry.client_id)
                    .collect();
                let kept: Vec<&String> = sent.iter().filter(|id| device.ended[*id].is_some()).collect();
                assert_eq!(stored, kept, "seed {seed}: device {} in {log}", device.number);
                for id in kept {
                    let seq = device.ended[id].unwrap() as usize;
                    assert_eq!(&entries[seq - 1].client_id, id, "seed {seed}: an ack names another place");
                }
            }
        }
    }
}

fn run(seed: u64) {
    let mut world = World::new(seed);
    for _ in 0..UNKIND_STEPS {
        world.unkind_step();
    }
    world.server.kind = true;
    for _ in 0..KIND_STEPS_MAX {
        if world.is_settled() {
            return world.check(seed);
        }
        world.step();
    }
    panic!("seed {seed}: not settled");
}

#[test]
fn nothing_is_lost_doubled_or_reordered_whatever_the_server_and_the_network_do() {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
    let seeds = match (number("IM_SEED"), number("IM_SEEDS")) {
        (Some(seed), _) => seed..seed + 1,
        (None, count) => 0..count.unwrap_or(100),
    };
    println!("seeds {seeds:?}");
    seeds.for_each(run);
}
