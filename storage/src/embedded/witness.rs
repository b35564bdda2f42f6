//! A second, tiny file that remembers the number of the last commit that was synced.
//!
//! In: commit numbers, each after its sync returned. Out: the highest one known at the next open. Always: a hint that
//! only ever accuses: the store's file must hold at least this commit. Never synced itself, so it costs one small write;
//! what a power cut takes from it only weakens the accusation.
//!
//! Why: the engine keeps the last two commits and, after an unclean stop, takes the older one if a page of the newer
//! does not verify. That is right for a commit the cut tore, and wrong for one that was acked and then damaged. Only a
//! memory outside the file tells the two apart.

use std::{
    fs::File,
    io,
    os::unix::fs::FileExt,
    sync::{Arc, Mutex, PoisonError},
};

/// Two places written in turn, so that a torn write leaves the other.
const PLACES: u64 = 2;
const PLACE_BYTES: usize = 12;

/// Where the witness is kept.
#[derive(Debug, Clone)]
pub enum Witness {
    File(Arc<File>),
    /// For tests: survives with the test, not with the process.
    Memory(Arc<Mutex<[u8; PLACES as usize * PLACE_BYTES]>>),
}

impl Witness {
    pub fn in_memory() -> Self {
        Self::Memory(Arc::default())
    }

    pub fn note(&self, commit: u64) -> io::Result<()> {
        let number = commit.to_le_bytes();
        let mut bytes = [0; PLACE_BYTES];
        bytes[..8].copy_from_slice(&number);
        bytes[8..].copy_from_slice(&crc32c::crc32c(&number).to_le_bytes());
        let offset = commit % PLACES * PLACE_BYTES as u64;
        match self {
            Self::File(file) => file.write_all_at(&bytes, offset),
            Self::Memory(memory) => {
                let mut memory = memory.lock().unwrap_or_else(PoisonError::into_inner);
                memory[offset as usize..][..PLACE_BYTES].copy_from_slice(&bytes);
                Ok(())
            }
        }
    }

    /// Forgets every commit, and knows `commit` alone: the store's file was replaced on purpose.
    pub fn restart(&self, commit: u64) -> io::Result<()> {
        match self {
            Self::File(file) => file.set_len(0)?,
            Self::Memory(memory) => *memory.lock().unwrap_or_else(PoisonError::into_inner) = Default::default(),
        }
        self.note(commit)?;
        self.sync()
    }

    /// Makes the file and its length durable. Once is enough: later notes only change bytes.
    pub fn sync(&self) -> io::Result<()> {
        match self {
            Self::File(file) => file.sync_all(),
            Self::Memory(_) => Ok(()),
        }
    }

    /// The highest commit noted; 0 if none can be read.
    pub fn last(&self) -> io::Result<u64> {
        let mut bytes = [0; PLACES as usize * PLACE_BYTES];
        match self {
            Self::File(file) => {
                let length = file.metadata()?.len().min(bytes.len() as u64) as usize;
                file.read_exact_at(&mut bytes[..length], 0)?;
            }
            Self::Memory(memory) => bytes = *memory.lock().unwrap_or_else(PoisonError::into_inner),
        }
        let noted = bytes.chunks_exact(PLACE_BYTES).filter_map(|place| {
            let (commit, sum) = place.split_at(8);
            let sound = crc32c::crc32c(commit).to_le_bytes() == sum;
            let commit = u64::from_le_bytes(commit.try_into().ok()?);
            sound.then_some(commit)
        });
        Ok(noted.max().unwrap_or(0))
    }
}
