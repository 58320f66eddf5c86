//! What comes over streams.

use std::{
    pin::pin,
    task::{Context, Poll, Waker},
};

use meshwork::network::frame::{read_frame, write_frame};
use meshwork_protocol::{
    codec,
    id::{ChainId, ChunkId, ContentId, DeviceId, ObjectId, OpId},
    limits,
    object::Range,
    seal::SealPublic,
    splice::Token,
    time::Timestamp,
    wire::{
        chunks::{BulkAddress, BulkOffer, BulkSecret, ChunkAt, ChunkHeader, ChunkMessage, FetchItem, Splice},
        pair::{PairMessage, PairSecret, Welcome},
        rendezvous::{Answer, Ask},
        sync::{Frame, ObjectState, Retirement, VectorEntry},
        tunnel::TunnelMessage,
    },
};
use serde::{Serialize, de::DeserializeOwned};
use serde_bytes::{ByteArray, ByteBuf};

/// Decodes a value and asserts that it encodes to the same bytes again.
pub(super) fn canonical<T: Serialize + DeserializeOwned>(bytes: &[u8], max: usize) -> Option<T> {
    let value: T = codec::decode(bytes, max).ok()?;
    assert!(bytes.len() <= max, "more bytes than the limit");
    assert_eq!(codec::encode(&value), bytes, "not canonical");
    Some(value)
}

/// The future's result; it waits for nothing but memory.
fn at_once<F: Future>(future: F) -> F::Output {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => output,
        Poll::Pending => panic!("memory is always ready"),
    }
}

/// A frame of the control stream, with its length before it.
pub(super) fn sync_frame(bytes: &[u8]) -> bool {
    let mut reader = bytes;
    let mut valid = false;
    while let Ok(Some(body)) = at_once(read_frame(&mut reader, limits::SYNC_FRAME)) {
        let mut written = Vec::new();
        at_once(write_frame(&mut written, &body)).expect("memory takes everything");
        assert_eq!(&bytes[bytes.len() - reader.len() - written.len()..][..written.len()], written, "framed as it came");
        if let Ok(frame) = Frame::decode(&body) {
            valid = true;
            assert_eq!(frame.encode(), body, "not canonical");
            let lists = match &frame {
                Frame::Hello { objects, .. } | Frame::Offer { objects } => objects.len() <= limits::SYNC_OBJECTS,
                Frame::ControlHave { heads, .. } => heads.len() <= limits::SYNC_CONTROL_HEADS,
                Frame::ControlItems { items, .. } => items.len() <= limits::SYNC_ITEMS,
                Frame::Vector { entries, .. } | Frame::Announce { entries, .. } => entries.len() <= limits::SYNC_CHAINS,
                Frame::Want { ranges, .. } => ranges.len() <= limits::SYNC_RANGES,
                Frame::Records { records, .. } => records.len() <= limits::SYNC_ITEMS,
                Frame::Retired { chains, .. } => chains.len() <= limits::SYNC_RETIRED,
                Frame::Addresses { devices } => devices.len() <= limits::SYNC_DEVICES,
                Frame::Served { .. } | Frame::KeepAlive {} | Frame::Bye { .. } => true,
            };
            assert!(lists, "a list above its limit in {}", frame.name());
        }
    }
    valid
}

fn framed(body: Vec<u8>) -> Vec<u8> {
    let mut written = Vec::new();
    at_once(write_frame(&mut written, &body)).expect("memory takes everything");
    written
}

