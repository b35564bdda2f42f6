//! A map by connection id.
//!
//! In: ids that the gateway made itself. Out: their values. Always: nobody outside chooses a key, so the hash need not
//! withstand anybody; it is one multiplication, since a push to a thousand members looks up a thousand of them.

use im_proto::ConnectionId;
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

pub type ConnectionMap<V> = HashMap<ConnectionId, V, BuildHasherDefault<IdHasher>>;

#[derive(Default)]
pub struct IdHasher(u64);

impl Hasher for IdHasher {
    fn write_u64(&mut self, id: u64) {
        // Odd, so different ids stay different; the high bits, which tell entries of a bucket apart, depend on all of them.
        self.0 = (self.0 ^ id).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_u64(u64::from(*byte)));
    }

    fn finish(&self) -> u64 {
        self.0
    }
}
