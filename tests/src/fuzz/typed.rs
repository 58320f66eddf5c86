//! What a person types or a program asks for.

use meshwork_host::{address::Address, health::HealthAddress};
use meshwork_protocol::{
    contact::{Card, CardDevice, Invitation},
    id::{ChainId, DeviceId, EpochId, MeshId, ObjectId},
    limits,
    pairing::{PairCode, PairLink},
    phrase::Phrase,
    resource::{ResourcePath, Verb},
    seal::SeedRng,
};

fn texts(texts: &[&str]) -> Vec<Vec<u8>> {
    texts.iter().map(|text| text.as_bytes().to_vec()).collect()
}

/// A network address, of a device or of this process's health, or an id.
pub(super) fn address(bytes: &[u8]) -> bool {
    let Ok(text) = str::from_utf8(bytes) else { return false };
    if let Ok(device) = text.parse::<DeviceId>() {
        assert_eq!(device.to_string(), text.to_lowercase(), "an id has one text");
    }
    let other = text.parse::<HealthAddress>().is_ok() | text.parse::<ChainId>().is_ok();
    let Ok(address) = text.parse::<Address>() else { return other };
    let shown = address.to_string();
    assert_eq!(shown.parse(), Ok(address.clone()), "what is shown can be read");
    assert!(address.socket().is_some(), "an address says where");
    let bare = address.without_device();
    assert_eq!(bare.device(), None, "named nobody");
    assert_eq!((bare.path(), bare.socket()), (address.path(), address.socket()), "the same place");
    if let Some(device) = address.device() {
        assert_eq!(bare.with_device(&device).device(), Some(device), "named again");
    }
    assert_eq!(Address::most_useful(&[address.clone(), bare]).len(), 2);
    true
}

pub(super) fn address_seeds() -> Vec<Vec<u8>> {
    let device = DeviceId(*b"\xd7\x5a\x98\x01\x82\xb1\x0a\xb7\xd5\x4b\xfe\xd3\xc9\x64\x07\x3a\x0e\xe1\x72\xf3\xda\xa6\x23\x25\xaf\x02\x1a\x68\xf7\x07\x51\x1a");
    let named = "192.0.2.7:4001".parse::<Address>().map(|address| address.with_device(&device).to_string());
    let mut seeds = texts(&[
        "192.0.2.7:4001",
        "[2001:db8::1]:4001",
        "/ip4/192.0.2.7/udp/4001/quic-v1",
        "/ip4/192.0.2.7/tcp/4001",
        "/ip6/2001:db8::1/tcp/1",
        "/dns4/example.org/tcp/1",
        "/run/mesh/health.sock",
        "127.0.0.1:1",
    ]);
    seeds.extend(named.into_iter().map(String::into_bytes));
    seeds.push(device.to_string().into_bytes());
    seeds
}

/// A contact card or an invitation.
pub(super) fn card(bytes: &[u8]) -> bool {
    let Ok(text) = str::from_utf8(bytes) else { return false };
    let bounded = |card: &Card| {
        let small = card.devices.iter().all(|known| known.addresses.len() <= limits::PAIR_ADDRESSES);
        assert!(small && card.devices.len() <= limits::CARD_DEVICES, "too many devices or addresses");
    };
    match (Card::parse(text), Invitation::parse(text)) {
        (Ok(card), _) => {
            bounded(&card);
            assert_eq!(Card::parse(&card.to_text()), Ok(card), "what is shown can be read");
        }
        (_, Ok(invitation)) => {
            bounded(&invitation.from);
            assert_eq!(Invitation::parse(&invitation.to_text()), Ok(invitation), "what is shown can be read");
        }
        _ => return false,
    }
    true
}

pub(super) fn card_seeds() -> Vec<Vec<u8>> {
    let device = |number, addresses: &[&str]| CardDevice {
        device: DeviceId([number; 32]),
        addresses: addresses.iter().map(ToString::to_string).collect(),
    };
    let devices = vec![device(1, &["/ip4/192.0.2.7/udp/4001/quic-v1", "/a b"]), device(2, &[])];
    let card = Card { mesh: MeshId([3; 32]), name: "Ann & Bo".to_owned(), devices };
    let invitation = Invitation { object: ObjectId([4; 32]), title: "50% off".to_owned(), from: card.clone() };
    let mut seeds = texts(&["mesh-contact:1?m=&n=&d=&a=", "mesh-share:1?o=00"]);
    seeds.extend([card.to_text().into_bytes(), invitation.to_text().into_bytes()]);
    seeds
}