pub(super) fn sync_frame_seeds() -> Vec<Vec<u8>> {
    let (object, chain) = (ObjectId([1; 32]), ChainId([2; 16]));
    let state = ObjectState { object, control: ByteArray::new([3; 8]), vector: ByteArray::new([4; 8]) };
    let entry = VectorEntry { chain, seq: 300, prefix: ByteArray::new([5; 8]) };
    let range = Range { chain, first: 1, last: 70_000, after: ByteArray::new([6; 8]) };
    let items = vec![ByteBuf::from(vec![7; 30]), ByteBuf::from(vec![8; 3])];
    let frames = [
        Frame::Hello { version: 1, objects: vec![state, state] },
        Frame::Offer { objects: vec![state] },
        Frame::ControlHave { object, heads: vec![OpId([9; 32]), OpId([10; 32])] },
        Frame::ControlItems { object, items: items.clone(), done: true },
        Frame::Vector { object, entries: vec![entry, entry] },
        Frame::Announce { object, entries: vec![entry] },
        Frame::Want { object, ranges: vec![range.clone(), range] },
        Frame::Records { object, records: items },
        Frame::Retired {
            object,
            chains: vec![Retirement { chain, device: DeviceId([11; 32]), by: ChainId([12; 16]) }],
        },
        Frame::Served { object },
        Frame::KeepAlive {},
        Frame::Bye { reason: 2 },
    ];
    let mut seeds: Vec<Vec<u8>> = frames.iter().map(|frame| framed(frame.encode())).collect();
    seeds.push(seeds.concat());
    seeds
}

/// A message of the receiver of chunks, or what stands before a chunk.
pub(super) fn chunk_message(bytes: &[u8]) -> bool {
    if let Some(header) = bytes.first_chunk().and_then(|bytes| ChunkHeader::parse(*bytes)) {
        assert_eq!(header.to_bytes(), bytes[..ChunkHeader::LEN], "not canonical");
    }
    let Ok(message) = ChunkMessage::decode(bytes) else { return false };
    assert_eq!(message.encode(), bytes, "not canonical");
    let ChunkMessage::Fetch { items, .. } = message else { return true };
    let (mut chunks, mut total) = (0, 0);
    for item in &items {
        let FetchItem::File { chunks: wanted, .. } = item else { continue };
        chunks += wanted.len();
        for chunk in wanted {
            assert!((1..=limits::CHUNK).contains(&chunk.len), "a chunk that no file has");
            assert!(chunk.offset.checked_add(u64::from(chunk.len)).is_some(), "a chunk beyond every file");
            total += u64::from(chunk.len);
        }
    }
    assert!(items.len() <= limits::FETCH_ITEMS && chunks <= limits::FETCH_CHUNKS && total <= limits::FETCH_BYTES);
    true
}

pub(super) fn chunk_message_seeds() -> Vec<Vec<u8>> {
    let chunk = ChunkAt { offset: 70_000, len: 65_536, id: ChunkId([3; 32]) };
    let file = FetchItem::File { content: ContentId([2; 32]), chunks: vec![chunk, ChunkAt { offset: 0, ..chunk }] };
    let blob = FetchItem::Blob { id: ChunkId([4; 32]) };
    let fetch = ChunkMessage::Fetch { object: ObjectId([1; 32]), items: vec![file, blob] };
    let splice = Splice { relay: DeviceId([5; 32]), port: 4003, token: Token([6; 16]) };
    let bulk = [None, Some(splice)].map(|splice| ChunkMessage::Bulk { splice });
    let messages = [fetch, ChunkMessage::Received { bytes: 1 << 33 }].into_iter().chain(bulk);
    let headers = [ChunkHeader::Here(9), ChunkHeader::Gone, ChunkHeader::End].map(|header| header.to_bytes().to_vec());
    messages.map(|message| message.encode()).chain(headers).collect()
}

/// An offer of a bulk connection.
pub(super) fn bulk_offer(bytes: &[u8]) -> bool {
    let Some(offer) = canonical::<BulkOffer>(bytes, 4_096) else { return false };
    assert!(offer.addresses.len() <= limits::BULK_ADDRESSES, "too many addresses");
    true
}

pub(super) fn bulk_offer_seeds() -> Vec<Vec<u8>> {
    let address = |ip: &[u8]| BulkAddress { ip: ByteBuf::from(ip.to_vec()), port: 4001 };
    let addresses = vec![address(&[127, 0, 0, 1]), address(&[1; 16])];
    let offer = BulkOffer { addresses, channel: [5; 16], secret: BulkSecret([6; 32]), aes: true };
    let empty = BulkOffer { addresses: Vec::new(), aes: false, ..offer.clone() };
    vec![codec::encode(&offer), codec::encode(&empty)]
}

/// What the ends of a tunnel say.
pub(super) fn tunnel(bytes: &[u8]) -> bool {
    let Ok(message) = TunnelMessage::decode(bytes) else { return false };
    assert!(bytes.len() <= limits::TUNNEL_FRAME, "more bytes than the limit");
    assert_eq!(message.encode(), bytes, "not canonical");
    true
}

