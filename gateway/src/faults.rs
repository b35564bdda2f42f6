//! Faults that tests switch on.
//!
//! In: a value of the configuration, or variables of the environment where the feature `fault-points` is built in. Out:
//! yes or no at the places that ask. Always: all off by default.

use std::cell::Cell;

/// What becomes of pushes on their way here. One in `n` is struck, by a generator that starts from `seed`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PushFault {
    #[default]
    None,
    LoseAll,
    /// One connection does not get it.
    Lose {
        n: u32,
        seed: u64,
    },
    /// One comes twice, another behind the next.
    Stir {
        n: u32,
        seed: u64,
    },
}

#[derive(Debug, Clone, Default)]
pub struct Faults {
    pub pushes: PushFault,
    /// Input that holds these bytes panics in its connection.
    pub connection_panic_needle: Option<Vec<u8>>,
    /// A push that holds these bytes panics in its core.
    pub core_panic_needle: Option<Vec<u8>>,
}

impl Faults {
    /// `IM_FAULT_PUSHES` = `lose:all`, `lose:n:seed` or `stir:n:seed`.
    ///
    /// # Panics
    ///
    /// When it is anything else: the test that set it would try nothing.
    #[cfg(feature = "fault-points")]
    pub fn from_env() -> Self {
        let pushes = std::env::var("IM_FAULT_PUSHES").map_or(PushFault::None, |text| {
            PushFault::parse(&text).unwrap_or_else(|| panic!("IM_FAULT_PUSHES is no fault: {text}"))
        });
        Self { pushes, ..Self::default() }
    }

    /// None: this build has no fault points.
    #[cfg(not(feature = "fault-points"))]
    pub fn from_env() -> Self {
        Self::default()
    }
}

#[cfg(feature = "fault-points")]
impl PushFault {
    fn parse(text: &str) -> Option<Self> {
        if text == "lose:all" {
            return Some(Self::LoseAll);
        }
        let mut words = text.split(':');
        let (what, n, seed) = (words.next()?, words.next()?.parse().ok()?, words.next()?.parse().ok()?);
        match (what, words.next()) {
            ("lose", None) => Some(Self::Lose { n, seed }),
            ("stir", None) => Some(Self::Stir { n, seed }),
            _ => None,
        }
    }
}

/// The dice of one core.
#[derive(Debug)]
pub struct Dice {
    pushes: PushFault,
    state: Cell<u64>,
}

impl Dice {
    pub fn new(pushes: PushFault, core: u16) -> Self {
        let seed = match pushes {
            PushFault::Lose { seed, .. } | PushFault::Stir { seed, .. } => seed,
            PushFault::None | PushFault::LoseAll => 0,
        };
        Self { pushes, state: Cell::new(seed.wrapping_add(u64::from(core)).wrapping_mul(2).wrapping_add(1)) }
    }

    /// Asked for each connection that a push is for.
    pub fn loses_push(&self) -> bool {
        match self.pushes {
            PushFault::LoseAll => true,
            PushFault::Lose { n, .. } => self.strikes(n),
            PushFault::None | PushFault::Stir { .. } => false,
        }
    }

    /// Whether a push comes twice, and whether one is held back. Each is asked once a push.
    pub fn stirs_push(&self) -> bool {
        matches!(self.pushes, PushFault::Stir { n, .. } if self.strikes(n))
    }

    fn strikes(&self, n: u32) -> bool {
        self.next().is_multiple_of(u64::from(n.max(1)))
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
