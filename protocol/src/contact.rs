//! Contact cards and invitations: how one person tells another who he is and what he shares, in a link.
//!
//! A card names a mesh by the id of its genesis, which nobody else can make, and some of its devices. Who reads a card
//! believes that devices and addresses are of that mesh only until the mesh's control log is here and says so itself.

use crate::{
    id::{DeviceId, MeshId, ObjectId},
    limits,
    link::{escape, id_from_text, to_base32, unescape},
    pairing::is_name,
    wire_struct,
};

const CARD: &str = "mesh-contact:1?";
const INVITATION: &str = "mesh-share:1?";

/// A text is not a card or an invitation.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CardError {
    /// Another sort of text, or one of a later version.
    #[error("this is not a link that this version knows: it begins with {0}")]
    Prefix(&'static str),
    /// Something is missing or damaged.
    #[error("the link is incomplete or damaged; copy it again")]
    Damaged,
    /// Longer than any that Meshwork makes.
    #[error("the link is too long")]
    Oversize,
}

/// A device of a person, and where it may be reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CardDevice {
    /// The device.
    pub device: DeviceId,
    /// Addresses in text form, at most [`limits::PAIR_ADDRESSES`].
    pub addresses: Vec<String>,
}
wire_struct!(CardDevice { device, addresses });

/// Who a person is: `mesh-contact:1?m=<mesh>&n=<name>&d=<device>&a=<address>…`, the addresses after their device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Card {
    /// The person's mesh.
    pub mesh: MeshId,
    /// What he calls himself.
    pub name: String,
    /// Some of his devices, at most [`limits::CARD_DEVICES`].
    pub devices: Vec<CardDevice>,
}

/// What a person shares with another: `mesh-share:1?o=<object>&t=<title>&…`, followed by the parameters of his card.
/// It gives no right by itself: that is a grant in the object's control log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invitation {
    /// The object.
    pub object: ObjectId,
    /// What its owner calls it.
    pub title: String,
    /// Who invites.
    pub from: Card,
}

impl Card {
    /// Reads a card. Parameters of other names are passed over.
    pub fn parse(text: &str) -> Result<Self, CardError> {
        Self::from_query(query(text, CARD)?)
    }

    /// The card as it is shown.
    pub fn to_text(&self) -> String {
        format!("{CARD}{}", self.to_query())
    }

    fn from_query(query: &str) -> Result<Self, CardError> {
        let (mut mesh, mut name, mut devices) = (None, None, Vec::<CardDevice>::new());
        for (key, value) in parameters(query) {
            match key {
                "m" => mesh = id_from_text(value).map(MeshId),
                "n" => name = unescape(value).filter(|name| is_name(name)),
                "d" if devices.len() < limits::CARD_DEVICES => {
                    let device = id_from_text(value).map(DeviceId).ok_or(CardError::Damaged)?;
                    devices.push(CardDevice { device, addresses: Vec::new() });
                }
                "a" => {
                    let address = unescape(value).ok_or(CardError::Damaged)?;
                    let last = devices.last_mut().ok_or(CardError::Damaged)?;
                    if last.addresses.len() < limits::PAIR_ADDRESSES {
                        last.addresses.push(address);
                    }
                }
                _ => {}
            }
        }
        let (mesh, name) = (mesh.ok_or(CardError::Damaged)?, name.ok_or(CardError::Damaged)?);
        if devices.is_empty() {
            return Err(CardError::Damaged);
        }
        Ok(Card { mesh, name, devices })
    }

    fn to_query(&self) -> String {
        let mut query = format!("m={}&n={}", to_base32(self.mesh.as_bytes()), escape(&self.name));
        for CardDevice { device, addresses } in self.devices.iter().take(limits::CARD_DEVICES) {
            query.push_str(&format!("&d={}", to_base32(device.as_bytes())));
            let fitting = addresses.iter().filter(|address| address.len() <= limits::ADDRESS);
            fitting.take(limits::PAIR_ADDRESSES).for_each(|address| query.push_str(&format!("&a={}", escape(address))));
        }
        query
    }
}