/// A pairing code.
pub(super) fn pair_code(bytes: &[u8]) -> bool {
    let Ok(text) = str::from_utf8(bytes) else { return false };
    let Ok(code) = PairCode::parse(text) else { return false };
    assert!((1..=9_999).contains(&code.number()), "a number that is never given");
    assert!(PairCode::parse(&code.to_text()) == Ok(code), "what is shown can be read");
    true
}

pub(super) fn pair_code_seeds() -> Vec<Vec<u8>> {
    let code = PairCode::generate(&mut SeedRng::new([1; 32]));
    let mut seeds = texts(&["42-apple-river-stone", " 7 ZOO, zoo – zoo ", "10000-able-zoo-zoo", "7-aple-able-zoo"]);
    seeds.push(code.to_text().as_bytes().to_vec());
    seeds
}

/// A pairing link.
pub(super) fn pair_link(bytes: &[u8]) -> bool {
    let Ok(text) = str::from_utf8(bytes) else { return false };
    let Ok(link) = PairLink::parse(text) else { return false };
    assert!(link.addresses().len() <= limits::PAIR_ADDRESSES, "too many addresses");
    let shown = link.to_text();
    if shown.len() <= limits::TYPED {
        assert!(PairLink::parse(&shown) == Ok(link), "what is shown can be read");
    }
    true
}

pub(super) fn pair_link_seeds() -> Vec<Vec<u8>> {
    let addresses = ["/ip4/10.0.0.1/tcp/1".to_owned(), "[::1]:4001 & more=é".to_owned()];
    let link = PairLink::generate(&mut SeedRng::new([2; 32]), DeviceId([9; 32]), &addresses);
    let text = link.to_text().to_string();
    let hex = format!("{}&d={}", text.split("&d=").next().unwrap_or_default(), DeviceId([9; 32]));
    vec![text.replace("&a=", "&x=1&a=").into_bytes(), text.into_bytes(), hex.into_bytes()]
}

/// A recovery phrase.
pub(super) fn phrase(bytes: &[u8]) -> bool {
    let Ok(text) = str::from_utf8(bytes) else { return false };
    let Ok(phrase) = Phrase::parse(text) else { return false };
    assert!(Phrase::from_entropy(&phrase.entropy()) == phrase, "a phrase is its entropy");
    assert!(Phrase::parse(&phrase.to_text()) == Ok(phrase), "what is shown can be read");
    true
}

pub(super) fn phrase_seeds() -> Vec<Vec<u8>> {
    let known = [Phrase::from_entropy(&[0; 16]), Phrase::generate(&mut SeedRng::new([3; 32]))];
    let numbered =
        known[1].words().enumerate().map(|(at, word)| format!(" {}. {},\n", at + 1, word.to_uppercase())).collect();
    let texts = known.iter().map(|phrase| phrase.to_text().to_string());
    texts.chain([numbered]).map(String::into_bytes).collect()
}

/// A request for a resource: a verb and a path.
pub(super) fn resource(bytes: &[u8]) -> bool {
    let Ok(text) = str::from_utf8(bytes) else { return false };
    let (verb, path) = text.split_once(' ').unwrap_or(("", text));
    if let Ok(verb) = verb.parse::<Verb>() {
        assert_eq!(verb.name(), text.split(' ').next().unwrap_or_default(), "verbs are exact");
    }
    let _ = path.parse::<ObjectId>().map(|id| EpochId(id.0[..16].try_into().expect("16 of 32")));
    let Ok(path) = path.parse::<ResourcePath>() else { return false };
    let components = path.components();
    assert!((1..=limits::RESOURCE_COMPONENTS).contains(&components.len()), "too many components");
    let climbs = |name: &String| name == "." || name == ".." || name.contains(['/', '\0']) || name.is_empty();
    assert!(!components.iter().any(climbs), "a path that climbs");
    let shown = path.to_string();
    if shown.len() <= limits::RESOURCE_PATH {
        assert_eq!(shown.parse(), Ok(path), "what is shown can be read");
    }
    true
}

pub(super) fn resource_seeds() -> Vec<Vec<u8>> {
    texts(&[
        "GET /v1/folders/My%20photos/status",
        "POST /v1/recovery/confirm",
        "PUT /v1/settings/n%C3%A4me",
        "DELETE /v1/devices/%2e%2e",
        "/v1/a%2Fb/%zz",
    ])
}
