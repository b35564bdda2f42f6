//! UTF-8 that comes in pieces.
//!
//! In: the pieces of a text message. Out: whether it can still be UTF-8. Always: what is wrong is found with the byte that
//! makes it wrong, wherever the pieces are cut; at most three bytes are remembered.

/// The longest character.
const CHARACTER_BYTES_MAX: usize = 4;

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Utf8 {
    /// A character's first bytes, from the end of the last piece.
    begun: [u8; CHARACTER_BYTES_MAX],
    begun_bytes: u8,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotUtf8;

impl Utf8 {
    pub fn take(&mut self, mut piece: &[u8]) -> Result<(), NotUtf8> {
        while self.begun_bytes > 0 {
            let Some((&byte, rest)) = piece.split_first() else { return Ok(()) };
            piece = rest;
            self.begun[usize::from(self.begun_bytes)] = byte;
            self.begun_bytes += 1;
            match std::str::from_utf8(&self.begun[..usize::from(self.begun_bytes)]) {
                Ok(_) => self.begun_bytes = 0,
                Err(error) if error.error_len().is_some() => return Err(NotUtf8),
                Err(_) => {}
            }
        }
        let Err(error) = std::str::from_utf8(piece) else { return Ok(()) };
        if error.error_len().is_some() {
            return Err(NotUtf8);
        }
        let rest = &piece[error.valid_up_to()..];
        self.begun[..rest.len()].copy_from_slice(rest);
        self.begun_bytes = rest.len() as u8;
        Ok(())
    }

    /// The message is over: no character may be begun.
    pub fn end(&mut self) -> Result<(), NotUtf8> {
        if std::mem::take(&mut self.begun_bytes) == 0 { Ok(()) } else { Err(NotUtf8) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(pieces: &[&[u8]]) -> bool {
        let mut utf8 = Utf8::default();
        pieces.iter().all(|piece| utf8.take(piece).is_ok()) && utf8.end().is_ok()
    }

    #[test]
    fn text_cut_anywhere_is_judged_as_the_whole() {
        let texts: [&[u8]; 7] = [
            "Hello-µ@ßöäüàá-κόσμε-🙂-日本".as_bytes(),
            b"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5\xed\xa0\x80\x65",
            b"\xf4\x90\x80\x80",
            b"\xc0\xaf",
            b"\xf0\x9f\x99",
            b"\x80",
            b"",
        ];
        for text in texts {
            let whole = std::str::from_utf8(text).is_ok();
            for first in 0..=text.len() {
                for second in first..=text.len() {
                    let pieces = [&text[..first], &text[first..second], &text[second..]];
                    assert_eq!(check(&pieces), whole, "{text:x?} cut at {first} and {second}");
                }
            }
        }
    }

    #[test]
    fn what_cannot_become_a_character_is_found_at_its_byte() {
        let mut utf8 = Utf8::default();
        assert_eq!(utf8.take(b"\xf4"), Ok(()));
        assert_eq!(utf8.take(b"\x90"), Err(NotUtf8));
    }
}
