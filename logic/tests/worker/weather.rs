//! Many commands under random faults, then what clients saw is held against what the store has.

use crate::harness::*;
use im_proto::LogId;
use im_proto::client::{ErrorClass, client_frame::Command, server_frame::Body};
use std::collections::{HashMap, HashSet};

const SEEDS: u64 = 12;
const BATCHES: usize = 8;
const USERS: [&str; 4] = ["a", "b", "c", "d"];

/// xorshift64*: small, and the same everywhere.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % sides
    }

    fn fault(&mut self, batch: usize) -> Option<Fault> {
        let landed = self.roll(batch + 1);
        match self.roll(5) {
            0 => Some(Fault::Zombie { at: self.roll(batch) }),
            1 => Some(Fault::Unknown { told: self.roll(landed + 1), landed }),
            2 => Some(Fault::LandsLater),
            _ => None,
        }
    }
}

/// What one user sent to another, in order, and what is not yet answered for good.
#[derive(Default)]
struct Outbox {
    acked: Vec<(String, u64)>,
    waiting: Vec<String>,
}

#[tokio::test]
async fn whatever_fails_nothing_acked_is_lost_doubled_or_reordered() {
    for seed in 1..=SEEDS {
        println!("seed {seed}");
        storm(Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15))).await;
    }
}

async fn storm(mut dice: Dice) {
    let mut world = World::new().await;
    let mut outboxes: HashMap<(usize, usize), Outbox> = HashMap::new();
    let mut sent = 0;
    for batch in 0..BATCHES {
        let mut phones = Vec::new();
        for name in USERS {
            phones.push(world.phone(name, "1").await);
        }
        for _ in 0..dice.roll(12) {
            let (from, to) = (dice.roll(USERS.len()), dice.roll(USERS.len()));
            outboxes.entry((from, to)).or_default().waiting.push(format!("m{sent}"));
            sent += 1;
        }
        // Each client sends everything unanswered again, in order, naming the one before.
        let mut commands: Vec<(&Phone, Command)> = Vec::new();
        let mut places = Vec::new();
        let mut pairs: Vec<_> = outboxes.keys().copied().collect();
        pairs.sort_unstable();
        for (from, to) in pairs {
            let mut after = "";
            for id in &outboxes[&(from, to)].waiting {
                commands.push((&phones[from], to_user_after(USERS[to], id, after)));
                places.push((from, to, id.clone()));
                after = id;
            }
        }
        for _ in 0..2 {
            if let Some(fault) = dice.fault(commands.len().max(1)) {
                world.log.fail(fault);
            }
        }
        let requests = world.produce(commands);
        // Sometimes the process dies before anybody hears an answer.
        let unheard = batch + 1 < BATCHES && dice.roll(4) == 0;
        for ((from, to, id), request) in places.into_iter().zip(requests) {
            if unheard {
                continue;
            }
            let outbox = outboxes.get_mut(&(from, to)).unwrap();
            match world.answer(&phones[from], request).await.body {
                Body::SendAck(ack) => {
                    outbox.waiting.retain(|waiting| *waiting != id);
                    outbox.acked.push((id, ack.seq));
                }
                Body::Error(error) => assert_eq!(error.class(), ErrorClass::Retry, "{error:?}"),
                other => panic!("{other:?}"),
            }
        }
        world.log.faults.lock().unwrap().clear();
        if dice.roll(3) == 0 || unheard {
            world = world.crash_and_restart().await;
        }
    }
    check(&world, &outboxes).await;
}

async fn check(world: &World, outboxes: &HashMap<(usize, usize), Outbox>) {
    for (&(from, to), outbox) in outboxes {
        let log = LogId::direct(&user(USERS[from]), &user(USERS[to]));
        let entries = world.entries(&log).await;
        for (id, seq) in &outbox.acked {
            let entry = &entries[*seq as usize - 1];
            assert_eq!((entry.client_id.as_str(), text_of(entry).unwrap().as_str()), (id.as_str(), id.as_str()));
        }
        let own: Vec<&str> = entries
            .iter()
            .filter(|entry| entry.sender_user_id == USERS[from] && text_of(entry).is_some())
            .map(|entry| entry.client_id.as_str())
            .filter(|id| !id.starts_with("zombie"))
            .collect();
        assert_eq!(own.iter().collect::<HashSet<_>>().len(), own.len(), "stored twice");
        let numbers: Vec<u32> = own.iter().map(|id| id[1..].parse().unwrap()).collect();
        assert!(numbers.is_sorted(), "out of the sender's order: {numbers:?}");
        // Both see the head, by sync alone.
        for name in [USERS[from], USERS[to]] {
            let phone = world.phone(name, "late").await;
            let synced = world.sync(&phone, &Default::default(), 0).await.unwrap();
            let state = synced.conversations.iter().find(|state| state.conversation_id == log.as_str());
            assert_eq!(state.map_or(0, |state| state.head_seq) as usize, entries.len(), "{name} in {log}");
        }
    }
}
