//! Frames that no honest device sends.

use meshwork_protocol::wire::sync::{Reason, VectorEntry};

use super::*;
use crate::sync::Counters;

/// Sends what must be refused: nothing changes but the counter.
fn refused(scene: &mut Scene, bytes: Vec<u8>, counter: impl Fn(&Counters) -> u64) {
    let (before, count) = (scene.state(), counter(&scene.victim().sync_counters()));
    scene.say_bytes(ATTACKER, bytes);
    assert_eq!(counter(&scene.victim().sync_counters()), count + 1);
    assert_eq!(scene.state(), before);
}

#[test]
fn junk() {
    for bytes in [vec![], vec![0xff], vec![0x82, 9], vec![0x81, 200]] {
        refused(&mut Scene::new(), bytes, |counters| counters.malformed);
    }
}

#[test]
fn a_frame_that_is_too_long() {
    refused(&mut Scene::new(), vec![0x80; limits::SYNC_FRAME + 1], |counters| counters.malformed);
}

#[test]
fn a_record_that_is_too_long() {
    let mut scene = Scene::new();
    let records = vec![ByteBuf::from(vec![0; limits::RECORD + 1])];
    let frame = Frame::Records { object: scene.folder, records };
    refused(&mut scene, frame.encode(), |counters| counters.malformed);
}

#[test]
fn a_second_greeting() {
    let hello = Frame::Hello { version: sync_frames::VERSION, objects: Vec::new() };
    refused(&mut Scene::new(), hello.encode(), |counters| counters.out_of_order);
}

#[test]
fn an_older_version_ends_the_stream() {
    let mut scene = Scene::new();
    let peer = scene.device(ATTACKER);
    scene.input(VICTIM, Input::PeerUp(peer));
    let before = scene.state();
    let bytes = Frame::Hello { version: 0, objects: Vec::new() }.encode();
    let out = scene.nodes[VICTIM].replica.handle(scene.now, &mut scene.rng, Input::Frame { peer, bytes });
    assert!(out.iter().any(|it| matches!(it, Output::Disconnect { reason: Reason::Version, .. })));
    assert_eq!(scene.state(), before);
}

#[test]
fn an_object_that_is_not_known() {
    let mut scene = Scene::new();
    let object = ObjectId([9; 32]);
    let frames = [
        Frame::Records { object, records: vec![ByteBuf::from(vec![1])] },
        Frame::ControlItems { object, items: Vec::new(), done: true },
        Frame::ControlHave { object, heads: Vec::new() },
        Frame::Announce { object, entries: Vec::new() },
        Frame::Want { object, ranges: Vec::new() },
    ];
    for frame in frames {
        refused(&mut scene, frame.encode(), |counters| counters.not_allowed);
    }
}

#[test]
fn claims_of_more_chains_than_there_may_be() {
    let mut scene = Scene::new();
    let entry = |number: u64| {
        let mut chain = [1; 16];
        chain[..8].copy_from_slice(&number.to_be_bytes());
        VectorEntry { chain: ChainId(chain), seq: 1, prefix: Default::default() }
    };
    let object = scene.folder;
    let many = (0..limits::SYNC_CHAINS as u64).map(entry).collect();
    scene.say(ATTACKER, &Frame::Announce { object, entries: many });
    let count = scene.victim().sync_counters().over_claimed;
    let one = Frame::Announce { object, entries: vec![entry(u64::MAX)] };
    refused(&mut scene, one.encode(), |counters| counters.over_claimed - count);
}

#[test]
fn three_faults_end_the_stream() {
    let mut scene = Scene::new();
    let before = scene.state();
    for _ in 0..limits::STRIKES {
        scene.say_bytes(ATTACKER, vec![0xff]);
    }
    assert_eq!(scene.victim().sync_counters().closed, 1);
    let record = scene.write_link("a");
    scene.send_record(scene.folder, record);
    assert_eq!(scene.state(), before, "what comes after the end is not heard");
}