impl Invitation {
    /// Reads an invitation. Parameters of other names are passed over.
    pub fn parse(text: &str) -> Result<Self, CardError> {
        let query = query(text, INVITATION)?;
        let (mut object, mut title) = (None, None);
        for (key, value) in parameters(query) {
            match key {
                "o" => object = id_from_text(value).map(ObjectId),
                "t" => title = unescape(value).filter(|title| is_name(title)),
                _ => {}
            }
        }
        let (object, title) = (object.ok_or(CardError::Damaged)?, title.ok_or(CardError::Damaged)?);
        Ok(Invitation { object, title, from: Card::from_query(query)? })
    }

    /// The invitation as it is shown.
    pub fn to_text(&self) -> String {
        let (object, title) = (to_base32(self.object.as_bytes()), escape(&self.title));
        format!("{INVITATION}o={object}&t={title}&{}", self.from.to_query())
    }
}

fn query<'t>(text: &'t str, prefix: &'static str) -> Result<&'t str, CardError> {
    let text = text.trim();
    if text.len() > limits::CARD {
        return Err(CardError::Oversize);
    }
    text.strip_prefix(prefix).ok_or(CardError::Prefix(prefix))
}

fn parameters(query: &str) -> impl Iterator<Item = (&str, &str)> {
    query.split('&').filter_map(|part| part.split_once('='))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn card() -> Card {
        let device = |byte, addresses: &[&str]| CardDevice {
            device: DeviceId([byte; 32]),
            addresses: addresses.iter().map(ToString::to_string).collect(),
        };
        Card {
            mesh: MeshId([7; 32]),
            name: "Ann & Bo = friends".to_owned(),
            devices: vec![
                device(1, &["/ip4/192.0.2.7/udp/4001/quic-v1", "/ip6/2001:db8::7/tcp/1"]),
                device(2, &[]),
                device(3, &["/ip4/198.51.100.1/tcp/4711"]),
            ],
        }
    }

    #[test]
    fn cards_and_invitations_round_trip() {
        let card = card();
        assert_eq!(Card::parse(&format!(" {}&later=1\n", card.to_text())), Ok(card.clone()));
        let invitation = Invitation { object: ObjectId([9; 32]), title: "Trip 50% off".to_owned(), from: card };
        assert_eq!(Invitation::parse(&invitation.to_text()), Ok(invitation));
    }

    #[test]
    fn damaged_ones_are_refused() {
        let text = Invitation { object: ObjectId([9; 32]), title: "Trip".to_owned(), from: card() }.to_text();
        let device = text.find("&d=").unwrap_or_default() + "&d=".len();
        for cut in 0..device + 51 {
            assert!(Invitation::parse(&text[..cut]).is_err(), "{}", &text[..cut]);
        }
        assert_eq!(Card::parse(&text), Err(CardError::Prefix(CARD)));
        assert_eq!(Invitation::parse(&format!("{text}{}", "a".repeat(limits::CARD))), Err(CardError::Oversize));
        assert_eq!(Invitation::parse(&text.replace("t=Trip", "t=%0a")), Err(CardError::Damaged));
        assert_eq!(Card::parse(&format!("{CARD}m={}&n=x&a=/b", to_base32(&[1; 32]))), Err(CardError::Damaged));
    }

    #[test]
    fn the_largest_invitation_fits() {
        let long = |byte| "x".repeat(limits::NAME - 1) + &char::from(byte).to_string();
        let device = |byte| CardDevice {
            device: DeviceId([byte; 32]),
            addresses: (0..limits::PAIR_ADDRESSES as u8)
                .map(|n| "/".repeat(limits::ADDRESS - 1) + &n.to_string())
                .collect(),
        };
        let devices = (0..limits::CARD_DEVICES as u8).map(device).collect();
        let from = Card { mesh: MeshId([7; 32]), name: long(b'n'), devices };
        let invitation = Invitation { object: ObjectId([9; 32]), title: long(b't'), from };
        assert_eq!(Invitation::parse(&invitation.to_text()), Ok(invitation));
    }
}
