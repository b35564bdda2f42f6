//! Masking, which is its own inverse.
//!
//! In: bytes of a payload, the frame's key, where in the payload they lie. Out: the same bytes, masked or unmasked in place.
//! Always: any cutting of a payload gives the same result; eight bytes are taken at a time.

/// `offset`: bytes of the payload that came before.
pub fn apply(bytes: &mut [u8], key: [u8; 4], offset: u64) {
    let key = u32::from_ne_bytes(turned(key, offset));
    let word = u64::from(key) | u64::from(key) << 32;
    let mut words = bytes.chunks_exact_mut(8);
    for eight in &mut words {
        let mut value = [0; 8];
        value.copy_from_slice(eight);
        eight.copy_from_slice(&(u64::from_ne_bytes(value) ^ word).to_ne_bytes());
    }
    for (byte, mask) in words.into_remainder().iter_mut().zip(word.to_ne_bytes()) {
        *byte ^= mask;
    }
}

/// The key as it stands from `offset` on.
fn turned(key: [u8; 4], offset: u64) -> [u8; 4] {
    let mut turned = key;
    turned.rotate_left((offset % 4) as usize);
    turned
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_cutting_masks_as_byte_by_byte() {
        let key = [0x12, 0x34, 0x56, 0x78];
        let plain: Vec<u8> = (0..60).collect();
        let expected: Vec<u8> = plain.iter().enumerate().map(|(at, byte)| byte ^ key[at % 4]).collect();
        for first in 0..plain.len() {
            for second in first..plain.len() {
                let mut bytes = plain.clone();
                apply(&mut bytes[..first], key, 0);
                apply(&mut bytes[first..second], key, first as u64);
                apply(&mut bytes[second..], key, second as u64);
                assert_eq!(bytes, expected, "cut at {first} and {second}");
            }
        }
    }
}
