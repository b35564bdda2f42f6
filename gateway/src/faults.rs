//! Faults that tests switch on.
//!
//! In: a value of the configuration, or variables of the environment where the feature `fault-points` is built in. Out:
//! yes or no at the places that ask. Always: all off by default.

use std::cell::Cell;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DropPushes {
    #[default]
    None,
    All,
    /// One in `n`, by a generator that starts from `seed`.
    OneIn {
        n: u32,
        seed: u64,
    },
}

#[derive(Debug, Clone, Default)]
pub struct Faults {
    /// Pushes are thrown away as if they were lost on the way here.
    pub drop_pushes: DropPushes,
    /// Input that holds these bytes panics in its connection.
    pub connection_panic_needle: Option<Vec<u8>>,
    /// A push that holds these bytes panics in its core.
    pub core_panic_needle: Option<Vec<u8>>,
}

impl Faults {
    /// `IM_FAULT_DROP_PUSHES` = `all`, or `n:seed` for one in n.
    #[cfg(feature = "fault-points")]
    pub fn from_env() -> Self {
        let drop_pushes = match std::env::var("IM_FAULT_DROP_PUSHES") {
            Ok(text) if text == "all" => DropPushes::All,
            Ok(text) => text
                .split_once(':')
                .and_then(|(n, seed)| Some(DropPushes::OneIn { n: n.parse().ok()?, seed: seed.parse().ok()? }))
                .unwrap_or_default(),
            Err(_) => DropPushes::None,
        };
        Self { drop_pushes, ..Self::default() }
    }

    /// None: this build has no fault points.
    #[cfg(not(feature = "fault-points"))]
    pub fn from_env() -> Self {
        Self::default()
    }
}

/// The dice of one core.
#[derive(Debug)]
pub struct Dice {
    drop_pushes: DropPushes,
    state: Cell<u64>,
}

impl Dice {
    pub fn new(drop_pushes: DropPushes, core: u16) -> Self {
        let seed = match drop_pushes {
            DropPushes::OneIn { seed, .. } => seed,
            _ => 0,
        };
        Self { drop_pushes, state: Cell::new(seed.wrapping_add(u64::from(core)).wrapping_mul(2).wrapping_add(1)) }
    }

    pub fn drops_push(&self) -> bool {
        match self.drop_pushes {
            DropPushes::None => false,
            DropPushes::All => true,
            DropPushes::OneIn { n, .. } => self.next().is_multiple_of(u64::from(n.max(1))),
        }
    }

    /// splitmix64.
    fn next(&self) -> u64 {
        let state = self.state.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
        self.state.set(state);
        let z = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

/// True if `needle` is set and occurs in `bytes`.
pub fn holds(bytes: &[u8], needle: Option<&Vec<u8>>) -> bool {
    needle.is_some_and(|needle| bytes.windows(needle.len().max(1)).any(|window| window == needle.as_slice()))
}
