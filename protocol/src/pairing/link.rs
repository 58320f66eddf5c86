//! The link, also shown as a picture for a camera: a secret of 128 bits, the device, and where to find it.

use rand_core::CryptoRng;
use zeroize::Zeroizing;

use crate::{
    id::DeviceId,
    limits,
    link::{escape, from_base32, id_from_text, to_base32, unescape},
};

const PREFIX: &str = "mesh-pair:1?";
const SECRET: usize = 16;
const PSK_CONTEXT: &str = "mesh 2026 pair link v1";

/// A link was not read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LinkError {
    /// Not a pairing link, or one of a later version.
    #[error("this is not a pairing link that this version knows: it begins with mesh-pair:1?")]
    Prefix,
    /// The secret or the device is missing or damaged.
    #[error("the pairing link is incomplete or damaged; copy it again")]
    Damaged,
    /// Longer than any link that Meshwork makes.
    #[error("the pairing link is too long")]
    Oversize,
}

/// A pairing link: `mesh-pair:1?s=<secret>&d=<device>&a=<address>…`. Wiped when dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct PairLink {
    secret: Zeroizing<[u8; SECRET]>,
    device: DeviceId,
    addresses: Vec<String>,
}

impl PairLink {
    /// A new link to `device`; of the addresses the first four that are short enough are kept.
    pub fn generate(rng: &mut impl CryptoRng, device: DeviceId, addresses: &[String]) -> Self {
        let mut secret = Zeroizing::new([0; SECRET]);
        rng.fill_bytes(secret.as_mut());
        let fits = |address: &&String| address.len() <= limits::ADDRESS;
        let addresses = addresses.iter().filter(fits).take(limits::PAIR_ADDRESSES).cloned().collect();
        Self { secret, device, addresses }
    }

    /// Reads a link. The device may be in base32 or hex; parameters of other names are passed over.
    pub fn parse(text: &str) -> Result<Self, LinkError> {
        let text = text.trim();
        if text.len() > limits::TYPED {
            return Err(LinkError::Oversize);
        }
        let query = text.strip_prefix(PREFIX).ok_or(LinkError::Prefix)?;
        let (mut secret, mut device, mut addresses) = (None, None, Vec::new());
        for (name, value) in query.split('&').filter_map(|part| part.split_once('=')) {
            match name {
                "s" => secret = from_base32(value).and_then(|bytes| <[u8; SECRET]>::try_from(bytes.as_slice()).ok()),
                "d" => device = id_from_text(value).map(DeviceId),
                "a" if addresses.len() < limits::PAIR_ADDRESSES => {
                    addresses.push(unescape(value).ok_or(LinkError::Damaged)?);
                }
                _ => {}
            }
        }
        let secret = Zeroizing::new(secret.ok_or(LinkError::Damaged)?);
        Ok(Self { secret, device: device.ok_or(LinkError::Damaged)?, addresses })
    }

    /// The device that made the link.
    pub fn device(&self) -> DeviceId {
        self.device
    }

    /// Where it may be reached, in text form.
    pub fn addresses(&self) -> &[String] {
        &self.addresses
    }

    /// The link as it is shown.
    pub fn to_text(&self) -> Zeroizing<String> {
        let mut text = Zeroizing::new(String::with_capacity(limits::TYPED));
        text.push_str(PREFIX);
        text.push_str("s=");
        text.push_str(&Zeroizing::new(to_base32(self.secret.as_ref())));
        text.push_str("&d=");
        text.push_str(&to_base32(self.device.as_bytes()));
        for address in &self.addresses {
            text.push_str("&a=");
            text.push_str(&escape(address));
        }
        text
    }

    /// The pre-shared key of the handshake.
    pub(super) fn psk(&self) -> Zeroizing<[u8; 32]> {
        Zeroizing::new(blake3::derive_key(PSK_CONTEXT, self.secret.as_ref()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seal::SeedRng;

    fn sample(seed: u8) -> PairLink {
        let addresses: Vec<String> =
            ["/ip4/192.168.1.7/tcp/4001", "/dns4/x y&=%.example/udp/1/quic-v1", "/a", "/b", "/c"]
                .map(String::from)
                .into();
        PairLink::generate(&mut SeedRng::new([seed; 32]), DeviceId([0xa5 ^ seed; 32]), &addresses)
    }

    #[test]
    fn links_round_trip() {
        for seed in 0..50 {
            let link = sample(seed);
            let text = link.to_text();
            assert!(PairLink::parse(&text).as_ref() == Ok(&link), "{}", *text);
            assert_eq!(link.addresses().len(), 4);
            let hex = text.replace(&to_base32(link.device().as_bytes()), &link.device().to_string());
            assert!(PairLink::parse(&format!(" {hex}&new=1\n")).as_ref() == Ok(&link));
        }
        let text = sample(0).to_text();
        let secret = text.split(['=', '&']).nth(1).map(str::len);
        assert_eq!(secret, Some(26));
    }

    #[test]
    fn damaged_links_are_refused() {
        let text = sample(3).to_text();
        let end = text.find("&a=").unwrap_or_default();
        for cut in 0..end {
            assert!(PairLink::parse(&text[..cut]).is_err(), "{cut}");
        }
        assert_eq!(PairLink::parse("mesh-pair:2?s=a").err(), Some(LinkError::Prefix));
        assert_eq!(PairLink::parse(&format!("{}{}", *text, "a".repeat(2_000))).err(), Some(LinkError::Oversize));
        assert_eq!(PairLink::parse(&format!("{}&a=%f", &text[..end])).err(), Some(LinkError::Damaged));
        assert_eq!(PairLink::parse(&format!("{}&a=%0a", &text[..end])).err(), Some(LinkError::Damaged));
    }
}
