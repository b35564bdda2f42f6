//! Who may cover which shard of the inbox, and how far each is covered.
//!
//! In: claims and covers. Out: whether a claim stands. Always: the claims lie in Redis beside the rows, so what loses rows
//! loses or changes them too: a flush removes them, another server or run of one has another identity. What Redis cannot
//! see, that this process moved rows on one server and covers on another, is seen by the number of the server.

use super::{
    answer::{damaged, list, number, text},
    keys::Keys,
    link::Link,
    scripts::{self, CLAIM, COVER},
};
use crate::ports::{Claim, Covered, Cursor, Shard, StoreError};
use redis::Value;
use std::sync::{Mutex, MutexGuard, PoisonError};

const PLACE: &str = "the covers";

pub struct Claims {
    /// Tells our claims from others' with the same fence, which only a flush and a clock that went back can bring.
    token: String,
    held: Mutex<[Held; Shard::COUNT as usize]>,
}

/// Our last claim of a shard.
#[derive(Clone, Copy, Default)]
struct Held {
    fence: u64,
    server: u64,
}

impl Claims {
    pub fn new() -> Self {
        let token = format!("{:016x}", rand::random::<u64>());
        Self { token, held: Mutex::new([Held::default(); Shard::COUNT as usize]) }
    }

    fn held(&self) -> MutexGuard<'_, [Held; Shard::COUNT as usize]> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub async fn claim(&self, link: &Link, keys: &Keys, shards: &[Shard]) -> Result<Claim, StoreError> {
        let mut command = scripts::call(&CLAIM, &[keys.covers()]);
        command.arg(&self.token);
        for shard in shards {
            command.arg(shard.index());
        }
        let (answer, server) = link.run_one(command).await?;
        let mut answers = list(answer, PLACE)?.into_iter();
        let fence = number(answers.next().unwrap_or(Value::Nil), PLACE)?;
        let mut held = self.held();
        let covered = shards.iter().map(|shard| {
            held[usize::from(shard.index())] = Held { fence, server };
            let cursor = text(answers.next().ok_or_else(|| damaged(PLACE))?, PLACE)?;
            Ok((*shard, cursor.map(|hex| from_hex(&hex)).transpose()?))
        });
        Ok(Claim { fence, covered: covered.collect::<Result<_, StoreError>>()? })
    }

    pub async fn cover(&self, link: &Link, keys: &Keys, claim: &Claim, cursor: &Cursor) -> Result<Covered, StoreError> {
        let stands = |server| {
            let held = self.held();
            let ours = |shard: Shard| held[usize::from(shard.index())];
            claim.shards().all(|shard| ours(shard).fence == claim.fence && ours(shard).server == server)
        };
        // Moves of this claim may have gone to another server. Asked all the same, for a later claim goes before a loss.
        let token = if stands(link.server().await?) { self.token.as_str() } else { "-" };
        let mut command = scripts::call(&COVER, &[keys.covers()]);
        command.arg(claim.fence).arg(token).arg(to_hex(cursor));
        for shard in claim.shards() {
            command.arg(shard.index());
        }
        let (answer, _) = link.run_one(command).await?;
        match text(answer, PLACE)?.as_deref() {
            Some("NOTED") => Ok(Covered::Noted),
            Some("REPLACED") => Ok(Covered::Replaced),
            Some("LOST") => Ok(Covered::Lost),
            _ => Err(damaged(PLACE)),
        }
    }
}

/// Hex compares as the bytes do, in every locale of the server.
fn to_hex(cursor: &Cursor) -> String {
    cursor.0.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn from_hex(hex: &str) -> Result<Cursor, StoreError> {
    let byte = |at| hex.get(at..at + 2).and_then(|two| u8::from_str_radix(two, 16).ok());
    let bytes: Option<Vec<u8>> = (0..hex.len()).step_by(2).map(byte).collect();
    bytes.map(|bytes| Cursor(bytes.into())).ok_or_else(|| damaged(PLACE))
}
