//! The text form of links: names and values after a prefix, as in the query of a URL.

use zeroize::Zeroizing;

use crate::limits;

const BASE32: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";

/// An id in base32 or hex.
pub fn id_from_text(text: &str) -> Option<[u8; 32]> {
    if let Some(bytes) = crate::id::unhex(text).and_then(|bytes| bytes.try_into().ok()) {
        return Some(bytes);
    }
    from_base32(text)?.as_slice().try_into().ok()
}

/// RFC 4648 base32 in lower case without padding.
pub fn to_base32(bytes: &[u8]) -> String {
    let (mut held, mut bits, mut text) = (0u32, 0u32, String::with_capacity(bytes.len() * 8 / 5 + 1));
    let digit = |value: u32| char::from(BASE32[(value & 31) as usize]);
    for byte in bytes {
        held = (held << 8 | u32::from(*byte)) & 0xfff;
        bits += 8;
        while bits >= 5 {
            bits -= 5;
            text.push(digit(held >> bits));
        }
    }
    if bits > 0 {
        text.push(digit(held << (5 - bits)));
    }
    text
}

/// The one inverse of [`to_base32`]: upper case is allowed, stray bits at the end are not.
pub fn from_base32(text: &str) -> Option<Zeroizing<Vec<u8>>> {
    let (mut held, mut bits, mut bytes) = (0u32, 0u32, Zeroizing::new(Vec::with_capacity(text.len() * 5 / 8 + 1)));
    for letter in text.bytes() {
        let value = BASE32.iter().position(|digit| *digit == letter.to_ascii_lowercase())?;
        held = (held << 5 | u32::try_from(value).ok()?) & 0xfff;
        bits += 5;
        if bits >= 8 {
            bits -= 8;
            bytes.push((held >> bits & 0xff) as u8);
        }
    }
    let clean = bits < 5 && held & ((1 << bits) - 1) == 0;
    clean.then_some(bytes)
}

/// A text as the value of a parameter: percent-encoding (RFC 3986) of all that could end it.
pub fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b':' | b'.' | b'-' | b'_' => {
                escaped.push(char::from(byte))
            }
            _ => escaped.push_str(&format!("%{byte:02x}")),
        }
    }
    escaped
}

/// The inverse of [`escape`]: at most [`limits::ADDRESS`] bytes without control characters.
pub fn unescape(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        let plain = match byte {
            b'%' => crate::id::unhex(&String::from_utf8(vec![rest.next()?, rest.next()?]).ok()?)?.first().copied()?,
            other => other,
        };
        bytes.push(plain);
    }
    let text = String::from_utf8(bytes).ok()?;
    (text.len() <= limits::ADDRESS && !text.chars().any(char::is_control)).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base32_is_that_of_the_rfc() {
        for (plain, coded) in
            [("f", "my"), ("fo", "mzxq"), ("foo", "mzxw6"), ("foob", "mzxw6yq"), ("foobar", "mzxw6ytboi")]
        {
            assert_eq!(to_base32(plain.as_bytes()), coded);
            assert_eq!(from_base32(coded).as_deref().map(Vec::as_slice), Some(plain.as_bytes()));
        }
        assert!(from_base32("mz").is_none() && from_base32("a").is_none() && from_base32("m1").is_none());
    }
}