pub(super) fn tunnel_seeds() -> Vec<Vec<u8>> {
    let splice = Splice { relay: DeviceId([7; 32]), port: 4003, token: Token([8; 16]) };
    let open = |splice| TunnelMessage::Open { service: "ssh".parse().expect("a name"), splice };
    let address = BulkAddress { ip: ByteBuf::from(vec![127, 0, 0, 1]), port: 4001 };
    let offer = BulkOffer { addresses: vec![address], channel: [5; 16], secret: BulkSecret([6; 32]), aes: true };
    let messages = [
        open(None),
        open(Some(splice)),
        TunnelMessage::Opened { offer: None },
        TunnelMessage::Opened { offer: Some(offer) },
        TunnelMessage::Refused { code: 1 },
        TunnelMessage::Carry { bulk: true },
    ];
    messages.iter().map(TunnelMessage::encode).collect()
}

/// A question to a bootstrap, or an answer.
pub(super) fn rendezvous(bytes: &[u8]) -> bool {
    let ask = canonical::<Ask>(bytes, limits::RENDEZVOUS_ASK).is_some();
    ask || canonical::<Answer>(bytes, limits::RENDEZVOUS_ANSWER).is_some()
}

pub(super) fn rendezvous_seeds() -> Vec<Vec<u8>> {
    let (place, note) = (ByteArray::new([1; 32]), ByteBuf::from(vec![2; 40]));
    let asks = [
        Ask::Leave { place, note: note.clone() },
        Ask::Look { place },
        Ask::Show { number: 42, note: note.clone() },
        Ask::Seek { number: 9_999 },
        Ask::Probe { port: 4001 },
    ];
    let ip = ByteBuf::from(vec![192, 0, 2, 1]);
    let answers = [
        Answer::Kept { seconds: 7_200 },
        Answer::Notes { notes: vec![note.clone(), note] },
        Answer::Seen { ip, port: 4001, tcp: true, quic: false, time: Timestamp(1 << 50) },
        Answer::Refused { code: 5 },
    ];
    asks.iter().map(Ask::encode).chain(answers.iter().map(Answer::encode)).collect()
}

/// A message of pairing, in clear or sealed, or the welcome.
pub(super) fn pair_message(bytes: &[u8]) -> bool {
    let clear = canonical::<PairMessage>(bytes, limits::PAIR_FRAME).is_some();
    let sealed = canonical::<PairSecret>(bytes, limits::PAIR_FRAME).is_some();
    let Ok(welcome) = Welcome::parse(bytes) else { return clear || sealed };
    assert_eq!(welcome.to_bytes(), bytes, "not canonical");
    assert!(welcome.items.len() <= limits::PAIR_ITEMS && welcome.name.len() <= limits::NAME);
    assert!(welcome.addresses.len() <= limits::PAIR_WELCOME_ADDRESSES);
    true
}

pub(super) fn pair_message_seeds() -> Vec<Vec<u8>> {
    let bytes = ByteBuf::from(vec![7; 33]);
    let clear = [
        PairMessage::Ask { number: 42 },
        PairMessage::Answer { known: true },
        PairMessage::Code { number: 9_999, spake: bytes.clone() },
        PairMessage::Spake { spake: bytes.clone() },
        PairMessage::Link {},
        PairMessage::Noise { bytes: bytes.clone() },
        PairMessage::Refused { declined: false },
    ];
    let (device, seal) = (DeviceId([1; 32]), SealPublic([2; 32]));
    let sealed = [
        PairSecret::Hello { version: 1, device, seal, kind: 0, name: "laptop".to_owned() },
        PairSecret::Waiting {},
        PairSecret::Part { total: 40_000, bytes: bytes.clone() },
        PairSecret::Done {},
    ];
    let addresses = vec!["/ip4/192.0.2.7/udp/4001/quic-v1".to_owned()];
    let welcome = Welcome { items: vec![bytes.clone(), bytes], addresses, name: "home".to_owned() };
    let clear = clear.iter().map(codec::encode);
    clear.chain(sealed.iter().map(codec::encode)).chain([welcome.to_bytes()]).collect()
}
